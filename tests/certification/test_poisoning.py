"""Certificates against poisoning: every change within the radius is tried on tiny sets; votes are moved at will."""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from redan.certification import poisoning
from redan.certification.poisoning import (
    Change,
    Plan,
    Whole,
    certified_radius,
    certify,
    counts,
    partition,
    plurality,
    spread,
    spread_radius,
)
from redan.data.samples import Samples
from redan.errors import DataError, SettingError, TargetError, TrainingModeError
from redan.targets import FunctionTarget, Output, from_function

Row = tuple[float, int]
ASKED = np.array([[0.0], [2.0], [5.0]], dtype=np.float32)


def made(rows: list[Row]) -> Samples:
    return Samples(
        np.array([[value] for value, _ in rows], dtype=np.float32).reshape(-1, 1),
        np.array([label for _, label in rows], dtype=np.int64),
    )


@cache
def _nearest(rows: tuple[Row, ...]) -> FunctionTarget:
    """A model that answers the label of the nearest row, of equally near ones the smallest."""
    assert rows, "nothing is trained on no rows"

    def answer(x: NDArray[np.float32]) -> NDArray[np.int64]:
        return np.array([min((abs(float(a[0]) - value), label) for value, label in rows)[1] for a in x])

    return from_function(answer, classes=3, output=Output.LABELS)


def nearest(samples: Samples, seed: int) -> FunctionTarget:
    return _nearest(tuple(zip(samples.x[:, 0].tolist(), samples.y.tolist(), strict=True)))


def flips(rows: list[Row]) -> Iterator[list[Row]]:
    for at, (value, label) in enumerate(rows):
        for other in {0, 1, 2} - {label}:
            yield [*rows[:at], (value, other), *rows[at + 1 :]]


def changes(rows: list[Row]) -> Iterator[list[Row]]:
    """Every training set one change away: a row more (of 18), a row less, or another label."""
    yield from flips(rows)
    for at in range(len(rows)):
        yield [*rows[:at], *rows[at + 1 :]]
    for value, label in itertools.product((0.0, 1.0, 2.0, 4.0, 5.0, 6.0), range(3)):
        yield [(value, label), *rows]


# -- every change within the radius ------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [1, 2])
def test_no_one_change_of_rows_moves_a_certified_answer(copies: int) -> None:
    draw, seen = np.random.default_rng(0), 0
    for trial in range(4):
        rows = [(float(value), int(value > 3) if draw.random() < 0.9 else 2) for value in draw.integers(0, 7, 14)]
        plan = Plan(parts=3, copies=copies)
        clean = certify(nearest, made(rows), ASKED, plan, classes=3, seed=trial)
        sure = clean.radius >= 1
        seen += int(sure.sum())
        for poisoned in changes(rows):
            after = certify(nearest, made(poisoned), ASKED, plan, classes=3, seed=trial).prediction
            np.testing.assert_array_equal(after[sure], clean.prediction[sure])
    assert seen >= 3


@pytest.mark.slow
def test_no_two_changes_of_rows_move_an_answer_certified_for_two() -> None:
    rows = [(value / 3, int(value > 14)) for value in range(17)]
    clean = certify(nearest, made(rows), ASKED, Plan(parts=5), classes=3, seed=1)
    sure = clean.radius >= 2
    assert sure.any()
    for once in itertools.islice(changes(rows), 0, None, 3):
        for twice in itertools.islice(changes(once), 0, None, 3):
            after = certify(nearest, made(twice), ASKED, Plan(parts=5), classes=3, seed=1).prediction
            np.testing.assert_array_equal(after[sure], clean.prediction[sure])


