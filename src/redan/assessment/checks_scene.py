"""What a preflight check looks at and what it says: `Scene`, `Budget`, `Finding`, `Level`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from torch import Tensor

from redan.goals import Aim, Untargeted
from redan.targets import Target

__all__ = ["Budget", "Finding", "Level", "Requirement", "Scene"]


class Level(StrEnum):
    """What happens when a check fires: nothing is attacked; redan goes on another way; the report says so."""

    REFUSE = "refuse"
    SWITCH = "switch"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. status: pass, or the level it fired at."""

    check: str
    level: Level
    fired: bool
    detail: str
    remedy: str = ""

    @property
    def status(self) -> str:
        return str(self.level) if self.fired else "pass"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What the preflight may spend. Above a floor of about 30 forward passes of one row it buys more rows.

    seconds: on this machine. queries: inputs shown to the model, for a remote one; None is unlimited. clock: seconds
    that have passed, from any moment on.
    """

    seconds: float = 5.0
    queries: int | None = None
    clock: Callable[[], float] = field(default=time.perf_counter, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """A rate that the rows have to show: at least `at_least`, at this confidence."""

    at_least: float
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class Scene:
    """The target, the drawn rows, and what their owner says of them.

    x: (N, …); y: (N,), or (N, L) for labels. aim: what wants any wrong answer, and so knows the task. expected: clean
    accuracy and tolerance, or None. image: whether rows are pictures. required: the highest rate that the rows have to
    show, or None. radius: the smallest of the attackers' radii in L∞, or None.
    """

    target: Target[Tensor]
    x: Tensor
    y: Tensor
    aim: Aim = field(default_factory=Untargeted)
    expected: tuple[float, float] | None = None
    image: bool = False
    required: Requirement | None = None
    radius: float | None = None
    budget: Budget = field(default_factory=Budget)
