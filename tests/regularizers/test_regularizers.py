"""The contract that every regularizer fulfils, the faults it must find, and bad input."""

import copy
import functools
import itertools
import math
from dataclasses import fields

import deepinv
import pytest
import torch
from conditional_cases import conditional, masks
from latent_cases import latent
from torch import nn

from icgn.functionals.functional import BlackBoxFunctional, colour_basis
from icgn.regularizers import ICNN, ConvexRegularizer, PerChannel, PullBack, RidgeICGN, SumRegularizer, TotalVariation
from icgn.regularizers.bank import BankFunctional
from icgn.regularizers.checks import CONTRACT, ContractError, ContractReport, Measurement, check_regularizer
from icgn.regularizers.icgn import ICGN
from icgn.regularizers.quadrature import GaussLegendre
from icgn.regularizers.scaled import ScaledRegularizer

ACTIVATIONS = ("tanh", "sigmoid", "softplus", "hardtanh")
BORDERS = ("reflect", "zero", "valid")


def ridge(activation="tanh", channels=1, border="reflect", seed=0):
    """A small ridge network whose curves differ from filter to filter and bend in sigma."""
    reg = RidgeICGN(filters=4, size=3, channels=channels, units=2, activation=activation, border=border, knots=3)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in (reg.log_lambda, reg.log_tau):
            p += 0.3 * torch.randn(p.shape, generator=g)
        reg.log_tau += 2.0
    return reg


def quadrature(channels=1):
    """The same by quadrature, of gentle pre-activations."""
    reg = ridge(channels=channels)
    with torch.no_grad():
        reg.log_tau += 2.0
    return ICGN(Hidden(reg), quadrature=GaussLegendre(16))


class Hidden(nn.Module):
    """A dense stand-in for the hidden layer of a ridge network, quick on small pictures."""

    def __init__(self, reg):
        super().__init__()
        self.weight = nn.Parameter(reg.bank.weight.detach().clone())

    def forward(self, x):
        return torch.tanh(nn.functional.conv2d(x, self.weight, padding=1) + 0.2)


def icnn(*args, make=ICNN, **options):
    """A small ICNN whose curves bend in sigma and whose activations are used on both sides."""
    reg = make(*args, **{"smoothing": 0.1, "knots": 3, **options})
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in (reg.log_alpha, reg.log_beta, reg.bias):
            p += 0.3 * torch.randn(p.shape, generator=g)
    return reg


def given(channels, reach=1.0, level=1.0, **options):
    """A conditional network with a fixed condition for pictures of 6 x 7."""
    reg = conditional(channels, **options)
    return reg.given(level * masks(reg, (6, 7), reach=reach))


class Rotation(deepinv.physics.LinearPhysics):
    """Multiply complex pictures by a phase that varies from pixel to pixel (and from image to image)."""

    def __init__(self, images=1, size=(6, 7)):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        phase = torch.randn(images, *size, generator=g, dtype=torch.float64)
        self.register_buffer("factor", torch.polar(torch.ones_like(phase), phase))

    def A(self, x, **kwargs):  # noqa: N802
        return self._times(x, self.factor)

    def A_adjoint(self, y, **kwargs):  # noqa: N802
        return self._times(y, self.factor.conj())

    def _times(self, x, factor):
        z = torch.view_as_complex(x.movedim(1, -1).contiguous()) * factor
        return torch.view_as_real(z).movedim(-1, 1)


def blur():
    """An asymmetric circular blur of 6 x 7 pixels."""
    kernel = torch.tensor([[0.1, 0.2, 0.0], [0.0, 0.5, 0.1], [0.05, 0.05, 0.0]], dtype=torch.float64)
    return deepinv.physics.BlurFFT((1, 6, 7), kernel[None, None])


