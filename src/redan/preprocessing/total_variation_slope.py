"""The slope of total variation: how the smoothest image moves with the pixels that it agrees with.

Where neighbors are equal in it they stay equal, and where there is an edge its height is free. So a flat patch moves as
a whole, by the mean of its kept pixels' moves. That is the derivative of the minimizer wherever it has one, and costs a
few products with differences, where the solver's own steps would have to be kept and gone back through.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EDGE = 0.005  # a difference that is half an edge; 0.003 to 0.01 gave the same directions
_STEPS = 15  # of conjugate gradients; more changed the directions no further


def pulled_back(gradient: Tensor, z: Tensor, kept: Tensor, weight: float) -> Tensor:
    """A gradient in the minimizer z (N, C, H, W) of `objective` as one in the pixels: (N, C, H, W).

    By the implicit function theorem, 2 K H⁻¹ g for K = diag(kept) and the second derivative H = 2 K + Dᵀ W D of the
    objective with each |d| smoothed to √(d² + e²), W = weight · e² / (d² + e²)^1.5 (e: `_EDGE`). H is inverted by
    conjugate gradients with its diagonal. kept: (N, 1, H, W).
    """
    down, right = (_stiffness(z.diff(dim=axis), weight) for axis in (2, 3))
    diagonal = (2 * kept + _gathered(down, right, sign=1)).clamp_min(1e-9)

    def curved(u: Tensor) -> Tensor:
        return 2 * kept * u + _gathered(down * u.diff(dim=2), right * u.diff(dim=3), sign=-1)

    u, rest = torch.zeros_like(gradient), gradient
    scaled = rest / diagonal
    ahead, size = scaled, _inner(rest, scaled)
    for _ in range(_STEPS):
        bent = curved(ahead)
        far = _ratio(size, _inner(ahead, bent))
        u, rest = u + far * ahead, rest - far * bent
        scaled = rest / diagonal
        before, size = size, _inner(rest, scaled)
        ahead = scaled + _ratio(size, before) * ahead
    return 2 * kept * u


def _stiffness(apart: Tensor, weight: float) -> Tensor:
    return weight * _EDGE**2 / (apart.square() + _EDGE**2).pow(1.5)


def _gathered(down: Tensor, right: Tensor, sign: int) -> Tensor:
    """Numbers of pairs of neighbors brought to the later one, and with `sign` to the earlier one: (N, C, H, W)."""
    n, c, _, width = down.shape
    found = down.new_zeros(n, c, right.shape[2], width)
    found[:, :, 1:] += down
    found[:, :, :-1] += sign * down
    found[..., 1:] += right
    found[..., :-1] += sign * right
    return found


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2, 3), keepdim=True)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, 0 where nothing is left of b."""
    return torch.where(b > 0, a / b, 0)
