"""Exact statistics of counts: Clopper–Pearson bounds, binomial p-values, Holm's step-down procedure.

A rate is always k successes of n independent rows (or trained victims, or surrogates), and n is fixed before the
first is looked at (`redan.evidence.sequences` is for a run that stops when it has seen enough). All of it is exact:
the normal approximation is never used. Counts are whole; a real k or n is taken too, as the curve through the whole
ones, and is good for planning only.

>>> found = interval(9, 10)
>>> (round(found.low, 3), round(found.high, 3), found.confidence)
(0.555, 0.997, 0.95)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scipy.special import betainc, betaincc, betainccinv, betaincinv

from redan.errors import SettingError

__all__ = [
    "Holm",
    "Interval",
    "check_counts",
    "check_share",
    "check_threshold",
    "holm",
    "interval",
    "lower_bound",
    "p_at_least",
    "p_at_most",
    "upper_bound",
]


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval for a rate, and how it was made.

    >>> Interval(low=0.5, high=0.7, confidence=0.95).method
    'clopper-pearson'
    """

    low: float
    """Lower end, in [0, 1]."""
    high: float
    """Upper end, in [0, 1]."""
    confidence: float
    """The probability, at least, that an interval made in this way holds the true rate."""
    method: str = "clopper-pearson"
    """How the ends were computed."""
    sides: int = 2
    """2 when both ends may miss, 1 when one end is 0 or 1 by construction."""


class Holm(NamedTuple):
    """What Holm's procedure says of each hypothesis, in the order in which they were given."""

    levels: tuple[float, ...]
    """The level at which the hypothesis is tested; it is rejected exactly if its p-value is no larger."""
    rejected: tuple[bool, ...]
    """Whether the null hypothesis is rejected."""


def interval(k: int, n: int, confidence: float = 0.95) -> Interval:
    """Return the two-sided Clopper–Pearson interval for k successes of n (Clopper & Pearson 1934).

    Each side misses with probability (1 − confidence) / 2 at most. Of no rows nothing is known: n = 0 gives
    (0, 1). Raises SettingError for counts or a confidence that cannot be.

    >>> interval(0, 10).low
    0.0
    """
    check_share("confidence", confidence)
    tail = (1 - confidence) / 2
    return Interval(lower_bound(k, n, tail), upper_bound(k, n, tail), confidence)


def lower_bound(k: float, n: float, alpha: float) -> float:
    """Return the one-sided lower Clopper–Pearson bound: the true rate is below it with chance alpha at most.

    It is the alpha quantile of Beta(k, n − k + 1), and 0 for k = 0.

    >>> round(lower_bound(10, 10, 0.05), 4)  # 0.05 ** (1 / 10)
    0.7411
    """
    check_counts(k, n)
    check_share("alpha", alpha)
    return 0.0 if k == 0 else float(betaincinv(k, n - k + 1, alpha))


def upper_bound(k: float, n: float, alpha: float) -> float:
    """Return the one-sided upper Clopper–Pearson bound: the true rate is above it with chance alpha at most.

    It is the 1 − alpha quantile of Beta(k + 1, n − k), and 1 for k = n.

    >>> round(upper_bound(0, 1000, 0.025), 4)  # 1 - 0.025 ** (1 / 1000)
    0.0037
    """
    check_counts(k, n)
    check_share("alpha", alpha)
    return 1.0 if k == n else float(betainccinv(k + 1, n - k, alpha))


def p_at_least(k: float, n: float, threshold: float) -> float:
    """Return P[X ≥ k] for X ~ Binomial(n, threshold): the p-value against "the rate is below threshold".

    A small value shows that the rate is at least threshold. `lower_bound(k, n, alpha) >= threshold` exactly
    if this is at most alpha.

    >>> p_at_least(10, 10, 0.5)
    0.0009765625
    """
    check_counts(k, n)
    check_threshold(threshold)
    return 1.0 if k == 0 else float(betainc(k, n - k + 1, threshold))


def p_at_most(k: float, n: float, threshold: float) -> float:
    """Return P[X ≤ k] for X ~ Binomial(n, threshold): the p-value against "the rate is above threshold".

    A small value shows that the rate is at most threshold. `upper_bound(k, n, alpha) <= threshold` exactly
    if this is at most alpha.

    >>> p_at_most(0, 10, 0.5)
    0.0009765625
    """
    check_counts(k, n)
    check_threshold(threshold)
    return 1.0 if k == n else float(betaincc(k + 1, n - k, threshold))


def holm(p_values: Sequence[float], alpha: float) -> Holm:
    """Test several hypotheses so that any false rejection at all has probability alpha at most (Holm 1979).

    The i-th smallest of m p-values (i from 0) is tested at alpha / (m − i); the first that is larger ends the
    procedure, and no later one is rejected. So the hypotheses that are kept, r of them, all get the level
    alpha / r at which it ended: the level at which simultaneous bounds agree with the decisions (Strassburger
    & Bretz 2008), so that a bound never contradicts its own verdict.

    >>> holm([0.01, 0.04, 0.03], alpha=0.05)
    Holm(levels=(0.016666666666666666, 0.025, 0.025), rejected=(True, False, False))
    """
    check_share("alpha", alpha)
    for p in p_values:
        if not 0 <= p <= 1:
            raise SettingError(f"a p-value lies from 0 to 1, got {p}; pass the result of p_at_least or p_at_most.")
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    levels, rejected = [alpha] * len(order), [False] * len(order)
    for done, i in enumerate(order):
        kept = len(order) - done
        if p_values[i] > alpha / kept:
            for j in order[done:]:
                levels[j] = alpha / kept
            break
        levels[i], rejected[i] = alpha / kept, True
    return Holm(tuple(levels), tuple(rejected))


def check_counts(k: float, n: float) -> None:
    """Raise SettingError unless k is of n."""
    if not 0 <= k <= n:
        raise SettingError(f"k successes of n must satisfy 0 <= k <= n, got k={k} and n={n}; check the counts.")


def check_share(name: str, value: float) -> None:
    """Raise SettingError unless a level or a confidence lies between 0 and 1."""
    if not 0 < value < 1:
        raise SettingError(f"{name} must lie between 0 and 1, both excluded, got {value}.")


def check_threshold(threshold: float) -> None:
    """Raise SettingError unless the threshold is a rate."""
    if not 0 <= threshold <= 1:
        raise SettingError(f"threshold is a rate from 0 to 1, got {threshold}.")
