"""Any `nn.Module` as a target: bounds, normalization and dtype are said once, here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from redan.errors import SettingError, TargetError
from redan.formats.modes import refuse_training
from redan.protocols import Access
from redan.targets.base import Output, Target, checked_bounds
from redan.targets.fast import Cheaper, choose
from redan.targets.outputs import as_scores
from redan.targets.paired import Paired
from redan.targets.straight_through import StraightThrough


@dataclass(frozen=True, slots=True)
class TorchTarget:
    """An `nn.Module` that answers (N, K) for inputs (N, …) in `bounds`. Build it with `from_torch`."""

    module: nn.Module
    bounds: tuple[float, float]
    classes: int | None
    output: Output
    stochastic: bool
    dtype: torch.dtype
    device: torch.device
    mean: Tensor | None = field(default=None, repr=False)
    std: Tensor | None = field(default=None, repr=False)
    fast: Cheaper | None = None  # how gradient passes are computed; None: not chosen yet, `accelerated` decides

    @property
    def access(self) -> Access:
        return Access.GRADIENTS if self.differentiable else Access.LABELS

    @property
    def differentiable(self) -> bool:
        return self.output is not Output.LABELS

    @property
    def surrogate(self) -> bool:
        return any(isinstance(part, StraightThrough) for part in self.module.modules())

    def __call__(self, x: Tensor) -> Tensor:
        if self.mean is not None and self.std is not None:
            channel = (-1, *[1] * (x.dim() - 2))
            x = (x - self.mean.reshape(channel)) / self.std.reshape(channel)
        with self.fast.on() if self.fast is not None and x.requires_grad else nullcontext():
            answer = self.module(x)
        scores: Tensor = as_scores(answer, self.output, self.classes) if isinstance(answer, Tensor) else answer
        return scores


def from_torch(
    model: nn.Module,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    classes: int | None = None,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    output: Output = Output.LOGITS,
    stochastic: bool = False,
) -> TorchTarget:
    """A target from a module in evaluation mode; nothing about the module is changed.

    bounds: the box inputs live in; ε is in its units. normalization: (mean, std) per channel, the second axis,
    applied inside the target, so that attacks stay in the box. output: what the module's numbers are. stochastic:
    say so if the same input may get different answers. Inputs get the parameters' dtype and device.

    Raises TrainingModeError if any submodule is in training mode, SettingError for impossible values.

    >>> from torch import nn
    >>> from_torch(nn.Linear(4, 2).eval(), classes=2).bounds
    (0.0, 1.0)
    """
    bounds = checked_bounds(bounds)
    refuse_training(model)
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    mean = std = None
    if normalization is not None:
        mean, std = (torch.tensor(part, dtype=like.dtype, device=like.device) for part in normalization)
        if len(mean) != len(std) or bool((std <= 0).any()):
            raise SettingError("normalization needs as many standard deviations as means, all above 0; check its lists")
    return TorchTarget(
        module=model,
        bounds=bounds,
        classes=classes,
        output=output,
        stochastic=stochastic,
        dtype=like.dtype,
        device=like.device,
        mean=mean,
        std=std,
    )


def accelerated(target: Target[Tensor], x: Tensor) -> Target[Tensor]:
    """The target with the cheapest gradient path that agrees with the plain one on rows x; a choice made is kept.

    Call it when a run begins: what was folded from the module's weights before is forgotten. A stochastic target
    has no two equal gradients to compare, and keeps the plain path.
    """
    if not isinstance(target, TorchTarget) or target.stochastic or not len(x):
        return target
    if target.fast is not None:
        return replace(target, fast=Cheaper(target.fast.products, target.fast.norms))
    if target.device.type != "cpu" or target.dtype not in (torch.float32, torch.float64):
        return target
    return replace(target, fast=choose(target.module, target, x))


def rounds(target: Target[Tensor]) -> bool:
    """Whether the scores that come with a target's gradients may differ from its scores alone by rounding."""
    match target:
        case Paired():
            return True
        case TorchTarget(fast=fast):
            return fast is not None and fast.rounds
    inner: Target[Tensor] | None = getattr(target, "target", None)
    if inner is None:
        return False  # surrogates' answers are opinions, and decide nothing
    several: tuple[Target[Tensor], ...] = getattr(inner, "members", (inner,))
    return any(rounds(each) for each in several)


def as_target(model: nn.Module | Target[Tensor], bounds: tuple[float, float] | None) -> Target[Tensor]:
    """The model as a target; a ready target keeps its own bounds."""
    if isinstance(model, nn.Module):
        return from_torch(model, bounds=bounds or (0.0, 1.0))
    if bounds is not None and tuple(bounds) != tuple(model.bounds):
        raise SettingError(f"the target's own bounds are {model.bounds}, got bounds={bounds}; leave the argument out")
    if isinstance(model, TorchTarget):
        refuse_training(model.module)
    return model


@contextmanager
def unchanged(target: object) -> Iterator[None]:
    """Check that modes and flags of the target's module are as they were, and put them back if not.

    Raises TargetError, naming the first submodule or parameter that changed. Tensors' values are not watched:
    a model whose buffers move is found by measuring the saved inputs again.
    """
    if not isinstance(target, TorchTarget):
        yield
        return
    module = target.module
    modes = {name: (part, part.training) for name, part in module.named_modules()}
    flags = {name: (p, p.requires_grad, p.grad) for name, p in module.named_parameters()}
    try:
        yield
    finally:
        moved = [name or "the module itself" for name, (part, mode) in modes.items() if part.training != mode]
        turned = [n for n, (p, flag, grad) in flags.items() if p.requires_grad != flag or p.grad is not grad]
        for part, mode in modes.values():
            part.training = mode
        for parameter, flag, grad in flags.values():
            parameter.requires_grad_(flag)
            parameter.grad = grad
    if moved or turned:
        raise TargetError(
            f"answering changed the model's own state ({', '.join((moved + turned)[:3])}), so answers depend on "
            "what was asked before; it was put back as it was: remove the change from the model's forward"
        )
