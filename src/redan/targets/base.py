"""What every target is: a function from inputs to scores that says what it is."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from typing import Any, NamedTuple, Protocol, TypeGuard, TypeVar, cast

import torch
from torch import Tensor

from redan.errors import SettingError
from redan.protocols import Access, Output
from redan.wire.ledger import Ledger

__all__ = ["Asked", "Output", "Remote", "Target", "checked_bounds", "declared", "is_remote", "its", "shown_by"]

X_contra = TypeVar("X_contra", contravariant=True)


class Asked(NamedTuple):
    """What a remote model answered to N rows, each asked once."""

    scores: Tensor  # (N, K), NaN in rows that got no answer
    reasons: dict[int, str]  # position -> why there is none


class Target(Protocol[X_contra]):
    """A model as served. A wrapper (preprocessing, an ensemble, a detector) is a target again."""

    @property
    def access(self) -> Access:
        """The most that it answers."""
        ...

    @property
    def output(self) -> Output:
        """What the wrapped model's numbers are; the target itself always answers on the scale of logits."""
        ...

    @property
    def bounds(self) -> tuple[float, float]:
        """The box that inputs live in, before any normalization."""
        ...

    @property
    def classes(self) -> int | None:
        """K, or None until the first answer."""
        ...

    @property
    def stochastic(self) -> bool:
        """Whether the same input may get different answers."""
        ...

    @property
    def differentiable(self) -> bool:
        """Whether gradients flow from the answer to the input."""
        ...

    @property
    def surrogate(self) -> bool:
        """Whether the backward pass is a stand-in for the true one (BPDA)."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The type inputs must have."""
        ...

    @property
    def device(self) -> torch.device:
        """Where inputs must lie."""
        ...

    def __call__(self, x: X_contra, /) -> Tensor:
        """Scores (N, K), differentiable in x where access is gradients."""
        ...


class Remote(Target[Tensor], Protocol):
    """A target whose every answer is a call that somebody counts: no row is asked twice, none for company.

    It does several calls at once by itself, so blocks of rows are worked on one after another.
    """

    def asked(self, x: Tensor) -> Asked:
        """The answers to x (N, …), each row asked once; rows without an answer say why."""
        ...

    @property
    def ledger(self) -> Ledger:
        """Where every call is written down before it is made."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What was recognised of its answers, in sentences."""
        ...

    def close(self) -> None:
        """Let the connections and the ledger's file go."""
        ...


def is_remote(target: Target[Tensor]) -> TypeGuard[Remote]:
    """Whether each answer of a target is a call."""
    return hasattr(target, "asked")


def checked_bounds(bounds: tuple[float, float]) -> tuple[float, float]:
    """The box of a target's inputs. Raises SettingError unless it has a width."""
    if not bounds[0] < bounds[1]:
        raise SettingError(f"bounds must be (low, high) with low < high, got {bounds}; images are often (0, 1)")
    return float(bounds[0]), float(bounds[1])


def shown_by(output: Output) -> Access:
    """What a model that is only asked shows: its labels, or its scores."""
    return Access.LABELS if output is Output.LABELS else Access.SCORES


def its(name: str) -> Any:
    """A property of a wrapper that is its inner target's: `bounds = its("bounds")`."""
    return property(attrgetter(f"target.{name}"))


def declared(target: Target[Tensor], *, stochastic: bool) -> Target[Tensor]:
    """The target, said to answer the same input alike or not; a wrapper says it of what it wraps, be it several."""
    inner: Target[Tensor] | None = getattr(target, "target", None)
    several: tuple[Target[Tensor], ...] | None = getattr(target, "members", None)
    changed: dict[str, object] = {"stochastic": stochastic}
    if inner is not None:
        changed = {"target": declared(inner, stochastic=stochastic)}
    elif several is not None:
        changed = {"members": tuple(declared(member, stochastic=stochastic) for member in several)}
    found: Target[Tensor] = replace(cast("Any", target), **changed)
    return found
