"""Rendered traffic signs in grey, 28 x 28: a pool of pictures that are unlike garments and show something.

43 designs of the package mapillary_sprite_source (MIT), which `benchmarks/extraction_data.sh` installs, each drawn at a
random size, place and angle, under random light, on a random ground, blurred and noisy. They are drawings, not photos.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import torch
from torch import Tensor, nn

import harness

SPRITES = harness.ROOT / ".envs" / "signs" / "package" / "sprites"
DESIGNS = (
    *(f"regulatory--maximum-speed-limit-{limit}--g1" for limit in (20, 30, 50, 60, 70, 80, 100, 120)),
    *(
        f"regulatory--{name}--g1"
        for name in (
            "end-of-maximum-speed-limit-80",
            "no-overtaking",
            "no-overtaking-by-heavy-goods-vehicles",
            "priority-road",
            "yield",
            "stop",
            "no-motor-vehicles",
            "no-heavy-goods-vehicles",
            "no-entry",
            "end-of-prohibition",
            "end-of-no-overtaking",
            "end-of-no-overtaking-by-heavy-goods-vehicles",
            "turn-right-ahead",
            "turn-left-ahead",
            "go-straight",
            "go-straight-or-turn-right",
            "go-straight-or-turn-left",
            "keep-right",
            "keep-left",
            "roundabout",
        )
    ),
    *(
        f"warning--{name}--g1"
        for name in (
            "crossroads-with-priority-to-the-right",
            "other-danger",
            "curve-left",
            "curve-right",
            "double-curve-first-left",
            "uneven-road",
            "slippery-road-surface",
            "road-narrows-right",
            "roadworks",
            "traffic-signals",
            "pedestrians-crossing",
            "children",
            "bicycles-crossing",
            "icy-road",
            "wild-animals",
        )
    ),
)
SIDE = 28
_OVER = 2  # pictures are drawn so many times as large, then averaged
_GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601
_BLOCK = 1000


@cache
def designs() -> tuple[Tensor, Tensor]:
    """Brightness and opacity of the designs: (43, 1, 48, 48) each, in [0, 1]."""
    from matplotlib.image import imread

    sheet = SPRITES / "sprites@2x.png"
    if not sheet.exists():
        raise FileNotFoundError(f"there is no {sheet}; run `bash benchmarks/extraction_data.sh`")
    places = json.loads(sheet.with_suffix(".json").read_text())
    pixels = torch.from_numpy(imread(sheet)).permute(2, 0, 1)  # red, green, blue, opacity, not premultiplied
    cut = [
        pixels[:, place["y"] : place["y"] + place["height"], place["x"] : place["x"] + place["width"]]
        for place in (places[name] for name in DESIGNS)
    ]
    every = torch.stack(cut)
    grey = (every[:, :3] * torch.tensor(_GREY)[:, None, None]).sum(1, keepdim=True)
    return grey, every[:, 3:]


def rendered(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """So many pictures (N, 1, 28, 28) in [0, 1], and the number of each one's design (N,)."""
    draw = torch.Generator().manual_seed(seed)
    parts = [_block(min(_BLOCK, rows - at), draw) for at in range(0, rows, _BLOCK)]
    x, y = zip(*parts, strict=True)
    return torch.cat(x), torch.cat(y)


def _block(rows: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    grey, opacity = designs()
    y = torch.randint(len(DESIGNS), (rows,), generator=draw)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(rows, *(shape or (1, 1, 1)), generator=draw)

    # From a pixel of the picture to a point of the design: turned, made larger, moved.
    angle, size = between(-0.3, 0.3).flatten(), between(0.55, 1.0).flatten()
    shift = between(-1.0, 1.0, 2) * (1 - size)[:, None]
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2) / size[:, None, None]
    theta = torch.cat([turn, -(turn @ shift[:, :, None])], 2)
    side = _OVER * SIDE
    grid = nn.functional.affine_grid(theta, [rows, 1, side, side], align_corners=False)
    ink, cover = (nn.functional.grid_sample(each[y], grid, align_corners=False) for each in (grey * opacity, opacity))
    ground = nn.functional.interpolate(between(0.0, 1.0, 1, 4, 4), (side, side), mode="bilinear", align_corners=True)
    ground = between(0.0, 1.0) + between(0.0, 0.6) * (ground - 0.5)
    x = nn.functional.avg_pool2d(between(0.4, 1.1) * ink + (1 - cover) * ground, _OVER)
    # Blur by 3 x 3 pixels: each neighbor weighs as much as the middle, or less.
    weight = between(0.0, 1 / 3)
    for dim in (2, 3):
        first, last = x.narrow(dim, 0, 1), x.narrow(dim, SIDE - 1, 1)
        before = torch.cat([first, x.narrow(dim, 0, SIDE - 1)], dim)
        after = torch.cat([x.narrow(dim, 1, SIDE - 1), last], dim)
        x = (1 - 2 * weight) * x + weight * (before + after)
    noise = torch.randn(rows, 1, SIDE, SIDE, generator=draw) * between(0.0, 0.05)
    return (x + noise).clamp(0.0, 1.0), y
