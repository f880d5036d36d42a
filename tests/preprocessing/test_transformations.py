"""Transformations beside their formulas, and what all of them keep to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from redan.errors import SettingError, TargetError
from redan.preprocessing.bit_depth import BitDepth
from redan.preprocessing.median import Median
from redan.preprocessing.non_local import NonLocalMeans
from redan.preprocessing.resize_pad import Interpolation, ResizePad
from redan.preprocessing.rounding import nearly_rounded
from redan.preprocessing.thermometer import Code, Thermometer
from redan.preprocessing.total_variation import TotalVariation
from redan.preprocessing.transformation import Transformation

ALL: tuple[Transformation, ...] = (
    BitDepth(bits=3),
    Median(size=2),
    Median(size=3),
    NonLocalMeans(search=5),
    TotalVariation(steps=20),
    ResizePad(smallest=9, side=12),
    ResizePad(smallest=9, side=12, interpolation=Interpolation.BILINEAR),
    Thermometer(levels=4),
    Thermometer(levels=4, code=Code.ONE_HOT),
)
FIXED = tuple(each for each in ALL if not each.stochastic)


def images(rows: int = 5, channels: int = 1, height: int = 10, width: int = 10, seed: int = 0) -> Tensor:
    return torch.rand(rows, channels, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("each", ALL, ids=repr)
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("width", [10, 7])
def test_any_rows_get_the_declared_shape_and_stay_in_the_box(each: Transformation, channels: int, width: int) -> None:
    for rows in (0, 1, 3):
        x = images(rows, channels, width=width)
        before = x.clone()
        found = each(x)
        assert found.shape == (rows, *each.shape((channels, 10, width)))
        assert each.stand_in(x).shape == found.shape
        assert found.dtype == x.dtype
        assert torch.equal(x, before)
        assert bool(((found >= -1e-6) & (found <= 1 + 1e-6)).all())


@pytest.mark.parametrize("each", FIXED, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_row_is_transformed_by_itself(each: Transformation, channels: int) -> None:
    x = images(6, channels)
    order = torch.tensor([4, 2, 5, 0, 3, 1])
    assert torch.equal(each(x[order]), each(x)[order])
    assert torch.equal(each(x[2:3]), each(x)[2:3])


@pytest.mark.parametrize("each", ALL, ids=repr)
def test_it_draws_from_torchs_generator_if_it_says_so(each: Transformation) -> None:
    x = images(6)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        start = torch.get_rng_state()
        first = each(x)
        assert torch.equal(torch.get_rng_state(), start) != each.stochastic
        assert torch.equal(each(x), first) != each.stochastic
        torch.set_rng_state(start)
        assert torch.equal(each(x), first)


@pytest.mark.parametrize("each", [e for e in ALL if e.differentiable], ids=repr)
def test_a_slope_that_is_its_own_is_true(each: Transformation) -> None:
    x = images(2, 3).double().requires_grad_()
    moved = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    with torch.random.fork_rng():
        torch.manual_seed(3)
        weights = torch.linspace(0.1, 1, each(x).numel(), dtype=torch.float64)

    def total(x: Tensor) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return (each(x).flatten() * weights).sum()

    (slope,) = torch.autograd.grad(total(x), x)
    step = 1e-7
    with torch.no_grad():
        change = (total(x + step * moved) - total(x - step * moved)) / (2 * step)
    assert float(change) == pytest.approx(float((slope * moved).sum()), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 255.0)])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (BitDepth, {"bits": 2}),
        (NonLocalMeans, {"strength": 30.0}),
        (TotalVariation, {}),
        (ResizePad, {"smallest": 9, "side": 12}),
    ],
)
def test_another_box_is_the_same_image(kind: type, settings: dict[str, float], bounds: tuple[float, float]) -> None:
    x, (low, high) = images(3, 3), bounds
    with torch.random.fork_rng():
        torch.manual_seed(2)
        plain = kind(**settings)(x)
        torch.manual_seed(2)
        other = kind(**settings, bounds=bounds)(x * (high - low) + low)
    assert torch.allclose((other - low) / (high - low), plain, atol=1e-5)


@pytest.mark.parametrize("each", ALL, ids=repr)
def test_other_inputs_than_images_are_refused(each: Transformation) -> None:
    with pytest.raises(TargetError, match=r"needs inputs \(N, C, H, W\), got \(3, 4\)"):
        each(torch.rand(3, 4))


@given(st.integers(1, 8), st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12))
def test_bit_depth_is_its_formula(bits: int, numbers: list[float]) -> None:
    x = torch.tensor(numbers).reshape(1, 1, 1, -1)
    steps = np.float32(2**bits - 1)
    expected = np.rint(x.numpy() * steps) / steps
    assert np.array_equal(BitDepth(bits=bits)(x).numpy(), expected)


def test_a_rounded_number_is_climbed_most_where_it_turns() -> None:
    x = torch.linspace(-2, 2, 401, requires_grad=True)
    apart = (x - x.round()).detach()
    assert float((nearly_rounded(x) - x.round()).detach().abs().max()) <= 0.175 + 1e-6
    (slope,) = torch.autograd.grad(nearly_rounded(x).sum(), x)
    assert torch.allclose(slope, 3 * apart**2 + 0.1, atol=1e-5)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0)])
def test_bits_are_climbed_as_their_rounding(bounds: tuple[float, float]) -> None:
    stage, (low, high) = BitDepth(bits=2, bounds=bounds), bounds
    unit = torch.tensor([0.0, 1 / 6, 1 / 3, 0.4])  # on a level, halfway, on a level, and a fifth above it
    x = (unit * (high - low) + low).reshape(1, 1, 1, 4).requires_grad_()
    (slope,) = torch.autograd.grad(stage.stand_in(x).sum(), x)
    assert slope.flatten().tolist() == pytest.approx([0.1, 0.85, 0.1, 0.22], abs=1e-3)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape", [(7, 6), (2, 3), (1, 5)])
def test_the_median_is_scipys(size: int, shape: tuple[int, int]) -> None:
    x = images(3, 2, *shape)
    expected = ndimage.median_filter(x.numpy(), size=(1, 1, size, size), mode="reflect")
    assert np.array_equal(Median(size=size)(x).numpy(), expected)


def test_codes_are_written_out() -> None:
    x = torch.tensor([0.0, 0.24, 0.25, 0.6, 1.0]).reshape(1, 1, 1, 5)
    heat = [[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    alone = [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    for code, expected in ((Code.THERMOMETER, heat), (Code.ONE_HOT, alone)):
        assert Thermometer(levels=4, code=code)(x)[0, :, 0].T.tolist() == expected
    two = torch.tensor([[[[0.1]], [[0.9]]]])
    assert Thermometer(levels=2)(two).flatten().tolist() == [1, 0, 1, 1]
    low = Thermometer(levels=4, bounds=(-1, 1))(2 * x - 1)
    assert torch.equal(low, Thermometer(levels=4)(x))


@pytest.mark.parametrize("code", list(Code))
def test_codes_can_be_climbed_up_and_down(code: Code) -> None:
    stage = Thermometer(levels=4, code=code)
    x = torch.full((1, 1, 1, 1), 0.55, requires_grad=True)
    lit = stage.stand_in(x).flatten()
    found = [float(torch.autograd.grad(each, x, retain_graph=True)[0]) for each in lit]
    # 0.55 is between the thresholds 0.5, which a step down passes, and 0.75, which a step up passes
    expected = [0, 0, 2, 2] if code is Code.THERMOMETER else [0, -2, 0, 2]
    assert found == pytest.approx(expected)


def test_sizes_and_places_are_uniform() -> None:
    stage = ResizePad(smallest=9, side=12)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = stage.draw(40_000, (1, 10, 10))
    sizes = draws[:, 0].bincount(minlength=13)
    assert sizes[:9].sum() == 0
    assert bool(((sizes[9:] / 10_000 - 1).abs() < 0.05).all())
    for size in (9, 10, 11, 12):
        for axis in (1, 2):
            places = draws[draws[:, 0] == size, axis].bincount() / int(sizes[size]) * (13 - size)
            assert len(places) == 13 - size
            assert bool(((places - 1).abs() < 0.07).all())


def test_an_image_lies_where_the_draw_puts_it() -> None:
    stage = ResizePad(smallest=5, side=12, fill=0.25)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        draws = stage.draw(20, (2, 10, 10))
        torch.manual_seed(4)
        found = stage(torch.ones(20, 2, 10, 10))
    for image, (size, top, left) in zip(found, draws.tolist(), strict=True):
        expected = torch.full((2, 12, 12), 0.25)
        expected[:, top : top + size, left : left + size] = 1
        assert torch.equal(image, expected)


@pytest.mark.parametrize("interpolation", list(Interpolation))
def test_an_image_of_its_own_size_is_kept(interpolation: Interpolation) -> None:
    x = images(3, 3, 10, 8)
    assert torch.allclose(ResizePad(smallest=10, side=10, interpolation=interpolation)(x), x, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BitDepth(bits=0), "bits must be from 1 to 16, got 0"),
        (lambda: BitDepth(bits=3, bounds=(1, 1)), "low < high"),
        (lambda: Median(size=0), "window's size"),
        (lambda: NonLocalMeans(search=4), "odd"),
        (lambda: NonLocalMeans(strength=0), "strength must be above 0"),
        (lambda: TotalVariation(keep=0), "keep is a share"),
        (lambda: TotalVariation(steps=0), "steps 1 or more"),
        (lambda: ResizePad(smallest=13, side=12), "13 to 12"),
        (lambda: Thermometer(levels=1), "levels must be 2 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make: Callable[[], Transformation], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        make()
