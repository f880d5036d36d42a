"""Where the marks of a copying attacker's pictures lie: numbers only, so that the template draws and escapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from redan.evidence.base import MeanPart
from redan.evidence.extracted import BudgetPart, ExtractionPart, ExtractorPart
from redan.evidence.report import AttackerPart, Report
from redan.evidence.requirement import Metric
from redan.report import axes
from redan.report import extraction_words as words
from redan.report.figures import percent
from redan.report.means import asked_of, ends, value
from redan.report.plots import Segment, Tick

__all__ = ["BudgetPlot", "Way", "WaysPlot", "agreement", "bar", "ways"]

_LINE = 12.0  # between two labels of the rate's axis
_ASIDE = 7.0  # between the marks of two extractors at one budget


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPlot:
    """Agreement over the answers that were paid (on a log axis), in a picture of axes.WIDTH × axes.HEIGHT."""

    tracks: tuple[axes.Track, ...]
    """The strongest extractor last, so that it is drawn above the others; they stand a little to the right of it."""
    queries: tuple[Tick, ...]
    """Along the answers."""
    rates: tuple[Tick, ...]
    """Along the rate."""
    milestones: tuple[Tick, ...]
    """Shares of agreement; those without room for their label have none."""
    required: tuple[axes.Threshold, ...]
    right: float
    cut: bool
    """Whether the rate's axis begins above 0."""
    about: str
    """The plot in words."""


def agreement(report: Report, attacker: AttackerPart, part: ExtractionPart) -> BudgetPlot | None:
    """How often copies answer as the model on the judged rows; None if there is nothing to draw."""
    found = [(each, pairs) for each in _ordered(part) if (pairs := _valued(part, each))]
    if not found:
        return None
    thresholds = sorted({r.threshold for r in asked_of(report, attacker, Metric.EXTRACTION_FIDELITY)})
    low = _foot([end for _, pairs in found for _, m in pairs for end in (m.low, *m.each)] + thresholds)
    tried = sorted({point.paid for _, pairs in found for point, _ in pairs})
    right = axes.NARROW if len(found) > 1 else axes.RIGHT
    across = axes.log_axis(tried[0], tried[-1], right)

    def height(rate: float) -> float:
        return axes.height((min(max(rate, low), 1.0) - low) / (1.0 - low))

    steps = [round(min(_ASIDE, 18 / len(found)) * i, 2) for i in range(len(found) - 1, -1, -1)]
    lines = [
        [(across(p.paid) + step, height(m.value)) for p, m in pairs]
        for (_, pairs), step in zip(found, steps, strict=True)
    ]
    labels = axes.spread([line[0][1] for line in lines]) if len(found) > 1 else [None] * len(found)
    shares = dict.fromkeys(m.share for each, _ in found for m in each.milestones if m.share > low)
    marked = _labeled([(height(share), axes.rate(share)) for share in shares])
    taken = [tick.at for tick in marked if tick.label]
    return BudgetPlot(
        tracks=tuple(
            axes.Track(
                name=each.name,
                strongest=each.name == part.strongest,
                line=axes.points(line),
                marks=tuple(axes.mark(x, m, height) for (x, _), (_, m) in zip(line, pairs, strict=True)),
                label=None if label is None else Tick(at=label, label=axes.short(each.name)),
            )
            for (each, pairs), line, label in zip(found, lines, labels, strict=True)
        ),
        queries=axes.apart([Tick(at=across(n), label=_count(n)) for n in tried]),
        rates=tuple(
            Tick(at=at, label=axes.rate(r))
            for r in axes.rates((low, 1.0))
            if all(abs((at := height(r)) - other) >= _LINE for other in taken)
        ),
        milestones=marked,
        required=tuple(
            axes.Threshold(at=height(t), label=axes.rate(t), right=axes.free(height(t), lines[-1])) for t in thresholds
        ),
        right=right,
        cut=low > 0,
        about="; ".join(f"{each.name}: {_told(pairs)}" for each, pairs in found[::-1]),
    )


def _ordered(part: ExtractionPart) -> list[ExtractorPart]:
    """The strongest last."""
    return sorted(part.extractors, key=lambda each: each.name == part.strongest)


def _valued(part: ExtractionPart, extractor: ExtractorPart) -> list[tuple[BudgetPart, MeanPart]]:
    """Budgets of which agreement is known, that with the most answers first."""
    pairs = [
        (point, of.fidelity)
        for point in extractor.points
        if point.paid > 0 and (of := words.compared(part, point)) is not None and of.fidelity is not None
    ]
    return sorted(pairs, key=lambda pair: -pair[0].paid)


