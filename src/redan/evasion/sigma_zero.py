"""σ-zero (Cinà et al. 2025, arXiv:2402.01879, algorithm 1): the fewest changes, by a smooth count of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from redan.evasion.schedules import Adam, cosine, peaked
from redan.losses import margin
from redan.perturbations.sparse import L0
from redan.protocols import Cost, Gradients, wide
from redan.rows import Rows

_LAST = 0.1  # of the first step


class _Walk(NamedTuple):
    """Where each row stands."""

    x: Tensor
    adam: Adam
    threshold: Tensor  # (N,), a change below it is taken back


@dataclass(frozen=True, slots=True, kw_only=True)
class SigmaZero:
    """Adam on the margin where the goal is not reached, plus the share Σ δ² ÷ (δ² + σ) ÷ D of changed coordinates.

    After each step changes below a threshold are taken back; the threshold rises after a hit and falls after a miss.
    The radius of a finite set ends a row early (rule First) and steers nothing. Coordinates are counted, as by
    the authors, and not pixels: a pixel of three channels counts up to three. Lengths are in units of the
    box's width.

    steps: gradient queries a row; one more query judges the last iterate. rate: η₀, Adam's first step. sigma: σ.
    threshold: τ₀; patience: t, its step in units of η.

    >>> SigmaZero(steps=100).cost(10)
    Cost(queries=101, backwards=100)
    """

    steps: int = 1000
    rate: float = 1.0
    sigma: float = 1e-3
    threshold: float = 0.3
    patience: float = 0.01

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.steps + 1, self.steps)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, L0]) -> None:
        low, high = rows.within.bounds
        walk = _Walk(rows.x0, Adam.start(rows.x0), rows.x0.new_full((len(rows),), self.threshold))
        rate = self.rate
        for i in range(self.steps):
            gradient, _, reached = referee.gradient(walk.x, rows, margin)
            rows, walk, gradient, reached = referee.survivors(rows, walk, gradient, reached)
            change = (walk.x - rows.x0) / (high - low)
            square = change.square()
            count = (
                2 * self.sigma / change[0].numel() * change / (square + self.sigma).square() if len(rows) else change
            )
            missed = torch.where(wide(reached, gradient), 0, gradient * (high - low))
            adam = walk.adam.seen(peaked(count - missed))
            step = rate * adam.direction()
            x = (rows.x0 + (high - low) * (change - step)).clamp(low, high)
            rate = cosine(self.rate, _LAST * self.rate, i, self.steps)
            turn = self.patience * rate
            threshold = (walk.threshold + torch.where(reached, turn, -turn)).clamp(0, 1)
            small = (x - rows.x0).abs() < (high - low) * wide(threshold, x)
            walk = _Walk(torch.where(small, rows.x0, x), adam, threshold)
        referee.reached(walk.x, rows)
