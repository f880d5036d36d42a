"""JPEG beside Pillow's own files, and the stand-in beside JPEG."""

from __future__ import annotations

import builtins
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from redan.errors import SettingError, TargetError
from redan.preprocessing.jpeg import JPEG
from redan.preprocessing.jpeg_smooth import CHROMINANCE, LUMINANCE, compressed, cosines, scaled
from redan.samples import fashion_mnist
from redan.testing.masks import jpeg as planted

GREY = torch.from_numpy(fashion_mnist()[0][:8])


def colored(height: int = 20, width: int = 27) -> Tensor:
    rough = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    smooth = functional.interpolate(rough, size=(height, width), mode="bilinear")
    return (smooth * 255).round() / 255


@pytest.mark.extras
@pytest.mark.parametrize("quality", [10, 75, 95])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_row_is_what_pillow_writes_and_reads(quality: int, channels: int) -> None:
    from PIL import Image

    x = GREY if channels == 1 else colored()
    found = JPEG(quality=quality)(x)
    assert found.shape == x.shape
    for image, answer in zip(x, found, strict=True):
        pixels = np.rint(image.numpy() * 255).astype(np.uint8)
        file = BytesIO()
        Image.fromarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0)).save(file, "JPEG", quality=quality)
        read = np.atleast_3d(np.asarray(Image.open(file))).transpose(2, 0, 1)
        assert np.array_equal(np.rint(answer.numpy() * 255).astype(np.uint8), read)


@pytest.mark.extras
@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90])
@pytest.mark.parametrize("channels", [1, 3])
def test_rounded_the_stand_in_answers_as_pillow_does(quality: int, channels: int) -> None:
    x = GREY if channels == 1 else colored()
    apart = (JPEG(quality=quality)(x) - compressed(x, quality, torch.round)).abs().mean()
    moved = (JPEG(quality=quality)(x) - x).abs().mean()
    assert float(apart) < 2 / 255
    assert float(apart) < 0.3 * float(moved)


@pytest.mark.extras
def test_jpeg_takes_rows_as_they_come() -> None:
    stage, x = JPEG(quality=30), colored()
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(stage(x[order]), stage(x)[order])
    assert torch.equal(stage(x[1:2]), stage(x)[1:2])
    assert stage(x[:0]).shape == (0, 3, 20, 27)
    box = JPEG(quality=30, bounds=(-1, 1))
    assert torch.allclose((box(2 * x - 1) + 1) / 2, stage(x), atol=1e-6)
    assert stage(x.double().requires_grad_()).dtype == torch.float64


def test_the_stand_in_without_a_codec() -> None:
    assert float((compressed(GREY, 75, torch.round) - planted(GREY)).abs().mean()) < 0.5 / 255
    flat = torch.full((2, 3, 9, 13), 0.5)
    assert torch.allclose(JPEG().stand_in(flat), flat, atol=0.6 / 255)
    for x in (GREY, colored(), colored(1, 1), GREY[:0]):
        assert JPEG(quality=50).stand_in(x).shape == x.shape
    turn = cosines()
    assert torch.allclose(turn @ turn.T, torch.eye(8, dtype=torch.float64), atol=1e-12)


def test_tables_are_scaled_as_libjpeg_does() -> None:
    assert scaled(LUMINANCE, 50).tolist() == [list(row) for row in LUMINANCE]
    assert scaled(LUMINANCE, 75)[0].tolist() == [8, 6, 5, 8, 12, 20, 26, 31]
    assert scaled(CHROMINANCE, 10)[0, :4].tolist() == [85, 90, 120, 235]
    assert int(scaled(CHROMINANCE, 10).max()) == 255
    assert int(scaled(LUMINANCE, 95).min()) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_the_stand_in_has_a_slope(channels: int) -> None:
    x = (GREY if channels == 1 else colored()).clone().requires_grad_()
    (slope,) = torch.autograd.grad(JPEG(quality=75).stand_in(x).square().sum(), x)
    assert bool(slope.flatten(1).any(1).all())


def test_what_jpeg_cannot_hold_is_refused() -> None:
    with pytest.raises(TargetError, match="these have 2 channels; leave jpeg out"):
        JPEG()(torch.rand(1, 2, 8, 8))
    for quality in (0, 96):
        with pytest.raises(SettingError, match=f"from 1 to 95, got {quality}"):
            JPEG(quality=quality)


def test_a_missing_pillow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "PIL":
            raise ImportError(name)
        return known(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TargetError, match=r"pip install 'redan\[images\]'"):
        JPEG()(GREY)
