"""FMN, fast minimum norm (Pintor et al. 2021, arXiv:2102.12827, algorithm 1): a radius a row that finds its size."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor

from redan.evasion.schedules import cosine, peaked
from redan.losses import margin
from redan.perturbations.balls import farthest
from redan.perturbations.norms import L2
from redan.perturbations.sparse import L0, L1
from redan.protocols import Ball, Cost, Gradients, per_row, wide
from redan.rows import Rows

_FINEST = 0.005  # the last γ
_DECAY = 0.003  # the last step in units of the first
_FAR = 4  # radii of the ball that far starts are drawn from


@singledispatch
def stride(within: Ball, gradient: Tensor) -> Tensor:
    """The first and longest step in a ball; later ones are shares of it. Tuned on rows that no table reports.

    Half a radius in L∞. In L1 and L2 it is far longer than the radius, so that its projection is nearly the farthest
    point along the gradient: a Frank-Wolfe step at first, a gradient step at last.
    """
    return 0.5 * per_row(within.radius, gradient) * within.steepest(gradient)


@stride.register
def _(within: L2, gradient: Tensor) -> Tensor:
    return 16 * per_row(within.radius, gradient) * within.steepest(gradient)


@stride.register
def _(within: L1, gradient: Tensor) -> Tensor:
    """Along the gradient itself, since the steepest step moves one coordinate: two radii long."""
    flat = peaked(gradient)
    return flat * wide(2 * torch.as_tensor(within.radius) / flat.flatten(1).abs().sum(1).clamp_min(1), flat)


@stride.register
def _(within: L0, gradient: Tensor) -> Tensor:
    """Ten widths of the box in the largest coordinate: no radius in L0 bounds a length."""
    return 10 * (within.bounds[1] - within.bounds[0]) * peaked(gradient)


@singledispatch
def resized(within: Ball, radius: Tensor, share: float) -> Tensor:  # noqa: ARG001
    """The radius grown by a share, or shrunk by a negative one."""
    return radius * (1 + share)


@resized.register
def _(within: L0, radius: Tensor, share: float) -> Tensor:  # noqa: ARG001
    """By one coordinate at least."""
    grown = (radius * (1 + share)).floor()
    return torch.maximum(grown, radius + 1) if share > 0 else torch.minimum(grown, radius - 1).clamp_min(1)


class _Walk(NamedTuple):
    """Where each row stands."""

    x: Tensor
    radius: Tensor  # (N,)
    nearest: Tensor  # (N,), distance of the nearest x that reached the goal


class Start(Enum):
    """Where the search begins."""

    CLEAN = auto()
    FAR = auto()
    """Drawn from the ball of four radii, or from the ball that holds the whole box if that is smaller."""
    OPPOSITE = auto()
    """The input mirrored in the middle of the box: black for white."""


def _started(start: Start, rows: Rows[Tensor, Ball], most: Tensor) -> Tensor:
    if start is Start.FAR:
        radius = torch.as_tensor(rows.within.radius, dtype=most.dtype, device=most.device)
        return rows.within.sized(torch.minimum(_FAR * radius, most)).sample(rows.x0, rows.draw)
    if start is Start.OPPOSITE:
        return sum(rows.within.bounds) - rows.x0
    return rows.x0


@dataclass(frozen=True, slots=True, kw_only=True)
class FMN:
    """Fast minimum norm in L0, L1, L2 and L∞: a step along the gradient of the margin, projected onto ball and box.

    The ball shrinks by γ where x reached the goal, and grows by γ where it did not; γ falls along a cosine.
    The radius of a finite set ends a row early (rule First) and steers nothing: held to three radii, the search broke
    63 % of the rows of a network trained in L∞ in L2, and 75 % unheld. L0 counts coordinates.

    Three deviations, each because it finds nearer answers in as many steps. The first ball holds the whole box, and
    the search comes inward: from the clean input it grows up to the first boundary, and networks trained against
    small changes have nearer ones behind plateaus (on one in L2, a median distance of 1.1 against 1.6).
    `outside=False` is the paper's start, a radius by the linear estimate of the boundary's distance. A step is counted
    in radii and falls geometrically (`stride`); the paper's has length 1, or another chosen for each network, and
    falls along a cosine. The projection is onto ball and box at once; the paper's is onto one after the other.

    steps: gradient queries a row; one more query judges the last iterate. rate: of `stride`. gamma: first γ. start: the
    paper's is the clean input. Networks trained against small changes in L∞ have plateaus around it in L2, and from
    far away twenty steps break rows there that neither hundreds from the clean input nor AutoAttack break.

    >>> FMN(steps=99).cost(10)
    Cost(queries=100, backwards=99)
    """

    steps: int = 100
    rate: float = 1.0
    gamma: float = 0.3
    outside: bool = True
    start: Start = Start.CLEAN

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.steps + 1, self.steps)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        most = farthest(rows.within, rows.x0)
        x = _started(self.start, rows, most)
        walk = _Walk(x, most if self.outside else torch.zeros_like(most), torch.full_like(most, torch.inf))
        for i in range(self.steps):
            gradient, loss, reached = referee.gradient(walk.x, rows, margin)
            rows, walk, most, gradient, loss, reached = referee.survivors(rows, walk, most, gradient, loss, reached)
            gamma = cosine(self.gamma, _FINEST, i, self.steps)
            away = rows.within.distance(walk.x, rows.x0)
            nearest = torch.minimum(walk.nearest, torch.where(reached, away, torch.inf))
            outer = resized(rows.within, walk.radius, gamma)
            if not self.outside:
                outer = torch.where(nearest.isfinite(), outer, torch.maximum(outer, away + _gap(rows, gradient, loss)))
            inner = torch.minimum(resized(rows.within, walk.radius, -gamma), nearest)
            radius = torch.minimum(torch.where(reached, inner, outer), most)
            ball = rows.within.sized(radius)
            step = self.rate * _DECAY ** (i / self.steps) * stride(ball, gradient)
            walk = _Walk(ball.project(walk.x + step, rows.x0), radius, nearest)
        referee.reached(walk.x, rows)


def _gap(rows: Rows[Tensor, Ball], gradient: Tensor, loss: Tensor) -> Tensor:
    """The distance to the boundary of a linear model: |margin| ÷ the gradient's dual norm (equation 5), (N,)."""
    slope = torch.linalg.vecdot(gradient.flatten(1), rows.within.steepest(gradient).flatten(1))
    gap: Tensor = loss.abs() / slope.clamp_min(torch.finfo(slope.dtype).tiny)
    return gap
