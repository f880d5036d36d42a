"""From a threat model to a plan: which techniques each attacker will use, which not, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redan.errors import NotBuiltError, SetError, SettingError
from redan.goals import Untargeted
from redan.oracle import Capability
from redan.protocols import Access, Attack
from redan.registry.extractors import extractor
from redan.registry.poisoners import poisoner
from redan.threat import attackers as who
from redan.threat.campaigns import Campaign, evasion_campaign, misfit
from redan.threat.consistency import nearest
from redan.threat.extractors import ExtractionCampaign, extraction_campaign, mismatch
from redan.threat.joint import JOINT, LEVELED
from redan.threat.poisoners import PoisonCampaign, poison_campaign, unfit, untestable
from redan.threat.schema import ThreatModel
from redan.threat.steps import Status, Step, evasion_steps, extraction_steps, poisoning_steps
from redan.threat.techniques import Technique, techniques, unrealistic

__all__ = ["Campaign", "Plan", "Status", "Step", "plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Every attacker's campaign, and every technique with its reason: each has one status.

    poisonings, extractions: attackers of those kinds who can be tried; those who cannot are among the campaigns, with
    the reason.
    """

    campaigns: tuple[Campaign, ...]
    steps: tuple[Step, ...]
    skipped: tuple[str, ...]
    poisonings: tuple[PoisonCampaign, ...] = ()
    extractions: tuple[ExtractionCampaign, ...] = ()

    @property
    def price(self) -> float:
        """US dollars for one answer: the highest of the attackers' prices."""
        return max(
            (*(each.capability.price for each in self.campaigns), *(each.price for each in self.extractions)),
            default=0.0,
        )


def _left(
    technique: Technique,
    model: ThreatModel,
    campaigns: Sequence[Campaign],
    poisonings: Sequence[PoisonCampaign],
    extractions: Sequence[ExtractionCampaign],
) -> Step:
    """Why a technique that nobody uses is left out."""

    def step(status: Status, reason: str) -> Step:
        return Step(technique.name, status, reason, technique.ids)

    if technique.name in model.attacks.skip:
        return step(Status.SKIPPED, "the threat model says attacks.skip")
    why = unrealistic(technique, model.attackers)
    if why is not None:
        return step(Status.NOT_REALISTIC, why)
    if technique.name in JOINT and model.system.detector is None:
        return step(Status.NOT_REALISTIC, "it is for a model with a detector, and the file has no system.detector")
    if not technique.built:
        return step(Status.NOT_TESTABLE, "redan has not built it yet")
    poisoners = [each.attacker for each in poisonings if unrealistic(technique, (each.attacker,)) is None]
    if poisoners:
        entry = poisoner(technique.name)
        unfitting = [unfit(entry, attacker, model.system) for attacker in poisoners]
        if None not in unfitting:
            return step(Status.NOT_REALISTIC, str(unfitting[0]))
        cannot = untestable(entry, model.system)
        if cannot is not None:
            return step(Status.NOT_TESTABLE, cannot)
        return step(Status.NOT_NEEDED, f"mode {model.attacks.mode} takes others")
    copiers = [each.attacker for each in extractions if unrealistic(technique, (each.attacker,)) is None]
    if copiers:
        reasons = [mismatch(extractor(technique.name), attacker, model) for attacker in copiers]
        if None not in reasons:
            return step(Status.NOT_REALISTIC, str(reasons[0]))
        return step(Status.NOT_NEEDED, f"mode {model.attacks.mode} takes others")
    able = [c for c in campaigns if unrealistic(technique, (c.attacker,)) is None]
    if all(campaign.within is None for campaign in able):
        return step(Status.NOT_TESTABLE, str(able[0].reason))
    return step(Status.NOT_NEEDED, f"mode {model.attacks.mode} takes stronger ones")


def plan(model: ThreatModel, added: Mapping[str, Attack[Any, Any]] | None = None) -> Plan:
    """What will be run, and of everything redan knows why or why not. Nothing is built or asked here.

    added: the user's own attacks by name (`attacks.add`). Raises SettingError for an unknown attack to skip, and
    SetError for an added attack that no attacker can use.
    """
    added = added or {}
    known = {technique.name: technique for technique in techniques()}
    names = {name for name in known if known[name].built} | set(added)
    unknown = [name for name in model.attacks.skip if name.removesuffix(LEVELED) not in names]
    if unknown:
        name, like = unknown[0], nearest(unknown[0], sorted(names))
        raise SettingError(
            f"attacks.skip names '{name}', which is no attack that redan runs{like}; `redan list techniques` shows all"
        )
    found = [_built_or_not(model, attacker, added) for attacker in model.attackers]
    campaigns = [each for each in found if isinstance(each, Campaign)]
    poisonings = [each for each in found if isinstance(each, PoisonCampaign)]
    extractions = _usable([each for each in found if isinstance(each, ExtractionCampaign)], campaigns)
    for name, attack in added.items():
        if name not in model.attacks.skip and not any(name in dict(c.attacks) for c in campaigns):
            why = _why(attack, campaigns)
            raise SetError(f"attacks.add names {name}, which no attacker can use: {why}; leave it out")
    chosen = [step for campaign in campaigns for step in evasion_steps(campaign, model, known)]
    chosen += [step for campaign in poisonings for step in poisoning_steps(campaign, model, known)]
    chosen += [step for campaign in extractions for step in extraction_steps(campaign, model, known)]
    used = {step.attack for step in chosen}
    left = [
        _left(technique, model, campaigns, poisonings, extractions)
        for technique in known.values()
        if technique.name not in used
    ]
    left += [
        Step(name, Status.SKIPPED, "the threat model says attacks.skip") for name in added if name in model.attacks.skip
    ]
    left.sort(key=lambda step: list(Status).index(step.status))
    return Plan(tuple(campaigns), (*chosen, *left), tuple(model.attacks.skip), tuple(poisonings), tuple(extractions))


def _usable(extractions: Sequence[ExtractionCampaign], campaigns: list[Campaign]) -> list[ExtractionCampaign]:
    """Those whose copies somebody can use; the others are put among the campaigns, with the reason."""
    built = {campaign.attacker.name: campaign for campaign in campaigns}
    found = []
    for each in extractions:
        user = None if each.transfer is None else built.get(each.transfer)
        if user is None or user.within is not None:
            found.append(each)
        else:
            campaigns.append(_not_built(each.attacker, f"the copy is for {each.transfer}, and {user.reason}"))
    return found


def _built_or_not(
    model: ThreatModel, attacker: who.Attacker, added: Mapping[str, Attack[Any, Any]]
) -> Campaign | PoisonCampaign | ExtractionCampaign:
    try:
        if isinstance(attacker, who.Extraction):
            if model.system.detector is not None:
                raise NotBuiltError(
                    "copying a model that refuses inputs is not built yet; write a file without system.detector for "
                    "this attacker: whoever is answered everything copies no worse"
                )
            return extraction_campaign(model, attacker)
        if isinstance(attacker, who.Poisoning):
            return poison_campaign(model, attacker)
        return evasion_campaign(model, attacker, added)
    except NotBuiltError as error:
        return _not_built(attacker, str(error))


def _not_built(attacker: who.Attacker, reason: str) -> Campaign:
    return Campaign(attacker, None, Untargeted(), Access.LABELS, Capability(), (), reason)


def _why(attack: Attack[Any, Any], campaigns: Sequence[Campaign]) -> str:
    told = [misfit(attack, c.within, c.knowledge) for c in campaigns if c.within is not None]
    return next((f"it {reason}" for reason in told if reason), "no attacker is built yet")
