"""EAD, the elastic-net attack (Chen et al. 2018, arXiv:1709.04114): sparse minimum-norm changes by FISTA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from redan.evasion.penalty import Search, balanced, narrowed, opened
from redan.losses import margin
from redan.perturbations.sparse import L1
from redan.protocols import Cost, Gradients, wide
from redan.rows import Rows

_MOMENTUM = 0.8  # of FISTA's own


class _Descent(NamedTuple):
    """Each row's state."""

    y: Tensor  # where the gradient is asked for: x ahead of itself
    x: Tensor
    search: Search
    hit: Tensor  # (N,) bool, in the present search
    nearest: Tensor  # L1 distance of the nearest success: (N,)
    there: Tensor  # that success: (N, …)


def shrunk(x: Tensor, x0: Tensor, threshold: float, bounds: tuple[float, float]) -> Tensor:
    """Every change brought nearer to 0 by the threshold, then cut by the box (S_β, equation 5)."""
    change = x - x0
    return (x0 + (change - change.clamp(-threshold, threshold))).clamp_(*bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class EAD:
    """Minimum L1 norm: FISTA on β ‖x - x0‖₁ + ‖x - x0‖² + c · max(κ - margin, 0), with a search over c in each row.

    searches: values of c a row; steps: gradient queries for each. rate: FISTA's first step, which falls
    linearly to 0 (the authors': with the root of the steps left). beta: β, in the box's width. weight: the first c, in
    multiples of the one that balances squared distance and loss at x0. confidence: κ, in scores. The nearest success is
    the one of smallest L1 norm (the authors' decision rule L1).

    Deviations from the authors' code: the soft threshold is the proximal operator's, step · β (theirs is β, so that
    its weight depends on the step); FISTA's momentum is cut to 0.8 of itself, for the hinge has a kink;
    successes are looked for at y alone, which the gradient needs, and not at x too,
    which costs one more query a step; c starts at the scale of each row's gradient and moves geometrically; a search
    starts at the nearest success so far. Their early end of a stalled search is left out, as in `CarliniWagnerL2`.

    >>> EAD(searches=3, steps=100).cost(10)
    Cost(queries=300, backwards=300)
    """

    searches: int = 9
    steps: int = 200
    rate: float = 0.02
    beta: float = 1.5
    weight: float = 256.0
    confidence: float = 0.0

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.searches * self.steps, self.searches * self.steps)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, L1]) -> None:
        bounds, width = rows.within.bounds, rows.within.bounds[1] - rows.within.bounds[0]
        ones = rows.x0.new_ones(len(rows))
        at = _Descent(rows.x0, rows.x0, opened(ones), ones < 0, ones * torch.inf, rows.x0)
        for query in range(self.searches * self.steps):
            step = query % self.steps
            if query and not step:
                start = torch.where(wide(at.nearest.isfinite(), at.there), at.there, at.x)
                at = at._replace(y=start, x=start, search=narrowed(at.search, at.hit), hit=torch.zeros_like(at.hit))
            reply = referee.gradient(at.y, rows, margin)
            rows, at, reply = referee.survivors(rows, at, reply)
            if not len(rows):
                return
            if not query:
                at = at._replace(search=opened(balanced(reply.loss, reply.gradient, self.weight, width**2)))
            change = at.y - rows.x0
            hit, distance = reply.loss > self.confidence, change.abs().flatten(1).sum(1)
            nearer = hit & (distance < at.nearest)
            pressed = torch.where(reply.loss <= self.confidence, at.search.weight, 0)
            gradient = torch.addcmul(change * 2, reply.gradient, wide(pressed, change), value=-1)
            rate = self.rate * (1 - step / self.steps)
            x = shrunk(at.y - rate * gradient, rows.x0, rate * self.beta * width, bounds)
            at = _Descent(
                y=torch.add(x, x - at.x, alpha=_MOMENTUM * step / (step + 3)).clamp_(*bounds),
                x=x,
                search=at.search,
                hit=at.hit | hit,
                nearest=torch.where(nearer, distance, at.nearest),
                there=torch.where(wide(nearer, x), at.y, at.there),
            )
