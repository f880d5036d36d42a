"""A cheaper gradient pass of convolutional networks on a CPU: the plain pass's numbers, up to rounding.

Two things make it cheaper, and both are decided by shapes, so that the same module always takes the same path:

* **Products for input gradients** (`redan.targets.products`).
* **Folded norms.** A convolution followed by batch normalization with fixed statistics is one convolution with scaled
  weights and a shifted bias.

Nothing of the module is touched, copied or traced. While `Cheaper.on()` is entered, calls of torch's functions are
seen one by one, and replaced where they are understood: a convolution's result is owed until the next call. If that
is its batch normalization the two are computed as one, and if it is anything else the convolution is computed first,
as it was asked for. So hooks, parametrizations, branches and shared modules mean what they mean in the plain pass.
Folded weights are made again when a parameter or a statistic was changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from redan.targets.products import FEW_CHANNELS, convolved

TOLERANCE = 1e-6
"""Of the largest entry: how far scores and gradients may be from the plain pass's."""


class _Owed(Tensor):
    """Stands for a convolution's result that is not computed yet. Only `_Cheaper` can say what it is."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def like(x: Tensor) -> _Owed:
        owed: _Owed = torch.Tensor._make_wrapper_subclass(_Owed, (0, 0, 0, 0), dtype=x.dtype, device=x.device)
        return owed

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise RuntimeError(f"{func} met a convolution that is not computed yet: the plain pass is needed here")


class _Debt(NamedTuple):
    """A convolution that was asked for: its arguments, and the version of its input then."""

    args: tuple[Any, ...]
    version: int


class _Folded(NamedTuple):
    """A convolution and its norm as one, and what that was made of."""

    parts: tuple[Tensor | None, ...]
    versions: tuple[int, ...]
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Cheaper:
    """Which of the two a target's gradient passes use. `choose` decides; without either it is the plain pass."""

    products: bool = False
    norms: bool = False
    _made: dict[tuple[int, int], _Folded] = field(default_factory=dict, repr=False)

    @property
    def words(self) -> str:
        """What a report says of it; `recorded` reads it back."""
        said = [words for words, chosen in (("products", self.products), ("folded norms", self.norms)) if chosen]
        return " and ".join(said) or "plain"

    @property
    def rounds(self) -> bool:
        """Whether scores, and not only gradients, may differ from the plain pass's by rounding."""
        return self.norms

    def on(self) -> AbstractContextManager[object]:
        """The context in which a module's forward pass is the cheaper one."""
        return _Cheaper(self) if self.products or self.norms else nullcontext()

    def folded(self, conv: tuple[Any, ...], norm: _Norm) -> tuple[Tensor, Tensor]:
        """Weight and bias of a convolution (its seven arguments) and its norm as one convolution."""
        parts = (conv[1], conv[2], norm.mean, norm.variance, norm.weight, norm.bias)
        versions = tuple(-1 if part is None else part._version for part in parts)
        key = (id(conv[1]), id(norm.mean))
        known = self._made.get(key)
        if known is None or known.versions != versions or any(a is not b for a, b in zip(known.parts, parts)):  # noqa: B905
            with torch.no_grad():
                weight, bias = _scaled(conv[1], conv[2], norm)
            known = self._made[key] = _Folded(parts, versions, weight, bias)
        return known.weight, known.bias


class _Norm(NamedTuple):
    """Batch normalization's arguments, with the input left out."""

    mean: Tensor
    variance: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float


