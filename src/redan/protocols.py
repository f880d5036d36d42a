"""The verbs an attack may use, and what they answer. An attack's signature says which it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum, IntEnum, auto
from typing import (
    Any,
    Generic,
    NamedTuple,
    Protocol,
    Self,
    TypeGuard,
    TypeVar,
    TypeVarTuple,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
from torch import Tensor, nn

from redan.rows import PerturbationSet, Rows

X = TypeVar("X")
W = TypeVar("W", bound=PerturbationSet[Any])
Ts = TypeVarTuple("Ts")
R_contra = TypeVar("R_contra", contravariant=True)
Q_contra = TypeVar("Q_contra", contravariant=True)

Loss = Callable[[Tensor, Any], Tensor]
"""(output (N, K), goal) -> (N,), larger is nearer the goal; or (N, K) for a gradient per class."""


class Access(IntEnum):
    """What a target answers, or an attacker may ask; each level includes those below."""

    LABELS = 1
    SCORES = 2
    GRADIENTS = 3


class Output(Enum):
    """What the model's numbers are."""

    LOGITS = auto()
    PROBABILITIES = auto()
    """Of classes that exclude each other: after a softmax, or one number after a sigmoid for the second of two."""
    SIGMOIDS = auto()
    """Of labels that do not exclude each other: after a sigmoid each."""
    LABELS = auto()
    """Class numbers (N,), or a 0 or 1 a label (N, L)."""
    VALUE = auto()
    """One number a row: regression."""


class Bounded(PerturbationSet[Tensor], Protocol):
    """A set of tensors around x0 that has a size and a box: what a run needs to know of it."""

    @property
    def radius(self) -> float | Tensor:
        """One for all rows, or (N,)."""
        ...

    @property
    def bounds(self) -> tuple[float, float]:
        """The box that every input lies in."""
        ...

    def sized(self, radius: float | Tensor) -> Self:
        """The same set with another radius."""
        ...

    def inside(self, bounds: tuple[float, float]) -> Self:
        """The same set in another box."""
        ...


class Ball(Bounded, Protocol):
    """A set that has a geometry: everything gradient attacks need to know of a norm."""

    def project(self, x: Tensor, x0: Tensor) -> Tensor:
        """The nearest point of the set, or a named retraction onto it."""
        ...

    def steepest(self, gradient: Tensor) -> Tensor:
        """The step of size 1 in the set's norm that climbs fastest."""
        ...

    def sample(self, x0: Tensor, draw: Any) -> Tensor:
        """A random point of the set for each row."""
        ...


def is_ball(within: Bounded) -> TypeGuard[Ball]:
    """Whether a set has a norm's geometry."""
    return hasattr(within, "project")


class Reply(NamedTuple):
    """What one gradient query answers, row by row."""

    gradient: Tensor
    loss: Tensor
    reached: Tensor


class Best(NamedTuple, Generic[X]):
    """The nearest candidate so far that reached the goal, inside the set or not; x0 and inf where none did."""

    x: X
    distance: Tensor


class Labels(Protocol[X]):
    """An attacker who sees only decisions. x[i] is a candidate for the row rows.ids[i]."""

    def reached(self, x: X, rows: Rows[X, Any]) -> Tensor:
        """Whether each candidate reached the goal, inside the set or not: (N,) bool."""
        ...

    def best(self, rows: Rows[X, Any]) -> Best[X]:
        """The nearest candidate that reached the goal, and its distance."""
        ...

    def survivors(self, rows: Rows[X, W], *state: *Ts) -> tuple[Rows[X, W], *Ts]:
        """Rows still worth attacking, with any row-aligned state; the same objects if nothing was decided."""
        ...


class Scores(Labels[X], Protocol[X]):
    """An attacker who sees the model's output."""

    def scores(self, x: X, rows: Rows[X, Any]) -> Tensor:
        """The model's answers as the goal reads them, a score for each outcome: (N, K)."""
        ...


class Gradients(Scores[X], Protocol[X]):
    """An attacker who holds the model itself."""

    def gradient(self, x: X, rows: Rows[X, Any], loss: Loss) -> Reply:
        """Gradient of the loss in x, the loss, and whether x reached the goal, from one pass."""
        ...


