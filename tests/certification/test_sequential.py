"""The sequential test: its error by exact sums and by simulation, its power beside the fixed-size test, its mutants."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, norm

from redan.certification import sequential
from redan.certification.sequential import SequentialTest, Walk, error, sequential_test, walk
from redan.errors import SettingError
from redan.evidence.statistics import lower_bound

RATES = [float(norm.cdf(z)) for z in (0, 0.5, 1, 2)]


def run(
    test: SequentialTest, misses: NDArray[np.int64], *, patient: bool = False
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which walks are shown, and the draws that each is asked; misses (walks, looks), in all by each look."""
    shown, asked = np.zeros(len(misses), dtype=bool), np.zeros(len(misses), dtype=np.int64)
    alive = np.ones(len(misses), dtype=bool)
    for at, look in enumerate(test.looks):
        asked[alive] = look
        now = alive & (misses[:, at] <= test.shown[at])
        shown |= now
        alive &= ~now
        if not patient:
            alive &= misses[:, at] < test.given_up[at]
    return shown, asked


def walks(test: SequentialTest, rate: float, count: int, seed: int) -> NDArray[np.int64]:
    steps = np.diff(test.looks, prepend=0)
    drawn: NDArray[np.int64] = np.random.default_rng(seed).binomial(steps, 1 - rate, (count, len(steps)))
    return drawn.cumsum(1)


# -- the error ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [*RATES, 0.3, 0.99999])
@pytest.mark.parametrize("most", [20, 1_000, 10_000])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_a_row_of_the_rate_to_be_beaten_is_shown_with_a_chance_of_alpha_at_the_most(
    rate: float, most: int, alpha: float
) -> None:
    test = sequential_test(rate, most, alpha)
    assert error(test) <= alpha
    assert walk(test, rate - 0.01, patient=True).shown <= error(test)
    assert walk(test, rate).shown <= error(test)


@pytest.mark.parametrize("rate", RATES)
def test_little_of_alpha_is_left_unused(rate: float) -> None:
    assert error(sequential_test(rate, 100_000, 0.001)) > 0.00095


@settings(max_examples=15, deadline=None)
@given(rate=st.floats(0.05, 0.9999), most=st.integers(1, 2_000), alpha=st.floats(0.0005, 0.2))
def test_the_error_holds_for_any_rate(rate: float, most: int, alpha: float) -> None:
    test = sequential_test(rate, most, alpha)
    assert error(test) <= alpha
    assert (test.given_up > test.shown).all()
    assert (np.diff(test.looks) > 0).all()
    assert not len(test.looks) or (test.looks[-1] == most and test.given_up[-1] == test.shown[-1] + 1)


@pytest.mark.parametrize(("rate", "alpha"), [(0.5, 0.05), (0.7, 0.1), (0.3, 0.2)])
def test_sums_agree_with_every_walk_listed(rate: float, alpha: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequential, "_SOONEST", 2)
    test = sequential_test.__wrapped__(rate, 14, alpha)
    missed = np.array(list(itertools.product((0, 1), repeat=14)), dtype=np.int64)
    misses = missed.cumsum(1)[:, test.looks - 1]
    for true, patient in itertools.product((rate, 0.8), (True, False)):
        chance = np.prod(np.where(missed == 1, 1 - true, true), axis=1)
        shown = run(test, misses, patient=patient)[0]
        assert walk(test, true, patient=patient).shown == pytest.approx(float(chance[shown].sum()), abs=1e-12)
    assert walk(test, 0.8).draws == pytest.approx(float(chance @ run(test, misses)[1]), abs=1e-9)


def covered(test: SequentialTest, count: int, seed: int = 0) -> bool:
    """Whether walks of the rate to be beaten are shown no more often than alpha allows, up to a chance of 1e-6."""
    shown = int(run(test, walks(test, test.rate, count, seed), patient=True)[0].sum())
    return shown <= int(binom.isf(1e-6, count, test.alpha))


def peeking(test: SequentialTest) -> SequentialTest:
    """A mutant: the bound for a fixed number of draws, looked at again and again."""
    most = [sequential._fewest(test.rate, int(look), test.alpha) for look in test.looks]
    return replace(test, shown=np.array(most))


def doubled(test: SequentialTest) -> SequentialTest:
    """A mutant: each side of a two-sided interval is given all of what both may miss."""
    return replace(sequential_test(test.rate, int(test.looks[-1]), 2 * test.alpha), alpha=test.alpha)


