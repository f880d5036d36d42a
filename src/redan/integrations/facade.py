"""The model as another library's attack meets it: a module that asks a referee, forward and backward.

Its forward asks `referee.scores`, its backward `referee.gradient`, for the vector-Jacobian product with the very
cotangent that the caller's own loss sent back: the caller climbs exactly as it does on the bare model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from redan.errors import SetError, SettingError
from redan.protocols import Access
from redan.rows import Goal, Rows, take


class Over(BaseException):
    """No row is left: ends a peer from within its own call, past any `except Exception` of its own."""


class Unaligned(BaseException):
    """The peer asked about another number of rows than it was given; it is run on each row alone instead."""


class Victim(Protocol):
    """A model that a peer may differentiate: its scores, and what pulls a cotangent back to the input."""

    def opened(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Scores (N, K) of x (N, …), and the function from a cotangent (N, K) to the gradient (N, …)."""
        ...


class Pulled(torch.autograd.Function):
    """Hands a victim's own gradient to autograd: first order, in the input alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, victim: Victim) -> Tensor:
        scores, ctx.pull = victim.opened(x.detach())
        return scores

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, None]:
        return ctx.pull(weight), None


@dataclass(frozen=True, slots=True)
class Cotangent:
    """Another goal, climbed along a weighted sum of its scores: weight (N, K)."""

    goal: Goal
    weight: Tensor = field(repr=False)

    def right(self, output: Tensor) -> Tensor:
        return self.goal.right(output)

    def reached(self, output: Tensor) -> Tensor:
        return self.goal.reached(output)

    def scores(self, output: Tensor) -> Tensor:
        return self.goal.scores(output)

    def loss(self, output: Tensor) -> Tensor:
        return weighted(self.scores(output), self)

    def ways(self, output: Tensor, most: int) -> Sequence[Goal]:  # noqa: ARG002
        return [self]

    def take(self, index: Tensor) -> Self:
        return replace(self, goal=self.goal.take(index), weight=take(index, self.weight)[0])


def weighted(scores: Tensor, goal: Cotangent) -> Tensor:
    """The loss whose gradient is the vector-Jacobian product with the goal's weight: (N,)."""
    return (scores * goal.weight).sum(1)


class Aimed(NamedTuple):
    """What a peer is told of the goal: the class (the outcome, for labels and values) to leave, or to reach."""

    label: Tensor  # (N,)
    truth: Tensor  # (N,)
    targeted: bool


def aimed(goal: Goal) -> Aimed:
    """The goal in the peers' words. Raises SettingError for a goal that has no label to leave or reach."""
    label, sign = getattr(goal, "label", None), getattr(goal, "sign", None)
    if label is None or sign is None:
        raise SettingError(
            f"other libraries' attacks leave or reach a class, and the goal is {type(goal).__name__}; use redan's own "
            "attacks for it"
        )
    return Aimed(label, getattr(goal, "truth", label), sign < 0)


class Facade(nn.Module):
    """What a peer is given for the model: scores (N, K) of inputs (N, …), differentiable where access is gradients.

    With access to labels the answers are decisions: 1 for the class that the row is in as far as the attacker can
    tell (its own, or another), -1 elsewhere.
    """

    def __init__(self, referee: Any, rows: Rows[Tensor, Any], access: Access) -> None:
        super().__init__()
        self.referee, self.rows, self.access = referee, rows, access
        self._last: Tensor | None = None  # each row's latest scores (rows, K)
        # Peers look for a parameter to find the device.
        self.device_of = nn.Parameter(torch.empty(0, dtype=rows.x0.dtype, device=rows.x0.device), requires_grad=False)
        self.eval()

    @property
    def classes(self) -> int:
        """K. With access to more than labels it is asked for once, on the clean inputs, if nothing was asked yet."""
        if self.access is Access.LABELS:
            aim = aimed(self.rows.goal)
            return max(3, int(torch.stack([aim.label, aim.truth]).max()) + 1)  # some of ART's refuse two
        if self._last is None:
            self.opened(self.rows.x0)
        assert self._last is not None  # noqa: S101  # opened sets it, or raises
        return self._last.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        shown = x.to(self.rows.x0.dtype)
        if self.access is Access.GRADIENTS and shown.requires_grad and torch.is_grad_enabled():
            scores: Tensor = Pulled.apply(shown, self)  # type: ignore[no-untyped-call]  # torch does not type it
            return scores
        return self.opened(shown.detach())[0]

    def opened(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        owner = self._owners(x)
        if not len(x):
            return x.new_zeros(0, self.classes), lambda weight: torch.zeros_like(x)  # noqa: ARG005
        rows = self.rows if len(self.rows) > 1 else self.rows.take(owner)
        left, shown, at = self.referee.survivors(rows, x, torch.arange(len(x), device=x.device))
        if not len(left):
            raise Over
        found = self._decisions(shown, left) if self.access is Access.LABELS else self.referee.scores(shown, left)
        if self._last is None:
            self._last = found.new_zeros(len(self.rows), found.shape[1])
        scores = self._last[owner]
        scores[at] = torch.where(found.isnan(), scores[at], found)
        self._last = scores if len(self.rows) > 1 else scores[-1:]

        def pull(weight: Tensor) -> Tensor:
            gradient = torch.zeros_like(x)
            left, shown, cotangent, at = self.referee.survivors(
                rows, x, weight.detach().contiguous(), torch.arange(len(x), device=x.device)
            )
            if len(left):
                along = left.aim(Cotangent(left.goal, cotangent))
                gradient[at] = self.referee.gradient(shown, along, weighted).gradient
            return gradient

        return scores, pull

    def _owners(self, x: Tensor) -> Tensor:
        """The row, by its place, that each input is a candidate for."""
        if x.shape[1:] != self.rows.x0.shape[1:]:
            raise SetError(
                f"the attack asked about inputs of the shape {tuple(x.shape[1:])} where the rows have "
                f"{tuple(self.rows.x0.shape[1:])}; it wants other inputs (often images alone), so choose another"
            )
        if len(self.rows) == 1:
            return torch.zeros(len(x), dtype=torch.int64, device=x.device)
        if len(x) != len(self.rows):
            raise Unaligned
        return torch.arange(len(x), device=x.device)

    def _decisions(self, x: Tensor, rows: Rows[Tensor, Any]) -> Tensor:
        reached, aim, classes = self.referee.reached(x, rows), aimed(rows.goal), self.classes
        other = (aim.truth + 1) % classes  # some class that is not the right one
        seen = torch.where(reached, aim.label if aim.targeted else other, aim.truth)
        return 2 * nn.functional.one_hot(seen, classes).to(x.dtype) - 1
