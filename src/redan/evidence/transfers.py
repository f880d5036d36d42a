"""What inputs that were found on one model of an ensemble do to the others, and to the whole."""

from __future__ import annotations

from typing import Literal

from redan.evidence.base import LogPart, Part
from redan.evidence.statistics import interval

__all__ = ["WHOLE", "TransferLine", "TransferPart", "TransferRate", "transfer_part"]

WHOLE = "what is served"


class TransferLine(LogPart):
    """One attacker's inputs, as they were saved, shown to every model of the ensemble."""

    event: Literal["transfer"] = "transfer"
    attacker: str
    names: list[str]
    """The models: what is served, then each member alone."""
    shown: list[list[int]]
    """By the model that inputs were found on, then by the one that was asked: rows that broke the first, and that both
    have right without an attack."""
    broken: list[list[int]]
    """Of those, the rows that the second has wrong too."""
    reason: str | None = None
    """Why nothing was shown."""


class TransferRate(Part):
    """Inputs found on one model, shown to another."""

    found_on: str
    asked: str
    broken: int
    """Rows that break the model asked too."""
    rows: int
    """Rows that broke the one they were found on, and that both have right without an attack."""
    low: float
    """Bounds of the rate, exact, at the run's confidence."""
    high: float

    @property
    def rate(self) -> float | None:
        """The share that carries over; None without a row."""
        return self.broken / self.rows if self.rows else None


class TransferPart(Part):
    """How far one attacker's inputs carry over between an ensemble's members, and to and from the whole."""

    models: list[str]
    rates: list[TransferRate]
    reason: str | None
    """Why nothing was measured."""


def transfer_part(line: TransferLine, confidence: float) -> TransferPart:
    """The counts of a line with their intervals; of no model on itself."""
    rates = []
    for i, found_on in enumerate(line.names if line.shown else ()):
        for j, asked in enumerate(line.names):
            if i != j:
                k, n = line.broken[i][j], line.shown[i][j]
                rates.append(_rate(found_on, asked, k, n, confidence))
    return TransferPart(models=line.names, rates=rates, reason=line.reason)


def _rate(found_on: str, asked: str, k: int, n: int, confidence: float) -> TransferRate:
    found = interval(k, n, confidence) if n else None
    low, high = (0.0, 1.0) if found is None else (found.low, found.high)
    return TransferRate(found_on=found_on, asked=asked, broken=k, rows=n, low=low, high=high)
