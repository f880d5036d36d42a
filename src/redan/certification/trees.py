"""The smallest change that alters the class of a tree, or of many: what no attack can beat.

A tree's answer is constant on boxes, so the nearest input of another class is the nearest point of one of its boxes.
For many trees the boxes are those where one leaf of each overlaps; there are too many to list, and few near an input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from redan.certification.boxes import Measure, Norm, edges, leaves, measure_of, merged
from redan.certification.ensembles import Answer, Question, bound, listed, others, smallest
from redan.certification.tree_program import TOLERANCE
from redan.errors import DataError, SettingError
from redan.formats.forest import Floats, Forest, Whole, decided, scores, slack
from redan.targets import Target

__all__ = ["TOLERANCE", "Smallest", "lower_bound", "smallest_change"]

_NUMBERS = 4_000_000
"""That boxes may hold in memory at the most."""


@dataclass(frozen=True, slots=True)
class Smallest:
    """One entry a row, in the order given.

    distance: (N,) float64, of the nearest input of another class that was found; 0 for a row that has another class as
    it stands, infinity where there is none in the box. x: (N, d) that input, in the forest's own type; the row itself
    where there is none. lower: (N,) float64, no input of another class is nearer. exact: (N,) bool, the two are the
    same, up to one part in a hundred thousand that the solver's tolerances may hide (`TOLERANCE`); False where the
    seconds ran out.
    """

    distance: Tensor
    x: Tensor
    exact: Tensor
    lower: Tensor


def smallest_change(
    forest: Forest,
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    *,
    norm: Norm,
    bounds: tuple[float, float] = (0.0, 1.0),
    model: Target[Tensor] | None = None,
    seconds: float = 60.0,
    listing: int = 5_000,
) -> Smallest:
    """The smallest change of rows x (N, d) of classes y (N,) that gives each another class.

    norm: Linf, L2, L1 or L0, the class. bounds: the box that inputs live in. model: asked whether its class changes;
    without it the forest's own sums decide, which differ from the library's by rounding, where scores are as good as
    tied. seconds: for the program of each row at the most; then `lower` is what was proven. listing: boxes at the most
    that are listed; with 0 all is left to the program, a second way to the same answer.

    Distances are over inputs that the comparison's type can hold, float32 or float64 (see `Forest`): rows are rounded
    to it first. Over the real numbers a distance is an infimum: x < t is left at t itself and x <= t only beyond t, so
    the reals come nearer than the type by one unit in the last place a coordinate at the most, and never attain it
    where the inequality is strict. `x` is attained, and was asked.

    One tree, and trees whose leaves overlap in at most `listing` boxes, are exact by listing them. Others are cut
    down to what is nearer than some change that is found quickly, and then listed, or given to a mixed-integer program
    after Kantchelian et al. 2016 (arXiv:1509.07892). Raises DataError for rows that do not fit the forest, SettingError
    for what is no norm.

    >>> import numpy as np
    >>> from redan.perturbations.norms import Linf
    >>> from redan.formats.forest import Comparison, Precision
    >>> stump = Forest(  # class 1 where x < 0.5
    ...     feature=np.array([0, 0, 0]), threshold=np.array([0.5, 0, 0]), left=np.array([1, -1, -1]),
    ...     right=np.array([2, -1, -1]), value=np.array([[0.0], [1.0], [-1.0]]), roots=np.array([0]), base=np.zeros(1),
    ...     inputs=1, comparison=Comparison.LESS, precision=Precision.DOUBLE, sums=Precision.DOUBLE)
    >>> smallest_change(stump, np.array([[0.25]]), np.array([1]), norm=Linf).distance.tolist()
    [0.25]
    """
    measure, ends = measure_of(norm), edges(forest, bounds)
    if not seconds > 0:
        raise SettingError(f"a search needs some seconds for each row, got seconds={seconds}")
    rows, labels = _checked(forest, x, y, ends)
    parts = leaves(forest, bounds)
    listing = min(listing, _NUMBERS // forest.inputs)
    whole = merged(parts, listing)
    few = len(whole) == 1 and len(whole[0]) <= listing
    wrong = _classes(forest, model, rows) != labels if len(rows) else np.zeros(0, dtype=bool)

    def answer(row: Floats, label: int) -> Answer:
        asked = Question(
            forest=forest,
            bounds=ends,
            x=row,
            y=label,
            measure=measure,
            changed=lambda tried: _classes(forest, model, tried) != label,
            rounding=slack(forest),
        )
        return listed(whole[0], asked) if few else smallest(parts, asked, seconds, listing)

    found = [
        Answer(row, 0.0, 0.0) if done else answer(row, int(label))
        for row, label, done in zip(rows, labels, wrong, strict=True)
    ]
    return _gathered(found, rows, measure, forest)


def lower_bound(
    forest: Forest,
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    *,
    norm: Norm,
    bounds: tuple[float, float] = (0.0, 1.0),
    merge: int = 1_000,
) -> Tensor:
    """A proven bound (N,) of the smallest change of rows x (N, d) of classes y (N,): fast, and often loose.

    Within a ball each tree gives the leaf in reach that helps most, whatever the others do. merge: neighboring trees
    are crossed into one while that has at most so many boxes, which tightens the bound and costs time (Chen et al.
    2019, arXiv:1906.03849, whose cliques those boxes are); 1 for the plain sum over trees. Infinity: no input in the
    box has another class. 0 for a row that is of another class as it stands. Errors are those of `smallest_change`.
    """
    measure, ends = measure_of(norm), edges(forest, bounds)
    rows, labels = _checked(forest, x, y, ends)
    parts = merged(leaves(forest, bounds), merge)
    rounding = slack(forest)

    def least(row: Floats, label: int) -> float:
        asked = Question(forest, ends, row, label, measure, lambda tried: np.ones(len(tried), dtype=bool), rounding)
        return min(bound(parts, asked, other) for other in others(asked))

    costs = np.array([least(row, int(label)) for row, label in zip(rows, labels, strict=True)], dtype=np.float64)
    return torch.from_numpy(measure.length(costs))


def _checked(
    forest: Forest, x: ArrayLike | Tensor, y: ArrayLike | Tensor, ends: tuple[float, float]
) -> tuple[Floats, Whole]:
    """Rows as the forest compares them, in double precision, and their classes."""
    if not ends[0] < ends[1]:
        raise SettingError(f"bounds must be (low, high) with low < high, got {ends}; rows often live in (0, 1)")
    rows = _array(x).astype(forest.precision.dtype).astype(np.float64)
    labels = _array(y)
    if rows.ndim != 2 or rows.shape[1] != forest.inputs or labels.shape != rows.shape[:1]:
        raise DataError(
            f"the trees take rows (N, {forest.inputs}) and classes (N,), got {rows.shape} and {labels.shape}; give one "
            "class number a row"
        )
    if not np.issubdtype(labels.dtype, np.integer) or bool(((labels < 0) | (labels >= forest.classes)).any()):
        raise DataError(f"classes must be whole numbers from 0 to {forest.classes - 1}; number them in their order")
    if not np.isfinite(rows).all() or bool(((rows < ends[0]) | (rows > ends[1])).any()):
        raise DataError(f"rows hold numbers outside the bounds {ends}, or none at all; declare the true bounds")
    return rows, labels.astype(np.int64)


def _array(values: ArrayLike | Tensor) -> NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _classes(forest: Forest, model: Target[Tensor] | None, x: Floats) -> Whole:
    """The classes of rows (N, d): the model's word, or the forest's own."""
    if model is None:
        return decided(scores(forest, x))
    with torch.no_grad():
        said: Whole = model(torch.from_numpy(x).to(model.device, model.dtype)).argmax(1).cpu().numpy()
    return said


def _gathered(found: Sequence[Answer], rows: Floats, measure: Measure, forest: Forest) -> Smallest:
    points = np.array([row if one.x is None else one.x for one, row in zip(found, rows, strict=True)])
    distance, lower = (
        torch.from_numpy(measure.length(np.array([getter(one) for one in found], dtype=np.float64)))
        for getter in (attrgetter("cost"), attrgetter("lower"))
    )
    return Smallest(
        distance=distance,
        x=torch.from_numpy(points.reshape(rows.shape).astype(forest.precision.dtype)),
        exact=(lower == distance) | (lower >= distance * (1 - TOLERANCE)),
        lower=lower,
    )
