"""From a threat model to a plan: which techniques each attacker will use, which not, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redan.errors import NotBuiltError, SetError, SettingError
from redan.goals import Aim, LeastLikely, Targeted, Untargeted
from redan.oracle import Capability
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.protocols import Access, Attack, Ball, cost, needs
from redan.registry import ATTACKS, Entry
from redan.robustness import Mode, Named, attacks_of
from redan.threat import attackers as who
from redan.threat.changes import Change, L0Change, L1Change, L2Change, LinfChange
from redan.threat.schema import ThreatModel

_ACCESS = {
    who.Knowledge.GRADIENTS: Access.GRADIENTS,
    who.Knowledge.SCORES: Access.SCORES,
    who.Knowledge.LABELS: Access.LABELS,
}


@dataclass(frozen=True, slots=True)
class Step:
    """One technique for one attacker. status: chosen, not chosen, skipped, or not built."""

    attacker: str
    attack: str
    status: str
    reason: str
    techniques: tuple[str, ...] = ()
    queries: int | None = None  # the most it can ask for one row
    backwards: int | None = None


@dataclass(frozen=True, slots=True)
class Campaign:
    """One attacker with all that decides his attacks; none, and a reason, where he is not built yet."""

    attacker: who.Attacker
    within: Ball | None
    aim: Aim
    knowledge: Access
    capability: Capability
    attacks: tuple[Named, ...]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Every attacker's campaign, and every technique with its reason."""

    campaigns: tuple[Campaign, ...]
    steps: tuple[Step, ...]
    skipped: tuple[str, ...]


def _set(change: Change) -> Ball:
    match change:
        case LinfChange(linf=radius):
            return Linf(radius)
        case L2Change(l2=radius):
            return L2(radius)
        case L1Change(l1=radius):
            return L1(radius)
        case L0Change(l0=count):
            return L0(count)
    kind = next(iter(type(change).model_fields))
    raise NotBuiltError(f"changes of kind {kind} are not built yet; redan attacks within linf, l2 and l1")


def _aim(goal: object) -> Aim:
    match goal:
        case who.Untargeted():
            return Untargeted()
        case who.TargetedGoal(targeted=who.LeastLikely()):
            return LeastLikely()
        case who.TargetedGoal(targeted=int(target)):
            return Targeted(target)
    raise NotBuiltError("goals that deviate are not built yet; redan attacks classification")


def _campaign(model: ThreatModel, attacker: who.Attacker, added: Mapping[str, Attack[Any, Any]]) -> Campaign:
    if not isinstance(attacker, who.Evasion):
        raise NotBuiltError(f"attackers of kind {attacker.kind} are not built yet")
    if attacker.knowledge not in _ACCESS:
        raise NotBuiltError(f"knowledge: {attacker.knowledge} is not built yet; redan attacks the model itself")
    if model.system.class_count is None or model.system.task.value != "classification":
        raise NotBuiltError(f"task: {model.system.task} is not built yet; redan attacks classification")
    within, knowledge = _set(attacker.change), _ACCESS[attacker.knowledge]
    capability = Capability(attacker.capability.queries_per_row, attacker.capability.usd_per_1000_queries)
    mode = Mode(model.attacks.mode.value)
    chosen = attacks_of(mode, within, knowledge, model.system.class_count, capability)
    own = tuple(
        (name, attack) for name, attack in added.items() if _misfit(attack, within, knowledge) is None
    )  # fmt: skip
    return Campaign(
        attacker=attacker,
        within=within,
        aim=_aim(attacker.goal),
        knowledge=knowledge,
        capability=capability,
        attacks=tuple(named for named in (*chosen, *own) if named[0] not in model.attacks.skip),
    )


def _misfit(attack: Attack[Any, Any], within: Ball, knowledge: Access) -> str | None:
    """Why an attack cannot be used by this attacker; None if it can."""
    need = needs(attack)
    if need.access > knowledge:
        return f"needs {need.access.name.lower()}, and the attacker's knowledge is {knowledge.name.lower()}"
    if need.within is not Ball and not isinstance(within, need.within):
        return f"moves in {need.within.__name__}, and the change is {type(within).__name__}"
    return None


