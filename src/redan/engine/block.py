"""One block of rows under one attacker: attacked in turn, then measured again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from redan.answers import Answers, evaluate, micro_batch, share
from redan.engine.outcomes import Outcomes, Status
from redan.engine.transfer import Transfer
from redan.errors import TargetError
from redan.goals import Aim, Untargeted, Wrong, attainable
from redan.oracle import Capability, Oracle, Purse
from redan.protocols import Access, Attack, Bounded, cost
from redan.referee import First, Referee, Rule
from redan.rows import Rows, Streams
from redan.targets import Target
from redan.targets.surrogates import Ensemble

JUDGING_DRAWS = 20  # fresh answers of a stochastic target that judge a saved input
CONFIRMING_DRAWS = 10  # fresh answers that must all be hits before a row of such a target is left alone


@dataclass(frozen=True, slots=True)
class Job:
    """One attacker's attacks on some rows of a target: everything that decides the result."""

    target: Target[Tensor]
    x: Tensor
    y: Tensor
    names: Sequence[str]
    attacks: Sequence[tuple[str, Attack[Any, Any]]]  # with the names that key their random streams
    within: Bounded
    aim: Aim = field(default_factory=Untargeted)
    rule: Rule = field(default_factory=First)
    knowledge: Access = Access.GRADIENTS
    capability: Capability = field(default_factory=Capability)
    seed: int = 0
    surrogates: Ensemble | None = None  # whose gradients and scores the attacker sees, instead of the target's
    eot: int = 1  # draws of a stochastic model that each gradient is averaged over
    starts: Tensor | None = None  # (N, …) the attacker's own samples, one a row: `Rows.starts`
    instead: Mapping[str, Target[Tensor]] = field(default_factory=dict)  # climbed by the attack named; answers alike
    spared: Tensor | None = None  # (N,) bool, rows that need no attack: proven to stand
    contain: bool = False  # an attack that raises makes its rows errors instead of ending the run

    @property
    def models(self) -> tuple[Target[Tensor], ...]:
        """The target, and the surrogates one by one."""
        return (self.target, *(() if self.surrogates is None else self.surrogates.members))

    @property
    def stochastic(self) -> bool:
        return any(model.stochastic for model in self.models)

    @property
    def draws(self) -> int:
        """Answers that a gradient is averaged over: one where they are all the same."""
        return self.eot if (self.surrogates or self.target).stochastic else 1


class MayDraw(Protocol):
    """A target, or a job with several."""

    @property
    def stochastic(self) -> bool: ...


@contextmanager
def seeded(asked: MayDraw, seed: int) -> Iterator[None]:
    """A stochastic model draws from torch's generator: the same numbers at each run, and none of the caller's."""
    if not asked.stochastic:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        yield


def seed_of(job: Job, index: Tensor) -> int:
    """The seed of what a stochastic model draws for the job's rows at `index`: theirs, wherever they stand in the job.

    It hangs on the first row's name, so rows that are worked on together again, after a run was broken off, meet the
    same draws.
    """
    first = job.names[int(index[0])] if len(index) else ""
    return job.seed * 1_000_003 + int.from_bytes(hashlib.sha256(first.encode()).digest()[:4], "big")


def attacked(job: Job, index: Tensor, classes: int, purse: Purse, tell: Callable[[float, int, int], None]) -> Outcomes:
    """The rows at `index` under the job's attacks in turn. tell(share of the worst-case work, passes, settled rows)."""
    with torch.inference_mode(False), seeded(job, seed_of(job, index)):
        return _attacked(job, index, classes, purse, tell)


def seen_by(job: Job, x0: Tensor, clean: Answers) -> Answers:
    """What the attacker sees of the clean inputs x0, of which `clean` is the target's answers: goals hang on it.

    An attacker with surrogates does not see the target's scores, but theirs.
    """
    return clean if job.surrogates is None else evaluate(job.surrogates, x0, micro=micro_batch(x0))


