"""`assess`: one threat-model file in, one report out, with the evidence it rests on."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from os import PathLike
from pathlib import Path

from redan.assessment.build import Built, added_attacks, build
from redan.assessment.preflight import Finding, Scene, preflight, refuse
from redan.assessment.recording import Recorder, header, remeasure
from redan.assessment.summary import attacker_part, plan_parts, unbuilt_part
from redan.engine.block import Job, seeded
from redan.engine.intake import checked_rows, row_names
from redan.engine.run import Progress, run
from redan.errors import NotBuiltError
from redan.evidence.folder import LOG, MODEL, REPORT, RunFolder, digest, file_digest
from redan.evidence.report import AttackerPart, CheckPart, ErrorPart, Report, RunPart, Verdict
from redan.evidence.verdict import judge
from redan.oracle import Limits, Purse
from redan.runners.local import one_thread_each
from redan.targets.torch import accelerated
from redan.threat.file import Loaded, read
from redan.threat.planner import Plan, plan
from redan.threat.schema import Auto, ThreatModel
from redan.threat.system import Task

_SHOWS_NOT = (
    "Robust accuracy is what these attacks did not break; another attack can only lower it. It is no proof.",
    "Nothing is shown about changes outside the declared sets, nor about rows unlike those that were drawn.",
)


@dataclass(frozen=True, slots=True)
class Stage:
    """What an assessment is doing: which attacker, of how many, and how far."""

    attacker: str
    number: int
    of: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that is known before the first attack: the file, the plan, the target, the rows, the preflight."""

    loaded: Loaded
    plan: Plan
    built: Built
    names: Sequence[str]
    findings: tuple[Finding, ...]


def prepare(threat_model: str | PathLike[str]) -> Prepared:
    """Read, plan, build and check. Raises a RedanError for anything wrong; nothing is written."""
    loaded = read(Path(threat_model))
    model, folder = loaded.model, loaded.folder
    _refuse_unbuilt(model)
    steps = plan(model, added_attacks(model, folder))
    built = build(model, folder)
    x, y = checked_rows(built.x, built.y, built.target)
    said = model.system.expect
    findings = preflight(
        Scene(built.target, x, y, expected=None if said is None else (said.clean_accuracy, said.within))
    )
    refuse(findings)
    varies = any(f.check == "determinism" and f.fired for f in findings)
    built = replace(built, x=x, y=y, target=replace(built.target, stochastic=varies))
    return Prepared(loaded, steps, built, row_names(x, built.ids), findings)


def _refuse_unbuilt(model: ThreatModel) -> None:
    """What the file may say and redan does not do yet is refused by name, and not passed over."""
    said = {
        "statistics.gate: true": model.statistics.gate,
        "limits.usd": model.limits.usd is not None,
        "run.out as a URL": "://" in model.run.out,
        "task: regression and task: multilabel": model.system.task is not Task.CLASSIFICATION,
    }
    for key, asked in said.items():
        if asked:
            raise NotBuiltError(f"{key} is not built yet; leave it out of the threat model for now")


def assess(
    threat_model: str | PathLike[str],
    *,
    out: str | PathLike[str] | None = None,
    workers: int | None = None,
    watch: Callable[[Stage], None] | None = None,
) -> Report:
    """Attack the model that a threat-model file names, and judge it by the file's requirements.

    out: folder for the run folder, instead of `run.out`. workers: cores, instead of `run.workers`; 0 is all.
    watch is called a few times a second. All evidence is under `report.run.folder` when this returns; the
    verdict rests on the saved inputs, read back from there and measured again.

    Raises a RedanError, with nothing written, for anything wrong with the file, the model or the data.
    """
    start, started = time.monotonic(), datetime.now(UTC)
    ready = prepare(threat_model)
    model = ready.loaded.model
    folder = RunFolder.create((Path(out) if out is not None else ready.loaded.folder / model.run.out).resolve())
    folder.write(MODEL, Path(threat_model).read_bytes())
    digests = _digests(ready)
    header(folder, started=started.isoformat(), seed=model.statistics.seed, mode=str(model.attacks.mode), **digests)
    purse = Purse(Limits(model.limits.seconds, model.limits.queries))
    attackers: list[AttackerPart] = []
    errors: list[ErrorPart] = []
    try:
        for number in range(len(ready.plan.campaigns)):
            part, failed = _campaign(ready, number, folder, purse, _cores(ready, workers), watch)
            attackers.append(part)
            errors += failed
    except BaseException as error:
        folder.append({"event": "ended", "why": type(error).__name__})
        raise
    folder.append({"event": "ended", "why": "done"})
    digests["evidence"] = file_digest(folder.path / LOG)
    seconds = round(time.monotonic() - start, 3)
    report = _report(ready, attackers, errors, folder, purse, started, seconds, digests)
    folder.write(REPORT, (report.model_dump_json(indent=2) + "\n").encode())
    return report


