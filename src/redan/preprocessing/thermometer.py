"""Each number written as a code of zeros and ones, in channels of its own."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from redan.errors import SettingError
from redan.preprocessing.transformation import Shape, checked_box, checked_images, to_unit


class Code(Enum):
    """How a level is written: by all levels up to it, or by itself alone."""

    THERMOMETER = "thermometer"
    ONE_HOT = "one-hot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thermometer:
    """Cuts the box into `levels` equal bins and writes each number as the code of its bin, (N, C · levels, H, W).

    Buckman et al. 2018 (openreview S18Su--CW): with k from 0, channel c · levels + k holds x_c ≥ k / levels
    (`THERMOMETER`), or whether x_c lies in bin k (`ONE_HOT`), for x in [0, 1]. The first channel of a thermometer is
    always 1, as in the authors' code. The model behind must have been trained on such codes.

    The codes have no slope. An attacker climbs ramps in their place, a level wide on either side of each threshold:
    those of Athalye et al. 2018 (arXiv:1802.00420) rise over one level before the threshold alone, which
    hides from him what a step down would do.

    Raises SettingError for fewer than 2 levels.

    >>> Thermometer(levels=4)(torch.tensor([[[[0.6]]]])).flatten()
    tensor([1., 1., 1., 0.])
    """

    levels: int = 16
    code: Code = Code.THERMOMETER
    bounds: tuple[float, float] = (0.0, 1.0)

    stochastic = False
    differentiable = False
    exact = False

    def __post_init__(self) -> None:
        checked_box(self.bounds)
        if self.levels < 2:
            raise SettingError(f"levels must be 2 or more, got {self.levels}; the paper takes 16")

    def shape(self, image: Shape) -> Shape:
        channels, height, width = image
        return channels * self.levels, height, width

    def __call__(self, x: Tensor, /) -> Tensor:
        level = (to_unit(checked_images(x), self.bounds) * self.levels).floor()
        lit = level.clamp(0, self.levels - 1)[:, :, None] >= self._each(x)
        return self._written(lit.to(x.dtype))

    def stand_in(self, x: Tensor, /) -> Tensor:
        above = to_unit(x, self.bounds)[:, :, None] * self.levels - self._each(x)
        return self._written(((above + 1) / 2).clamp(0, 1))

    def _each(self, x: Tensor) -> Tensor:
        """The number of each level: (levels, 1, 1)."""
        return torch.arange(self.levels, dtype=x.dtype, device=x.device)[:, None, None]

    def _written(self, lit: Tensor) -> Tensor:
        """Thermometers (N, C, levels, H, W) as the channels of the code."""
        if self.code is Code.ONE_HOT:
            lit = lit - torch.cat([lit[:, :, 1:], torch.zeros_like(lit[:, :, :1])], 2)
        return lit.flatten(1, 2)
