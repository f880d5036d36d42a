"""The fast cascade: what AutoAttack breaks, and more, for a small part of its passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from redan.errors import NoGradientError
from redan.evasion.cascade import Restarts, Sweep
from redan.evasion.descent import Descent
from redan.evasion.fmn import FMN, Start
from redan.evasion.square import Square, SquareL2
from redan.losses import gap, margin
from redan.perturbations.norms import L2, Linf
from redan.protocols import Attack, Ball, Cost, Gradients, cost, in_turn
from redan.rows import Rows, take

_FORETOLD = 0.25  # of what a row's margin did: below it its gradients mislead
_BLIND = 0.0  # share left of rows whose margin rose in no step, and of no other
_MORE = 5  # times the queries of Square where gradients say nothing

_Any: TypeAlias = Attack[Any, Any]


class Stage(NamedTuple):
    """An attack on the rows of whose margin at most this share was left."""

    attack: _Any
    share: float


@dataclass(frozen=True, slots=True)
class Closing:
    """Attacks on every row, a climb that tells how near each row came, and attacks on the rows that came near.

    How near is the share of the clean margin that is left at the best point of the climb. On tuning rows of five
    networks, those that only AutoAttack's later parts broke had less than a quarter of it left, most of them less than
    a tenth; half of the rows that stood had over three quarters (trained by PGD and TRADES) or three tenths (FGSM-RS).
    A row whose margin did not rise in any step of the climb (its gradients may be masked) counts as the nearest of all.
    No row's turn depends on other rows.

    unguided: what rows are attacked by whose answers have no gradient and, instead of the stages, those whose gradients
    foretold little of what their margins did in the climb (`_FORETOLD`). On tuning rows of a k-WTA network gradients
    foretold 0 to 0.3 of it, on those of six others 0.43 and more.
    """

    opening: tuple[_Any, ...]
    climb: Descent  # on the margin
    stages: tuple[Stage, ...]
    unguided: _Any

    @property
    def parts(self) -> tuple[_Any, ...]:
        return (*self.opening, self.climb, *(stage.attack for stage in self.stages), self.unguided)

    def cost(self, classes: int) -> Cost:
        """Of the dearest row: one that goes through every stage, or one that is unguided."""
        first = Cost(1, 0) + _sum((*self.opening, self.climb), classes)
        staged, alone = (_sum(part, classes) for part in ([stage.attack for stage in self.stages], [self.unguided]))
        return first + Cost(max(staged.queries, alone.queries), max(staged.backwards, alone.backwards))

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        try:
            self._guided(referee, rows)
        except NoGradientError:
            self.unguided(referee, rows)

    def _guided(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        for name, attack in in_turn(self.opening):
            (rows,) = referee.survivors(rows)
            attack(referee, rows.keyed(name))
        (rows,) = referee.survivors(rows)
        rows, course = self.climb.climbed(referee, rows.keyed("climb"))
        clean = rows.goal.loss(referee.scores(rows.x0, rows))
        lost = course.promised < _FORETOLD * course.moved
        (misled,) = take(lost, rows)
        if len(misled):
            self.unguided(referee, misled.keyed("misled"))
        left = torch.where((course.highest > course.first) & (clean < 0), course.highest / clean, 0)
        rows, left = take(~lost, rows, left)
        named = in_turn([stage.attack for stage in self.stages])
        for (name, attack), stage in zip(named, self.stages, strict=True):
            rows, left = referee.survivors(rows, left)
            (near,) = take(left <= stage.share, rows)
            if len(near):
                attack(referee, near.keyed(f"near {name}"))


def _sum(attacks: Sequence[_Any], classes: int) -> Cost:
    """What they cost together."""
    return sum((cost(attack, classes) or Cost(0, 0) for attack in attacks), Cost(0, 0))


def _pull(steps: int, targets: int) -> _Any:
    """A climb toward each of the likeliest wrong classes, from a random start."""
    return Sweep(Descent(steps=steps, random_start=True, loss=gap), targets=targets)


def _far(steps: int) -> FMN:
    """A search for the minimum norm from a far start; its steps are short, since it comes through unknown land."""
    return FMN(steps=steps, rate=0.3, start=Start.FAR)


_PROBE = Descent(steps=20, random_start=True, loss=margin)


@dataclass(frozen=True, slots=True, kw_only=True)
class FastCascade:
    """Short climbs in L∞: one from the clean input, one from a random start, and more on the rows that come near.

    thorough: whether rows that came near are attacked by all that follows; without, it is for a quick answer. queries:
    of Square, on rows whose gradients are zero; when thorough, twice as many on them and on the nearest rows. Five
    times as many are for rows whose gradients are missing or misleading. Rows that lag behind are left
    (`Square.discard`).

    >>> FastCascade(thorough=False).cost(10).backwards
    140
    """

    thorough: bool = True
    queries: int = 1000

    @property
    def parts(self) -> tuple[_Any, ...]:
        return (self._closing,)

    @property
    def _closing(self) -> Closing:
        unguided = Square(queries=_MORE * self.queries, discard=True)
        return Closing((Descent(steps=10),), _PROBE, self._whole if self.thorough else self._short, unguided)

    @property
    def _short(self) -> tuple[Stage, ...]:
        return (
            Stage(Descent(steps=20, random_start=True), 0.5),
            Stage(_pull(20, 3), 0.3),
            Stage(Descent(steps=30, random_start=True), 0.2),
            Stage(Square(queries=self.queries, discard=True), _BLIND),
        )

    @property
    def _whole(self) -> tuple[Stage, ...]:
        again = Descent(steps=50, random_start=True)
        return (
            Stage(Descent(steps=20, random_start=True), 0.6),
            Stage(_pull(20, 3), 0.45),
            Stage(Descent(steps=40, random_start=True), 0.35),
            Stage(_pull(10, 9), 0.3),
            Stage(_pull(50, 2), 0.15),
            Stage(replace(again, loss=margin), 0.2),
            Stage(Restarts(again, 2), 0.2),
            Stage(Square(queries=2 * self.queries, discard=True), 0.2),
        )

    def cost(self, classes: int) -> Cost:
        return self._closing.cost(classes)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Linf]) -> None:
        self._closing(referee, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class FastCascadeL2:
    """In L2: a short climb, searches for the minimum norm from far starts, and more on the rows that come near.

    How near a climb came says less here, for what breaks a row may come from far: searches go on for every row.
    thorough and queries: as in `FastCascade`, but that Square has only the rows whose gradients say nothing.

    >>> FastCascadeL2(thorough=False).cost(10).backwards
    160
    """

    thorough: bool = True
    queries: int = 1000

    @property
    def parts(self) -> tuple[_Any, ...]:
        return (self._closing,)

    @property
    def _closing(self) -> Closing:
        further = (FMN(steps=20, rate=0.3, start=Start.OPPOSITE), _far(40)) if self.thorough else (_far(30),)
        unguided = SquareL2(queries=_MORE * self.queries, discard=True)
        opening = Descent(steps=10), _far(20), *further
        return Closing(opening, _PROBE, self._whole if self.thorough else self._short, unguided)

    @property
    def _short(self) -> tuple[Stage, ...]:
        return (
            Stage(Descent(steps=20, random_start=True), 0.7),
            Stage(Restarts(_far(30), 2), 1.0),
            Stage(SquareL2(queries=self.queries, discard=True), _BLIND),
        )

    @property
    def _whole(self) -> tuple[Stage, ...]:
        return (
            Stage(FMN(steps=20, start=Start.FAR), 1.0),
            Stage(Descent(steps=30, random_start=True), 0.7),
            Stage(Restarts(_far(40), 3), 1.0),
            Stage(Sweep(_far(20), targets=3), 0.5),
            Stage(_pull(10, 3), 0.15),
            Stage(SquareL2(queries=self.queries), _BLIND),  # on tuning rows it broke no other
        )

    def cost(self, classes: int) -> Cost:
        return self._closing.cost(classes)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, L2]) -> None:
        self._closing(referee, rows)
