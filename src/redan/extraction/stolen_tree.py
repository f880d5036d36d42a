"""A decision tree as path finding recovers it: boxes of its inputs, each with the leaf that was told there.

A box has a span of every feature: of numbers on a grid as fine as the precision, or a set of categories.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from redan.errors import DataError, SettingError, TargetError
from redan.formats.forest import LEAF, Comparison, Floats, Forest, Precision, Whole, cuts
from redan.protocols import Output
from redan.targets.function import FunctionTarget, from_function

__all__ = ["Categorical", "Continuous", "Feature", "Leaf", "StolenTree", "as_forest", "as_target", "recovered"]

Span = range | frozenset[int]
Piece = tuple[Span, Hashable]


class Feature(Protocol):
    """One input of a tree: numbered points that can be asked."""

    @property
    def whole(self) -> Span:
        """All its points."""
        ...

    @property
    def numbers(self) -> tuple[float, float]:
        """The least and the largest value."""
        ...

    def value(self, at: int) -> float:
        """The number that is asked for a point."""
        ...

    def first(self, span: Span) -> int:
        """The least point of a span."""
        ...

    def proof(self, span: Span) -> tuple[int, ...]:
        """Points that lead to one node only if all of the span does, where no two nodes share an identity."""
        ...

    def pieces(self, span: Span, start: int, ask: Callable[[int], Hashable], probes: int) -> list[Piece]:
        """The parts of a span that are told apart, with what was told. start: a point that is known already. probes:
        points asked between beside the ends, in case two nodes share an identity."""
        ...

    def cut(self, span: Span, start: int, end: int, same: Callable[[int], bool]) -> tuple[Span, int]:
        """The part of a span on the side of `start`, without `end`, which is another node's, and a point beyond. same:
        whether a point is the node's."""
        ...

    def nearest(self, numbers: Floats) -> Whole:
        """The points nearest to numbers (N,)."""
        ...

    def edge(self, at: int) -> float:
        """The threshold between a point and the next one."""
        ...

    def split(self, span: Span, left: Callable[[int], bool]) -> tuple[Span, Span]:
        """The points that go left, and the others; of numbers, those up to one of them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuous:
    """A number from low to high. precision: ε, how far a recovered threshold may be from the true one; the points that
    are asked are at most so far apart, and splits that are closer to each other are not told apart.

    >>> Continuous(low=0, high=1, precision=0.25).whole
    range(0, 5)
    """

    low: float
    high: float
    precision: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high and self.precision > 0):
            raise SettingError(
                f"a number needs low < high and a precision above 0, got {self.low}, {self.high}, {self.precision}"
            )

    @property
    def _steps(self) -> int:
        return max(1, math.ceil((self.high - self.low) / self.precision - 1e-9))

    @property
    def whole(self) -> range:
        return range(self._steps + 1)

    @property
    def numbers(self) -> tuple[float, float]:
        return self.low, self.high

    def value(self, at: int) -> float:
        return self.high if at == self._steps else self.low + (self.high - self.low) * (at / self._steps)

    def first(self, span: Span) -> int:
        return _points(span)[0]

    def proof(self, span: Span) -> tuple[int, ...]:
        points = _points(span)
        return points[0], points[-1]

    def pieces(self, span: Span, start: int, ask: Callable[[int], Hashable], probes: int) -> list[Piece]:
        points = _points(span)
        between = {points[(len(points) - 1) * (i + 1) // (probes + 1)] for i in range(probes)}
        marks = sorted({points[0], start, points[-1]} | between)
        last = [at for low, high in pairwise(marks) for at in _changes(low, high, ask)]
        firsts = [points[0], *(at + 1 for at in last)]
        return [(range(low, high + 1), ask(low)) for low, high in zip(firsts, [*last, points[-1]], strict=True)]

    def cut(self, span: Span, start: int, end: int, same: Callable[[int], bool]) -> tuple[Span, int]:
        points = _points(span)
        while abs(end - start) > 1:
            middle = (start + end) // 2
            start, end = (middle, end) if same(middle) else (start, middle)
        return range(points[0], end) if end > start else range(end + 1, points[-1] + 1), end

    def nearest(self, numbers: Floats) -> Whole:
        steps = self._steps
        return np.rint((numbers - self.low) * (steps / (self.high - self.low))).clip(0, steps).astype(np.int64)

    def edge(self, at: int) -> float:
        return (self.value(at) + self.value(at + 1)) / 2

    def split(self, span: Span, left: Callable[[int], bool]) -> tuple[Span, Span]:
        points = _points(span)
        count = bisect_left(points, True, key=lambda at: not left(at))
        return points[:count], points[count:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Categorical:
    """One of some numbers that stand for categories, in ascending order.

    >>> Categorical(values=(0, 1, 7)).value(2)
    7
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values or any(not a < b for a, b in pairwise(self.values)):
            raise SettingError(f"categories must be numbers in ascending order, got {self.values}; sort them")

    @property
    def whole(self) -> frozenset[int]:
        return frozenset(range(len(self.values)))

    @property
    def numbers(self) -> tuple[float, float]:
        return self.values[0], self.values[-1]

    def value(self, at: int) -> float:
        return self.values[at]

    def first(self, span: Span) -> int:
        return min(span)

    def proof(self, span: Span) -> tuple[int, ...]:
        return tuple(sorted(span))

    def pieces(self, span: Span, start: int, ask: Callable[[int], Hashable], probes: int) -> list[Piece]:  # noqa: ARG002
        told: dict[Hashable, list[int]] = {}
        for at in sorted(span):
            told.setdefault(ask(at), []).append(at)
        return [(frozenset(points), key) for key, points in told.items()]

    def cut(self, span: Span, start: int, end: int, same: Callable[[int], bool]) -> tuple[Span, int]:  # noqa: ARG002
        return frozenset(span) - {end}, end

    def nearest(self, numbers: Floats) -> Whole:
        found: Whole = np.abs(numbers[:, None] - np.array(self.values)).argmin(1)
        return found

    def edge(self, at: int) -> float:
        return (self.values[at] + self.values[at + 1]) / 2

    def split(self, span: Span, left: Callable[[int], bool]) -> tuple[Span, Span]:
        chosen = frozenset(at for at in span if left(at))
        return chosen, frozenset(span) - chosen


