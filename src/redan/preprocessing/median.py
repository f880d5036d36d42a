"""Each number replaced by the median of those around it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from redan.errors import SettingError
from redan.preprocessing.transformation import Shape, checked_images, mirrored


@dataclass(frozen=True, slots=True, kw_only=True)
class Median:
    """The median over a window of size x size pixels, channel by channel.

    Local smoothing of Xu, Evans and Qi 2018 (arXiv:1704.01155). As in their code (scipy's
    `median_filter`, mode "reflect") the edge pixels are repeated past the edges; a window of even size reaches one
    pixel farther up and left, and the larger of its two middle numbers counts. Its own gradient goes to the pixel
    that was chosen, and is the one to climb.

    Raises SettingError for a size below 1.

    >>> import torch
    >>> Median(size=3)(torch.tensor([[0.0, 0, 0], [0, 9, 0], [0, 0, 0]])[None, None]).max()
    tensor(0.)
    """

    size: int

    stochastic = False
    differentiable = True
    exact = True

    def __post_init__(self) -> None:
        if self.size < 1:
            raise SettingError(f"the window's size must be 1 pixel or more, got {self.size}; the paper takes 2 or 3")

    def shape(self, image: Shape) -> Shape:
        return image

    def __call__(self, x: Tensor, /) -> Tensor:
        before, after = self.size // 2, self.size - 1 - self.size // 2
        height, width = (mirrored(size, before, after).to(x.device) for size in checked_images(x).shape[2:])
        around = x[:, :, height][..., width].unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(4)
        count = self.size**2
        return around.kthvalue(count // 2 + 1).values if len(x) else x.clone()

    def stand_in(self, x: Tensor, /) -> Tensor:
        return self(x)
