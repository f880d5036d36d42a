"""L-BFGS beside scipy's L-BFGS-B: the same minimum of a convex objective, and as small distances on a network."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn

from redan.engine.run import attack
from redan.evasion.lbfgs import LBFGS, log_likelihood
from redan.evasion.penalty import balanced
from redan.goals import Targeted, Untargeted
from redan.perturbations.norms import L2
from redan.protocols import Attack, Ball, Loss, Reply
from redan.referee import Closest
from redan.rows import Rows
from redan.runners.local import one_thread_each
from redan.samples import fashion_mnist, model
from redan.testing import DoesNothing, FlippedSign, LinearVictim, SphereVictim, dual_l2

ROUNDING = 1e-5


def test_the_loss_is_the_log_probability_of_the_goal() -> None:
    scores = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 0.5]])
    truth = torch.tensor([0, 1])
    chances = scores.softmax(1)

    away = log_likelihood(scores, Untargeted(truth))
    toward = log_likelihood(scores, Targeted(torch.tensor([2, 2]), truth))

    assert torch.allclose(away.exp(), 1 - chances[[0, 1], truth])
    assert torch.allclose(toward.exp(), chances[:, 2])


def solved(
    victim: nn.Module, x0: Tensor, goal: Targeted | Untargeted, weight: float, start: NDArray[Any], calls: int
) -> tuple[NDArray[Any], float]:
    """Scipy's minimizer of ‖x - x0‖² - c · log-likelihood in [0, 1], and its value, in double precision."""

    def objective(flat: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        x = torch.from_numpy(flat).reshape(x0.shape).requires_grad_()
        loss = log_likelihood(victim(x), goal).sum()
        (slope,) = torch.autograd.grad(loss, x)
        change = x.detach() - x0
        value = float(change.square().sum() - weight * loss.detach())
        return value, (2 * change - weight * slope).flatten().numpy()

    bounds = [(0.0, 1.0)] * start.size
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxfun": calls})
    return np.clip(found.x, 0, 1), float(found.fun)


def first_weight(victim: nn.Module, x: Tensor, goal: Targeted | Untargeted, scale: float) -> Tensor:
    """The first c of each row."""
    leaf = x.clone().requires_grad_()
    loss = log_likelihood(victim(leaf), goal)
    (slope,) = torch.autograd.grad(loss.sum(), leaf)
    return balanced(loss.detach(), slope, scale, 1.0)


@dataclass(frozen=True, slots=True)
class _Lowest:
    """Hands every question on and remembers each row's lowest objective."""

    attack: Attack[Any, Any]
    weight: Tensor
    found: Tensor

    @property
    def parts(self) -> tuple[Attack[Any, Any], ...]:
        return (self.attack,)

    def __call__(self, referee: Any, rows: Rows[Tensor, Ball]) -> None:
        seen = self

        class Passing:
            survivors = staticmethod(referee.survivors)

            def gradient(self, x: Tensor, rows: Rows[Tensor, Any], loss: Loss) -> Reply:
                reply: Reply = referee.gradient(x, rows, loss)
                value = (x - rows.x0).flatten(1).square().sum(1) - seen.weight[rows.ids] * reply.loss
                seen.found[rows.ids] = torch.minimum(seen.found[rows.ids], value)
                return reply

        self.attack(Passing(), rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.3, 3.0, 100.0])
def test_it_finds_the_minimum_that_scipy_finds_of_softmax_regression(scale: float, dtype: torch.dtype) -> None:
    """Targeted it is convex, so that there is one minimum; some coordinates end at the faces of the box."""
    victim = LinearVictim.drawn(4, shape=(3, 5), classes=4, dtype=dtype)
    x, y = victim.rows(10)
    x = ((x - 0.5) * 2.6 + 0.5).clamp(0, 1)  # to the faces of the box
    y = victim.module()(x).argmax(1)
    target = (y + 1) % 4
    module, goal = victim.module(), Targeted(target, y)
    weight = first_weight(module, x, goal, scale)

    def lowest(one: LBFGS) -> Tensor:
        found = torch.full((len(x),), torch.inf, dtype=dtype)
        attack(
            module, x, y, _Lowest(one, weight, found), within=L2(1e3), goal=Targeted(target), keep=Closest(), workers=1
        )
        return found.double()

    double = victim.module().double()
    theirs = torch.tensor(
        [
            solved(
                double,
                x[i : i + 1].double(),
                goal.take(torch.tensor([i])),
                float(weight[i]),
                x[i].double().flatten().numpy(),
                1000,
            )[1]
            for i in range(len(x))
        ],
        dtype=torch.float64,
    )
    mine = lowest(LBFGS(searches=1, steps=100, weight=scale))
    assert bool(((mine - theirs).abs() <= 1e-4 * theirs.abs()).all()), (mine, theirs)
    early = lowest(LBFGS(searches=1, steps=2, weight=scale))
    assert bool((early - theirs > 1e-4 * theirs.abs()).any())


