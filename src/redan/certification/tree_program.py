"""The smallest change of many trees' answer as a mixed-integer linear program, solved by HiGHS.

The program is that of Kantchelian et al. 2016 (arXiv:1509.07892), section 4: a binary variable for each threshold,
"x < cut", a share in [0, 1] for each leaf, and a cost that is linear in the thresholds. Three things differ. Ours has
one pair of constraints for each tree and threshold, over all leaves on that side, which implies theirs for each node.
What reaching a tree's leaves costs bounds the whole cost. And all of it is cut to the ball of a known change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from redan.certification.boxes import Boxes, Measure, gaps
from redan.formats.forest import Floats, Forest, Whole

TOLERANCE = 1e-5
"""Of the cost: what the solver's own tolerances, 1e-6 for a constraint and for a whole number, may hide."""

_UNITS = 100.0
"""What the largest cost is counted as: the solver ends within 1e-6 of the optimum."""


class Solution(NamedTuple):
    """A point (d,) of the least cost, None if none was found in time; a bound of any cost; and the columns of the
    leaves it is in, and of those of the same tree that add the same: all points in such leaves score the same."""

    point: Floats | None
    lower: float
    alike: Whole


@dataclass(frozen=True, slots=True)
class Cells:
    """A coordinate's line, cut at the thresholds in reach. cut: (m,); low, high: (m + 1,) the cells between them."""

    cut: Floats
    low: Floats
    high: Floats
    first: int  # the column of its first cut


@dataclass(frozen=True, slots=True)
class Program:
    """Columns: the cuts of all coordinates, the leaves of all trees, and last the largest cost where one is meant."""

    x: Floats
    measure: Measure
    scale: float
    cells: dict[int, Cells]
    cuts: int
    trees: tuple[range, ...]  # each tree's leaves, as columns
    values: tuple[Floats, ...]  # and what they add to the scores
    rows: LinearConstraint
    objective: Floats
    constant: float


class _Rows:
    """Constraints as they are collected, one row at a time."""

    def __init__(self) -> None:
        self.data: list[Floats] = []
        self.columns: list[Whole] = []
        self.low: list[float] = []
        self.high: list[float] = []

    def add(self, columns: ArrayLike, data: ArrayLike, low: float, high: float) -> None:
        at = np.asarray(columns, dtype=np.int64).reshape(-1)
        self.columns.append(at)
        self.data.append(np.broadcast_to(np.asarray(data, dtype=np.float64), at.shape))
        self.low.append(low)
        self.high.append(high)

    def constraint(self, width: int) -> LinearConstraint:
        starts = np.cumsum([0, *(len(part) for part in self.columns)])
        entries = (np.concatenate(self.data), np.concatenate(self.columns), starts)
        matrix = sparse.csr_array(entries, (len(self.low), width))
        return LinearConstraint(matrix, np.array(self.low), np.array(self.high))


def program(
    forest: Forest,
    bounds: tuple[float, float],
    parts: Sequence[Boxes],
    gain: Sequence[Floats],
    needed: float,
    strictly: bool,
    x: Floats,
    measure: Measure,
    most: float,
    floor: float,
) -> Program:
    """The program for one input x (d,).

    bounds: the least and largest input. parts: each tree's boxes that can be reached for the cost `most`. gain: what
    each box lifts the other class over the right one. needed: the sum of gains that changes the class. strictly:
    whether a sum of 0 does not. floor: a known bound of the cost.
    """
    reach = measure.reach(most) * (1 + 1e-9)
    low, high = np.maximum(x - reach, bounds[0]), np.minimum(x + reach, bounds[1])
    kind = forest.precision.dtype.type
    sides = [_sides(part, low, high, kind) for part in parts]
    cells, cuts = _cells(sides, x, low, high, kind)
    starts = np.cumsum([cuts, *(len(part) for part in parts)])
    trees = tuple(range(int(a), int(b)) for a, b in pairwise(starts))
    width = int(starts[-1]) + int(measure.largest)
    scale = (most if np.isfinite(most) else float(measure.cost(np.maximum(x - low, high - x)))) / _UNITS
    rows = _Rows()
    for one in cells.values():
        for k in range(len(one.cut) - 1):
            rows.add([one.first + k, one.first + k + 1], [1.0, -1.0], -np.inf, 0.0)
    for tree, (lows, highs) in zip(trees, sides, strict=True):
        _consistent(rows, tree, lows, highs, cells)
    _enough(rows, trees, gain, needed)
    if strictly:
        _no_tie(rows, trees, gain)
    objective, constant = _cost(rows, cells, trees, parts, x, measure, scale, width)
    charged = np.nonzero(objective)[0]
    rows.add(charged, objective[charged], floor / scale * (1 - 1e-9) - constant, _UNITS - constant)
    return Program(
        x,
        measure,
        scale,
        cells,
        cuts,
        trees,
        tuple(part.value for part in parts),
        rows.constraint(width),
        objective,
        constant,
    )


