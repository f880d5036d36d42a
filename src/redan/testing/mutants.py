"""Broken and dishonest attacks: what the referee has to see through, and the conformance test has to name.

Each wraps an attack that is right, so that one fault at a time is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from redan.protocols import Attack, Ball, Best, Loss, Reply
from redan.rows import Goal, Rows

AnyAttack = Attack[Any, Any]


def tensors_of(value: object) -> list[Tensor]:
    """Every tensor that a value holds, in its fields or parts."""
    if isinstance(value, Tensor):
        return [value]
    if is_dataclass(value):
        return [tensor for part in fields(value) for tensor in tensors_of(getattr(value, part.name))]
    return [tensor for part in value for tensor in tensors_of(part)] if isinstance(value, tuple | list) else []


@dataclass(frozen=True, slots=True)
class Passed:
    """Hands every question on to the referee: the base of proxies that change one answer."""

    referee: Any

    def reached(self, x: Tensor, rows: Rows[Tensor, Any]) -> Tensor:
        found: Tensor = self.referee.reached(x, rows)
        return found

    def best(self, rows: Rows[Tensor, Any]) -> Best[Tensor]:
        found: Best[Tensor] = self.referee.best(rows)
        return found

    def survivors(self, rows: Rows[Tensor, Any], *state: Any) -> Any:
        return self.referee.survivors(rows, *state)

    def scores(self, x: Tensor, rows: Rows[Tensor, Any]) -> Tensor:
        found: Tensor = self.referee.scores(x, rows)
        return found

    def gradient(self, x: Tensor, rows: Rows[Tensor, Any], loss: Loss) -> Reply:
        found: Reply = self.referee.gradient(x, rows, loss)
        return found


@dataclass(frozen=True, slots=True)
class DoesNothing:
    """Asks nothing at all."""

    attack: AnyAttack

    @property
    def parts(self) -> tuple[AnyAttack, ...]:
        return (self.attack,)

    def __call__(self, referee: Any, rows: Rows[Tensor, Ball]) -> None:  # noqa: ARG002
        return


@dataclass(frozen=True, slots=True)
class HalfSteps:
    """Goes half as far as it may, in steps half as long."""

    attack: AnyAttack

    @property
    def parts(self) -> tuple[AnyAttack, ...]:
        return (self.attack,)

    def __call__(self, referee: Any, rows: Rows[Tensor, Ball]) -> None:
        self.attack(referee, replace(rows, within=rows.within.sized(rows.within.radius / 2)))


class _Negative(Passed):
    __slots__ = ()

    def scores(self, x: Tensor, rows: Rows[Tensor, Any]) -> Tensor:
        found: Tensor = -self.referee.scores(x, rows)
        return found

    def gradient(self, x: Tensor, rows: Rows[Tensor, Any], loss: Loss) -> Reply:
        gradient, value, reached = self.referee.gradient(x, rows, loss)
        return Reply(-gradient, -value, reached)


@dataclass(frozen=True, slots=True)
class FlippedSign:
    """Climbs down: gradients, losses and scores have the wrong sign."""

    attack: AnyAttack

    @property
    def parts(self) -> tuple[AnyAttack, ...]:
        return (self.attack,)

    def __call__(self, referee: Any, rows: Rows[Tensor, Ball]) -> None:
        self.attack(_Negative(referee), rows)


@dataclass(frozen=True, slots=True)
class LeavesTheSet:
    """Moves in a set `factor` times as large as it was given."""

    attack: AnyAttack
    factor: float = 3.0

    @property
    def parts(self) -> tuple[AnyAttack, ...]:
        return (self.attack,)

    def __call__(self, referee: Any, rows: Rows[Tensor, Ball]) -> None:
        self.attack(referee, replace(rows, within=rows.within.sized(rows.within.radius * self.factor)))


@dataclass(frozen=True, slots=True)
class _Anything:
    """A goal that every answer reaches."""

    inner: Goal

    def reached(self, output: Tensor) -> Tensor:
        return torch.ones(len(output), dtype=torch.bool, device=output.device)

    def right(self, output: Tensor) -> Tensor:
        return self.inner.right(output)

    def scores(self, output: Tensor) -> Tensor:
        return self.inner.scores(output)

    def loss(self, scores: Tensor) -> Tensor:
        return self.inner.loss(scores) + 1e6

    def ways(self, scores: Tensor, most: int) -> Sequence[Goal]:  # noqa: ARG002
        return [self]

    def take(self, index: Tensor) -> _Anything:
        return _Anything(self.inner.take(index))


@dataclass(frozen=True, slots=True)
class ClaimsSuccess:
    """Attacks nothing and claims that it won: false goals, false sets, other rows' inputs, answers written over."""

    attack: AnyAttack

    @property
    def parts(self) -> tuple[AnyAttack, ...]:
        return (self.attack,)

    def __call__(self, referee: Any, rows: Rows[Tensor, Ball]) -> Any:
        low, high = rows.within.bounds
        boundless = replace(rows, within=rows.within.sized(1e3 * (high - low)), goal=_Anything(rows.goal))
        referee.reached(rows.x0, boundless).fill_(True)
        referee.reached(rows.x0.roll(1, 0), boundless)  # another row's input, often of another class
        referee.reached(rows.x0 + 5 * (high - low), boundless)  # outside the box
        referee.reached(low + high - rows.x0, replace(boundless, x0=low + high - rows.x0))
        best = referee.best(boundless)
        best.distance.zero_()
        best.x.copy_(rows.x0)
        everyone = rows.ids.repeat_interleave(2)
        referee.reached(rows.x0.roll(1, 0).repeat_interleave(2, 0), replace(boundless, ids=everyone))
        shown = rows.x0.clone()
        referee.reached(shown, boundless)
        shown.copy_(low + high - shown)  # after it was judged
        return True


@dataclass(frozen=True, slots=True)
class EditsItsInputs:
    """Attacks, and writes into all that it was given: inputs, goal, ids, radii, random streams, answers."""

    attack: AnyAttack

    @property
    def parts(self) -> tuple[AnyAttack, ...]:
        return (self.attack,)

    def __call__(self, referee: Any, rows: Rows[Tensor, Ball]) -> None:
        self.attack(referee, rows)
        low, high = rows.within.bounds
        mirrored = low + high - rows.x0
        best = referee.best(rows)
        for tensor in tensors_of(best):
            tensor.zero_()
        rows.x0.copy_(mirrored)
        for tensor in tensors_of((rows.goal, rows.within)):
            tensor.add_(1).remainder_(2)
        referee.reached(rows.x0, rows)
        referee.reached(rows.x0.roll(1, 0), rows)
        rows.ids.copy_(rows.ids.flip(0))
        referee.reached(mirrored, rows)


@dataclass(frozen=True, slots=True)
class NotANumber:
    """Shows the referee NaN and infinities before it attacks."""

    attack: AnyAttack

    @property
    def parts(self) -> tuple[AnyAttack, ...]:
        return (self.attack,)

    def __call__(self, referee: Any, rows: Rows[Tensor, Ball]) -> None:
        for number in (torch.nan, torch.inf, -torch.inf):
            referee.reached(torch.full_like(rows.x0, number), rows)
            spoiled = rows.x0.clone()
            spoiled.flatten(1)[:, 0] = number
            referee.reached(spoiled, rows)
        self.attack(referee, rows)


MUTANTS: tuple[type[Any], ...] = (
    DoesNothing,
    HalfSteps,
    FlippedSign,
    LeavesTheSet,
    ClaimsSuccess,
    EditsItsInputs,
    NotANumber,
)
"""Every mutant, to be called with an attack."""
