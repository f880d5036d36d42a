"""Why an attacker's numbers may not be trusted, as far as the evidence itself tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from redan.evidence.report import AttackPart, CheckPart, Diagnosis
from redan.evidence.tally import Tally

_GRADIENTS = ("gradients", "gradient-slopes")  # preflight checks
_BLIND = 0.5  # of an attacker's gradients
_MORE = 0.01  # of the rows that were left to attacks without gradients


def diagnosed(
    tally: Tally, attacks: Sequence[AttackPart], preflight: Sequence[CheckPart], rows: int
) -> list[Diagnosis]:
    """Everything that a pass cannot rest on."""
    return [
        Diagnosis(name=name, detail=detail, blocks_pass=True)
        for name, detail in _found(tally, attacks, preflight, rows)
    ]


def _found(
    tally: Tally, attacks: Sequence[AttackPart], preflight: Sequence[CheckPart], rows: int
) -> Iterator[tuple[str, str]]:
    if tally.head.knowledge == "gradients":
        masked = [check for check in preflight if check.check in _GRADIENTS and check.status != "pass"]
        for check in masked:
            yield "masked gradients", f"{check.detail}: attacks that climb gradients are blind there"
        blind = tally.blind_share(rows)
        if blind > _BLIND and not masked:
            yield (
                "vanishing gradients",
                f"{blind:.0%} of the gradients that attacks asked for were zero or not finite",
            )
        yield from _outdone(tally, attacks)
    if tally.crashed:
        yield "attacks that failed", f"{', '.join(tally.crashed)} raised and did not finish"


def _outdone(tally: Tally, attacks: Sequence[AttackPart]) -> Iterator[tuple[str, str]]:
    """Attacks by scores that break what climbing left standing: the gradients do not lead there (AutoAttack's flag)."""
    climbed = False
    for head, part in zip(tally.head.attacks, attacks, strict=True):
        climbed = climbed or head.access == "gradients"
        if climbed and head.access != "gradients" and part.broken > max(2, _MORE * part.attempted):
            yield (
                "black box beats white box",
                f"{part.name}, which sees no gradient, broke {part.broken} of {part.attempted} rows that attacks "
                "with gradients had left: they may be masked",
            )
