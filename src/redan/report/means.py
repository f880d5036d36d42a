"""What views say of rates over trained models, victims of poison or stolen copies, and the forms it takes."""

from __future__ import annotations

from dataclasses import dataclass

from redan.evidence.base import MeanPart
from redan.evidence.report import AttackerPart, Report, RequirementPart, Verdict
from redan.evidence.requirement import Metric
from redan.report.figures import NONE, percent

__all__ = ["Table", "Tile", "asked_of", "ends", "interval", "kind_of", "value"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A figure that is shown large, with what it says."""

    value: str
    words: tuple[str, ...]
    kind: str = ""
    """pass or fail where a requirement is about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table whose first column is text, all others figures."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def interval(mean: MeanPart) -> str:
    """The interval of a mean, in words."""
    low, high = (f"{100 * end:.1f}" for end in (mean.low, mean.high))
    return f"{100 * mean.confidence:g}\N{NO-BREAK SPACE}% interval {low} to {high}\N{NO-BREAK SPACE}%"


def value(mean: MeanPart | None) -> str:
    """A mean as a table has it."""
    return percent(None if mean is None else mean.value)


def ends(mean: MeanPart | None) -> str:
    """The ends of its interval, in percent."""
    return NONE if mean is None else f"{100 * mean.low:.1f}–{100 * mean.high:.1f}"


def asked_of(report: Report, attacker: AttackerPart, *metrics: Metric) -> list[RequirementPart]:
    """The requirements of these metrics that are about this attacker."""
    return [part for part in report.requirements if part.against == attacker.name and part.metric in metrics]


def kind_of(required: list[RequirementPart]) -> str:
    """How a tile is marked: fail where any of the requirements fails, pass where all pass."""
    verdicts = {part.verdict for part in required}
    if Verdict.FAIL in verdicts:
        return "fail"
    return "pass" if verdicts == {Verdict.PASS} else ""
