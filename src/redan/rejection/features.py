"""What a network computes on the way, differentiable in its input."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from redan.errors import TargetError
from redan.targets.torch import TorchTarget

_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What goes into some of a target's submodules for each row: a tensor (N, D) each, differentiable in the input.

    layers: the submodules, in any order; none given: the last linear layer that is called, whose inputs are the
    penultimate features. Maps (N, C, …) are averaged over all but channels (Lee et al. 2018, arXiv:1807.03888). Where a
    layer is called several times, the last call counts. The module is left as it was; blocks of rows may be on several
    threads at once.

    Raises TargetError where a layer is not the model's, is not called, or not with a row for each input.

    >>> from redan.targets.torch import from_torch
    >>> features = Features(target=from_torch(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()))
    >>> [part.shape for part in features(torch.ones(3, 2, 2))]
    [torch.Size([3, 4])]
    """

    target: TorchTarget
    layers: tuple[nn.Module, ...] = field(default=())

    def __post_init__(self) -> None:
        parts = list(self.target.module.modules())
        if not self._watched():
            raise TargetError("the model has no linear layer to take features before; name submodules as `layers`")
        if any(all(layer is not part for part in parts) for layer in self.layers):
            raise TargetError("a layer is not one of the model's submodules; take it from the very module given")

    def _watched(self) -> list[nn.Module]:
        return list(self.layers) or [part for part in self.target.module.modules() if isinstance(part, nn.Linear)]

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """The features of x (N, …): (N, D) for each layer, in their order."""
        seen: dict[int, Tensor] = {}
        mine = threading.get_ident()

        def see(part: nn.Module, given: tuple[Any, ...]) -> None:
            if threading.get_ident() == mine:  # other blocks of rows pass through the same module
                if not self.layers:
                    seen.clear()
                seen[id(part)] = given[0]

        watched = self._watched()
        hooks = [part.register_forward_pre_hook(see) for part in watched]
        try:
            self.target(x)
        finally:
            for hook in hooks:
                hook.remove()
        wanted = [id(layer) for layer in self.layers] or list(seen) or [0]
        return tuple(_a_row_each(seen.get(layer), len(x)) for layer in wanted)


def _a_row_each(part: Tensor | None, count: int) -> Tensor:
    if part is None or part.dim() < 2 or len(part) != count:
        raise TargetError(
            "a watched layer is not called with a row for each input, so rows have no features; name other submodules "
            "as `layers`"
        )
    return part.flatten(2).mean(2) if part.dim() > 2 else part


def features_of(features: Features, x: Tensor) -> tuple[Tensor, ...]:
    """The features of rows x (N, …), in batches and without gradients: (N, D) for each layer."""
    target = features.target
    with torch.no_grad():
        batches = [
            features(x[at : at + _BATCH].to(target.device, target.dtype)) for at in range(0, max(1, len(x)), _BATCH)
        ]
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
