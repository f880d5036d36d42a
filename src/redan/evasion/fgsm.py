"""FGSM, the fast gradient sign method (Goodfellow, Shlens, Szegedy 2015, arXiv:1412.6572, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from redan.evasion.pgd import PGD
from redan.losses import cross_entropy
from redan.protocols import Ball, Cost, Gradients, Loss
from redan.rows import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class FGSM:
    """One step of a whole radius from the clean input, without a random start; in L2 along the gradient itself.

    On a linear model in L∞ it is the exact worst case.

    >>> FGSM().cost(10)
    Cost(queries=2, backwards=1)
    """

    loss: Loss = cross_entropy

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(2, 1)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        PGD(steps=1, rate=1.0, random_start=False, loss=self.loss)(referee, rows)
