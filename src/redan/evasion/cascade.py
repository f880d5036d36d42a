"""Attacks made of attacks: one after another, one again, or one at each wrong class.

Each is an attack itself. What it needs is what its parts need: mypy infers it, and the planner reads `parts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from redan.protocols import Attack, Cost, Labels, Scores, cost, in_turn
from redan.rows import PerturbationSet, Rows

R = TypeVar("R", bound=Labels[Any])
S = TypeVar("S", bound=Scores[Any])
W = TypeVar("W", bound=PerturbationSet[Any])


@dataclass(frozen=True, slots=True)
class Cascade(Generic[R, W]):
    """Attacks in turn, each on the rows that the ones before did not break.

    An attack's random numbers do not depend on what ran before it.
    """

    parts: tuple[Attack[R, Rows[Any, W]], ...]

    def cost(self, classes: int) -> Cost:
        return sum((cost(part, classes) or Cost(0, 0) for part in self.parts), Cost(0, 0))

    def __call__(self, referee: R, rows: Rows[Any, W]) -> None:
        for name, attack in in_turn(self.parts):
            (rows,) = referee.survivors(rows)
            attack(referee, rows.keyed(name))


@dataclass(frozen=True, slots=True)
class Restarts(Generic[R, W]):
    """One attack several times, each time with new random numbers, on the rows that are left."""

    attack: Attack[R, Rows[Any, W]]
    times: int = 5

    @property
    def parts(self) -> tuple[Attack[R, Rows[Any, W]], ...]:
        return (self.attack,)

    def cost(self, classes: int) -> Cost:
        return (cost(self.attack, classes) or Cost(0, 0)).times(self.times)

    def __call__(self, referee: R, rows: Rows[Any, W]) -> None:
        for restart in range(self.times):
            (rows,) = referee.survivors(rows)
            self.attack(referee, rows.keyed(f"restart {restart}"))


@dataclass(frozen=True, slots=True)
class Sweep(Generic[S, W]):
    """One attack at each of the likeliest wrong classes in turn (Croce and Hein 2020: 9 of 10).

    One query a row orders the classes. A goal that has one way only is attacked once.
    """

    attack: Attack[S, Rows[Any, W]]
    targets: int = 9

    @property
    def parts(self) -> tuple[Attack[S, Rows[Any, W]], ...]:
        return (self.attack,)

    def cost(self, classes: int) -> Cost:
        inner = cost(self.attack, classes) or Cost(0, 0)
        return Cost(1, 0) + inner.times(min(self.targets, classes - 1))

    def __call__(self, referee: S, rows: Rows[Any, W]) -> None:
        ways = rows.goal.ways(referee.scores(rows.x0, rows), self.targets)
        at: Tensor = torch.arange(len(rows), device=rows.ids.device)
        for goal in ways:
            rows, at = referee.survivors(rows, at)
            self.attack(referee, rows.aim(goal.take(at)))
