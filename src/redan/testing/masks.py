"""The stages that hide gradients in `redan.testing.masked`, as functions of images (N, C, H, W) in [0, 1]."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_LEVELS, _THRESHOLDS = 7, 15
_NOISE = 0.05
_RIPPLE, _WAVES = 0.01, 400.0
_SMALLEST = 24

# The luminance table of ITU-T T.81 (annex K, table K.1), the standard's example for quality 50.
_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def quantized(x: Tensor) -> Tensor:
    """Rounded to 8 levels."""
    return (x * _LEVELS).round() / _LEVELS


def bits(x: Tensor) -> Tensor:
    """Cut to 3 bits, as whole numbers are."""
    return (x * 255).to(torch.uint8).div(32, rounding_mode="floor").to(x.dtype) / _LEVELS


def thermometer(x: Tensor) -> Tensor:
    """How many of 15 thresholds a number passes, read back as a number."""
    thresholds = (torch.arange(_THRESHOLDS, dtype=x.dtype, device=x.device) + 0.5) / _THRESHOLDS
    return (x[..., None] >= thresholds).to(x.dtype).mean(-1)


def noisy(x: Tensor) -> Tensor:
    """With normal noise, other at each call."""
    return x + _NOISE * torch.randn_like(x)


def rippled(x: Tensor) -> Tensor:
    """With a ripple a hundredth high, whose slope is four times that of the identity and changes sign everywhere."""
    return x + _RIPPLE * torch.sin(_WAVES * x)


def resized_and_padded(x: Tensor) -> Tensor:
    """Made smaller by a random amount, and padded with zeros at a random place."""
    side = x.shape[-1]
    small = int(torch.randint(_SMALLEST, side + 1, ()))
    left, top = (int(torch.randint(0, side - small + 1, ())) for _ in range(2))
    resized = functional.interpolate(x, size=(small, small), mode="bilinear", align_corners=False)
    return functional.pad(resized, (left, side - small - left, top, side - small - top))


def jpeg(x: Tensor, quality: int = 75) -> Tensor:
    """Through the lossy part of JPEG: cosines of 8 x 8 blocks, divided by a table and rounded."""
    height, width = x.shape[-2:]
    down, right = -height % 8, -width % 8
    padded = functional.pad(x * 255 - 128, (0, right, 0, down), mode="replicate")
    n, c, h, w = padded.shape
    blocks = padded.reshape(n, c, h // 8, 8, w // 8, 8).permute(0, 1, 2, 4, 3, 5)
    cosines = _cosines().to(x)
    scale = 50 / quality if quality < 50 else 2 - quality / 50
    table = (torch.tensor(_TABLE).to(x) * scale + 0.5).floor().clamp_min(1)
    coefficients = ((cosines @ blocks @ cosines.T) / table).round() * table
    pixels = (cosines.T @ coefficients @ cosines).permute(0, 1, 2, 4, 3, 5).reshape(n, c, h, w)
    return ((pixels + 128).round() / 255).clamp(0, 1)[..., :height, :width]


def _cosines() -> Tensor:
    """The orthonormal cosine transform of 8 numbers: (8, 8)."""
    k, i = torch.arange(8.0)[:, None], torch.arange(8.0)
    found = torch.cos(math.pi * (2 * i + 1) * k / 16) / 2
    found[0] /= math.sqrt(2)
    return found
