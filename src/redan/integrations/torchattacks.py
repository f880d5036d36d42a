"""torchattacks in both directions: its attacks under redan's referee, redan's targets and attacks behind its interface.

    attacks: {add: ["redan.integrations.torchattacks:PGD"]}     # in a threat model

Kim 2020, "Torchattacks", arXiv:2010.01950. Tested against 3.5.1. It knows inputs in [0, 1] alone; in other boxes it is
given the inputs moved there, and a radius in their unit.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from redan.errors import SettingError
from redan.goals import Aim
from redan.integrations.facade import Facade, aimed
from redan.integrations.peers import one_radius, order, peer_attack, release
from redan.integrations.served import AsModule, changed, served
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.protocols import Access, Attack, Bounded
from redan.rows import Rows
from redan.targets import Target

_INSTALL = "pip install --no-deps torchattacks"


def _torchattacks() -> Any:
    try:
        import torchattacks
    except ModuleNotFoundError as error:
        raise SettingError(f"torchattacks' attacks need the package {error.name}; run: {_INSTALL}") from error
    return torchattacks


class _Unit(nn.Module):
    """The facade for inputs that were moved from its box into [0, 1]."""

    def __init__(self, facade: Facade, bounds: tuple[float, float]) -> None:
        super().__init__()
        self.facade, self.bounds = facade, bounds
        self.eval()

    def moved(self, unit: Tensor) -> Tensor:
        low, high = self.bounds
        return unit if (low, high) == (0, 1) else (low + unit * (high - low)).clamp(low, high)

    def forward(self, unit: Tensor) -> Tensor:
        scores: Tensor = self.facade(self.moved(unit))
        return scores


Make = Callable[[nn.Module, float], Any]
"""(model, the radius) -> a torchattacks attack. The model's inputs are in [0, 1], and so is the radius' unit."""
MakeCounted = Callable[[nn.Module, float, int], Any]


def torchattacks_attack(
    make: Make,
    *,
    within: type[Any] = Linf,
    access: Access = Access.GRADIENTS,
    alone: bool | None = None,
    name: str | None = None,
    options: str = "",
) -> Attack[Any, Any]:
    """A torchattacks attack as a redan attack.

    make: called with a module and the radius, e.g. `lambda model, radius: torchattacks.PGD(model, eps=radius,
    alpha=radius / 4, steps=20)`. within: the kind of ball that it moves in; access: what it needs; alone: run it on
    each row by itself; name, options: for reports. Raises SettingError without torchattacks, with the command.
    """
    return _adapted(lambda model, radius, _: make(model, radius), within, access, alone, name, options)


def _adapted(
    make: MakeCounted, within: type[Any], access: Access, alone: bool | None, name: str | None, options: str
) -> Attack[Any, Any]:
    _torchattacks()

    def run(facade: Facade, rows: Rows[Tensor, Any]) -> Tensor:
        aim, (low, high) = aimed(rows.goal), rows.within.bounds
        model = _Unit(facade, rows.within.bounds)
        radius = one_radius(rows.within) / (1 if order(rows.within) == 0 else high - low)
        attack = make(model, radius, facade.classes if needs_classes else 0)
        if aim.targeted:
            if "targeted" not in attack.supported_mode:
                raise SettingError(f"torchattacks' {type(attack).__name__} has no targeted mode; choose another attack")
            attack.set_mode_targeted_by_label(quiet=True)
        unit = rows.x0 if (low, high) == (0, 1) else ((rows.x0 - low) / (high - low)).clamp(0, 1)
        answer: Tensor = attack(unit.clone(), aim.label)
        return model.moved(answer.detach().to(rows.x0))

    needs_classes = name is not None and name in _COUNTED
    return peer_attack(
        name or "TorchattacksAttack",
        run,
        library=release("torchattacks"),
        options=options,
        access=access,
        within=within,
        alone=access is Access.LABELS if alone is None else alone,
    )


_LINF = (
    "FGSM BIM RFGSM PGD EOTPGD FFGSM MIFGSM UPGD DIFGSM TIFGSM Jitter NIFGSM SINIFGSM VMIFGSM VNIFGSM PIFGSM PIFGSMPP "
    "TPGD APGD APGDT FAB AutoAttack Square SPSA"
)
_CATALOG: dict[str, type[Any]] = (
    dict.fromkeys(_LINF.split(), Linf)
    | dict.fromkeys(("PGDL2", "PGDRSL2", "CW", "DeepFool"), L2)
    | dict.fromkeys(("EADL1", "EADEN"), L1)
    | dict.fromkeys(("JSMA", "SparseFool", "OnePixel", "Pixle"), L0)
)
_SCORES = {"Square", "SPSA", "OnePixel", "Pixle"}
_COUNTED = {"APGDT", "FAB", "AutoAttack"}
_ALONE = {"DeepFool", "SparseFool", "OnePixel", "Pixle", "SPSA", "AutoAttack", "FAB"}


def __getattr__(name: str) -> Attack[Any, Any]:
    """`redan.integrations.torchattacks:NAME` in a threat model: its attack of that name, steps scaled to the radius."""
    if not name[:1].isupper():  # tools look for names of their own, as `setup_module`
        raise AttributeError(name)
    kind = getattr(_torchattacks(), name, None)
    if kind is None:
        raise AttributeError(name)
    if name not in _CATALOG:
        raise SettingError(
            f"torchattacks.{name} is not known to keep to an Lp ball around its input, or takes more than one model; "
            "make it in a module of your own, wrap it with torchattacks_attack(...) and name that in attacks.add"
        )

    def make(model: nn.Module, radius: float, classes: int) -> Any:
        return _scaled(kind, model, radius, classes)

    access = Access.SCORES if name in _SCORES else Access.GRADIENTS
    return _adapted(make, _CATALOG[name], access, name in _ALONE, name, "defaults")


def _scaled(kind: Any, model: nn.Module, radius: float, classes: int) -> Any:
    """The attack with torchattacks' defaults: eps is the radius, and a step that it counts in eps is scaled along."""
    parameters = inspect.signature(kind.__init__).parameters
    settings: dict[str, Any] = {}
    size = next((name for name in ("eps", "max_epsilon") if name in parameters), None)
    if size is not None:
        if math.isinf(radius):
            raise SettingError(f"torchattacks.{kind.__name__} needs a finite radius; give the set one")
        settings[size] = radius
        if "alpha" in parameters:
            settings["alpha"] = radius * parameters["alpha"].default / parameters[size].default
    if "n_classes" in parameters:
        settings["n_classes"] = classes
    return kind(model, **settings)


