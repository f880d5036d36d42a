"""What every transformation of images is, and what several of them need."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from redan.errors import SettingError, TargetError

Shape = tuple[int, int, int]
"""(C, H, W) of one image."""


class Transformation(Protocol):
    """Images (N, C, H, W) to images that a model sees instead, each by itself; a value.

    One that is stochastic draws from torch's own generator at each call, as other stochastic targets do, so that the
    engine can make a run again.
    """

    @property
    def stochastic(self) -> bool:
        """Whether the same image may become another one."""
        ...

    @property
    def differentiable(self) -> bool:
        """Whether its own gradient is the one that an attacker would climb; else he climbs `stand_in` (BPDA)."""
        ...

    @property
    def exact(self) -> bool:
        """Whether `stand_in` answers as the transformation does, by the same draws, and only its gradient is another.

        Then it is asked alone, so that gradient and answer are of one draw.
        """
        ...

    def shape(self, image: Shape) -> Shape:
        """The shape that an image of this shape gets."""
        ...

    def __call__(self, x: Tensor, /) -> Tensor:
        """The transformed images (N, *shape)."""
        ...

    def stand_in(self, x: Tensor, /) -> Tensor:
        """Images (N, *shape) whose gradient in x takes the place of the transformation's own."""
        ...


def checked_images(x: Tensor) -> Tensor:
    """Images (N, C, H, W). Raises TargetError for inputs of other dimensions."""
    if x.dim() != 4:
        raise TargetError(
            f"a transformation of images needs inputs (N, C, H, W), got {tuple(x.shape)}; leave it out of the "
            "defenses, or give inputs with channels, height and width"
        )
    return x


def checked_box(bounds: tuple[float, float]) -> None:
    """Raise SettingError unless the box of the images has a width."""
    if not bounds[0] < bounds[1]:
        raise SettingError(f"bounds must be (low, high) with low < high, got {bounds}; images are often (0, 1)")


def to_unit(x: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Numbers of the box, moved to [0, 1]; those of [0, 1] as they are."""
    low, high = bounds
    return x if (low, high) == (0, 1) else (x - low) / (high - low)


def from_unit(x: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Numbers in [0, 1], moved to the box."""
    low, high = bounds
    return x if (low, high) == (0, 1) else x * (high - low) + low


def recolored(x: Tensor, matrix: Tensor) -> Tensor:
    """matrix (3, 3) times the channels of each pixel of x (N, 3, H, W), in an order of adding that no batch changes."""
    red, green, blue = (x[:, at, None] for at in range(3))
    columns = matrix.to(x)[:, :, None, None].unbind(1)
    return columns[0] * red + columns[1] * green + columns[2] * blue


def mirrored(size: int, before: int, after: int) -> Tensor:
    """Positions that continue an axis of this size past its ends, with the ends themselves repeated (d c b a a b c d).

    (before + size + after,); it goes on for as long as is asked, back and forth.
    """
    at = torch.arange(-before, size + after) % (2 * size)
    return torch.minimum(at, 2 * size - 1 - at)


def reflected(size: int, beyond: int) -> Tensor:
    """Positions that continue an axis past its ends without repeating them (d c b a b c d): (size + 2 beyond,)."""
    if size == 1:
        return torch.zeros(1 + 2 * beyond, dtype=torch.int64)
    at = torch.arange(-beyond, size + beyond) % (2 * size - 2)
    return torch.minimum(at, 2 * size - 2 - at)
