"""What an attacker wants of a model that may refuse: an answer of his, and that it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from redan.goals import Aim, Untargeted
from redan.goals.task import Task
from redan.rejection.refusing import excess, refused
from redan.rows import Goal


class AboutClasses(Goal, Protocol):
    """A goal about one class a row, as losses read it."""

    @property
    def truth(self) -> Tensor: ...
    @property
    def label(self) -> Tensor: ...
    @property
    def sign(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Undetected:
    """`aim`, and not refused: the goal for a `Refusing` target, whose answers are K scores and that of a refusal.

    An input breaks a row when it is accepted *and* answered as the attacker wants. A clean row is right when it is
    accepted and answered right. So robust accuracy at a false-positive rate is the share of all rows whose clean
    input is accepted and right, and which no changed input in the set makes accepted and wrong: one less the robust
    risk of a classifier with a detector (Tramèr 2022, arXiv:2107.11630: an error is f(x) ≠ y, or a changed input with
    f(x') neither y nor ⊥). A refused clean row is wrong whatever the attacker does.

    >>> goal = Undetected().about(torch.tensor([0, 0]), torch.zeros(2, 3))
    >>> goal.reached(torch.tensor([[0.0, 1.0, 0.5], [0.0, 1.0, 1.5]])).tolist()
    [True, False]
    """

    aim: Aim = field(default_factory=Untargeted)

    @property
    def task(self) -> Task:
        return self.aim.task

    def about(self, y: Tensor, output: Tensor, at: Tensor | None = None) -> Unrefused:
        inner: Any = self.aim.about(y, output[:, :-1], at)
        return Unrefused(inner)


@dataclass(frozen=True, slots=True)
class Unrefused:
    """`Undetected` for rows: `goal` is about the K classes.

    Scores are those of the classes, with the right class's raised to the refusal's where that is higher: "right" and
    "refused" are one outcome, the one to leave. So the margin of any class goal is above 0 exactly when it is reached,
    it is the lower of margin and room under the threshold then, and any attack on classes is a joint attack.
    """

    goal: AboutClasses

    @property
    def truth(self) -> Tensor:
        return self.goal.truth

    @property
    def label(self) -> Tensor:
        return self.goal.label

    @property
    def sign(self) -> int:
        return self.goal.sign

    @property
    def conditions(self) -> tuple[Goal, Goal]:
        """Answered as wanted, and accepted: each a goal for the same answers."""
        return Answered(self.goal), Accepted(self.goal)

    def reached(self, output: Tensor) -> Tensor:
        return self.goal.reached(output[:, :-1]) & ~refused(output)

    def right(self, output: Tensor) -> Tensor:
        return self.goal.right(output[:, :-1]) & ~refused(output)

    def scores(self, output: Tensor) -> Tensor:
        classes, truth = self.goal.scores(output[:, :-1]), self.truth[:, None]
        return classes.scatter(1, truth, torch.maximum(classes.gather(1, truth), output[:, -1:]))

    def loss(self, scores: Tensor) -> Tensor:
        return self.goal.loss(scores)

    def ways(self, scores: Tensor, most: int) -> Sequence[Goal]:
        found: Sequence[Any] = self.goal.ways(scores, most)
        return [Unrefused(way) for way in found]

    def take(self, index: Tensor) -> Self:
        return replace(self, goal=self.goal.take(index))


@dataclass(frozen=True, slots=True)
class Answered:
    """The goal about the classes alone, refused or not."""

    goal: AboutClasses

    @property
    def truth(self) -> Tensor:
        return self.goal.truth

    @property
    def label(self) -> Tensor:
        return self.goal.label

    @property
    def sign(self) -> int:
        return self.goal.sign

    def reached(self, output: Tensor) -> Tensor:
        return self.goal.reached(output[:, :-1])

    def right(self, output: Tensor) -> Tensor:
        return self.goal.right(output[:, :-1])

    def scores(self, output: Tensor) -> Tensor:
        return self.goal.scores(output[:, :-1])

    def loss(self, scores: Tensor) -> Tensor:
        return self.goal.loss(scores)

    def ways(self, scores: Tensor, most: int) -> Sequence[Goal]:
        found: Sequence[Any] = self.goal.ways(scores, most)
        return [Answered(way) for way in found]

    def take(self, index: Tensor) -> Self:
        return replace(self, goal=self.goal.take(index))


@dataclass(frozen=True, slots=True)
class Accepted:
    """Not refused, whatever is answered. Outcomes: refused, at score 0, and accepted, at the room to the threshold."""

    goal: AboutClasses

    sign = 1

    @property
    def truth(self) -> Tensor:
        return self.label

    @property
    def label(self) -> Tensor:
        return torch.zeros_like(self.goal.truth)

    def reached(self, output: Tensor) -> Tensor:
        return ~refused(output)

    def right(self, output: Tensor) -> Tensor:
        return self.goal.right(output[:, :-1]) & ~refused(output)

    def scores(self, output: Tensor) -> Tensor:
        room = -excess(output)
        return torch.stack([torch.zeros_like(room), room], 1)

    def loss(self, scores: Tensor) -> Tensor:
        return scores[:, 1] - scores[:, 0]

    def ways(self, scores: Tensor, most: int) -> Sequence[Goal]:  # noqa: ARG002
        return [self]

    def take(self, index: Tensor) -> Self:
        return replace(self, goal=self.goal.take(index))
