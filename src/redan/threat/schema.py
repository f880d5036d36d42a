"""Version 1 of the threat-model file, as a whole: what its parts must say of each other.

Every alternative is a frozen value of its own class, to be told apart by `match`. The parts are in `system`,
`inputs`, `model`, `attackers` and `changes`; a requirement is `redan.evidence.requirement.Requirement`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, Tag, ValidationInfo, field_validator, model_validator

from redan.evidence.requirement import Metric, Requirement
from redan.threat.attackers import (
    Attacker,
    BackdoorGoal,
    DeviateGoal,
    Evasion,
    Extraction,
    FidelityGoal,
    Poisoning,
    TargetedGoal,
    TransferGoal,
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
from redan.threat.parts import Count, Import, Loose, Name, Part, Positive, by_type, shown, wrong
from redan.threat.system import DataFile, System, Task

__all__ = ["Attacks", "Auto", "Family", "KeepInputs", "Limits", "ModeName", "Run", "Statistics", "ThreatModel"]


class ModeName(StrEnum):
    """How much is tried."""

    QUICK = "quick"
    DEFAULT = "default"
    AUDIT = "audit"
    AUTOATTACK = "autoattack"
    """AutoAttack's standard version, to compare a number with others'."""
    AUTOATTACK_PLUS = "autoattack-plus"
    """Its version with restarts."""
    AUTOATTACK_RAND = "autoattack-rand"
    """Its version for stochastic models."""


class Attacks(Part):
    """Which attacks are run, beyond what the attackers imply."""

    mode: Loose[ModeName] = ModeName.DEFAULT
    """How much is tried."""
    add: Loose[tuple[Import, ...]] = ()
    """The user's own attacks, as "module:name"."""
    skip: Loose[tuple[Name, ...]] = ()
    """Names of attacks that are left out; the report says so."""
    eot: Count = 1
    """Draws of a stochastic model that each gradient is averaged over (expectation over transformation)."""


class Family(StrEnum):
    """How several requirements share the risk of a false verdict."""

    HOLM = "holm"
    """All together miss with probability 1 − confidence at most (Holm 1979)."""
    NONE = "none"
    """Each on its own."""


class Statistics(Part):
    """How sure a verdict must be."""

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of a pass or a fail, between 0.5 and 1, both excluded."""
    family: Loose[Family] = Family.HOLM
    """How several requirements share the risk."""
    rows: Count = 1000
    """How many test rows are drawn; all of them if there are fewer."""
    seed: Annotated[int, Field(ge=0)] = 0
    """What all randomness is derived from."""
    gate: bool = False
    """Whether to stop as soon as the verdict is decided, by a sequential test."""


class Limits(Part):
    """What we spend, not the attacker; rows cut off here are undecided. Absent: no limit."""

    seconds: Positive | None = None
    """Wall time of the run."""
    queries: Count | None = None
    """Inputs answered by the model, in all."""
    usd: Positive | None = None
    """Money in US dollars."""


class Auto(StrEnum):
    """Left to redan."""

    AUTO = "auto"


class KeepInputs(StrEnum):
    """Which of the inputs that were made stay in the run folder."""

    ALL = "all"
    BROKEN = "broken"
    """Those that broke the model."""
    NONE = "none"


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", value):
        raise wrong(f"must be auto, cpu, mps, cuda, cuda:N, xpu or xpu:N, got {shown(value)}")
    return value


class Run(Part):
    """Where and how the work is done; no key here changes a number."""

    out: Name = "runs/"
    """The folder that gets one run folder a run: a path relative to this file, or an fsspec URL."""
    device: Annotated[str, AfterValidator(_device)] = "auto"
    """Where the model runs, in PyTorch's names, or `auto`."""
    workers: Annotated[
        Annotated[Count, Tag("@whole")] | Annotated[Loose[Auto], Tag("@word")],
        by_type("a whole number from 1 or auto", word=Auto.AUTO),
    ] = Auto.AUTO
    """How many processes, or `auto`."""
    block: Count = 256
    """How many rows are attacked, saved and resumed together."""
    keep_inputs: Loose[KeepInputs] = KeepInputs.ALL
    """Which inputs stay in the run folder."""


