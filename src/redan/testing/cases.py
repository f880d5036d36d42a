"""Honest set-ups, drawn from a seed: a model that fits its data, and what is declared about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from redan import samples
from redan.assessment.preflight import Requirement, Scene
from redan.targets import Output, TorchTarget


@dataclass(frozen=True, slots=True)
class Case:
    """A model, its data, and what its owner declares. x: (N, C, H, W); y: (N,) int64.

    classes: None if not declared. expected: clean accuracy and tolerance. required: a rate that the rows must show.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    bounds: tuple[float, float] = (0.0, 1.0)
    output: Output = Output.LOGITS
    classes: int | None = None
    expected: tuple[float, float] | None = None
    required: Requirement | None = None

    @property
    def target(self) -> TorchTarget:
        """The model as a target, also one in training mode, which `from_torch` would refuse."""
        like = next((p for p in self.model.parameters() if p.is_floating_point()), torch.empty(0))
        return TorchTarget(
            module=self.model,
            bounds=self.bounds,
            classes=self.classes,
            output=self.output,
            stochastic=False,
            dtype=like.dtype,
            device=like.device,
        )

    @property
    def scene(self) -> Scene:
        """What the preflight looks at."""
        return Scene(self.target, self.x, self.y, expected=self.expected, image=True, required=self.required)


Draw = np.random.Generator
Mechanism = Callable[[Case, Draw, bool], Case]
"""(honest case, random numbers, whether to lie) -> the case."""


def drawn_case(draw: Draw) -> Case:
    """An honest case: a shipped model on 96 to 160 of its own rows, or a random prototype model on its own data."""
    return _shipped(draw) if draw.random() < 0.5 else _prototypes(draw)


def _shipped(draw: Draw) -> Case:
    images, labels = samples.fashion_mnist()
    rows = draw.permutation(len(labels))[: draw.integers(96, 161)]
    name = ("natural", "robust", "residual")[draw.integers(3)]
    return Case(samples.model(name), torch.from_numpy(images[rows]), torch.from_numpy(labels[rows]))


def _prototypes(draw: Draw) -> Case:
    """3 to 8 classes of images (1 to 3, 6 to 10, 6 to 10) around a random image each, told apart by a ReLU net."""
    classes, count = int(draw.integers(3, 9)), int(draw.integers(96, 161))
    shape = tuple(int(n) for n in (draw.integers(1, 4), *draw.integers(6, 11, 2)))
    centers = draw.uniform(0.2, 0.8, (classes, *shape))
    y = np.resize(draw.permutation(classes), count)
    x = np.clip(centers[y] + draw.normal(0, draw.uniform(0.1, 0.25), (count, *shape)), 0, 1)
    flat = torch.from_numpy(centers).float().flatten(1)
    apart = torch.cdist(flat, flat).square()
    steep = float(draw.uniform(4, 12)) / float(apart[apart > 0].min())  # the score gap of the two nearest classes
    first, second = nn.Linear(flat.shape[1], 2 * classes), nn.Linear(2 * classes, classes)
    with torch.no_grad():
        score, offset = 2 * steep * flat, -steep * flat.square().sum(1)  # -‖x - center‖², but for a shared part
        first.weight.copy_(torch.cat([score, -score]))
        first.bias.copy_(torch.cat([offset, -offset]))
        second.weight.copy_(torch.cat([torch.eye(classes), -torch.eye(classes)], 1))  # relu(s) - relu(-s) = s
        second.bias.zero_()
    model = nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Dropout(0.2), second).eval()
    return Case(model, torch.from_numpy(x).float(), torch.from_numpy(y))


def same(x: Tensor) -> Tensor:
    """x itself."""
    return x


class _Through(nn.Module):
    """A model with something before it and something after it."""

    def __init__(self, model: nn.Module, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.model(self.before(x)))


def through(case: Case, before: Callable[[Tensor], Tensor] = same, after: Callable[[Tensor], Tensor] = same) -> Case:
    """The case with a step before its model and one after it."""
    return replace(case, model=_Through(case.model, before, after).eval())


def class_count(case: Case) -> int:
    """K, from the model's own answers."""
    with torch.no_grad():
        return int(case.model(case.x[:2]).shape[1])


def chosen(case: Case, rows: Tensor) -> Case:
    """The case with these rows alone, in this order."""
    return replace(case, x=case.x[rows], y=case.y[rows])
