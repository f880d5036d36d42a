"""The referee: an oracle that also judges and keeps. Success is decided here, never by an attack.

It trusts only `rows.ids`. Inputs, goal and set are its own copies; an attack returns nothing, so it cannot lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, TypeVarTuple

import torch
from torch import Tensor

from redan.answers import Answers
from redan.errors import AccessError
from redan.oracle import Oracle
from redan.protocols import Access, Best, Bounded, Loss, Reply, wide
from redan.rows import Goal, PerturbationSet, Rows, distinct, take

W = TypeVar("W", bound=PerturbationSet[Any])
Ts = TypeVarTuple("Ts")


class Rule(Protocol):
    """Which of a row's winning candidates is kept, and whether a winner ends the row."""

    @property
    def needs_goal(self) -> bool:
        """Whether only candidates that reached the goal are kept."""
        ...

    def merit(self, share: Tensor, distance: Tensor, loss: Callable[[], Tensor]) -> Tensor:
        """Larger is better: (N,). share: how often the goal was reached, 1 for a deterministic target; loss: its goal
        loss, worked out if asked for.
        """
        ...

    def won(self, merit: Tensor) -> Tensor:
        """Whether a candidate of this merit counts as a win, or at least as kept: (N,) bool."""
        ...

    @property
    def stop(self) -> bool:
        """Whether a row leaves the attack when its candidate is final, or its clean input reached the goal."""
        ...

    def final(self, merit: Tensor) -> Tensor:
        """Whether no candidate can be better than one of this merit: (N,) bool."""
        ...


@dataclass(frozen=True, slots=True)
class First:
    """The first win decides the row: what a fixed radius asks for.

    stop: the row leaves then (early exit); False lets the attack go on with it, for nothing but a fair timing.
    """

    stop: bool = True

    needs_goal = True

    def merit(self, share: Tensor, distance: Tensor, loss: Callable[[], Tensor]) -> Tensor:  # noqa: ARG002
        return share

    def won(self, merit: Tensor) -> Tensor:
        return merit >= 0.5

    def final(self, merit: Tensor) -> Tensor:
        return merit >= 1


@dataclass(frozen=True, slots=True)
class Closest:
    """The nearest win is kept and the row goes on: minimum norm."""

    needs_goal = True
    stop = True

    def merit(self, share: Tensor, distance: Tensor, loss: Callable[[], Tensor]) -> Tensor:  # noqa: ARG002
        return torch.where(share >= 0.5, -distance, -torch.inf)

    def won(self, merit: Tensor) -> Tensor:
        return merit > -torch.inf

    def final(self, merit: Tensor) -> Tensor:
        return torch.zeros_like(merit, dtype=torch.bool)


@dataclass(frozen=True, slots=True)
class Worst:
    """The candidate inside the set with the highest goal loss is kept, won or not: adversarial training."""

    needs_goal = False
    stop = False

    def merit(self, share: Tensor, distance: Tensor, loss: Callable[[], Tensor]) -> Tensor:  # noqa: ARG002
        return loss()

    def won(self, merit: Tensor) -> Tensor:
        return merit > -torch.inf

    def final(self, merit: Tensor) -> Tensor:
        return torch.zeros_like(merit, dtype=torch.bool)


class Kept(NamedTuple):
    """What the referee holds of every row of its pool."""

    x: Tensor  # the kept candidate; x0 where there is none
    won: Tensor  # (pool,) bool
    distance: Tensor  # (pool,), 0 where x0 itself reached the goal, inf where nothing won
    open: Tensor  # (pool,) bool, still worth attacking


class _Shelf:
    """The best candidate of each row by some merit."""

    def __init__(self, x0: Tensor) -> None:
        self.x = x0.clone()
        self.distance = x0.new_full((len(x0),), torch.inf)
        self.merit = x0.new_full((len(x0),), -torch.inf)

    def offer(self, ids: Tensor, x: Tensor, distance: Tensor, merit: Tensor) -> None:
        better = merit > self.merit[ids]
        if not bool(better.any()):
            return
        if not bool(better.all()):
            ids, x, distance, merit = take(better, ids, x, distance, merit)
        if not distinct(ids):  # a row may stand several times: its best candidate counts
            order = merit.argsort(descending=True, stable=True)
            order = order[ids[order].argsort(stable=True)]
            first = torch.ones_like(order, dtype=torch.bool)
            first[1:] = ids[order][1:] != ids[order][:-1]
            ids, x, distance, merit = take(order[first], ids, x, distance, merit)
        self.x[ids], self.distance[ids], self.merit[ids] = x, distance, merit


