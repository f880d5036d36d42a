"""A first wrong answer for attacks that see decisions alone: random pictures, and how near they stay wrong."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from redan.protocols import Ball, Labels, wide
from redan.rows import Rows, put, take

_NEARER = 0.8  # how much nearer the next question is
_SIDES = (2, 3, 1, 4, 6, 8)  # cells along an edge of a pattern


class Found(NamedTuple):
    """A wrong answer for each row that has one."""

    x: Tensor
    spent: Tensor  # (N,), queries


def first_wrong(referee: Labels[Tensor], rows: Rows[Tensor, Ball], queries: int) -> tuple[Rows[Tensor, Ball], Found]:
    """Rows for which something reaches the goal, each with the nearest that was found; the others are left out.

    What an attack before this one found, or else the attacker's own samples (`rows.starts`), is where a row begins.
    Then pictures are tried that do not depend on other rows: uniform noise (Chen 2020, arXiv:1904.02144), and in turn
    with it patterns of a few large cells, each at an end of the box. Noise has no structure, so a model answers one or
    two classes to nearly all of it, and rows of these classes need the patterns. Each question lies on the way from
    the clean input to the picture, at 0.8 times the distance of the nearest wrong answer so far; a picture whose answer
    is right gives way to the next. queries: the most that a row spends.
    """
    (rows,) = referee.survivors(rows)
    x, distance = referee.best(rows)
    x, distance, spent = x.clone(), distance.clone(), torch.zeros_like(rows.ids)
    given = rows.starts is not None
    toward = rows.starts.clone() if rows.starts is not None else _picture(rows, 0)
    for turn in range(1, queries + 1):
        shown = rows.within.sized(_NEARER * distance).project(toward, rows.x0)
        hit = referee.reached(shown, rows)
        spent = spent + 1
        x = torch.where(wide(hit, x), shown, x)
        distance = torch.where(hit, rows.within.distance(shown, rows.x0), distance)
        rows, x, distance, spent, toward, hit = referee.survivors(rows, x, distance, spent, toward, hit)
        missed = (~hit).nonzero().flatten()
        if len(missed):
            put(missed, toward, _picture(rows.take(missed), turn - given))
        if not len(rows):
            break
    rows, x, spent = take(distance.isfinite(), rows, x, spent)
    return rows, Found(x, spent)


def _picture(rows: Rows[Tensor, Ball], turn: int) -> Tensor:
    """Uniform noise in even turns, a pattern of cells in odd ones: (N, …)."""
    (low, high), shape = rows.within.bounds, rows.x0.shape[1:]
    if turn % 2 == 0:
        return low + (high - low) * rows.draw.uniform(shape, rows.x0.dtype)
    side = _SIDES[turn // 2 % len(_SIDES)]
    cells = [min(side, n) for n in shape[-2:]]
    pattern = rows.draw.uniform((*shape[:-2], *cells), rows.x0.dtype)
    for axis, (n, few) in enumerate(zip(shape[-2:], cells, strict=True), start=-len(cells)):
        pattern = pattern.index_select(axis, torch.arange(n, device=pattern.device) * few // n)
    return torch.where(pattern < 0.5, low, high).to(rows.x0.dtype)