def factors(one: Attack[Any, Any]) -> Tensor:
    victim = LinearVictim.drawn(3, shape=(16,))
    x, y = victim.rows(24)
    result = attack(victim.module(), x, y, one, within=L2(1e3), keep=Closest(), workers=1)
    return result.distance / victim.optimum(x, y, dual_l2)


def test_it_comes_near_the_optimum() -> None:
    one = LBFGS(searches=10, steps=30)

    found = factors(one)

    assert float(found.min()) > 1 - ROUNDING
    assert float(found.max()) < 1.01
    for mutant in (DoesNothing(one), FlippedSign(one), replace(one, searches=3), replace(one, steps=1)):
        assert float(factors(mutant).max()) > 1.01
    sphere = SphereVictim()
    x, y = sphere.rows(16)
    distance = attack(sphere.module(), x, y, one, within=L2(9.0), keep=Closest(), workers=1).distance
    assert float((distance / sphere.l2(x)).min()) > 1 - ROUNDING
    assert float((distance / sphere.l2(x)).median()) < 1.01


def test_no_row_waits_for_another() -> None:
    """Rows that stand still go on to their next c: most end before the budget does."""
    victim = LinearVictim.drawn(3, shape=(16,))
    x, y = victim.rows(24)
    one = LBFGS(searches=6, steps=60)

    queries = attack(victim.module(), x, y, one, within=L2(1e3), keep=Closest(), workers=1).queries

    assert int(queries.max()) < one.cost(2).queries / 2
    assert len(set(queries.tolist())) > 3


def scipys_distance(victim: nn.Module, x: Tensor, goal: Targeted | Untargeted, searches: int, calls: int) -> float:
    """The nearest success over the same search for c, each from where the last ended."""
    weight, low, high = float(first_weight(victim, x, goal, 1.0)), 0.0, math.inf
    at, best = x.flatten().numpy().copy(), math.inf
    for _ in range(searches):
        at, _ = solved(victim, x, goal, weight, at, calls)
        made = torch.from_numpy(at).reshape(x.shape)
        if bool(goal.reached(victim(made))):
            best, high = min(best, float((made - x).norm())), weight
        else:
            low = weight
        weight = math.sqrt(low * high) if low and math.isfinite(high) else low * 8 if low else high / 8
    return best


@pytest.mark.slow
def test_its_distances_on_a_network_are_those_of_scipy() -> None:
    """A row's median over 20: at most 1.02 times scipy's, which may ask as often for each c."""
    images, labels = fashion_mnist()
    x, y = torch.from_numpy(images[:20]), torch.from_numpy(labels[:20])
    victim = model("natural")
    right = victim(x).argmax(1) == y
    x, y = x[right], y[right]
    double = model("natural").double()

    one = LBFGS()
    with one_thread_each():  # single rows, which threads only wait for each other on
        theirs = [
            scipys_distance(double, x[i : i + 1].double(), Untargeted(y[i : i + 1]), one.searches, one.steps)
            for i in range(len(x))
        ]

    def median(of: Attack[Any, Any]) -> float:
        return float(attack(victim, x, y, of, within=L2(100.0), keep=Closest(), workers=1).distance.median())

    most = 1.02 * float(torch.tensor(theirs).median())
    assert median(one) <= most
    for mutant in (DoesNothing(one), FlippedSign(one), replace(one, searches=2)):
        assert median(mutant) > most
