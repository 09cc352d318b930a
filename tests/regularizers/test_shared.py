"""One picture restored by several processes."""

from __future__ import annotations

import deepinv
import pytest
import torch
import torch.distributed as dist
from processes import ranks

import icgn
from icgn import ConditionalICGN, RidgeICGN
from icgn.regularizers import (
    ICGN,
    GroupICGN,
    LatentICGN,
    SharedRegularizer,
    SoftmaxICGN,
    VolumeRegularizer,
)
from icgn.regularizers.bank import BlockFunctional


def picture(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def trained(regularizer):
    """A regularizer in float64 with a strength that changes pictures, and masks that are not 1."""
    with torch.no_grad():
        for name, parameter in regularizer.named_parameters():
            if name.endswith("log_lambda"):
                parameter += 3.0
            if "network" in name:
                parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return regularizer.double()


def conditional(channels=1, **changes):
    return trained(
        ConditionalICGN(filters=5, size=5, channels=channels, width=8, blocks=2, looseness=(0.3,), **changes)
    )


def blur():
    kernel = torch.ones(1, 1, 3, 3, dtype=torch.float64) / 9
    return deepinv.physics.Blur(kernel, padding="circular")


# A regularizer, the shape of pictures, and the physics.
CASES = {
    "ridge": (trained(RidgeICGN(filters=6, size=5)), (2, 1, 30, 21), None),
    "ridge, zero border": (trained(RidgeICGN(filters=6, size=5, border="zero")), (1, 1, 31, 20), None),
    "ridge, valid": (trained(RidgeICGN(filters=6, size=5, border="valid")), (1, 1, 31, 20), None),
    "softmax": (trained(SoftmaxICGN(groups=2, members=3, size=5)), (1, 1, 29, 20), None),
    "group": (trained(GroupICGN(groups=2, members=3, size=5)), (1, 1, 29, 20), None),
    "conditional": (conditional(), (1, 1, 45, 24), None),
    "conditional, colour": (conditional(3), (2, 3, 33, 24), None),
    "conditional, blur": (conditional(border="zero"), (1, 1, 41, 24), blur()),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What 2 and 3 processes find for each case: solution, values of functionals, and the rows of the condition."""
    folder = tmp_path_factory.mktemp("shared")

    def work(count, rank):
        dist.init_process_group("gloo")
        torch.save([_tried(*case, share=True) for case in CASES.values()], folder / f"{count}-{rank}")
        dist.destroy_process_group()

    for count in (2, 3):
        assert ranks(count, lambda rank, count=count: work(count, rank)) == [0] * count
    return {(n, k): torch.load(folder / f"{n}-{k}", weights_only=True) for n in (2, 3) for k in range(n)}


def _tried(regularizer, shape, physics, share):
    reg = SharedRegularizer(regularizer) if share else regularizer
    y, x = picture(*shape), picture(*shape).flip(-1)
    problem = icgn.Problem(
        y, physics or deepinv.physics.Denoising(), reg, sigma=0.1, box=(-1.0, 2.0) if physics else None
    )
    solution = icgn.solve(problem, tol=1e-3, max_iter=60)
    found = {"x": solution.x, "iterations": solution.stats.iterations, "gap": solution.certificate.objective_gap}
    given = {} if solution.condition is None else {"condition": solution.condition}
    functional = reg.at(0.1, **given)
    blocks = functional.blockwise(y.shape, 1000)
    assert isinstance(blocks, BlockFunctional)
    for name, f in (("whole", functional), ("blocks", blocks)):
        u = f.linear(x)
        (part,) = f.hessian_parts(u, x.shape)
        found |= {f"{name} value": f.fn(x), f"{name} gradient": f.grad(x), f"{name} product": f.hvp(x, y)}
        found |= {f"{name} spectrum": part.spectrum, f"{name} density": part.density}
        found[f"{name} slopes"] = f.slopes_along(u, f.linear(y), torch.tensor([[0.1], [0.7]]).double())
        found[f"{name} curvature"] = f.curvature(u, f.linear(y))
        found[f"{name} Lipschitz"] = f.lipschitz()
    return found | given


def _rounding(what):
    """What rounding may change: 60 iterations amplify it in a solution and its certificate."""
    return 1e-7 if what in ("x", "gap") else 1e-9


@pytest.mark.parametrize("name", CASES)
def test_processes_find_what_one_finds(found, name):
    place, alone = list(CASES).index(name), _tried(*CASES[name], share=False)
    assert float((alone["x"] - picture(*CASES[name][1])).abs().max()) > 1e-2
    for (count, rank), cases in found.items():
        for what, found_there in cases[place].items():
            value = found_there.detach()
            expected = alone[what].detach()
            if what == "condition":
                cells = -(-expected.shape[-2] // 4)
                first = cells * rank // count * 4
                expected = expected[..., first : first + value.shape[-2], :]
                assert 0 < value.shape[-2] < alone[what].shape[-2]
            scale = max(1.0, float(expected.abs().max()))
            assert float((value - expected).abs().max()) <= _rounding(what) * scale, (count, rank, what)
        # All processes have the same numbers, bit for bit: they take the same decisions.
        assert torch.equal(cases[place]["x"], found[count, 0][place]["x"])


def test_volumes_and_what_is_refused(tmp_path):
    volume = picture(1, 9, 12, 10)

    def work(rank):
        dist.init_process_group("gloo")
        shared = SharedRegularizer(CASES["ridge"][0])
        solution = icgn.denoise(volume, 0.1, regularizer=VolumeRegularizer(shared))
        torch.save(solution.x, tmp_path / str(rank))
        with pytest.raises(ValueError, match="x: got 6 rows for 2 processes, expected at least 9"):
            shared.grad(picture(1, 1, 6, 20), 0.1)
        for other in (LatentICGN(), ICGN(torch.nn.Tanh())):
            with pytest.raises(TypeError, match="regularizer: "):
                SharedRegularizer(other)
        with pytest.raises(ValueError, match="assumes a regularizer that"):
            problem = icgn.Problem(picture(1, 1, 20, 18), deepinv.physics.Denoising(), shared, sigma=0.1)
            icgn.solve(problem, method="primal-dual")
        dist.destroy_process_group()

    assert ranks(2, work) == [0, 0]
    expected = icgn.denoise(volume, 0.1, regularizer=VolumeRegularizer(CASES["ridge"][0])).x
    for rank in range(2):
        x = torch.load(tmp_path / str(rank), weights_only=True)
        assert float((x - expected).abs().max()) < 1e-9


def test_it_needs_a_process_group():
    with pytest.raises(RuntimeError, match=r"torch\.distributed: got no process group, expected"):
        SharedRegularizer(CASES["ridge"][0])
