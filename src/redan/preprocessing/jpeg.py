"""Images written as JPEG and read again."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from redan.errors import SettingError, TargetError
from redan.preprocessing.jpeg_smooth import compressed
from redan.preprocessing.rounding import nearly_rounded
from redan.preprocessing.transformation import Shape, checked_box, checked_images, from_unit, to_unit

_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JPEG:
    """Through a JPEG file of this quality and back, as Pillow writes it (4:2:0, the standard's tables).

    Dziugaite et al. 2016 (arXiv:1608.00853), Das et al. 2017 (arXiv:1705.02900) and Guo et al. 2018 (arXiv:1711.00117),
    whose quality is 75. Numbers are rounded to eight bits on the way in. Images are grey or red, green and blue.

    A codec has no slope. An attacker climbs JPEG in torch in its place, with a rounding like Shin and Song's
    (`nearly_rounded`): on two networks it broke more rows than the identity, or than rounding that is passed through.

    Raises SettingError for a quality outside 1 to 95, above which Pillow switches parts of the algorithm off;
    TargetError for other channels, or where Pillow is not installed.
    """

    quality: int = 75
    bounds: tuple[float, float] = (0.0, 1.0)

    stochastic = False
    differentiable = False
    exact = False

    def __post_init__(self) -> None:
        checked_box(self.bounds)
        if not 1 <= self.quality <= 95:
            raise SettingError(f"the quality must be from 1 to 95, got {self.quality}; it is often 75")

    def shape(self, image: Shape) -> Shape:
        _mode(image[0])
        return image

    def __call__(self, x: Tensor, /) -> Tensor:
        mode, pillow = _mode(checked_images(x).shape[1]), _pillow()
        unit = to_unit(x.detach(), self.bounds)
        whole = (unit * 255).round().clamp(0, 255).to(device="cpu", dtype=torch.uint8).movedim(1, -1).contiguous()
        images = [torch.from_numpy(self._read(image.numpy(), mode, pillow)) for image in whole]
        read = torch.stack(images).reshape(whole.shape).movedim(-1, 1) if images else whole.movedim(-1, 1)
        return from_unit(read.to(x) / 255, self.bounds).contiguous()

    def stand_in(self, x: Tensor, /) -> Tensor:
        return from_unit(compressed(to_unit(x, self.bounds), self.quality, nearly_rounded), self.bounds)

    def _read(self, image: Any, mode: str, pillow: Any) -> Any:
        """One image (H, W, C) of eight bits, written and read: an array of as many numbers."""
        file = BytesIO()
        pillow.fromarray(image[..., 0] if mode == "L" else image).save(file, "JPEG", quality=self.quality)
        with pillow.open(file) as opened:
            return np.array(opened)


def _mode(channels: int) -> str:
    if channels not in _MODES:
        raise TargetError(
            f"JPEG holds grey or red-green-blue images, and these have {channels} channels; leave jpeg out of the "
            "defenses"
        )
    return _MODES[channels]


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise TargetError("JPEG needs the package Pillow; run: pip install 'redan[images]'") from error
    return Image
