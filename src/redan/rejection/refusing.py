"""A target that refuses what its detector finds suspicious: one answer more, "refused"."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from redan.errors import SettingError, TargetError
from redan.rejection.detector import Detector, Threshold, calibrated
from redan.targets.base import Target, is_remote, its

_FAR = 1e4  # logits that stand for an infinite distance from the threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusing:
    """`target` with a detector before it: K + 1 scores, of which the last is the highest exactly for refused inputs.

    The first K are the target's own, to the byte. The last is its highest score plus how far the detector's score is
    above the threshold, in units of `scale`: the combined classifier of Carlini and Wagner 2017 (arXiv:1705.07263),
    with a sum where they multiply, so that it does not hang on the sign of logits. An input is refused
    where its score is above the threshold, and rounding changes no decision.

    An attacker is shown more than a deployment shows him: scores where it refuses, and how suspicious an input is.
    Judge it by `Undetected`: with the plain goals a refusal counts as a success of the attacker. A detector that
    answers NaN makes the row an error.

    Raises TargetError around an endpoint, which refuses by itself, SettingError for a scale of 0 or less.
    """

    target: Target[Tensor]
    detector: Detector
    threshold: float
    scale: float = 1.0
    rate: float | None = None
    """Of false positives, for which the threshold was taken."""

    access = its("access")
    output = its("output")
    bounds = its("bounds")
    differentiable = its("differentiable")
    dtype = its("dtype")
    device = its("device")

    def __post_init__(self) -> None:
        if is_remote(self.target):
            raise TargetError("an endpoint refuses by itself before its model answers; leave the detector out")
        if not self.scale > 0:
            raise SettingError(f"the scale must be above 0, got {self.scale}; it is the detector's unit for one logit")

    @property
    def classes(self) -> int | None:
        """K + 1, or None until the first answer."""
        return None if self.target.classes is None else self.target.classes + 1

    @property
    def stochastic(self) -> bool:
        return self.target.stochastic or self.detector.stochastic

    @property
    def surrogate(self) -> bool:
        return self.target.surrogate or self.detector.surrogate

    def __call__(self, x: Tensor) -> Tensor:
        scores = self.target(x)
        suspicion = self.detector.score(x).to(scores.dtype)
        excess = (suspicion - self.threshold) / self.scale
        excess = excess.nan_to_num(nan=torch.nan, posinf=_FAR, neginf=-_FAR)
        top = scores.amax(1)
        last = top + excess
        decided = _decided(last, top, suspicion > self.threshold)
        return torch.cat([scores, decided[:, None]], 1)


def _decided(last: Tensor, top: Tensor, refused: Tensor) -> Tensor:
    """`last` (N,), above `top` where refused and below it elsewhere, with its own gradient."""
    with torch.no_grad():
        above, below = (torch.nextafter(top, torch.full_like(top, end)) for end in (torch.inf, -torch.inf))
        exact = torch.where(refused, torch.maximum(last, above), torch.minimum(last, below))
    same = (exact == last) | exact.isnan()
    return torch.where(same, last, exact + (last - last.detach()))


def refusing(target: Target[Tensor], detector: Detector, clean: Tensor, *, false_positive_rate: float) -> Refusing:
    """The target that refuses clean rows at this rate at the most, calibrated on rows (n, …): see `calibrated`."""
    return at_threshold(target, detector, calibrated(detector, clean, false_positive_rate=false_positive_rate))


def at_threshold(target: Target[Tensor], detector: Detector, found: Threshold) -> Refusing:
    """The target that refuses above a threshold."""
    return Refusing(target=target, detector=detector, threshold=found.value, scale=found.scale, rate=found.rate)


def refused(output: Tensor) -> Tensor:
    """Which answers (N, K + 1) are refusals: (N,) bool."""
    return output.argmax(1) == output.shape[1] - 1


def excess(output: Tensor) -> Tensor:
    """How far answers (N, K + 1) are above the threshold, in units of `scale`: (N,), above 0 where refused."""
    return output[:, -1] - output[:, :-1].amax(1)
