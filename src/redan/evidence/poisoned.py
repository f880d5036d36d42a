"""What a report says of an attacker who changes training rows: victims, detectors, repairs, certificate.

The independent unit is the trained victim (for chosen rows: a chosen row with a victim of its own). Rows of several
victims are never counted as if they were independent.
"""

from __future__ import annotations

from enum import StrEnum

from redan.evidence.base import MeanPart, Part

__all__ = [
    "CertificatePart",
    "CertifiedPoint",
    "DetectorPart",
    "Equivalence",
    "EquivalencePart",
    "PointPart",
    "PoisonerPart",
    "PoisoningPart",
    "RepairPart",
    "SourcePart",
    "TriggerPart",
]


class Equivalence(StrEnum):
    """What two one-sided tests show of a difference."""

    EQUIVALENT = "equivalent"
    """Smaller than the margin, on both sides."""
    DIFFERENT = "different"
    """Larger than the margin, on one side."""
    NOT_SHOWN = "not shown"


class EquivalencePart(Part):
    """Accuracy of victims of poisoned rows less that of victims of clean rows, pair by pair of one seed."""

    difference: float
    low: float
    high: float
    """Ends of the interval that two one-sided tests at 1 - confidence each amount to (TOST)."""
    confidence: float
    """Of each one-sided test."""
    margin: float
    pairs: int
    shown: Equivalence


class PointPart(Part):
    """One poisoner at one share of the training rows."""

    share: float
    """Of the training rows that the attacker may change."""
    used: float
    """Of them that were changed or added, the largest of the victims."""
    changed: int
    """Rows changed or added, the most of the victims."""
    victims: int
    """Trained and asked."""
    errors: int
    """Victims that could not be trained or did not answer."""
    undecided: int
    """Victims that our limits left out."""
    success: MeanPart | None
    """Triggered (or chosen) rows answered as the attacker wants; None for availability."""
    clean_success: MeanPart | None
    """The same rows asked of victims that were trained on clean rows."""
    accuracy: MeanPart | None
    """On clean test rows."""
    clean_accuracy: MeanPart | None
    """Of victims of clean rows with the same seeds."""
    equivalence: EquivalencePart | None


class PoisonerPart(Part):
    """One poisoning attack, from the largest share to the smallest."""

    name: str
    settings: str
    techniques: list[str]
    status: str
    """done, cut (our limits ended the run), error, or not applicable."""
    reason: str | None
    points: list[PointPart]
    breaks_at: float | None
    """The smallest of the shares tried at which the mean breaks the requirement; at which half of the rows are hit
    where there is no requirement; None where none does."""


class DetectorPart(Part):
    """How one detector finds the poison that the strongest poisoner made at the full share."""

    name: str
    status: str
    """done, or not applicable."""
    reason: str | None
    auc: float | None
    """The chance that a poisoned row is more suspicious than a clean one."""
    recall: float | None
    """Of the poisoned rows, at a threshold that 1 % of the clean rows are above."""
    found: int | None
    """Rows called poison at the false-discovery rate `q`; None without trusted rows."""
    caught: int | None
    """Of them, poisoned ones."""
    q: float | None


class SourcePart(Part):
    """One supplier's training rows, as the best detector sees them."""

    source: str
    rows: int
    poisoned: int
    suspicious: int
    """Rows among the most suspicious ones, as many as are poisoned in all."""


class RepairPart(Part):
    """One repair of a victim of the strongest poisoner at the full share."""

    name: str
    status: str
    """done, or not applicable."""
    reason: str | None
    removed: int | None
    """Training rows taken out, if the repair takes any."""
    success: float | None
    accuracy: float | None
    success_before: float | None
    accuracy_before: float | None
    until: float
    """The success that the repair was to reach."""
    reached: bool | None


class TriggerPart(Part):
    """What Neural Cleanse takes back out of a victim."""

    flagged: list[int]
    """Labels whose smallest trigger is unusually small."""
    target: int | None
    """The attacker's label; None for all-to-all."""
    anomaly: list[float | None]
    """Of each label; above 2 is flagged. None where no trigger was found."""
    overlap: float | None
    """Of the trigger found for the target with the one planted: pixels of both, of pixels of either."""


class CertifiedPoint(Part):
    """Rows right however the training rows are changed, up to a number of changes."""

    changes: int
    right: int


class CertificatePart(Part):
    """What no poisoner can do to an ensemble that is trained on parts of the rows."""

    method: str
    parts: int
    copies: int
    counts: str
    """What one change is."""
    rows: int
    untrained: int
    """Models that could not be trained on their part: they vote for nobody, and count as ones an attacker may turn."""
    points: list[CertifiedPoint]
    """At 0 changes: rows that the ensemble answers rightly."""
    share: float
    """Of the training rows that is certified for half of the rows that are right: the median radius as a share."""


class PoisoningPart(Part):
    """All that was measured of one poisoning attacker."""

    goal: str
    """backdoor, targeted rows or availability."""
    poisoners: list[PoisonerPart]
    strongest: str | None
    """The poisoner that goes furthest at the full share; whose poison the detectors and repairs are shown."""
    detectors: list[DetectorPart]
    sources: list[SourcePart]
    repairs: list[RepairPart]
    trigger: TriggerPart | None
    certificate: CertificatePart | None
    notes: list[str]
    """What the detectors and repairs had to do without."""

    @property
    def measured(self) -> bool:
        """Whether a victim of any poisoner was trained and asked."""
        return any(point.victims for poisoner in self.poisoners for point in poisoner.points)
