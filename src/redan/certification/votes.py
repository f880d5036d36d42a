"""Which classes a model answers to noisy copies of rows: counted in micro-batches, the same whatever else is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from redan.answers import evaluate, micro_batch
from redan.engine.intake import checked_rows, count_classes, row_names
from redan.errors import NotCertifiableError
from redan.protocols import Output
from redan.rows import Streams
from redan.runners.local import cores, each, pieces
from redan.targets import Target, as_target
from redan.targets.torch import unchanged

T = TypeVar("T")

_BLOCK = 128
_TOGETHER = 2**22
"""Numbers of noise that are drawn at a time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Voters:
    """Rows x (N, …) under Gaussian noise of standard deviation sigma in each coordinate, in units of the box.

    Noise is not cut at the bounds of the box. streams: the rows' own, so that the i-th draw of a row is the same in any
    batch, order or number of calls.
    """

    target: Target[Tensor]
    x: Tensor
    sigma: float
    streams: Streams
    classes: int

    def keyed(self, name: str) -> Voters:
        """The same rows with noise of their own for one part of the work."""
        return Voters(
            target=self.target, x=self.x, sigma=self.sigma, streams=self.streams.keyed(name), classes=self.classes
        )

    def votes(self, rows: Tensor, draws: int) -> Tensor:
        """How often each class has the largest score in `draws` more draws of each of `rows` (n,): (n, K).

        A draw that the model failed on is a vote for no class.
        """
        counts = torch.zeros(len(rows) * self.classes, dtype=torch.int64, device=self.x.device)
        micro = micro_batch(self.x)
        size = max(micro, _TOGETHER // max(1, self.x[0].numel())) if len(rows) else 1
        total = len(rows) * draws
        for start in range(0, total, size):
            place = torch.arange(start, min(start + size, total), device=self.x.device) // draws
            noise = self.streams.take(rows[place]).normal(self.x.shape[1:], self.x.dtype)
            found = evaluate(self.target, self.x[rows[place]] + self.sigma * noise, micro=micro, classes=self.classes)
            cell = place * self.classes + found.output.nan_to_num(nan=-torch.inf).argmax(1)
            counts += torch.bincount(cell[found.answered], minlength=len(counts))
        return counts.reshape(len(rows), self.classes)


def by_rows(
    model: nn.Module | Target[Tensor],
    x: ArrayLike | Tensor,
    sigma: float,
    work: Callable[[Voters], T],
    *,
    bounds: tuple[float, float] | None,
    seed: int,
    workers: int,
) -> list[T]:
    """What `work` says of each block of rows, in order; of no rows, of one empty block.

    Raises what `redan.attack` raises for models and rows, NotCertifiableError for a model that answers no classes.
    """
    target = as_target(model, bounds)
    if target.output in (Output.SIGMOIDS, Output.VALUE):
        raise NotCertifiableError(
            f"smoothing certifies the class of a row, and this model answers {target.output.name.lower()}; certify "
            "a model whose classes exclude each other"
        )
    inputs, none = checked_rows(x, torch.zeros(np.shape(x)[:1], dtype=torch.int64), target)
    names = row_names(inputs)
    with unchanged(target), torch.no_grad():
        classes = count_classes(target, inputs, none)
        blocks = pieces(len(inputs), _BLOCK, workers or cores()) or (range(0),)

        def block(at: range) -> T:
            with torch.no_grad():  # a thread's own setting
                streams = Streams.start(seed, names[at.start : at.stop], inputs.device)
                part = inputs[at.start : at.stop]
                return work(Voters(target=target, x=part, sigma=sigma, streams=streams, classes=classes))

        done = dict(each(block, blocks, workers or cores(), lambda: None))
    return [done[at] for at in range(len(blocks))]
