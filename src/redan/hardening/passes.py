"""How a network is asked during training: in which mode for an attack, and on which path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from redan.targets.fast import Cheaper, choose

_PROBES = 16  # rows on which a cheaper path must agree with the plain one


@contextmanager
def served(model: nn.Module) -> Iterator[nn.Module]:
    """The module in evaluation mode, as it will be served; afterwards every submodule is in the mode it was in.

    A module of `DistributedDataParallel` is asked without its wrapper, which counts backward passes.
    """
    bare = model.module if isinstance(model, DistributedDataParallel) else model
    modes = [(part, part.training) for part in bare.modules()]
    bare.eval()
    try:
        yield bare
    finally:
        for part, mode in modes:
            part.training = mode


@dataclass(frozen=True, slots=True)
class Path:
    """What makes passes cheaper; by default nothing does. `cheapest` decides.

    products, norms: for gradients in the input, as in `redan.targets.fast`. last: batches of images go in with their
    channels last in memory, and so do all activations behind them. None of it changes more than the rounding.
    """

    products: bool = False
    norms: bool = False
    last: bool = False

    def ordered(self, x: Tensor) -> Tensor:
        """A copy of a batch in the order it goes in."""
        if not self.last or x.dim() != 4:
            return x.clone()
        return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)

    def on(self) -> AbstractContextManager[object]:
        """The context of one forward pass whose gradient in the input is asked for. What is folded in it is forgotten
        after it: weights move, and so do statistics, without a trace."""
        return Cheaper(self.products, self.norms).on()


PLAIN = Path()


def cheapest(model: nn.Module, x: Tensor) -> Path:
    """The cheapest path that agrees with the plain one on rows x (N, …), by the network's shapes alone.

    On a CPU, networks with a convolution of stride 1 go with channels last: a training step took 0.7 to 0.9 of the
    plain one on four of them, and an attack's pass 0.8 to 0.98. Where all are strided it gains nothing.
    """
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return PLAIN
    with served(model) as bare:
        found = choose(bare, bare, x[:_PROBES])
    steps = (part for part in model.modules() if isinstance(part, nn.Conv2d) and set(part.stride) == {1})
    return Path(found.products, found.norms, any(set(part.kernel_size) != {1} for part in steps))
