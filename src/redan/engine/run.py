"""Every row of a job, on all cores; and `attack`, the shortest way to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from redan.engine.block import Job, MayDraw, attacked, seeded
from redan.engine.intake import checked_knowledge, checked_rows, count_classes, probes, refuse_misfits, row_names
from redan.engine.outcomes import Outcomes, Status, joined
from redan.errors import SettingError
from redan.goals import Aim, Untargeted
from redan.oracle import Capability, Limits, Purse
from redan.protocols import Access, Attack, Bounded, in_turn, wide
from redan.referee import First, Rule
from redan.runners.local import cores, each, pieces
from redan.targets import Target, as_target, is_remote
from redan.targets.surrogates import ensemble
from redan.targets.torch import accelerated, unchanged

_ROWS, _NUMBERS = 1024, 2**25  # of a block: 128 MiB of 32-bit numbers


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. share: of the worst-case work, rows that are settled counting as done."""

    share: float
    passes: int
    settled: int
    rows: int


def run(
    job: Job,
    *,
    workers: int = 0,
    block: int | None = None,
    purse: Purse | None = None,
    progress: Callable[[Progress], None] | None = None,
    done: Callable[[Outcomes], None] | None = None,
) -> Outcomes:
    """Every row of the job, in its order; blocks run on `workers` cores (0: all) and do not change a byte.

    block: rows that move together, `many_rows` unless given: the more they are, the fuller are the passes on the last
    few. progress is called a few times a second, done with each block as it ends.
    """
    refuse_misfits([attack for _, attack in job.attacks], job.within, job.knowledge)
    purse = purse or Purse(Limits())
    with ExitStack() as watched:
        for model in job.models:
            watched.enter_context(unchanged(model))
        watched.enter_context(seeded(job, job.seed))
        classes = count_classes(job.target, job.x, job.y, job.aim.task)
        if job.surrogates is None:
            job = replace(job, target=accelerated(job.target, probes(job.x, job.names)))
        else:  # gradients are theirs
            job = replace(job, surrogates=job.surrogates.accelerated(probes(job.x, job.names)))
        alone = job.stochastic or job.target.device.type != "cpu" or is_remote(job.target)
        workers = 1 if alone else workers or cores()
        count = len(job.x)
        rows = torch.arange(count, device=job.x.device)
        blocks = [rows[piece.start : piece.stop] for piece in pieces(count, block or many_rows(job.x), workers)]
        state: dict[int, tuple[float, int, int]] = {}

        def work(at: int) -> Outcomes:
            def tell(share: float, passes: int, settled: int) -> None:
                state[at] = (share, passes, settled)
                if progress is not None:
                    shares, passed, settleds = zip(*list(state.values()), strict=True)
                    progress(Progress(sum(shares) / max(1, count), sum(passed), sum(settleds), count))

            outcome = attacked(job, blocks[at], classes, purse, tell)
            size = len(blocks[at])
            tell(size, int((outcome.queries + outcome.backwards).sum()), size)
            return outcome

        found: dict[int, Outcomes] = {}
        for at, outcome in each(work, range(len(blocks)), workers, purse.stop):
            found[at] = outcome
            if done is not None:
                done(outcome)
    return joined([found[at] for at in sorted(found)])


