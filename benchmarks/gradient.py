"""The cost of one gradient of the shipped ridge networks, against the matrix-product rate of the same run.

    python benchmarks/gradient.py

One gradient W^T psi(W x) of a 321 x 481 picture: the polyphase form with strides 2 and 4, the plain convolution (stride
1), and the fast Fourier transform. *Executed* counts the multiplications and additions of the polyphase kernels, their
structural zeros included, *useful* those of the filters as they are. All are timed in turns with matrix products of the
same type, and the fastest of each counts: other programs only slow down. Where a CPU has no instructions for bfloat16
it is very slow: it is measured on a small picture. Last, a denoising problem is solved in float32 from the solution of
one with bfloat16 convolutions, and without.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import deepinv
import torch
import torch.nn.functional as F  # noqa: N812
import typer
from scipy.fft import next_fast_len
from torch import Tensor

import icgn
from icgn.datasets import add_noise, bundled
from icgn.regularizers import RidgeICGN
from icgn.regularizers.bank import BankFunctional
from icgn.regularizers.filters import FilterOperator, best_stride
from icgn.regularizers.ridge_head import RidgeHead
from icgn.solvers import ConvexFunctional

SIZE, SMALL = (321, 481), (81, 121)
# Filters transformed at once.
_GROUP = 8


class Half(FilterOperator):
    """A filter bank whose convolutions are computed in bfloat16; planes and pictures keep their precision."""

    @classmethod
    def of(cls, op: FilterOperator) -> Half:
        """The operator with bfloat16 kernels."""
        return cls(op.weight, op.border, op.stride, op.kernel.bfloat16())

    def to(self, dtype: torch.dtype) -> FilterOperator:
        """The exact operator in the given precision, which certificates ask for; in float32 this one."""
        if dtype is torch.float32:
            return self
        return FilterOperator.build(self.weight.to(dtype), self.border, self.stride)

    def apply(self, x: Tensor) -> Tensor:
        return super().apply(x.bfloat16()).to(x.dtype)

    def adjoint_of(self, f: Callable[..., Tensor], planes: tuple[Tensor, ...], shape: torch.Size) -> Tensor:
        return super().adjoint_of(lambda *p: f(*p).bfloat16(), planes, shape)


class HalfRidge:
    """A ridge network with bfloat16 convolutions, as a problem asks for a regularizer."""

    def __init__(self, ridge: RidgeICGN) -> None:
        self.ridge = ridge

    def at(self, sigma: float | Tensor | None = None, condition: Tensor | None = None) -> ConvexFunctional:
        """The functional at sigma."""
        functional = self.ridge.at(sigma, condition)
        return replace(functional, bank=replace(functional.bank, operator=Half.of(functional.bank.operator)))

    def check_image(self, x: Tensor) -> None:
        """As the network itself."""
        self.ridge.check_image(x)


class Fourier:
    """The gradient by fast Fourier transforms of the picture and of the responses, filters in groups."""

    def __init__(self, functional: BankFunctional, size: tuple[int, int]) -> None:
        w, head, stride = functional.bank.operator.weight, functional.head, functional.bank.operator.stride
        assert isinstance(head, RidgeHead)
        self.knee, self.activation, self.margin = head.knee[:, 0, 0, :: stride**2], head.activation, w.shape[-1] // 2
        self.size = [next_fast_len(n + w.shape[-1] - 1, real=True) for n in size]
        self.spectra = torch.fft.rfft2(w, s=self.size).split(_GROUP)

    def grad(self, x: Tensor) -> Tensor:
        """The gradient at a picture (1, C, H, W), for one hidden unit per filter and mirrored borders."""
        m, (rows, cols) = self.margin, x.shape[-2:]
        with torch.enable_grad():
            inner = x.detach().requires_grad_()
            extended = F.pad(inner, (m, m, m, m), mode="reflect")
        picture = torch.fft.rfft2(extended.detach(), s=self.size)
        total = torch.zeros_like(picture)
        for spectrum, knee in zip(self.spectra, self.knee.split(_GROUP, 1), strict=True):
            u = torch.fft.irfft2((picture * spectrum.conj()).sum(1), s=self.size)[..., :rows, :cols]
            z = self.activation.clip(u, knee[0, :, None, None])
            total += (torch.fft.rfft2(z, s=self.size)[:, None] * spectrum).sum(0)
        back = torch.fft.irfft2(total, s=self.size)[..., : rows + 2 * m, : cols + 2 * m]
        return torch.autograd.grad(extended, inner, back)[0]


@dataclass(frozen=True)
class Way:
    """A way to compute the gradient, and the multiplications and additions of its kernels where they are counted."""

    name: str
    run: Callable[[], Any]
    executed: float | None


def with_operator(functional: BankFunctional, operator: FilterOperator) -> BankFunctional:
    """A ridge functional with another operator of the same filters, whose stride may be another."""
    head, phases = functional.head, functional.bank.operator.stride**2
    assert isinstance(head, RidgeHead)
    knee, ratio = (operator.spread(t[:, :, 0, ::phases]) for t in (head.knee, head.ratio))
    return BankFunctional(replace(head, knee=knee, ratio=ratio), replace(functional.bank, operator=operator))


def ways(functional: BankFunctional, x: Tensor, dtype: torch.dtype) -> list[Way]:
    """All ways for a picture x with convolutions in a precision; in bfloat16 the stride in use only."""
    found, op = [], functional.bank.operator
    single = dtype is torch.float32
    for stride in (1, 2, 4) if single else (best_stride(op.weight),):
        own = FilterOperator.build(op.weight, op.border, stride)
        planes = own.apply(x).numel()
        changed = with_operator(functional, own if single else Half.of(own))
        name = f"polyphase {stride}" if stride > 1 else "direct"
        found.append(Way(name, partial(changed.grad, x), 4 * planes * own.kernel[0].numel()))
    return [*found, Way("FFT", partial(Fourier(functional, x.shape[-2:]).grad, x), None)] if single else found


def fastest(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of each, the least of some rounds in which all take turns, after one to warm up."""
    best = dict.fromkeys(runs, math.inf)
    for i in range(rounds + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - begin) if i else math.inf
    return best


