"""What the report's gallery shows: a few rows beside the inputs that broke the model."""

from __future__ import annotations

from itertools import islice

import torch

from redan.answers import evaluate, micro_batch
from redan.assessment.build import Built
from redan.evidence.folder import RunFolder
from redan.evidence.inputs import saved_inputs
from redan.evidence.pictures import Pictures, save_pictures
from redan.evidence.summary import Summary
from redan.goals import Task
from redan.threat.inputs import ImageInputs
from redan.threat.schema import KeepInputs, ThreatModel

_PICTURES = 6  # of each attacker


def keep_pictures(model: ThreatModel, built: Built, folder: RunFolder, found: Summary) -> None:
    """The first rows that each attacker broke, for the report's gallery: of images, and where inputs are kept."""
    shown = isinstance(model.system.inputs, ImageInputs) and built.task is Task.CLASS
    if not shown or model.run.keep_inputs is KeepInputs.NONE:
        return
    parts = []
    for number, head in enumerate(found.head.attackers):
        tally = found.tallies.get(head.name)
        rows = [] if tally is None else list(islice(tally.broken(found.taken()), _PICTURES))
        saved = dict(saved_inputs(folder, head.name, rows)) if rows else {}
        parts += [(number, row, built.x[row], saved[row]) for row in rows if row in saved]
    if parts:
        attacker, row, x0, x = zip(*parts, strict=True)
        clean, made = (torch.stack(each).to(built.x) for each in (x0, x))
        before, after = (evaluate(built.target, each, micro=micro_batch(each)).output for each in (clean, made))
        save_pictures(
            folder,
            Pictures(
                attacker=torch.tensor(attacker),
                row=torch.tensor(row),
                x0=clean,
                x=made,
                before=before,
                after=after,
                bounds=built.target.bounds,
            ),
        )
