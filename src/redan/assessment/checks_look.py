"""How much the preflight may ask, and the first answers.

The cost of a row is measured on the first few; the budget then says how many rows are answered at all, and how many
of those are asked again, climbed and rounded. Rows are taken in a seeded order, since data may be sorted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from redan.answers import Answers, evaluate, micro_batch
from redan.assessment.checks_scene import Scene
from redan.errors import TargetError
from redan.goals import Task
from redan.rows import Goal

_MOST, _LEAST, _ROWS = 64, 4, 8  # sample rows, at most and at least; rows answered, at least
_PROBES = (4, 4, 64)  # rows of the first passes; the latest says what a row costs, and the very first is slow
_GRADIENT = 3.5  # forward passes that one pass with its input gradient costs, as measured on convolutional networks
_THOROUGH = 6 + _GRADIENT + 2 + 1  # a sample row's cost: asked again, climbed, stepped from both ways, rounded
_HASTY = 1.25 + _GRADIENT + 2 + 1  # asked again once, beside a stranger
_UNLIMITED = 10**9  # queries
_MARGIN = 0.7  # of the seconds: what else takes time, and a slower moment


class Plan(NamedTuple):
    """Rows to answer; rows among them to look at closely; whether those are asked six times, or once; with one or
    two points of each slope; whether they are asked rounded to 8 bits."""

    rows: int
    sample: int
    thorough: bool
    both_ways: bool
    rounded: bool


def planned(units: float, rows: int) -> Plan:
    """What `units` forward passes of one row buy, of so many rows; never less than the floor.

    Half goes to the sample, the rest to answering as many rows as possible once.
    """
    sample = max(min(_LEAST, rows), min(_MOST, rows, int(units / 2 / _THOROUGH)))
    thorough = units >= _ROWS + _LEAST * _THOROUGH
    both = units >= _ROWS + _LEAST * _HASTY
    left = int(units - sample * (_THOROUGH if thorough else _HASTY))
    return Plan(min(rows, max(_ROWS, left)), sample, thorough, both, both)


@dataclass(frozen=True, slots=True)
class Look:
    """A scene with the model's first answers to `x` (n, …), a seeded draw of its rows as the target takes them.

    y: their labels as given. plan: what was, and what more may be asked.
    """

    scene: Scene
    x: Tensor
    y: Tensor
    clean: Answers
    plan: Plan

    @property
    def partly(self) -> str:
        """What a detail adds where the budget did not buy every row."""
        n, rows = len(self.x), len(self.scene.x)
        return "" if n == rows else f"; the budget bought {n} of {rows} rows"

    @property
    def sample(self) -> Tensor:
        """The rows to look at closely."""
        return self.x[: self.plan.sample]

    @property
    def goal(self) -> Goal:
        """Any wrong answer, for the sample."""
        return self._wrong(self.plan.sample)

    @property
    def task(self) -> Task:
        """What the right answer to a row is."""
        return self.scene.aim.task

    @property
    def right(self) -> Tensor:
        """Whether each row's answer is right: (n,) bool."""
        return self.clean.answered & self._wrong(len(self.x)).right(self.clean.output)

    def _wrong(self, rows: int) -> Goal:
        return self.scene.aim.about(self.y[:rows], self.clean.output[:rows])

    def ask(self, x: Tensor) -> Answers:
        """The target's answers to x (m, …), with as many scores as the first ones."""
        answers = evaluate(self.scene.target, x, micro=micro_batch(x))
        width = self.clean.output.shape[1]
        if answers.output.shape[1] != width and not bool(answers.answered.any()):
            return answers._replace(output=answers.output.expand(-1, width))
        return answers


def first_look(scene: Scene) -> Look:
    """Ask as many rows as the budget buys. Raises TargetError if the answers are no scores at all."""
    target, clock = scene.target, scene.budget.clock
    order = torch.randperm(len(scene.x), generator=torch.Generator().manual_seed(0)).to(scene.x.device)
    parts: list[Answers] = []
    done, cost = 0, float("inf")
    for size in (*_PROBES, len(scene.x)):
        plan = planned(_units(scene, cost), len(scene.x))
        at = order[done : min(done + size, plan.rows)]
        if not len(at):
            break
        x = _taken(scene, at)
        start = clock()
        parts.append(evaluate(target, x, micro=micro_batch(x)))
        cost = (clock() - start) / max(_LEAST, len(at))
        done += len(at)
    plan = planned(_units(scene, cost), len(scene.x))._replace(rows=done)
    order = order[:done]
    return Look(scene, _taken(scene, order), scene.y[order].to(target.device), _joined(parts), plan)


def _units(scene: Scene, cost: float) -> float:
    """Forward passes of one row that the budget allows, when one takes `cost` seconds."""
    most = _UNLIMITED if scene.budget.queries is None else scene.budget.queries
    return min(most, _MARGIN * scene.budget.seconds / max(cost, 1e-9))


def _taken(scene: Scene, at: Tensor) -> Tensor:
    return scene.x[at].to(device=scene.target.device, dtype=scene.target.dtype)


def _joined(parts: list[Answers]) -> Answers:
    """Several passes' answers as one. A pass that failed as a whole does not know how many scores there are."""
    widths = {part.output.shape[1] for part in parts if bool(part.answered.any())}
    if len(widths) > 1:
        raise TargetError(
            f"the model answers {sorted(widths)} scores a row in different batches; make its forward return (N, K)"
        )
    width = max(widths, default=1)
    reasons: dict[int, str] = {}
    start = 0
    for part in parts:
        reasons |= {start + at: reason for at, reason in part.reasons.items()}
        start += len(part.output)
    empty = parts[0].output.new_empty(0)
    outputs = [p.output if p.output.shape[1] == width else p.output[:, :1].expand(-1, width) for p in parts]
    return Answers(torch.cat(outputs), empty, empty, torch.cat([p.answered for p in parts]), reasons)
