"""HopSkipJump (Chen, Jordan and Wainwright 2020, arXiv:1904.02144): the nearest wrong answer, by decisions alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from redan.errors import SetError
from redan.evasion.starts import first_wrong
from redan.perturbations.norms import L2, Linf
from redan.protocols import Ball, Cost, Labels, wide
from redan.rows import Rows, put, take

_HALVINGS = 10  # queries of one search for the boundary
_PROBE = 0.05  # length of the probes, in Euclidean distances
_LONGER, _ONE_SIDED = 4, 0.8  # how much longer they get where the mean of their answers, 1 or -1, is above that
_KEPT = 0.5  # of the normals so far, in the next one
_FEWEST = 10  # probes that are worth a step
_SHORTER = 12  # halvings of a step
_TOGETHER = 32  # probes of a row between two looks at who is decided
_NUMBERS = 2**24  # that are held at once


class _Walk(NamedTuple):
    """Where each row stands."""

    x: Tensor  # a wrong answer
    left: Tensor  # (N,), queries it may still spend
    probe: Tensor  # (N,), length of its probes, in Euclidean distances
    normal: Tensor  # (N, …), of the boundary


class _Sums(NamedTuple):
    """What the probes of each row told so far."""

    moves: Tensor  # (N, …)
    signed: Tensor  # (N, …), moves that reached the goal minus those that did not
    hits: Tensor  # (N,)


@dataclass(frozen=True, slots=True, kw_only=True)
class HopSkipJump:
    """HopSkipJump in L∞ and L2 (algorithm 2): to the boundary, its normal from random probes, a step, and back to it.

    Round t shows B₀√t probes and steps d / √t along the normal (its signs in L∞), halved until the answer is wrong; d
    is the distance so far. Rounds go on until the queries are spent. In a finite set the first question of each search
    is the set's edge, which ends a row early (rule First). Four things are not the paper's. The start is that of
    `first_wrong`; rows for which it finds none are left, so toward a wanted class bring `rows.starts`. A search has 10
    halvings, and a probe 5 % of the Euclidean distance, where the paper's depend on the number of coordinates D (1.5
    log₂ D or 2 log₂ D, and 1 / D): so probes stay longer than the error of the search, and than what the rounding of
    inputs swallows. Where more than nine in ten probes reach the goal, as with a model that rounds its inputs, the
    row's next ones are 4 times as long. Half of the normal so far is added to each new one, since the boundary does not
    turn much between two rounds.

    queries: inputs shown a row, at most. first: B₀; tries: of the queries, at most, for the start. Raises
    SetError in another set than L∞ or L2.

    >>> HopSkipJump(queries=1000).cost(10)
    Cost(queries=1000, backwards=0)
    """

    queries: int = 5000
    first: int = 100
    tries: int = 50

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.queries, 0)

    def __call__(self, referee: Labels[Tensor], rows: Rows[Tensor, Ball]) -> None:
        match rows.within:
            case Linf() | L2():
                pass
            case other:
                raise SetError(f"HopSkipJump moves in Linf and L2, not in {type(other).__name__}; change one of them")
        tries = min(self.tries, (self.queries + 1) // 2)
        rows, found = first_wrong(referee, rows, tries)
        left = self.queries - found.spent
        probe = torch.full_like(left, _PROBE, dtype=found.x.dtype)
        walk = _Walk(found.x, left, probe, torch.zeros_like(found.x))
        rows, walk = _searched(referee, rows, walk, min(_HALVINGS, self.queries - tries))
        turn = 0
        while len(rows):
            turn += 1
            count = (walk.left - _HALVINGS - 1).clamp_max(int(self.first * math.sqrt(turn)))
            rows, walk, count = take(count >= _FEWEST, rows, walk, count)
            rows, walk = _probed(referee, rows, walk, count)
            rows, walk = _stepped(referee, rows, walk, turn)
            rows, walk = _searched(referee, rows, walk)


def _searched(
    referee: Labels[Tensor], rows: Rows[Tensor, Ball], walk: _Walk, queries: int = _HALVINGS
) -> tuple[Rows[Tensor, Ball], _Walk]:
    """Each row's wrong answer taken toward the clean input, until it stands beside the boundary."""
    far, distance = walk.x, _positive(rows.within.distance(walk.x, rows.x0))
    edge = torch.as_tensor(rows.within.radius, dtype=far.dtype, device=far.device) / distance
    low, high = torch.zeros_like(distance), torch.ones_like(distance)
    at = torch.where(edge < 1, edge, 0.5)
    for _ in range(queries):
        x = rows.within.sized(at * distance).project(far, rows.x0)
        hit = referee.reached(x, rows)
        low, high = torch.where(hit, low, at), torch.where(hit, at, high)
        walk = walk._replace(x=torch.where(wide(hit, x), x, walk.x), left=walk.left - 1)
        rows, walk, far, distance, low, high = referee.survivors(rows, walk, far, distance, low, high)
        at = (low + high) / 2
    return rows, walk


