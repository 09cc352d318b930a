"""One process, or the several that ``accelerate launch`` or ``torchrun`` started."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from icgn.compat import keyword_only

T = TypeVar("T")


class Processes:
    """The processes of a run, by Hugging Face Accelerate where there are several (gloo on CPUs, nccl on GPUs).

    Parameters
    ----------
    device : str or torch.device, optional
        where to compute. With several processes on GPUs each takes its own; default: a GPU where there is one.

    Attributes
    ----------
    rank, count : int
        number of this process, and of all.
    device : torch.device
        of this process.

    Raises
    ------
    ModuleNotFoundError
        if several processes were launched without Accelerate (``pip install 'icgn[train]'``).
    """

    @keyword_only
    def __init__(self, *, device: str | torch.device | None = None) -> None:
        default = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(default if device is None else device)
        self.rank, self.count = 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
            return
        try:
            from accelerate import PartialState
        except ImportError:
            raise ModuleNotFoundError(
                "several processes need accelerate, expected: pip install 'icgn[train]'"
            ) from None
        state = PartialState(cpu=self.device.type == "cpu")
        self.rank, self.count, self.device = state.process_index, state.num_processes, state.device
        if state.backend == "gloo":
            # Gloo's threads may still hold tensors when the interpreter is torn down, and freeing those then aborts
            # the process (pytorch/pytorch#179291). NCCL has no such threads, and could wait here for a process that
            # failed. Closing twice does nothing.
            atexit.register(state.destroy_process_group)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The part of some items that falls to this process: every `count`-th."""
        return items[self.rank :: self.count]

    def sum(self, t: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.count == 1:
            return t
        from accelerate.utils import reduce

        total: Tensor = reduce(t, "sum")
        return total

    def gather(self, items: list[T]) -> list[T]:
        """The items of all processes, in the order of their ranks, in every one of them."""
        if self.count == 1:
            return items
        from accelerate.utils import gather_object

        everything: list[T] = gather_object(items)
        return everything

    def from_main(self, make: Callable[[], T]) -> T:
        """What the main process makes, in all of them; an error it meets is raised in all of them."""
        if self.count == 1:
            return make()
        from accelerate.utils import broadcast_object_list

        outcome: list[Any] = [None]
        if self.is_main:
            try:
                outcome = [make()]
            except Exception as error:
                outcome = [error]
        broadcast_object_list(outcome)
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        made: T = outcome[0]
        return made
