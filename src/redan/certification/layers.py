"""What layers compute, as steps: one method a kind, their weights copied in double precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from redan.certification.bends import MaxPool, Relu, Tanh
from redan.certification.rounding import OWN
from redan.certification.steps import Affine, Joined, Reshape, Step, Sum
from redan.certification.windows import Convolution, Local, Pointwise


@dataclass(frozen=True, slots=True)
class Wire:
    """The numbers of one step while the graph is read. shape: one row's."""

    step: int
    shape: tuple[int, ...]


@dataclass(slots=True)
class Plan:
    """The steps found so far.

    number: how a constant of the model is taken, a copy in our own type unless said otherwise. statistics: the mean and
    variance that a batch normalization uses instead of its running ones.
    """

    steps: list[Step] = field(default_factory=list)
    number: Callable[[Any], Tensor] = field(default_factory=lambda: own)
    statistics: Mapping[nn.Module, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def add(self, step: Step, shape: Sequence[int]) -> Wire:
        self.steps.append(step)
        return Wire(len(self.steps) - 1, tuple(shape))

    # -- layers: each takes wires and numbers, as torch's own function does, and gives a wire ------------------

    def _affine(
        self,
        x: Wire,
        linear: Callable[[Tensor], Tensor],
        absolute: Callable[[Tensor], Tensor] | None = None,
        adjoint: Callable[[Tensor], Tensor] | None = None,
        *,
        terms: int,
        reach: int,
        bias: Tensor | None = None,
        bias_size: Tensor | None = None,
        local: Local | None = None,
    ) -> Wire:
        """All weights have one sign where no `absolute` is given; a transpose that is not given is torch's gradient."""
        shape = linear(torch.zeros(1, *x.shape, dtype=self.number(0.0).dtype)).shape
        if shape[0] != 1:
            raise Unknown("mixes rows")

        def transposed(a: Tensor) -> Tensor:
            onward = torch.is_grad_enabled()
            with torch.enable_grad():
                point = torch.zeros(len(a), *x.shape, dtype=a.dtype, requires_grad=True)
                return torch.autograd.grad(linear(point), point, a, create_graph=onward)[0]

        made = Affine(
            (x.step,),
            linear,
            absolute or (lambda z: linear(z).abs()),
            adjoint or transposed,
            terms,
            reach,
            bias=bias,
            bias_size=bias_size,
            local=local,
        )
        return self.add(made, shape[1:])

    def linear(self, x: Wire, weight: Tensor, bias: Tensor | None = None) -> Wire:
        weight = self.number(weight)
        size = weight.abs()
        out, into = weight.shape
        return self._affine(
            x,
            lambda z: functional.linear(z, weight),
            lambda z: functional.linear(z, size),
            lambda a: a @ weight,
            terms=into,
            reach=out,
            bias=None if bias is None else self.number(bias),
        )

    def matmul(self, x: Any, weight: Any) -> Wire:
        if not isinstance(x, Wire) or not isinstance(weight, Tensor) or weight.dim() != 2:
            raise Unknown("is no product of the input with a matrix of weights")
        return self.linear(x, weight.t())

    def conv2d(
        self,
        x: Wire,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Wire:
        weight = self.number(weight)
        size = weight.abs()
        kernel, dilation = weight.shape[2:], _pair(dilation)
        if isinstance(padding, str):
            total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
            if any(t % 2 for t in total):
                raise Unknown('pads one side more than the other (padding="same" with an even kernel)')
            padding = [t // 2 for t in total]
        rest = _pair(stride), _pair(padding), dilation, groups
        out, into = weight.shape[:2]
        local = Convolution(weight, _pair(stride), _pair(padding), dilation, groups, x.shape)
        return self._affine(
            x,
            lambda z: functional.conv2d(z, weight, None, *rest),
            lambda z: functional.conv2d(z, size, None, *rest),
            local.transposed,
            terms=into * math.prod(kernel),
            reach=out // groups * math.prod(kernel),
            bias=None if bias is None else self.number(bias).reshape(-1, 1, 1),
            local=local,
        )

    def scaled(
        self, x: Wire, scale: Tensor, bias: Tensor | None = None, bias_size: Tensor | None = None, terms: int = 2
    ) -> Wire:
        """scale * x + bias, number by number."""
        try:
            same = (torch.zeros(1, *x.shape) * scale + (0 if bias is None else bias)).shape
        except RuntimeError as error:
            raise Unknown("combines shapes that do not fit") from error
        if same != (1, *x.shape):
            raise Unknown("repeats numbers or mixes rows by broadcasting")
        scale = scale.reshape(*[1] * (len(x.shape) - scale.dim()), *scale.shape)
        size = scale.abs()
        return self._affine(
            x,
            lambda z: z * scale,
            lambda z: z * size,
            lambda a: a * scale,
            terms=terms,
            reach=2,
            bias=None if bias is None else bias.reshape(*[1] * (len(x.shape) - bias.dim()), *bias.shape),
            bias_size=bias_size,
            local=Pointwise(scale),
        )

    def normalized(self, x: Wire, layer: nn.Module) -> Wire:
        """Batch normalization in evaluation mode."""
        part: Any = layer
        mean, variance = self.statistics.get(layer, (part.running_mean, part.running_var))
        if mean is None or variance is None:
            raise Unknown("normalizes by the batch (track_running_stats=False), so no row has an answer of its own")
        column = (-1, *[1] * (len(x.shape) - 1))
        mean, variance = self.number(mean), self.number(variance)
        scale = (variance + part.eps).rsqrt()
        shift = torch.zeros_like(mean)
        if part.affine:
            scale, shift = scale * self.number(part.weight), self.number(part.bias)
        size = (scale * mean).abs() + shift.abs()
        bias = shift - scale * mean
        return self.scaled(x, scale.reshape(column), bias.reshape(column), size.reshape(column), terms=16)

    def relu(self, x: Wire, inplace: bool = False) -> Wire:  # noqa: ARG002  # torch's signature
        return self.add(Relu((x.step,)), x.shape)

    def tanh(self, x: Wire) -> Wire:
        return self.add(Tanh((x.step,)), x.shape)

    def sigmoid(self, x: Wire) -> Wire:
        """(1 + tanh(x / 2)) / 2."""
        half = self.number(0.5)
        return self.scaled(self.tanh(self.scaled(x, half)), half, half)

    def leaky(self, x: Wire, negative_slope: float = 0.01, inplace: bool = False) -> Wire:  # noqa: ARG002
        """s · x + (1 - s) · max(x, 0)."""
        if not 0 <= negative_slope <= 1:
            raise Unknown(f"has a slope of {negative_slope} below 0, and only slopes from 0 to 1 have bounds here")
        slope = self.number(negative_slope)
        return self.add_up(self.scaled(x, slope), self.scaled(self.relu(x), 1 - slope))

    def clipped(self, x: Wire, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Wire:  # noqa: ARG002
        """The nearest number between two: above the least as a ReLU, then below the largest as another."""
        low, high, one = self.number(min_val), self.number(max_val), self.number(1.0)
        return self.scaled(self.relu(self.scaled(self.relu(self.scaled(x, one, -low)), -one, high - low)), -one, high)

    def joined(self, parts: Sequence[Any], dim: int = 0) -> Wire:
        """Results side by side along one axis of a row."""
        if not all(isinstance(part, Wire) for part in parts):
            raise Unknown("joins results and constants")
        axis = dim % (len(parts[0].shape) + 1)
        if axis == 0:
            raise Unknown("joins rows")
        sizes = tuple(part.shape[axis - 1] for part in parts)
        shape = torch.cat([torch.empty(1, *part.shape, device="meta") for part in parts], axis).shape[1:]
        return self.add(Joined(tuple(part.step for part in parts), axis, sizes), shape)

    def padded(self, x: Wire, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Wire:
        """Zeros on the sides, or cut sides where fewer than none are added."""
        if mode != "constant" or value or len(pad) > 2 * len(x.shape):
            raise Unknown("pads with something else than zeros, or whole rows")
        sides = list(pad)
        return self._affine(x, lambda z: functional.pad(z, sides), terms=1, reach=1)

    def add_up(self, x: Any, y: Any, *, alpha: float = 1) -> Wire:
        if alpha != 1:
            raise Unknown("adds with a factor (alpha)")
        if isinstance(x, Wire) and isinstance(y, Wire):
            _alike(x, y)
            return self.add(Sum((x.step, y.step)), x.shape)
        x, constant = (x, y) if isinstance(x, Wire) else (y, x)
        return self.scaled(x, torch.ones((), dtype=self.number(0.0).dtype), self.number(constant))

    def subtract(self, x: Any, y: Any, *, alpha: float = 1) -> Wire:
        if alpha != 1:
            raise Unknown("subtracts with a factor (alpha)")
        if isinstance(x, Wire) and isinstance(y, Wire):
            _alike(x, y)
            return self.add(Sum((x.step, y.step), sign=-1), x.shape)
        if isinstance(x, Wire):
            return self.scaled(x, torch.ones((), dtype=self.number(0.0).dtype), -self.number(y))
        return self.scaled(y, -torch.ones((), dtype=self.number(0.0).dtype), self.number(x))

    def multiply(self, x: Any, y: Any) -> Wire:
        x, factor = (x, y) if isinstance(x, Wire) else (y, x)
        if isinstance(factor, Wire):
            raise Unknown("multiplies two results, and only products with constants have bounds here")
        return self.scaled(x, self.number(factor))

    def divide(self, x: Any, y: Any) -> Wire:
        if isinstance(y, Wire):
            raise Unknown("divides by a result, and only quotients by constants have bounds here")
        return self.scaled(x, 1 / self.number(y), terms=3)

    def negative(self, x: Wire) -> Wire:
        return self.scaled(x, -torch.ones((), dtype=self.number(0.0).dtype))

    def mean(self, x: Wire, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Wire:
        dims = [dim] if isinstance(dim, int) else list(dim or [])
        dims = [d % (len(x.shape) + 1) for d in dims]
        if not dims or 0 in dims or dtype is not None:
            raise Unknown("takes a mean over the rows, or in another type")
        count = math.prod(x.shape[d - 1] for d in dims)
        return self._affine(x, lambda z: z.mean(dims, keepdim), terms=count + 1, reach=1)

    def average(self, x: Wire, kernel_size: Any, *rest: Any, **settings: Any) -> Wire:
        window = math.prod(_pair(kernel_size))
        return self._affine(
            x, lambda z: functional.avg_pool2d(z, kernel_size, *rest, **settings), terms=window + 1, reach=window
        )

    def adaptive(self, x: Wire, output_size: Any) -> Wire:
        count = math.prod(x.shape[1:])
        return self._affine(x, lambda z: functional.adaptive_avg_pool2d(z, output_size), terms=count + 1, reach=count)

    def largest(
        self,
        x: Wire,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Wire:
        if return_indices or len(x.shape) != 3:
            raise Unknown("returns positions, or pools something that is no image (N, C, H, W)")
        step = stride or kernel_size
        sizes = _pair(kernel_size), _pair(step), _pair(padding), _pair(dilation)
        pool = MaxPool((x.step,), *sizes, ceil_mode, (x.shape[1], x.shape[2]))
        return self.add(pool, pool.pool(torch.zeros(1, *x.shape, dtype=self.number(0.0).dtype))[0].shape[1:])

    def shaped(self, x: Wire, change: Callable[[Tensor], Tensor]) -> Wire:
        """Any change of shape that leaves the order of a row's numbers alone."""
        after = change(torch.empty(1, *x.shape)).shape
        if after[:1] != (1,) or len(after) < 2:
            raise Unknown("folds the rows into another axis")
        return self.add(Reshape((x.step,), x.shape, tuple(after[1:])), after[1:])

    def flatten(self, x: Wire, start_dim: int = 0, end_dim: int = -1) -> Wire:
        return self.shaped(x, lambda z: z.flatten(start_dim, end_dim))

    def reshape(self, x: Wire, *shape: Any) -> Wire:
        return self.shaped(x, lambda z: z.reshape(*shape))

    def squeeze(self, x: Wire, *dim: Any) -> Wire:
        if not dim or dim[0] == 0:
            raise Unknown("may drop the axis of the rows (squeeze without an axis)")
        return self.shaped(x, lambda z: z.squeeze(*dim))

    def unsqueeze(self, x: Wire, dim: int) -> Wire:
        return self.shaped(x, lambda z: z.unsqueeze(dim))

    def same(self, x: Wire, *_: Any, **__: Any) -> Wire:
        return x

    def dropout(self, x: Wire, p: float = 0.5, training: bool = True, inplace: bool = False) -> Wire:  # noqa: ARG002
        if training:
            raise Unknown("drops numbers at random (training=True)")
        return x


class Unknown(Exception):
    """What an operation does that has no bound here."""


def own(value: Any) -> Tensor:
    """A constant of the model in our own type. The model may round a Python number first: an error of one step more."""
    return value.detach().to(OWN) if isinstance(value, Tensor) else torch.tensor(value, dtype=OWN)


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def _alike(x: Wire, y: Wire) -> None:
    if x.shape != y.shape:
        raise Unknown("combines results of different shapes")
