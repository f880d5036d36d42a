"""Why an attacker's numbers may not be trusted, as far as the evidence tells."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from redan.evidence.report import AttackPart, CheckPart, Diagnosis, Doubt
from redan.evidence.tally import Tally

NAIVE = "naive beats adaptive"
_GRADIENTS = ("gradients", "gradient-slopes")  # preflight checks
_BLIND = 0.5  # of an attacker's gradients
_MORE = 0.01  # of the rows that were left to attacks without gradients


def diagnosed(
    tally: Tally,
    attacks: Sequence[AttackPart],
    preflight: Sequence[CheckPart],
    rows: int,
    *,
    over: bool,
    handed: Collection[str] = (),
) -> list[Diagnosis]:
    """What the run itself shows, then what an examination of it found; a pass rests on nothing suspicious.

    over: whether the run came to its end. One that did not has not been examined to the end either. handed: retries
    that show what was found on the model without its defenses.
    """
    said = [
        Diagnosis(name=name, status=Doubt.SUSPICIOUS, detail=detail, blocks_pass=True)
        for name, detail in (*_found(tally, attacks, preflight, rows), *_naive(tally, rows, handed))
    ]
    if not over and tally.examined is None and any(attack.access == "gradients" for attack in tally.head.attacks):
        detail = "the run was ended before it was asked whether its attacks can be trusted"
        said.append(Diagnosis(name="not examined", status=Doubt.SUSPICIOUS, detail=detail, blocks_pass=True))
    if tally.examined is not None:
        said += [
            Diagnosis(name=i.name, status=i.status, detail=i.detail, blocks_pass=i.status is Doubt.SUSPICIOUS)
            for i in tally.examined.indications
        ]
    return said


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
    for head, part in zip(tally.head.attacks, attacks, strict=False):  # retries follow, and are another matter
        climbed = climbed or head.access == "gradients"
        if climbed and head.access != "gradients" and part.broken > max(2, _MORE * part.attempted):
            yield (
                "black box beats white box",
                f"{part.name}, which sees no gradient, broke {part.broken} of {part.attempted} rows that attacks "
                "with gradients had left: they may be masked",
            )


def _naive(tally: Tally, rows: int, handed: Collection[str]) -> Iterator[tuple[str, str]]:
    """Inputs of a model without its defenses that break what attacks on the served one left standing."""
    for part in tally.retries(rows):
        if part.name in handed and part.broken > max(2, _MORE * part.attempted):
            yield (
                NAIVE,
                f"{part.broken} rows that the attacks on what is served had left fell to inputs {part.name}: those "
                "attacks are weaker than one that does not know of the defense",
            )
