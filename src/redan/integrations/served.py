"""redan's targets and attacks for code that expects a torch module: what the adapters of other libraries share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from redan.engine.run import attack as attacked
from redan.errors import SettingError
from redan.goals import Aim
from redan.integrations.facade import Pulled
from redan.protocols import Access, Attack, Bounded
from redan.referee import Rule
from redan.targets import Target, as_target


class AsModule(nn.Module):
    """A target as a module in evaluation mode: inputs (N, …) in its bounds to scores (N, K).

    Gradients reach the input alone: a `backward()` through it leaves no gradient in the model's weights. A target that
    answers no gradients gives scores that need none.
    """

    def __init__(self, target: Target[Tensor]) -> None:
        super().__init__()
        self.target = target
        # Libraries look for a parameter to find the device.
        self.device_of = nn.Parameter(torch.empty(0, dtype=target.dtype, device=target.device), requires_grad=False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        shown = x.to(self.target.dtype)
        if self.target.access is Access.GRADIENTS and shown.requires_grad and torch.is_grad_enabled():
            scores: Tensor = Pulled.apply(shown, self)  # type: ignore[no-untyped-call]  # torch does not type it
            return scores
        with torch.no_grad():
            return self.target(shown.detach())

    def opened(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            scores = self.target(x.clone())

        def pull(weight: Tensor) -> Tensor:
            return torch.autograd.grad(scores, x, weight, retain_graph=True)[0]

        return scores.detach(), pull


class _Called(nn.Module):
    """A function from inputs like some to scores, as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor], like: Tensor) -> None:
        super().__init__()
        self.function = function
        self.like = nn.Parameter(like.detach().new_empty(0), requires_grad=False)  # says type and device
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def served(model: nn.Module | Target[Tensor]) -> Target[Tensor]:
    """A module or target as a target; what `AsModule` made is taken out again."""
    return model.target if isinstance(model, AsModule) else as_target(model, None)


def as_served(function: Callable[[Tensor], Tensor], bounds: tuple[float, float], like: Tensor) -> Target[Tensor]:
    """Another library's model, any callable on tensors, as a target in these bounds, for inputs like these.

    Raises SettingError where it is a redan target behind that library's interface, with other bounds.
    """
    if isinstance(function, AsModule):
        if tuple(function.target.bounds) != tuple(bounds):
            raise SettingError(f"the target's own bounds are {function.target.bounds}, got {bounds}; give the same")
        return function.target
    return as_target(function if isinstance(function, nn.Module) else _Called(function, like), bounds)


def classes_of(target: Target[Tensor], classes: int | None) -> int:
    """K, as the target or the caller says. Raises SettingError where neither does."""
    found = target.classes or classes
    if found is None:
        raise SettingError("the target does not say how many classes it has; give classes=K")
    return found


def changed(
    attack: Attack[Any, Any],
    model: nn.Module | Target[Tensor],
    x: Tensor,
    y: Tensor,
    within: Bounded,
    *,
    goal: Aim | None = None,
    seed: int = 0,
    keep: Rule | None = None,
) -> tuple[Tensor, Tensor]:
    """What `redan.attack` answers: inputs (N, …) and whether each reached the goal (N,)."""
    result = attacked(model, x, y, attack, within=within, goal=goal, seed=seed, keep=keep)
    return result.adversarial.to(x), result.success
