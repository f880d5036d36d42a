"""FAB against known optima, and FAB-T beside its authors' own in AutoAttack."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from redan.engine.run import AttackResult, attack
from redan.evasion.cascade import Sweep
from redan.evasion.fab import FAB
from redan.goals import Targeted
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L1
from redan.protocols import Ball, Loss, Reply
from redan.referee import Closest
from redan.rows import Rows
from redan.samples import fashion_mnist, model
from redan.testing import DoesNothing, GridVictim, LinearVictim, SphereVictim, dual_l2, dual_linf
from redan.testing.mutants import Passed

ROOT = Path(__file__).resolve().parents[2]


def dual_l1(x: Tensor) -> Tensor:
    return x.abs().amax(1)


SETS: dict[str, Any] = {"linf": (Linf, dual_linf), "l2": (L2, dual_l2), "l1": (L1, dual_l1)}
ORDERS = {"linf": math.inf, "l2": 2.0}


class _Against(Passed):
    __slots__ = ()

    def gradient(self, x: Tensor, rows: Rows[Tensor, Any], loss: Loss) -> Reply:
        gradient, value, reached = self.referee.gradient(x, rows, loss)
        return Reply(-gradient, value, reached)


@dataclass(frozen=True, slots=True)
class Against:
    """A mutant: gradients alone have the wrong sign (the hyperplane of a gap stays the same if both turn)."""

    attack: Any

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self.attack,)

    def __call__(self, referee: Any, rows: Rows[Tensor, Ball]) -> None:
        self.attack(_Against(referee), rows)


@dataclass(frozen=True, slots=True)
class FewSteps:
    """A mutant: stops after two steps and searches nothing."""

    attack: Any

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self.attack,)

    def __call__(self, referee: Any, rows: Rows[Tensor, Ball]) -> None:
        replace(self.attack, steps=2, search=0)(referee, rows)


def nearest(value: Any, victim: Any, x: Tensor, y: Tensor, within: Ball, **options: Any) -> AttackResult:
    return attack(victim.module(), x, y, value, within=within, keep=Closest(), workers=1, **options)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_it_finds_the_optimum_of_a_linear_model(norm: str, classes: int) -> None:
    kind, dual = SETS[norm]
    victim = LinearVictim.drawn(3, classes=classes, shape=(3, 20))
    x, y = victim.rows(40)
    best = victim.optimum(x, y, dual)
    roomy = best < 0.3  # of the box: nearer than its faces, so that it cuts nothing off
    value = FAB(steps=20, search=8)
    found = nearest(value, victim, x, y, kind(60.0))

    assert bool(found.success.all())
    assert bool((found.distance >= best * (1 - 1e-5)).all())
    assert int(roomy.sum()) > 20
    assert bool((found.distance <= best * 1.002)[roomy].all())
    for mutant in (DoesNothing, Against, FewSteps):
        weak = nearest(mutant(value), victim, x, y, kind(60.0))
        assert not bool((weak.distance <= best * 1.002)[roomy].any()), mutant


@pytest.mark.parametrize(("norm", "factor"), [("l2", 1.01), ("linf", 1.08)])
def test_it_comes_close_to_a_sphere(norm: str, factor: float) -> None:
    victim = SphereVictim(shape=(8,))
    x, y = victim.rows(60)
    best = getattr(victim, norm)(x)
    found = nearest(FAB(), victim, x, y, SETS[norm][0](4.0))

    assert bool(found.success.all())
    assert bool((found.distance >= best * (1 - 1e-4)).all())
    assert bool((found.distance <= best * factor + 1e-4).all())


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_restarts_come_close_to_the_optimum_of_a_net(norm: str) -> None:
    victim = GridVictim.drawn(4)
    x, y = victim.rows(60)
    bracket = victim.optimum(x, y, ORDERS[norm])
    ways = bracket.high.isfinite()
    one, many = (nearest(FAB(steps=40, restarts=n), victim, x, y, SETS[norm][0](2.0)) for n in (1, 6))

    assert bool((many.distance >= bracket.low * (1 - 1e-4)).all())
    assert bool((many.distance <= one.distance * 1.01).all())  # the last search ends at another point
    close = (many.distance <= bracket.high * 1.02 + 1e-3)[ways]
    assert float(close.float().mean()) > 0.95


def test_a_wanted_class_is_reached() -> None:
    victim = LinearVictim.drawn(5, classes=4, shape=(30,))
    x, y = victim.rows(20)
    wanted = (y + 1) % 4
    found = nearest(FAB(steps=20), victim, x, y, L2(6.0), goal=Targeted(wanted))

    assert bool(found.success.all())
    assert torch.equal(victim.module()(found.adversarial).argmax(1), wanted)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_it_costs_what_it_says(classes: int) -> None:
    value = FAB(steps=4, restarts=2, candidates=4, search=3)
    victim = LinearVictim.drawn(1, classes=classes, shape=(8,))
    x, y = victim.rows(10)
    found = nearest(value, victim, x, y, L2(4.0))

    assert (int(found.queries.max()), int(found.backwards.max())) == value.cost(classes)


def test_rows_depend_on_nobody() -> None:
    x, y = fashion_mnist()
    value, within = FAB(steps=10, restarts=2), L1(20.0)
    whole = attack(model("natural"), x[:24], y[:24], value, within=within, keep=Closest(), workers=1)
    part = attack(model("natural"), x[:24:3], y[:24:3], value, within=within, keep=Closest(), block=3)
    assert torch.equal(whole.adversarial[::3], part.adversarial)


PEER = """
import json, sys
sys.path[:0] = [sys.argv[1]]
import torch, worker
from pyautoattack.fab_pt import FABAttack_PT
torch.set_num_threads(1)
request = json.loads(sys.argv[2])
x, y = worker.load_rows(request["rows"])
norm, eps = request["norm"], request["eps"]
name = {"linf": "Linf", "l2": "L2"}[norm]
model = worker.load_model(request["model"])
right = model(x).argmax(1) == y
targeted = request["targeted"]
fab = FABAttack_PT(model, norm=name, eps=eps, n_iter=100, targeted=targeted, device="cpu")
with worker.silence():
    made = fab.perturb(x, y) if targeted else fab.attack_single_run(x, y)
