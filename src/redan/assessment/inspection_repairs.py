"""How far a victim can be repaired: rows taken out and training done again, fine-pruning, unlearning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from redan.assessment.inspection_scene import Found, Inspected, Measured
from redan.defenses.fine_pruning import FinePruning
from redan.defenses.repair import without
from redan.defenses.unlearning import Unlearning
from redan.errors import RedanError
from redan.evidence.poisoned import RepairPart
from redan.targets import Target, TorchTarget

__all__ = ["repaired"]

_TAKEN_OUT = (1.5, 3.0)  # times the attacker's budget: how many of the most suspicious rows go, until it is enough
_ISOLATED = 100  # one row of so many is unlearned (Li 2021)


@dataclass(frozen=True, slots=True, eq=False)
class _Bench:
    """What every repair is compared with. until: the success that it is to reach."""

    scene: Inspected
    before: Measured
    until: float

    def part(
        self, name: str, after: Measured | None, *, reason: str | None = None, removed: int | None = None
    ) -> RepairPart:
        """A repair that came to something, or (after None) why it could not be tried."""
        success = None if after is None else after.success
        return RepairPart(
            name=name,
            status="done" if after is not None else "not applicable",
            reason=reason,
            removed=removed,
            success=success,
            accuracy=None if after is None else after.accuracy,
            success_before=self.before.success,
            accuracy_before=self.before.accuracy,
            until=self.until,
            reached=None if success is None else success <= self.until,
        )

    def tried(
        self, name: str, mend: Callable[[], nn.Module | Target[Tensor]], removed: int | None = None
    ) -> RepairPart:
        """A repair by a function that returns the mended model."""
        try:
            return self.part(name, self.scene.measured(mend()), removed=removed)
        except RedanError as error:
            return self.part(name, None, reason=str(error))


def repaired(scene: Inspected, best: Found | None) -> Iterator[RepairPart]:
    """Each repair, with what the best detector found."""
    bench = _Bench(scene, scene.measured(scene.model), scene.shop.model.poisoning.repair_until)
    yield _removed(bench, best)
    yield _pruned(bench)
    yield _unlearned(bench, best)


def _removed(bench: _Bench, best: Found | None) -> RepairPart:
    """Training without the most suspicious rows, more of them where it was not enough."""
    name, scene = "remove and retrain", bench.scene
    if best is None:
        return bench.part(name, None, reason=_NOBODY)
    for times in _TAKEN_OUT:
        out = best.most_suspicious(round(times * scene.campaign.budget.rows(scene.shop.train)))
        part = bench.tried(name, partial(_trained_without, scene, out), len(out))
        if part.reached is not False:
            break
    return part


def _trained_without(scene: Inspected, out: NDArray[np.int64]) -> nn.Module | Target[Tensor]:
    return scene.shop.fit(without(scene.rows, out), scene.seed)


def _pruned(bench: _Bench) -> RepairPart:
    name, scene, target, trusted = "fine-pruning", bench.scene, bench.scene.target, bench.scene.shop.trusted
    if not isinstance(target, TorchTarget):
        return bench.part(name, None, reason=_NO_WEIGHTS)
    if trusted is None:
        return bench.part(name, None, reason="it needs trusted rows; give system.data.trusted")
    return bench.tried(name, lambda: FinePruning()(target, trusted, seed=scene.seed).target)


def _unlearned(bench: _Bench, best: Found | None) -> RepairPart:
    name, scene, target = "unlearning", bench.scene, bench.scene.target
    if not isinstance(target, TorchTarget):
        return bench.part(name, None, reason=_NO_WEIGHTS)
    if best is None:
        return bench.part(name, None, reason=_NOBODY)
    few = best.most_suspicious(max(1, len(scene.made.samples) // _ISOLATED))
    unlearning = Unlearning(until=bench.until)
    return bench.tried(name, lambda: unlearning(target, scene.rows, few, seed=scene.seed).target)


_NOBODY = "no detector could look at the rows"
_NO_WEIGHTS = "the training gives no torch module whose weights could be changed"
