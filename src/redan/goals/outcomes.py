"""Goals about labels that do not exclude each other, and values: scores of right, and of each way to be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from redan.errors import SettingError
from redan.goals.task import NO_ROWS, Task
from redan.losses import margin
from redan.rows import Goal


def _zeros(truth: Tensor) -> Tensor:
    return torch.zeros(len(truth), dtype=torch.int64, device=truth.device)


def _beside_right(over: Tensor) -> Tensor:
    """Scores (N, 1 + m): 0 for right, then how far the answer is over each of m lines (N, m)."""
    return torch.cat([torch.zeros_like(over[:, :1]), over], 1)


@dataclass(frozen=True, slots=True)
class _Toward:
    """One outcome of another goal: `label`, a column of its scores, for each row."""

    goal: FlipLabels | Deviate
    label: Tensor

    sign = -1

    @property
    def truth(self) -> Tensor:
        return _zeros(self.label)

    def right(self, output: Tensor) -> Tensor:
        return self.goal.right(output)

    def scores(self, output: Tensor) -> Tensor:
        return self.goal.scores(output)

    def reached(self, output: Tensor) -> Tensor:
        return self.loss(self.scores(output)) > 0

    def loss(self, scores: Tensor) -> Tensor:
        return margin(scores, self)

    def ways(self, scores: Tensor, most: int) -> Sequence[Goal]:  # noqa: ARG002
        return [self]

    def take(self, index: Tensor) -> Self:
        return replace(self, goal=self.goal.take(index), label=self.label[index])


def _each(goal: FlipLabels | Deviate, scores: Tensor, most: int) -> Sequence[Goal]:
    """Each outcome but right, the nearest first, by scores (N, 1 + m)."""
    order = scores[:, 1:].nan_to_num().argsort(stable=True, dim=1, descending=True)[:, :most]
    return [_Toward(goal, column + 1) for column in order.unbind(1)]


@dataclass(frozen=True, slots=True)
class FlipLabels:
    """Multi-label: any label that is answered wrong, or one that is named. Answers (N, L) are above 0 for a 1.

    only: the label (from 0) that the attacker wants to be answered wrong; None is any of them. A row is right when all
    its labels are. Outcomes: right, and each label wrong.

    >>> import torch
    >>> FlipLabels(right_labels=torch.tensor([[1, 0]])).reached(torch.tensor([[2.0, 1.0]])).item()
    True
    >>> FlipLabels(0, right_labels=torch.tensor([[1, 0]])).reached(torch.tensor([[2.0, 1.0]])).item()
    False
    """

    only: int | None = None
    right_labels: Tensor = field(default=NO_ROWS, repr=False)

    sign = 1
    task = Task.LABELS

    def about(self, y: Tensor, output: Tensor, at: Tensor | None = None) -> FlipLabels:  # noqa: ARG002
        if self.only is not None and not 0 <= self.only < output.shape[1]:
            raise SettingError(
                f"the label to flip must be from 0 to {output.shape[1] - 1}, got {self.only}; name a label of the model"
            )
        return FlipLabels(self.only, y)

    @property
    def label(self) -> Tensor:
        return _zeros(self.right_labels)

    def _over(self, output: Tensor) -> Tensor:
        over = torch.where(self.right_labels > 0, -output, output)
        return over if self.only is None else over[:, self.only, None]

    def right(self, output: Tensor) -> Tensor:
        return ((output > 0) == (self.right_labels > 0)).all(1)

    def reached(self, output: Tensor) -> Tensor:
        wrong = (output > 0) != (self.right_labels > 0)
        return wrong.any(1) if self.only is None else wrong[:, self.only]

    def scores(self, output: Tensor) -> Tensor:
        return _beside_right(self._over(output))

    def loss(self, scores: Tensor) -> Tensor:
        return scores[:, 1:].amax(1)

    def ways(self, scores: Tensor, most: int) -> Sequence[Goal]:
        """Each label wrong, the nearest one first."""
        return _each(self, scores, most)

    def take(self, index: Tensor) -> Self:
        return replace(self, right_labels=self.right_labels[index])


@dataclass(frozen=True, slots=True)
class Deviate:
    """Regression: an answer (N, 1) that is off the right value by more than `by`, in the value's own unit.

    Outcomes: right, too high, too low. Raises SettingError unless `by` is above 0.

    >>> import torch
    >>> Deviate(0.5, right_values=torch.tensor([1.0])).reached(torch.tensor([[1.6]])).item()
    True
    """

    by: float
    right_values: Tensor = field(default=NO_ROWS, repr=False)

    sign = 1
    task = Task.VALUE

    def __post_init__(self) -> None:
        if not self.by > 0:
            raise SettingError(f"Deviate needs a number above 0, got {self.by}; it is how far off is still right")

    def about(self, y: Tensor, output: Tensor, at: Tensor | None = None) -> Deviate:  # noqa: ARG002
        return Deviate(self.by, y)

    @property
    def label(self) -> Tensor:
        return _zeros(self.right_values)

    def _off(self, output: Tensor) -> Tensor:
        return output[:, 0] - self.right_values.to(output.dtype)

    def right(self, output: Tensor) -> Tensor:
        return self._off(output).abs() <= self.by

    def reached(self, output: Tensor) -> Tensor:
        return self._off(output).abs() > self.by

    def scores(self, output: Tensor) -> Tensor:
        off = self._off(output)
        return _beside_right(torch.stack([off - self.by, -off - self.by], 1))

    def loss(self, scores: Tensor) -> Tensor:
        return scores[:, 1:].amax(1)

    def ways(self, scores: Tensor, most: int) -> Sequence[Goal]:
        """Too high and too low, the nearer one first."""
        return _each(self, scores, most)

    def take(self, index: Tensor) -> Self:
        return replace(self, right_values=self.right_values[index])