class ThreatModel(Part):
    """One threat-model file: the system, its attackers, and what must hold against them."""

    redan: Literal[1]
    """The version of the file's format."""
    system: System
    """What is attacked."""
    attackers: Annotated[Loose[tuple[Attacker, ...]], Field(min_length=1)]
    """Who attacks; each has a name of its own."""
    requirements: Loose[tuple[Requirement, ...]] = ()
    """What must hold. `against` is always filled in here if the metric is about an attacker."""
    attacks: Attacks = Attacks()
    """Which attacks are run."""
    statistics: Statistics = Statistics()
    """How sure a verdict must be."""
    limits: Limits = Limits()
    """What we spend."""
    run: Run = Run()
    """Where and how the work is done."""

    @field_validator("attackers")
    @classmethod
    def _attackers_fit(cls, attackers: tuple[Attacker, ...], info: ValidationInfo) -> tuple[Attacker, ...]:
        names = [attacker.name for attacker in attackers]
        system: System | None = info.data.get("system")  # None: it is wrong itself, which is said already
        for i, attacker in enumerate(attackers):
            if attacker.name in names[:i]:
                raise wrong(f"repeats attackers[{names.index(attacker.name)}]: names must be unique", i, "name")
            match attacker:
                case Extraction(goal=TransferGoal(transfer=name)):
                    evaders = [each.name for each in attackers if isinstance(each, Evasion)]
                    if name not in evaders:
                        raise wrong(
                            f"must name an evasion attacker of this file, got {shown(name)}{_nearest(name, evaders)}",
                            *(i, "goal", "transfer"),
                        )
            if system is not None:
                _check_against_system(i, attacker, system)
        _check_deviations(attackers)
        return attackers

    @field_validator("requirements")
    @classmethod
    def _requirements_fit(cls, requirements: tuple[Requirement, ...], info: ValidationInfo) -> tuple[Requirement, ...]:
        attackers: tuple[Attacker, ...] | None = info.data.get("attackers")
        if attackers is None:
            return requirements
        whole = tuple(_with_attacker(i, requirement, attackers) for i, requirement in enumerate(requirements))
        told = [(requirement.metric, requirement.direction, requirement.against) for requirement in whole]
        for i, each in enumerate(told):
            if each in told[:i]:
                raise wrong(f"repeats requirements[{told.index(each)}]; keep one of the two", i)
        return whole

    @model_validator(mode="after")
    def _requirements_fit_task(self) -> Self:
        for i, requirement in enumerate(self.requirements):
            worst = requirement.metric is Metric.WORST_CLASS_ROBUST_ACCURACY
            if worst and self.system.task is not Task.CLASSIFICATION:
                raise wrong(
                    f"is {requirement.metric}, and task: {self.system.task} has no one class a row",
                    *("requirements", i, "metric"),
                )
        return self


def _check_deviations(attackers: tuple[Attacker, ...]) -> None:
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


def _check_against_system(i: int, attacker: Attacker, system: System) -> None:
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
                    _check_class(system, backdoor.target, i, "goal", "backdoor", "target")
            match system.data.train:
                case DataFile(source=None) if capability.sources:
                    raise wrong(
                        "needs system.data.train.source: the column that says who supplied a row",
                        *(i, "capability", "sources"),
                    )
        case Extraction(goal=FidelityGoal(fidelity=split)):
            if getattr(system.data, split) is None:
                raise wrong(f"is {split}, and system.data.{split} is not given", i, "goal", "fidelity")


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


_AGAINST = MappingProxyType(
    {
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
        case Poisoning():
            return metric is Metric.POISONED_ACCURACY
        case Extraction(goal=FidelityGoal()):
            return metric is Metric.EXTRACTION_FIDELITY
        case Extraction():
            return metric is Metric.TRANSFER_SUCCESS
    return metric not in _AGAINST


def _with_attacker(i: int, requirement: Requirement, attackers: Sequence[Attacker]) -> Requirement:
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
            f"must name {wanted} for {metric}: {', '.join(fitting)}; got {shown(against)}{_nearest(against, fitting)}",
            *(i, "against"),
        )
    return requirement.model_copy(update={"against": against or fitting[0]})


def _nearest(name: str, known: Sequence[str]) -> str:
    return "".join(f"; did you mean {each!r}?" for each in difflib.get_close_matches(name, known, n=1))
