"""Bounds and p-values for a rate that hold at every row at which a run may stop: a gate looks after each of them.

The evidence that a rate is above t, after rows x₁ … xₙ that sum to k, is

    M(k, n, t) = Σⱼ wⱼ exp(ηⱼ k) / (1 + t (exp ηⱼ − 1))ⁿ,

likelihood ratios of the rates whose log-odds lie ηⱼ > 0 higher than t's against t, mixed (Robbins 1970; Howard et al.
2021, Annals of Statistics 49:1055; Waudby-Smith & Ramdas 2024, JRSS-B 86:1). Evidence that a rate is below t is the
same of the other outcome, n − k of n, and 1 − t.

- Valid at any time: while the rate is t or lower, a row multiplies each term by 1 at most in expectation, for any
  row in [0, 1] (a stochastic model's rows are fractions): exp is convex, so E exp(ηx) ≤ E(1 − x + x exp η) ≤
  1 + t (exp η − 1). So M is a supermartingale that begins at 1; it ever reaches 1/α with chance α at most (Ville
  1939), and 1/M is a p-value wherever the run stops.
- Bounds: the rates t that are refuted, M ≥ 1/α, lie together below the bound, because each term falls in t. With
  ηⱼ = cⱼ / √(1 − t) that is where ηⱼ / 2 ≤ exp ηⱼ − 1, so always.
- Rows that count against what is shown (errors) make M smaller, never larger.

All of it comes from k and n. The number of planned rows tunes the steps and does not bind: the bounds hold beyond it.

>>> round(sequence_lower(60, 60, 0.05, planned=1000), 3)
0.933
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

from redan.errors import SettingError
from redan.evidence.statistics import check_counts, check_share, check_threshold

__all__ = ["sequence_lower", "sequence_p_at_least", "sequence_p_at_most", "sequence_upper"]

# Half a normal density over steps of the log-odds, 12 / √(planned (1 − t)) wide. By exact walks over (k, n) that is a
# good compromise from margins that need all planned rows to those that need a fiftieth, and from t = 0.1 to 0.99.
_GRID = np.arange(1, 13) / 4
_LOG_WEIGHTS = -(_GRID**2) / 2 - math.log(float(np.exp(-(_GRID**2) / 2).sum()))
_WIDTH = 12.0
_ROUNDING = 1e-12


def sequence_lower(k: float, n: float, alpha: float, *, planned: int) -> float:
    """Return the lower bound after k successes of n: the rate is ever below it, at any n, with chance alpha at most.

    k: may be fractional, the sum of n values in [0, 1] with one mean. planned: rows that the run may take.

    >>> sequence_lower(0, 100, 0.05, planned=1000)
    0.0
    """
    _check(k, n, planned)
    check_share("alpha", alpha)
    return _edge(lambda t: _log_evidence(n - k, n, t, planned) + math.log(alpha), k / max(1, n), 0.0)


def sequence_upper(k: float, n: float, alpha: float, *, planned: int) -> float:
    """Return the upper bound after k successes of n: the rate is ever above it, at any n, with chance alpha at most.

    >>> sequence_upper(100, 100, 0.05, planned=1000)
    1.0
    """
    _check(k, n, planned)
    check_share("alpha", alpha)
    return _edge(lambda t: _log_evidence(k, n, 1 - t, planned) + math.log(alpha), k / max(1, n), 1.0)


def sequence_p_at_least(k: float, n: float, threshold: float, *, planned: int) -> float:
    """Return the p-value, valid at every n, against "the rate is below threshold".

    `sequence_lower(k, n, alpha) >= threshold` if this is at most alpha, but for rounding.

    >>> sequence_p_at_least(50, 100, 0.5, planned=1000)
    1.0
    """
    _check(k, n, planned)
    check_threshold(threshold)
    return math.exp(min(0.0, -_log_evidence(n - k, n, threshold, planned)))


def sequence_p_at_most(k: float, n: float, threshold: float, *, planned: int) -> float:
    """Return the p-value, valid at every n, against "the rate is above threshold".

    `sequence_upper(k, n, alpha) <= threshold` if this is at most alpha, but for rounding.

    >>> sequence_p_at_most(50, 100, 0.5, planned=1000)
    1.0
    """
    _check(k, n, planned)
    check_threshold(threshold)
    return math.exp(min(0.0, -_log_evidence(k, n, 1 - threshold, planned)))


def _check(k: float, n: float, planned: int) -> None:
    check_counts(k, n)
    if planned < 1:
        raise SettingError(f"planned is the number of rows that a run may take, at least 1, got {planned}.")


def _log_evidence(misses: float, n: float, at: float, planned: int) -> float:
    """log M, with n − k misses and t = at: how much better than t the rates on its way to 1 explain the rows."""
    if at >= 1:
        return 0.0  # nothing is above 1
    steps = _GRID * (_WIDTH / math.sqrt(planned * (1 - at)))
    terms = _LOG_WEIGHTS - misses * steps - n * np.log(at + (1 - at) * np.exp(-steps))
    largest = float(terms.max())
    return largest + math.log(float(np.exp(terms - largest).sum()))


def _edge(evidence: Callable[[float], float], inside: float, outside: float) -> float:
    """The rate, between what was seen and `outside` (0 or 1), from which on all are refuted: evidence of 0 or more.

    It lies a rounding of 10⁻¹² on the refuted side. `outside` itself if that is not refuted.
    """
    if evidence(outside) < 0:
        return outside
    edge = float(brentq(evidence, outside, inside, xtol=_ROUNDING))
    return max(outside, edge - 2 * _ROUNDING) if outside < inside else min(outside, edge + 2 * _ROUNDING)
