"""A cheaper input gradient of convolutions with one input channel, on a CPU: the same numbers, up to rounding.

oneDNN's gradient in the input costs ten times the forward pass where there is one input channel (gray images,
spectrograms). Weights times output gradient, folded back into an image, costs a third of that, and a quarter of a
small network's whole pass goes. With three channels it gains nothing, so the rule is: one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_TOLERANCE = 1e-5  # of the largest entry of the gradient


class _FoldedConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any) -> Tensor:
        ctx.weight, ctx.size, ctx.stride, ctx.padding = weight, x.shape[2:], stride, padding
        return functional.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        kernel: Any = ctx
        columns = kernel.weight.flatten(1).t() @ gradient.flatten(2)
        folded = functional.fold(columns, kernel.size, kernel.weight.shape[2:], 1, kernel.padding, kernel.stride)
        return folded, None, None, None, None


def _fits(x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> bool:
    plain = x.dim() == 4 and x.shape[1] == 1 and weight.shape[1] == 1 and groups == 1
    whole = all(isinstance(part, tuple | int) for part in (stride, padding))
    return plain and whole and dilation in (1, (1, 1)) and x.requires_grad


class OneChannel(TorchFunctionMode):
    """While it is on, convolutions with one input channel take the cheaper gradient. Weights get none."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and not kwargs and len(args) == 7 and _fits(args[0], args[1], *args[3:]):
            x, weight, bias, stride, padding = args[:5]
            apply: Callable[..., Tensor] = _FoldedConv.apply
            return apply(x, weight.detach(), None if bias is None else bias.detach(), stride, padding)
        return func(*args, **(kwargs or {}))


def may_help(module: nn.Module) -> bool:
    """Whether a module has such a convolution, and nothing that was compiled."""
    parts = list(module.modules())
    compiled = any(isinstance(p, torch.jit.ScriptModule) or hasattr(p, "_orig_mod") for p in parts)
    return not compiled and any(isinstance(p, nn.Conv2d) and p.in_channels == 1 for p in parts)


def agrees(call: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether the cheaper gradient is the plain one on these inputs; any failure means no."""

    def gradient() -> Tensor:
        inputs = x.detach().clone().requires_grad_()
        scores = call(inputs)
        ramp = torch.linspace(1, 2, scores.shape[1], dtype=scores.dtype)
        found: Tensor = torch.autograd.grad((scores * ramp).sum(), inputs)[0]
        return found

    try:
        with torch.enable_grad():
            plain = gradient()
            with OneChannel():
                fast = gradient()
    except Exception:
        return False  # a model that needs more of autograd than the input's gradient keeps the plain path
    return bool(((plain - fast).abs().amax() <= _TOLERANCE * plain.abs().amax()).item())
