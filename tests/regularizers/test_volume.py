"""Regularizers of volumes: sums over slices, exact derivatives, certificates, and the 3-D physics of deepinv."""

import deepinv
import pytest
import torch
from conditional_cases import conditional

import icgn
from icgn.regularizers import PerChannel, RidgeICGN, ScaledRegularizer, TotalVariation, VolumeRegularizer
from icgn.regularizers.checks import check_regularizer
from icgn.regularizers.volume import direction_weights, slices
from icgn.solvers.methods.conjugate import ConjugateGradient
from icgn.solvers.methods.preconditioner import preconditioner_at

SHAPE = (2, 5, 6, 7)


def ridge(activation="tanh"):
    torch.manual_seed(0)
    reg = RidgeICGN(filters=4, size=3, activation=activation).double().requires_grad_(False)
    reg.log_tau += 2.0
    return reg


def masks():
    reg = conditional().double().requires_grad_(False)
    for p in reg.network.tail.parameters():
        torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(0))
    return reg


def volume(shape=SHAPE, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(reg, x, weights, sigma):
    """The sum over the slices, one by one."""
    total = torch.zeros(len(x), dtype=torch.float64)
    for axis, weight in enumerate(weights):
        for part in x.unbind(1 + axis):
            total += weight * reg.fn(part[:, None], sigma)
    return total


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 0.5, 0), (0, 0, 2)])
def test_it_is_the_weighted_sum_over_all_slices(weights):
    reg, x, sigma = ridge(), volume(), torch.tensor([0.05, 0.2], dtype=torch.float64)
    made = VolumeRegularizer(reg, weights=weights)
    shares = [w / sum(weights) for w in weights]
    assert torch.allclose(made.fn(x, sigma), by_hand(reg, x, shares, sigma), rtol=1e-12)
    x.requires_grad_()
    (wanted,) = torch.autograd.grad(by_hand(reg, x, shares, sigma).sum(), x)
    assert torch.allclose(made.grad(x.detach(), sigma), wanted, atol=1e-12)


def test_channels_of_volumes_are_taken_one_by_one():
    made, x = VolumeRegularizer(ridge()), volume((2, 3, 5, 6, 7))
    assert torch.allclose(made.fn(x, 0.1), sum(made.fn(part, 0.1) for part in x.unbind(1)), rtol=1e-12)
    grads = torch.stack([made.grad(part, 0.1) for part in x.unbind(1)], 1)
    assert torch.allclose(made.grad(x, 0.1), grads, atol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: VolumeRegularizer(ridge()),
        lambda: VolumeRegularizer(ridge("hardtanh"), spacing=(3, 1, 1)),
        lambda: VolumeRegularizer(TotalVariation(eps=0.3)),
        lambda: ScaledRegularizer(VolumeRegularizer(ridge()), -1.0, 3.0),
        lambda: VolumeRegularizer(masks()).given(0.5 + volume((1, 1, 3, 3, *SHAPE[1:]))),
    ],
)
def test_the_contract_of_regularizers_holds(make):
    check_regularizer(make(), SHAPE)


def test_constants_are_those_of_pictures():
    reg = ridge()
    made = VolumeRegularizer(reg, spacing=(2, 1, 1))
    assert torch.allclose(made.lipschitz(0.1), reg.lipschitz(0.1))
    assert torch.equal(made.strong_convexity(0.1), reg.strong_convexity(0.1))


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (2, 1, 0)])
def test_axes_can_be_exchanged(order):
    # Total variation knows no direction: networks see a transposed picture otherwise.
    weights = (3.0, 2.0, 1.0)
    x = volume()
    turned = x.permute(0, *(1 + a for a in order))
    made = VolumeRegularizer(TotalVariation(), weights=weights)
    other = VolumeRegularizer(TotalVariation(), weights=[weights[a] for a in order])
    assert torch.allclose(made.fn(x, 0.1), other.fn(turned, 0.1), rtol=1e-12)


def test_blocks_have_the_same_values():
    functional = VolumeRegularizer(ridge()).at(0.1)
    x, v = volume(), volume(seed=1)
    blocks = functional.blockwise(x.shape, 3 * 2000)
    assert icgn.functionals.Capability.RESPONSES not in blocks.capabilities
    assert torch.allclose(blocks.fn(x), functional.fn(x), rtol=1e-12)
    assert torch.allclose(blocks.grad(x), functional.grad(x), atol=1e-12)
    assert torch.allclose(blocks.hvp(x, v), functional.hvp(x, v), atol=1e-12)


