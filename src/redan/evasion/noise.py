"""Random noise: what an attacker reaches by luck, the floor that every attack must beat."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from redan.protocols import Ball, Cost, Labels
from redan.rows import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomNoise:
    """Independent random points of the set, as many as `tries`.

    >>> RandomNoise(tries=10).cost(10).queries
    10
    """

    tries: int = 100

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.tries, 0)

    def __call__(self, referee: Labels[Tensor], rows: Rows[Tensor, Ball]) -> None:
        for _ in range(self.tries):
            referee.reached(rows.within.sample(rows.x0, rows.draw), rows)
            (rows,) = referee.survivors(rows)
