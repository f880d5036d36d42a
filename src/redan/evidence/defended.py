"""What a served defense is worth, as a report tells it."""

from __future__ import annotations

from redan.evidence.base import Part
from redan.evidence.gain import Gain

__all__ = ["DefendedPart", "shown"]


def shown(beside: str) -> str:
    """What the retry is called that shows inputs found on another model to the served one."""
    return f"found on {beside}"


class DefendedPart(Part):
    """One attacker's rows with what is served, beside the same rows of a model without it."""

    beside: str
    """The model without it: "the model alone"."""
    rows: int
    """Compared."""
    clean_beside: int
    """Right without an attack, of the model without it."""
    clean: int
    """Right without an attack, as served."""
    held_beside: int
    """Rows of the model without it that hold against this attacker."""
    naive: int
    """Rows that hold as served when they are shown what was found on the model without it."""
    held: int
    """Rows that hold as served against all that was tried, those inputs too."""
    open: int
    """Rows that failed or were cut off on either side; they only speak against a verdict."""
    low: float
    """Bounds of the gain, held less held_beside, as a share of the rows; each at the run's confidence."""
    high: float
    verdict: Gain

    @property
    def gain(self) -> float:
        """More rows hold as served than without it, as a share of the rows; negative where fewer do."""
        return (self.held - self.held_beside) / self.rows if self.rows else 0.0

    @property
    def naive_gain(self) -> float:
        """What the gain would be if the attacker did not know of the defense."""
        return (self.naive - self.held_beside) / self.rows if self.rows else 0.0
