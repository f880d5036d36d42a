"""Two releases on the same rows: against scipy's binomial test, published counts and exact enumeration."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from redan.errors import EvidenceError
from redan.evidence.paired import Change, Comparison, compare
from redan.evidence.statistics import holm, lower_bound, upper_bound

MANY = settings(max_examples=300, deadline=None, derandomize=True)
runs = st.dictionaries(st.integers(0, 40), st.booleans(), max_size=40)


@MANY
@given(runs, runs)
def test_every_row_is_counted_once(before: dict[int, bool], now: dict[int, bool]) -> None:
    found = compare(before.items(), now.items())
    shared = before.keys() & now.keys()
    assert found.rows == len(shared)
    assert found.lost == sum(before[i] and not now[i] for i in shared)
    assert found.won == sum(now[i] and not before[i] for i in shared)
    assert found.both == sum(before[i] and now[i] for i in shared)
    assert (found.only_before, found.only_now) == (len(before) - len(shared), len(now) - len(shared))
    back = compare(now.items(), before.items())
    assert (back.lost, back.won) == (found.won, found.lost)
    if shared:
        assert found.difference == pytest.approx(
            (sum(now[i] for i in shared) - sum(before[i] for i in shared)) / found.rows
        )


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (5, 0), (0, 5), (12, 4), (31, 18), (200, 150)])
def test_the_p_value_and_the_share_are_scipy_s(lost: int, won: int) -> None:
    found = Comparison(rows=1000, both=300, lost=lost, won=won)
    if lost + won == 0:
        assert (found.p_worse, found.share_lost(0.05)) == (1.0, (0.0, 1.0))
        return
    expected = binomtest(lost, lost + won, 0.5, alternative="greater")
    assert found.p_worse == pytest.approx(expected.pvalue)
    both = binomtest(lost, lost + won).proportion_ci(confidence_level=0.9, method="exact")
    assert found.share_lost(0.05) == pytest.approx((both.low, both.high))


def test_the_most_that_can_be_lost_has_half_the_risk_on_each_side() -> None:
    found = Comparison(rows=1000, both=700, lost=40, won=10)
    assert found.most_lost(0.1) == upper_bound(40, 1000, 0.05) - lower_bound(10, 1000, 0.05)


def test_what_is_shown_by_hand() -> None:
    same = Comparison(rows=1000, both=700, lost=0, won=0)
    assert same.change(0.05) is Change.INCONCLUSIVE  # up to 3.7 rows of 1000 may be lost
    assert same.change(0.05, margin=0.01) is Change.NOT_WORSE
    assert Comparison(rows=1000, both=700, lost=4, won=0).change(0.05) is Change.INCONCLUSIVE  # 1 / 16
    assert Comparison(rows=1000, both=700, lost=5, won=0).change(0.05) is Change.WORSE  # 1 / 32
    assert Comparison(rows=1000, both=700, lost=5, won=0).change(0.03) is Change.INCONCLUSIVE
    assert Comparison(rows=1000, both=700, lost=5, won=0).change(0.05, margin=0.02) is Change.NOT_WORSE
    assert Comparison(rows=1000, both=700, lost=5, won=60).change(0.05) is Change.NOT_WORSE
    assert Comparison(rows=0, both=0, lost=0, won=0).change(0.05) is Change.INCONCLUSIVE
    assert Comparison(rows=0, both=0, lost=0, won=0).difference is None


@pytest.mark.parametrize(("lost", "won"), [(0.1, 0.1), (0.02, 0.02), (0.3, 0.3), (0.15, 0.05), (0.0, 0.0)])
@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_a_wrong_word_is_rare(lost: float, won: float, margin: float) -> None:
    """Over all counts of 30 rows, exactly: "worse" where nothing is lost, "not worse" where the margin is, ≤ 20 %."""
    rows, level, said = 30, 0.2, dict.fromkeys(Change, 0.0)
    for b, c in itertools.product(range(rows + 1), repeat=2):
        if b + c <= rows:
            chance = binom.pmf(b, rows, lost) * binom.pmf(c, rows - b, won / (1 - lost))
            said[Comparison(rows=rows, both=0, lost=b, won=c).change(level, margin)] += float(chance)
    assert sum(said.values()) == pytest.approx(1)
    if lost <= won:
        assert said[Change.WORSE] <= level
    if lost - won >= margin:
        assert said[Change.NOT_WORSE] <= level
    if (lost, won, margin) == (0.3, 0.3, 0.0):
        assert said[Change.WORSE] > 0.1  # so that the test can fail


def test_several_attackers_share_the_risk() -> None:
    found = [Comparison(rows=1000, both=700, lost=lost, won=2) for lost in (12, 9, 3)]
    levels, worse = holm([each.p_worse for each in found], 0.05)
    assert worse == (True, False, False)
    assert [each.change(level) is Change.WORSE for each, level in zip(found, levels, strict=True)] == list(worse)


def test_an_id_that_comes_twice_is_refused() -> None:
    with pytest.raises(EvidenceError, match="row 7 comes twice"):
        compare([(7, True), (7, True)], [(7, True)])
    with pytest.raises(EvidenceError, match="row 7 comes twice"):
        compare([(7, True)], [(7, True), (8, True), (7, False)])
