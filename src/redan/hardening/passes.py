"""How a network is asked during training: in which mode for an attack, and on which path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Self

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
    channels last in memory, and so do all activations behind them. None of these changes more than the rounding.

    half: an attack's passes compute in bfloat16 where torch's autocast does; weights, losses and the training's own
    passes stay as they are. Of the signs of a gradient, one in a hundred is then another. It pays on processors that
    compute in bfloat16 (AVX512-BF16, AMX) and on graphics cards, and never has to be right: what is trained on is a
    point of the ball in any case.
    """

    products: bool = False
    norms: bool = False
    last: bool = False
    half: bool = False
    _kept: Cheaper | None = field(default=None, repr=False, compare=False)

    def kept(self) -> Self:
        """The same path for as long as no weight moves, one attack for example: what is folded once stays folded."""
        return replace(self, _kept=Cheaper(self.products, self.norms))

    def ordered(self, x: Tensor) -> Tensor:
        """A copy of a batch in the order it goes in."""
        if not self.last or x.dim() != 4:
            return x.clone()
        return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)

    def on(self) -> AbstractContextManager[object]:
        """The context of one forward pass whose gradient in the input is asked for. What is folded in it is forgotten
        after it unless the path is `kept`: weights move, and so do statistics, without a trace."""
        return (self._kept or Cheaper(self.products, self.norms)).on()

    def coarse(self, x: Tensor) -> AbstractContextManager[object]:
        """The context of a pass there and back of an attack on rows x: bfloat16, where that is chosen."""
        return torch.autocast(x.device.type, dtype=torch.bfloat16) if self.half else nullcontext()


PLAIN = Path()


def cheapest(model: nn.Module, x: Tensor, *, half: bool = False) -> Path:
    """The cheapest path that agrees with the plain one on rows x (N, …), by the network's shapes alone.

    On a CPU, networks with a convolution of stride 1 go with channels last: a training step took 0.7 to 0.9 of the
    plain one on four of them, and an attack's pass 0.8 to 0.98. Where all are strided it gains nothing.

    half: see `Path`.
    """
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return Path(half=half)
    with served(model) as bare:
        found = choose(bare, bare, x[:_PROBES])
    steps = (part for part in model.modules() if isinstance(part, nn.Conv2d) and set(part.stride) == {1})
    return Path(found.products, found.norms, any(set(part.kernel_size) != {1} for part in steps), half)
