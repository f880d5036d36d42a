"""APIs of a decision tree: a query of some features is told the node where the walk ends.

Tramèr et al. 2016, arXiv:1609.02943, Section 4.2, Definition 1 (identity oracles): a walk over the tree ends at a leaf,
or at the first node that splits on a feature that the query leaves out. The API tells that node's prediction and
confidence, which serve as its identity.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch

from redan.errors import AccessError, SettingError
from redan.extraction.customer import Customer, Spending
from redan.formats.forest import LEAF, Forest, Precision, cuts

__all__ = ["ForestPaths", "PathCustomer", "PathOracle", "Paths", "ScorePaths", "Seen", "shown_identities"]


class Seen(NamedTuple):
    """What the API tells of one query."""

    identity: Hashable
    """Of the node where the walk ended; two nodes may share one."""
    value: tuple[float, ...]
    """What the node predicts: K scores of classes, or one number."""
    fields: frozenset[int] | None = None
    """Features that the query has or the walk asked, the one that it missed among them; None where it is not told."""


class PathOracle(Protocol):
    """A decision tree as an API shows it."""

    def ask(self, row: Mapping[int, float]) -> Seen:
        """Where the walk of a row ends: feature numbers with their values, as many as one likes."""
        ...


class Paths(Protocol):
    """A customer of such an API. This is all that path finding sees of a tree."""

    @property
    def paid(self) -> int:
        """Answers paid for so far."""
        ...

    def ask(self, row: Mapping[int, float]) -> Seen | None:
        """Where the walk of a row ends; None where there is no answer: the money is spent, or the model failed."""
        ...


@dataclass(slots=True, eq=False)
class PathCustomer:
    """Asks a path oracle within a budget, and never pays twice for the same query.

    >>> class Stump:
    ...     def ask(self, row):
    ...         return Seen("root", (0.5,)) if 0 not in row else Seen(row[0] <= 3, (float(row[0] > 3),))
    >>> customer = PathCustomer(Stump(), Spending(queries=2))
    >>> [customer.ask(row) for row in ({}, {0: 2.0}, {0: 2.0}, {0: 4.0})][-2:], customer.paid
    ([Seen(identity=True, value=(0.0,), fields=None), None], 2)
    """

    oracle: PathOracle = field(repr=False)
    spending: Spending = field(default_factory=Spending)
    paid: int = 0
    """Answers paid for so far."""
    _known: dict[frozenset[tuple[int, float]], Seen] = field(default_factory=dict, repr=False)

    @property
    def left(self) -> float:
        """Answers that can still be paid: a whole number, or inf."""
        return max(0, self.spending.most - self.paid)

    @property
    def usd(self) -> float:
        """Money spent so far."""
        return self.paid * self.spending.usd_per_1000_queries / 1000

    def ask(self, row: Mapping[int, float]) -> Seen | None:
        """Where the walk of a row ends; None where the money is spent."""
        name = frozenset(row.items())
        if name not in self._known:
            if not self.left:
                return None
            self.paid += 1
            self._known[name] = self.oracle.ask(row)
        return self._known[name]


@dataclass(slots=True, eq=False)
class ScorePaths:
    """A customer of plain scores as one of leaf identities: what is shown of a complete row is its leaf's identity.

    features: how many numbers a row has. decimals: shown numbers are rounded to so many in an identity, so that
    rounding errors do not make two leaves of one. Leaves that show the same scores share an identity.
    """

    customer: Customer
    features: int
    decimals: int = 9

    @property
    def paid(self) -> int:
        return self.customer.paid

    def ask(self, row: Mapping[int, float]) -> Seen | None:
        """What is shown of a complete row. Raises AccessError for a row that leaves features out."""
        if len(row) != self.features:
            raise AccessError(
                f"an API of plain scores takes all {self.features} features, got {len(row)}; use the bottom-up search, "
                "which asks complete rows"
            )
        x = torch.tensor([[row[at] for at in range(self.features)]], dtype=torch.float64)
        answer = self.customer.ask(x)
        if not bool(answer.answered):
            return None
        value = tuple(answer.shown[0].tolist())
        return Seen(tuple(round(each, self.decimals) for each in value), value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestPaths:
    """A tree of arrays as such an API, for known answers and benchmarks: `forest_from_sklearn` reads one.

    identities: what is told of each node, (M,); None: its number, so that all differ. Tell `shown_identities(forest)`
    to show what the paper's API did, a node's prediction and confidence. fields: whether the features of the walk are
    told. incomplete: whether rows may leave features out. Raises SettingError unless the forest is one tree.
    """

    forest: Forest = field(repr=False)
    identities: tuple[Hashable, ...] | None = field(default=None, repr=False)
    fields: bool = False
    incomplete: bool = True
    _nodes: tuple[tuple[int, float, int, int], ...] = field(init=False, repr=False)
    _values: tuple[tuple[float, ...], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        forest = self.forest
        if forest.trees != 1:
            raise SettingError(f"path finding steals one tree, got {forest.trees}; give a forest of one")
        if self.identities is not None and len(self.identities) != len(forest.feature):
            raise SettingError(f"give an identity a node, {len(forest.feature)}, got {len(self.identities)}")
        columns = (forest.feature.tolist(), cuts(forest).tolist(), forest.left.tolist(), forest.right.tolist())
        object.__setattr__(self, "_nodes", tuple(zip(*columns, strict=True)))
        object.__setattr__(self, "_values", tuple(map(tuple, (forest.value + forest.base).tolist())))

    def ask(self, row: Mapping[int, float]) -> Seen:
        """Where the walk ends. Raises AccessError for a row that leaves features out, where none may be."""
        if not self.incomplete and len(row) != self.forest.inputs:
            raise AccessError(f"this API takes all {self.forest.inputs} features, got {len(row)}; give complete rows")
        kind = self.forest.precision.dtype.type
        node, walked = int(self.forest.roots[0]), set(row)
        while True:
            feature, cut, left, right = self._nodes[node]
            if left == LEAF:
                break
            walked.add(feature)
            if feature not in row:
                break
            number = row[feature] if self.forest.precision is Precision.DOUBLE else float(kind(row[feature]))
            node = left if number < cut else right
        identity = node if self.identities is None else self.identities[node]
        return Seen(identity, self._values[node], frozenset(walked) if self.fields else None)


def shown_identities(forest: Forest, *, decimals: int = 9) -> tuple[Hashable, ...]:
    """What tells nodes apart where an API shows predictions only: a node's scores, rounded to so many decimals."""
    if decimals < 0:
        raise SettingError(f"decimals must be 0 or more, got {decimals}")
    return tuple(tuple(0.0 if math.isclose(n, 0) else n for n in row) for row in forest.value.round(decimals).tolist())
