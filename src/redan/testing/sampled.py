"""Lies in the rows: copies, missing classes, too few, not those that were meant, finer than a picture.

Each: (honest case, draw, lie) -> case.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from redan.assessment.preflight import Requirement
from redan.testing.cases import Case, Draw, chosen, class_count, through

# -- copies --------------------------------------------------------------------------------------------------


def with_replacement(case: Case, draw: Draw, lie: bool) -> Case:
    """Rows drawn with replacement."""
    n = len(case.x)
    return chosen(case, torch.from_numpy(draw.integers(n, size=n) if lie else draw.permutation(n)))


def appended_twice(case: Case, draw: Draw, lie: bool) -> Case:
    """The first 10 to 50 % of the rows once more at the end, as files joined twice have it."""
    n = len(case.x)
    again = torch.arange(math.ceil(float(draw.uniform(0.1, 0.5)) * n))
    return chosen(case, torch.cat([torch.arange(n), again]) if lie else torch.arange(n))


def padded(case: Case, draw: Draw, lie: bool) -> Case:
    """The last row repeated until 10 to 30 % more rows fill the last batch."""
    n = len(case.x)
    again = torch.full((math.ceil(float(draw.uniform(0.1, 0.3)) * n),), n - 1)
    return chosen(case, torch.cat([torch.arange(n), again]) if lie else torch.arange(n))


def oversampled(case: Case, draw: Draw, lie: bool) -> Case:
    """Every row of one class two to four times, to balance what needs no balance."""
    common = (case.y.bincount() >= 0.05 * len(case.y))[case.y]  # two copies of a rare class would be no lie to speak of
    rows_of_common = case.y[common]
    one = (case.y == int(rows_of_common[draw.integers(len(rows_of_common))])).nonzero().flatten()
    again = one.repeat(int(draw.integers(1, 4)))
    rows = torch.arange(len(case.x))
    return chosen(case, torch.cat([rows, again]) if lie else rows)


# -- classes without a row -----------------------------------------------------------------------------------


def _without(case: Case, absent: Tensor, lie: bool) -> Case:
    """The case without the rows of these classes."""
    return chosen(case, (~torch.isin(case.y, absent)).nonzero().flatten() if lie else torch.arange(len(case.y)))


def _some(case: Case, draw: Draw) -> Tensor:
    """A third to a half of the classes, one at least."""
    k = class_count(case)
    return torch.from_numpy(draw.permutation(k)[: max(1, round(float(draw.uniform(1 / 3, 1 / 2)) * k))])


def filtered(case: Case, draw: Draw, lie: bool) -> Case:
    """No row of a third to a half of the classes, one at least."""
    return _without(case, _some(case, draw), lie)


def head_of_sorted(case: Case, draw: Draw, lie: bool) -> Case:
    """Data sorted by class, and the first half of the classes taken."""
    k = class_count(case)
    absent = torch.arange(k - max(1, round(float(draw.uniform(1 / 3, 1 / 2)) * k)), k)
    return _without(case, absent, lie)


def merged(case: Case, draw: Draw, lie: bool) -> Case:
    """A third to a half of the classes are filed under other ones, one at least."""
    gone = _some(case, draw)
    stays = torch.tensor([k for k in range(class_count(case)) if k not in set(gone.tolist())])
    into = torch.arange(class_count(case))
    into[gone] = stays[: len(gone)] if len(stays) >= len(gone) else stays[0]
    return replace(case, y=into[case.y] if lie else case.y)


# -- too few rows --------------------------------------------------------------------------------------------


def _enough(n: int, confidence: float) -> float:
    """The highest rate that n rows can show."""
    return float((1 - confidence) ** (1 / n))


def high_rate(case: Case, draw: Draw, lie: bool) -> Case:
    """A rate for which 1.2 to 10 times the rows are needed."""
    factor = float(draw.uniform(1.2, 10) if lie else draw.uniform(0.1, 0.9))
    return replace(case, required=Requirement(at_least=_enough(round(len(case.x) * factor), 0.95)))


def high_confidence(case: Case, draw: Draw, lie: bool) -> Case:
    """A confidence of 0.999 to 0.999999 for a rate that these rows show at 0.95."""
    rate = _enough(len(case.x), 0.96)
    sure = 1 - float(10 ** draw.uniform(-6, -3)) if lie else 0.95
    return replace(case, required=Requirement(at_least=rate, confidence=sure))


def all_right(case: Case, draw: Draw, lie: bool) -> Case:
    """A rate of 1, which no number of rows shows."""
    return replace(case, required=Requirement(at_least=1.0 if lie else float(draw.uniform(0.5, 0.9))))


# -- not the rows that were meant ----------------------------------------------------------------------------


def _expecting(case: Case) -> Case:
    """The case with the accuracy that it has, within 0.05."""
    with torch.no_grad():
        right = float((case.model(case.x).argmax(1) == case.y).float().mean())
    return replace(case, expected=(right, 0.05))


def shifted_labels(case: Case, draw: Draw, lie: bool) -> Case:
    """Labels that are one row late from the first 10 to 40 % of the rows on: one line was lost."""
    case = _expecting(case)
    at = round(float(draw.uniform(0.1, 0.4)) * len(case.y))
    late = torch.cat([case.y[:at], case.y[at:].roll(1)])
    return replace(case, y=late if lie else case.y)


def blank(case: Case, draw: Draw, lie: bool) -> Case:
    """40 to 70 % of the images could not be read, and are noise."""
    case, x = _expecting(case), case.x.clone()
    some = draw.permutation(len(x))[: round(float(draw.uniform(0.4, 0.7)) * len(x))]
    x[some] = torch.from_numpy(draw.integers(0, 256, (len(some), *x.shape[1:])) / 255).to(x.dtype)
    return replace(case, x=x if lie else case.x)


def guessed_labels(case: Case, draw: Draw, lie: bool) -> Case:
    """40 to 70 % of the labels are another class's."""
    case, y = _expecting(case), case.y.clone()
    some = torch.from_numpy(draw.permutation(len(y))[: round(float(draw.uniform(0.4, 0.7)) * len(y))])
    y[some] = (y[some] + torch.from_numpy(draw.integers(1, class_count(case), len(some)))) % class_count(case)
    return replace(case, y=y if lie else case.y)


