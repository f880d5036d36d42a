"""A detector that is served with the model: what it was calibrated to, and how often it refuses clean rows."""

from __future__ import annotations

from redan.evidence.base import LogPart, Part

__all__ = ["DetectorHead", "DetectorPart"]


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
