"""Gradient poisoning: learners at their optimum, gradients against differences, rows against all rows of a grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from redan.data.samples import Samples
from redan.errors import DataError, SettingError
from redan.poisoning.budget import Budget, held_to
from redan.poisoning.gradient_poisoning import GradientPoisoning
from redan.poisoning.linear_learners import Learner, Smooth, SupportVectors, logistic_regression, ridge
from redan.samples import fashion_mnist

LEARNERS: list[Learner] = [SupportVectors(), logistic_regression(), ridge()]
NAMES = ["svm", "logistic", "ridge"]
each_learner = pytest.mark.parametrize("learner", LEARNERS, ids=NAMES)


def clouds(count: int, columns: int, seed: int, shift: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    y = np.where(np.arange(count) % 2 > 0, 1.0, -1.0)
    x = draw.normal(size=(count, columns))
    x[:, 0] += shift * y
    return x, y


@pytest.mark.parametrize(("count", "columns"), [(40, 2), (40, 60), (150, 20)])
@pytest.mark.parametrize("c", [0.1, 1.0, 10.0])
def test_the_support_vector_machine_is_at_its_optimum(count: int, columns: int, c: float) -> None:
    """The dual is feasible, and its value is the primal's: no other weights are better."""
    x, y = clouds(count, columns, 0)
    x[1] = x[0]  # the same row under both labels
    found = SupportVectors(c=c).fit(x, y)
    assert found.duals.min() >= 0
    assert found.duals.max() <= c
    assert found.duals @ y == pytest.approx(0, abs=1e-9)
    half = 0.5 * found.weights @ found.weights
    primal = half + c * SupportVectors().losses(found, x, y).sum()
    np.testing.assert_allclose(found.weights, x.T @ (found.duals * y), atol=1e-12)
    assert primal == pytest.approx(found.duals.sum() - half, rel=1e-5)
    moved = x.copy()
    moved[-1] += 0.3
    warm, cold = SupportVectors(c=c).fit(moved, y, found), SupportVectors(c=c).fit(moved, y)
    np.testing.assert_allclose(warm.weights, cold.weights, atol=1e-4)


@pytest.mark.parametrize("learner", [logistic_regression(0.5), ridge(0.5)], ids=NAMES[1:])
@pytest.mark.parametrize(("count", "columns"), [(40, 3), (12, 20)])
def test_smooth_learners_are_at_their_optimum(learner: Smooth, count: int, columns: int) -> None:
    x, y = clouds(count, columns, 1)
    found = learner.fit(x, y)
    first = learner.pointwise(found.answers(x), y).first
    np.testing.assert_allclose(x.T @ first + 0.5 * found.weights, 0, atol=1e-9)
    assert first.sum() == pytest.approx(0, abs=1e-9)
    assert np.allclose(learner.fit(x, y, found).weights, found.weights)


@pytest.mark.parametrize("learner", [SupportVectors(tolerance=1e-10), *LEARNERS[1:]], ids=NAMES)
@pytest.mark.parametrize(("count", "columns"), [(40, 3), (12, 20)])
def test_slopes_are_what_retraining_shows(learner: Learner, count: int, columns: int) -> None:
    (x, y), (held_x, held_y) = clouds(count, columns, 2), clouds(60, columns, 3)
    fitted, h, steepest = learner.fit(x, y), 1e-5, []

    def loss(at: int, column: int, by: float) -> float:
        moved = x.copy()
        moved[at, column] += by
        return float(learner.losses(learner.fit(moved, y), held_x, held_y).mean())

    for at in range(12):
        told = learner.slope(fitted, x, y, at, held_x, held_y)
        shown = [(loss(at, k, h) - loss(at, k, -h)) / (2 * h) for k in range(3)]
        np.testing.assert_allclose(told[:3], shown, atol=1e-5)
        steepest.append(np.abs(told[:3]).max())
    assert max(steepest) > 1e-3  # they are not all of nothing


