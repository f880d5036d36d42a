"""Gradient matching: how far the gradient of training on the poison is from the gradient the attacker wants.

Geiping et al. 2021 (arXiv:2009.02276), eq. 3: one minus the cosine similarity of the two gradients in the weights.
Witches' Brew and Sleeper Agent climb it in the same way; they differ in the gradient that they want.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from redan.errors import SettingError, TargetError
from redan.perturbations.norms import Linf

Gradient: TypeAlias = tuple[Tensor, ...]
Augment: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
"""A differentiable change of a batch (N, …) with draws from the generator, the same shape out."""

_DROPS = (14 / 24, 20 / 24, 22 / 24)  # of the steps, after which the step is a tenth (Geiping 2021)
_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-8


def weights(model: nn.Module) -> tuple[nn.Parameter, ...]:
    """The parameters that training moves. Raises TargetError where there are none."""
    found = tuple(p for p in model.parameters() if p.requires_grad)
    if not found:
        raise TargetError("no parameter of the surrogate requires a gradient; give one that is trained like a victim")
    return found


def loss_gradient(model: nn.Module, x: Tensor, y: Tensor, *, differentiable: bool = False) -> Gradient:
    """Gradient of the summed cross-entropy of x (N, …), y (N,) in the weights; one that can be derived in x if asked.

    >>> loss_gradient(nn.Linear(2, 3).eval(), torch.zeros(1, 2), torch.tensor([0]))[0].shape
    torch.Size([3, 2])
    """
    with torch.enable_grad():
        loss = functional.cross_entropy(model(x), y, reduction="sum")
        return torch.autograd.grad(
            loss, weights(model), create_graph=differentiable, allow_unused=True, materialize_grads=True
        )


def misalignment(ours: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """1 - cos of two gradients, over all weights at once (Geiping 2021, eq. 3): 0 when they point alike, at most 2.

    >>> float(misalignment([torch.tensor([1.0, 0.0])], [torch.tensor([0.0, 3.0])]))
    1.0
    """
    dot = torch.stack([(a * b).sum() for a, b in zip(ours, wanted, strict=True)]).sum()
    lengths = [torch.stack([part.square().sum() for part in parts]).sum().sqrt() for parts in (ours, wanted)]
    return 1 - dot / (lengths[0] * lengths[1]).clamp_min(torch.finfo(dot.dtype).tiny)


class Aim(NamedTuple):
    """A surrogate, and the gradient in its weights that training on the poison is to have."""

    model: nn.Module
    gradient: Gradient


def objective(aims: Sequence[Aim], x: Tensor, y: Tensor, *, batch: int) -> tuple[float, Tensor]:
    """Mean misalignment over the surrogates of the poison x (N, …), y (N,) taken whole, and its gradient in x.

    It is exact for any batch: the whole gradient is summed first, and what each row does to it is asked afterwards.
    """
    total, slope = 0.0, torch.zeros_like(x)
    for model, wanted in aims:
        leaves = [x[i : i + batch].detach().requires_grad_() for i in range(0, len(x), batch)]
        truths = torch.split(y, batch)
        parts = [
            loss_gradient(model, leaf, truth, differentiable=len(leaves) == 1)
            for leaf, truth in zip(leaves, truths, strict=True)
        ]
        ours = [torch.stack([part[k] for part in parts]).sum(0).detach().requires_grad_() for k in range(len(wanted))]
        with torch.enable_grad():
            value = misalignment(ours, wanted)
        pull = torch.autograd.grad(value, ours)
        for j, (leaf, truth) in enumerate(zip(leaves, truths, strict=True)):
            part = parts[j] if len(leaves) == 1 else loss_gradient(model, leaf, truth, differentiable=True)
            used = [k for k, own in enumerate(part) if own.requires_grad]  # a weight without a part in the loss is not
            slope[j * batch : j * batch + len(leaf)] += torch.autograd.grad(
                [part[k] for k in used], leaf, grad_outputs=[pull[k] for k in used]
            )[0]
        total += float(value.detach())
    return total / len(aims), slope / len(aims)


class Climb(NamedTuple):
    """Where signed Adam is: the poison x (N, …), Adam's two means, and the steps taken."""

    x: Tensor
    mean: Tensor
    square: Tensor
    at: int = 0


