"""The few torch modules that scikit-learn's transformers and estimators are made of. Weights are float64."""

from __future__ import annotations

from enum import Enum, auto

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional


class Affine(nn.Module):
    """x -> (x - shift) / scale + offset, one entry a column, clamped to `limits` where there are any."""

    shift: Tensor
    scale: Tensor
    offset: Tensor

    def __init__(
        self,
        *,
        shift: ArrayLike | None = None,
        scale: ArrayLike | None = None,
        offset: ArrayLike | None = None,
        limits: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("shift", tensor(0.0 if shift is None else shift))
        self.register_buffer("scale", tensor(1.0 if scale is None else scale))
        self.register_buffer("offset", tensor(0.0 if offset is None else offset))
        self.limits = limits

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.shift) / self.scale + self.offset
        return x if self.limits is None else x.clamp(*self.limits)


class Columns(nn.Module):
    """Some columns of (N, d)."""

    index: Tensor

    def __init__(self, index: ArrayLike) -> None:
        super().__init__()
        self.register_buffer("index", torch.from_numpy(np.asarray(index, dtype=np.int64)))

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.index)


class Halves(nn.Module):
    """The second class's logit (N, 1) -> (N, 2), whose softmax is its sigmoid."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([-z / 2, z / 2], 1)


class OneVersusRest(nn.Module):
    """A logit a class against all others (N, K) -> logarithms of their sigmoids, scaled to sum to one."""

    def forward(self, z: Tensor) -> Tensor:
        return functional.logsigmoid(z).log_softmax(1)


class Exponential(nn.Module):
    """exp, the last step of a regressor of counts."""

    def forward(self, z: Tensor) -> Tensor:
        return z.exp()


class Kernel(Enum):
    """How alike a row and a support vector are: of their product, or of their squared distance (RBF)."""

    LINEAR = auto()
    POLYNOMIAL = auto()
    RBF = auto()
    SIGMOID = auto()


class KernelMachine(nn.Module):
    """x (N, d) -> Σ weight · k(x, vector) + bias, (N, 1), over support vectors (M, d)."""

    vectors: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        *,
        kernel: Kernel,
        vectors: ArrayLike,
        weight: ArrayLike,
        bias: ArrayLike,
        gamma: float,
        offset: float,
        degree: float,
    ) -> None:
        super().__init__()
        self.register_buffer("vectors", tensor(vectors))
        self.register_buffer("weight", tensor(weight).reshape(1, -1))
        self.register_buffer("bias", tensor(bias).reshape(-1))
        self.kernel, self.gamma, self.offset, self.degree = kernel, gamma, offset, degree

    def forward(self, x: Tensor) -> Tensor:
        products = x @ self.vectors.T
        match self.kernel:
            case Kernel.LINEAR:
                alike = products
            case Kernel.POLYNOMIAL:
                alike = (self.gamma * products + self.offset) ** self.degree
            case Kernel.SIGMOID:
                alike = (self.gamma * products + self.offset).tanh()
            case Kernel.RBF:
                exactly = "donot_use_mm_for_euclid_dist"  # no differences of large squares
                alike = (-self.gamma * torch.cdist(x, self.vectors, compute_mode=exactly).square()).exp()
        return functional.linear(alike, self.weight, self.bias)


def linear(weight: ArrayLike, bias: ArrayLike) -> nn.Linear:
    """x -> x · weightᵀ + bias, for weight (K, d) or (d,)."""
    rows = np.atleast_2d(np.asarray(weight, dtype=np.float64))
    layer = nn.Linear(rows.shape[1], rows.shape[0], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(tensor(rows))
        layer.bias.copy_(tensor(np.broadcast_to(np.asarray(bias, dtype=np.float64), (rows.shape[0],))))
    return layer


def tensor(values: ArrayLike) -> Tensor:
    """A copy, as float64."""
    return torch.from_numpy(np.array(values, dtype=np.float64))