@pytest.mark.parametrize("rate", RATES)
def test_coverage_in_simulation(rate: float) -> None:
    assert covered(sequential_test(rate, 10_000, 0.01), 20_000)


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("most", [10_000, 100_000])
def test_coverage_in_many_simulations(rate: float, most: int) -> None:
    test = sequential_test(rate, most, 0.001)
    count = 400_000
    shown = int(run(test, walks(test, rate, count, 1), patient=True)[0].sum())
    assert binom.ppf(1e-6, count, error(test)) <= shown <= binom.isf(1e-6, count, error(test))
    assert shown <= binom.isf(1e-6, count, 0.001)


@pytest.mark.parametrize("mutant", [peeking, doubled])
def test_coverage_tells_mutants(mutant: Callable[[SequentialTest], SequentialTest]) -> None:
    wrong = mutant(sequential_test(0.75, 10_000, 0.01))
    assert not covered(wrong, 20_000)
    assert error(wrong) > 0.01


def test_a_test_that_is_too_careful_is_told_by_what_it_leaves() -> None:
    half = replace(sequential_test(0.75, 10_000, 0.0005), alpha=0.001)
    assert covered(half, 20_000)
    assert error(half) < 0.00051


# -- the power, and what it costs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("most", [1_000, 10_000, 100_000])
def test_the_fixed_size_test_is_that_of_clopper_and_pearson(rate: float, most: int) -> None:
    fixed = sequential_test(rate, most, 0.001).fixed
    if fixed >= 0:
        assert lower_bound(most - fixed, most, 0.001) >= rate
    assert lower_bound(most - fixed - 1, most, 0.001) < rate


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("most", [10_000, 100_000])
def test_the_power_is_nearly_that_of_the_fixed_size_test(rate: float, most: int) -> None:
    test = sequential_test(rate, most, 0.001)
    width = ((1 - rate) * rate / most) ** 0.5
    for over in (2.0, 3.0, 4.0, 5.0, 6.0):
        true = rate + over * width
        assert walk(test, true).shown > float(binom.cdf(test.fixed, most, 1 - true)) - 0.07


@pytest.mark.parametrize("most", [10_000, 100_000])
def test_of_rows_that_the_fixed_size_test_just_passes_few_are_given_up(most: int) -> None:
    test = sequential_test(0.8, most, 0.001)
    draw, count, before = np.random.default_rng(0), 5_000, 0
    misses, gone = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=bool)
    for look, most_misses in zip(test.looks[:-1].tolist(), test.given_up[:-1].tolist(), strict=True):
        left = test.fixed - misses  # of the misses of a row at the edge, which come in any order
        misses += draw.hypergeometric(left, most - before - left, look - before)
        gone |= misses >= most_misses
        before = look
    assert 0 < int(gone.sum()) <= binom.isf(1e-6, count, 0.01)


def test_rows_far_from_doubt_are_decided_at_once() -> None:
    test = sequential_test(float(norm.cdf(1)), 100_000, 0.001)
    assert walk(test, 0.99).draws < 100
    assert walk(test, 0.99).shown > 0.999999
    assert walk(test, 0.6).draws < 100
    assert walk(test, 0.6).shown < 1e-9


def test_the_draws_asked_are_those_of_a_simulation() -> None:
    test = sequential_test(0.8, 10_000, 0.001)
    shown, asked = run(test, walks(test, 0.83, 5_000, 3))
    exact = walk(test, 0.83)
    assert float(asked.mean()) == pytest.approx(exact.draws, rel=0.05)
    assert float(shown.mean()) == pytest.approx(exact.shown, abs=0.02)


# -- edges ---------------------------------------------------------------------------------------------------------


def test_a_rate_that_no_draws_can_show_is_not_asked_about() -> None:
    for rate in (1.0, 0.9999):
        test = sequential_test(rate, 1_000, 0.001)
        assert test.fixed == -1
        assert walk(test, 1.0) == Walk(0.0, 0.0)


@pytest.mark.parametrize(("rate", "most", "alpha"), [(0.0, 10, 0.1), (1.1, 10, 0.1), (0.5, 0, 0.1), (0.5, 10, 0.0)])
def test_impossible_settings_are_refused(rate: float, most: int, alpha: float) -> None:
    with pytest.raises(SettingError):
        sequential_test(rate, most, alpha)
