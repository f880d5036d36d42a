"""How well suspicions find rows that are known to be poison."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from redan.defenses.suspicion import Numbers
from redan.errors import DataError


def area_under_curve(scores: Numbers, poisoned: NDArray[np.bool_]) -> float:
    """The chance that a poisoned row is more suspicious than a clean one, ties half (Mann and Whitney 1947).

    Raises DataError where there is no poisoned or no clean row.

    >>> area_under_curve(np.array([3.0, 2.0, 1.0]), np.array([True, False, False]))
    1.0
    """
    positive, negative = _both(poisoned)
    ranks = rankdata(scores)
    return float((ranks[poisoned].sum() - positive * (positive + 1) / 2) / (positive * negative))


def recall_at(scores: Numbers, poisoned: NDArray[np.bool_], false_positive_rate: float) -> float:
    """The share of the poisoned rows above a threshold that no more than this share of the clean rows is above.

    >>> recall_at(np.array([3.0, 0.5, 1.0, 0.0]), np.array([True, True, False, False]), 0.01)
    0.5
    """
    _, negative = _both(poisoned)
    allowed = int(false_positive_rate * negative + 1e-9)
    clean = np.sort(scores[~poisoned])[::-1]
    if allowed >= negative:
        return 1.0
    return float((scores[poisoned] > clean[allowed]).mean())


def false_discovery_proportion(found: NDArray[np.bool_], poisoned: NDArray[np.bool_]) -> float:
    """The share of clean rows among those found; 0 where none was.

    >>> false_discovery_proportion(np.array([True, True, False]), np.array([True, False, False]))
    0.5
    """
    return float((found & ~poisoned).sum() / max(1, int(found.sum())))


def _both(poisoned: NDArray[np.bool_]) -> tuple[int, int]:
    positive = int(poisoned.sum())
    negative = len(poisoned) - positive
    if not positive or not negative:
        raise DataError(f"{positive} rows are poisoned and {negative} clean; a detector is measured on both kinds")
    return positive, negative
