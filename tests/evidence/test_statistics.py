"""Exact statistics against closed forms, published values and enumeration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binomtest

from redan.errors import SettingError
from redan.evidence.statistics import Interval, holm, interval, lower_bound, p_at_least, p_at_most, upper_bound

ALPHAS = st.sampled_from([0.001, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5])


@st.composite
def counts(draw: st.DrawFn, largest: int = 400) -> tuple[int, int]:
    n = draw(st.integers(0, largest))
    return draw(st.integers(0, n)), n


def probability(k: int, n: int, p: float) -> float:
    """P[X = k] for X ~ Binomial(n, p), from its definition."""
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


@pytest.mark.parametrize("n", [1, 2, 7, 100, 1000, 60_000])
@pytest.mark.parametrize("alpha", [0.001, 0.025, 0.05])
def test_no_success_and_no_failure_have_closed_forms(n: int, alpha: float) -> None:
    assert lower_bound(0, n, alpha) == 0.0
    assert upper_bound(0, n, alpha) == pytest.approx(-math.expm1(math.log(alpha) / n), rel=1e-9)
    assert lower_bound(n, n, alpha) == pytest.approx(alpha ** (1 / n), rel=1e-12)
    assert upper_bound(n, n, alpha) == 1.0


@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_one_success_of_one_and_one_of_two(alpha: float) -> None:
    assert lower_bound(1, 1, alpha) == pytest.approx(alpha)
    # P[X >= 1 | p] = 1 - (1 - p)^2 = alpha, and the mirror image
    assert lower_bound(1, 2, alpha) == pytest.approx(1 - math.sqrt(1 - alpha))
    assert upper_bound(1, 2, alpha) == pytest.approx(math.sqrt(1 - alpha))


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (81, 263, 0.2527, 0.3676),  # Newcombe 1998, Statistics in Medicine 17:857, table I, method 5
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0000, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ],
)
def test_published_intervals(k: int, n: int, low: float, high: float) -> None:
    found = interval(k, n)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert (found.confidence, found.method, found.sides) == (0.95, "clopper-pearson", 2)


@pytest.mark.parametrize(("k", "n"), [(3, 10), (60, 100), (500, 1000), (999, 1000), (41, 60_000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_an_interval_is_what_scipy_finds_by_root_finding(k: int, n: int, confidence: float) -> None:
    reference = binomtest(k, n).proportion_ci(confidence_level=confidence, method="exact")
    found = interval(k, n, confidence)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), rel=1e-8)


def test_of_no_rows_nothing_is_known() -> None:
    assert interval(0, 0) == Interval(low=0.0, high=1.0, confidence=0.95)
    assert (lower_bound(0, 0, 0.05), upper_bound(0, 0, 0.05)) == (0.0, 1.0)
    assert (p_at_least(0, 0, 0.9), p_at_most(0, 0, 0.1)) == (1.0, 1.0)


@pytest.mark.parametrize("n", [1, 5, 17, 60])
@pytest.mark.parametrize("p", [0.0, 0.003, 0.1, 0.37, 0.5, 0.8, 0.99, 1.0])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_coverage_is_never_below_nominal(n: int, p: float, confidence: float) -> None:
    alpha = 1 - confidence
    weights = [probability(k, n, p) for k in range(n + 1)]
    intervals = [interval(k, n, confidence) for k in range(n + 1)]
    both = sum(w for w, found in zip(weights, intervals, strict=True) if found.low <= p <= found.high)
    below = sum(w for k, w in enumerate(weights) if lower_bound(k, n, alpha) <= p)
    above = sum(w for k, w in enumerate(weights) if p <= upper_bound(k, n, alpha))
    assert min(both, below, above) >= confidence - 1e-12


@given(counts(60), st.floats(0, 1))
def test_p_values_are_sums_of_binomial_probabilities(count: tuple[int, int], threshold: float) -> None:
    k, n = count
    at_least = math.fsum(probability(i, n, threshold) for i in range(k, n + 1))
    at_most = math.fsum(probability(i, n, threshold) for i in range(k + 1))
    assert p_at_least(k, n, threshold) == pytest.approx(at_least, rel=1e-9, abs=1e-300)
    assert p_at_most(k, n, threshold) == pytest.approx(at_most, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(
    ("k", "n", "threshold", "at_least", "at_most"),
    [
        (0, 10, 0.5, 1.0, 1 / 1024),
        (10, 10, 0.5, 1 / 1024, 1.0),
        (1, 2, 0.5, 3 / 4, 3 / 4),
        (3, 5, 0.0, 0.0, 1.0),
        (3, 5, 1.0, 1.0, 0.0),
        (0, 5, 0.0, 1.0, 1.0),
        (5, 5, 1.0, 1.0, 1.0),
    ],
)
def test_p_values_by_hand(k: int, n: int, threshold: float, at_least: float, at_most: float) -> None:
    assert p_at_least(k, n, threshold) == pytest.approx(at_least)
    assert p_at_most(k, n, threshold) == pytest.approx(at_most)


@given(counts(), st.floats(0, 1), ALPHAS)
def test_a_bound_meets_a_threshold_exactly_if_the_test_rejects(
    count: tuple[int, int], threshold: float, alpha: float
) -> None:
    k, n = count
    low, high = lower_bound(k, n, alpha), upper_bound(k, n, alpha)
    # at the bound itself the two sides are equal but for rounding; the bounds 0 and 1 are exact
    assume(low in (0.0, threshold) or abs(low - threshold) > 1e-9)
    assume(high in (1.0, threshold) or abs(high - threshold) > 1e-9)
    if k > 0:
        assert (low >= threshold) == (p_at_least(k, n, threshold) <= alpha)
    if k < n:
        assert (high <= threshold) == (p_at_most(k, n, threshold) <= alpha)


@given(counts(), ALPHAS)
def test_bounds_mirror_each_other_and_hold_the_rate(count: tuple[int, int], alpha: float) -> None:
    k, n = count
    assert lower_bound(k, n, alpha) == pytest.approx(1 - upper_bound(n - k, n, alpha), abs=1e-12)
    if n:
        assert lower_bound(k, n, alpha) <= k / n <= upper_bound(k, n, alpha)


@given(counts(), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_an_interval_is_two_one_sided_bounds(count: tuple[int, int], confidence: float) -> None:
    k, n = count
    found = interval(k, n, confidence)
    assert found.low == lower_bound(k, n, (1 - confidence) / 2)
    assert found.high == upper_bound(k, n, (1 - confidence) / 2)
    assert found.confidence == confidence


def test_holm_by_hand() -> None:
    # Holm 1979 with four hypotheses: 0.005 <= .05/4, 0.01 <= .05/3, 0.03 > .05/2, so it ends there
    levels, rejected = holm([0.01, 0.04, 0.03, 0.005], alpha=0.05)
    assert rejected == (True, False, False, True)
    assert levels == pytest.approx((0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4))


def test_holm_stops_at_the_first_that_is_kept() -> None:
    # 0.04 would pass its own step (0.05 / 1), but 0.03 > 0.05 / 2 came before it
    assert holm([0.03, 0.04], alpha=0.05).rejected == (False, False)
    assert holm([0.025, 0.05], alpha=0.05).rejected == (True, True)


def test_holm_of_one_and_of_none() -> None:
    assert holm([0.05], 0.05) == ((0.05,), (True,))
    assert holm([], 0.05) == ((), ())


@given(st.lists(st.floats(0, 1), max_size=8), ALPHAS)
def test_holm_rejects_exactly_what_its_levels_say(p_values: list[float], alpha: float) -> None:
    levels, rejected = holm(p_values, alpha)
    m = len(p_values)
    assert rejected == tuple(p <= level for p, level in zip(p_values, levels, strict=True))
    assert all(alpha / m <= level <= alpha for level in levels)
    # at least what Bonferroni rejects, at most what each test on its own would
    for p, yes in zip(p_values, rejected, strict=True):
        assert yes or p > alpha / m
        assert p <= alpha or not yes


@given(st.lists(st.floats(0, 1), max_size=8), ALPHAS, st.randoms(use_true_random=False))
def test_holm_does_not_depend_on_the_order(p_values: list[float], alpha: float, random: Random) -> None:
    order = list(range(len(p_values)))
    random.shuffle(order)
    straight, shuffled = holm(p_values, alpha), holm([p_values[i] for i in order], alpha)
    assert shuffled.rejected == tuple(straight.rejected[i] for i in order)


@pytest.mark.parametrize(
    "call",
    [
        lambda: interval(3, 2),
        lambda: interval(-1, 2),
        lambda: interval(0, -1),
        lambda: interval(1, 2, confidence=1.0),
        lambda: interval(1, 2, confidence=0.0),
        lambda: lower_bound(1, 2, 0.0),
        lambda: upper_bound(1, 2, 1.0),
        lambda: upper_bound(1, 2, math.nan),
        lambda: p_at_least(1, 2, 1.1),
        lambda: p_at_most(1, 2, -0.1),
        lambda: holm([1.5], 0.05),
        lambda: holm([math.nan], 0.05),
        lambda: holm([0.5], 0.0),
    ],
)
def test_what_cannot_be_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(SettingError, match="got"):
        call()


def test_an_interval_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        interval(1, 2).__setattr__("low", 0.0)
