"""MI-FGSM (Dong et al. 2018, arXiv:1710.06081, algorithm 1) and its line: momentum, and treatments of the gradient.

Steps along a decaying sum of gradients leave the poor local maxima in which BIM gets stuck, which belong to one model;
so what they find carries over to others. Its successors change which gradient is summed, and combine:

    MI-FGSM       MomentumFGSM()
    NI-FGSM       MomentumFGSM(nesterov=True)                         Lin et al. 2020, arXiv:1908.06281
    SI-NI-FGSM    MomentumFGSM(nesterov=True, treatments=(Scaled(),))
    M-DI²-FGSM    MomentumFGSM(treatments=(Diverse(),))               Xie et al. 2019, arXiv:1803.06978
    TI-MI-FGSM    MomentumFGSM(treatments=(Translated(),))            Dong et al. 2019, arXiv:1904.02884
    VMI-FGSM      MomentumFGSM(variance=Variance())                   Wang and He 2021, arXiv:2103.15571
    VNI-FGSM      MomentumFGSM(nesterov=True, variance=Variance())
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from redan.evasion.pgd import climb
from redan.evasion.treatments import Treatment, Variance, treated
from redan.losses import cross_entropy
from redan.protocols import Ball, Cost, Gradients, Loss, wide
from redan.rows import Rows


def _normalized(gradient: Tensor) -> Tensor:
    """g / ‖g‖₁; 0 where the gradient is 0."""
    length = gradient.flatten(1).abs().sum(1)
    return gradient / wide(torch.where(length > 0, length, 1), gradient)


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentumFGSM:
    """BIM along a decaying sum of normalized gradients.

    steps: of the climb; one more query judges the last iterate. rate: step size in radii, 2.5 / steps by default, as in
    PGD. The authors' 1 / steps (section 4.1) just reaches the ball's surface, and carries over worse: of 300 images at
    ε 0.1 it broke 74 of the natural network's with gradients of the residual one's, and 2.5 / steps 88 (variance-tuned
    189 and 201, translated and diverse 106 and 140). decay: μ; 0 is BIM. nesterov: take the gradient where the
    momentum alone would lead. treatments: of every gradient, the first outermost. variance: tuning by the gradients
    around x, or None.

    The Nesterov point is the projected step along the momentum, a candidate itself; the authors' α · μ · g may lie
    outside ball and box, and its length depends on how g is normalized.

    >>> from redan.evasion.treatments import Diverse, Scaled
    >>> MomentumFGSM(steps=10, treatments=(Diverse(), Scaled(copies=5))).cost(10).queries
    51
    """

    steps: int = 10
    decay: float = 1.0
    rate: float | None = None
    nesterov: bool = False
    treatments: tuple[Treatment, ...] = ()
    variance: Variance | None = None
    loss: Loss = cross_entropy

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        tuned = 0 if self.variance is None else self.variance.copies * max(0, self.steps - 1)
        gradients = (self.steps + tuned) * math.prod(each.queries for each in self.treatments)
        return Cost(gradients + 1, gradients)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        def plain(x: Tensor, rows: Rows[Tensor, Ball]) -> Tensor:
            return referee.gradient(x, rows, self.loss).gradient

        ask = treated(plain, self.treatments)
        rate = 2.5 / max(1, self.steps) if self.rate is None else self.rate
        x, momentum, off = rows.x0, torch.zeros_like(rows.x0), torch.zeros_like(rows.x0)
        for left in reversed(range(self.steps)):
            gradient = ask(climb(x, momentum, self.decay * rate, rows) if self.nesterov else x, rows)
            rows, x, momentum, off, gradient = referee.survivors(rows, x, momentum, off, gradient)
            momentum = self.decay * momentum + _normalized(gradient + off)
            if self.variance is not None and left:
                off = self.variance.off(ask, x, gradient, rows)
                rows, x, momentum, off = referee.survivors(rows, x, momentum, off)
            x = climb(x, momentum, rate, rows)
        referee.reached(x, rows)
