"""Where the marks of a poisoning attacker's pictures lie: numbers only, so that the template draws and escapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redan.evidence.base import MeanPart
from redan.evidence.poisoned import CertificatePart, PointPart, PoisonerPart, PoisoningPart
from redan.evidence.report import AttackerPart, Report
from redan.evidence.requirement import Metric
from redan.report import axes
from redan.report import poison_words as words
from redan.report.figures import NONE, percent, share
from redan.report.means import asked_of
from redan.report.plots import Segment, Tick

__all__ = [
    "Bar",
    "CertificatePlot",
    "SharePlot",
    "accuracy",
    "anomalies",
    "bar",
    "certificate",
    "sources",
    "success",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SharePlot:
    """A rate over the share of changed training rows (on a log axis), in a picture of WIDTH × HEIGHT."""

    tracks: tuple[axes.Track, ...]
    """The strongest poisoner last, so that it is drawn above the others."""
    clean: str
    """Points of the line of victims of clean rows."""
    shares: tuple[Tick, ...]
    """Along the share."""
    rates: tuple[Tick, ...]
    """Along the rate."""
    required: tuple[axes.Threshold, ...]
    breaks: Tick | None
    """Where the smallest share that is enough lies."""
    right: float
    cut: bool
    """Whether the rate's axis begins above 0."""
    about: str
    """The plot in words."""


_Value = Callable[[PointPart], MeanPart | None]


def success(report: Report, attacker: AttackerPart, part: PoisoningPart) -> SharePlot | None:
    """How many rows are answered as the attacker wants; None if there is none to draw."""
    required = [r.threshold for r in asked_of(report, attacker, *words.METRICS)]
    at, _ = words.breaks(report, attacker, part)
    return _shares(part, lambda p: p.success, lambda p: p.clean_success, (0.0, 1.0), required, at)


def accuracy(report: Report, attacker: AttackerPart, part: PoisoningPart) -> SharePlot | None:
    """Accuracy on clean rows, from a little below the lowest value up; None if there is none to draw."""
    required = [r.threshold for r in asked_of(report, attacker, Metric.POISONED_ACCURACY)]
    means = [m for p in _measured(part) for each in p.points for m in (each.accuracy, each.clean_accuracy) if m]
    ends = [end for m in means for end in (m.low, m.high, *m.each)] + required
    if not ends:
        return None
    low, high = max(0.0, math.floor(20 * min(ends) - 0.2) / 20), min(1.0, math.ceil(20 * max(ends) + 0.2) / 20)
    at, _ = words.breaks(report, attacker, part)
    alone = all(p.success is None for each in part.poisoners for p in each.points)
    return _shares(part, lambda p: p.accuracy, lambda p: p.clean_accuracy, (low, high), required, at if alone else None)


def _measured(part: PoisoningPart) -> list[PoisonerPart]:
    """The poisoners with points, the strongest last."""
    found = [each for each in part.poisoners if any(p.share > 0 for p in each.points)]
    return sorted(found, key=lambda each: each.name == part.strongest)


def _shares(
    part: PoisoningPart,
    value: _Value,
    clean: _Value,
    between: tuple[float, float],
    required: Sequence[float],
    at: float | None,
) -> SharePlot | None:
    found = [(each, _valued(each, value)) for each in _measured(part)]
    found = [(each, pairs) for each, pairs in found if pairs]
    if not found:
        return None
    tried = sorted({p.share for _, pairs in found for p, _ in pairs})
    right = axes.NARROW if len(found) > 1 else axes.RIGHT
    across = axes.log_axis(tried[0], tried[-1], right)

    def height(rate: float) -> float:
        low, high = between
        return axes.height((min(max(rate, low), high) - low) / (high - low))

    lines = [[(across(p.share), height(m.value)) for p, m in pairs] for _, pairs in found]
    labels = axes.spread([line[0][1] for line in lines]) if len(found) > 1 else [None] * len(found)
    tracks = tuple(
        axes.Track(
            name=each.name,
            strongest=each.name == part.strongest,
            line=axes.points(line),
            marks=tuple(axes.mark(across(p.share), m, height) for p, m in pairs),
            label=None if label is None else Tick(at=label, label=axes.short(each.name)),
        )
        for (each, pairs), line, label in zip(found, lines, labels, strict=True)
    )
    main = found[-1][0]
    plain = [(across(p.share), height(m.value)) for p in main.points if p.share > 0 and (m := clean(p))]
    if len(plain) == 1:
        plain = [(axes.LEFT, plain[0][1]), (right, plain[0][1])]
    return SharePlot(
        tracks=tracks,
        clean=axes.points(sorted(plain)),
        shares=axes.apart([Tick(at=across(s), label=share(s)) for s in tried]),
        rates=tuple(Tick(at=height(r), label=axes.rate(r)) for r in axes.rates(between)),
        required=tuple(
            axes.Threshold(at=height(t), label=axes.rate(t), right=axes.free(height(t), lines[-1]))
            for t in sorted(set(required))
        ),
        breaks=None if at is None or not tried[0] <= at <= tried[-1] else Tick(at=across(at), label=share(at)),
        right=right,
        cut=between[0] > 0,
        about="; ".join(f"{each.name}: {_told(pairs)}" for each, pairs in found[::-1]),
    )