def many_rows(x: Tensor) -> int:
    """Rows of a block: 1,024, or fewer where they are so large that some copies of a block would fill the memory."""
    return max(1, min(_ROWS, _NUMBERS // max(1, x[:1].numel())))


@dataclass(frozen=True, slots=True)
class AttackResult:
    """One entry a row, in the order given.

    adversarial: (N, …), x0 where nothing won. success: (N,) bool, measured again on these very inputs.
    distance: (N,) in the set's unit, 0 for a row already wrong, inf without success. queries: (N,) billed to the
    attacker. forwards, backwards: (N,) passes, his surrogates' among them. errors: {row: reason} of rows that
    could not be judged.
    """

    adversarial: Tensor
    success: Tensor
    distance: Tensor
    queries: Tensor
    forwards: Tensor
    backwards: Tensor
    errors: dict[int, str]


def attack(
    model: nn.Module | Target[Tensor],
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    attack: Attack[Any, Any],
    *,
    within: Bounded,
    surrogates: Sequence[nn.Module | Target[Tensor]] = (),
    goal: Aim | None = None,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
    keep: Rule | None = None,
    knowledge: Access | None = None,
    capability: Capability | None = None,
    eot: int = 1,
    ids: Sequence[object] | None = None,
    workers: int = 0,
    block: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> AttackResult:
    """Attack rows x (N, …) with right classes y (N,), inside `within`, and judge the result outside the attack.

    model: an `nn.Module` in evaluation mode that answers class scores, or a target. surrogates: models that the
    attacker holds instead of it: gradients and scores are their mean's, and the model is only asked for decisions
    (`redan.engine.transfer`). bounds: the box that inputs live in, (0, 1) unless the target says otherwise; ε is in
    its units. goal: `Untargeted()` or `Targeted(3)` for classes, `FlipLabels()` for labels y (N, L), `Deviate(0.2)` for
    values y (N,). keep: `First()` ends a row at its first win, `Closest()` goes on to nearer ones, `Worst()` keeps the
    highest loss. knowledge: the most that the attacker may see of the model, all that it shows unless given.
    capability: what the attacker may spend. eot: draws of a stochastic target that each gradient is averaged over, a
    query each (expectation over transformation). ids: the rows' names, on which alone, with the seed, their random
    numbers depend (a digest of the content by default). workers: cores, 0 for all; it changes no byte. block: rows
    that move together, 1,024 or fewer if they are large.

    Raises DataError, TargetError, SetError, SettingError with cause and remedy.

    >>> import torch
    >>> from redan.evasion.fgsm import FGSM
    >>> from redan.perturbations.norms import Linf
    >>> model = torch.nn.Linear(2, 2).eval()
    >>> result = attack(model, torch.rand(4, 2), torch.tensor([0, 1, 0, 1]), FGSM(), within=Linf(0.5))
    >>> result.success.shape
    torch.Size([4])
    """
    target = as_target(model, bounds)
    lent = ensemble(surrogates, target) if surrogates else None
    allowed = target.access if lent is None else lent.access
    aim = goal or Untargeted()
    inputs, labels = checked_rows(x, y, target, aim.task)
    fits_rows(within, len(inputs))
    job = Job(
        target=target,
        x=inputs,
        y=labels,
        names=row_names(inputs, ids),
        attacks=in_turn((attack,)),
        within=within,
        aim=aim,
        rule=keep or First(),
        surrogates=lent,
        knowledge=checked_knowledge(knowledge, allowed),
        capability=capability or Capability(),
        seed=seed,
        eot=checked_eot(eot, lent or target),
    )
    found = run(job, workers=workers, block=block, progress=progress)
    success = found.status == Status.BROKEN
    shown = success if job.rule.needs_goal else torch.ones_like(success)
    return AttackResult(
        adversarial=torch.where(wide(shown, inputs), found.x, inputs),
        success=success,
        distance=found.distance,
        queries=found.queries,
        forwards=found.forwards,
        backwards=found.backwards,
        errors=found.reasons,
    )


def checked_eot(eot: int, climbed: MayDraw) -> int:
    """The draws a gradient takes. Raises SettingError below 1, or above it where the climbed model is deterministic."""
    if eot < 1:
        raise SettingError(f"eot must be 1 or more, got {eot}; 1 takes each gradient from one answer")
    if eot > 1 and not climbed.stochastic:
        raise SettingError(
            f"eot={eot} averages the draws of a stochastic model, and the one that is climbed is declared "
            "deterministic; wrap it with redan.targets.from_torch(..., stochastic=True), or leave eot out"
        )
    return eot


def fits_rows(within: Bounded, count: int) -> None:
    """Raise SettingError unless there is one radius, or one a row."""
    if isinstance(within.radius, Tensor) and within.radius.dim() and within.radius.shape != (count,):
        raise SettingError(
            f"{tuple(within.radius.shape)} radii for {count} rows; give one radius, or one a row as a tensor (N,)"
        )
