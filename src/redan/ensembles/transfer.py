"""What an attack on one model does to another: between members, and to the ensemble they are.

A transfer is counted on rows that both models have right, and of each row the candidate with the highest loss is
carried over, not the first that won: an attack that ends at the boundary of one model seldom crosses another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from redan.answers import micro_batch, share
from redan.engine.block import JUDGING_DRAWS, seeded
from redan.engine.intake import checked_rows
from redan.engine.run import attack as attacked
from redan.ensembles.served import Together
from redan.errors import SettingError
from redan.evidence.statistics import Interval, interval
from redan.goals import Task, Untargeted
from redan.protocols import Attack, Bounded
from redan.referee import Worst
from redan.targets import Target, as_target

WHOLE = "whole"


class Rate(NamedTuple):
    """k of n rows, with the exact interval."""

    k: int
    n: int
    interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Transfers:
    """T models, each attacked, each given the others' inputs.

    right: (T, N) bool, rows that a model has right. broken: (T, T, N) bool, whether the input made on the first gets a
    wrong answer of the second. judged: (T, T, N) bool, False where the first failed while it was attacked, or the
    second on what it was shown. confidence: of the intervals, two-sided.
    """

    names: tuple[str, ...]
    right: Tensor = field(repr=False)
    broken: Tensor = field(repr=False)
    judged: Tensor = field(repr=False)
    confidence: float = 0.95

    def rate(self, source: int, target: int) -> Rate:
        """Of rows that both have right, those that inputs made on `source` break on `target`."""
        rows = self.right[source] & self.right[target] & self.judged[source, target]
        return self._rate(self.broken[source, target] & rows, int(rows.sum()))

    def standing(self, target: int, *sources: int) -> Rate:
        """Of all rows, those that `target` has right, whatever was made on the sources; on itself unless given.

        A row of which one input could not be judged is none that stands.
        """
        made = list(sources or (target,))
        stands = self.right[target] & (self.judged & ~self.broken)[made, target].all(0)
        return self._rate(stands, stands.shape[0])

    def _rate(self, rows: Tensor, n: int) -> Rate:
        k = int(rows.sum())
        return Rate(k, n, interval(k, n, self.confidence))


def transfers(
    models: Sequence[nn.Module | Target[Tensor]],
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    attack: Attack[Any, Any],
    *,
    within: Bounded,
    names: Sequence[str] = (),
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
    eot: int = 1,
    ids: Sequence[object] | None = None,
    workers: int = 0,
    confidence: float = 0.95,
) -> Transfers:
    """Attack rows x (N, …) with classes y (N,) on each model, and show each all the inputs that were made.

    The attack aims at any wrong class, and knows the model that it is made on and no other. A model that answers at
    random is judged by the mean of several answers, and climbed by `eot` draws a gradient. names: the models', their
    numbers unless given. Other arguments as `redan.attack` has them, and its errors; SettingError without a model, and
    for names that are not one a model.

    >>> from redan.evasion.fgsm import FGSM
    >>> from redan.perturbations.norms import Linf
    >>> models = [nn.Linear(4, 3).eval(), nn.Linear(4, 3).eval()]
    >>> found = transfers(models, torch.rand(8, 4), torch.arange(8) % 3, FGSM(), within=Linf(0.1))
    >>> found.rate(0, 1).n == int((found.right[0] & found.right[1]).sum())
    True
    """
    targets = [as_target(model, bounds) for model in models]
    if not targets:
        raise SettingError("a transfer needs models to be made on; give one or more")
    named = tuple(names) or tuple(str(i) for i in range(len(targets)))
    if len(named) != len(targets):
        raise SettingError(f"{len(named)} names for {len(targets)} models; give one name a model")
    clean, known = _seen(targets, x, y, seed)
    broken, judged = [], []
    for target in targets:
        made = attacked(
            target,
            x,
            y,
            attack,
            within=within,
            keep=Worst(),
            seed=seed,
            eot=eot if target.stochastic else 1,
            ids=ids,
            workers=workers,
        )
        wrong, answered = _seen(targets, made.adversarial, y, seed)
        answered[:, sorted(made.errors)] = False
        broken.append(wrong)
        judged.append(answered)
    return Transfers(
        names=named,
        right=~clean & known,
        broken=torch.stack(broken),
        judged=torch.stack(judged),
        confidence=confidence,
    )


def between(
    ensemble: Together,
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    attack: Attack[Any, Any],
    *,
    within: Bounded,
    seed: int = 0,
    eot: int = 1,
    ids: Sequence[object] | None = None,
    workers: int = 0,
    confidence: float = 0.95,
) -> Transfers:
    """`transfers` of an ensemble's members, and of the ensemble as a whole, the last one.

    `standing(-1)` is what the whole is worth against an attack on itself, and `standing(i)` what member i would be
    alone; `standing(-1, *range(M + 1))` counts every input that was made. Where inputs made on a member break more of
    the whole than those made on it, the attack on the whole was held up by its gradients, and not by its members:
    attack `leveled(ensemble)` too, or attack harder.
    """
    count = len(ensemble.target.members)
    return transfers(
        [*ensemble.target.members, ensemble],
        x,
        y,
        attack,
        within=within,
        names=(*(f"member {i}" for i in range(count)), WHOLE),
        seed=seed,
        eot=eot,
        ids=ids,
        workers=workers,
        confidence=confidence,
    )


def _seen(
    targets: Sequence[Target[Tensor]], x: ArrayLike | Tensor, y: ArrayLike | Tensor, seed: int
) -> tuple[Tensor, Tensor]:
    """Which rows each model answers wrong, and which it answers at all: (T, N) bool each."""
    wrong, answered = [], []
    for target in targets:
        inputs, labels = checked_rows(x, y, target, Task.CLASS)
        with seeded(target, seed):
            draws = JUDGING_DRAWS if target.stochastic else 1
            often, reasons = share(target, inputs, Untargeted(labels), draws, micro_batch(inputs))
        known = torch.ones(len(inputs), dtype=torch.bool)
        known[sorted(reasons)] = False
        wrong.append((often >= 0.5).cpu())
        answered.append(known)
    return torch.stack(wrong), torch.stack(answered)
