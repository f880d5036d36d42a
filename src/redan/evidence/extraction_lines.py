"""The lines of a run's log about stolen copies. A copy's line is written once all is known of it."""

from __future__ import annotations

from typing import Literal

from redan.evidence.base import LogPart

__all__ = [
    "Compared",
    "CopyLine",
    "CopyPoint",
    "DirectLine",
    "ExtractionHead",
    "ExtractorHead",
    "Transferred",
]


class ExtractorHead(LogPart):
    """One attack that copies the model."""

    name: str
    techniques: list[str]


class ExtractionHead(LogPart):
    """What decides the copies of an attacker who extracts."""

    goal: Literal["fidelity", "transfer"]
    rows: str
    """The split on which copies are judged."""
    transfer: str | None
    """The evasion attacker who uses the copy."""
    extractors: list[ExtractorHead]
    copies: int
    """That each extractor makes."""
    points: list[int]
    """Answers to buy, the whole budget first, then smaller ones."""
    answers: str
    pool: str
    queries_per_day: float | None
    notes: list[str]
    doubts: list[str]
    """Why copies may be worse than a real attacker's: agreement below a threshold then shows nothing."""


class Compared(LogPart):
    """A copy beside the model on one set of rows, as `redan.extraction.measures.Comparison` counts them."""

    n: int
    agreeing: int
    unanswered: int
    worst: float
    right: int | None
    model_right: int | None


class Transferred(LogPart):
    """Inputs that were made on a copy, shown to the model."""

    rows: int
    broken: int
    errors: int
    queries: int
    """Asked of the model."""


class CopyPoint(LogPart):
    """The copy that a part of the answers makes."""

    queries: int
    """The budget."""
    paid: int
    compared: dict[str, Compared]
    """By the name of the rows."""
    transferred: Transferred | None


class CopyLine(LogPart):
    """One run of an extractor: its copies of growing parts of the answers, judged, and used."""

    event: Literal["copy"] = "copy"
    attacker: str
    extractor: str
    number: int
    seed: int
    settings: str
    points: list[CopyPoint]
    """The whole budget first; none where it could not be run. Extractors that make one copy alone have one point."""
    saved: str | None
    """File under inputs/: what was asked and answered, both sides' labels, the inputs that fooled the model."""
    sha256: str
    seconds: float
    error: str | None
    unfit: bool = False
    """Whether the extractor cannot be used here at all: its other copies are not tried."""


class DirectLine(LogPart):
    """The model attacked without a copy, at as many queries."""

    event: Literal["direct"] = "direct"
    attacker: str
    extractor: str
    """Beside whose copies."""
    attacks: list[str]
    queries_per_row: int
    rows: int
    broken: int
    errors: int
    queries: int
    saved: str | None
    """File under inputs/ with the inputs that fooled the model."""
    sha256: str
    seconds: float
