"""What a report is evidence for, item by item of the standards, and how strong the evidence is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from redan.evidence.log import StandardHead
from redan.evidence.report import AttackerPart, StandardPart

_STRENGTHS = ("not tested", "heuristic", "standard", "adaptive", "certified")


def weakest(strengths: Iterable[str]) -> str:
    """The weakest of some strengths of evidence; not tested if there is none."""
    return min(strengths, key=_STRENGTHS.index, default=_STRENGTHS[0])


def standing(heads: Sequence[StandardHead], attackers: Sequence[AttackerPart]) -> list[StandardPart]:
    """Each item with the weakest evidence among its attackers who were assessed; the others are named."""
    by_name = {part.name: part for part in attackers}
    return [_standing(head, [by_name[name] for name in head.attackers]) for head in heads]


def _standing(head: StandardHead, about: Sequence[AttackerPart]) -> StandardPart:
    tested = [part for part in about if part.assessed]
    untested = [part.name for part in about if not part.assessed]
    strength = weakest(part.strength for part in tested)
    if not about and head.itself:
        strength = "standard"
    shown = strength != _STRENGTHS[0]
    more = f"; nor anything about {', '.join(untested)}" if shown and untested else ""
    return StandardPart(
        id=head.id,
        name=head.name,
        text=head.text,
        version=head.version,
        date=head.date,
        source=head.source,
        attackers=head.attackers,
        strength=strength,
        shows=head.shows if shown else None,
        shows_not=f"{head.shows_not}{more}" if shown else "anything: it was not tested",
    )
