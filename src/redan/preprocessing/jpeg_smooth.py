"""The lossy part of JPEG in torch, with a slope: what an attacker climbs in place of a codec."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from redan.preprocessing.transformation import recolored

# ITU-T T.81, annex K, tables K.1 (luminance) and K.2 (chrominance): the standard's examples, for quality 50.
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99, 99, 99, 99, 99, 99, 99, 99),) * 4,
)
# ITU-T T.871 (JFIF), section 7: luminance and two differences of color.
_YCC = torch.tensor(
    ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)), dtype=torch.float64
)


def compressed(x: Tensor, quality: int, rounding: Callable[[Tensor], Tensor]) -> Tensor:
    """Grey or red-green-blue images (N, 1 or 3, H, W) in [0, 1] through the lossy part of JPEG.

    Cosines of 8 x 8 blocks, divided by the standard's tables for this quality (1 to 100, as libjpeg counts) and
    rounded by `rounding`; colors as luminance and two differences, those at half the resolution (4:2:0). With
    `torch.round` it answers as libjpeg does but for its whole numbers in between.
    """
    numbers = x * 255
    if x.shape[1] == 1:
        return (_blockwise(numbers - 128, LUMINANCE, quality, rounding) + 128).div(255).clamp(0, 1)
    height, width = x.shape[2:]
    turned = recolored(numbers, _YCC)
    light, color = turned[:, :1], turned[:, 1:]
    even = functional.pad(color, (0, width % 2, 0, height % 2), mode="replicate")
    coarse = _blockwise(functional.avg_pool2d(even, 2), CHROMINANCE, quality, rounding)
    fine = functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
    whole = torch.cat([_blockwise(light - 128, LUMINANCE, quality, rounding) + 128, fine], 1)
    return recolored(whole, _YCC.inverse()).div(255).clamp(0, 1)


def _blockwise(
    x: Tensor, table: tuple[tuple[int, ...], ...], quality: int, rounding: Callable[[Tensor], Tensor]
) -> Tensor:
    """Numbers (N, C, H, W) around 0 with the cosines of their blocks made multiples of the table."""
    height, width = x.shape[2:]
    padded = functional.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")
    n, c, h, w = padded.shape
    blocks = padded.reshape(n, c, h // 8, 8, w // 8, 8).transpose(3, 4)
    turn, steps = cosines().to(x), scaled(table, quality).to(x)
    kept = rounding(turn @ blocks @ turn.T / steps) * steps
    return (turn.T @ kept @ turn).transpose(3, 4).reshape(n, c, h, w)[..., :height, :width]


def scaled(table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """The standard's table for this quality, as libjpeg scales it: (8, 8)."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(table) * percent + 50) // 100).clamp(1, 255)


def cosines() -> Tensor:
    """The orthonormal cosine transform of 8 numbers: (8, 8)."""
    k, i = torch.arange(8.0, dtype=torch.float64)[:, None], torch.arange(8.0, dtype=torch.float64)
    found = torch.cos(math.pi * (2 * i + 1) * k / 16) / 2
    found[0] /= math.sqrt(2)
    return found
