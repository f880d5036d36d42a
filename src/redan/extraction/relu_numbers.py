"""Networks with one hidden layer of ReLU units as numbers: fitted, refined, their signs told, made a module.

All of it is over the box from -1 to 1 until it is a module. Where a unit u turns on, c·relu(u) and c·relu(-u) differ by
the linear c·u alone, so a network is known up to a linear term when its planes and the jumps over them are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, lsqr
from torch import Tensor, nn

__all__ = ["Net", "ReLUNetwork", "always_on", "as_module", "constant", "fitted", "refined", "signed"]


class ReLUNetwork(nn.Module):
    """A network with one hidden layer of ReLU units, and a linear term beside it if there is one."""

    def __init__(self, hidden: nn.Linear, output: nn.Linear, skip: nn.Linear | None = None) -> None:
        super().__init__()
        self.hidden, self.output, self.skip = hidden, output, skip

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        scores: Tensor = self.output(self.hidden(x).relu())
        return scores if self.skip is None else scores + self.skip(x)


class Net(NamedTuple):
    """A copy over the box from -1 to 1. Its units are oriented so that they are off where the search began."""

    normals: Tensor  # (H, D)
    offsets: Tensor  # (H,)
    outs: Tensor  # (H, K)
    slope: Tensor  # (D, K)
    level: Tensor  # (K,)

    def units(self, z: Tensor) -> Tensor:
        return (z @ self.normals.T + self.offsets).relu()

    def __call__(self, z: Tensor) -> Tensor:
        return self.units(z) @ self.outs + z @ self.slope + self.level

    def scaled(self) -> Net:
        """The same function with normals of length 1."""
        length = self.normals.norm(dim=1, keepdim=True).clamp_min(1e-300)
        return self._replace(
            normals=self.normals / length, offsets=self.offsets / length[:, 0], outs=self.outs * length
        )


def constant(level: Tensor, features: int) -> Net:
    """A network without units that always answers `level` (K,)."""
    none = level.new_zeros(0)
    return Net(
        level.new_zeros(0, features), none, level.new_zeros(0, len(level)), level.new_zeros(features, len(level)), level
    )


def fitted(net: Net, rows: Tensor, outputs: Tensor) -> Net:
    """The copy with its output layer and linear term by least squares."""
    units = net.units(rows)
    system = torch.cat([units, rows, torch.ones(len(rows), 1, dtype=rows.dtype)], 1)
    size = system.norm(dim=0).clamp_min(1e-300)
    found = torch.linalg.lstsq(system / size, outputs - net(rows), driver="gelsd").solution / size[:, None]
    outs, slope, level = found.tensor_split((len(net.outs), len(net.outs) + len(net.slope)))
    return net._replace(outs=net.outs + outs, slope=net.slope + slope, level=net.level + level[0])


def refined(net: Net, rows: Tensor, outputs: Tensor) -> Net:
    """One Gauss-Newton step on all parameters, by LSQR: the copy's Jacobian is applied and never written down."""
    weight = net.outs.norm(dim=1, keepdim=True).sqrt().clamp_min(1e-150)  # scales normals and outputs alike
    net = net._replace(normals=net.normals * weight, offsets=net.offsets * weight[:, 0], outs=net.outs / weight)
    units = net.units(rows)
    on = (units > 0).to(rows.dtype)
    shapes = [part.shape for part in net]
    sizes = [part.numel() for part in net]
    ends = tuple(accumulate(sizes[:-1]))

    def parts(numbers: NDArray[np.float64]) -> Net:
        pieces = torch.from_numpy(np.asarray(numbers, dtype=np.float64).ravel()).tensor_split(ends)
        return Net(*(piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)))

    def forward(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        change = parts(numbers)
        hidden = on * (rows @ change.normals.T + change.offsets)
        result: NDArray[np.float64] = (
            (hidden @ net.outs + units @ change.outs + rows @ change.slope + change.level).flatten().numpy()
        )
        return result

    def backward(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        off = torch.from_numpy(np.asarray(numbers, dtype=np.float64).ravel()).view(outputs.shape)
        hidden = on * (off @ net.outs.T)
        change = Net(hidden.T @ rows, hidden.sum(0), units.T @ off, rows.T @ off, off.sum(0))
        result: NDArray[np.float64] = torch.cat([part.flatten() for part in change]).numpy()
        return result

    jacobian = LinearOperator((outputs.numel(), sum(sizes)), matvec=forward, rmatvec=backward, dtype=np.float64)
    found = lsqr(jacobian, (outputs - net(rows)).flatten().numpy(), atol=1e-10, btol=1e-10, iter_lim=300)[0]
    return Net(*(old + new for old, new in zip(net, parts(found), strict=True))).scaled()


def signed(net: Net, tolerance: float) -> Net | None:
    """The same function without a linear term, by turning units around; None where that leaves something.

    c·relu(u) = c·relu(-u) + c·u, so the linear term is minus the sum of c·u over the units that are the other way
    round. Least squares over all features and outputs say which these are, if they are not more than that.
    """
    if len(net.normals) > net.slope.numel():
        return None
    flips = torch.zeros(0, dtype=torch.float64)
    if len(net.normals):
        system = (net.normals[:, :, None] * net.outs[:, None, :]).flatten(1).T
        size = system.norm(dim=0).clamp_min(1e-300)
        flips = -torch.linalg.lstsq(system / size, net.slope.flatten()[:, None], driver="gelsd").solution[:, 0] / size
    turned = flips.round()
    if bool(((flips - turned).abs() > 0.05).any()) or not bool(((turned == 0) | (turned == 1)).all()):
        return None
    slope = net.slope + (net.normals * turned[:, None]).T @ net.outs
    if float(slope.abs().sum(0).max()) > tolerance:  # the most that it changes an output in the box
        return None
    side = 1 - 2 * turned
    return net._replace(
        normals=net.normals * side[:, None],
        offsets=net.offsets * side,
        slope=torch.zeros_like(net.slope),
        level=net.level + (net.offsets * turned) @ net.outs,
    )


def always_on(net: Net, tolerance: float) -> int:
    """The least number of units that are on all over the box and explain the linear term.

    What the normals of known units cannot make up is theirs, and has their rank at the most.
    """
    features, units = net.slope.shape[0], len(net.normals)
    system = (net.normals[:, :, None] * net.outs[:, None, :]).flatten(1).T
    slope = net.slope.flatten()[:, None]
    rest = slope - system @ torch.linalg.lstsq(system, slope, driver="gelsd").solution if units else slope
    if float(rest.view_as(net.slope).abs().sum(0).max()) <= tolerance:
        return 0
    if units >= features:
        return 1
    basis = torch.linalg.qr(net.normals.T)[0]
    sizes = torch.linalg.svdvals(net.slope - basis @ (basis.T @ net.slope))
    return max(1, int((sizes * math.sqrt(features) > tolerance).sum()))


def as_module(net: Net, bounds: tuple[float, float], *, skip: bool) -> ReLUNetwork:
    """The copy over the true box, in evaluation mode."""
    middle, half = (bounds[0] + bounds[1]) / 2, (bounds[1] - bounds[0]) / 2
    offsets = net.offsets * half - middle * net.normals.sum(1)
    slope = net.slope / half
    level = net.level - middle * slope.sum(0)
    module = ReLUNetwork(
        _linear(net.normals, offsets),
        _linear(net.outs.T / half, level),
        _linear(slope.T, None) if skip else None,
    )
    return module.eval().requires_grad_(False)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    make: Callable[..., nn.Linear] = nn.utils.skip_init  # no global seed is used
    layer = make(nn.Linear, 1, 1, bias=bias is not None, dtype=torch.float64)
    layer.out_features, layer.in_features = weight.shape
    layer.weight = nn.Parameter(weight.contiguous())
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return layer