class Attack(Protocol[R_contra, Q_contra]):
    """A value called with a referee and rows. It returns nothing: the referee saw all it did."""

    def __call__(self, referee: R_contra, rows: Q_contra, /) -> None: ...


def per_row(value: float | Tensor, like: Tensor) -> float | Tensor:
    """A number a row (N,), shaped to multiply `like` (N, …); a plain number stays one."""
    return wide(value.to(like.dtype), like) if isinstance(value, Tensor) and value.dim() else value


def wide(value: Tensor, like: Tensor) -> Tensor:
    """One entry a row (N,), shaped to broadcast against `like` (N, …)."""
    return value.reshape(-1, *[1] * (like.dim() - 1))


class Cost(NamedTuple):
    """The most that an attack can spend on one row."""

    queries: int
    backwards: int

    def __add__(self, other: object) -> Cost:
        if not isinstance(other, Cost):
            return NotImplemented
        return Cost(self.queries + other.queries, self.backwards + other.backwards)

    def times(self, count: int) -> Cost:
        """The cost of so many runs."""
        return Cost(self.queries * count, self.backwards * count)


class Needs(NamedTuple):
    """What an attack's signature asks for: the least access, and the kind of set it moves in."""

    access: Access
    within: type[Any]


_SHOWN = 64  # parts of a tuple that settings name: a value may hold the names of 60,000 rows
_VERBS: dict[Any, Access] = {Labels: Access.LABELS, Scores: Access.SCORES, Gradients: Access.GRADIENTS}


def needs(attack: Attack[Any, Any]) -> Needs:
    """What an attack needs, read from the annotations of its `__call__`; a composite needs what its parts need."""
    parts = [needs(part) for part in getattr(attack, "parts", ())]
    hints = list(get_type_hints(type(attack).__call__).values())
    access = next((_VERBS[get_origin(h) or h] for h in hints if (get_origin(h) or h) in _VERBS), Access.LABELS)
    sets = [get_args(h)[1] for h in hints if get_origin(h) is Rows]
    kind = next((s for s in sets if isinstance(s, type) and s is not Any), Ball)
    kinds = [kind, *(part.within for part in parts)]
    return Needs(max([access, *(part.access for part in parts)]), next((k for k in kinds if k is not Ball), Ball))


def cost(attack: Attack[Any, Any], classes: int, eot: int = 1) -> Cost | None:
    """The most that an attack can spend on one row of a model with so many classes; None if it does not say.

    eot: draws of a stochastic model that each gradient is averaged over.
    """
    tell = getattr(attack, "cost", None)
    most: Cost | None = None if tell is None else tell(classes)
    return most.times(eot) if most is not None and most.backwards else most


def in_turn(attacks: Sequence[Attack[Any, Any]]) -> list[tuple[str, Attack[Any, Any]]]:
    """Attacks with a name each: the class's, numbered from its second appearance on."""
    seen: Counter[str] = Counter()
    named = []
    for attack in attacks:
        name = type(attack).__name__
        seen[name] += 1
        named.append((name if seen[name] == 1 else f"{name}.{seen[name]}", attack))
    return named


def settings(value: object) -> str:
    """A frozen value with its fields, functions by their names: the same text in every process.

    >>> settings(len)
    'len'
    """
    if is_dataclass(value) and not isinstance(value, type):
        inner = ", ".join(f"{f.name}={settings(getattr(value, f.name))}" for f in fields(value) if f.repr)
        return f"{type(value).__name__}({inner})"
    if isinstance(value, tuple | list):
        more = f", … {len(value)} in all" if len(value) > _SHOWN else ""
        return f"({', '.join(settings(part) for part in value[:_SHOWN])}{more})"
    if isinstance(value, Tensor | np.ndarray) and value.ndim:
        return f"{type(value).__name__} {tuple(value.shape)}"
    if isinstance(value, nn.Module):
        return type(value).__name__
    return str(getattr(value, "__qualname__", None) or repr(value))
