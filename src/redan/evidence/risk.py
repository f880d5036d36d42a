"""Which attacker to fear most: how often they succeed, what it costs them, and what it costs the owner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from redan.evidence.extracted import ExtractionPart
from redan.evidence.extraction_tally import reached
from redan.evidence.report import AttackerPart, RiskPart

_WEIGHT = {"low": 1, "medium": 2, "high": 3, "critical": 4, None: 2}  # what is not stated counts as medium


def ranked(attackers: Sequence[AttackerPart], costs: Mapping[str, tuple[float | None, float | None]]) -> list[RiskPart]:
    """The assessed attackers, the worst first: success rate times the impact's level, the cheaper first among equals.

    costs: median queries of a broken row and US dollars for each, by attacker.
    """
    found = []
    for part in attackers:
        if not part.assessed:
            continue
        rate = _rate(part)
        queries, usd = costs.get(part.name, (None, None))
        key = (-rate * _WEIGHT[part.impact], queries if queries is not None else float("inf"))
        found.append((key, part, rate, queries, usd))
    found.sort(key=lambda each: each[0])
    return [
        RiskPart(
            rank=rank,
            attacker=part.name,
            impact=part.impact,
            success_rate=rate,
            median_queries=queries,
            usd_per_success=usd,
        )
        for rank, (_, part, rate, queries, usd) in enumerate(found, 1)
    ]


def _rate(part: AttackerPart) -> float:
    """How often the attacker succeeds: right rows broken; or what the strongest poison does at its whole share."""
    if part.counts is not None:
        return part.counts.broken / part.counts.right if part.counts.right else 0.0
    if part.extraction is not None:
        return _copied(part.extraction)
    poison = part.poisoning
    strongest = next((each for each in poison.poisoners if each.name == poison.strongest), None) if poison else None
    if strongest is None or not strongest.points:
        return 0.0
    point = strongest.points[0]
    if point.success is not None:
        return point.success.value
    if point.accuracy is None or point.clean_accuracy is None:
        return 0.0
    return max(0.0, point.clean_accuracy.value - point.accuracy.value)


def _copied(part: ExtractionPart) -> float:
    """Agreement of the strongest extractor's copies, or their transfer."""
    strongest = next((each for each in part.extractors if each.name == part.strongest and each.points), None)
    mean = None if strongest is None else reached(strongest.points[0], part.goal, part.rows)
    return 0.0 if mean is None else mean.value
