"""Images resized at random and put at a random place."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor
from torch.nn import functional

from redan.errors import SettingError
from redan.preprocessing.transformation import Shape, checked_box, checked_images


class Interpolation(Enum):
    """How an image gets another size."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizePad:
    """Resizes each image to a height from `smallest` to `side`, and lays it at random on a canvas `side` high.

    Xie et al. 2018 (arXiv:1711.01991; 299 to 331 there). Size and place are uniform and drawn for each
    image by itself, where the authors draw one for a batch and leave the size `side` out. Width goes with height.
    fill: what is around the image, in shares of the box; the authors' code has zeros in [-1, 1], the middle.
    Interpolation to the nearest pixel, as theirs, or bilinear. It is differentiable draw by draw: an attacker averages
    gradients over draws (`eot`), and needs no stand-in.

    Raises SettingError for sizes below 1 pixel, or a smallest one above the side.

    >>> ResizePad(smallest=24, side=28).shape((3, 28, 28))
    (3, 28, 28)
    """

    smallest: int
    side: int
    fill: float = 0.5
    interpolation: Interpolation = Interpolation.NEAREST
    bounds: tuple[float, float] = (0.0, 1.0)

    stochastic = True
    differentiable = True
    exact = True

    def __post_init__(self) -> None:
        checked_box(self.bounds)
        if not 1 <= self.smallest <= self.side:
            raise SettingError(
                f"heights are drawn from smallest to side, and got {self.smallest} to {self.side}; let smallest be 1 "
                "or more and at most side"
            )

    def shape(self, image: Shape) -> Shape:
        channels, height, width = image
        return channels, self.side, _across(self.side, height, width)

    def __call__(self, x: Tensor, /) -> Tensor:
        channels, height, width = self.shape(_image(checked_images(x)))
        sizes, tops, lefts = self.draw(len(x), _image(x)).unbind(1)
        fill = float(self.bounds[0] + self.fill * (self.bounds[1] - self.bounds[0]))
        found: dict[int, Tensor] = {}
        for size in sorted(set(sizes.tolist())):
            rows = (sizes == size).nonzero().flatten()
            resized = functional.interpolate(
                x[rows.to(x.device)], size=(size, _across(size, *_image(x)[1:])), mode=self.interpolation.value
            )
            for row, image in zip(rows.tolist(), resized.unbind(), strict=True):
                top, left = int(tops[row]), int(lefts[row])
                around = (left, width - left - image.shape[2], top, height - top - image.shape[1])
                found[row] = functional.pad(image, around, value=fill)
        return torch.stack([found[row] for row in range(len(x))]) if found else x.new_empty(0, channels, height, width)

    def draw(self, count: int, image: Shape) -> Tensor:
        """Height, top and left of so many images of this shape, from torch's generator: (count, 3)."""
        _, height, width = self.shape(image)
        shares = torch.rand(count, 3, dtype=torch.float64)
        size = (shares[:, 0] * (self.side - self.smallest + 1)).floor() + self.smallest
        across = torch.tensor([_across(int(each), *image[1:]) for each in size.tolist()], dtype=torch.float64)
        top, left = (shares[:, 1] * (height - size + 1)).floor(), (shares[:, 2] * (width - across + 1)).floor()
        return torch.stack([size, top, left], 1).long()

    def stand_in(self, x: Tensor, /) -> Tensor:
        return self(x)


def _image(x: Tensor) -> Shape:
    return x.shape[1], x.shape[2], x.shape[3]


def _across(size: int, height: int, width: int) -> int:
    """The width of an image (height, width) that is made so high."""
    return max(1, round(size * width / height))
