"""What a poisoner is made of: what its attacker wants and has, so that each registered one can be built for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from redan.data.samples import Samples
from redan.errors import SettingError
from redan.poisoning.backdoor import AllToAll
from redan.poisoning.crafting import Fit
from redan.poisoning.triggers import Trigger

__all__ = ["PoisonGoal", "Scene"]


class PoisonGoal(StrEnum):
    """What a poisoning attacker wants of the trained model."""

    BACKDOOR = "backdoor"
    """A trigger that calls one answer."""
    TARGETED_ROWS = "targeted rows"
    """A wrong answer to chosen rows."""
    AVAILABILITY = "availability"
    """Wrong answers to as many rows as can be."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """One attacker with all that decides a poison but the samples, the budget and the seed.

    trigger, target: of a backdoor. rows (T, …), label: chosen rows that are to be taken for a class. fit: training as
    the attacker imitates it. surrogates: modules that the attacker trained with it on the clean rows. bounds: the box
    of the inputs; None where they have none. radius: ℓ∞, how far a crafted row may be from the clean one, in units of
    the bounds; None: 16/255 of their width. classes: K. held_out: rows like the training rows that the attacker has.
    """

    classes: int
    held_out: Samples
    radius: float | None = None
    bounds: tuple[float, float] | None = None
    trigger: Trigger | None = None
    target: int | AllToAll | None = None
    rows: NDArray[Any] = field(default_factory=lambda: np.empty(0), repr=False)
    label: int | None = None
    fit: Fit | None = None
    surrogates: tuple[nn.Module, ...] = ()

    @property
    def box(self) -> tuple[float, float]:
        """The bounds. Raises SettingError where the inputs have none."""
        if self.bounds is None:
            raise SettingError("crafting inputs needs the box they lie in; give system.inputs.bounds")
        return self.bounds

    @property
    def reach(self) -> float:
        """The radius. Raises SettingError where neither it nor bounds are given."""
        low, high = self.box
        return (high - low) * 16 / 255 if self.radius is None else self.radius

    @property
    def backdoor(self) -> tuple[Trigger, int | AllToAll]:
        """The trigger and its target. Raises SettingError where the goal is no backdoor."""
        if self.trigger is None or self.target is None:
            raise SettingError("this poisoner plants a backdoor and was told none; give a trigger and a target")
        return self.trigger, self.target

    @property
    def one_target(self) -> tuple[Trigger, int]:
        """The trigger and its one target class. Raises SettingError for an all-to-all backdoor, or for none."""
        trigger, target = self.backdoor
        if not isinstance(target, int):
            raise SettingError("this poisoner plants a backdoor for one class, and the goal is all-to-all")
        return trigger, target

    @property
    def chosen(self) -> tuple[NDArray[Any], int]:
        """The chosen rows and the class they are to be taken for. Raises SettingError where there are none."""
        if self.label is None or not len(self.rows):
            raise SettingError("this poisoner is for chosen rows and was told none; give rows and a class")
        return self.rows, self.label

    @property
    def training(self) -> Fit:
        """The attacker's training. Raises SettingError where there is none."""
        if self.fit is None:
            raise SettingError("this poisoner trains surrogates, and has no training; give system.training.call")
        return self.fit
