"""What a copy is worth: how often it agrees with the model, where it differs most, how good it is, and its price.

The model is asked once about the rows on which copies are judged, and nobody is billed for it. Over several copies the
unit is the copy, not the row: their rates are those of `redan.evidence.victims.Victims`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from redan.answers import evaluate, micro_batch
from redan.errors import SettingError
from redan.evidence.statistics import Interval, check_share, interval
from redan.evidence.victims import Victims
from redan.extraction.customer import Customer, Spending, View
from redan.extraction.surrogates import Copy
from redan.extraction.transfer import Staged
from redan.targets import Target

__all__ = ["Bill", "Comparison", "Milestone", "Point", "Reference", "judged", "measured_curve", "milestones"]


@dataclass(frozen=True, slots=True)
class Reference:
    """A model's answers to rows, kept to judge copies by. Build it with `judged`."""

    x: Tensor = field(repr=False)
    """(N, …)"""
    probabilities: Tensor = field(repr=False)
    """(N, K) float64; NaN where the model did not answer."""
    answered: Tensor = field(repr=False)
    """(N,) bool"""
    y: Tensor | None = field(default=None, repr=False)
    """(N,) the right labels, where they are known."""

    def compare(self, copy: Target[Tensor]) -> Comparison:
        """The copy beside the model on the rows that the model answered."""
        x = self.x[self.answered].to(copy.device, copy.dtype)
        theirs = self.probabilities[self.answered]
        found = evaluate(copy, x, micro=micro_batch(x), classes=theirs.shape[1]).output.cpu().double().softmax(1)
        # Where the copy gives no answer, it agrees with nothing.
        found = found.nan_to_num(0.0)
        spoke = found.sum(1) > 0
        alike = (found.argmax(1) == theirs.argmax(1)) & spoke
        apart = torch.where(spoke, (found - theirs).abs().sum(1) / 2, 1.0)
        worst = int(apart.argmax()) if len(apart) else None
        right = theirs_right = None
        if self.y is not None:
            y = self.y[self.answered]
            right = int(((found.argmax(1) == y) & spoke).sum())
            theirs_right = int((theirs.argmax(1) == y).sum())
        return Comparison(
            n=len(x),
            agreeing=int(alike.sum()),
            errors=int((~self.answered).sum()),
            worst=0.0 if worst is None else float(apart[worst]),
            worst_row=None if worst is None else int(self.answered.nonzero()[worst]),
            mean_distance=float(apart.mean()) if len(apart) else 0.0,
            right=right,
            model_right=theirs_right,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A copy beside the model on one set of rows."""

    n: int
    """Rows that the model answered."""
    agreeing: int
    """Rows on which both answer the same label."""
    errors: int
    """Rows that the model did not answer; nothing is known of them."""
    worst: float
    """The largest total variation distance between both answers, ½·Σ|p - q|, in [0, 1]: the worst that was found."""
    worst_row: int | None
    """The row of it."""
    mean_distance: float
    """The mean of that distance."""
    right: int | None = None
    """Rows that the copy answers right, where the right labels are known."""
    model_right: int | None = None
    """The same of the model."""

    @property
    def fidelity(self) -> float:
        """The share of rows on which the labels agree; 0 of no rows."""
        return self.agreeing / self.n if self.n else 0.0

    @property
    def disagreeing(self) -> int:
        """Rows on which the labels differ."""
        return self.n - self.agreeing

    @property
    def accuracy(self) -> float | None:
        """The share of rows that the copy answers right."""
        return None if self.right is None or not self.n else self.right / self.n

    def fidelity_interval(self, confidence: float = 0.95) -> Interval:
        """Of this one copy, over rows; rows without an answer are left out."""
        return interval(self.agreeing, self.n, confidence)

    def accuracy_interval(self, confidence: float = 0.95) -> Interval | None:
        """Of this one copy, over rows."""
        return None if self.right is None else interval(self.right, self.n, confidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What queries cost, and what they save.

    usd_per_1000_queries: the API's price. queries_per_day: its rate limit for one account; None: there is none.
    """

    queries: int
    usd_per_1000_queries: float = 0.0
    queries_per_day: float | None = None

    def __post_init__(self) -> None:
        if self.queries < 0 or not self.usd_per_1000_queries >= 0:
            raise SettingError(
                f"a bill needs queries ≥ 0 and a price ≥ 0, got {self.queries}, {self.usd_per_1000_queries}"
            )
        if self.queries_per_day is not None and not self.queries_per_day > 0:
            raise SettingError(f"a rate limit must be above 0 queries a day, got {self.queries_per_day}")

    @property
    def spent(self) -> float:
        """USD that the queries cost."""
        return self.queries * self.usd_per_1000_queries / 1000

    def saved(self, answers: int) -> float:
        """USD that so many answers of the copy save, after what it cost: negative until it has paid for itself."""
        return (answers - self.queries) * self.usd_per_1000_queries / 1000

    @property
    def days(self) -> float | None:
        """Days that the queries take at the rate limit; None without one."""
        return None if self.queries_per_day is None else self.queries / self.queries_per_day


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What one budget bought, by several copies that differ in their seeds."""

    queries: int
    """The budget."""
    paid: tuple[int, ...]
    """Answers that were paid for of it, a copy."""
    comparisons: Mapping[str, tuple[Comparison, ...]]
    """By the name of the rows, a copy."""

    def fidelity(self, name: str) -> Victims:
        """Agreement on rows by name; the unit is the copy. Copies of no rows are errors."""
        return _over([each.fidelity if each.n else None for each in self.comparisons[name]], self._rows(name), name)

    def accuracy(self, name: str) -> Victims | None:
        """The copies' accuracy on rows by name; None where the right labels are not known."""
        rates = [each.accuracy for each in self.comparisons[name]]
        return None if all(rate is None for rate in rates) else _over(rates, self._rows(name), name)

    def worst(self, name: str) -> float:
        """The largest total variation distance that was found, over rows and copies."""
        return max(each.worst for each in self.comparisons[name])

    def _rows(self, name: str) -> int:
        return max(1, min(each.n for each in self.comparisons[name]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Milestone:
    """What it took to agree so often."""

    share: float
    """The agreement, in [0, 1]."""
    queries: int | None
    """The least budget measured at which the mean over copies reached it; None: none did."""
    shown: int | None
    """The least budget at which it is shown at the confidence asked; None: at none."""


_ROUNDING = 1e-12  # of a mean of rates


def judged(target: Target[Tensor], x: Tensor, y: Tensor | None = None) -> Reference:
    """The model's answers to rows x (N, …), asked once and billed to nobody. y: (N,) the right labels."""
    rows = x.to(target.device, target.dtype)
    answers = evaluate(target, rows, micro=micro_batch(rows), classes=target.classes)
    return Reference(x.cpu(), answers.output.cpu().double().softmax(1), answers.answered.cpu(), y)


def measured_curve(
    extractor: Staged,
    target: Target[Tensor],
    references: Mapping[str, Reference],
    *,
    classes: int,
    points: Sequence[int],
    view: View,
    spending: Spending,
    seeds: Sequence[int] = (0,),
    kept: Callable[[int, int, Copy], None] | None = None,
) -> tuple[Point, ...]:
    """What each budget bought, from one run a seed: queries of smaller budgets are the first of larger ones.

    references: what copies are judged by, by name. spending: of each run's customer. kept: is given each copy with its
    budget and its seed, to attack or to save.
    """
    paid: dict[int, list[int]] = {point: [] for point in points}
    found: dict[int, dict[str, list[Comparison]]] = {point: {name: [] for name in references} for point in points}
    for seed in seeds:
        customer = Customer(target, spending, classes=classes, view=view)
        last: tuple[Copy, dict[str, Comparison]] | None = None
        for stage in extractor.curve(customer, points=points, seed=seed):
            if last is None or last[0] is not stage.copy:
                last = stage.copy, {name: each.compare(stage.copy.target) for name, each in references.items()}
            paid[stage.queries].append(stage.paid)
            for name, comparison in last[1].items():
                found[stage.queries][name].append(comparison)
            if kept is not None:
                kept(stage.queries, seed, stage.copy)
    return tuple(
        Point(
            queries=point,
            paid=tuple(paid[point]),
            comparisons={name: tuple(each) for name, each in found[point].items()},
        )
        for point in points
    )


def milestones(
    curve: Sequence[Point],
    name: str,
    shares: Sequence[float] = (0.9, 0.95, 0.99),
    *,
    confidence: float = 0.95,
) -> tuple[Milestone, ...]:
    """The queries to each agreement on rows by name, as the points of a curve tell them.

    Of several copies it is shown by their mean's lower bound; of one copy by that of its rows, which says nothing of
    other seeds.
    """
    check_share("confidence", confidence)
    found = []
    for share in shares:
        reached = (point.queries for point in curve if point.fidelity(name).value >= share - _ROUNDING)
        shown = (point.queries for point in curve if _lower(point, name, 1 - confidence) >= share)
        found.append(Milestone(share=share, queries=min(reached, default=None), shown=min(shown, default=None)))
    return tuple(found)


def _lower(point: Point, name: str, level: float) -> float:
    comparisons = point.comparisons[name]
    if len(comparisons) > 1:
        return point.fidelity(name).lower(level)
    return comparisons[0].fidelity_interval(1 - 2 * level).low if level < 0.5 and comparisons[0].n else 0.0


def _over(rates: Sequence[float | None], rows: int, name: str) -> Victims:
    known = tuple(rate for rate in rates if rate is not None and math.isfinite(rate))
    return Victims(rates=known, rows=rows, errors=len(rates) - len(known), name=name)