def _points(span: Span) -> range:
    if not isinstance(span, range):
        raise SettingError("a continuous feature has a range of points as its span, got a set")
    return span


def _changes(low: int, high: int, ask: Callable[[int], Hashable]) -> Iterator[int]:
    """The points from low to high after which something else is told, found by bisection (LINE SEARCH)."""
    if ask(low) == ask(high):
        return
    if high - low == 1:
        yield low
        return
    middle = (low + high) // 2
    yield from _changes(low, middle, ask)
    yield from _changes(middle, high, ask)


class Leaf(NamedTuple):
    """A box of inputs that lead to one node."""

    identity: Hashable
    value: tuple[float, ...]
    """What it predicts: K scores of classes, or one number."""
    spans: tuple[Span, ...]
    """(D,) of each feature, in their order."""
    paid: int
    """Answers paid for when its box was known as it is."""
    final: bool
    """False for an inner node whose children were not found any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StolenTree:
    """What path finding made of a tree. Called with rows (N, D), it predicts (N, K).

    paid: answers paid for. complete: False where the money ended, or `most` leaves were found, before all was known.
    """

    features: tuple[Feature, ...]
    leaves: tuple[Leaf, ...] = field(repr=False)
    paid: int
    complete: bool

    @property
    def collisions(self) -> int:
        """Leaves that have the identity of another one found before. Where there are some, others may be hidden."""
        return len(self.leaves) - len({leaf.identity for leaf in self.leaves})

    def after(self, paid: int) -> StolenTree:
        """The leaves that were found with so many answers: a curve from one run. Inner nodes that stood for leaves
        until then are not in it."""
        found = tuple(leaf for leaf in self.leaves if leaf.paid <= paid)
        return replace(self, leaves=found, paid=min(paid, self.paid), complete=self.complete and paid >= self.paid)

    def reached(self, x: ArrayLike) -> Whole:
        """Which leaf each row (N, D) is in: (N,), numbers in `leaves`; the smallest box of several, and the one that
        misses fewest features where it is in none. Raises DataError for rows of another width, TargetError without a
        leaf."""
        rows = np.asarray(x, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(self.features):
            raise DataError(f"the tree takes rows (N, {len(self.features)}), got {rows.shape}; give a column a feature")
        if not self.leaves:
            raise TargetError("no leaf was found, so nothing can be predicted; give the customer more to spend")
        points = [each.nearest(rows[:, at]) for at, each in enumerate(self.features)]
        order = _smallest_first(self)
        missed = np.zeros((len(rows), len(order)), dtype=np.int64)
        for column, number in enumerate(order):
            for at, span in enumerate(self.leaves[number].spans):
                if span != self.features[at].whole:
                    missed[:, column] += ~_within(points[at], span)
        chosen: Whole = np.array(order)[missed.argmin(1)]
        return chosen

    def __call__(self, x: ArrayLike) -> Floats:
        """What it predicts for rows (N, D): (N, K)."""
        chosen = self.reached(x)
        values: Floats = np.array([leaf.value for leaf in self.leaves], dtype=np.float64)
        return values[chosen]


def _within(points: Whole, span: Span) -> NDArray[np.bool_]:
    if isinstance(span, range):
        return (points >= span.start) & (points < span.stop)
    return np.isin(points, sorted(span))


def _smallest_first(tree: StolenTree) -> list[int]:
    """The numbers of its leaves: final ones before others, and by the share of the inputs that their boxes take."""

    def share(number: int) -> float:
        spans = zip(tree.leaves[number].spans, tree.features, strict=True)
        return sum(math.log(len(span) / len(each.whole)) for span, each in spans)

    return sorted(range(len(tree.leaves)), key=lambda number: (not tree.leaves[number].final, share(number)))


def as_target(tree: StolenTree, *, output: Output | None = None) -> FunctionTarget:
    """The stolen tree as a target of float64. output: what its leaves' numbers are; None: probabilities, or a value
    where there is one number a row."""
    ends = [each.numbers for each in tree.features]
    width = len(tree.leaves[0].value) if tree.leaves else 0
    return from_function(
        tree,
        bounds=(min(low for low, _ in ends), max(high for _, high in ends)),
        classes=width if width > 1 else None,
        output=output or (Output.VALUE if width == 1 else Output.PROBABILITIES),
        dtype=torch.float64,
    )


def as_forest(tree: StolenTree, *, most: int = 10_000) -> Forest:
    """The stolen tree as arrays, which predict as it does wherever its boxes leave no gap.

    A split is put where it cuts fewest boxes, which is none where the boxes are those of a tree over numbers. Sets of
    categories whose numbers are no neighbors become several splits, and their leaves are then there several times.
    Raises TargetError without a leaf, and where it takes more than `most` nodes, as boxes that overlap may.
    """
    if not tree.leaves:
        raise TargetError("no leaf was found, so there is no tree; give the customer more to spend")
    nodes = _Nodes(most, [], [], [], [], [])
    order = _smallest_first(tree)
    _grow(tree, order, [range(len(each.whole)) for each in tree.features], order[0], nodes)
    width = len(tree.leaves[0].value)
    return Forest(
        feature=np.array(nodes.feature, dtype=np.int64),
        threshold=np.array(nodes.threshold, dtype=np.float64),
        left=np.array(nodes.left, dtype=np.int64),
        right=np.array(nodes.right, dtype=np.int64),
        value=np.array(nodes.value, dtype=np.float64).reshape(-1, width),
        roots=np.zeros(1, dtype=np.int64),
        base=np.zeros(width),
        inputs=len(tree.features),
        comparison=Comparison.AT_MOST,
        precision=Precision.DOUBLE,
        sums=Precision.DOUBLE,
    )


class _Nodes(NamedTuple):
    most: int
    feature: list[int]
    threshold: list[float]
    left: list[int]
    right: list[int]
    value: list[tuple[float, ...]]

    def add(self, value: tuple[float, ...]) -> None:
        """One more leaf."""
        if len(self.value) == self.most:
            raise TargetError(
                f"the stolen boxes take more than {self.most} nodes; use as_target, which needs no tree, or allow more"
            )
        self.feature.append(0)
        self.threshold.append(0.0)
        self.left.append(LEAF)
        self.right.append(LEAF)
        self.value.append(value)


def _grow(tree: StolenTree, order: list[int], region: list[range], instead: int, nodes: _Nodes) -> int:
    """Adds the tree over a region, of leaves in that order, and says its root's number. instead: the leaf of a gap."""
    node = len(nodes.feature)
    inside = [[_clipped(span, part) for span, part in zip(tree.leaves[n].spans, region, strict=True)] for n in order]
    kept = [at for at, spans in enumerate(inside) if all(spans)]
    order, inside = [order[at] for at in kept], [inside[at] for at in kept]
    nodes.add(tree.leaves[order[0] if order else instead].value)
    if not order or all(len(span) == len(part) for span, part in zip(inside[0], region, strict=True)):
        return node
    found = _cut(inside, region)
    if found is None:
        return node
    feature, at = found
    whole = region[feature]
    nodes.feature[node], nodes.threshold[node] = feature, tree.features[feature].edge(at)
    for children, part in ((nodes.left, range(whole.start, at + 1)), (nodes.right, range(at + 1, whole.stop))):
        children[node] = _grow(tree, order, [*region[:feature], part, *region[feature + 1 :]], order[0], nodes)
    return node


