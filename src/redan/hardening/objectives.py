"""What one step of training minimizes: values that are called with a model and a batch.

Plain           the loss on clean rows
Adversarial     the loss on attacked rows, or a mixture (Goodfellow 2015; Madry 2018)
TRADES          the loss on clean rows, and how far answers move under attack (Zhang 2019)

`redan.hardening.awp` goes around the last two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, Self, TypeGuard

import torch
from torch import Tensor, nn

from redan.errors import SettingError
from redan.hardening.inner import PGD_10, Ascent, Ask, Inner, RowLoss, cross_entropy, divergence
from redan.hardening.passes import PLAIN, Path, served
from redan.protocols import Ball
from redan.rows import Streams

_NEAR = Ascent(steps=10, start=0.05)

Answer = Callable[[Tensor], Tensor]
"""Rows (N, …) to logits (N, K): a module, or one with other weights in it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows x (N, …) with labels y (N,), or probabilities (N, K). draw: a random stream a row. path: how the model
    is asked. done: the share of the training that is over, from 0 to 1, for objectives that change."""

    x: Tensor
    y: Tensor
    draw: Streams
    path: Path = PLAIN
    done: float = 0.0


class Loss(NamedTuple):
    """A batch's loss (), and which of its rows were right, clean and attacked: (N,) bool, None where nobody asked."""

    value: Tensor
    clean: Tensor | None = None
    robust: Tensor | None = None


class Objective(Protocol):
    """What a step of training minimizes."""

    def __call__(self, model: nn.Module, batch: Batch, /) -> Loss: ...


class Armed(Objective, Protocol):
    """An objective with an inner attack. It falls into two parts, so that others can go between them."""

    @property
    def within(self) -> Ball: ...
    @property
    def inner(self) -> Inner: ...

    def armed(self, inner: Inner) -> Self:
        """The same objective with another inner attack."""
        ...

    def attacked(self, model: nn.Module, batch: Batch) -> Tensor:
        """The attacked rows (N, …)."""
        ...

    def loss(self, answer: Answer, batch: Batch, attacked: Tensor) -> Loss:
        """The loss, by a model's answers."""
        ...


def is_armed(objective: Objective) -> TypeGuard[Armed]:
    """Whether an objective has an inner attack."""
    return hasattr(objective, "armed")


def right(answers: Tensor, y: Tensor) -> Tensor:
    """Whether the largest of a row's answers is at its label: (N,) bool."""
    return answers.detach().argmax(1) == (y if y.dim() == 1 else y.argmax(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """Ordinary training: the mean loss on clean rows."""

    row_loss: RowLoss = cross_entropy

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        answers = model(batch.x)
        return Loss(self.row_loss(answers, batch.y).mean(), clean=right(answers, batch.y))


@dataclass(frozen=True, slots=True, kw_only=True)
class Adversarial:
    """α · loss on clean rows + (1 - α) · loss on attacked rows (Goodfellow et al. 2015, arXiv:1412.6572, section 6).

    alpha: 0 trains on attacked rows alone (Madry et al. 2018, arXiv:1706.06083, eq. 2.1); Goodfellow's is 0.5; 1 is
    `Plain`. inner: climbs the loss, on the model in evaluation mode: the function that is attacked is the one that will
    be served, and no statistic of a batch normalization moves (of the two modes in use, Pang et al. 2021,
    arXiv:2010.00467, found this one as robust and more accurate on clean rows).
    """

    within: Ball
    inner: Inner = PGD_10
    alpha: float = 0.0
    row_loss: RowLoss = cross_entropy

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise SettingError(f"alpha must be from 0 (attacked rows) to 1 (clean rows), got {self.alpha}")

    def armed(self, inner: Inner) -> Self:
        return replace(self, inner=inner)

    def attacked(self, model: nn.Module, batch: Batch) -> Tensor:
        if self.alpha == 1:
            return batch.x
        with served(model) as bare:
            ask = Ask(model=bare, wanted=batch.y, loss=self.row_loss, path=batch.path.kept())
            return batch.path.ordered(self.inner(ask, batch.x, self.within, batch.draw).detach())

    def loss(self, answer: Answer, batch: Batch, attacked: Tensor) -> Loss:
        clean = answer(batch.x) if self.alpha > 0 else None
        moved = answer(attacked) if self.alpha < 1 else None
        parts = [
            weight * self.row_loss(answers, batch.y).mean()
            for weight, answers in ((self.alpha, clean), (1 - self.alpha, moved))
            if answers is not None
        ]
        return Loss(torch.stack(parts).sum(), *(None if a is None else right(a, batch.y) for a in (clean, moved)))

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        return self.loss(model, batch, self.attacked(model, batch))


@dataclass(frozen=True, slots=True, kw_only=True)
class TRADES:
    """Loss on clean rows + β · KL(clean answers ‖ attacked answers) (Zhang et al. 2019, arXiv:1901.08573, eq. 5).

    inner: climbs that divergence (algorithm 1); it is 0 at the clean input, so the first point must be another. beta:
    6 is the paper's choice where robustness matters most. As in the authors' code, gradients go through both answers.
    Two deviations: the first point is uniform in a twentieth of the ball, where they add normal noise of 0.001 (as
    much, at their radius of 0.031); and clean rows are answered once a step, where they are answered twice.
    """

    within: Ball
    inner: Inner = _NEAR
    beta: float = 6.0

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise SettingError(f"beta must be 0 or more, got {self.beta}; the paper's are 1 and 6")

    def armed(self, inner: Inner) -> Self:
        return replace(self, inner=inner)

    def attacked(self, model: nn.Module, batch: Batch) -> Tensor:
        with served(model) as bare:
            with torch.no_grad():
                clean = bare(batch.x).softmax(1)
            ask = Ask(model=bare, wanted=clean, loss=divergence, path=batch.path.kept())
            return batch.path.ordered(self.inner(ask, batch.x, self.within, batch.draw).detach())

    def loss(self, answer: Answer, batch: Batch, attacked: Tensor) -> Loss:
        clean = answer(batch.x)
        moved = answer(attacked)
        value = cross_entropy(clean, batch.y).mean() + self.beta * divergence(moved, clean.softmax(1)).mean()
        return Loss(value, right(clean, batch.y), right(moved, batch.y))

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        return self.loss(model, batch, self.attacked(model, batch))
