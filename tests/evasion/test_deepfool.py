"""DeepFool against known optima, and beside adv-lib's at no more passes."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from redan.engine.run import AttackResult, attack
from redan.evasion.deepfool import DeepFool
from redan.evasion.fab import FAB
from redan.goals import Targeted
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L1
from redan.protocols import Ball, Loss, Reply
from redan.referee import Closest
from redan.rows import Rows
from redan.samples import fashion_mnist, model
from redan.testing import DoesNothing, FlippedSign, LinearVictim, SphereVictim, dual_l2, dual_linf
from redan.testing.mutants import Passed

ROOT = Path(__file__).resolve().parents[2]


def dual_l1(x: Tensor) -> Tensor:
    return x.abs().amax(1)


SETS: dict[str, Any] = {"linf": (Linf, dual_linf), "l2": (L2, dual_l2), "l1": (L1, dual_l1)}


class _Shallow(Passed):
    __slots__ = ()

    def gradient(self, x: Tensor, rows: Rows[Tensor, Any], loss: Loss) -> Reply:
        gradient, value, reached = self.referee.gradient(x, rows, loss)
        return Reply(gradient * 4, value, reached)


@dataclass(frozen=True, slots=True)
class ShortSteps:
    """A mutant: gradients look four times as steep, so that steps are a quarter as long."""

    attack: Any

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self.attack,)

    def __call__(self, referee: Any, rows: Rows[Tensor, Ball]) -> None:
        self.attack(_Shallow(referee), rows)


def nearest(value: Any, victim: Any, x: Tensor, y: Tensor, within: Ball, **options: Any) -> AttackResult:
    return attack(victim.module(), x, y, value, within=within, keep=Closest(), workers=1, **options)


class _Flattening(torch.nn.Module):
    """The second class wins above x = 1; each step to the linearized boundary goes a tenth of the way there."""

    def forward(self, x: Tensor) -> Tensor:
        way = x.flatten(1).sum(1) - 1
        return torch.stack([torch.zeros_like(way), way * (way.abs() ** 9 + 1e-15)], 1)


@pytest.mark.parametrize("value", [DeepFool(steps=30), FAB(steps=30)], ids=["deepfool", "fab"])
def test_a_row_that_creeps_toward_the_boundary_is_pushed_over_it(value: DeepFool | FAB) -> None:
    x, y = torch.tensor([[0.0], [0.25], [0.5]]), torch.zeros(3, dtype=torch.int64)
    result = attack(_Flattening().eval(), x, y, value, within=L2(2.0), bounds=(0.0, 2.0), keep=Closest(),
                    workers=1)  # fmt: skip
    assert result.success.tolist() == [True, True, True]
    assert bool((result.distance <= 1.1 * (1 - x[:, 0])).all())


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("norm", SETS)
def test_one_step_is_exact_on_a_linear_model(norm: str, classes: int) -> None:
    kind, dual = SETS[norm]
    victim = LinearVictim.drawn(3, classes=classes, shape=(3, 4))
    x, y = victim.rows(40)
    best = victim.optimum(x, y, dual)
    result = nearest(DeepFool(steps=2), victim, x, y, kind(12.0))

    assert bool(result.success.all())
    assert bool((result.distance >= best * (1 - 1e-5)).all())
    if norm != "l1":  # in L1 one coordinate often meets the box's face before the hyperplane
        assert bool((result.distance <= best * 1.021 + 1e-4).all())
    for mutant in (DoesNothing, FlippedSign, ShortSteps):
        weak = nearest(mutant(DeepFool(steps=2)), victim, x, y, kind(12.0))
        assert float(weak.success.float().mean()) < 0.5, mutant


@pytest.mark.parametrize(("norm", "factor"), [("l2", 1.01), ("linf", 1.35)])
def test_it_comes_close_to_a_sphere(norm: str, factor: float) -> None:
    """The way to a sphere is straight in L2; in L∞ DeepFool stops at the first boundary it meets."""
    victim = SphereVictim(shape=(8,))
    x, y = victim.rows(60)
    best = getattr(victim, norm)(x)
    result = nearest(DeepFool(search=16), victim, x, y, SETS[norm][0](4.0))

    assert bool(result.success.all())
    assert bool((result.distance >= best * (1 - 1e-4)).all())
    assert bool((result.distance <= best * factor + 1e-4).all())


def test_a_wanted_class_is_reached() -> None:
    victim = LinearVictim.drawn(5, classes=4, shape=(30,))
    x, y = victim.rows(20)
    wanted = (y + 1) % 4
    result = nearest(DeepFool(), victim, x, y, L2(6.0), goal=Targeted(wanted))

    assert bool(result.success.all())
    assert torch.equal(victim.module()(result.adversarial).argmax(1), wanted)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_it_costs_what_it_says(classes: int) -> None:
    value = DeepFool(steps=3, overshoot=-0.9, search=2, candidates=4)
    victim = LinearVictim.drawn(1, classes=classes, shape=(8,))
    x, y = victim.rows(10)
    result = nearest(value, victim, x, y, L2(4.0))
    told = value.cost(classes)

    assert not bool(result.success.any()), (
        "steps that are far too short reach nothing, and cost the most but the search"
    )
    assert int(result.queries.max()) == told.queries - value.search
    assert int(result.backwards.max()) == told.backwards == 3 * min(4, classes - 1)


def test_the_search_shortens_and_never_loses() -> None:
    x, y = fashion_mnist()
    plain, searched = (
        attack(model("robust"), x[:48], y[:48], DeepFool(search=n), within=Linf(1.0), keep=Closest(), workers=1)
        for n in (0, 5)
    )
    assert bool(searched.success.all())
    assert bool((searched.distance <= plain.distance).all())
    assert float((searched.distance < plain.distance).float().mean()) > 0.5


def test_a_candidate_outside_the_set_is_drawn_to_its_edge() -> None:
    """With an overshoot of a half every first hit lies outside; the first question of the search is the edge."""
    victim = LinearVictim.drawn(2, shape=(10,))
    x, y = victim.rows(30)
    radius = (victim.optimum(x, y, dual_l2) * 1.05).float()
    result = attack(victim.module(), x, y, DeepFool(overshoot=0.5, search=1), within=L2(radius), workers=1)
    assert bool(result.success.all())
    none = attack(victim.module(), x, y, DeepFool(overshoot=0.5, search=0), within=L2(radius), workers=1)
    assert not bool(none.success.any())


PEER = """
import json, sys
sys.path[:0] = [sys.argv[1]]
import torch, worker
sys.path.append(str(worker.attacks.STUBS))
from adv_lib.attacks import df
torch.set_num_threads(1)
request = json.loads(sys.argv[2])
x, y = worker.load_rows(request["rows"])
found = []
for name, norm in request["cells"]:
    model = worker.load_model(name)
    right = model(x).argmax(1) == y
    counted = worker.Counted(model).eval()
    made = df(counted, x[right], y[right], steps=50, overshoot=0.02, norm=2 if norm == "l2" else float("inf"))
    wrong = model(made).argmax(1) != y[right]
    change = (made - x[right]).flatten(1)
    away = change.norm(dim=1) if norm == "l2" else change.abs().amax(1)
    away[~wrong] = torch.inf
    passes = (counted.forwards + counted.backwards) / int(right.sum())
    found.append({"success": float(wrong.float().mean()), "median": float(away.median()), "passes": passes})
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_beside_adv_lib() -> None:
    """As many successes, no longer a median, in no more passes: on three networks, in L2 and L∞."""
    subprocess.run(["bash", str(ROOT / "benchmarks/peers/install.sh")], check=True, capture_output=True)
    cells = [(name, norm) for name in ("natural", "robust", "residual") for norm in ("l2", "linf")]
    python = ROOT / ".envs/peers/bin/python"
    request = json.dumps({"rows": 256, "cells": cells})
    answer = subprocess.run(
        [str(python), "-c", PEER, str(ROOT / "benchmarks/peers"), request], check=True, capture_output=True, text=True
    )
    x, y = fashion_mnist()
    for (name, norm), theirs in zip(cells, json.loads(answer.stdout.splitlines()[-1]), strict=True):
        within = L2(28.0) if norm == "l2" else Linf(1.0)
        options: dict[str, Any] = {"within": within, "keep": Closest(), "workers": 1}
        mine = attack(model(name), x[:256], y[:256], DeepFool(), **options)
        right = mine.distance > 0
        passes = float((mine.queries + mine.backwards)[right].float().mean())

        assert float(mine.success[right].float().mean()) >= theirs["success"]
        assert float(mine.distance[right].median()) <= theirs["median"] * 1.001, (name, norm, theirs)
        assert passes <= theirs["passes"], (name, norm, passes, theirs)
        for mutant in (DoesNothing, FlippedSign):
            weak = attack(model(name), x[:64], y[:64], mutant(DeepFool()), **options)
            assert float(weak.distance[weak.distance > 0].median()) > theirs["median"] * 1.001, mutant
