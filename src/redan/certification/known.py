"""torch's modules and functions by the layers that they are.

Only what is listed here is understood, and modules by their exact type: a subclass may compute anything.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from redan.certification.layers import Plan, Wire

MODULES: dict[type[nn.Module], Callable[[Plan, Any, Wire], Wire]] = {
    nn.Linear: lambda p, m, x: p.linear(x, m.weight, m.bias),
    nn.Conv2d: lambda p, m, x: p.conv2d(x, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups),
    nn.BatchNorm1d: lambda p, m, x: p.normalized(x, m),
    nn.BatchNorm2d: lambda p, m, x: p.normalized(x, m),
    nn.ReLU: lambda p, _, x: p.relu(x),
    nn.LeakyReLU: lambda p, m, x: p.leaky(x, m.negative_slope),
    nn.Hardtanh: lambda p, m, x: p.clipped(x, m.min_val, m.max_val),
    nn.ReLU6: lambda p, m, x: p.clipped(x, m.min_val, m.max_val),
    nn.Tanh: lambda p, _, x: p.tanh(x),
    nn.Sigmoid: lambda p, _, x: p.sigmoid(x),
    nn.ZeroPad2d: lambda p, m, x: p.padded(x, m.padding),
    nn.MaxPool2d: lambda p, m, x: p.largest(
        x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
    ),
    nn.AvgPool2d: lambda p, m, x: p.average(
        x, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
    ),
    nn.AdaptiveAvgPool2d: lambda p, m, x: p.adaptive(x, m.output_size),
    nn.Flatten: lambda p, m, x: p.flatten(x, m.start_dim, m.end_dim),
    nn.Unflatten: lambda p, m, x: p.shaped(x, m),
    nn.Identity: lambda _p, _m, x: x,
    nn.Dropout: lambda _p, _m, x: x,
    nn.Dropout1d: lambda _p, _m, x: x,
    nn.Dropout2d: lambda _p, _m, x: x,
}

FUNCTIONS: dict[Any, Callable[..., Wire]] = {
    functional.linear: Plan.linear,
    functional.conv2d: Plan.conv2d,
    torch.conv2d: Plan.conv2d,
    functional.relu: Plan.relu,
    functional.relu_: Plan.relu,
    torch.relu: Plan.relu,
    torch.relu_: Plan.relu,
    "relu": Plan.relu,
    "relu_": Plan.relu,
    functional.leaky_relu: Plan.leaky,
    functional.hardtanh: Plan.clipped,
    functional.relu6: lambda p, x, inplace=False: p.clipped(x, 0.0, 6.0, inplace),
    torch.tanh: Plan.tanh,
    functional.tanh: Plan.tanh,
    "tanh": Plan.tanh,
    torch.sigmoid: Plan.sigmoid,
    functional.sigmoid: Plan.sigmoid,
    "sigmoid": Plan.sigmoid,
    functional.pad: Plan.padded,
    torch.cat: Plan.joined,
    torch.concat: Plan.joined,
    operator.matmul: Plan.matmul,
    torch.matmul: Plan.matmul,
    "matmul": Plan.matmul,
    functional.avg_pool2d: Plan.average,
    functional.adaptive_avg_pool2d: Plan.adaptive,
    functional.max_pool2d: Plan.largest,
    torch.max_pool2d: Plan.largest,
    torch.mean: Plan.mean,
    "mean": Plan.mean,
    torch.flatten: Plan.flatten,
    "flatten": Plan.flatten,
    torch.reshape: Plan.reshape,
    "reshape": Plan.reshape,
    "view": Plan.reshape,
    torch.squeeze: Plan.squeeze,
    "squeeze": Plan.squeeze,
    torch.unsqueeze: Plan.unsqueeze,
    "unsqueeze": Plan.unsqueeze,
    functional.dropout: Plan.dropout,
    "contiguous": Plan.same,
    "clone": Plan.same,
    "detach": Plan.same,
    torch.neg: Plan.negative,
    operator.neg: Plan.negative,
}
for _names, _method in (
    (("add", "iadd"), Plan.add_up),
    (("sub", "isub"), Plan.subtract),
    (("mul", "imul"), Plan.multiply),
    (("truediv", "itruediv"), Plan.divide),
):
    FUNCTIONS |= {getattr(operator, name): _method for name in _names}
for _name, _method in (("add", Plan.add_up), ("sub", Plan.subtract), ("mul", Plan.multiply), ("div", Plan.divide)):
    FUNCTIONS |= {getattr(torch, _name): _method, _name: _method, f"{_name}_": _method}
