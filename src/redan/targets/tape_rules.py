"""How each operation on a tape is played back: torch's own gradient where it has one, a stand-in where it has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from redan.targets.tape_steps import STAND_INS, Asked, summed

_NO_NUMBERS = ("_like", "_fused_sdp_choice")
_DRAWS = {"bernoulli_", "normal_", "uniform_", "exponential_", "random_", "bernoulli", "multinomial", "poisson"}
_AS_IS = {  # the identity stands for these: they keep a number, up to the size of a step
    *("round", "floor", "ceil", "trunc", "rint", "round_", "floor_", "ceil_", "trunc_"),
    *("detach", "detach_", "alias", "clone", "lift_fresh", "contiguous", "_to_copy"),
}
_ROUNDS = {"round", "floor", "ceil", "trunc", "rint", "round_", "floor_", "ceil_", "trunc_", "floor_divide"}
_CHOICES = {"where": (0,), "masked_fill": (1,), "masked_fill_": (1,)}  # arguments that choose, and have no slope
_TEETH = {"remainder", "remainder_", "fmod", "fmod_", "frac", "frac_"}
_LOOKS = {"index", "take", "embedding", "gather", "index_select", "scatter", "scatter_"}
_MOVES = {"_to_copy", "clone", "view", "_unsafe_view", "reshape", "expand", "unsqueeze", "squeeze", "permute"} | {
    *("transpose", "t", "slice", "select", "alias", "detach", "copy_", "cat", "stack", "lift_fresh")
}


@dataclass(slots=True, eq=False)
class Call:
    """One operation: which variables it read and wrote, and all it was called with."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    reads: tuple[tuple[int, int], ...]  # (position among the flat arguments, variable)
    writes: tuple[tuple[int, int], ...] = ()  # (position among the outputs, variable)
    flat: frozenset[int] = frozenset()  # positions of reads whose true slope is zero
    gates: frozenset[int] = frozenset()  # of them those that are yes or no

    @property
    def name(self) -> str:
        name: str = self.func._schema.name.removeprefix("aten::")
        return name

    @property
    def positions(self) -> list[int]:
        return [at for at, _ in self.reads]

    def __str__(self) -> str:
        return str(self.func)


def independent(func: Any) -> bool:
    """Whether a call's numbers do not depend on those that it is given: only their shape is read, or it draws.

    Attention and dropout are marked as drawing too, and do depend on what they are given.
    """
    name = func._schema.name.removeprefix("aten::")
    return name.endswith(_NO_NUMBERS) or name.startswith("new_") or name in _DRAWS


def is_flat(call: Call, output: Tensor) -> bool:
    """Whether an output's true slope in all that was read is zero wherever there is one."""
    if not (output.dtype.is_floating_point or output.dtype.is_complex):
        return True
    if call.name in _ROUNDS or (call.name in STAND_INS and call.name not in _LOOKS) or _cuts(call):
        return True
    choices = _CHOICES.get(call.name, ())
    return all(at in call.flat for at in call.positions if at not in choices)


def is_gate(call: Call, output: Tensor) -> bool:
    """Whether a flat output is yes or no."""
    return output.dtype == torch.bool or (call.name in _MOVES and all(at in call.gates for at in call.positions))


def slopeless(call: Call) -> bool:
    """Whether a call is what is left of a division."""
    return call.name in _TEETH


def _cuts(call: Call) -> bool:
    return call.kwargs.get("rounding_mode") is not None


