"""Where the rows of queries come from: a named set of rows, noise in the box, or a table's columns drawn one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from redan.errors import DataError, SettingError
from redan.extraction.surrogates import Bounds, Shape, in_box, uniform
from redan.targets.base import checked_bounds

__all__ = ["Between", "Column", "OneOf", "Pool", "RowPool", "TablePool", "UniformPool", "clustered"]

_BLOCK = 1024


class Pool(Protocol):
    """A source of rows."""

    @property
    def shape(self) -> Shape:
        """Of one row."""
        ...

    @property
    def bounds(self) -> Bounds:
        """The box of its rows."""
        ...

    def blocks(self, draw: torch.Generator) -> Iterator[Tensor]:
        """Rows (M, …) in the order in which they are asked, block after block, until none are left."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowPool:
    """Given rows (N, …) of floating point, each once, in an order that is drawn.

    name: how a report calls them. bounds: their box. groups: (N,) whole numbers, the rows' classes or clusters, among
    which adaptive extraction chooses; they need not be classes of the model.

    Raises DataError where a row is outside the bounds or not finite, SettingError where groups do not match.

    >>> pool = RowPool(name="digits", rows=torch.rand(5, 1, 8, 8))
    >>> pool.shape, sum(len(block) for block in pool.blocks(torch.Generator()))
    ((1, 8, 8), 5)
    """

    name: str
    rows: Tensor = field(repr=False)
    bounds: Bounds = (0.0, 1.0)
    groups: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        low, high = checked_bounds(self.bounds)
        if not self.rows.is_floating_point() or self.rows.dim() < 2 or not len(self.rows):
            raise DataError(
                f"the pool {self.name} holds {self.rows.dtype} of shape {tuple(self.rows.shape)}, but rows (N, …) of "
                "floating point are needed, one at least; divide pictures of whole numbers by 255"
            )
        outside = ~((self.rows >= low) & (self.rows <= high)).flatten(1).all(1)  # NaN is outside too
        if bool(outside.any()):
            first = int(outside.nonzero()[0])
            raise DataError(
                f"{int(outside.sum())} of {len(self.rows)} rows of the pool {self.name} are outside of [{low:g}, "
                f"{high:g}], row {first} first; scale them into the model's box, or say their bounds"
            )
        if self.groups is not None and (self.groups.shape != self.rows.shape[:1] or self.groups.is_floating_point()):
            raise SettingError(
                f"groups must be {len(self.rows)} whole numbers, one a row, got {tuple(self.groups.shape)} of "
                f"{self.groups.dtype}"
            )

    @property
    def shape(self) -> Shape:
        return tuple(self.rows.shape[1:])

    def blocks(self, draw: torch.Generator) -> Iterator[Tensor]:
        yield from (self.rows[at] for at in torch.split(torch.randperm(len(self.rows), generator=draw), _BLOCK))


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformPool:
    """Noise: rows drawn from the whole box, without end."""

    shape: Shape
    bounds: Bounds = (0.0, 1.0)

    def __post_init__(self) -> None:
        checked_bounds(self.bounds)

    def blocks(self, draw: torch.Generator) -> Iterator[Tensor]:
        while True:
            yield uniform(_BLOCK, self.shape, self.bounds, draw)


class Column(Protocol):
    """One or more columns of a table that are drawn together."""

    @property
    def width(self) -> int:
        """How many columns."""
        ...

    @property
    def range(self) -> Bounds:
        """The smallest and the largest number in it."""
        ...

    def __call__(self, count: int, draw: torch.Generator) -> Tensor:
        """(count, width), float64."""
        ...


@dataclass(frozen=True, slots=True)
class Between:
    """A column of numbers from low to high, both included, or of the whole ones among them."""

    low: float
    high: float
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise SettingError(f"a column's range needs low ≤ high, got {self.low} and {self.high}")

    @property
    def width(self) -> int:
        return 1

    @property
    def range(self) -> Bounds:
        return self.low, self.high

    def __call__(self, count: int, draw: torch.Generator) -> Tensor:
        share = torch.rand(count, 1, generator=draw, dtype=torch.float64)
        if self.whole:
            return (self.low + (share * (self.high - self.low + 1)).floor()).clamp_max(self.high)
        return self.low + share * (self.high - self.low)


