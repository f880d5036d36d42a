"""Training for a model that will be smoothed: on noisy rows, and on rows that an attack through the noise found.

The model that is trained is the base classifier f. What is served and certified is what it answers most under Gaussian
noise (`redan.certification.smoothing`), and the noise of the training should be that of the service.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from redan.errors import SettingError
from redan.hardening.inner import Ascent, Ask, Inner, RowLoss, cross_entropy
from redan.hardening.objectives import Answer, Batch, Loss, right
from redan.hardening.passes import served
from redan.protocols import Ball
from redan.rows import Streams

_NOISE = "noise"  # the name of a row's stream of noise


def _checked(sigma: float, draws: int) -> None:
    if not (0 <= sigma < math.inf) or draws < 1:
        raise SettingError(
            f"noise needs a finite sigma ≥ 0 and draws ≥ 1, got {sigma} and {draws}; Cohen's are 0.12 to 1, one draw"
        )


def gaussian(x: Tensor, draw: Streams, sigma: float, draws: int = 1) -> Tensor:
    """Noise N(0, σ²) for rows x (N, …): (N, draws, …), the same each time for the same streams."""
    return sigma * draw.keyed(_NOISE).normal((draws, *x.shape[1:]), x.dtype)


def noisy(x: Tensor, noise: Tensor) -> Tensor:
    """Each row under each of its draws of noise (N, M, …): (N · M, …), a row's own beside each other."""
    return (x[:, None] + noise).flatten(0, 1)


def _mean(answers: Tensor, rows: int, draws: int) -> Tensor:
    """The logarithm of each row's mean probabilities (N, K), from logits (N · M, K)."""
    return answers.log_softmax(1).reshape(rows, draws, answers.shape[1]).logsumexp(1) - math.log(draws)


class Through(nn.Module):
    """A model as it looks through fixed noise (N, M, …): the logarithm of its mean probabilities over M draws."""

    def __init__(self, model: nn.Module, noise: Tensor) -> None:
        super().__init__()
        self.model, self.noise = model, noise

    def forward(self, x: Tensor) -> Tensor:
        rows, draws = self.noise.shape[:2]
        return _mean(self.model(noisy(x, self.noise)), rows, draws)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The mean loss on rows with Gaussian noise (Cohen, Rosenfeld, Kolter 2019, arXiv:1902.02918, section 3.3).

    sigma: standard deviation, in units of the box; rows with noise are not cut off at the box, as the smoothed model
    will not cut them off. draws: noisy copies of a row in each step; the paper's is 1. The rows that count as right
    are right under their first draw.
    """

    sigma: float
    draws: int = 1
    row_loss: RowLoss = cross_entropy

    def __post_init__(self) -> None:
        _checked(self.sigma, self.draws)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        answers = model(noisy(batch.x, gaussian(batch.x, batch.draw, self.sigma, self.draws)))
        loss = self.row_loss(answers, batch.y.repeat_interleave(self.draws, 0)).mean()
        return Loss(loss, clean=right(answers[:: self.draws], batch.y))


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothAdv:
    """The mean loss on attacked rows with noise, the attack being one on the smoothed model (Salman et al. 2019,
    arXiv:1906.04584, eq. 6 and pseudocode 1).

    The inner attack climbs -log of the mean probability of the label over `draws` draws, which are fixed while it
    climbs and are those that the model is then trained on, all of them. That is not the mean of their losses: the
    smoothed model is what is attacked. draws: m in the paper, 1 to 8. inner: from the clean row in steps of 2 / steps
    radii, as the authors' do. warm_up: the share of the training in which the radius grows from 0 (theirs is 10 of 150
    epochs); it grows with each step, and theirs with each epoch. The set may be any ball; theirs is L2.
    """

    within: Ball
    sigma: float
    draws: int = 2
    inner: Inner = field(default_factory=lambda: Ascent(steps=4, rate=0.5, start=0.0))
    warm_up: float = 1 / 15

    def __post_init__(self) -> None:
        _checked(self.sigma, self.draws)
        if not 0 <= self.warm_up <= 1:
            raise SettingError(f"warm_up must be a share of the training from 0 to 1, got {self.warm_up}")

    def armed(self, inner: Inner) -> Self:
        return replace(self, inner=inner)

    def attacked(self, model: nn.Module, batch: Batch) -> Tensor:
        grown = min(1.0, batch.done / self.warm_up) if self.warm_up else 1.0
        within = self.within.sized(self.within.radius * grown)
        with served(model) as bare:
            through = Through(bare, gaussian(batch.x, batch.draw, self.sigma, self.draws))
            ask = Ask(model=through, wanted=batch.y, path=batch.path.kept())
            return batch.path.ordered(self.inner(ask, batch.x, within, batch.draw).detach())

    def loss(self, answer: Answer, batch: Batch, attacked: Tensor) -> Loss:
        answers = answer(noisy(attacked, gaussian(batch.x, batch.draw, self.sigma, self.draws)))
        value = functional.cross_entropy(answers, batch.y.repeat_interleave(self.draws, 0))
        return Loss(value, robust=right(_mean(answers.detach(), len(batch.x), self.draws), batch.y))

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        return self.loss(model, batch, self.attacked(model, batch))


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughNoise:
    """An inner attack for `Validation`, by which base classifiers are compared: it climbs through the noise and gives
    the point with one draw of noise more, which it did not see. With it the point may lie
    outside of ball and box.
    """

    sigma: float
    draws: int = 4
    ascent: Inner = field(default_factory=lambda: Ascent(steps=10, rate=0.2, start=0.0))

    def __post_init__(self) -> None:
        _checked(self.sigma, self.draws)

    def __call__(self, ask: Ask, x0: Tensor, within: Ball, draw: Streams) -> Tensor:
        noise = gaussian(x0, draw, self.sigma, self.draws + 1)
        through = replace(ask, model=Through(ask.model, noise[:, 1:]))
        with torch.enable_grad():
            return (self.ascent(through, x0, within, draw) + noise[:, 0]).detach()
