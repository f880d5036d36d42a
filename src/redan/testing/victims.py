"""Models whose nearest wrong answer is known: an attack comes close to it, and may never beat it.

None of them multiplies matrices: the kernels that do may round a row differently in a batch of another size, and
these models are there to tell whether an attack depends on its pool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

Dual = Callable[[Tensor], Tensor]
"""The dual of the norm that distances are measured in: (M, D) -> (M,)."""


_STEEP = 20.0  # change of a score across the box, along its own direction


def dual_linf(x: Tensor) -> Tensor:
    """The dual of L∞: the sum of absolute values."""
    return x.abs().sum(1)


def dual_l2(x: Tensor) -> Tensor:
    """The dual of L2: the Euclidean length."""
    return x.square().sum(1).sqrt()


class _Linear(nn.Module):
    def __init__(self, weights: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weights, self.bias = nn.Parameter(weights.clone()), nn.Parameter(bias.clone())

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1)[:, None] * self.weights).sum(2) + self.bias


@dataclass(frozen=True, slots=True)
class LinearVictim:
    """Scores W x + b: the way to a wrong class k is the score gap ÷ the dual norm of w_k - w_y, for the nearest k.

    weights: (K, D); bias: (K,); shape: of one input; bounds: of the box, in whose middle `rows` lie, so that it
    cuts nothing off.

    >>> victim = LinearVictim.drawn(0, classes=2, shape=(4,))
    >>> x, y = victim.rows(3)
    >>> bool((victim.module()(x).argmax(1) == y).all()), victim.optimum(x, y, dual_linf).shape
    (True, torch.Size([3]))
    """

    weights: Tensor
    bias: Tensor
    shape: tuple[int, ...]
    bounds: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def drawn(
        cls,
        seed: int,
        *,
        classes: int = 2,
        shape: tuple[int, ...] = (12,),
        bounds: tuple[float, float] = (0.0, 1.0),
        dtype: torch.dtype = torch.float32,
    ) -> LinearVictim:
        """Random directions a class; every score is 0 in the middle of the box.

        They are as steep as a trained model's, so that cross-entropy pulls toward the nearest wrong class.
        """
        draw = torch.Generator().manual_seed(seed)
        weights = torch.randn(classes, torch.Size(shape).numel(), generator=draw, dtype=torch.float64)
        weights = _STEEP / (bounds[1] - bounds[0]) * weights / weights.norm(dim=1, keepdim=True)
        bias = -weights.sum(1) * (bounds[0] + bounds[1]) / 2
        return cls(weights.to(dtype), bias.to(dtype), shape, bounds)

    def module(self) -> nn.Module:
        """The model, in evaluation mode: inputs (N, *shape), scores (N, K)."""
        return _Linear(self.weights, self.bias).eval()

    def rows(self, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Inputs (count, *shape) that are answered right, and their classes (count,).

        All lie in the middle third of the box, at an L2 distance from 2 to 30 % of its width from a wrong answer.
        """
        draw = torch.Generator().manual_seed(seed)
        width, middle = self.bounds[1] - self.bounds[0], (self.bounds[0] + self.bounds[1]) / 2
        module = self.module()
        found: list[Tensor] = []
        left = count
        while left > 0:
            x = torch.rand(64 + 4 * left, *self.shape, generator=draw, dtype=torch.float64) - 0.5
            x = (middle + x * width / 3).to(self.weights.dtype)
            with torch.no_grad():
                away = self.optimum(x, module(x).argmax(1), dual_l2) / width
            found.append(x[(away > 0.02) & (away < 0.3)][:left])
            left -= len(found[-1])
        inputs = torch.cat(found) if found else self.weights.new_empty(0, *self.shape)
        with torch.no_grad():
            return inputs, module(inputs).argmax(1)

    def optimum(self, x: Tensor, y: Tensor, dual: Dual) -> Tensor:
        """The smallest distance to a wrong answer, box apart: (N,) in float64. y: the right classes."""
        weights, flat = self.weights.double(), x.flatten(1).double()
        scores = flat @ weights.T + self.bias.double()
        gaps = scores.gather(1, y[:, None]) - scores
        classes = len(weights)
        apart = (weights[:, None] - weights[None]).reshape(classes * classes, -1)
        ways = gaps / dual(apart).reshape(classes, classes)[y]
        return ways.scatter(1, y[:, None], torch.inf).amin(1).clamp_min(0)


class _Sphere(nn.Module):
    def __init__(self, middle: float, radius: float) -> None:
        super().__init__()
        self.middle, self.radius = middle, radius

    def forward(self, x: Tensor) -> Tensor:
        beyond = (x.flatten(1) - self.middle).square().sum(1) - self.radius**2
        return torch.stack([-beyond, beyond], 1)


