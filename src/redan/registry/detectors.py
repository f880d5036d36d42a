"""What looks for poison among training rows: each with what it looks at, its paper and what it cannot see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from redan.defenses.activation_clustering import ActivationClustering
from redan.defenses.confident_learning import ConfidentLearning
from redan.defenses.deep_knn import DeepKNN
from redan.defenses.linear_probe import held_out_beliefs
from redan.defenses.loss_isolation import LossIsolation
from redan.defenses.near_duplicates import NearDuplicates
from redan.defenses.outliers import LocalOutlierFactor, RobustMahalanobis
from redan.defenses.spectral_signatures import SpectralSignatures
from redan.defenses.strip import STRIP
from redan.defenses.suspicion import Detector, Numbers, Suspects
from redan.errors import SettingError
from redan.targets.base import Target

__all__ = ["DETECTORS", "DetectorEntry", "Inspection", "Sees", "detector"]


class Sees(Enum):
    """What a detector looks at."""

    ROWS = "rows"
    """The rows themselves (features where they are given)."""
    FEATURES = "features"
    """What a model trained on the rows makes of them."""
    LOSSES = "losses"
    """How fast a fresh model learns them."""
    MODEL = "model"
    """What a model trained on them answers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inspection:
    """What detectors are made of. target: trained on the suspects. clean: rows (M, …) that are not among them and are
    no poison. classes: K. probabilities: (N, K), a row for each suspect, of models that were not trained on it, where
    they are known; None: a linear model on the features stands in for them.
    """

    target: Target[Tensor] | None
    clean: NDArray[Any]
    classes: int
    probabilities: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class DetectorEntry:
    """One detector as the assessment and the report know it. blind: what it cannot see, in a few words."""

    name: str
    make: Callable[[Inspection], Detector]
    sees: Sees
    paper: str
    blind: str


@dataclass(frozen=True, slots=True)
class _Probed:
    """Confident learning whose probabilities are a linear model's on the suspects' features, five folds."""

    classes: int

    def __call__(self, suspects: Suspects, *, seed: int) -> Numbers:
        beliefs = held_out_beliefs(suspects.known_features(), suspects.samples.y, self.classes, seed=seed)
        return ConfidentLearning(probabilities=beliefs)(suspects, seed=seed)


def _confident_learning(inspection: Inspection) -> Detector:
    if inspection.probabilities is not None:
        return ConfidentLearning(probabilities=inspection.probabilities)
    return _Probed(inspection.classes)


def _strip(inspection: Inspection) -> Detector:
    if inspection.target is None:
        raise SettingError("STRIP asks the model that was trained on the rows, and there is none; leave strip out")
    return STRIP(target=inspection.target, overlays=inspection.clean, copies=max(1, min(32, len(inspection.clean))))


def _alike(make: Callable[[], Detector]) -> Callable[[Inspection], Detector]:
    """A detector that is the same for every inspection."""
    return lambda _: make()


DETECTORS: tuple[DetectorEntry, ...] = (
    DetectorEntry(
        "activation-clustering",
        _alike(ActivationClustering),
        Sees.FEATURES,
        "Chen 2018, arXiv:1811.03728",
        "poison that has no cluster of its own",
    ),
    DetectorEntry(
        "spectral-signatures",
        _alike(SpectralSignatures),
        Sees.FEATURES,
        "Tran 2018, arXiv:1811.00636",
        "poison within its class's spread",
    ),
    DetectorEntry(
        "deep-knn",
        _alike(DeepKNN),
        Sees.FEATURES,
        "Peri 2020, arXiv:1909.13374",
        "poison that is its own neighborhood",
    ),
    DetectorEntry(
        "confident-learning",
        _confident_learning,
        Sees.FEATURES,
        "Northcutt 2021, arXiv:1911.00068",
        "poison whose label is true",
    ),
    DetectorEntry(
        "loss-isolation",
        _alike(LossIsolation),
        Sees.LOSSES,
        "Li 2021, arXiv:2110.11571",
        "poison that is learned slowly",
    ),
    DetectorEntry("near-duplicates", _alike(NearDuplicates), Sees.ROWS, "a baseline", "poison that is not crowded"),
    DetectorEntry(
        "mahalanobis",
        _alike(RobustMahalanobis),
        Sees.FEATURES,
        "Rousseeuw 1999",
        "poison inside of its class",
    ),
    DetectorEntry(
        "local-outlier-factor",
        _alike(LocalOutlierFactor),
        Sees.FEATURES,
        "Breunig 2000",
        "poison as dense as clean rows",
    ),
    DetectorEntry("strip", _strip, Sees.MODEL, "Gao 2019, arXiv:1902.06531", "triggers that a blend destroys"),
)


def detector(name: str) -> DetectorEntry:
    """The detector of that name. Raises SettingError with the known names."""
    found = [each for each in DETECTORS if each.name == name]
    if not found:
        known = ", ".join(each.name for each in DETECTORS)
        raise SettingError(f"there is no detector named '{name}'; redan knows {known}")
    return found[0]
