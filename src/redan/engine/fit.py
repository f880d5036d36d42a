"""Fits an artefact (a universal perturbation) on rows of a model, through the same metered access as any attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from numpy.typing import ArrayLike
from torch import Tensor, nn

from redan.engine.run import attack
from redan.errors import DataError
from redan.goals import Aim
from redan.oracle import Capability
from redan.protocols import Ball, Gradients
from redan.referee import Worst
from redan.rows import Rows
from redan.targets import Target

Artefact = TypeVar("Artefact")
Artefact_co = TypeVar("Artefact_co", covariant=True)


class Fitter(Protocol[Artefact_co]):
    """A frozen value that makes something of what a referee answers about all rows at once."""

    def fit(self, referee: Gradients[Tensor], rows: Rows[Tensor, Any], /) -> Artefact_co: ...


@dataclass(frozen=True, slots=True)
class _Fitting(Generic[Artefact]):
    """A fitter as an attack, which may return nothing: what it made is kept here."""

    fitter: Fitter[Artefact]
    made: list[Artefact] = field(default_factory=list, repr=False)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        self.made.append(self.fitter.fit(referee, rows))


def fit(
    model: nn.Module | Target[Tensor],
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    fitter: Fitter[Artefact],
    *,
    within: Ball,
    surrogates: Sequence[nn.Module | Target[Tensor]] = (),
    goal: Aim | None = None,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
    capability: Capability | None = None,
    eot: int = 1,
    ids: Sequence[object] | None = None,
) -> Artefact:
    """What the fitter makes of rows x (N, …) with right classes y (N,): a `Stamp`, to be judged on other rows.

    The arguments are those of `redan.attack`. All rows are there at once, and none leaves when it is broken.
    Raises DataError where there are no rows.

    >>> import torch
    >>> from redan.perturbations.norms import Linf
    >>> class Shift:
    ...     def fit(self, referee, rows):
    ...         return len(rows)
    >>> fit(torch.nn.Linear(2, 2).eval(), torch.rand(4, 2), torch.tensor([0, 1, 0, 1]), Shift(), within=Linf(0.5))
    4
    """
    fitting = _Fitting(fitter)
    attack(
        model,
        x,
        y,
        fitting,
        within=within,
        surrogates=surrogates,
        goal=goal,
        bounds=bounds,
        seed=seed,
        keep=Worst(),
        capability=capability,
        eot=eot,
        ids=ids,
        workers=1,
        block=max(1, len(y)),  # type: ignore[arg-type]  # an array or a tensor has a length
    )
    if not fitting.made:
        raise DataError("there are no rows to fit on; give some of the attacker's own")
    return fitting.made[0]
