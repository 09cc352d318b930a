"""The general network: quadrature, agreement with the closed form, and the refusal of modules that are no gradient."""

import math

import pytest
import torch
from torch import nn

from icgn.regularizers import RidgeICGN
from icgn.regularizers.icgn import ICGN, NotAGradientError
from icgn.regularizers.quadrature import GaussLegendre, MonteCarlo, Simpson, Trapezoid

HIDDEN = {"tanh": torch.tanh, "hardtanh": nn.functional.hardtanh, "relu": torch.relu}


class Dense(nn.Module):
    """A s(W x + b), with A diagonal or full, and then perhaps s again."""

    def __init__(self, inputs, units, hidden, mixing=False, deep=False, seed=0, gain=2.0):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(gain * torch.randn(units, inputs, generator=g) / math.sqrt(inputs))
        self.bias = nn.Parameter(0.5 * torch.randn(units, generator=g))
        scale = torch.rand(units, generator=g) + 0.5
        self.register_buffer("A", torch.randn(units, units, generator=g) / units**0.5 if mixing else scale.diag())
        self.hidden, self.deep = HIDDEN[hidden], deep

    def forward(self, x):
        z = self.hidden(x.flatten(1) @ self.weight.T + self.bias) @ self.A.T
        return self.hidden(z) if self.deep else z


def gentle_ridge(activation="tanh", filters=4, channels=1):
    """A ridge network of knees near 1 and saturations near 1/2: its pre-activations are what 32 nodes resolve."""
    ridge = RidgeICGN(filters=filters, size=3, channels=channels, units=2, activation=activation).double()
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        ridge.log_tau.copy_(0.2 * torch.randn(ridge.log_tau.shape, generator=g))
        ridge.log_lambda.copy_(0.2 * torch.randn(ridge.log_lambda.shape, generator=g) - 0.7)
    return ridge


