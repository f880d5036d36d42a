"""Foolbox in both directions: its attacks under redan's referee, redan's targets and attacks behind its interface.

    attacks: {add: ["redan.integrations.foolbox:LinfPGD"]}     # in a threat model: any class of foolbox.attacks

Rauber et al. 2020, "Foolbox Native", JOSS 5(53) 2607. Tested against foolbox 3.3.4.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from redan.errors import SetError, SettingError
from redan.goals import Aim, Targeted, Untargeted
from redan.integrations.facade import Facade, Unaligned, aimed
from redan.integrations.peers import ball, one_radius, peer_attack
from redan.integrations.served import AsModule, as_served, changed, served
from redan.protocols import Access, Attack, Bounded
from redan.referee import Closest
from redan.rows import Rows
from redan.targets import Target

_INSTALL = "pip install foolbox"

_LABELS = {
    "BinarizationRefinementAttack",
    "BinarySearchContrastReductionAttack",
    "BoundaryAttack",
    "DatasetAttack",
    "GaussianBlurAttack",
    "HopSkipJumpAttack",
    "InversionAttack",
    "L2ContrastReductionAttack",
    "LinearSearchBlendedUniformNoiseAttack",
    "LinearSearchContrastReductionAttack",
    "PointwiseAttack",
    "SaltAndPepperNoiseAttack",
}
_SCORES = {"GenAttack"}


def _foolbox() -> Any:
    try:
        with warnings.catch_warnings():  # it imports a name of SciPy's that goes away with SciPy 2
            warnings.simplefilter("ignore", DeprecationWarning)
            import foolbox
    except ModuleNotFoundError as error:
        raise SettingError(f"Foolbox's attacks need the package {error.name}; run: {_INSTALL}") from error
    return foolbox


def _access(attack: Any) -> Access:
    name = type(attack).__name__
    if name in _LABELS or name.endswith("NoiseAttack"):
        return Access.LABELS
    return Access.SCORES if name in _SCORES else Access.GRADIENTS


def _within(attack: Any) -> type[Any]:
    try:
        p = getattr(getattr(attack, "distance", None), "p", None)
    except ValueError:  # Foolbox's own "unknown distance"
        p = None
    if p is None:
        raise SettingError(
            f"{type(attack).__name__} does not say in which norm it moves; give it a distance, or say within=Linf"
        )
    return ball(float(p))


def foolbox_attack(
    attack: Any, *, access: Access | None = None, within: type[Any] | None = None, alone: bool | None = None
) -> Attack[Any, Any]:
    """A Foolbox attack as a redan attack: `redan.attack(model, x, y, foolbox_attack(fb.attacks.LinfPGD()), …)`.

    attack: an instance of foolbox.attacks; its epsilon is the set's radius. access and within: what it needs and the
    kind of ball it moves in, where Foolbox's own names do not say so (within: from its distance). alone: run it on
    each row by itself, by default for attacks on labels, which fail whole batches when one row has no answer.

    A minimum-norm attack works with a radius without limit too. A row without a starting point for a boundary attack
    is a row that was not broken. Raises SettingError for an attack that does not say in which norm it moves.
    """
    fb = _foolbox()
    least = access or _access(attack)

    def run(facade: Facade, rows: Rows[Tensor, Any]) -> Tensor | None:
        aim, radius = aimed(rows.goal), one_radius(rows.within)
        criterion = (fb.criteria.TargetedMisclassification if aim.targeted else fb.criteria.Misclassification)(
            aim.label
        )
        model = fb.PyTorchModel(facade, bounds=rows.within.bounds, device=rows.x0.device)
        try:
            raw: Tensor = attack(model, rows.x0, criterion, epsilons=None if math.isinf(radius) else radius)[0]
        except ValueError as error:
            if "init_attack failed" not in str(error):
                raise
            if len(rows) > 1:  # one of them fails them all
                raise Unaligned from error
            return None
        return raw

    return peer_attack(
        type(attack).__name__,
        run,
        library=f"foolbox {fb.__version__}",
        options=_options(attack),
        access=least,
        within=within or _within(attack),
        alone=least is Access.LABELS if alone is None else alone,
    )


def _options(attack: Any) -> str:
    """The attack's plain settings: the same text in every process."""
    plain = {k.strip("_"): v for k, v in vars(attack).items() if isinstance(v, bool | int | float | str | None)}
    return ", ".join(f"{name}={value}" for name, value in sorted(plain.items()))


