"""The boxes on which a forest's answer is constant, and how far an input is from them in each norm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from redan.errors import SettingError
from redan.formats.forest import LEAF, Floats, Forest, Whole, cuts
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1

Norm = type[Linf] | type[L2] | type[L1] | type[L0]
"""A perturbation set's class, for the norm that it measures in."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A norm as costs a coordinate: their largest or their sum, and what length that is.

    Each coordinate costs by itself, so a point's cost is linear in where its coordinates lie: L2 is counted squared.
    """

    weigh: Callable[[Floats], Floats]  # how far each coordinate moves -> what it costs
    largest: bool
    length: Callable[[Floats], Floats]  # the cost of all -> the distance
    reach: Callable[[float], float]  # a cost -> how far one coordinate can move for it
    whole: bool = False  # every cost is a whole number

    def cost(self, gaps: Floats) -> Floats:
        """(…, d) moves of coordinates -> (…) costs."""
        weighed = self.weigh(gaps)
        cost: Floats = weighed.max(-1, initial=0.0) if self.largest else weighed.sum(-1)
        return cost


def _same(cost: Floats) -> Floats:
    return cost


def _moved(gaps: Floats) -> Floats:
    return (gaps > 0).astype(np.float64)


_MEASURES: dict[type, Measure] = {
    Linf: Measure(_same, True, _same, lambda cost: cost),
    L1: Measure(_same, False, _same, lambda cost: cost),
    L2: Measure(np.square, False, np.sqrt, lambda cost: float(np.sqrt(cost))),
    L0: Measure(_moved, False, _same, lambda cost: np.inf if cost >= 1 else 0.0, whole=True),
}


def measure_of(norm: Norm) -> Measure:
    """How a norm measures. Raises SettingError for what is no norm."""
    if norm not in _MEASURES:
        raise SettingError(f"a smallest change is measured by Linf, L2, L1 or L0 (the class itself), got {norm!r}")
    return _MEASURES[norm]


@dataclass(frozen=True, slots=True)
class Boxes:
    """B boxes that do not overlap, low and high (B, d) both inside, and what the trees add to the scores there, (B, K).

    Edges are inputs of the forest's own type, so a closed box holds all that the open or half-open one of the
    thresholds holds.
    """

    low: Floats
    high: Floats
    value: Floats

    def __len__(self) -> int:
        return len(self.low)

    def take(self, index: Whole) -> Boxes:
        return Boxes(self.low[index], self.high[index], self.value[index])


def gaps(x: Floats, low: Floats, high: Floats) -> Floats:
    """How far each coordinate of x is from an interval."""
    found: Floats = np.maximum(np.maximum(low - x, x - high), 0.0)
    return found


def edges(forest: Forest, bounds: tuple[float, float]) -> tuple[float, float]:
    """The least and the largest input of the forest's type inside the bounds, as the type holds them."""
    kind = forest.precision.dtype.type
    return float(kind(bounds[0])), float(kind(bounds[1]))


def below(forest: Forest, cut: Floats) -> Floats:
    """The largest input of the forest's type under each cut."""
    kind = forest.precision.dtype.type
    found: Floats = np.nextafter(cut.astype(kind), kind(-np.inf)).astype(np.float64)
    return found


def leaves(forest: Forest, bounds: tuple[float, float]) -> tuple[Boxes, ...]:
    """Each tree's leaves inside the bounds that some input reaches."""
    least, most = edges(forest, bounds)
    cut = cuts(forest)
    under = below(forest, cut)
    return tuple(_leaves(forest, int(root), cut, under, least, most) for root in forest.roots)


def _leaves(forest: Forest, root: int, cut: Floats, under: Floats, least: float, most: float) -> Boxes:
    low, high, at = [], [], []
    todo = [(root, np.full(forest.inputs, least), np.full(forest.inputs, most))]
    while todo:
        node, lows, highs = todo.pop()
        if forest.left[node] == LEAF:
            low.append(lows)
            high.append(highs)
            at.append(node)
            continue
        feature = forest.feature[node]
        if lows[feature] <= under[node]:
            lesser = highs.copy()
            lesser[feature] = min(lesser[feature], under[node])
            todo.append((int(forest.left[node]), lows, lesser))
        if highs[feature] >= cut[node]:
            greater = lows.copy()
            greater[feature] = max(greater[feature], cut[node])
            todo.append((int(forest.right[node]), greater, highs))
    return Boxes(np.array(low), np.array(high), forest.value[at])


def crossed(first: Boxes, second: Boxes, most: int) -> Boxes | None:
    """The boxes where one of each overlaps, with both values; None for more than `most`."""
    low, high, value = [], [], []
    count = 0
    for i in range(len(second)):
        lows, highs = np.maximum(first.low, second.low[i]), np.minimum(first.high, second.high[i])
        held = (lows <= highs).all(1)
        count += int(held.sum())
        if count > most:
            return None
        low.append(lows[held])
        high.append(highs[held])
        value.append(first.value[held] + second.value[i])
    return Boxes(np.concatenate(low), np.concatenate(high), np.concatenate(value))


def merged(parts: Sequence[Boxes], most: int) -> tuple[Boxes, ...]:
    """Neighboring trees crossed into one while there are at most `most` boxes in each."""
    found: list[Boxes] = []
    for part in parts:
        together = crossed(found[-1], part, most) if found else None
        if together is None:
            found.append(part)
        else:
            found[-1] = together
    return tuple(found)
