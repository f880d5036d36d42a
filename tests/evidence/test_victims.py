"""Rates over trained victims: against scipy, by simulation, and by what must hold of victims nobody knows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import binomtest, t, ttest_1samp, ttest_rel

from redan.evidence.poisoned import Equivalence
from redan.evidence.victims import Several, Victims, equivalence

MANY = settings(max_examples=120, deadline=None, derandomize=True, database=None)
levels = st.sampled_from([0.1, 0.05, 0.025, 0.01])
thresholds = st.floats(0.01, 0.99)
asked = st.sampled_from([1, 2, 20, 200, 5000])


@st.composite
def victims(draw: st.DrawFn, *, least: int = 0, missing: int = 3) -> Victims:
    """Victims that lie together or far apart, some at 0 or 1; or that are hit or not."""
    rows = draw(asked)
    middle, width = draw(st.floats(0, 1)), draw(st.sampled_from([0.0, 0.01, 0.1, 1.0]))
    near = st.floats(-0.5, 0.5).map(lambda x: min(1.0, max(0.0, middle + width * x)))
    rate = st.sampled_from([0.0, 1.0]) if rows == 1 else st.one_of(near, near, near, st.sampled_from([0.0, 1.0]))
    rates = draw(st.lists(rate, min_size=least, max_size=8))
    return Victims(
        rates=tuple(rates), rows=rows, errors=draw(st.integers(0, missing)), undecided=draw(st.integers(0, missing))
    )


def shows(found: Victims | Several, threshold: float, level: float) -> tuple[bool, bool]:
    """Whether the mean is shown to lie above, and below."""
    above, below = (found.p_value(threshold, above=above) <= level for above in (True, False))
    return above, below


def by_hand(rates: Sequence[float], rows: int, threshold: float, *, above: bool) -> float:
    """The p-value by numpy and scipy alone."""
    error = math.sqrt(np.var(rates, ddof=1) / len(rates) + threshold * (1 - threshold) / rows)
    score = (np.mean(rates) - threshold) / error
    return float(t.sf(score, len(rates) - 1) if above else t.cdf(score, len(rates) - 1))


def turned(rates: Sequence[float], rows: int, level: float, end: float, *, above: bool) -> float:
    """Where that p-value is the level, between an end and the mean."""
    low, high = sorted((end, abs(float(np.mean(rates)) - 1e-12)))
    return brentq(lambda at: by_hand(rates, rows, at, above=above) - level, low, high, xtol=1e-14)


# -- closed forms --------------------------------------------------------------------------------------------

SOME = [
    ((0.96, 0.97, 0.98), 1000),
    ((0.2, 0.9), 50),
    ((0.5,) * 5, 400),
    ((0.0,) * 10, 100),
    ((1.0,) * 3, 100),
    ((0.01, 0.0, 0.03, 0.02), 7),
]


@pytest.mark.parametrize(("rates", "rows"), SOME)
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_bounds_and_p_values_are_those_of_scipy_s_t(rates: tuple[float, ...], rows: int, level: float) -> None:
    found = Victims(rates=rates, rows=rows)
    for at in (0.001, 0.3, 0.55, 0.95, 0.999):
        for above in (True, False):
            assert found.p_value(at, above=above) == pytest.approx(by_hand(rates, rows, at, above=above), abs=1e-12)
    for above, bound, end in ((True, found.lower(level), 1e-9), (False, found.upper(level), 1 - 1e-9)):
        if by_hand(rates, rows, end, above=above) <= level:
            assert bound == pytest.approx(turned(rates, rows, level, end, above=above), abs=1e-9)
        else:
            assert bound == round(end)


@pytest.mark.parametrize("rates", [(0.96, 0.97, 0.985), (0.2, 0.9), (0.11, 0.12, 0.13, 0.3, 0.14)])
def test_of_rows_without_end_it_is_student_s_test(rates: tuple[float, ...]) -> None:
    found = Victims(rates=rates, rows=10**15)
    for at in (0.1, 0.5, 0.95):
        above, below = (found.p_value(at, above=above) for above in (True, False))
        assert above == pytest.approx(ttest_1samp(rates, at, alternative="greater").pvalue, rel=1e-6)
        assert below == pytest.approx(ttest_1samp(rates, at, alternative="less").pvalue, rel=1e-6)
    low, high = ttest_1samp(rates, 0.5).confidence_interval(0.9)
    assert found.lower(0.05) == pytest.approx(max(0, low), abs=1e-7)
    assert found.upper(0.05) == pytest.approx(min(1, high), abs=1e-7)


def test_of_victims_without_scatter_it_is_the_rows_own_error_that_is_left() -> None:
    for count, rows in ((5, 100), (5, 1000), (4000, 1000)):
        found, quantile = Victims(rates=(0.9,) * count, rows=rows), t.ppf(0.95, count - 1)
        low, high = found.lower(0.05), found.upper(0.05)
        assert 0.9 - low == pytest.approx(quantile * math.sqrt(low * (1 - low) / rows))  # Wilson's, with t for z
        assert high - 0.9 == pytest.approx(quantile * math.sqrt(high * (1 - high) / rows))
    none = Victims(rates=(0.0,) * 10, rows=100)
    assert none.upper(0.05) == pytest.approx(t.ppf(0.95, 9) ** 2 / (100 + t.ppf(0.95, 9) ** 2))
    assert none.lower(0.05) == 0.0
    assert [none.p_value(0.0, above=above) for above in (True, False)] == [1.0, 1.0]
    assert Victims(rates=(1.0,) * 10, rows=100).p_value(0.0, above=True) == 0.0


@pytest.mark.parametrize(("k", "n"), [(0, 8), (3, 8), (8, 8), (1, 1)])
def test_victims_that_are_hit_or_not_are_counted_exactly(k: int, n: int) -> None:
    found = Victims(rates=(1.0,) * k + (0.0,) * (n - k), rows=1)
    low, high = binomtest(k, n).proportion_ci(0.9, method="exact")
    assert (found.lower(0.05), found.upper(0.05)) == pytest.approx((low, high))
    for at in (0.1, 0.6):
        assert found.p_value(at, above=True) == pytest.approx(binomtest(k, n, at, alternative="greater").pvalue)
        assert found.p_value(at, above=False) == pytest.approx(binomtest(k, n, at, alternative="less").pvalue)
    part = found.part(0.9)
    assert part is not None
    assert (part.method, part.rows, part.value) == ("clopper-pearson", 1, k / n)
    assert (found.count.k, found.count.n, found.count.mean) == (k, n, None)


def test_a_part_is_two_sided() -> None:
    found = Victims(rates=(0.96, 0.97, 0.98), rows=1000, name="badnets")
    part = found.part(0.95)
    assert part is not None
    assert (part.low, part.high) == (found.lower(0.025), found.upper(0.025))
    assert (part.method, part.rows, part.each) == ("student-t", 1000, [0.96, 0.97, 0.98])
    assert part.value == found.value == found.count.mean == found.count.value == pytest.approx(0.97)
    assert (found.count.n, found.count.name) == (3, "badnets")
    assert Victims(rates=(), rows=1000, errors=3).part(0.95) is None


@MANY
@given(victims(), thresholds, levels)
def test_bounds_agree_with_p_values(found: Victims, threshold: float, level: float) -> None:
    low, high = found.lower(level), found.upper(level)
    assert 0 <= low <= high <= 1
    assume(min(abs(low - threshold), abs(high - threshold)) > 1e-9)
    assert shows(found, threshold, level) == (low >= threshold, high <= threshold)


@MANY
@given(victims(), thresholds, levels)
def test_success_and_failure_are_each_other_s_mirror(found: Victims, threshold: float, level: float) -> None:
    other = replace(found, rates=tuple(1 - rate for rate in found.rates))
    assert other.lower(level) == pytest.approx(1 - found.upper(level), abs=1e-9)
    assert other.p_value(1 - threshold, above=True) == pytest.approx(found.p_value(threshold, above=False), abs=1e-7)


# -- how often bounds miss -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "rows", "a", "b", "least"),
    [
        (5, 1000, 20, 20, 0.03),  # mostly the scatter of victims
        (10, 200, 200, 9800, 0.01),  # rates of 2 %, and mostly the draw of the rows
        (10, 100, 400, 40, 0.005),  # both
        (10, 1000, 1, 99, 0.001),  # rates that scatter more above than below
    ],
)
def test_bounds_miss_about_as_often_as_they_say(count: int, rows: int, a: float, b: float, least: float) -> None:
    """Victims' true rates are Beta(a, b); a victim is right on the rows that are easier than its rate, rows of all."""
    draw, runs, true = np.random.default_rng(0), 2000, a / (a + b)
    rates = draw.beta(a, b, (runs, count))
    easy = np.sort(draw.random((runs, rows)), axis=1)
    low = high = 0
    for each, ease in zip(rates, easy, strict=True):
        found = Victims(rates=tuple((np.searchsorted(ease, each) / rows).tolist()), rows=rows)
        low += found.lower(0.05) > true
        high += found.upper(0.05) < true
    assert least * runs <= min(low, high) <= max(low, high) <= 0.06 * runs


