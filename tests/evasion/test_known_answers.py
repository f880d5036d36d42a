"""Victims whose nearest wrong answer is known: every attack comes within a stated factor of it, and none beats it."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from redan.engine.run import attack
from redan.evasion.apgd import APGD
from redan.evasion.apgd_l1 import APGDL1
from redan.evasion.bim import BIM
from redan.evasion.cascade import Sweep
from redan.evasion.fgsm import FGSM
from redan.evasion.noise import RandomNoise
from redan.evasion.pgd import PGD
from redan.evasion.square import Square, SquareL1, SquareL2
from redan.goals import Targeted
from redan.losses import dlr, margin, targeted_dlr
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.protocols import Attack, Ball, needs, settings
from redan.referee import Closest, Worst
from redan.rows import Rows
from redan.testing import GridVictim, LinearVictim, SphereVictim, dual_l2, dual_linf

ROUNDING = 1e-5  # of a distance


def dual_l1(x: Tensor) -> Tensor:
    """The dual of L1: the largest absolute value."""
    return x.abs().amax(1)


SETS: dict[str, Any] = {"linf": (Linf, dual_linf), "l2": (L2, dual_l2), "l1": (L1, dual_l1)}
ORDERS = {"linf": math.inf, "l2": 2.0, "l1": 1.0}


def slowly(value: object) -> Any:
    """One more value of a parameter, for the tests of minutes."""
    return pytest.param(value, marks=pytest.mark.slow)


CLIMBERS: dict[str, Any] = {"linf": APGD, "l2": APGD, "l1": APGDL1}
ATTACKS: tuple[Attack[Any, Any], ...] = (
    FGSM(),
    BIM(),
    PGD(),
    PGD(loss=margin),
    APGD(steps=50),
    APGD(steps=50, loss=dlr),
    Square(queries=200),
    SquareL2(queries=200),
    RandomNoise(tries=200),
    Sweep(APGD(steps=30, loss=targeted_dlr)),
    APGDL1(steps=50),
    APGDL1(steps=50, loss=dlr),
    SquareL1(queries=200),
)

# The sets in which an attack has to break every row of a two-class linear victim, as multiples of the smallest.
FACTORS: list[tuple[str, Attack[Any, Any], float]] = [
    ("linf", FGSM(), 1.001),  # exact on a linear model
    ("linf", BIM(), 1.001),
    ("linf", PGD(), 1.001),
    ("linf", PGD(loss=margin), 1.001),
    ("linf", APGD(steps=50), 1.001),
    ("linf", Square(queries=500), 1.25),
    ("l2", FGSM(), 1.001),
    ("l2", BIM(), 1.001),
    ("l2", PGD(), 1.1),
    ("l2", APGD(steps=50), 1.01),
    ("l2", SquareL2(queries=500), 1.5),
    ("l1", FGSM(), 1.001),  # one coordinate of twelve
    ("l1", BIM(), 1.001),
    ("l1", PGD(), 1.001),
    ("l1", PGD(loss=margin), 1.001),
    ("l1", APGDL1(steps=50), 1.001),
    ("l1", SquareL1(queries=500), 1.5),
]


def named(value: object) -> str:
    return settings(value)


def fitting(kind: str) -> list[Attack[Any, Any]]:
    return [one for one in ATTACKS if needs(one).within in (Ball, SETS[kind][0])]


@pytest.mark.parametrize(("kind", "one", "factor"), FACTORS, ids=named)
@pytest.mark.parametrize("seed", [0, slowly(1)])
def test_two_classes_are_broken_near_the_optimum(kind: str, one: Attack[Any, Any], factor: float, seed: int) -> None:
    """Margin ÷ dual norm of the weights' difference: Linf by its sum of absolute values, L1 by the largest of them."""
    victim = LinearVictim.drawn(seed, shape=(12,))
    x, y = victim.rows(24, seed)
    ball, dual = SETS[kind]
    best = victim.optimum(x, y, dual).float()

    assert attack(victim.module(), x, y, one, within=ball(best * factor)).success.all()
    assert not attack(victim.module(), x, y, one, within=ball(best * (1 - 1e-4))).success.any()