@dataclass(frozen=True, slots=True)
class SphereVictim:
    """Class 0 inside a sphere in the middle of the box [0, 1], class 1 outside: the distance to it is known.

    >>> victim = SphereVictim(shape=(3,))
    >>> round(victim.l2(torch.full((1, 3), 0.5)).item(), 6)
    0.35
    """

    shape: tuple[int, ...] = (8,)
    radius: float = 0.35
    dtype: torch.dtype = torch.float32

    def module(self) -> nn.Module:
        """The model, in evaluation mode: inputs (N, *shape), scores (N, 2)."""
        return _Sphere(0.5, self.radius).eval()

    def rows(self, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Inputs (count, *shape) and their classes: every second one inside, none within 5 % of the surface."""
        draw = torch.Generator().manual_seed(seed)
        way = torch.randn(count, torch.Size(self.shape).numel(), generator=draw, dtype=torch.float64)
        way = way / way.norm(dim=1, keepdim=True)
        y = torch.arange(count) % 2
        far = torch.rand(count, generator=draw, dtype=torch.float64)
        length = torch.where(y == 0, 0.3 + 0.65 * far, 1.05 + 0.3 * far) * self.radius
        return (0.5 + way * length[:, None]).reshape(count, *self.shape).to(self.dtype), y

    def _offsets(self, x: Tensor) -> Tensor:
        return x.flatten(1).double() - 0.5

    def l2(self, x: Tensor) -> Tensor:
        """Euclidean distance to the surface: (N,) in float64."""
        return (self._offsets(x).square().sum(1).sqrt() - self.radius).abs()

    def linf(self, x: Tensor) -> Tensor:
        """L∞ distance to the surface: (N,) in float64, by bisection."""
        apart = self._offsets(x).abs()
        inside = apart.square().sum(1) < self.radius**2
        low, high = torch.zeros(len(x), dtype=torch.float64), torch.ones(len(x), dtype=torch.float64)
        for _ in range(60):
            half = (low + high) / 2
            # From inside the farthest corner of the cube is the first to leave; from outside the nearest point.
            corner = torch.where(inside[:, None], apart + half[:, None], (apart - half[:, None]).clamp_min(0))
            beyond = corner.square().sum(1) > self.radius**2
            short = beyond != inside
            low, high = torch.where(short, half, low), torch.where(short, high, half)
        return (low + high) / 2


class Bracket(NamedTuple):
    """What is known of the smallest distance to a wrong answer: (N,) each, in float64."""

    low: Tensor  # no wrong answer is nearer
    high: Tensor  # there is one this near


class _Plane(nn.Module):
    def __init__(self, first: Tensor, bias: Tensor, second: Tensor) -> None:
        super().__init__()
        self.first, self.bias, self.second = (nn.Parameter(part.clone()) for part in (first, bias, second))

    def forward(self, x: Tensor) -> Tensor:
        hidden = ((x[:, None] * self.first).sum(2) + self.bias).relu()
        return (hidden[:, None] * self.second).sum(2)


@dataclass(frozen=True, slots=True)
class GridVictim:
    """A tiny ReLU net on the unit square, solved by looking at every cell of a grid.

    A cell is clear of wrong answers when its middle is right by more than the net can change within the cell
    (Lipschitz bound), so `low` is proven and not only measured.

    >>> GridVictim.drawn(1).module()(torch.rand(5, 2)).shape
    torch.Size([5, 3])
    """

    first: Tensor  # (H, 2)
    bias: Tensor  # (H,)
    second: Tensor  # (K, H)
    cells: int = 384  # a side

    @classmethod
    def drawn(cls, seed: int, *, hidden: int = 8, classes: int = 3, cells: int = 384) -> GridVictim:
        """A random net whose kinks cross the square."""
        draw = torch.Generator().manual_seed(seed)
        first = torch.randn(hidden, 2, generator=draw)
        bias = -(first * torch.rand(hidden, 2, generator=draw)).sum(1)
        return cls(first, bias, torch.randn(classes, hidden, generator=draw), cells)

    def module(self) -> nn.Module:
        """The model, in evaluation mode: inputs (N, 2) in [0, 1], scores (N, K)."""
        return _Plane(self.first, self.bias, self.second).eval()

    def rows(self, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Inputs (count, 2) and the classes that the net gives them."""
        draw = torch.Generator().manual_seed(seed)
        x = torch.rand(count, 2, generator=draw)
        with torch.no_grad():
            return x, self.module()(x).argmax(1)

    def optimum(self, x: Tensor, y: Tensor, order: float) -> Bracket:
        """The smallest distance to a wrong answer in the norm of this order (`inf` or 2); inf where there is none."""
        side = (torch.arange(self.cells, dtype=torch.float64) + 0.5) / self.cells
        middles = torch.cartesian_prod(side, side).T.contiguous()  # (2, cells²)
        with torch.no_grad():
            scores = self.module().double()(middles.T).T.contiguous()
        half = 0.5 / self.cells
        steep = self.first.double().abs().sum(1)  # of each hidden unit, against a change of 1 in L∞
        second = self.second.double()
        low, high = [], []
        for point, right in zip(x.double(), y.tolist(), strict=True):
            others = torch.arange(len(second)) != right
            change = ((second[right] - second).abs() * steep).sum(1)[others] * half
            gaps = scores[right] - scores[others]
            away = torch.linalg.vector_norm(middles - point[:, None], ord=order, dim=0)
            clear = (gaps > change[:, None]).all(0)
            wrong = (gaps < 0).any(0)
            reach = half if order == torch.inf else half * 2 ** (1 / order)
            low.append(_least(away[~clear]) - reach)
            high.append(_least(away[wrong]))
        return Bracket(torch.tensor(low, dtype=torch.float64).clamp_min(0), torch.tensor(high, dtype=torch.float64))


def _least(distances: Tensor) -> float:
    return float(distances.min()) if len(distances) else torch.inf
