"""A tape of the operations that led from inputs to scores, played back with a rule of our own for each.

torch's own tape ends where a model rounds, compares, detaches, or says itself what its gradient is. This one is
written below autograd, where only plain operations arrive, whatever is around them (Athalye et al. 2018,
arXiv:1802.00420, section 4.1, is what the rules come from: backward pass differentiable approximation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from redan.targets.tape_rules import gradients


class UnfollowedError(Exception):
    """The model does something whose gradient cannot be played back."""


class Step(NamedTuple):
    """One operation: which variables it read and wrote, and all it was called with."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    reads: tuple[tuple[int, int], ...]  # (position among the flat arguments, variable)
    writes: tuple[tuple[int, int], ...]  # (position among the outputs, variable)


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Writes down what depends on `x` while it is on; `play` takes a gradient of the scores back to x."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._variable: dict[int, int] = {id(x): 0}  # by the tensor's identity, of which `_alive` takes care
        self._alive: list[Tensor] = [x]
        self._storages: dict[int, set[int]] = {_storage(x): {id(x)}}
        self._steps: list[Step] = []
        self._count = 1

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        flat = _flat(args)
        reads = tuple((at, self._variable[id(a)]) for at, a in enumerate(flat) if id(a) in self._variable)
        mutable = func._schema.is_mutable
        told = _copied(args, flat) if mutable and reads else args
        out = func(*args, **kwargs)
        outputs = out if isinstance(out, tuple | list) else (out,)
        if mutable:
            self._check_alone(outputs, depends=bool(reads))
        for each in outputs:
            if isinstance(each, Tensor):
                self._storages.setdefault(_storage(each), set()).add(id(each))
                self._alive.append(each)
        if reads:
            self._steps.append(Step(func, told, kwargs, reads, self._written(outputs)))
        elif mutable:
            for each in outputs:
                self._variable.pop(id(each), None)
        return out

    def _written(self, outputs: Sequence[Any]) -> tuple[tuple[int, int], ...]:
        found = []
        for at, each in enumerate(outputs):
            if isinstance(each, Tensor):
                self._variable[id(each)] = self._count
                found.append((at, self._count))
                self._count += 1
        return tuple(found)

    def _check_alone(self, outputs: Sequence[Any], *, depends: bool) -> None:
        """A tensor that is written over must share its memory with no other: who reads it later would not know."""
        for each in outputs:
            if isinstance(each, Tensor):
                others = self._storages.get(_storage(each), set()) - {id(each)}
                if others and (depends or others & self._variable.keys()):
                    raise UnfollowedError("it writes into a part of a tensor")

    def play(self, scores: Tensor, gradient: Tensor) -> Tensor:
        """The gradient in x for a gradient of the scores (N, K). Raises UnfollowedError."""
        x = self._alive[0]
        if id(scores) not in self._variable:
            return torch.zeros_like(x)
        found: dict[int, Tensor] = {self._variable[id(scores)]: gradient}
        for step in reversed(self._steps):
            out = {at: found.pop(variable) for at, variable in step.writes if variable in found}
            if not out:
                continue
            try:
                back = gradients(step.func, step.args, step.kwargs, [at for at, _ in step.reads], out)
            except (RuntimeError, NotImplementedError, TypeError) as error:
                raise UnfollowedError(f"{step.func} has no gradient to play back: {error}") from error
            for (_, variable), each in zip(step.reads, back, strict=True):
                if each is not None:
                    found[variable] = found[variable] + each if variable in found else each
        return found.get(0, torch.zeros_like(x))


def taped(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tape]:
    """The function's answers to x (N, …), and the tape of how it came to them."""
    x = x.detach().clone()
    tape = Tape(x)
    with torch.no_grad(), tape:
        answer = function(x)
    return answer, tape


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _flat(args: Sequence[Any]) -> list[Any]:
    """Arguments one by one, those in lists too."""
    found: list[Any] = []
    for each in args:
        found += list(each) if isinstance(each, tuple | list) else [each]
    return found


def _copied(args: tuple[Any, ...], flat: Sequence[Any]) -> tuple[Any, ...]:
    """The arguments with their tensors' numbers as they are now."""
    if len(flat) != len(args):
        raise UnfollowedError("it writes into tensors of a list")
    return tuple(each.clone() if isinstance(each, Tensor) else each for each in args)