@pytest.mark.parametrize("kind", ["linf", "l2", "l1"])
@pytest.mark.parametrize("classes", [slowly(2), 3, slowly(6)])
def test_no_attack_beats_the_optimum(kind: str, classes: int) -> None:
    """However large the set, the nearest input that any of them keeps is no nearer."""
    victim = LinearVictim.drawn(7, classes=classes, shape=(2, 3, 2))
    x, y = victim.rows(16)
    ball, dual = SETS[kind]
    best = victim.optimum(x, y, dual)
    for one in fitting(kind):
        result = attack(victim.module(), x, y, one, within=ball(best.float() * 3), keep=Closest())
        assert bool((result.distance >= best * (1 - ROUNDING)).all()), one
        away = (result.adversarial - x).double().flatten(1)
        length = away.norm(p=ORDERS[kind], dim=1)
        assert bool((length[result.success] >= (best * (1 - ROUNDING))[result.success]).all()), one


@pytest.mark.parametrize("kind", ["linf", "l2", "l1"])
@pytest.mark.parametrize("classes", [3, 6])
def test_a_sweep_over_the_classes_finds_the_nearest_one(kind: str, classes: int) -> None:
    victim = LinearVictim.drawn(3, classes=classes)
    x, y = victim.rows(24)
    ball, dual = SETS[kind]
    best = victim.optimum(x, y, dual).float()

    found = attack(victim.module(), x, y, Sweep(CLIMBERS[kind](steps=50, loss=targeted_dlr)), within=ball(best * 1.02))
    assert found.success.all()


@pytest.mark.parametrize("kind", ["linf", "l2", "l1"])
def test_no_target_is_reached_nearer_than_its_own_class(kind: str) -> None:
    victim = LinearVictim.drawn(3, classes=4)
    x, y = victim.rows(24)
    target = (y + 1) % 4
    ball, dual = SETS[kind]
    gap = (victim.weights[y] - victim.weights[target]).double()
    scores = victim.module()(x).detach().double()
    way = (scores.gather(1, y[:, None]) - scores.gather(1, target[:, None]))[:, 0] / dual(gap)
    result = attack(
        victim.module(),
        x,
        y,
        CLIMBERS[kind](steps=50),
        within=ball(way.float() * 4),
        goal=Targeted(target),
        keep=Closest(),
    )

    assert int(result.success.sum()) > 12
    assert bool((result.distance >= way * (1 - ROUNDING)).all())


def fractional(weights: Tensor, gap: Tensor, room: Tensor) -> Tensor:
    """The smallest sum of changes that closes a gap: the heaviest coordinates first, each to its room."""
    order = weights.abs().argsort(1, descending=True)
    heavy, most = weights.abs().gather(1, order), room.gather(1, order)
    gained = (heavy * most).cumsum(1)
    short = (gap[:, None] - gained + heavy * most).clamp_min(0)  # still to gain before each coordinate
    length = torch.minimum(most, short / heavy).sum(1)
    return torch.where(gained[:, -1] > gap, length, torch.inf)


def boxed(weights: Tensor, gap: Tensor, room: Tensor, order: float) -> Tensor:
    """The smallest change that closes a gap with each coordinate's room bounded: (N,), inf where none does.

    In L1 it is a fractional knapsack. Else the best change of size t moves each coordinate by t (L∞), or t·|w| (L2,
    the KKT conditions), up to its room.
    """
    if order == 1:
        return fractional(weights, gap, room)
    speed = torch.ones_like(weights) if order == math.inf else weights.abs()
    low, high = torch.zeros_like(gap), torch.full_like(gap, 1e4)
    for _ in range(100):
        half = (low + high) / 2
        change = torch.minimum(half[:, None] * speed, room)
        short = (change * weights.abs()).sum(1) < gap
        low, high = torch.where(short, half, low), torch.where(short, high, half)
    change = torch.minimum(high[:, None] * speed, room)
    length = torch.linalg.vector_norm(change, ord=order, dim=1)
    return torch.where((room * weights.abs()).sum(1) > gap, length, torch.inf)