@pytest.mark.parametrize("count", [2, 3, 6])
def test_bounds_of_victims_asked_rows_without_end_miss_as_often_as_they_say(count: int) -> None:
    """One side each, with one degree of freedom less than victims: with as many, three of them miss in 7 %."""
    low = high = 0
    for rates in np.random.default_rng(count).beta(50, 50, (2000, count)).tolist():
        found = Victims(rates=tuple(rates), rows=10**9)
        low += found.lower(0.05) > 0.5
        high += found.upper(0.05) < 0.5
    assert 0.08 * 2000 <= low + high <= 0.12 * 2000
    assert max(low, high) <= 0.062 * 2000


# -- victims of whom nothing is known --------------------------------------------------------------------------


@pytest.mark.parametrize("errors", [0, 1, 50])
@pytest.mark.parametrize("rates", [(), (0.99,)])
def test_fewer_than_two_victims_show_nothing(rates: tuple[float, ...], errors: int) -> None:
    found = Victims(rates=rates, rows=100, errors=errors)
    assert (found.lower(0.05), found.upper(0.05)) == (0.0, 1.0)
    assert [found.p_value(at, above=above) for at in (0.0, 0.5, 1.0) for above in (True, False)] == [1.0] * 6


def test_a_victim_that_is_missing_counts_as_the_worst_that_it_might_be() -> None:
    """A last victim of 1 is worse for the lower bound than one of 0 here: it widens more than it lifts."""
    rest = (0.2,) * 10
    zero, one = (Victims(rates=(*rest, last), rows=5000) for last in (0.0, 1.0))
    assert one.lower(0.05) < zero.lower(0.05)
    opened = Victims(rates=rest, rows=5000, errors=1)
    assert opened.lower(0.05) == one.lower(0.05)
    assert opened.upper(0.05) == one.upper(0.05)
    near = Victims(rates=(0.9,) * 10, rows=5000, undecided=1)
    assert near.lower(0.05) == Victims(rates=(*near.rates, 0.0), rows=5000).lower(0.05)
    assert near.value == 0.9  # what is seen is of those that are known
    assert (near.count.n, near.count.errors, near.count.undecided) == (11, 0, 1)