def test_no_two_flips_move_an_answer_certified_for_two_flips() -> None:
    rows = [(float(value), int(value > 4)) for value in range(8)]
    plan = Plan(parts=5, against=Change.LABELS)
    clean = certify(nearest, made(rows), ASKED, plan, classes=3)
    sure = clean.radius >= 2
    assert sure.any()
    assert clean.against is Change.LABELS
    for once in flips(rows):
        for twice in flips(once):
            after = certify(nearest, made(twice), ASKED, plan, classes=3).prediction
            np.testing.assert_array_equal(after[sure], clean.prediction[sure])


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_one_row_more_than_the_radius_can_move_the_answer(asked: int) -> None:
    rows = [(value / 4 + 0.1, int(value > 12)) for value in range(24)]
    plan, x = Plan(parts=5), ASKED[asked : asked + 1]
    clean = certify(nearest, made(rows), x, plan, classes=3)
    first = int(clean.prediction[0])
    to = spread(plan, 0)
    count = counts(clean.votes, 3)[0]
    other = max((c for c in range(3) if c != first), key=lambda c: (count[c], -c))
    poison: list[Row] = []
    for model in np.flatnonzero(clean.votes[0] == first)[: int(clean.radius[0]) + 1]:
        for step in range(1, 1000):  # a row that is nearer than all others, and falls to this model
            row = (float(x[0, 0]) + step * 1e-5, other)
            if model in to[partition(made([row]), plan.models)[0]]:
                poison.append(row)
                break
    assert len(poison) == clean.radius[0] + 1
    fewer = certify(nearest, made([*rows, *poison[1:]]), x, plan, classes=3)
    assert fewer.prediction[0] == first
    assert certify(nearest, made([*rows, *poison]), x, plan, classes=3).prediction[0] != first


# -- votes moved at will -------------------------------------------------------------------------------------------


def _moved(count: list[int], many: int) -> Iterator[list[int]]:
    """All counts that are reached when at most so many of the votes change."""
    total = sum(count)
    for other in itertools.product(range(total + 1), repeat=len(count)):
        lost = sum(max(0, a - b) for a, b in zip(count, other, strict=True))
        if sum(other) == total and lost <= many:
            yield list(other)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=4).filter(lambda count: 0 < sum(count) <= 9))
def test_as_many_votes_as_the_radius_change_nothing_and_one_more_can(count: list[int]) -> None:
    first, radius = plurality(np.array([count]))[0], int(certified_radius(np.array([count]))[0])
    assert all(plurality(np.array([moved]))[0] == first for moved in _moved(count, radius))
    assert any(plurality(np.array([moved]))[0] != first for moved in _moved(count, radius + 1))


@st.composite
def _spread_votes(draw: st.DrawFn) -> tuple[list[int], int, Whole]:
    plan = Plan(parts=draw(st.integers(1, 4)), copies=draw(st.integers(1, 2)))
    votes = draw(st.lists(st.integers(0, 2), min_size=plan.models, max_size=plan.models))
    return votes, 3, spread(plan, draw(st.integers(0, 99)))


@settings(max_examples=60)
@given(_spread_votes())
def test_votes_of_all_models_of_that_many_pieces_change_nothing(drawn: tuple[list[int], int, Whole]) -> None:
    votes, classes, to = drawn
    first = plurality(counts(np.array([votes]), classes))[0]
    radius = int(spread_radius(np.array([votes]), classes, to)[0])
    assert radius < len(to)
    for poisoned in itertools.combinations(range(len(to)), radius):
        for other in range(classes):  # no vote does more for a class than a vote for it
            after = np.array([votes])
            after[0, to[list(poisoned)].reshape(-1)] = other
            assert other == first or plurality(counts(after, classes))[0] == first


@settings(max_examples=100)
@given(_spread_votes())
def test_the_radius_is_the_one_of_the_papers_second_theorem(drawn: tuple[list[int], int, Whole]) -> None:
    votes, classes, to = drawn
    had = [votes.count(c) for c in range(classes)]
    first = had.index(max(had))
    radii = []
    for other in set(range(classes)) - {first}:
        sums = sorted((sum(1 + (votes[m] == first) - (votes[m] == other) for m in piece) for piece in to), reverse=True)
        needed = had[first] - had[other] - (other < first)
        radii.append(max(r for r in range(len(to) + 1) if sum(sums[:r]) <= needed))
    found = spread_radius(np.array([votes]), classes, to)[0]
    assert found == min(radii)
    if to.shape[1] == 1:
        assert found == certified_radius(np.array([had]))[0]