@pytest.mark.parametrize(("kind", "order"), [("linf", math.inf), ("l2", 2.0), ("l1", 1.0)])
def test_where_the_box_bites(kind: str, order: float) -> None:
    """Rows in the corners of the box, where a step in the steepest direction mostly leaves it."""
    draw = torch.Generator().manual_seed(0)
    victim = LinearVictim.drawn(5, shape=(20,))
    x = (torch.rand(400, 20, generator=draw) < 0.5).float() * 0.95 + 0.05 * torch.rand(400, 20, generator=draw)
    scores = victim.module()(x).detach().double()
    y = scores.argmax(1)
    weights = (victim.weights[1 - y] - victim.weights[y]).double()
    room = torch.where(weights > 0, 1 - x.double(), x.double())
    best = boxed(weights, (scores.gather(1, y[:, None]) - scores.gather(1, 1 - y[:, None]))[:, 0], room, order)
    ball, dual = SETS[kind]
    bites = best.isfinite() & (best > 1.2 * victim.optimum(x, y, dual))
    x, y, best = x[bites][:36], y[bites][:36], best[bites][:36]
    assert len(x) == 36

    # In L1 a random start is spread over all coordinates, and 100 sparse steps do not take it back.
    plain = PGD(steps=100, loss=margin, random_start=kind != "l1")
    for one, factor in ((plain, 1.1), (CLIMBERS[kind](steps=100, loss=margin), 1.02)):
        assert attack(victim.module(), x, y, one, within=ball(best.float() * factor)).success.all(), one
        assert not attack(victim.module(), x, y, one, within=ball(best.float() * (1 - 1e-4))).success.any(), one
        near = attack(victim.module(), x, y, one, within=ball(best.float() * 2), keep=Closest())
        assert bool((near.distance >= best * (1 - ROUNDING)).all()), one


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bounds", [(0.0, 255.0), (-3.0, 1.0)])
def test_other_boxes_and_types(dtype: torch.dtype, bounds: tuple[float, float]) -> None:
    victim = LinearVictim.drawn(1, bounds=bounds, dtype=dtype)
    x, y = victim.rows(16)
    for kind, (ball, dual) in SETS.items():
        best = victim.optimum(x, y, dual)
        climber = CLIMBERS[kind](steps=50)
        good = attack(victim.module(), x, y, climber, within=ball(best * 1.02), bounds=bounds)
        bad = attack(victim.module(), x, y, climber, within=ball(best * (1 - 1e-4)), bounds=bounds)
        assert good.success.all()
        assert not bad.success.any()
        assert good.adversarial.dtype == dtype


@pytest.mark.parametrize("steep", [1e-4, 1e4])
def test_the_size_of_the_scores_does_not_matter(steep: float) -> None:
    """Scores so small that all classes are even, or so large that every softmax is 0 or 1: the margin loss climbs."""
    plain = LinearVictim.drawn(0)
    x, y = plain.rows(16)
    victim = LinearVictim(plain.weights * steep, plain.bias * steep, plain.shape)
    for kind, (ball, dual) in SETS.items():
        best = plain.optimum(x, y, dual).float()
        climber = CLIMBERS[kind](steps=50, loss=margin)
        assert attack(victim.module(), x, y, climber, within=ball(best * 1.02)).success.all()


@pytest.mark.parametrize("kind", ["linf", "l2"])
def test_a_sphere(kind: str) -> None:
    """Curved both ways: from inside the surface bends away, from outside toward."""
    victim = SphereVictim()
    x, y = victim.rows(40)
    ball = SETS[kind][0]
    best = victim.linf(x) if kind == "linf" else victim.l2(x)
    for climber in (PGD(), APGD()):
        assert attack(victim.module(), x, y, climber, within=ball(best.float() * 1.3)).success.all(), climber
    for one in fitting(kind):
        near = attack(victim.module(), x, y, one, within=ball(best.float() * 2), keep=Closest())
        assert bool((near.distance >= best * (1 - ROUNDING)).all()), one


@pytest.mark.parametrize(("kind", "order"), [("linf", math.inf), ("l2", 2.0), ("l1", 1.0)])
@pytest.mark.parametrize("seed", [0, slowly(3)])
def test_a_tiny_net_by_brute_force(kind: str, order: float, seed: int) -> None:
    victim = GridVictim.drawn(seed)
    x, y = victim.rows(16)
    low, high = victim.optimum(x, y, order)
    ball = SETS[kind][0]
    sweep = Sweep(CLIMBERS[kind](steps=50, loss=margin))

    won = int(attack(victim.module(), x, y, sweep, within=ball(high.float() * 1.5)).success.sum())
    assert won >= 15  # a kink may hold one back
    for one in (*fitting(kind), sweep):
        assert not attack(victim.module(), x, y, one, within=ball((low * 0.999).float())).success.any(), one
        near = attack(victim.module(), x, y, one, within=ball(1.0), keep=Closest())
        assert bool((near.distance >= low * (1 - ROUNDING)).all()), one