@each_learner
@pytest.mark.parametrize("seed", [0, 10])
def test_one_row_comes_near_the_worst_of_a_grid(learner: Learner, seed: int) -> None:
    """Biggio et al. 2012, Figure 1: two Gaussian clouds in [-5, 5]², where one row can be put everywhere."""
    (x, y), (held_x, held_y) = clouds(30, 2, seed, 1.5), clouds(200, 2, seed + 1, 1.5)
    x, held_x = np.clip(0.9 * x, -5, 5), np.clip(0.9 * held_x, -5, 5)
    clean, validation = Samples(x, y.astype(np.int64)), Samples(held_x, held_y.astype(np.int64))
    budget = Budget(share=1 / 30, may_change_labels=True)
    attack = GradientPoisoning(
        learner=learner, validation=validation, attacked=1, steps=40, step=4.0, starts=8, bounds=(-5.0, 5.0)
    )
    made = attack(clean, budget, seed=0)
    held_to(made, clean, budget)
    told = np.append(y, -1.0)

    def loss(row: Any) -> float:
        return float(learner.losses(learner.fit(np.vstack([x, row]), told), held_x, held_y).mean())

    worst = max(loss([a, b]) for a in np.linspace(-5, 5, 11) for b in np.linspace(-5, 5, 11))
    reached = loss(made.samples.x[-1])
    before = float(learner.losses(learner.fit(x, y), held_x, held_y).mean())
    assert worst > 1.2 * before
    assert reached >= 0.95 * worst


def garments(attacked: int, other: int) -> tuple[Samples, Samples, Samples]:
    """100 training rows, 200 for validation, 400 for the test, 14×14 pixels."""
    x, y = fashion_mnist("train")
    keep = np.isin(y, (attacked, other))
    x, y = x[keep][:, :, ::2, ::2], y[keep]
    return tuple(Samples(x[part], y[part]) for part in (slice(100), slice(100, 300), slice(300, 700)))  # type: ignore[return-value]  # three


def signed(samples: Samples, attacked: int) -> tuple[np.ndarray, np.ndarray]:
    return samples.x.reshape(len(samples), -1).astype(np.float64), np.where(samples.y == attacked, 1.0, -1.0)


@each_learner
def test_the_loss_of_garments_rises_with_every_step(learner: Learner) -> None:
    train, validation, _ = garments(0, 3)
    (x, y), (held_x, held_y) = signed(train, 0), signed(validation, 0)
    start = int(np.flatnonzero(y > 0)[0])
    attack = GradientPoisoning(learner=learner, validation=validation, attacked=0, steps=30)
    climb = attack.climb(np.vstack([x, x[start]]), np.append(y, -1.0), held_x, held_y)
    assert len(climb.losses) == len(climb.errors) == len(climb.rows) > 5
    assert (np.diff(climb.losses) > 0).all()
    assert np.array_equal(climb.rows[0], x[start])
    assert climb.rows.min() >= 0
    assert climb.rows.max() <= 1
    assert climb.errors[-1] >= climb.errors[0] + 0.02
    cold = learner.fit(np.vstack([x, climb.rows[-1]]), np.append(y, -1.0))
    assert learner.losses(cold, held_x, held_y).mean() == pytest.approx(climb.losses[-1], abs=1e-5)


@each_learner
def test_rows_on_garments_hurt_new_rows_more_than_their_starts(learner: Learner) -> None:
    """Biggio et al. 2012, Section 4.2, on garments: one row raises the test error by points, and far more than the
    mislabeled copy that it was before it moved; three raise it further.
    """
    train, validation, test = garments(0, 3)

    def error(samples: Samples) -> float:
        return learner.fit(*signed(samples, 0)).error(*signed(test, 0))

    attack = GradientPoisoning(learner=learner, validation=validation, attacked=0, steps=20)
    one, three = Budget(share=0.01, may_change_labels=True), Budget(share=0.03, may_change_labels=True)
    moved, more, start = attack(train, one, seed=0), attack(train, three, seed=0), replace(attack, steps=1, step=1e-9)
    held_to(moved, train, one)
    held_to(more, train, three)
    assert (moved.added, more.added, more.share) == (1, 3, 0.03)
    assert np.array_equal(more.samples.x[100], moved.samples.x[100])
    assert error(moved.samples) >= error(train) + 0.03
    assert error(moved.samples) >= error(start(train, one, seed=0).samples) + 0.03
    assert error(more.samples) >= error(moved.samples) + 0.02


