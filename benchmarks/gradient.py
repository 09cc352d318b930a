"""The cost of a filter bank: W and W^T by polyphase stride, against the matrix-product rate of the same run.

    python benchmarks/gradient.py --threads 2

*Executed* counts the multiplications of the polyphase form, *useful* those of the plain convolution.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
import typer
from timing import seconds

from icgn import FilterBank


@torch.no_grad()
def main(
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    filters: Annotated[int, typer.Option(help="Filters.")] = 48,
    size: Annotated[int, typer.Option(help="Side of a filter.")] = 9,
) -> None:
    """Time W and W^T on a 321 x 481 picture, gray and colour."""
    torch.set_num_threads(threads)
    a = torch.randn(2048, 2048)
    rate = 2 * 2048**3 / seconds(lambda: a @ a)
    print(f"matrix product {rate / 1e9:.0f} GFLOP/s, {threads} threads; {filters} filters {size} x {size}")
    print("channels stride    W ms   W^T ms   executed   useful   (GFLOP/s, W and W^T)")
    for channels in (1, 3):
        bank = FilterBank(filters, size, channels)
        x = torch.rand(1, channels, 321, 481)
        for stride in (1, 2, 4):
            op = bank.operator(stride=stride)
            u = op.apply(x)
            forward = seconds(partial(op.apply, x))
            backward = seconds(partial(op.adjoint, u, x.shape))
            executed = 4 * u.numel() * op.kernel[0].numel() / (forward + backward)
            useful = 4 * 321 * 481 * bank.raw.numel() / (forward + backward)
            print(
                f"{channels:8d} {stride:6d} {forward * 1e3:7.1f} {backward * 1e3:8.1f}"
                f" {executed / 1e9:6.0f} ({executed / rate:.0%}) {useful / 1e9:4.0f}"
            )


if __name__ == "__main__":
    typer.run(main)
