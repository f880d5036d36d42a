"""Trees whose columns are scaled on their way in, as trees of the unscaled columns, and what rounding leaves open.

The trees see x · scale + shift, rounded to their own type. A cut c of theirs is (c − shift) / scale in x, up to those
roundings: beside it the served model may answer as on the other side.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redan.formats.forest import LEAF, Comparison, Floats, Forest, Precision, cuts
from redan.protocols import Output
from redan.targets import Affine, FunctionTarget, from_function

__all__ = ["Scaled", "scaled"]


class Scaled(NamedTuple):
    """forest: in the units of x. asked: answers as the served trees do in the cell of x, whatever rounding says.

    slack: (d,) how far rounding moves a cut of each column at the most, in units of x: each served input is one of the
    same cell that is no farther from it than that.
    """

    forest: Forest
    asked: FunctionTarget
    slack: Tensor


def scaled(target: Affine, forest: Forest) -> Scaled:
    """The forest that a target with scaled columns asks, in the target's own units.

    The slack is four units in the last place of the sum's parts in the target's type, and two of the cut in the trees',
    each over the scale. A column with scale 0 never changes, and has no cut.
    """
    scale, shift = (_columns(part, forest.inputs) for part in (target.scale, target.shift))
    by, low, cut = scale[forest.feature], shift[forest.feature], cuts(forest)
    inner, fixed = forest.left != LEAF, by == 0
    step = np.where(fixed, 1.0, by)
    moved: Floats = np.where(fixed, np.where(low < cut, np.inf, -np.inf), (cut - low) / step)
    ends = max(abs(end) for end in target.bounds)
    eps, own = (torch.finfo(kind).eps for kind in (target.dtype, target.target.dtype))
    off = (4 * eps * (np.abs(by) * ends + np.abs(low)) + 2 * own * np.abs(cut)) / np.abs(step)
    moves = inner & ~fixed & np.isfinite(cut)
    bottom, top = target.bounds
    beyond = top - bottom + 1
    threshold = np.where(inner, moved, 0.0).clip(bottom - beyond, top + beyond)  # outside of the box cuts are alike
    lying = replace(forest, threshold=threshold, comparison=Comparison.LESS, precision=Precision.DOUBLE)

    cells, slack = {}, np.zeros(forest.inputs)
    for column in np.unique(forest.feature[moves]).tolist():
        here = moves & (forest.feature == column)
        order = np.argsort(cut[here], kind="stable")
        cells[column], slack[column] = (threshold[here][order], cut[here][order]), off[here].max()

    def answer(x: NDArray[Any]) -> NDArray[Any]:
        given = x * scale + shift
        for column, (edges, theirs) in cells.items():
            at = np.searchsorted(edges, x[:, column], side="right")
            kind = forest.precision.dtype.type
            under = np.nextafter(theirs.astype(kind), kind(-np.inf)).astype(np.float64)
            floor, ceiling = np.concatenate([[-np.inf], theirs]), np.concatenate([under, [np.inf]])
            given[:, column] = given[:, column].clip(floor[at], ceiling[at])
        with torch.no_grad():
            said: NDArray[Any] = target.target(torch.from_numpy(given).to(target.target.dtype)).numpy()
        return said

    asked = from_function(
        answer, bounds=target.bounds, classes=target.target.classes, output=Output.LOGITS, dtype=torch.float64
    )
    return Scaled(lying, asked, torch.from_numpy(slack))


def _columns(part: Tensor, inputs: int) -> Floats:
    """One number a column."""
    wide: Floats = np.broadcast_to(part.cpu().numpy().astype(np.float64), (inputs,))
    return wide
