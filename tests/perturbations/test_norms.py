"""Norm balls against closed forms, against an independent solver, and against random points."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from torch import Tensor

from redan.errors import SettingError
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L1
from redan.protocols import Ball
from redan.rows import Streams

Kind = type[Linf] | type[L2] | type[L1]
KINDS: list[Kind] = [Linf, L2, L1]
EACH = pytest.mark.parametrize("kind", KINDS)
ORDERS: dict[type, float] = {Linf: math.inf, L2: 2, L1: 1}
DUAL: dict[type, float] = {Linf: 1, L2: 2, L1: math.inf}
# Numbers that float32 holds exactly, so that the double-precision references mean the same box.
BOXES = st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (-2.125, 2.625), (-1000.0, 2.0**-10)])
TYPES = st.sampled_from([torch.float32, torch.float64])
GIVEN = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Any, Ball, Tensor, Tensor]:
    """(kind, a set, x anywhere, x0 in the box): 1 to 6 rows, radii from 0 to past the box, one or one a row."""
    kind: Any = draw(st.sampled_from(KINDS))
    low, high = draw(BOXES)
    dtype = draw(TYPES)
    count = draw(st.integers(1, 6))
    shape = draw(st.sampled_from([(1,), (5,), (40,), (2, 3, 4)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x0 = low + (high - low) * torch.rand(count, *shape, generator=generator, dtype=dtype)
    at_a_face = torch.rand(x0.shape, generator=generator) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    x0 = torch.where(at_a_face, torch.where(torch.rand(x0.shape, generator=generator) < 0.5, low, high).to(dtype), x0)
    away = draw(st.sampled_from([0.0, 1e-6, 0.1, 3.0, 1e6])) * (high - low)
    x = x0 + away * torch.randn(x0.shape, generator=generator, dtype=dtype)
    sizes = (high - low) * torch.tensor([0.0, 1e-3, 0.05, 0.5, 2.0, 100.0])
    radius = sizes[torch.randint(6, (count,), generator=generator)]
    one = draw(st.booleans())
    return kind, kind(float(radius[0]) if one else radius, (low, high)), x, x0.clamp(low, high)


def inside(within: Ball, x: Tensor, x0: Tensor) -> bool:
    """In ball and box, computed in double precision with a slack of a few units in the last place."""
    low, high = within.bounds
    unit = 8 * torch.finfo(x.dtype).eps * max(abs(low), abs(high))
    away = (x.double() - x0.double()).flatten(1)
    radius = torch.as_tensor(within.radius, dtype=torch.float64)
    order = ORDERS[type(within)]
    length = away.norm(p=order, dim=1)
    slack = unit * away.shape[1] ** (1 / order)
    return bool((length <= radius + slack).all()) and bool((x >= low).all()) and bool((x <= high).all())


# -- project ------------------------------------------------------------------------------------------------


@GIVEN
@given(scenes())
def test_a_projection_is_inside(scene: Any) -> None:
    _, within, x, x0 = scene
    projected = within.project(x, x0)

    assert projected.dtype == x.dtype
    assert inside(within, projected, x0)
    assert bool(within.contains(projected, x0).all())


@GIVEN
@given(scenes())
def test_projecting_twice_is_projecting_once(scene: Any) -> None:
    _, within, x, x0 = scene
    once = within.project(x, x0)
    low, high = within.bounds
    rounding = 4 * torch.finfo(x.dtype).eps * max(abs(low), abs(high), float(once.abs().max()))

    assert float((within.project(once, x0) - once).abs().max()) <= rounding


@GIVEN
@given(scenes())
def test_projecting_writes_into_nothing(scene: Any) -> None:
    _, within, x, x0 = scene
    before = x.clone(), x0.clone()
    within.project(x, x0)

    assert torch.equal(x, before[0])
    assert torch.equal(x0, before[1])


@GIVEN
@given(scenes(), st.integers(0, 2**31))
def test_no_random_point_of_the_set_is_nearer(scene: Any, seed: int) -> None:
    _, within, x, x0 = scene
    projected = within.project(x, x0)
    length = torch.linalg.vector_norm((projected - x).double().flatten(1), dim=1)
    away = float((x - x0).double().norm())
    rounding = 1e-5 if x.dtype == torch.float32 else 1e-12
    scale = away + (within.bounds[1] - within.bounds[0])
    draw = Streams.start(seed, [str(i) for i in range(len(x))])
    for t in (1.0, 0.5, 0.1, 1e-3):
        other = projected + t * (within.sample(x0, draw) - projected)  # the set is convex
        farther = torch.linalg.vector_norm((other - x).double().flatten(1), dim=1)
        assert bool((length <= farther + rounding * scale).all())


@GIVEN
@given(scenes())
def test_linf_is_the_closed_form(scene: Any) -> None:
    _, within, x, x0 = scene
    linf = Linf(within.radius, within.bounds)
    low, high = within.bounds
    radius = torch.as_tensor(within.radius, dtype=torch.float64).reshape(-1, *[1] * (x.dim() - 1))
    exact = torch.minimum(torch.maximum(x.double(), x0.double() - radius), x0.double() + radius).clamp(low, high)
    rounding = 4 * torch.finfo(x.dtype).eps * max(abs(low), abs(high))

    assert float((linf.project(x, x0) - exact).abs().max()) <= rounding


def nearest(x: Tensor, x0: Tensor, radius: float, bounds: tuple[float, float]) -> Tensor:
    """The nearest point of L2 ball and box, by scipy's root finder on the multiplier of the ball (KKT)."""

    def point(t: float) -> Tensor:
        """The minimum of ‖z - x‖² + λ‖z - x0‖² over the box, with t = 1 / (1 + λ)."""
        return (x0 + t * (x - x0)).clamp(*bounds)

    def beyond(t: float) -> float:
        return float((point(t) - x0).norm()) - radius

    return point(1.0 if beyond(1.0) <= 0 else optimize.brentq(beyond, 0.0, 1.0, xtol=1e-30, rtol=1e-14))


