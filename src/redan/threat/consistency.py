"""What the parts of a threat-model file must say of each other."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from redan.evidence.requirement import Metric, Requirement
from redan.threat.attackers import (
    AllToAll,
    Attacker,
    Backdoor,
    BackdoorGoal,
    DeviateGoal,
    Evasion,
    Extraction,
    FidelityGoal,
    Poisoning,
    TargetedGoal,
    TargetedRowsGoal,
)
from redan.threat.changes import (
    BytesChange,
    Change,
    LinfChange,
    PatchChange,
    SpatialChange,
    TableChange,
    TextChange,
)
from redan.threat.inputs import ImageInputs, InputKind, TableInputs, TensorInputs
from redan.threat.parts import Part, shown, wrong
from redan.threat.system import DataFile, System, Task
from redan.threat.triggers import ColumnsTrigger, PatchShape, PatchTrigger, TriggerName, trigger_name


def check_deviations(attackers: tuple[Attacker, ...]) -> None:
    """Raise unless all attackers of a regression agree how far off is wrong: the clean answers are judged by it too."""
    told: dict[int, float] = {}
    for i, attacker in enumerate(attackers):
        match attacker:
            case Evasion(goal=DeviateGoal(deviate=by)):
                told[i] = by
                first = next(iter(told))
                if by != told[first]:
                    at = f"attackers[{first}]"
                    raise wrong(f"must be {told[first]:g} as of {at}: it says which clean answers are right", i, "goal")


def check_against_system(i: int, attacker: Attacker, system: System) -> None:
    """Raise if attacker number i wants or does what this system does not have."""
    match attacker:
        case Evasion(goal=goal, change=change):
            if (system.task is Task.REGRESSION) != isinstance(goal, DeviateGoal):
                fitting = "{deviate: …}" if system.task is Task.REGRESSION else "untargeted or {targeted: …}"
                raise wrong(f"must be {fitting} for task: {system.task}", i, "goal")
            _check_change(i, change, system)
            match goal:
                case TargetedGoal(targeted=int() as target):
                    _check_class(system, target, i, "goal", "targeted")
                case TargetedGoal() if system.task is Task.MULTILABEL:
                    raise wrong("must be a label's number for task: multilabel", i, "goal", "targeted")
        case Poisoning(goal=goal, capability=capability):
            match goal:
                case BackdoorGoal(backdoor=backdoor):
                    _check_backdoor(i, backdoor, system)
            if capability.linf is not None:
                _check_crafting(i, capability.linf, system)
            match system.data.train:
                case DataFile(source=None) if capability.sources:
                    raise wrong(
                        "needs system.data.train.source: the column that says who supplied a row",
                        *(i, "capability", "sources"),
                    )
        case Extraction(goal=FidelityGoal(fidelity=split)):
            if getattr(system.data, split) is None:
                raise wrong(f"is {split}, and system.data.{split} is not given", i, "goal", "fidelity")


def _check_backdoor(i: int, backdoor: Backdoor, system: System) -> None:
    """Raise if the trigger does not fit the inputs, or there is no class of that number."""
    key = (i, "goal", "backdoor")
    match backdoor.target:
        case AllToAll():
            _check_class(system, 0, *key, "target")
            if system.task is Task.MULTILABEL:
                raise wrong("must be a label's number for task: multilabel", *key, "target")
        case target:
            _check_class(system, target, *key, "target")
    name = trigger_name(backdoor.trigger)
    fitting = _INPUTS_OF_TRIGGER[name]
    if system.inputs.kind not in fitting:
        allowed = " or ".join(fitting)
        raise wrong(
            f"is {name}, which fits inputs of kind {allowed}, and they are {system.inputs.kind}", *key, "trigger"
        )
    bounds = getattr(system.inputs, "bounds", None)
    match backdoor.trigger, system.inputs:
        case TriggerName.BLEND, TableInputs(bounds=None):
            raise wrong("is blend, which needs inputs.bounds; give them, or name columns", *key, "trigger")
        case PatchTrigger(patch=PatchShape(size=size, value=value)), ImageInputs(shape=(_, height, width)):
            if size > min(height, width):
                raise wrong(f"must be {min(height, width)} at most, as images are, got {size}", *key, *_SIZE)
            _check_within(value, bounds, *key, "trigger", "patch", "value")
        case TriggerName.PATCH, ImageInputs(shape=(_, height, width)) if min(height, width) < PatchShape().size:
            raise wrong(
                f"is patch, of {PatchShape().size} pixels a side, and images have {height} by {width}; "
                "say {patch: {size: …}}",
                *(*key, "trigger"),
            )
        case ColumnsTrigger(), TensorInputs(shape=shape) if len(shape) > 1:
            raise wrong(f"needs tensors of one axis, and inputs.shape has {len(shape)}", *key, "trigger", "columns")
        case ColumnsTrigger(columns=columns), TableInputs(shape=shape) | TensorInputs(shape=shape):
            if shape is not None and max(columns) >= shape[0]:
                raise wrong(f"must be from 0 to {shape[0] - 1}, got {max(columns)}", *key, "trigger", "columns")
            for column, value in columns.items():
                _check_within(value, bounds, *key, "trigger", "columns", column)


_SIZE = ("trigger", "patch", "size")


def _check_within(value: float | None, bounds: tuple[float, float] | None, *key: str | int) -> None:
    if value is not None and bounds is not None and not bounds[0] <= value <= bounds[1]:
        low, high = bounds
        raise wrong(f"must lie within inputs.bounds [{low:g}, {high:g}], in whose units it is, got {value:g}", *key)


def _check_crafting(i: int, linf: float, system: System) -> None:
    """Raise unless rows may be crafted, and so far."""
    key, bounds = (i, "capability", "linf"), getattr(system.inputs, "bounds", None)
    if system.inputs.kind not in _NUMBERS:
        allowed = " or ".join(_NUMBERS)
        raise wrong(f"fits inputs of kind {allowed}, and they are {system.inputs.kind}", *key)
    if bounds is None:
        raise wrong("needs inputs.bounds, in whose units it is; give them, or leave it out", *key)
    low, high = bounds
    if linf > high - low:
        raise wrong(
            f"must not exceed the width of inputs.bounds [{low:g}, {high:g}], in whose units it is, got {linf:g}", *key
        )


def _check_class(system: System, target: int, *key: str | int) -> None:
    count = system.class_count
    if count is None:
        raise wrong(f"names a class, and task: {system.task} has none", *key)
    if target >= count:
        raise wrong(f"must be a class from 0 to {count - 1}, got {target}", *key)


_INPUTS_OF_CHANGE: Mapping[type[Part], tuple[InputKind, ...]] = MappingProxyType(
    {
        PatchChange: (InputKind.IMAGE,),
        SpatialChange: (InputKind.IMAGE,),
        TextChange: (InputKind.TEXT,),
        TableChange: (InputKind.TABLE,),
        BytesChange: (InputKind.BYTES,),
    }
)
_NUMBERS = (InputKind.IMAGE, InputKind.TENSOR, InputKind.TABLE)
_INPUTS_OF_TRIGGER: Mapping[str, tuple[InputKind, ...]] = MappingProxyType(
    {
        "patch": (InputKind.IMAGE,),
        "sinusoid": (InputKind.IMAGE,),
        "blend": _NUMBERS,
        "columns": (InputKind.TABLE, InputKind.TENSOR),
    }
)


def _check_change(i: int, change: Change, system: System) -> None:
    fitting = _INPUTS_OF_CHANGE.get(type(change), _NUMBERS)
    key = next(iter(type(change).model_fields))
    if system.inputs.kind not in fitting:
        allowed = " or ".join(fitting)
        raise wrong(f"fits inputs of kind {allowed}, and they are {system.inputs.kind}", i, "change", key)
    match change, system.inputs:
        case (
            LinfChange(linf=epsilon),
            ImageInputs(bounds=(low, high)) | TensorInputs(bounds=(low, high)) | TableInputs(bounds=(low, high)),
        ) if epsilon > high - low:
            raise wrong(
                f"must not exceed the width of inputs.bounds [{low:g}, {high:g}], in whose units it is, "
                f"got {epsilon:g}",
                *(i, "change", key),
            )
        case LinfChange(linf=epsilon), TableInputs(bounds=None) if epsilon > 1:
            raise wrong(f"must not exceed 1, the whole range of a column, got {epsilon:g}", i, "change", key)


_AGAINST = MappingProxyType(
    {
        Metric.ATTACK_SUCCESS_RATE: "an evasion attacker, or a poisoning attacker whose goal is targeted_rows",
        Metric.BACKDOOR_SUCCESS: "a poisoning attacker whose goal is backdoor",
        Metric.POISONED_ACCURACY: "a poisoning attacker",
        Metric.EXTRACTION_FIDELITY: "an extraction attacker whose goal is fidelity",
        Metric.TRANSFER_SUCCESS: "an extraction attacker whose goal is transfer",
    }
)


def _fits(metric: Metric, attacker: Attacker) -> bool:
    match attacker:
        case Poisoning(goal=BackdoorGoal()):
            return metric in {Metric.BACKDOOR_SUCCESS, Metric.POISONED_ACCURACY}
        case Poisoning(goal=TargetedRowsGoal()):
            return metric in {Metric.ATTACK_SUCCESS_RATE, Metric.POISONED_ACCURACY}
        case Poisoning():
            return metric is Metric.POISONED_ACCURACY
        case Extraction(goal=FidelityGoal()):
            return metric is Metric.EXTRACTION_FIDELITY
        case Extraction():
            return metric is Metric.TRANSFER_SUCCESS
    return metric is Metric.ATTACK_SUCCESS_RATE or metric not in _AGAINST


def with_attacker(i: int, requirement: Requirement, attackers: Sequence[Attacker]) -> Requirement:
    """Return the requirement with its attacker filled in, or raise if there is none or no single one."""
    metric, against = requirement.metric, requirement.against
    if not metric.needs_attacker:
        return requirement
    fitting = [attacker.name for attacker in attackers if _fits(metric, attacker)]
    wanted = _AGAINST.get(metric, "an evasion attacker")
    if not fitting:
        raise wrong(f"is {metric}, which needs {wanted}, and this file has none", i, "metric")
    if against is None and len(fitting) > 1:
        raise wrong(f"is required for {metric}, because several attackers fit: {', '.join(fitting)}", i, "against")
    if against is not None and against not in fitting:
        raise wrong(
            f"must name {wanted} for {metric}: {', '.join(fitting)}; got {shown(against)}{nearest(against, fitting)}",
            *(i, "against"),
        )
    return requirement.model_copy(update={"against": against or fitting[0]})


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a question about the known name that is most like the given one; nothing where none is."""
    return "".join(f"; did you mean {each!r}?" for each in difflib.get_close_matches(name, known, n=1))
