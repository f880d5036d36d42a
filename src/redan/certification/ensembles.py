"""How far one input is from another class of many trees: a bound by sums, some change quickly, the smallest by search.

The search is cut down to the ball of a change that is known: often so few leaves are left in it that all their
combinations can be listed. Where they are too many it is a mixed-integer program.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from redan.certification.boxes import Boxes, Measure, gaps, merged
from redan.certification.tree_program import program, solve
from redan.formats.forest import Floats, Forest, Whole, scores

_TIES = 40
"""Points at the most that look changed to the solver and are not, before the search gives up."""

Changed = Callable[[Floats], NDArray[np.bool_]]
"""Rows (N, d) -> whether the model gives each another class."""


class Answer(NamedTuple):
    """The nearest change that was found (d,), if any, its cost, and a proven bound of any other's cost."""

    x: Floats | None
    cost: float
    lower: float


@dataclass(frozen=True, slots=True)
class Question:
    """One input x (d,) of class y. bounds: the least and largest input; rounding: by how much scores may be off."""

    forest: Forest
    bounds: tuple[float, float]
    x: Floats
    y: int
    measure: Measure
    changed: Changed
    rounding: float


def gains(value: Floats, y: int, other: int) -> Floats:
    """How much values (…, K) lift another class over class y: (…). One column is the margin of the second of two."""
    if value.shape[-1] == 1:
        sign = 1.0 if other == 1 else -1.0
        found: Floats = sign * value[..., 0]
    else:
        found = value[..., other] - value[..., y]
    return found


def others(asked: Question) -> list[int]:
    """The classes beside the right one."""
    return [c for c in range(asked.forest.classes) if c != asked.y]


def bound(parts: Sequence[Boxes], asked: Question, other: int) -> float:
    """A cost below which no input gets the other class: each tree gives its best leaf in reach, whatever the rest do.

    The sum of each tree's best within a ball is at least the forest's best; with neighboring trees merged this is one
    level of Chen et al. 2019 (arXiv:1906.03849, section 3), whose cliques are our crossed boxes. Infinity: at no cost.
    """
    total = float(gains(asked.forest.base, asked.y, other))
    at, lift = [], []
    for part in parts:
        cost = asked.measure.cost(gaps(asked.x, part.low, part.high))
        order = np.argsort(cost, kind="stable")
        best = np.maximum.accumulate(gains(part.value, asked.y, other)[order])
        total += float(best[0])
        at.append(cost[order][1:])
        lift.append(np.diff(best))
    costs, lifts = np.concatenate(at), np.concatenate(lift)
    order = np.argsort(costs, kind="stable")
    sums = np.concatenate([[total], total + np.cumsum(lifts[order])])
    reaches = np.nonzero(sums >= -2 * asked.rounding)[0]
    if not len(reaches):
        return float("inf")
    return float(np.concatenate([[0.0], costs[order]])[reaches[0]])


# -- a change, quickly -------------------------------------------------------------------------------------


def quick(parts: Sequence[Boxes], asked: Question, steps: int = 12) -> Floats | None:
    """Some change of the class, or None: into the leaf that gains most for its cost, and again; then put back."""
    low, high = np.concatenate([part.low for part in parts]), np.concatenate([part.high for part in parts])
    here, measure = asked.x, asked.measure
    for _ in range(steps):
        tried = np.unique(np.clip(here, low, high), axis=0)
        cost = measure.cost(np.abs(tried - asked.x))
        won = np.nonzero(asked.changed(tried))[0]
        if len(won):
            return _put_back(tried[won[np.argmin(cost[won])]], asked)
        margin = _margins(tried, asked)
        now = float(_margins(here[None], asked)[0])
        rate = (margin - now) / np.maximum(cost - measure.cost(np.abs(here - asked.x)), 1e-9)
        rate[margin <= now] = -np.inf
        best = int(np.argmax(rate))
        if rate[best] == -np.inf:
            return None
        here = tried[best]
    return None


def _margins(x: Floats, asked: Question) -> Floats:
    """The best other class's lead over the right one, of rows x (N, d)."""
    found = scores(asked.forest, x)
    lead: Floats = np.stack([gains(found, asked.y, other) for other in others(asked)]).max(0)
    return lead


