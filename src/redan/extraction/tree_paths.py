"""Extraction of decision trees by path finding: what the API tells of a query says where its walk ended.

Tramèr et al. 2016, arXiv:1609.02943, Section 4.2. BottomUp is Algorithm 1: from a leaf found, every feature is varied
alone, by line search or category by category, and each leaf seen there is visited. TopDown starts from the empty query
and goes from node to node by queries that leave features out.

Deviations. These save queries: features that are expected to matter little are varied together, as a box of
which two opposite corners lead to one node leads there as a whole; where a line met a leaf, the line's part in it is
kept and not searched again; a threshold is put in the middle between its two nearest points. One finds more where nodes
share an identity: a leaf's box that holds a point of another leaf is cut between them, and what is beyond the cut is
looked at again. In TopDown, splits on
features that are set already are found as Algorithm 1 does, within the box of the node above, so that each node is
visited once; where the API does not tell the feature that a node asks, it is found by bisection of those not set.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from redan.errors import SettingError
from redan.extraction.customer import Customer
from redan.extraction.path_oracles import Paths, ScorePaths, Seen
from redan.extraction.stolen_tree import Feature, Leaf, Span, StolenTree, as_target
from redan.extraction.surrogates import Copy

__all__ = ["BottomUp", "ScoreTree", "TopDown"]

Point = Mapping[int, int]  # feature -> one of its points; features that are left out are not in it


@dataclass(frozen=True, slots=True, kw_only=True)
class TopDown:
    """The tree from its root down, by queries that leave features out.

    features: the model's inputs, in their order. most: leaves to find at the most. The tree is found whole, each
    threshold to its feature's precision, if no two nodes have the same identity and no splits are closer than that. It
    costs one answer a node and one more for each child, log2(range / ε) for a threshold, one for each category, and
    log2(D) where the API does not tell which feature is missed. If the money ends, inner nodes stand for what is below
    them.
    """

    features: tuple[Feature, ...]
    most: int = 10_000

    def __post_init__(self) -> None:
        _check(self.features, self.most)

    def __call__(self, customer: Paths, *, seed: int) -> StolenTree:
        walk = _Walk(self.features, customer, np.random.default_rng(seed))
        leaves: list[Leaf] = []
        todo: deque[_Cell] = deque()
        try:
            todo.append(_Cell({}, {}, walk.seen({}), customer.paid))
            while todo and len(leaves) < self.most:
                cell = todo[0]
                feature = walk.missed(cell.point, cell.seen)
                if feature is None:
                    cell.paid = customer.paid
                    leaves.append(_leaf(cell, self.features, final=True))
                else:
                    whole = self.features[feature].whole
                    start = {**cell.point, feature: self.features[feature].first(whole)}
                    todo.extend(_cells(walk, [start], {**cell.spans, feature: whole}, first=(feature,)))
                todo.popleft()
        except _SpentError:
            pass
        leaves += [_leaf(cell, self.features, final=False) for cell in todo]
        return StolenTree(features=self.features, leaves=tuple(leaves), paid=customer.paid, complete=_done(leaves))


@dataclass(frozen=True, slots=True, kw_only=True)
class BottomUp:
    """The tree from its leaves, by complete queries (Algorithm 1).

    features: the model's inputs, in their order. starts: rows drawn from the box that the search begins at; the paper's
    is 1, and each later one costs one answer unless it contradicts what is known. probes: points asked on each line
    beside its ends. Both are for leaves that share an identity: two of them at the ends of a line hide what is between.
    most: leaves to find at the most. Where no two share one, it finds all leaves.
    """

    features: tuple[Feature, ...]
    starts: int = 1
    probes: int = 0
    most: int = 10_000

    def __post_init__(self) -> None:
        _check(self.features, self.most)
        if self.starts < 1 or self.probes < 0:
            raise SettingError(f"the search needs starts ≥ 1 and probes ≥ 0, got {self.starts} and {self.probes}")

    def __call__(self, customer: Paths, *, seed: int) -> StolenTree:
        draw = np.random.default_rng(seed)
        walk = _Walk(self.features, customer, draw, self.probes)
        box = {at: each.whole for at, each in enumerate(self.features)}
        starts = ({at: walk.drawn(at) for at in box} for _ in range(self.starts))
        cells: list[_Cell] = []
        complete = False
        try:
            for cell in _cells(walk, starts, box, first=()):
                cells.append(cell)
                if len(cells) == self.most:
                    break
            else:
                complete = True
        except _SpentError:
            pass
        leaves = tuple(_leaf(cell, self.features, final=True) for cell in cells)
        return StolenTree(features=self.features, leaves=leaves, paid=customer.paid, complete=complete)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTree:
    """Bottom-up path finding as an extractor of plain scores: what is shown of a row is its leaf's identity.

    search: with its features. decimals: of what is shown, that tell leaves apart. The more leaves show the same, the
    more stay hidden.
    """

    search: BottomUp
    decimals: int = 9

    def __call__(self, customer: Customer, *, seed: int) -> Copy:
        paths = ScorePaths(customer, len(self.search.features), self.decimals)
        return Copy(as_target(self.search(paths, seed=seed)), {})


def _check(features: tuple[Feature, ...], most: int) -> None:
    if not features or most < 1:
        raise SettingError(f"path finding needs a feature and most ≥ 1, got {len(features)} features and {most}")


class _SpentError(Exception):
    """There is no answer any more."""


@dataclass(slots=True, eq=False)
class _Cell:
    """A node that was met."""

    point: dict[int, int]  # a query that ends there
    spans: dict[int, Span]  # all that do, with the same features set
    seen: Seen
    paid: int  # when that was known


def _leaf(cell: _Cell, features: tuple[Feature, ...], *, final: bool) -> Leaf:
    spans = tuple(cell.spans.get(at, each.whole) for at, each in enumerate(features))
    return Leaf(cell.seen.identity, cell.seen.value, spans, cell.paid, final)


def _done(leaves: list[Leaf]) -> bool:
    return bool(leaves) and all(leaf.final for leaf in leaves)


@dataclass(frozen=True, slots=True)
class _Walk:
    """Asks for points."""

    features: tuple[Feature, ...]
    customer: Paths
    draw: np.random.Generator
    probes: int = 0

    def seen(self, point: Point) -> Seen:
        seen = self.customer.ask({at: self.features[at].value(chosen) for at, chosen in point.items()})
        if seen is None:
            raise _SpentError
        return seen

    def key(self, point: Point) -> Hashable:
        """What tells the node from others: its identity, and the feature that it misses where that is told."""
        seen = self.seen(point)
        return seen.identity, None if seen.fields is None else frozenset(seen.fields - point.keys())

    def drawn(self, feature: int) -> int:
        return int(self.draw.integers(len(self.features[feature].whole)))

    def missed(self, point: Point, seen: Seen) -> int | None:
        """The feature that the node asks where the walk of a point ends; None at a leaf."""
        if seen.fields is not None:
            return min(seen.fields - point.keys(), default=None)
        rest = {at: self.drawn(at) for at in range(len(self.features)) if at not in point}
        if not rest or self.seen({**point, **rest}).identity == seen.identity:
            return None
        left = sorted(rest)
        while len(left) > 1:
            half = left[: len(left) // 2]
            stays = self.seen({**point, **{at: rest[at] for at in half}}).identity == seen.identity
            left = left[len(half) :] if stays else half
        return left[0]


def _cells(walk: _Walk, starts: Iterable[Point], box: dict[int, Span], *, first: tuple[int, ...]) -> Iterator[_Cell]:
    """The nodes at which queries of a box end, each with its own box, as far as they are met from the starts.

    first: features that surely tell nodes of the box apart; the others are tried together. A box that holds a point of
    another node is made smaller when that is known, also after it was given out.
    """
    known: list[tuple[Hashable, _Cell]] = []
    for start in starts:
        todo: list[tuple[Point, dict[int, Span]]] = [(start, {})]
        while todo:
            point, spans = todo.pop()
            key = walk.key(point)
            for other, cell in known:
                if other != key and _holds(cell, point):
                    todo += _shrunk(walk, cell, point)
            if any(other == key and _holds(cell, point) for other, cell in known):
                continue
            searched = _Search(walk, box, point, dict(spans))
            for group in (list(first), [at for at in box if at not in first]):
                searched.settle([at for at in group if at not in spans], apart=False)
            todo += searched.met
            found = _Cell(dict(point), searched.spans, walk.seen(point), walk.customer.paid)
            for other, cell in known:
                if other != key and _holds(found, cell.point):
                    todo += _shrunk(walk, found, cell.point)
            known.append((key, found))
            yield found


def _holds(cell: _Cell, point: Point) -> bool:
    return all(point[at] in span for at, span in cell.spans.items())


def _shrunk(walk: _Walk, cell: _Cell, other: Point) -> list[tuple[Point, dict[int, Span]]]:
    """Makes a cell's box smaller, so that it does not hold a point of another node, and says where to look on.

    One feature after the other is changed to the other point's, until another node is met: a split is there.
    """
    here, moved = walk.key(cell.point), dict(cell.point)
    for at, end in other.items():
        if end != moved[at] and walk.key({**moved, at: end}) != here:
            break
        moved[at] = end
    else:
        return []

    def same(chosen: int) -> bool:
        return walk.key({**moved, at: chosen}) == here

    cell.spans[at], beyond = walk.features[at].cut(cell.spans[at], moved[at], other[at], same)
    cell.paid = walk.customer.paid
    return [({**cell.point, at: beyond}, {}), (other, {})]


@dataclass(slots=True, eq=False)
class _Search:
    """The box of the node where the walk of a point ends, within a box of points with the same features set."""

    walk: _Walk
    box: dict[int, Span]
    point: Point
    spans: dict[int, Span]
    """Of the node, as far as they are known."""
    met: list[tuple[Point, dict[int, Span]]] = field(default_factory=list)
    """Points of other nodes, with what is known of theirs."""

    def settle(self, group: list[int], *, apart: bool) -> bool:
        """Finds the node's spans of some features, and says whether they are all of the box. apart: they are not."""
        if not group:
            return True
        if len(group) == 1:
            return self._line(group[0])
        if not apart and self._alike(group):
            self.spans.update((at, self.box[at]) for at in group)
            return True
        half = len(group) // 2
        whole = self.settle(group[:half], apart=False)
        return self.settle(group[half:], apart=whole) and whole

    def _alike(self, group: list[int]) -> bool:
        """Whether all of the box in these features leads to the node: its corners do, and every category."""
        here = self.walk.key(self.point)
        proofs = {at: self.walk.features[at].proof(self.box[at]) for at in group}
        rows = ({at: proof[min(row, len(proof) - 1)] for at, proof in proofs.items()} for row in range(_most(proofs)))
        return all(self.walk.key({**self.point, **row}) == here for row in rows)

    def _line(self, at: int) -> bool:
        """Varies one feature alone."""
        each = self.walk.features[at]

        def ask(chosen: int) -> Hashable:
            return self.walk.key({**self.point, at: chosen})

        pieces = each.pieces(self.box[at], self.point[at], ask, self.walk.probes)
        for span, _ in pieces:
            if self.point[at] in span:
                self.spans[at] = span
            else:
                self.met.append(({**self.point, at: each.first(span)}, {at: span}))
        return len(pieces) == 1


def _most(proofs: dict[int, tuple[int, ...]]) -> int:
    return max(map(len, proofs.values()))
