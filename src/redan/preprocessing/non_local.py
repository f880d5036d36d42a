"""Each pixel replaced by the mean of those whose surroundings look alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.utils.checkpoint import checkpoint

from redan.errors import SettingError
from redan.preprocessing.lab import from_lab, to_lab
from redan.preprocessing.transformation import (
    Shape,
    checked_box,
    checked_images,
    from_unit,
    reflected,
    to_unit,
)

_FAINTEST = 1e-3  # a weight below this counts as none, as in OpenCV
_LARGE = 2**18  # numbers in a batch above which lines are computed twice for a gradient, to keep a tenth in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class NonLocalMeans:
    """Non-local means, Buades, Coll and Morel 2005 (DOI 10.1109/CVPR.2005.38, equation 2).

    Each pixel becomes the mean of the pixels in a window of `search` around it, weighted by exp(-d / strength²), d
    being the mean square difference of the patches (`patch` x `patch`) around the two. The setting 11-3-4 is that of
    Xu, Evans and Qi 2018 (arXiv:1704.01155), who take OpenCV's: all numbers of a patch count alike, weights
    below 1/1000 not at all, pixels are mirrored at the edges, and in color lightness is smoothed by itself, a and b of
    CIE Lab together. Unlike theirs nothing is rounded to eight bits. Images with other than 3 channels are smoothed
    whole. strength: in 255ths of the box.

    Raises SettingError for even windows, or a strength of 0.

    >>> flat = torch.full((1, 1, 5, 5), 0.25)
    >>> bool(torch.allclose(NonLocalMeans()(flat), flat))
    True
    """

    search: int = 11
    patch: int = 3
    strength: float = 4.0
    bounds: tuple[float, float] = (0.0, 1.0)

    stochastic = False
    differentiable = True
    exact = True

    def __post_init__(self) -> None:
        checked_box(self.bounds)
        if any(size < 1 or size % 2 == 0 for size in (self.search, self.patch)):
            raise SettingError(
                f"windows have a pixel in their middle, so that their sizes are odd; got search={self.search} and "
                f"patch={self.patch}"
            )
        if not self.strength > 0:
            raise SettingError(f"the strength must be above 0, got {self.strength}; the paper takes 2 to 4")

    def shape(self, image: Shape) -> Shape:
        return image

    def __call__(self, x: Tensor, /) -> Tensor:
        unit = to_unit(checked_images(x), self.bounds)
        if x.shape[1] != 3:
            return from_unit(self._smoothed(unit), self.bounds)
        lab = to_lab(unit)
        smoothed = torch.cat([self._smoothed(lab[:, :1]), self._smoothed(lab[:, 1:])], 1)
        return from_unit(from_lab(smoothed), self.bounds)

    def stand_in(self, x: Tensor, /) -> Tensor:
        return self(x)

    def _smoothed(self, x: Tensor) -> Tensor:
        """Numbers (N, C, H, W) in [0, 1], all channels weighted alike."""
        if not len(x):
            return x.clone()
        height, width = x.shape[2:]
        reach = self.search // 2 + self.patch // 2
        wide = x[:, :, reflected(height, reach).to(x.device)][..., reflected(width, reach).to(x.device)]
        total, weights = torch.zeros_like(x), torch.zeros_like(x[:, :1])
        for down in range(self.search):
            if x.requires_grad and x.numel() > _LARGE:
                more, counted = checkpoint(self._line, wide, down, use_reentrant=False, preserve_rng_state=False)
            else:
                more, counted = self._line(wide, down)
            total, weights = total + more, weights + counted
        return total / weights

    def _line(self, wide: Tensor, down: int) -> tuple[Tensor, Tensor]:
        """The weighted sum over one line of the window, and the sum of its weights: (N, C, H, W), (N, 1, H, W)."""
        edge, middle, strength = self.patch // 2, self.search // 2, self.strength / 255
        height, width = (size - self.search + 1 for size in wide.shape[2:])

        def moved(down: int, right: int) -> Tensor:
            """The image, with the edges of its patches, seen from so far away."""
            return wide[..., down : down + height, right : right + width]

        here, total, weights = moved(middle, middle), torch.zeros(()).to(wide), torch.zeros(()).to(wide)
        for right in range(self.search):
            there = moved(down, right)
            apart = avg_pool2d((here - there).square().mean(1, keepdim=True), self.patch, stride=1)
            weight = torch.exp(-apart / strength**2)
            weight = torch.where(weight < _FAINTEST, 0, weight)
            total = total + weight * there[..., edge : height - edge, edge : width - edge]
            weights = weights + weight
        return total, weights
