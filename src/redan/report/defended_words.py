"""What a served defense is worth, in words."""

from __future__ import annotations

from collections.abc import Iterator

from redan.evidence.defended import DefendedPart
from redan.evidence.gain import MARGIN, Gain
from redan.report.figures import percent, points
from redan.report.means import Table

__all__ = ["BARS", "headline", "reached", "table"]

_MEANS = {
    Gain.GAIN: "beyond noise and worth having",
    Gain.NO_GAIN: f"whatever it adds is no more than {100 * MARGIN:g} points",
    Gain.NOT_SHOWN: "these rows tell neither a gain nor that there is none",
}

BARS = (
    ("held_beside", "hold without what is served"),
    ("naive", "would hold if the attacker did not know of it"),
    ("held", "hold as served, against attacks that know it"),
)
"""Counts of a comparison, and what each is of, from what there was to what is left."""


def reached(part: DefendedPart) -> str:
    """The verdict and its one figure, for a cell."""
    return f"{part.verdict}, {points(part.gain)} beside {part.beside}"


def headline(part: DefendedPart) -> Iterator[str]:
    """Sentences: the verdict with its figures, the naive attack beside, the price in clean accuracy."""
    yield (
        f"beside {part.beside}, {part.verdict}: {_MEANS[part.verdict]} ({part.held:,} of {part.rows:,} rows hold as "
        f"served, {part.held_beside:,} on {part.beside}: {points(part.gain)}, {points(part.low)} to "
        f"{points(part.high)})"
    )
    yield f"{part.naive:,} rows would hold if the attacker did not know of what is served"
    yield f"without an attack {part.clean:,} rows are right as served, {part.clean_beside:,} on {part.beside}"
    if part.open:
        yield f"{part.open:,} rows failed or were cut off on one side, and speak against whatever is shown"


def table(part: DefendedPart) -> Table:
    """The figures, one a row."""
    counts = [
        *((words, getattr(part, key)) for key, words in BARS),
        ("right without an attack, as served", part.clean),
        (f"right without an attack, {part.beside}", part.clean_beside),
    ]
    rows = tuple((words, f"{k:,} of {part.rows:,}", percent(k / max(1, part.rows))) for words, k in counts)
    return Table(heads=("what", "rows", "share"), rows=rows)
