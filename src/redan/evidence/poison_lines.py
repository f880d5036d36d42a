"""The lines of a run's log about poisoned training rows. A victim's line is written once all is known of it."""

from __future__ import annotations

from typing import Literal

from redan.evidence.base import LogPart
from redan.evidence.poisoned import CertificatePart, DetectorPart, RepairPart, SourcePart, TriggerPart

__all__ = [
    "CertifiedLine",
    "InspectedLine",
    "PoisonPoint",
    "PoisonerHead",
    "PoisoningHead",
    "VictimLine",
    "VotesLine",
]


class PoisonPoint(LogPart):
    """One share of the training rows at which victims are trained."""

    share: float
    victims: int


class PoisonerHead(LogPart):
    """One attack on the training rows."""

    name: str
    techniques: list[str]


class PoisoningHead(LogPart):
    """What decides the victims of an attacker who changes training rows."""

    goal: Literal["backdoor", "targeted rows", "availability"]
    poisoners: list[PoisonerHead]
    points: list[PoisonPoint]
    """The attacker's whole share first, then smaller ones."""
    clean: int
    """Victims that are trained on clean rows, shared with other attackers."""
    margin: float
    """Difference of clean accuracy that counts as none."""
    inspected: bool
    """Whether detectors and repairs are tried."""
    parts: int
    """Models that are trained on parts of the rows, for the certificate; 0: none."""


class VictimLine(LogPart):
    """One model trained on the training rows as an attacker left them, or on the clean ones, and asked."""

    event: Literal["victim"] = "victim"
    attacker: str | None
    """None: trained on clean rows, for all poisoning attackers."""
    poisoner: str | None
    share: float | None
    number: int
    """Victims of one number are trained with one seed; of chosen rows, which of them it is about."""
    seed: int
    settings: str
    """Of the poisoner, with what the scene gave it."""
    changed: int
    """Training rows changed or added."""
    used: float
    """They as a share of the clean rows."""
    poison: str | None
    """sha256 of the list of changed rows and of what they are now."""
    rows: int
    """Clean test rows asked."""
    right: int
    asked: dict[str, tuple[int, int]]
    """By attacker: triggered (or chosen) rows answered as the attacker wants, and rows asked."""
    answers: str | None
    """File under inputs/ with the answers."""
    sha256: str
    seconds: float
    error: str | None
    """Why it could not be trained or asked."""
    unfit: bool = False
    """Whether the poisoner cannot be used here at all: its other victims are not tried."""


class InspectedLine(LogPart):
    """What detectors and repairs did of one attacker's strongest poison at the whole share."""

    event: Literal["inspected"] = "inspected"
    attacker: str
    poisoner: str
    detectors: list[DetectorPart]
    sources: list[SourcePart]
    repairs: list[RepairPart]
    trigger: TriggerPart | None
    notes: list[str]
    pictures: str | None
    """File under inputs/ with a few poisoned rows and the triggers; None where there is nothing to look at."""
    sha256: str
    seconds: float


class VotesLine(LogPart):
    """One model of the certificate's ensemble, trained on its part of the rows, and asked."""

    event: Literal["votes"] = "votes"
    model: int
    answers: str
    """File under inputs/; -1 for each row where the model could not be trained."""
    sha256: str
    seconds: float
    error: str | None = None
    """Why it could not be trained on its part."""


class CertifiedLine(LogPart):
    """What the votes prove of the clean training rows."""

    event: Literal["certified"] = "certified"
    certificate: CertificatePart
