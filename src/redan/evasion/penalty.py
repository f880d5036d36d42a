"""What penalty attacks share: a search over the weight of the loss in each row, and the box by tanh.

They minimize distance + c · loss for one c a row after another (Szegedy et al. 2014, arXiv:1312.6199; Carlini and
Wagner 2017, arXiv:1608.04644).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_RISE, _FALL = 32.0, 8.0  # of the weight, while nothing succeeded yet, and while nothing failed
_SLACK = 0.8  # of (-1, 1) that the box takes up in the space of tanh


class Search(NamedTuple):
    """Each row's bracket of c, the weight of the loss: (N,) each."""

    weight: Tensor  # tried now
    low: Tensor  # the largest that failed; 0 if none did
    high: Tensor  # the smallest that succeeded; inf if none did


def balanced(loss: Tensor, gradient: Tensor, scale: float, fallback: float) -> Tensor:
    """`scale` times the weight at which the nearest success of a linear loss is stationary: (N,).

    With value f and gradient g at x0 that is at ‖δ‖ = |f| / ‖g‖, and 2 ‖δ‖ = c ‖g‖ there: c = 2 |f| / ‖g‖². So the
    search does not depend on the scale of scores and inputs. `fallback` where the gradient is 0.
    """
    flat = gradient.flatten(1)
    power = torch.linalg.vecdot(flat, flat)
    return torch.where((power > 0) & (loss != 0), scale * 2 * loss.abs() / power, fallback)


def opened(weight: Tensor) -> Search:
    """A search that has tried nothing yet."""
    return Search(weight, torch.zeros_like(weight), torch.full_like(weight, torch.inf))


def narrowed(search: Search, hit: Tensor) -> Search:
    """The next weight after the present one succeeded, or did not: (N,) bool.

    The middle of the bracket is the geometric one. An open end is left by a factor of 32 upward and 8 downward: on the
    residual sample model 8 in both directions left rows unbroken, and others farther away. The authors take the
    arithmetic mean and 10; since the lower end starts at 0, they come down by halves.
    """
    low, high = torch.where(hit, search.low, search.weight), torch.where(hit, search.weight, search.high)
    one_end = torch.where(high.isinf(), low * _RISE, high / _FALL)
    return Search(torch.where((low > 0) & high.isfinite(), low.sqrt() * high.sqrt(), one_end), low, high)


class Room(NamedTuple):
    """Inputs by free coordinates w: x = x0 + (tanh w - origin) · half the box's width, (N, …) each.

    The origin is tanh w at x0. The box takes up 4/5 of (-1, 1), and x is cut at its faces. The authors' box takes up
    all but a millionth, where tanh is so flat that black and white pixels hardly move in a few hundred steps; and the
    start is x0 itself here, not its rounded image.
    """

    w: Tensor
    origin: Tensor


def roomy(x0: Tensor, bounds: tuple[float, float]) -> Room:
    """Where x0 is."""
    low, high = bounds
    origin = (x0 - (low + high) / 2) * (2 * _SLACK / (high - low))
    # log, unlike atanh, gives the same bits wherever a number stands in a tensor
    return Room(((1 + origin) / (1 - origin)).log() / 2, origin)


def placed(room: Room, x0: Tensor, bounds: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The input x (N, …) in the box, and the slope of x in w but for the box's half width."""
    low, high = bounds
    tanh = room.w.tanh()
    x = torch.add(x0, tanh - room.origin, alpha=(high - low) / 2).clamp_(low, high)
    return x, torch.addcmul(torch.ones_like(tanh), tanh, tanh, value=-1)
