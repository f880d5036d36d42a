"""Universal perturbations: one for all inputs, fitted on some rows and judged on others.

    UAP            Moosavi-Dezfooli et al. 2017, arXiv:1610.08401, algorithm 1: row by row, the least change that helps
    UniversalPGD   Shafahi et al. 2020, arXiv:1811.11304, algorithm 1: projected gradient ascent of the mean loss
    Stamp          what they fit: an artefact that is saved, loaded, and an attack of one query a row

`redan.engine.fit.fit` runs either on a model; what it fits on are the attacker's own rows, never those judged.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from redan.errors import DataError, SetError
from redan.losses import margin
from redan.protocols import Ball, Cost, Gradients, Labels, settings, wide
from redan.rows import Rows

_FORM = "redan stamp 1"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stamp:
    """One perturbation for every input: shows each row itself plus the perturbation, projected into its set.

    perturbation: of one input, or any shape that broadcasts to it. origin: what fitted it, with its settings. digest:
    of the numbers, so that recorded settings tell stamps apart.

    >>> Stamp(perturbation=torch.tensor(0.1), origin="by hand").cost(10)
    Cost(queries=1, backwards=0)
    """

    perturbation: Tensor = field(repr=False)
    origin: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        numbers = self.perturbation.detach().cpu().double().contiguous().numpy().tobytes()
        object.__setattr__(self, "digest", hashlib.sha256(numbers).hexdigest()[:16])

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(1, 0)

    def __call__(self, referee: Labels[Tensor], rows: Rows[Tensor, Ball]) -> None:
        change, shape = self.perturbation.to(rows.x0), rows.x0.shape[1:]
        try:
            change = change.expand(shape)
        except RuntimeError as error:
            raise SetError(
                f"the stamp was fitted to inputs {tuple(change.shape)}, not {tuple(shape)}; fit one to these inputs"
            ) from error
        referee.reached(rows.within.project(rows.x0 + change, rows.x0), rows)

    def save(self, path: str | PathLike[str]) -> None:
        """Write it as safetensors, its origin among the metadata."""
        tensors = {"perturbation": self.perturbation.detach().contiguous()}
        save_file(tensors, path, metadata={"form": _FORM, "origin": self.origin})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Stamp:
        """Read what `save` wrote. Raises DataError for anything else."""
        try:
            with safe_open(path, framework="pt") as file:
                told = file.metadata() or {}
                if told.get("form") != _FORM:
                    raise DataError(f"{path} holds no stamp of redan's; give the file that Stamp.save wrote")
                return cls(perturbation=file.get_tensor("perturbation"), origin=told.get("origin", ""))
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"{path} cannot be read as a stamp ({error}); give the file that Stamp.save wrote"
            ) from error


def _universal(within: Ball, change: Tensor) -> Tensor:
    """The change of one input, projected into the smallest of the rows' balls, box apart."""
    low, high = within.bounds
    radius = float(torch.as_tensor(within.radius).min())
    around = within.sized(radius).inside((low - high, high - low))  # no change is larger than the box is wide
    return around.project(change[None], torch.zeros_like(change[None]))[0]


def _order(rows: Rows[Tensor, Ball]) -> Tensor:
    """A random order of the rows."""
    return rows.draw.uniform((), torch.float64).argsort(stable=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class UniversalPGD:
    """Steepest ascent of the rows' mean loss, in the change that they share.

    passes: over all rows. batch: rows a step. rate: of the first step, in radii; it falls linearly to 0. cap: of a
    row's loss, the margin in units of scores, beyond which the row says no more (β, section 4.1): else rows that are
    broken already outweigh the others. The change starts from 0.

    >>> UniversalPGD(passes=2).passes
    2
    """

    passes: int = 20
    batch: int = 64
    rate: float = 1.0
    cap: float = 3.0

    def fit(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> Stamp:
        def capped(output: Tensor, goal: Any) -> Tensor:
            return margin(output, goal).clamp_max(self.cap)

        change = torch.zeros_like(rows.x0[0])
        batches = -(-len(rows) // self.batch)
        for at in range(self.passes * batches):
            if at % batches == 0:
                parts = [rows.take(index) for index in _order(rows).tensor_split(batches)]
            part = parts[at % batches]
            x = part.within.project(part.x0 + change, part.x0)
            gradient = referee.gradient(x, part, capped).gradient.mean(0, keepdim=True)
            radius = float(torch.as_tensor(rows.within.radius).min())
            step = self.rate * radius * (1 - at / (self.passes * batches))
            change = _universal(rows.within, change + step * rows.within.steepest(gradient)[0])
        return Stamp(perturbation=change, origin=settings(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class UAP:
    """Goes through the rows in random order; for each that the change does not break yet, adds what breaks it.

    passes: over all rows, at the most. fooled: 1 - δ, the share of rows at which it stops (the authors' 0.8), counted
    as each row's turn comes. batch: rows whose turns come together; their changes add up. steps: of the search for a
    row's least change. reach: the largest such change, in radii; rows that need more wait for a later pass, since
    theirs would push aside what the others share. After a pass that adds nothing it doubles. overshoot: of each step,
    up to that reach.

    The least change is found by Newton steps to the nearest competitor by score, not to that of the nearest of all
    linearized boundaries (DeepFool): one backward pass a step instead of one a class. The authors take one row at a
    time and any length of change; on the sample models `reach` fools up to three times as many rows at equal passes.

    >>> UAP(passes=3).fooled
    0.8
    """

    passes: int = 30
    fooled: float = 0.8
    batch: int = 8
    steps: int = 1
    reach: float = 0.2
    overshoot: float = 1.0

    def fit(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> Stamp:
        change, reach = torch.zeros_like(rows.x0[0]), self.reach
        for _ in range(self.passes):
            broken, before = 0, change
            for index in _order(rows).tensor_split(-(-len(rows) // self.batch)):
                added, reached = self._missing(referee, rows.take(index), change, reach)
                change, broken = _universal(rows.within, change + added), broken + int(reached.sum())
            if broken >= self.fooled * len(rows):
                break
            reach = 2 * reach if torch.equal(change, before) else reach
        return Stamp(perturbation=change, origin=settings(self))

    def _missing(
        self, referee: Gradients[Tensor], part: Rows[Tensor, Ball], change: Tensor, reach: float
    ) -> tuple[Tensor, Tensor]:
        """The sum of the least changes that break rows besides `change`, and which rows need none: (…), (N,)."""
        low, high = part.within.bounds
        start = (part.x0 + change).clamp(low, high)
        x, first = start, torch.zeros_like(part.ids, dtype=torch.bool)
        left = torch.full(part.ids.shape, reach, dtype=torch.float64, device=start.device)
        left *= torch.as_tensor(part.within.radius, device=start.device)
        for step in range(self.steps):
            gradient, loss, reached = referee.gradient(x, part, margin)
            first = reached if step == 0 else first
            way = part.within.steepest(gradient)
            slope = (gradient * way).flatten(1).sum(1)
            need = torch.where(slope > 0, -loss / slope, torch.inf).clamp_min(1e-4 * (high - low)).to(left)
            left = torch.where(~reached & (need > left), -1.0, left)  # out of reach, from here on
            length = torch.where(reached, 0, (need * (1 + self.overshoot)).minimum(left)).clamp_min(0)
            left -= length
            if not bool((length > 0).any()):
                break
            x = (x + wide(length.to(x), x) * way).clamp(low, high)
        return ((x - start) * wide(left >= 0, x)).sum(0), first
