"""What an assessment will take, from a pilot on a few of its rows.

What a row costs hangs on how hard it is to break, and a few rows that survive everything cost more than all the
others together. So the pilot is no random sample: the clean answers, which every assessment asks for anyway, rank
all rows by the goal's loss, and the pilot takes the hardest, the second, the fourth… and others evenly in between.
Where they break at once it goes on with more rows, until it has spent what a quarter of them could have: so it meets
the one row in hundreds that survives. A row's own random numbers are those of the whole run, so a pilot row costs
exactly what it will cost then; the others are interpolated by rank.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redan.answers import Answers, evaluate, micro_batch
from redan.assessment.assess import inspect
from redan.assessment.certified import Proving, proving
from redan.assessment.preflight import refuse
from redan.assessment.serving import Bare
from redan.assessment.session import Prepared, bare_job_of, job_of
from redan.engine.block import Job, seen_by
from redan.engine.intake import count_classes, probes
from redan.engine.outcomes import Outcomes
from redan.engine.run import Progress, run
from redan.errors import SettingError
from redan.goals import Task, Untargeted
from redan.losses import cross_entropy
from redan.protocols import cost
from redan.rows import Goal
from redan.runners.local import cores, one_thread_each, pieces
from redan.targets import Target
from redan.targets.torch import accelerated, unchanged
from redan.threat.file import read
from redan.threat.model import Http
from redan.threat.planner import Campaign
from redan.threat.schema import Auto

PILOT = 32
"""Rows that a pilot begins with; a quarter of the assessment's, if that is less."""
_FEWEST, _MORE = 4, 64
_SHARE = 0.25  # of what the first rows can cost at the worst: what a pilot may spend
_REPEATS = 5
_ENOUGH = 0.2  # CPU seconds of a pilot that tell how cores get on with each other
_MEASURING = 3  # forward passes a row besides the attacks: the clean pass and the second measurement of two inputs

_Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one attacker's attacks will take on all rows of an assessment.

    attacker: their name, with the model that is attacked where it is not the served one. pilot: rows that were tried.
    queries: the attacker's. passes: forward and backward. seconds: wall time on the cores that the assessment will use.
    usd: None without a price.
    """

    attacker: str
    pilot: int
    rows: int
    queries: int
    passes: int
    seconds: float
    usd: float | None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a whole assessment will take. preparing: seconds for building the model, the data and the preflight. proofs:
    of rows that are certified, where a requirement asks for it."""

    preparing: float
    attackers: tuple[Forecast, ...]
    proofs: tuple[Proving, ...] = ()

    @property
    def seconds(self) -> float:
        """Wall time from start to report."""
        attacks, proofs = (sum(each.seconds for each in self.attackers), sum(each.seconds for each in self.proofs))
        return self.preparing + attacks + proofs


