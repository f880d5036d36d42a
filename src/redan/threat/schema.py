"""Version 1 of the threat-model file, as a whole: what its parts must say of each other.

Every alternative is a frozen value of its own class, to be told apart by `match`. The parts are in `system`,
`inputs`, `model`, `attackers` and `changes`; a requirement is `redan.evidence.requirement.Requirement`.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, Tag, ValidationInfo, field_validator, model_validator

from redan.evidence.requirement import Metric, Requirement
from redan.threat.attackers import (
    Attacker,
    Evasion,
    Extraction,
    TransferGoal,
)
from redan.threat.consistency import check_against_system, check_deviations, nearest, with_attacker
from redan.threat.extraction import ExtractionRun
from redan.threat.parts import Count, Import, Loose, Name, Part, Positive, by_type, shown, wrong
from redan.threat.poisoning import PoisoningRun
from redan.threat.system import System, Task

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
    poisoning: PoisoningRun = PoisoningRun()
    """How poisoning is tried."""
    extraction: ExtractionRun = ExtractionRun()
    """How extraction is tried."""
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
                            f"must name an evasion attacker of this file, got {shown(name)}{nearest(name, evaders)}",
                            *(i, "goal", "transfer"),
                        )
            if system is not None:
                check_against_system(i, attacker, system)
        check_deviations(attackers)
        return attackers

    @field_validator("requirements")
    @classmethod
    def _requirements_fit(cls, requirements: tuple[Requirement, ...], info: ValidationInfo) -> tuple[Requirement, ...]:
        attackers: tuple[Attacker, ...] | None = info.data.get("attackers")
        if attackers is None:
            return requirements
        whole = tuple(with_attacker(i, requirement, attackers) for i, requirement in enumerate(requirements))
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