def test_more_that_are_missing_are_no_more_victims() -> None:
    """Three fates of 0 have one degree of freedom more than two, and would show more."""
    two, three = (Victims(rates=(0.66, 1.0), rows=200, errors=errors).lower(0.1) for errors in (1, 2))
    assert two >= three
    as_zeros = [Victims(rates=(0.66, 1.0, *[0.0] * zeros), rows=200).lower(0.1) for zeros in (1, 2)]
    assert as_zeros[0] < as_zeros[1]


@MANY
@given(victims(), thresholds, levels, st.sampled_from(["errors", "undecided"]))
def test_one_error_more_never_shows_more(found: Victims, threshold: float, level: float, kind: str) -> None:
    worse = replace(found, **{kind: getattr(found, kind) + 1})
    for before, after in zip(shows(found, threshold, level), shows(worse, threshold, level), strict=True):
        assert before >= after


@MANY
@given(victims(least=1), thresholds, levels, st.data())
def test_a_victim_that_turns_into_an_error_never_shows_more(
    found: Victims, threshold: float, level: float, data: st.DataObject
) -> None:
    lost = data.draw(st.integers(0, len(found.rates) - 1))
    rest = replace(found, rates=found.rates[:lost] + found.rates[lost + 1 :], errors=found.errors + 1)
    for before, after in zip(shows(found, threshold, level), shows(rest, threshold, level), strict=True):
        assert before >= after


@MANY
@given(victims(least=2), thresholds, levels, st.data())
def test_what_is_shown_stays_whatever_the_missing_were(
    found: Victims, threshold: float, level: float, data: st.DataObject
) -> None:
    kind = st.sampled_from([0.0, 1.0]) if found.exact else st.floats(0, 1)
    fates = data.draw(st.lists(kind, min_size=found.missing, max_size=found.missing))
    known = replace(found, rates=(*found.rates, *fates), errors=0, undecided=0)
    for opened, later in zip(shows(found, threshold, level), shows(known, threshold, level), strict=True):
        assert opened <= later


# -- several attacks -------------------------------------------------------------------------------------------

