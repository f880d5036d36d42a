"""What steps of several attacks share: annealing over a run, and Adam's direction."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from redan.protocols import wide
from redan.rows import Streams

_MEAN, _POWER = 0.9, 0.999  # β₁ and β₂
_TINY = 1e-8


def cosine(first: float, last: float, at: int, steps: int) -> float:
    """From `first` at step 0 toward `last` at step `steps`, along half a cosine (Loshchilov and Hutter 2017).

    >>> cosine(1.0, 0.0, 5, 10)
    0.5
    """
    return last + (first - last) * (1 + math.cos(math.pi * at / steps)) / 2


def peaked(gradient: Tensor) -> Tensor:
    """The gradient ÷ its largest absolute coordinate, so that no square runs under or over; 0 where it is 0."""
    peak = gradient.flatten(1).abs().amax(1)
    return gradient / wide(torch.where(peak > 0, peak, 1), gradient)


class Adam(NamedTuple):
    """Each row's moving means of a gradient and of its square (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1)."""

    mean: Tensor  # (N, …)
    power: Tensor  # (N, …)
    mean_left: Tensor  # β₁ᵏ after k gradients: (N,), in double precision
    power_left: Tensor  # β₂ᵏ

    @classmethod
    def start(cls, like: Tensor) -> Adam:
        """Before the first gradient."""
        ones = like.new_ones(len(like), dtype=torch.float64)
        return cls(torch.zeros_like(like), torch.zeros_like(like), ones, ones)

    def seen(self, gradient: Tensor) -> Adam:
        """After one more gradient."""
        return Adam(
            self.mean.lerp(gradient, 1 - _MEAN),
            (self.power * _POWER).addcmul_(gradient, gradient, value=1 - _POWER),
            self.mean_left * _MEAN,
            self.power_left * _POWER,
        )

    def scale(self) -> Tensor:
        """The root of the mean square of each coordinate."""
        seen = wide((1 - self.power_left).sqrt().to(self.power.dtype), self.power)
        return self.power.sqrt().div_(seen).add_(_TINY)

    def direction(self) -> Tensor:
        """The mean in units of `scale`."""
        return (self.mean / self.scale()).div_(wide((1 - self.mean_left).to(self.mean.dtype), self.mean))


def climbable(gradient: Tensor, draw: Streams) -> Tensor:
    """The gradient, or Gaussian noise of the row's own stream where it is 0."""
    still = (gradient == 0).flatten(1).all(1)
    if not bool(still.any()):
        return gradient
    noise = draw.take(still).normal(gradient.shape[1:], gradient.dtype)
    return gradient.index_put((still,), noise)
