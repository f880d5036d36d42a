"""The model as an attacker meets it. `from_torch` wraps any `nn.Module`."""

from redan.targets.base import Output, Target
from redan.targets.straight_through import StraightThrough
from redan.targets.torch import TorchTarget, as_target, from_torch

__all__ = ["Output", "StraightThrough", "Target", "TorchTarget", "as_target", "from_torch"]