def test_finite_aggregation_proves_more_where_an_attackers_rows_overlap() -> None:
    """Half of the models err: with two copies, two poisoned pieces can only take the models that they share once."""
    plan = Plan(parts=6, copies=2)
    votes = np.zeros((1, plan.models), dtype=np.int64)
    to = spread(plan, 0)
    votes[0, to[0]] = 1  # one piece is wrong already
    alone = certified_radius(counts(votes, 2)) // plan.copies  # every piece may take two models that vote right
    assert spread_radius(votes, 2, to)[0] >= alone[0]
    assert spread_radius(votes, 2, to)[0] == 2


# -- pieces --------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.lists(st.floats(-9, 9, width=32), min_size=2, max_size=12), st.integers(1, 7))
def test_a_rows_piece_does_not_depend_on_other_rows_or_labels(values: list[float], pieces: int) -> None:
    samples = made([(value, 0) for value in values])
    found = partition(samples, pieces)
    assert ((found >= 0) & (found < pieces)).all()
    np.testing.assert_array_equal(partition(made([(v, 1) for v in values[1:]]), pieces), found[1:])
    np.testing.assert_array_equal(partition(made([(0.125, 2), *((v, 2) for v in values)]), pieces)[1:], found)
    np.testing.assert_array_equal(partition(made([(v, 0) for v in reversed(values)]), pieces), found[::-1])


def test_pieces_are_the_same_on_every_machine() -> None:
    rows = made([(float(value), 0) for value in range(8)])
    digests = [hashlib.blake2b(struct.pack("<f", value), digest_size=16).digest() for value in range(8)]
    assert partition(rows, 5).tolist() == [int.from_bytes(digest[:8], "little") % 5 for digest in digests]
    assert partition(rows, 5).tolist() == [4, 4, 2, 0, 2, 1, 2, 2]
    swapped = Samples(rows.x.astype(">f4"), rows.y)
    assert partition(swapped, 5).tolist() == partition(rows, 5).tolist()


@settings(max_examples=40)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.integers(1, 6))
def test_pieces_by_order_are_as_large_as_each_other_and_know_no_labels(values: list[int], pieces: int) -> None:
    found = partition(made([(float(value), 0) for value in values]), pieces, Change.LABELS)
    again = partition(made([(float(value), 1) for value in reversed(values)]), pieces, Change.LABELS)
    np.testing.assert_array_equal(again[::-1], found)
    assume(len(set(values)) == len(values))
    sizes = np.bincount(found, minlength=pieces)
    assert sizes.max() - sizes.min() <= 1


def test_each_piece_and_each_model_has_as_many_of_the_other() -> None:
    to = spread(Plan(parts=5, copies=3), seed=4)
    assert to.shape == (15, 3)
    assert all(len(set(models)) == 3 for models in to.tolist())
    assert np.bincount(to.reshape(-1)).tolist() == [3] * 15


def test_a_model_gets_the_same_rows_in_whatever_order_they_come() -> None:
    samples = Samples(np.arange(12.0).reshape(12, 1), np.arange(12) % 3, tuple("abcdefghijkl"), ("s",) * 12, "train")
    back = Samples(samples.x[::-1], samples.y[::-1], tuple("lkjihgfedcba"), ("s",) * 12, "train")
    plan = Plan(parts=2, copies=2)
    to, many = spread(plan, 0), 0
    for model in range(plan.models):
        one = poisoning.given(samples, partition(samples, plan.models), to, model)
        two = poisoning.given(back, partition(back, plan.models), to, model)
        np.testing.assert_array_equal(one.x, two.x)
        np.testing.assert_array_equal(one.y, two.y)
        assert one.ids == two.ids
        assert one.split == "train"
        many += len(one)
    assert many == 12 * plan.copies


# -- training ------------------------------------------------------------------------------------------------------


def test_votes_that_were_kept_are_not_found_again() -> None:
    rows, plan = made([(float(value), int(value > 3)) for value in range(9)]), Plan(parts=4, copies=2)
    kept: dict[int, Whole] = {}
    whole = certify(nearest, rows, ASKED, plan, classes=3, keep=kept.__setitem__)
    assert sorted(kept) == list(range(8))
    trained: list[int] = []

    def counted(samples: Samples, seed: int) -> FunctionTarget:
        trained.append(seed)
        return nearest(samples, seed)

    first = {model: kept[model] for model in (0, 2, 3, 4, 6)}
    more: dict[int, Whole] = {}
    again = certify(counted, rows, ASKED, plan, classes=3, have=first, keep=more.__setitem__, workers=2)
    assert sorted(more) == [1, 5, 7]
    assert set(trained) <= {1, 5, 7}
    np.testing.assert_array_equal(again.votes, whole.votes)
    np.testing.assert_array_equal(again.radius, whole.radius)


