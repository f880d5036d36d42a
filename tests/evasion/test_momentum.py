"""MI-FGSM and its line: known answers, the algorithm step by step, and beside torchattacks at the same budget."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from redan.engine.run import attack
from redan.evasion.bim import BIM
from redan.evasion.momentum import MomentumFGSM
from redan.evasion.treatments import Diverse, Scaled, Translated, Variance
from redan.goals import Targeted
from redan.perturbations.norms import L2, Linf
from redan.protocols import settings
from redan.referee import Worst
from redan.samples import fashion_mnist, model
from redan.testing import DoesNothing, FlippedSign, HalfSteps, LinearVictim, dual_l2, dual_linf

ROOT = Path(__file__).resolve().parents[2]
LINE = {
    "mi": MomentumFGSM(),
    "ni": MomentumFGSM(nesterov=True),
    "vmi": MomentumFGSM(variance=Variance()),
    "vni": MomentumFGSM(nesterov=True, variance=Variance()),
    "si-ni": MomentumFGSM(nesterov=True, treatments=(Scaled(),)),
    "di": MomentumFGSM(treatments=(Diverse(),)),
    "ti": MomentumFGSM(treatments=(Translated(size=3),)),
}


@pytest.mark.parametrize("name", ["mi", "ni", "vmi", "vni", "si-ni"])
@pytest.mark.parametrize(("ball", "dual"), [(Linf, dual_linf), (L2, dual_l2)])
def test_a_linear_victim_is_broken_at_its_optimum_and_no_nearer(name: str, ball: Any, dual: Any) -> None:
    """The gradient has one direction everywhere; scaling keeps it."""
    victim = LinearVictim.drawn(0, shape=(3, 2, 2))
    x, y = victim.rows(24)
    best = victim.optimum(x, y, dual).float()

    assert attack(victim.module(), x, y, LINE[name], within=ball(best * 1.005)).success.all()
    assert not attack(victim.module(), x, y, LINE[name], within=ball(best * (1 - 1e-4))).success.any()
    for mutant in (DoesNothing, HalfSteps, FlippedSign):
        assert not attack(victim.module(), x, y, mutant(LINE[name]), within=ball(best * 1.005)).success.any()


def test_targets_are_reached() -> None:
    victim = LinearVictim.drawn(2, classes=4)
    x, y = victim.rows(12)
    goal = Targeted((y + 1) % 4)
    found = attack(victim.module(), x, y, MomentumFGSM(), within=Linf(0.4), goal=goal)

    assert found.success.all()
    assert torch.equal(victim.module()(found.adversarial).argmax(1), (y + 1) % 4)


def test_it_is_the_paper_s_algorithm() -> None:
    """Algorithm 1, written out: three steps on a network, momentum normalized by ℓ₁."""
    images, labels = fashion_mnist()
    net, x0, y = model("natural"), torch.from_numpy(images[:4]), torch.from_numpy(labels[:4])
    epsilon, steps = 0.001, 3
    x, momentum = x0, torch.zeros_like(x0)
    for _ in range(steps):
        x = x.detach().requires_grad_()
        loss = torch.nn.functional.cross_entropy(net(x), y, reduction="sum")
        gradient = torch.autograd.grad(loss, x)[0]
        momentum = momentum + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
        x = (x + epsilon / steps * momentum.sign()).clamp(0, 1)
    found = attack(
        net, x0, y, MomentumFGSM(steps=steps, rate=1 / steps), within=Linf(epsilon), keep=Worst()
    ).adversarial

    assert torch.allclose(found, x, atol=1e-6)
    assert not torch.allclose(found, attack(net, x0, y, BIM(steps=3), within=Linf(epsilon), keep=Worst()).adversarial)


def test_without_momentum_it_is_bim_to_the_byte() -> None:
    images, labels = fashion_mnist()
    net = model("robust")
    mine, bim = (
        attack(net, images[:16], labels[:16], one, within=Linf(0.1)).adversarial
        for one in (MomentumFGSM(decay=0.0, rate=0.1), BIM())
    )
    assert torch.equal(mine, bim)


@pytest.mark.parametrize("name", sorted(LINE))
def test_the_cost_is_the_worst_case_exactly(name: str) -> None:
    victim = LinearVictim.drawn(0, shape=(1, 4, 4))
    x, y = victim.rows(4)
    found = attack(victim.module(), x, y, LINE[name], within=Linf(0.0))

    assert found.queries.tolist() == [LINE[name].cost(2).queries] * 4
    assert found.backwards.tolist() == [LINE[name].cost(2).backwards] * 4


PEER = """
import json, sys, types
import torch
sys.path.insert(0, sys.argv[1])
import torchattacks
import torchattacks.attacks.tifgsm as ti
import worker
torch.set_num_threads(1)
x, y = worker.load_rows(256)
models = {name: worker.load_model(name) for name in ("robust", "natural", "residual")}
F = torch.nn.functional
ti.F = types.SimpleNamespace(  # its kernel is made for three channels
    interpolate=F.interpolate, pad=F.pad,
    conv2d=lambda g, k, stride, padding, groups: F.conv2d(g, k[:1], padding=padding))
made = {
    "mi": torchattacks.MIFGSM, "ni": torchattacks.NIFGSM, "vmi": torchattacks.VMIFGSM, "vni": torchattacks.VNIFGSM,
    "si-ni": torchattacks.SINIFGSM, "di": torchattacks.DIFGSM, "ti": torchattacks.TIFGSM,
}
out = {}
for name, kind in made.items():
    torch.manual_seed(0)
    found = kind(models["robust"], eps=0.15, alpha=0.015, steps=10, decay=1.0)(x, y)
    with torch.no_grad():
        out[name] = {to: float((net(found).argmax(1) == y).float().mean()) for to, net in models.items()}
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def theirs() -> dict[str, dict[str, float]]:
    subprocess.run(["bash", str(ROOT / "benchmarks/peers/install.sh")], check=True, capture_output=True)
    command = [str(ROOT / ".envs/peers/bin/python"), "-c", PEER, str(ROOT / "benchmarks/peers")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    answers: dict[str, dict[str, float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return answers


def robust(one: Any, to: str) -> float:
    """Robust accuracy of a model against an attack on the robust model, white box or carried over."""
    images, labels = fashion_mnist()
    lent = () if to == "robust" else (model("robust"),)
    found = attack(model(to), images[:256], labels[:256], one, within=Linf(0.15), surrogates=lent, workers=1)
    return 1 - float(found.success.float().mean())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(LINE))
def test_each_is_no_weaker_than_torchattacks(theirs: dict[str, dict[str, float]], name: str) -> None:
    """White box, and carried over to two other models: the mean robust accuracy, at the same steps and step size."""
    one = LINE[name]
    assert isinstance(one, MomentumFGSM)
    mine = sum(robust(one, to) for to in theirs[name]) / len(theirs[name])
    ceiling = sum(theirs[name].values()) / len(theirs[name]) + 0.02
    weak = [sum(robust(m(one), to) for to in theirs[name]) / 3 for m in (DoesNothing, HalfSteps, FlippedSign)]

    assert mine <= ceiling, (mine, theirs[name])
    assert all(each > ceiling for each in weak), (weak, ceiling)


def test_settings_tell_the_treatments() -> None:
    one = MomentumFGSM(treatments=(Translated(size=3),))
    assert "treatments=(Translated(size=3))" in settings(one)