def test_directions_share_the_memory_for_responses():
    functional = VolumeRegularizer(ridge()).at(0.1)
    x = volume()
    size = functional.terms[0].linear(x).nbytes
    kept = functional.blockwise(x.shape, 6 * size)
    assert icgn.functionals.Capability.RESPONSES in kept.capabilities
    assert icgn.functionals.Capability.RESPONSES not in functional.blockwise(x.shape, size).capabilities


@pytest.mark.parametrize("make", [ridge, masks])
def test_the_certificate_holds_against_a_precise_minimizer(make):
    reg, y = VolumeRegularizer(make()), volume()
    problem = icgn.Problem(y, deepinv.physics.Denoising(), reg, sigma=0.1)
    solution = icgn.solve(problem, tol=1e-3)
    exact = problem if solution.condition is None else problem.given(condition=solution.condition)
    precise = icgn.solve(exact, tol=1e-9)
    error = (solution.x - precise.x).square().mean((1, 2, 3)).sqrt()
    assert solution.converged and precise.converged
    assert bool((error <= solution.certificate.rms_distance).all())


def test_conditions_are_those_of_the_slices():
    inner, x, r = masks(), volume(), 0.1 * (volume(seed=1) - 0.5)
    reg = VolumeRegularizer(inner, weights=(1, 1, 0))
    sigma = torch.tensor([0.05, 0.1], dtype=torch.float64)
    found = reg.condition(x, sigma, r)
    assert found.shape == (2, 1, 2, inner.ridge.architecture["filters"], 5, 6, 7)
    assert torch.allclose(found[:, 0, 0, :, 3], inner.condition(x[:, 3][:, None], sigma, r[:, 3][:, None]))
    assert torch.allclose(
        found[:, 0, 1, :, :, 2], inner.condition(x[:, :, 2][:, None], sigma, r[:, :, 2][:, None]), atol=1e-9
    )
    reg.check_condition(found, x)
    value = sum(
        0.5 * inner.at(sigma, found[:, 0, axis].select(2 + axis, i).contiguous()).fn(x.select(1 + axis, i)[:, None])
        for axis in (0, 1)
        for i in range(x.shape[1 + axis])
    )
    assert torch.allclose(reg.at(sigma, found).fn(x), value, rtol=1e-9)


def test_volumes_of_deepinv_are_deblurred_and_certified():
    torch.manual_seed(0)
    kernel = torch.ones(1, 1, 3, 3, 3, dtype=torch.float64) / 27
    physics = deepinv.physics.Blur(filter=kernel, padding="circular")
    x = volume((1, 1, 6, 8, 8))
    y = physics.A(x)
    reg = VolumeRegularizer(ridge())
    solution = icgn.solve(icgn.Problem(y, physics, reg, sigma=0.2, noise=0.05, box=(0, 1)), gap_tol=1e-3)
    assert solution.converged and solution.x.shape == x.shape
    assert float(solution.certificate.relative_gap) <= 1e-3


def test_a_reconstructor_takes_the_volumes_of_deepinv():
    reg, x = VolumeRegularizer(ridge()), volume((2, 1, 5, 6, 7))
    model = icgn.Reconstructor(reg, sigma=0.1, tol=1e-6)
    found = model(x, deepinv.physics.Denoising())
    alone = icgn.denoise(x[:, 0], 0.1, regularizer=reg, tol=1e-6)
    assert found.shape == x.shape and torch.allclose(found[:, 0], alone.x, atol=1e-5)


def test_deepinv_takes_it_as_a_prior():
    reg, x = VolumeRegularizer(ridge()), volume((1, 1, 5, 6, 7))
    assert isinstance(reg, deepinv.optim.Prior)
    assert reg(x, 0.1).shape == (1,) and reg.grad(x, 0.1).shape == x.shape
    near = reg.prox(x, 0.1, gamma=0.5)
    residual = near - x + 0.5 * reg.grad(near, 0.1)
    assert float(residual.square().mean().sqrt()) <= 1e-5


def test_slices_across_an_axis():
    x = volume()
    assert torch.equal(slices(x, 0), x)
    assert torch.equal(slices(x, 1)[:, 4], x[:, :, 4])
    assert torch.equal(slices(x, 2)[:, 4], x[..., 4])


