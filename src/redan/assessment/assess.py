"""`assess`: one threat-model file in, one report out, with the evidence it rests on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path

from redan.assessment.build import added_attacks, build
from redan.assessment.calls import calls_line, ledgered, money
from redan.assessment.certified import certify_rows
from redan.assessment.checks_served import served_checks
from redan.assessment.distrust import distrust
from redan.assessment.extraction import extract
from redan.assessment.extraction_scene import ground_of
from redan.assessment.measuring import on_levels
from redan.assessment.meeting import answering
from redan.assessment.opening import begin, check_parts, first_line, on_path, reopened, same_run
from redan.assessment.pictures import keep_pictures
from redan.assessment.poisoning import keep_poison_pictures, poison
from redan.assessment.preflight import Budget, Level, Requirement, Scene, preflight, refuse
from redan.assessment.recording import recorded
from redan.assessment.session import Prepared, Session, Stage, job_of, told
from redan.assessment.transferring import measure_transfers
from redan.assessment.undefended import compare_undefended
from redan.assessment.workshop import Workshop
from redan.engine.intake import checked_rows, row_names
from redan.errors import SettingError
from redan.evidence.folder import REPORT, RunFolder, is_url
from redan.evidence.log import EndedLine, ResumedLine, RunLine
from redan.evidence.report import Report
from redan.evidence.summary import Summary
from redan.evidence.verdict import settled
from redan.goals import Aim, Deviate, FlipLabels, Task, Untargeted
from redan.oracle import Limits, Purse
from redan.perturbations.norms import Linf
from redan.runners.local import pieces
from redan.targets import declared, is_remote
from redan.threat.file import read
from redan.threat.inputs import ImageInputs
from redan.threat.planner import Campaign, plan
from redan.threat.schema import Auto

_CALLS = 256  # that the preflight may make: how fast an endpoint is decides nothing
_AT_A_TIME = 32  # rows that a gate takes before it looks: as many on every machine, since it decides where it stops


def _read(threat_model: str | PathLike[str], *, trust_pickle: bool = False) -> Prepared:
    """What a file names, built; nothing was asked of the model yet."""
    loaded = read(Path(threat_model))
    model, folder = loaded.model, loaded.folder
    steps = plan(model, added_attacks(model, folder))
    built = build(model, folder, trust_pickle=trust_pickle)
    x, y = checked_rows(built.x, built.y, built.target, built.task)
    built = replace(built, x=x, y=y)
    shop = Workshop(loaded.path).checked() if steps.poisonings else None
    grounds = {each.attacker.name: ground_of(loaded, built, each) for each in steps.extractions}
    return Prepared(loaded, steps, built, tuple(row_names(x, built.ids)), (), shop, grounds)


def read_run(threat_model: str | PathLike[str], head: RunLine, *, trust_pickle: bool = False) -> Prepared:
    """What a file names, for a run that its preflight has seen already. The model is not asked."""
    ready = _read(threat_model, trust_pickle=trust_pickle)
    return _varying(ready, varies=head.stochastic)


def _varying(ready: Prepared, *, varies: bool) -> Prepared:
    return replace(ready, built=replace(ready.built, target=declared(ready.built.target, stochastic=varies)))


def inspect(threat_model: str | PathLike[str], *, trust_pickle: bool = False) -> Prepared:
    """Read, plan, build, and say what the preflight finds, also where it would refuse."""
    ready = _read(threat_model, trust_pickle=trust_pickle)
    built, model = ready.built, ready.loaded.model
    said, rates = model.system.expect, [r.at_least for r in model.requirements if r.at_least and r.metric.is_rate]
    scene = Scene(
        built.target,
        built.x,
        built.y,
        aim=_wrong(ready),
        radius=min((float(c.within.radius) for c in ready.plan.campaigns if isinstance(c.within, Linf)), default=None),
        budget=Budget(seconds=math.inf, queries=_CALLS) if is_remote(built.target) else Budget(),
        expected=None if said is None else (said.clean_accuracy, said.within),
        image=isinstance(model.system.inputs, ImageInputs),
        required=Requirement(at_least=max(rates), confidence=model.statistics.confidence) if rates else None,
    )
    findings = preflight(replace(scene, target=answering(built.target)))
    findings += served_checks(scene, built.detector, findings)
    varies = built.target.stochastic or any(f.fired and f.level is Level.SWITCH for f in findings)
    return replace(_varying(ready, varies=varies), findings=findings)


def _wrong(ready: Prepared) -> Aim:
    """What says which clean answers are right."""
    deviating = (campaign.aim for campaign in ready.plan.campaigns if campaign.aim.task is Task.VALUE)
    match ready.built.task:
        case Task.CLASS:
            return Untargeted()
        case Task.LABELS:
            return FlipLabels()
        case Task.VALUE:
            return next(deviating, Deviate(math.inf))


def assess(
    threat_model: str | PathLike[str],
    *,
    out: str | PathLike[str] | None = None,
    resume: str | PathLike[str] | None = None,
    gate: bool | None = None,
    limits: Limits | None = None,
    workers: int | None = None,
    trust_pickle: bool = False,
    watch: Callable[[Stage], None] | None = None,
) -> Report:
    """Attack the model that a threat-model file names, and judge it by the file's requirements.

    out: folder, or fsspec URL, for the run folder, instead of `run.out`. resume: the folder of a run that was
    broken off, which goes on: no row that is finished is asked again. gate: stop as soon as every requirement is
    decided, instead of `statistics.gate`. limits: what we spend, where given instead of the file's. workers:
    cores, instead of `run.workers`; 0 is all. trust_pickle: whether a pickled model may be read, which can run any
    code. watch is called a few times a second.

    All evidence is under `report.run.folder` when this returns; the verdict rests on the saved inputs, read back
    from there and measured again. Raises a RedanError, with nothing written, for anything wrong with the file,
    the model or the data.
    """
    start = time.monotonic()
    if resume is None:
        ready = inspect(threat_model, trust_pickle=trust_pickle)
        refuse(ready.findings)
        spend = _limits(ready, limits or Limits())
        ready = replace(ready, built=on_path(ready.built, ready.names))
        folder, found = _begun(ready, out, gate)
    else:
        folder, found = reopened(str(resume))
        ready = read_run(threat_model, found.head, trust_pickle=trust_pickle)
        spend = _limits(ready, limits or Limits())
        same_run(found.head, ready.digests, folder.url)
        ready = replace(
            ready, built=on_path(ready.built, ready.names, found.head.environment.get("gradient_path", "plain"))
        )
    if found.ended is None or found.ended.why not in _OVER or found.ended.limits_hit:
        resumed = resume is not None
        with ledgered(ready.built.target, folder):
            purse = Purse(spend, money(ready.built.target, ready.plan, resumed=resumed))
            _sat(Session(ready, folder, found, purse, _cores(ready, workers), watch), start, resumed=resumed)
    report = found.report(folder.url)
    folder.write(REPORT, (report.model_dump_json(indent=2) + "\n").encode())
    return report


_OVER = ("done", "decided")


def _sat(work: Session, start: float, *, resumed: bool) -> None:
    """One sitting, from its first line in the log to its last."""
    ready, folder, found = work.ready, work.folder, work.summary
    target = ready.built.target
    folder.append(*([ResumedLine(started=_now())] if resumed else []))
    try:
        why, rows, hit = _worked(work)
        if not hit:
            distrust(work, rows)
            compare_undefended(work, rows)
            measure_transfers(work, rows)
            distrust(work, rows)  # once more: inputs of the model alone may have shown the attacks to be weak
            extract(work)
            poison(work)
            hit = [work.purse.hit] if work.purse.hit else []
    except BaseException as error:
        why = "interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__
        ended = EndedLine(why=why, rows=found.taken(), limits_hit=[], seconds=_since(start))
        folder.append(*calls_line(target, ready.plan), ended)
        raise
    last = EndedLine(why=why, rows=rows, limits_hit=hit, seconds=_since(start))
    found.see(last)
    keep_pictures(ready.loaded.model, ready.built, folder, found)
    keep_poison_pictures(folder, found, None if ready.shop is None else ready.shop.bounds)
    calls = calls_line(target, ready.plan)
    found.see(*calls)
    folder.append(*calls, last)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _since(start: float) -> float:
    return round(time.monotonic() - start, 3)


def _limits(ready: Prepared, said: Limits) -> Limits:
    """What we spend: as the caller says, and else as the file does."""
    model = ready.loaded.model
    usd = model.limits.usd if said.usd is None else said.usd
    if usd is not None and not ready.plan.price:
        raise SettingError(
            "a limit in US dollars limits nothing, because no attacker's queries have a price; give "
            "capability.usd_per_1000_queries"
        )
    return Limits(
        seconds=model.limits.seconds if said.seconds is None else said.seconds,
        queries=model.limits.queries if said.queries is None else said.queries,
        usd=usd,
    )


def _cores(ready: Prepared, workers: int | None) -> int:
    said = ready.loaded.model.run.workers
    return workers if workers is not None else 0 if isinstance(said, Auto) else said


def _begun(ready: Prepared, out: str | PathLike[str] | None, gate: bool | None) -> tuple[RunFolder, Summary]:
    model = ready.loaded.model
    where = str(out) if out is not None else model.run.out
    if not is_url(where):
        where = str((Path() if out is not None else ready.loaded.folder).joinpath(where).resolve())
    folder = RunFolder.create(where)
    head = first_line(
        ready.loaded,
        ready.plan,
        ready.built,
        ready.names,
        check_parts(ready.findings, ready.built.notes),
        ready.digests,
        id=folder.id,
        gate=model.statistics.gate if gate is None else gate,
        eight_bit=isinstance(model.system.inputs, ImageInputs) and on_levels(ready.built.x, ready.built.target.bounds),
        shop=ready.shop,
        grounds=ready.grounds,
    )
    return folder, begin(folder, head, ready.loaded.content)


def _worked(session: Session) -> tuple[str, int, list[str]]:
    """Every row under every attacker; why it ended, after how many rows, and which limit of ours was hit."""
    head, purse = session.summary.head, session.purse
    total = len(head.labels)
    for start in range(0, total, _AT_A_TIME if head.gate else max(1, total)):
        end = min(total, start + _AT_A_TIME) if head.gate else total
        campaigns = [c for c in session.ready.plan.campaigns if c.attacker.name in session.summary.tallies]
        for campaign in campaigns:
            _campaign(session, campaign, range(start, end))
        if not purse.hit:
            certify_rows(session, range(start, end))
        if purse.hit:
            return "done", end, [purse.hit]
        if head.gate and settled(session.summary.report(session.folder.url, end)):
            return "decided", end, []
    return "done", total, []


def _campaign(session: Session, campaign: Campaign, rows: range) -> None:
    """One attacker's attacks on those of the rows that are not finished, recorded as they end."""
    ready, found = session.ready, session.summary
    model, built = ready.loaded.model, ready.built
    tally = found.tallies[campaign.attacker.name]
    if is_remote(built.target) and len(rows) > model.run.block:  # the same blocks after a kill: their calls are known
        for first in range(rows.start, rows.stop, model.run.block):
            if session.purse.hit:
                return  # what is left is not even asked: each call costs
            _campaign(session, campaign, range(first, min(first + model.run.block, rows.stop)))
        return
    pending = [row for row in rows if not tally.finished[row]]
    if built.target.stochastic:
        pending = _whole_blocks(rows, pending, model.run.block)
    if not pending:
        return
    job = job_of(ready, campaign, pending)
    recorded(session, campaign, job, pending, tell=told(session, campaign, pending))


def _whole_blocks(rows: range, pending: Sequence[int], block: int) -> list[int]:
    """The blocks of rows that have pending ones: a stochastic model draws for a block, not for a row.

    So a run that was broken off meets the draws of one that was not; what was known of a block's rows is replaced.
    """
    found, open_rows = [rows[piece.start : piece.stop] for piece in pieces(len(rows), block, 1)], set(pending)
    return [row for piece in found if not open_rows.isdisjoint(piece) for row in piece]