FACTORIES = {
    f"ridge {activation} {channels} {border}": functools.partial(ridge, activation, channels, border)
    for activation, channels, border in itertools.product(ACTIVATIONS, (1, 3), BORDERS)
} | {
    "sum": lambda: ridge("tanh") + ridge("hardtanh", seed=1),
    "scaled": lambda: 2.5 * ridge("softplus"),
    "nested sum with a zero weight": lambda: SumRegularizer([ridge() + ridge("sigmoid"), ridge("tanh")], [0.5, 0.0]),
    "quadrature 1": functools.partial(quadrature, 1),
    "quadrature 3": functools.partial(quadrature, 3),
    "ICNN": lambda: icnn(2, 4, 3, zero_mean=True),
    "ICNN 3": lambda: icnn(3, 3, 3, channels=3, slope=0.1),
    "ICNN of Mukherjee": lambda: icnn(make=ICNN.mukherjee, layers=4, filters=4, size=3, sparse_filters=2),
    "widened": lambda: ridge("hardtanh").widened(filters=6, size=5, units=3),
    "rescaled": lambda: ridge().rescaled(torch.tensor([0.02, 0.1]), torch.tensor([2.0, 0.5]), torch.tensor([0.7, 1.5])),
    "ridge + quadrature": lambda: ridge() + quadrature(),
    "per channel 2": lambda: PerChannel(ridge("hardtanh")),
    "per channel 3": lambda: PerChannel(ridge() + 0.5 * icnn(2, 4, 3)),
    "per channel of quadrature 2": lambda: PerChannel(quadrature()),
    "pull-back by a blur 1": lambda: PullBack(ridge(), blur()),
    "pull-back of an ICNN 1": lambda: PullBack(icnn(2, 4, 3, strong_convexity=0.1), blur()),
    "pull-back by a rotation 2": lambda: PullBack(PerChannel(ridge()), Rotation(), gram=(1, 1)),
    "pull-back by a part 1": lambda: PullBack(ridge(), deepinv.physics.Downsampling((1, 6, 7), filter=None, factor=2)),
    # A knee that random pictures cross on both sides.
    "total variation 1": lambda: TotalVariation(eps=0.3),
    "total variation 3": TotalVariation,
    "sum with a total variation": lambda: ridge() + 0.5 * TotalVariation(),
    "latent 1": functools.partial(latent, 1, 2),
    "latent 3": functools.partial(latent, 3, 1, activation="sigmoid"),
    "latent with kinks 1": functools.partial(latent, 1, 1, activation="hardtanh", units=2, border="zero"),
    "conditional without a condition": conditional,
    "conditional, random condition": lambda: given(1),
    "conditional 3, random condition": lambda: given(3, units=2, activation="tanh"),
    "conditional, extreme condition": lambda: given(1, reach=8.0),
    "conditional, hardly any mask": lambda: given(1, level=0.05),
    "conditional, zero border": lambda: given(1, border="zero", activation="softplus"),
    "sum with a conditional": lambda: given(1) + 2 * ridge(),
    "per channel of a conditional 2": lambda: PerChannel(given(1)),
    "scaled 1": lambda: ScaledRegularizer(ridge(), -3.0, 9.0),
    "scaled ICNN 1": lambda: ScaledRegularizer(icnn(2, 4, 3, strong_convexity=0.1), 0.5, 0.9),
    "scaled per channel 2": lambda: ScaledRegularizer(PerChannel(ridge("sigmoid")), 1.0, 5.0),
    "sum with a pull-back 1": lambda: ridge("sigmoid") + 2 * PullBack(ridge(), blur()),
}


def contract(reg, shape, **options):
    """The report, whether or not the contract holds."""
    try:
        return check_regularizer(reg, shape, **options)
    except ContractError as error:
        return error.report


@functools.cache
def report_of(name, device):
    reg = FACTORIES[name]().to(device)
    return contract(reg, (2, reg.channels or (int(name[-1]) if name[-1].isdigit() else 1), 6, 7))


@pytest.mark.parametrize("check", CONTRACT)
@pytest.mark.parametrize("name", FACTORIES)
def test_contract(name, check, device):
    found = report_of(name, device)[check]
    assert found.passed, f"{found.value} > {found.tolerance}: {found.note}"


def test_contract_at_the_smallest_size_and_at_small_sigma():
    check_regularizer(ridge("hardtanh"), (1, 1, 3, 3), sigma=5 / 255, step=1e-7)
    check_regularizer(ridge("tanh", 3), (3, 3, 3, 5), sigma=1 / 255, step=1e-8)


# --- planted faults ---


