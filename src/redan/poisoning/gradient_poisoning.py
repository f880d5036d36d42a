"""Rows made by gradient ascent that a linear classifier of two classes learns worst from (Biggio et al. 2012)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from redan.data.samples import Samples
from redan.errors import DataError, SettingError
from redan.poisoning.budget import Budget, Poisoned
from redan.poisoning.choice import affordable, usable
from redan.poisoning.linear_learners import Learner, Numbers

_RISE = 1e-9
"""What a learner's own tolerance can feign, and no rise of the loss."""


class Climb(NamedTuple):
    """How one added row was moved, from its start to where it was left."""

    rows: Numbers
    """(T, D), the start first."""
    losses: Numbers
    """(T,): the mean loss on the validation rows of a model trained with the row; it never falls."""
    errors: Numbers
    """(T,): the share of validation rows that this model tells wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientPoisoning:
    """Rows are added, one after another, each moved up the validation loss of the model that learns from it.

    Biggio, Nelson and Laskov 2012, arXiv:1206.6389, Algorithm 1; for logistic regression and ridge Xiao et al. 2015,
    arXiv:1804.07933.

    learner: the victim, or the attacker's guess of it: `SupportVectors`, `logistic_regression` or `ridge`. validation:
    rows that the attacker holds and wants told wrong, of the same two classes. attacked: the class whose rows are
    copied as starts and told to be of the other one. steps: at most, for each row. step: how far a step goes at first,
    in L2 and in the data's units. starts: how many rows, drawn by the seed, are tried as starts; the best end is kept.
    bounds: the box that the data live in; None: no box.

    Deviations: a step that does not raise the loss is halved, at most `halvings` times, and not taken then, so the loss
    never falls. Where no step along the gradient raises it, the learner's `push` is tried: with few columns a support
    vector machine's gradient is 0 in whole regions. Several rows are added greedily.

    Rows are floats (N, …). An added row has the source and the type of the row that it was copied from.

    Calls raise DataError where rows are not floats of two classes, and SettingError where labels may not be changed (an
    added row's label is not the truth) or the attacker controls no row of the attacked class.

    >>> from redan.poisoning.linear_learners import ridge
    >>> clean = Samples(np.array([[0.1], [0.2], [0.8], [0.9]]), np.array([0, 0, 1, 1]))
    >>> attack = GradientPoisoning(learner=ridge(), validation=clean, attacked=1)
    >>> made = attack(clean, Budget(share=0.25, may_change_labels=True), seed=0).samples
    >>> made.x[-1].tolist(), int(made.y[-1])
    ([1.0], 0)
    """

    learner: Learner
    validation: Samples
    attacked: int
    steps: int = 50
    step: float = 0.5
    starts: int = 1
    halvings: int = 8
    bounds: tuple[float, float] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.step <= 0 or self.starts < 1 or self.halvings < 0:
            raise SettingError(
                f"gradient poisoning needs steps, a step and starts above 0, got {self.steps}, {self.step} and "
                f"{self.starts}; 50, 0.5 and 1 are usual"
            )

    def __call__(self, samples: Samples, budget: Budget, *, seed: int) -> Poisoned:
        """The samples with as many rows added as the budget has."""
        if not budget.may_change_labels:
            raise SettingError(
                "gradient poisoning adds rows under a wrong label and the budget does not let it; set may_change_labels"
            )
        count, other = affordable(samples, budget), _other(samples, self.validation, self.attacked)
        open_to = usable(samples.y == self.attacked, samples, budget)
        x, y = _flat(samples), _signs(samples.y, self.attacked)
        held_x, held_y = _flat(self.validation), _signs(self.validation.y, self.attacked)
        if self.bounds is not None and not self.bounds[0] <= x.min() <= x.max() <= self.bounds[1]:
            raise DataError(
                f"rows from {x.min()} to {x.max()} are outside the attack's bounds {self.bounds}; give it "
                "the data's own"
            )
        generator = np.random.default_rng(seed)
        copied = []
        for _ in range(count):
            tried = generator.choice(open_to, min(self.starts, len(open_to)), replace=False)
            y = np.append(y, -1.0)  # the other class
            climbs = [self.climb(np.concatenate([x, x[[start]]]), y, held_x, held_y) for start in tried]
            best = int(np.argmax([climb.losses[-1] for climb in climbs]))
            copied.append(int(tried[best]))
            x = np.concatenate([x, climbs[best].rows[-1:]])
        added = x[len(samples) :].reshape(count, *samples.x.shape[1:]).astype(samples.x.dtype)
        made = replace(
            samples,
            x=np.concatenate([samples.x, added]),
            y=np.append(samples.y, np.full(count, other, dtype=samples.y.dtype)),
            ids=None if samples.ids is None else (*samples.ids, *_new_ids(samples.ids, count)),
            source=None if samples.source is None else (*samples.source, *(samples.source[i] for i in copied)),
        )
        return Poisoned(samples=made, changed=np.arange(len(samples), len(samples) + count), added=count)

    def climb(self, x: Numbers, y: Numbers, held_x: Numbers, held_y: Numbers) -> Climb:
        """The way of the last of the training rows x (N, D) with labels y (N,) of -1 and 1, all others fixed."""
        x, last = x.copy(), len(x) - 1
        fitted = self.learner.fit(x, y)
        rows, losses = [x[last].copy()], [float(self.learner.losses(fitted, held_x, held_y).mean())]
        errors, length = [fitted.error(held_x, held_y)], self.step
        for _ in range(self.steps):
            for way, longest in ((self.learner.slope, length), (self.learner.push, self.step)):
                direction = way(fitted, x, y, last, held_x, held_y)
                size = float(np.linalg.norm(direction))
                for halving in range(self.halvings + 1 if size else 0):
                    moved = rows[-1] + longest / 2**halving * direction / size
                    x[last] = moved if self.bounds is None else np.clip(moved, *self.bounds)
                    tried = self.learner.fit(x, y, fitted)
                    loss = float(self.learner.losses(tried, held_x, held_y).mean())
                    if loss > losses[-1] + _RISE:
                        break
                else:
                    x[last] = rows[-1]
                    continue
                break
            else:
                break  # no step climbs
            fitted, length = tried, min(self.step, 2 * longest / 2**halving)
            rows.append(x[last].copy())
            losses.append(loss)
            errors.append(fitted.error(held_x, held_y))
        return Climb(np.array(rows), np.array(losses), np.array(errors))


def _other(samples: Samples, validation: Samples, attacked: int) -> Any:
    """The class that is not attacked. Raises DataError unless there are two, in both sets."""
    classes = np.unique(np.concatenate([samples.y, validation.y]))
    if len(classes) != 2 or attacked not in classes:
        raise DataError(
            f"gradient poisoning is for rows of two classes with class {attacked} among them, and they are of "
            f"{', '.join(map(str, classes.tolist()))}; choose the rows of two"
        )
    return classes[classes != attacked][0]


def _flat(samples: Samples) -> Numbers:
    if samples.x.dtype.kind != "f":
        raise DataError(
            f"rows are moved by fractions, and they are {samples.x.dtype}; give floats, such as bytes / 255"
        )
    return samples.x.reshape(len(samples), -1).astype(np.float64)


def _signs(y: NDArray[Any], attacked: int) -> Numbers:
    return np.where(y == attacked, 1.0, -1.0)


def _new_ids(ids: tuple[str, ...], count: int) -> list[str]:
    """Ids that no row has yet."""
    taken, number = set(ids), 0
    found: list[str] = []
    while len(found) < count:
        if (name := f"added-{number}") not in taken:
            found.append(name)
        number += 1
    return found
