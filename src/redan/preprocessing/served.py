"""A target with transformations in front of it, as it is served: of the kind that the bare one is.

Whoever looks into a torch module (for its mode, its flags, a cheaper gradient path, bounds) finds the transformations
in it, as the first thing that happens to an input, and cannot mistake the bare model for what is served.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from redan.preprocessing.transformation import Transformation
from redan.preprocessing.wrapped import Preprocessed
from redan.targets import Affine, Paired, Target, TorchTarget
from redan.targets.base import its
from redan.targets.straight_through import StraightThrough


class Behind(nn.Module):
    """`model`, given inputs (N, C, H, W) as transformations and then a normalization leave them.

    mean, std: of the channels that the model gets, or None. The first transformation comes first; one that hides its
    gradient is climbed along its `stand_in`. The model stays as it is, its mode too.
    """

    def __init__(
        self,
        model: nn.Module,
        transformations: Sequence[Transformation],
        mean: Tensor | None = None,
        std: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.transformations = tuple(transformations)
        self.stages: list[Callable[[Tensor], Tensor]] = []
        for at, each in enumerate(self.transformations):
            if each.differentiable:
                self.stages.append(each)
                continue
            stage = StraightThrough(each, each.stand_in, exact=each.exact)
            self.add_module(f"stage_{at}", stage)
            self.stages.append(stage)
        self.model = model
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.training = False  # of this shell alone

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        if isinstance(self.mean, Tensor) and isinstance(self.std, Tensor):
            channel = (-1, *[1] * (x.dim() - 2))
            x = (x - self.mean.reshape(channel)) / self.std.reshape(channel)
        answer: Tensor = self.model(x)
        return answer


@dataclass(frozen=True, slots=True)
class PreprocessedPair(Paired):
    """A `Paired` target behind transformations. module: that of the pair, for rows that are transformed already."""

    target: Preprocessed

    surrogate = its("surrogate")
    transformations = its("transformations")

    def __call__(self, x: Tensor) -> Tensor:
        return self.target(x)


def behind(target: Target[Tensor], transformations: Sequence[Transformation]) -> Target[Tensor]:
    """The target with these transformations of its inputs, the first one first; without any it is the target itself.

    A torch target stays one, and may still be accelerated; a pair stays a pair, and its wins are still asked for again.
    Answers and gradients are those of `Preprocessed`. Raises TargetError around an endpoint.
    """
    if not transformations:
        return target
    stages = tuple(transformations)
    match target:
        case TorchTarget(module=module, mean=mean, std=std, stochastic=stochastic):
            varies = stochastic or any(each.stochastic for each in stages)
            made = Behind(module, stages, mean, std)
            return replace(target, module=made, mean=None, std=None, stochastic=varies, fast=None)
        case Paired(module=module) | Affine(target=Paired(module=module)):
            return PreprocessedPair(Preprocessed(target=target, transformations=stages), module)
    return Preprocessed(target=target, transformations=stages)