def _norm(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Norm | None:
    """The arguments of `functional.batch_norm` as it hands them on itself, if it only applies fixed statistics."""
    if len(args) != 3 or kwargs.get("training") is not False:
        return None
    mean, variance = args[1:]
    if not isinstance(mean, Tensor) or not isinstance(variance, Tensor):
        return None
    return _Norm(mean, variance, kwargs["weight"], kwargs["bias"], kwargs["eps"])


def _scaled(weight: Tensor, bias: Tensor | None, norm: _Norm) -> tuple[Tensor, Tensor]:
    """Computed in float64 and rounded once."""
    scale = (norm.variance.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.mean.double() if bias is None else bias.double() - norm.mean.double()
    shift = shift * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    return (weight.double() * scale.reshape(-1, 1, 1, 1)).to(weight.dtype), shift.to(weight.dtype)


class _Cheaper(TorchFunctionMode):
    """One forward pass. At most one convolution is open: the call after it decides what becomes of it."""

    def __init__(self, how: Cheaper) -> None:
        super().__init__()
        self._how = how
        self._open: _Owed | None = None
        self._debts: dict[int, tuple[_Owed, _Debt]] = {}  # the placeholders are held, so that their ids stay theirs
        self._paid: dict[int, Tensor] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if self._open is not None:
            if func is Tensor.dim and args[0] is self._open:
                return 4  # what `nn.BatchNorm2d` asks before it calls
            owed, self._open = self._open, None
            if func is functional.batch_norm and args and args[0] is owed:
                answer = self._as_one(owed, args, kwargs or {})
                if answer is not None:
                    return answer
            self._pay(owed)
        if self._debts:
            args = tuple(self._known(part) for part in args)
            kwargs = {name: self._known(part) for name, part in (kwargs or {}).items()}
        if func is torch.conv2d and not kwargs and len(args) == 7:
            return self._convolution(args)
        return func(*args, **(kwargs or {}))

    def _convolution(self, args: tuple[Any, ...]) -> Tensor:
        x, weight, bias = args[:3]
        ours = isinstance(weight, nn.Parameter) and (bias is None or isinstance(bias, nn.Parameter))
        if self._how.norms and ours and x.requires_grad and x.dim() == 4 and torch.is_grad_enabled():
            owed = self._open = _Owed.like(x)
            self._debts[id(owed)] = owed, _Debt(args, x._version)
            return owed
        return convolved(*args) if self._how.products else functional.conv2d(*args)

    def _as_one(self, owed: _Owed, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
        norm = _norm(args, kwargs)
        conv = self._debt(owed)
        if norm is None or norm.mean.dtype != conv[1].dtype or norm.mean.device != conv[1].device:
            return None
        weight, bias = self._how.folded(conv, norm)
        return (convolved if self._how.products else functional.conv2d)(conv[0], weight, bias, *conv[3:])

    def _debt(self, owed: _Owed) -> tuple[Any, ...]:
        args, version = self._debts[id(owed)][1]
        if args[0]._version != version:
            raise RuntimeError("a convolution's input was written over before its result was used")
        return args

    def _pay(self, owed: _Owed) -> Tensor:
        """The convolution as it was asked for."""
        if id(owed) not in self._paid:
            args = self._debt(owed)
            with torch.enable_grad():
                self._paid[id(owed)] = convolved(*args) if self._how.products else functional.conv2d(*args)
        return self._paid[id(owed)]

    def _known(self, part: Any) -> Any:
        """An argument with what it stands for in its place."""
        if type(part) is _Owed:
            if not torch.is_grad_enabled():  # perhaps in an autograd.Function, which did not see where it came from
                raise RuntimeError("a convolution that was asked for with gradients is used where there are none")
            return self._pay(part)
        if type(part) in (list, tuple) and any(type(each) is _Owed for each in part):
            return type(part)(self._known(each) for each in part)
        return part


def _can(module: nn.Module) -> Cheaper | None:
    """What may make a module's passes cheaper; None where nothing may, or where something was compiled."""
    parts = list(module.modules())
    if any(isinstance(part, torch.jit.ScriptModule) or hasattr(part, "_orig_mod") for part in parts):
        return None
    convolutions = [part for part in parts if isinstance(part, nn.Conv2d)]
    strided = any(part.kernel_size == (1, 1) and part.stride != (1, 1) for part in convolutions)
    products = strided or any(part.in_channels <= FEW_CHANNELS for part in convolutions)
    norms = bool(convolutions) and any(isinstance(part, nn.BatchNorm2d) for part in parts)
    return Cheaper(products, norms) if products or norms else None


def recorded(words: str) -> Cheaper:
    """The path that a run's log names."""
    return Cheaper("products" in words, "folded norms" in words)


def choose(module: nn.Module, call: Callable[[Tensor], Tensor], x: Tensor) -> Cheaper:
    """The cheapest path that agrees with the plain pass on rows x; call: the module, normalization and all."""
    most = _can(module)
    if most is None or not len(x):
        return Cheaper()
    kinds = [(most.products, most.norms), (most.products, False)]
    return next((how for how in (Cheaper(*kind) for kind in kinds) if agrees(how, call, x)), Cheaper())


def agrees(how: Cheaper, call: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether a path's scores and gradients are the plain pass's on rows x; any failure means no.

    Scores are continuous in what rounding does, so every row's must be within `TOLERANCE` of the largest, with the
    same class on top. A gradient jumps where a unit is within rounding of its kink, in any two correct passes alike:
    three rows of four must be within it of their own largest entry.
    """
    try:
        with torch.enable_grad():
            plain, slope = _asked(call, x, nullcontext())
            fast, other = _asked(call, x, how.on())
    except Exception:
        return False  # a model that needs more of autograd than the input's gradient keeps the plain path
    if plain.shape != fast.shape or not bool((plain.argmax(1) == fast.argmax(1)).all()):
        return False
    near = (fast - plain).abs().amax() <= TOLERANCE * plain.abs().amax()
    largest = slope.flatten(1).abs().amax(1)
    apart = (other - slope).flatten(1).abs().amax(1)
    alike = (apart <= TOLERANCE * largest).sum() * 4 >= 3 * len(x)
    return bool(near) and bool(alike)


def _asked(call: Callable[[Tensor], Tensor], x: Tensor, path: AbstractContextManager[object]) -> tuple[Tensor, Tensor]:
    """Scores, and the gradient of a mixture of them, on one path."""
    inputs = x.detach().clone().requires_grad_()
    with path:
        scores = call(inputs.clone())
    ramp = torch.linspace(1, 2, scores.shape[1], dtype=scores.dtype)
    return scores.detach(), torch.autograd.grad((scores * ramp).sum(), inputs)[0]
