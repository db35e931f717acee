"""Statistics that come in pieces equal those of all values at once."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eisnn.analysis import statistics
from eisnn.analysis.statistics import Correlation, Distribution, pieces

SHARES = [0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 1.0]


def of(*parts: torch.Tensor) -> Distribution:
    distribution = Distribution()
    for part in parts:
        distribution.update(part)
    return distribution


@pytest.mark.parametrize("shift", [0.0, 3.0, -200.0])
def test_moments_equal_direct_computation(shift: float) -> None:
    x = (torch.randn(3000) ** 3 + shift).double()
    seen = of(*x.split([1, 999, 2000]))
    mean, distance = x.mean(), x - x.mean()
    variance = distance.square().mean()
    skewness = (distance**3).mean() / variance**1.5
    kurtosis = (distance**4).mean() / variance**2
    assert seen.count == 3000
    assert seen.mean == pytest.approx(mean.item(), rel=1e-12)
    assert seen.variance == pytest.approx(variance.item(), rel=1e-9)
    assert seen.std == pytest.approx(variance.sqrt().item(), rel=1e-9)
    assert seen.skewness == pytest.approx(skewness.item(), rel=1e-9)
    assert seen.kurtosis == pytest.approx(kurtosis.item(), rel=1e-9)
    assert seen.bimodality == pytest.approx(((skewness**2 + 1) / kurtosis).item(), rel=1e-9)
    assert (seen.minimum, seen.maximum) == (x.min().item(), x.max().item())


@given(st.lists(st.floats(-1e5, 1e5, width=32), min_size=1, max_size=60), st.integers(0, 60))
def test_order_and_split_do_not_matter(values: list[float], cut: int) -> None:
    x = torch.tensor(values)
    whole, merged = of(x), of(x[cut:])
    merged.merge(of(x[:cut]))
    moments, extremes, counts = whole.state()
    torch.testing.assert_close(merged.state()[0], moments, rtol=1e-9, atol=1e-6)
    assert torch.equal(merged.state()[1], extremes)
    assert torch.equal(merged.state()[2], counts)


@given(
    st.lists(
        st.one_of(st.just(0.0), st.floats(1e-3, 1e6), st.floats(-1e6, -1e-3)),
        min_size=1,
        max_size=80,
    )
)
def test_quantiles_are_right_to_one_per_cent(values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    got = of(x).quantiles(SHARES)
    lower, upper = (
        np.quantile(x.numpy(), SHARES, method=method)
        for method in ("inverted_cdf", "higher")  # values with this share below or above
    )
    for value, low, high in zip(got, lower, upper, strict=True):
        assert value >= low - 0.01 * abs(low) - 2**-13
        assert value <= high + 0.01 * abs(high) + 2**-13


def test_density_is_that_of_a_histogram_and_sums_to_one() -> None:
    x = torch.randn(200_000)
    edges = [round(-5 + 0.2 * i, 1) for i in range(51)]
    density = of(x).density(edges)
    counts, _ = np.histogram(x.numpy(), edges, density=True)
    assert np.abs(np.array(density) - counts).max() < 0.01
    assert sum(density) * 0.2 == pytest.approx(1)


def test_values_beyond_the_bins_count_and_small_ones_are_zero() -> None:
    seen = of(torch.tensor([-1e9, 1e-7, -1e-7, 1e9]))
    assert seen.quantiles([0, 1]) == [-1e9, 1e9]
    assert abs(seen.quantiles([0.5])[0]) < 2**-13


def test_values_are_looked_at_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "PIECE", 100)
    x = torch.randn(7, 30)
    assert [len(p) for p in pieces(x)] == [3, 3, 1]
    assert [len(p) for p in pieces(torch.randn(2, 300))] == [1, 1]
    torch.testing.assert_close(of(x).state()[0][1], x.double().mean())


def test_nan_is_never_hidden_and_no_values_give_no_figures() -> None:
    spoilt = of(torch.randn(10), torch.tensor([torch.nan]), torch.randn(10))
    empty = of(torch.zeros(0))
    for seen in (spoilt, empty):
        figures = (seen.mean, seen.std, seen.skewness, seen.minimum, seen.maximum)
        assert all(map(math.isnan, (*figures, *seen.quantiles([0.5]), *seen.density([0, 1]))))


def test_constant_values_have_no_shape() -> None:
    seen = of(torch.full((10,), 0.5))
    assert (seen.mean, seen.std) == (0.5, 0)
    assert math.isnan(seen.bimodality)
    assert seen.quantiles([0.5]) == [0.5]


def test_a_share_is_from_0_to_1() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        of(torch.ones(2)).quantiles([50])


def test_bimodality_tells_one_mode_from_two() -> None:
    assert of(torch.randn(100_000)).bimodality == pytest.approx(1 / 3, abs=0.01)
    assert of(torch.rand(100_000)).bimodality == pytest.approx(5 / 9, abs=0.01)
    assert of(torch.tensor([0.0, 1.0])).bimodality == pytest.approx(1)


def test_correlation_equals_direct_computation() -> None:
    x, noise = torch.randn(12, 5, 3, 2), torch.randn(12, 5, 3, 2)
    y = x * torch.arange(5)[:, None, None] + noise + 10
    y[:, 4] = 2  # never varies
    whole = Correlation(5)
    whole.update(x, y)
    merged, rest = Correlation(5), Correlation(5)
    merged.update(x[:5], y[:5])
    rest.update(x[5:], y[5:])
    merged.merge(rest)
    for unit in range(4):
        pair = torch.stack([x[:, unit].flatten(), y[:, unit].flatten()])
        expected = torch.corrcoef(pair)[0, 1].item()
        assert whole.per_unit()[unit].item() == pytest.approx(expected, abs=1e-6)
        assert merged.per_unit()[unit].item() == pytest.approx(expected, abs=1e-6)
    assert whole.per_unit()[4].isnan()
    assert whole.mean == pytest.approx(whole.per_unit()[:4].mean().item())
