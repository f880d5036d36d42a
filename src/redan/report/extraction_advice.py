"""What to do against an attacker who copies the model further than a requirement allows."""

from __future__ import annotations

import math
from collections.abc import Iterator

from redan.evidence.base import MeanPart
from redan.evidence.extracted import BudgetPart, ExtractionPart
from redan.evidence.report import AttackerPart, RequirementPart
from redan.evidence.requirement import Metric
from redan.report.extraction_words import compared, paid
from redan.report.figures import days, usd

__all__ = ["advice", "enough"]

_DEAR = 90
"""Days that a copy is to take one customer at the least."""
_FEW = 10
"""Answers a day below which no honest customer would stay."""


def enough(part: ExtractionPart, required: RequirementPart) -> BudgetPart | None:
    """The least of the budgets tried, of any extractor, whose copies by their mean break a requirement that their rate
    is at most so high; None where none does."""
    points = [point for each in part.extractors for point in each.points]
    found = [point for point in points if (m := _rate(part, point, required.metric)) and m.value > required.threshold]
    return min(found, key=lambda point: point.paid, default=None)


def _rate(part: ExtractionPart, point: BudgetPart, metric: Metric) -> MeanPart | None:
    if metric is Metric.TRANSFER_SUCCESS:
        return None if point.transfer is None else point.transfer.success
    of = compared(part, point)
    return None if of is None else of.fidelity


def advice(attacker: AttackerPart, part: ExtractionPart, required: RequirementPart) -> Iterator[str]:
    """A sentence each: the model itself where the copy is used, what answers show, limits and money, watching."""
    if required.metric is Metric.TRANSFER_SUCCESS and part.transfer is not None:
        yield (
            f"Train the model against {part.transfer} (adversarial training), then assess again: inputs made on a copy "
            "work where the model itself gives way"
        )
    if attacker.knowledge == "labels":
        yield "Answers show labels alone already, and that is enough to copy from: limit what may be asked"
    else:
        yield (
            f"Show less in an answer (now: {part.answers}): fewer classes or decimals (extraction: top, decimals), "
            "then assess again; that makes copies dearer and does not prevent them, as labels alone still allow them"
        )
    yield _limits(enough(part, required))
    yield (
        "Watch what each customer asks: rows unlike all others' and a steady flow up to the limit are signs that a "
        "copy is being made; a watermark may help to prove a theft afterwards, and prevents none"
    )


def _limits(point: BudgetPart | None) -> str:
    """Which limit would make the copy slow, and what a price does to it."""
    if point is None or point.paid < 1:
        return "Limit how many answers one customer gets a day"
    need = f"{paid(point.paid)} answers are enough"
    if point.days is None:
        now = f"{need}, and no limit for one customer is named"
    else:
        now = f"{need}, and take {days(point.days)} now"
    money = f"each USD more for 1,000 answers adds {usd(point.paid / 1000)} to the copy"
    if point.usd is not None:
        money = f"they cost {usd(point.usd)}; {money}"
    if point.days is not None and point.days >= _DEAR:
        return f"Keep the limit for one customer: {now}; {money}; several accounts shorten the time"
    limit = math.floor(point.paid / _DEAR)
    if limit < _FEW:
        return f"Do not rely on limits: {now}, which no limit that customers could live with makes slow; {money}"
    return (
        f"Limit what one customer may ask: {now}; at {limit:,} a day they would take {_DEAR} days, unless several "
        f"accounts share the work; {money}"
    )
