"""Goals about classes: any wrong one, a wanted one, the least likely one."""

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


@dataclass(frozen=True, slots=True)
class Untargeted:
    """Any wrong class.

    >>> import torch
    >>> Untargeted(torch.tensor([0])).reached(torch.tensor([[0.1, 0.9]])).item()
    True
    """

    truth: Tensor = field(default=NO_ROWS, repr=False)

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
    truth: Tensor = field(default=NO_ROWS, repr=False)

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
    inner: Goal | None = getattr(goal, "goal", None)  # of one that asks for more beside it
    return None if inner is None else attainable(inner)


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