def gradients(
    network: RidgeICGN, size: tuple[int, int], dtype: torch.dtype, sides: tuple[int, ...], rounds: int
) -> None:
    """Print the table of a network with convolutions in a precision; matrix products have the given sides."""
    functional = network.at(25 / 255)
    weight = functional.bank.operator.weight
    x = torch.rand(1, weight.shape[1], *size, generator=torch.Generator().manual_seed(0))
    exact = functional.to(torch.float64).grad(x.double())
    all_ways = ways(functional, x, dtype)
    squares = {f"product {n}": (torch.randn(n, n).to(dtype), n) for n in sides}
    products = {name: partial(torch.mm, a, a) for name, (a, _) in squares.items()}
    times = fastest({**products, **{w.name: w.run for w in all_ways}}, rounds)
    rate = max(2 * n**3 / times[name] for name, (_, n) in squares.items())
    useful = 4 * math.prod(functional.bank.operator.grid(x.shape)) * weight.numel()
    label = str(dtype).removeprefix("torch.")
    print(f"  {size[0]} x {size[1]}, convolutions in {label}; matrix product {rate / 1e9:.1f} GFLOP/s")
    for way in all_ways:
        seconds = times[way.name]
        executed = _rate(way.executed / seconds, rate) if way.executed else f"{'-':>14s}"
        error = float((way.run() - exact).abs().max() / exact.abs().max())
        print(f"    {way.name:12s} {seconds * 1e3:8.1f} ms {executed} {_rate(useful / seconds, rate)}   {error:.0e}")


def _rate(value: float, product: float) -> str:
    return f"{value / 1e9:7.1f} ({value / product:4.0%})"


def start(model: str, network: RidgeICGN, side: int, first: float) -> None:
    """Print a denoising solved in float32 alone, and with a start in bfloat16 to an RMS distance of `first`."""
    y = add_noise(bundled(gray=True).find("camera").image[:, :side, :side], 0.1, 0)[None]
    identity = deepinv.physics.Denoising()
    problem = icgn.Problem(y, identity, network, 0.1)
    rough = icgn.Problem(y, identity, HalfRidge(network), 0.1)
    print(f"{model}, {side} x {side}, sigma 0.1, tol 1e-4")
    alone = icgn.solve(problem)
    half = icgn.solve(rough, tol=first, max_iter=60)
    finish = icgn.solve(problem, x0=half.x)
    total = half.stats.seconds + finish.stats.seconds
    for name, sol, seconds in (
        ("float32 alone", alone, alone.stats.seconds),
        ("bfloat16 start", half, half.stats.seconds),
        ("float32 finish", finish, total),
    ):
        print(
            f"  {name:15s} {int(sol.stats.iterations[0]):4d} iterations {seconds:7.2f} s in all,"
            f" certified distance {float(sol.certificate.rms_distance[0]):.1e}, {sol.status[0].name.lower()}"
        )


@torch.no_grad()
def main(
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    models: Annotated[str, typer.Option(help="Ridge networks.")] = "ridge-gray,ridge-gray-small,ridge-color",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, of which the fastest counts.")] = 5,
    side: Annotated[int, typer.Option(help="Side of the picture that is solved with a start in bfloat16.")] = 64,
) -> None:
    """Time gradients and matrix products, and a solution with and without a start in low precision."""
    torch.set_num_threads(threads)
    names = models.split(",")
    networks = {name: icgn.load_pretrained(name) for name in names}
    print(
        "             time, executed and useful GFLOP/s (and their part of the matrix product's), error of the gradient"
    )
    for name, network in networks.items():
        assert isinstance(network, RidgeICGN)
        shape = network.bank.weight.shape
        print(f"{name}: {shape[0]} filters {shape[-1]} x {shape[-1]}, {shape[1]} channel(s), {threads} thread(s)")
        gradients(network, SIZE, torch.float32, (1024, 2048), rounds)
        gradients(network, SMALL, torch.bfloat16, (256,), rounds)
    first = networks[names[0]]
    assert isinstance(first, RidgeICGN)
    start(names[0], first, side, 1e-3)


if __name__ == "__main__":
    typer.run(main)