class Planted(ConvexRegularizer):
    """A sound regularizer whose functional is spoilt."""

    def __init__(self, fault, **spoilt):
        super().__init__()
        self.base, self.fault, self.spoilt = ridge(), fault, spoilt
        self.channels, self.min_size = self.base.channels, self.base.min_size

    def at(self, sigma=None, condition=None):
        inner = self.base.at(sigma)
        if issubclass(self.fault, BankFunctional):
            return self.fault(**{f.name: getattr(inner, f.name) for f in fields(inner)})
        return self.fault(inner, **self.spoilt)


class Spoilt(BlackBoxFunctional):
    """Delegates to a sound functional but for the methods given."""

    def __init__(self, inner, **methods):
        self.inner, self.methods = inner, methods

    def _call(self, name, *args):
        sound = getattr(self.inner, name)
        return self.methods[name](sound, *args) if name in self.methods else sound(*args)

    def fn(self, x):
        return self._call("fn", x)

    def grad(self, x):
        return self._call("grad", x)

    def hvp(self, x, v):
        return self._call("hvp", x, v)

    def lipschitz(self):
        return self._call("lipschitz")

    def strong_convexity(self):
        return self._call("strong_convexity")

    def select(self, index):
        return self if "select" in self.methods else Spoilt(self.inner.select(index), **self.methods)

    def to(self, dtype):
        return self if "to" in self.methods else Spoilt(self.inner.to(dtype), **self.methods)


class WrongAdjoint(BankFunctional):
    def linear_adjoint(self, z, shape):
        return super().linear_adjoint(z, shape).flip(-1)


class WrongStrips(BankFunctional):
    def grad_from(self, u, shape):
        return super().grad_from(u, shape).flip(-1)


class WrongSlope(BankFunctional):
    def slope(self, u, q, t):
        return 1.01 * super().slope(u, q, t)


class WrongCurvature(BankFunctional):
    def curvature(self, u, q):
        return 1.01 * super().curvature(u, q)


def concave(c):
    """The terms of -c |x|^2 / 2, consistent with one another."""
    return {
        "fn": lambda f, x: f(x) - c / 2 * x.square().sum((1, 2, 3)),
        "grad": lambda f, x: f(x) - c * x,
        "hvp": lambda f, x, v: f(x, v) - c * v,
    }


def written_to(f, x):
    x += 1e-3
    return f(x)


def swirl(f, x):
    """Add a field that rotates and is no gradient."""
    return f(x) + 1e-3 * (x.roll(1, -1) - x.roll(-1, -1))


def spoilt(**methods):
    return lambda: Planted(Spoilt, **methods)