def gradients(call: Call, out: Mapping[int, Tensor], rows: int) -> Sequence[Tensor | None]:
    """The gradient in each of the flat arguments that were read, for gradients `out` of some outputs (by position)."""
    name, reads = call.name, call.positions
    if name in _AS_IS:
        return [_like(out[0], _flat(call.args)[at]) for at in reads]
    stand_in = STAND_INS.get(name)
    if stand_in is not None and 0 in out:
        found = stand_in(Asked(call.args, reads, out[0], rows))
        if found is not None:
            return found
    if torch.Tag.nondeterministic_seeded in call.func.tags and "attention" not in name:
        raise ValueError("it draws at random, and would draw others")
    if name == "where" and all(at in call.flat for at in reads):  # nothing but steps: so is the choice between them
        own = dict(zip(reads, _own(call.func, call.args, {}, reads, out), strict=True))
        if 0 in own:
            own[0] = summed(out[0] * (call.args[1] - call.args[2]), call.args[0])
        return [own[at] for at in reads]
    if name in ("div", "div_", "floor_divide"):  # whole parts count as the quotients that they are cut from
        return _own(torch.ops.aten.div.Tensor, call.args[:2], {}, reads, out)
    found = _own(call.func, call.args, call.kwargs, reads, out)
    if name in ("mul", "mul_") and len(reads) == 2 and len(call.gates) == 1 and len(call.flat) == 1:
        return [None if at in call.gates else each for at, each in zip(reads, found, strict=True)]
    return found


def _like(gradient: Tensor, argument: Tensor) -> Tensor:
    """A gradient of the argument's shape, in numbers that can hold one."""
    holds = argument.dtype.is_floating_point or argument.dtype.is_complex
    dtype = argument.dtype if holds else gradient.dtype
    if gradient.dtype.is_complex and not dtype.is_complex:
        gradient = gradient.real
    return gradient.to(dtype).reshape(argument.shape)


def _own(
    func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], reads: Sequence[int], out: Mapping[int, Tensor]
) -> list[Tensor | None]:
    """torch's gradient of one operation, played again on what it was called with.

    Whole numbers count as others with which one can calculate; where an operation takes none but whole numbers (to
    pick by, say), they have no slope.
    """
    try:
        return _again(func, args, kwargs, reads, out, whole=True)
    except (RuntimeError, IndexError, TypeError, ValueError):
        return _again(func, args, kwargs, reads, out, whole=False)


def _again(
    func: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    reads: Sequence[int],
    out: Mapping[int, Tensor],
    *,
    whole: bool,
) -> list[Tensor | None]:
    flat = _flat(args)
    leaves: dict[int, Tensor] = {}
    choices = _CHOICES.get(func._schema.name.removeprefix("aten::"), ())
    with torch.inference_mode(False), torch.enable_grad():
        for at in reads:
            holds = flat[at].dtype.is_floating_point or flat[at].dtype.is_complex
            if at not in choices and (whole or holds):
                leaves[at] = _plain(flat[at] if holds else flat[at].float()).detach().requires_grad_()
        if not leaves:
            return [None] * len(reads)
        over = func._schema.is_mutable  # what is written over is a copy
        numbers = {at: _plain(each, over=over) for at, each in enumerate(flat) if at not in leaves}
        again = _rebuilt(args, flat, numbers | {at: leaf.clone() for at, leaf in leaves.items()})
        answer = func(*again, **kwargs)
        outputs = answer if isinstance(answer, tuple | list) else (answer,)
        pairs = [(outputs[at], gradient) for at, gradient in out.items() if outputs[at].requires_grad]
        if not pairs:
            return [None] * len(reads)
        found = torch.autograd.grad(
            [output for output, _ in pairs],
            list(leaves.values()),
            [_like(gradient, output) for output, gradient in pairs],
            allow_unused=True,
        )
    by = dict(zip(leaves, found, strict=True))
    return [by.get(at) for at in reads]


def _flat(args: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for each in args:
        found += list(each) if isinstance(each, tuple | list) else [each]
    return found


def _rebuilt(args: Sequence[Any], flat: Sequence[Any], new: Mapping[int, Any]) -> list[Any]:
    """The arguments as they were nested, with some of the flat ones replaced."""
    found: list[Any] = []
    at = 0
    for each in args:
        if isinstance(each, tuple | list):
            found.append([new.get(at + i, flat[at + i]) for i in range(len(each))])
            at += len(each)
        else:
            found.append(new.get(at, flat[at]))
            at += 1
    return found


def _plain(argument: Any, *, over: bool = False) -> Any:
    """A number for which nothing is computed, such as a weight; one from inference mode as one that can be used."""
    if not isinstance(argument, Tensor):
        return argument
    return argument.detach().clone() if over or argument.is_inference() else argument.detach()