def forecast(
    threat_model: str | PathLike[str],
    *,
    rows: int = PILOT,
    workers: int | None = None,
    trust_pickle: bool = False,
    watch: Callable[[str, Progress], None] | None = None,
) -> Outlook:
    """Run every attacker's attacks on a few rows, write nothing, and say what all rows will take.

    rows: of the pilot. workers: cores of the assessment, instead of `run.workers`. A gate may stop earlier than
    this says. Raises what `assess` raises.
    """
    start = time.monotonic()
    if isinstance(read(Path(threat_model)).model.system.model, Http):
        raise SettingError(
            "an endpoint is not tried beforehand, since each answer is a call that somebody pays; redan plan without "
            "--pilot says what each attack can cost at the most"
        )
    ready = inspect(threat_model, trust_pickle=trust_pickle)
    refuse(ready.findings)
    preparing = time.monotonic() - start
    said = ready.loaded.model.run.workers
    asked = workers if workers is not None else 0 if isinstance(said, Auto) else said
    many = 1 if ready.built.target.stochastic else asked or cores()
    campaigns = [campaign for campaign in ready.plan.campaigns if campaign.attacks]
    found = []
    for beside in (None, *ready.built.bare):
        target = ready.built.target if beside is None else beside.target
        with unchanged(target):
            clean = evaluate(target, ready.built.x, micro=micro_batch(ready.built.x))
        found += [_forecast(ready, each, beside, clean, rows, many, watch) for each in campaigns]
    proofs = proving(ready, max(_FEWEST, min(rows, len(ready.names) // 4)), asked)
    return Outlook(preparing, tuple(found), tuple(proofs))


def _forecast(
    ready: Prepared,
    campaign: Campaign,
    beside: Bare | None,
    clean: Answers,
    most: int,
    workers: int,
    watch: Callable[[str, Progress], None] | None,
) -> Forecast:
    name = campaign.attacker.name if beside is None else f"{campaign.attacker.name}, on {beside.name}"

    def job_at(rows: Sequence[int]) -> Job:
        return job_of(ready, campaign, rows) if beside is None else bare_job_of(ready, campaign, beside, rows)

    job = job_at(range(len(ready.names)))
    ranked = _ranked(job, clean)
    most = max(_FEWEST, min(most, len(job.x) // 4))

    def tell(now: Progress) -> None:
        if watch is not None:
            watch(name, now)

    def tried(ranks: NDArray[np.int64]) -> Outcomes:
        return run(job_at(ranked[ranks].tolist()), workers=workers, block=block, progress=tell)

    block = ready.loaded.model.run.block
    pilot = _spread(len(ranked), most)
    start = time.monotonic()
    found = [tried(pilot)]
    took = time.monotonic() - start
    budget = _SHARE * most * _worst(job)
    others = _scattered(len(ranked), pilot)
    while len(others) and sum(int((each.forwards + each.backwards).sum()) for each in found) < budget:
        more, others = np.split(others, [_MORE])
        pilot = np.concatenate([pilot, more])
        found.append(tried(more))
    queries, forwards, backwards = (
        _all_rows([getattr(each, name) for each in found], pilot, ranked, len(job.x))
        for name in ("queries_by", "forwards_by", "backwards_by")
    )
    asked = round(queries.sum())
    return Forecast(
        attacker=name,
        pilot=len(pilot),
        rows=len(job.x),
        queries=asked,
        passes=round(forwards.sum() + backwards.sum()),
        seconds=_crowded(found[0], took, pieces(len(pilot), block, workers), workers)
        * _seconds(job, found[0], forwards, backwards, pieces(len(job.x), block, workers), workers),
        usd=asked * campaign.capability.price or None,
    )


def _ranked(job: Job, clean: Answers) -> NDArray[np.int64]:
    """The rows worth attacking, the hardest first, by the goal's loss on the clean answers."""
    everyone = torch.arange(len(job.x), device=job.x.device)
    goal = job.aim.about(job.y, seen_by(job, job.x, clean).output, everyone)
    open_rows = clean.answered & ~goal.reached(clean.output)
    order = goal.loss(goal.scores(clean.output)).argsort(stable=True)
    return order[open_rows[order]].cpu().numpy()


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """Ranks for a pilot: 0, 1, 3, 7, … for half of it at the most, and evenly spaced ones; all if there are few.

    >>> _spread(100, 8).tolist()
    [0, 1, 3, 7, 25, 50, 74, 99]
    """
    if count <= most:
        return np.arange(count)
    steep = [2**k - 1 for k in range(most // 2) if 2**k - 1 < count]
    even = np.linspace(0, count - 1, most - len(steep) + 1).round().astype(int)
    return np.unique([*steep, *even.tolist()])


def _scattered(count: int, taken: NDArray[np.int64]) -> NDArray[np.int64]:
    """The ranks that were not taken, each next one far from those before it (multiples of the golden ratio)."""
    rest = np.setdiff1d(np.arange(count), taken)
    return rest[np.argsort(rest * _GOLDEN % 1, kind="stable")]


_GOLDEN = (math.sqrt(5) - 1) / 2


def _worst(job: Job) -> int:
    """Passes of a row that nothing breaks; 0 for attacks that do not say."""
    outcomes = job.aim.task.outcomes(count_classes(job.target, job.x, job.y, job.aim.task))
    costs = [cost(attack, outcomes, job.draws) for _, attack in job.attacks]
    return sum(most.queries + most.backwards for most in costs if most is not None)


def _all_rows(spent: Sequence[Tensor], pilot: NDArray[np.int64], ranked: NDArray[np.int64], rows: int) -> _Array:
    """What every row will spend on each attack: (rows, attacks); nothing where the clean input is wrong already."""
    known = torch.cat(list(spent)).cpu().numpy()
    whole = np.zeros((rows, known.shape[1]))
    order = pilot.argsort()
    for attack in range(known.shape[1]) if len(pilot) else ():
        whole[ranked, attack] = np.interp(np.arange(len(ranked)), pilot[order], known[order, attack])
    return whole


# -- seconds ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Pace:
    """Seconds of a call that asks n rows: call + n · row; with the gradient, both are larger."""

    call: float
    row: float
    gradient_call: float
    gradient_row: float

    def of(self, forwards: _Array, backwards: _Array) -> float:
        """Rows that move in lockstep, by what each spends on one attack: as many calls as the longest takes."""
        if not len(forwards) or not forwards.max():
            return 0.0
        climbing = backwards.max() > 0
        call = self.gradient_call if climbing else self.call
        return float(
            forwards.max() * call + forwards.sum() * self.row + backwards.sum() * (self.gradient_row - self.row)
        )


def _crowded(found: Outcomes, took: float, blocks: tuple[range, ...], workers: int) -> float:
    """How much longer cores take together than each alone: memory and the interpreter's lock are shared."""
    busy = sum(found.seconds)
    return max(1.0, took * min(workers, len(blocks)) / busy) if busy > _ENOUGH else 1.0


def _seconds(
    job: Job, found: Outcomes, forwards: _Array, backwards: _Array, blocks: tuple[range, ...], workers: int
) -> float:
    """Wall seconds of all blocks, by passes and calls, scaled by what the pilot took besides."""
    pace = _pace(job, max(map(len, blocks), default=1))
    shown, climbed = found.forwards_by.cpu().numpy(), found.backwards_by.cpu().numpy()
    tried = pieces(len(shown), max(1, len(shown)), workers)
    scales = []
    for attack, took in enumerate(found.seconds):
        model = sum(pace.of(shown[at.start : at.stop, attack], climbed[at.start : at.stop, attack]) for at in tried)
        scales.append(took / model if model else 1.0)
    told = [
        len(at) * _MEASURING * pace.row
        + sum(
            scale * pace.of(forwards[at.start : at.stop, attack], backwards[at.start : at.stop, attack])
            for attack, scale in enumerate(scales)
        )
        for at in blocks
    ]
    return max(sum(told) / workers, max(told, default=0.0))


def _pace(job: Job, rows: int) -> _Pace:
    few, many = 2, max(8, min(rows, micro_batch(job.x)))
    asked = job.target if job.surrogates is None else job.surrogates  # what nearly all passes go through
    with ExitStack() as watched, one_thread_each():
        for model in job.models:
            watched.enter_context(unchanged(model))
        target = accelerated(asked, probes(job.x, job.names))
        forward = [_timed(target, job, n, climb=False) for n in (few, many)]
        gradient = [_timed(target, job, n, climb=True) for n in (few, many)] if target.differentiable else forward
    row, gradient_row = ((last - first) / (many - few) for first, last in (forward, gradient))
    return _Pace(
        call=max(0.0, forward[0] - few * row),
        row=max(0.0, row),
        gradient_call=max(0.0, gradient[0] - few * gradient_row),
        gradient_row=max(0.0, gradient_row),
    )


def _timed(target: Target[Tensor], job: Job, rows: int, *, climb: bool) -> float:
    at = torch.arange(rows, device=job.x.device) % len(job.x)
    x = job.x[at]
    goal: Goal = Untargeted(job.y[at])
    if job.aim.task is not Task.CLASS:
        goal = job.aim.about(job.y[at], evaluate(target, x, micro=micro_batch(x)).output, at)
    spent = []
    for _ in range(_REPEATS + 1):
        start = time.thread_time()
        if climb:
            evaluate(target, x, micro=micro_batch(x), goal=goal, loss=cross_entropy)
        else:
            evaluate(target, x, micro=micro_batch(x))
        spent.append(time.thread_time() - start)
    return median(spent[1:])
