"""Fine-pruning: channels that clean rows leave idle are taken out, as a backdoor may live there; then some training."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from redan.data.samples import Samples
from redan.defenses.repair import accuracy
from redan.defenses.training import Tuning, copied, rows, shuffled, step, trained, training
from redan.errors import SettingError, TargetError
from redan.targets.torch import TorchTarget

_BATCH = 256
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LAYERS = (*_CONVOLUTIONS, *_NORMS, nn.Linear)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pruned:
    """target: the repaired one, its module a copy. layer: the name of the pruned layer. channels: those taken out,
    (M,), the idlest first. before, pruned, after: accuracy on the trusted rows at first, after pruning, at the end."""

    target: TorchTarget
    layer: str
    channels: NDArray[np.int64]
    before: float
    pruned: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FinePruning:
    """Fine-pruning, Liu, Dolan-Gavitt and Garg 2018 (arXiv:1805.12185, sections 3.2 and 3.4).

    The channels of one layer are pruned in the order of their mean activation (the positive part of the layer's
    output) on trusted rows, least first, as long as accuracy on these rows falls by `fall` at the most; what is left is
    trained on them. fall: a share, 0.04 in the paper. layer: the name of a convolution, batch normalization or linear
    layer inside the module; None: the last convolution as in the paper, or the normalization that follows it, and
    without convolutions the last linear layer but one. channels: how many are pruned before accuracy is measured again.

    Deviation: a channel is pruned by setting its weights and bias to 0 and keeping them there, so the network keeps its
    shape; the learning rate falls to 0 in a line, so that the last step
    is not a matter of luck; accuracy is measured on the rows that are trained on.

    Blind where a backdoor shares its channels with clean rows: the tuning then does all the work, and needs many
    trusted rows. Measure the attack's success afterwards.

    >>> from redan.targets.torch import from_torch
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    >>> FinePruning()(from_torch(net), Samples(np.ones((8, 4)), np.arange(8) % 2), seed=0).layer
    '0'
    """

    fall: float = 0.04
    layer: str | None = None
    channels: int = 1
    tuning: Tuning = field(default_factory=lambda: Tuning(rate=0.1))

    def __post_init__(self) -> None:
        if not 0 <= self.fall < 1 or self.channels < 1:
            raise SettingError(
                f"fine-pruning needs a fall from 0 to below 1 and 1 channel or more at a time, got {self.fall} and "
                f"{self.channels}; the paper's fall is 0.04"
            )

    def __call__(self, target: TorchTarget, trusted: Samples, *, seed: int) -> Pruned:
        """The target repaired by trusted rows; the one given is not changed.

        Raises DataError for no rows, TrainingModeError for a module in training mode, TargetError where the layer
        cannot be pruned.
        """
        made = copied(target)
        before = accuracy(made, trusted)
        name = self.layer if self.layer is not None else _usual(made.module)
        layer = _layer(made.module, name)
        order = np.argsort(_activation(made, layer, trusted), kind="stable")
        out, pruned = _prune(made, layer, order, trusted, lowest=before - self.fall, at_a_time=self.channels)
        x, y = rows(made, trusted)
        optimizer = torch.optim.SGD(trained(made), lr=self.tuning.rate, momentum=self.tuning.momentum)
        with training(made, seed) as draw:
            for epoch in range(self.tuning.epochs):
                optimizer.param_groups[0]["lr"] = self.tuning.rate * (1 - epoch / self.tuning.epochs)
                for index in shuffled(len(x), self.tuning.batch, draw):
                    step(optimizer, cross_entropy(made(x[index]), y[index]))
                    _silence(layer, out)
        return Pruned(
            target=made, layer=name, channels=out, before=before, pruned=pruned, after=accuracy(made, trusted)
        )


def _usual(module: nn.Module) -> str:
    """The layer that is pruned where none is named."""
    parts: list[tuple[str, nn.Module]] = list(module.named_modules())
    found = [at for at, (_, part) in enumerate(parts) if isinstance(part, _CONVOLUTIONS)]
    if found:
        follows = parts[found[-1] + 1 :][:1]
        channels = parts[found[-1]][1].out_channels
        normed = [name for name, part in follows if isinstance(part, _NORMS) and part.num_features == channels]
        return normed[0] if normed else parts[found[-1]][0]
    linear = [name for name, part in parts if isinstance(part, nn.Linear)]
    if len(linear) < 2:
        raise TargetError("the model has no layer to prune before its last; name one of its submodules as `layer`")
    return linear[-2]


def _layer(module: nn.Module, name: str) -> nn.Module:
    parts = dict(module.named_modules())
    layer = parts.get(name)
    if not isinstance(layer, _LAYERS) or layer.weight is None:
        have = ", ".join(key for key, part in parts.items() if isinstance(part, _LAYERS)) or "none"
        raise TargetError(
            f"the model's '{name}' is no layer whose channels can be pruned; name a convolution, a batch normalization "
            f"with weights or a linear layer: {have}"
        )
    return layer


def _activation(target: TorchTarget, layer: nn.Module, trusted: Samples) -> NDArray[np.float64]:
    """The mean of the positive part of each channel's output over rows and places: (C,)."""
    total: list[Tensor] = []

    def see(_: nn.Module, __: object, output: Tensor) -> None:
        by_channel = output.detach().movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1)
        total.append(by_channel.clamp(min=0).mean(1).to("cpu", torch.float64) * len(output))

    hook = layer.register_forward_hook(see)
    try:
        with torch.no_grad():
            for batch in torch.split(rows(target, trusted)[0], _BATCH):
                target(batch)
    finally:
        hook.remove()
    if not total:
        raise TargetError("the layer to prune is not called when the model answers; name another as `layer`")
    return np.asarray(torch.stack(total).sum(0).numpy() / len(trusted))


def _prune(
    target: TorchTarget, layer: nn.Module, order: NDArray[np.int64], trusted: Samples, lowest: float, at_a_time: int
) -> tuple[NDArray[np.int64], float]:
    """Channels taken out of the layer in that order, one left at the least, and the accuracy that is left."""
    best = accuracy(target, trusted)
    out = order[:0]
    while len(out) + at_a_time < len(order):
        more = order[: len(out) + at_a_time]
        kept = {name: value.detach().clone() for name, value in layer.named_parameters()}
        _silence(layer, more)
        now = accuracy(target, trusted)
        if now < lowest - 1e-12:
            with torch.no_grad():
                for name, value in layer.named_parameters():
                    value.copy_(kept[name])
            break
        out, best = more, now
    return out, best


def _silence(layer: nn.Module, channels: NDArray[np.int64]) -> None:
    """Let channels of a layer answer 0 to every input."""
    with torch.no_grad():
        for value in layer.parameters():
            value[torch.from_numpy(channels).to(value.device)] = 0