@dataclass(frozen=True, slots=True)
class OneOf:
    """Columns that hold one of some values together: a category's code, or its one-hot columns.

    values: one tuple a category, of one number a column.
    """

    values: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if not self.values or len({len(value) for value in self.values}) > 1 or not self.values[0]:
            raise SettingError(f"categories need one value at least, of as many numbers each, got {self.values}")

    @property
    def width(self) -> int:
        return len(self.values[0])

    @property
    def range(self) -> Bounds:
        numbers = [number for value in self.values for number in value]
        return min(numbers), max(numbers)

    def __call__(self, count: int, draw: torch.Generator) -> Tensor:
        table = torch.tensor(self.values, dtype=torch.float64)
        return table[torch.randint(len(table), (count,), generator=draw)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePool:
    """Rows of a table, each column drawn by itself, uniformly from its range or categories, without end.

    An attacker who knows a form's fields, and no customer, can ask these. Raises SettingError where a column leaves the
    bounds.
    """

    columns: tuple[Column, ...]
    bounds: Bounds = (0.0, 1.0)

    def __post_init__(self) -> None:
        low, high = checked_bounds(self.bounds)
        for at, column in enumerate(self.columns):
            if column.range[0] < low or column.range[1] > high:
                raise SettingError(f"column {at} has the range {column.range}, outside of the bounds {self.bounds}")

    @classmethod
    def of(
        cls,
        rows: Tensor,
        *,
        bounds: Bounds = (0.0, 1.0),
        together: Sequence[tuple[int, int]] = (),
        most: int = 10,
    ) -> TablePool:
        """The pool of a table's columns, as its rows (N, d) show them.

        together: (start, stop) of columns that are one category's, one-hot. most: a column of so few different values,
        or of fewer, is one of categories.

        >>> pool = TablePool.of(torch.tensor([[0.0, 0.25], [1.0, 0.5], [1.0, 0.75]]), most=2)
        >>> [type(column).__name__ for column in pool.columns]
        ['OneOf', 'Between']
        """
        if rows.dim() != 2 or not len(rows) or not bool(rows.isfinite().all()):
            raise DataError(f"a table needs finite rows (N, d), at least one, got {tuple(rows.shape)}")
        starts = dict(together)
        columns: list[Column] = []
        at = 0
        while at < rows.shape[1]:
            stop = starts.get(at, at + 1)
            values = torch.unique(rows[:, at:stop].double(), dim=0)
            if stop > at + 1 or len(values) <= most:
                columns.append(OneOf(tuple(tuple(value) for value in values.tolist())))
            else:
                whole = bool((values == values.round()).all())
                columns.append(Between(float(values.min()), float(values.max()), whole))
            at = stop
        return cls(columns=tuple(columns), bounds=bounds)

    @property
    def shape(self) -> Shape:
        return (sum(column.width for column in self.columns),)

    def blocks(self, draw: torch.Generator) -> Iterator[Tensor]:
        while True:
            yield in_box(torch.cat([column(_BLOCK, draw) for column in self.columns], 1), self.bounds)


def clustered(pool: RowPool, count: int, *, seed: int, rounds: int = 20) -> RowPool:
    """The pool with `count` clusters of its rows as groups, by k-means (Lloyd 1982) from rows drawn by the seed."""
    if not 1 <= count <= len(pool.rows):
        raise SettingError(f"{len(pool.rows)} rows have 1 to {len(pool.rows)} clusters, got {count}")
    rows = pool.rows.flatten(1).float()
    draw = torch.Generator().manual_seed(seed)
    centers = rows[torch.randperm(len(rows), generator=draw)[:count]]
    nearest = torch.zeros(len(rows), dtype=torch.int64)
    for _ in range(rounds):
        now = torch.cat([torch.cdist(part, centers).argmin(1) for part in torch.split(rows, _BLOCK)])
        if bool((now == nearest).all()):
            break
        nearest = now
        sizes = torch.bincount(nearest, minlength=count)
        sums = torch.zeros_like(centers).index_add_(0, nearest, rows)
        centers = torch.where(sizes[:, None] > 0, sums / sizes.clamp_min(1)[:, None], centers)
    return replace(pool, groups=nearest)
