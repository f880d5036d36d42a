"""JSMA (Papernot et al. 2016, arXiv:1511.07528, algorithms 2 and 3): change the few most salient coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from redan.losses import ClassGoal
from redan.perturbations.sparse import L0
from redan.protocols import Cost, Gradients, Loss
from redan.rows import Rows, take

_NUMBERS = 2**22  # in one table of pairs


def _wanted(output: Tensor, goal: ClassGoal) -> Tensor:
    """The class to make likeliest: the goal's own, or the best wrong one of these scores (N, K)."""
    if goal.sign < 0:
        return goal.label
    return output.detach().scatter(1, goal.label[:, None], -torch.inf).argmax(1)


def saliency(output: Tensor, goal: ClassGoal) -> Tensor:
    """The wanted class's score, and minus the sum of all others': (N, 2), both to rise (equation 8)."""
    target = output.gather(1, _wanted(output, goal)[:, None])[:, 0]
    return torch.stack([target, target - output.sum(1)], 1)


def weighted_saliency(output: Tensor, goal: ClassGoal) -> Tensor:
    """Saliency in which each other class weighs as much as it is likely (Combey et al. 2020, arXiv:2007.06032): (N, 2).

    What keeps an unlikely class down is worth nothing, so that fewer coordinates do.
    """
    target = _wanted(output, goal)[:, None]
    others = output.detach().softmax(1).scatter(1, target, 0)
    return torch.stack([output.gather(1, target)[:, 0], -(others * output).sum(1)], 1)


def best_single(rise: Tensor, fall: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """The coordinate with the largest rise · fall, both above 0: (N,) positions and products, 0 where none is.

    rise, fall: (N, D), how much a change lifts the wanted class, and presses the others; allowed: (N, D) bool.
    """
    fits = allowed & (rise > 0) & (fall > 0)
    product, at = torch.where(fits, rise * fall, 0).max(1)
    return at, product


def best_pair(rise: Tensor, fall: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """The two coordinates p ≠ q with the largest (rise_p + rise_q) · (fall_p + fall_q), both sums above 0.

    (N, 2) positions and (N,) products, 0 where no pair fits. The product grows in both sums, so neither of the best
    two is beaten in rise and fall by two others: after sorting by rise, a coordinate counts only if its fall is
    above the second largest before it. A few dozen of thousands are left, and their pairs are compared exactly.
    """
    rise, order = rise.masked_fill(~allowed, -torch.inf).sort(dim=1, descending=True, stable=True)
    fall = fall.masked_fill(~allowed, -torch.inf).gather(1, order)
    least = fall.new_full((len(fall), 1), -torch.inf)
    first = torch.cat([least, fall.cummax(1).values[:, :-1]], 1)  # the largest before each
    second = torch.cat([least, torch.minimum(fall, first).cummax(1).values[:, :-1]], 1)
    counts = (fall > second) & rise.isfinite()
    most = max(2, int(counts.sum(1).max())) if len(counts) else 2
    kept = counts.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :most]
    rise, fall, order = (part.gather(1, kept) for part in (rise.masked_fill(~counts, -torch.inf), fall, order))
    positions, products = [order.new_empty(0, 2)], [rise[:0, 0]]
    for part in torch.split(torch.arange(len(rise), device=rise.device), max(1, _NUMBERS // most**2)):
        pair, product = _largest(*take(part, rise, fall))
        positions.append(order[part].gather(1, pair))
        products.append(product)
    return torch.cat(positions), torch.cat(products)


def _largest(rise: Tensor, fall: Tensor) -> tuple[Tensor, Tensor]:
    """The best pair of all: rise and fall (N, C), the answers as in `best_pair`."""
    count = rise.shape[1]
    up, down = (part[:, :, None] + part[:, None] for part in (rise, fall))
    fits = torch.ones(count, count, dtype=torch.bool, device=rise.device).triu(1) & (up > 0) & (down > 0)
    product, at = torch.where(fits, up * down, 0).flatten(1).max(1)
    return torch.stack([at // count, at % count], 1), product


@dataclass(frozen=True, slots=True, kw_only=True)
class JSMA:
    """Jacobian-based saliency map attack.

    Each step moves the two coordinates that most lift the wanted class and press the others, until the goal is
    reached, the set's radius (a count) is used up, or nothing can move.

    steps: gradient queries a row, two backward passes each; a query more judges the last point. theta: how far a
    coordinate moves, in widths of the box; below 0 it is made smaller. pairs: two coordinates a step, or one. loss:
    `weighted_saliency`, or `saliency` as published, which is weaker on the sample models.

    An untargeted goal aims at the likeliest wrong class of each point, so that the class may change on the way; to
    try several, one by one, is `Sweep(JSMA())`. Where one more coordinate may change, one moves. Where no choice
    both lifts and presses, the paper gives up; here the coordinate with the largest sum of the two moves. All
    coordinates are looked at, as pairs too: `best_pair` prunes exactly.

    >>> JSMA(steps=10).cost(10)
    Cost(queries=11, backwards=20)
    """

    steps: int = 60
    theta: float = 1.0
    pairs: bool = True
    loss: Loss = weighted_saliency

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.steps + 1, 2 * self.steps)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, L0]) -> None:
        low, high = rows.within.bounds
        change = self.theta * (high - low)
        x = rows.x0
        for _ in range(self.steps):
            gradient, _, reached = referee.gradient(x, rows, self.loss)
            rows, x, gradient, reached = referee.survivors(rows, x, gradient, reached)
            rows, x, gradient = take(~reached, rows, x, gradient)  # more changes lead only farther away
            if not len(rows):
                return
            picks = self._picked(x, gradient, rows)
            flat = x.flatten(1)
            moved = flat.scatter(1, picks, (flat.gather(1, picks) + change).clamp(low, high)).reshape(x.shape)
            rows, x = take((moved != x).flatten(1).any(1), rows, moved)  # a row that cannot move has been judged
        referee.reached(x, rows)

    def _picked(self, x: Tensor, gradient: Tensor, rows: Rows[Tensor, L0]) -> Tensor:
        """Which coordinates move: (N, 2), twice the same where it is one only."""
        low, high = rows.within.bounds
        flat, clean = x.flatten(1), rows.x0.flatten(1)
        changed = flat != clean
        left = torch.as_tensor(rows.within.radius, device=x.device).floor() - changed.sum(1)
        room = flat < high if self.theta > 0 else flat > low
        allowed = room & (changed | (left >= 1)[:, None])
        rise, fall = (gradient * math.copysign(1, self.theta)).flatten(2).unbind(1)
        one, product = best_single(rise, fall, allowed)
        picks = one[:, None].expand(-1, 2)
        if self.pairs:
            two, paired = best_pair(rise, fall, allowed)
            double = (left != 1) & (allowed.sum(1) > 1)
            picks, product = torch.where(double[:, None], two, picks), torch.where(double, paired, product)
        # Where no choice both lifts and presses, the one that does most of the two together.
        most = (rise + fall).masked_fill(~allowed, -torch.inf).argmax(1)
        return torch.where((product > 0)[:, None], picks, most[:, None])
