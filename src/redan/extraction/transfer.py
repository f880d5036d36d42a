"""The transfer set: rows that were asked and what was answered, with the price of each, and copies made of a part.

A sequence of queries does not depend on where copies are made, so the copy of a smaller budget is that of the first
rows of a larger one, and a whole curve is paid for once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from redan.errors import SettingError
from redan.extraction.customer import Answer, Customer, Shows, View, named
from redan.extraction.label_only import linear_copy
from redan.extraction.pools import Pool
from redan.extraction.surrogates import Bounds, Copy, Shape, Trainer, in_box
from redan.targets import Target
from redan.targets.torch import TorchTarget

__all__ = ["Bought", "SoftTrainer", "Stage", "Staged", "Teaching", "TransferSet", "shares"]

_IDLE = 20  # blocks of known rows in a row after which a pool without end has nothing new


@runtime_checkable
class SoftTrainer(Trainer, Protocol):
    """A trainer that learns from probabilities too."""

    def shown(self, x: Tensor, shown: Tensor, seed: int) -> Target[Tensor]:
        """A model of rows x (N, …), float64, and what was shown of their probabilities (N, K)."""
        ...


class Stage(NamedTuple):
    """The copy that so many answers make."""

    queries: int
    """The budget."""
    paid: int
    """The answers that were paid for of it; fewer where rows or money ended before."""
    copy: Copy


class Staged(Protocol):
    """An extractor that makes copies of growing parts of its queries."""

    def curve(self, customer: Customer, *, points: Sequence[int], seed: int) -> tuple[Stage, ...]:
        """A copy a point, each of the first so many answers of one sequence of queries."""
        ...


class Bought(NamedTuple):
    """What one purchase brought."""

    at: Tensor
    """(M,) positions of the rows that were asked, among those that were wanted."""
    x: Tensor
    """(M, …) float64."""
    answer: Answer


@dataclass(slots=True, eq=False)
class TransferSet:
    """Rows asked of a customer, in order, each once. queries: answers to pay for at the most."""

    customer: Customer
    queries: int
    shape: Shape
    bounds: Bounds
    _x: list[Tensor] = field(default_factory=list, repr=False)
    _answers: list[Answer] = field(default_factory=list, repr=False)
    _costs: list[Tensor] = field(default_factory=list, repr=False)
    _names: set[str] = field(default_factory=set, repr=False)
    paid: int = 0
    """Answers paid for so far."""

    @property
    def left(self) -> int:
        """Answers that can still be paid for."""
        return int(min(self.queries - self.paid, self.customer.left))

    def buy(self, x: Tensor) -> Bought:
        """Ask those of rows x (N, …) that are not in the set, up to the first that cannot be paid for."""
        rows = in_box(x, self.bounds)
        fresh = []
        for place, name in enumerate(named(rows)):
            if name not in self._names:
                self._names.add(name)
                fresh.append(place)
        at = torch.tensor(fresh, dtype=torch.int64)
        cost = ~self.customer.knows(rows[at])
        affordable = int((cost.cumsum(0) <= self.left).sum())
        at, cost = at[:affordable], cost[:affordable]
        answer = self.customer.ask(rows[at])
        self._x.append(rows[at])
        self._answers.append(answer)
        self._costs.append(cost)
        self.paid += int(cost.sum())
        return Bought(at, rows[at], answer)

    def fill(self, blocks: Iterable[Tensor]) -> None:
        """Buy rows, block after block, until money or new rows end."""
        idle = 0
        for block in blocks:
            if not self.left or idle == _IDLE:
                break
            idle = 0 if len(self.buy(block).at) else idle + 1

    def first(self, queries: int) -> tuple[Tensor, Answer, int]:
        """The answered rows that so many answers bought (M, …), their answers, and the number of answers paid for."""
        if not self._x:
            nothing = torch.empty(0, self.customer.classes, dtype=torch.float64)
            none = Answer(nothing, torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.bool))
            return torch.empty(0, *self.shape, dtype=torch.float64), none, 0
        paid = torch.cat(self._costs).cumsum(0)
        count = int((paid <= queries).sum())
        shown, labels, answered = (torch.cat(parts)[:count] for parts in zip(*self._answers, strict=True))
        x = torch.cat(self._x)[:count]
        spent = int(paid[count - 1]) if count else 0
        return x[answered], Answer(shown[answered], labels[answered], answered[answered]), spent

    def stages(self, teaching: Teaching, points: Sequence[int], seed: int) -> tuple[Stage, ...]:
        """A copy a point; the last again where nothing more was bought. Raises SettingError for other points."""
        if not points or list(points) != sorted(set(points)) or points[0] < 1 or points[-1] > self.queries:
            raise SettingError(f"points must rise from 1 to {self.queries} (queries) at the most, got {tuple(points)}")
        found: list[Stage] = []
        rows = -1
        for point in points:
            x, answer, paid = self.first(point)
            copy = found[-1].copy if len(x) == rows else teaching.copy(x, answer, self.customer, seed)
            rows = len(x)
            found.append(Stage(point, paid, copy))
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """How a copy is made of answers. soft: of the probabilities shown, or of the labels alone. balanced: rows of rare
    labels are repeated until all labels are as frequent as the most frequent one.

    Raises SettingError where a trainer of labels shall learn from probabilities, or trains for another box.
    """

    trainer: Trainer
    shape: Shape
    bounds: Bounds
    soft: bool
    balanced: bool = False

    def __post_init__(self) -> None:
        if self.soft and not isinstance(self.trainer, SoftTrainer):
            raise SettingError(
                f"{type(self.trainer).__name__} learns from labels alone; set soft=False, or give it a method `shown`"
            )
        theirs = getattr(self.trainer, "bounds", self.bounds)
        if tuple(theirs) != tuple(self.bounds):
            raise SettingError(f"the trainer's bounds are {theirs}, and the rows' {self.bounds}; give both the same")

    @classmethod
    def of(cls, trainer: Trainer, pool: Pool, *, soft: bool, balanced: bool = False) -> Teaching:
        """Of a pool's rows."""
        return cls(trainer=trainer, shape=pool.shape, bounds=pool.bounds, soft=soft, balanced=balanced)

    def copy(self, x: Tensor, answer: Answer, customer: Customer, seed: int) -> Copy:
        """The copy that rows x (N, …), all answered, make. Of one label alone, or of nothing, it answers that label."""
        seen = sorted(set(answer.labels.tolist()))
        alone = len(seen) < 2 and (not self.soft or not len(x) or customer.view.shows is Shows.LABELS)
        if alone:
            label = torch.eye(customer.classes)[seen[0] if seen else 0]
            return linear_copy(torch.zeros(customer.classes, math.prod(self.shape)), label, self.shape, self.bounds)
        at = _balance(answer.labels) if self.balanced else torch.arange(len(x))
        if self.soft and isinstance(self.trainer, SoftTrainer):
            target = self.trainer.shown(x[at], shares(answer.shown[at], customer.view), seed)
        else:
            target = self.trainer(x[at], answer.labels[at], customer.classes, seed)
        return Copy(target, dict(target.module.state_dict()) if isinstance(target, TorchTarget) else {})


def shares(shown: Tensor, view: View) -> Tensor:
    """What is shown (N, K) as probabilities, or as much as is told of them."""
    return shown.softmax(1) if view.shows is Shows.RAW else shown.clamp(0.0, 1.0)


def _balance(labels: Tensor) -> Tensor:
    """Positions of all rows, with those of rare labels repeated."""
    places = [(labels == label).nonzero().flatten() for label in torch.unique(labels)]
    most = max(len(place) for place in places)
    return torch.cat([place[torch.arange(most) % len(place)] for place in places])
