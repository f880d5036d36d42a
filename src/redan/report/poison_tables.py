"""What was measured of a poisoning attacker as plain tables, for views of text."""

from __future__ import annotations

from collections.abc import Sequence

from redan.evidence.poisoned import PoisoningPart
from redan.report import poison_words as words
from redan.report.figures import NONE, percent, share
from redan.report.means import Table, ends, value

__all__ = ["tables"]

_STEPS = 8


def tables(part: PoisoningPart) -> list[Table]:
    """Victims, detectors, sources, repairs and the certificate: those of which there is something to say."""
    found = [_victims(part), _detectors(part), _sources(part), _repairs(part), _certificate(part)]
    return [table for table in found if table.rows]


def _victims(part: PoisoningPart) -> Table:
    asked = any(p.success is not None for each in part.poisoners for p in each.points)
    heads = ("poisoner", "share", "victims", *(("success", "interval") if asked else ()), "accuracy", "clean")
    rows = [
        (
            words.named(each),
            share(p.share),
            f"{p.victims:,}",
            *((value(p.success), ends(p.success)) if asked else ()),
            value(p.accuracy),
            value(p.clean_accuracy),
        )
        for each in part.poisoners
        for p in each.points
    ]
    return Table(heads=heads, rows=tuple(rows))


def _detectors(part: PoisoningPart) -> Table:
    rows = [
        (
            each.name,
            NONE if each.auc is None else f"{each.auc:.3f}",
            percent(each.recall),
            _whole(each.found),
            _whole(each.caught),
            NONE if each.q is None or each.found is None else f"{each.q:g}",
        )
        for each in part.detectors
        if each.status == words.DONE
    ]
    return Table(heads=("detector", "AUC", "recall at 1 %", "found", "caught", "q"), rows=tuple(rows))


def _sources(part: PoisoningPart) -> Table:
    ordered: Sequence[tuple[str, ...]] = [
        (each.source, f"{each.suspicious:,}", f"{each.poisoned:,}", f"{each.rows:,}")
        for each in sorted(part.sources, key=lambda each: (-each.suspicious, each.source))
    ]
    return Table(heads=("source", "suspicious", "poisoned", "rows"), rows=tuple(ordered))


def _repairs(part: PoisoningPart) -> Table:
    rows = [
        (
            each.name,
            f"{percent(each.success_before)} → {percent(each.success)}",
            f"{percent(each.accuracy_before)} → {percent(each.accuracy)}",
            _whole(each.removed),
            words.repaired(each),
        )
        for each in part.repairs
        if each.status == words.DONE
    ]
    return Table(heads=("repair", "success", "accuracy", "removed", "reached"), rows=tuple(rows))


def _certificate(part: PoisoningPart) -> Table:
    """Eight numbers of changes at the most, from none to the largest."""
    proof = part.certificate
    heads = ("rows changed, whatever to", "right", "certified accuracy")
    if proof is None or not proof.rows:
        return Table(heads=heads, rows=())
    points = sorted(proof.points, key=lambda p: p.changes)
    if len(points) > _STEPS:
        points = [points[round(i * (len(points) - 1) / (_STEPS - 1))] for i in range(_STEPS)]
    rows = [(f"{p.changes:,}", f"{p.right:,} of {proof.rows:,}", percent(p.right / proof.rows)) for p in points]
    return Table(heads=heads, rows=tuple(rows))


def _whole(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"