def _clipped(span: Span, part: range) -> Span:
    if isinstance(span, range):
        return range(max(span.start, part.start), min(span.stop, part.stop))
    return span.intersection(part)


def _ends(span: Span) -> tuple[int, int]:
    return (span[0], span[-1]) if isinstance(span, range) else (min(span), max(span))


def _cut(inside: list[list[Span]], region: list[range]) -> tuple[int, int] | None:
    """The feature and the point after which a split crosses fewest boxes, the most even one of equals; None where all
    boxes are the region."""
    best: tuple[int, int, int, int] | None = None
    for feature, part in enumerate(region):
        spans = [spans[feature] for spans in inside]
        low, high = np.array([_ends(span) for span in spans]).T
        gaps = any(len(span) != top - least + 1 for span, least, top in zip(spans, low, high, strict=True))
        marks = np.arange(part.start, part.stop - 1) if gaps else np.unique(np.concatenate([low - 1, high]))
        for at in marks[(marks >= part.start) & (marks < part.stop - 1)].tolist():
            left, right = low <= at, high > at
            rated = (int((left & right).sum()), int(max(left.sum(), right.sum())), feature, at)
            best = rated if best is None else min(best, rated)
    return None if best is None else best[2:]


def recovered(tree: StolenTree, forest: Forest) -> NDArray[np.bool_]:
    """Which leaves of the true tree were found: (L,), those that the features' points can reach, in the order of nodes.

    Found means that a final leaf has the same points in its box: the same categories, and thresholds within ε of the
    true ones. Raises SettingError unless the forest is one tree of as many features.
    """
    if forest.trees != 1 or forest.inputs != len(tree.features):
        raise SettingError(
            f"one tree of {len(tree.features)} features is compared, got {forest.trees} of {forest.inputs}; give the "
            "tree that was asked"
        )
    found = {leaf.spans for leaf in tree.leaves if leaf.final}
    return np.array([spans in found for _, spans in sorted(_true_boxes(forest, tree.features))], dtype=bool)


def _true_boxes(forest: Forest, features: tuple[Feature, ...]) -> Iterator[tuple[int, tuple[Span, ...]]]:
    """Leaves that have points, with those of each feature."""
    cut = cuts(forest)
    todo = [(int(forest.roots[0]), tuple(each.whole for each in features))]
    while todo:
        node, spans = todo.pop()
        if not all(spans):
            continue
        if forest.left[node] == LEAF:
            yield node, spans
            continue
        at = int(forest.feature[node])
        parts = _split(features[at], spans[at], float(cut[node]), forest.precision)
        children = (forest.left[node], forest.right[node])
        todo += [
            (int(child), (*spans[:at], part, *spans[at + 1 :])) for child, part in zip(children, parts, strict=True)
        ]


def _split(feature: Feature, span: Span, cut: float, precision: Precision) -> tuple[Span, Span]:
    kind = precision.dtype.type
    return feature.split(span, lambda at: bool(kind(feature.value(at)) < cut))
