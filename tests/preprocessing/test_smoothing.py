"""Non-local means beside a slow loop, total variation beside a general solver."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, minimize
from torch import Tensor

from redan.preprocessing.lab import from_lab, to_lab
from redan.preprocessing.non_local import NonLocalMeans
from redan.preprocessing.total_variation import TotalVariation, objective, solution, solved
from redan.preprocessing.wrapped import Preprocessed
from redan.samples import fashion_mnist
from redan.targets import from_torch


def images(rows: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(rows, channels, height, width, generator=draw, dtype=torch.float64)


def reference(image: NDArray[np.float64], search: int, patch: int, strength: float) -> NDArray[np.float64]:
    """Equation 2 of Buades et al. as it stands, number by number: (C, H, W)."""
    c, h, w = image.shape
    reach, edge = search // 2, patch // 2
    wide = np.pad(image, ((0, 0), (reach + edge,) * 2, (reach + edge,) * 2), mode="reflect")

    def around(row: int, column: int) -> NDArray[np.float64]:
        return wide[:, row + reach : row + reach + patch, column + reach : column + reach + patch]

    found = np.zeros_like(image)
    for row in range(h):
        for column in range(w):
            total, weights = np.zeros(c), 0.0
            for down in range(-reach, reach + 1):
                for right in range(-reach, reach + 1):
                    apart = ((around(row, column) - around(row + down, column + right)) ** 2).mean()
                    weight = math.exp(-apart / (strength / 255) ** 2)
                    if weight >= 1e-3:
                        total += weight * around(row + down, column + right)[:, edge, edge]
                        weights += weight
            found[:, row, column] = total / weights
    return found


@pytest.mark.parametrize(("search", "patch"), [(5, 3), (3, 1), (7, 3)])
def test_non_local_means_are_the_slow_loops(search: int, patch: int) -> None:
    x = images(2, 1, 8, 9) * 0.3
    found = NonLocalMeans(search=search, patch=patch, strength=30)(x)
    for image, expected in zip(found.numpy(), x.numpy(), strict=True):
        assert np.allclose(image, reference(expected, search, patch, 30), atol=1e-12)
    assert float((found - x).abs().max()) > 0.01


def test_a_large_image_has_the_gradient_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(2, 3, 8, 9).requires_grad_()
    stage = NonLocalMeans(search=5, strength=30)
    plain = torch.autograd.grad(stage(x).square().sum(), x)[0]
    monkeypatch.setattr("redan.preprocessing.non_local._LARGE", 1)
    assert torch.equal(torch.autograd.grad(stage(x).square().sum(), x)[0], plain)


def test_colors_are_smoothed_by_lightness_and_by_color() -> None:
    x = images(1, 3, 8, 8) * 0.2 + 0.4
    lab = to_lab(x).numpy()[0]
    parts = [reference(lab[:1], 5, 3, 20), reference(lab[1:], 5, 3, 20)]
    expected = from_lab(torch.from_numpy(np.concatenate(parts))[None])
    assert torch.allclose(NonLocalMeans(search=5, strength=20)(x), expected, atol=1e-12)


def test_lab_has_its_fixed_points() -> None:
    x = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0]], dtype=torch.float64)[..., None, None]
    lab = to_lab(x)[..., 0, 0] * torch.tensor([100.0, 255, 255], dtype=torch.float64) - torch.tensor([0.0, 128, 128])
    expected = torch.tensor([[0.0, 0, 0], [100, 0, 0], [53.24, 80.09, 67.20]], dtype=torch.float64)  # sRGB red in Lab
    assert torch.allclose(lab, expected, atol=0.02)
    assert torch.allclose(from_lab(to_lab(images(2, 3, 5, 5))), images(2, 3, 5, 5), atol=1e-9)


def smallest(x: NDArray[np.float64], kept: NDArray[np.float64], weight: float) -> float:
    """The least value of the objective on one image (H, W), over z and the sizes of its differences."""
    h, w = x.shape
    at = np.arange(h * w).reshape(h, w)
    pairs = [
        *zip(at[1:].ravel(), at[:-1].ravel(), strict=True),
        *zip(at[:, 1:].ravel(), at[:, :-1].ravel(), strict=True),
    ]
    d = np.zeros((len(pairs), h * w))
    for row, (one, other) in enumerate(pairs):
        d[row, one], d[row, other] = 1, -1
    m, n = d.shape
    bound = np.block([[-d, np.eye(m)], [d, np.eye(m)]])  # sizes ≥ ± differences
    hold, flat = kept.ravel(), x.ravel()
    start = np.concatenate([flat, np.abs(d @ flat)])

    def value(v: NDArray[np.float64]) -> float:
        return float((hold * (v[:n] - flat) ** 2).sum() + weight * v[n:].sum())

    def slope(v: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([2 * hold * (v[:n] - flat), np.full(m, weight)])

    sizes = LinearConstraint(bound, 0, np.inf)
    found = minimize(value, start, jac=slope, constraints=sizes, method="SLSQP", options={"maxiter": 300}, tol=1e-12)
    return float(found.fun)


@pytest.mark.parametrize("weight", [0.03, 0.3])
def test_the_solver_reaches_a_general_solvers_value(weight: float) -> None:
    x = images(4, 1, 4, 5, seed=3)
    kept = (images(4, 1, 4, 5, seed=4) < 0.5).double()
    expected = [smallest(x[i, 0].numpy(), kept[i, 0].numpy(), weight) for i in range(4)]
    found = objective(solved(x, kept, weight, 1000), x, kept, weight)
    quick = objective(solved(x, kept, weight, 100), x, kept, weight)
    assert found.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert quick.tolist() == pytest.approx(expected, rel=0.03)
    assert bool((quick < objective(x, x, kept, weight)).all())


def test_a_dropped_pixel_is_never_looked_at() -> None:
    x, kept = images(2, 3, 6, 6), (images(2, 1, 6, 6, seed=1) < 0.5).double()
    other = torch.where(kept.bool(), x, images(2, 3, 6, 6, seed=2))
    assert torch.allclose(solved(x, kept, 0.03, 50), solved(other, kept, 0.03, 50), atol=1e-12)


def test_nothing_dropped_and_no_weight_is_the_image_itself() -> None:
    x = images(2, 1, 6, 6)
    assert torch.allclose(TotalVariation(keep=1, weight=0, steps=100)(x), x, atol=1e-6)


def test_half_of_the_pixels_are_kept_in_all_channels() -> None:
    x = images(200, 3, 8, 8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = TotalVariation(weight=1e-7, steps=2)(x)
    same = (found - x).abs().amax(1) < 0.05
    alone = ((found - x).abs() < 0.05).double().mean()
    assert 0.4 < float(same.double().mean()) < 0.6
    assert float(alone) < float(same.double().mean()) + 0.1  # channels are kept together


def test_a_flat_patch_moves_as_the_mean_of_what_is_kept_of_it() -> None:
    flat = torch.full((1, 1, 6, 8), 0.2, dtype=torch.float64, requires_grad=True)
    kept = (images(1, 1, 6, 8, seed=5) < 0.3).double()
    z = solution(flat, kept, 0.03, 500)
    assert torch.equal(z, solved(flat.detach(), kept, 0.03, 500))
    (slope,) = torch.autograd.grad(z[0, 0, 2, 3], flat)
    assert torch.allclose(slope, kept / kept.sum(), atol=0.05)  # nearer ones move it a little more
    assert float(slope.sum()) == pytest.approx(1, abs=0.01)


def test_an_edge_is_not_crossed() -> None:
    x = torch.full((1, 1, 6, 8), 0.2, dtype=torch.float64)
    x[..., 4:] = 0.9
    x.requires_grad_()
    z = solution(x, torch.ones_like(x), 0.03, 500)
    (slope,) = torch.autograd.grad(z[..., :4].sum(), x)
    assert torch.allclose(slope[..., :4], torch.ones(1, dtype=torch.float64), atol=1e-3)
    assert torch.allclose(slope[..., 4:], torch.zeros(1, dtype=torch.float64), atol=1e-3)


def test_the_slope_is_that_of_the_solver_where_the_identity_is_not() -> None:
    """Of 24 garments, beside the solver's own steps gone back through."""
    x = torch.from_numpy(fashion_mnist()[0][:24])
    kept = (images(24, 1, 28, 28, seed=1) < 0.5).float()
    ways = images(24, 1, 28, 28, seed=2).float() - 0.5

    def slope(smoothed: Callable[[Tensor, Tensor, float, int], Tensor]) -> Tensor:
        at = x.clone().requires_grad_()
        return torch.autograd.grad((smoothed(at, kept, 0.03, 200) * ways).sum(), at)[0].flatten(1)

    own, true = slope(solution), slope(solved)
    near = torch.nn.functional.cosine_similarity(own, true)
    identity = torch.nn.functional.cosine_similarity(ways.flatten(1), true)
    assert float(near.median()) > 0.7
    assert float(identity.median()) < 0.5
    assert not bool(own[(kept == 0).flatten(1)].any())


def test_gradient_and_answer_are_of_one_draw() -> None:
    stage = TotalVariation(steps=5)
    target = Preprocessed(target=from_torch(torch.nn.Flatten().eval()), transformations=(stage,))
    x = images(3, 1, 6, 6).float()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = target(x)
        torch.manual_seed(0)
        answer = target(x.requires_grad_())
    assert torch.equal(answer, plain)
    (slope,) = torch.autograd.grad(answer.sum(), x)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dropped = torch.rand(3, 1, 6, 6) >= 0.5
    assert torch.equal(slope == 0, dropped)
