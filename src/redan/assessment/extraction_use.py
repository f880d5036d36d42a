"""What a stolen copy is good for: inputs made on it and shown to the model, beside an attack without it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from redan.answers import evaluate, micro_batch, share
from redan.assessment.session import Prepared, Session
from redan.engine.block import JUDGING_DRAWS, Job, seeded, seen_by
from redan.engine.outcomes import Status
from redan.engine.run import run
from redan.errors import EvidenceError
from redan.evidence.extraction_lines import CopyLine, DirectLine, Transferred
from redan.goals import Aim
from redan.oracle import Capability
from redan.protocols import Access, Bounded
from redan.robustness import Mode, Named, attacks_of, eot_of
from redan.targets import Target
from redan.targets.surrogates import Ensemble, ensemble
from redan.threat.extractors import ExtractionCampaign
from redan.threat.schema import KeepInputs

__all__ = ["Shown", "direct", "direct_job", "job_by_copy", "shown", "still_broken"]

_FEW, _MOST = 10, 100_000
"""Queries of a direct attack on one row: what it needs to begin, and what no attack makes more of."""


class Shown(NamedTuple):
    """What became of the rows that the model answers right."""

    told: Transferred
    arrays: Mapping[str, Tensor]
    """`row`: places of the broken ones among the job's; `x`: the inputs that broke them."""
    cut: bool
    """Whether our limits ended it."""


@dataclass(frozen=True, slots=True)
class _Means:
    """The attacks of one who holds a copy, or who holds none."""

    attacks: Sequence[Named]
    knowledge: Access
    capability: Capability
    surrogates: Ensemble | None = None


def job_by_copy(ready: Prepared, campaign: ExtractionCampaign, copy: Target[Tensor]) -> Job:
    """The evasion attacker with a copy in hand: its scores and gradients are his, and of the model he asks decisions
    alone, which are counted. Raises NotBuiltError where no attack moves so with what the copy gives."""
    user = _user(ready, campaign)
    lent = ensemble((copy,), ready.built.target)
    climbs = lent.access is Access.GRADIENTS
    free = Capability(None, campaign.attacker.capability.usd_per_1000_queries)
    found = attacks_of(_mode(ready), user.within, lent.access, user.outcomes, free, surrogates=climbs)
    return _job(ready, user, _Means(found, lent.access, free, lent))


def direct_job(ready: Prepared, campaign: ExtractionCampaign, queries_per_row: int) -> Job:
    """The same attacker without a copy, by what the extraction attacker sees of the model's answers."""
    user = _user(ready, campaign)
    paid = Capability(queries_per_row, campaign.attacker.capability.usd_per_1000_queries)
    found = attacks_of(_mode(ready), user.within, campaign.access, user.outcomes, paid)
    return _job(ready, user, _Means(found, campaign.access, paid))


def direct(
    session: Session, campaign: ExtractionCampaign, extractor: str, copies: Sequence[CopyLine]
) -> DirectLine | None:
    """The model attacked itself with as many queries as the extractor's copies and their use took in the mean, shared
    by all rows alike. None where our limits end it, or no copy was used."""
    begun = time.process_time()
    used = [(line.points[0].paid, line.points[0].transferred) for line in copies if line.points]
    told = [(paid, each) for paid, each in used if each is not None and each.rows]
    if not told:
        return None
    whole = fmean(paid + each.queries for paid, each in told)
    each_row = min(_MOST, max(_FEW, math.ceil(whole / min(each.rows for _, each in told))))
    job = direct_job(session.ready, campaign, each_row)
    found = shown(session, job)
    if found.cut:
        return None
    arrays, file, sha = found.arrays, None, ""
    if session.ready.loaded.model.run.keep_inputs is not KeepInputs.NONE:
        file = f"{session.folder.fresh()}.safetensors"
        sha = session.folder.save_inputs(file, arrays)
        arrays = session.folder.load_inputs(file, sha)
    held = still_broken(job, arrays)
    return DirectLine(
        attacker=campaign.attacker.name,
        extractor=extractor,
        attacks=[name for name, _ in job.attacks],
        queries_per_row=each_row,
        rows=found.told.rows,
        broken=int(held.sum()),
        errors=found.told.errors + int((~held).sum()),
        queries=found.told.queries,
        saved=file,
        sha256=sha,
        seconds=round(time.process_time() - begun, 3),
    )


def shown(session: Session, job: Job) -> Shown:
    """A job's inputs shown to the model."""
    found = run(job, workers=session.workers, block=session.ready.loaded.model.run.block, purse=session.purse)
    right = found.right
    broken = right & (found.status == Status.BROKEN)
    place = broken.nonzero().flatten()
    told = Transferred(
        rows=int(right.sum()),
        broken=int(broken.sum()),
        errors=int((right & (found.status == Status.ERROR)).sum()),
        queries=int(found.queries_by.sum()),
    )
    cut = session.purse.hit is not None or bool((found.status == Status.UNDECIDED).any())
    return Shown(told, {"row": place.cpu(), "x": found.x[place].cpu()}, cut)


def still_broken(job: Job, arrays: Mapping[str, Tensor]) -> Tensor:
    """Which saved inputs lie in the attacker's set and fool the model when it is asked again: (M,) bool. Nobody is
    billed. Raises EvidenceError where they are not inputs of the job's rows."""
    place, x = arrays["row"].to(job.x.device), arrays["x"].to(job.x)
    if not len(place):
        return torch.zeros(0, dtype=torch.bool)
    if (
        x.shape[1:] != job.x.shape[1:]
        or len(place) != len(x)
        or not 0 <= int(place.min()) <= int(place.max()) < len(job.x)
    ):
        raise EvidenceError("the saved inputs are not of the run's rows; the evidence was changed")
    with seeded(job, job.seed):
        x0, micro = job.x[place], micro_batch(x)
        clean = evaluate(job.target, x0, micro=micro)
        goal = job.aim.about(job.y[place], seen_by(job, x0, clean).output, place)
        within = job.within.inside(job.target.bounds).take(place)
        inside = within.contains(x, x0, within.distance(x, x0))
        often, _ = share(job.target, x, goal, JUDGING_DRAWS if job.target.stochastic else 1, micro)
    return (inside & (often > 0)).cpu()


class _User(NamedTuple):
    """The evasion attacker who uses the copy."""

    within: Bounded
    aim: Aim
    outcomes: int


def _user(ready: Prepared, campaign: ExtractionCampaign) -> _User:
    """The planner has left out those who cannot."""
    found = next(each for each in ready.plan.campaigns if each.attacker.name == campaign.transfer)
    assert found.within is not None  # noqa: S101  # for the type checker
    return _User(found.within, found.aim, found.aim.task.outcomes(ready.loaded.model.system.class_count or 2))


def _mode(ready: Prepared) -> Mode:
    """Modes that only attacks on the model itself have are as the default."""
    mode = Mode(ready.loaded.model.attacks.mode.value)
    return mode if mode in (Mode.QUICK, Mode.AUDIT) else Mode.DEFAULT


def _job(ready: Prepared, user: _User, means: _Means) -> Job:
    built, model = ready.built, ready.loaded.model
    rows = slice(0, model.extraction.transfer_rows)
    return Job(
        target=built.target,
        x=built.x[rows],
        y=built.y[rows],
        names=ready.names[rows],
        attacks=means.attacks,
        within=user.within,
        aim=user.aim,
        knowledge=means.knowledge,
        surrogates=means.surrogates,
        capability=means.capability,
        seed=model.statistics.seed,
        eot=eot_of(_mode(ready), model.attacks.eot),
        contain=True,
    )
