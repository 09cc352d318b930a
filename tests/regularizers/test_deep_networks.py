"""Deep, softmax and group networks, convolutional and dense: their contract, closed forms, bounds and bad input."""

import functools
import itertools
import json
import math

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icgn.functionals import Capability
from icgn.regularizers import RidgeICGN
from icgn.regularizers.activations import Activation, HardTanh, Tanh
from icgn.regularizers.checks import CONTRACT, ContractError, check_regularizer
from icgn.regularizers.curvature import random_direction, ritz
from icgn.regularizers.deep import DeepICGN
from icgn.regularizers.group import GroupICGN, MaxEnvelope, project_l1
from icgn.regularizers.softmax import LogSumExp, SoftmaxICGN
from icgn.transport.dense import DenseDeepICGN, DenseGroupICGN, DenseRidgeICGN, DenseSoftmaxICGN
from icgn.transport.quadratic_skips import DenseQuadraticICGN

BOUNDED = ("tanh", "sigmoid", "hardtanh")
BORDERS = ("reflect", "zero", "valid")


def perturbed(reg, seed=0):
    """Curves that differ from filter to filter and bend in sigma, biases, and pictures on both sides of the knees."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in reg.named_parameters():
            if "raw" not in name:
                p += 0.3 * torch.randn(p.shape, generator=g)
        reg.log_tau += 1.5
    return reg


def deep(layers=2, channels=1, activation="tanh", border="reflect", inner_size=3):
    return perturbed(
        DeepICGN(
            layers=layers,
            filters=3,
            inner_size=inner_size,
            size=3,
            channels=channels,
            activation=activation,
            border=border,
            knots=3,
        )
    )


def softmax(members=2, symmetric=True, channels=1, border="reflect"):
    return perturbed(
        SoftmaxICGN(groups=2, members=members, symmetric=symmetric, size=3, channels=channels, border=border, knots=3)
    )


def group(members=2, channels=1, border="reflect"):
    return perturbed(GroupICGN(groups=2, members=members, size=3, channels=channels, border=border, knots=3))


def _factories():
    made = {}
    for i, (layers, channels, activation) in enumerate(itertools.product((1, 2, 3), (1, 3), BOUNDED)):
        border, inner = BORDERS[(i + i // 3) % 3], (1, 3)[i % 2]
        name = f"deep of {layers} {activation} {border} inner {inner} channels {channels}"
        made[name] = functools.partial(deep, layers, channels, activation, border, inner)
    for border, channels, symmetric in itertools.product(BORDERS, (1, 3), (True, False)):
        name = f"softmax {'symmetric' if symmetric else 'one-sided'} {border} channels {channels}"
        made[name] = functools.partial(softmax, 2 if symmetric else 3, symmetric, channels, border)
    for i, (border, members) in enumerate(itertools.product(BORDERS, (1, 2, 4))):
        made[f"group of {members} {border} channels {1 + 2 * (i % 2)}"] = functools.partial(
            group, members, 1 + 2 * (i % 2), border
        )
    made["deep of 1 softplus channels 1"] = lambda: deep(1, activation="softplus")
    made["sum channels 1"] = lambda: deep() + 0.5 * softmax() + 2 * group() + RidgeICGN(filters=4, size=3, knots=3)
    levels = (torch.tensor([0.02, 0.1]), torch.tensor([2.0, 0.5]), torch.tensor([0.7, 1.5]))
    made["deep, rescaled, channels 1"] = lambda: deep().rescaled(*levels)
    made["group, rescaled, channels 1"] = lambda: group().rescaled(*levels)
    return made


FACTORIES = _factories()
KINDS = {"deep": deep, "softmax": softmax, "one-sided": lambda **k: softmax(3, False, **k), "group": group}


@functools.cache
def report_of(name, device):
    reg = FACTORIES[name]().to(device)
    try:
        return check_regularizer(reg, (2, int(name[-1]), 6, 7))
    except ContractError as error:
        return error.report


@pytest.mark.parametrize("check", CONTRACT)
@pytest.mark.parametrize("name", FACTORIES)
def test_contract(name, check, device):
    found = report_of(name, device)[check]
    assert found.passed, f"{found.value} > {found.tolerance}: {found.note}"


def test_contract_at_the_smallest_size_and_at_small_sigma():
    for reg in (deep(3, inner_size=1), deep(2, 3, "hardtanh", "valid"), softmax(3, False), group(3)):
        check_regularizer(reg, (1, reg.channels, 3, 3), sigma=1 / 255, step=1e-8)


# --- the class of each network ---


def images(batch=2, channels=1, side=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(batch, channels, side, side + 1, generator=g, dtype=torch.float64)


def copy_curves(reg, ridge):
    with torch.no_grad():
        reg.bank.raw.copy_(ridge.bank.raw)
        reg.log_lambda.copy_(ridge.log_lambda[0])
        reg.log_tau.copy_(ridge.log_tau[0].view_as(reg.log_tau))
    return reg


def plain_ridge(activation="tanh"):
    ridge = RidgeICGN(filters=4, size=3, activation=activation, knots=3)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        ridge.log_lambda += 0.3 * torch.randn(ridge.log_lambda.shape, generator=g)
        ridge.log_tau += 2 + 0.3 * torch.randn(ridge.log_tau.shape, generator=g)
    return ridge.double()


def assert_same(a, b, sigma):
    x, v = images(seed=0), images(seed=1) - 0.5
    torch.testing.assert_close(a.fn(x, sigma), b.fn(x, sigma))
    torch.testing.assert_close(a.grad(x, sigma), b.grad(x, sigma))
    torch.testing.assert_close(a.hvp(x, v, sigma), b.hvp(x, v, sigma))
    torch.testing.assert_close(a.lipschitz(sigma), b.lipschitz(sigma))


@pytest.mark.parametrize("activation", [*BOUNDED, "softplus"])
def test_one_layer_is_the_ridge_network(activation):
    ridge = plain_ridge(activation)
    reg = copy_curves(
        DeepICGN(layers=1, filters=4, inner_size=1, size=3, activation=activation, knots=3).double(), ridge
    )
    for sigma in (0.1, torch.tensor([0.05, 0.1])):
        assert_same(reg, ridge, sigma)


def test_one_layer_with_biases_is_the_ridge_network_less_its_linear_term():
    reg = deep(1).double()
    x, s = images(), torch.tensor([0.1], dtype=torch.float64)
    lam, tau = (c.flatten(1)[..., None, None] for c in reg.curves(s))
    b = reg.bias[0][:, None, None]
    psi = Tanh().psi
    expected = reg.bank.adjoint(lam * (psi(reg.bank(x) / tau + b) - psi(b)).expand(2, -1, -1, -1), x.shape)
    torch.testing.assert_close(reg.grad(x, 0.1), expected)


def test_groups_of_one_are_the_ridge_network_of_the_hard_tanh():
    ridge = plain_ridge("hardtanh")
    reg = copy_curves(GroupICGN(groups=4, members=1, size=3, knots=3).double(), ridge)
    for sigma in (0.1, torch.tensor([0.05, 0.1])):
        assert_same(reg, ridge, sigma)
    # The primal-dual methods' prox as well.
    a, b = reg.at(0.1), ridge.at(0.1)
    v, s = a.linear(3 * images()), torch.tensor([0.3, 2.0], dtype=torch.float64)
    torch.testing.assert_close(a.prox_potential(v, s), b.prox_potential(v, s))


def ridge_residual(network):
    """Relative distance of a gradient field of the plane from all ridge fields of 24 directions, by nonnegative fit."""
    axis = torch.linspace(-1, 1, 13, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        target = network(x)
    angles = torch.arange(24, dtype=torch.float64) * math.pi / 24
    w = torch.stack([angles.cos(), angles.sin()], 1)
    kinks = torch.linspace(-1.4, 1.4, 29, dtype=torch.float64)
    steps = ((x @ w.T)[..., None] - kinks).mul(10).clamp(-1, 1)
    columns = torch.einsum("pdk,dc->pcdk", steps, w).flatten(2).flatten(0, 1)
    free = torch.eye(2, dtype=torch.float64).repeat(len(x), 1)
    matrix = torch.cat([columns, free, -free], 1).numpy()
    _, residual = scipy.optimize.nnls(matrix, target.flatten().numpy())
    return residual / float((target - target.mean(0)).norm())


def test_only_the_ridge_network_is_in_the_ridge_class():
    corner = torch.tensor([[-1.0, -1.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    ridge = DenseRidgeICGN(2, width=4, activation="hardtanh").double()
    soft, grouped = DenseSoftmaxICGN(2, groups=1, members=3).double(), DenseGroupICGN(2, groups=1, members=3).double()
    two = DenseDeepICGN(2, widths=(1, 1), activation="hardtanh").double()
    with torch.no_grad():
        soft.W.copy_(corner)
        soft.bias.zero_()
        soft.log_beta.fill_(2.0)
        # Far above 0, the modulus of an affine function is the function.
        grouped.W.copy_(3 * corner)
        grouped.bias.fill_(8.0)
        # max(x1, x2) = |x1 - x2| / 2 + (x1 + x2) / 2, and once more.
        two.W.copy_(8 * torch.tensor([[1.0, -1.0], [0.5, 0.5]]))
        two.bias.zero_()
        two.raw_U[0].fill_(math.log(math.expm1(0.5)))
    assert ridge_residual(ridge) < 0.03
    assert ridge_residual(soft) > 0.15
    assert ridge_residual(grouped) > 0.15
    assert ridge_residual(two) > 0.15


# --- derivatives ---


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_the_derivative_of_the_potential_in_x_and_in_the_parameters(kind):
    reg = KINDS[kind]().double()
    sigma = torch.tensor([0.05, 0.1], dtype=torch.float64)
    x, v = images().requires_grad_(), images(seed=1) - 0.5
    by_autograd = torch.autograd.grad(reg.fn(x, sigma).sum(), x, create_graph=True)[0]
    explicit = reg.grad(x, sigma)
    torch.testing.assert_close(explicit, by_autograd)
    # Training needs one backward pass through the explicit gradient; x with it, for implicit differentiation.
    wanted = [x, *reg.parameters()]
    expected = torch.autograd.grad((by_autograd * v).sum(), wanted, allow_unused=True, materialize_grads=True)
    found = torch.autograd.grad((explicit * v).sum(), wanted, allow_unused=True, materialize_grads=True)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-6)
    torch.testing.assert_close(reg.hvp(x, v, sigma), found[0])


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_needs_no_graph_and_is_the_same_within_one(kind):
    reg, x, v = KINDS[kind]().double(), images(), images(seed=1)
    with torch.inference_mode():
        plain = [reg.fn(x, 0.1), reg.grad(x, 0.1), reg.hvp(x, v, 0.1)]
    graph = [reg.fn(x, 0.1), reg.grad(x, 0.1), reg.hvp(x, v, 0.1)]
    assert all(g.requires_grad and not p.requires_grad for p, g in zip(plain, graph, strict=True))
    for p, g in zip(plain, graph, strict=True):
        torch.testing.assert_close(p, g.detach())


@pytest.mark.parametrize("kind", KINDS)
def test_constant_pictures_cost_nothing_and_sigma_zero_is_the_zero_regularizer(kind):
    reg = KINDS[kind](channels=3).double().requires_grad_(False)
    flat = torch.tensor([0.2, 0.9, 0.5], dtype=torch.float64)[None, :, None, None].expand(1, 3, 6, 6)
    assert float(reg.fn(flat, 0.1)) < 1e-12 and float(reg.grad(flat, 0.1).norm()) < 1e-12
    x = images(channels=3)
    assert bool((reg.fn(x, 0.1) > 1e-6).all())
    assert bool((reg.grad(x, torch.tensor([0.0, 0.1])).flatten(1).norm(dim=1) > 0).tolist() == [False, True])
    assert bool((reg.lipschitz(0.0) == 0).all())


@pytest.mark.parametrize("kind", [*KINDS, "local deep"])
def test_pictures_in_strips_are_the_same(kind, monkeypatch):
    reg = deep(3, inner_size=1) if kind == "local deep" else KINDS[kind]()
    functional = reg.double().requires_grad_(False).at(torch.tensor([0.05, 0.1]))
    x, v, t = images(side=9), images(side=9, seed=1), torch.tensor([0.1, -0.2], dtype=torch.float64)

    def evaluate():
        u, q = functional.linear(x), functional.linear(v)
        derivatives = [functional.grad(x), functional.hvp(x, v), functional.hessian_spectrum(u, x.shape)]
        return [*derivatives, functional.slope(u, q, t), functional.curvature(u, q)]

    with torch.no_grad():
        whole = evaluate()
        monkeypatch.setattr("icgn.regularizers.bank._STRIP", 200)
        for a, b in zip(evaluate(), whole, strict=True):
            torch.testing.assert_close(a, b)


def test_symmetric_and_group_networks_are_even():
    x = images()
    for reg in (softmax().double(), group().double()):
        torch.testing.assert_close(reg.fn(-x, 0.1), reg.fn(x, 0.1))


@pytest.mark.parametrize("kind", KINDS)
def test_rescaled_multiplies_value_and_argument(kind):
    reg, x = KINDS[kind]().double(), images()
    levels = torch.tensor([1 / 255, math.sqrt(50) / 255, 50 / 255])
    new = reg.rescaled(levels, torch.tensor([2.0, 1.0, 0.5]), torch.tensor([0.8, 0.9, 0.7]))
    sigma = float(levels[1])
    torch.testing.assert_close(new.fn(x, sigma), reg.fn(0.9 * x, sigma), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_architecture_and_state_make_the_same_network(kind):
    reg, x = KINDS[kind](), images().float()
    new = type(reg)(**json.loads(json.dumps(reg.architecture)))
    new.load_state_dict(reg.state_dict())
    assert torch.equal(new.grad(x, 0.1), reg.grad(x, 0.1))


# --- bounds ---


def steepest_seen(reg, channels, sigma=0.1, side=20):
    """The greatest Ritz value of the Hessian at flat, nearly flat and random pictures."""
    g, found = torch.Generator().manual_seed(0), 0.0
    noise = torch.randn(1, channels, side, side, generator=g, dtype=torch.float64)
    for size in (0.0, 0.03, 0.3):
        x = 0.5 + size * noise
        values, _ = ritz(lambda v, x=x: reg.hvp(x, v, sigma), random_direction(x, g), 40)
        found = max(found, float(values[-1]))
    return found


@pytest.mark.parametrize(
    ("make", "least"),
    [
        (lambda: group(3, border="zero"), 0.9),
        (lambda: group(3, 3, "zero"), 0.9),
        (lambda: softmax(2, border="zero"), 0.3),
        (lambda: deep(1, border="zero"), 0.5),
        (lambda: deep(2, border="zero"), 0.03),
        (lambda: deep(3, border="zero", inner_size=1), 0.002),
    ],
)
def test_lipschitz_bounds_the_curvature_and_is_not_far(make, least):
    reg = make().double().requires_grad_(False)
    ratio = steepest_seen(reg, reg.channels) / float(reg.lipschitz(0.1))
    assert least < ratio <= 1 + 1e-9, ratio


@pytest.mark.parametrize("channels", [1, 3])
def test_spectrum_at_a_flat_picture_is_that_of_the_hessian(channels):
    # All groups are inside their balls: the Hessian is a convolution but for the border.
    functional = group(2, channels, "zero").double().requires_grad_(False).at(0.1)
    x = torch.full((1, channels, 12, 12), 0.5, dtype=torch.float64)
    spectrum = functional.hessian_spectrum(0 * functional.linear(x), x.shape)
    v = torch.zeros_like(x)
    v[0, :, 6, 6] = 1 / math.sqrt(channels)
    response = functional.hvp(x, v).sum(1) / math.sqrt(channels)
    expected = torch.fft.rfft2(response.roll((-6, -6), (-2, -1))).real
    torch.testing.assert_close(spectrum[:, 0], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_spectrum_is_positive_and_of_the_size_of_the_hessian(kind):
    reg, x = KINDS[kind]().double().requires_grad_(False), images(side=12)
    functional = reg.at(torch.tensor([0.05, 0.1]))
    spectrum = functional.hessian_spectrum(functional.linear(x), x.shape)
    g = torch.Generator().manual_seed(0)
    v = torch.randn(x.shape, generator=g, dtype=torch.float64)
    mean = (v * functional.hvp(x, v)).sum((1, 2, 3)) / v.square().sum((1, 2, 3))
    rough = torch.fft.irfft2(torch.fft.rfft2(v) * spectrum, s=v.shape[-2:])
    ratio = (v * rough).sum((1, 2, 3)) / v.square().sum((1, 2, 3)) / mean
    # Diagonals alone, and a small picture with a border.
    assert bool(((ratio > 0.3) & (ratio < 6)).all()), ratio


# --- projections onto l1 balls ---


def bisection(v):
    """The projection of a vector onto the unit l1 ball, by bisection of the soft threshold."""
    size = np.abs(v)
    if size.sum() <= 1:
        return v
    low, high = 0.0, size.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(size - middle, 0).sum() > 1 else (low, middle)
    return np.sign(v) * np.maximum(size - (low + high) / 2, 0)


NUMBERS = st.floats(-5, 5, allow_subnormal=False)


@given(st.lists(NUMBERS, min_size=1, max_size=7))
@settings(deadline=None, max_examples=150)
def test_projection_agrees_with_bisection(numbers):
    v = np.array(numbers)
    found = project_l1(torch.from_numpy(v)[:, None])[:, 0].numpy()
    np.testing.assert_allclose(found, bisection(v), atol=1e-12)


@given(st.lists(NUMBERS, min_size=3, max_size=3), st.lists(NUMBERS, min_size=3, max_size=3))
@settings(deadline=None, max_examples=100)
def test_projection_is_optimal(first, second):
    # <v - P v, q - P v> <= 0 for every q of the ball, here the projection of another vector.
    v, w = (torch.tensor(t, dtype=torch.float64)[:, None] for t in (first, second))
    p, q = project_l1(v), project_l1(w)
    assert float(p.abs().sum()) <= 1 + 1e-12
    assert float(((v - p) * (q - p)).sum()) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projection_of_large_numbers_is_exact(dtype):
    v = torch.tensor([[1e6 + 0.5, 1e6], [-1e6, -1e20], [0.0, 3.0]], dtype=dtype)
    expected = torch.tensor([[0.75, 0.0], [-0.25, -1.0], [0.0, 0.0]], dtype=dtype)
    assert torch.equal(project_l1(v), expected)


def test_envelope_is_the_minimum_over_a_grid():
    # H(v) = min over w of max |w_i| + |v - w|^2 / 2.
    axis = torch.linspace(-3, 3, 601, dtype=torch.float64)
    w = torch.cartesian_prod(axis, axis)
    for v in torch.tensor([[0.3, -0.2], [2.0, 0.5], [1.5, -1.4], [-2.5, 0.0]], dtype=torch.float64):
        grid = (w.abs().amax(1) + (v - w).square().sum(1) / 2).min()
        torch.testing.assert_close(MaxEnvelope().value(v[:, None]).reshape(()), grid, atol=1e-4, rtol=0)


def test_prox_of_a_group_network():
    functional = group(3).double().requires_grad_(False).at(torch.tensor([0.05, 0.2]))
    v, s = functional.linear(3 * images()), torch.tensor([0.3, 2.0], dtype=torch.float64)
    p = functional.prox_potential(v, s)
    residual = p + s.reshape(-1, 1, 1) * functional.potential_grad(p) - v
    assert float(residual.abs().max()) < 1e-10
    assert functional.linear_norm().shape == (2,)
    without = softmax(3).double().at(0.1)
    assert Capability.POTENTIAL_PROX in functional.capabilities - without.capabilities
    with pytest.raises(NotImplementedError, match="proximal map of its potential"):
        without.prox_potential(v, s)


# --- softmax ---


def test_softmax_limits():
    v = torch.tensor([[0.3], [0.5], [-0.4]], dtype=torch.float64)
    zero = torch.zeros_like(v)
    # Sharp: the maximum, and its class.
    sharp = LogSumExp(zero, symmetric=False)
    torch.testing.assert_close(sharp.value(1e4 * v)[0, 0] / 1e4, (v.max() - v.mean()), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        sharp.grad(1e4 * v)[:, 0] + 1 / 3, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), atol=1e-12, rtol=0
    )
    # Both signs: the largest modulus.
    both = LogSumExp(zero, symmetric=True)
    torch.testing.assert_close(both.value(-1e4 * v)[0, 0] / 1e4, v.abs().max(), atol=1e-3, rtol=0)
    # Flat: half the variance, and half the mean square.
    torch.testing.assert_close(sharp.value(1e-4 * v)[0, 0] * 1e8, v.var(correction=0) / 2, rtol=1e-3, atol=0)
    torch.testing.assert_close(both.value(1e-4 * v)[0, 0] * 1e8, v.square().mean() / 2, rtol=1e-3, atol=0)
    # One filter of both signs: tanh. Two classes: a logistic function of the difference.
    torch.testing.assert_close(LogSumExp(zero[:1], True).grad(v[:1]), torch.tanh(v[:1]))
    torch.testing.assert_close(LogSumExp(zero[:2], False).grad(v[:2])[0, 0], torch.sigmoid(v[0, 0] - v[1, 0]) - 0.5)
    assert bool(torch.isfinite(both.value(1e200 * v)).all() and torch.isfinite(both.hvp(1e200 * v, v)).all())


def test_a_shared_direction_of_softmax_classes_has_no_curvature():
    net = DenseSoftmaxICGN(3, groups=2, members=4).double()
    before = net.lipschitz()
    with torch.no_grad():
        net.W += torch.tensor([50.0, -20.0, 10.0])
    torch.testing.assert_close(net.lipschitz(), before, rtol=1e-9, atol=0)


# --- dense networks ---

DENSE = {
    **{f"ridge {a}": functools.partial(DenseRidgeICGN, 3, width=5, activation=a) for a in (*BOUNDED, "softplus")},
    "softmax": functools.partial(DenseSoftmaxICGN, 3, groups=2, members=4),
    "softmax, strongly convex": lambda: DenseSoftmaxICGN(3, groups=1, members=6, strong_convexity=0.3, quadratic=4),
    "group": functools.partial(DenseGroupICGN, 3, groups=2, members=3),
    "group of one": lambda: DenseGroupICGN(3, groups=4, members=1, strong_convexity=0.1),
    **{f"deep {a}": functools.partial(DenseDeepICGN, 3, widths=(5, 4), activation=a) for a in BOUNDED},
    "deep of 3": lambda: DenseDeepICGN(3, widths=(4, 2, 3), strong_convexity=0.2, quadratic=2),
    "deep of 1": lambda: DenseDeepICGN(3, widths=(6,), activation="softplus"),
    "quadratic skips": lambda: DenseQuadraticICGN(3, widths=(5, 4, 3), strong_convexity=0.2),
    "quadratic skips of 1": lambda: DenseQuadraticICGN(3, widths=(5,)),
}


def dense(name):
    torch.manual_seed(0)
    net = DENSE[name]().double()
    with torch.no_grad():
        net.shift.normal_()
    return net


def vectors(batch=5, dim=3, seed=0, size=1.0):
    return size * torch.randn(batch, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", DENSE)
def test_derivatives_of_dense_networks(name):
    net, x, v = dense(name), vectors().requires_grad_(), vectors(seed=1)
    value, found = net.fn(x), net(x)
    assert value.shape == (5,)
    by_autograd = torch.autograd.grad(value.sum(), x, create_graph=True)[0]
    torch.testing.assert_close(found, by_autograd)
    wanted = [x, *net.parameters()]
    expected = torch.autograd.grad((by_autograd * v).sum(), wanted, allow_unused=True, materialize_grads=True)
    slopes = torch.autograd.grad((found * v).sum(), wanted, allow_unused=True, materialize_grads=True)
    for a, b in zip(slopes, expected, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(net.hvp(x, v), slopes[0])
    with torch.no_grad():
        step = 1e-6 * v
        torch.testing.assert_close((net.fn(x + step) - net.fn(x - step)) / 2e-6, (found * v).sum(1), rtol=1e-5, atol=0)
        torch.testing.assert_close(torch.einsum("bij,bj->bi", net.jacobian(x), v), net.hvp(x, v))
        assert float((net(torch.zeros_like(x)) - net.shift).abs().max()) < 1e-14


@pytest.mark.parametrize("name", DENSE)
def test_constants_of_dense_networks(name):
    net = dense(name)
    with torch.no_grad():
        h = torch.cat([net.jacobian(vectors(200, seed=s, size=size)) for s, size in enumerate((0.3, 1.0, 3.0))])
        spectrum = torch.linalg.eigvalsh(h)
    assert float((h - h.mT).abs().max()) < 1e-13
    bound, floor = net.lipschitz(), net.strong_convexity()
    assert bound.dtype == floor.dtype == torch.float64 and bound.shape == floor.shape == ()
    assert float(floor) - 1e-12 <= float(spectrum.min()) and float(spectrum.max()) <= float(bound) * (1 + 1e-12)
    # Quadratic skips have no Lipschitz constant.
    assert float(spectrum.max()) > 0.1 * float(bound) or name.startswith("quadratic skips")
    assert float(floor) >= net.mu


@pytest.mark.parametrize("name", [n for n in DENSE if dense(n).mu > 0])
def test_inverse_of_dense_networks(name):
    net, x = dense(name), vectors()
    found = net.inverse(net(x).detach(), tol=1e-8)
    assert float((found - x).square().mean(1).sqrt().max()) <= 1e-8


def test_the_network_with_quadratic_skips_is_its_formula():
    torch.manual_seed(0)
    net = DenseQuadraticICGN(3, widths=(5, 4), quadratic=2).double()
    with torch.no_grad():
        net.bias.normal_()
        net.shift.normal_()
    W, V = (m.split(net.widths) for m in net.W.chunk(2))
    b, e = (m.split(net.widths) for m in net.bias.chunk(2))

    def potential(x):
        p = x @ W[0].T + b[0] + (x @ V[0].T + e[0]).square() / 10
        inner = torch.celu(p) @ torch.nn.functional.softplus(net.raw_U[0]).T
        p = inner + x @ W[1].T + b[1] + (x @ V[1].T + e[1]).square() / 10
        return (
            torch.celu(p) @ torch.nn.functional.softplus(net.raw_c) + (x @ net.Q.T).square().sum(1) / 2 + x @ net.shift
        )

    x, zero = vectors().requires_grad_(), torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    slopes = [torch.autograd.grad(potential(at).sum(), at)[0] for at in (x, zero)]
    torch.testing.assert_close(net(x), slopes[0] - slopes[1] + net.shift)
    torch.testing.assert_close(net.fn(x), potential(x) - potential(zero) - x @ (slopes[1][0] - net.shift))
    assert net.lipschitz() == torch.inf


def test_one_dense_layer_is_the_dense_ridge():
    torch.manual_seed(0)
    ridge, deep_one = DenseRidgeICGN(3, width=5).double(), DenseDeepICGN(3, widths=(5,)).double()
    with torch.no_grad():
        deep_one.W.copy_(ridge.W)
        deep_one.bias.copy_(ridge.bias[:, 0])
        deep_one.raw_c.copy_(ridge.log_lambda.exp().expm1().log())
    x = vectors()
    torch.testing.assert_close(deep_one(x), ridge(x))
    torch.testing.assert_close(deep_one.lipschitz(), ridge.lipschitz())


def test_dense_and_convolutional_networks_are_the_same_function():
    # One window fills the picture: the convolution is a matrix.
    conv = DeepICGN(layers=2, filters=3, inner_size=1, size=3, border="valid", knots=3)
    conv = perturbed(conv).double()
    net = DenseDeepICGN(9, widths=(3, 3)).double()
    lam, tau = conv.curves(torch.tensor([0.1], dtype=torch.float64))
    with torch.no_grad():
        net.W.copy_(conv.bank.weight.flatten(1) / tau.flatten()[:, None])
        net.bias.copy_(conv.bias.flatten())
        net.raw_U[0].copy_(conv.raw_U[0][..., 0, 0])
        net.raw_c.copy_((lam * tau[:, -1])[0].expm1().log())
    x = images(4, side=3)[..., :3].contiguous()
    torch.testing.assert_close(net.fn(x.flatten(1)), conv.fn(x, 0.1))
    torch.testing.assert_close(net(x.flatten(1)), conv.grad(x, 0.1).flatten(1))


@pytest.mark.parametrize("name", ["softmax", "group", "deep tanh"])
def test_training_fits_a_smoothed_maximum(name):
    a = torch.tensor([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9], [0.3, -0.2]])
    x = 2 * torch.rand(256, 2, generator=torch.Generator().manual_seed(0)) - 1
    target = torch.softmax(8 * (x @ a.T), 1) @ a
    torch.manual_seed(0)
    make = {"softmax": DenseSoftmaxICGN, "group": DenseGroupICGN, "deep tanh": DenseDeepICGN}[name]
    net = make(2)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    losses = []
    for _ in range(150):
        loss = (net(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0], (losses[0], losses[-1])


# --- bad input ---


class Bump(Activation):
    """An activation whose psi falls on the right."""

    name, steepest = "bump", 1.0

    def hidden(self, t):
        return t

    def psi(self, t):
        return t * torch.exp(-t.square())

    def psi_prime(self, t):
        return (1 - 2 * t.square()) * torch.exp(-t.square())

    def potential(self, t):
        return (1 - torch.exp(-t.square())) / 2


class Steep(HardTanh):
    """A slope above the one it claims."""

    name = "steep"

    def psi(self, t):
        return 2 * super().psi(t)


BAD = {
    "falling psi, ridge": (
        lambda: DenseRidgeICGN(2, width=3, activation=Bump()),
        "activation: the psi of 'bump' has slope -0.4",
    ),
    "falling psi, deep": (lambda: DenseDeepICGN(2, widths=(3,), activation=Bump()), "expected a nondecreasing one"),
    "steep psi": (
        lambda: DenseRidgeICGN(2, width=3, activation=Steep()),
        "activation: the psi of 'steep' has slope 2, expected at",
    ),
    "unbounded psi": (
        lambda: DeepICGN(layers=2, activation="softplus"),
        "activation: got 'softplus', whose psi is not",
    ),
    "unknown activation": (lambda: DeepICGN(activation="relu"), "activation: got 'relu'"),
    "layers": (lambda: DeepICGN(layers=0), "layers, filters: got 0, 16"),
    "filters": (lambda: DeepICGN(layers=2, filters=0), "layers, filters: got 2, 0"),
    "inner size": (lambda: DeepICGN(inner_size=2), "inner_size: got 2, expected an odd"),
    "size": (lambda: DeepICGN(size=4), "size: got 4"),
    "knots": (lambda: GroupICGN(knots=1), "knots: got 1"),
    "sigma_range": (lambda: GroupICGN(sigma_range=(0.2, 0.1)), "sigma_range"),
    "min_knee": (lambda: GroupICGN(min_knee=-1.0), "min_knee: got -1.0"),
    "groups": (lambda: GroupICGN(groups=0), "groups, members: got 0, 4"),
    "members": (lambda: SoftmaxICGN(groups=2, members=0), "groups, members: got 2, 0"),
    "one class": (lambda: SoftmaxICGN(groups=2, members=1, symmetric=False), "members: got 1, expected at least 2"),
    "one dense class": (lambda: DenseSoftmaxICGN(2, groups=1, members=1), "members: got 1, expected at least 2"),
    "dim": (lambda: DenseGroupICGN(0), "dim, quadratic: got 0, 0"),
    "width": (lambda: DenseRidgeICGN(2, width=0), "width: got 0"),
    "widths": (lambda: DenseDeepICGN(2, widths=()), r"widths: got \(\)"),
    "strong_convexity": (lambda: DenseRidgeICGN(2, strong_convexity=-1.0), "strong_convexity: got -1.0"),
    "dimension of x": (lambda: DenseRidgeICGN(2)(torch.zeros(4, 3)), r"x: got shape \(4, 3\), expected \(B, 2\)"),
    "nan in x": (
        lambda: DenseRidgeICGN(2)(torch.tensor([[0.0, 1.0], [math.nan, 0.0]])),
        r"x: got nan or infinite numbers in rows \[1\]",
    ),
    "shape of v": (lambda: DenseRidgeICGN(2).hvp(torch.zeros(4, 2), torch.zeros(1, 2)), r"v: got shape \(1, 2\)"),
    "no inverse": (lambda: DenseRidgeICGN(2).inverse(torch.zeros(1, 2)), "strong_convexity: got 0, expected a pos"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_integers_are_refused():
    with pytest.raises(TypeError, match=r"x: got torch.int64, expected a floating-point tensor \(B, 2\)"):
        DenseRidgeICGN(2)(torch.zeros(4, 2, dtype=torch.int64))


@pytest.mark.parametrize(
    "make", [deep, softmax, group, *(functools.partial(dense, n) for n in ("softmax", "deep tanh"))]
)
def test_weights_that_are_not_finite_are_refused_and_negative_ones_cannot_be(make):
    reg = make()
    state = {name: t.clone() for name, t in reg.state_dict().items()}
    name = next(reversed(state))
    state[name].view(-1)[0] = math.nan
    with pytest.raises(ValueError, match=rf"state_dict: {name} of {type(reg).__name__} has 1 values that are not"):
        reg.load_state_dict(state)
    # Whatever the numbers of a file are, those that must not be negative are not.
    reg.load_state_dict({n: -10 * torch.ones_like(t) if "raw_" in n else t for n, t in reg.state_dict().items()})
    if hasattr(reg, "raw_U"):
        functional = reg.curved() if hasattr(reg, "curved") else reg.at(0.1)
        assert all(bool((m.weight > 0).all()) for m in functional.head.maps)
