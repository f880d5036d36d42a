"""The inner problem of adversarial training: inputs of a high loss, within a ball and the box.

One value has the settings of FGSM, FGSM-RS, N-FGSM and PGD. There is no referee here: training needs neither a verdict
nor a bill, and takes whatever point the last step reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from redan.errors import NoGradientError, SettingError
from redan.hardening.passes import PLAIN, Path
from redan.protocols import Ball, per_row
from redan.rows import Streams

RowLoss = Callable[[Tensor, Tensor], Tensor]
"""(answers (N, K), what is wanted of each row) -> (N,)."""


def cross_entropy(answers: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of logits (N, K) with labels (N,), or with probabilities (N, K): (N,)."""
    return functional.cross_entropy(answers, y, reduction="none")


def divergence(answers: Tensor, probabilities: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the answers' probabilities, from logits (N, K), from given ones (N, K): (N,)."""
    return functional.kl_div(answers.log_softmax(1), probabilities, reduction="none").sum(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What an inner attack may ask of a batch. model: in evaluation mode. wanted: what the loss compares answers with,
    a label or a distribution a row. The attack climbs `loss`."""

    model: nn.Module
    wanted: Tensor
    loss: RowLoss = cross_entropy
    path: Path = PLAIN

    def __call__(self, x: Tensor) -> Tensor:
        """The losses of rows x (N, …): (N,), differentiable."""
        losses: Tensor = self.loss(self.model(x), self.wanted)
        return losses

    def gradient(self, x: Tensor) -> Tensor:
        """The gradient of each row's loss in the row (N, …); none is computed for the weights.

        Raises NoGradientError where the answers do not hang on x.
        """
        x = x.detach().requires_grad_()
        with torch.enable_grad(), self.path.coarse(x):
            with self.path.on():
                total = self(self.path.ordered(x)).sum()  # a copy, so that a model may write into what it is given
            found = torch.autograd.grad(total, x, allow_unused=True)[0] if total.requires_grad else None
        if found is None:
            raise NoGradientError(
                "the model's answers have no gradient in its input, so no attack can climb; harden a model that is "
                "differentiable throughout"
            )
        return found


class Inner(Protocol):
    """An attack on a batch in training."""

    def __call__(self, ask: Ask, x0: Tensor, within: Ball, draw: Streams, /) -> Tensor:
        """Attacked rows (N, …) for clean rows x0; `draw` has a random stream a row."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ascent:
    """Steepest ascent in steps of one size: Madry et al. 2018 (arXiv:1706.06083, eq. 2), and its one-step relatives.

    steps: gradients a row. rate: step size in radii, 2.5 / steps by default (Madry's choice). start: radius of the ball
    that the first point is drawn from, in radii; 0 is the clean input. held: whether every step is projected into the
    ball, as all but N-FGSM do; without it into the box alone. In L1 a step moves one coordinate.

    >>> Ascent(steps=10).rate_in_radii
    0.25
    """

    steps: int = 10
    rate: float | None = None
    start: float = 1.0
    held: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.start < 0 or (self.rate is not None and self.rate <= 0):
            raise SettingError(
                f"an ascent needs steps ≥ 1, rate > 0 and start ≥ 0, got {self.steps}, {self.rate} and {self.start}; "
                "the defaults are 10, 2.5 / steps and 1"
            )

    @property
    def rate_in_radii(self) -> float:
        return 2.5 / self.steps if self.rate is None else self.rate

    def __call__(self, ask: Ask, x0: Tensor, within: Ball, draw: Streams) -> Tensor:
        allowed = within if self.held else within.sized(math.inf)
        step = per_row(self.rate_in_radii * within.radius, x0)
        x = within.sized(self.start * within.radius).sample(x0, draw) if self.start else x0
        for _ in range(self.steps):
            x = allowed.project(x + step * within.steepest(ask.gradient(x)), x0)
        return x


FGSM = Ascent(steps=1, rate=1.0, start=0.0)
"""One step of a radius from the clean input (Goodfellow, Shlens, Szegedy 2015, arXiv:1412.6572, section 4)."""

FGSM_RS = Ascent(steps=1, rate=1.25)
"""One step of 1.25 radii from a random start (Wong, Rice, Kolter 2020, arXiv:2001.03994, algorithm 3)."""

N_FGSM = Ascent(steps=1, rate=1.0, start=2.0, held=False)
"""One step of a radius from noise of two, without projection (de Jorge et al. 2022, arXiv:2202.01181, algorithm 1).

Its points lie up to three radii away.
"""

PGD_7 = Ascent(steps=7)
PGD_10 = Ascent(steps=10)
