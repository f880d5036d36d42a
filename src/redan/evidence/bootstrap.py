"""Bounds for a mean of rows that are judged several times each: a stochastic model has no count of right rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from redan.errors import SettingError
from redan.evidence.statistics import lower_bound, upper_bound

_RESAMPLES = 10_000


def bootstrap_bounds(histogram: Sequence[int], alpha: float, seed: int = 0) -> tuple[float, float]:
    """Lower and upper bound, each missed with probability alpha, of the mean of rows (Efron 1979, percentile).

    histogram: how many rows have the value 0, 1/m, …, 1, for m + 1 bins. Rows are drawn again with replacement.

    >>> bootstrap_bounds([0, 10], 0.05)
    (0.741..., 1.0)
    """
    counts = np.asarray(histogram, dtype=np.float64)
    if counts.ndim != 1 or len(counts) < 2 or (counts < 0).any():
        raise SettingError(f"a histogram needs two bins at least and no negative count, got {list(histogram)}")
    total = int(counts.sum())
    if total == 0:
        return 0.0, 1.0
    (full,) = np.nonzero(counts)
    if len(full) == 1:  # rows that all agree have no spread to draw from; the exact bound of "all of n" has
        value = float(full[0]) / (len(counts) - 1)
        return value * lower_bound(total, total, alpha), value + (1 - value) * upper_bound(0, total, alpha)
    drawn = np.random.default_rng(seed).multinomial(total, counts / counts.sum(), size=_RESAMPLES)
    means = drawn @ np.linspace(0, 1, len(counts)) / total
    low, high = np.quantile(means, [alpha, 1 - alpha])
    return float(low), float(high)
