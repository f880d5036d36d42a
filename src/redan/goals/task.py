"""What the right answer to a row is, goals that have not met their rows, and any answer that is not right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Protocol, Self

import torch
from torch import Tensor

from redan.rows import Goal

NO_ROWS = torch.empty(0, dtype=torch.int64)
"""The truth of a goal that has not met its rows."""


class Task(Enum):
    """What the right answer to a row is."""

    CLASS = auto()
    """One class number: labels (N,), answers (N, K)."""
    LABELS = auto()
    """A 0 or 1 for each of L labels: labels (N, L), answers (N, L), above 0 for a 1."""
    VALUE = auto()
    """One number: labels (N,), answers (N, 1)."""

    def outcomes(self, scores: int) -> int:
        """How many outcomes goals and attacks see where the model answers so many scores."""
        return {Task.CLASS: scores, Task.LABELS: scores + 1, Task.VALUE: 3}[self]


class Aim(Protocol):
    """A goal that has not met its rows yet."""

    @property
    def task(self) -> Task:
        """What it reads labels and answers as."""
        ...

    def about(self, y: Tensor, output: Tensor, at: Tensor | None = None) -> Goal:
        """The row-aligned goal for rows of right class y (N,) with these clean answers (N, K).

        at: the rows' positions (N,) among those that the aim was given one entry each; None: they are all.
        """
        ...


@dataclass(frozen=True, slots=True)
class Wrong:
    """Any answer that is not right, whatever `goal` wants of it."""

    goal: Goal

    def right(self, output: Tensor) -> Tensor:
        return self.goal.right(output)

    def reached(self, output: Tensor) -> Tensor:
        return ~self.goal.right(output)

    def scores(self, output: Tensor) -> Tensor:
        return self.goal.scores(output)

    def loss(self, scores: Tensor) -> Tensor:
        return self.goal.loss(scores)

    def ways(self, scores: Tensor, most: int) -> Sequence[Goal]:  # noqa: ARG002
        return [self]

    def take(self, index: Tensor) -> Self:
        return replace(self, goal=self.goal.take(index))
