"""What a defender finds of an attacker's strongest poison, and how far a victim can be repaired.

The rows are known to be poisoned or not, so detectors are measured; the defender is given what one would have: the
training rows, trusted rows where the threat model names some, the training, and the attacker's share as the most that
may be poisoned. Trusted rows are trained on with the others, so that both are treated alike.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from redan.assessment.inspection_detectors import detected, sources
from redan.assessment.inspection_repairs import repaired
from redan.assessment.inspection_scene import Inspected
from redan.assessment.inspection_trigger import Arrays, rows_shown, trigger_found
from redan.assessment.victim import Done
from redan.assessment.workshop import Workshop, reason

__all__ = ["inspected"]


def inspected(shop: Workshop, attacker: str, poisoner: str) -> Done:
    """Detectors, repairs and the trigger of the first victim of a poisoner at the whole share."""
    begun = time.monotonic()
    try:
        told, pictures = _looked(Inspected.of(shop, attacker, poisoner))
    except Exception as error:  # the user's training may raise anything; it is told, and the victims still count
        told = {"detectors": [], "sources": [], "repairs": [], "trigger": None}
        told["notes"] = [f"Detectors and repairs could not be tried: {reason(error)}"]
        pictures = {}
    return Done({**told, "seconds": round(time.monotonic() - begun, 3)}, pictures)


def _looked(scene: Inspected) -> tuple[dict[str, Any], Arrays]:
    """What `inspected` tells but for the seconds, and its pictures."""
    notes: list[str] = []
    trigger, pictures = trigger_found(scene)
    if trigger is not None and trigger.flagged:
        scene = replace(scene, flagged=tuple(trigger.flagged))
        notes.append("The most suspicious rows are taken of the labels that Neural Cleanse flags.")
    found = detected(scene)
    told = {
        "detectors": [part.model_dump(mode="json") for part in found.parts],
        "sources": [] if found.best is None else [part.model_dump(mode="json") for part in sources(found.best)],
        "repairs": [part.model_dump(mode="json") for part in repaired(scene, found.best)],
        "trigger": None if trigger is None else trigger.model_dump(mode="json"),
        "notes": [*notes, *found.notes],
    }
    return told, {**pictures, **rows_shown(scene)}