def _sides(part: Boxes, low: Floats, high: Floats, kind: Any) -> tuple[Floats, Floats]:
    """Each box's cuts: x >= the first and x < the second, (B, d) each; minus and plus infinity for none in reach."""
    after = np.nextafter(part.high.astype(kind), kind(np.inf)).astype(np.float64)
    return np.where(part.low > low, part.low, -np.inf), np.where(part.high < high, after, np.inf)


def _cells(
    sides: Sequence[tuple[Floats, Floats]], x: Floats, low: Floats, high: Floats, kind: Any
) -> tuple[dict[int, Cells], int]:
    cells, first = {}, 0
    for feature in range(len(x)):
        seen = np.unique(np.concatenate([side[:, feature] for pair in sides for side in pair]))
        cut = seen[np.isfinite(seen)]
        if not len(cut):
            continue
        under = np.nextafter(cut.astype(kind), kind(-np.inf)).astype(np.float64)
        cells[feature] = Cells(
            cut, np.concatenate([[low[feature]], cut]), np.concatenate([under, [high[feature]]]), first
        )
        first += len(cut)
    return cells, first


def _consistent(rows: _Rows, tree: range, lows: Floats, highs: Floats, cells: dict[int, Cells]) -> None:
    """One leaf of the tree, and only one on the right side of each cut."""
    columns = np.arange(tree.start, tree.stop)
    rows.add(columns, 1.0, 1.0, 1.0)
    for feature, one in cells.items():
        own = np.unique(np.concatenate([lows[:, feature], highs[:, feature]]))
        for cut in own[np.isfinite(own)]:
            variable = one.first + int(np.searchsorted(one.cut, cut))
            above, under = columns[lows[:, feature] >= cut], columns[highs[:, feature] <= cut]
            if len(above):
                rows.add([*above, variable], 1.0, -np.inf, 1.0)
            if len(under):
                rows.add([*under, variable], [*np.ones(len(under)), -1.0], -np.inf, 0.0)


def _enough(rows: _Rows, trees: Sequence[range], gain: Sequence[Floats], needed: float) -> None:
    """The gains reach what is needed, up to the solver's tolerances: what that lets in is asked of the model."""
    least = [float(part.min()) for part in gain]
    spread = max(float(sum(part.max() - part.min() for part in gain)), 1e-300)
    columns = np.concatenate([np.arange(tree.start, tree.stop) for tree in trees])
    lifts = np.concatenate([part - low for part, low in zip(gain, least, strict=True)]) / spread
    rows.add(columns, lifts, (needed - sum(least)) / spread - 3e-6, np.inf)


def _no_tie(rows: _Rows, trees: Sequence[range], gain: Sequence[Floats]) -> None:
    """Where every tree casts a whole vote, one vote more is needed than a tie: those are many, and close to any row.

    A vote is the largest gain q; leaves that gain -q, 0 or q cast one. gains + q * (leaves that cast none) >= q
    follows from gains > 0: with no other leaf the gains are a multiple of q, and with one the right side is gone.
    """
    lifts = np.concatenate(gain)
    vote = float(np.abs(lifts).max())
    cast = (np.abs(lifts) == vote) | (lifts == 0)
    columns = np.concatenate([np.arange(tree.start, tree.stop) for tree in trees])
    rows.add(columns, lifts / vote + ~cast, 1 - 1e-3, np.inf)