def _attacked(job: Job, index: Tensor, classes: int, purse: Purse, tell: Callable[[float, int, int], None]) -> Outcomes:
    target, x0, y, size = job.target, job.x[index].clone(), job.y[index].clone(), len(index)
    everyone = torch.arange(size, device=x0.device)
    micro = micro_batch(x0)
    clean = evaluate(target, x0, micro=micro, classes=classes)
    seen = seen_by(job, x0, clean)
    goal, within = job.aim.about(y, seen.output, index), job.within.inside(target.bounds).take(index)
    right = clean.answered & goal.right(clean.output)
    already = clean.answered & goal.reached(clean.output)
    if target.stochastic:  # one answer says little: right in most of several, lost already in all of them
        right = clean.answered & (share(target, x0, Wrong(goal), JUDGING_DRAWS, micro)[0] <= 0.5)
        already = clean.answered & (share(target, x0, goal, JUDGING_DRAWS, micro)[0] == 1)
    oracle = Oracle(target, size, classes, capability=job.capability, purse=purse, micro=micro, eot=job.draws)
    for at, reason in clean.reasons.items():
        oracle.failed[at], oracle.reasons[at] = True, reason
    referee = Referee(
        oracle,
        x0=x0,
        goal=goal.take(everyone),
        within=within.take(everyone),
        clean=clean.output,
        already=already,
        rule=job.rule,
        knowledge=job.knowledge,
        draws=CONFIRMING_DRAWS if target.stochastic else 0,
    )
    meters, transfer = [oracle], None
    if job.surrogates is not None:
        free = Capability()
        meters += [Oracle(job.surrogates, size, classes, capability=free, purse=purse, micro=micro, eot=job.draws)]
        transfer = Transfer(
            referee, meters[1], seen, x0=x0, goal=goal.take(everyone), within=within.take(everyone), rule=job.rule
        )
    for meter in meters:
        meter.watch = _watch(job, referee, meters, classes, tell)
    streams = Streams.start(job.seed, [job.names[i] for i in index.tolist()], x0.device)
    rows = Rows(everyone, x0, goal, within, streams, None if job.starts is None else job.starts[index].clone())
    if job.spared is not None:
        rows = rows.take(~job.spared[index])
    able = attainable(goal)
    if able is not None and not bool(able[rows.ids].all()):
        rows = rows.take(able[rows.ids])
    none = torch.full((size,), -1, device=x0.device)
    by, failed = none.clone(), none.clone()
    stages: list[_Stage] = []
    reasons: dict[int, str] = {}
    crashed: dict[str, str] = {}
    for number, (name, attack) in enumerate(job.attacks):
        stage = _stage(job, name, attack, referee, transfer, meters, rows)
        stages.append(stage)
        by[stage.won] = number
        failed[stage.failed] = number
        if stage.reason is not None:
            crashed[name] = stage.reason
            for at in stage.failed.nonzero().flatten().tolist():
                reasons.setdefault(at, stage.reason)
    kept = referee.kept()
    often, failures = share(target, kept.x, goal, JUDGING_DRAWS if target.stochastic else 1, micro)
    for meter in reversed(meters):
        reasons |= meter.reasons
    reasons |= failures
    broken = (
        (kept.won | already) & (often >= 0.5)
        if target.stochastic or not job.rule.needs_goal
        else (already | (kept.won & (often > 0)))
    )
    if job.rule.needs_goal and not target.stochastic:
        for at in (kept.won & ~broken).nonzero().flatten().tolist():
            reasons.setdefault(at, "the winning input did not reach the goal again when it was measured a second time")
    status = torch.full_like(none, Status.ROBUST)
    for meter in meters:
        status[meter.cut] = Status.UNDECIDED
    status[sorted(reasons)] = Status.ERROR
    status[broken] = Status.BROKEN
    return Outcomes(
        index=index,
        x=kept.x,
        answered=clean.answered,
        right=right,
        status=status,
        by=torch.where(broken, by, -1),
        failed=torch.where(broken, -1, failed),
        share=often,
        distance=torch.where(broken, torch.where(kept.won, kept.distance, 0), torch.inf),
        shown=_columns([stage.shown for stage in stages], oracle.queries.bool()),
        queries_by=_columns([stage.queries for stage in stages], oracle.queries),
        forwards_by=_columns([stage.forwards for stage in stages], oracle.queries),
        backwards_by=_columns([stage.backwards for stage in stages], oracle.queries),
        blind=meters[-1].blind,
        reasons={int(index[at]): reasons[at] for at in sorted(reasons) if not broken[at]},
        names=tuple(name for name, _ in job.attacks),
        seconds=tuple(stage.seconds for stage in stages),
        crashed=crashed,
    )


