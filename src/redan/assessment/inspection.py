"""What a defender finds of an attacker's strongest poison, and how far a victim can be repaired.

The rows are known to be poisoned or not, so detectors are measured; the defender is given what one would have: the
training rows, trusted rows where the threat model names some, the training, and the attacker's share as the most that
may be poisoned. Trusted rows are trained on with the others, so that both are treated alike.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from redan.assessment.victim import Done
from redan.assessment.workshop import Whole, Workshop, reason
from redan.data.samples import Samples
from redan.defenses.features import early_losses, penultimate
from redan.defenses.fine_pruning import FinePruning
from redan.defenses.measures import area_under_curve, recall_at
from redan.defenses.neural_cleanse import NeuralCleanse
from redan.defenses.repair import without
from redan.defenses.suspicion import Numbers, Suspects, Suspicion, suspicion
from redan.defenses.unlearning import Unlearning
from redan.errors import RedanError
from redan.evidence.poisoned import DetectorPart, RepairPart, SourcePart, TriggerPart
from redan.poisoning.budget import Poisoned
from redan.poisoning.scene import PoisonGoal
from redan.registry.detectors import DETECTORS, Inspection
from redan.registry.poisoners import poisoner as entry_of
from redan.targets import Target, TorchTarget
from redan.threat.inputs import ImageInputs
from redan.threat.poisoners import PoisonCampaign

__all__ = ["inspected"]

_Q = 0.1  # the false-discovery rate of what is called poison
_FALSE = 0.01  # share of clean rows above the threshold at which recall is told
_TAKEN_OUT = (1.5, 3.0)  # times the attacker's budget: how many of the most suspicious rows go, until it is enough
_CLEANSED = 128  # clean test rows over which a trigger is looked for
_SHOWN = 6  # rows in pictures
_TIES = 1e-9  # far below the difference of two p-values


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Scene:
    """A poisoned training set with the victim that a defender trains on it."""

    shop: Workshop
    campaign: PoisonCampaign
    made: Poisoned
    rows: Samples
    """The poisoned rows, then the trusted ones."""
    poisoned: NDArray[np.bool_]
    trusted: NDArray[np.bool_]
    model: nn.Module | Target[Tensor]
    seed: int
    flagged: tuple[int, ...] = ()
    """Labels whose rows are looked at first, as their trigger is unusually small; none: all alike."""

    @property
    def target(self) -> Target[Tensor]:
        return self.shop.target(self.model)

    def measured(self, model: nn.Module | Target[Tensor]) -> tuple[float | None, float]:
        """The attacker's success with a model, if there is any to speak of, and its accuracy on clean test rows."""
        shop = self.shop
        clean = shop.answers(model, shop.test.x)
        accuracy = float((clean == shop.test.y).mean())
        if self.campaign.goal is PoisonGoal.TARGETED_ROWS:
            at, label = shop.chosen(0)
            return float(clean[at] == label), accuracy
        stamped = shop.stamped(self.campaign)
        if stamped is None:
            return None, accuracy
        return float((shop.answers(model, stamped.x) == stamped.wanted).mean()), accuracy


def inspected(shop: Workshop, attacker: str, poisoner: str) -> Done:
    """Detectors, repairs and the trigger of the first victim of a poisoner at the whole share."""
    begun = time.monotonic()
    try:
        told, pictures = _looked(shop, attacker, poisoner)
    except Exception as error:  # the user's training may raise anything; it is told, and the victims still count
        told = {"detectors": [], "sources": [], "repairs": [], "trigger": None}
        told["notes"] = [f"Detectors and repairs could not be tried: {reason(error)}"]
        pictures = {}
    return Done({**told, "seconds": round(time.monotonic() - begun, 3)}, pictures)


