"""Rows: what an attacker knows about the inputs under attack, and their random streams.

Everything row-aligned is picked (`take`) and put back (`put`) here and nowhere else.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, Self, TypeVar, TypeVarTuple, cast

import torch
from torch import Tensor

X = TypeVar("X")
X_contra = TypeVar("X_contra", contravariant=True)
Ts = TypeVarTuple("Ts")


class Goal(Protocol):
    """What counts as success, one entry a row."""

    def reached(self, output: Tensor) -> Tensor:
        """Whether each row's answer (N, K) is what the attacker wants: (N,) bool."""
        ...

    def loss(self, scores: Tensor) -> Tensor:
        """How near each row is to it by the scores of its outcomes (N, K), larger is nearer: (N,)."""
        ...

    def right(self, output: Tensor) -> Tensor:
        """Whether each row's answer (N, K) is right, whatever the attacker wants: (N,) bool."""
        ...

    def scores(self, output: Tensor) -> Tensor:
        """The answers as scores of outcomes (N, K), which losses and attacks compare; class scores are that already."""
        ...

    def ways(self, scores: Tensor, most: int) -> Sequence[Goal]:
        """Up to `most` narrower goals that each imply this one, nearest first, judging by scores (N, K)."""
        ...

    def take(self, index: Tensor) -> Self:
        """The goal of some rows: a mask, or indices that may repeat."""
        ...


class PerturbationSet(Protocol[X_contra]):
    """Which changed inputs the attacker may show, around each row's own input."""

    def contains(self, x: X_contra, x0: X_contra, distance: Tensor | None = None) -> Tensor:
        """Whether each x is allowed around its x0: (N,) bool. distance: x's, where it is known already."""
        ...

    def distance(self, x: X_contra, x0: X_contra) -> Tensor:
        """How far each x is from its x0, in the set's own unit: (N,)."""
        ...

    def take(self, index: Tensor) -> Self:
        """The set of some rows."""
        ...


W_co = TypeVar("W_co", bound=PerturbationSet[Any], covariant=True)


