"""Where the marks of the page's pictures lie: numbers only, so that the template draws and escapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redan.evidence.report import AttackerPart, Report
from redan.evidence.requirement import Metric
from redan.report.words import said_counts, span

__all__ = ["Curve", "Segment", "Tick", "curve", "segments"]

WIDTH, HEIGHT = 440, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 424, 12, 206


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One part of a bar that is 100 wide."""

    kind: str
    start: float
    width: float
    rows: int
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A label at a place of an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Robust accuracy over ε, in a picture of WIDTH × HEIGHT."""

    line: str
    """Points of the curve."""
    band: str
    """Points around the pointwise intervals; empty where they would not hold."""
    steps: tuple[Tick, ...]
    """Along ε."""
    shares: tuple[Tick, ...]
    """Along the rate."""
    end: tuple[float, float]
    """The point at the attacker's whole radius."""
    required: tuple[Tick, ...]
    """Heights of the thresholds for robust accuracy."""


def segments(part: AttackerPart) -> tuple[Segment, ...]:
    """What became of an attacker's rows, as parts of one bar that is 100 wide."""
    drawn = part.counts.drawn if part.counts else 0
    found: list[Segment] = []
    start = 0.0
    for kind, rows, words in said_counts(part):
        width = 100 * rows / drawn if drawn else 0.0
        found.append(Segment(kind=kind, start=round(start, 3), width=round(width, 3), rows=rows, words=words))
        start += width
    return tuple(found)


def curve(report: Report, part: AttackerPart) -> Curve | None:
    """The attacker's curve, or None if there is none to draw."""
    points = [point for point in part.curve if point.drawn]
    if len(points) < 2 or not points[-1].radius > points[0].radius:
        return None
    first, last = points[0].radius, points[-1].radius

    def across(radius: float) -> float:
        return round(_LEFT + (radius - first) / (last - first) * (_RIGHT - _LEFT), 2)

    line = [(across(p.radius), _height(p.robust / p.drawn)) for p in points]
    spans = [span(report, p.robust, p.drawn) for p in points]
    low = [(across(p.radius), _height(s[0])) for p, s in zip(points, spans, strict=True) if s]
    high = [(across(p.radius), _height(s[1])) for p, s in zip(points, spans, strict=True) if s]
    required = {
        r.threshold for r in report.requirements if r.metric is Metric.ROBUST_ACCURACY and r.against == part.name
    }
    return Curve(
        line=_points(line),
        band=_points([*high, *reversed(low)]),
        steps=tuple(Tick(at=across(r), label=f"{r:.3g}") for r in (first + (last - first) * i / 4 for i in range(5))),
        shares=tuple(Tick(at=_height(i / 4), label=f"{25 * i}\N{NO-BREAK SPACE}%") for i in range(5)),
        end=line[-1],
        required=tuple(Tick(at=_height(t), label=f"{100 * t:g}\N{NO-BREAK SPACE}%") for t in sorted(required)),
    )


def _height(share: float) -> float:
    return round(_BOTTOM - share * (_BOTTOM - _TOP), 2)


def _points(pairs: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in pairs)
