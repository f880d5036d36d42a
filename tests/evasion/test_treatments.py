"""Treatments of the gradient: against closed forms, through the referee, and no row hangs on another."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from redan.evasion.momentum import MomentumFGSM
from redan.evasion.treatments import Diverse, Scaled, Translated, Treatment, Variance, treated
from redan.goals import Untargeted
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L1
from redan.protocols import Ball, settings
from redan.rows import Rows, Streams
from redan.testing.checks import CHECKS, failing_rows
from redan.testing.trial import Trial

BOX = (-1.0, 3.0)


def rows_of(x: Tensor, within: Ball | None = None) -> Rows[Tensor, Any]:
    count = len(x)
    streams = Streams.start(0, [str(i) for i in range(count)])
    goal = Untargeted(torch.zeros(count, dtype=torch.int64))
    return Rows(torch.arange(count), x, goal, within or Linf(0.5, BOX), streams)


def drawn(*shape: int) -> Tensor:
    low, high = BOX
    return low + (high - low) * torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def cubic(x: Tensor, rows: Rows[Tensor, Ball]) -> Tensor:
    """The gradient of Σ x³ / 3."""
    assert len(x) == len(rows)
    return x**2


def test_the_first_treatment_is_the_outermost() -> None:
    def plus(ask: Any, x: Tensor, rows: Any) -> Tensor:
        gradient: Tensor = ask(x, rows)
        return gradient + 1

    def twice(ask: Any, x: Tensor, rows: Any) -> Tensor:
        gradient: Tensor = ask(x, rows)
        return 2 * gradient

    x = drawn(2, 3)
    many: Any = (plus, twice)
    assert torch.equal(treated(cubic, many)(x, rows_of(x)), 2 * x**2 + 1)


def test_translated_is_the_convolution_with_a_gaussian() -> None:
    x = drawn(3, 2, 6, 9)
    offsets = torch.linspace(-3, 3, 5, dtype=x.dtype)
    line = (-(offsets**2) / 2).exp()
    kernel = (line[:, None] * line).expand(2, 1, -1, -1) / line.sum() ** 2

    found = Translated(size=5)(cubic, x, rows_of(x))

    assert torch.allclose(found, functional.conv2d(x**2, kernel, padding=2, groups=2))


@pytest.mark.parametrize("shape", [(1,), (7,), (2, 5), (1, 1, 1), (2, 3, 4, 5)])
@pytest.mark.parametrize("one", [Translated(size=15), Diverse(chance=1, share=0.3), Scaled(copies=3)], ids=settings)
def test_any_shape_of_input_will_do(one: Treatment, shape: tuple[int, ...]) -> None:
    x = drawn(3, *shape)
    found = one(cubic, x, rows_of(x))

    assert found.shape == x.shape
    assert bool(found.isfinite().all())


def test_scaled_is_the_mean_over_copies_ever_nearer_to_black() -> None:
    x = drawn(4, 3)
    low = BOX[0]
    copies = [low + (x - low) / 2**i for i in range(4)]
    expected = torch.stack([copy**2 / 2**i for i, copy in enumerate(copies)]).mean(0)  # the chain rule

    assert torch.allclose(Scaled(copies=4)(cubic, x, rows_of(x)), expected)


def test_diverse_maps_the_gradient_back_through_the_resizing() -> None:
    """⟨gradient, d⟩ is how the loss of the copy changes along d, with the same random copy."""
    x = drawn(5, 2, 8, 10)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    shown = []

    def linear(copy: Tensor, rows: Rows[Tensor, Ball]) -> Tensor:
        shown.append(copy)
        return torch.linspace(1, 2, copy[0].numel(), dtype=x.dtype).reshape(copy.shape[1:]).expand(copy.shape)

    one = Diverse(chance=1.0, share=0.5)
    gradient = one(linear, x, rows_of(x))
    step = 1e-6
    one(linear, x + step * direction, rows_of(x))
    weights = torch.linspace(1, 2, x[0].numel(), dtype=x.dtype).reshape(x.shape[1:])
    change = ((shown[1] - shown[0]) * weights).flatten(1).sum(1) / step

    free = (gradient * direction).flatten(1).sum(1)
    assert torch.allclose(free, change, rtol=1e-4)
    assert bool((shown[0] == BOX[0]).flatten(1).any(1).all()), "no copy is padded with black"
    assert bool(((shown[0] >= BOX[0]) & (shown[0] <= BOX[1])).all())


def test_diverse_is_what_interpolate_makes() -> None:
    """A copy holds the picture resized bilinearly, somewhere, and black around it."""
    x = drawn(6, 1, 12, 12).float()
    shown: list[Tensor] = []

    def keep(copy: Tensor, rows: Rows[Tensor, Ball]) -> Tensor:
        shown.append(copy)
        return copy

    Diverse(chance=1.0, share=0.5)(keep, x, rows_of(x))
    sizes = set()
    for copy, picture in zip(shown[0], x, strict=True):
        inner = (copy[0] != BOX[0]).nonzero()
        (top, left), size = inner.amin(0).tolist(), int(inner[:, 0].max() - inner[:, 0].min()) + 1
        sizes.add(size)
        width = int(inner[:, 1].max() - inner[:, 1].min()) + 1
        resized = functional.interpolate(picture[None], (size, width), mode="bilinear", align_corners=False)[0, 0]
        assert torch.allclose(copy[0, top : top + size, left : left + width], resized, atol=1e-5)
    assert len(sizes) > 1
    assert all(6 <= size < 12 for size in sizes)


def test_diverse_leaves_the_rest_as_they_are() -> None:
    x = drawn(400, 1, 4, 4)
    changed = (Diverse(chance=0.25)(lambda copy, rows: (copy - x).abs(), x, rows_of(x)) > 1e-9).flatten(1).any(1)

    assert 0.15 < float(changed.double().mean()) < 0.35
    assert torch.allclose(Diverse(chance=0)(cubic, x, rows_of(x)), x**2)


@pytest.mark.parametrize("within", [Linf(0.4, BOX), L2(0.4, BOX), L1(0.4, BOX)], ids=settings)
def test_neighbors_lie_in_a_ball_of_their_own_and_in_the_box(within: Any) -> None:
    x = drawn(50, 6)
    shown: list[Tensor] = []

    def keep(near: Tensor, rows: Rows[Tensor, Ball]) -> Tensor:
        shown.append(near)
        return near

    off = Variance(copies=4, reach=2.0).off(keep, x, x, rows_of(x, within))
    apart = within.distance(shown[0], x.repeat_interleave(4, 0))

    assert len(shown[0]) == 200
    assert 0.4 < float(apart.max()) <= 0.8 + 1e-9
    assert bool(((shown[0] >= BOX[0]) & (shown[0] <= BOX[1])).all())
    assert torch.allclose(off, shown[0].reshape(50, 4, 6).mean(1) - x)


TREATED = [
    MomentumFGSM(steps=4, treatments=(Diverse(chance=1.0), Scaled(copies=3))),
    MomentumFGSM(steps=3, nesterov=True, treatments=(Translated(size=3), Scaled(copies=2), Diverse())),
]


@pytest.mark.parametrize("one", TREATED, ids=settings)
def test_treated_attacks_keep_every_promise(one: MomentumFGSM) -> None:
    """All that `check_attack` looks at but the model that fails on two rows: it knows them by the nearest clean
    input, which for a scaled or shrunk copy may be another row's. Shifted copies tell nothing of random weights, so
    no reach is promised."""
    for ball in (Linf, L2):
        trial = Trial(one, ball, 0, None)
        for check in CHECKS:
            if check is not failing_rows:
                assert not list(check(trial)), check.__name__


@pytest.mark.parametrize("one", TREATED, ids=settings)
def test_the_cost_is_the_worst_case_exactly(one: MomentumFGSM) -> None:
    from redan.engine.run import attack
    from redan.testing import LinearVictim

    victim = LinearVictim.drawn(0)
    x, y = victim.rows(4)
    found = attack(victim.module(), x, y, one, within=Linf(0.0))
    told = one.cost(2)

    assert found.queries.tolist() == [told.queries] * 4
    assert found.backwards.tolist() == [told.backwards] * 4
    assert told.queries == one.steps * math.prod(each.queries for each in one.treatments) + 1
