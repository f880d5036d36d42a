"""CleverHans in both directions: its torch attacks under redan's referee, redan's behind its calling convention.

    attacks: {add: ["redan.integrations.cleverhans:projected_gradient_descent"]}     # in a threat model

Papernot et al. 2018, "Technical Report on the CleverHans v2.1.0 Adversarial Examples Library", arXiv:1610.00768.
Tested against 4.0.0. Its gradient attacks compute in float32, whatever the model's type.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from redan.errors import SetError, SettingError
from redan.goals import Targeted
from redan.integrations.facade import Facade, aimed
from redan.integrations.peers import one_radius, order, peer_attack, release
from redan.integrations.served import AsModule, as_served, changed, served
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L1
from redan.protocols import Access, Attack, Ball, Bounded
from redan.protocols import settings as plain
from redan.rows import Rows
from redan.targets import Target

_INSTALL = "pip install --no-deps cleverhans"


def cleverhans_attack(
    function: Callable[..., Tensor],
    settings: Mapping[str, Any] = MappingProxyType({}),
    *,
    within: type[Any] = Ball,
    access: Access = Access.GRADIENTS,
    alone: bool | None = None,
) -> Attack[Any, Any]:
    """A CleverHans attack as a redan attack.

    function: one of cleverhans.torch.attacks. settings: its own arguments; a function among them is called with the
    radius, as in `{"eps_iter": lambda radius: radius / 4, "nb_iter": 40}`. The model, x, eps, norm, the box, the
    labels and `targeted` come from the rows, by the names that the function gives them; where it takes eps_iter and
    nb_iter without a default and settings say nothing, they are 2.5 radii ÷ 40, and 40. within: the kind of ball it
    moves in, any for the functions that take a norm; access: what it needs; alone: run it on each row by itself.
    """
    takes = inspect.signature(function).parameters
    name = getattr(function, "__name__", "CleverHansAttack")

    def run(facade: Facade, rows: Rows[Tensor, Any]) -> Tensor:
        radius = one_radius(rows.within)
        own = {key: value(radius) if callable(value) else value for key, value in settings.items()}
        given = _given(takes, facade, rows, name) | own
        answer: Tensor = function(facade, rows.x0.clone(), **given)
        return answer.detach()

    return peer_attack(
        name,
        run,
        library=release("cleverhans"),
        options=", ".join(f"{key}={plain(value)}" for key, value in sorted(settings.items())),
        access=access,
        within=within,
        alone=access is Access.LABELS if alone is None else alone,
    )


_STEPS = 40


def _given(takes: Mapping[str, Any], facade: Facade, rows: Rows[Tensor, Any], name: str) -> dict[str, Any]:
    """What the rows say, under the function's own names."""
    aim, radius, p = aimed(rows.goal), one_radius(rows.within), order(rows.within)
    if aim.targeted and "targeted" not in takes:
        raise SettingError(f"CleverHans' {name} has no targeted mode of the kind redan asks for; choose another attack")
    known: dict[str, Callable[[], Any]] = {
        "eps": lambda: radius,
        "norm": lambda: p,
        "order": lambda: p,
        "constraint": lambda: p,
        "clip_min": lambda: rows.within.bounds[0],
        "clip_max": lambda: rows.within.bounds[1],
        "y": lambda: aim.label,
        "targeted": lambda: aim.targeted,
        "n_classes": lambda: facade.classes,
        "verbose": lambda: False,
    }
    if "eps" in takes and math.isinf(radius):
        raise SettingError(f"CleverHans' {name} needs a finite radius; give the set one")
    if "eps_iter" in takes:
        known["eps_iter"] = lambda: 2.5 * radius / _STEPS
        known["nb_iter"] = lambda: _STEPS
    elif "nb_iter" in takes and takes["nb_iter"].default is inspect.Parameter.empty:
        known["nb_iter"] = lambda: _STEPS
    return {key: tell() for key, tell in known.items() if key in takes}


@dataclass(frozen=True, slots=True)
class _Known:
    within: type[Any]
    access: Access = Access.GRADIENTS
    alone: bool = False