def __getattr__(name: str) -> Attack[Any, Any]:
    """`redan.integrations.foolbox:NAME` in a threat model: Foolbox's attack of that name with its own defaults."""
    if not name[:1].isupper():  # tools look for names of their own, as `setup_module`
        raise AttributeError(name)
    fb = _foolbox()
    kind = getattr(fb.attacks, name, None)
    if not (isinstance(kind, type) and issubclass(kind, fb.attacks.Attack)):
        raise AttributeError(name)
    try:
        return foolbox_attack(kind())
    except (TypeError, SettingError, ModuleNotFoundError) as error:
        raise SettingError(
            f"foolbox.attacks.{name} cannot be made without settings ({error}); make it in a module of your own, wrap "
            "it with foolbox_attack(...) and name that in attacks.add"
        ) from error


# -- redan's side of Foolbox's interface ------------------------------------------------------------------


def to_foolbox(target: nn.Module | Target[Tensor]) -> Any:
    """A redan target (or a module with inputs in [0, 1]) as a Foolbox model: bounds and gradients as the target has."""
    answered = served(target)
    module = AsModule(answered)
    model = _foolbox().PyTorchModel(module, bounds=answered.bounds, device=answered.device)
    model.redan_module = module
    return model


def _target(model: Any, like: Tensor) -> Target[Tensor]:
    """What a Foolbox model answers, as a target; a target that was put behind the interface is taken out again."""
    bounds = (float(model.bounds.lower), float(model.bounds.upper))
    return as_served(getattr(model, "redan_module", model), bounds, like)


@dataclass(frozen=True, slots=True)
class FoolboxStyle:
    """A redan attack that is called as Foolbox's are. Build it with `as_foolbox_attack`."""

    attack: Attack[Any, Any]
    make_set: Callable[[float], Bounded]
    seed: int

    def __call__(
        self, model: Any, inputs: Tensor, criterion: Any, *, epsilons: float | Sequence[float | None] | None
    ) -> tuple[Any, Any, Tensor]:
        """(raw, clipped, is_adv) as in Foolbox: tensors for one epsilon, lists and (K, N) for several."""
        target = _target(model, inputs)
        y, goal = _asked(criterion, target, inputs)
        several = epsilons if isinstance(epsilons, Sequence) else (epsilons,)
        results = [self._one(target, inputs, y, goal, epsilon) for epsilon in several]
        raws, wins = [x for x, _ in results], torch.stack([won for _, won in results])
        if several is epsilons:
            return raws, list(raws), wins
        return raws[0], raws[0], wins[0]

    def _one(
        self, target: Target[Tensor], x: Tensor, y: Tensor, goal: Aim, epsilon: float | None
    ) -> tuple[Tensor, Tensor]:
        """One epsilon; None asks for the nearest, in a set without limit."""
        within = self.make_set(math.inf if epsilon is None else float(epsilon))
        keep = Closest() if epsilon is None else None
        return changed(self.attack, target, x, y, within, goal=goal, seed=self.seed, keep=keep)


def as_foolbox_attack(attack: Attack[Any, Any], make_set: Callable[[float], Bounded], *, seed: int = 0) -> FoolboxStyle:
    """A redan attack called as Foolbox's: `as_foolbox_attack(PGD(), Linf)(model, x, criterion, epsilons=ε)`.

    The bytes are those of `redan.attack` with the same seed. Both inputs that it returns are the same: redan's are
    inside the set already. A row that was not broken comes back unchanged. With a targeted criterion, which does not
    know the right classes, a row whose clean answer is the wanted class counts as not attackable.
    """
    return FoolboxStyle(attack, make_set, seed)


def _asked(criterion: Any, target: Target[Tensor], inputs: Tensor) -> tuple[Tensor, Aim]:
    """Labels and goal of a Foolbox criterion, or of labels given in its place."""
    fb = _foolbox()
    match criterion:
        case Tensor():
            return criterion, Untargeted()
        case fb.criteria.Misclassification():
            return criterion.labels.raw, Untargeted()
        case fb.criteria.TargetedMisclassification():
            with torch.no_grad():
                seen = target(inputs.to(target.device, target.dtype)).argmax(1)
            return seen, Targeted(criterion.target_classes.raw)
    raise SetError(
        f"redan's attacks know Misclassification and TargetedMisclassification, not {type(criterion).__name__}; use "
        "one of those"
    )
