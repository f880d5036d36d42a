"""How well detectors tell an attacker's poison from clean rows, and whose rows the suspicion falls on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata

from redan.assessment.inspection_scene import Found, Inspected
from redan.defenses.features import early_losses, penultimate
from redan.defenses.measures import area_under_curve, recall_at
from redan.defenses.suspicion import Numbers, Suspects, Suspicion, suspicion
from redan.errors import RedanError
from redan.evidence.poisoned import DetectorPart, SourcePart
from redan.registry.detectors import DETECTORS, Inspection
from redan.targets import TorchTarget
from redan.targets.untrained import untrained

__all__ = ["Detected", "compared", "detected", "sources"]

_Q = 0.1  # the false-discovery rate of what is called poison
_FALSE = 0.01  # share of clean rows above the threshold at which recall is told
_TIES = 1e-9  # far below the difference of two p-values
_CLEAN = 256  # clean test rows that detectors may lay over others


@dataclass(frozen=True, slots=True, eq=False)
class Detected:
    """Each detector's figures; what the best of them says, which has most poison among as many of the most suspicious
    rows as are poisoned; and what they had to do without."""

    parts: list[DetectorPart]
    best: Found | None
    notes: list[str]


def detected(scene: Inspected) -> Detected:
    """Every registered detector on the scene's rows."""
    suspects, notes = _suspects(scene)
    shop, poisoned = scene.shop, int(scene.poisoned.sum())
    seen = Inspection(target=scene.target, clean=shop.test.x[:_CLEAN], classes=shop.classes)
    parts: list[DetectorPart] = []
    best: Found | None = None
    most = -1
    for entry in DETECTORS:
        try:
            said = suspicion(suspects, entry.make(seen), seed=scene.seed)
        except RedanError as error:
            parts.append(_not_applicable(entry.name, str(error)))
            continue
        found = Found(scene, compared(said, scene))
        parts.append(_figures(entry.name, said, found))
        notes += [note for note in said.notes if note not in notes]
        caught = int(scene.poisoned[found.most_suspicious(poisoned)].sum())
        if caught > most:
            best, most = found, caught
    return Detected(parts, best, notes)


def _suspects(scene: Inspected) -> tuple[Suspects, list[str]]:
    """The rows with what a model makes of them, as far as it shows it, and what it does not show."""
    target, notes, losses = scene.target, [], None
    features = scene.rows.x.reshape(len(scene.rows), -1).astype(np.float64)
    if isinstance(target, TorchTarget):
        try:
            features = penultimate(target, scene.rows)
        except RedanError as error:
            notes.append(f"Features are the inputs themselves: {error}")
        fresh = replace(target, module=untrained(target.module, seed=scene.seed), fast=None)
        losses = early_losses(fresh, scene.rows, seed=scene.seed)
    else:
        notes.append("The training gives no torch module, so features are the inputs themselves.")
    trusted = scene.trusted if scene.trusted.any() else None
    return Suspects(samples=scene.rows, features=features, losses=losses, trusted=trusted), notes


def _not_applicable(name: str, reason: str) -> DetectorPart:
    return DetectorPart(
        name=name, status="not applicable", reason=reason, auc=None, recall=None, found=None, caught=None, q=None
    )


def _figures(name: str, said: Suspicion, found: Found) -> DetectorPart:
    scene, tested = found.scene, ~found.scene.trusted
    called = None if said.p is None else said.poison(_Q)
    numbers, poisoned = found.numbers[tested], scene.poisoned[tested]
    return DetectorPart(
        name=name,
        status="done",
        reason=None,
        auc=area_under_curve(numbers, poisoned),
        recall=recall_at(numbers, poisoned, _FALSE),
        found=None if called is None else len(called),
        caught=None if called is None else int(scene.poisoned[called].sum()),
        q=None if called is None else _Q,
    )


def compared(found: Suspicion, scene: Inspected) -> Numbers:
    """One number a row by which rows of all labels can be compared, (N,), larger is more suspicious.

    Many detectors' numbers mean something within a label alone. Beside trusted rows that is mended: rows are compared
    by their p-values among trusted rows of their label, and only where those are equal by their place in it. Without
    trusted rows the numbers are taken as they are. Trusted rows come last.
    """
    if found.p is None:
        return found.scores
    compared = np.full(len(scene.rows), -np.inf)
    for label in np.unique(scene.rows.y):
        mine = ~scene.trusted & (scene.rows.y == label)
        if mine.any():
            place = rankdata(found.scores[mine]) / mine.sum()  # from above 0 to 1
            compared[mine] = _TIES * place - found.p[mine]
    return compared


def sources(found: Found) -> list[SourcePart]:
    """How the most suspicious rows, as many as are poisoned, fall on the suppliers; nothing where rows have none."""
    scene = found.scene
    if scene.made.samples.source is None:
        return []
    suppliers = np.array(scene.made.samples.source)
    poisoned = scene.poisoned[: len(suppliers)]
    suspicious = np.isin(np.arange(len(suppliers)), found.most_suspicious(int(poisoned.sum())))
    return [
        SourcePart(
            source=str(each),
            rows=int((suppliers == each).sum()),
            poisoned=int(poisoned[suppliers == each].sum()),
            suspicious=int(suspicious[suppliers == each].sum()),
        )
        for each in np.unique(suppliers)
    ]
