"""How a run begins: what its first line says, and whether a run that was broken off may go on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from redan.assessment.build import Built
from redan.assessment.extraction_scene import Ground
from redan.assessment.parts import answers_of, change_of, goal_of, plan_parts, standard_heads, techniques_of
from redan.assessment.preflight import Finding
from redan.assessment.workshop import Workshop
from redan.engine.intake import probes
from redan.errors import EvidenceError
from redan.evidence.extraction_lines import ExtractionHead, ExtractorHead
from redan.evidence.folder import MODEL, RunFolder, digest, file_digest
from redan.evidence.log import AttackerHead, AttackHead, RunLine
from redan.evidence.poison_lines import PoisonerHead, PoisoningHead, PoisonPoint
from redan.evidence.report import CheckPart
from redan.evidence.summary import Summary, summary
from redan.protocols import Access, needs, settings
from redan.targets import Affine, Paired, Target, TorchTarget
from redan.targets.fast import Cheaper, recorded
from redan.targets.torch import accelerated
from redan.threat import attackers as who
from redan.threat.extractors import ExtractionCampaign
from redan.threat.file import Loaded
from redan.threat.planner import Campaign, Plan
from redan.threat.poisoners import Point, PoisonCampaign
from redan.threat.schema import ThreatModel
from redan.threat.system import Impacts

_MEANT = {
    "threat_model": "the threat-model file",
    "model": "the model",
    "data": "the data",
    "rows": "the rows drawn",
    "training": "the training rows, or the file with the training function",
    "extraction": "the rows that extraction asks about, or the function of its surrogates",
    "redan": "redan itself",
}


def digests(loaded: Loaded, built: Built, names: tuple[str, ...]) -> dict[str, str | None]:
    """sha256 of everything that decides a run."""
    package = Path(__file__).resolve().parent.parent
    sources = sorted(package.rglob("*.py"))
    return {
        "model": built.model_digest,
        "data": built.data_digest,
        "rows": digest("\n".join(names).encode()),
        "threat_model": loaded.digest,
        "redan": digest(b"".join(file_digest(path).encode() for path in sources)),
    }


def check_parts(findings: tuple[Finding, ...], notes: tuple[str, ...]) -> list[CheckPart]:
    """The preflight as the report shows it, with what was done to the data on the way in."""
    return [
        CheckPart(check=f.check, level=f.level, status=f.status, detail=f.detail, remedy=f.remedy) for f in findings
    ] + [CheckPart(check="data", level="warn", status="pass", detail=note, remedy="") for note in notes]


def first_line(
    loaded: Loaded,
    plan: Plan,
    built: Built,
    names: tuple[str, ...],
    checks: list[CheckPart],
    run: dict[str, str | None],
    *,
    id: str,
    gate: bool,
    eight_bit: bool,
    shop: Workshop | None = None,
    grounds: Mapping[str, Ground] | None = None,
) -> RunLine:
    """What a run's log begins with. run: `digests`."""
    model = loaded.model
    said = model.system.classes
    return RunLine(
        id=id,
        started=datetime.now(UTC).isoformat(),
        system=model.system.name,
        defenses=model.system.served_behind,
        detector=built.detector,
        beside=[bare.name for bare in built.bare],
        classes=list(said) if isinstance(said, tuple) else [str(c) for c in range(said or 0)],
        ids=list(names),
        labels=built.y.tolist(),
        requirements=list(model.requirements),
        attackers=_attackers(plan, model, shop, grounds or {}),
        preflight=checks,
        plan=plan_parts(plan),
        standards=standard_heads(model),
        skipped=list(plan.skipped),
        mode=str(model.attacks.mode),
        seed=model.statistics.seed,
        confidence=model.statistics.confidence,
        family=str(model.statistics.family),
        gate=gate,
        stochastic=built.target.stochastic,
        eight_bit=eight_bit,
        environment=environment(built),
        digests=run,
    )


def _attackers(
    plan: Plan, model: ThreatModel, shop: Workshop | None, grounds: Mapping[str, Ground]
) -> list[AttackerHead]:
    """Every attacker in the order of the file."""
    impacts = model.system.impact
    found = {each.attacker.name: _attacker(each, _about(each.attacker, impacts)) for each in plan.campaigns}
    for each in plan.poisonings:
        points = each.points if shop is None else shop.points(each)
        found[each.attacker.name] = _poisoner(each, points, plan, model)
    for copier in plan.extractions:
        found[copier.attacker.name] = _extractor(copier, grounds[copier.attacker.name], model)
    return [found[attacker.name] for attacker in model.attackers if attacker.name in found]


def _about(attacker: who.Attacker, impacts: Impacts) -> dict[str, Any]:
    """What the file says of an attacker, whatever is done with them."""
    impact = getattr(impacts, str(attacker.kind))
    return {
        "name": attacker.name,
        "kind": str(attacker.kind),
        "why": attacker.why,
        "goal": goal_of(attacker),
        "impact": None if impact is None else str(impact),
        "techniques": techniques_of(attacker),
        "change": change_of(attacker),
    }


