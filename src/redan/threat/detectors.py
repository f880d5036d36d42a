"""What refuses suspicious inputs before the model answers: a detector, and how many clean rows it may refuse."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field, Tag

from redan.errors import SettingError, TargetError
from redan.preprocessing import described, transformation_of
from redan.threat.inputs import ImageInputs, InputKind, Inputs, TableInputs
from redan.threat.model import Ensemble, Http, Model
from redan.threat.parts import Count, Loose, Name, Part, by_key, wrong
from redan.threat.served import Defense

__all__ = [
    "ByMahalanobis",
    "ByNearestRows",
    "BySqueezing",
    "Detector",
    "Mahalanobis",
    "NearestRows",
    "Squeezing",
    "check_detector",
    "detector_words",
]

Rate = Annotated[float, Field(gt=0, lt=1)]


class Squeezing(Part):
    """Transformations that change what an attacker did to an image more than what is in it (Xu et al. 2018)."""

    squeezers: Loose[tuple[Defense, ...]] = ()
    """The transformations, as in `system.defenses`; absent: those of the paper, for images of one channel or more."""


class NearestRows(Part):
    """How far the k-th nearest of the training rows is, in the model's features (Sun et al. 2022)."""

    k: Count = 50
    """Which of the nearest rows; the paper takes 50 of 50,000."""
    normalized: bool = True
    """Whether features are brought to length 1 first."""
    layers: Loose[tuple[Name, ...]] = ()
    """Submodules whose inputs are the features; absent: the last linear layer."""


class Mahalanobis(Part):
    """How far the nearest class is, each a Gaussian in the model's features (Lee et al. 2018)."""

    magnitude: Annotated[float, Field(ge=0)] = 0.0
    """Of the paper's input preprocessing, in units of the inputs."""
    layers: Loose[tuple[Name, ...]] = ()
    """Submodules whose inputs are the features; absent: the last linear layer."""


class BySqueezing(Part):
    """Refuses what the model answers otherwise once its details are squeezed out."""

    feature_squeezing: Squeezing
    """The squeezers."""
    false_positive_rate: Rate = 0.05
    """The share of clean rows that may be refused."""


class ByNearestRows(Part):
    """Refuses what is far from all training rows."""

    nearest_rows: NearestRows
    """How far that is."""
    false_positive_rate: Rate = 0.05
    """The share of clean rows that may be refused."""


class ByMahalanobis(Part):
    """Refuses what is far from every class."""

    mahalanobis: Mahalanobis
    """How far that is."""
    false_positive_rate: Rate = 0.05
    """The share of clean rows that may be refused."""


Detector: TypeAlias = Annotated[
    Annotated[BySqueezing, Tag("@BySqueezing")]
    | Annotated[ByNearestRows, Tag("@ByNearestRows")]
    | Annotated[ByMahalanobis, Tag("@ByMahalanobis")],
    by_key(BySqueezing, ByNearestRows, ByMahalanobis),
]
"""What refuses inputs, and how often it may be wrong."""


def check_detector(
    detector: Detector,
    inputs: Inputs,
    model: Model,
    *,
    scores: bool,
    train: bool,
    trusted: bool,
) -> None:
    """Raise for a detector that cannot be fit to this model, or not be calibrated.

    scores: whether the model answers a score a class. train, trusted: whether the file names such rows.
    """
    key = next(iter(type(detector).model_fields))
    if not scores:
        raise wrong(
            "is for task: classification with output: logits or probabilities: it looks at what the model answers to "
            "each class; leave it out",
            "detector",
        )
    match model:
        case Http():
            raise wrong("is for a model that is here: an endpoint refuses inputs itself", "detector")
    if not trusted:
        raise wrong(
            "needs system.data.trusted: clean rows that neither the model nor the detector was fit to; they decide the "
            "threshold",
            *("detector", "false_positive_rate"),
        )
    match detector:
        case BySqueezing(feature_squeezing=said):
            _check_squeezers(said, inputs)
            return
    if not train:
        raise wrong("needs system.data.train: the clean rows that it is fit to", "detector", key)
    match model:
        case Ensemble():
            raise wrong(
                "looks into one torch module, and the model is an ensemble; take feature_squeezing, or a factory that "
                "returns redan.ensembles.Members",
                *("detector", key),
            )
    match inputs:
        case TableInputs(bounds=None):
            raise wrong("needs inputs.bounds: columns that redan scales do not reach the module", "detector", key)


def _check_squeezers(said: Squeezing, inputs: Inputs) -> None:
    """Raise for squeezers that there are not, or that do not fit the images."""
    key = ("detector", "feature_squeezing")
    match inputs:
        case ImageInputs(shape=shape, bounds=bounds):
            for i, each in enumerate(said.squeezers):
                at = (*key, "squeezers", i, each.name)
                try:
                    seen = transformation_of(each.name, each.settings, bounds).shape(shape)
                except (SettingError, TargetError) as error:
                    raise wrong(f"is refused: {error}", *at) from error
                if tuple(seen) != tuple(shape):
                    raise wrong(f"makes {tuple(seen)} of images {tuple(shape)}, which the model cannot be asked", *at)
        case _:
            raise wrong(f"fits inputs of kind {InputKind.IMAGE}, and they are {inputs.kind}", *key)


def detector_words(detector: Detector) -> str:
    """A detector with its settings, as a report names it: `nearest-rows(k=50, normalized=true)`."""
    match detector:
        case BySqueezing(feature_squeezing=Squeezing(squeezers=())):
            return "feature-squeezing(as published)"
        case BySqueezing(feature_squeezing=said):
            return f"feature-squeezing({', '.join(described(each.name, each.settings) for each in said.squeezers)})"
        case ByNearestRows(nearest_rows=NearestRows(k=k, normalized=normalized, layers=layers)):
            return f"nearest-rows(k={k}, normalized={str(normalized).lower()}{_of(layers)})"
        case ByMahalanobis(mahalanobis=Mahalanobis(magnitude=magnitude, layers=layers)):
            return f"mahalanobis(magnitude={magnitude:g}{_of(layers)})"


def _of(layers: tuple[str, ...]) -> str:
    return f", layers={'+'.join(layers)}" if layers else ""
