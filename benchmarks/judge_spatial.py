"""The benchmarks' own judge of turned and shifted images: it imports neither redan nor any of redan's peers.

Nobody reports an angle: the judge looks for one. An image counts when *some* turn and shift inside the range, which is
in degrees and pixels and the same for all, makes it from the clean image by one of the two ways that tools draw one:

* bilinear: each pixel is read at its place turned about the center and moved, black beyond the edge (redan, Foolbox);
* spline: moved by whole pixels, then turned, both by scipy's cubic splines with black beyond the edge (ART).

Both are searched for every image, whoever made it. Search: the best of a coarse grid, then damped Gauss-Newton steps,
all in float64; the bilinear answer says where the spline's angle is looked for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from scipy import ndimage, optimize
from torch import Tensor
from torch.nn import functional

import judge as plain

Image: TypeAlias = np.ndarray[Any, Any]

TOLERANCE = 1e-3
"""How far a pixel may be off what the turn and shift give, of a box of width 1: a quarter of one of 256 gray levels."""

SLACK = 0.01  # degrees and pixels beyond the range
_STARTS, _STEPS = 6, 25
_TURNS, _SHIFTS = 21, 9  # of the coarse grid
_NEAR = 2.5  # degrees around the bilinear answer in which the spline's angle is looked for


class Found(NamedTuple):
    """The turn and shift that give an image best: degrees, down and across in pixels, (N, 3); and the pixel it is off
    most there, (N,).
    """

    parameters: Tensor
    off: Tensor


def judge(
    model: Callable[[Tensor], Tensor], x0: Tensor, y: Tensor, x_adv: Tensor, *, degrees: float, pixels: float
) -> tuple[Tensor, Tensor]:
    """Which rows of ``x_adv`` (N, 1, H, W) break the model on ``x0`` with labels ``y`` (N,), and how large they are.

    Broken (N,): answered rightly before and wrongly after, in the box [0, 1], and a turn and shift of the clean image
    within ``degrees`` and ``pixels`` either way. Size (N,) float64: the larger of the turn's and the shift's share of
    its range; inf where none was found, or where none was looked for because the model is not wrong.

    Raises ValueError as `judge.judge` does.
    """
    anywhere = plain.judge(model, x0, y, x_adv, norm="linf", eps=1.0)
    wrong = anywhere.broken.nonzero().flatten()
    size = torch.full((len(x0),), math.inf, dtype=torch.float64)
    if len(wrong):
        x, clean = x_adv[wrong].to(x0.dtype).double(), x0[wrong].double()
        range_ = torch.tensor([degrees, pixels, pixels], dtype=torch.float64)
        found = bilinear(x, clean, range_)
        drawn = [found, spline(x, clean, range_, found)]
        for parameters, off in drawn:
            share = (parameters.abs() / range_.clamp_min(SLACK)).amax(1)
            size[wrong] = torch.where(off <= TOLERANCE, torch.minimum(size[wrong], share), size[wrong])
    return anywhere.broken & size.isfinite(), size


def turned(x0: Tensor, parameters: Tensor) -> Tensor:
    """Images (N, 1, H, W), each read at its places turned and moved by parameters (N, 3), bilinearly: (N, 1, H, W)."""
    height, width = x0.shape[2:]
    angle = torch.deg2rad(parameters[:, 0])[:, None, None]
    down = torch.arange(height, dtype=x0.dtype)[:, None] - (height - 1) / 2
    across = torch.arange(width, dtype=x0.dtype)[None, :] - (width - 1) / 2
    read_down = angle.sin() * across + angle.cos() * down + parameters[:, 1, None, None]
    read_across = angle.cos() * across - angle.sin() * down + parameters[:, 2, None, None]
    places = torch.stack([2 * read_across / (width - 1), 2 * read_down / (height - 1)], 3)
    return functional.grid_sample(x0, places, padding_mode="zeros", align_corners=True)


def bilinear(x: Tensor, x0: Tensor, range_: Tensor) -> Found:
    """What turn and shift of x0 in the range, read bilinearly, is nearest to x; float64, (N, 1, H, W) both."""
    coarse = torch.cartesian_prod(*(_points(float(most), count) for most, count in
                                    zip(range_, (_TURNS, _SHIFTS, _SHIFTS), strict=True)))  # fmt: skip
    starts = torch.stack([
        coarse[(turned(clean[None].expand(len(coarse), -1, -1, -1), coarse) - image).square().sum((1, 2, 3))
               .topk(_STARTS, largest=False).indices]
        for image, clean in zip(x, x0, strict=True)
    ])  # fmt: skip
    many, from_ = (part.repeat_interleave(_STARTS, 0) for part in (x, x0))
    parameters, rest = _refined(many, from_, starts.flatten(0, 1), range_ + SLACK)
    best = rest.square().sum(1).reshape(len(x), _STARTS).argmin(1) + _STARTS * torch.arange(len(x))
    return Found(parameters[best], rest[best].abs().amax(1))


def _points(most: float, count: int) -> Tensor:
    return torch.linspace(-most, most, count, dtype=torch.float64)


def _refined(x: Tensor, x0: Tensor, at: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
    """Damped Gauss-Newton steps from parameters `at` (N, 3), inside `most`, and the differences left (N, H·W)."""
    damping = torch.full((len(x),), 1e-3, dtype=torch.float64)
    rest = (turned(x0, at) - x).flatten(1)
    for _ in range(_STEPS):
        steps = torch.eye(3, dtype=torch.float64) * 1e-4
        slopes = torch.stack([((turned(x0, at + h) - turned(x0, at - h)) / 2e-4).flatten(1) for h in steps], 2)
        normal = slopes.mT @ slopes
        lift = torch.diag_embed(normal.diagonal(dim1=1, dim2=2) * damping[:, None] + 1e-12)
        move = torch.linalg.solve(normal + lift, slopes.mT @ rest[:, :, None])[:, :, 0]
        there = torch.clamp(at - move, -most, most)
        rest_there = (turned(x0, there) - x).flatten(1)
        better = rest_there.square().sum(1) < rest.square().sum(1)
        at, rest = torch.where(better[:, None], there, at), torch.where(better[:, None], rest_there, rest)
        damping = torch.where(better, damping / 5, damping * 5).clamp(1e-9, 1e6)
    return at, rest


def spline(x: Tensor, x0: Tensor, range_: Tensor, near: Found) -> Found:
    """Like `bilinear`, for whole shifts by scipy and then a turn; looked for around `near` where it is too far off."""
    found = [
        (parameters, off) if off <= TOLERANCE else _by_scipy(image[0].numpy(), clean[0].numpy(), range_, parameters)
        for image, clean, parameters, off in zip(x, x0, near.parameters, near.off.tolist(), strict=True)
    ]
    return Found(torch.stack([parameters for parameters, _ in found]), torch.tensor([off for _, off in found]))


def _by_scipy(x: Image, x0: Image, range_: Tensor, near: Tensor) -> tuple[Tensor, float]:
    """The best whole shift and turn of x0 (H, W), and the pixel it is off most; ends at the first near enough."""
    _, down, across = near.tolist()
    whole = list(itertools.product(*({math.floor(s) + more for more in (-1, 0, 1, 2)} for s in (down, across))))
    whole = [s for s in whole if max(map(abs, s)) <= float(range_[1:].max()) + SLACK]
    best: tuple[Tensor, float] = near, math.inf
    for shift in sorted(whole, key=lambda s: math.hypot(s[0] - down, s[1] - across)):
        moved = ndimage.shift(x0.astype(np.float32), [-s for s in shift])
        angle, off = _turn(x, moved, float(near[0]), float(range_[0]) + SLACK)
        if off < best[1]:
            best = torch.tensor([angle, *shift], dtype=torch.float64), off
        if off <= TOLERANCE:
            break
    return best


def _turn(x: Image, moved: Image, near: float, most: float) -> tuple[float, float]:
    """The turn of an image (H, W) that gives x best, near an angle and at most `most`; and the pixel it is off most."""

    def off(angle: float) -> float:
        return float(np.abs(np.clip(ndimage.rotate(moved, angle, reshape=False), 0, 1) - x).max())

    grid = np.linspace(max(-most, near - _NEAR), min(most, near + _NEAR), 41)
    start = float(grid[int(np.argmin([off(angle) for angle in grid]))])
    bounds = max(-most, start - 0.15), min(most, start + 0.15)
    best = optimize.minimize_scalar(off, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return min(((float(best.x), float(best.fun)), (start, off(start))), key=lambda found: found[1])
