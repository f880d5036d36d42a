"""Shifts and turns: against closed forms, and membership that is found out from pictures alone."""

import math

import pytest
import torch
from torch import Tensor

from redan.errors import SettingError
from redan.perturbations.spatial import Spatial, images


def pictures(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def test_whole_pixels_are_moved_as_they_are() -> None:
    x = pictures(2, 3, 8, 12)
    within = Spatial(0, 0.25, translations=3)  # 2 of 8 pixels, 3 of 12
    down = within.transformed(x, torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0]]))

    assert torch.allclose(down[0, :, :6], x[0, :, 2:], atol=1e-5)
    assert bool((down[0, :, 6:] == 0).all()), "black from beyond the edge"
    assert torch.allclose(down[1, :, :, 3:], x[1, :, :, :-3], atol=1e-5)
    assert bool((down[1, :, :, :3] == 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_quarter_turn_is_rot90(dtype: torch.dtype) -> None:
    x = pictures(2, 3, 7, 7, dtype=dtype)
    turned = Spatial(90, 0).transformed(x, torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]]))

    assert turned.dtype == dtype
    assert torch.allclose(turned[0], x[0].rot90(1, (1, 2)), atol=1e-5)
    assert torch.allclose(turned[1], x[1].rot90(-1, (1, 2)), atol=1e-5)


def test_pixels_are_turned_and_not_shares_of_the_sides() -> None:
    """In a picture that is not square a bright pixel keeps its distance from the center."""
    x = torch.zeros(1, 1, 21, 41)
    x[0, 0, 10, 28] = 1  # 8 pixels right of the center
    turned = Spatial(30, 0).transformed(x, torch.tensor([[1.0, 0, 0]]))[0, 0]
    down, across = torch.meshgrid(torch.arange(21) - 10.0, torch.arange(41) - 20.0, indexing="ij")
    middle = torch.stack([(turned * down).sum(), (turned * across).sum()]) / turned.sum()

    assert math.isclose(float(middle.norm()), 8, abs_tol=0.05)
    assert math.isclose(math.degrees(math.atan2(-float(middle[0]), float(middle[1]))), 30, abs_tol=0.5)


def test_black_is_the_low_face_of_the_box() -> None:
    x = pictures(3, 1, 9, 9) * 4 - 1
    within = Spatial(30, 0.3, bounds=(-1.0, 3.0))
    turned = within.transformed(x, torch.tensor([[1.0, 1, 1]] * 3))

    assert bool((turned[:, 0, -1, -1] == -1).all())
    assert bool(((turned >= -1) & (turned <= 3)).all())
    shifted = Spatial(30, 0.3).transformed((x + 1) / 4, torch.tensor([[1.0, 1, 1]] * 3))
    assert torch.allclose(turned, shifted * 4 - 1, atol=1e-5)


def test_the_grid_is_the_paper_s() -> None:
    grid = Spatial(30, 0.1).grid(torch.zeros(1))
    size = grid.abs().amax(1)

    assert len(grid) == 31 * 5 * 5 - 1
    assert len({tuple(point) for point in grid.tolist()}) == len(grid)
    assert bool((size[1:] >= size[:-1]).all())
    assert float(size[0]) > 0
    assert sorted(set(grid[:, 1].tolist())) == [-1, -0.5, 0, 0.5, 1]
    assert len(Spatial(30, 0).grid(torch.zeros(1))) == 30
    assert len(Spatial(0, 0).grid(torch.zeros(1))) == 0


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 14), (5, 6), (16,), (2, 2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_the_set_makes_belongs_to_it(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    within = Spatial(30, 0.2, rotations=7, translations=3)
    grid = within.grid(torch.zeros(1))
    x0 = pictures(1, *shape, dtype=dtype).expand(len(grid), *shape).clone()
    x = within.transformed(x0, grid)
    found = within.distance(x, x0)

    assert bool(within.contains(x, x0).all())
    assert bool((found <= grid.abs().amax(1) + 1e-6).all()), "the smallest that gives the picture"
    if images(x0).shape[2] > 4:
        assert torch.allclose(found.double(), grid.abs().amax(1))


def test_nothing_else_belongs_to_it() -> None:
    within = Spatial(30, 0.2, rotations=7, translations=3)
    x0 = pictures(6, 1, 10, 10)
    grid = within.grid(x0)[[5, 20]]
    between = within.transformed(x0[:1], (grid[:1] + grid[1:]) / 2)
    farther = within.sized(1.1).transformed(x0[:1], torch.ones(1, 3))
    speckled = within.transformed(x0[:1], grid[:1])
    speckled[0, 0, 3, 4] += 1e-3
    others = within.transformed(x0[1:2], grid[:1])
    not_a_number = torch.full_like(x0[:1], torch.nan)
    wrong = torch.cat([between, farther, speckled, others, not_a_number, x0[:1] + 0.01])

    assert within.distance(wrong, x0[:1].expand_as(wrong)).tolist() == [math.inf] * 6
    assert not within.contains(wrong, x0[:1].expand_as(wrong)).any()
    assert within.distance(x0, x0).tolist() == [0.0] * 6
    assert bool(within.contains(x0, x0).all())


def test_a_radius_a_row_scales_both_ranges() -> None:
    whole = Spatial(30, 0.2, rotations=3, translations=3)
    x0 = pictures(3, 1, 10, 10)
    radius = torch.tensor([0.0, 0.5, 1.0])
    within = whole.sized(radius)
    x = within.transformed(x0, torch.ones(3, 3))

    assert torch.allclose(x[0], x0[0], atol=1e-5)
    assert torch.allclose(x[1], Spatial(15, 0.1).transformed(x0, torch.ones(3, 3))[1], atol=1e-6)
    assert torch.allclose(within.distance(x, x0), radius)
    assert torch.allclose(within.take(torch.tensor([2])).distance(x[2:], x0[2:]), radius[2:])
    assert not whole.contains(x[1:2], x0[1:2]).any(), "half a radius is no point of the whole grid"


@pytest.mark.parametrize(
    ("rotation", "translation", "points"), [(-1, 0.1, 5), (181, 0.1, 5), (30, 1.5, 5), (30, -0.1, 5), (30, 0.1, 0)]
)
def test_impossible_values_are_refused(rotation: float, translation: float, points: int) -> None:
    with pytest.raises(SettingError, match="give"):
        Spatial(rotation, translation, translations=points)