def _pick(index: Tensor, state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.index_select(0, index)
    if state is None:
        return None
    if isinstance(state, tuple):
        return type(state)(*(_pick(index, part) for part in state))  # a NamedTuple of row-aligned parts
    if isinstance(state, list):
        return [state[i] for i in index.tolist()]
    return state.take(index)


def take(index: Tensor, *state: *Ts) -> tuple[*Ts]:
    """Some rows of each state: tensors, lists, NamedTuples, or values that have `take` themselves.

    `index` is a bool mask (N,) or int64 indices, which may repeat.
    """
    if index.dtype == torch.bool:
        index = index.nonzero().flatten()
    return cast("tuple[*Ts]", tuple(_pick(index, part) for part in state))


def put(index: Tensor, into: X, values: X) -> X:
    """`into` with the rows at `index` replaced: tensors (in place) and lists."""
    if isinstance(into, Tensor):
        into[index] = cast("Tensor", values).to(into.dtype)
        return cast("X", into)
    listed, new = cast("list[Any]", into), cast("list[Any]", values)
    for i, value in zip(index.tolist(), new, strict=True):
        listed[i] = value
    return into


def distinct(index: Tensor) -> bool:
    """Whether no entry stands twice: at once for a mask and for ascending indices, by sorting for others."""
    if index.dtype == torch.bool or bool((index[1:] > index[:-1]).all()):
        return True
    return not bool((nth(index) > 0).any())


def nth(ids: Tensor) -> Tensor:
    """How many earlier entries hold the same id: (N,), 0 for the first of each."""
    order = ids.argsort(stable=True)
    ordered = ids[order]
    fresh = torch.ones_like(ordered, dtype=torch.bool)
    fresh[1:] = ordered[1:] != ordered[:-1]
    place = torch.arange(len(ids), device=ids.device)
    first = torch.where(fresh, place, 0).cummax(0).values if len(ids) else place
    rank = torch.empty_like(place)
    rank[order] = place - first
    return rank


# -- random streams ------------------------------------------------------------------------------------
# splitmix64 (Steele, Lea, Flood 2014) on key + count: a counter-based generator, so that a row's numbers
# depend on the seed, its own id and how many it has drawn, and not on the order, pool or worker it runs in.

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_A = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_B = 0x94D049BB133111EB - (1 << 64)


def _shift(word: Tensor, bits: int) -> Tensor:
    return (word >> bits) & ((1 << (64 - bits)) - 1)  # torch shifts int64 arithmetically; we want zeros


def _mix(word: Tensor) -> Tensor:
    word = (word ^ _shift(word, 30)) * _MIX_A
    word = (word ^ _shift(word, 27)) * _MIX_B
    return word ^ _shift(word, 31)


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


@dataclass(frozen=True, slots=True)
class Streams:
    """One counter-based random stream a row. The counts in `drawn` are a run's only random state.

    An id that stands several times (many candidates of one row) draws a different part of the same stream.
    """

    key: Tensor  # (pool,) int64
    drawn: Tensor  # (pool,) int64, shared by every `take`
    ids: Tensor  # (N,) positions in the pool
    repeats: bool = False

    @classmethod
    def start(cls, seed: int, names: Sequence[str], device: torch.device | None = None) -> Streams:
        """Streams of a pool; `names` are the rows' own ids, which with the seed are all that decides."""
        key = torch.tensor([_hashed(f"{seed}|{name}") for name in names], dtype=torch.int64, device=device)
        return cls(key, torch.zeros_like(key), torch.arange(len(names), device=device))

    def take(self, index: Tensor) -> Streams:
        return replace(self, ids=self.ids[index], repeats=self.repeats or not distinct(index))

    def keyed(self, name: str) -> Streams:
        """Fresh streams for one part of an attack: its draws do not depend on what ran before."""
        return replace(self, key=_mix(self.key ^ _hashed(name)), drawn=torch.zeros_like(self.drawn))

    def _words(self, count: int) -> Tensor:
        at = self.drawn[self.ids]
        if self.repeats:
            at = at + nth(self.ids) * count
            self.drawn.index_add_(0, self.ids, torch.full_like(self.ids, count))
        else:
            self.drawn[self.ids] = at + count
        steps = torch.arange(1, count + 1, device=at.device)
        return _mix((at[:, None] + steps) * _GOLDEN + self.key[self.ids][:, None])

    def uniform(self, shape: Sequence[int] = (), dtype: torch.dtype = torch.float32) -> Tensor:
        """(N, *shape) numbers in [0, 1)."""
        count = math.prod(shape)
        if dtype == torch.float64:
            numbers = _shift(self._words(count), 11).to(dtype) * 2.0**-53
        else:  # two of 24 bits from each word
            words = self._words((count + 1) // 2)
            halves = torch.cat([_shift(words, 40), words & 0xFFFFFF], 1)[:, :count]
            numbers = halves.to(dtype) * 2.0**-24
        return numbers.reshape(len(self.ids), *shape)

    def normal(self, shape: Sequence[int] = (), dtype: torch.dtype = torch.float32) -> Tensor:
        """(N, *shape) standard normal numbers (Box and Muller 1958, two from each 64-bit word)."""
        count = math.prod(shape)
        words = self._words((count + 1) // 2)
        radius = (-2 * ((_shift(words, 32) + 1).to(dtype) * 2.0**-32).log()).clamp_min(0).sqrt()
        angle = (words & 0xFFFFFFFF).to(dtype) * (2 * math.pi * 2.0**-32)
        pairs = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)
        return pairs[:, :count].reshape(len(self.ids), *shape)

    def signs(self, shape: Sequence[int] = (), dtype: torch.dtype = torch.float32) -> Tensor:
        """(N, *shape) numbers that are -1 or 1."""
        words = _shift(self._words(math.prod(shape)), 63)
        return (words.to(dtype) * 2 - 1).reshape(len(self.ids), *shape)

    def integers(self, high: Tensor | int, shape: Sequence[int] = ()) -> Tensor:
        """(N, *shape) whole numbers from 0 to `high` - 1; `high` one for all, or shaped to broadcast."""
        return (self.uniform(shape, torch.float64) * high).long()


@dataclass(frozen=True, slots=True)
class Rows(Generic[X, W_co]):
    """The rows under attack, as the attacker knows them.

    ids: (N,) positions in the pool, the only thing the referee believes; x0: the clean inputs;
    goal and within: row-aligned; draw: random streams; starts: the attacker's own samples, or None.
    """

    ids: Tensor
    x0: X
    goal: Goal
    within: W_co
    draw: Streams
    starts: X | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Tensor) -> Rows[X, W_co]:
        """Some of the rows: a mask, or indices that may repeat (many candidates a row)."""
        return Rows(*take(index, self.ids, self.x0, self.goal, self.within, self.draw, self.starts))

    def aim(self, goal: Goal) -> Rows[X, W_co]:
        """The same rows climbing toward another goal; the referee judges by its own."""
        return replace(self, goal=goal)

    def keyed(self, name: str) -> Rows[X, W_co]:
        """The same rows with the random streams of one part of an attack."""
        return replace(self, draw=self.draw.keyed(name))