def _probed(
    referee: Labels[Tensor], rows: Rows[Tensor, Ball], walk: _Walk, count: Tensor
) -> tuple[Rows[Tensor, Ball], _Walk]:
    """The normal of the boundary beside each row's wrong answer, estimated from `count` (N,) random probes a row.

    It is the mean of the probes' moves with their answers, 1 or -1, less the mean answer (section III-C).
    """
    sums = _Sums(torch.zeros_like(walk.x), torch.zeros_like(walk.x), torch.zeros_like(count))
    group = max(1, _NUMBERS // (_TOGETHER * math.prod(walk.x.shape[1:])))
    for begun in range(0, int(count.max()) if len(rows) else 0, _TOGETHER):
        rows, walk, count, sums = referee.survivors(rows, walk, count, sums)
        for at in range(0, len(rows), group):
            some = torch.arange(at, min(at + group, len(rows)), device=count.device)
            _shown(referee, *take(some, rows, walk, count - begun), some, sums)
    rows, walk, count, sums = referee.survivors(rows, walk, count, sums)
    mean = (2 * sums.hits - count) / count
    agreed = mean.abs() == 1
    value = torch.where(wide(agreed, walk.x), sums.signed, sums.signed - wide(mean, walk.x) * sums.moves)
    probe = torch.where(mean > _ONE_SIDED, _LONGER * walk.probe, walk.probe).clamp_max(1)
    unit = value / wide(_positive(torch.linalg.vector_norm(value.flatten(1), dim=1)), value)
    return rows, _Walk(walk.x, walk.left - count, probe, _KEPT * walk.normal + unit)


def _shown(
    referee: Labels[Tensor], rows: Rows[Tensor, Ball], walk: _Walk, count: Tensor, at: Tensor, sums: _Sums
) -> None:
    """Show up to 32 probes of each row and add to the sums, in which the rows stand at `at`.

    They are added one after another, so that a row's sums do not depend, to the last bit, on the rows beside it.
    """
    wanted = torch.arange(_TOGETHER, device=count.device) < count[:, None]
    many, x, length = take(wanted.nonzero()[:, 0], rows, walk.x, _length(walk, rows))
    noise = many.draw.normal(x.shape[1:], x.dtype)
    unit = noise / wide(_positive(torch.linalg.vector_norm(noise.flatten(1), dim=1)), noise)
    shown = (x + wide(length, x) * unit).clamp(*rows.within.bounds)
    moves = x.new_zeros(*wanted.shape, *x.shape[1:])
    moves[wanted] = (shown - x) / wide(length, x)
    answers = x.new_zeros(wanted.shape)
    answers[wanted] = torch.where(referee.reached(shown, many), 1, -1).to(x.dtype)
    for move, answer in zip(moves.unbind(1), answers.unbind(1), strict=True):
        sums.moves[at] += move
        sums.signed[at] += move * wide(answer, move)
    sums.hits[at] += (answers > 0).sum(1)


def _length(walk: _Walk, rows: Rows[Tensor, Ball]) -> Tensor:
    return _positive(walk.probe * torch.linalg.vector_norm((walk.x - rows.x0).flatten(1), dim=1))


def _stepped(
    referee: Labels[Tensor], rows: Rows[Tensor, Ball], walk: _Walk, turn: int
) -> tuple[Rows[Tensor, Ball], _Walk]:
    """The longest step along the normal, of d / √t and its halves, whose answer is wrong; none where all are right."""
    size = rows.within.distance(walk.x, rows.x0) / math.sqrt(turn)
    short = torch.ones_like(size, dtype=torch.bool)
    for _ in range(_SHORTER):
        rows, walk, size, short = referee.survivors(rows, walk, size, short)
        some = (short & (walk.left > _HALVINGS)).nonzero().flatten()
        if not len(some):
            break
        one, at, step = take(some, rows, walk, size)
        shown = (at.x + wide(step, at.x) * one.within.steepest(at.normal)).clamp(*one.within.bounds)
        hit = referee.reached(shown, one)
        put(some, walk.x, torch.where(wide(hit, shown), shown, at.x))
        put(some, walk.left, at.left - 1)
        put(some, short, ~hit)
        size = size / 2
    return rows, walk


def _positive(length: Tensor) -> Tensor:
    return length.clamp_min(torch.finfo(length.dtype).tiny)
