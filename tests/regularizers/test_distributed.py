"""Gradients of one picture by several processes."""

from __future__ import annotations

import pytest
import torch
from deepinv.distributed import DistributedContext, distribute
from processes import ranks
from torch import nn

from icgn import ICGN, ICNN, PerChannel, RidgeICGN
from icgn.regularizers.distributed import GradientDenoiser, PictureTiling, receptive_radius


def picture(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def ridge(border):
    reg = RidgeICGN(filters=6, size=5, border=border, activation="tanh").double()
    with torch.no_grad():
        reg.log_lambda += 4.0
    return reg


def icnn():
    return ICNN(layers=2, filters=4, size=3, smoothing=0.1).double()


CASES = {
    "ridge reflect": (ridge("reflect"), picture(2, 1, 40, 37), torch.tensor([0.1, 0.2])),
    "ridge zero": (ridge("zero"), picture(1, 1, 40, 37), 0.1),
    "ridge valid": (ridge("valid"), picture(1, 1, 37, 40), 0.1),
    "ICNN": (icnn(), picture(1, 1, 33, 40), 0.1),
    "sum per channel": (PerChannel(2 * ridge("reflect") + icnn()), picture(2, 2, 33, 21), torch.tensor([0.1, 0.2])),
    "small": (ridge("reflect"), picture(1, 1, 9, 40), 0.1),
}


def test_two_processes_find_the_gradient_of_one(tmp_path):
    def work(rank):
        found = []
        with DistributedContext(device_mode="cpu") as ctx, torch.no_grad():
            for regularizer, x, sigma in CASES.values():
                tiling = PictureTiling(x.shape, patch=16, radius=receptive_radius(regularizer))
                gradient = distribute(GradientDenoiser(regularizer), ctx, tiling_strategy=tiling)
                found.append((gradient(x, sigma), len(ctx.local_indices(tiling.get_num_patches()))))
        torch.save(found, tmp_path / f"found{rank}")

    assert ranks(2, work) == [0, 0]
    for rank in range(2):
        found = torch.load(tmp_path / f"found{rank}", weights_only=True)
        for name, (gradient, patches), (reg, x, sigma) in zip(CASES, found, CASES.values(), strict=True):
            expected = reg.grad(x, sigma).detach()
            assert float(expected.abs().max()) > 1e-3 and patches > 0, name
            assert float((gradient - expected).abs().max()) < 1e-12, name


@pytest.mark.parametrize("name", CASES)
def test_the_radius_is_enough_and_not_too_large(name):
    reg, x, sigma = CASES[name]
    expected, errors = reg.grad(x, sigma).detach(), []
    with DistributedContext(device_mode="cpu") as ctx, torch.no_grad():
        for radius in (receptive_radius(reg), receptive_radius(reg) - 1):
            tiling = PictureTiling(x.shape, 8, radius)
            gradient = distribute(GradientDenoiser(reg), ctx, tiling_strategy=tiling, max_batch_size=2)
            errors.append(float((gradient(x, sigma) - expected).abs().max()))
    assert errors[0] < 1e-12 < 1e-9 < errors[1]


def test_every_pixel_is_in_one_patch_and_patches_are_alike():
    for shape in ((1, 1, 17, 40), (2, 3, 5, 5), (1, 1, 16, 8)):
        tiling = PictureTiling(shape, patch=8, radius=3)
        x, out = picture(*shape), torch.zeros(shape, dtype=torch.float64)
        pairs = tiling.get_local_patches(x, list(range(tiling.get_num_patches())))
        assert len({p.shape for _, p in pairs}) == 1
        tiling.reduce_patches(out, pairs)
        assert torch.equal(out, x)
        count = torch.zeros(shape, dtype=torch.float64)
        for i, _ in pairs:
            once = torch.zeros(shape, dtype=torch.float64)
            tiling.reduce_patches(once, [(i, torch.ones_like(pairs[i][1]))])
            count += once
        assert bool((count == 1).all())


def test_a_prior_made_of_it_runs_in_deepinv():
    import deepinv

    reg, x = ridge("reflect"), picture(1, 1, 20, 24)
    with DistributedContext(device_mode="cpu") as ctx, torch.no_grad():
        tiling = PictureTiling(x.shape, 12, receptive_radius(reg))
        gradient = distribute(GradientDenoiser(reg), ctx, tiling_strategy=tiling)

        class SharedPrior(deepinv.optim.Prior):
            def grad(self, x, sigma, *args, **kwargs):
                return gradient(x, sigma)

        def descend(prior):
            options = {"stepsize": 0.1, "g_param": 0.1, "max_iter": 5}
            return deepinv.optim.GD(data_fidelity=deepinv.optim.L2(), prior=prior, **options)(
                x, deepinv.physics.Denoising()
            )

        assert float((descend(SharedPrior()) - descend(reg)).abs().max()) < 1e-12


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="the receptive radius of ICGN is not known"):
        receptive_radius(ridge("zero") + ICGN(nn.Tanh()))
    with pytest.raises(ValueError, match="patch, radius: got 0, 3"):
        PictureTiling((1, 1, 8, 8), 0, 3)
    with pytest.raises(ValueError, match="shape: got"):
        PictureTiling((8, 8), 4, 3)
    with pytest.raises(ValueError, match=r"x: got \(1, 1, 9, 9\), expected \(1, 1, 8, 8\)"):
        PictureTiling((1, 1, 8, 8), 4, 3).get_local_patches(picture(1, 1, 9, 9), [0])
