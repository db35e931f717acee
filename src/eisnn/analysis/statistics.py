r"""Statistics of values that come in pieces: memory does not grow with their number.

Everything stays on the device of the values and nothing waits for it until a figure is asked
for. Statistics of different pieces, batches or processes are merged exactly (moments, counts,
extremes), so the order does not matter but for rounding in float64.

Moments are merged as in Pebay 2008, "Formulas for robust, one-pass parallel computation of
covariances and arbitrary-order statistical moments" (Sandia report SAND2008-6212).

Legend: N samples, E units, K processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

__all__ = ["Correlation", "Distribution", "pieces"]

PIECE = 2**20
"""Values that are looked at at once, which bounds the memory of an update."""

_LOWEST, _HIGHEST = ((127 + exponent) << 7 for exponent in (-13, 21))
"""Upper 16 bits of the numbers ``2^-13`` and ``2^21`` in float32."""
_SIDE = _HIGHEST - _LOWEST
"""Bins on each side of the one around zero."""


def pieces(x: Tensor) -> Iterator[Tensor]:
    """``x [N, ...]`` in parts ``[n, ...]`` of about :data:`PIECE` values or a single sample."""
    per_sample = max(1, math.prod(x.shape[1:]))
    return iter(x.split(max(1, PIECE // per_sample)))


class Distribution:
    """Moments, extremes and a histogram of all values that were given.

    The histogram has fixed edges, the same for everything: a bin holds the numbers whose float32
    begins with the same 16 bits (sign, exponent, 7 bits of the mantissa). A value is known to
    within 1 % if its size is from ``2^-13`` (0.00012) to ``2^21``; those that are smaller share
    one bin around zero, and those beyond count in the outermost bins. So nothing has to be known
    beforehand, and any two distributions can be merged. Quantiles and densities take values to
    be spread evenly within a bin. Every figure is NaN with NaN among the values.

    Args:
        device: of the values.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._moments = torch.zeros(5, dtype=torch.float64, device=device)
        """Number, mean, and sums of the 2nd to 4th power of the distance to the mean."""
        self._extremes = torch.tensor([torch.inf, -torch.inf], device=device, dtype=torch.float64)
        self._counts = torch.zeros(2 * _SIDE + 1, dtype=torch.int64, device=device)
        """Of the bins, from below."""

    def update(self, x: Tensor) -> None:
        """Add the values of ``x``, of any shape and floating-point type."""
        for part in pieces(x.detach().flatten()):
            if not part.numel():
                return
            wide = part.double()
            low, high = wide.aminmax()
            self._merge(_moments(wide), torch.stack([low, high]), _counts(part))

    def merge(self, other: Distribution) -> None:
        """Add what ``other`` has seen."""
        self._merge(*(state.to(self.device) for state in other.state()))

    def _merge(self, moments: Tensor, extremes: Tensor, counts: Tensor) -> None:
        self._moments = _merged(self._moments, moments)
        mine, new = self._extremes, extremes  # minimum and maximum pass NaN on
        self._extremes = torch.stack(
            [torch.minimum(mine[0], new[0]), torch.maximum(mine[1], new[1])]
        )
        self._counts = self._counts + counts

    @property
    def device(self) -> torch.device:
        """Where the statistics are."""
        return self._counts.device

    def state(self) -> tuple[Tensor, Tensor, Tensor]:
        """Everything that is remembered."""
        return self._moments, self._extremes, self._counts

    @property
    def count(self) -> int:
        """Number of values."""
        return int(self._moments[0])

    @property
    def mean(self) -> float:
        """NaN without values, like every figure."""
        return self._moments[1].item() if self.count else math.nan

    @property
    def variance(self) -> float:
        """Mean square of the distance to the mean (divided by the number of values)."""
        return (self._moments[2] / self._moments[0]).item()

    @property
    def std(self) -> float:
        return math.sqrt(self.variance)

    @property
    def skewness(self) -> float:
        """``E[(x - mean)^3] / std^3``; NaN if all values are the same."""
        return self._standardised(3)

    @property
    def kurtosis(self) -> float:
        """``E[(x - mean)^4] / std^4``: 3 for a normal distribution; NaN if all are the same."""
        return self._standardised(4)

    @property
    def bimodality(self) -> float:
        """Sarle's coefficient ``(skewness^2 + 1) / kurtosis``, in the limit of many values.

        From 0 to 1: 1/3 for a normal, 5/9 for a uniform distribution, 1 for two points. Above
        5/9 suggests two modes; a single skewed one, such as an exponential's, comes there too.
        """
        return (self.skewness**2 + 1) / self.kurtosis

    @property
    def minimum(self) -> float:
        return self._extremes[0].item() if self.count else math.nan

    @property
    def maximum(self) -> float:
        return self._extremes[1].item() if self.count else math.nan

    def _standardised(self, power: int) -> float:
        variance = self.variance
        if not variance > 0:
            return math.nan
        return float(self._moments[power] / self._moments[0] / variance ** (power / 2))

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """The values below which these shares of all values lie.

        Args:
            shares: each from 0 to 1.

        Raises:
            ValueError: a share out of its range.
        """
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"shares of a quantile are from 0 to 1, got {list(shares)}")
        if math.isnan(self.minimum):
            return [math.nan] * len(shares)
        cumulative = self._cumulative()
        wanted = torch.tensor(list(shares), dtype=torch.float64) * cumulative[-1]
        after = torch.searchsorted(cumulative, wanted).clamp(1, len(cumulative) - 1)
        edges = self._edges()
        below, above = cumulative[after - 1], cumulative[after]
        position = ((wanted - below) / (above - below)).clamp(0, 1).nan_to_num(1.0)
        values = torch.lerp(edges[after - 1], edges[after], position)
        found: list[float] = values.clamp(self.minimum, self.maximum).tolist()
        return found

    def density(self, edges: Sequence[float]) -> list[float]:
        """Probability density in each bin; what lies outside is missing from the sum.

        Args:
            edges: of the bins, ascending; one more than there are bins.
        """
        at = torch.tensor(list(edges), dtype=torch.float64)
        if math.isnan(self.minimum):
            return [math.nan] * (len(at) - 1)
        fine, cumulative = self._edges(), self._cumulative()
        after = torch.searchsorted(fine, at).clamp(1, len(fine) - 1)
        left, right = fine[after - 1], fine[after]
        position = ((at - left) / (right - left)).clamp(0, 1)
        below = torch.lerp(cumulative[after - 1], cumulative[after], position)  # [edges]
        found: list[float] = (below.diff() / cumulative[-1] / at.diff()).tolist()
        return found

    def _cumulative(self) -> Tensor:
        """Number of values below each edge, ``[bins + 1]``."""
        return torch.cat([torch.zeros(1), self._counts.cpu()]).double().cumsum(0)

    def _edges(self) -> Tensor:
        """Of the bins, ``[bins + 1]``; the outermost ones include all values."""
        edges = _fixed_edges().clone()
        edges[0] = min(edges[0].item(), self.minimum)
        edges[-1] = max(edges[-1].item(), self.maximum)
        return edges


