"""What is judged of an extraction attacker: the copies of each extractor that the whole budget makes."""

from __future__ import annotations

from collections.abc import Callable

from redan.evidence.base import MeanPart
from redan.evidence.extracted import BudgetPart, ExtractionPart
from redan.evidence.requirement import Direction, Metric
from redan.evidence.victims import Several, Victims

__all__ = ["EXTRACTION_RATES"]


def _fidelity(part: ExtractionPart, direction: Direction) -> Several | str:
    def told(point: BudgetPart) -> tuple[MeanPart | None, int]:
        of = next((each for each in point.compared if each.rows == part.rows), None)
        return (None, 0) if of is None else (of.fidelity, of.unanswered)

    return _several(part, told, direction)


def _transfer(part: ExtractionPart, direction: Direction) -> Several | str:
    def told(point: BudgetPart) -> tuple[MeanPart | None, int]:
        of = point.transfer  # errors are among its rows, and count as not broken
        return (None, 0) if of is None else (of.success, of.errors if direction is Direction.AT_MOST else 0)

    return _several(part, told, direction, among=True)


def _several(
    part: ExtractionPart,
    told: Callable[[BudgetPart], tuple[MeanPart | None, int]],
    direction: Direction,
    *,
    among: bool = False,
) -> Several | str:
    """Rows of which nothing is known count against whoever requires. among: whether they are among the mean's rows."""
    found = []
    for extractor in part.extractors:
        if extractor.status == "not applicable" or not extractor.points:
            continue
        point = extractor.points[0]
        mean, unknown = told(point)
        rates: tuple[float, ...] = ()
        if mean is not None:
            n = mean.rows if among else mean.rows + unknown
            more = unknown if direction is Direction.AT_MOST else 0
            rates = tuple(min(1.0, (rate * mean.rows + more) / n) for rate in mean.each)
        found.append(
            Victims(
                rates=rates,
                rows=1 if mean is None else mean.rows,
                errors=point.errors,
                undecided=point.undecided,
                name=extractor.name,
            )
        )
    if not found:
        why = next((each.reason for each in part.extractors if each.reason), "no extractor was tried")
        return f"no extractor could be used: {why}"
    return Several(tuple(found), highest=True, unit="copies")


EXTRACTION_RATES: dict[Metric, Callable[[ExtractionPart, Direction], Several | str]] = {
    Metric.EXTRACTION_FIDELITY: _fidelity,
    Metric.TRANSFER_SUCCESS: _transfer,
}
"""How each metric is counted over copies, or why it cannot be."""
