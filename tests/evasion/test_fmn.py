"""FMN near the optimum and never below it; all minimum-norm attacks by gradient beside adv-lib's."""

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from redan.engine.run import attack
from redan.evasion.cascade import Cascade
from redan.evasion.ddn import DDN
from redan.evasion.fmn import FMN
from redan.evasion.pdpgd import PDPGD
from redan.evasion.sigma_zero import SigmaZero
from redan.goals import Targeted
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.protocols import settings
from redan.referee import Closest
from redan.samples import fashion_mnist, model
from redan.testing import DoesNothing, FlippedSign, GridVictim, LinearVictim, SphereVictim, dual_l2, dual_linf

ROOT = Path(__file__).resolve().parents[2]
KINDS: dict[str, Any] = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}
DUALS: dict[str, Any] = {"linf": dual_linf, "l2": dual_l2, "l1": lambda d: d.abs().amax(1)}
ORDERS = {"linf": math.inf, "l2": 2.0, "l1": 1.0}
ROUNDING = 1e-5


@pytest.mark.parametrize("kind", ["linf", "l2", "l1"])
@pytest.mark.parametrize("outside", [True, False])
def test_near_the_optimum_of_a_linear_model(kind: str, outside: bool) -> None:
    victim = LinearVictim.drawn(0)
    x, y = victim.rows(24)
    best = victim.optimum(x, y, DUALS[kind])
    one = FMN(steps=100, outside=outside)

    def ratio(value: Any) -> Tensor:
        found = attack(victim.module(), x, y, value, within=KINDS[kind](math.inf), keep=Closest(), workers=1)
        return found.distance / best

    found = ratio(one)
    assert bool((found >= 1 - ROUNDING).all())
    assert float(found.median()) < 1.02
    assert float(found.max()) < 1.1
    for mutant in (DoesNothing(one), FlippedSign(one), FMN(steps=8)):
        assert float(ratio(mutant).max()) > 1.1, mutant


@pytest.mark.parametrize("kind", ["linf", "l2"])
def test_a_sphere(kind: str) -> None:
    victim = SphereVictim()
    x, y = victim.rows(24)
    best = victim.linf(x) if kind == "linf" else victim.l2(x)
    found = attack(victim.module(), x, y, FMN(steps=60), within=KINDS[kind](math.inf), keep=Closest(), workers=1)

    assert bool((found.distance >= best * (1 - ROUNDING)).all())
    assert float((found.distance / best).median()) < 1.05


@pytest.mark.parametrize("kind", ["linf", "l2", "l1"])
def test_a_tiny_net_by_brute_force(kind: str) -> None:
    victim = GridVictim.drawn(0)
    x, y = victim.rows(16)
    low, high = victim.optimum(x, y, ORDERS[kind])
    found = attack(victim.module(), x, y, FMN(steps=60), within=KINDS[kind](math.inf), keep=Closest(), workers=1)

    assert bool((found.distance >= low * (1 - ROUNDING)).all())
    assert float((found.distance / high).median()) < 1.05


def test_a_finite_ball_ends_rows_early() -> None:
    victim = LinearVictim.drawn(1)
    x, y = victim.rows(24)
    best = victim.optimum(x, y, dual_l2).float()
    one = FMN(steps=60)
    inside = attack(victim.module(), x, y, one, within=L2(best * 1.2), workers=1)

    assert bool(inside.success.all())
    assert bool((inside.distance <= best * 1.2 + ROUNDING).all())
    assert int(inside.queries.max()) < one.cost(2).queries
    assert not attack(victim.module(), x, y, one, within=L2(best * 0.999), workers=1).success.any()


def test_a_target() -> None:
    victim = LinearVictim.drawn(3, classes=4)
    x, y = victim.rows(16)
    target = (y + 1) % 4
    found = attack(victim.module(), x, y, FMN(), within=L2(math.inf), goal=Targeted(target), keep=Closest(), workers=1)

    assert bool(found.success.all())
    assert torch.equal(victim.module()(found.adversarial).argmax(1), target)


# -- beside adv-lib ---------------------------------------------------------------------------------------------

# (its attack, the set, its steps, ours, at most so many times its median distance): as many passes or fewer.
BESIDE: list[tuple[str, str, int, Any, float]] = [
    ("DDN", "l2", 100, DDN(steps=99), 1.0),
    ("DDN", "l2", 100, Cascade((DDN(steps=29), FMN(steps=59))), 0.75),
    ("FMN", "linf", 100, FMN(steps=99), 0.75),
    ("FMN", "l2", 100, FMN(steps=99), 0.8),
    ("FMN", "l1", 100, FMN(steps=99), 0.6),
    ("FMN", "l0", 100, FMN(steps=99), 0.7),
    ("PDPGD", "linf", 100, PDPGD(steps=99), 0.6),
    ("PDPGD", "l2", 100, PDPGD(steps=99), 0.35),
    ("PDPGD", "l1", 100, PDPGD(steps=99), 0.7),
    ("PDPGD", "l0", 100, PDPGD(steps=99), 0.6),
    ("PDPGD", "l0", 200, PDPGD(steps=199, rate=0.2), 1.0),
    ("SigmaZero", "l0", 100, SigmaZero(steps=100), 1.1),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_weaker_than_adv_lib(tmp_path: Path) -> None:
    """Each success rate is at least theirs, and the median distance at most so many times theirs; a mutant's is not."""
    from safetensors.torch import load_file

    subprocess.run(["bash", str(ROOT / "benchmarks/peers/install.sh")], check=True, capture_output=True)
    orders = {"linf": "inf", "l2": "2", "l1": "1", "l0": "0"}
    asked = json.dumps([[name, orders[kind], steps] for name, kind, steps, _, _ in BESIDE])
    script = Path(__file__).with_name("minimum_norm_peer.py")
    out = tmp_path / "out.safetensors"
    subprocess.run(
        [str(ROOT / ".envs/peers/bin/python"), str(script), str(ROOT / "benchmarks/peers"), asked, str(out)],
        check=True,
        capture_output=True,
    )
    made = load_file(str(out))
    images, labels = fashion_mnist()
    x, y, victim = torch.from_numpy(images[:256]), torch.from_numpy(labels[:256]), model("robust")
    with torch.no_grad():
        right = victim(x).argmax(1) == y
        x, y = x[right], y[right]
        broken = {place: victim(each[right]).argmax(1) != y for place, each in made.items()}

    def distances(kind: str, one: Any) -> Tensor:
        return attack(victim, x, y, one, within=KINDS[kind](math.inf), keep=Closest(), workers=1).distance

    last = ""
    for place, (name, kind, _, one, factor) in enumerate(BESIDE):
        measured = KINDS[kind](1.0).distance(made[str(place)][right].clamp(0, 1), x)
        theirs = torch.where(broken[str(place)], measured, torch.inf)
        mine = distances(kind, one)
        what = (name, kind, settings(one), float(theirs.median()), float(mine.median()))
        assert int(mine.isfinite().sum()) >= int(theirs.isfinite().sum()), what
        assert float(mine.median()) <= factor * float(theirs.median()), what
        if name != last:
            assert float(distances(kind, FlippedSign(one)).median()) > factor * float(theirs.median()), what
        last = name