def pictures(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- quadrature ---


@pytest.mark.parametrize(
    ("rule", "degree"), [(GaussLegendre(5), 9), (Simpson(5), 3), (Trapezoid(4), 1), (MonteCarlo(5), 9)]
)
def test_degree_of_exactness(rule, degree):
    nodes, weights = (torch.tensor(r, dtype=torch.float64) for r in rule.rule(random=False))
    errors = [abs(float((weights * nodes**k).sum()) - 1 / (k + 1)) for k in range(degree + 3)]
    assert max(errors[: degree + 1]) < 1e-14
    assert max(errors[degree + 1 :]) > 1e-9
    assert 0 <= float(nodes.min()) <= float(nodes.max()) <= 1
    assert float(weights.min()) > 0


@pytest.mark.parametrize(("kind", "order"), [(Simpson, 4), (Trapezoid, 2)])
def test_order_of_convergence(kind, order):
    def error(n):
        nodes, weights = kind(n).rule(random=False)
        return abs(sum(w * math.exp(s) for s, w in zip(nodes, weights, strict=True)) - (math.e - 1))

    assert math.log2(error(17) / error(33)) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize(("kind", "n"), [(Simpson, 4), (Simpson, 1), (Trapezoid, 1), (GaussLegendre, 0),
                                         (MonteCarlo, -1), (GaussLegendre, 2.0), (GaussLegendre, True)])  # fmt: skip
def test_bad_node_counts(kind, n):
    with pytest.raises(ValueError, match="n: got"):
        kind(n)


@pytest.mark.parametrize("kind", [GaussLegendre, Simpson, Trapezoid, MonteCarlo])
def test_rules_with_more_nodes_are_closer_to_the_closed_form(kind):
    ridge, x = gentle_ridge(), pictures(1, 1, 6, 7)
    exact = ridge.grad(x, 0.1)
    errors = []
    for n in (3, 7):
        reg = ICGN(ridge.hidden_layer(0.1), quadrature=kind(n), check=False).eval()
        errors.append(float((reg.grad(x) - exact).norm().detach()))
    assert errors[1] < 0.5 * errors[0]


def test_monte_carlo_draws_anew_in_training_and_is_deterministic_in_evaluation():
    reg, x = ICGN(gentle_ridge().hidden_layer(0.1), quadrature=MonteCarlo(4), check=False), pictures(1, 1, 5, 5)
    torch.manual_seed(0)
    drawn = [reg.grad(x) for _ in range(2)]
    frozen = reg.at()
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(frozen.grad(x), frozen.grad(x))
    reg.eval()
    assert torch.equal(reg.grad(x), ICGN(reg.M, quadrature=GaussLegendre(4), check=False).grad(x))


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus"])
@pytest.mark.parametrize("channels", [1, 3])
def test_agrees_with_the_closed_form(activation, channels):
    ridge, x, v = gentle_ridge(activation, channels=channels), pictures(2, channels, 6, 8), pictures(2, channels, 6, 8)
    reg = ICGN(ridge.hidden_layer(0.1), quadrature=GaussLegendre(32), check=False)
    for hessian in ("gram", "derivative"):
        product = ICGN(reg.M, quadrature=reg.quadrature, check=False, hessian=hessian).hvp(x, v)
        torch.testing.assert_close(product, ridge.hvp(x, v, 0.1), rtol=0, atol=1e-8)
    torch.testing.assert_close(reg.grad(x), ridge.grad(x, 0.1), rtol=0, atol=1e-8)
    torch.testing.assert_close(reg.fn(x), ridge.fn(x, 0.1), rtol=0, atol=1e-8)
    assert bool(ridge.grad(x, 0.1).norm() > 0.02)


def test_too_few_nodes_lose_monotonicity():
    # Pre-activations of standard deviation 4.5: 8 nodes are too few, 32 are not.
    n, points = 8, 40
    torch.manual_seed(0)
    M = Dense(n, 24, "tanh", gain=1.0).double()
    x = 4.5 * torch.randn(points, 1, 2, 4, dtype=torch.float64)
    basis = torch.eye(n, dtype=torch.float64).view(n, 1, 1, 2, 4).expand(n, points, 1, 2, 4)
    shares = []
    for nodes in (8, 16, 32):
        reg = ICGN(M, quadrature=GaussLegendre(nodes), check=False, hessian="derivative")
        jacobian = torch.stack([reg.hvp(x, e).detach().flatten(1) for e in basis], 2)
        assert float((jacobian - jacobian.mT).norm() / jacobian.norm()) < 1e-12
        least = torch.linalg.eigvalsh(jacobian)[:, 0] / jacobian.flatten(1).norm(dim=1)
        shares.append(float((least < -1e-6).double().mean()))
    assert shares[0] > 0.3
    assert shares[0] > shares[1] > shares[2]


# --- which modules are accepted ---


@pytest.mark.parametrize("hidden", ["tanh", "hardtanh", "relu"])
@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (2, 1, 6, 6)])
def test_one_hidden_layer_is_accepted(hidden, shape):
    inputs = shape[2] * shape[3]
    for seed in range(2):
        reg = ICGN(Dense(inputs, 2 * inputs, hidden, seed=seed))
        assert reg.grad(pictures(*shape, dtype=torch.float32)).shape == shape
        defect = reg.integrability_defect(pictures(*shape))
        assert defect.worst < reg.tol
        assert defect.gram_defect < 0.1


@pytest.mark.parametrize("hidden", ["tanh", "hardtanh", "relu"])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (2, 1, 6, 6)])
def test_mixing_is_refused_with_the_number(hidden, deep, shape):
    inputs = shape[2] * shape[3]
    for seed in range(2):
        M = Dense(inputs, 2 * inputs, hidden, mixing=True, deep=deep, seed=seed)
        with pytest.raises(NotAGradientError, match=r"asymmetry 0\.\d+.*backward sweep.*check=False"):
            ICGN(M).grad(pictures(*shape))
        assert torch.isfinite(ICGN(M, check=False).grad(pictures(*shape, dtype=torch.float32))).all()