# -- redan's side of torchattacks' interface --------------------------------------------------------------


def to_torchattacks(target: nn.Module | Target[Tensor]) -> nn.Module:
    """A redan target as the module that torchattacks' attacks take. Raises SettingError unless its box is [0, 1]."""
    answered = served(target)
    if tuple(answered.bounds) != (0, 1):
        raise SettingError(
            f"torchattacks knows inputs in [0, 1] alone, and the target's are in {answered.bounds}; scale them inside "
            "the model"
        )
    return AsModule(answered)


@dataclass(frozen=True, slots=True)
class TorchattacksStyle:
    """A redan attack that is called as torchattacks' are. Build it with `as_torchattacks_attack`."""

    attack: Attack[Any, Any]
    within: Bounded
    model: Target[Tensor]
    goal: Aim | None
    seed: int

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """The changed images (N, …) for right classes labels (N,)."""
        return changed(self.attack, self.model, images, labels, self.within, goal=self.goal, seed=self.seed)[0]


def as_torchattacks_attack(
    attack: Attack[Any, Any],
    within: Bounded,
    model: nn.Module | Target[Tensor],
    *,
    goal: Aim | None = None,
    seed: int = 0,
) -> TorchattacksStyle:
    """A redan attack called as torchattacks': `as_torchattacks_attack(redan.PGD(), Linf(ε), model)(images, labels)`.

    The bytes are those of `redan.attack` with the same seed. A row that was not broken comes back unchanged.

    >>> import torch
    >>> from torch import nn
    >>> from redan.evasion.fgsm import FGSM
    >>> call = as_torchattacks_attack(FGSM(), Linf(0.5), nn.Linear(2, 2).eval())
    >>> call(torch.rand(4, 2), torch.tensor([0, 1, 0, 1])).shape
    torch.Size([4, 2])
    """
    return TorchattacksStyle(attack, within, served(model), goal, seed)
