"""Momentum ascent with a falling step: what a short climb needs to break the rows that a long one breaks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from redan.evasion.pgd import climb
from redan.losses import cross_entropy
from redan.protocols import Ball, Cost, Gradients, Loss
from redan.rows import Rows

_MOMENTUM = 0.75  # APGD's: the share of the new step, the rest is the last one's


class Course(NamedTuple):
    """What a climb saw of each row's loss. Tensors (N,), but for the gradient, which has the shape of the inputs.

    first, highest, last: at the start, the highest on the way, and at the point that was looked at last, which the
    gradient belongs to. moved: by how much the loss changed in all from one step
    to the next, up or down, while steps were small (in the second half). promised: the same as the gradients at both
    ends of each step foretell it. Where answers have the slopes that the gradients say, the two are alike.
    """

    first: Tensor
    highest: Tensor
    moved: Tensor
    promised: Tensor
    last: Tensor
    gradient: Tensor

    @classmethod
    def start(cls, x: Tensor) -> Self:
        """Before the first step, from x (N, …)."""
        unknown, none = x.new_full((len(x),), -torch.inf), x.new_zeros(len(x))
        return cls(unknown, unknown, none, none, none, torch.zeros_like(x))

    def at(self, loss: Tensor, gradient: Tensor, step: Tensor, *, small: bool) -> Self:
        """After one more step (N, …), that led to this loss (N,) and gradient."""
        moved, promised = self.moved, self.promised
        if small:
            slope = (self.gradient + gradient) / 2
            moved = moved + (loss - self.last).abs()
            promised = promised + (slope * step).flatten(1).sum(1).abs()
        first = torch.where(self.first.isneginf(), loss, self.first)
        return self._replace(
            first=first,
            highest=torch.maximum(self.highest, loss),
            moved=moved,
            promised=promised,
            last=loss,
            gradient=gradient,
        )


_Seen = TypeVar("_Seen", Course, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Descent:
    """A climb whose step falls by half a cosine from the radius to 0, three quarters of it and a quarter of the last.

    APGD halves its step where the loss stalls, and needs a hundred steps to see that; for ten or twenty the fall is
    set before. steps: gradient queries a row; one more query judges the last point.

    >>> Descent(steps=10).cost(10).queries
    11
    """

    steps: int = 10
    random_start: bool = False
    loss: Loss = cross_entropy

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.steps + 1, self.steps)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        self._climb(referee, rows, None)

    def climbed(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> tuple[Rows[Tensor, Ball], Course]:
        """The rows that are left, and the course that their losses took."""
        return self._climb(referee, rows, Course.start(rows.x0))

    def _climb(
        self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball], course: _Seen
    ) -> tuple[Rows[Tensor, Ball], _Seen]:
        """The rows that are left, and the course, if one is to be kept."""
        x = before = rows.within.sample(rows.x0, rows.draw) if self.random_start else rows.x0
        for i in range(self.steps):
            gradient, loss, _ = referee.gradient(x, rows, self.loss)
            if course is not None:
                course = course.at(loss, gradient, x - before, small=2 * i >= self.steps)
            rows, x, before, gradient, course = referee.survivors(rows, x, before, gradient, course)
            ahead = climb(x, gradient, (1 + math.cos(math.pi * i / self.steps)) / 2, rows)
            if i:
                ahead = rows.within.project(x + _MOMENTUM * (ahead - x) + (1 - _MOMENTUM) * (x - before), rows.x0)
            x, before = ahead, x
        last = self.loss(referee.scores(x, rows), rows.goal)
        if course is not None:
            course = course._replace(highest=torch.maximum(course.highest, last))
        return referee.survivors(rows, course)
