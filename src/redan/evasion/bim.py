"""BIM, the basic iterative method (Kurakin, Goodfellow, Bengio 2017, arXiv:1607.02533, section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from redan.evasion.pgd import PGD
from redan.losses import cross_entropy
from redan.protocols import Ball, Cost, Gradients, Loss
from redan.rows import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class BIM:
    """FGSM in small steps from the clean input: PGD without a random start.

    steps: gradient queries a row; one more query judges the last iterate. rate: step size in radii; the default
    is 1 / steps, so that the last step can just reach the edge of the set.

    >>> BIM(steps=10).cost(10).queries
    11
    """

    steps: int = 10
    rate: float | None = None
    loss: Loss = cross_entropy

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.steps + 1, self.steps)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        rate = 1 / max(1, self.steps) if self.rate is None else self.rate
        PGD(steps=self.steps, rate=rate, random_start=False, loss=self.loss)(referee, rows)
