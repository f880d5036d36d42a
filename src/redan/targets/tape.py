"""A tape of the operations that led from inputs to scores, played back with a rule of our own for each.

torch's own tape ends where a model rounds, compares, detaches, or says itself what its gradient is. This one is
written below autograd, where only plain operations arrive, whatever is around them (Athalye et al. 2018,
arXiv:1802.00420, section 4.1, is what the rules come from: backward pass differentiable approximation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from redan.targets.tape_rules import Call, gradients, independent, is_flat, is_gate, slopeless
from redan.targets.tape_writes import Overwritten, Shape, shape, storage

_SOFTENED = {"clamp_min", "clamp_min_", "clamp", "clamp_", "add", "add_"}  # what keeps a probability off zero


class UnfollowedError(Exception):
    """The model does something whose gradient cannot be played back."""


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Writes down what depends on `x` while it is on; `play` takes a gradient of the scores back to x.

    Tensors are known by identity, of which `_alive` takes care. A number that is written over is another variable from
    then on: steps before keep a copy of what they read, and tensors that share its memory catch up when they are read.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._variable: dict[int, int] = {id(x): 0}
        self._alive: list[Tensor] = [x]
        self._steps: list[Call | Overwritten] = []
        self._count = 1
        self._flat: set[int] = set()  # variables whose true slope is zero, or jumps
        self._gates: set[int] = set()  # of them those that are yes or no
        self._from: dict[int, Call] = {}
        self._readers: dict[int, list[Call]] = {}  # by storage
        self._written: dict[int, list[tuple[Shape, int | None]]] = {}  # by storage: what was written over, with what
        self._seen: dict[int, int] = {}  # how many of these a tensor has caught up with
        self._why: str | None = None

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        flat = list(flattened(args))
        reads = tuple((at, v) for at, each in enumerate(flat) if (v := self._current(each)) is not None)
        if independent(func):
            reads = ()
        if any(self._current(each) is not None for each in flattened(tuple(kwargs.values()))):
            self._why = f"{func} is given numbers that depend on the input by name"
        call = Call(func, args, kwargs, reads)
        over = _overwritten(func, args, kwargs) if func._schema.is_mutable else []
        if over:
            if reads:
                self._remember(call)
            for each in over:
                self._keep(storage(each))
        elif reads:
            self._remember(call)
        out = func(*args, **kwargs)
        outputs = out if isinstance(out, tuple | list) else (out,)
        if len(over) > 1 and reads:
            self._why = f"{func} writes over several tensors"
        made = [(at, each) for at, each in enumerate(outputs) if isinstance(each, Tensor)]
        for _, each in made:
            self._alive.append(each)
            if not any(each is other for other in over):
                self._seen[id(each)] = len(self._written.get(storage(each), ()))
        if reads:
            self._write(call, made)
        for each in over:
            if not reads:
                self._variable.pop(id(each), None)
            log = self._written.setdefault(storage(each), [])
            log.append((shape(each), self._variable.get(id(each))))
            self._seen[id(each)] = len(log)
            self._alive.append(each)
        return out

    def _current(self, tensor: Any) -> int | None:
        """The variable that a tensor is now; others may have been written over that share its memory."""
        if not isinstance(tensor, Tensor):
            return None
        variable = self._variable.get(id(tensor))
        log = self._written.get(storage(tensor))
        if log is None:
            return variable
        for there, new in log[self._seen.get(id(tensor), 0) :]:
            if variable is not None or new is not None:
                step = Overwritten(shape(tensor), there, variable, new, self._count)
                self._steps.append(step)
                if all(read in self._flat for read in (variable, new) if read is not None):
                    self._flat.add(self._count)
                variable, self._count = self._count, self._count + 1
        self._alive.append(tensor)
        self._seen[id(tensor)] = len(log)
        if variable is not None:
            self._variable[id(tensor)] = variable
        return variable

    def _remember(self, call: Call) -> None:
        for each in flattened(call.args):
            if isinstance(each, Tensor):
                self._readers.setdefault(storage(each), []).append(call)

    def _keep(self, where: int) -> None:
        """Steps that read from this storage keep its numbers as they are now."""
        copies: dict[int, Tensor] = {}

        def kept(each: Any) -> Any:
            if isinstance(each, tuple | list):
                return type(each)(kept(part) for part in each)
            if not isinstance(each, Tensor) or storage(each) != where:
                return each
            return copies.setdefault(id(each), each.detach().clone())

        for call in self._readers.pop(where, ()):
            call.args = kept(call.args)

    def _write(self, call: Call, made: Sequence[tuple[int, Tensor]]) -> None:
        """A call's outputs are new variables."""
        call = self._logarithm(call)
        call.flat = frozenset(at for at, variable in call.reads if variable in self._flat)
        call.gates = frozenset(at for at, variable in call.reads if variable in self._gates)
        for at, each in made:
            variable, self._count = self._count, self._count + 1
            self._variable[id(each)] = variable
            call.writes += ((at, variable),)
            self._from[variable] = call
            if is_flat(call, each):
                self._flat.add(variable)
                if is_gate(call, each):
                    self._gates.add(variable)
        self._steps.append(call)

    def _logarithm(self, call: Call) -> Call:
        """The logarithm of a softmax has a slope where the softmax itself has none left, being all 0 and 1."""
        if call.name != "log":
            return call
        source = self._from.get(call.reads[0][1])
        while source is not None and source.name in _SOFTENED and len(source.reads) == 1:
            source = self._from.get(source.reads[0][1])
        if source is None or source.name != "_softmax":
            return call
        whole = Call(torch.ops.aten._log_softmax.default, source.args, {}, source.reads)
        self._remember(whole)
        return whole

    def play(self, scores: Tensor, gradient: Tensor, *, teeth: bool = True) -> Tensor:
        """The gradient in x for a gradient of the scores (N, K). Raises UnfollowedError.

        teeth: whether what is left of a division keeps its slope, of 1 and a jump; without, it has none in the mean.
        """
        x = self._alive[0]
        if self._why is not None:
            raise UnfollowedError(self._why)
        last = self._current(scores)
        if last is None:
            return torch.zeros_like(x)
        found: dict[int, Tensor] = {last: gradient}
        for step in reversed(self._steps):
            out = {at: found.pop(variable) for at, variable in step.writes if variable in found}
            if not out:
                continue
            try:
                back = _back(step, out, len(x), teeth)
            except Exception as error:  # an operation may refuse in any way
                raise UnfollowedError(f"{step} has no gradient to play back: {error}") from error
            for (_, variable), each in zip(step.reads, back, strict=True):
                if each is not None:
                    found[variable] = found[variable] + each if variable in found else each
        return found.get(0, torch.zeros_like(x))