def start(x: Tensor) -> Climb:
    return Climb(x, torch.zeros_like(x), torch.zeros_like(x))


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedAdam:
    """Adam fed with the sign of the gradient, projected into the set (Geiping 2021, algorithm 1).

    steps: in all. rate: the first step in radii, a tenth of it after 14/24, 20/24 and 22/24 of the steps. batch:
    poisons in one pass; it changes memory and not the result. augment: a differentiable change of the poison at each
    step.
    """

    steps: int
    rate: float
    batch: int
    augment: Augment | None = None

    def descend(
        self, climb: Climb, aims: Sequence[Aim], x0: Tensor, y: Tensor, within: Linf, until: int, draw: torch.Generator
    ) -> Climb:
        """The climb after the step `until`."""
        x, mean, square, at = climb
        while at < until:
            slope = self._slope(aims, x, y, draw).sign()
            rate = self.rate * float(within.radius) * 0.1 ** sum(at >= drop * self.steps for drop in _DROPS)
            at += 1
            mean = _BETA1 * mean + (1 - _BETA1) * slope
            square = _BETA2 * square + (1 - _BETA2) * slope.square()
            step = (mean / (1 - _BETA1**at)) / ((square / (1 - _BETA2**at)).sqrt() + _TINY)
            x = within.project(x - rate * step, x0)
        return Climb(x, mean, square, at)

    def _slope(self, aims: Sequence[Aim], x: Tensor, y: Tensor, draw: torch.Generator) -> Tensor:
        if self.augment is None:
            return objective(aims, x, y, batch=self.batch)[1]
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            seen = self.augment(leaf, draw)
        slope = objective(aims, seen.detach(), y, batch=self.batch)[1]
        return torch.autograd.grad(seen, leaf, grad_outputs=slope)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shifts:
    """Differentiable augmentation of images (N, C, H, W): shifted by up to `pixels`, and mirrored half of the time.

    Bilinear, with the edge repeated (Geiping 2021; the shift is continuous).

    >>> Shifts(pixels=2)(torch.ones(1, 1, 4, 4), torch.Generator()).shape
    torch.Size([1, 1, 4, 4])
    """

    pixels: float = 4
    mirror: bool = False

    def __call__(self, x: Tensor, draw: torch.Generator) -> Tensor:
        if x.dim() != 4:
            raise SettingError(
                f"shifts are for images (N, C, H, W), not rows of shape {tuple(x.shape[1:])}; leave them out"
            )
        n, _, height, width = x.shape
        theta = torch.zeros(n, 2, 3)
        flips = torch.rand(n, generator=draw) < 0.5
        theta[:, 0, 0] = torch.where(flips & self.mirror, -1.0, 1.0)
        theta[:, 1, 1] = 1
        theta[:, :, 2] = (2 * torch.rand(n, 2, generator=draw) - 1) * self.pixels * 2 / torch.tensor([width, height])
        grid = functional.affine_grid(theta.to(x), list(x.shape), align_corners=False)
        return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


Pick: TypeAlias = Callable[[nn.Module, Tensor, Tensor, int, np.random.Generator], NDArray[np.int64]]
"""Which rows of x (M, …), y (M,) become poisons: (model, x, y, count, rng) -> positions (count,), ascending."""


def at_random(
    model: nn.Module,  # noqa: ARG001
    x: Tensor,
    y: Tensor,  # noqa: ARG001
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Rows drawn without replacement (Geiping 2021)."""
    return np.sort(rng.permutation(len(x))[:count])


def by_gradient_norm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    count: int,
    rng: np.random.Generator,  # noqa: ARG001
) -> NDArray[np.int64]:
    """The rows of the largest gradient norm, which move the weights most in training (Souri 2022, poison selection)."""
    norms = gradient_norms(model, x, y)
    return np.sort(torch.argsort(norms, descending=True, stable=True)[:count].cpu().numpy())


def gradient_norms(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Euclidean norm of each row's own loss gradient in the weights: (N,)."""
    norms = x.new_zeros(len(x))
    for i in range(len(x)):  # one row at a time, so that any module can be asked
        parts = loss_gradient(model, x[i : i + 1], y[i : i + 1])
        norms[i] = torch.stack([part.square().sum() for part in parts]).sum().sqrt()
    return norms