wrong = model(made).argmax(1) != y
change = (made - x).flatten(1)
away = change.norm(dim=1) if norm == "l2" else change.abs().amax(1)
away[right & ~wrong] = torch.inf
print(json.dumps({"robust": float((right & ~wrong).float().mean()), "median": float(away[right].median())}))
"""


def beside(request: dict[str, Any], mine: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """The peer's answer and ours, computed at the same time."""
    python = ROOT / ".envs/peers/bin/python"
    command = [str(python), "-c", PEER, str(ROOT / "benchmarks/peers"), json.dumps(request)]
    with ThreadPoolExecutor(1) as other:
        running = other.submit(subprocess.run, command, check=True, capture_output=True, text=True)
        own = mine()
        answer: dict[str, float] = json.loads(running.result().stdout.splitlines()[-1])
    return answer, own


@pytest.fixture(scope="module")
def _peers() -> None:
    subprocess.run(["bash", str(ROOT / "benchmarks/peers/install.sh")], check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("_peers")
@pytest.mark.parametrize(
    ("name", "rows", "norm", "radius"),
    [
        ("robust", 128, "linf", 0.1),
        ("robust", 128, "l2", 1.5),
        ("residual", 64, "linf", 0.12),
        ("residual", 64, "l2", 1.5),
    ],
)
def test_fab_t_leaves_no_more_rows_robust_than_autoattacks(name: str, rows: int, norm: str, radius: float) -> None:
    """Nine targets, as many passes as 100 of their iterations. Neither side draws a random number: one seed.

    The radii are those at which attacks differ: at 0.1 hardly a row of the residual network can be broken in L∞.
    """
    x, y = fashion_mnist()
    within = SETS[norm][0](radius)

    def robust(value: Any) -> float:
        found = attack(model(name), x[:rows], y[:rows], value, within=within, workers=1)
        return 1 - float(found.success.float().mean())

    request = {"model": name, "norm": norm, "eps": radius, "rows": rows, "targeted": True}
    theirs, mine = beside(request, lambda: robust(Sweep(FAB())))
    most = theirs["robust"] + 0.003 + 1 / rows

    assert mine <= most, (mine, theirs)
    for mutant in (DoesNothing, Against):
        assert robust(mutant(Sweep(FAB(steps=20), 2))) > most, mutant


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("_peers")
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_its_median_distance_is_no_longer_than_its_authors(norm: str) -> None:
    """Untargeted, from the clean input, on the network whose boundary is farthest; ours in fewer passes."""
    x, y = fashion_mnist()
    rows, within = 256, SETS[norm][0]({"linf": 1.0, "l2": 28.0}[norm])

    def median(value: Any) -> float:
        found = attack(model("robust"), x[:rows], y[:rows], value, within=within, keep=Closest(), workers=1)
        return float(found.distance[found.distance > 0].median())

    request = {"model": "robust", "norm": norm, "eps": 1e9, "rows": rows, "targeted": False}
    theirs, mine = beside(request, lambda: median(FAB()))

    assert mine <= theirs["median"] * 1.01, (mine, theirs)
    for mutant in (DoesNothing, Against, FewSteps):
        assert median(mutant(FAB(steps=20))) > theirs["median"] * 1.01, mutant
