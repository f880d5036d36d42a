"""What attacks by linearization share: scores' gaps with a gradient each, the nearest hyperplane, the last search."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from redan.losses import ClassGoal, margin
from redan.perturbations.halfspace import dual
from redan.protocols import Ball, Labels, wide
from redan.rows import Rows, take

_GALLOP = 0.01  # of the way from a candidate to the clean input


def gaps(output: Tensor, goal: ClassGoal, most: int) -> Tensor:
    """How far scores (N, K) are above the label's, for the `most` best of the others: (N, min(most, K - 1)).

    Each is above 0 where its class beats the label's. Toward a wanted class there is one way only, the margin: (N,).
    """
    if goal.sign < 0:
        return margin(output, goal)
    label = goal.label[:, None]
    others = output.detach().scatter(1, label, -torch.inf).topk(min(most, output.shape[1] - 1), 1).indices
    return output.gather(1, others) - output.gather(1, label)


def ways(classes: int, most: int) -> int:
    """How many gaps there are, at most: the backward passes of one query."""
    return max(1, min(most, classes - 1))


class Plane(NamedTuple):
    """Where a linearized score gap is 0, row by row: normal · move = -value."""

    value: Tensor  # (N,)
    normal: Tensor  # (N, …)


def nearest(within: Ball, value: Tensor, gradient: Tensor) -> Plane:
    """Of each row's gaps (N, M) with gradients (N, M, …), the one whose hyperplane is nearest, box apart.

    One gap a row, (N,), is its own nearest. A gap that is no finite number never is.
    """
    if value.dim() == 1:
        return Plane(value, gradient)
    away = value.abs() / dual(within, gradient.flatten(2)).clamp_min(torch.finfo(value.dtype).tiny)
    pick = away.nan_to_num(torch.inf, torch.inf).argmin(1)
    row = torch.arange(len(value), device=value.device)
    return Plane(value[row, pick], gradient[row, pick])


def pushed(overshoot: float, step: int, steps: int) -> float:
    """How much farther than the hyperplane a step goes: doubled each time in the second half.

    Rows that circle before a boundary, or creep toward it, are pushed over.
    """
    return overshoot * 2.0 ** min(30, max(0, step - steps // 2))


def shortened(referee: Labels[Tensor], rows: Rows[Tensor, Ball], queries: int) -> None:
    """Look for the boundary between each row's nearest candidate so far and its clean input.

    The first question is the set's edge, where the candidate lies beyond it. The next ones gallop away from the
    candidate: by 1 % of the way, 2 %, 4 %…; once one fails, the rest bisect. Rows without a candidate are left out.
    """
    (rows,) = referee.survivors(rows)
    best = referee.best(rows)
    rows, far, distance = take(best.distance.isfinite() & (best.distance > 0), rows, best.x, best.distance)
    edge = torch.as_tensor(rows.within.radius, dtype=far.dtype, device=far.device) / distance
    high = torch.ones_like(edge)
    low, step, failed = torch.zeros_like(high), high * _GALLOP, torch.zeros_like(high, dtype=torch.bool)
    for _ in range(queries):
        rows, far, edge, low, high, step, failed = referee.survivors(rows, far, edge, low, high, step, failed)
        at = torch.where(failed, (low + high) / 2, torch.minimum(edge, (high - step).clamp_min(0)))
        hit = referee.reached(rows.x0 + wide(at, far) * (far - rows.x0), rows)
        low, high = torch.where(hit, low, at), torch.where(hit, at, high)
        step, failed = step * 2, failed | ~hit