STRONG = Victims(rates=(0.9, 0.91, 0.92), rows=2000, name="strong")
WEAK = Victims(rates=(0.1, 0.11, 0.13), rows=2000, name="weak")
GONE = Victims(rates=(), rows=1, errors=3, name="gone")


def test_of_several_the_furthest_counts() -> None:
    both = Several((WEAK, STRONG), highest=True)
    assert (both.worst, both.counts) == (STRONG.count, (WEAK.count, STRONG.count))
    assert both.upper(0.05) == (STRONG.upper(0.05), STRONG.count)  # all must lie below: each at the full level
    assert both.lower(0.05) == (STRONG.lower(0.025), STRONG.count)  # any may lie above: the level is shared
    lowest = Several((STRONG, WEAK), highest=False)
    assert lowest.worst == WEAK.count
    assert lowest.lower(0.05) == (WEAK.lower(0.05), WEAK.count)
    assert lowest.upper(0.05) == (WEAK.upper(0.025), WEAK.count)
    assert (both.unit, both.method, both.tests, both.empty) == ("victims", "student-t", True, ())


def test_of_several_the_p_value_is_the_largest_or_the_smallest_times_their_number() -> None:
    p = {(v.name, above): v.p_value(0.5, above=above) for v in (STRONG, WEAK) for above in (True, False)}
    highest, lowest = (Several((WEAK, STRONG), highest=highest) for highest in (True, False))
    assert highest.p_value(0.5, above=True) == 2 * p["strong", True]
    assert highest.p_value(0.5, above=False) == p["strong", False]
    assert lowest.p_value(0.5, above=True) == p["weak", True]
    assert lowest.p_value(0.5, above=False) == 2 * p["weak", False]
    assert highest.p_value(0.99, above=True) == 1.0


def test_an_attack_without_a_victim_never_passes_and_never_fails() -> None:
    for highest in (True, False):
        found = Several((GONE, STRONG, WEAK), highest=highest)
        assert (found.empty, found.method) == (("gone",), "student-t")
        assert found.p_value(0.5, above=not highest) == 1.0  # all would have to be shown
        assert found.p_value(0.5, above=highest) < 0.05  # one is shown
    alone = Several((GONE,), highest=True)
    assert [alone.p_value(0.5, above=above) > 0.1 for above in (True, False)] == [True, True]


@MANY
@given(st.lists(victims(), min_size=1, max_size=3), st.booleans(), thresholds, levels)
def test_bounds_of_several_agree_with_p_values(
    each: list[Victims], highest: bool, threshold: float, level: float
) -> None:
    found = Several(tuple(each), highest=highest)
    low, high = found.lower(level)[0], found.upper(level)[0]
    assume(min(abs(low - threshold), abs(high - threshold)) > 1e-9)
    assert shows(found, threshold, level) == (low >= threshold, high <= threshold)


def test_bounds_of_several_are_rarely_wrong() -> None:
    """Three attacks that are equally strong, where a bound for the highest mean is most often beyond it."""
    draw, runs, low, high = np.random.default_rng(1), 1000, 0, 0
    for each in draw.beta(20, 20, (runs, 3, 4)).tolist():
        found = Several(tuple(Victims(rates=tuple(rates), rows=5000) for rates in each), highest=True)
        low += found.lower(0.05)[0] > 0.5
        high += found.upper(0.05)[0] < 0.5
    assert 0.02 * runs <= low <= 0.065 * runs
    assert high <= 0.01 * runs


def test_victims_on_the_other_side_are_doubts() -> None:
    straddling = Victims(rates=(0.01, 0.02, 0.3, 0.1), rows=500, name="badnets")
    found = Several((straddling, WEAK), highest=True)
    assert found.doubts(0.2, above=False) == ("1 of 4 victims of badnets lie above the threshold by themselves",)
    assert found.doubts(0.1, above=True) == ("2 of 4 victims of badnets lie below the threshold by themselves",)
    assert len(found.doubts(0.1, above=False)) == 2
    assert found.doubts(0.3, above=False) == ()  # at the threshold is on neither side
    assert Several((replace(straddling, name=None),), highest=True).doubts(0.2, above=False) == (
        "1 of 4 victims lie above the threshold by themselves",
    )
    hit = Victims(rates=(1.0, 0.0, 0.0), rows=1)
    assert Several((hit,), highest=True).doubts(0.5, above=False) == ()  # counted exactly, there is no such doubt


