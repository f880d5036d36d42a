"""What goes into a network's last linear layer, for attacks that need its gradient too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from redan.errors import SettingError
from redan.poisoning.crafting import home

__all__ = ["Penultimate"]


@dataclass(frozen=True, slots=True, eq=False)
class Penultimate:
    """A module's features as a function (N, …) -> (N, D): what its last call of a linear layer is given.

    `redan.defenses.features` takes them from the same place. The module is left as it was. Calls raise SettingError
    where no linear layer is called.

    >>> Penultimate(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))(torch.ones(5, 2, 2)).shape
    torch.Size([5, 3])
    """

    model: nn.Module

    def __call__(self, x: Tensor, /) -> Tensor:
        seen: list[Tensor] = []

        def see(_: nn.Module, given: tuple[Any, ...]) -> None:
            seen[:] = [given[0].flatten(1)]

        hooks = [part.register_forward_pre_hook(see) for part in self.model.modules() if isinstance(part, nn.Linear)]
        try:
            self.model(x)
        finally:
            for hook in hooks:
                hook.remove()
        if not seen:
            raise SettingError("the surrogate has no linear layer to take features before; leave the attack out")
        return seen[0]

    def width(self, rows: NDArray[Any]) -> int:
        """How many features a row has."""
        with torch.no_grad():
            return self(torch.tensor(rows[:1], dtype=torch.float32, device=home(self.model))).shape[1]