def test_automatic_differentiation_is_blind_where_the_measured_defect_is_not():
    reg = ICGN(Dense(9, 18, "relu", mixing=True), check=False, hessian="derivative").double()
    x, u, v = (pictures(1, 1, 3, 3, seed=s) for s in range(3))
    asymmetry = ((u * reg.hvp(x, v)).sum() - (v * reg.hvp(x, u)).sum()).abs() / reg.hvp(x, v).norm()
    assert bool(asymmetry < 1e-12)
    assert reg.integrability_defect(x).asymmetry > 0.05


def test_symmetric_but_not_convex_is_refused():
    class Homogeneous(nn.Module):
        """M = sqrt of a non-convex function of degree 2, so that N is the gradient of |M|^2 / 2."""

        def forward(self, x):
            a, b = x.flatten(1)[:, :2].unbind(1)
            return ((a * b) ** 2).pow(0.25)[:, None]

    defect = ICGN(Homogeneous()).integrability_defect(pictures(3, 1, 1, 2) + 2)
    assert defect.asymmetry < 0.02
    assert defect.least_curvature < -0.5


def test_positively_homogeneous_module_gets_the_true_hessian():
    class Norm(nn.Module):
        def forward(self, x):
            return x.flatten(1).norm(dim=1, keepdim=True)

    # N(x) = x, although J^T J is a projection.
    reg, x, v = ICGN(Norm()), pictures(1, 1, 3, 3), pictures(1, 1, 3, 3, seed=1)
    assert reg.integrability_defect(x).gram_defect > 0.1
    torch.testing.assert_close(reg.grad(x), x)
    torch.testing.assert_close(reg.hvp(x, v), v)


def test_verdict_is_cached_until_parameters_change(monkeypatch):
    reg, x = ICGN(Dense(4, 6, "tanh")), pictures(1, 1, 2, 2, dtype=torch.float32)
    calls = []
    measure = reg.integrability_defect
    monkeypatch.setattr(reg, "integrability_defect", lambda *a, **k: calls.append(1) or measure(*a, **k))
    for _ in range(3):
        reg.grad(x)
        reg.fn(x)
        reg.hvp(x, x)
    assert len(calls) == 1
    with torch.no_grad():
        reg.M.weight.mul_(1.1)
    reg.grad(x)
    assert len(calls) == 2
    with torch.no_grad():
        reg.M.A.copy_(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))
    for _ in range(2):
        with pytest.raises(NotAGradientError):
            reg.grad(x)
    assert len(calls) == 3


def test_measuring_changes_nothing():
    M, x = Dense(4, 6, "tanh"), pictures(1, 1, 2, 2, dtype=torch.float32)
    before = {n: t.clone() for n, t in M.state_dict().items()}
    state = torch.get_rng_state()
    first = ICGN(M).integrability_defect(x)
    assert ICGN(M).integrability_defect(x) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[n]) and t.dtype == torch.float32 for n, t in M.state_dict().items())


def test_large_images_are_tested_on_a_crop_and_convolutions_take_it():
    M = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh())
    mix = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        M[0].weight.copy_(3 * pictures(3, 1, 3, 3) - 1)
        mix.weight.copy_(pictures(3, 3, 1, 1, seed=1))
    x = pictures(1, 1, 50, 40, dtype=torch.float32)
    assert ICGN(M, quadrature=GaussLegendre(8)).grad(x).shape == x.shape
    with pytest.raises(NotAGradientError):
        ICGN(nn.Sequential(M, mix), quadrature=GaussLegendre(8)).grad(x)


def test_constant_module_is_the_zero_regularizer():
    class Constant(nn.Module):
        def forward(self, x):
            return 0 * x

    x = pictures(2, 1, 3, 3)
    assert float(ICGN(Constant()).grad(x).abs().max()) == 0
    assert ICGN(Constant()).fn(x).tolist() == [0, 0]


