"""CIE Lab: lightness and two axes of color, in which equal steps look about equal."""

from __future__ import annotations

import torch
from torch import Tensor

from redan.preprocessing.transformation import recolored

# ITU-R BT.709 primaries to CIE XYZ, and the white of D65.
_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.950456, 1.0, 1.088754)
_RATIOS = torch.tensor(_XYZ, dtype=torch.float64) / torch.tensor(_WHITE, dtype=torch.float64)[:, None]
_KNEE, _SLOPE, _FOOT = 0.008856, 7.787, 16 / 116  # below the knee the cube root is a line


def to_lab(x: Tensor) -> Tensor:
    """Linear red, green and blue (N, 3, H, W) in [0, 1] as L, a and b (N, 3, H, W), moved to [0, 1] as 8 bits are.

    L / 100, (a + 128) / 255 and (b + 128) / 255 (CIE 15, section 8.2.1).
    """
    ratio = recolored(x, _RATIOS)
    root = (ratio.clamp_min(_KNEE).log() / 3).exp()  # the bytes of `pow` depend on where in a batch a number stands
    bent = torch.where(ratio > _KNEE, root, _SLOPE * ratio + _FOOT)
    fx, fy, fz = bent.unbind(1)
    return torch.stack([(116 * fy - 16) / 100, (500 * (fx - fy) + 128) / 255, (200 * (fy - fz) + 128) / 255], 1)


def from_lab(lab: Tensor) -> Tensor:
    """Linear red, green and blue, cut to [0, 1], of what `to_lab` returned: (N, 3, H, W)."""
    light, a, b = lab.unbind(1)
    fy = (100 * light + 16) / 116
    bent = torch.stack([fy + (255 * a - 128) / 500, fy, fy - (255 * b - 128) / 200], 1)
    ratio = torch.where(bent > _SLOPE * _KNEE + _FOOT, bent.pow(3), (bent - _FOOT) / _SLOPE)
    return recolored(ratio, _RATIOS.inverse()).clamp(0, 1)
