"""Where a climb stands: the point, its gradient and loss, and the best point so far."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from redan.protocols import Reply, wide


class Track(NamedTuple):
    """One entry a row; `gradient` and `loss` are those of x."""

    x: Tensor
    gradient: Tensor
    loss: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor


def begun(x: Tensor, reply: Reply) -> Track:
    """A climb at its first point."""
    gradient, loss, _ = reply
    return Track(x, gradient, loss, x, gradient, loss)


def seen(track: Track, x: Tensor, reply: Reply) -> Track:
    """The climb at its next point."""
    gradient, loss, _ = reply
    better = loss > track.best_loss
    at = wide(better, x)
    return Track(
        x=x,
        gradient=gradient,
        loss=loss,
        best=torch.where(at, x, track.best),
        best_gradient=torch.where(at, gradient, track.best_gradient),
        best_loss=torch.where(better, loss, track.best_loss),
    )


def returned(track: Track, where: Tensor) -> Track:
    """The climb back at its best point, in the rows of a mask (N,); the loss stays the one last seen."""
    at = wide(where, track.x)
    return track._replace(
        x=torch.where(at, track.best, track.x),
        gradient=torch.where(at, track.best_gradient, track.gradient),
    )