def _told(pairs: Sequence[tuple[BudgetPart, MeanPart]]) -> str:
    return ", ".join(f"{percent(m.value)} at {words.paid(p.paid)} answers" for p, m in pairs)


def _foot(rates: Sequence[float]) -> float:
    """Where the rate's axis begins: a little below the lowest value."""
    return min(0.9, max(0.0, math.floor(20 * min(rates) - 0.2) / 20))


def _labeled(lines: Sequence[tuple[float, str]]) -> tuple[Tick, ...]:
    """Lines with labels, but for those too near to one that has a label: the outer ones have theirs first."""
    order = sorted(lines)
    kept: list[float] = []
    for at, _ in (*order[-1:], *order[:1], *order[1:-1]):
        if all(abs(at - other) >= _LINE for other in kept):
            kept.append(at)
    return tuple(Tick(at=at, label=label if at in kept else "") for at, label in order)


def _count(value: float) -> str:
    """A number of answers in a few letters."""
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if value >= 0.9995 * unit:
            return f"{value / unit:.3g}\N{NO-BREAK SPACE}{name}"
    return f"{value:.3g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A bar of right rows broken, with its interval."""

    name: str
    y: float
    """Of its upper edge."""
    width: float
    low: float
    high: float
    figures: str
    kind: str
    """copy or direct."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaysPlot:
    """Inputs made on the copy beside those made on the model itself, at as many queries: bars from left to right."""

    ways: tuple[Way, ...]
    rates: tuple[Tick, ...]
    required: tuple[Tick, ...]
    height: float
    foot: float
    """Where the bars' axis lies."""
    about: str


_FIRST, _STEP, _BAR = 34.0, 58.0, 22.0
_START, _END = 12.0, 412.0


def ways(report: Report, attacker: AttackerPart, part: ExtractionPart) -> WaysPlot | None:
    """Success of the strongest extractor's copies and of the attack without a copy; None where no copy was used."""
    point = words.whole(part)
    use = None if point is None else point.transfer
    if use is None or use.success is None or point is None:
        return None
    found = [(f"on the copy of {part.strongest}", use.success.value, use.success.low, use.success.high, "copy")]
    said = [f"{value(use.success)} ({ends(use.success)})"]
    if (direct := part.direct) is not None and (rate := words.direct_rate(direct)) is not None:
        found.append(("on the model itself", rate, direct.low, direct.high, "direct"))
        said.append(f"{percent(rate)} ({100 * direct.low:.1f}–{100 * direct.high:.1f})")
    bars = tuple(
        Way(
            name=name,
            y=_FIRST + i * _STEP,
            width=round(_along(rate) - _START, 2),
            low=_along(low),
            high=_along(high),
            figures=figures,
            kind=kind,
        )
        for i, ((name, rate, low, high, kind), figures) in enumerate(zip(found, said, strict=True))
    )
    foot = _FIRST + (len(bars) - 1) * _STEP + _BAR + 14
    required = sorted({r.threshold for r in asked_of(report, attacker, Metric.TRANSFER_SUCCESS)})
    return WaysPlot(
        ways=bars,
        rates=tuple(Tick(at=_along(i / 4), label=axes.rate(i / 4)) for i in range(5)),
        required=tuple(Tick(at=_along(t), label=axes.rate(t)) for t in required),
        height=foot + 44,
        foot=foot,
        about="; ".join(f"{bar.name}: {bar.figures}" for bar in bars),
    )


def _along(rate: float) -> float:
    return round(_START + rate * (_END - _START), 2)


def bar(part: ExtractionPart) -> tuple[Segment, ...]:
    """How far the attacker got as two parts of a bar that is 100 wide; empty where nothing was measured."""
    point = words.whole(part)
    mean = None if point is None else words.wanted(point, part.goal, part.rows)
    if mean is None:
        return ()
    done, rest = ("broken", "not broken") if part.goal == "transfer" else ("as the model", "otherwise")
    got = 100 * mean.value
    kinds = (("broken", 0.0, got, done), ("robust", got, 100 - got, rest))
    return tuple(
        Segment(kind=kind, start=round(start, 3), width=round(width, 3), rows=0, words=f"{percent(width / 100)} {said}")
        for kind, start, width, said in kinds
    )
