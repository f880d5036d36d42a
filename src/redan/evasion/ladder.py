"""One attack in balls that grow up to the attacker's: what a smaller ball holds, the larger one does too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from torch import Tensor

from redan.protocols import Attack, Ball, Cost, Labels, cost
from redan.rows import Rows

R = TypeVar("R", bound=Labels[Any])
B = TypeVar("B", bound=Ball)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder(Generic[R, B]):
    """An attack in a share of the radius at a time, on the rows that are left.

    Steps and random starts are as wide as the ball. Where most of a large ball is worse than what is near (a detector
    refuses it, or gradients lead astray), a climb that begins far away may miss what one in a smaller ball finds, and
    rows seem to hold better at a larger radius. rungs: shares of the radius, the last one 1 for the attack as it is.

    >>> from redan.evasion.pgd import PGD
    >>> Ladder(attack=PGD(steps=10), rungs=(0.5, 1.0)).cost(10)
    Cost(queries=22, backwards=20)
    """

    attack: Attack[R, Rows[Tensor, B]]
    rungs: tuple[float, ...] = (0.25, 0.5, 1.0)

    @property
    def parts(self) -> tuple[Attack[R, Rows[Tensor, B]], ...]:
        return (self.attack,)

    def cost(self, classes: int) -> Cost:
        return (cost(self.attack, classes) or Cost(0, 0)).times(len(self.rungs))

    def __call__(self, referee: R, rows: Rows[Tensor, B]) -> None:
        for rung in self.rungs:
            (rows,) = referee.survivors(rows)
            smaller = replace(rows, within=rows.within.sized(rung * rows.within.radius))
            self.attack(referee, smaller.keyed(f"rung {rung:g}"))
