"""Bands of rows of a picture, one for each of several processes of ``torch.distributed``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """The band of rows that a process has of every picture, and sums over all processes.

    Attributes
    ----------
    rank, count : int
        number of this process in the group, and of all.
    group : torch.distributed.ProcessGroup or None
        the processes; None for all that were launched.
    step : int
        bands begin at multiples of so many rows.
    """

    rank: int
    count: int
    group: Any
    step: int

    @classmethod
    def among(cls, group: Any, step: int) -> Share:
        """That of this process in a group.

        Raises
        ------
        RuntimeError
            if ``torch.distributed`` has not been initialized.
        """
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError(
                "torch.distributed: got no process group, expected torch.distributed.init_process_group(...) first,"
                " in processes that torchrun started"
            )
        return cls(dist.get_rank(group), dist.get_world_size(group), group, step)

    def rows(self, count: int) -> slice:
        """The rows of this process, of so many in all."""
        cells = -(-count // self.step)
        first, last = (cells * rank // self.count * self.step for rank in (self.rank, self.rank + 1))
        return slice(first, min(last, count))

    def fewest(self) -> int:
        """Rows of a picture from which every process has some."""
        return (self.count - 1) * self.step + 1

    def sum(self, t: Tensor) -> Tensor:
        """The sum of a tensor over the processes, the same in all of them, to the last bit."""
        total = t.contiguous().clone()
        dist.all_reduce(total, group=self.group)
        return total

    def joined(self, own: Tensor, count: int) -> Tensor:
        """Pictures (B, C, rows, cols) of so many rows in all, from the rows of each process."""
        whole = own.new_zeros(*own.shape[:2], count, own.shape[-1])
        whole[..., self.rows(count), :] = own
        dist.all_reduce(whole, group=self.group)
        return whole
