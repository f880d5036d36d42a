"""A detector of attacks, and the threshold at which it refuses a stated share of clean rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from redan.errors import DataError, SettingError
from redan.evidence.statistics import Interval, interval

_BATCH = 256
_ROUNDING = 1e-9  # of rate · (n + 1), where a whole number is meant: 0.1 · 30 is a little above 3


class Detector(Protocol):
    """Says how suspicious an input is."""

    @property
    def stochastic(self) -> bool:
        """Whether the same input may get different scores."""
        ...

    @property
    def surrogate(self) -> bool:
        """Whether the backward pass is a stand-in for the true one (BPDA)."""
        ...

    def score(self, x: Tensor, /) -> Tensor:
        """How suspicious each input x (N, …) is, larger is more: (N,), differentiable in x."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Any function x (N, …) -> (N,) as a detector; larger is more suspicious.

    >>> Scored(score=lambda x: x.flatten(1).amax(1)).score(torch.tensor([[0.1, 0.7]])).item()
    0.699999988079071
    """

    score: Callable[[Tensor], Tensor]
    stochastic: bool = field(default=False)
    surrogate: bool = field(default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Above `value` an input is refused. Build it with `calibrated`.

    rate: of clean rows refused, at the most, before the rows were seen. rows: that it was taken from. scale: the
    threshold less the median score, in the detector's unit: how far below it a usual clean row lies.
    """

    value: float
    rate: float
    rows: int
    scale: float = 1.0


def scores_of(detector: Detector, x: Tensor) -> Tensor:
    """The scores of rows x (N, …), in batches and without gradients: (N,). Raises DataError where one is not finite."""
    with torch.no_grad():
        found = [detector.score(x[at : at + _BATCH]) for at in range(0, len(x), _BATCH)]
    scores = torch.cat(found or [x.new_empty(0)])
    if scores.shape != (len(x),):
        raise DataError(f"the detector answered {tuple(scores.shape)} to {len(x)} rows; its score must be (N,)")
    if not bool(scores.isfinite().all()):
        bad = int((~scores.isfinite()).sum())
        raise DataError(f"{bad} of {len(x)} rows got a score that is not finite; mend the detector, or the rows")
    return scores


def calibrated(detector: Detector, clean: Tensor, *, false_positive_rate: float) -> Threshold:
    """The threshold that a new clean row's score is above with probability `false_positive_rate` at the most.

    clean: rows (n, …) that neither model nor detector was fit to, and that are exchangeable with those to come. The
    threshold is the k-th smallest of their scores, k = ⌈(1 - rate) (n + 1)⌉: of n + 1 exchangeable scores the last is
    among the n + 1 - k largest with chance (n + 1 - k) / (n + 1) ≤ rate (split conformal prediction, Vovk, Gammerman
    and Shafer 2005, section 2.2; exact without ties). The probability is over the calibration rows too; for these
    very rows the rate is a draw of Beta(n + 1 - k, k), and `false_positives` measures it.

    Raises SettingError for a rate outside (0, 1), DataError for fewer than 1 / rate - 1 rows.

    >>> rows = torch.arange(9.0)[:, None]
    >>> calibrated(Scored(score=lambda x: x[:, 0]), rows, false_positive_rate=0.2).value
    7.0
    """
    if not 0 < false_positive_rate < 1:
        raise SettingError(
            f"the rate of false positives must lie between 0 and 1, got {false_positive_rate}; 0.05 is usual"
        )
    n = len(clean)
    above = math.floor(false_positive_rate * (n + 1) + _ROUNDING)  # scores that a new row may be among
    if above < 1:
        needed = math.ceil(1 / false_positive_rate - 1 - _ROUNDING)
        raise DataError(
            f"{n} clean rows say nothing of a rate of {false_positive_rate:g}; give {needed} or more, or raise the rate"
        )
    ordered = scores_of(detector, clean).sort().values
    value = float(ordered[n - above])
    spread = value - float(ordered[n // 2])
    return Threshold(value=value, rate=false_positive_rate, rows=n, scale=spread if spread > 0 else 1.0)


def false_positives(detector: Detector, threshold: Threshold, clean: Tensor, confidence: float = 0.95) -> Interval:
    """The exact interval of the rate at which clean rows (N, …) that the threshold was not taken from are refused."""
    refused = int((scores_of(detector, clean) > threshold.value).sum())
    return interval(refused, len(clean), confidence)
