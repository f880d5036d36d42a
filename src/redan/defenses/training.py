"""A model copied and trained further, on rows in an order of its own, with nothing of the caller's touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from redan.data.samples import Samples
from redan.errors import SettingError, TargetError
from redan.formats.modes import refuse_training
from redan.targets.torch import TorchTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Further training by SGD. epochs: passes over the rows at the most; 0: none. rate: the learning rate. batch: rows
    a step."""

    epochs: int = 10
    rate: float = 0.01
    momentum: float = 0.9
    batch: int = 64

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.rate <= 0 or not 0 <= self.momentum < 1 or self.batch < 2:
            raise SettingError(
                f"further training needs epochs ≥ 0, rate > 0, momentum from 0 to below 1 and batch ≥ 2, got "
                f"{self.epochs}, {self.rate}, {self.momentum} and {self.batch}; the defaults are 10, 0.01, 0.9 and 64"
            )


def copied(target: TorchTarget) -> TorchTarget:
    """The target with a copy of its module, to be repaired. Raises TrainingModeError for one in training mode,
    TargetError for one that cannot be trained."""
    refuse_training(target.module)
    if not target.differentiable or not any(p.requires_grad for p in target.module.parameters()):
        raise TargetError(
            "the model has no parameters that can be trained from its answers; give its module with "
            "requires_grad_(True), answering scores"
        )
    return replace(target, module=deepcopy(target.module), fast=None)


def rows(target: TorchTarget, samples: Samples) -> tuple[Tensor, Tensor]:
    """Inputs (N, …) and labels (N,) as the target takes them."""
    x = torch.as_tensor(samples.x, dtype=target.dtype, device=target.device)
    return x, torch.as_tensor(samples.y, dtype=torch.int64, device=target.device)


def trained(target: TorchTarget) -> list[Parameter]:
    """The parameters that further training changes."""
    return [parameter for parameter in target.module.parameters() if parameter.requires_grad]


def shuffled(count: int, batch: int, draw: torch.Generator) -> Iterator[Tensor]:
    """Positions 0 to count - 1 in random order, a batch at a time; never one row alone beside others."""
    for index in torch.split(torch.randperm(count, generator=draw), batch):
        if len(index) > 1 or count == 1:  # batch normalization has no variance of one row
            yield index


@contextmanager
def training(target: TorchTarget, seed: int) -> Iterator[torch.Generator]:
    """The module in training mode, and a generator for its batches; then in evaluation mode again.

    Dropout draws by the seed as well; torch's global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        target.module.train()
        try:
            yield torch.Generator().manual_seed(seed)
        finally:
            target.module.eval()


def step(optimizer: Any, loss: Tensor) -> None:
    """One step down a loss ()."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    optimizer.step()
