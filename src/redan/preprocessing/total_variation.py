"""The smoothest image that agrees with a random half of the pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from redan.errors import SettingError
from redan.preprocessing.total_variation_slope import pulled_back
from redan.preprocessing.transformation import Shape, checked_box, checked_images, from_unit, to_unit

_RATIO = 8.0  # of the primal step to the dual one: numbers are up to 1, their duals up to the weight


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalVariation:
    """Keeps each pixel with probability `keep`, in all channels, and makes up the others by minimizing `objective`.

    Guo et al. 2018 (arXiv:1711.00117, total variance minimization; half of the pixels and weight 0.03). It has the sum
    of squares on the kept pixels, and absolute differences of neighbors one by one, as in the split Bregman solver that
    the published attack broke (github.com/anishathalye/obfuscated-gradients), not norms of whole rows. Solved by
    the primal-dual method of Chambolle and Pock 2011 (algorithm 1), all images at once, in `steps` steps from the mean
    of the kept pixels.

    An attacker averages over draws the gradient that `solution` has, of the answer he was given. Athalye et al. 2018
    (arXiv:1802.00420) climbed the identity, which knows neither what was dropped nor what is smoothed: as cheap, it
    broke fewer rows.

    Raises SettingError for a share, a weight or steps that mean nothing.

    >>> flat = torch.full((1, 1, 4, 4), 0.5)
    >>> bool((TotalVariation()(flat) - flat).abs().max() < 1e-6)
    True
    """

    keep: float = 0.5
    weight: float = 0.03
    steps: int = 100
    bounds: tuple[float, float] = (0.0, 1.0)

    stochastic = True
    differentiable = False
    exact = True

    def __post_init__(self) -> None:
        checked_box(self.bounds)
        if not 0 < self.keep <= 1:
            raise SettingError(
                f"keep is a share of the pixels, above 0 and at most 1, got {self.keep}; it is often 0.5"
            )
        if not self.weight >= 0 or self.steps < 1:
            raise SettingError(
                f"the weight must be 0 or more and the steps 1 or more, got {self.weight} and {self.steps}; the "
                "paper's weight is 0.03"
            )

    def shape(self, image: Shape) -> Shape:
        return image

    def __call__(self, x: Tensor, /) -> Tensor:
        with torch.no_grad():
            return self.stand_in(x)

    def stand_in(self, x: Tensor, /) -> Tensor:
        n, _, height, width = checked_images(x).shape
        kept = (torch.rand(n, 1, height, width) < self.keep).to(x)
        return from_unit(solution(to_unit(x, self.bounds), kept, self.weight, self.steps), self.bounds)


def objective(z: Tensor, x: Tensor, kept: Tensor, weight: float) -> Tensor:
    """‖kept · (z - x)‖² + weight · Σ |differences of neighbors in z|, an image: (N,).

    z, x: (N, C, H, W) in [0, 1]. kept: (N, 1, H, W), 1 where a pixel is kept.
    """
    variation = z.diff(dim=2).abs().flatten(1).sum(1) + z.diff(dim=3).abs().flatten(1).sum(1)
    return (kept * (z - x)).square().flatten(1).sum(1) + weight * variation


def solution(x: Tensor, kept: Tensor, weight: float, steps: int) -> Tensor:
    """`solved`, with the gradient in x that `pulled_back` has."""
    answer: Tensor = _Solution.apply(x, kept, weight, steps)  # type: ignore[no-untyped-call]
    return answer


class _Solution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, weight: float, steps: int) -> Tensor:
        z = solved(x, kept, weight, steps)
        ctx.save_for_backward(z, kept)
        ctx.weight = weight
        return z

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        z, kept = ctx.saved_tensors
        return pulled_back(gradient, z, kept, ctx.weight), None, None, None


def solved(x: Tensor, kept: Tensor, weight: float, steps: int) -> Tensor:
    """What minimizes `objective`, after so many steps: (N, C, H, W)."""
    primal = math.sqrt(_RATIO / 8)  # the two steps times the largest eigenvalue of differences, 8, make 1
    dual = 1 / (8 * primal)
    z = x * kept
    z = z + (1 - kept) * (z.sum((2, 3), keepdim=True) / kept.sum((2, 3), keepdim=True).clamp_min(1))
    down, right = torch.zeros_like(z[:, :, 1:]), torch.zeros_like(z[..., 1:])
    ahead, pull = z, 2 * primal * kept
    for _ in range(steps):
        down = (down + dual * ahead.diff(dim=2)).clamp(-weight, weight)
        right = (right + dual * ahead.diff(dim=3)).clamp(-weight, weight)
        back = z.clone()
        back[:, :, 1:] -= primal * down
        back[:, :, :-1] += primal * down
        back[..., 1:] -= primal * right
        back[..., :-1] += primal * right
        back = (back + pull * x) / (1 + pull)
        z, ahead = back, 2 * back - z
    return z