class Correlation:
    """Pearson's correlation of two quantities within each unit, over everything else.

    Args:
        units: ``E``.
        device: of the values.
    """

    def __init__(self, units: int, device: torch.device | str = "cpu") -> None:
        self._state = torch.zeros(6, units, dtype=torch.float64, device=device)
        """Number, both means, both sums of squared distances, sum of products of distances."""

    def update(self, x: Tensor, y: Tensor) -> None:
        """Add pairs of values.

        Args:
            x: ``[N, E, ...]``.
            y: the same shape.
        """
        for left, right in zip(pieces(x.detach()), pieces(y.detach()), strict=True):
            if left.numel():
                self._merge(_co_moments(left, right))

    def merge(self, other: Correlation) -> None:
        """Add what ``other`` has seen."""
        self._merge(other._state.to(self._state.device))

    def _merge(self, new: Tensor) -> None:
        a, b = self._state, new
        n = a[0] + b[0]
        weight = torch.where(n > 0, b[0] / n, 0)
        distance = b[1:3] - a[1:3]  # [2, E]
        cross = a[0] * weight * torch.stack([*distance.square(), distance[0] * distance[1]])
        self._state = torch.cat([n[None], a[1:3] + distance * weight, a[3:] + b[3:] + cross])

    @property
    def units(self) -> int:
        """``E``."""
        return self._state.shape[1]

    def per_unit(self) -> Tensor:
        """``[E]``, float64, -1 to 1; NaN for units one of whose quantities never varies."""
        _, _, _, xx, yy, xy = self._state.cpu()
        found: Tensor = xy / (xx.sqrt() * yy.sqrt())
        return found.clamp(-1, 1)

    @property
    def mean(self) -> float:
        """Over the units in which both quantities vary; NaN without any."""
        return self.per_unit().nanmean().item()


