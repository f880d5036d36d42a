"""Provers on models whose certified rows are known: planes, masks, trees scaled and not, cell by cell."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from redan.assessment.provers import Cleanser, Exact, Smoothed, through_scale
from redan.certification.smoothing import Smoothing
from redan.certification.stopping import robust_at
from redan.certification.trees import smallest_change
from redan.formats.forest import Comparison, Forest, Precision, decided, scores
from redan.perturbations.norms import L2, Linf
from redan.targets import Affine, FunctionTarget, Output, affine, from_function, from_torch

# -- smoothing -------------------------------------------------------------------------------------------


def two_sided(distance: list[float]) -> tuple[nn.Linear, Tensor, Tensor]:
    """Rows of class 0 at these distances from the plane between two classes."""
    module = nn.Linear(2, 2, bias=False).eval()
    module.weight.data = torch.eye(2)
    half = torch.tensor(distance) / math.sqrt(2)
    return module, torch.stack([0.5 + half, 0.5 - half], 1), torch.zeros(len(distance), dtype=torch.int64)


def test_the_smoothed_plane_is_certified_up_to_its_distance() -> None:
    """The smoothed classifier of a plane is that plane, whatever the noise."""
    module, x, y = two_sided([-0.2, 0.15, 0.35, 0.6])
    prover = Smoothed(target=from_torch(module), settings=Smoothing(sigma=0.25, draws=4_000), workers=1)
    found = prover(x, y, [0.25, 0.45])
    assert found.certified.tolist() == [[False, False, True, True], [False, False, False, True]]
    assert found.right.tolist() == [[False, True, True, True]] * 2
    assert not found.broken.any()
    clean, near = (robust_at(module, x[4 - n :], radius, prover.settings) for n, radius in ((4, 0.0), (3, 0.25)))
    assert found.asked[0] == int(clean.samples.sum() + near.samples.sum()) < 4 * prover.most([0.25])
    assert 2 * 100 < found.asked[1] <= 2 * 4_100  # of the two rows that are left


def test_no_right_row_asks_nothing_more() -> None:
    module, x, y = two_sided([-0.3, -0.4])
    found = Smoothed(target=from_torch(module), settings=Smoothing(sigma=0.25, draws=500))(x, y, [0.1, 0.2])
    assert not found.certified.any()
    assert found.asked[1] == 0


# -- patches ---------------------------------------------------------------------------------------------


def test_patches_are_certified_where_no_pair_of_masks_matters() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False)).eval()
    layer: Any = module[1]
    layer.weight.data = torch.tensor([[-1.0], [1.0]]).expand(2, 64) / 64
    layer.bias = nn.Parameter(torch.tensor([0.55, -0.55]))
    x = torch.stack([torch.ones(1, 8, 8), torch.full((1, 8, 8), 0.56), torch.zeros(1, 8, 8)])
    prover = Cleanser(target=from_torch(module), image=(8, 8))
    found = prover(x, torch.tensor([1, 1, 1]), [2.0])
    assert found.certified.tolist() == [[True, False, False]]
    assert found.broken.tolist() == [[False, False, True]]
    assert prover.masks(2).stride == (2, 2)  # ⌈(8 − 2 + 1) / 6⌉
    assert found.asked == [3 * 136]  # 4 × 4 masks of 3 × 3 pixels, and their pairs


# -- trees -----------------------------------------------------------------------------------------------


def forest(seed: int, *, inputs: int = 3, low: float = 0.0, high: float = 1.0) -> Forest:
    """Three trees of depth 2 with random splits of single precision."""
    draw = np.random.default_rng(seed)
    left = np.concatenate([np.array([1, 3, 5, -1, -1, -1, -1]) + np.array([t * 7] * 3 + [0] * 4) for t in range(3)])
    right = np.where(left >= 0, left + 1, -1)
    return Forest(
        feature=draw.integers(0, inputs, 21),
        threshold=draw.uniform(low, high, 21).astype(np.float32).astype(np.float64),
        left=left,
        right=right,
        value=draw.uniform(-1, 1, (21, 2)),
        roots=np.array([0, 7, 14]),
        base=np.zeros(2),
        inputs=inputs,
        comparison=Comparison.LESS,
        precision=Precision.SINGLE,
        sums=Precision.DOUBLE,
    )


def served(trees: Forest, bounds: tuple[float, float] = (0.0, 1.0)) -> FunctionTarget:
    return from_function(
        lambda x: scores(trees, x), bounds=bounds, classes=2, output=Output.LOGITS, dtype=torch.float32
    )  # fmt: skip


@pytest.mark.parametrize("norm", [Linf, L2])
def test_trees_are_certified_below_their_smallest_change_and_break_above(norm: type[Linf] | type[L2]) -> None:
    trees = forest(3)
    x = torch.from_numpy(np.random.default_rng(4).uniform(0, 1, (12, 3)).astype(np.float32))
    y = torch.from_numpy(decided(scores(trees, x.numpy())))
    y[0] = 1 - y[0]
    away = smallest_change(trees, x, y, norm=norm).distance
    radii = [0.05, 0.1, 0.2]
    found = Exact(target=served(trees), forest=trees, norm=norm)(x, y, radii)
    for at, radius in enumerate(radii):
        assert found.certified[at].tolist() == (away > radius).tolist()
        assert found.broken[at].tolist() == (away <= radius).tolist()
    assert found.right[0].tolist() == [False] + [True] * 11


@pytest.mark.parametrize("norm", [Linf, L2])
def test_scaled_columns_have_the_changes_of_their_own_units(norm: type[Linf] | type[L2]) -> None:
    """All columns ten times as wide: the changes are a tenth."""
    trees = forest(5, low=10.0, high=20.0)
    inner = served(trees, (10.0, 20.0))
    target: Affine = affine(
        inner, torch.full((3,), 10.0, dtype=torch.float64), torch.full((3,), 10.0, dtype=torch.float64), (0.0, 1.0)
    )
    x = torch.from_numpy(np.random.default_rng(6).uniform(0, 1, (12, 3)))
    raw = (x * 10 + 10).float()
    y = torch.from_numpy(decided(scores(trees, raw.numpy())))
    away = smallest_change(trees, raw, y, norm=norm, bounds=(10.0, 20.0)).distance / 10
    prover = through_scale(target, trees, norm)
    assert 0 < prover.slack.max() < 1e-5
    near = smallest_change(prover.forest, x, y, norm=norm, model=prover.asked).distance
    assert torch.allclose(near, away, atol=2e-6)
    found = prover(x, y, [0.05, 0.15])
    assert found.certified.tolist() == [(away > radius).tolist() for radius in (0.05, 0.15)]
    assert (found.certified ^ found.broken).all()


@pytest.mark.parametrize("seed", range(8))
def test_scaled_trees_agree_with_every_cell_that_a_served_input_reaches(seed: int) -> None:
    """In L∞ a ball reaches, in each column, the cells between its ends as served: all of them are asked.

    Columns are ill-conditioned, and radii lie a hair on either side of each smallest change.
    """
    draw = np.random.default_rng(seed)
    low, width = draw.uniform(-2000, 2000, 3), draw.uniform(0.5, 50, 3)
    trees = forest(seed + 100)  # of the same seed, rows would lie on cuts
    trees = replace(trees, threshold=(trees.threshold * width[trees.feature] + low[trees.feature]).astype(np.float32))
    target = affine(served(trees, (-2100.0, 2100.0)), torch.from_numpy(width), torch.from_numpy(low), (0.0, 1.0))
    x = torch.from_numpy(draw.uniform(0, 1, (6, 3)))
    y = target(x).argmax(1)
    prover = through_scale(target, trees, Linf)
    near = smallest_change(prover.forest, x, y, norm=Linf, model=prover.asked).distance
    radii = sorted({float(d) * by for d in near if 0 < d < 1 for by in (1 - 1e-3, 1 - 1e-7, 1, 1 + 1e-7, 1 + 1e-3)})
    found = prover(x, y, radii)
    steps = [np.unique(trees.threshold[(trees.feature == c) & (trees.left >= 0)]) for c in range(3)]
    for at, radius in enumerate(radii):
        for row in range(6):
            ends = [(x[row] + sign * radius).clamp(0, 1).numpy() * width + low for sign in (-1, 1)]
            first, last = (end.astype(np.float32).astype(np.float64) for end in ends)
            reached = [
                np.array([first[c], *(t for t in steps[c] if first[c] < t <= last[c])], dtype=np.float32)
                for c in range(3)
            ]
            corners = np.stack(np.meshgrid(*reached, indexing="ij"), -1).reshape(-1, 3)
            robust = bool((decided(scores(trees, corners)) == int(y[row])).all())
            assert robust or not found.certified[at, row]
            assert not (robust and found.broken[at, row])
            if abs(radius - float(near[row])) > 4 * float(prover.slack.max()):
                assert bool(found.certified[at, row]) == robust
                assert bool(found.broken[at, row]) == (not robust)


def test_a_column_that_never_changes_has_no_cut() -> None:
    trees = replace(forest(7, inputs=1), inputs=2)  # the second column is used by none
    target = affine(
        served(trees),
        torch.tensor([0.0, 1.0], dtype=torch.float64),
        torch.tensor([0.3, 0.0], dtype=torch.float64),
        (0, 1),
    )
    x = torch.full((1, 2), 0.5, dtype=torch.float64)
    y = torch.from_numpy(decided(scores(trees, np.array([[0.3, 0.5]], dtype=np.float32))))
    found = through_scale(target, trees, Linf)(x, y, [0.4])
    assert found.certified.tolist() == [[True]]