def test_modules_vote_and_certified_rows_are_right_rows() -> None:
    def fit(samples: Samples, seed: int) -> nn.Module:
        torch_rows = torch.from_numpy(samples.x)
        layer = nn.Linear(1, 2)
        center = [torch_rows[samples.y == c].mean() if (samples.y == c).any() else torch.tensor(9.0) for c in (0, 1)]
        with torch.no_grad():
            layer.weight.copy_(torch.stack(center)[:, None])
            layer.bias.copy_(-(torch.stack(center) ** 2) / 2)
        return layer.eval()

    rows = made([(value / 8, int(value > 24)) for value in range(48)])
    found = certify(fit, rows, ASKED, Plan(parts=6), classes=2, workers=2)
    assert found.prediction.tolist() == [0, 0, 1]
    y = np.array([0, 1, 1])
    assert found.holds(y, 0).tolist() == [True, False, True]
    assert found.holds(y, int(found.radius[0])).tolist()[0]
    assert not found.holds(y, int(found.radius[0]) + 1)[0]


def test_what_cannot_be_certified_is_refused() -> None:
    rows, plan = made([(1.0, 0), (2.0, 1)]), Plan(parts=2)
    with pytest.raises(SettingError, match="parts and copies"):
        Plan(parts=0)
    with pytest.raises(SettingError, match="2 classes"):
        certify(nearest, rows, ASKED, plan, classes=1)
    with pytest.raises(SettingError, match="2 classes"):
        certified_radius(np.array([[3]]))
    with pytest.raises(SettingError, match="1 piece"):
        partition(rows, 0)
    with pytest.raises(SettingError, match="another run"):
        certify(nearest, rows, ASKED, plan, classes=3, have={0: np.array([0, 1])})
    with pytest.raises(SettingError, match="another run"):
        certify(nearest, rows, ASKED, plan, classes=3, have={2: np.array([0, 1, 0])})
    with pytest.raises(DataError, match="hash"):
        partition(Samples(np.array(["a", "bc"]), np.array([0, 1])), 2)
    with pytest.raises(TrainingModeError):
        certify(lambda samples, seed: nn.Linear(1, 3), rows, ASKED, plan, classes=3)
    blank = from_function(lambda x: np.full((len(x), 3), np.nan), classes=3, output=Output.LOGITS)
    with pytest.raises(TargetError):
        certify(lambda samples, seed: blank, rows, ASKED, plan, classes=3)
    assert not len(partition(made([]), 3))


def test_a_model_without_rows_is_not_trained_and_votes_for_the_first_class() -> None:
    found = certify(nearest, made([(1.0, 2)]), ASKED, Plan(parts=3), classes=3)
    assert counts(found.votes, 3).tolist() == [[2, 0, 1]] * 3
    assert found.prediction.tolist() == [0, 0, 0]


def test_a_model_that_could_not_be_trained_votes_for_nobody() -> None:
    """Its vote is one that an attacker may win for another class, and none that they can take away."""
    plan = Plan(parts=6)
    lost = poisoning.proven(np.array([[1, 1, 1, 0, -1, -1]]), plan, classes=2)
    assert (lost.prediction.tolist(), lost.radius.tolist()) == ([1], [0])  # 2 against 2 is class 0
    kept = poisoning.proven(np.array([[1, 1, 1, 1, -1, -1]]), plan, classes=2)
    assert kept.radius.tolist() == [1]
    every = [
        np.array([[*(1 if i not in turned else 0 for i in range(4)), *(-1 if i not in turned else 0 for i in (4, 5))]])
        for turned in ({0}, {4})
    ]
    assert all(plurality(counts(votes, 2)).tolist() == [1] for votes in every)
