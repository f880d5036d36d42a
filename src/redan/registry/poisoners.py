"""Attacks on training rows: each with what it needs, its paper and its techniques."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from redan.data.samples import Samples
from redan.engine.run import attack
from redan.errors import SettingError
from redan.evasion.pgd import PGD
from redan.perturbations.norms import Linf
from redan.poisoning.backdoor import Backdoor
from redan.poisoning.budget import Poisoner
from redan.poisoning.feature_collision import FeatureCollision
from redan.poisoning.gradient_matching import GradientMatching
from redan.poisoning.gradient_poisoning import GradientPoisoning
from redan.poisoning.insertion import Insertion
from redan.poisoning.label_consistent import LabelConsistent
from redan.poisoning.label_flips import LeastSquares, LossMaximizingFlips, RandomFlips, TargetedFlips
from redan.poisoning.linear_learners import SupportVectors
from redan.poisoning.on_a_part import OnAPart
from redan.poisoning.scene import PoisonGoal, Scene
from redan.poisoning.sleeper_agent import SleeperAgent
from redan.poisoning.triggers import Blend, Columns, Patch, Sinusoid
from redan.poisoning.unlearnable import ErrorMaximizing, ErrorMinimizing
from redan.referee import Worst
from redan.registry.features import Penultimate
from redan.targets.untrained import untrained

__all__ = ["POISONERS", "WIDEST", "PoisonerEntry", "poisoner"]

_POISON, _PLANT, _STAMP, _ERODE = "AML.T0020", "AML.T0018.000", "AML.T0043.004", "AML.T0059"  # MITRE ATLAS
_BACKDOOR = (_POISON, _PLANT, _STAMP)
WIDEST = 8192
"""Values of a row that `label-flip` takes at most: what least squares factorizes is their square."""
_HELD_OUT = 500  # rows: enough to tell flips apart


@dataclass(frozen=True, slots=True)
class PoisonerEntry:
    """One attack on training rows as the planner and the report know it.

    make: builds it for a scene; raises SettingError where it does not fit. labels: whether it needs labels that are not
    the truth. trains: whether it needs a training that gives an `nn.Module`, whose gradients it follows. surrogates:
    how many such modules it wants to be given. triggers: those that it plants; empty: any.
    """

    name: str
    make: Callable[[Scene], Poisoner]
    goal: PoisonGoal
    labels: bool
    trains: bool
    paper: str
    techniques: tuple[str, ...]
    triggers: tuple[type, ...] = ()
    surrogates: int = 0


def _stamped(scene: Scene) -> Backdoor:
    trigger, target = scene.backdoor
    return Backdoor(trigger=trigger, target=target)


def _sig(scene: Scene) -> Backdoor:
    trigger, target = scene.one_target
    return Backdoor(trigger=trigger, target=target, clean_label=True)


def _label_consistent(scene: Scene) -> LabelConsistent:
    trigger, label = scene.one_target
    harder = _Harder(_surrogate(scene), Linf(scene.reach, scene.box), PGD())
    return LabelConsistent(label=label, perturb=harder, trigger=trigger, radius=scene.reach, bounds=scene.box)


@dataclass(frozen=True, slots=True, eq=False)
class _Harder:
    """Rows that a model errs on as much as PGD can make it: the worst candidate, not the first that wins."""

    model: nn.Module
    within: Linf
    by: PGD

    def __call__(self, x: Tensor, y: Tensor, /) -> Tensor:
        bounds = self.within.bounds
        return attack(self.model, x, y, self.by, within=self.within, bounds=bounds, keep=Worst(), workers=1).adversarial


def _sleeper_agent(scene: Scene) -> SleeperAgent:
    trigger, label = scene.one_target
    return SleeperAgent(
        trigger=trigger,
        label=label,
        fit=scene.training,
        radius=scene.reach,
        bounds=scene.box,
        steps=120,
        retrainings=2,
    )


def _insertion(scene: Scene) -> Insertion:
    rows, label = scene.chosen
    return Insertion(targets=rows, label=label)


def _gradient_matching(scene: Scene) -> GradientMatching:
    rows, label = scene.chosen
    _surrogate(scene)
    return GradientMatching(
        targets=rows,
        label=label,
        surrogates=scene.surrogates,
        radius=scene.reach,
        bounds=scene.box,
        steps=120,
        restarts=2,
    )


def _feature_collision(scene: Scene) -> FeatureCollision:
    rows, label = scene.chosen
    if len(rows) != 1:
        raise SettingError(f"feature collision is for one chosen row, and the attacker has {len(rows)}; give one")
    features = Penultimate(_surrogate(scene))
    beta = 0.25 * (features.width(rows) / math.prod(rows.shape[1:])) ** 2  # Shafahi 2018
    return FeatureCollision(
        target=rows[0], label=label, features=features, beta=beta, radius=scene.reach, bounds=scene.box
    )


def _random_flips(scene: Scene) -> RandomFlips:  # noqa: ARG001  (it needs nothing of it)
    return RandomFlips()


def _label_flip(scene: Scene) -> LossMaximizingFlips:
    width = math.prod(scene.held_out.x.shape[1:])
    if width > WIDEST:
        raise SettingError(
            f"label-flip solves least squares for rows of {WIDEST} values at most, and these have {width}; "
            "put label-flip into attacks.skip"
        )
    return LossMaximizingFlips(damage=LeastSquares(validation=_some(scene.held_out)))


def _targeted_flips(scene: Scene) -> TargetedFlips:
    """Each class is told to be the next one: all classes suffer, as an attacker of availability wants it."""
    return TargetedFlips(pairs=tuple((one, (one + 1) % scene.classes) for one in range(scene.classes)))


def _gradient_poisoning(scene: Scene) -> OnAPart:
    """The class that the held-out rows have most of is attacked, of equals the smaller one."""
    if scene.classes != 2:
        raise SettingError(
            f"gradient poisoning is for two classes, and the model tells {scene.classes}; "
            "put gradient-poisoning into attacks.skip"
        )
    held_out, (low, high) = _some(scene.held_out), scene.box
    classes, counts = np.unique(held_out.y, return_counts=True)
    return OnAPart(
        poisoner=GradientPoisoning(
            learner=SupportVectors(),
            validation=held_out,
            attacked=int(classes[counts.argmax()]),
            steps=10,
            step=0.5 * (high - low),
            halvings=4,
            bounds=scene.box,
        ),
        made=10,
    )


def _unlearnable(scene: Scene) -> ErrorMinimizing:
    return ErrorMinimizing(
        surrogate=untrained(_surrogate(scene), seed=0),
        radius=scene.reach,
        bounds=scene.box,
        rounds=10,
        steps=10,
        rate=0.2,
    )


def _error_maximizing(scene: Scene) -> ErrorMaximizing:
    return ErrorMaximizing(surrogate=_surrogate(scene), radius=scene.reach, bounds=scene.box, steps=60)


def _surrogate(scene: Scene) -> nn.Module:
    """The first one. Raises SettingError where there is none."""
    if not scene.surrogates:
        raise SettingError(
            "this poisoner follows a surrogate's gradients, and there is none; let system.training.call return an "
            "nn.Module"
        )
    return scene.surrogates[0]


def _some(samples: Samples) -> Samples:
    """At most `_HELD_OUT` rows, evenly over all."""
    at = np.arange(0, len(samples), max(1, math.ceil(len(samples) / _HELD_OUT)))
    return Samples(samples.x[at], samples.y[at])


_GU, _BARNI = "Gu 2017, arXiv:1708.06733", "Barni 2019, arXiv:1902.11237"
_PLANTS, _ROWS, _ALL = PoisonGoal.BACKDOOR, PoisonGoal.TARGETED_ROWS, PoisonGoal.AVAILABILITY

POISONERS: tuple[PoisonerEntry, ...] = (
    PoisonerEntry("badnets", _stamped, _PLANTS, True, False, _GU, _BACKDOOR, (Patch,)),
    PoisonerEntry("blended", _stamped, _PLANTS, True, False, "Chen 2017, arXiv:1712.05526", _BACKDOOR, (Blend,)),
    PoisonerEntry("table-trigger", _stamped, _PLANTS, True, False, _GU, _BACKDOOR, (Columns,)),
    PoisonerEntry("sinusoid-trigger", _stamped, _PLANTS, True, False, _BARNI, _BACKDOOR, (Sinusoid,)),
    PoisonerEntry("sig", _sig, _PLANTS, False, False, _BARNI, _BACKDOOR),
    PoisonerEntry(
        "label-consistent",
        _label_consistent,
        _PLANTS,
        False,
        True,
        "Turner 2019, arXiv:1912.02771",
        _BACKDOOR,
        surrogates=1,
    ),
    PoisonerEntry("sleeper-agent", _sleeper_agent, _PLANTS, False, True, "Souri 2022, arXiv:2106.08970", _BACKDOOR),
    PoisonerEntry("insertion", _insertion, _ROWS, True, False, "Suciu 2018, arXiv:1803.06975", (_POISON,)),
    PoisonerEntry(
        "gradient-matching",
        _gradient_matching,
        _ROWS,
        False,
        True,
        "Geiping 2021, arXiv:2009.02276",
        (_POISON,),
        surrogates=3,
    ),
    PoisonerEntry(
        "feature-collision",
        _feature_collision,
        _ROWS,
        False,
        True,
        "Shafahi 2018, arXiv:1804.00792",
        (_POISON,),
        surrogates=1,
    ),
    PoisonerEntry("random-flips", _random_flips, _ALL, True, False, "a baseline", (_POISON, _ERODE)),
    PoisonerEntry("label-flip", _label_flip, _ALL, True, False, "Paudice 2018, arXiv:1803.00992", (_POISON, _ERODE)),
    PoisonerEntry(
        "targeted-flips", _targeted_flips, _ALL, True, False, "Tolpegin 2020, arXiv:2007.08432", (_POISON, _ERODE)
    ),
    PoisonerEntry(
        "gradient-poisoning", _gradient_poisoning, _ALL, True, False, "Biggio 2012, arXiv:1206.6389", (_POISON, _ERODE)
    ),
    PoisonerEntry(
        "unlearnable-examples",
        _unlearnable,
        _ALL,
        False,
        True,
        "Huang 2021, arXiv:2101.04898",
        (_POISON, _ERODE),
        surrogates=1,
    ),
    PoisonerEntry(
        "error-maximizing",
        _error_maximizing,
        _ALL,
        False,
        True,
        "Fowl 2021, arXiv:2106.10807",
        (_POISON, _ERODE),
        surrogates=1,
    ),
)


def poisoner(name: str) -> PoisonerEntry:
    """The poisoner of that name. Raises SettingError with the known names."""
    found = [each for each in POISONERS if each.name == name]
    if not found:
        known = ", ".join(each.name for each in POISONERS)
        raise SettingError(f"there is no poisoner named '{name}'; redan knows {known}")
    return found[0]
