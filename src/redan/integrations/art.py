"""ART in both directions: its evasion attacks under redan's referee, redan's targets and attacks behind its interface.

    attacks: {add: ["redan.integrations.art:ProjectedGradientDescent"]}     # in a threat model

Nicolae et al. 2018, "Adversarial Robustness Toolbox", arXiv:1807.01069. Tested against 1.20.1, of which the adapter
rounds four corners: it imports `packaging` and `multiprocess` without asking for them (the error names both);
HopSkipJump and BoundaryAttack hand float64 to a float32 model, which torch refuses (inputs get the model's type); they
draw from a generator that no seed reaches (for the time of the attack it is seeded); and GeoDA calls `numpy.mat`, which
numpy 2 took away (for the time of the attack it is there).

ART computes in float32: on a float64 model the radius is given to it a millionth smaller, so that no win is lost to
rounding at the set's edge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from redan.errors import SettingError
from redan.goals import Aim
from redan.integrations.art_catalog import CATALOG, Known, made_by_name, repaired
from redan.integrations.facade import Facade, aimed
from redan.integrations.peers import one_radius, peer_attack
from redan.integrations.served import AsModule, changed, classes_of, served
from redan.perturbations.norms import Linf
from redan.protocols import Access, Attack, Bounded
from redan.rows import Rows
from redan.targets import Target

_MOST = 128  # rows that ART's `predict` takes at once unless told otherwise
_INSTALL = "pip install adversarial-robustness-toolbox packaging multiprocess"


def _evasion() -> Any:
    try:
        import art.attacks.evasion as evasion
    except ModuleNotFoundError as error:
        raise SettingError(f"ART's attacks need the package {error.name}; run: {_INSTALL}") from error
    return evasion


def _version() -> str:
    import art

    return str(art.__version__)


def _classifier(
    module: nn.Module, access: Access, shape: tuple[int, ...], classes: int, bounds: tuple[float, float]
) -> Any:
    """An ART classifier on a module: with gradients, or a black box that is only asked."""
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork, PyTorchClassifier

    if access is Access.GRADIENTS:
        return PyTorchClassifier(
            module,
            loss=nn.CrossEntropyLoss(),
            input_shape=shape,
            nb_classes=classes,
            clip_values=bounds,
            device_type="cpu" if next(module.parameters()).device.type == "cpu" else "gpu",
        )

    def predict(x: NDArray[Any]) -> NDArray[Any]:
        like = next(module.parameters())
        with torch.no_grad():
            scores: Tensor = module(torch.from_numpy(np.ascontiguousarray(x)).to(like.device, like.dtype))
        return scores.cpu().numpy()

    return BlackBoxClassifierNeuralNetwork(predict, input_shape=shape, nb_classes=classes, clip_values=bounds)


Make = Callable[[Any, float], Any]
"""(ART classifier, the set's radius) -> an ART evasion attack."""


def art_attack(
    make: Make,
    *,
    within: type[Any] = Linf,
    access: Access = Access.GRADIENTS,
    alone: bool | None = None,
    probabilities: bool = False,
    name: str | None = None,
    options: str = "",
) -> Attack[Any, Any]:
    """An ART evasion attack as a redan attack.

    make: called with an ART classifier and the radius, e.g. `lambda classifier, radius: ProjectedGradientDescent(
    classifier, eps=radius, eps_step=radius / 4, max_iter=20)`; its batch size and `targeted` are then set to fit.
    within: the kind of ball that it moves in; access: what it needs. alone: run it on each row by itself, by default
    for attacks on labels. probabilities: it refuses logits, and is given their softmax. name, options: for reports.
    Raises SettingError if ART is not installed, with the command.
    """
    _evasion()

    def run(facade: Facade, rows: Rows[Tensor, Any]) -> Tensor:
        aim, x0 = aimed(rows.goal), rows.x0
        radius = one_radius(rows.within) * (1 if x0.dtype == torch.float32 else 1 - 1e-6)
        classes = facade.classes
        module = nn.Sequential(facade, nn.Softmax(1)).eval() if probabilities else facade
        attack = make(_classifier(module, access, tuple(x0.shape[1:]), classes, rows.within.bounds), radius)
        _fit(attack, len(rows), aim.targeted)
        labels = nn.functional.one_hot(aim.label, classes).cpu().numpy().astype(np.float32)
        with repaired():
            answer = attack.generate(x=x0.cpu().numpy(), y=labels)
        return torch.from_numpy(np.ascontiguousarray(answer)).to(x0)

    return peer_attack(
        name or "ARTAttack",
        run,
        library=f"adversarial-robustness-toolbox {_version()}",
        options=options,
        access=access,
        within=within,
        alone=access is Access.LABELS if alone is None else alone,
        most=_MOST,
    )


def _fit(attack: Any, rows: int, targeted: bool) -> None:
    """Whole batches, and the goal's direction. Raises SettingError for a goal that the attack cannot have."""
    known = set(attack.attack_params)
    if "batch_size" in known and type(attack).__name__ != "ZooAttack":
        attack.set_params(batch_size=rows)
    if "targeted" in known:
        attack.set_params(targeted=targeted)
    elif targeted:
        raise SettingError(f"ART's {type(attack).__name__} has no targeted mode; choose another attack for this goal")
    for part in getattr(attack, "attacks", ()):  # AutoAttack's, which has no switch for their progress bars
        if "verbose" in part.attack_params:
            part.set_params(verbose=False)


def __getattr__(name: str) -> Attack[Any, Any]:
    """`redan.integrations.art:NAME` in a threat model: ART's attack of that name, its steps scaled to the radius."""
    if not name[:1].isupper():  # tools look for names of their own, as `setup_module`
        raise AttributeError(name)
    known = CATALOG.get(name)
    if known is None:
        if hasattr(_evasion(), name):
            raise SettingError(
                f"ART's {name} is not known to keep to an Lp ball around its input, or takes more than one model; make "
                "it in a module of your own, wrap it with art_attack(...) and name that in attacks.add"
            )
        raise AttributeError(name)
    return by_name(name, known)


def by_name(name: str, known: Known) -> Attack[Any, Any]:
    """ART's attack of that name with its own defaults."""
    kind = getattr(_evasion(), name)

    def make(classifier: Any, radius: float) -> Any:
        return made_by_name(kind, known, classifier, radius)

    return art_attack(
        make,
        within=known.within,
        access=known.access,
        alone=known.alone,
        probabilities=known.probabilities,
        name=name,
        options="defaults",
    )


# -- redan's side of ART's interface ----------------------------------------------------------------------


def to_art(target: nn.Module | Target[Tensor], shape: tuple[int, ...], *, classes: int | None = None) -> Any:
    """A redan target (or a module with inputs in [0, 1]) as an ART classifier for inputs (N, *shape).

    A target with gradients has `predict`, `loss_gradient` and `class_gradient`; one without is a black box. ART's
    `backward()` leaves no gradient in the model's weights. classes: K, where the target does not say it. Raises
    SettingError without ART, or without a number of classes.
    """
    _evasion()
    answered = served(target)
    count = classes_of(answered, classes)
    return _classifier(AsModule(answered), answered.access, shape, count, answered.bounds)


def as_art_attack(
    attack: Attack[Any, Any],
    within: Bounded,
    target: nn.Module | Target[Tensor],
    shape: tuple[int, ...],
    *,
    classes: int | None = None,
    goal: Aim | None = None,
    seed: int = 0,
) -> Any:
    """A redan attack as an ART `EvasionAttack`: `generate(x, y)` answers the changed inputs, as an array.

    The bytes are those of `redan.attack` with the same seed; rows that were not broken come back unchanged. y are the
    right classes (N,), or one-hot (N, K), for a targeted goal too; they must be given, since labels that the model
    makes itself hide its mistakes (SettingError).
    """
    _evasion()
    from art.attacks import EvasionAttack
    from art.estimators import BaseEstimator
    from art.estimators.classification.classifier import ClassifierMixin

    model = served(target)

    class RedanAttack(EvasionAttack):  # type: ignore[misc]  # ART is no dependency of redan, unknown to mypy
        """ART asks of its attacks that they inherit."""

        attack_params = EvasionAttack.attack_params
        _estimator_requirements = (BaseEstimator, ClassifierMixin)

        def generate(self, x: NDArray[Any], y: NDArray[Any] | None = None) -> NDArray[Any]:
            if y is None:
                raise SettingError("redan attacks rows with known labels; call generate(x, y) with the right classes")
            labels = np.asarray(y).argmax(1) if np.ndim(y) == 2 else np.asarray(y)
            rows = torch.from_numpy(np.array(x))
            right = torch.from_numpy(labels.astype(np.int64))
            return changed(attack, model, rows, right, within, goal=goal, seed=seed)[0].numpy()

    return RedanAttack(estimator=to_art(target, shape, classes=classes))
