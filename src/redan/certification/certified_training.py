"""Losses of certified training: the cross-entropy of the worst scores that bounds allow, and what helps it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from redan.certification.graph import traced
from redan.certification.steps import Interval
from redan.certification.trainable import Relaxation, worst_logits
from redan.errors import SettingError


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedTraining:
    """Training by bounds in L∞: Gowal et al. 2018 (arXiv:1810.12715), with the warm-up of Shi et al. 2021
    (arXiv:2103.17009), or by CROWN-IBP (Zhang et al. 2020, arXiv:1906.06316).

    radius: ε at the end, in units of `bounds`, the box that inputs live in. warm_up: the shares of training between
    which ε grows from 0. clean: the weight of the clean cross-entropy at the end (Gowal's κ; Shi's is 0), 1 at the
    start of the warm-up. regularization: the weight of both regularizers at its start, 0 at its end. tolerance: how far
    they let a layer widen intervals or lose balance (τ). relaxation: LINES mixes both bounds, from lines alone to
    intervals alone (Zhang's β).
    """

    radius: float
    bounds: tuple[float, float] = (0.0, 1.0)
    relaxation: Relaxation = Relaxation.INTERVALS
    warm_up: tuple[float, float] = (0.02, 0.4)
    clean: float = 0.0
    regularization: float = 0.5
    tolerance: float = 0.5

    def __post_init__(self) -> None:
        start, end = self.warm_up
        if not (self.radius >= 0 and 0 <= start <= end <= 1 and 0 <= self.clean <= 1):
            raise SettingError(
                f"radius {self.radius}, warm_up {self.warm_up} and clean {self.clean} do not fit; take a radius of at "
                "least 0, shares 0 ≤ start ≤ end ≤ 1 and a weight between 0 and 1"
            )

    def share(self, progress: float) -> float:
        """How much of the warm-up is over at this share of training, 0 to 1."""
        start, end = self.warm_up
        return min(1.0, max(0.0, (progress - start) / (end - start))) if end > start else float(progress >= start)


def certified_loss(module: nn.Module, x: Tensor, y: Tensor, progress: float, training: CertifiedTraining) -> Tensor:
    """The loss () of a batch x (N, …) with labels y (N,) at a share `progress` of training, 0 to 1.

    κ · CE(scores) + (1 - κ) · CE(worst scores within ε), plus the regularizers while ε grows. At ε = 0 it is the clean
    cross-entropy. Raises what `worst_logits` raises.
    """
    share = training.share(progress)
    if share == 0:
        return functional.cross_entropy(module(x), y)
    radius, (bottom, top) = training.radius * share, training.bounds
    low, high = (x - radius).clamp_min(bottom), (x + radius).clamp_max(top)
    mixed = [(Relaxation.INTERVALS, 1.0)]
    if training.relaxation is Relaxation.LINES and share < 1:
        mixed = [(Relaxation.LINES, 1 - share), (Relaxation.INTERVALS, share)]
    clean, gaps, bent = worst_logits(module, x, y, low, high, mixed)
    kept = 1 - (1 - training.clean) * share if training.clean else 0.0
    loss = (1 - kept) * functional.cross_entropy(gaps, y)
    if kept:
        loss = loss + kept * functional.cross_entropy(clean, y)
    if training.regularization and share < 1:
        weight = training.regularization * (1 - share)
        loss = loss + weight * regularizer(Interval(low, high), bent, training.tolerance)
    return loss


def regularizer(given: Interval, bent: Sequence[Interval], tolerance: float) -> Tensor:
    """What Shi et al. 2021 add while ε grows (equations 9 and 10): (), 0 where every layer is in order.

    Tightness: an activation's intervals should not be wider, on average, than 1 / tolerance times the input's. Balance:
    the middles of surely active and surely inactive numbers should not differ more than that in mean and variance; a
    layer that has none of either has no balance to keep.
    """
    least = 1e-12
    wide, total = (given.high - given.low).mean(), given.low.new_zeros(())
    for low, high in bent:
        total = total + (tolerance - wide / (high - low).mean().clamp_min(least)).clamp_min(0)
        middle, on, off = (low + high) / 2, low > 0, high < 0
        if not (bool(on.any()) and bool(off.any())):
            continue
        spread = (middle - middle.mean()).square()
        for active, inactive in (
            ((middle * on).mean(), -(middle * off).mean()),
            ((spread * on).sum(), (spread * off).sum()),
        ):
            ratio = active / inactive.clamp_min(least)
            total = total + (tolerance - torch.minimum(ratio, 1 / ratio.clamp_min(least))).clamp_min(0)
    return total / (tolerance * max(1, len(bent)))


def initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of all convolutions and linear layers but the last so that layers keep the width of intervals.

    N(0, 2π / n²), n the numbers that one result sums (Shi et al. 2021, section 3.2): then a layer with its ReLU neither
    widens nor narrows an interval on average. Half of that behind a sum of two results, which is twice as wide.
    """
    graph, root = traced(module)
    layers = [node for node in graph.nodes if node.op == "call_module" and _weighs(root, node)]
    for node in layers[:-1]:
        layer: Any = root.get_submodule(str(node.target))
        scale = math.sqrt(2 * math.pi) / math.prod(layer.weight.shape[1:]) / (2 if _behind_sum(node) else 1)
        nn.init.normal_(layer.weight, 0, scale, generator=generator)


def _weighs(root: nn.Module, node: fx.Node) -> bool:
    return isinstance(root.get_submodule(str(node.target)), nn.Linear | nn.Conv2d)


def _behind_sum(node: fx.Node) -> bool:
    """Whether what the layer takes is an activation of a sum of two results."""
    activation = node.all_input_nodes[0] if node.all_input_nodes else None
    if activation is None or not activation.all_input_nodes:
        return False
    before = activation.all_input_nodes[0]
    named = getattr(before.target, "__name__", str(before.target))
    return named in ("add", "iadd", "add_") and len(before.all_input_nodes) == 2
