"""PGD of each library through its adapter: the bytes of the library by itself, and of redan's own PGD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import pytest
import torch
from torch import Tensor, nn

import redan
from redan.protocols import Attack, Ball
from redan.targets import Target, from_torch
from redan.targets.fast import Cheaper

pytestmark = [
    pytest.mark.extras,
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning"),  # Foolbox, of SciPy
]


class Peer(Protocol):
    native: Callable[..., Tensor]
    adapted: Callable[..., Attack[Any, Any]]


def plain(model: nn.Module) -> Target[Tensor]:
    """The model without a faster gradient path, which may round differently."""
    return replace(from_torch(model), fast=Cheaper())


@dataclass(frozen=True)
class Overheard:
    """An attack, and the inputs that it showed last: (N, …)."""

    attack: Attack[Any, Any]
    shown: list[Tensor] = field(default_factory=list)

    @property
    def parts(self) -> tuple[Attack[Any, Any], ...]:
        return (self.attack,)

    def __call__(self, referee: Any, rows: Any) -> None:
        self.attack(_Overhearing(referee, self.shown), rows)


@dataclass(frozen=True)
class _Overhearing:
    referee: Any
    shown: list[Tensor]

    def reached(self, x: Tensor, rows: Any) -> Tensor:
        self.shown.append(x.clone())
        found: Tensor = self.referee.reached(x, rows)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.referee, name)


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_the_adapter_changes_no_byte(
    net: nn.Module, peer: Peer, kind: Callable[[float], Ball], radius: float, targeted: bool
) -> None:
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(2))  # rounding at each step
    y = net(x).argmax(1)
    wanted = (y + 1) % 4
    alone = peer.native(net, x, wanted if targeted else y, radius, radius / 4, kind, targeted)
    net.zero_grad(set_to_none=True)  # that some libraries leave there
    attack = Overheard(peer.adapted(0.25, kind, False))
    goal = redan.Targeted(wanted) if targeted else redan.Untargeted()
    result = redan.attack(
        plain(net), x, y, attack, within=kind(radius), goal=goal, keep=redan.First(stop=False), workers=1
    )
    assert torch.equal(attack.shown[-1], alone)
    assert bool((alone != x).flatten(1).any(1).all())
    assert 0 < int(result.success.sum()) < 16 or targeted


def test_it_gives_redan_s_own_bytes(net: nn.Module, peer: Peer, images: Tensor) -> None:
    """In L∞, on numbers that all four libraries add without rounding: each row, won or not, and when it left."""
    y = net(images).argmax(1)
    within = redan.Linf(16 / 256)
    ours = redan.attack(
        plain(net), images, y, redan.PGD(steps=10, rate=0.25, random_start=False), within=within, workers=1
    )
    theirs = redan.attack(plain(net), images, y, peer.adapted(0.25, redan.Linf, False), within=within, workers=1)
    assert 0 < int(ours.success.sum()) < 16
    assert torch.equal(theirs.adversarial, ours.adversarial)
    assert torch.equal(theirs.success, ours.success)
    assert torch.equal(theirs.backwards[~ours.success], ours.backwards[~ours.success])


def test_each_backward_is_billed_with_its_forward(net: nn.Module, peer: Peer, images: Tensor) -> None:
    y = net(images).argmax(1)
    found = redan.attack(net, images, y, peer.adapted(0.25, redan.Linf, False), within=redan.Linf(1e-6), workers=1)
    assert found.backwards.tolist() == [10] * 16
    few = int(found.queries[0]) - 20  # besides ten forwards and ten backwards: what a library asks before and after
    assert found.queries.tolist() == [20 + few] * 16
    assert 1 <= few <= 4