def _cores(ready: Prepared, workers: int | None) -> int:
    said = ready.loaded.model.run.workers
    return workers if workers is not None else 0 if isinstance(said, Auto) else said


def _campaign(
    ready: Prepared,
    number: int,
    folder: RunFolder,
    purse: Purse,
    workers: int,
    watch: Callable[[Stage], None] | None,
) -> tuple[AttackerPart, list[ErrorPart]]:
    """One attacker's attacks, recorded as they end, measured again from the disk, and summed up."""
    model, built, campaigns = ready.loaded.model, ready.built, ready.plan.campaigns
    campaign = campaigns[number]
    if campaign.within is None or not campaign.attacks:
        return unbuilt_part(campaign), []
    job = Job(
        target=built.target,
        x=built.x,
        y=built.y,
        names=ready.names,
        attacks=campaign.attacks,
        within=campaign.within,
        aim=campaign.aim,
        knowledge=campaign.knowledge,
        capability=campaign.capability,
        seed=model.statistics.seed,
        contain=True,
    )
    recorder = Recorder(folder, campaign.attacker.name, number + 1, job, built.index, model.run.keep_inputs)

    def tell(progress: Progress) -> None:
        if watch is not None:
            watch(Stage(campaign.attacker.name, number + 1, len(campaigns), progress))

    run(job, workers=workers, block=model.run.block, purse=purse, progress=tell, done=recorder)
    # On one thread, as the run was: other kernels round differently, and a row may lie on the very edge.
    with one_thread_each(), seeded(built.target, model.statistics.seed):
        remeasure(recorder)
    return attacker_part(
        campaign, folder.records(), ready.findings, _classes(ready), built.target.stochastic, purse.hit is not None
    )


def _classes(ready: Prepared) -> list[str]:
    said = ready.loaded.model.system.classes
    return list(said) if isinstance(said, tuple) else [str(c) for c in range(said or 0)]


def _digests(ready: Prepared) -> dict[str, str | None]:
    package = Path(__file__).resolve().parent.parent
    sources = sorted(path for path in package.rglob("*.py"))
    return {
        "model": ready.built.model_digest,
        "data": ready.built.data_digest,
        "rows": digest("\n".join(ready.names).encode()),
        "threat_model": ready.loaded.digest,
        "redan": digest(b"".join(file_digest(path).encode() for path in sources)),
    }


def _report(
    ready: Prepared,
    attackers: list[AttackerPart],
    errors: list[ErrorPart],
    folder: RunFolder,
    purse: Purse,
    started: datetime,
    seconds: float,
    digests: dict[str, str | None],
) -> Report:
    model, built = ready.loaded.model, ready.built
    shows_not = [*_SHOWS_NOT, *(f"{a.name}: {a.reason}" for a in attackers if a.counts is None)]
    report = Report(
        schema_version=1,
        verdict=Verdict.INCONCLUSIVE,
        exit_code=Verdict.INCONCLUSIVE.exit_code,
        reasons=[],
        system=model.system.name,
        classes=_classes(ready),
        requirements=[],
        attackers=attackers,
        preflight=[
            CheckPart(check=f.check, level=f.level, status=f.status, detail=f.detail, remedy=f.remedy)
            for f in ready.findings
        ]
        + [CheckPart(check="data", level="warn", status="pass", detail=note, remedy="") for note in built.notes],
        plan=plan_parts(ready.plan),
        skipped=list(ready.plan.skipped),
        errors=errors,
        limits_hit=[purse.hit] if purse.hit else [],
        shows_not=shows_not,
        run=RunPart(
            id=folder.id,
            folder=str(folder.path),
            started=started.isoformat(),
            seconds=seconds,
            mode=str(model.attacks.mode),
            seed=model.statistics.seed,
            rows=len(built.x),
            confidence=model.statistics.confidence,
            family=str(model.statistics.family),
            reproducible=purse.hit is None,
            model_stochastic=built.target.stochastic,
        ),
        environment=_environment(built),
        digests=digests,
    )
    found = judge(report, model.requirements)
    return report.model_copy(
        update={
            "verdict": found.verdict,
            "exit_code": found.exit_code,
            "reasons": list(found.reasons),
            "requirements": list(found.requirements),
        }
    )


def _environment(built: Built) -> dict[str, str]:
    fast = getattr(accelerated(built.target, built.x[:2]), "fast", False)
    libraries = {name: version(name) for name in ("torch", "numpy", "scipy", "safetensors", "redan")}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "device": str(built.target.device),
        "gradient_path": "folded one-channel convolutions" if fast else "plain",
        **libraries,
    }
