"""Planted victims: ways to hide a model's gradients that make it look robust and do not make it so.

Each wraps a classifier (N, C, H, W) -> (N, K) and leaves it as it is. An attacker who knows the trick takes it off;
one who does not reads robustness into his own failure (Athalye, Carlini and Wagner 2018, arXiv:1802.00420; Tramèr et
al. 2020, arXiv:2002.08347). A verdict that can be trusted passes none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from redan.testing.masks import (
    bits,
    jpeg,
    noisy,
    quantized,
    resized_and_padded,
    rippled,
    thermometer,
)

Builder = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True, slots=True)
class Masked:
    """One victim. unchanged: whether it decides every input as the classifier that it was put around."""

    name: str
    what: str
    around: Builder
    stochastic: bool = False
    unchanged: bool = False


class _Before(nn.Module):
    """A stage before the classifier."""

    def __init__(self, stage: Callable[[Tensor], Tensor], classifier: nn.Module) -> None:
        super().__init__()
        self.stage, self.classifier = stage, classifier
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.classifier(self.stage(x))
        return answer


class _After(nn.Module):
    """A stage after the classifier."""

    def __init__(self, classifier: nn.Module, stage: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.classifier, self.stage = classifier, stage
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.stage(self.classifier(x))


class _Zeroed(torch.autograd.Function):
    """The identity, whose backward pass answers nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return torch.zeros_like(gradients[0])


def _zeroed(x: Tensor) -> Tensor:
    found: Tensor = _Zeroed.apply(x)  # type: ignore[no-untyped-call]  # torch's
    return found


def _before(*stages: Callable[[Tensor], Tensor]) -> Builder:
    def build(classifier: nn.Module) -> nn.Module:
        for stage in reversed(stages):
            classifier = _Before(stage, classifier)
        return classifier

    return build


def _louder(classifier: nn.Module) -> nn.Module:
    return _After(classifier, lambda scores: scores * 1000)


def _thermometer_louder(classifier: nn.Module) -> nn.Module:
    return _Before(thermometer, _louder(classifier))


VICTIMS = (
    Masked("quantized", "inputs rounded to 8 levels", _before(quantized)),
    Masked("thermometer", "inputs coded by 15 thresholds (Buckman et al. 2018)", _before(thermometer)),
    Masked("bits", "inputs cut to 3 bits through whole numbers", _before(bits)),
    Masked("jpeg", "JPEG at quality 75 (Guo et al. 2018, arXiv:1711.00117)", _before(jpeg)),
    Masked("detached", "inputs cut off from the graph", _before(torch.Tensor.detach), unchanged=True),
    Masked("zeroed", "a stage whose backward pass is zero", _before(_zeroed), unchanged=True),
    Masked("louder", "scores times 1,000", _louder, unchanged=True),
    Masked("rippled", "a fine ripple on the inputs that shatters slopes", _before(rippled)),
    Masked("noise", "normal noise on the inputs", _before(noisy), stochastic=True),
    Masked(
        "resized-and-padded",
        "inputs resized and padded at random (Xie et al. 2018, arXiv:1711.01991)",
        _before(resized_and_padded),
        stochastic=True,
    ),
    Masked("quantized-noise", "noise, then 8 levels", _before(noisy, quantized), stochastic=True),
    Masked(
        "zeroed-resized-and-padded",
        "resized and padded at random behind a zero backward pass",
        _before(_zeroed, resized_and_padded),
        stochastic=True,
    ),
    Masked("thermometer-louder", "thermometer codes, and scores times 1,000", _thermometer_louder),
)
"""k-WTA and defensive distillation are trained, not put around: the sample models "winners" and "distilled"."""
