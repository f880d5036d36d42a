"""Numbers that are written over while others share their memory: a part of a tensor, or a view of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Shape(NamedTuple):
    """Where a tensor lies in its storage."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    room: int  # numbers in the whole storage

    @property
    def places(self) -> Tensor:
        return torch.arange(self.room).as_strided(self.size, self.stride, self.offset)


class Overwritten(NamedTuple):
    """A tensor (`here`) after some of its memory (`there`) was written over: as old as before outside, new inside."""

    here: Shape
    there: Shape
    old: int | None
    new: int | None
    now: int

    @property
    def reads(self) -> tuple[tuple[int, int], ...]:
        return tuple((at, variable) for at, variable in enumerate((self.old, self.new)) if variable is not None)

    @property
    def writes(self) -> tuple[tuple[int, int], ...]:
        return ((0, self.now),)

    def gradients(self, out: Tensor) -> list[Tensor | None]:
        """The gradients of the two reads, for the gradient of the tensor as it is now."""
        if self.here.room != self.there.room:
            raise ValueError("one memory is read as numbers of two sizes")
        here, there = self.here.places, self.there.places
        inside = torch.zeros(self.here.room, dtype=torch.bool)
        inside[there.flatten()] = True
        found: list[Tensor | None] = []
        if self.old is not None:
            found.append(out * ~inside[here])
        if self.new is not None:
            whole = out.new_zeros(self.here.room).index_add_(0, here.flatten(), out.flatten())
            found.append(whole[there])
        return found


def storage(tensor: Tensor) -> int:
    """Tensors with the same number share memory; an empty one shares it with itself alone."""
    return tensor.untyped_storage().data_ptr() or -id(tensor)


def shape(tensor: Tensor) -> Shape:
    room = int(tensor.untyped_storage().nbytes()) // tensor.element_size()
    return Shape(tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()), room)