def _known_names(added: Mapping[str, Attack[Any, Any]]) -> set[str]:
    return {entry.name for entry in ATTACKS} | set(added)


def _step(model: ThreatModel, campaign: Campaign, entry: Entry, classes: int) -> Step | None:
    """What becomes of one registered attack under one attacker; None for an entry of another set."""
    name, within = campaign.attacker.name, campaign.within
    chosen = dict(campaign.attacks)
    if type(within) not in entry.sets:
        others = [e for e in ATTACKS if e.name == entry.name and type(within) in e.sets]
        if others:
            return None
        return Step(name, entry.name, "not chosen", f"does not move in {type(within).__name__}", entry.techniques)
    if entry.name in model.attacks.skip:
        return Step(name, entry.name, "skipped", "the threat model says attacks.skip", entry.techniques)
    if entry.name in chosen:
        most = cost(chosen[entry.name], classes)
        reason = f"mode {model.attacks.mode}, knowledge {campaign.knowledge.name.lower()}"
        return Step(
            name,
            entry.name,
            "chosen",
            reason,
            entry.techniques,
            most.queries if most else None,
            most.backwards if most else None,
        )
    why = _misfit(entry.make(), within or Linf(0.0), campaign.knowledge)
    return Step(name, entry.name, "not chosen", why or f"mode {model.attacks.mode} does not need it", entry.techniques)


def plan(model: ThreatModel, added: Mapping[str, Attack[Any, Any]] | None = None) -> Plan:
    """What will be run, and of everything redan knows why or why not. Nothing is built or asked here.

    added: the user's own attacks by name (`attacks.add`). Raises SettingError for an unknown attack to skip, and
    SetError for an added attack that no attacker can use.
    """
    added = added or {}
    unknown = [name for name in model.attacks.skip if name not in _known_names(added)]
    if unknown:
        known = ", ".join(sorted(_known_names(added)))
        raise SettingError(f"attacks.skip names '{unknown[0]}', which is no attack; redan knows {known}")
    classes = model.system.class_count or 2
    campaigns, steps = [], []
    for attacker in model.attackers:
        try:
            campaign = _campaign(model, attacker, added)
        except NotBuiltError as error:
            campaign = Campaign(attacker, None, Untargeted(), Access.LABELS, Capability(), (), str(error))
            steps.append(Step(attacker.name, str(attacker.kind), "not built", str(error)))
        campaigns.append(campaign)
        if campaign.within is None:
            continue
        steps += [s for entry in ATTACKS if (s := _step(model, campaign, entry, classes)) is not None]
        steps += _own_steps(campaign, added, classes, model.attacks.skip)
    unused = [n for n in added if not any(n in dict(c.attacks) for c in campaigns) and n not in model.attacks.skip]
    if unused:
        why = next((s.reason for s in steps if s.attack == unused[0]), "no attacker is built yet")
        raise SetError(f"attacks.add names {unused[0]}, which no attacker can use: it {why}; leave it out")
    return Plan(tuple(campaigns), tuple(steps), tuple(model.attacks.skip))


def _own_steps(
    campaign: Campaign, added: Mapping[str, Attack[Any, Any]], classes: int, skip: tuple[str, ...]
) -> list[Step]:
    chosen = dict(campaign.attacks)
    steps = []
    for name, attack in added.items():
        if name in chosen:
            status, reason, spent = "chosen", "the threat model says attacks.add", cost(attack, classes)
        elif name in skip:
            status, reason, spent = "skipped", "the threat model says attacks.skip", None
        else:
            why = _misfit(attack, campaign.within or Linf(0.0), campaign.knowledge)
            status, reason, spent = "not chosen", why or "not needed", None
        steps.append(
            Step(
                campaign.attacker.name,
                name,
                status,
                reason,
                (),
                spent.queries if spent else None,
                spent.backwards if spent else None,
            )
        )
    return steps