@GIVEN
@given(scenes())
def test_l2_is_what_a_root_finder_finds(scene: Any) -> None:
    _, within, x, x0 = scene
    l2 = L2(within.radius, within.bounds)
    found = l2.project(x, x0).double()
    radii = torch.as_tensor(within.radius, dtype=torch.float64).expand(len(x)).tolist()
    exact = torch.stack(
        [nearest(a, b, radius, within.bounds) for a, b, radius in zip(x.double(), x0.double(), radii, strict=True)]
    )
    width = within.bounds[1] - within.bounds[0]
    size = max(abs(within.bounds[0]), abs(within.bounds[1]))
    away = float((x - x0).abs().max())
    # x itself is rounded at its own size, and that moves the projection by as much times radius / distance.
    rounding = torch.finfo(x.dtype).eps * (32 * size * (1 + (x[0].numel()) ** 0.5) + 4 * min(away, width))

    assert float((found - exact).abs().max()) <= rounding


@EACH
def test_a_row_is_projected_alike_in_any_company(kind: Kind) -> None:
    """Bit by bit: beside rows inside the set, beside rows far outside, and alone."""
    draw = torch.Generator().manual_seed(0)
    x0 = (torch.randn(60, 30, generator=draw) / 3).clamp(-1, 1)
    x = torch.randn(60, 30, generator=draw) * torch.logspace(-1, 1, 60)[:, None]
    within = kind(torch.full((60,), 4.0), (-1.0, 1.0))
    whole = within.project(x, x0)

    for size in (1, 2, 7):
        pieces = [torch.arange(at, min(at + size, 60)) for at in range(0, 60, size)]
        parts = [within.take(i).project(x[i], x0[i]) for i in pieces]
        assert torch.equal(torch.cat(parts), whole)


@EACH
def test_a_point_inside_stays_as_it_is(kind: Kind) -> None:
    x0 = torch.tensor([[0.9, 0.8], [0.9, 0.8]])
    x = torch.tensor([[0.0123456789, 0.8], [0.0123456789, 0.8]])
    within = kind(torch.tensor([2.0, 0.1]))

    assert torch.equal(within.project(x, x0)[0], x[0])


def test_no_rows_project_to_no_rows() -> None:
    for within in (Linf(0.1), L2(0.1), L1(0.1)):
        assert within.project(torch.empty(0, 3), torch.empty(0, 3)).shape == (0, 3)


# -- steepest -----------------------------------------------------------------------------------------------


