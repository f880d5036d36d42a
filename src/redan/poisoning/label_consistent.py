"""Label-consistent backdoor (Turner et al. 2019, arXiv:1912.02771): hard rows of the target class, with a trigger.

What a row shows of its class is spoiled by an adversarial perturbation, so that training leans on the trigger; every
label stays true.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from redan.data.samples import Samples
from redan.errors import DataError, SettingError
from redan.perturbations.norms import Linf
from redan.poisoning.budget import Budget, Poisoned
from redan.poisoning.choice import drawn
from redan.poisoning.crafting import RowFunction, box, floats, labels, put


class Corners(Enum):
    """Where a patch is put."""

    ONE = auto()
    """Bottom right."""
    FOUR = auto()
    """All four, mirrored, so that mirroring a row leaves it there (Turner 2019)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CornerPatch:
    """A trigger: a small pattern in one or four corners, added with an amplitude (Turner 2019).

    Rows are (N, …, H, W). amplitude: what is added where the pattern is 1 and taken away where it is 0, in units of
    `bounds`, cut by them; the width of the bounds makes it white and black. pattern: rows of 0 and 1.

    >>> CornerPatch(amplitude=1.0, corners=Corners.ONE)(np.full((1, 3, 3), 0.5))[0].tolist()
    [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    """

    amplitude: float = 32 / 255
    corners: Corners = Corners.FOUR
    bounds: tuple[float, float] = (0.0, 1.0)
    pattern: tuple[tuple[int, ...], ...] = ((0, 0, 1), (0, 1, 0), (1, 0, 1))

    def __post_init__(self) -> None:
        if not self.amplitude > 0:
            raise SettingError(f"a patch's amplitude must be above 0, got {self.amplitude}; 32/255 is usual")
        if len({len(line) for line in self.pattern}) != 1 or not self.pattern[0]:
            raise SettingError("a patch's pattern needs lines of one length; write it as ((0, 1), (1, 0))")

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        signs = 2 * np.array(self.pattern) - 1
        height, width = signs.shape
        many = 1 if self.corners is Corners.ONE else 2
        if x.ndim < 3 or x.shape[-2] < many * height or x.shape[-1] < many * width:
            raise DataError(
                f"a patch of {height} by {width} does not fit rows of shape {x.shape[1:]}; give images (N, …, H, W)"
            )
        change = np.zeros(x.shape[-2:])
        change[-height:, -width:] = signs
        if self.corners is Corners.FOUR:
            change[-height:, :width] = signs[:, ::-1]
            change[:height, -width:] = signs[::-1]
            change[:height, :width] = signs[::-1, ::-1]
        patched: NDArray[Any] = np.clip(x + self.amplitude * change, *self.bounds).astype(x.dtype)
        return np.where(change != 0, patched, x)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelConsistent:
    """Plant a trigger for the class `label` in rows of that class alone.

    label: the target class. perturb: makes rows hard, `(x (N, …) float32, y (N,)) -> (N, …)`, such as an attack on a
    model of the attacker's; the paper uses PGD on an adversarially trained one. trigger: what is put on
    them afterwards, faintly; the attacker shows it in full at test time. radius: ℓ∞ that `perturb` is checked against,
    in units of `bounds`; no limit by default. Rows of the class are drawn at random.

    Raises SettingError for a class of which the attacker controls no row, SetError where `perturb` leaves the set,
    DataError where it changes the shape.

    >>> LabelConsistent(label=3, perturb=lambda x, y: x).trigger
    CornerPatch(amplitude=0.125..., corners=<Corners.FOUR: 2>, ...)
    """

    label: int
    perturb: Callable[[Tensor, Tensor], Tensor]
    trigger: RowFunction = CornerPatch()
    radius: float = math.inf
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        box(self.radius, self.bounds)

    def __call__(self, samples: Samples, budget: Budget, *, seed: int) -> Poisoned:
        within, rng = box(self.radius, self.bounds), np.random.default_rng(seed)
        near = drawn(samples.y == self.label, samples, budget, rng)
        x = floats(samples.x[near], within)
        hard = self.perturb(x.clone(), labels(samples.y[near])).detach().cpu()
        if hard.shape != x.shape:
            raise DataError(
                f"the perturbed rows have shape {tuple(hard.shape)}, and {tuple(x.shape)} went in; keep the shape"
            )
        put(samples, near, hard, within=within)  # raises where a row left the set
        shown = floats(self.trigger(hard.numpy()), within)
        return put(samples, near, shown, within=Linf(math.inf, self.bounds))