_CATALOG = {
    "carlini_wagner_l2": _Known(L2),
    "fast_gradient_method": _Known(Linf),
    "hop_skip_jump_attack": _Known(L2, Access.LABELS, True),
    "projected_gradient_descent": _Known(Linf),
    "sparse_l1_descent": _Known(L1),
    "spsa": _Known(Linf, Access.SCORES, True),
}


def _function(name: str) -> Callable[..., Tensor]:
    try:
        import cleverhans.torch.attacks.carlini_wagner_l2 as carlini_wagner
        import cleverhans.torch.attacks.fast_gradient_method as fgm
        import cleverhans.torch.attacks.hop_skip_jump_attack as hop_skip_jump
        import cleverhans.torch.attacks.projected_gradient_descent as pgd
        import cleverhans.torch.attacks.sparse_l1_descent as sparse
        import cleverhans.torch.attacks.spsa as spsa
    except ModuleNotFoundError as error:
        raise SettingError(f"CleverHans' attacks need the package {error.name}; run: {_INSTALL}") from error
    modules: tuple[Any, ...] = (carlini_wagner, fgm, hop_skip_jump, pgd, sparse, spsa)
    function: Callable[..., Tensor] = next(getattr(module, name) for module in modules if hasattr(module, name))
    return function


def __getattr__(name: str) -> Attack[Any, Any]:
    """`redan.integrations.cleverhans:NAME` in a threat model: its torch attack of that name."""
    known = _CATALOG.get(name)
    if known is None:
        raise AttributeError(name)
    return cleverhans_attack(_function(name), within=known.within, access=known.access, alone=known.alone)


# -- redan's side of CleverHans' calling convention -------------------------------------------------------


def to_cleverhans(target: nn.Module | Target[Tensor]) -> nn.Module:
    """A redan target as a `model_fn`: a module from inputs (N, …) in the target's bounds to scores (N, K)."""
    return AsModule(served(target))


@dataclass(frozen=True, slots=True)
class CleverHansStyle:
    """A redan attack that is called as CleverHans' functions are. Build it with `as_cleverhans_attack`."""

    attack: Attack[Any, Any]
    seed: int

    def __call__(
        self,
        model_fn: Callable[[Tensor], Tensor],
        x: Tensor,
        eps: float,
        norm: float,
        clip_min: float = 0.0,
        clip_max: float = 1.0,
        y: Tensor | None = None,
        targeted: bool = False,
    ) -> Tensor:
        """The changed inputs (N, …); norm is math.inf, 2 or 1. y: right classes (N,), or wanted ones if targeted.

        Without y the model's own answers are taken for the right classes, as CleverHans does; so are they for a
        targeted call, in which a row that is answered as wanted already comes back unchanged.
        """
        target = as_served(model_fn, (float(clip_min), float(clip_max)), x)
        own = y
        if own is None or targeted:
            with torch.no_grad():
                own = target(x.to(target.device, target.dtype)).argmax(1)
        goal = Targeted(y) if targeted and y is not None else None
        if targeted and goal is None:
            raise SettingError("a targeted call needs the wanted classes; give y")
        return changed(self.attack, target, x, own, _set(eps, norm), goal=goal, seed=self.seed)[0]


def _set(eps: float, norm: float) -> Bounded:
    match norm:
        case math.inf:
            return Linf(eps)
        case 2:
            return L2(eps)
        case 1:
            return L1(eps)
    raise SetError(f"norm must be math.inf, 2 or 1, got {norm}; CleverHans counts in those")


def as_cleverhans_attack(attack: Attack[Any, Any], *, seed: int = 0) -> CleverHansStyle:
    """A redan attack called as CleverHans': `as_cleverhans_attack(redan.PGD())(model_fn, x, 0.1, math.inf, y=y)`.

    The bytes are those of `redan.attack` with the same seed. A row that was not broken comes back unchanged.

    >>> import torch
    >>> from torch import nn
    >>> from redan.evasion.fgsm import FGSM
    >>> call = as_cleverhans_attack(FGSM())
    >>> call(nn.Linear(2, 2).eval(), torch.rand(4, 2), 0.5, math.inf, y=torch.tensor([0, 1, 0, 1])).shape
    torch.Size([4, 2])
    """
    return CleverHansStyle(attack, seed)
