"""What the attacker wants of each answer. Tasks differ by goal, not by wrapper classes.

Losses and attacks compare scores of outcomes, of which the highest is what the model says. Classes are outcomes by
themselves. Where labels or values are answered, one outcome is "right", with score 0, and each other is one way to be
wrong, with how far the answer is over its line: the margin is above 0 exactly when the goal is reached, and every
attack on classes works on labels and values too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Protocol, Self

import torch
from torch import Tensor

from redan.errors import SettingError
from redan.losses import margin
from redan.rows import Goal

_NONE = torch.empty(0, dtype=torch.int64)


class Task(Enum):
    """What the right answer to a row is."""

    CLASS = auto()
    """One class number: labels (N,), answers (N, K)."""
    LABELS = auto()
    """A 0 or 1 for each of L labels: labels (N, L), answers (N, L), above 0 for a 1."""
    VALUE = auto()
    """One number: labels (N,), answers (N, 1)."""

    def outcomes(self, scores: int) -> int:
        """How many outcomes goals and attacks see where the model answers so many scores."""
        return {Task.CLASS: scores, Task.LABELS: scores + 1, Task.VALUE: 3}[self]


class Aim(Protocol):
    """A goal that has not met its rows yet."""

    @property
    def task(self) -> Task:
        """What it reads labels and answers as."""
        ...

    def about(self, y: Tensor, output: Tensor, at: Tensor | None = None) -> Goal:
        """The row-aligned goal for rows of right class y (N,) with these clean answers (N, K).

        at: the rows' positions (N,) among those that the aim was given one entry each; None: they are all.
        """
        ...


@dataclass(frozen=True, slots=True)
class Untargeted:
    """Any wrong class.

    >>> import torch
    >>> Untargeted(torch.tensor([0])).reached(torch.tensor([[0.1, 0.9]])).item()
    True
    """

    truth: Tensor = field(default=_NONE, repr=False)

    sign = 1
    task = Task.CLASS

    def about(self, y: Tensor, output: Tensor, at: Tensor | None = None) -> Untargeted:  # noqa: ARG002
        return Untargeted(y)

    @property
    def label(self) -> Tensor:
        return self.truth

    def reached(self, output: Tensor) -> Tensor:
        return output.argmax(1) != self.truth

    def right(self, output: Tensor) -> Tensor:
        return output.argmax(1) == self.truth

    def scores(self, output: Tensor) -> Tensor:
        return output

    def loss(self, scores: Tensor) -> Tensor:
        return margin(scores, self)

    def ways(self, scores: Tensor, most: int) -> Sequence[Goal]:
        """Each wrong class, the likeliest first."""
        wrong = scores.nan_to_num().scatter(1, self.truth[:, None], -torch.inf)
        order = wrong.argsort(stable=True, dim=1, descending=True)[:, : min(most, scores.shape[1] - 1)]
        return [Targeted(target, self.truth) for target in order.unbind(1)]

    def take(self, index: Tensor) -> Self:
        return replace(self, truth=self.truth[index])


@dataclass(frozen=True, slots=True)
class Targeted:
    """One wanted wrong class, the same for all rows or one a row.

    A row whose right class is the wanted one cannot be broken: a right answer is never an attack.

    >>> import torch
    >>> Targeted(1, torch.tensor([0])).reached(torch.tensor([[0.1, 0.9]])).item()
    True
    """

    target: int | Tensor
    truth: Tensor = field(default=_NONE, repr=False)

    sign = -1
    task = Task.CLASS

    def about(self, y: Tensor, output: Tensor, at: Tensor | None = None) -> Targeted:
        classes = output.shape[1]
        target = torch.as_tensor(self.target, dtype=torch.int64, device=y.device)
        if target.dim() and at is not None and target.dim() == 1 and (not len(at) or int(at.max()) < len(target)):
            target = target[at]
        if target.dim() and target.shape != y.shape:
            raise SettingError(
                f"Targeted got {tuple(target.shape)} target classes for {len(y)} rows; give one class, or one a row"
            )
        if target.numel() and not (int(target.min()) >= 0 and int(target.max()) < classes):
            raise SettingError(
                f"the target class must be from 0 to {classes - 1}, got {self.target}; name a class of the model"
            )
        return Targeted(target.expand(y.shape).clone(), y)

    @property
    def label(self) -> Tensor:
        return torch.as_tensor(self.target, device=self.truth.device).expand(self.truth.shape)

    def reached(self, output: Tensor) -> Tensor:
        return (output.argmax(1) == self.label) & (self.label != self.truth)

    def right(self, output: Tensor) -> Tensor:
        return output.argmax(1) == self.truth

    def scores(self, output: Tensor) -> Tensor:
        return output

    def loss(self, scores: Tensor) -> Tensor:
        return margin(scores, self)

    def ways(self, scores: Tensor, most: int) -> Sequence[Goal]:  # noqa: ARG002
        """Itself: there is one way to one class."""
        return [self]

    def take(self, index: Tensor) -> Self:
        return replace(self, target=self.label[index], truth=self.truth[index])


def attainable(goal: Goal) -> Tensor | None:
    """Which rows may reach the goal at all: (N,) bool; None for all of them. No attack is spent on the others."""
    match goal:
        case Targeted():
            return goal.label != goal.truth
    return None


@dataclass(frozen=True, slots=True)
class LeastLikely:
    """The wrong class that the model finds least likely for the clean input (Kurakin 2017), one a row.

    >>> import torch
    >>> LeastLikely().about(torch.tensor([0]), torch.tensor([[0.9, 0.1, 0.5]]), torch.tensor([0])).label.item()
    1
    """

    task = Task.CLASS

    def about(self, y: Tensor, output: Tensor, at: Tensor | None = None) -> Targeted:  # noqa: ARG002
        return Targeted(output.scatter(1, y[:, None], torch.inf).argmin(1), y)


@dataclass(frozen=True, slots=True)
class Wrong:
    """Any answer that is not right, whatever `goal` wants of it."""

    goal: Goal

    def right(self, output: Tensor) -> Tensor:
        return self.goal.right(output)

    def reached(self, output: Tensor) -> Tensor:
        return ~self.goal.right(output)

    def scores(self, output: Tensor) -> Tensor:
        return self.goal.scores(output)

    def loss(self, scores: Tensor) -> Tensor:
        return self.goal.loss(scores)

    def ways(self, scores: Tensor, most: int) -> Sequence[Goal]:  # noqa: ARG002
        return [self]

    def take(self, index: Tensor) -> Self:
        return replace(self, goal=self.goal.take(index))


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
    right_labels: Tensor = field(default=_NONE, repr=False)

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
    right_values: Tensor = field(default=_NONE, repr=False)

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
