"""From a threat model to a plan: which techniques each attacker will use, which not, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from redan.errors import NotBuiltError, SetError, SettingError
from redan.goals import Aim, Deviate, FlipLabels, LeastLikely, Targeted, Untargeted
from redan.oracle import Capability
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.perturbations.spatial import Spatial
from redan.protocols import Access, Attack, Ball, Bounded, cost, is_ball, needs
from redan.registry.extractors import extractor
from redan.registry.poisoners import poisoner
from redan.robustness import Mode, Named, attacks_of, eot_of
from redan.threat import attackers as who
from redan.threat import system as said
from redan.threat.changes import Change, L0Change, L1Change, L2Change, LinfChange, SpatialChange, SpatialLimits
from redan.threat.consistency import nearest
from redan.threat.extractors import ExtractionCampaign, extraction_campaign, mismatch
from redan.threat.joint import JOINT, LEVELED, joint_attacks, leveled_attacks
from redan.threat.poisoners import PoisonCampaign, poison_campaign, unfit, untestable
from redan.threat.schema import ThreatModel
from redan.threat.techniques import Technique, techniques, unrealistic

_ACCESS = {
    who.Knowledge.GRADIENTS: Access.GRADIENTS,
    who.Knowledge.SCORES: Access.SCORES,
    who.Knowledge.LABELS: Access.LABELS,
    who.Knowledge.SURROGATE: Access.GRADIENTS,  # of the surrogates
}


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


@dataclass(frozen=True, slots=True)
class Campaign:
    """One attacker with all that decides his attacks; none, and a reason, where he is not built yet."""

    attacker: who.Attacker
    within: Bounded | None
    aim: Aim
    knowledge: Access
    capability: Capability
    attacks: tuple[Named, ...]
    """On the model alone, whatever is served with it."""
    reason: str | None = None
    leveled: tuple[Named, ...] = ()
    """Of an ensemble that is climbed as if all members were as sure."""
    joint: tuple[Named, ...] = ()
    """On the model and its detector at once."""

    @property
    def served(self) -> tuple[Named, ...]:
        """All attacks on what is served, in the order they run. Those of an ensemble's members are not among them."""
        return (*self.attacks, *self.leveled, *self.joint)

    @property
    def lent(self) -> bool:
        """Whether gradients and scores are surrogates' instead of the target's."""
        return self.sees == who.Knowledge.SURROGATE

    @property
    def sees(self) -> str:
        """What the attacker sees of the model, in the file's words."""
        return str(getattr(self.attacker, "knowledge", "nothing"))


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


def _set(change: Change) -> Bounded:
    match change:
        case LinfChange(linf=radius):
            return Linf(radius)
        case L2Change(l2=radius):
            return L2(radius)
        case L1Change(l1=radius):
            return L1(radius)
        case L0Change(l0=count):
            return L0(count)
        case SpatialChange(spatial=SpatialLimits(rotation=rotation, translation=translation)):
            return Spatial(rotation or 0, translation or 0)
    kind = next(iter(type(change).model_fields))
    raise NotBuiltError(
        f"changes of kind {kind} are not built yet; redan attacks within linf, l2, l1, l0 and shifts and turns"
    )


def _aim(goal: who.EvasionGoal, task: said.Task) -> Aim:
    labels = task is said.Task.MULTILABEL
    match goal:
        case who.DeviateGoal(deviate=by):
            return Deviate(by)
        case who.TargetedGoal(targeted=who.LeastLikely()):
            return LeastLikely()
        case who.TargetedGoal(targeted=int(target)):
            return FlipLabels(target) if labels else Targeted(target)
    return FlipLabels() if labels else Untargeted()