class Mixing(nn.Module):
    """A s(W x) with a full A."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(6, 1, 3, 3, generator=g) / 2)
        self.mix = nn.Parameter(torch.randn(6, 6, 1, 1, generator=g))

    def forward(self, x):
        z = torch.tanh(nn.functional.conv2d(x, self.weight, padding=1) + 0.3)
        return nn.functional.conv2d(z, self.mix)


FAULTS = {
    "mixing module, unchecked": (
        lambda: ICGN(Mixing(), quadrature=GaussLegendre(16), check=False),
        "Hessian symmetric",
    ),
    "mixing module, potential": (lambda: ICGN(Mixing(), quadrature=GaussLegendre(16), check=False), "gradient of fn"),
    "mixing module, refused": (lambda: ICGN(Mixing(), quadrature=GaussLegendre(16)), "gradient of fn"),
    "wrong adjoint": (lambda: Planted(WrongAdjoint), "adjoint"),
    "wrong strips": (lambda: Planted(WrongStrips), "gradient of fn"),
    "wrong slope": (lambda: Planted(WrongSlope), "slope and curvature"),
    "wrong curvature": (lambda: Planted(WrongCurvature), "slope and curvature"),
    "L too small": (spoilt(lipschitz=lambda f: 0.1 * f()), "Lipschitz"),
    "mu too large": (spoilt(strong_convexity=lambda f: f() + 1e-2), "curvature at least mu"),
    "concave term": (spoilt(**concave(1e-3)), "curvature at least mu"),
    "concave term, monotone": (spoilt(**concave(1e-3)), "monotone"),
    "concave term, tangents": (spoilt(**concave(1e-3)), "fn above its tangents"),
    "gradient of another function": (spoilt(grad=lambda f, x: 1.01 * f(x)), "gradient of fn"),
    "no gradient at all": (spoilt(grad=swirl), "Hessian symmetric"),
    "hvp of another function": (spoilt(hvp=lambda f, x, v: 1.01 * f(x, v)), "Hessian product"),
    "writes to its input": (spoilt(grad=written_to), "inputs unmodified"),
    "images mixed": (spoilt(grad=lambda f, x: f(x) + 1e-6 * x.mean(0)), "images independent"),
    "one value for the batch": (spoilt(fn=lambda f, x: f(x).sum()), "shapes"),
    "nan": (spoilt(grad=lambda f, x: f(x) * math.nan), "shapes"),
    "nan, monotone": (spoilt(grad=lambda f, x: f(x) * math.nan), "monotone"),
    "nan, Lipschitz": (spoilt(lipschitz=lambda f: f() * math.nan), "Lipschitz"),
    "sigma ignored by select": (spoilt(select=None), "sigma per image"),
    "precision lost": (spoilt(grad=lambda f, x: f(x).float()), "precision kept"),
    "raises": (spoilt(hvp=lambda f, x, v: 1 / 0), "Hessian product"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(fault):
    make, check = FAULTS[fault]
    with pytest.raises(ContractError, match=check) as caught:
        check_regularizer(make(), (2, 1, 6, 7))
    assert check in caught.value.report.violations


def test_the_unspoilt_wrapper_passes():
    check_regularizer(Planted(Spoilt), (2, 1, 6, 7))


def test_wrong_prox_is_found():
    class Lazy(RidgeICGN):
        def prox(self, x, sigma=None, *args, gamma=1.0, **kwargs):
            return x - gamma * self.grad(x, sigma)

    report = contract(Lazy(filters=4, size=3), (2, 1, 6, 7))
    assert list(report.violations) == ["prox optimal"]


def test_report_reads_as_a_mapping_and_nan_does_not_pass():
    report = ContractReport({"a": Measurement(1e-9, 1e-6), "b": Measurement(math.nan, 1.0, "why")})
    assert (len(report), list(report), report["a"].passed) == (2, ["a", "b"], True)
    assert list(report.violations) == ["b"]
    assert "b: nan (tolerance 1): why" in str(ContractError(report))


def test_a_note_is_said_once():
    report = ContractReport({name: Measurement(math.nan, 1.0, "broken") for name in "abc"})
    assert str(report).splitlines()[1:] == [f"{name}: nan (tolerance 1): as above" for name in "bc"]


@pytest.mark.parametrize("shape", [(16, 16), (1, 1, 0, 4)])
def test_a_shape_that_is_none_is_refused(shape):
    with pytest.raises(ValueError, match=r"shape: got .*, expected \(B, C, H, W\)"):
        check_regularizer(TotalVariation(), shape)


def test_an_interface_that_is_none_is_told():
    class NoAt(ConvexRegularizer):
        pass

    class NoCondition(ConvexRegularizer):
        def at(self, sigma):
            return ridge().at(sigma)

    with pytest.raises(TypeError, match=r"NoAt.at: got NoneType, expected a ConvexFunctional"):
        check_regularizer(NoAt(), (1, 1, 5, 5))
    with pytest.raises(TypeError, match=r"NoCondition.at: too many .*; expected at\(sigma, condition=None\)"):
        check_regularizer(NoCondition(), (1, 1, 5, 5))


def test_check_leaves_the_regularizer_alone():
    reg = ridge().train()
    before = {n: t.clone() for n, t in reg.state_dict().items()}
    check_regularizer(reg, (1, 1, 5, 5))
    assert reg.training
    assert all(torch.equal(t, before[n]) and t.dtype == before[n].dtype for n, t in reg.state_dict().items())


# --- constants ---


def test_constants_add_up_with_the_weights():
    a, b = ridge(), ridge("sigmoid", seed=1)
    expected = 2 * a.lipschitz(0.1) + 3 * b.lipschitz(0.1)
    torch.testing.assert_close((2 * a + 3 * b).lipschitz(0.1), expected)
    assert float((0.0 * ICGN(nn.Tanh())).lipschitz(0.1)) == 0
    assert float((1.0 * ICGN(nn.Tanh())).lipschitz(0.1)) == math.inf


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_lipschitz_is_above_the_largest_curvature_and_not_far(border, channels):
    # Filters of equal strength: at a constant image every activation is at its steepest.
    reg = RidgeICGN(filters=4, size=3, channels=channels, border=border, activation="tanh").double()
    x = torch.full((1, channels, 24, 24), 0.5, dtype=torch.float64)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        for _ in range(100):
            v = reg.hvp(x, v / v.norm(), 0.1)
        ratio = float(v.norm() / reg.lipschitz(0.1))
    assert (0.2 if border == "reflect" else 0.8) < ratio <= 1


def test_sigma_zero_is_the_zero_regularizer():
    x = torch.rand(2, 1, 6, 6)
    assert ridge().fn(x, 0.0).tolist() == [0, 0]
    assert bool((ridge().lipschitz(0.0) == 0).all())
    assert not bool(ridge().grad(x, torch.tensor([0.0, 0.1]))[0].any())


def test_constant_and_black_images_cost_nothing():
    for value in (0.0, 0.7):
        x = torch.full((1, 1, 6, 6), value, dtype=torch.float64)
        assert bool(ridge().fn(x, 0.1) < 1e-6)
        assert bool(ridge().grad(x, 0.1).norm() < 1e-6)


# --- total variation ---


def step_picture(height=0.5):
    """Two flat halves, of 3 columns each."""
    return torch.tensor([0.25] * 3 + [0.25 + height] * 3, dtype=torch.float64).expand(1, 1, 5, 6).clone()


def test_total_variation_of_a_step():
    # Five rows cross the edge: each costs its height less eps / 2, and pulls its two pixels together with force w.
    reg, w = TotalVariation(factor=2.0, exponent=1.5, eps=0.1), 2.0 * 0.1**1.5
    x = step_picture()
    torch.testing.assert_close(reg.fn(x, 0.1), torch.tensor([5 * w * 0.45], dtype=torch.float64))
    pull = torch.tensor([0.0, 0.0, -w, w, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(reg.grad(x, 0.1), pull.expand(1, 1, 5, 6))
    # Below eps the force is proportional to the height.
    torch.testing.assert_close(reg.grad(step_picture(0.05), 0.1), pull.expand(1, 1, 5, 6) / 2)


def test_total_variation_is_isotropic_and_ends_at_the_border():
    # A corner: one pixel with differences to the right and down counts with their Euclidean length.
    x = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    x[..., :2, :2] = 1
    reg = TotalVariation(factor=1.0, exponent=1.0, eps=1e-9)
    torch.testing.assert_close(reg.fn(x, 1.0), torch.tensor([2 + math.sqrt(2)], dtype=torch.float64))
    assert float(reg.fn(torch.rand(1, 1, 1, 1), 1.0)) == 0


def test_total_variation_is_below_the_unsmoothed_one_by_the_documented_bias():
    x, eps = torch.rand(1, 2, 8, 9, dtype=torch.float64), 0.2
    sharp, smooth = (float(TotalVariation(factor=1.0, exponent=1.0, eps=e).fn(x, 1.0)) for e in (1e-9, eps))
    assert 0 <= sharp - smooth <= eps / 2 * x.numel()


def test_total_variation_denoises_as_scikit_image_does_as_eps_vanishes():
    from skimage.restoration import denoise_tv_chambolle

    y = step_picture().repeat(1, 1, 3, 3)
    y = y + 0.1 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reference = torch.from_numpy(denoise_tv_chambolle(y[0, 0].numpy(), weight=0.1, eps=1e-12, max_num_iter=20000))
    distances = []
    for eps in (1e-2, 1e-3, 1e-4):
        found = TotalVariation(factor=1.0, exponent=1.0, eps=eps).prox(y, 0.1, tol=1e-5, max_iter=20000)
        distances.append(float((found[0, 0] - reference).square().mean().sqrt()))
    assert distances[0] > distances[1] > distances[2] and distances[2] < 1e-4, distances


def test_spectrum_of_a_total_variation_hessian():
    # Where every difference is below eps, the Hessian is the Laplacian but for the border, which is circular here.
    functional = TotalVariation(factor=1.0, exponent=1.0, eps=2.0).at(0.5)
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    spectrum = functional.hessian_spectrum(functional.linear(x), x.shape)
    v = torch.zeros_like(x)
    v[..., 4, 4] = 1
    expected = torch.fft.rfft2(functional.hvp(x, v).roll((-4, -4), (-2, -1))).real
    torch.testing.assert_close(spectrum, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": -1.0}, "factor: got -1.0, expected a finite number >= 0"),
        ({"exponent": 0.0}, "exponent: got 0.0, expected a positive"),
        ({"eps": 0.0}, "eps: got 0.0, expected a positive"),
        ({"eps": math.nan}, "eps: got nan, expected a positive"),
    ],
)
def test_bad_arguments_of_total_variation_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        TotalVariation(**arguments)


# --- of each channel, of a linear map ---


def test_per_channel_is_the_sum_over_the_channels():
    reg, x = ridge("hardtanh").double(), torch.rand(3, 2, 6, 7, dtype=torch.float64)
    sigma = torch.tensor([0.05, 0.1, 0.2])
    both = PerChannel(reg)
    channels = [x[:, c : c + 1] for c in range(2)]
    torch.testing.assert_close(both.fn(x, sigma), sum(reg.fn(c, sigma) for c in channels))
    torch.testing.assert_close(both.grad(x, sigma), torch.cat([reg.grad(c, sigma) for c in channels], 1))
    assert torch.equal(both.lipschitz(sigma), reg.lipschitz(sigma))


def test_a_spectrum_of_a_small_picture_has_some_of_the_frequencies_of_a_large_one():
    functional = RidgeICGN(filters=3, size=5).double().at(0.1)  # correlations of 9 x 9 go around 6 x 7 pixels

    def spectrum(*size):
        x = torch.zeros(1, 1, *size, dtype=torch.float64)
        return functional.hessian_spectrum(functional.linear(x), x.shape)

    torch.testing.assert_close(spectrum(6, 7), spectrum(18, 21)[..., ::3, ::3])


@pytest.mark.parametrize("channels", [2, 3])
def test_spectrum_of_a_per_channel_hessian(channels):
    # The preconditioner is the diagonal of the Hessian of the inner approximation in the colours used.
    inner = ridge(border="zero").double()
    functional = PerChannel(inner).at(torch.tensor([0.05, 0.2]))
    x = torch.rand(2, channels, 8, 9, dtype=torch.float64)
    spectrum = functional.hessian_spectrum(functional.linear(x), x.shape)
    single = [inner.at(torch.tensor([0.05, 0.2])) for _ in range(channels)]
    parts = [g.hessian_spectrum(g.linear(x[:, c : c + 1]), x[:, :1].shape) for c, g in enumerate(single)]
    matrix = torch.diag_embed(torch.cat(parts, 1).movedim(1, -1))
    basis = colour_basis(x)
    expected = torch.diagonal(basis @ matrix @ basis.T, dim1=-2, dim2=-1).movedim(-1, 1)
    torch.testing.assert_close(spectrum, expected)


def test_prox_of_a_rotated_picture():
    # For orthogonal A the proximal map of R(A x) is A^T prox(A x); each image has a rotation of its own here.
    turn = Rotation(3)
    upright = PerChannel(ridge("hardtanh")).double()
    turned = PullBack(upright, turn, batch=3, gram=(1, 1)).double()
    x = torch.rand(3, 2, 6, 7, dtype=torch.float64)
    # Images of different difficulty leave the solver one by one.
    x[1] *= 1e-3
    found = turned.prox(x, 0.1, tol=1e-7)
    torch.testing.assert_close(found, turn.A_adjoint(upright.prox(turn.A(x), 0.1, tol=1e-7)), atol=1e-5, rtol=0)
    one = turned.at(0.1).select(torch.tensor([2]))
    torch.testing.assert_close(one.grad(x[2:]), turned.grad(x, 0.1)[2:])


def test_constants_of_a_pull_back():
    reg, A = icnn(2, 4, 3, strong_convexity=0.1), blur()
    square = A.mask.square()
    pulled = PullBack(reg, A)
    torch.testing.assert_close(pulled.lipschitz(0.1), reg.lipschitz(0.1) * square.max(), rtol=1e-5, atol=0)
    torch.testing.assert_close(
        pulled.strong_convexity(0.1), reg.strong_convexity(0.1) * square.min(), rtol=1e-5, atol=0
    )
    unknown = PullBack(PerChannel(reg), Rotation())
    assert float(unknown.lipschitz(0.1)) == math.inf and float(unknown.strong_convexity(0.1)) == 0
    assert float(PullBack(0.0 * reg, Rotation()).lipschitz(0.1)) == 0
    assert torch.equal(PullBack(reg, A, gram=(0.5, 2)).lipschitz(0.1), 2 * reg.lipschitz(0.1))


@pytest.mark.parametrize(
    "name", ["per channel 2", "pull-back by a blur 1", "total variation 1", "total variation 3", "widened"]
)
def test_what_primal_dual_methods_need(name):
    # p = prox_potential(v, s) solves p + s grad h(p) = v, linear_norm bounds |U|, potential_lipschitz the slopes of h.
    functional = FACTORIES[name]().double().at(torch.tensor([0.05, 0.2]))
    x = torch.rand(2, int(name[-1]) if name[-1].isdigit() else 1, 6, 7, dtype=torch.float64)
    v, s = functional.linear(3 * x), torch.tensor([0.3, 2.0], dtype=torch.float64)
    p = functional.prox_potential(v, s)
    residual = p + s.reshape(-1, *[1] * (p.ndim - 1)) * functional.potential_grad(p) - v
    assert float(residual.abs().max()) < 1e-10
    for size in (1e-3, 1e-1, 1.0):
        a, b = size * v, size * (v + torch.randn_like(v))
        change = (functional.potential_grad(a) - functional.potential_grad(b)).flatten(1).norm(dim=1)
        assert bool((change <= functional.potential_lipschitz() * (a - b).flatten(1).norm(dim=1) * (1 + 1e-12)).all())
    for _ in range(30):
        x = x / x.flatten(1).norm(dim=1)[:, None, None, None]
        x = functional.linear_adjoint(functional.linear(x), x.shape)
    assert bool((x.flatten(1).norm(dim=1).sqrt() <= functional.linear_norm()).all())
    assert functional.hessian_floor(x).shape in (x.shape, (1, 1, 1, 1))


def test_a_change_of_precision_keeps_complex_parameters():
    reg = PullBack(PerChannel(ridge()), Rotation())
    factor = reg.physics.factor
    for move in (lambda m: m.to(torch.float32), nn.Module.float, lambda m: m.to("cpu")):
        moved = move(copy.deepcopy(reg)).physics.factor
        assert moved.is_complex()
        torch.testing.assert_close(moved.to(factor), factor, atol=1e-6, rtol=0)
    # The precision of the picture decides, whatever that of the parameters.
    x = torch.rand(1, 2, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(reg.float().grad(x, 0.1), reg.double().grad(x, 0.1), atol=1e-5, rtol=0)


class Swapped(deepinv.physics.Denoising):
    """Maps two images to one, which no regularizer may be given."""

    def A(self, x, **kwargs):  # noqa: N802
        return x[:1]


PAIR = torch.rand(2, 2, 6, 7)
MISUSES = {
    "channels of the inner one": (
        lambda: PerChannel(ridge(channels=3)),
        ValueError,
        "regularizer: got one of 3 channels",
    ),
    "no regularizer": (lambda: PerChannel(nn.Tanh()), TypeError, "regularizer: got Tanh"),
    "no regularizer to pull back": (lambda: PullBack(nn.Tanh(), blur()), TypeError, "regularizer: got Tanh"),
    "no physics": (lambda: PullBack(ridge(), nn.Tanh()), TypeError, "physics: got Tanh"),
    "no images": (lambda: PullBack(ridge(), blur(), batch=0), ValueError, "batch: got 0"),
    "bounds upside down": (lambda: PullBack(ridge(), blur(), gram=(2, 1)), ValueError, r"gram: got \(2, 1\)"),
    "bounds nan": (lambda: PullBack(ridge(), blur(), gram=(0, math.nan)), ValueError, "gram: got"),
    "small channel": (lambda: PerChannel(ridge()).fn(PAIR[..., :2], 0.1), ValueError, "x: got 6 x 2 pixels"),
    "channels after A": (lambda: PullBack(ridge(), Rotation()).fn(PAIR, 0.1), ValueError, "x: got 2 channels"),
    "another batch": (
        lambda: PullBack(PerChannel(ridge()), Rotation(3), batch=3).fn(PAIR, 0.1),
        ValueError,
        "x: got 2 images, expected 3",
    ),
    "batch not declared": (
        lambda: PullBack(PerChannel(ridge()), Rotation(3)).fn(PAIR[:1], 0.1),
        ValueError,
        "physics: maps 1 images to 3",
    ),
    "images lost": (
        lambda: PullBack(PerChannel(ridge()), Swapped()).fn(PAIR, 0.1),
        ValueError,
        "physics: maps 2 images",
    ),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuses_of_per_channel_and_pull_back_are_named(misuse):
    call, error, message = MISUSES[misuse]
    with pytest.raises(error, match=message):
        call()


# --- bad input ---


IMAGE = torch.rand(2, 1, 6, 6)
BAD_IMAGES = {
    "rank": (IMAGE[0], ValueError, "x: got shape .*expected four dimensions"),
    "channels": (IMAGE.expand(2, 3, 6, 6), ValueError, "x: got 3 channels, expected 1"),
    "integer": ((255 * IMAGE).to(torch.uint8), TypeError, "x: got torch.uint8, expected a floating-point"),
    "too small": (IMAGE[..., :2], ValueError, "x: got 6 x 2 pixels, expected at least 3 x 3"),
    "empty": (IMAGE[:0], ValueError, "x: got shape"),
    "array": (IMAGE.numpy(), TypeError, "x: got ndarray, expected a torch.Tensor"),
}
BAD_SIGMAS = {
    "missing": (None, "got None"),
    "negative": (-0.1, "expected finite numbers >= 0"),
    "nan": (math.nan, "expected finite numbers >= 0"),
    "infinite": (math.inf, "expected finite numbers >= 0"),
    "negative in a batch": (torch.tensor([0.1, -0.1]), "expected finite numbers >= 0"),
    "too many": (torch.tensor([0.1, 0.1, 0.1]), "got 3 values for 2 images"),
}
CALLS = {
    "fn": lambda reg, x, s: reg.fn(x, s),
    "grad": lambda reg, x, s: reg.grad(x, s),
    "hvp": lambda reg, x, s: reg.hvp(x, x, s),
    "prox": lambda reg, x, s: reg.prox(x, s, gamma=1.0),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("bad", BAD_IMAGES)
@pytest.mark.parametrize("make", [ridge, lambda: ridge() + ridge()], ids=["ridge", "sum"])
def test_bad_images_are_named(bad, call, make):
    x, error, message = BAD_IMAGES[bad]
    with pytest.raises(error, match=message):
        CALLS[call](make(), x, 0.1)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("bad", BAD_SIGMAS)
def test_bad_sigmas_are_named(bad, call):
    sigma, message = BAD_SIGMAS[bad]
    with pytest.raises(ValueError, match="sigma: " + message if not message.startswith("expected") else message):
        CALLS[call](ridge(), IMAGE, sigma)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_bad_weights_are_refused(weight):
    with pytest.raises(ValueError, match=r"weight: got .* expected a finite number >= 0"):
        weight * ridge()


def test_terms_of_different_channels_are_refused():
    with pytest.raises(ValueError, match=r"terms: got regularizers of \[1, 3\] channels"):
        ridge() + ridge(channels=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "relu"}, "activation: got 'relu'"),
        ({"border": "wrap"}, "border: got 'wrap'"),
        ({"size": 4}, "size: got 4, expected an odd number"),
        ({"filters": 0}, "filters"),
        ({"channels": 0}, "channels"),
        ({"units": 0}, "units"),
        ({"knots": 1}, "knots"),
        ({"sigma_range": (0.2, 0.1)}, "sigma_range"),
        ({"sigma_range": (0.0, 0.1)}, "sigma_range"),
    ],
)
def test_bad_ridge_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        RidgeICGN(**arguments)


def test_condition_is_refused_where_none_is_taken():
    for reg in (ridge(), ridge() + ridge()):
        with pytest.raises(ValueError, match=f"condition: {type(reg).__name__} takes none"):
            reg.at(0.1, torch.zeros(1))


@pytest.mark.parametrize(("gamma", "error"), [(-1.0, ValueError), (math.nan, ValueError)])
def test_bad_gamma_is_refused(gamma, error):
    with pytest.raises(error):
        ridge().prox(IMAGE, 0.1, gamma=gamma)
