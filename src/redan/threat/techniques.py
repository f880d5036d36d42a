"""Every technique that redan knows by name: what it is, what it takes, and whether it is built.

The built ones are the registry's attacks, poisoners and extractors; `PLANNED` are those that redan can only name yet.
An attacker for whom a technique would be realistic is told so: a threat that nobody tests is part of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.perturbations.spatial import Spatial
from redan.poisoning.scene import PoisonGoal
from redan.protocols import Access
from redan.registry.attacks import ATTACKS
from redan.registry.extractors import EXTRACTORS
from redan.registry.poisoners import POISONERS
from redan.threat import attackers as who
from redan.threat.attackers import Kind, Knowledge
from redan.threat.changes import (
    BytesChange,
    L0Change,
    L1Change,
    L2Change,
    LinfChange,
    PatchChange,
    SpatialChange,
    TableChange,
    TextChange,
)
from redan.threat.joint import JOINT
from redan.threat.parts import Part
from redan.threat.poisoners import trigger_class
from redan.threat.standards import crosswalk
from redan.threat.triggers import trigger_name

__all__ = ["CHANGES", "PLANNED", "Technique", "subject", "techniques", "unrealistic"]

CHANGES: dict[type, type[Part]] = {
    Linf: LinfChange,
    L2: L2Change,
    L1: L1Change,
    L0: L0Change,
    Spatial: SpatialChange,
}
"""The file's change for each perturbation set."""

_SEES = {Access.GRADIENTS: Knowledge.GRADIENTS, Access.SCORES: Knowledge.SCORES, Access.LABELS: Knowledge.LABELS}
_LEVEL = {Knowledge.LABELS: 1, Knowledge.SCORES: 2, Knowledge.GRADIENTS: 3, Knowledge.SURROGATE: 3}
_NORMS = (LinfChange, L2Change, L1Change, L0Change)


@dataclass(frozen=True, slots=True)
class Technique:
    """One technique of one kind of attacker.

    knowledge: the least that it takes. changes: what it does to an input (evasion); goals: what it is for
    (poisoning, extraction). labels: whether poison needs other labels. triggers: those that it plants, by their classes
    in `redan.poisoning.triggers`; empty: any. registered: the registry's ids, if it is built.
    """

    name: str
    kind: Kind
    paper: str
    knowledge: Knowledge | None = None
    changes: tuple[type[Part], ...] = ()
    goals: tuple[type, ...] = ()
    labels: bool = False
    triggers: tuple[type, ...] = ()
    registered: tuple[str, ...] = ()

    @property
    def built(self) -> bool:
        """Whether the registry has it."""
        return bool(self.registered)

    @property
    def ids(self) -> tuple[str, ...]:
        """Of MITRE ATLAS: the registry's, or those of what it is about."""
        return self.registered or tuple(id for id in crosswalk().of(subject(self)) if id.startswith("AML.T"))


def _scores(name: str, paper: str, *changes: type[Part]) -> Technique:
    return Technique(name, Kind.EVASION, paper, Knowledge.SCORES, changes)


def _labels(name: str, paper: str, *changes: type[Part]) -> Technique:
    return Technique(name, Kind.EVASION, paper, Knowledge.LABELS, changes)


def _gradients(name: str, paper: str, *changes: type[Part]) -> Technique:
    return Technique(name, Kind.EVASION, paper, Knowledge.GRADIENTS, changes)


def _poison(name: str, paper: str, goal: type, *, labels: bool = False) -> Technique:
    return Technique(name, Kind.POISONING, paper, goals=(goal,), labels=labels)


def _copy(name: str, paper: str, knowledge: Knowledge, *goals: type) -> Technique:
    return Technique(name, Kind.EXTRACTION, paper, knowledge, goals=goals or (who.FidelityGoal, who.TransferGoal))


PLANNED: tuple[Technique, ...] = (
    _scores("zoo", "Chen 2017, arXiv:1708.03999", L2Change),
    _scores("nes", "Ilyas 2018, arXiv:1804.08598", LinfChange, L2Change),
    _scores("spsa", "Uesato 2018, arXiv:1802.05666", LinfChange),
    _scores("bandits", "Ilyas 2019, arXiv:1807.07978", LinfChange, L2Change),
    _scores("simba", "Guo 2019, arXiv:1905.07121", L2Change),
    _scores("sparse-rs", "Croce 2022, arXiv:2006.12834", L0Change, PatchChange),
    _scores("one-pixel", "Su 2019, arXiv:1710.08864", L0Change),
    _labels("boundary", "Brendel 2018, arXiv:1712.04248", L2Change),
    _labels("sign-opt", "Cheng 2020, arXiv:1909.10773", L2Change, LinfChange),
    _labels("geoda", "Rahmati 2020, arXiv:2003.06468", *_NORMS[:3]),
    _labels("rays", "Chen and Gu 2020, arXiv:2006.12792", LinfChange),
    _gradients("adversarial-patch", "Brown 2017, arXiv:1712.09665", PatchChange),
    _gradients("rp2", "Eykholt 2018, arXiv:1707.08945", PatchChange),
    _gradients("hotflip", "Ebrahimi 2018, arXiv:1712.06751", TextChange),
    _scores("textfooler", "Jin 2020, arXiv:1907.11932", TextChange),
    _scores("bert-attack", "Li 2020, arXiv:2004.09984", TextChange),
    _scores("deepwordbug", "Gao 2018, arXiv:1801.04354", TextChange),
    _scores("textbugger", "Li 2019, arXiv:1812.05271", TextChange),
    _labels("bad-characters", "Boucher 2022, arXiv:2106.09898", TextChange),
    _gradients("capgd", "Simonetto 2024, arXiv:2406.00775", TableChange),
    _scores("moeva", "Simonetto 2022, arXiv:2112.01156", TableChange),
    _scores("gamma", "Demetrio 2021, arXiv:2003.13526", BytesChange),
    _gradients("malconv-padding", "Kolosnjaji 2018, arXiv:1803.04173", BytesChange),
    _poison("wanet", "Nguyen 2021, arXiv:2102.10369", who.BackdoorGoal, labels=True),
    _poison("bullseye-polytope", "Aghakhani 2021, arXiv:2005.00191", who.TargetedRowsGoal),
    _copy("data-free", "Truong 2021, arXiv:2011.14779", Knowledge.SCORES),
)
"""Known by name, not built yet."""