def _back(step: Call | Overwritten, out: Mapping[int, Tensor], rows: int, teeth: bool) -> Sequence[Tensor | None]:
    if isinstance(step, Overwritten):
        return step.gradients(out[0])
    return [None] * len(step.reads) if not teeth and slopeless(step) else gradients(step, out, rows)


def taped(function: Callable[[Tensor], Tensor], x: Tensor, *, watched: bool = False) -> tuple[Tensor, Tape]:
    """The function's answers to x (N, …), and the tape of how it came to them.

    watched: with autograd looking on, so that a module does not take a short cut which only it knows.
    """
    x = x.detach().clone()
    if watched:
        with torch.enable_grad():
            x = x.requires_grad_().clone()
    tape = Tape(x)
    with torch.set_grad_enabled(watched), tape:
        answer = function(x)
    return answer, tape


def flattened(args: Sequence[Any]) -> Iterator[Any]:
    """Arguments one by one, those in lists too."""
    for each in args:
        if isinstance(each, tuple | list):
            yield from each
        else:
            yield each


def _overwritten(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The arguments that a call writes over."""
    found: list[Tensor] = []
    for at, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[at] if at < len(args) else kwargs.get(argument.name)
            found += [each for each in flattened((value,)) if isinstance(each, Tensor)]
    return found
