"""From an extraction attacker of the threat model to what is tried for him: answers to buy, extractors, budgets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from redan.errors import NotBuiltError
from redan.extraction.customer import Shows, Spending, View
from redan.protocols import Access
from redan.registry.extractors import WIDEST, ExtractorEntry, extractor
from redan.threat import attackers as who
from redan.threat.inputs import InputKind
from redan.threat.model import Http, Joblib, Sklearn, Trees
from redan.threat.schema import ModeName, ThreatModel
from redan.threat.system import Output, System, Task

__all__ = ["ExtractionCampaign", "extraction_campaign", "mismatch", "spending_of", "view_of"]


@dataclass(frozen=True, slots=True)
class ExtractionCampaign:
    """One extraction attacker with all that decides his copies.

    points: answers to buy, the whole budget first, then smaller ones. transfer: the evasion attacker who uses the copy;
    None where it is wanted for itself.
    """

    attacker: who.Extraction
    view: View
    spending: Spending
    points: tuple[int, ...]
    attacks: tuple[ExtractorEntry, ...]
    transfer: str | None

    @property
    def access(self) -> Access:
        """What answers show."""
        return _ACCESS[self.attacker.knowledge]

    @property
    def price(self) -> float:
        """US dollars for one answer."""
        return self.spending.usd_per_1000_queries / 1000


_ACCESS = MappingProxyType({who.Knowledge.LABELS: Access.LABELS, who.Knowledge.SCORES: Access.SCORES})
_CURVES: Mapping[ModeName, tuple[float, ...]] = MappingProxyType(
    {ModeName.QUICK: (), ModeName.AUDIT: (1 / 2, 1 / 5, 1 / 10, 1 / 20, 1 / 50, 1 / 100)}
)
_CURVE = (1 / 2, 1 / 5, 1 / 10)
_KINDS = (InputKind.IMAGE, InputKind.TENSOR, InputKind.TABLE)


class _Taken(NamedTuple):
    """What mode quick takes, what the default mode takes besides, and what audit takes besides both."""

    quick: tuple[str, ...]
    default: tuple[str, ...] = ()
    audit: tuple[str, ...] = ()


_EXACT = ("equation-solving", "tree-path-finding", "functionally-equivalent")
_TAKEN: Mapping[tuple[Access, bool], _Taken] = MappingProxyType(
    {  # (what answers show, whether inputs are images)
        (Access.SCORES, True): _Taken(("knockoff-nets",), (), ("knockoff-adaptive", "copycat-cnn", *_EXACT)),
        (Access.LABELS, True): _Taken(("copycat-cnn",), (), ("adaptive-retraining",)),
        (Access.SCORES, False): _Taken(("knockoff-nets",), _EXACT, ("knockoff-adaptive", "adaptive-retraining")),
        (Access.LABELS, False): _Taken(("knockoff-nets",), ("adaptive-retraining",), ("equation-solving",)),
    }
)
_FOR_TRANSFER = _Taken((), ("jacobian-augmentation",))
"""What comes besides where the copy is made to be attacked; what copies exactly is left to audits."""


def extraction_campaign(model: ThreatModel, attacker: who.Extraction) -> ExtractionCampaign:
    """What is tried for an extraction attacker. Raises NotBuiltError where nothing can be, with the reason."""
    system = model.system
    if system.task is not Task.CLASSIFICATION:
        raise NotBuiltError(f"extraction is built for task: classification, and this is {system.task}")
    if system.inputs.kind not in _KINDS:
        raise NotBuiltError(f"extraction by {system.inputs.kind} inputs is not built yet")
    wanted = _wanted(model, attacker)
    reasons = [mismatch(each, attacker, model) for each in wanted]
    fitting = [each for each, reason in zip(wanted, reasons, strict=True) if reason is None]
    if not fitting:
        raise NotBuiltError(f"no attack fits: {wanted[0].name}: {reasons[0]}")
    attacks = tuple(each for each in fitting if each.name not in model.attacks.skip)
    if not attacks:
        raise NotBuiltError("every attack that fits is skipped; take one out of attacks.skip")
    spending = spending_of(model, attacker)
    whole = int(spending.most)
    if whole < 1:
        raise NotBuiltError("the attacker's money buys no answer; give a larger usd, or a lower price")
    curve = _CURVES.get(model.attacks.mode, _CURVE) if model.extraction.curve is None else model.extraction.curve
    smaller = sorted({math.ceil(whole * share) for share in curve} - {whole}, reverse=True)
    match attacker.goal:
        case who.TransferGoal(transfer=name):
            transfer: str | None = name
        case _:
            transfer = None
    return ExtractionCampaign(attacker, view_of(model, attacker), spending, (whole, *smaller), attacks, transfer)


def view_of(model: ThreatModel, attacker: who.Extraction) -> View:
    """What an answer holds for the attacker: labels, or scores as the model words them, rounded and cut as said."""
    said = model.extraction
    if attacker.knowledge is who.Knowledge.LABELS:
        return View(shows=Shows.LABELS)
    raw = model.system.output is Output.LOGITS
    return View(
        shows=Shows.RAW if raw and said.top is None else Shows.PROBABILITIES,
        decimals=said.decimals,
        top=said.top,
        noise=said.noise,
        seed=model.statistics.seed,
    )


def spending_of(model: ThreatModel, attacker: who.Extraction) -> Spending:
    """What the attacker may spend; a number of answers of ours where he has no limit."""
    said = attacker.capability
    free = said.queries_total is None and said.usd is None
    return Spending(
        queries=model.extraction.queries if free else said.queries_total,
        usd=said.usd,
        usd_per_1000_queries=said.usd_per_1000_queries or 0.0,
    )


def _wanted(model: ThreatModel, attacker: who.Extraction) -> tuple[ExtractorEntry, ...]:
    """The attacks of a mode; those modes that only evasion has are as the default."""
    taken = [_TAKEN[_ACCESS[attacker.knowledge], model.system.inputs.kind is InputKind.IMAGE]]
    match attacker.goal:
        case who.TransferGoal():
            first = taken[0]
            exact = tuple(name for name in first.default if name in _EXACT)
            rest = tuple(name for name in first.default if name not in _EXACT)
            taken = [_Taken(first.quick, rest, (*first.audit, *exact)), _FOR_TRANSFER]
    names = [name for each in taken for name in each.quick]
    if model.attacks.mode is not ModeName.QUICK:
        names += [name for each in taken for name in each.default]
    if model.attacks.mode is ModeName.AUDIT:
        names += [name for each in taken for name in each.audit]
    return tuple(map(extractor, dict.fromkeys(names)))


def mismatch(entry: ExtractorEntry, attacker: who.Extraction, model: ThreatModel) -> str | None:
    """Why an attacker would not use an extractor here; None if he could."""
    system = model.system
    if entry.access > _ACCESS[attacker.knowledge]:
        return f"it needs {entry.access.name.lower()}, and {attacker.name} sees {attacker.knowledge}"
    if entry.transfers and isinstance(attacker.goal, who.FidelityGoal):
        return f"its copies are made to be attacked, and {attacker.name} wants one that answers alike"
    if entry.narrow and (wide := _width(system)) is not None and wide > WIDEST:
        return f"it takes rows of {WIDEST} values at most, and these have {wide}"
    match entry.name:
        case "tree-path-finding" if system.inputs.kind is not InputKind.TABLE:
            return f"it is for decision trees of tables, and inputs are of kind {system.inputs.kind}"
        case "tree-path-finding" if not isinstance(system.model, Trees | Sklearn | Joblib | Http):
            return "it is for decision trees, and the model is none"
        case "knockoff-adaptive" if model.extraction.pool is None and system.data.train is None:
            return "it chooses among rows that the attacker has, and there are none; give extraction.pool"
        case "functionally-equivalent":
            return _no_kinks(model)
    return None


def _no_kinks(model: ThreatModel) -> str | None:
    if model.system.output is not Output.LOGITS:
        return f"it needs raw outputs, and the model answers {model.system.output}"
    if model.extraction.decimals is not None or model.extraction.top is not None or model.extraction.noise:
        return "it needs outputs in full, and they are rounded, cut or noisy"
    return None


def _width(system: System) -> int | None:
    shape = getattr(system.inputs, "shape", None)
    return None if shape is None else math.prod(shape)
