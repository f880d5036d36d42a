"""Selective and orthogonal PGD (Bryniarski et al. 2022, arXiv:2106.15023): two conditions met at once, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Self

import torch
from torch import Tensor

from redan.errors import SettingError
from redan.evasion.pgd import climb
from redan.losses import cross_entropy
from redan.protocols import Ball, Cost, Gradients, Loss, wide
from redan.rows import Goal, Rows

_PARALLEL = 1e-6  # of a gradient's length: what is left of one that lies along the other is rounding


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
    along = _unit(other)
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
        rate = 10 / max(1, self.steps) if self.rate is None else self.rate
        rows = _aimed(rows)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancedPGD:
    """PGD along the sum of both gradients, with a weight a row that is balanced on the way.

    The direction is a / ‖a‖ + λ d / ‖d‖ of the answer's gradient a and the detector's d. λ starts at `first`, so that a
    row changes its answer before it is held back; log λ grows by `pace` at each step where a row is answered as wanted
    and refused, and shrinks by as much where it is accepted and not so answered, ever less. It stands for the search of
    a constant in the sum of Carlini and Wagner 2017 (arXiv:1705.07263), within one climb, as DDN does for the radius
    (Rony et al. 2019, arXiv:1811.09600). Where both conditions are linear, the best direction in a ball is that of such
    a sum: it came within a tenth of the optimum on rows where sums with set weights and turns did not.

    steps, rate, confidence, loss: as in `OrthogonalPGD`.

    >>> BalancedPGD(steps=100).cost(10)
    Cost(queries=101, backwards=200)
    """

    steps: int = 100
    rate: float | None = None
    random_start: bool = True
    first: float = 0.05
    pace: float = 0.5
    confidence: float = 0.05
    loss: Loss = cross_entropy

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.steps + 1, 2 * self.steps)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        rows = _aimed(rows)
        rate = 10 / max(1, self.steps) if self.rate is None else self.rate
        x = rows.within.sample(rows.x0, rows.draw) if self.random_start else rows.x0
        balance = x.new_full((len(x),), math.log(self.first))  # log λ
        for step in range(self.steps):
            left = 1 - step / self.steps
            reply = referee.gradient(x, rows, _Columns(self.loss))
            rows, x, balance, gradient, loss = referee.survivors(rows, x, balance, reply.gradient, reply.loss)
            if not len(rows):
                return
            answered, accepted = loss[:, 0] > self.confidence, loss[:, 1] > 0
            balance = balance + self.pace * left * (answered.to(x.dtype) - accepted.to(x.dtype))
            answer, detector = (_unit(part) for part in gradient.unbind(1))
            x = climb(x, answer + wide(balance.exp(), x) * detector, rate * (0.1 + 0.9 * left), rows)
        referee.reached(x, rows)


def _unit(rows: Tensor) -> Tensor:
    return rows / wide(_length(rows).clamp_min(torch.finfo(rows.dtype).tiny), rows)


def _aimed(rows: Rows[Tensor, Ball]) -> Rows[Tensor, Ball]:
    """The rows with both conditions side by side."""
    goal: Any = rows.goal
    if not hasattr(goal, "conditions"):
        raise SettingError(
            f"an attack on two conditions needs a goal that has them, an answer and a detector's consent, not "
            f"{type(goal).__name__}; wrap the target in Refusing and aim at Undetected, or use PGD"
        )
    return rows.aim(_SideBySide(*goal.conditions))
