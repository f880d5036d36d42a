"""A detector that is served with the model: what it was calibrated to, and how often it refuses clean rows."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from redan.evidence.base import LogPart, Part
from redan.evidence.statistics import interval

__all__ = ["DetectorHead", "DetectorPart", "Refusals", "over_rate"]

Answer: TypeAlias = int | float | list[int]


class DetectorHead(LogPart):
    """A detector as it was when the run began. An answer of class K, where there are K classes, is a refusal."""

    name: str
    """In words, with its settings."""
    rate: float
    """Of clean rows refused, at the most, as the threat model states it."""
    threshold: float
    """Of suspicion, in the detector's own unit: an input above it is refused."""
    rows: int
    """Trusted rows that the threshold was taken from."""
    fit: int
    """Training rows that it was fit to; 0 for a detector that is not fit."""


class DetectorPart(Part):
    """What a report says of a detector."""

    name: str
    """In words, with its settings."""
    false_positive_rate: float
    """Of clean rows refused, at the most, as the threat model states it."""
    threshold: float
    """Of suspicion, in the detector's own unit: an input above it is refused."""
    calibrated_on: int
    """Trusted rows that the threshold was taken from."""
    fit_to: int
    """Training rows that it was fit to; 0 for a detector that is not fit."""
    refused: int
    """Clean test rows that are refused; they count as wrong."""
    rows: int
    """Clean test rows that were answered, or refused."""
    low: float
    """Bounds of the rate of refused clean rows, exact, at the run's confidence."""
    high: float
    exceeded: bool
    """Whether the rate that was measured is shown to be above the one that is stated."""

    @property
    def measured(self) -> float:
        """The share of clean rows refused."""
        return self.refused / self.rows if self.rows else 0.0


class Refusals:
    """Which clean rows a detector refused, row by row; any attacker's run tells it, and the last one counts."""

    def __init__(self, head: DetectorHead, rows: int, classes: int) -> None:
        self.head, self._classes = head, classes
        self._asked, self._refused = np.zeros(rows, dtype=bool), np.zeros(rows, dtype=bool)

    def see(self, row: int, before: Answer | None) -> None:
        """Count what a clean row was answered; None: nothing."""
        self._asked[row], self._refused[row] = before is not None, before == self._classes

    def part(self, rows: int, confidence: float) -> DetectorPart:
        """What is known of the first rows."""
        k, n = int(self._refused[:rows].sum()), int(self._asked[:rows].sum())
        found = interval(k, n, confidence) if n else None
        return DetectorPart(
            name=self.head.name,
            false_positive_rate=self.head.rate,
            threshold=self.head.threshold,
            calibrated_on=self.head.rows,
            fit_to=self.head.fit,
            refused=k,
            rows=n,
            low=0.0 if found is None else found.low,
            high=1.0 if found is None else found.high,
            exceeded=found is not None and found.low > self.head.rate,
        )


def over_rate(part: DetectorPart) -> str:
    """Why robust accuracy at the stated rate of false positives is not what was measured."""
    between = f"{100 * part.low:.1f} to {100 * part.high:.1f} %"
    return (
        f"the detector refuses {part.refused:,} of {part.rows:,} clean rows ({between}), more than the "
        f"{100 * part.false_positive_rate:g} % that are stated, so these numbers hold at another rate"
    )