def _poisoner(campaign: PoisonCampaign, points: Sequence[Point], plan: Plan, model: ThreatModel) -> AttackerHead:
    said = model.poisoning
    return AttackerHead(
        **_about(campaign.attacker, model.system.impact),
        radius=None,
        knowledge="training",
        usd_per_1000_queries=None,
        status="assessed",
        reason=None,
        attacks=[],
        poisoning=PoisoningHead(
            goal=campaign.goal.value,
            poisoners=[PoisonerHead(name=each.name, techniques=list(each.techniques)) for each in campaign.attacks],
            points=[PoisonPoint(share=point.share, victims=point.victims) for point in points],
            clean=max(point.victims for each in plan.poisonings for point in each.points),
            margin=said.margin,
            inspected=said.detect,
            parts=0 if said.certify is None else said.certify.parts * said.certify.copies,
        ),
    )


def _extractor(campaign: ExtractionCampaign, ground: Ground, model: ThreatModel) -> AttackerHead:
    said = model.extraction
    return AttackerHead(
        **_about(campaign.attacker, model.system.impact),
        radius=None,
        knowledge=str(campaign.attacker.knowledge),
        usd_per_1000_queries=campaign.attacker.capability.usd_per_1000_queries,
        status="assessed",
        reason=None,
        attacks=[],
        extraction=ExtractionHead(
            goal="fidelity" if campaign.transfer is None else "transfer",
            rows=ground.rows,
            transfer=campaign.transfer,
            extractors=[ExtractorHead(name=each.name, techniques=list(each.techniques)) for each in campaign.attacks],
            copies=said.copies,
            points=list(campaign.points),
            answers=answers_of(campaign.view),
            pool=ground.pool_words,
            queries_per_day=said.queries_per_day,
            notes=list(ground.notes),
            doubts=list(ground.doubts),
        ),
    )


def _attacker(campaign: Campaign, about: dict[str, Any]) -> AttackerHead:
    built = campaign.within is not None
    assessed = built and bool(campaign.served)
    radius = None if campaign.within is None else campaign.within.radius
    return AttackerHead(
        **about,
        radius=float(radius) if assessed and radius is not None else None,
        knowledge=campaign.sees if assessed else None,
        usd_per_1000_queries=campaign.capability.usd_per_1000_queries,
        status="assessed" if assessed else "skipped" if built else "not built",
        reason=None if assessed else campaign.reason or "every attack was skipped",
        attacks=[
            AttackHead(name=name, settings=settings(attack), access=_WORDS[needs(attack).access])
            for name, attack in campaign.served
        ],
    )


_WORDS = {Access.LABELS: "labels", Access.SCORES: "scores", Access.GRADIENTS: "gradients"}


def on_path(built: Built, names: Sequence[str], words: str | None = None) -> Built:
    """The models on the cheapest gradient path that agrees with the plain one; on the named one where a run goes on.

    Chosen once for all attackers, on rows that do not depend on which of them are finished.
    """
    x, target = probes(built.x, names), built.target
    if words is None or target.stochastic:
        target = accelerated(target, x)
    elif isinstance(target, TorchTarget):
        target = replace(target, fast=recorded(words))
    lent = {name: each.accelerated(x) for name, each in built.surrogates.items()}
    bare = tuple(replace(each, target=accelerated(each.target, x)) for each in built.bare)
    return replace(built, target=target, surrogates=lent, bare=bare)


def environment(built: Built) -> dict[str, str]:
    """Where a run runs, as far as it may change a byte."""
    libraries = {name: version(name) for name in ("torch", "numpy", "scipy", "safetensors", "redan")}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "device": str(built.target.device),
        "gradient_path": _path(built.target),
        **libraries,
    }


def _path(target: Target[Tensor]) -> str:
    """How gradients are computed, in words that `recorded` reads back."""
    match target:
        case TorchTarget(fast=Cheaper() as fast):
            return fast.words
        case Paired() | Affine(target=Paired()):
            return "a module shown to answer as the model does"
    return "plain"


def reopened(where: str) -> tuple[RunFolder, Summary]:
    """A run that was broken off, and what its log says so far."""
    folder = RunFolder.open(where)
    return folder, summary(folder.lines())


def changed_since(head: RunLine, found: dict[str, str | None]) -> list[str]:
    """What of everything that decides a run is not what it was, in words."""
    other = [words for key, words in _MEANT.items() if head.digests.get(key) != found.get(key)]
    return other if head.environment.get("torch") == version("torch") else [*other, "the version of torch"]


def same_run(head: RunLine, found: dict[str, str | None], where: str) -> None:
    """Raise EvidenceError if anything that decides a run has changed."""
    other = changed_since(head, found)
    if other:
        raise EvidenceError(
            f"{where} cannot go on: {', '.join(other)} changed since it began; start a new run, or put back what it was"
        )


def begin(folder: RunFolder, head: RunLine, threat_model: bytes) -> Summary:
    """Write what a new run begins with."""
    folder.write(MODEL, threat_model)
    folder.append(head)
    return Summary(head)
