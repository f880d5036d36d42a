"""What an attack does while it runs: a referee that hands everything on and writes down what is out of order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from redan.errors import RedanError
from redan.protocols import Attack, Ball, Best, Cost, Loss, Reply, cost
from redan.rows import Rows
from redan.testing.mutants import tensors_of

_IDLE = 6_000  # questions in a row that cannot tell an attack anything new
_ENDLESS = 20_000  # questions of one call


class ConformanceError(RedanError):
    """An attack that breaks the contract between attacks and the referee; each line names a failed check."""


class EndlessError(ConformanceError):
    """An attack that was stopped because it would not end."""


class _WatchedReferee:
    """The one that counts: hands every question on."""

    def __init__(self, referee: Any, rows: Rows[Tensor, Ball], problems: set[str]) -> None:
        self._referee, self._rows, self._problems = referee, rows, problems
        self._closed = torch.zeros_like(rows.ids, dtype=torch.bool)  # at the last question
        self._idle = self._asked = 0

    def _look(self, x: Tensor, rows: Rows[Tensor, Any]) -> None:
        clean = self._rows.x0
        if x.shape != (len(rows), *clean.shape[1:]):
            raise ConformanceError(
                f"the attack showed inputs {tuple(x.shape)} for {len(rows)} rows of {tuple(clean.shape[1:])}; "
                "x[i] must be a candidate for the row rows.ids[i]: take x along with the rows"
            )
        if x.dtype != clean.dtype:
            raise ConformanceError(f"candidates are {x.dtype}, the rows {clean.dtype}; make new tensors like rows.x0")
        if not bool(x.isfinite().all()):
            self._problems.add("candidates hold NaN or infinity: find the division by 0, or the empty sum")
        (left,) = self._referee.survivors(self._rows)
        closed = ~torch.isin(self._rows.ids, left.ids)
        asked = torch.isin(self._rows.ids, rows.ids)
        if bool((closed & self._closed & asked).any()):
            self._problems.add("rows were asked again after they were decided: call referee.survivors in each round")
        self._closed = closed
        self._wait(bool((asked & ~closed).any()))

    def _wait(self, useful: bool) -> None:
        self._idle = 0 if useful else self._idle + 1
        self._asked += 1
        if self._idle > _IDLE:
            raise EndlessError("the attack goes on although no row is left; end its loop when len(rows) is 0")
        if self._asked > _ENDLESS:
            raise EndlessError(
                f"the attack asked {_ENDLESS} times and had not ended; give it a number of steps, and try it with few"
            )

    def reached(self, x: Tensor, rows: Rows[Tensor, Any]) -> Tensor:
        self._look(x, rows)
        found: Tensor = self._referee.reached(x, rows)
        return found

    def best(self, rows: Rows[Tensor, Any]) -> Best[Tensor]:
        self._wait(len(rows) > 0)
        found: Best[Tensor] = self._referee.best(rows)
        return found

    def survivors(self, rows: Rows[Tensor, Any], *state: Any) -> Any:
        found = self._referee.survivors(rows, *state)
        self._wait(len(found[0]) > 0)
        return found

    def scores(self, x: Tensor, rows: Rows[Tensor, Any]) -> Tensor:
        self._look(x, rows)
        found: Tensor = self._referee.scores(x, rows)
        return found

    def gradient(self, x: Tensor, rows: Rows[Tensor, Any], loss: Loss) -> Reply:
        self._look(x, rows)
        found: Reply = self._referee.gradient(x, rows, loss)
        return found


class Watched:
    """An attack that is itself, watched. `problems` fills while it runs."""

    def __init__(self, attack: Attack[Any, Any]) -> None:
        self.attack = attack
        self.problems: set[str] = set()

    @property
    def parts(self) -> tuple[Attack[Any, Any], ...]:
        return (self.attack,)

    def cost(self, classes: int) -> Cost | None:
        return cost(self.attack, classes)

    def __call__(self, referee: Any, rows: Rows[Tensor, Ball]) -> None:
        given = tensors_of((rows.ids, rows.x0, rows.goal, rows.within, rows.starts))
        before = [tensor.clone() for tensor in given]
        asked: Callable[..., object] = self.attack
        answer = asked(_WatchedReferee(referee, rows, self.problems), rows)
        if answer is not None:
            self.problems.add("the attack returned something: the referee saw all it did, so it returns nothing")
        if not all(torch.equal(now, then) for now, then in zip(given, before, strict=True)):
            self.problems.add("the attack wrote into the rows it was given: work on copies of x0, goal and radius")
