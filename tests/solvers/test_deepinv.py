"""Regularizers inside deepinv's own algorithms, and the solver as a model of deepinv."""

from __future__ import annotations

import warnings

import deepinv
import pytest
import torch
from deepinv.optim import ADMM, DRS, FISTA, GD, HQS, L2, PDCP, PGD
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from icgn import ICGN, ICNN, PerChannel, Problem, Reconstructor, RidgeICGN, Status, solve
from icgn.functionals.physics import gram_bounds
from icgn.regularizers.quadrature import GaussLegendre

SIZE = (6, 6)
SIGMA, WEIGHT = 0.1, 1.5


def ridge(activation="tanh"):
    """A ridge network so gentle that plain gradient descent gets somewhere."""
    reg = RidgeICGN(filters=4, size=3, activation=activation).double()
    with torch.no_grad():
        reg.log_tau += 2.0
        reg.log_lambda += 1.0
    return reg


class Dense(nn.Module):
    """a tanh(W x + b) of all pixels."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(0.2 * torch.randn(8, SIZE[0] * SIZE[1], generator=g, dtype=torch.float64))
        self.bias = nn.Parameter(0.3 * torch.randn(8, generator=g, dtype=torch.float64))

    def forward(self, x):
        return torch.tanh(x.flatten(1) @ self.weight.T + self.bias)


KINDS = {
    "ridge": ridge,
    "ICNN": lambda: ICNN(layers=2, filters=4, size=3, smoothing=0.1).double(),
    "ICGN": lambda: ICGN(Dense(), quadrature=GaussLegendre(8)),
    "sum": lambda: ridge() + 0.5 * ridge("hardtanh"),
}


def blur(size=SIZE, kernels=None):
    """A mild circular blur, A^T A >= 0.5; one kernel per image where several are given."""
    kernel = torch.tensor([[0.0, 0.08, 0.0], [0.0, 0.85, 0.02], [0.05, 0.0, 0.0]], dtype=torch.float64)
    kernels = kernel[None, None] if kernels is None else kernels
    return deepinv.physics.BlurFFT((1, *size), kernels).double()


def pictures(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rms(x):
    return float(x.detach().square().mean((1, 2, 3)).sqrt().max())


ALGORITHMS = {
    "GD": (GD, {"stepsize": 0.4, "max_iter": 60}),
    "PGD": (PGD, {"stepsize": 1.2, "max_iter": 12}),
    "FISTA": (FISTA, {"stepsize": 1.0, "max_iter": 20}),
    "ADMM": (ADMM, {"stepsize": 1.0, "max_iter": 20}),
    "DRS": (DRS, {"stepsize": 1.0, "max_iter": 20}),
    "PDCP": (PDCP, {"stepsize": 1.0, "stepsize_dual": 1.0, "max_iter": 25}),
    "PDCP, g first": (PDCP, {"stepsize": 1.0, "stepsize_dual": 1.0, "max_iter": 25, "g_first": True}),
}


def run(algorithm, reg, y, physics, **options):
    # With the prior first, deepinv's PDCP also multiplies the dual step by lambda_reg, and solves another problem.
    scaled = {"prior": WEIGHT * reg} if "g_first" in options else {"prior": reg, "lambda_reg": WEIGHT}
    model = algorithm(data_fidelity=L2(), g_param=SIGMA, **scaled, **options)
    with torch.no_grad():
        return model(y, physics)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithms_of_deepinv_find_our_minimizer(name, kind):
    # |A x - y|^2 / 2 + weight R(x; sigma) on both sides; deepinv's algorithms stop at about 1e-5.
    reg, y, physics = KINDS[kind](), pictures(1, 1, *SIZE), blur()
    algorithm, options = ALGORITHMS[name]
    expected = solve(Problem(y, physics, reg, SIGMA, weight=WEIGHT), tol=1e-7)
    assert expected.converged and rms(expected.x - y) > 1e-2
    assert rms(run(algorithm, reg, y, physics, **options) - expected.x) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_hqs_finds_the_minimizer_of_its_smoothed_problem(kind):
    # Its fixed point minimizes M f + weight R, M f(x) = min_z f(z) + |x - z|^2 / 2 gamma the Moreau envelope of the
    # data term f, with gradient (x - prox x) / gamma. If f is mu-strongly convex, M f is so with mu / (1 + gamma mu).
    reg, y, physics, gamma = KINDS[kind](), pictures(1, 1, *SIZE), blur(), 0.7
    x = run(HQS, reg, y, physics, stepsize=gamma, max_iter=20)
    smoothed = (x - L2().prox(x, y, physics, gamma=gamma)) / gamma
    mu = gram_bounds(physics)[0]
    assert rms(smoothed + WEIGHT * reg.grad(x, SIGMA)) * (1 + gamma * mu) / mu < 1e-4
    plain = solve(Problem(y, physics, reg, SIGMA, weight=WEIGHT)).x
    assert rms(x - plain) > 1e-3


def test_prox_of_a_sharp_network_in_single_precision():
    reg = RidgeICGN(filters=8, size=3, min_knee=0.0)
    with torch.no_grad():
        reg.log_tau -= 3.0
        reg.log_lambda += 3.0
    x, gamma, tol = pictures(2, 1, 12, 12).float(), 1.0, 1e-5
    assert float(reg.lipschitz(SIGMA)) > 1e3
    reference = reg.prox(x.double(), SIGMA, gamma=gamma, tol=1e-8)
    assert rms(x - reference) > 1e-2
    ours = reg.prox(x, SIGMA, gamma=gamma, tol=tol)
    assert ours.dtype is torch.float32 and rms(ours - reference) <= tol + 1e-8
    # Gradient descent with step 1, deepinv's default, needs L < 1 and ends far away.
    default = deepinv.optim.Prior.prox(reg, x.clone(), SIGMA, gamma=gamma).detach()
    assert not rms(default - reference) < 0.1


# --- Reconstructor ---


def test_reconstructor_solves_the_problem():
    reg, y = ridge(), pictures(2, 1, *SIZE)
    model = Reconstructor(reg, SIGMA, noise=0.05, weight=WEIGHT, box=(0, 1), tol=1e-6)
    solution = model.solve(y, blur())
    expected = solve(Problem(y, blur(), reg, SIGMA, noise=0.05, weight=WEIGHT, box=(0, 1)), tol=1e-6)
    assert solution.converged and torch.equal(solution.x, expected.x)
    assert torch.equal(model(y, blur()), solution.x)


def test_noise_is_that_of_the_physics():
    physics = deepinv.physics.Denoising(deepinv.physics.GaussianNoise(torch.tensor([0.05, 0.2]))).double()
    reg, y = ridge(), pictures(2, 1, *SIZE)
    for noise, expected in ((None, torch.tensor([0.05, 0.2])), (0.3, 0.3)):
        solution = solve(Problem(y, deepinv.physics.Denoising(), reg, SIGMA, noise=expected), tol=None)
        assert torch.equal(Reconstructor(reg, SIGMA, noise=noise)(y, physics), solution.x)
    silent = deepinv.physics.Denoising(deepinv.physics.ZeroNoise())
    assert torch.equal(Reconstructor(reg, SIGMA)(y, silent), solve(Problem(y, silent, reg, SIGMA), tol=None).x)


def test_data_fidelity_replaces_the_noise():
    y = pictures(1, 1, *SIZE) + 0.1
    physics = deepinv.physics.Denoising(deepinv.physics.GaussianNoise(0.0))
    reg, fidelity = ridge(), L2(sigma=0.05)
    expected = solve(Problem(y, physics, reg, SIGMA, data_fidelity=fidelity), tol=None).x
    assert torch.equal(Reconstructor(reg, SIGMA, data_fidelity=fidelity)(y, physics), expected)


def test_noise_beside_a_data_fidelity_is_refused():
    with pytest.raises(ValueError, match=r"noise: got 0\.1 beside a data fidelity"):
        Reconstructor(ridge(), SIGMA, noise=0.1, data_fidelity=deepinv.optim.L2(sigma=0.2))


@pytest.mark.parametrize("name", ["regularizer.log_lambda", "regularizer.bank.raw"])
def test_gradient_of_a_loss_against_finite_differences(name):
    x, reg, physics = pictures(2, 1, *SIZE), ridge(), blur()
    y = physics.A(x) + 0.1 * pictures(2, 1, *SIZE, seed=1)
    model = Reconstructor(reg, SIGMA, weight=WEIGHT, tol=1e-10, max_iter=5000)
    loss = deepinv.loss.SupLoss()
    total = loss(x_net=model(y, physics), x=x).sum()
    total.backward()
    parameter = dict(model.named_parameters())[name]
    direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values, h = [], 1e-4
    with torch.no_grad():
        for step in (h, -h):
            parameter.add_(step * direction)
            values.append(float(loss(x_net=model(y, physics), x=x).sum()))
            parameter.sub_(step * direction)
    expected = (values[0] - values[1]) / (2 * h)
    assert float((parameter.grad * direction).sum()) == pytest.approx(expected, rel=1e-4)


def test_no_graph_where_nothing_requires_gradients():
    y, model = pictures(1, 1, *SIZE), Reconstructor(ridge(), SIGMA)
    assert model(y, blur()).requires_grad
    with torch.no_grad():
        assert not model(y, blur()).requires_grad
    model.requires_grad_(False)
    assert not model(y, blur()).requires_grad
    assert model(y.requires_grad_(), blur()).requires_grad


def test_it_runs_in_deepinv_test(tmp_path):
    x = pictures(3, 1, 12, 12).float() / 2 + 0.25
    physics = deepinv.physics.Denoising(deepinv.physics.GaussianNoise(0.1))
    y = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    model = Reconstructor(ridge().float(), SIGMA)
    loader = DataLoader(TensorDataset(x, y), batch_size=2)
    results = deepinv.test(
        model,
        loader,
        physics,
        metrics=deepinv.metric.PSNR(),
        verbose=False,
        show_progress_bar=False,
        save_folder=tmp_path,
    )
    with torch.no_grad():
        clipped = model(y, deepinv.physics.Denoising(deepinv.physics.GaussianNoise(0.1))).clip(0, 1)
    expected = -10 * ((clipped - x) ** 2).mean((1, 2, 3)).log10()
    assert results["PSNR"] == pytest.approx(float(expected.mean()), abs=1e-3)


def test_it_trains_in_deepinv_trainer(tmp_path):
    x = pictures(4, 1, 8, 8).float().cumsum(-1) / 8
    y = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    physics = deepinv.physics.Denoising(deepinv.physics.GaussianNoise(0.1))
    model = Reconstructor(RidgeICGN(filters=4, size=3), SIGMA)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    trainer = deepinv.Trainer(
        model,
        physics,
        torch.optim.Adam(model.parameters(), lr=0.05),
        DataLoader(TensorDataset(x, y), batch_size=2),
        losses=deepinv.loss.SupLoss(),
        epochs=1,
        save_path=tmp_path,
        verbose=False,
        show_progress_bar=False,
    )
    trainer.train()
    after = model.state_dict()
    assert sorted(after) == sorted(before) and all(n.startswith("regularizer.") for n in after)
    assert all(bool(torch.isfinite(t).all()) for t in after.values())
    assert any(not torch.equal(after[n], t) for n, t in before.items())


def test_parameters_of_the_physics_per_image():
    kernels = pictures(3, 1, 3, 3) * 0.05
    kernels[:, :, 1, 1] += 1
    masks = (pictures(3, 1, *SIZE, seed=2) > 0.3).double()
    makers = (
        lambda i: blur(kernels=kernels[i]),
        lambda i: deepinv.physics.Inpainting((1, *SIZE), mask=masks[i]).double(),
    )
    # Images leave the batch one by one: the second is nearly solved from the start.
    x = pictures(3, 1, *SIZE, seed=3)
    x[1] = 0.5 + 1e-2 * x[1]
    model = Reconstructor(ridge(), SIGMA, box=(0, 1), method="accelerated", tol=1e-6, gap_tol=1e-8)
    for make in makers:
        y = make([0, 1, 2]).A(x)
        together = model.solve(y, make([0, 1, 2]))
        assert together.converged and len(set(together.stats.iterations.tolist())) > 1
        for i in range(3):
            alone = model.solve(y[i : i + 1], make([i]))
            assert alone.converged and rms(together.x[i : i + 1] - alone.x) < 1e-3


def cartesian(size=(8, 8)):
    mask = torch.zeros(size, dtype=torch.float64)
    mask[:, ::2] = 1
    mask[:, size[1] // 2 - 1 : size[1] // 2 + 1] = 1
    return mask


def test_complex_pictures_of_mri():
    x = pictures(2, 2, 8, 8) - 0.5
    reg = PerChannel(ridge())
    physics = deepinv.physics.MRI(mask=cartesian()).double()
    y = physics.A(x)
    # Without half the spectrum only the box makes a certificate possible; the solution lies inside.
    solution = Reconstructor(reg, SIGMA, box=(-1, 1), gap_tol=1e-4).solve(y, physics)
    assert solution.converged and solution.x.shape == x.shape
    objective = Problem(y, physics, reg, SIGMA).objective
    assert rms(objective.grad(solution.x)) < 1e-3
    # With the whole spectrum the Fourier transform is orthogonal, and both parts are denoised on their own.
    physics = deepinv.physics.MRI(mask=torch.ones(8, 8, dtype=torch.float64)).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = Reconstructor(reg, SIGMA, tol=1e-7)(physics.A(x), physics)
    parts = [ridge().prox(x[:, c : c + 1], SIGMA, tol=1e-8) for c in range(2)]
    assert rms(whole - torch.cat(parts, 1)) < 1e-6


def test_what_did_not_converge_is_named():
    y = pictures(2, 1, *SIZE)
    with pytest.warns(UserWarning, match="2 of 2 images did not converge: ITERATION_LIMIT, iteration limit"):
        Reconstructor(ridge(), SIGMA, max_iter=1, tol=1e-9)(y, blur())
    y[1, 0, 0, 0] = torch.nan
    with pytest.warns(UserWarning, match="1 of 2 images did not converge: INVALID_INPUT"):
        x = Reconstructor(ridge(), SIGMA)(y, blur())
    assert torch.isfinite(x[0]).all() and x[1].isnan().all()
    assert Reconstructor(ridge(), SIGMA).solve(y, blur()).status == (Status.CONVERGED, Status.INVALID_INPUT)


def test_reconstructor_moves_and_saves_like_any_module(device):
    model = Reconstructor(RidgeICGN(filters=4, size=3), SIGMA, data_fidelity=L2()).to(device)
    other = Reconstructor(RidgeICGN(filters=4, size=3), SIGMA, data_fidelity=L2()).to(device)
    with torch.no_grad():
        model.regularizer.log_tau.add_(1.0)
    other.load_state_dict(model.state_dict())
    y = pictures(1, 1, *SIZE).float().to(device)
    physics = deepinv.physics.Denoising()
    x = model(y, physics)
    assert x.device.type == device and x.dtype is torch.float32
    assert torch.equal(x, other(y, physics))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Reconstructor(lambda x: x, 0.1), TypeError, "regularizer: got function"),
        (lambda: Reconstructor(ridge(), -0.1), ValueError, "sigma: got -0.1"),
        (lambda: Reconstructor(ridge(), float("nan")), ValueError, "sigma: got nan"),
        (lambda: Reconstructor(ridge(), 0.1, box=(1, 0)), ValueError, "box"),
        (lambda: Reconstructor(ridge(), 0.1)(pictures(1, 3, 6, 6), blur()), ValueError, "3 channels"),
        (lambda: Reconstructor(ridge(), 0.1)(pictures(1, 1, 6, 6), torch.sin), TypeError, "physics: got"),
        (lambda: Reconstructor(ridge(), 0.1, noise=0.0)(pictures(1, 1, 6, 6), blur()), ValueError, "noise: got"),
    ],
)
def test_bad_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_reconstructor_takes_a_level_for_each_image():
    reg = RidgeICGN(filters=3, size=3).double().requires_grad_(False)
    y = torch.rand(2, 1, 10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    physics = deepinv.physics.Denoising(deepinv.physics.GaussianNoise(0.1))
    levels = torch.tensor([0.1, 0.3])
    both = Reconstructor(reg, sigma=levels, tol=1e-7)(y, physics)
    for i, level in enumerate(levels.tolist()):
        one = Reconstructor(reg, sigma=level, tol=1e-7)(y[i : i + 1], physics)
        torch.testing.assert_close(both[i : i + 1], one, atol=1e-6, rtol=0)
    for bad in (torch.tensor([0.1, -1.0]), torch.rand(2, 2), float("nan")):
        with pytest.raises(ValueError, match="sigma: got"):
            Reconstructor(reg, sigma=bad)


def test_a_reconstructor_takes_the_noise_model_of_the_physics():
    reg = RidgeICGN(filters=3, size=3).requires_grad_(False)
    torch.manual_seed(0)
    x = 0.2 + 0.6 * torch.rand(1, 1, 12, 12)
    physics = deepinv.physics.Denoising(deepinv.physics.PoissonNoise(0.05))
    y = physics(x)
    model = Reconstructor(reg, sigma=0.1, box=(0.01, 1))
    told = Problem(y, physics, reg, 0.1, data_fidelity=deepinv.optim.PoissonLikelihood(gain=0.05), box=(0.01, 1))
    torch.testing.assert_close(model(y, physics), solve(told).x)
    unknown = deepinv.physics.Denoising(deepinv.physics.UniformNoise(0.1))
    with pytest.warns(UserWarning, match="UniformNoise, which is not known here"):
        Reconstructor(reg, sigma=0.1)(unknown(x), unknown)


def test_a_solution_over_a_box_shows_the_gap_that_was_proved():
    reg = RidgeICGN(filters=3, size=3).requires_grad_(False)
    physics = deepinv.physics.Downsampling((1, 12, 12), filter="gaussian", factor=2, padding="circular")
    y = physics.A(torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0)))
    text = repr(solve(Problem(y, physics, reg, 0.1, noise=0.01, box=(0, 1))))
    assert "relative_gap <= " in text and "inf" not in text
