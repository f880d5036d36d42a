"""The inputs around one row that a certificate speaks of, and the least value of a linear function on them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from redan.certification.rounding import OWN, unit
from redan.certification.steps import Interval, dot
from redan.certification.windows import Place, cut
from redan.errors import SetError
from redan.perturbations.balls import ULPS, rounding
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L1
from redan.protocols import Bounded

_DUAL = {Linf: 1.0, L2: 2.0, L1: math.inf}


@dataclass(frozen=True, slots=True)
class Region:
    """A box (1, …), and inside it a ball around the middle `x0` whose dual norm is `dual`."""

    interval: Interval
    x0: Tensor
    radius: float
    dual: float

    def least(self, a: Tensor, window: Place | None = None) -> tuple[Tensor, Tensor]:
        """A lower bound of a · x over the region for each a (S, …), and the size of what it sums: (S,) each.

        Over the box, or over the ball by Hölder's inequality, whichever says more. window: where a's numbers are, if
        not everywhere.
        """
        least, size = self.interval.least(a, window)
        if self.dual == 1 or not math.isfinite(self.radius):
            return least, size
        moved = self.radius * torch.linalg.vector_norm(a.flatten(1), ord=self.dual, dim=1)
        return torch.maximum(least, dot(a, cut(self.x0, window)) - moved), size + moved


def region(x: Tensor, within: Bounded, radius: float) -> Region:
    """The region around one row x (1, …), as wide as `within.contains` allows in the type of x, rounding included.

    radius: the row's own. Raises SetError for a set that is no L∞, L2 or L1 ball.
    """
    kind = type(within)
    if kind not in _DUAL:
        raise SetError(f"there are no certificates for {kind.__name__}; choose Linf, L2 or L1")
    count, u = math.prod(x.shape[1:]), unit(x.dtype)
    share = {Linf: 1.0, L2: math.sqrt(count), L1: float(count)}[kind]
    allowed = radius * (1 + 4 * ULPS * u) + share * rounding(x, within.bounds)
    allowed *= 1 + (4 + (0 if kind is Linf else count)) * 2 * u  # the distance was itself summed in x's type
    ends = torch.tensor(within.bounds, dtype=x.dtype).double().tolist()
    bottom, top = min(ends[0], within.bounds[0]), max(ends[1], within.bounds[1])
    x0 = x.to(OWN)
    wide = allowed * (1 + 1e-15) + 4 * unit(OWN) * float(x0.abs().amax())
    interval = Interval((x0 - wide).clamp_min(bottom), (x0 + wide).clamp_max(top))
    return Region(interval, x0, wide, _DUAL[kind])
