"""Slopes for operations that jump: each stands for something smooth that runs through the same points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Found = list[Tensor | None] | None
"""The gradient in each argument that was read; None if torch's own is the right one here."""


class Asked(NamedTuple):
    """What an operation was called with, and the gradient that came back to its first output."""

    args: Sequence[Any]
    reads: list[int]  # positions of the arguments that depend on the input
    out: Tensor
    rows: int


StandIn = Callable[[Asked], Found]

_SMALL = 1e-12


def _difference(one: Tensor, other: Any) -> Tensor:
    """One minus other as numbers with a point."""
    apart = _real(one) - (_real(other) if isinstance(other, Tensor) else float(other))
    return apart.nan_to_num()


def _real(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype.is_floating_point else tensor.float()


def _others(tensor: Tensor, rows: int) -> list[int] | None:
    """The axes along which a row's numbers lie; None where rows have no axis of their own.

    The first axis of the rows' number counts as theirs: numbers of different rows must not be mixed.
    """
    own = next((at for at, size in enumerate(tensor.shape) if size == rows), None)
    return None if own is None else [at for at in range(tensor.dim()) if at != own]


def summed(gradient: Tensor, like: Tensor) -> Tensor:
    """A gradient of what was broadcast, as one of what it was."""
    return gradient.sum_to_size(like.shape) if gradient.shape != like.shape else gradient


def _ramp(apart: Tensor, rows: int) -> Tensor:
    """The slope of a step at 0 as a ramp, as wide on both sides as a row's numbers lie from it."""
    far = apart.abs()
    others = _others(apart, rows)
    width = (far.mean(others, keepdim=True) if others else far).clamp_min(_SMALL)
    return (far <= width) / (2 * width)


def _step(sign: float) -> StandIn:
    """A comparison of two numbers."""

    def gradients(asked: Asked) -> Found:
        apart = _difference(asked.args[0], asked.args[1])
        slope = sign * asked.out.to(apart.dtype) * _ramp(apart, asked.rows)
        return [summed(slope if at == 0 else -slope, asked.args[at]) for at in asked.reads]

    return gradients


def _sign(asked: Asked) -> Found:
    apart = _difference(asked.args[0], 0)
    return [2 * asked.out.to(apart.dtype) * _ramp(apart, asked.rows)]


def _heaviside(asked: Asked) -> Found:
    apart = _difference(asked.args[0], 0)
    slope = summed(asked.out.to(apart.dtype) * _ramp(apart, asked.rows), asked.args[0])
    return [slope if at == 0 else None for at in asked.reads]


def _same(sign: float) -> StandIn:
    """Equality: a roof as high as 1 whose eaves are two of the numbers' own steps away."""

    def gradients(asked: Asked) -> Found:
        apart = _difference(asked.args[0], asked.args[1])
        far, others = apart.abs(), _others(apart, asked.rows)
        steps = torch.where(far > 0, far, torch.inf)
        width = 2 * (steps.amin(others, keepdim=True) if others else steps)
        slope = -sign * asked.out.to(apart.dtype) * apart.sign() * (far < 0.99 * width) / width
        return [summed(slope if at == 0 else -slope, asked.args[at]) for at in asked.reads]

    return gradients


def _bucket(number: int) -> StandIn:
    """How many of some constant thresholds a number passes; it is argument `number`, they are the other."""

    def gradients(asked: Asked) -> Found:
        thresholds = asked.args[1 - number]
        if asked.reads != [number] or thresholds.dim() != 1:
            return None
        slope = _ramp(_difference(asked.args[number][..., None], thresholds), asked.rows).sum(-1)
        return [asked.out.to(slope.dtype) * slope]

    return gradients


def _logic(slope: Callable[[Tensor], Tensor]) -> StandIn:
    """Yes and no as 1 and 0: `and` is their product. On whole numbers: bits that are cut off count as kept."""

    def gradients(asked: Asked) -> Found:
        if asked.args[0].dtype != torch.bool:
            return [summed(asked.out, asked.args[0]) if at == 0 else None for at in asked.reads]
        gradient = _real(asked.out)
        return [
            summed(gradient * slope(_real(torch.as_tensor(asked.args[1 - at]))), asked.args[at]) for at in asked.reads
        ]

    return gradients


def _not(asked: Asked) -> Found:
    return [-_real(asked.out)]


def _shift(direction: int) -> StandIn:
    """Bits moved by a constant: a division by a power of two, or a product with one."""

    def gradients(asked: Asked) -> Found:
        factor = 2.0 ** (direction * _real(torch.as_tensor(asked.args[1])))
        return [summed(_real(asked.out) * factor, asked.args[0]) if at == 0 else None for at in asked.reads]

    return gradients


def _look(places: Callable[[Sequence[Any]], tuple[Tensor, Any] | None], at: int) -> StandIn:
    """A number looked up in a constant table: the slope of the table between the places around.

    places: the table with its entries along the first axis, and the whole numbers it is read at (argument `at`).
    """

    def gradients(asked: Asked) -> Found:
        found = places(asked.args) if asked.reads == [at] else None
        if found is None:
            return None
        table, index = found
        if index.dtype in (torch.bool, torch.uint8) or not table.dtype.is_floating_point:
            return None
        up, down = _around(index % len(table), len(table))
        slope = (table[up] - table[down]) / _wide(up - down, table.dim() - 1)
        return [(asked.out * slope).flatten(index.dim()).sum(-1) if table.dim() > 1 else asked.out * slope]

    return gradients


def _around(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    return (index + 1).clamp_max(size - 1), (index - 1).clamp_min(0)


def _wide(apart: Tensor, more: int) -> Tensor:
    return apart.clamp_min(1).reshape(*apart.shape, *[1] * more)


def _indexed(args: Sequence[Any]) -> tuple[Tensor, Any] | None:
    return (args[0], args[1][0]) if len(args[1]) == 1 else None


def _selected(args: Sequence[Any]) -> tuple[Tensor, Any] | None:
    return (args[0], args[2]) if args[1] == 0 else None


def _gather(asked: Asked) -> Found:
    table, axis, index = asked.args[:3]
    if asked.reads != [2] or not table.dtype.is_floating_point:
        return None
    up, down = _around(index, table.shape[axis])
    return [asked.out * (table.gather(axis, up) - table.gather(axis, down)) / (up - down).clamp_min(1)]


def _scatter(asked: Asked) -> Found:
    """A constant put where a whole number says, as a one-hot code does: it moves with the number."""
    if asked.reads != [2]:
        return None
    axis, index, value = asked.args[1:4]
    up, down = _around(index, asked.out.shape[axis])
    gradient = _real(asked.out)
    value = value[tuple(slice(size) for size in index.shape)] if isinstance(value, Tensor) and value.dim() else value
    return [(gradient.gather(axis, up) - gradient.gather(axis, down)) / (up - down).clamp_min(1) * value]


def _farthest(sign: int) -> StandIn:
    """Which is the largest (sign 1) or the smallest: the mean place, weighted by how near each comes to it."""

    def gradients(asked: Asked) -> Found:
        if len(asked.args) < 2 or asked.args[1] is None:
            return None
        axis, numbers = asked.args[1], sign * _real(asked.args[0])
        behind = numbers.amax(axis, keepdim=True) - numbers
        width = behind.mean(axis, keepdim=True).clamp_min(_SMALL)
        weight = (-behind / width).softmax(axis)
        place = torch.arange(numbers.shape[axis]).to(numbers)
        place = place.reshape(-1, *[1] * (numbers.dim() - 1 - axis % numbers.dim()))
        mean = (weight * place).sum(axis, keepdim=True)
        gradient = _real(asked.out).reshape(mean.shape)
        return [sign * gradient * weight * (place - mean) / width]

    return gradients


STAND_INS: dict[str, StandIn] = {
    **{"gt": _step(1), "ge": _step(1), "lt": _step(-1), "le": _step(-1), "eq": _same(1), "ne": _same(-1)},
    **{"sign": _sign, "sign_": _sign, "sgn": _sign},
    **{"heaviside": _heaviside, "bucketize": _bucket(0), "searchsorted": _bucket(1)},
    **dict.fromkeys(("logical_and", "bitwise_and", "__and__"), _logic(lambda other: other)),
    **dict.fromkeys(("logical_or", "bitwise_or", "__or__"), _logic(lambda other: 1 - other)),
    **dict.fromkeys(("logical_xor",), _logic(lambda other: 1 - 2 * other)),
    **dict.fromkeys(("logical_not", "bitwise_not"), _not),
    **dict.fromkeys(("__rshift__", "bitwise_right_shift"), _shift(-1)),
    **dict.fromkeys(("__lshift__", "bitwise_left_shift"), _shift(1)),
    "index": _look(_indexed, 1),
    "take": _look(lambda args: (args[0].flatten(), args[1]), 1),
    "embedding": _look(lambda args: (args[0], args[1]), 1),
    "index_select": _look(_selected, 2),
    **{"gather": _gather, "scatter": _scatter, "scatter_": _scatter},
    **{"argmax": _farthest(1), "argmin": _farthest(-1)},
}