@GIVEN
@given(scenes(), st.integers(0, 2**31))
def test_steepest_has_length_one_and_the_largest_inner_product(scene: Any, seed: int) -> None:
    kind, _, x, _ = scene
    unit = kind(1.0, (-2.0, 2.0))
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    step = unit.steepest(gradient)
    gain = (step * gradient).double().flatten(1).sum(1)
    flat = gradient.double().flatten(1)
    dual = flat.norm(p=DUAL[kind], dim=1)
    length = unit.distance(step, torch.zeros_like(step))

    assert length.tolist() == pytest.approx([1.0] * len(x), rel=1e-5)
    assert gain.tolist() == pytest.approx(dual.tolist(), rel=1e-5)
    draw = Streams.start(seed, [str(i) for i in range(len(x))])
    other = unit.sample(torch.zeros_like(x), draw)
    assert bool(((other * gradient).double().flatten(1).sum(1) <= gain * (1 + 1e-5)).all())


@EACH
def test_steepest_of_nothing_is_nothing(kind: Kind) -> None:
    assert not bool(kind(1.0).steepest(torch.zeros(2, 3)).any())


@EACH
@pytest.mark.parametrize("size", [1e-35, 1e-25, 1e-12, 1e12, 1e25, 1e35])
def test_steepest_does_not_depend_on_the_size_of_the_gradient(kind: Kind, size: float) -> None:
    """A saturated model's gradients are that small, and squaring them underflows."""
    gradient = torch.tensor([[3.0, -4.0, 0.5], [1.0, 2.0, -1.0]])

    assert kind(1.0).steepest(gradient * size).flatten().tolist() == pytest.approx(
        kind(1.0).steepest(gradient).flatten().tolist(), rel=1e-5
    )


# -- sample -------------------------------------------------------------------------------------------------


@GIVEN
@given(scenes(), st.integers(0, 2**31))
def test_samples_are_inside(scene: Any, seed: int) -> None:
    _, within, _, x0 = scene
    found = within.sample(x0, Streams.start(seed, [str(i) for i in range(len(x0))]))

    assert found.dtype == x0.dtype
    assert inside(within, found, x0)


