"""Lies in what is declared: modes, bounds, the scale of answers, labels. Each: (honest case, draw, lie) -> case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from redan.targets import Output
from redan.testing.cases import Case, Draw, Mechanism, class_count, through

# -- submodules in training mode ----------------------------------------------------------------------------


def _with_layer(case: Case, layer: nn.Module, lie: bool) -> Case:
    model = nn.Sequential(layer, case.model).eval()
    layer.train(lie)
    return replace(case, model=model)


def dropout_on(case: Case, draw: Draw, lie: bool) -> Case:
    """A dropout layer, p from 0.1 to 0.5."""
    return _with_layer(case, nn.Dropout(float(draw.uniform(0.1, 0.5))), lie)


def batch_norm_on(case: Case, draw: Draw, lie: bool) -> Case:  # noqa: ARG001
    """A batch norm over the channels that learns while it answers."""
    return _with_layer(case, nn.BatchNorm2d(case.x.shape[1]), lie)


def leaf_on(case: Case, draw: Draw, lie: bool) -> Case:
    """One submodule, any, without children."""
    leaves = [part for part in case.model.modules() if not list(part.children())]
    leaves[draw.integers(len(leaves))].train(lie)
    return case


def whole_on(case: Case, draw: Draw, lie: bool) -> Case:  # noqa: ARG001
    """The whole model, fresh from training."""
    case.model.train(lie)
    return case


# -- bounds -------------------------------------------------------------------------------------------------


def box_too_wide(case: Case, draw: Draw, lie: bool) -> Case:
    """Data in [0, 1], declared bounds (0, 16 to 255)."""
    return replace(case, bounds=(0.0, float(draw.uniform(16, 255))) if lie else case.bounds)


def bytes_as_unit(case: Case, draw: Draw, lie: bool) -> Case:
    """Data from 0 to 100 to 255, which the model divides; declared bounds (0, 1)."""
    most = round(float(draw.uniform(100, 255)) * 8) / 8  # a number that float32 holds, so that no row is outside
    scaled = through(replace(case, x=case.x * most), lambda x: x / most)
    return replace(scaled, bounds=(0.0, 1.0) if lie else (0.0, most))


def normalized(case: Case, draw: Draw, lie: bool) -> Case:
    """Data normalized already, mean from 0.3 to 0.6 and deviation from 0.15 to 0.35; declared bounds (0, 1)."""
    mean, std = float(draw.uniform(0.3, 0.6)), float(draw.uniform(0.15, 0.35))
    scaled = through(replace(case, x=(case.x - mean) / std), lambda x: x * std + mean)
    slack = 1e-4  # rounding in the division
    return replace(scaled, bounds=(0.0, 1.0) if lie else (-mean / std - slack, (1 - mean) / std + slack))


def signed(case: Case, draw: Draw, lie: bool) -> Case:
    """Data in [-m, m], m from 0.5 to 2; declared bounds (0, 1)."""
    most = round(float(draw.uniform(0.5, 2)) * 64) / 64
    scaled = through(replace(case, x=((case.x * 2 - 1) * most).clamp(-most, most)), lambda x: (x / most + 1) / 2)
    return replace(scaled, bounds=(0.0, 1.0) if lie else (-most, most))


# -- output scale -------------------------------------------------------------------------------------------


def _probabilities(case: Case, after: Callable[[Tensor], Tensor], lie: bool) -> Case:
    return replace(through(case, after=after), output=Output.LOGITS if lie else Output.PROBABILITIES)


def softmax(case: Case, draw: Draw, lie: bool) -> Case:
    """A softmax of temperature 0.5 to 4, declared as logits."""
    heat = float(draw.uniform(0.5, 4))
    return _probabilities(case, lambda z: (z / heat).softmax(1), lie)


def mixture(case: Case, draw: Draw, lie: bool) -> Case:
    """The mean of two softmaxes of temperatures 0.5 to 4, as an ensemble answers, declared as logits."""
    one, two = (float(heat) for heat in draw.uniform(0.5, 4, 2))
    return _probabilities(case, lambda z: ((z / one).softmax(1) + (z / two).softmax(1)) / 2, lie)


def smoothed(case: Case, draw: Draw, lie: bool) -> Case:
    """A softmax mixed with 0.1 to 10 % of the uniform, declared as logits."""
    flat = float(draw.uniform(0.001, 0.1))
    return _probabilities(case, lambda z: z.softmax(1) * (1 - flat) + flat / z.shape[1], lie)


def no_probabilities(case: Case, draw: Draw, lie: bool) -> Case:  # noqa: ARG001
    """Logits, declared as probabilities."""
    return replace(through(case), output=Output.PROBABILITIES if lie else Output.LOGITS)


# -- labels -------------------------------------------------------------------------------------------------


def from_one(case: Case, draw: Draw, lie: bool) -> Case:  # noqa: ARG001
    """Classes numbered from 1."""
    y = case.y.clone()
    y[0] = class_count(case) - 1  # the highest class is there
    return replace(case, y=y + lie)


def unlabeled(case: Case, draw: Draw, lie: bool) -> Case:
    """1 to 10 % of the rows have no label yet: -1."""
    y = case.y.clone()
    y[draw.permutation(len(y))[: max(1, round(draw.uniform(0.01, 0.1) * len(y)))]] = -1
    return replace(case, y=y if lie else case.y)


def unknown(case: Case, draw: Draw, lie: bool) -> Case:
    """1 to 10 % of the rows carry a class that the model was not built for: K to 255."""
    y, classes = case.y.clone(), class_count(case)
    some = draw.permutation(len(y))[: max(1, round(draw.uniform(0.01, 0.1) * len(y)))]
    y[some] = int(draw.integers(classes, 256))
    return replace(case, y=y if lie else case.y)


def relabeled(order: Callable[[int, Draw], Tensor], doc: str) -> Mechanism:
    def mechanism(case: Case, draw: Draw, lie: bool) -> Case:
        names = order(class_count(case), draw)
        return replace(case, y=names[case.y] if lie else case.y)

    mechanism.__doc__ = doc
    return mechanism


def no_fixed_point(classes: int, draw: Draw) -> Tensor:
    cycle = torch.from_numpy(draw.permutation(classes))
    order = torch.empty_like(cycle)
    order[cycle] = cycle.roll(1)
    return order


def as_floats(case: Case, draw: Draw, lie: bool) -> Case:  # noqa: ARG001
    """Class numbers as floating point, as a table's reader returns a column with gaps."""
    return replace(case, y=case.y.double() if lie else case.y)


def one_hot(case: Case, draw: Draw, lie: bool) -> Case:  # noqa: ARG001
    """A one for the row's class and zeros for the others."""
    return replace(case, y=functional.one_hot(case.y, class_count(case)) if lie else case.y)


def as_column(case: Case, draw: Draw, lie: bool) -> Case:  # noqa: ARG001
    """Class numbers as a column (N, 1)."""
    return replace(case, y=case.y[:, None] if lie else case.y)
