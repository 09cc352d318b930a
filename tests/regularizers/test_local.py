"""Levels that follow a map: saturations of each place, slopes of all, and certificates that hold."""

import deepinv
import pytest
import torch

import icgn
from icgn.functionals.noise import White
from icgn.regularizers import ConditionalICGN, LocalLevels, PerChannel, RidgeICGN, TotalVariation, check_regularizer


def ridge(channels=1, filters=5):
    torch.manual_seed(0)
    return RidgeICGN(filters=filters, size=3, channels=channels).double()


def conditional(channels=1):
    torch.manual_seed(1)
    reg = ConditionalICGN(filters=5, size=3, channels=channels, width=8, blocks=1, stride=2).double()
    for p in reg.network.tail.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return reg


def halves(height=12, width=16, factor=4.0):
    relative = torch.ones(1, 1, height, width, dtype=torch.float64)
    relative[..., width // 2 :] = factor
    return relative


def picture(channels=1, batch=2):
    return torch.rand(batch, channels, 12, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("kind", [ridge, conditional])
def test_a_map_of_ones_is_the_network_itself(kind):
    reg, x = kind(), picture()
    local = LocalLevels(reg, torch.ones(1, 1, 12, 16, dtype=torch.float64))
    assert torch.allclose(local.grad(x, 0.1), reg.grad(x, 0.1), rtol=1e-9)
    assert torch.equal(local.lipschitz(0.1), reg.lipschitz(0.1))


def test_a_constant_map_has_the_saturations_of_its_level_and_the_slopes_of_sigma():
    reg, x = ridge(), 30 * picture()  # every response is saturated
    x = x + 100 * torch.rand(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    local = LocalLevels(reg, torch.full((1, 1, 12, 16), 2.0, dtype=torch.float64))
    assert torch.allclose(local.grad(x, 0.05), reg.grad(x, 0.1), rtol=1e-3, atol=1e-6)
    tiny = 1e-6 * picture()  # and here none
    assert torch.allclose(local.grad(tiny, 0.05), reg.grad(tiny, 0.05), rtol=1e-9)


@pytest.mark.parametrize("make", [lambda: ridge(), lambda: conditional(), lambda: ridge(channels=3)])
def test_the_contract_of_regularizers_holds(make):
    reg = make()
    check_regularizer(LocalLevels(reg, halves()), (2, reg.channels, 12, 16))


def test_each_half_is_denoised_as_by_its_own_level():
    reg = icgn.load_pretrained("ridge-gray-small")
    clean = torch.full((1, 1, 48, 96), 0.5)
    levels = torch.full((1, 1, 48, 96), 0.02)
    levels[..., 48:] = 0.15
    y = White(levels).draw(clean, torch.Generator().manual_seed(0))
    found = icgn.denoise(y, noise=White(levels), regularizer=reg, tol=1e-4)
    plain = icgn.denoise(y, float(levels.square().mean().sqrt()), regularizer=reg, tol=1e-4)
    error, other = ((s.x - clean)[..., 56:].square().mean() for s in (found, plain))
    assert found.converged and error < 0.7 * other


@pytest.mark.parametrize("kind", [ridge, conditional])
def test_the_certificate_bounds_the_true_error(kind):
    levels = 0.05 * halves()
    reg, sigma = LocalLevels.of(kind(), levels)
    y = picture(batch=1)
    physics = deepinv.physics.Denoising()
    rough = icgn.solve(icgn.Problem(y, physics, reg, sigma), tol=1e-2)
    exact = icgn.solve(icgn.Problem(y, physics, reg, sigma, condition=rough.condition), tol=1e-10).x
    true = (rough.x - exact).square().mean().sqrt()
    assert 0 < float(true) <= float(rough.certificate.rms_distance)


def test_colours_by_a_gray_network():
    x = picture(channels=3, batch=1)
    both = PerChannel(LocalLevels(ridge(), halves())).grad(x, 0.1)
    apart = torch.cat([LocalLevels(ridge(), halves()).grad(x[:, c : c + 1], 0.1) for c in range(3)], 1)
    assert torch.allclose(both, apart)


def test_what_has_no_map_is_refused():
    with pytest.raises(TypeError, match="regularizer: got TotalVariation"):
        LocalLevels(TotalVariation(), halves())
    for wrong in (torch.ones(12, 16), torch.zeros(1, 1, 12, 16), torch.full((1, 1, 12, 16), torch.nan), -halves()):
        with pytest.raises(ValueError, match="relative: got"):
            LocalLevels(ridge(), wrong)
    with pytest.raises(ValueError, match="for a map of levels of shape"):
        LocalLevels(ridge(), halves()).grad(torch.zeros(1, 1, 9, 9, dtype=torch.float64), 0.1)
    with pytest.raises(ValueError, match="noise: got a map of shape"):
        icgn.denoise(torch.rand(1, 1, 20, 20), noise=White(torch.ones(1, 1, 9, 9)))
