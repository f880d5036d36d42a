"""What the attacker wants of each answer. Tasks differ by goal, not by wrapper classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from redan.errors import SettingError
from redan.losses import margin
from redan.rows import Goal

_NONE = torch.empty(0, dtype=torch.int64)


class Aim(Protocol):
    """A goal that has not met its rows yet."""

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

    def about(self, y: Tensor, output: Tensor, at: Tensor | None = None) -> Untargeted:  # noqa: ARG002
        return Untargeted(y)

    @property
    def label(self) -> Tensor:
        return self.truth

    def reached(self, output: Tensor) -> Tensor:
        return output.argmax(1) != self.truth

    def loss(self, output: Tensor) -> Tensor:
        return margin(output, self)

    def ways(self, output: Tensor, most: int) -> Sequence[Goal]:
        """Each wrong class, the likeliest first."""
        wrong = output.nan_to_num().scatter(1, self.truth[:, None], -torch.inf)
        order = wrong.argsort(stable=True, dim=1, descending=True)[:, : min(most, output.shape[1] - 1)]
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

    def loss(self, output: Tensor) -> Tensor:
        return margin(output, self)

    def ways(self, output: Tensor, most: int) -> Sequence[Goal]:  # noqa: ARG002
        """Itself: there is one way to one class."""
        return [self]

    def take(self, index: Tensor) -> Self:
        return replace(self, target=self.label[index], truth=self.truth[index])


@dataclass(frozen=True, slots=True)
class LeastLikely:
    """The wrong class that the model finds least likely for the clean input (Kurakin 2017), one a row.

    >>> import torch
    >>> LeastLikely().about(torch.tensor([0]), torch.tensor([[0.9, 0.1, 0.5]]), torch.tensor([0])).label.item()
    1
    """

    def about(self, y: Tensor, output: Tensor, at: Tensor | None = None) -> Targeted:  # noqa: ARG002
        return Targeted(output.scatter(1, y[:, None], torch.inf).argmin(1), y)
