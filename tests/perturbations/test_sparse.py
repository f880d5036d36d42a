"""L1 against sorted breakpoints, its optimality conditions and a general solver; L0 against brute force."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from torch import Tensor

from redan.perturbations.sparse import L0, L1, inward, sparsest
from redan.rows import Streams

# Numbers that float32 holds exactly, so that the double-precision references mean the same box.
BOXES = st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (-2.125, 2.625), (-1000.0, 2.0**-10)])
TYPES = st.sampled_from([torch.float32, torch.float64])
GIVEN = settings(max_examples=80, deadline=None, derandomize=True)
Box = tuple[float, float]
Numbers = Any  # an array of doubles


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Box, Tensor, Tensor, Tensor]:
    """(box, radius a row, x anywhere, x0 in the box, often at its faces): 1 to 5 rows."""
    low, high = draw(BOXES)
    dtype, count = draw(TYPES), draw(st.integers(1, 5))
    shape = draw(st.sampled_from([(1,), (4,), (60,), (2, 3, 5)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x0 = low + (high - low) * torch.rand(count, *shape, generator=generator, dtype=dtype)
    at_a_face = torch.rand(x0.shape, generator=generator) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    x0 = torch.where(at_a_face, torch.where(torch.rand(x0.shape, generator=generator) < 0.5, low, high).to(dtype), x0)
    x0 = x0.clamp(low, high)
    away = torch.randn(x0.shape, generator=generator, dtype=dtype)
    kept = torch.rand(x0.shape, generator=generator) < draw(st.sampled_from([0.1, 1.0]))
    x = x0 + draw(st.sampled_from([0.0, 1e-6, 0.1, 3.0, 1e6])) * (high - low) * away * kept
    sizes = (high - low) * torch.tensor([0.0, 1e-3, 0.05, 0.5, 2.0, 20.0, 1000.0])
    return (low, high), sizes[torch.randint(len(sizes), (count,), generator=generator)], x, x0


def rounding(x: Tensor, box: Box, units: float = 8) -> float:
    return units * torch.finfo(x.dtype).eps * max(abs(box[0]), abs(box[1]))


# -- L1 -----------------------------------------------------------------------------------------------------


def by_breakpoints(x: Tensor, x0: Tensor, radius: float, box: Box) -> Numbers:
    """The projection of one row in double precision: the shift t by interpolation between its sorted breakpoints."""
    delta = x.double().flatten().numpy() - x0.double().flatten().numpy()
    size, start = np.abs(delta), x0.double().flatten().numpy()
    room = np.where(delta > 0, box[1] - start, start - box[0])

    def moved(t: float) -> Numbers:
        return np.minimum(np.maximum(size - t, 0), room)

    if moved(0).sum() <= radius:
        return start + np.sign(delta) * moved(0)
    knots = np.unique(np.concatenate([[0.0], size, np.maximum(size - room, 0)]))
    sums = np.array([moved(t).sum() for t in knots])
    i = int(np.flatnonzero(sums >= radius)[-1])
    if i + 1 == len(knots):
        return start + np.sign(delta) * moved(knots[i])
    t = knots[i] + (sums[i] - radius) / (sums[i] - sums[i + 1]) * (knots[i + 1] - knots[i])
    return start + np.sign(delta) * moved(t)


@GIVEN
@given(scenes())
def test_l1_is_what_sorted_breakpoints_give(scene: Any) -> None:
    box, radius, x, x0 = scene
    found = L1(radius, box).project(x, x0).double().flatten(1).numpy()
    for i, r in enumerate(radius.tolist()):
        wanted = by_breakpoints(x[i], x0[i], r, box)
        # In double precision the reference rounds its own t at the size of x.
        slack = rounding(x, box, 16) + 8 * np.finfo(np.float64).eps * float(x[i].abs().max())
        assert np.abs(found[i] - wanted).max() <= slack
        # Together too: a slip in the last place of each coordinate adds up.
        assert np.abs(found[i] - x0[i].double().flatten().numpy()).sum() <= r + slack * len(wanted)


@GIVEN
@given(scenes())
def test_l1_meets_the_optimality_conditions(scene: Any) -> None:
    """KKT: no coordinate passes x or turns round; all that neither rest nor touch a face were shortened by one t ≥ 0.

    Those at a face were shortened by no more than t in going there, those at rest had at most t to go; and t is
    above 0 only where the whole radius is spent.
    """
    box, radius, x, x0 = scene
    z = L1(radius, box).project(x, x0)
    unit = rounding(x, box)
    way = (x - x0).sign().double()
    gone, wish = ((way * (z.double() - x0.double())).flatten(1), (x.double() - x0.double()).abs().flatten(1))
    assert bool((gone >= -unit).all())
    at_face = ((z <= box[0] + unit) | (z >= box[1] - unit)).flatten(1)
    for g, w, face, r in zip(gone, wish, at_face, radius.tolist(), strict=True):
        slack = 2 * unit + 4 * torch.finfo(x.dtype).eps * float(w.max())
        spent = float(g.sum())
        free = (g > unit) & ~face
        cut = w - g
        t = float(cut[free].mean()) if bool(free.any()) else None
        if t is None:
            continue
        assert float((cut[free] - t).abs().max()) <= slack
        assert bool((w[(g <= unit) & ~face] <= t + slack).all())
        assert t >= -slack
        assert t <= slack or abs(spent - r) <= unit * len(g)


def test_l1_is_what_a_general_solver_finds() -> None:
    """SLSQP on ½‖z - x‖² in the split variables z - x0 = p - q, whose sum the radius bounds."""
    draw = np.random.default_rng(0)
    for radius in (0.1, 0.7, 1.5):
        x0, x = draw.uniform(0, 1, 6), draw.normal(0.5, 1, 6)

        constraint: Any = {"type": "ineq", "fun": lambda v, radius=radius: radius - v.sum()}
        apart: Any = lambda v, x0=x0, x=x: ((x0 + v[:6] - v[6:] - x) ** 2).sum() / 2  # noqa: E731
        answer = optimize.minimize(
            apart,
            np.zeros(12),
            method="SLSQP",
            bounds=[(0, r) for r in (*(1 - x0), *x0)],
            constraints=constraint,
            options={"ftol": 1e-14, "maxiter": 500},
        )
        wanted = x0 + answer.x[:6] - answer.x[6:]
        found = L1(radius).project(torch.from_numpy(x)[None], torch.from_numpy(x0)[None])[0].numpy()
        assert np.abs(found - wanted).max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e3, 1e6])
def test_l1_spends_the_whole_radius_on_inputs_far_outside(dtype: torch.dtype, size: float) -> None:
    """Where x is so large that the shift cannot be told to a unit of the box."""
    draw = torch.Generator().manual_seed(0)
    x0 = torch.rand(40, 784, generator=draw, dtype=dtype)
    x = x0 + size * torch.randn(x0.shape, generator=draw, dtype=dtype)
    spent = (L1(12.0).project(x, x0).double() - x0.double()).abs().sum(1)

    assert float((spent - 12).abs().max()) < 784 * rounding(x0, (0, 1), 1)


def test_l1_of_another_layout_is_the_same() -> None:
    draw = torch.Generator().manual_seed(0)
    x0 = torch.rand(5, 3, 4, 6, generator=draw)
    x = x0 + torch.randn(x0.shape, generator=draw)
    for within in (L1(1.5), L0(4)):
        plain = within.project(x, x0)
        turned = within.project(x.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0), x0)
        assert torch.equal(plain, turned)


def test_l1_samples_fill_the_ball_evenly() -> None:
    """The length of a uniform point, to the power of the dimension, is uniform; each share has mean 1 / (D + 1)."""
    found = L1(1.0, (-2.0, 2.0)).sample(torch.zeros(4000, 5), Streams.start(0, [str(i) for i in range(4000)]))
    length = found.abs().sum(1) ** 5

    assert [float((length < t).float().mean()) for t in (0.1, 0.5, 0.9)] == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
    assert float(found.mean(0).abs().max()) < 0.02
    assert found.abs().mean(0).tolist() == pytest.approx([1 / 6] * 5, abs=0.01)


def test_sparsest() -> None:
    gradient = torch.tensor([[[3.0, -4.0], [0.5, 0.0]], [[1.0, -1.0], [1.0, 0.2]], [[0.0, 0.0], [0.0, 0.0]]])

    assert sparsest(gradient, 1).flatten(1).tolist()[0] == [0, -1, 0, 0]
    assert sparsest(gradient, torch.tensor([2, 1, 3])).flatten(1).tolist() == [
        [0.5, -0.5, 0, 0],
        [pytest.approx(1 / 3), pytest.approx(-1 / 3), pytest.approx(1 / 3), 0],  # equal ones at the threshold all count
        [0, 0, 0, 0],
    ]
    assert sparsest(gradient, 9).abs().sum((1, 2)).tolist() == pytest.approx([1, 1, 0])


def test_inward() -> None:
    x = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.5]])
    gradient = torch.tensor([[-1.0, 1.0, -1.0, 1.0, 1.0]])

    assert inward(gradient, x, (0.0, 1.0)).tolist() == [[0, 1, -1, 0, 1]]


# -- L0 -----------------------------------------------------------------------------------------------------


@GIVEN
@given(scenes(), st.integers(0, 5))
def test_l0_is_the_nearest_by_brute_force(scene: Any, count: int) -> None:
    box, _, x, x0 = scene
    if x[0].numel() > 5:
        x, x0 = x.flatten(1)[:, :5], x0.flatten(1)[:, :5]
    found = L0(count, box).project(x, x0)
    size = x0[0].numel()
    assert bool(((found != x0).flatten(1).sum(1) <= count).all())
    assert bool(((found >= box[0]) & (found <= box[1])).all())
    exact, start = x.double().clamp(*box).flatten(1), x0.double().flatten(1)
    ways = []
    for kept in itertools.combinations(range(size), min(count, size)):
        at = torch.zeros(size, dtype=torch.bool)
        at[list(kept)] = True
        ways.append((torch.where(at, exact, start) - x.double().flatten(1)).square().sum(1))
    least = torch.stack(ways).amin(0)
    mine = (found.double() - x.double()).flatten(1).square().sum(1)
    # Savings that differ by rounding may be taken for each other.
    assert bool((mine <= least + 64 * torch.finfo(x.dtype).eps * (1 + (x.double() - x0).abs().max() ** 2)).all())


@GIVEN
@given(scenes(), st.integers(0, 2**31))
def test_l0_keeps_what_is_inside_and_projects_once(scene: Any, seed: int) -> None:
    box, _, x, x0 = scene
    within = L0(torch.arange(len(x)).float() + 0.5, box)
    once = within.project(x, x0)
    drawn = within.sample(x0, Streams.start(seed, [str(i) for i in range(len(x0))]))

    for inside in (once, drawn):
        assert bool(within.contains(inside, x0).all())
        assert torch.equal(within.project(inside, x0), inside)
        assert inside.dtype == x.dtype
    assert torch.equal(L0(x[0].numel(), box).project(x, x0), x.clamp(*box))


@GIVEN
@given(st.integers(0, 2**31), st.integers(0, 5), st.integers(1, 9))
def test_l0_keeps_what_a_stable_sort_puts_first(seed: int, count: int, size: int) -> None:
    """Row by row its own count, from none to infinitely many, and the earlier of equal ones."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(1, 4, (count, size), generator=draw) / 4
    radius = torch.randint(0, size + 2, (count,), generator=draw).float()
    radius[torch.rand(count, generator=draw) < 0.2] = math.inf
    place = x.argsort(dim=1, descending=True, stable=True).argsort(dim=1)

    assert torch.equal(L0(radius).project(x, torch.zeros_like(x)), torch.where(place < radius[:, None], x, 0))


