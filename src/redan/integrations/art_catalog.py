"""What is known of ART's evasion attacks by name: the ball they move in, what they ask, how their steps scale."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.protocols import Access


@dataclass(frozen=True, slots=True)
class Known:
    """One attack. alone: it asks row by row; norm: what ART calls the norm, where it lets one be chosen; probabilities:
    it refuses logits.
    """

    within: type[Any]
    access: Access = Access.GRADIENTS
    alone: bool = False
    norm: float | None = None
    probabilities: bool = False


_LABELS, _SCORES = Access.LABELS, Access.SCORES

CATALOG: dict[str, Known] = {
    "AutoAttack": Known(Linf, norm=np.inf, alone=True),
    "AutoConjugateGradient": Known(Linf, norm=np.inf),
    "AutoProjectedGradientDescent": Known(Linf, norm=np.inf),
    "BasicIterativeMethod": Known(Linf),
    "BoundaryAttack": Known(L2, _LABELS, alone=True),
    "CarliniL0Method": Known(L0),
    "CarliniL2Method": Known(L2),
    "CarliniLInfMethod": Known(Linf),
    "DeepFool": Known(L2),
    "ElasticNet": Known(L1),
    "FastGradientMethod": Known(Linf, norm=np.inf),
    "GeoDA": Known(L2, _LABELS, alone=True, norm=2),
    "HopSkipJump": Known(L2, _LABELS, alone=True, norm=2),
    "MomentumIterativeMethod": Known(Linf, norm=np.inf),
    "NewtonFool": Known(L2),
    "ProjectedGradientDescent": Known(Linf, norm=np.inf),
    "RescalingAutoConjugateGradient": Known(Linf, norm=np.inf),
    "SaliencyMapMethod": Known(L0),
    "SignOPTAttack": Known(L2, _LABELS, alone=True),
    "SimBA": Known(L2, _SCORES, alone=True, probabilities=True),
    "SquareAttack": Known(Linf, _SCORES, norm=np.inf),
    "VirtualAdversarialMethod": Known(L2, probabilities=True),
    "ZooAttack": Known(L2, _SCORES, alone=True),
}
"""Attacks that keep to an Lp ball around each input. Where ART lets the norm be chosen, this is its default."""


def made_by_name(kind: Any, known: Known, classifier: Any, radius: float) -> Any:
    """The attack with ART's defaults: eps is the radius, and a step that ART counts in eps is scaled along."""
    parameters = inspect.signature(kind.__init__).parameters
    settings: dict[str, Any] = {}
    if "eps" in parameters:
        settings["eps"] = radius
        if "eps_step" in parameters:
            settings["eps_step"] = radius * parameters["eps_step"].default / parameters["eps"].default
    if known.norm is not None:
        settings["norm"] = known.norm
    if "verbose" in parameters:
        settings["verbose"] = False
    return kind(classifier, **settings)


class _Seeded(np.random.RandomState):
    """numpy's generator, which without a seed takes one from the process's generator instead of the machine."""

    def __init__(self, seed: Any = None) -> None:
        super().__init__(np.random.randint(2**31 - 1) if seed is None else seed)  # as ART's own


class _Standing:
    """A module with some names replaced."""

    def __init__(self, module: Any, replaced: dict[str, Any]) -> None:
        self.__dict__.update(replaced)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


_REPAIRED = tuple(
    f"art.attacks.evasion.{name}" for name in ("hop_skip_jump", "boundary", "geometric_decision_based_attack")
)


@contextmanager
def repaired() -> Iterator[None]:
    """While it lasts, three modules of ART see a numpy whose generators are seeded, and that still has `mat`.

    HopSkipJump and BoundaryAttack make generators that no seed reaches; GeoDA calls what numpy 2 took away.
    """
    standing = _Standing(np, {"mat": np.asmatrix, "random": _Standing(np.random, {"RandomState": _Seeded})})
    modules: list[Any] = [sys.modules[name] for name in _REPAIRED if name in sys.modules]
    for module in modules:
        module.np = standing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PendingDeprecationWarning)  # of numpy's matrices, which GeoDA makes
            yield
    finally:
        for module in modules:
            module.np = np
