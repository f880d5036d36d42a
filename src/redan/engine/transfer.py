"""Attacks with surrogates: the attacker holds other models whole, and may only ask the target for decisions.

Attacks stay as they are; they are called with a `Transfer` in place of the target's referee:

* `gradient`, `scores` and the `reached` of a gradient's reply come from the surrogates. They say what the attacker
  believes, and end no row: a row that left when the *target* is fooled would tell him the target's answer for nothing.
* `reached` asks the target, under the attacker's capability. It alone bills queries, decides rows and makes
  `survivors` drop them.
* `best` is the nearest candidate that the target was seen to fall for; where there is none, that the surrogates did.
* An attack that never asks `reached` (APGD) leaves the last word to the engine: once for each such row it shows the
  target the candidate that the surrogates found worst (under the rule Closest, the nearest that fooled them).

So two referees keep the books: one of the target, whose wins count, and one of the surrogates, whose wins are opinions.
The surrogates' passes are the attacker's own work: no queries, but passes of ours, which our limits count. Where a
surrogate fails on a row, that row is an error, for it was attacked with less than what was declared.
"""

from __future__ import annotations

from typing import Any, TypeVar, TypeVarTuple

import torch
from torch import Tensor

from redan.answers import Answers
from redan.oracle import Oracle
from redan.protocols import Access, Best, Bounded, Loss, Reply, wide
from redan.referee import Closest, Referee, Rule, Worst
from redan.rows import Goal, PerturbationSet, Rows

W = TypeVar("W", bound=PerturbationSet[Any])
Ts = TypeVarTuple("Ts")


class Transfer:
    """Implements Gradients over one pool of rows: the surrogates' gradients, the target's decisions."""

    def __init__(
        self, target: Referee, meter: Oracle, clean: Answers, *, x0: Tensor, goal: Goal, within: Bounded, rule: Rule
    ) -> None:
        """target: its referee, which keeps by `rule`; meter: the surrogates'; clean: the surrogates' answers to x0."""
        self._target = target
        self._surrogates = Referee(
            meter,
            x0=x0,
            goal=goal,
            within=within,
            clean=clean.output,
            already=torch.zeros_like(clean.answered),  # where the surrogates are wrong already the target may not be
            rule=rule if isinstance(rule, Closest) else Worst(),
            knowledge=Access.GRADIENTS,
            draws=0,
        )
        for at, reason in clean.reasons.items():
            meter.failed[at], meter.reasons[at] = True, reason

    def reached(self, x: Tensor, rows: Rows[Tensor, Any]) -> Tensor:
        return self._target.reached(x, rows)

    def best(self, rows: Rows[Tensor, Any]) -> Best[Tensor]:
        seen, believed = self._target.best(rows), self._surrogates.best(rows)
        known = seen.distance.isfinite()
        x = torch.where(wide(known, seen.x), seen.x, believed.x)
        return Best(x, torch.where(known, seen.distance, believed.distance))

    def survivors(self, rows: Rows[Tensor, W], *state: *Ts) -> tuple[Rows[Tensor, W], *Ts]:
        return self._target.survivors(rows, *state)

    def scores(self, x: Tensor, rows: Rows[Tensor, Any]) -> Tensor:
        return self._surrogates.scores(x, rows)

    def gradient(self, x: Tensor, rows: Rows[Tensor, Any], loss: Loss) -> Reply:
        return self._surrogates.gradient(x, rows, loss)

    def conclude(self, rows: Rows[Tensor, Bounded], asked: Tensor) -> None:
        """Show the target the surrogates' choice for the rows whose count of queries is still `asked`: (pool,)."""
        believed = self._surrogates.kept()
        silent = (self._target.oracle.queries == asked) & believed.won
        (left,) = self._target.survivors(rows.take(silent[rows.ids]))
        if len(left):
            self._target.reached(believed.x[left.ids], left)
