"""ONNX operators that lay arrays out, cut, join and index them, in torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from redan.formats.onnx_operators_node import Node, axes_of, whole


def constant(node: Node) -> Tensor:
    for name, dtype in _LITERALS:
        if node.get(name) is not None:
            return torch.tensor(node.get(name), dtype=dtype)
    value = node.get("value")
    if not isinstance(value, Tensor):
        raise node.refuse("a value that is text or sparse")
    return value


_LITERALS = (
    ("value_float", torch.float32),
    ("value_floats", torch.float32),
    ("value_int", torch.int64),
    ("value_ints", torch.int64),
)


def constant_of_shape(node: Node, lengths: Tensor) -> Tensor:
    value = node.get("value", torch.zeros(1))
    return torch.full(whole(lengths), value.item(), dtype=value.dtype, device=lengths.device)


def number_range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype, device=start.device)


def shape(node: Node, x: Tensor) -> Tensor:
    return torch.tensor(x.shape, dtype=torch.int64, device=x.device)[node.get("start", 0) : node.get("end")]


def size(x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


def reshape(node: Node, x: Tensor, lengths: Tensor) -> Tensor:
    """A 0 copies the length of that axis, unless the node allows zeros."""
    wanted = whole(lengths)
    if not node.get("allowzero", 0):
        wanted = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    return x.reshape(wanted)


def flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.get("perm", tuple(reversed(range(x.dim())))))


def squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    found = axes_of(node, axes)
    return x.squeeze() if found is None else x.squeeze(tuple(found))


def unsqueeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    found = axes_of(node, axes) or []
    dimensions = x.dim() + len(found)
    for axis in sorted(n % dimensions for n in found):
        x = x.unsqueeze(axis)
    return x


def concatenate(node: Node, *parts: Tensor) -> Tensor:
    return torch.cat(parts, node.get("axis", 1))


def split(node: Node, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = node.get("axis", 0)
    found = axes_of(node, lengths, "split")
    if found is None:
        return torch.split(x, math.ceil(x.shape[axis] / node.outputs), axis)
    return torch.split(x, found, axis)


def cut(
    node: Node,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """Slice: attributes before operator set 10, inputs from there on."""
    first, last = axes_of(node, starts, "starts") or [], axes_of(node, ends, "ends") or []
    along = axes_of(node, axes) or list(range(len(first)))
    strides = [1] * len(first) if steps is None else whole(steps)
    for start, end, axis, step in zip(first, last, along, strides, strict=True):
        taken = range(*slice(start, end if step > 0 or end >= -x.shape[axis] else None, step).indices(x.shape[axis]))
        if step == 1:
            x = x.narrow(axis, taken.start, len(taken))
        else:
            x = x.index_select(axis, torch.tensor(list(taken), dtype=torch.int64, device=x.device))
    return x


def gather(node: Node, x: Tensor, index: Tensor) -> Tensor:
    axis = node.get("axis", 0) % x.dim()
    index = torch.where(index < 0, index + x.shape[axis], index).to(torch.int64)
    taken = x.index_select(axis, index.flatten())
    return taken.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def gather_elements(node: Node, x: Tensor, index: Tensor) -> Tensor:
    axis = node.get("axis", 0)
    return x.gather(axis, torch.where(index < 0, index + x.shape[axis], index).to(torch.int64))


def expand(x: Tensor, lengths: Tensor) -> Tensor:
    """Each side may be the longer one, and where both have an axis, the 1 of either gives way."""
    wanted = whole(lengths)
    wanted = [1] * (x.dim() - len(wanted)) + wanted
    own = [1] * (len(wanted) - x.dim()) + list(x.shape)
    return x.expand([there if here == 1 else here for here, there in zip(own, wanted, strict=True)])


def tile(x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(whole(repeats))


def triangle(node: Node, x: Tensor, diagonal: Tensor | None = None) -> Tensor:
    k = 0 if diagonal is None else int(diagonal)
    return x.triu(k) if node.get("upper", 1) else x.tril(k)


def cumulative_sum(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    along = int(axis)
    if node.get("reverse", 0):
        x = x.flip(along)
    found = x.cumsum(along, dtype=x.dtype) - (x if node.get("exclusive", 0) else 0)
    return found.flip(along) if node.get("reverse", 0) else found


def top_k(node: Node, x: Tensor, count: Tensor | None = None) -> tuple[Tensor, Tensor]:
    k = node.get("k") if count is None else int(count)
    values, indices = x.topk(k, node.get("axis", -1), largest=bool(node.get("largest", 1)))
    return values, indices


def arg_max(node: Node, x: Tensor) -> Tensor:
    if node.get("select_last_index", 0):
        raise node.refuse("select_last_index")
    return x.argmax(node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))


def arg_min(node: Node, x: Tensor) -> Tensor:
    if node.get("select_last_index", 0):
        raise node.refuse("select_last_index")
    return x.argmin(node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))


def pad(
    node: Node, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    """Attributes before operator set 11, inputs from there on. Negative lengths crop."""
    lengths = axes_of(node, pads, "pads") or []
    along = list(range(x.dim())) if axes is None else [n % x.dim() for n in whole(axes)]
    before, after = lengths[: len(along)], lengths[len(along) :]
    around = {axis: (low, high) for axis, low, high in zip(along, before, after, strict=True)}
    mode = node.get("mode", "constant")
    if mode == "constant":
        filled = node.get("value", 0.0) if value is None else value.item()
        order = [around.get(axis, (0, 0)) for axis in reversed(range(x.dim()))]
        return functional.pad(x, [n for both in order for n in both], value=filled)
    for axis, (low, high) in around.items():
        if low or high:
            x = x.index_select(axis, _outside(node, mode, x.shape[axis], low, high).to(x.device))
    return x


def _outside(node: Node, mode: str, length: int, low: int, high: int) -> Tensor:
    """Which position stands at each place of an axis that grew by `low` before and `high` after."""
    place = torch.arange(-low, length + high)
    match mode:
        case "edge":
            return place.clamp(0, length - 1)
        case "wrap":
            return place % length
        case "reflect":
            period = max(1, 2 * (length - 1))
            folded = place % period
            return torch.where(folded >= length, period - folded, folded)
    raise node.refuse(f"mode {mode}")


def depth_to_space(node: Node, x: Tensor) -> Tensor:
    block = node.get("blocksize")
    n, c, h, w = x.shape
    if node.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, block)
    parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // block**2, h * block, w * block)


def space_to_depth(node: Node, x: Tensor) -> Tensor:
    block = node.get("blocksize")
    if node.get("mode", "DCR") == "CRD":
        return functional.pixel_unshuffle(x, block)
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * block**2, h // block, w // block)