def _campaign(model: ThreatModel, attacker: who.Attacker, added: Mapping[str, Attack[Any, Any]]) -> Campaign:
    if not isinstance(attacker, who.Evasion):
        raise NotBuiltError(f"attackers of kind {attacker.kind} are not built yet")
    aim = _aim(attacker.goal, model.system.task)
    within, knowledge = _set(attacker.change), _ACCESS[attacker.knowledge]
    capability = Capability(attacker.capability.queries_per_row, attacker.capability.usd_per_1000_queries)
    mode = Mode(model.attacks.mode.value)
    lent = attacker.knowledge is who.Knowledge.SURROGATE
    if knowledge is Access.LABELS and isinstance(aim, Targeted | LeastLikely) and not isinstance(within, Spatial):
        raise NotBuiltError(
            "a wanted class by labels alone is not built yet: the search needs an input of that class to start from; "
            "say goal: untargeted, or knowledge: scores"
        )
    chosen = attacks_of(mode, within, knowledge, _outcomes(model, aim), capability, surrogates=lent)
    own = tuple(
        (name, attack) for name, attack in added.items() if _misfit(attack, within, knowledge) is None
    )  # fmt: skip
    climbs = attacker.knowledge is who.Knowledge.GRADIENTS
    guarded = climbs and model.system.detector is not None

    def kept(attacks: Sequence[Named]) -> tuple[Named, ...]:
        return tuple(named for named in attacks if named[0] not in model.attacks.skip)

    return Campaign(
        attacker=attacker,
        within=within,
        aim=aim,
        knowledge=knowledge,
        capability=capability,
        attacks=kept((*chosen, *own)),
        leveled=kept(leveled_attacks(model.system.model, chosen) if climbs else ()),
        joint=kept(joint_attacks(mode, within) if guarded else ()),
    )


def _poisons(campaign: PoisonCampaign, model: ThreatModel, known: Mapping[str, Technique]) -> Iterator[Step]:
    """The steps of a poisoning attacker: what they cost is trained victims, which the reason counts."""
    labels = "labels may be changed" if campaign.budget.may_change_labels else "labels stay"
    full, *smaller = campaign.points
    why = f"mode {model.attacks.mode}, {labels}, {_percent(full.share)} of the training rows, {full.victims} victims"
    if smaller:
        why += f", and {smaller[0].victims} each at {', '.join(_percent(point.share) for point in smaller)}"
    for each in campaign.attacks:
        yield Step(each.name, Status.CHOSEN, why, known[each.name].ids, campaign.attacker.name)


def _copies(campaign: ExtractionCampaign, model: ThreatModel, known: Mapping[str, Technique]) -> Iterator[Step]:
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


def _outcomes(model: ThreatModel, aim: Aim) -> int:
    """How many outcomes goals and attacks see of an answer."""
    return aim.task.outcomes(model.system.class_count or 2)


def _misfit(attack: Attack[Any, Any], within: Bounded, knowledge: Access) -> str | None:
    """Why an attack cannot be used by this attacker; None if it can."""
    need = needs(attack)
    if need.access > knowledge:
        return f"needs {need.access.name.lower()}, and the attacker's knowledge is {knowledge.name.lower()}"
    if need.within is Ball and not is_ball(within):
        return f"moves in norm balls, and the change is {type(within).__name__}"
    if need.within is not Ball and not isinstance(within, need.within):
        return f"moves in {need.within.__name__}, and the change is {type(within).__name__}"
    return None


def _chosen(campaign: Campaign, model: ThreatModel, known: Mapping[str, Technique]) -> Iterator[Step]:
    for name, attack in campaign.served:
        classes = _outcomes(model, campaign.aim)
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
    chosen = [step for campaign in campaigns for step in _chosen(campaign, model, known)]
    chosen += [step for campaign in poisonings for step in _poisons(campaign, model, known)]
    chosen += [step for campaign in extractions for step in _copies(campaign, model, known)]
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
        return _campaign(model, attacker, added)
    except NotBuiltError as error:
        return _not_built(attacker, str(error))


def _not_built(attacker: who.Attacker, reason: str) -> Campaign:
    return Campaign(attacker, None, Untargeted(), Access.LABELS, Capability(), (), reason)


def _why(attack: Attack[Any, Any], campaigns: Sequence[Campaign]) -> str:
    told = [_misfit(attack, c.within, c.knowledge) for c in campaigns if c.within is not None]
    return next((f"it {reason}" for reason in told if reason), "no attacker is built yet")
