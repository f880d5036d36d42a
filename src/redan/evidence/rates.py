"""What is judged: k of n from an attacker's counts, with every row of which too little is known set apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from redan.evidence.report import AttackerPart, Counts
from redan.evidence.requirement import Metric

__all__ = ["RATES", "Count", "Rate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """k of n rows, and how many more it would be if every open row were a success.

    >>> Count(k=90, n=100, errors=4, undecided=1).most
    95
    """

    k: int
    n: int
    errors: int = 0
    """Open rows on which the model failed."""
    undecided: int = 0
    """Open rows that were cut off or never reached."""
    unproven: int = 0
    """Open rows that have no certificate, and are not shown to break."""
    held: tuple[int, ...] | None = None
    """A stochastic model's judged rows by how often they held, in equal steps from 0 to 1."""
    mean: float | None = None
    """Of n victims' rates, where no k of n says it."""
    name: str | None = None
    """The class, or the attack, where they are counted one by one."""

    @property
    def open(self) -> int:
        """Rows that may be successes or not."""
        return self.errors + self.undecided + self.unproven

    @property
    def least(self) -> float:
        """Successes if no open row is one; a stochastic model's row counts as the mean of its answers."""
        if self.held is None:
            return self.k
        return sum(i * rows for i, rows in enumerate(self.held)) / (len(self.held) - 1)

    @property
    def most(self) -> float:
        """Successes if every open row is one."""
        return self.least + self.open

    @property
    def value(self) -> float:
        """The observed rate: open rows are no successes. Of no rows it is 1, so that none looks worse than some."""
        if self.mean is not None:
            return self.mean
        return self.least / self.n if self.n else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """The lowest of some rates: a single one, or one of each class."""

    counts: tuple[Count, ...]
    drawn: int
    """Rows drawn to get all of them."""

    @property
    def worst(self) -> Count:
        """The count with the lowest observed rate."""
        return min(self.counts, key=lambda count: count.value)

    @property
    def empty(self) -> tuple[str, ...]:
        """Classes of which no row was drawn, in words."""
        return tuple(count.name or "" for count in self.counts if not count.n)


def _clean(_: AttackerPart, c: Counts) -> Rate | str:
    count = Count(k=c.right, n=c.drawn, errors=c.unanswered, undecided=c.missing)
    return Rate(counts=(count,), drawn=c.drawn)


def _robust(_: AttackerPart, c: Counts) -> Rate | str:
    held = None if c.held is None else tuple(c.held)
    count = Count(k=c.robust, n=c.drawn, errors=c.errors, undecided=c.undecided + c.missing, held=held)
    return Rate(counts=(count,), drawn=c.drawn)


def _success(_: AttackerPart, c: Counts) -> Rate | str:
    n = c.right + c.unanswered + c.missing  # who was not answered may have been right
    count = Count(k=c.broken, n=n, errors=c.errors, undecided=c.undecided + c.missing)
    return Rate(counts=(count,), drawn=c.drawn)


def _certified(a: AttackerPart, _: Counts) -> Rate | str:
    found = a.certified
    if found is None:
        return f"{Metric.CERTIFIED_ACCURACY} was not asked for in this run, so nothing was proven"
    if found.contradicted:
        return (
            f"{found.contradicted} certified rows were answered wrong or broken by an attack: proofs and attacks "
            "contradict each other, so neither is believed"
        )
    if found.reason is not None:
        return found.reason
    count = Count(k=found.certified, n=found.drawn, undecided=found.missing, unproven=found.open)
    return Rate(counts=(count,), drawn=found.drawn)


def _worst_class(a: AttackerPart, c: Counts) -> Rate | str:
    if c.held is not None:
        return f"{Metric.WORST_CLASS_ROBUST_ACCURACY} of a stochastic model is not built yet"
    if not a.by_class:
        return "the rows were not counted by class"
    counts = (
        Count(k=part.robust, n=part.drawn, errors=part.errors, undecided=part.undecided, name=f"class {part.name}")
        for part in a.by_class
    )
    return Rate(counts=tuple(counts), drawn=c.drawn)


RATES: dict[Metric, Callable[[AttackerPart, Counts], Rate | str]] = {
    Metric.CLEAN_ACCURACY: _clean,
    Metric.ROBUST_ACCURACY: _robust,
    Metric.WORST_CLASS_ROBUST_ACCURACY: _worst_class,
    Metric.ATTACK_SUCCESS_RATE: _success,
    Metric.CERTIFIED_ACCURACY: _certified,
}
"""How each metric is counted, or why it cannot be."""