class Referee:
    """Implements Labels, Scores and Gradients over one pool of rows, up to the attacker's knowledge."""

    def __init__(
        self,
        oracle: Oracle,
        *,
        x0: Tensor,
        goal: Goal,
        within: Bounded,
        clean: Tensor,
        already: Tensor,
        rule: Rule,
        knowledge: Access,
        draws: int,
    ) -> None:
        """clean: answers to x0; already: rows whose x0 reached the goal; draws: confirmations of a hit (0: none)."""
        self.oracle = oracle
        self._x0, self._goal, self._within = x0.clone(), goal, within
        self._rule, self._knowledge, self._draws = rule, knowledge, draws
        self._wins, self._near = _Shelf(self._x0), _Shelf(self._x0)
        if rule.needs_goal:
            for shelf in (self._wins, self._near):
                shelf.merit[already], shelf.distance[already] = torch.inf, 0
        else:  # the clean input is a candidate too
            self._wins.merit = goal.loss(goal.scores(clean)).nan_to_num(nan=-torch.inf)
        self._final = already.clone() if rule.needs_goal else torch.zeros_like(already)

    # -- what an attack may ask ---------------------------------------------------------------------

    def reached(self, x: Tensor, rows: Rows[Tensor, Any]) -> Tensor:
        return self._judge(x, rows.ids, self.oracle.ask(x, rows.ids))

    def best(self, rows: Rows[Tensor, Any]) -> Best[Tensor]:
        x, distance = take(rows.ids, self._near.x, self._near.distance)
        if self._rule.needs_goal:
            won, how_far = take(rows.ids, self._wins.x, self._wins.distance)
            x, distance = torch.where(wide(how_far < distance, x), won, x), torch.minimum(how_far, distance)
        return Best(x, distance)

    def survivors(self, rows: Rows[Tensor, W], *state: *Ts) -> tuple[Rows[Tensor, W], *Ts]:
        stay = self._open()[rows.ids]
        if bool(stay.all()):
            return rows, *state
        return take(stay, rows, *state)

    def scores(self, x: Tensor, rows: Rows[Tensor, Any]) -> Tensor:
        self._allow(Access.SCORES)
        answers = self.oracle.ask(x, rows.ids)
        self._judge(x, rows.ids, answers)
        return rows.goal.scores(answers.output)

    def gradient(self, x: Tensor, rows: Rows[Tensor, Any], loss: Loss) -> Reply:
        self._allow(Access.GRADIENTS)
        answers = self.oracle.ask(x, rows.ids, goal=rows.goal, loss=loss)
        return Reply(answers.gradient, answers.loss, self._judge(x, rows.ids, answers, self.oracle.rounds))

    # -- what the engine reads ----------------------------------------------------------------------

    def kept(self) -> Kept:
        """The kept candidates of the whole pool."""
        won = self._rule.won(self._wins.merit) & self._wins.distance.isfinite()
        return Kept(self._wins.x, won, self._wins.distance, self._open())

    # -- private ------------------------------------------------------------------------------------

    def _open(self) -> Tensor:
        gone = self.oracle.gone()
        return ~(gone | self._final) if self._rule.stop else ~gone

    def _allow(self, access: Access) -> None:
        if access > self._knowledge:
            raise AccessError(
                f"the attack asked for {access.name.lower()}, but the attacker's knowledge is "
                f"{self._knowledge.name.lower()}; choose an attack that needs no more, or declare more knowledge"
            )

    def _judge(self, x: Tensor, ids: Tensor, answers: Answers, rounded: bool = False) -> Tensor:
        """Which candidates reached the goal: (N,) bool. rounded: a win must be seen by the target's own scores too."""
        goal = self._goal.take(ids)
        reached = answers.answered & goal.reached(answers.output)
        kept = reached & ~self._final[ids] if self._rule.needs_goal else answers.answered
        if not bool(kept.any()):
            return reached
        x, output = x.detach(), answers.output
        if not bool(kept.all()):
            ids, x, output = take(kept, ids, x, output)
        whole = len(ids) == len(self._x0) and bool((ids[1:] > ids[:-1]).all())  # the pool as it is: nothing to pick
        within, x0 = (self._within, self._x0) if whole else take(ids, self._within, self._x0)
        distance = within.distance(x, x0)
        inside = within.contains(x, x0, distance)
        # A win is remembered as such; `best` needs besides only what reached the goal and is no win.
        other = ~inside if self._rule.needs_goal else reached[kept]
        if bool(other.any()):
            self._near.offer(*take(other, ids, x, distance, -distance))
        if bool(inside.any()):
            if not bool(inside.all()):
                ids, x, distance, output = take(inside, ids, x, distance, output)
            if rounded and self._rule.needs_goal:
                ids, x, distance, output = self._confirmed(ids, x, distance, output)
            goal = self._goal.take(ids)
            merit = self._rule.merit(self._shares(x, goal), distance, lambda: goal.loss(goal.scores(output)))
            self._wins.offer(ids, x, distance, merit)
            self._final[ids] = self._rule.final(self._wins.merit[ids])
        return reached

    def _confirmed(
        self, ids: Tensor, x: Tensor, distance: Tensor, output: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Those of the candidates that would be kept and reach the goal when the target is asked for scores alone."""
        hope = self._rule.merit(torch.ones_like(distance), distance, lambda: torch.zeros_like(distance))
        better = hope > self._wins.merit[ids]
        ids, x, distance, output = take(better, ids, x, distance, output)
        held = self.oracle.share(x, self._goal.take(ids), 1) > 0
        return take(held, ids, x, distance, output)

    def _shares(self, x: Tensor, goal: Goal) -> Tensor:
        """How often x reaches the goal on fresh draws of a stochastic target that no attack sees; else 1."""
        if not self._draws:
            return x.new_ones(len(x))
        return self.oracle.share(x, goal, self._draws)
