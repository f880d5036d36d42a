"""A network as it may have been before it was trained."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import nn

__all__ = ["untrained"]


def untrained(module: nn.Module, *, seed: int) -> nn.Module:
    """A copy whose layers are drawn anew by the seed, all its weights to be trained.

    A parameter of a module that has no `reset_parameters` stays as it is. torch's global generator is left as it was.

    >>> trained = nn.Linear(2, 2)
    >>> bool((untrained(trained, seed=0).weight == untrained(trained, seed=0).weight).all())
    True
    """
    made = deepcopy(module)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed % 2**63)
        for part in made.modules():
            reset: Callable[[], Any] | None = getattr(part, "reset_parameters", None)
            if reset is not None:
                reset()
    return made.requires_grad_()
