"""Small models and rows on which other libraries' arithmetic is exact, and the four libraries in one shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from redan.perturbations.norms import L2, Linf
from redan.protocols import Attack, Ball

STEPS = 10


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ART's GeoDA leaves a file where it runs."""
    monkeypatch.chdir(tmp_path)


RADIUS: dict[type, float] = {Linf: 16 / 256, L2: 0.25}


class Net(nn.Module):
    """A small network of images (N, 1, 8, 8), convolutional or not, whose weights and answers are spread out."""

    def __init__(self, *, convolutional: bool, classes: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        front = nn.Conv2d(1, 4, 3, padding=1) if convolutional else nn.Flatten()
        self.body = nn.Sequential(
            front,
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(256 if convolutional else 64, 24),
            nn.ReLU(),
            nn.Linear(24, classes),
        )
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.35)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.body(x)
        return answer


@pytest.fixture(params=["convolutional", "fully connected"])
def net(request: pytest.FixtureRequest) -> nn.Module:
    return Net(convolutional=request.param == "convolutional")


@pytest.fixture
def convolutional() -> nn.Module:
    return Net(convolutional=True)


@pytest.fixture
def connected() -> nn.Module:
    return Net(convolutional=False)


@pytest.fixture
def images() -> Tensor:
    """16 images of multiples of 1/256, so that adding and taking away steps of 1/256 is exact in any order."""
    return torch.randint(0, 257, (16, 1, 8, 8), generator=torch.Generator().manual_seed(1)) / 256


@dataclass(frozen=True, slots=True)
class Peer:
    """One library's PGD from a fixed start, by itself and under redan. Radius and step in units of the box."""

    name: str
    native: Callable[[nn.Module, Tensor, Tensor, float, float, type, bool], Tensor] = field(repr=False)
    adapted: Callable[[float, type, bool], Attack[Any, Any]] = field(repr=False)  # step in radii, set, random start


def _art_native(
    model: nn.Module, x: Tensor, y: Tensor, radius: float, step: float, kind: type, targeted: bool
) -> Tensor:
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 4, clip_values=(0.0, 1.0), device_type="cpu"
    )
    attack = ProjectedGradientDescent(
        classifier, math.inf if kind is Linf else 2, radius, step, max_iter=STEPS, targeted=targeted, verbose=False
    )
    return torch.from_numpy(attack.generate(x.numpy(), nn.functional.one_hot(y, 4).numpy().astype("float32")))


def _art_adapted(rate: float, kind: type, random_start: bool) -> Attack[Any, Any]:
    from art.attacks.evasion import ProjectedGradientDescent

    from redan.integrations.art import art_attack

    norm = math.inf if kind is Linf else 2
    return art_attack(
        lambda classifier, radius: ProjectedGradientDescent(
            classifier,
            norm,
            radius,
            rate * radius,
            max_iter=STEPS,
            num_random_init=int(random_start),
            verbose=False,
        ),
        within=kind,
    )


def _foolbox_attack(rate: float, kind: type, random_start: bool) -> Any:
    import foolbox

    made = foolbox.attacks.LinfPGD if kind is Linf else foolbox.attacks.L2PGD
    return made(rel_stepsize=rate, steps=STEPS, random_start=random_start)


def _foolbox_native(
    model: nn.Module, x: Tensor, y: Tensor, radius: float, step: float, kind: type, targeted: bool
) -> Tensor:
    import foolbox

    criterion = foolbox.criteria.TargetedMisclassification if targeted else foolbox.criteria.Misclassification
    attack = _foolbox_attack(step / radius, kind, False)
    raw: Tensor = attack(foolbox.PyTorchModel(model, (0, 1), device="cpu"), x, criterion(y), epsilons=radius)[0]
    return raw


def _foolbox_adapted(rate: float, kind: type, random_start: bool) -> Attack[Any, Any]:
    from redan.integrations.foolbox import foolbox_attack

    return foolbox_attack(_foolbox_attack(rate, kind, random_start))


def _cleverhans_native(
    model: nn.Module, x: Tensor, y: Tensor, radius: float, step: float, kind: type, targeted: bool
) -> Tensor:
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

    norm = math.inf if kind is Linf else 2
    changed: Tensor = projected_gradient_descent(
        model, x, radius, step, STEPS, norm, 0.0, 1.0, y=y, targeted=targeted, rand_init=False
    )
    return changed.detach()


def _cleverhans_adapted(rate: float, kind: type, random_start: bool) -> Attack[Any, Any]:
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

    from redan.integrations.cleverhans import cleverhans_attack

    settings = {"eps_iter": lambda radius: rate * radius, "nb_iter": STEPS, "rand_init": random_start}
    return cleverhans_attack(projected_gradient_descent, settings, within=kind)


def _torchattacks(model: nn.Module, radius: float, step: float, kind: type, random_start: bool) -> Any:
    import torchattacks

    made = torchattacks.PGD if kind is Linf else torchattacks.PGDL2
    return made(model, eps=radius, alpha=step, steps=STEPS, random_start=random_start)


def _torchattacks_native(
    model: nn.Module, x: Tensor, y: Tensor, radius: float, step: float, kind: type, targeted: bool
) -> Tensor:
    attack = _torchattacks(model, radius, step, kind, False)
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    changed: Tensor = attack(x, y)
    return changed


def _torchattacks_adapted(rate: float, kind: type, random_start: bool) -> Attack[Any, Any]:
    from redan.integrations.torchattacks import torchattacks_attack

    return torchattacks_attack(
        lambda model, radius: _torchattacks(model, radius, rate * radius, kind, random_start), within=kind
    )


PEERS = (
    Peer("art", _art_native, _art_adapted),
    Peer("foolbox", _foolbox_native, _foolbox_adapted),
    Peer("cleverhans", _cleverhans_native, _cleverhans_adapted),
    Peer("torchattacks", _torchattacks_native, _torchattacks_adapted),
)


@pytest.fixture(params=PEERS, ids=[peer.name for peer in PEERS])
def peer(request: pytest.FixtureRequest) -> Peer:
    found: Peer = request.param
    return found


@pytest.fixture(params=[Linf, L2], ids=["linf", "l2"])
def kind(request: pytest.FixtureRequest) -> type[Ball]:
    found: type[Ball] = request.param
    return found


@pytest.fixture
def radius(kind: type[Ball]) -> float:
    return RADIUS[kind]
