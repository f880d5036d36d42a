"""What is judged of a poisoning attacker: the victims of each poisoner at the attacker's whole share."""

from __future__ import annotations

from collections.abc import Callable

from redan.evidence.base import MeanPart
from redan.evidence.poisoned import PointPart, PoisoningPart
from redan.evidence.requirement import Metric
from redan.evidence.victims import Several, Victims

__all__ = ["POISON_RATES"]


def _success(part: PoisoningPart) -> Several | str:
    return _several(part, lambda point: point.success, highest=True)


def _accuracy(part: PoisoningPart) -> Several | str:
    return _several(part, lambda point: point.accuracy, highest=False)


def _several(part: PoisoningPart, mean_of: Callable[[PointPart], MeanPart | None], *, highest: bool) -> Several | str:
    found = []
    for poisoner in part.poisoners:
        if poisoner.status == "not applicable" or not poisoner.points:
            continue
        point = poisoner.points[0]
        mean = mean_of(point)
        found.append(
            Victims(
                rates=() if mean is None else tuple(mean.each),
                rows=1 if mean is None else mean.rows,
                errors=point.errors,
                undecided=point.undecided,
                name=poisoner.name,
            )
        )
    if not found:
        why = next((each.reason for each in part.poisoners if each.reason), "no poisoner was tried")
        return f"no poisoner could be used: {why}"
    return Several(tuple(found), highest=highest)


POISON_RATES: dict[Metric, Callable[[PoisoningPart], Several | str]] = {
    Metric.BACKDOOR_SUCCESS: _success,
    Metric.ATTACK_SUCCESS_RATE: _success,
    Metric.POISONED_ACCURACY: _accuracy,
}
"""How each metric is counted over victims, or why it cannot be."""