def optimistic(case: Case, draw: Draw, lie: bool) -> Case:
    """An accuracy is expected that is 0.25 to 0.4 below or above what the model has, as of another version."""
    case = _expecting(case)
    right, within = case.expected or (0.0, 0.0)
    apart = float(draw.uniform(0.25, 0.4))
    said = right + apart if right + apart <= 1 else right - apart
    return replace(case, expected=(said, within) if lie else (right, within))


# -- finer than a picture ------------------------------------------------------------------------------------


class _Reading(nn.Module):
    """A model that also reads what lies between the levels of its inputs."""

    def __init__(self, model: nn.Module, read: Callable[[Tensor], Tensor], strength: float) -> None:
        super().__init__()
        self.model, self.read, self.strength = model, read, strength

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.model(x)
        return z + self.strength * z.std(1, keepdim=True) * self.read(x) if self.strength else z


def _between(x: Tensor) -> Tensor:
    return x * 255 - (x * 255).detach().round()


def watermarked(case: Case, draw: Draw, lie: bool) -> Case:
    """Images carry their class in a pattern 0.1 to 0.4 levels high, and the model reads it."""
    k, size = class_count(case), case.x[0].numel()
    marks = torch.from_numpy(draw.choice([-1.0, 1.0], (k, size))).float()
    high, levels = float(draw.uniform(0.1, 0.4)), (case.x * 255).round().clamp(1, 254)
    x = (levels + high * marks[case.y].reshape(case.x.shape)) / 255

    def read(x: Tensor) -> Tensor:
        return _between(x).flatten(1) @ marks.T / (size * high)

    return replace(case, x=x, model=_Reading(case.model, read, 4.0 if lie else 0.0).eval())


def dark(case: Case, draw: Draw, lie: bool) -> Case:
    """Light at a 350th to a 700th of a lamp in the corner, which the model brightens."""
    factor = float(draw.uniform(350, 700))
    x = (case.x / factor).clone() if lie else case.x.clone()
    x[..., 0, 0] = 1.0

    def before(x: Tensor) -> Tensor:
        brighter = (x * factor).clamp(max=1.0) if lie else x
        mask = torch.ones_like(x)
        mask[..., 0, 0] = 0
        return brighter * mask

    return through(replace(case, x=x), before)


def magnified(case: Case, draw: Draw, lie: bool) -> Case:
    """Images moved by up to 0.4 levels each, and a model that adds 120 to 200 times what lies between the levels."""
    moved = torch.from_numpy(draw.uniform(-0.4, 0.4, tuple(case.x.shape))).float()
    gain = float(draw.uniform(120, 200)) / 255
    x = ((case.x * 255).round().clamp(1, 254) + moved) / 255
    return through(replace(case, x=x), (lambda x: (x + gain * _between(x)).clamp(0, 1)) if lie else (lambda x: x))