@cache
def _fixed_edges() -> Tensor:
    sizes = torch.arange(_LOWEST + 1, _HIGHEST + 1, dtype=torch.int32) << 16
    positive = sizes.view(torch.float32).double()
    positive = torch.cat([positive, 2 * positive[-1:]])
    return torch.cat([-positive.flip(0), positive])


def _moments(x: Tensor) -> Tensor:
    """Number, mean and central sums of ``x [n]``, ``[5]``; all in float64."""
    mean = x.mean()
    distance = x - mean
    square = distance.square()
    number = torch.full_like(mean, x.numel())
    return torch.stack(
        [number, mean, square.sum(), torch.dot(square, distance), torch.dot(square, square)]
    )


def _merged(a: Tensor, b: Tensor) -> Tensor:
    """What :func:`_moments` gives for both samples together."""
    n_a, mean_a, m2_a, m3_a, m4_a = a
    n_b, mean_b, m2_b, m3_b, m4_b = b
    n = (n_a + n_b).clamp(min=1)  # 0 / 0 where there is nothing yet
    d = mean_b - mean_a
    m2 = m2_a + m2_b + d**2 * n_a * n_b / n
    m3 = m3_a + m3_b + d**3 * n_a * n_b * (n_a - n_b) / n**2 + 3 * d * (n_a * m2_b - n_b * m2_a) / n
    m4 = (
        m4_a
        + m4_b
        + d**4 * n_a * n_b * (n_a**2 - n_a * n_b + n_b**2) / n**3
        + 6 * d**2 * (n_a**2 * m2_b + n_b**2 * m2_a) / n**2
        + 4 * d * (n_a * m3_b - n_b * m3_a) / n
    )
    return torch.stack([n_a + n_b, mean_a + d * n_b / n, m2, m3, m4])


def _co_moments(x: Tensor, y: Tensor) -> Tensor:
    """Number, means and central sums within each unit of ``[n, E, ...]``, ``[6, E]``."""
    x, y = (z.double().transpose(0, 1).flatten(1) for z in (x, y))  # [E, n * ...]
    mean_x, mean_y = x.mean(1), y.mean(1)
    x, y = x - mean_x[:, None], y - mean_y[:, None]
    number = torch.full_like(mean_x, x.shape[1])
    sums = [(a * b).sum(1) for a, b in ((x, x), (y, y), (x, y))]
    return torch.stack([number, mean_x, mean_y, *sums])


def _counts(x: Tensor) -> Tensor:
    """Number of values ``x [n]`` in each bin."""
    bits = x.float().view(torch.int32)
    size = ((bits & 0x7FFFFFFF) >> 16).clamp_(_LOWEST, _HIGHEST).sub_(_LOWEST)
    index = torch.where(bits < 0, -size, size).add_(_SIDE)
    if x.device.type == "cpu":
        return index.bincount(minlength=2 * _SIDE + 1)
    # elsewhere bincount waits for the device
    counts = torch.zeros(2 * _SIDE + 1, dtype=torch.int64, device=x.device)
    return counts.scatter_add_(0, index.long(), torch.ones_like(index, dtype=torch.int64))
