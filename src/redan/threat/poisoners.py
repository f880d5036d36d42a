"""From a poisoning attacker of the threat model to what is tried for him: goal, trigger, budget, attacks, shares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from redan.errors import NotBuiltError, SettingError
from redan.poisoning.backdoor import AllToAll
from redan.poisoning.budget import Budget
from redan.poisoning.scene import PoisonGoal
from redan.poisoning.triggers import Blend, Columns, Corner, Patch, Sinusoid, Trigger
from redan.registry.poisoners import POISONERS, WIDEST, PoisonerEntry, poisoner
from redan.threat import attackers as who
from redan.threat import triggers as said
from redan.threat.inputs import InputKind
from redan.threat.schema import ModeName, ThreatModel
from redan.threat.system import System, Task
from redan.threat.triggers import (
    ColumnsTrigger,
    CornerName,
    PatchShape,
    PatchTrigger,
    TriggerName,
    trigger_name,
)

__all__ = [
    "Point",
    "PoisonCampaign",
    "Trainings",
    "goal_of",
    "points_of",
    "poison_campaign",
    "target_of",
    "trainings",
    "trigger_class",
    "trigger_of",
    "unfit",
    "untestable",
]


class Point(NamedTuple):
    """How many victims are trained on how much poison. share: of the training rows."""

    share: float
    victims: int


@dataclass(frozen=True, slots=True)
class PoisonCampaign:
    """One poisoning attacker with all that decides his attacks. points: the full share first, then smaller ones; for
    chosen rows the full share alone, with a victim for each of them."""

    attacker: who.Poisoning
    goal: PoisonGoal
    budget: Budget
    attacks: tuple[PoisonerEntry, ...]
    points: tuple[Point, ...]


_CORNERS: Mapping[CornerName, Corner] = MappingProxyType(
    {
        CornerName.TOP_LEFT: Corner.TOP_LEFT,
        CornerName.TOP_RIGHT: Corner.TOP_RIGHT,
        CornerName.BOTTOM_LEFT: Corner.BOTTOM_LEFT,
        CornerName.BOTTOM_RIGHT: Corner.BOTTOM_RIGHT,
    }
)


_CLASSES: Mapping[str, type] = MappingProxyType(
    {"patch": Patch, "blend": Blend, "sinusoid": Sinusoid, "columns": Columns}
)


def trigger_class(trigger: said.Trigger) -> type:
    """What kind of trigger it is, in `redan.poisoning.triggers`."""
    return _CLASSES[trigger_name(trigger)]


def trigger_of(backdoor: who.Backdoor, bounds: tuple[float, float] | None) -> Trigger:
    """The trigger as it is put on rows whose values lie in `bounds`.

    A wave has the paper's amplitude, 20/255 of the bounds' width. Raises SettingError for a blend or a wave without
    bounds.
    """
    match backdoor.trigger:
        case PatchTrigger(patch=patch):
            return _patch(patch, bounds)
        case ColumnsTrigger(columns=columns):
            return Columns(dict(columns))
        case TriggerName.PATCH:
            return _patch(PatchShape(), bounds)
    if bounds is None:
        raise SettingError(f"a trigger of {backdoor.trigger} needs the box that rows lie in; give system.inputs.bounds")
    if backdoor.trigger is TriggerName.BLEND:
        return Blend(bounds=bounds)
    return Sinusoid(amplitude=(bounds[1] - bounds[0]) * 20 / 255, bounds=bounds)


def _patch(shape: PatchShape, bounds: tuple[float, float] | None) -> Patch:
    white = bounds[1] if bounds is not None else 1.0
    return Patch(size=shape.size, value=white if shape.value is None else shape.value, corner=_CORNERS[shape.corner])


def target_of(backdoor: who.Backdoor, classes: int) -> int | AllToAll:
    """What stamped rows are to be taken for."""
    match backdoor.target:
        case who.AllToAll():
            return AllToAll(classes)
        case target:
            return target


def goal_of(goal: who.PoisoningGoal) -> PoisonGoal:
    """What the attacker wants, as poisoners know it."""
    match goal:
        case who.BackdoorGoal():
            return PoisonGoal.BACKDOOR
        case who.TargetedRowsGoal():
            return PoisonGoal.TARGETED_ROWS
    return PoisonGoal.AVAILABILITY


class _Taken(NamedTuple):
    """What mode quick takes, what the default mode takes besides, and what audit takes besides both."""

    quick: tuple[str, ...]
    default: tuple[str, ...] = ()
    audit: tuple[str, ...] = ()


_STAMPS = tuple(each.name for each in POISONERS if each.triggers)
_TAKEN: Mapping[tuple[PoisonGoal, bool], _Taken] = MappingProxyType(
    {  # (goal, whether labels may be changed)
        (PoisonGoal.BACKDOOR, True): _Taken(_STAMPS, (), ("sig", "label-consistent", "sleeper-agent")),
        (PoisonGoal.BACKDOOR, False): _Taken(("sig",), ("label-consistent", "sleeper-agent")),
        (PoisonGoal.TARGETED_ROWS, True): _Taken(("insertion",), (), ("gradient-matching", "feature-collision")),
        (PoisonGoal.TARGETED_ROWS, False): _Taken(("gradient-matching",), (), ("feature-collision",)),
        (PoisonGoal.AVAILABILITY, True): _Taken(
            ("random-flips",),
            ("label-flip", "gradient-poisoning"),
            ("targeted-flips", "unlearnable-examples", "error-maximizing"),
        ),
        (PoisonGoal.AVAILABILITY, False): _Taken(("unlearnable-examples", "error-maximizing")),
    }
)
_CURVES: Mapping[ModeName, tuple[float, ...]] = MappingProxyType(
    {ModeName.QUICK: (), ModeName.AUDIT: (1 / 2, 1 / 5, 1 / 10, 1 / 20, 1 / 50)}
)
_CURVE = (1 / 2, 1 / 5, 1 / 10)
_KINDS = (InputKind.IMAGE, InputKind.TENSOR, InputKind.TABLE)


def poison_campaign(model: ThreatModel, attacker: who.Poisoning) -> PoisonCampaign:
    """What is tried for a poisoning attacker. Raises NotBuiltError where nothing can be, with the reason."""
    system, budget = model.system, attacker.capability
    if system.task is not Task.CLASSIFICATION:
        raise NotBuiltError(f"poisoning is built for task: classification, and this is {system.task}")
    if system.inputs.kind not in _KINDS:
        raise NotBuiltError(f"poisoning of {system.inputs.kind} inputs is not built yet")
    if system.data.train is None:
        raise NotBuiltError("there are no training rows to poison; give system.data.train")
    if system.training is None:
        raise NotBuiltError("nothing trains the victims; give system.training.call")
    wanted = _wanted(model.attacks.mode, goal_of(attacker.goal), budget.may_change_labels)
    reasons = [unfit(each, attacker, system) or untestable(each, system) for each in wanted]
    fitting = [each for each, reason in zip(wanted, reasons, strict=True) if reason is None]
    if not fitting:
        raise NotBuiltError(f"no attack fits: {wanted[0].name}: {reasons[0]}")
    attacks = tuple(each for each in fitting if each.name not in model.attacks.skip)
    if not attacks:
        raise NotBuiltError("every attack that fits is skipped; take one out of attacks.skip")
    return PoisonCampaign(
        attacker=attacker,
        goal=goal_of(attacker.goal),
        budget=Budget(share=budget.share, may_change_labels=budget.may_change_labels, sources=budget.sources),
        attacks=attacks,
        points=points_of(model, attacker),
    )


def _wanted(mode: ModeName, goal: PoisonGoal, labels: bool) -> tuple[PoisonerEntry, ...]:
    """The attacks of a mode; those modes that only evasion has are as the default."""
    taken = _TAKEN[goal, labels]
    match mode:
        case ModeName.QUICK:
            names = taken.quick
        case ModeName.AUDIT:
            names = (*taken.quick, *taken.default, *taken.audit)
        case _:
            names = (*taken.quick, *taken.default)
    return tuple(map(poisoner, names))


def points_of(model: ThreatModel, attacker: who.Poisoning) -> tuple[Point, ...]:
    """How many victims are trained at which shares of the training rows, the full share first."""
    full, told = attacker.capability.share, model.poisoning
    match attacker.goal:
        case who.TargetedRowsGoal(targeted_rows=count):
            return (Point(full, count),)
    curve = _CURVES.get(model.attacks.mode, _CURVE) if told.curve is None else told.curve
    smaller = (Point(full * part, told.curve_victims) for part in sorted(curve, reverse=True))
    return (Point(full, told.victims), *smaller)


class Trainings(NamedTuple):
    """How many victims are trained: on clean rows, which all attackers share, and on poisoned ones."""

    clean: int
    poisoned: int


def trainings(campaigns: Sequence[PoisonCampaign]) -> Trainings:
    """The victims of all attackers. What attackers train for themselves (surrogates), and what detectors, repair and
    certificates train, is not counted."""
    clean = max((point.victims for campaign in campaigns for point in campaign.points), default=0)
    poisoned = sum(len(each.attacks) * sum(point.victims for point in each.points) for each in campaigns)
    return Trainings(clean, poisoned)


def unfit(entry: PoisonerEntry, attacker: who.Poisoning, system: System) -> str | None:
    """Why an attacker would not use a poisoner of his goal here; None if he could."""
    if entry.labels and not attacker.capability.may_change_labels:
        return f"it changes labels, and {attacker.name} may not"
    match attacker.goal:
        case who.BackdoorGoal(backdoor=backdoor):
            if entry.triggers and not issubclass(trigger_class(backdoor.trigger), entry.triggers):
                return f"it does not plant {trigger_name(backdoor.trigger)}, which is the trigger of {attacker.name}"
            if isinstance(backdoor.target, who.AllToAll) and not entry.labels:
                return f"it plants one class, and the target of {attacker.name} is {backdoor.target}"
    if entry.name == "gradient-poisoning":
        if system.class_count != 2:
            return f"it is for two classes, and the model tells {system.class_count}"
        if system.inputs.kind is InputKind.IMAGE:
            return "it is for linear models of tables and tensors, and inputs are images"
    return None


def untestable(entry: PoisonerEntry, system: System) -> str | None:
    """Why a poisoner that an attacker could use cannot be tried here; None if it can."""
    crafted = entry.trains or entry.name == "gradient-poisoning"
    if crafted and getattr(system.inputs, "bounds", None) is None:
        return "it crafts rows within a box; give system.inputs.bounds"
    shape = getattr(system.inputs, "shape", None)
    if entry.name == "label-flip" and shape is not None and math.prod(shape) > WIDEST:
        return f"it takes rows of {WIDEST} values at most, and these have {math.prod(shape)}"
    return None
