"""Fewer bits a number."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from redan.errors import SettingError
from redan.preprocessing.rounding import nearly_rounded
from redan.preprocessing.transformation import Shape, checked_box, checked_images, from_unit, to_unit


@dataclass(frozen=True, slots=True, kw_only=True)
class BitDepth:
    """Rounds each number to one of 2 ** bits levels of the box, its ends among them.

    Xu, Evans and Qi 2018 (arXiv:1704.01155): round(x (2^b - 1)) / (2^b - 1), halves to the even level. Its own slope
    is zero. An attacker climbs `nearly_rounded` in its place: in L2 it broke up to twice the rows that the identity did
    (Athalye et al. 2018, arXiv:1802.00420), in L∞, where signs count alone, as many.

    Raises SettingError for fewer than 1 or more than 16 bits.

    >>> import torch
    >>> BitDepth(bits=2)(torch.tensor([0.0, 0.3, 0.6, 1.0]).reshape(1, 1, 2, 2)).flatten()
    tensor([0.0000, 0.3333, 0.6667, 1.0000])
    """

    bits: int
    bounds: tuple[float, float] = (0.0, 1.0)

    stochastic = False
    differentiable = False
    exact = False

    def __post_init__(self) -> None:
        checked_box(self.bounds)
        if not 1 <= self.bits <= 16:
            raise SettingError(f"bits must be from 1 to 16, got {self.bits}; the paper takes 1 to 7")

    def shape(self, image: Shape) -> Shape:
        return image

    def __call__(self, x: Tensor, /) -> Tensor:
        steps = 2**self.bits - 1
        return from_unit((to_unit(checked_images(x), self.bounds) * steps).round() / steps, self.bounds)

    def stand_in(self, x: Tensor, /) -> Tensor:
        steps = 2**self.bits - 1
        return from_unit(nearly_rounded(to_unit(x, self.bounds) * steps) / steps, self.bounds)