def test_voxels_that_are_no_cubes_weigh_the_slices_with_square_pixels():
    assert direction_weights() == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert direction_weights((4, 1, 1)) == pytest.approx((2 / 3, 1 / 6, 1 / 6))
    assert direction_weights((4, 2, 1)) == pytest.approx((0.4, 0.2, 0.4))


FAULTS = {
    "no regularizer": (lambda: VolumeRegularizer(torch.nn.Tanh()), TypeError, "regularizer: got Tanh"),
    "colour": (lambda: VolumeRegularizer(RidgeICGN(filters=2, size=3, channels=3)), ValueError, "3 channels"),
    "both": (lambda: VolumeRegularizer(ridge(), spacing=(1, 1, 1), weights=(1, 1, 1)), ValueError, "weights: got"),
    "no weight": (lambda: VolumeRegularizer(ridge(), weights=(0, 0, 0)), ValueError, "not all 0"),
    "negative": (lambda: VolumeRegularizer(ridge(), weights=(1, -1, 1)), ValueError, "weights: got"),
    "spacing": (lambda: VolumeRegularizer(ridge(), spacing=(1, 1)), ValueError, "spacing: got"),
    "thin": (lambda: VolumeRegularizer(ridge()).fn(volume((1, 2, 6, 7)), 0.1), ValueError, "2 x 6 x 7 voxels"),
    "rank": (lambda: VolumeRegularizer(ridge()).fn(volume((6, 6, 7)), 0.1), ValueError, "x: got shape"),
    "no condition": (lambda: VolumeRegularizer(ridge()).check_condition(volume(), volume()), ValueError, "takes none"),
    "condition": (lambda: VolumeRegularizer(masks()).at(0.1, volume()), ValueError, "condition: got shape"),
    "its size": (
        lambda: VolumeRegularizer(masks()).check_condition(volume((2, 1, 3, 3, 5, 6, 8)), volume()), ValueError,
        "expected one for volumes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_does_not_fit_is_refused_in_words(name):
    call, kind, words = FAULTS[name]
    with pytest.raises(kind, match=words):
        call()


def test_slices_across_one_axis_are_the_pictures_of_a_stack():
    reg, x = ridge(), volume((1, 2, 6, 7))
    made = VolumeRegularizer(reg, weights=(1, 0, 0))
    assert torch.allclose(made.grad(x, 0.1), PerChannel(reg).grad(x, 0.1))


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 0.5, 0), (0, 0, 2)])
@pytest.mark.parametrize("shape", [(2, 10, 11, 13), (1, 12, 10, 14)])
def test_the_spectrum_of_a_volume_is_that_of_its_hessian(weights, shape):
    functional = VolumeRegularizer(ridge(), weights=weights).at(0.2)
    x, v = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    v[:, 3:-3, 3:-3, 3:-3] = volume((len(x), *(n - 6 for n in shape[1:])))  # away from the border
    (part,) = functional.hessian_parts(functional.linear(x), x.shape)
    assert part.solid and bool((part.spectrum > -1e-12).all())
    dims = (-3, -2, -1)
    found = torch.fft.irfftn(part.spectrum * torch.fft.rfftn(v[:, None], dim=dims), s=shape[1:], dim=dims)[:, 0]
    torch.testing.assert_close(found, functional.hvp(x, v), rtol=1e-9, atol=1e-9)
    if part.density is not None:
        torch.testing.assert_close(part.density[:, 4:-4, 4:-4, 4:-4].std(), torch.zeros((), dtype=torch.float64))


def test_a_preconditioner_of_volumes_halves_the_iterations():
    reg = icgn.load_pretrained("ridge-gray-small").double()
    y = volume((1, 11, 34, 37)) * 0.3
    y[:, 3:8, 8:25, 9:30] += 0.6
    problem = icgn.Problem(y, deepinv.physics.Denoising(), VolumeRegularizer(reg), sigma=0.1)
    plain, made = (icgn.solve(problem, method=ConjugateGradient(precondition=p), tol=1e-4) for p in (False, True))
    assert float((plain.x - made.x).square().mean().sqrt()) <= 2e-4
    assert made.stats.iterations[0] <= 0.67 * plain.stats.iterations[0]
    functional = problem.objective
    p, w = preconditioner_at(functional, functional.linear(y), y), volume(tuple(y.shape), seed=1)
    assert p.size == (12, 36, 40) and len(p.inverses) == 2
    torch.testing.assert_close((p.apply(y) * w).sum(), (p.apply(w) * y).sum())
    assert float((p.apply(w) * w).sum()) > 0
