"""What becomes of a technique, and what the chosen ones of each kind of attacker cost at the most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from redan.protocols import Attack, cost
from redan.robustness import Mode, eot_of
from redan.threat.campaigns import Campaign, outcomes
from redan.threat.extractors import ExtractionCampaign
from redan.threat.joint import LEVELED
from redan.threat.poisoners import PoisonCampaign
from redan.threat.schema import ThreatModel
from redan.threat.techniques import Technique

__all__ = ["Status", "Step", "evasion_steps", "extraction_steps", "poisoning_steps"]


class Status(StrEnum):
    """What becomes of a technique."""

    CHOSEN = "chosen"
    SKIPPED = "skipped"
    NOT_TESTABLE = "not testable"
    """Realistic here, and not built."""
    NOT_NEEDED = "not needed"
    NOT_REALISTIC = "not realistic"


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one technique. attacker: who uses it; None unless it is chosen."""

    attack: str
    status: Status
    reason: str
    techniques: tuple[str, ...] = ()
    attacker: str | None = None
    queries: int | None = None  # the most it can ask the target for one row
    forwards: int | None = None  # surrogates' passes are among them
    backwards: int | None = None
    usd: float | None = None  # the most it can cost the attacker for one row


def evasion_steps(campaign: Campaign, model: ThreatModel, known: Mapping[str, Technique]) -> Iterator[Step]:
    """The steps of an attacker who changes inputs, with the most that each can cost for one row."""
    for name, attack in campaign.served:
        classes = outcomes(model, campaign.aim)
        eot = eot_of(Mode(model.attacks.mode.value), model.attacks.eot)
        most = cost(attack, classes, eot)
        asked = _asked(campaign, attack, classes, eot)
        technique = known.get(name.removesuffix(LEVELED))
        own = technique is None
        why = "the threat model says attacks.add" if own else f"mode {model.attacks.mode}"
        if eot > 1 and most and most.backwards:
            why += f", gradients averaged over {eot} draws if the model is stochastic"
        if not own:
            why += f", knowledge {campaign.sees}"
        if name.endswith(LEVELED):
            why += ", climbed as if all members of the ensemble were as sure"
        if model.system.detector is not None:
            why += ", to be answered wrong and not refused"
        yield Step(
            name,
            Status.CHOSEN,
            why,
            () if technique is None else technique.ids,
            campaign.attacker.name,
            asked,
            most.queries if most else None,
            most.backwards if most else None,
            asked * campaign.capability.price if asked and campaign.capability.usd_per_1000_queries else None,
        )


def _asked(campaign: Campaign, attack: Attack[Any, Any], classes: int, eot: int) -> int | None:
    """How often an attack asks the target for one row; None where surrogates' gradients of several scores hide it."""
    most = cost(attack, classes, 1 if campaign.lent else eot)
    if most is None or not campaign.lent:
        return most.queries if most else None
    return max(1, most.queries - most.backwards) if most.backwards <= most.queries else None


def poisoning_steps(campaign: PoisonCampaign, model: ThreatModel, known: Mapping[str, Technique]) -> Iterator[Step]:
    """The steps of a poisoning attacker: what they cost is trained victims, which the reason counts."""
    labels = "labels may be changed" if campaign.budget.may_change_labels else "labels stay"
    full, *smaller = campaign.points
    why = f"mode {model.attacks.mode}, {labels}, {_percent(full.share)} of the training rows, {full.victims} victims"
    if smaller:
        why += f", and {smaller[0].victims} each at {', '.join(_percent(point.share) for point in smaller)}"
    for each in campaign.attacks:
        yield Step(each.name, Status.CHOSEN, why, known[each.name].ids, campaign.attacker.name)


def extraction_steps(
    campaign: ExtractionCampaign, model: ThreatModel, known: Mapping[str, Technique]
) -> Iterator[Step]:
    """The steps of an extraction attacker: what they cost is answers in all, which the reason counts."""
    copies, (whole, *smaller) = model.extraction.copies, campaign.points
    for each in campaign.attacks:
        why = (
            f"mode {model.attacks.mode}, knowledge {campaign.attacker.knowledge}, {copies} copies of {whole:,} answers"
        )
        if smaller and each.staged:
            why += f", and of {', '.join(f'{point:,}' for point in smaller)} of them"
        if campaign.transfer is not None:
            why += f"; then attacked as {campaign.transfer}"
        yield Step(each.name, Status.CHOSEN, why, known[each.name].ids, campaign.attacker.name)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