def test_added_rows_are_whole_rows() -> None:
    train, validation, _ = garments(0, 3)
    clean = replace(train, ids=("added-0", *map(str, range(99))), source=tuple("ab"[i % 2] for i in range(100)))
    budget = Budget(share=0.03, may_change_labels=True, sources=("b",))
    attack = GradientPoisoning(learner=ridge(), validation=validation, attacked=3, steps=3, starts=2)
    made = attack(clean, budget, seed=4)
    held_to(made, clean, budget)
    assert made.changed.tolist() == [100, 101, 102]
    assert made.samples.x.shape == (103, 1, 14, 14)
    assert made.samples.x.dtype == clean.x.dtype
    assert made.samples.y[100:].tolist() == [0, 0, 0]
    assert made.samples.ids is not None
    assert len(set(made.samples.ids)) == 103
    assert made.samples.source is not None
    assert made.samples.source[100:] == ("b", "b", "b")
    assert np.array_equal(attack(clean, budget, seed=4).samples.x, made.samples.x)
    assert not np.array_equal(attack(clean, budget, seed=5).samples.x, made.samples.x)


def small(**changed: Any) -> Callable[[], object]:
    """An attack on six rows, but for what is changed."""
    x, y = clouds(6, 2, 0)
    given: dict[str, Any] = {
        "y": np.where(y > 0, 1, 0),
        "x": x,
        "budget": Budget(share=0.5, may_change_labels=True),
        "bounds": None,
    }
    given |= changed
    clean = Samples(given.pop("x"), given.pop("y"))
    budget = given.pop("budget")
    settings: Any = {"learner": ridge(), "validation": clean, "attacked": 1, **given}
    return lambda: GradientPoisoning(**settings)(clean, budget, seed=0)


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (small(budget=Budget(share=0.5)), SettingError, "may_change_labels"),
        (small(budget=Budget(share=0.1, may_change_labels=True)), SettingError, "less than one row"),
        (small(y=np.arange(6) % 3), DataError, "two classes"),
        (small(attacked=2), DataError, "two classes"),
        (small(x=np.zeros((6, 2), dtype=np.uint8)), DataError, "give floats"),
        (small(bounds=(0.0, 1.0)), DataError, "outside the attack's bounds"),
        (small(steps=0), SettingError, "above 0"),
        (lambda: SupportVectors(c=0), SettingError, "above 0"),
        (lambda: ridge(0), SettingError, "above 0"),
        (lambda: SupportVectors(most_steps=1).fit(*clouds(20, 2, 0)), SettingError, "not solved"),
    ],
)
def test_what_cannot_be_is_refused(made: Callable[[], object], error: type[Exception], message: str) -> None:
    assert small()() is not None
    with pytest.raises(error, match=message):
        made()


@pytest.mark.extras
@pytest.mark.parametrize("c", [0.1, 1.0])
def test_the_learners_are_those_of_scikit_learn(c: float) -> None:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.svm import SVC

    x, y = clouds(80, 5, 7)
    theirs = SVC(kernel="linear", C=c, tol=1e-8).fit(x, y)
    ours = SupportVectors(c=c).fit(x, y)
    np.testing.assert_allclose(ours.weights, theirs.coef_[0], atol=1e-4)
    assert ours.bias == pytest.approx(theirs.intercept_[0], abs=1e-3)
    for learner, other in (
        (logistic_regression(1 / c), LogisticRegression(C=c, tol=1e-10, max_iter=1000).fit(x, y)),
        (ridge(1 / c), Ridge(alpha=1 / c).fit(x, y)),
    ):
        found = learner.fit(x, y)
        np.testing.assert_allclose(found.weights, np.ravel(other.coef_), atol=1e-5)
        assert found.bias == pytest.approx(float(np.ravel(other.intercept_)[0]), abs=1e-5)
