"""How each operation on a tape is played back: torch's own gradient where it has one, a stand-in where it has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_AS_IS = {  # the identity stands for these: they keep a number, up to the size of a step
    *("round", "floor", "ceil", "trunc", "rint", "detach", "alias", "clone", "lift_fresh", "contiguous"),
    *("round_", "floor_", "ceil_", "trunc_", "detach_", "_to_copy"),
}
_STEPS = {"gt": 1, "ge": 1, "lt": -1, "le": -1}  # the sign with which the first argument counts
_SIGNS = {"sign", "sgn"}
_CHOICES = {"where": (0,), "masked_fill": (1,), "masked_fill_": (1,)}  # arguments that choose, and have no slope


def gradients(
    func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], reads: Sequence[int], out: Mapping[int, Tensor]
) -> list[Tensor | None]:
    """The gradient in each of the flat arguments at `reads`, for gradients `out` of some outputs (by position)."""
    name = func._schema.name.removeprefix("aten::")
    if torch.Tag.nondeterministic_seeded in func.tags:  # what is drawn does not depend on what it is drawn beside
        return [None] * len(reads)
    if name in _AS_IS:
        return [_like(out[0], _flat(args)[at]) for at in reads]
    if name in _STEPS:
        return _step(_STEPS[name], args, reads, out[0])
    if name in _SIGNS:
        return [_step(2, (args[0], torch.zeros_like(args[0])), [0], out[0])[0]]
    if name == "where" and list(reads) == [0]:  # one of two numbers that do not depend on x: a step between them
        return [_summed(out[0] * (args[1] - args[2]), args[0])]
    if name in ("div", "div_", "floor_divide"):  # whole parts count as the quotients that they are cut from
        return _own(torch.ops.aten.div.Tensor, args[:2], {}, reads, out)
    return _own(func, args, kwargs, reads, out)


def _like(gradient: Tensor, argument: Tensor) -> Tensor:
    """A gradient of the argument's shape, in numbers that can hold one."""
    dtype = argument.dtype if argument.dtype.is_floating_point else gradient.dtype
    return gradient.to(dtype).reshape(argument.shape)


def _step(sign: int, args: Sequence[Any], reads: Sequence[int], out: Tensor) -> list[Tensor | None]:
    """A comparison stands for a ramp: as wide on both sides of the threshold as a row's numbers lie from it."""
    one, other = args[0], args[1]
    apart = one - other if isinstance(other, Tensor) else one - torch.as_tensor(other, dtype=torch.float32)
    apart = apart.float() if not apart.dtype.is_floating_point else apart
    width = apart.abs().flatten(1).mean(1).clamp_min(1e-12) if apart.dim() > 1 else apart.abs().clamp_min(1e-12)
    width = width.reshape(-1, *[1] * (apart.dim() - 1))
    slope = sign * out.to(apart.dtype) * (apart.abs() <= width) / (2 * width)
    found: list[Tensor | None] = []
    for at in reads:
        argument = args[at]
        found.append(_summed(slope if at == 0 else -slope, argument))
    return found


def _summed(gradient: Tensor, like: Tensor) -> Tensor:
    """A gradient of what was broadcast, as one of what it was."""
    while gradient.dim() > like.dim():
        gradient = gradient.sum(0)
    for at, size in enumerate(like.shape):
        if size == 1 and gradient.shape[at] != 1:
            gradient = gradient.sum(at, keepdim=True)
    return gradient


def _own(
    func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], reads: Sequence[int], out: Mapping[int, Tensor]
) -> list[Tensor | None]:
    """torch's gradient of one operation, played again on what it was called with."""
    flat = _flat(args)
    leaves: dict[int, Tensor] = {}
    with torch.enable_grad():
        for at in reads:
            if at not in _CHOICES.get(func._schema.name.removeprefix("aten::"), ()):
                number = flat[at] if flat[at].dtype.is_floating_point else flat[at].float()
                leaves[at] = number.detach().requires_grad_()
        gate = _gate(func, flat, reads)
        again = _rebuilt(args, flat, {at: leaf.clone() for at, leaf in leaves.items()})
        answer = func(*again, **kwargs)
        outputs = answer if isinstance(answer, tuple | list) else (answer,)
        pairs = [(outputs[at], gradient) for at, gradient in out.items() if outputs[at].requires_grad]
        if not pairs:
            return [None] * len(reads)
        found = torch.autograd.grad(
            [output for output, _ in pairs],
            list(leaves.values()),
            [gradient.to(output.dtype).reshape(output.shape) for output, gradient in pairs],
            allow_unused=True,
        )
    by = dict(zip(leaves, found, strict=True))
    return [None if at == gate else by.get(at) for at in reads]


def _gate(func: Any, flat: Sequence[Any], reads: Sequence[int]) -> int | None:
    """Where a number is let through or not (a product with a mask of its own making): the mask, which has no slope."""
    if func._schema.name not in ("aten::mul", "aten::mul_") or len(reads) != 2:
        return None
    masks = [at for at in reads if not flat[at].dtype.is_floating_point or _is_mask(flat[at])]
    return masks[0] if len(masks) == 1 else None


def _is_mask(tensor: Tensor) -> bool:
    return bool(((tensor == 0) | (tensor == 1)).all())


def _flat(args: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for each in args:
        found += list(each) if isinstance(each, tuple | list) else [each]
    return found


def _rebuilt(args: Sequence[Any], flat: Sequence[Any], new: Mapping[int, Tensor]) -> list[Any]:
    """The arguments as they were nested, with some of the flat ones replaced."""
    found: list[Any] = []
    at = 0
    for each in args:
        if isinstance(each, tuple | list):
            found.append([_plain(new.get(at + i, flat[at + i])) for i in range(len(each))])
            at += len(each)
        else:
            found.append(_plain(new.get(at, flat[at])))
            at += 1
    return found


def _plain(argument: Any) -> Any:
    """A weight as a plain number: nothing is computed for it."""
    return (
        argument.detach() if isinstance(argument, Tensor) and argument.is_leaf and argument.requires_grad else argument
    )
