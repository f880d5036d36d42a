"""The joint attack as one sum: the answer that is wanted, less a weight times what the detector has against it.

Any attack on classes that climbs `Undetected` is a joint attack already, in the form of Carlini and Wagner's combined
classifier. The sum is their other form (2017, arXiv:1705.07263: a detector's loss beside the model's); a climb that
must pass over inputs the detector dislikes may succeed with it where the other one is stuck.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar

from torch import Tensor

from redan.errors import SettingError
from redan.protocols import Attack, Cost, Labels, cost
from redan.rejection.goal import AboutClasses, Unrefused
from redan.rejection.refusing import excess
from redan.rows import Goal, PerturbationSet, Rows

R = TypeVar("R", bound=Labels[Any])
W = TypeVar("W", bound=PerturbationSet[Any])


@dataclass(frozen=True, slots=True)
class Penalized:
    """A class goal whose margin has `weight` · max(excess + slack, 0) taken off it: what `Lagrangian` climbs."""

    goal: AboutClasses
    weight: float
    slack: float

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
        return Unrefused(self.goal).reached(output)

    def right(self, output: Tensor) -> Tensor:
        return Unrefused(self.goal).right(output)

    def scores(self, output: Tensor) -> Tensor:
        classes, at = self.goal.scores(output[:, :-1]), self.label[:, None]
        penalty = self.weight * (excess(output) + self.slack).clamp_min(0)
        return classes.scatter_add(1, at, self.sign * penalty[:, None])

    def loss(self, scores: Tensor) -> Tensor:
        return self.goal.loss(scores)

    def ways(self, scores: Tensor, most: int) -> Sequence[Goal]:
        found: Sequence[Any] = self.goal.ways(scores, most)
        return [replace(self, goal=way) for way in found]

    def take(self, index: Tensor) -> Self:
        return replace(self, goal=self.goal.take(index))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lagrangian(Generic[R, W]):
    """An attack on the sum of margin and penalty, once for each weight, on the rows that are left.

    attack: on classes, of margins best (`redan.losses.margin`: the sum is exact with it). weights: what one unit of
    the detector's excess costs in logits; a grid stands for Carlini and Wagner's search of a constant, which
    `BalancedPGD` does within one climb. slack: how
    far below the threshold the penalty begins, in units of the target's `scale`.

    Raises SettingError where the goal is not `Undetected`.
    """

    attack: Attack[R, Rows[Any, W]]
    weights: tuple[float, ...] = (0.1, 1.0, 10.0, 100.0)
    slack: float = 0.05

    @property
    def parts(self) -> tuple[Attack[R, Rows[Any, W]], ...]:
        return (self.attack,)

    def cost(self, classes: int) -> Cost:
        return (cost(self.attack, classes) or Cost(0, 0)).times(len(self.weights))

    def __call__(self, referee: R, rows: Rows[Any, W]) -> None:
        for weight in self.weights:
            (rows,) = referee.survivors(rows)
            goal = Penalized(_unrefused(rows.goal).goal, weight, self.slack)
            self.attack(referee, rows.keyed(f"weight {weight:g}").aim(goal))


def _unrefused(goal: Goal) -> Unrefused:
    if not isinstance(goal, Unrefused):
        raise SettingError(
            f"a joint attack needs a model that refuses and the goal Undetected, not {type(goal).__name__}; "
            "wrap the target in Refusing, or use the attack alone"
        )
    return goal
