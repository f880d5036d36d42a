"""Decision trees of any library as plain arrays, so that what they can do may be counted instead of tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from redan.errors import DataError, TargetError

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

LEAF = -1


class Comparison(Enum):
    """What sends an input to the left of a split."""

    LESS = auto()
    """x < threshold, as XGBoost has it."""
    AT_MOST = auto()
    """x <= threshold, as LightGBM and scikit-learn have it."""


class Precision(Enum):
    """The floating-point type that inputs are compared in; an input of another type is rounded to it first."""

    SINGLE = auto()
    DOUBLE = auto()

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32 if self is Precision.SINGLE else np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """Decision trees whose leaves are added up to scores; the class is the largest score's.

    feature, threshold, left, right: (M,) one entry a node of all trees, LEAF (-1) as both children of a leaf. value:
    (M, K) what a leaf adds to each class's score; with K = 1 the score is a margin, and above 0 the second of two
    classes is chosen. roots: (T,) the trees. base: (K,) where the sums begin. inputs: how many numbers a row has.
    precision: of the comparison. sums: the type that the library adds leaves in.

    Build it with `forest_from_xgboost`, `forest_from_lightgbm` or `forest_from_sklearn`, which check it against the
    library. Raises TargetError where the arrays are no trees.
    """

    feature: Whole = field(repr=False)
    threshold: Floats = field(repr=False)
    left: Whole = field(repr=False)
    right: Whole = field(repr=False)
    value: Floats = field(repr=False)
    roots: Whole = field(repr=False)
    base: Floats = field(repr=False)
    inputs: int
    comparison: Comparison
    precision: Precision
    sums: Precision

    def __post_init__(self) -> None:
        _check(self)

    @property
    def classes(self) -> int:
        """K, and 2 for a margin."""
        return max(2, int(self.value.shape[1]))

    @property
    def trees(self) -> int:
        """How many trees."""
        return len(self.roots)


def _check(forest: Forest) -> None:
    """Raise TargetError unless every root spans a tree of its own: no loop, no node of two parents."""
    nodes = len(forest.feature)
    inner = forest.left != LEAF
    children = np.concatenate([forest.left[inner], forest.right[inner]])
    reached = np.concatenate([children, forest.roots])
    shapes = {len(part) for part in (forest.threshold, forest.left, forest.right, forest.value)}
    whole = (
        shapes == {nodes}
        and bool((inner == (forest.right != LEAF)).all())
        and bool(((reached >= 0) & (reached < nodes)).all())
        and len(np.unique(reached)) == len(reached)
        and bool(((forest.feature[inner] >= 0) & (forest.feature[inner] < forest.inputs)).all())
    )
    if not whole:
        raise TargetError("the model's nodes do not form trees over its inputs; save the model again from its library")
    if not (np.isfinite(forest.value).all() and np.isfinite(forest.base).all()):
        raise TargetError("a leaf's value or the base score is not finite; train the model again")
    if np.isnan(forest.threshold[inner]).any():
        raise TargetError("a split's threshold is not a number; train the model again")


def cuts(forest: Forest) -> Floats:
    """(M,) the smallest input of the comparison's type that goes right at each node: left means x < cut, exactly.

    Thresholds and strictness of every library become one thing, and no rounding is left.
    """
    exact, kind = forest.threshold, forest.precision.dtype.type
    with np.errstate(over="ignore"):
        near = exact.astype(kind)  # the nearest one, above or below
        up, down = np.nextafter(near, kind(np.inf)), np.nextafter(near, kind(-np.inf))
    match forest.comparison:
        case Comparison.LESS:
            found = np.where(near.astype(np.float64) >= exact, near, up)
        case Comparison.AT_MOST:
            floor = np.where(near.astype(np.float64) <= exact, near, down)
            found = np.nextafter(floor.astype(kind), kind(np.inf))
    return found.astype(np.float64)


def scores(forest: Forest, x: ArrayLike) -> Floats:
    """The forest's scores (N, K) of rows x (N, d), added up in double precision; K = 1 is a margin.

    Raises DataError for rows of another width.
    """
    rows = np.asarray(x)
    if rows.ndim != 2 or rows.shape[1] != forest.inputs:
        raise DataError(f"the trees take rows (N, {forest.inputs}), got {rows.shape}; give a column an input")
    compared, cut = rows.astype(forest.precision.dtype).astype(np.float64), cuts(forest)
    total = np.repeat(forest.base[None], len(rows), 0)
    order = np.arange(len(rows))
    for root in forest.roots:
        node = np.full(len(rows), root)
        open_ = forest.left[node] != LEAF
        while open_.any():
            here = node[open_]
            goes_left = compared[order[open_], forest.feature[here]] < cut[here]
            node[open_] = np.where(goes_left, forest.left[here], forest.right[here])
            open_ = forest.left[node] != LEAF
        total += forest.value[node]
    return total


def decided(found: Floats) -> Whole:
    """The classes (N,) that scores (N, K) decide on: the first of equal ones."""
    if found.shape[1] == 1:
        return (found[:, 0] > 0).astype(np.int64)
    largest: Whole = found.argmax(1)
    return largest


def slack(forest: Forest) -> float:
    """The most that the library's rounding may move a score, whatever order it adds leaves in."""
    largest = [np.abs(forest.value[_nodes_of(forest, root)]).max() for root in forest.roots]
    total = float(np.sum(largest)) + float(np.abs(forest.base).max())
    return (len(largest) + 2) * float(np.finfo(forest.sums.dtype).eps) * total


def _nodes_of(forest: Forest, root: int) -> Whole:
    """All nodes below a root, itself among them."""
    level, found = np.array([root]), [np.array([root])]
    while len(level):
        inner = level[forest.left[level] != LEAF]
        level = np.concatenate([forest.left[inner], forest.right[inner]])
        found.append(level)
    return np.concatenate(found)


def verified(forest: Forest, rows: ArrayLike, theirs: Callable[[NDArray[Any]], ArrayLike], *, called: str) -> Forest:
    """The forest, if it scores real rows (N, d) as the library does.

    theirs: the library's own scores, (N,) or (N, K). called: the library's name, for the error. Raises TargetError
    where the two differ by more than rounding, DataError without a row.
    """
    x = np.asarray(rows)
    if x.ndim != 2 or not len(x):
        raise DataError(f"trees are checked against {called} on real rows (N, d), got {x.shape}; give some of the data")
    ours = scores(forest, x)
    expected = np.asarray(theirs(x), dtype=np.float64).reshape(len(x), -1)
    if ours.shape != expected.shape:
        raise TargetError(
            f"the trees as read answer {ours.shape[1]} scores a row where {called} answers {expected.shape[1]}; attack "
            "the model by its scores instead"
        )
    apart, allowed = float(np.abs(ours - expected).max()), 4 * slack(forest)
    if not apart <= allowed:
        raise TargetError(
            f"the trees as read differ from {called} by {apart:.2g} on {len(x)} real rows, where rounding allows "
            f"{allowed:.2g}; attack the model by its scores instead"
        )
    return forest
