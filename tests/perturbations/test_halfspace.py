"""The shortest way to a hyperplane in the box: against linear programs, bisection and closed forms."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, linprog
from torch import Tensor

from redan.errors import SetError
from redan.perturbations.halfspace import crossing, dual
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1

SETS: dict[str, Any] = {"linf": Linf, "l2": L2, "l1": L1}
ORDERS = {"linf": math.inf, "l2": 2.0, "l1": 1.0}
BOX = (-1.0, 2.0)


def scene(seed: int, rows: int = 6, size: int = 5, ties: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Points in the box, some on its faces, normals with zeros, and gaps up to what the box allows."""
    draw = torch.Generator().manual_seed(seed)
    x = (torch.rand(rows, size, generator=draw, dtype=torch.float64) * 5 - 2).clamp(*BOX)
    normal = torch.randn(rows, size, generator=draw, dtype=torch.float64)
    normal = normal.round() if ties else normal
    normal[:, 0] *= torch.rand(rows, generator=draw) > 0.5
    share = torch.rand(rows, generator=draw, dtype=torch.float64) * 1.8 - 0.9
    up, down = room(x, normal, 1), room(x, normal, -1)
    return x, normal, torch.where(share > 0, share * up, share * down)


def room(x: Tensor, normal: Tensor, sign: int) -> Tensor:
    """How far normal · move can get within the box."""
    ends = torch.where(normal * sign > 0, BOX[1] - x, BOX[0] - x)
    return (sign * normal * ends).sum(1)


def shortest(norm: str, x: np.ndarray[Any, Any], w: np.ndarray[Any, Any], gap: float) -> float:
    """The optimum by other means: linear programs for L∞ and L1, a root for L2."""
    low, high = BOX[0] - x, BOX[1] - x
    size = len(x)
    if norm == "l2":

        def missing(t: float) -> float:
            return float(w @ np.clip(t * w, low, high)) - gap

        span = 1e3 * (1 + abs(gap))
        t = brentq(missing, -span, span, xtol=1e-14)
        return float(np.linalg.norm(np.clip(t * w, low, high)))
    bounds = [*zip(low, high, strict=True)]
    if norm == "linf":
        ones = np.ones((size, 1))
        above = np.vstack([np.hstack([np.eye(size), -ones]), np.hstack([-np.eye(size), -ones])])
        found = linprog([*[0] * size, 1], above, np.zeros(2 * size), [[*w, 0]], [gap], bounds=[*bounds, (0, None)])
    else:
        split = [(0, b) for b in high] + [(0, -a) for a in low]
        found = linprog(np.ones(2 * size), A_eq=[[*w, *-w]], b_eq=[gap], bounds=split)
    assert found.fun is not None, found.message
    return float(found.fun)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("norm", SETS)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_it_is_the_optimum(norm: str, ties: bool, seed: int) -> None:
    x, normal, gap = scene(seed, rows=3, ties=ties)
    move = crossing(SETS[norm](1.0, BOX), x, normal, gap)

    assert torch.allclose((normal * move).sum(1), gap, atol=1e-9)
    assert bool(((x + move >= BOX[0] - 1e-12) & (x + move <= BOX[1] + 1e-12)).all())
    length = torch.linalg.vector_norm(move, ord=ORDERS[norm], dim=1)
    for i in range(len(x)):
        best = shortest(norm, x[i].numpy(), normal[i].numpy(), float(gap[i]))
        assert float(length[i]) == pytest.approx(best, abs=1e-7)


@pytest.mark.parametrize("norm", SETS)
def test_away_from_the_box_it_is_the_gap_over_the_dual_norm(norm: str) -> None:
    within = SETS[norm](1.0, (-100.0, 100.0))
    normal, gap = scene(1)[1], torch.linspace(-2, 2, 6, dtype=torch.float64)
    move = crossing(within, torch.zeros_like(normal), normal, gap)

    length = torch.linalg.vector_norm(move, ord=ORDERS[norm], dim=1)
    assert torch.allclose(length, gap.abs() / dual(within, normal))


@pytest.mark.parametrize("norm", SETS)
def test_where_the_box_ends_first_it_goes_to_the_faces(norm: str) -> None:
    x, normal, _ = scene(2)
    move = crossing(SETS[norm](1.0, BOX), x, normal, 2 * room(x, normal, 1))

    ends = torch.where(normal > 0, BOX[1] - x, torch.where(normal < 0, BOX[0] - x, 0))
    assert torch.allclose(move, ends)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", SETS)
def test_no_normal_no_gap_or_no_number_is_no_move(norm: str, dtype: torch.dtype) -> None:
    x = torch.full((6, 2, 3), 0.5, dtype=dtype)
    normal, gap = torch.ones_like(x), torch.tensor([0, 1, torch.inf, -torch.inf, torch.nan, 0], dtype=dtype)
    normal[[0, 1]] = 0
    assert not bool(crossing(SETS[norm](1.0), x, normal, gap).any())


@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1e6, 1e25])
@pytest.mark.parametrize("norm", SETS)
def test_the_scale_of_the_scores_does_not_matter(norm: str, scale: float) -> None:
    x, normal, gap = (part.float() for part in scene(3))
    within = SETS[norm](1.0, BOX)
    scaled = crossing(within, x, normal * scale, gap * scale)
    assert torch.allclose(scaled, crossing(within, x, normal, gap), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", SETS)
def test_other_rows_change_no_byte(norm: str) -> None:
    x, normal, gap = scene(4, rows=16, size=300)
    within = SETS[norm](1.0, BOX)
    whole = crossing(within, x, normal, gap)
    for i in range(16):
        assert torch.equal(whole[i : i + 1], crossing(within, x[i : i + 1], normal[i : i + 1], gap[i : i + 1]))
    assert crossing(within, x[:0], normal[:0], gap[:0]).shape == (0, 300)


def test_a_set_without_linear_steps_is_refused() -> None:
    x = torch.ones(1, 2)
    with pytest.raises(SetError, match="use Linf, L2 or L1"):
        dual(L0(1), x)
    with pytest.raises(SetError, match="use Linf, L2 or L1"):
        crossing(L0(1), x, x, torch.ones(1))