def techniques() -> tuple[Technique, ...]:
    """Everything redan knows, each name once: what is built, then what is planned."""
    built: dict[str, Technique] = {}
    for entry in ATTACKS:
        before = built[entry.name].changes if entry.name in built else ()
        changes = tuple(CHANGES[kind] for kind in entry.sets)
        paper = built[entry.name].paper if entry.name in built else entry.paper
        built[entry.name] = Technique(
            entry.name, Kind.EVASION, paper, _SEES[entry.access], (*before, *changes), registered=entry.techniques
        )
    for name, paper in JOINT.items():
        pgd = built["pgd"]  # who can do that can do these
        built[name] = Technique(name, Kind.EVASION, paper, pgd.knowledge, pgd.changes, registered=pgd.registered)
    poison = (
        Technique(
            each.name,
            Kind.POISONING,
            each.paper,
            goals=(_GOALS[each.goal],),
            labels=each.labels,
            triggers=each.triggers,
            registered=each.techniques,
        )
        for each in POISONERS
    )
    copies = (
        Technique(
            each.name,
            Kind.EXTRACTION,
            each.paper,
            _SEES[each.access],
            goals=(who.TransferGoal,) if each.transfers else (who.FidelityGoal, who.TransferGoal),
            registered=each.techniques,
        )
        for each in EXTRACTORS
    )
    return (*built.values(), *poison, *copies, *PLANNED)


def subject(technique: Technique) -> str:
    """What a technique is about, as `standards.yaml` has it."""
    if technique.kind is Kind.EVASION:
        return f"evasion/{technique.knowledge}"
    if technique.kind is Kind.POISONING:
        return f"poisoning/{next(goal for goal, wanted in _GOALS.items() if wanted in technique.goals)}"
    return "extraction/fidelity" if who.FidelityGoal in technique.goals else "extraction/transfer"


_GOALS: dict[PoisonGoal, type] = {
    PoisonGoal.BACKDOOR: who.BackdoorGoal,
    PoisonGoal.TARGETED_ROWS: who.TargetedRowsGoal,
    PoisonGoal.AVAILABILITY: who.Availability,
}
"""The file's goal for each of poisoners'."""


def unrealistic(technique: Technique, attackers: tuple[who.Attacker, ...]) -> str | None:
    """Why none of the attackers could use a technique, the nearest one's reason; None if one could."""
    reasons = []
    for attacker in attackers:
        if attacker.kind == technique.kind:
            reason = _unfit(technique, attacker)
            if reason is None:
                return None
            reasons.append(reason)
    return reasons[0] if reasons else f"no attacker of kind {technique.kind} is named"


def _unfit(technique: Technique, attacker: who.Attacker) -> str | None:
    match attacker:
        case who.Evasion(name=name, change=change, knowledge=knowledge):
            if type(change) not in technique.changes:
                return f"it does not move within {_word(type(change))}, which is all that {name} may change"
            if technique.knowledge and _LEVEL[knowledge] < _LEVEL[technique.knowledge]:
                return f"it needs {technique.knowledge}, and {name} sees {knowledge}"
        case who.Poisoning(name=name, goal=goal, capability=capability):
            if type(goal) not in technique.goals:
                return f"it is not for the goal of {name}"
            if technique.labels and not capability.may_change_labels:
                return f"it changes labels, and {name} may not"
            match goal:
                case who.BackdoorGoal(backdoor=backdoor) if technique.triggers:
                    if not issubclass(trigger_class(backdoor.trigger), technique.triggers):
                        return f"it does not plant {trigger_name(backdoor.trigger)}, which is the trigger of {name}"
        case who.Extraction(name=name, goal=goal, knowledge=knowledge):
            if type(goal) not in technique.goals:
                return f"it is not for the goal of {name}"
            if technique.knowledge and _LEVEL[knowledge] < _LEVEL[technique.knowledge]:
                return f"it needs {technique.knowledge}, and {name} sees {knowledge}"
    return None


def _word(change: type[Part]) -> str:
    return next(iter(change.model_fields))