# -- how many victims would decide -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "threshold", "above"),
    [
        (Victims(rates=(0.05, 0.15, 0.08), rows=1000), 0.15, False),
        (Victims(rates=(0.9, 0.5), rows=1000), 0.6, True),
        (Victims(rates=(0.02,), rows=1000), 0.1, False),
        (Victims(rates=(1.0, 1.0, 0.0), rows=1), 0.5, True),
        (Victims(rates=(0.0,), rows=1), 0.2, False),
    ],
)
def test_training_so_many_more_at_the_same_rates_decides(found: Victims, threshold: float, above: bool) -> None:
    number = found.to_decide(threshold, 0.05, above=above)
    assert number is not None
    assert number % len(found.rates) == 0
    for times in range(1, number // len(found.rates) + 1):
        many = replace(found, rates=found.rates * times)
        assert (many.p_value(threshold, above=above) <= 0.05) == (len(many.rates) == number)


def test_where_no_number_of_victims_decides_there_is_none() -> None:
    found = Victims(rates=(0.94, 0.95, 0.96), rows=100)
    assert found.to_decide(0.93, 0.05, above=True) is None  # the rows' own error stays, and it is 2 %
    assert found.to_decide(0.95, 0.05, above=False) is None
    assert found.to_decide(0.9, 0.05, above=False) is None
    assert Victims(rates=(), rows=100, errors=2).to_decide(0.5, 0.05, above=True) is None
    assert Victims(rates=(1.0, 0.0), rows=1).to_decide(0.4999, 0.05, above=True) is None  # too many


def test_of_several_the_victims_that_decide() -> None:
    near, far = (Victims(rates=rates, rows=5000) for rates in ((0.3, 0.42, 0.36), (0.2, 0.6)))
    numbers = [each.to_decide(0.5, 0.05, above=False) for each in (near, far)]
    shared = [each.to_decide(0.5, 0.025, above=False) for each in (near, far)]
    assert None not in (*numbers, *shared)
    both = Several((near, far), highest=True)
    assert both.rows_to_decide(0.5, 0.05, above=False) == max(each or 0 for each in numbers)
    assert Several((near, far), highest=False).rows_to_decide(0.5, 0.05, above=False) == min(
        each or 0 for each in shared
    )
    with_more = Several((near, STRONG), highest=True)
    assert with_more.rows_to_decide(0.5, 0.05, above=False) is None  # the strong one never lies below
    assert with_more.rows_to_decide(0.5, 0.05, above=True) == 3


# -- equivalence -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", [2, 3, 10])
def test_equivalence_is_two_one_sided_paired_t_tests(pairs: int) -> None:
    draw, shown = np.random.default_rng(pairs), set()
    for scale, shift, margin, confidence in itertools.product(
        (0.001, 0.01), (-0.03, 0.0, 0.004, 0.012), (0.01, 0.02), (0.9, 0.95)
    ):
        clean = draw.normal(0.9, 0.02, pairs)
        poisoned = clean + draw.normal(shift, scale, pairs)
        found = equivalence(poisoned.tolist(), clean.tolist(), margin=margin, confidence=confidence)
        assert found is not None
        tests = {
            (side, at): ttest_rel(poisoned - at, clean, alternative=side).pvalue
            for side in ("greater", "less")
            for at in (-margin, margin)
        }
        same = max(tests["greater", -margin], tests["less", margin]) < 1 - confidence
        other = min(tests["greater", margin], tests["less", -margin]) < 1 - confidence
        assert (found.shown is Equivalence.EQUIVALENT, found.shown is Equivalence.DIFFERENT) == (same, other)
        assert (found.pairs, found.margin, found.confidence) == (pairs, margin, confidence)
        low, high = ttest_rel(poisoned, clean).confidence_interval(2 * confidence - 1)
        assert (found.low, found.high) == pytest.approx((low, high))
        back = equivalence(clean.tolist(), poisoned.tolist(), margin=margin, confidence=confidence)
        assert back is not None
        assert (back.shown, back.difference) == (found.shown, -found.difference)
        assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
        shown.add(found.shown)
    assert Equivalence.NOT_SHOWN in shown
    assert len(shown) == 3


def test_equivalence_needs_two_pairs_and_a_margin() -> None:
    assert equivalence([], [], margin=0.01, confidence=0.95) is None
    assert equivalence([0.9], [0.9], margin=0.01, confidence=0.95) is None
    same = equivalence([0.9, 0.8], [0.9, 0.8], margin=0.0, confidence=0.95)
    assert same is not None
    assert same.shown is Equivalence.NOT_SHOWN  # nothing is smaller than no difference
    with pytest.raises(ValueError, match="zip"):
        equivalence([0.9, 0.8], [0.9], margin=0.01, confidence=0.95)