# --- use ---


def test_parameters_are_differentiable_in_every_precision():
    M = Dense(4, 6, "tanh")
    for dtype in (torch.float32, torch.float64):
        x = pictures(2, 1, 2, 2, dtype=dtype)
        reg = ICGN(M, quadrature=GaussLegendre(12), check=False)
        loss = reg.grad(x).square().sum() + reg.fn(x).sum()
        found = torch.autograd.grad(loss, M.weight)[0]

        def value(shift, x=x):
            other = Dense(4, 6, "tanh").double()
            with torch.no_grad():
                other.weight[1, 2] += shift
                reg = ICGN(other, quadrature=GaussLegendre(12), check=False)
                x = x.double()
                return float(reg.grad(x).square().sum() + reg.fn(x).sum())

        expected = (value(1e-5) - value(-1e-5)) / 2e-5
        assert float(found[1, 2]) == pytest.approx(expected, rel=1e-3 if dtype == torch.float32 else 1e-6)


def test_gradient_of_fn_by_autograd_is_grad():
    reg = ICGN(Dense(4, 6, "tanh"), quadrature=GaussLegendre(32), check=False)
    x = pictures(2, 1, 2, 2).requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(reg.fn(x).sum(), x)[0], reg.grad(x), rtol=1e-8, atol=1e-10)


def test_in_place_module_does_not_write_to_the_image():
    M = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten())
    x = pictures(1, 1, 3, 3) - 0.5
    before = x.clone()
    reg = ICGN(M, check=False, hessian="derivative")
    for result in (reg.grad(x), reg.fn(x), reg.hvp(x, x)):
        assert torch.isfinite(result).all()
    assert torch.equal(x, before)
    torch.testing.assert_close(reg.grad(x), x.clamp_min(0))


def test_constants_and_sigma():
    reg = ICGN(Dense(4, 6, "tanh"), lipschitz=7.0)
    assert float(reg.lipschitz()) == 7.0
    assert float(ICGN(reg.M).lipschitz(0.1)) == math.inf
    assert float(reg.strong_convexity()) == 0
    x = pictures(1, 1, 2, 2)
    assert torch.equal(reg.grad(x), reg.grad(x, 0.3))


def test_nodes_are_evaluated_in_blocks_with_the_same_result(monkeypatch):
    reg, x = ICGN(gentle_ridge().hidden_layer(0.1), quadrature=GaussLegendre(10), check=False), pictures(2, 1, 5, 6)
    whole = reg.grad(x), reg.fn(x)
    monkeypatch.setattr("icgn.regularizers.icgn._BLOCK", 200)
    torch.testing.assert_close((reg.grad(x), reg.fn(x)), whole, rtol=1e-13, atol=0)


class Scalar(nn.Module):
    def forward(self, x):
        return x.sum()


class Pair(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"M": torch.tanh}, TypeError, "M: got"),
        ({"tol": 0.0}, ValueError, "tol"),
        ({"tol": math.nan}, ValueError, "tol"),
        ({"lipschitz": -1.0}, ValueError, "lipschitz"),
        ({"hessian": "exact"}, ValueError, "hessian: got 'exact', expected one of auto, gram, derivative"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ICGN(**{"M": nn.Tanh(), **arguments})


@pytest.mark.parametrize(("M", "error"), [(Scalar(), ValueError), (Pair(), TypeError)])
def test_modules_that_return_something_else(M, error):
    with pytest.raises(error, match="M: returned"):
        ICGN(M, check=False).grad(pictures(2, 1, 2, 2))


def test_condition_and_bad_sigma_are_refused():
    reg = ICGN(nn.Tanh(), check=False)
    with pytest.raises(ValueError, match="condition"):
        reg.at(condition=torch.zeros(1))
    with pytest.raises(ValueError, match="sigma"):
        reg.grad(pictures(1, 1, 2, 2), -0.1)