def _looked(shop: Workshop, attacker: str, poisoner: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What `inspected` tells but for the seconds, and its pictures."""
    campaign, seed = shop.campaigns[attacker], shop.seed(0)
    made, _ = shop.poisoned(campaign, entry_of(poisoner), campaign.budget.share, 0)
    rows = _with(made.samples, shop.trusted)
    flags = np.zeros(len(rows), dtype=bool)
    flags[made.changed] = True
    scene = _Scene(
        shop=shop,
        campaign=campaign,
        made=made,
        rows=rows,
        poisoned=flags,
        trusted=np.arange(len(rows)) >= len(made.samples),
        model=shop.fit(rows, seed),
        seed=seed,
    )
    notes: list[str] = []
    trigger, pictures = _trigger(scene)
    if trigger is not None and trigger.flagged:
        scene = replace(scene, flagged=tuple(trigger.flagged))
        notes.append("The most suspicious rows are taken of the labels that Neural Cleanse flags.")
    detectors, best = _detected(scene, notes)
    told = {
        "detectors": [part.model_dump(mode="json") for part in detectors],
        "sources": [part.model_dump(mode="json") for part in _sources(scene, best)],
        "repairs": [part.model_dump(mode="json") for part in _repaired(scene, best)],
        "trigger": None if trigger is None else trigger.model_dump(mode="json"),
        "notes": notes,
    }
    return told, {**pictures, **_rows_shown(scene)}


def _with(samples: Samples, trusted: Samples | None) -> Samples:
    if trusted is None:
        return samples
    source = samples.source and (*samples.source, *(trusted.source or ("trusted",) * len(trusted)))
    return Samples(
        np.concatenate([samples.x, trusted.x.astype(samples.x.dtype)]),
        np.concatenate([samples.y, trusted.y.astype(samples.y.dtype)]),
        None,
        source,
        samples.split,
    )


def _detected(scene: _Scene, notes: list[str]) -> tuple[list[DetectorPart], Suspicion | None]:
    """Each detector's figures, and what the best of them says of each row: the one with most poison among as many of
    the most suspicious rows as are poisoned."""
    shop, target = scene.shop, scene.target
    features, losses = scene.rows.x.reshape(len(scene.rows), -1).astype(np.float64), None
    if isinstance(target, TorchTarget):
        try:
            features = penultimate(target, scene.rows)
        except RedanError as error:
            notes.append(f"Features are the inputs themselves: {error}")
        losses = early_losses(_fresh(target), scene.rows, seed=scene.seed)
    else:
        notes.append("The training gives no torch module, so features are the inputs themselves.")
    if shop.trusted is None:
        notes.append(
            "No trusted rows are named (system.data.trusted), so suspicions are ranks: no rate of false alarms."
        )
    suspects = Suspects(
        samples=scene.rows,
        features=features,
        losses=losses,
        trusted=scene.trusted if scene.trusted.any() else None,
    )
    seen = Inspection(target=target, clean=shop.test.x[: min(256, len(shop.test))], classes=shop.classes)
    parts: list[DetectorPart] = []
    best: tuple[int, Suspicion] | None = None
    for entry in DETECTORS:
        try:
            found = suspicion(suspects, entry.make(seen), seed=scene.seed)
        except RedanError as error:
            parts.append(_not_applicable(entry.name, str(error)))
            continue
        parts.append(_figures(entry.name, found, scene))
        caught = int(scene.poisoned[_most_suspicious(scene, found, int(scene.poisoned.sum()))].sum())
        if best is None or caught > best[0]:
            best = (caught, found)
        if "strip" not in entry.name:
            notes += [note for note in found.notes if note not in notes and shop.trusted is not None]
    return parts, None if best is None else best[1]


def _not_applicable(name: str, reason: str) -> DetectorPart:
    return DetectorPart(
        name=name, status="not applicable", reason=reason, auc=None, recall=None, found=None, caught=None, q=None
    )


def _figures(name: str, found: Suspicion, scene: _Scene) -> DetectorPart:
    tested = ~scene.trusted
    called = None if found.p is None else found.poison(_Q)
    return DetectorPart(
        name=name,
        status="done",
        reason=None,
        auc=area_under_curve(_compared(found, scene)[tested], scene.poisoned[tested]),
        recall=recall_at(_compared(found, scene)[tested], scene.poisoned[tested], _FALSE),
        found=None if called is None else len(called),
        caught=None if called is None else int(scene.poisoned[called].sum()),
        q=None if called is None else _Q,
    )


def _compared(found: Suspicion, scene: _Scene) -> Numbers:
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


def _fresh(target: TorchTarget) -> TorchTarget:
    """The network before training: a copy, its layers drawn again."""
    made = deepcopy(target)
    for part in made.module.modules():
        draw_again = getattr(part, "reset_parameters", None)
        if callable(draw_again):
            draw_again()
    for weight in made.module.parameters():
        weight.requires_grad_(True)  # torch's own signature
    return made


def _most_suspicious(scene: _Scene, best: Suspicion, count: int) -> Whole:
    """Positions of so many rows, the most suspicious of those that are not trusted: ascending. Where labels are
    flagged, of their rows, but not more than nine tenths of them: somebody must stay to learn the class from."""
    ranks = np.argsort(-_compared(best, scene), kind="stable")
    ranks = ranks[~scene.trusted[ranks]]
    if scene.flagged:
        ranks = ranks[np.isin(scene.rows.y[ranks], scene.flagged)]
        count = min(count, len(ranks) * 9 // 10)
    return np.sort(ranks[:count])


def _sources(scene: _Scene, best: Suspicion | None) -> list[SourcePart]:
    """How the most suspicious rows, as many as are poisoned, fall on the suppliers."""
    if best is None or scene.made.samples.source is None:
        return []
    suspicious = np.zeros(len(scene.rows), dtype=bool)
    suspicious[_most_suspicious(scene, best, int(scene.poisoned.sum()))] = True
    suppliers = np.array(scene.made.samples.source)
    untrusted = len(suppliers)
    return [
        SourcePart(
            source=str(each),
            rows=int((suppliers == each).sum()),
            poisoned=int(scene.poisoned[:untrusted][suppliers == each].sum()),
            suspicious=int(suspicious[:untrusted][suppliers == each].sum()),
        )
        for each in np.unique(suppliers)
    ]


def _repaired(scene: _Scene, best: Suspicion | None) -> list[RepairPart]:
    """Removal and training anew, fine-pruning, unlearning: how far each gets."""
    until, before = scene.shop.model.poisoning.repair_until, scene.measured(scene.model)
    found = [_removed(scene, best, before, until)]
    target = scene.target
    if not isinstance(target, TorchTarget):
        why = "the training gives no torch module whose weights could be changed"
        return [*found, *(_left_out(name, why, before, until) for name in ("fine-pruning", "unlearning"))]
    trusted = scene.shop.trusted
    if trusted is None:
        found.append(_left_out("fine-pruning", "it needs trusted rows; give system.data.trusted", before, until))
    else:
        found.append(_tried("fine-pruning", scene, before, until, lambda: _pruned(scene, target, trusted)))
    if best is None:
        return [*found, _left_out("unlearning", "no detector could look at the rows", before, until)]
    few = _most_suspicious(scene, best, max(1, len(scene.made.samples) // 100))
    unlearning = Unlearning(until=until)
    found.append(
        _tried(
            "unlearning",
            scene,
            before,
            until,
            lambda: unlearning(target, scene.rows, few, seed=scene.seed).target,
        )
    )
    return found


def _pruned(scene: _Scene, target: TorchTarget, trusted: Samples) -> Target[Tensor]:
    return FinePruning()(target, trusted, seed=scene.seed).target


def _removed(scene: _Scene, best: Suspicion | None, before: tuple[float | None, float], until: float) -> RepairPart:
    """Training without the most suspicious rows, more of them where it was not enough."""
    name = "remove and retrain"
    if best is None:
        return _left_out(name, "no detector could look at the rows", before, until)
    part = _left_out(name, "nothing was taken out", before, until)
    for times in _TAKEN_OUT:
        out = _most_suspicious(scene, best, round(times * scene.campaign.budget.rows(scene.shop.train)))
        try:
            model = scene.shop.fit(without(scene.rows, out), scene.seed)
        except RedanError as error:
            return _left_out(name, str(error), before, until)
        part = _repair(name, scene.measured(model), before, until, removed=len(out))
        if part.reached is not False:
            break
    return part


def _tried(name: str, scene: _Scene, before: tuple[float | None, float], until: float, mend: Any) -> RepairPart:
    try:
        return _repair(name, scene.measured(mend()), before, until)
    except RedanError as error:
        return _left_out(name, str(error), before, until)


def _repair(
    name: str,
    after: tuple[float | None, float],
    before: tuple[float | None, float],
    until: float,
    removed: int | None = None,
) -> RepairPart:
    return RepairPart(
        name=name,
        status="done",
        reason=None,
        removed=removed,
        success=after[0],
        accuracy=after[1],
        success_before=before[0],
        accuracy_before=before[1],
        until=until,
        reached=None if after[0] is None else after[0] <= until,
    )


def _left_out(name: str, reason: str, before: tuple[float | None, float], until: float) -> RepairPart:
    return RepairPart(
        name=name,
        status="not applicable",
        reason=reason,
        removed=None,
        success=None,
        accuracy=None,
        success_before=before[0],
        accuracy_before=before[1],
        until=until,
        reached=None,
    )


def _trigger(scene: _Scene) -> tuple[TriggerPart | None, dict[str, NDArray[Any]]]:
    """The trigger that Neural Cleanse takes back out of the victim, beside the one that was planted."""
    shop, stamped = scene.shop, scene.shop.stamped(scene.campaign)
    images = isinstance(shop.model.system.inputs, ImageInputs) and shop.test.x.ndim == 4
    if stamped is None or not images or not scene.target.differentiable:
        return None, {}
    found = NeuralCleanse(steps=200)(scene.target, shop.test.x[:_CLEANSED], shop.classes, seed=scene.seed)
    wanted = np.unique(stamped.wanted)
    target = int(wanted[0]) if len(wanted) == 1 else None
    planted = _planted(scene)
    anomaly = [None if not np.isfinite(each) else float(each) for each in found.anomaly]
    label = int(found.anomaly.argmax()) if target is None else target
    mask, pattern = found.masks[label], found.patterns[label]
    changed = (planted != shop.test.x.dtype.type(_low(shop))).any(0)
    both, either = ((mask > 0.5) & changed).sum(), ((mask > 0.5) | changed).sum()
    part = TriggerPart(
        flagged=[int(each) for each in found.backdoored()],
        target=target,
        anomaly=anomaly,
        overlap=float(both / either) if either else None,
    )
    return part, {"planted": planted, "mask": mask, "pattern": pattern}


def _low(shop: Workshop) -> float:
    return shop.bounds[0] if shop.bounds else 0.0


def _planted(scene: _Scene) -> NDArray[Any]:
    """What the trigger makes of an input that is the lower bound everywhere: (C, H, W)."""
    trigger = scene.shop.trigger(scene.campaign)
    blank = np.full((1, *scene.shop.test.x.shape[1:]), _low(scene.shop), dtype=scene.shop.test.x.dtype)
    stamped: NDArray[Any] = trigger(blank)[0]
    return stamped


def _rows_shown(scene: _Scene) -> dict[str, NDArray[Any]]:
    """A few training rows before and after, with their labels: images alone."""
    shop = scene.shop
    changed = scene.made.changed[scene.made.changed < len(shop.train)]
    if not isinstance(shop.model.system.inputs, ImageInputs) or not len(changed):
        return {}
    at: Sequence[int] = changed[np.linspace(0, len(changed) - 1, min(_SHOWN, len(changed))).astype(int)].tolist()
    return {
        "clean": shop.train.x[at],
        "poisoned": scene.made.samples.x[at],
        "before": shop.train.y[at],
        "after": scene.made.samples.y[at],
    }
