"""What a network shows of training rows: the features before its last layer, and losses, after training and during."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from redan.data.samples import Samples
from redan.defenses.suspicion import Numbers
from redan.defenses.training import copied, rows, shuffled, step, trained, training
from redan.errors import SettingError, TargetError
from redan.targets.torch import TorchTarget

_BATCH = 256


def penultimate(target: TorchTarget, samples: Samples, *, layer: nn.Module | None = None) -> Numbers:
    """What goes into the last linear layer for each row, flattened: (N, D).

    layer: take what goes into this one of the target's submodules instead; where it is called several times, the last
    call counts. Batched, without gradients; the module is left as it was.

    Raises TargetError where no linear layer is called, or the layer is not the model's.

    >>> from redan.targets.torch import from_torch
    >>> model = from_torch(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval())
    >>> penultimate(model, Samples(np.ones((3, 2, 2)), np.zeros(3, int))).shape
    (3, 4)
    """
    watched = [
        part for part in target.module.modules() if (isinstance(part, nn.Linear) if layer is None else part is layer)
    ]
    if not watched:
        raise TargetError(
            "the model has no linear layer to take features before; name one of its submodules as `layer`"
        )
    seen: list[Tensor] = []

    def see(_: nn.Module, given: tuple[Any, ...]) -> None:
        seen[:] = [given[0].detach().flatten(1)]

    hooks = [part.register_forward_pre_hook(see) for part in watched]
    found = []
    try:
        with torch.no_grad():
            for batch in _batches(target, samples.x):
                seen.clear()
                target(batch)
                if not seen or len(seen[0]) != len(batch):
                    raise TargetError(
                        "the watched layer is not called once with a row for each input, so rows have no features; "
                        "name another submodule as `layer`"
                    )
                found.append(seen[0].to("cpu", torch.float64).numpy())
    finally:
        for hook in hooks:
            hook.remove()
    return np.concatenate(found) if found else np.zeros((0, 0))


def row_losses(target: TorchTarget, samples: Samples) -> Numbers:
    """The cross-entropy of each row with its label, (N,), batched and without gradients."""
    labels = torch.as_tensor(samples.y, dtype=torch.int64, device=target.device)
    with torch.no_grad():
        scores = torch.cat([target(batch) for batch in _batches(target, samples.x)])
        return np.asarray(cross_entropy(scores, labels, reduction="none").to("cpu", torch.float64).numpy())


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyTraining:
    """How a fresh network is trained while losses are written down.

    floor: the loss γ that local gradient ascent keeps batches at, by training on sign(loss - γ) · loss (Li et al. 2021,
    arXiv:2110.11571, equation 3, γ = 0.5, of a batch's mean as in the authors' code); None: usual
    training. epochs: 20 in the paper. rate and momentum: of SGD.
    """

    epochs: int = 20
    floor: float | None = 0.5
    rate: float = 0.1
    momentum: float = 0.9
    batch: int = 64

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or self.rate <= 0 or (self.floor is not None and self.floor < 0):
            raise SettingError(
                f"early training needs epochs ≥ 1, batch ≥ 1, rate > 0 and floor ≥ 0, got {self.epochs}, {self.batch}, "
                f"{self.rate} and {self.floor}; the defaults are 20, 64, 0.1 and 0.5"
            )


def early_losses(fresh: TorchTarget, samples: Samples, how: EarlyTraining | None = None, *, seed: int) -> Numbers:
    """Each row's loss after each epoch of training a copy of an untrained model on the rows: (N, E).

    The model given is not changed. Rows are shuffled, and dropout drawn, by the seed; the global generators are left
    as they were.
    """
    how = how or EarlyTraining()
    made = copied(fresh)
    x, y = rows(made, samples)
    optimizer = torch.optim.SGD(trained(made), lr=how.rate, momentum=how.momentum)
    columns = []
    with training(made, seed) as draw:
        for _ in range(how.epochs):
            made.module.train()
            for index in shuffled(len(x), how.batch, draw):
                loss = cross_entropy(made(x[index]), y[index])
                step(optimizer, loss if how.floor is None else torch.sign(loss - how.floor).detach() * loss)
            made.module.eval()
            columns.append(row_losses(made, samples))
    return np.stack(columns, 1)


def _batches(target: TorchTarget, x: NDArray[Any]) -> Iterator[Tensor]:
    for start in range(0, len(x), _BATCH):
        yield torch.as_tensor(x[start : start + _BATCH], dtype=target.dtype, device=target.device)
