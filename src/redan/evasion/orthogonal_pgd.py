"""Selective and orthogonal PGD (Bryniarski et al. 2022, arXiv:2106.15023): two conditions met at once, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Protocol, Self, TypeGuard

import torch
from torch import Tensor

from redan.errors import SettingError
from redan.evasion.pgd import climb
from redan.losses import cross_entropy
from redan.protocols import Ball, Cost, Gradients, Loss, wide
from redan.rows import Goal, Rows

_PARALLEL = 1e-6  # of a gradient's length: what is left of one that lies along the other is rounding


class TwoConditions(Goal, Protocol):
    """A goal that is reached where two others are at once: an answer, and that a detector lets it pass."""

    @property
    def conditions(self) -> tuple[Goal, Goal]:
        """The answer, and the detector's consent: goals for the same answers."""
        ...


class Kept(Enum):
    """Which gradients are kept off the other condition's."""

    BOTH = "both"
    """Orthogonal PGD."""
    ANSWER = "answer"
    """Steps toward the answer leave the detector's loss as it is."""
    DETECTOR = "detector"
    """Steps under the threshold leave the answer's loss as it is."""
    NEITHER = "neither"
    """Selective PGD: the gradient of one at a time, as it is."""


@dataclass(frozen=True, slots=True)
class _SideBySide:
    """Two goals for the same answers; scores are the answers as they are."""

    first: Goal
    second: Goal

    def reached(self, output: Tensor) -> Tensor:
        return self.first.reached(output) & self.second.reached(output)

    def right(self, output: Tensor) -> Tensor:
        return self.first.right(output)

    def scores(self, output: Tensor) -> Tensor:
        return output

    def loss(self, scores: Tensor) -> Tensor:
        return torch.minimum(*(goal.loss(goal.scores(scores)) for goal in (self.first, self.second)))

    def ways(self, scores: Tensor, most: int) -> Sequence[Goal]:  # noqa: ARG002
        return [self]

    def take(self, index: Tensor) -> Self:
        return replace(self, first=self.first.take(index), second=self.second.take(index))


@dataclass(frozen=True, slots=True)
class _Columns:
    """A loss with a column for each condition: the value is the margin, the gradient that of `loss` in the first."""

    loss: Loss

    def __call__(self, output: Tensor, goal: _SideBySide) -> Tensor:
        scores = goal.first.scores(output)
        value, climbed = goal.first.loss(scores), self.loss(scores, goal.first)
        first = value.detach() + (climbed - climbed.detach())
        return torch.stack([first, goal.second.loss(goal.second.scores(output))], 1)


def orthogonal(gradient: Tensor, other: Tensor) -> Tensor:
    """The part of each row's gradient (N, …) at a right angle to the other; all of it where that leaves nothing.

    >>> orthogonal(torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 5.0]])).tolist()
    [[1.0, 0.0]]
    """
    along = other / wide(_length(other).clamp_min(torch.finfo(other.dtype).tiny), other)
    left = gradient - wide((gradient * along).flatten(1).sum(1), gradient) * along
    left = left - wide((left * along).flatten(1).sum(1), left) * along  # once more: the first leaves rounding
    return torch.where(wide(_length(left) > _PARALLEL * _length(gradient), left), left, gradient)


def _length(rows: Tensor) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(rows.flatten(1), dim=1)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class OrthogonalPGD:
    """PGD on a goal with two conditions, which steps toward one at a time and leaves the other as it is.

    While a row is not answered as wanted, by `confidence` logits, it climbs `loss`; else it goes under the detector's
    threshold. kept: whose gradients are projected on the complement of the other's. Steps toward the answer are left
    as they are unless asked for: of 24 images at ε 0.15, 15 and 16 were broken so and 9 to 13 with both projected
    (two Mahalanobis detectors, 40 steps), in this code and in a plain transcript of the paper's algorithm alike.
    every: instead of each row's choice, the detector's turn comes each so many steps (`k` of the authors' code). steps:
    gradient queries, each one forward and two backward passes; one more query judges the last iterate. rate: the first
    step in radii, 10 / steps unless given; it falls linearly to a tenth. The authors' stays at 12.5 / steps: a step
    that turns between two conditions must be large first and small last.

    In L∞ the step is the sign of the projected gradient, as in the authors' code, and no longer at a right angle
    exactly; in L2 it is. Where two gradients are parallel, nothing is left of either, and it is taken as it is.

    Raises SettingError where the goal has not two conditions.

    >>> OrthogonalPGD(steps=100).cost(10)
    Cost(queries=101, backwards=200)
    """

    steps: int = 100
    rate: float | None = None
    random_start: bool = True
    kept: Kept = Kept.DETECTOR
    every: int | None = None
    confidence: float = 0.05
    loss: Loss = cross_entropy

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 2:
            raise SettingError(
                f"the detector's turn comes every 2 steps or more, got {self.every}; None lets rows choose"
            )

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.steps + 1, 2 * self.steps)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        if not _two(rows.goal):
            raise SettingError(
                f"orthogonal PGD needs a goal with two conditions, an answer and a detector's consent, not "
                f"{type(rows.goal).__name__}; wrap the target in Refusing and aim at Undetected, or use PGD"
            )
        rate = 10 / max(1, self.steps) if self.rate is None else self.rate
        rows = rows.aim(_SideBySide(*rows.goal.conditions))
        x = rows.within.sample(rows.x0, rows.draw) if self.random_start else rows.x0
        for step in range(self.steps):
            reply = referee.gradient(x, rows, _Columns(self.loss))
            rows, x, gradient, loss = referee.survivors(rows, x, reply.gradient, reply.loss)
            if not len(rows):
                return
            answer, detector = gradient.unbind(1)
            turn = self._turn(loss[:, 0], step)
            chosen = torch.where(wide(turn, x), self._under(detector, answer), self._toward(answer, detector))
            x = climb(x, chosen, rate * (1 - 0.9 * step / self.steps), rows)
        referee.reached(x, rows)

    def _turn(self, margins: Tensor, step: int) -> Tensor:
        """Whether each row steps under the threshold: (N,) bool."""
        if self.every is None:
            return margins > self.confidence
        return torch.full_like(margins, step % self.every == 0, dtype=torch.bool)

    def _toward(self, answer: Tensor, detector: Tensor) -> Tensor:
        return orthogonal(answer, detector) if self.kept in (Kept.BOTH, Kept.ANSWER) else answer

    def _under(self, detector: Tensor, answer: Tensor) -> Tensor:
        return orthogonal(detector, answer) if self.kept in (Kept.BOTH, Kept.DETECTOR) else detector


def _two(goal: Any) -> TypeGuard[TwoConditions]:
    return hasattr(goal, "conditions")
