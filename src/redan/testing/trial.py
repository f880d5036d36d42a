"""An attack on trial: run on a known victim, watched, and what holds of every run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from redan.engine.run import AttackResult, attack
from redan.protocols import Attack, Ball
from redan.testing.victims import LinearVictim
from redan.testing.watch import ConformanceError, Watched

MakeBall = Callable[[float | Tensor], Ball]

ROWS = 12
_ROUNDING = 1e-4  # of a distance


@dataclass(frozen=True, slots=True)
class Trial:
    """An attack on trial in one set. reach: see `check_attack`."""

    attack: Attack[Any, Any]
    ball: MakeBall
    seed: int
    reach: float | None

    @property
    def name(self) -> str:
        """The set's name."""
        return type(self.ball(1.0)).__name__

    def victim(self, **options: Any) -> LinearVictim:
        """A linear victim; the options are those of `LinearVictim.drawn`."""
        return LinearVictim.drawn(self.seed, **options)

    def run(self, victim: LinearVictim, x: Tensor, y: Tensor, radius: float | Tensor, **options: Any) -> AttackResult:
        """The attack on a victim, watched; raises ConformanceError for what it did out of order."""
        settings: dict[str, Any] = {"seed": self.seed, "bounds": victim.bounds, "workers": 1} | options
        model, tried = settings.pop("model", None), Watched(settings.pop("attack", self.attack))
        model = victim.module() if model is None else model
        result = attack(model, x, y, tried, within=self.ball(radius), **settings)
        if tried.problems:
            raise ConformanceError("; ".join(sorted(tried.problems)))
        return result

    def optimum(self, victim: LinearVictim, x: Tensor, y: Tensor) -> Tensor:
        """The smallest distance that wins, in this set's norm: (N,)."""
        unit = self.ball(1.0)
        return victim.optimum(x, y, lambda d: (d * unit.steepest(d)).sum(1)).to(x.dtype)


Problems = Iterator[str]


def ordinary(
    trial: Trial, victim: LinearVictim, count: int = ROWS, factor: float | Tensor = 1.5, **options: Any
) -> Problems:
    """What holds for every run: shapes, types, box and ball, distances, and nothing beats the optimum."""
    x, y = victim.rows(count, trial.seed)
    best = trial.optimum(victim, x, y)
    radius = best * factor
    kept = x.clone(), y.clone()
    result = trial.run(victim, x, y, radius, **options)
    if not (torch.equal(x, kept[0]) and torch.equal(y, kept[1])):
        yield "the caller's rows were written into"
    if result.adversarial.shape != x.shape or result.adversarial.dtype != x.dtype:
        yield f"{tuple(x.shape)} {x.dtype} became {tuple(result.adversarial.shape)} {result.adversarial.dtype}"
        return
    won = result.success
    inside = trial.ball(radius).inside(victim.bounds).contains(result.adversarial, x)
    if not bool(inside[won].all()):
        yield f"{int((~inside & won).sum())} kept inputs lie outside the set"
    if bool((won & (radius < best * (1 - _ROUNDING))).any()) or bool((result.distance < best * (1 - _ROUNDING)).any()):
        yield "an input nearer than the nearest wrong answer counts as a win: the victim was not asked fairly"
    if not torch.equal(result.adversarial[~won], x[~won]):
        yield "rows that were not broken do not keep their own input"
    if result.errors:
        yield f"rows ended in errors: {next(iter(result.errors.values()))}"
