"""The trigger that is found in a victim beside the one that was planted, and a few poisoned rows to look at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from redan.assessment.inspection_scene import Inspected
from redan.defenses.neural_cleanse import NeuralCleanse
from redan.evidence.poisoned import TriggerPart
from redan.threat.inputs import ImageInputs

__all__ = ["rows_shown", "trigger_found"]

_CLEANSED = 128  # clean test rows over which a trigger is looked for
_SHOWN = 6  # rows in pictures

Arrays = dict[str, NDArray[Any]]


def trigger_found(scene: Inspected) -> tuple[TriggerPart | None, Arrays]:
    """What Neural Cleanse takes back out of the victim, and pictures of it; nothing of what is no image or backdoor."""
    shop, backdoor, stamped = scene.shop, scene.shop.backdoor(scene.campaign), scene.shop.stamped(scene.campaign)
    images = isinstance(shop.model.system.inputs, ImageInputs) and shop.test.x.ndim == 4
    if backdoor is None or stamped is None or not images or not scene.target.differentiable:
        return None, {}
    found = NeuralCleanse(steps=200)(scene.target, shop.test.x[:_CLEANSED], shop.classes, seed=scene.seed)
    target = backdoor.target if isinstance(backdoor.target, int) else None
    label = int(found.anomaly.argmax()) if target is None else target
    low = shop.bounds[0] if shop.bounds else 0.0
    blank = np.full((1, *shop.test.x.shape[1:]), low, dtype=shop.test.x.dtype)
    planted, mask = backdoor.trigger(blank)[0], found.masks[label]
    changed = (planted != blank[0]).any(0)
    both, either = ((mask > 0.5) & changed).sum(), ((mask > 0.5) | changed).sum()
    part = TriggerPart(
        flagged=[int(each) for each in found.backdoored()],
        target=target,
        anomaly=[float(each) if np.isfinite(each) else None for each in found.anomaly],
        overlap=float(both / either) if either else None,
    )
    return part, {"planted": planted, "mask": mask, "pattern": found.patterns[label]}


def rows_shown(scene: Inspected) -> Arrays:
    """A few training rows before and after, with their labels: images alone, and none that were added."""
    shop, made = scene.shop, scene.made
    changed = made.changed[made.changed < len(shop.train)]
    if not isinstance(shop.model.system.inputs, ImageInputs) or not len(changed):
        return {}
    at = changed[np.linspace(0, len(changed) - 1, min(_SHOWN, len(changed))).astype(int)]
    return {
        "clean": shop.train.x[at],
        "poisoned": made.samples.x[at],
        "before": shop.train.y[at],
        "after": made.samples.y[at],
    }
