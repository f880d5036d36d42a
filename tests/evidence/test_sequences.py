"""Confidence sequences: how often they are ever wrong, walked exactly over every way that the rows can fall."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from redan.errors import SettingError
from redan.evidence.sequences import sequence_lower, sequence_p_at_least, sequence_p_at_most, sequence_upper
from redan.evidence.statistics import p_at_least

MANY = settings(max_examples=300, deadline=None, derandomize=True)
ALPHA = 0.05


@functools.cache
def boundary(threshold: float, planned: int, rows: int, alpha: float = ALPHA) -> NDArray[np.int64]:
    """For n = 1 … rows the fewest successes that show a rate of `threshold` at least; n + 1 if none do."""
    found, k = np.empty(rows, dtype=np.int64), 0
    for n in range(1, rows + 1):
        while k <= n and sequence_p_at_least(k, n, threshold, planned=planned) > alpha:
            k += 1
        found[n - 1] = k
    return found


def ever(stops: NDArray[np.int64], rate: float) -> float:
    """The chance that rows with this rate ever reach the boundary, over all 2ⁿ ways in which they fall."""
    alive, stopped = np.zeros(len(stops) + 1), 0.0
    alive[0] = 1.0
    for n, stop in enumerate(stops, start=1):
        alive[1 : n + 1] = alive[1 : n + 1] * (1 - rate) + alive[:n] * rate
        alive[0] *= 1 - rate
        stopped += alive[stop : n + 1].sum()
        alive[stop : n + 1] = 0
    return stopped


@pytest.mark.parametrize("threshold", [0.05, 0.4, 0.6, 0.9, 0.98])
@pytest.mark.parametrize(("planned", "rows"), [(1000, 1000), (100, 1000)])
def test_a_run_that_may_stop_anywhere_is_rarely_wrong(threshold: float, planned: int, rows: int) -> None:
    """A sequence is wrong about a rate at most 5 % of the time, even beyond the planned rows, and uses what it may."""
    wrong = ever(boundary(threshold, planned, rows), threshold)
    assert 0.4 * ALPHA <= wrong <= ALPHA


def test_a_lower_rate_is_refuted_more_rarely() -> None:
    stops = boundary(0.6, 1000, 1000)
    chances = [ever(stops, rate) for rate in (0.4, 0.55, 0.59, 0.6, 0.61, 0.65)]
    assert chances == sorted(chances)
    assert chances[-1] > 0.7


def test_looking_after_each_row_at_a_fixed_test_would_be_wrong_often() -> None:
    """What the sequence is for: the exact test of a fixed number of rows, looked at after each, errs beyond 3 α."""
    stops = [next((k for k in range(n + 1) if p_at_least(k, n, 0.6) <= ALPHA), n + 1) for n in range(1, 201)]
    assert ever(np.array(stops), 0.6) > 3 * ALPHA


@pytest.mark.parametrize("threshold", [0.3, 0.9])
@pytest.mark.parametrize(("name", "least"), [("half", 0.0), ("mostly whole", 0.3 * ALPHA), ("smooth", 0.0)])
def test_rows_that_are_fractions_are_rarely_refuted_too(threshold: float, name: str, least: float) -> None:
    """10⁴ runs of 400 rows whose mean is the threshold: ever above the bound in 5 % of them, give or take noise."""
    draw, rows, runs = np.random.default_rng(11), 400, 10_000
    whole = draw.random((runs, rows)) < threshold
    if name == "smooth":
        values = draw.beta(8 * threshold, 8 * (1 - threshold), (runs, rows))
    elif name == "half":
        values = np.where(draw.random((runs, rows)) < 0.5, whole, threshold)
    else:  # in twentieths, as a stochastic model's rows that are judged over 20 answers
        shares = np.where(whole, 0.95 + 0.05 * threshold, 0.05 * threshold)
        values = draw.binomial(20, shares) / 20
    sums = values.cumsum(1)
    enough = np.array([fewest(n, threshold) for n in range(1, rows + 1)])
    wrong = (sums >= enough).any(1).mean()
    assert least <= wrong <= ALPHA + 4 * math.sqrt(ALPHA / runs)


def fewest(n: int, threshold: float) -> float:
    """The smallest real number of successes that shows a rate of `threshold` at least; more than n if none does."""
    if sequence_p_at_least(n, n, threshold, planned=400) > ALPHA:
        return n + 1.0
    low, high = 0.0, float(n)
    for _ in range(30):
        k = (low + high) / 2
        low, high = (low, k) if sequence_p_at_least(k, n, threshold, planned=400) <= ALPHA else (k, high)
    return high


counts = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
alphas = st.sampled_from([0.3, 0.05, 0.01, 1e-6])
plans = st.sampled_from([1, 20, 1000, 60_000])


@MANY
@given(counts, alphas, plans)
def test_bounds_hold_the_rate_and_mirror_each_other(count: tuple[int, int], alpha: float, planned: int) -> None:
    k, n = count
    low, high = sequence_lower(k, n, alpha, planned=planned), sequence_upper(k, n, alpha, planned=planned)
    assert 0 <= low <= k / n <= high <= 1
    assert high == pytest.approx(1 - sequence_lower(n - k, n, alpha, planned=planned), abs=1e-9)
    assert low == 0 or sequence_p_at_least(k, n, low, planned=planned) == pytest.approx(alpha, rel=1e-4)
    assert high == 1 or sequence_p_at_most(k, n, high, planned=planned) == pytest.approx(alpha, rel=1e-4)


@MANY
@given(counts, st.floats(0, 1), alphas, plans)
def test_all_rates_beyond_a_bound_are_refuted_and_none_within(
    count: tuple[int, int], threshold: float, alpha: float, planned: int
) -> None:
    k, n = count
    low, high = sequence_lower(k, n, alpha, planned=planned), sequence_upper(k, n, alpha, planned=planned)
    above, below = (test(k, n, threshold, planned=planned) for test in (sequence_p_at_least, sequence_p_at_most))
    if abs(threshold - low) > 1e-9:
        assert (above <= alpha) == (threshold < low)
    if abs(threshold - high) > 1e-9:
        assert (below <= alpha) == (threshold > high)


@MANY
@given(counts, st.floats(0, 1), plans)
def test_more_successes_are_more_evidence(count: tuple[int, int], threshold: float, planned: int) -> None:
    k, n = count
    more = min(n, k + 0.5)
    assert p_both(more, n, threshold, planned)[0] <= p_both(k, n, threshold, planned)[0]
    assert p_both(more, n, threshold, planned)[1] >= p_both(k, n, threshold, planned)[1]


def p_both(k: float, n: int, threshold: float, planned: int) -> tuple[float, float]:
    return (
        sequence_p_at_least(k, n, threshold, planned=planned),
        sequence_p_at_most(k, n, threshold, planned=planned),
    )


def test_the_evidence_is_its_definition() -> None:
    """M(k, n, t) summed term by term, for a case where no term over- or underflows."""
    k, n, t, planned = 14.5, 20, 0.5, 200
    grid = [j / 4 for j in range(1, 13)]
    steps = [12 * c / math.sqrt(planned * (1 - t)) for c in grid]
    weights = [math.exp(-c * c / 2) for c in grid]
    terms = [w * math.exp(e * k) / (1 + t * (math.exp(e) - 1)) ** n for w, e in zip(weights, steps, strict=True)]
    expected = sum(weights) / sum(terms)
    assert expected < 1
    assert sequence_p_at_least(k, n, t, planned=planned) == pytest.approx(expected, rel=1e-9)


def test_of_no_rows_and_of_certain_rates_nothing_is_shown() -> None:
    assert (sequence_lower(0, 0, 0.05, planned=9), sequence_upper(0, 0, 0.05, planned=9)) == (0.0, 1.0)
    assert sequence_p_at_least(100, 100, 1.0, planned=100) == 1.0
    assert sequence_p_at_most(0, 100, 0.0, planned=100) == 1.0
    assert sequence_p_at_least(100, 100, 0.0, planned=100) < 1e-9


@pytest.mark.parametrize(
    "call",
    [
        lambda: sequence_lower(3, 2, 0.05, planned=9),
        lambda: sequence_upper(-1, 2, 0.05, planned=9),
        lambda: sequence_lower(1, 2, 0.0, planned=9),
        lambda: sequence_lower(1, 2, 0.05, planned=0),
        lambda: sequence_upper(1, 2, 1.0, planned=9),
        lambda: sequence_p_at_least(1, 2, 1.5, planned=9),
        lambda: sequence_p_at_most(1, 2, math.nan, planned=9),
    ],
)
def test_what_cannot_be_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(SettingError, match="got"):
        call()
