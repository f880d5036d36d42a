"""The second measurement: what the model says to inputs that were saved, and to inputs near them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redan.answers import Answers, evaluate, micro_batch, share
from redan.engine.block import JUDGING_DRAWS, Job, seed_of, seeded, seen_by
from redan.evidence.log import RightAnswer
from redan.goals import Task
from redan.protocols import Ball, is_ball, wide
from redan.rows import Goal

_HALVINGS = 6  # of each row's distance: the curve is known to a 64th of it
_LEVELS = 255
_BETWEEN = 1e-3  # of a level: how far off it a number may be and still mean it


@dataclass(frozen=True, slots=True)
class Measured:
    """What the model said to saved inputs when it was asked again, row by row."""

    status: str
    share: float
    reason: str | None
    near: float | None
    eight_bit: bool | None
    before: RightAnswer | None
    after: RightAnswer | None


def measure(job: Job, index: Tensor, x: Tensor, said: Sequence[str], eight_bit: bool) -> list[Measured]:
    """Ask the model again about the saved inputs x of the job's rows at `index`, of which `said` was said.

    A row counts as broken only if its saved input lies in the attacker's set and reaches the goal again, and as
    robust only if its clean input does not. Nobody is billed.
    """
    with seeded(job, seed_of(job, index)):
        return _measured(job, index, x, said, eight_bit)


def _measured(job: Job, index: Tensor, x: Tensor, said: Sequence[str], eight_bit: bool) -> list[Measured]:
    x0, micro, stochastic = job.x[index], micro_batch(x), job.target.stochastic
    clean = evaluate(job.target, x0, micro=micro)
    goal = job.aim.about(job.y[index], seen_by(job, x0, clean).output, index)
    within = job.within.inside(job.target.bounds).take(index)
    distance = within.distance(x, x0)
    inside = within.contains(x, x0, distance)
    answers = evaluate(job.target, x, micro=micro)
    if stochastic:
        often, failures = share(job.target, x, goal, JUDGING_DRAWS, micro)
    else:
        often, failures = (answers.answered & goal.reached(answers.output)).to(x.dtype), answers.reasons
    found = [
        _confirmed(said[i], bool(inside[i]), float(often[i]), failures.get(i), stochastic) for i in range(len(said))
    ]
    held = torch.tensor([status == "broken" for status, _ in found], dtype=torch.bool, device=x.device)
    moved = held & (distance > 0)
    near: dict[int, float] = dict.fromkeys(held.nonzero().flatten().tolist(), 0.0)
    rounded: dict[int, bool] = {}
    if stochastic:
        near = {}
    elif is_ball(within) and bool(moved.any()):
        at = moved.nonzero().flatten()
        nearest = _shrunk(job, x[at], x0[at], goal.take(at), within.take(at), distance[at])
        near |= dict(zip(at.tolist(), within.take(at).distance(nearest, x0[at]).tolist(), strict=True))
    elif not is_ball(within):  # nothing is known but the change that was found
        near |= {i: float(distance[i]) for i in moved.nonzero().flatten().tolist()}
    if eight_bit and bool(held.any()):
        at = held.nonzero().flatten()
        levels = toward_clean(x[at], x0[at], job.target.bounds)
        still = share(job.target, levels, goal.take(at), JUDGING_DRAWS if stochastic else 1, micro)[0] >= 0.5
        rounded = dict(zip(at.tolist(), still.tolist(), strict=True))
    return [
        Measured(
            status=status,
            share=float(often[i]),
            reason=reason,
            near=near.get(i),
            eight_bit=rounded.get(i),
            before=_answer(clean, i, job.aim.task),
            after=_answer(answers, i, job.aim.task),
        )
        for i, (status, reason) in enumerate(found)
    ]


def _answer(answers: Answers, row: int, task: Task) -> RightAnswer | None:
    """What one row was answered: its class, value, or labels; None without an answer."""
    if not bool(answers.answered[row]):
        return None
    output = answers.output[row]
    match task:
        case Task.CLASS:
            return int(output.argmax())
        case Task.LABELS:
            return [int(on) for on in (output > 0).tolist()]
        case Task.VALUE:
            return float(output[0])


def _confirmed(
    status: str, inside: bool, often: float, failure: str | None, stochastic: bool
) -> tuple[str, str | None]:
    """A row's final status: what was said, unless the second measurement disagrees."""
    if failure is not None and status in ("broken", "robust"):
        return "error", f"measured again: {failure}"
    if status == "broken" and not inside:
        return "error", "measured again: the saved input lies outside the attacker's set"
    if status == "broken" and often == 0:
        return "error", "measured again: the saved input does not reach the goal"
    if status == "robust" and often > 0 and not stochastic:
        return "error", "measured again: the clean input gets another answer"
    return status, None


def _shrunk(job: Job, x: Tensor, x0: Tensor, goal: Goal, within: Ball, distance: Tensor) -> Tensor:
    """The nearest input that still reaches the goal when each saved one is projected on smaller balls: (N, …).

    Bisection over the radius; in L∞ a smaller ball clips the change, which leaves more of it than a shorter line.
    """
    works, fails = distance.clone(), torch.zeros_like(distance)
    best = x
    for _ in range(_HALVINGS):
        middle = (works + fails) / 2
        tried = within.sized(middle).project(x, x0)
        answers = evaluate(job.target, tried, micro=micro_batch(x))
        reached = answers.answered & goal.reached(answers.output)
        best = torch.where(wide(reached, x), tried, best)
        works, fails = torch.where(reached, middle, works), torch.where(reached, fails, middle)
    return best


def on_levels(x: Tensor, bounds: tuple[float, float]) -> bool:
    """Whether inputs are pictures of 256 levels: every number is one of them, up to rounding."""
    level = (x - bounds[0]) / (bounds[1] - bounds[0]) * _LEVELS
    return bool(((level - level.round()).abs() <= _BETWEEN).all())


def toward_clean(x: Tensor, x0: Tensor, bounds: tuple[float, float]) -> Tensor:
    """x (N, …) on the 256 levels of the box, each number rounded toward its clean one, so that no ball is left."""
    low, high = bounds
    level = (x - low) / (high - low) * _LEVELS
    down = (level + _BETWEEN).floor()
    up = (level - _BETWEEN).ceil()
    return torch.where(x > x0, down, up) / _LEVELS * (high - low) + low