def test_l0_keeps_the_gain_after_the_box_and_not_the_longest_way() -> None:
    """The first coordinate asks for more and gets less: it starts near a face."""
    x0, x = torch.tensor([[0.95, 0.2]]), torch.tensor([[2.0, 0.9]])

    assert 2.0 - 0.95 > 0.9 - 0.2
    assert (2.0 - 0.95) ** 2 - (2.0 - 1.0) ** 2 < (0.9 - 0.2) ** 2
    assert (L0(1).project(x, x0) != x0).tolist() == [[False, True]]
    assert (L0(1).project(torch.tensor([[9.0, 0.9]]), x0) != x0).tolist() == [[True, False]]


def test_l0_counts_coordinates_and_floors_its_radius() -> None:
    x0 = torch.zeros(3, 4)
    x = torch.tensor([[0.1, 0, 0, 0], [0.1, 1e-38, 0, 0], [0.1, 0.2, 0.3, 0]])

    assert L0(2).distance(x, x0).tolist() == [1, 2, 3]
    assert L0(2).contains(x, x0).tolist() == [True, True, False]
    assert L0(2.9).contains(x, x0).tolist() == [True, True, False]
    assert L0(torch.tensor([0.5, 2.0, 3.0])).contains(x, x0).tolist() == [False, True, True]
    assert (L0(2.9).project(x + 1, x0) != x0).sum(1).tolist() == [2, 2, 2]
    assert L0(4).contains(torch.full((3, 4), math.nan), x0).tolist() == [False] * 3
    assert L0(4).contains(torch.full((3, 4), 1.0 + 1.2e-7), x0).tolist() == [False] * 3


def test_l0_samples_any_coordinate_alike_and_as_many_as_allowed() -> None:
    x0 = torch.full((3000, 6), 0.25)
    found = L0(2, (-1.0, 1.0)).sample(x0, Streams.start(0, [str(i) for i in range(3000)]))
    changed = found != x0

    assert set(changed.sum(1).tolist()) == {2}
    assert changed.float().mean(0).tolist() == pytest.approx([1 / 3] * 6, abs=0.03)
    assert float(found[changed].mean()) == pytest.approx(0, abs=0.03)


def test_l0_steps_as_far_as_one_change_can() -> None:
    gradient = torch.tensor([[3.0, -4.0, 0.5], [0.0, 0.0, 0.0]])

    assert L0(1, (-1.0, 3.0)).steepest(gradient).tolist() == [[0, -4, 0], [0, 0, 0]]
    assert L0(3).take(torch.tensor([0])).radius == 3
    assert L0(torch.tensor([1.0, 2.0])).take(torch.tensor([1])).sized(5.0) == L0(5.0)
    assert L0(3).inside((0.0, 5.0)) == L0(3, (0.0, 5.0))