def _columns(found: Sequence[Tensor], like: Tensor) -> Tensor:
    """(N, attacks), also without any attack."""
    return torch.stack(list(found), 1) if found else like.new_zeros(len(like), 0)


def _watch(
    job: Job, referee: Referee, meters: Sequence[Oracle], classes: int, tell: Callable[[float, int, int], None]
) -> Callable[[], None]:
    """Tells a few times a second how far the block is; a settled row counts as all its worst-case work."""
    outcomes = job.aim.task.outcomes(classes)
    worst = sum(most.queries for _, a in job.attacks if (most := cost(a, outcomes, job.draws)) is not None)
    cap = job.capability.queries_per_row if len(meters) == 1 else None  # on the target's passes, not on surrogates'
    limit = max(1, min(worst, cap or worst))
    said = time.monotonic()

    def watch() -> None:
        nonlocal said
        if time.monotonic() - said > 0.2:
            said = time.monotonic()
            busy = referee.kept().open
            forwards, backwards = _passes(meters)
            work = torch.where(busy, forwards.clamp_max(limit), limit).sum()
            tell(float(work) / limit, int((forwards + backwards).sum()), int((~busy).sum()))

    return watch


def _passes(meters: Sequence[Oracle]) -> tuple[Tensor, Tensor]:
    """Forward and backward passes of each row so far, the target's and the surrogates': (pool,) each."""
    first, *others = meters
    return (
        sum((meter.forwards for meter in others), first.forwards.clone()),
        sum((meter.backwards for meter in others), first.backwards.clone()),
    )


def _failed(meters: Sequence[Oracle]) -> Tensor:
    """Rows that the target or a surrogate failed on: (pool,) bool."""
    return torch.stack([meter.failed for meter in meters]).any(0)


class _Stage(NamedTuple):
    """What one attack did: row-aligned, (pool,)."""

    shown: Tensor
    won: Tensor
    failed: Tensor  # the model failed on the row, or the attack raised before it won
    queries: Tensor
    forwards: Tensor
    backwards: Tensor
    seconds: float
    reason: str | None  # what it raised


def _stage(
    job: Job,
    name: str,
    attack: Attack[Any, Any],
    referee: Referee,
    transfer: Transfer | None,
    meters: Sequence[Oracle],
    rows: Rows[Tensor, Bounded],
) -> _Stage:
    """One attack on the rows still open."""
    oracle = referee.oracle
    (left,) = referee.survivors(rows)
    shown = torch.zeros_like(oracle.failed)
    shown[left.ids] = True
    queries, failed = oracle.queries.clone(), _failed(meters)
    forwards, backwards = _passes(meters)
    won = referee.kept().won.clone()
    start, reason = time.thread_time(), None
    if len(left):
        try:
            spoiled = left.take(torch.arange(len(left), device=left.ids.device)).keyed(name)  # copies, to spoil
            with oracle.climbing(job.instead.get(name)):
                attack(transfer or referee, spoiled)
            if transfer is not None:
                transfer.conclude(left, queries)
        except Exception as error:
            if not job.contain or isinstance(error, TargetError):
                raise
            reason = f"{name} raised {type(error).__name__}: {error}"[:200]
    kept = referee.kept()
    lost = _failed(meters) & ~failed
    forwards_now, backwards_now = _passes(meters)
    return _Stage(
        shown=shown,
        won=kept.won & ~won,
        failed=lost if reason is None else lost | (shown & ~kept.won),
        queries=oracle.queries - queries,
        forwards=forwards_now - forwards,
        backwards=backwards_now - backwards,
        seconds=time.thread_time() - start,
        reason=reason,
    )
