"""Suspicions become rates of false alarms that hold, and ranks where nothing is known to be clean."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redan.data.samples import Samples
from redan.defenses.measures import area_under_curve, false_discovery_proportion, recall_at
from redan.defenses.suspicion import (
    Numbers,
    Procedure,
    Suspects,
    calibrated,
    discoveries,
    suspicion,
    trusted_rows_needed,
)
from redan.errors import DataError, SettingError


@dataclass(frozen=True, slots=True)
class Column:
    """A detector that reads the first feature."""

    def __call__(self, suspects: Suspects, *, seed: int) -> Numbers:
        return suspects.known_features()[:, 0]


def suspects(scores: Numbers, *, y: np.ndarray | None = None, trusted: np.ndarray | None = None) -> Suspects:
    labels = np.zeros(len(scores), dtype=np.int64) if y is None else y
    return Suspects(samples=Samples(scores[:, None], labels), features=scores[:, None], trusted=trusted)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("n", [1, 19, 60])
def test_a_clean_row_is_rarely_suspicious(n: int, whole: bool) -> None:
    """P(p ≤ t) ≤ t over fresh trusted rows, with ties too; exactly floor(t (n + 1)) / (n + 1) where there are none."""
    draw = np.random.default_rng(n)
    runs = 20_000
    scores = draw.integers(0, 5, (runs, n + 1)).astype(float) if whole else draw.standard_normal((runs, n + 1))
    p = np.array([calibrated(row[:1], row[1:])[0] for row in scores])
    for t in (0.05, 0.1, 0.2, 0.5, 0.9):
        rate, error = (p <= t).mean(), sqrt(t * (1 - t) / runs)
        assert rate <= t + 4 * error
        if not whole:
            assert abs(rate - int(t * (n + 1) + 1e-9) / (n + 1)) <= 4 * error


@given(st.lists(st.integers(-3, 3), max_size=30), st.lists(st.integers(-3, 3), min_size=1, max_size=10))
def test_p_values_count_trusted_rows(trusted: list[int], rows: list[int]) -> None:
    p = calibrated(np.array(rows, dtype=float), np.array(trusted, dtype=float))
    assert p.tolist() == [(1 + sum(t >= row for t in trusted)) / (1 + len(trusted)) for row in rows]


@given(st.lists(st.sampled_from([0.001, 0.01, 0.03, 0.2, 0.6, 1.0]), min_size=1, max_size=25), st.randoms())
def test_discoveries_by_their_definition(values: list[float], random: object) -> None:
    """The largest k with k p-values at most q k / m, one by one; more q finds no less; the order does not matter."""
    p, m, q = np.array(values), len(values), 0.1
    k = max((k for k in range(m + 1) if (p <= q * k / m).sum() >= k), default=0)
    found = discoveries(p, q)
    assert found.sum() == (p <= q * k / m).sum() if k else not found.any()
    assert not (found & ~discoveries(p, 0.2)).any()
    assert not (discoveries(p, q, Procedure.BENJAMINI_YEKUTIELI) & ~found).any()
    order = np.random.default_rng(0).permutation(m)
    assert np.array_equal(discoveries(p[order], q), found[order])
    with_untested = discoveries(np.append(p, np.nan), q)
    assert np.array_equal(with_untested, np.append(found, False))


@pytest.mark.parametrize("procedure", list(Procedure))
@pytest.mark.parametrize("by_class", [False, True])
def test_the_rate_of_false_discoveries_holds(procedure: Procedure, by_class: bool) -> None:
    """Mean false-discovery proportion over 200 simulated sets ≤ q + 2 standard errors, and there is power.

    Two classes, whose clean scores differ in scale by class; 10 % of the tested rows are poison, all in one class.
    """
    trusted, tested, poison = 400, 600, 60
    if procedure is Procedure.BENJAMINI_YEKUTIELI:
        trusted *= 10  # its thresholds are seven times smaller, so p-values must be
    wrong: dict[float, list[float]] = {0.05: [], 0.1: [], 0.2: []}
    power: dict[float, list[float]] = {0.05: [], 0.1: [], 0.2: []}
    for run in range(200):
        draw = np.random.default_rng(run)
        y = draw.integers(0, 2, trusted + tested)
        known = np.arange(trusted + tested) < trusted
        bad = np.zeros(len(y), dtype=bool)
        scores = draw.standard_normal(len(y)) * (1 + y)
        if not by_class:
            scores /= 1 + y
        chosen = trusted + np.flatnonzero(y[trusted:] == 0)[:poison]
        bad[chosen] = True
        scores[chosen] += 3.5
        said = suspicion(suspects(scores, y=y, trusted=known), Column(), by_class=by_class)
        for q in wrong:
            found = np.zeros(len(y), dtype=bool)
            found[said.poison(q, procedure)] = True
            assert not (found & known).any()
            wrong[q].append(false_discovery_proportion(found, bad))
            power[q].append(float(found[bad].mean()))
    for q, values in wrong.items():
        assert np.mean(values) <= q + 2 * np.std(values) / sqrt(len(values)), (q, procedure)
    cautious = procedure is Procedure.BENJAMINI_YEKUTIELI
    assert np.mean(power[0.1]) > (0.4 if cautious else 0.7)
    assert np.mean(power[0.2]) > (0.5 if cautious else 0.85)


def test_an_uncalibrated_threshold_would_not_hold() -> None:
    """The same simulation catches p-values that are not held to trusted rows: ranks of the tested rows alone."""
    wrong = []
    for run in range(50):
        scores = np.random.default_rng(run).standard_normal(600)
        p = calibrated(scores, scores - 1.0)
        wrong.append(false_discovery_proportion(discoveries(p, 0.1), np.zeros(600, dtype=bool)))
    assert np.mean(wrong) > 0.2


def test_scores_fitted_to_the_tested_rows_hold_too() -> None:
    """A detector that learns its direction from all rows alike keeps clean and trusted rows exchangeable."""
    wrong = []
    for run in range(200):
        draw = np.random.default_rng(run)
        features = draw.standard_normal((300, 30))
        known = np.arange(300) < 150
        features[-15:, 0] += 4
        bad = np.arange(300) >= 285
        given_rows = Suspects(samples=Samples(features, np.zeros(300, int)), features=features, trusted=known)
        found = np.zeros(300, dtype=bool)
        found[suspicion(given_rows, TopDirection()).poison(0.1)] = True
        wrong.append(false_discovery_proportion(found, bad))
    assert np.mean(wrong) <= 0.1 + 2 * np.std(wrong) / sqrt(200)


@dataclass(frozen=True, slots=True)
class TopDirection:
    def __call__(self, suspects: Suspects, *, seed: int) -> Numbers:
        centered = suspects.known_features() - suspects.known_features().mean(0)
        _, vectors = np.linalg.eigh(centered.T @ centered)
        return np.asarray((centered @ vectors[:, -1]) ** 2)


def test_without_trusted_rows_there_are_ranks_and_it_says_so() -> None:
    for trusted in (None, np.zeros(3, dtype=bool)):
        said = suspicion(suspects(np.array([1.0, 3.0, 2.0]), trusted=trusted), Column())
        assert said.p is None
        assert "ranks alone" in said.notes[0]
        assert said.ranks.tolist() == [1, 2, 0]
        with pytest.raises(DataError, match="no rate of false alarms"):
            said.poison(0.1)


def test_a_class_with_few_trusted_rows_is_named() -> None:
    y = np.array([0] * 40 + [1] * 10)
    known = np.zeros(50, dtype=bool)
    known[:20] = known[40:43] = True
    scores = np.r_[np.zeros(40), np.full(10, 9.0)]
    said = suspicion(suspects(scores, y=y, trusted=known), Column())
    assert len(said.notes) == 1
    assert said.notes[0].startswith("In class 1 3 trusted row(s) stand beside 7 tested ones")
    assert said.p is not None
    assert np.isnan(said.p[known]).all()
    assert (said.p[~known] == 1).all()
    assert len(said.poison(0.1)) == 0
    pooled = suspicion(suspects(scores, y=y, trusted=known), Column(), by_class=False)
    assert pooled.p is not None
    assert pooled.p[45] == 4 / 24


def test_trusted_rows_needed_is_where_discoveries_begin() -> None:
    for tested, poison, q in ((100, 10, 0.1), (300, 7, 0.05), (50, 50, 0.2), (40, 30, 0.5)):
        n = trusted_rows_needed(tested, poison, q)
        for trusted, any_found in ((n, True), (n - 1, False)):
            if trusted < 0:
                continue
            p = np.r_[np.full(poison, 1 / (trusted + 1)), np.ones(tested - poison)]
            assert discoveries(p, q).any() == any_found, (tested, poison, q)


def test_what_does_not_fit_is_refused() -> None:
    rows = Samples(np.zeros((3, 2)), np.zeros(3, int))
    for wrong in ({"features": np.zeros((2, 2))}, {"features": np.zeros(3)}, {"losses": np.zeros((4, 1))}):
        with pytest.raises(DataError, match="do not fit 3 samples"):
            Suspects(samples=rows, **wrong)
    with pytest.raises(DataError, match="not finite"):
        Suspects(samples=rows, features=np.full((3, 2), np.nan))
    with pytest.raises(DataError, match="bool array"):
        Suspects(samples=rows, trusted=np.zeros(3, int))
    with pytest.raises(DataError, match="looks at features"):
        suspicion(Suspects(samples=rows), Column())
    with pytest.raises(DataError, match="looks at losses"):
        Suspects(samples=rows).known_losses()
    for q in (0.0, 1.0, -1.0):
        with pytest.raises(SettingError, match="between 0 and 1"):
            discoveries(np.ones(2), q)


def test_measures() -> None:
    scores, bad = np.array([1.0, 2.0, 2.0, 4.0]), np.array([False, False, True, True])
    assert area_under_curve(scores, bad) == 0.875
    assert recall_at(scores, bad, 0.0) == 0.5
    assert recall_at(scores, bad, 0.5) == 1.0
    assert recall_at(-scores, bad, 1.0) == 1.0
    with pytest.raises(DataError, match="both kinds"):
        area_under_curve(scores, np.ones(4, dtype=bool))