# -- few coordinates ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, slowly(1)])
def test_no_attack_in_l0_beats_the_fewest_changes(seed: int) -> None:
    """The fewest coordinates that flip a linear model: those with the most to gain, each at its face of the box."""
    victim = LinearVictim.drawn(seed, shape=(16,))
    x = torch.rand(24, 16, generator=torch.Generator().manual_seed(seed))
    y = victim.module()(x).argmax(1)
    scores = victim.module()(x).detach().double()
    gap = (scores.gather(1, y[:, None]) - scores.gather(1, 1 - y[:, None]))[:, 0]
    weights = (victim.weights[1 - y] - victim.weights[y]).double()
    gain = (weights * torch.where(weights > 0, 1 - x, -x)).abs()
    fewest = (gain.sort(1, descending=True).values.cumsum(1) <= gap[:, None]).sum(1) + 1
    assert len(set(fewest.tolist())) > 1

    for one in (RandomNoise(tries=400), PGD(), FGSM()):
        assert not attack(victim.module(), x, y, one, within=L0(fewest - 1)).success.any(), one
        near = attack(victim.module(), x, y, one, within=L0(16), keep=Closest())
        assert bool((near.distance >= fewest).all()), one
    lucky = attack(victim.module(), x, y, RandomNoise(tries=600), within=L0(fewest + 1)).success
    assert int(lucky.sum()) >= 18


# -- algorithms against a second writing of them -------------------------------------------------------------


class _Curved(nn.Module):
    """Scores that bend, so that a climb overshoots, oscillates, and has to shorten its steps."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(4)
        self.first = nn.Parameter(torch.randn(16, 6, generator=draw, dtype=torch.float64) * 6)
        self.second = nn.Parameter(torch.randn(3, 16, generator=draw, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return ((x[:, None] * self.first).sum(2).sin()[:, None] * self.second).sum(2)


@dataclass(frozen=True, slots=True)
class _Told:
    """An attack whose questions are written down."""

    attack: Attack[Any, Any]
    shown: list[Tensor]

    @property
    def parts(self) -> tuple[Attack[Any, Any], ...]:
        return (self.attack,)

    def __call__(self, referee: Any, rows: Rows[Tensor, Ball]) -> None:
        shown = self.shown

        class Telling:
            survivors, reached = referee.survivors, referee.reached

            @staticmethod
            def gradient(x: Tensor, rows: Rows[Tensor, Any], loss: Any) -> Any:
                shown.append(x.clone())
                return referee.gradient(x, rows, loss)

        self.attack(Telling, rows)


def apgd_by_the_paper(model: nn.Module, x0: Tensor, y: int, start: Tensor, radius: float, steps: int) -> list[Tensor]:
    """Croce and Hein 2020, algorithm 1, for one row in L∞, written out; all the points that it looks at."""

    def look(x: Tensor) -> tuple[float, Tensor]:
        x = x.clone().requires_grad_()
        z = model(x[None])[0]
        value = z.logsumexp(0) - z[y]
        return value.item(), torch.autograd.grad(value, x)[0]

    def project(x: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(x, x0 - radius), x0 + radius).clamp(0, 1)

    x, old, eta = start, start, 2 * radius
    loss, gradient = look(x)
    best, best_loss, best_gradient, best_then = x, loss, gradient, loss
    seen, losses, reduced = [x], [loss], True
    period, since = max(1, int(0.22 * steps)), 0
    for i in range(steps):
        z = project(x + eta * gradient.sign())
        alpha = 0.75 if i else 1.0
        x, old = project(x + alpha * (z - x) + (1 - alpha) * (x - old)), x
        loss, gradient = look(x)
        seen.append(x)
        losses.append(loss)
        if loss > best_loss:
            best, best_loss, best_gradient = x, loss, gradient
        since += 1
        if since == period:
            rises = sum(after > before for before, after in pairwise(losses[-period - 1 :]))
            shorten = rises <= 0.75 * period or (not reduced and best_then >= best_loss)
            if shorten:
                eta, x, gradient = eta / 2, best, best_gradient
            reduced, best_then = shorten, best_loss
            period, since = max(period - max(1, int(0.03 * steps)), max(1, int(0.06 * steps))), 0
    return seen


def test_apgd_is_algorithm_1() -> None:
    """Point by point, on a loss that makes it halve its steps and go back to its best point."""
    model = _Curved().eval()
    x0 = torch.rand(8, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = model(x0).argmax(1)
    shown: list[Tensor] = []
    attack(model, x0, y, _Told(APGD(steps=60), shown), within=Linf(0.3), keep=Worst(), workers=1)

    assert len(shown) == 61
    for row in range(8):
        wanted = apgd_by_the_paper(model, x0[row], int(y[row]), shown[0][row], 0.3, 60)
        apart = [float((x[row] - other).abs().max()) for x, other in zip(shown, wanted, strict=True)]
        assert max(apart) < 1e-9, (row, [gap > 1e-9 for gap in apart].index(True))
