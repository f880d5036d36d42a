"""Sets without limit: the box alone holds, nothing is drawn from them, and one row's limit is no other's."""

import math
from typing import Any

import pytest
import torch

from redan.engine.run import attack
from redan.errors import SettingError
from redan.evasion.fgsm import FGSM
from redan.evasion.momentum import MomentumFGSM
from redan.evasion.pgd import PGD
from redan.perturbations.balls import farthest
from redan.perturbations.norms import L2, Linf
from redan.perturbations.proximal import proximal
from redan.perturbations.sparse import L0, L1
from redan.protocols import Attack
from redan.rows import Streams
from redan.testing import LinearVictim

EACH = pytest.mark.parametrize("kind", [Linf, L2, L1, L0])
DRAW = torch.Generator().manual_seed(0)
X0 = torch.rand(6, 2, 3, generator=DRAW)
X = X0 + torch.randn(6, 2, 3, generator=DRAW)


@EACH
def test_only_the_box_holds(kind: Any) -> None:
    within = kind(math.inf)

    assert torch.equal(within.project(X, X0), X.clamp(0, 1))
    assert bool(within.contains(X.clamp(0, 1), X0).all())
    assert not bool(within.contains(X0 + 2, X0).any())
    assert torch.equal(within.distance(X, X0), kind(1.0).distance(X, X0))


@EACH
def test_a_radius_a_row(kind: Any) -> None:
    radius = torch.tensor([math.inf, 0.0, 1.0] * 2)
    mixed = kind(radius).project(X, X0)

    for row in range(6):
        alone = kind(float(radius[row])).project(X[row : row + 1], X0[row : row + 1])
        assert torch.allclose(mixed[row : row + 1], alone, atol=1e-6)
    assert bool(kind(radius).contains(mixed, X0).all())
    assert math.isinf(float(kind(radius).take(torch.tensor([3])).radius))


@EACH
@pytest.mark.parametrize("radius", [math.inf, torch.tensor([1.0, math.inf])])
def test_nothing_is_drawn_from_it(kind: Any, radius: Any) -> None:
    with pytest.raises(SettingError, match="finite radius"):
        kind(radius).sample(X0[:2], Streams.start(0, ["a", "b"]))


@EACH
@pytest.mark.parametrize("radius", [-1.0, math.nan, -math.inf, torch.tensor([1.0, math.nan])])
def test_what_is_no_radius(kind: Any, radius: Any) -> None:
    with pytest.raises(SettingError, match="at least 0"):
        kind(radius)


@EACH
def test_the_farthest_corner(kind: Any) -> None:
    corners = (torch.rand(500, 2, 3, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    for x0 in X0:
        some = kind(1.0).distance(corners, x0.expand_as(corners))
        assert float(farthest(kind(1.0), x0[None])) == pytest.approx(float(some.max()), rel=1e-6)


@pytest.mark.parametrize(("kind", "order"), [(L1, 1.0), (L2, 2.0), (Linf, math.inf)])
@pytest.mark.parametrize("weight", [0.01, 0.5, 50.0])
@pytest.mark.parametrize("decades", [0.0, 2.0, 5.0])
def test_no_other_point_is_more_proximal(kind: Any, order: float, weight: float, decades: float) -> None:
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(5, 7, generator=draw, dtype=torch.float64)
    metric = 10 ** (-decades * torch.rand(5, 7, generator=draw, dtype=torch.float64))
    w = torch.full((5,), weight, dtype=torch.float64)

    def cost(z: torch.Tensor) -> torch.Tensor:
        length: torch.Tensor = torch.linalg.vector_norm(z, ord=order, dim=1)
        return (metric * (z - x).square()).sum(1) / 2 + w * length

    best = proximal(kind(1.0), x, w, metric)
    assert bool(((best * x >= 0) & (best.abs() <= x.abs())).all())
    for size in (1e-4, 1e-2, 1.0):
        for _ in range(50):
            other = best + size * torch.randn(5, 7, generator=draw, dtype=torch.float64)
            assert bool((cost(other) >= cost(best) - 1e-12).all())
    for point in (torch.zeros_like(x), x, 0.99 * best, 1.01 * best):
        assert bool((cost(point) >= cost(best) - 1e-12).all())


def test_the_proximal_point_of_two_thirds_by_a_grid() -> None:
    """½ (z - x)² + w |z|^(2/3) at its least, a coordinate at a time."""
    grid = torch.linspace(-4, 4, 80001, dtype=torch.float64)
    for weight in (0.05, 0.4, 1.5):
        for value in (-3.5, -1.0, 0.2, 0.9, 2.0):
            x = torch.tensor([[value]], dtype=torch.float64)
            cost = (grid - value).square() / 2 + weight * grid.abs() ** (2 / 3)
            found = proximal(L0(1), x, torch.tensor([weight], dtype=torch.float64), torch.ones_like(x)).item()
            mine = (found - value) ** 2 / 2 + weight * abs(found) ** (2 / 3)
            assert mine <= float(cost.min()) + 1e-7, (weight, value, found, float(grid[cost.argmin()]))


@pytest.mark.parametrize("one", [PGD(random_start=False), FGSM(), MomentumFGSM()])
def test_steps_that_are_counted_in_radii_are_refused(one: Attack[Any, Any]) -> None:
    victim = LinearVictim.drawn(3, classes=3, shape=(6,))
    x, y = victim.rows(4)
    with pytest.raises(SettingError, match="no radius to count steps in"):
        attack(victim.module(), x, y, one, within=Linf(math.inf))