def _put_back(found: Floats, asked: Question) -> Floats:
    """The change with as many coordinates put back as can be, those that cost most first."""
    while True:
        moved = np.nonzero(found != asked.x)[0]
        tried = np.repeat(found[None], len(moved), 0)
        tried[np.arange(len(moved)), moved] = asked.x[moved]
        still = np.nonzero(asked.changed(tried))[0]
        if not len(still):
            return found
        found = tried[still[np.argmin(asked.measure.cost(np.abs(tried[still] - asked.x)))]]


# -- the smallest ------------------------------------------------------------------------------------------


def smallest(parts: Sequence[Boxes], asked: Question, seconds: float, listing: int) -> Answer:
    """The nearest change of one input's class, as far as it can be proven in so many seconds.

    parts: the trees' leaves in the box of inputs. listing: boxes at the most that are listed.
    """
    deadline = time.monotonic() + seconds
    best = quick(parts, asked)
    cost = np.inf if best is None else float(asked.measure.cost(np.abs(best - asked.x)))
    floors = {other: bound(parts, asked, other) for other in others(asked)}
    if min(floors.values()) >= cost:
        return Answer(best, cost, cost)
    joined = merged(_within(parts, asked, cost), listing)
    if len(joined) == 1 and len(joined[0]) <= listing:
        found = listed(joined[0], asked)
        return Answer(best, cost, cost) if found.x is None else found
    floors = {other: max(floor, bound(joined, asked, other)) for other, floor in floors.items()}
    lower = np.inf
    for other in sorted(floors, key=floors.__getitem__):
        if floors[other] >= cost:
            break
        found = _programmed(_within(parts, asked, cost), asked, other, cost, floors[other], deadline)
        if found.x is not None and found.cost < cost:
            best, cost = found.x, found.cost
        lower = min(lower, found.lower)
    return Answer(best, cost, min(lower, cost))


def _within(parts: Sequence[Boxes], asked: Question, cost: float) -> list[Boxes]:
    """The boxes that can be reached for at most that cost."""
    if not np.isfinite(cost):
        return list(parts)
    return [part.take(np.nonzero(asked.measure.cost(gaps(asked.x, part.low, part.high)) <= cost)[0]) for part in parts]


def listed(boxes: Boxes, asked: Question) -> Answer:
    """The nearest change where each box has one answer: the nearest box whose nearest point has another class."""
    costs = asked.measure.cost(gaps(asked.x, boxes.low, boxes.high))
    order = np.argsort(costs, kind="stable")
    for start in range(0, len(order), 256):
        some = order[start : start + 256]
        points = np.clip(asked.x, boxes.low[some], boxes.high[some])
        won = np.nonzero(asked.changed(points))[0]
        if len(won):
            cost = float(costs[some[won[0]]])
            return Answer(points[won[0]], cost, cost)
    return Answer(None, np.inf, np.inf)


def _programmed(
    parts: Sequence[Boxes], asked: Question, other: int, cost: float, floor: float, deadline: float
) -> Answer:
    """The nearest change to one other class, by the program; costlier ones than `cost` are not looked for."""
    gain = [gains(part.value, asked.y, other) for part in parts]
    start = float(gains(asked.forest.base, asked.y, other))
    needed = -start - 2 * asked.rounding
    votes = all(bool((part.value >= 0).all()) for part in parts)  # equal sums of votes are equal when rounded, too
    strictly = votes and other > asked.y and start == 0
    posed = program(asked.forest, asked.bounds, parts, gain, needed, strictly, asked.x, asked.measure, cost, floor)
    ties: list[Whole] = []
    while len(ties) <= _TIES and time.monotonic() < deadline:
        solved = solve(posed, ties, deadline - time.monotonic())
        if solved is None:
            return Answer(None, np.inf, np.inf)  # no such change for less
        floor = max(floor, solved.lower)
        if solved.point is None:
            break
        if bool(asked.changed(solved.point[None])[0]):
            return Answer(solved.point, float(asked.measure.cost(np.abs(solved.point - asked.x))), floor)
        ties.append(solved.alike)  # the model gives this tie to the right class
    return Answer(None, np.inf, floor)
