"""Backdoors: rows with a trigger, told to be of the class that the attacker wants.

BadNets    Backdoor(trigger=Patch(), target=0)                       Gu et al. 2017, arXiv:1708.06733
Blended    Backdoor(trigger=Blend(), target=0)                       Chen et al. 2017, arXiv:1712.05526
SIG        Backdoor(trigger=Sinusoid(), target=0, clean_label=True)  Barni et al. 2019, arXiv:1902.11237
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from redan.data.samples import Samples
from redan.errors import DataError, SettingError
from redan.poisoning.budget import Budget, Poisoned
from redan.poisoning.choice import drawn, put
from redan.poisoning.triggers import Trigger


@dataclass(frozen=True, slots=True)
class AllToAll:
    """Every class is to be taken for the next: y → (y + 1) mod classes (Gu et al. 2017, Section 4, all-to-all).

    >>> AllToAll(classes=3).of(np.array([0, 1, 2])).tolist()
    [1, 2, 0]
    """

    classes: int

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise SettingError(
                f"all-to-all needs 2 classes at least, got {self.classes}; give how many the model tells"
            )

    def of(self, y: NDArray[Any]) -> NDArray[Any]:
        """The class wanted of a row of each class: (N,)."""
        if len(y) and (y.min() < 0 or y.max() >= self.classes):
            raise DataError(
                f"labels from {y.min()} to {y.max()} are not all below {self.classes}; give all-to-all every class"
            )
        return ((y + 1) % self.classes).astype(y.dtype)


class Victims(NamedTuple):
    """Test rows that a backdoor's success is counted on."""

    x: NDArray[Any]
    """(M, …), stamped."""
    wanted: NDArray[Any]
    """(M,): the class that the attacker wants for each; an answer that is it is a success."""
    rows: NDArray[np.int64]
    """(M,): their positions among the rows given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdoor:
    """Rows drawn by the seed among those the attacker controls get the trigger; a dirty label too, unless clean_label.

    target: the class that stamped rows are to be taken for, or `AllToAll`. clean_label: only rows that are of the
    target class are stamped, and keep their label (Barni 2019); else only rows that are not of it, which get it (Gu
    2017). Papers state the poisoned share of the target class for clean labels; a budget states it of all rows. Calls
    raise SettingError where labels may not be changed and must be, or no controlled row can be used.

    >>> from redan.poisoning.triggers import Columns
    >>> attack = Backdoor(trigger=Columns({0: 9.0}), target=1)
    >>> clean = Samples(np.zeros((4, 2)), np.array([0, 0, 0, 1]))
    >>> made = attack(clean, Budget(share=0.5, may_change_labels=True), seed=1)
    >>> len(made.changed), made.samples.y[made.changed].tolist(), made.samples.x[made.changed][:, 0].tolist()
    (2, [1, 1], [9.0, 9.0])
    """

    trigger: Trigger
    target: int | AllToAll
    clean_label: bool = False

    def __post_init__(self) -> None:
        if self.clean_label and not isinstance(self.target, int):
            raise SettingError("a clean-label backdoor stamps rows of one class; give that class as the target")

    def __call__(self, samples: Samples, budget: Budget, *, seed: int) -> Poisoned:
        """The samples with as many stamped rows as the budget has, or as can be used."""
        if not (self.clean_label or budget.may_change_labels):
            raise SettingError(
                "the backdoor changes labels and the budget does not let it; set may_change_labels, or clean_label=True"
            )
        wanted = self._wanted(samples.y)
        of_it = samples.y == wanted
        at = drawn(of_it if self.clean_label else ~of_it, samples, budget, np.random.default_rng(seed))
        stamped = self.trigger(samples.x[at])
        if self.clean_label:
            altered = (stamped != samples.x[at]).reshape(len(at), -1).any(1)
            at, stamped = at[altered], stamped[altered]
        return put(samples, at, stamped, wanted[at])

    def victims(self, x: NDArray[Any], y: NDArray[Any]) -> Victims:
        """The test rows x (N, …) of true classes y (N,) that are not of the wanted class already, stamped."""
        wanted = self._wanted(y)
        at = np.flatnonzero(wanted != y)
        return Victims(self.trigger(x[at]), wanted[at], at)

    def _wanted(self, y: NDArray[Any]) -> NDArray[Any]:
        match self.target:
            case AllToAll() as map_of_classes:
                return map_of_classes.of(y)
            case target:
                return np.full_like(y, target)