def _cost(
    rows: _Rows,
    cells: dict[int, Cells],
    trees: Sequence[range],
    parts: Sequence[Boxes],
    x: Floats,
    measure: Measure,
    scale: float,
    width: int,
) -> tuple[Floats, float]:
    """The objective (columns,) and its constant: the cost in units of `scale`."""
    total, constant = np.zeros(width), 0.0
    if measure.largest:
        total[-1] = 1.0
    for feature, one in cells.items():
        weight = measure.weigh(gaps(x[feature], one.low, one.high)) / scale
        # cell j is chosen by cut[j + 1] - cut[j], so each cut counts the step between its cells
        columns, steps = np.arange(one.first, one.first + len(one.cut)), weight[:-1] - weight[1:]
        if measure.largest:
            rows.add([*columns, width - 1], [*-steps, 1.0], float(weight[-1]), np.inf)
        else:
            total[columns] = steps
            constant += float(weight[-1])
    charged = np.nonzero(total)[0]
    for tree, part in zip(trees, parts, strict=True):
        cost = measure.cost(gaps(x, part.low, part.high)) / scale
        columns = np.concatenate([np.arange(tree.start, tree.stop), charged])
        rows.add(columns, np.concatenate([-cost, total[charged]]), -constant, np.inf)
    return total, constant


def solve(asked: Program, excluded: Sequence[Whole], seconds: float) -> Solution | None:
    """The least cost, leaving out what is in `alike` leaves of points found before; None: there is no point.

    A solver that stops early leaves a bound, and a point if it has one.
    """
    width = len(asked.objective)
    constraints = [asked.rows]
    for leaves in excluded:
        row = sparse.csr_array((np.ones(len(leaves)), leaves, [0, len(leaves)]), (1, width))
        constraints.append(LinearConstraint(row, -np.inf, len(asked.trees) - 1))
    most = np.ones(width)
    if asked.measure.largest:
        most[-1] = np.inf
    whole = np.zeros(width, dtype=np.int64)
    whole[: asked.cuts] = 1
    found = milp(
        asked.objective,
        integrality=whole,
        bounds=Bounds(np.zeros(width), most),
        constraints=constraints,
        options={"time_limit": max(seconds, 0.01), "mip_rel_gap": 0.0},
    )
    if found.status == 2:
        return None
    known = found.mip_dual_bound
    proven = 0.0 if known is None or not np.isfinite(known) else (known + asked.constant) * asked.scale
    lower = _snapped(asked, max(0.0, proven * (1 - TOLERANCE / 2)))
    if found.x is None:
        return Solution(None, lower, np.zeros(0, dtype=np.int64))
    alike = [
        tree.start + np.nonzero((value == value[np.argmax(found.x[tree.start : tree.stop])]).all(1))[0]
        for tree, value in zip(asked.trees, asked.values, strict=True)
    ]
    return Solution(_point(asked, found.x), lower, np.concatenate(alike))


def _point(asked: Program, found: Floats) -> Floats:
    """The nearest point of the cells that were chosen."""
    point = asked.x.copy()
    for feature, one in asked.cells.items():
        under = np.round(found[one.first : one.first + len(one.cut)])
        cell = int(len(one.cut) - under.sum())
        point[feature] = np.clip(point[feature], one.low[cell], one.high[cell])
    return point


def _snapped(asked: Program, lower: float) -> float:
    """The least cost that any point can have, not under a bound: the largest cost is one of the cells' own."""
    if not asked.measure.largest:
        return float(np.ceil(lower)) if asked.measure.whole else lower
    known = [asked.measure.weigh(gaps(asked.x[f], one.low, one.high)) for f, one in asked.cells.items()]
    costs = np.unique(np.concatenate([[0.0], *known]))
    at = int(np.searchsorted(costs, lower))
    return float(costs[at]) if at < len(costs) else lower
