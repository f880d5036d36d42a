"""How far inputs carry over within an ensemble, in words and as a table."""

from __future__ import annotations

from collections.abc import Iterator

from redan.evidence.transfers import WHOLE, TransferPart, TransferRate
from redan.report.figures import NONE, percent
from redan.report.means import Table

__all__ = ["TITLE", "headline", "table"]

TITLE = "How far inputs carry over between the members"


def headline(part: TransferPart) -> Iterator[str]:
    """Sentences: between members, what the whole's inputs do to them, and what the numbers are."""
    if part.reason is not None:
        yield f"how far inputs carry over between the members was not measured: {part.reason}"
        return
    between = [rate for rate in part.rates if WHOLE not in (rate.found_on, rate.asked) and rate.rows]
    if between:
        least, most = (choose(between, key=_value) for choose in (min, max))
        yield f"of inputs that break one member {_said(least)} at the least, and {_said(most)} at the most"
    whole = [rate for rate in part.rates if rate.found_on == WHOLE and rate.rows]
    if whole:
        told = ", ".join(f"{_counted(rate)} break {rate.asked}" for rate in whole)
        yield f"of inputs that were found on {WHOLE} {told}"
    if between or whole:
        yield "inputs are saved as soon as they break a model, so more would carry over of an attack that goes on"


def table(part: TransferPart) -> Table:
    """A row for each model that inputs were found on, a column for each that was asked."""
    found = {(rate.found_on, rate.asked): rate for rate in part.rates}
    rows = tuple((one, *(_cell(found.get((one, other))) for other in part.models)) for one in part.models if part.rates)
    return Table(heads=("found on", *part.models), rows=rows)


def _cell(rate: TransferRate | None) -> str:
    return NONE if rate is None or not rate.rows else f"{percent(rate.rate)} ({rate.broken:,} of {rate.rows:,})"


def _value(rate: TransferRate) -> float:
    return rate.rate or 0.0


def _counted(rate: TransferRate) -> str:
    return f"{rate.broken:,} of {rate.rows:,}"


def _said(rate: TransferRate) -> str:
    return f"{percent(rate.rate)} break another ({_counted(rate)}, from {rate.found_on} to {rate.asked})"