@EACH
@pytest.mark.parametrize("number", [0.0, 1 - 2.0**-24])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-2.1, 2.64), (-1000.0, 0.001), (-0.001, 1000.0)])
def test_the_rarest_draws_are_inside_too(
    monkeypatch: pytest.MonkeyPatch, kind: Kind, number: float, bounds: tuple[float, float]
) -> None:
    def uniform(self: Streams, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.full((len(self.ids), *shape), number, dtype=dtype)

    monkeypatch.setattr(Streams, "uniform", uniform)
    within = kind(10.0, bounds)
    x0 = bounds[0] + (bounds[1] - bounds[0]) * torch.rand(2, 50, generator=torch.Generator().manual_seed(0))
    x0[1] = bounds[1]

    assert inside(within, within.sample(x0.clamp(*bounds), Streams.start(0, ["a", "b"])), x0)


def test_linf_samples_fill_the_ball_evenly() -> None:
    x0 = torch.full((200, 50), 0.5)
    found = Linf(0.2).sample(x0, Streams.start(0, [str(i) for i in range(200)]))
    share = ((found - 0.3) / 0.4).flatten()

    assert [float((share < t).float().mean()) for t in (0.1, 0.5, 0.9)] == pytest.approx([0.1, 0.5, 0.9], abs=0.02)


def test_l2_samples_fill_the_ball_evenly() -> None:
    """The length of a uniform point, to the power of the dimension, is uniform; its direction has no side."""
    x0 = torch.zeros(4000, 5)
    found = L2(1.0, (-2.0, 2.0)).sample(x0, Streams.start(0, [str(i) for i in range(4000)]))
    share = found.norm(dim=1) ** 5

    assert [float((share < t).float().mean()) for t in (0.1, 0.5, 0.9)] == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
    assert float(found.mean(0).abs().max()) < 0.03


# -- contains, distance -------------------------------------------------------------------------------------


@EACH
def test_contains_allows_rounding_and_no_more(kind: Kind) -> None:
    """In the ball up to a few units in the last place of the box's magnitude; in the box exactly."""
    x0 = torch.full((1, 4), 0.5)
    way = kind(1.0).steepest(torch.ones(1, 4))
    within = kind(0.1)

    assert bool(within.contains(x0 + 0.1 * way, x0))
    assert bool(within.contains(x0 + (0.1 + 1e-7) * way, x0))
    assert not bool(within.contains(x0 + (0.1 + 1e-5) * way, x0))
    edge = torch.full((1, 4), 0.99)
    assert not bool(kind(0.5).contains(torch.full((1, 4), 1.0 + 1.2e-7), edge))
    assert not bool(kind(0.5).contains(torch.full((1, 4), -1e-30), torch.zeros(1, 4)))
    assert bool(kind(0.5).contains(torch.full((1, 4), 1.0), edge))


@EACH
def test_contains_is_exact_to_the_type(kind: Kind) -> None:
    """In double precision a float32 rounding error is a step outside."""
    x0 = torch.full((1, 4), 0.5, dtype=torch.float64)
    way = kind(1.0).steepest(torch.ones_like(x0))

    assert not bool(kind(0.1).contains(x0 + (0.1 + 1e-9) * way, x0))
    assert bool(kind(0.1).contains(x0 + 0.1 * way, x0))


@EACH
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_nothing_that_is_no_number_is_inside(kind: Kind, number: float) -> None:
    x0 = torch.full((2, 3), 0.5)
    x = x0.clone()
    x[0, 1] = number

    assert kind(10.0).contains(x, x0).tolist() == [False, True]


def test_distance() -> None:
    x0, x = torch.zeros(2, 1, 2), torch.tensor([[[0.3, -0.4]], [[0.0, 0.0]]])

    assert Linf(1.0).distance(x, x0).tolist() == pytest.approx([0.4, 0.0])
    assert L2(1.0).distance(x, x0).tolist() == pytest.approx([0.5, 0.0])
    assert L1(1.0).distance(x, x0).tolist() == pytest.approx([0.7, 0.0])


# -- values -------------------------------------------------------------------------------------------------


@EACH
def test_one_radius_or_one_a_row(kind: Kind) -> None:
    x0 = torch.full((3, 4), 0.5)
    x = x0 + 1
    each = kind(torch.tensor([0.0, 0.1, 0.2]))

    whole = each.project(x, x0)
    assert each.distance(whole, x0).tolist() == pytest.approx([0.0, 0.1, 0.2], abs=1e-6)
    for i in range(3):
        assert torch.equal(
            kind(float(torch.tensor([0.0, 0.1, 0.2])[i])).project(x[i : i + 1], x0[:1]), whole[i : i + 1]
        )
    assert torch.as_tensor(each.take(torch.tensor([2, 0])).radius).tolist() == pytest.approx([0.2, 0.0])
    assert kind(0.3).take(torch.tensor([2, 0])).radius == 0.3


@EACH
def test_a_float64_radius_a_row_does_not_change_the_type(kind: Kind) -> None:
    within = kind(torch.tensor([0.1, 0.2], dtype=torch.float64))
    x0 = torch.full((2, 3), 0.5)

    assert within.project(x0 + 1, x0).dtype == torch.float32
    assert within.sample(x0, Streams.start(0, ["a", "b"])).dtype == torch.float32


@EACH
def test_sized_and_inside_change_one_thing(kind: Kind) -> None:
    assert kind(0.1, (-1.0, 1.0)).sized(0.2) == kind(0.2, (-1.0, 1.0))
    assert kind(0.1, (-1.0, 1.0)).inside((0.0, 5.0)) == kind(0.1, (0.0, 5.0))


@EACH
@pytest.mark.parametrize("radius", [-0.1, math.nan, torch.tensor([0.1, -1.0])])
def test_impossible_radii_are_refused(kind: Kind, radius: float | Tensor) -> None:
    with pytest.raises(SettingError, match="radius"):
        kind(radius)


@EACH
@pytest.mark.parametrize("bounds", [(1.0, 0.0), (1.0, 1.0), (math.nan, 1.0)])
def test_impossible_boxes_are_refused(kind: Kind, bounds: tuple[float, float]) -> None:
    with pytest.raises(SettingError, match="bounds"):
        kind(0.1, bounds)


def test_a_random_point_does_not_depend_on_the_batch() -> None:
    x0, names = torch.full((300, 7), 0.5), [str(i) for i in range(300)]
    whole = L2(1.5).sample(x0, Streams.start(0, names))
    for first, last in ((0, 1), (1, 8), (8, 300)):
        part = L2(1.5).sample(x0[first:last], Streams.start(0, names[first:last]))
        assert torch.equal(part, whole[first:last])
