"""Filter banks against plain convolutions, dense matrices and power iterations."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from icgn.regularizers.filters import FilterBank, full_float32, squared_norm_bound

BORDERS = ("valid", "zero", "reflect")


def make_bank(filters=5, size=3, channels=1, border="reflect", seed=0):
    bank = FilterBank(filters, size, channels=channels, border=border).double()
    with torch.no_grad():
        bank.raw.copy_(torch.randn(bank.raw.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    return bank


def plain(bank, x):
    m = bank.raw.shape[-1] // 2
    if bank.border != "valid":
        x = F.pad(x, (m, m, m, m), mode="reflect" if bank.border == "reflect" else "constant")
    return F.conv2d(x, bank.weight)


def random_like(shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(bank, shape):
    """The matrix of the bank for pictures of one shape (C, H, W)."""
    n = shape[0] * shape[1] * shape[2]
    with torch.no_grad():
        return bank(torch.eye(n, dtype=torch.float64).view(n, *shape)).flatten(1).T


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(BORDERS), st.sampled_from([1, 2, 3, 4]), st.sampled_from([3, 5, 7]), st.integers(1, 3),
    st.integers(1, 3), st.integers(0, 9), st.integers(0, 9),
)  # fmt: skip
def test_every_stride_equals_plain_convolution_and_has_its_adjoint(border, stride, size, channels, batch, dh, dw):
    bank = make_bank(4, size, channels, border)
    op = bank.operator(stride=stride)
    x = random_like((batch, channels, size + dh, size + dw))
    with torch.no_grad():
        planes = op.apply(x)
        expected = plain(bank, x)
        torch.testing.assert_close(op.unfold(planes, x.shape), expected, rtol=0, atol=1e-12)
        z = random_like(expected.shape, seed=2)
        torch.testing.assert_close(op.unfold(op.fold(z), x.shape), z, rtol=0, atol=0)
        back = op.adjoint(op.fold(z), x.shape)
        torch.testing.assert_close(op.adjoint_of(lambda _, strip: strip, (op.fold(z),), x.shape), back)
        left, right = (expected * z).sum(), (x * back).sum()
    assert abs(float(left - right)) <= 1e-10 * float(expected.norm() * z.norm())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("border", BORDERS)
def test_polyphase_is_identical_to_direct_for_the_real_sizes(channels, border):
    bank = make_bank(8, 9, channels, border)
    x = random_like((1, channels, 37, 42))
    with torch.no_grad():
        torch.testing.assert_close(bank(x), plain(bank, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_float32_keeps_its_digits(device, stride):
    """On a GPU too, whose default for convolutions keeps three: the adjoint would not be one to a solver."""
    bank = make_bank(8, 9).to(device)
    x = random_like((1, 1, 40, 40)).to(device)
    with torch.no_grad():
        exact, op = bank.operator(stride=stride), bank.float().operator(stride=stride)
        planes = exact.apply(x)
        torch.testing.assert_close(op.apply(x.float()).double(), planes, rtol=0, atol=2e-5)
        back = exact.adjoint(planes, x.shape)
        for single in (
            op.adjoint(planes.float(), x.shape),
            op.adjoint_of(lambda rows, z: z, (planes.float(),), x.shape),
        ):
            torch.testing.assert_close(single.double(), back, rtol=0, atol=2e-5 * float(back.abs().max()))


def test_precision_of_convolutions_is_switched_for_a_while_only():
    def switch():
        cudnn = torch.backends.cudnn
        return cudnn.conv.fp32_precision if hasattr(cudnn, "conv") else cudnn.allow_tf32

    before = switch()
    with pytest.raises(KeyError), full_float32(SimpleNamespace(is_cuda=True)):
        assert switch() in ("ieee", False)
        raise KeyError
    assert switch() == before
    with full_float32(torch.zeros(1)):
        assert switch() == before


def test_planes_are_zero_outside_the_picture():
    op = make_bank(2, 3).operator(stride=4)
    x = random_like((1, 1, 5, 6))
    planes = op.apply(x)
    assert torch.allclose(planes.square().sum(), op.unfold(planes, x.shape).square().sum(), rtol=1e-14)


def test_filters_have_zero_mean_and_unit_norm_and_constants_no_response():
    bank = make_bank(6, 5, 3)
    assert float(bank.weight.mean((2, 3)).abs().max()) < 1e-15
    torch.testing.assert_close(bank.weight.flatten(1).norm(dim=1), torch.ones(6, dtype=torch.float64))
    constant = torch.tensor([0.2, 0.9, 0.4], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 8, 9)
    assert float(bank(constant).abs().max()) < 1e-14


def test_initial_filters_reach_the_rank_that_zero_mean_allows():
    bank = FilterBank(60, 5, channels=3).double()
    rank = torch.linalg.matrix_rank(bank.weight.flatten(1))
    assert int(rank) == 60


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("sides", [(3, 3), (3, 6), (7, 5)])
def test_norm_bound_covers_the_dense_matrix(channels, border, sides):
    for seed in range(4):
        bank = make_bank(4, 3, channels, border, seed)
        true = float(torch.linalg.matrix_norm(dense(bank, (channels, *sides)), 2)) ** 2
        assert true <= float(bank.squared_norm())


@pytest.mark.parametrize("size", [5, 7])
def test_norm_bound_covers_the_smallest_mirrored_picture(size):
    # At H = W = d the mirrored margins overlap.
    for seed in range(4):
        bank = make_bank(1, size, 1, "reflect", seed)
        true = float(torch.linalg.matrix_norm(dense(bank, (1, size, size)), 2)) ** 2
        assert true <= float(bank.squared_norm())


@pytest.mark.parametrize(("border", "factor"), [("zero", 0.9), ("valid", 0.9), ("reflect", 0.9 / 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_norm_bound_is_above_and_near_the_power_iteration(border, factor, channels):
    bank = make_bank(6, 5, channels, border)
    x = random_like((1, channels, 40, 40))
    with torch.no_grad():
        for _ in range(150):
            x = bank.adjoint(bank(x / x.norm()), x.shape)
    assert factor * float(bank.squared_norm()) <= float(x.norm()) <= float(bank.squared_norm())


def test_norm_bound_holds_between_the_frequencies_of_the_grid():
    # A coarse grid is inflated, so that it is never below a fine one.
    w = make_bank(3, 5, 1).weight
    fine = float(squared_norm_bound(w, "zero", grid=2048))
    for grid in (16, 17, 31, 128):
        assert fine / (1 + 1e-5) <= float(squared_norm_bound(w, "zero", grid=grid))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((4, 4), "size"), ((4, 1), "size"), ((0, 3), "filters"), ((4, 3, 0), "channels"), ((4, 3, 1, "wrap"), "border")],
)
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        FilterBank(*arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_precision_and_device(dtype, device):
    bank = FilterBank(4, 3, channels=3).to(device)
    x = torch.rand(2, 3, 8, 9, dtype=dtype, device=device)
    r = bank(x)
    assert (r.dtype, r.device, r.shape) == (dtype, x.device, (2, 4, 8, 9))
    assert bank.adjoint(r, x.shape).shape == x.shape