def _valued(poisoner: PoisonerPart, value: _Value) -> list[tuple[PointPart, MeanPart]]:
    return [(p, m) for p in poisoner.points if p.share > 0 and (m := value(p)) is not None]


def _told(pairs: Sequence[tuple[PointPart, MeanPart]]) -> str:
    return ", ".join(f"{percent(m.value)} at {share(p.share)}" for p, m in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatePlot:
    """Certified accuracy over the number of changed rows, with what the strongest attack reached."""

    line: str
    """Points of the steps."""
    marks: tuple[axes.Mark, ...]
    """Of the attack: success, or accuracy where that is what it is after."""
    changes: tuple[Tick, ...]
    rates: tuple[Tick, ...]
    about: str


def certificate(part: PoisoningPart) -> CertificatePlot | None:
    """The steps of the certificate; None where there are none.

    Between two numbers of changes as many rows are certified as at the larger one: nothing is claimed in between.
    """
    proven = part.certificate
    if proven is None or not proven.points or not proven.rows:
        return None
    found = words.strongest(part)
    pairs = [] if found is None else [(p, m) for p in found.points if (m := p.success or p.accuracy) is not None]
    known = sorted(proven.points, key=lambda p: p.changes)
    most = max([known[-1].changes, *(p.changed for p, _ in pairs), 1])

    def across(changes: float) -> float:
        """On the log of changes + 1, which has room for none."""
        return round(axes.LEFT + math.log1p(changes) / math.log1p(most) * (axes.RIGHT - 12 - axes.LEFT), 2)

    steps: list[tuple[float, float]] = []
    for before, p in zip([known[0], *known], known, strict=False):
        y = axes.height(p.right / proven.rows)
        steps += [(across(before.changes), y), (across(p.changes), y)]
    ticks = sorted({0, *(n for k in range(10) for n in (10**k, 3 * 10**k) if n < most), most})
    return CertificatePlot(
        line=axes.points(steps),
        marks=tuple(axes.mark(across(p.changed), m, axes.height) for p, m in pairs),
        changes=axes.apart([Tick(at=across(n), label=f"{n:,}") for n in ticks]),
        rates=tuple(Tick(at=axes.height(i / 4), label=axes.rate(i / 4)) for i in range(5)),
        about=_proven(proven),
    )


def _proven(part: CertificatePart) -> str:
    known = sorted(part.points, key=lambda p: p.changes)
    shown = known if len(known) <= 6 else [known[i * (len(known) - 1) // 5] for i in range(6)]
    return ", ".join(f"{percent(p.right / part.rows)} at {p.changes:,}" for p in shown)


def bar(part: PoisoningPart) -> tuple[Segment, ...]:
    """How far the attacker got as two parts of a bar that is 100 wide; empty where nothing was measured."""
    point = words.whole(part)
    if point is None:
        return ()
    if point.success is not None:
        got = 100 * point.success.value
        kinds = (("broken", got, "as the attacker wants"), ("robust", 100 - got, "otherwise"))
    elif point.accuracy is not None:
        right = 100 * point.accuracy.value
        kinds = (("robust", right, "right"), ("broken", 100 - right, "wrong"))
    else:
        return ()
    first, second = kinds
    return tuple(
        Segment(kind=kind, start=round(start, 3), width=round(width, 3), rows=0, words=f"{percent(width / 100)} {said}")
        for (kind, width, said), start in ((first, 0.0), (second, first[1]))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bar in a track that is 100 wide, with a mark in it."""

    name: str
    width: float
    at: float | None
    kind: str
    texts: tuple[str, ...]


def anomalies(part: PoisoningPart, name_of: Callable[[int], str], threshold: float = 2.0) -> list[Bar]:
    """How unusually small each label's trigger is, the smallest first; the mark is the threshold."""
    found = part.trigger
    if found is None:
        return []
    most = max([threshold * 1.5, *(a for a in found.anomaly if a is not None and math.isfinite(a))])
    labels = sorted(range(len(found.anomaly)), key=lambda k: (-(_finite(found.anomaly[k])), k))
    return [
        Bar(
            name=name_of(k),
            width=round(100 * max(0.0, _finite(found.anomaly[k])) / most, 2) if found.anomaly[k] is not None else 0.0,
            at=round(100 * threshold / most, 2),
            kind="broken" if k in found.flagged else "plain",
            texts=(
                NONE if found.anomaly[k] is None else f"{found.anomaly[k]:.1f}".replace("-", "−"),
                ", ".join(
                    word
                    for word, holds in (
                        ("flagged", k in found.flagged),
                        ("the attacker's label", k == found.target),
                        ("no trigger found", found.anomaly[k] is None),
                    )
                    if holds
                ),
            ),
        )
        for k in labels
    ]


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else -math.inf


def sources(part: PoisoningPart) -> list[Bar]:
    """Rows of each supplier among the most suspicious, most first; the mark is how many are poisoned."""
    most = max([1, *(max(each.suspicious, each.poisoned) for each in part.sources)])
    return [
        Bar(
            name=each.source,
            width=round(100 * each.suspicious / most, 2),
            at=round(100 * each.poisoned / most, 2) if each.poisoned else None,
            kind="broken" if each.poisoned else "plain",
            texts=(f"{each.suspicious:,}", f"{each.poisoned:,}", f"{each.rows:,}"),
        )
        for each in sorted(part.sources, key=lambda each: (-each.suspicious, each.source))
    ]
