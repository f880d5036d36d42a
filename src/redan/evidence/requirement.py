"""One requirement: a metric, the threshold that it must keep, and the attacker against whom."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Strict, model_validator

__all__ = ["Direction", "Metric", "Requirement"]


class Metric(StrEnum):
    """What can be required. All are rates in [0, 1], but for `MEDIAN_DISTANCE`."""

    CLEAN_ACCURACY = "clean_accuracy"
    """Rows answered right, of all drawn, without an attacker."""
    ROBUST_ACCURACY = "robust_accuracy"
    """Rows, of all drawn, answered right on the clean and on every saved input."""
    WORST_CLASS_ROBUST_ACCURACY = "worst_class_robust_accuracy"
    """Robust accuracy of the class where it is lowest."""
    ATTACK_SUCCESS_RATE = "attack_success_rate"
    """Rows broken, of those answered right on the clean input."""
    MEDIAN_DISTANCE = "median_distance"
    """Median over rows of the smallest change that reached the goal, in units of the declared bounds."""
    CERTIFIED_ACCURACY = "certified_accuracy"
    """Rows, of all drawn, proven to be right within the attacker's whole set."""
    BACKDOOR_SUCCESS = "backdoor_success"
    """Triggered rows answered with the backdoor's target, by a model trained on poisoned rows."""
    POISONED_ACCURACY = "poisoned_accuracy"
    """Accuracy on clean test rows of a model trained on poisoned rows."""
    EXTRACTION_FIDELITY = "extraction_fidelity"
    """Rows on which the extracted copy answers as the model does."""
    TRANSFER_SUCCESS = "transfer_success"
    """Rows broken by inputs that were made on the extracted copy."""

    @property
    def needs_attacker(self) -> bool:
        """Whether the metric is measured against an attacker."""
        return self is not Metric.CLEAN_ACCURACY

    @property
    def is_rate(self) -> bool:
        """Whether the metric lies in [0, 1]."""
        return self is not Metric.MEDIAN_DISTANCE


class Direction(StrEnum):
    """On which side of the threshold the metric must lie."""

    AT_LEAST = "at_least"
    AT_MOST = "at_most"


class Requirement(BaseModel):
    """A metric that must be at least, or at most, a threshold.

    >>> Requirement(metric=Metric.ROBUST_ACCURACY, at_least=0.6, against="anyone").threshold
    0.6
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    metric: Annotated[Metric, Strict(False)]
    """What is measured."""
    at_least: float | None = None
    """The lowest value that passes; a rate in [0, 1], or a distance in units of the declared bounds."""
    at_most: float | None = None
    """The highest value that passes; same unit. Give `at_least` or `at_most`, never both."""
    against: str | None = None
    """Name of the attacker; may be left out in a file where only one attacker fits the metric."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            got = "both" if self.at_least is not None else "neither"
            raise ValueError(f"give exactly one of at_least and at_most, got {got}")
        if self.metric.is_rate and not 0 <= self.threshold <= 1:
            raise ValueError(f"{self.direction} must lie from 0 to 1 for {self.metric}, got {self.threshold:g}")
        if self.threshold < 0:
            raise ValueError(f"{self.direction} must not be below 0 for {self.metric}, got {self.threshold:g}")
        if self.against is not None and not self.metric.needs_attacker:
            raise ValueError(f"{self.metric} is measured without an attacker; leave against out")
        return self

    @property
    def direction(self) -> Direction:
        """On which side of the threshold the metric must lie."""
        return Direction.AT_MOST if self.at_least is None else Direction.AT_LEAST

    @property
    def threshold(self) -> float:
        """The value that the metric is compared with."""
        return next(value for value in (self.at_least, self.at_most) if value is not None)
