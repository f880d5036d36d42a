"""Universal perturbations by the only peer that has any: one change for all rows, fitted on the attacker's own rows.

ART's TargetedUniversalPerturbation needs a target class, so it is no contestant.
"""

import math
from typing import Any

import torch
from adapters import Task, art_classifier
from torch import Tensor


def universal_art(
    task: Task, *, inner: str, options: dict[str, Any], passes: int, fooled: float, share: float = 1.0
) -> Tensor:
    """ART's UniversalPerturbation with one of its inner attacks, whose eps and eps_step `options` give in radii.

    passes: over the fitted rows, at the most; fooled: the share of them at which it ends; share: of the radius that
    it projects to. What it has fitted is added to the rows, and they are cut off at the box.
    """
    from art.attacks.evasion import UniversalPerturbation

    assert task.fitted is not None, "there are no rows to fit on"
    x, y = (part.numpy() for part in task.fitted)
    told = {name: value * task.eps if name in ("eps", "eps_step") else value for name, value in options.items()}
    if inner in ("fgsm", "bim", "pgd"):
        told["norm"] = task.order
    attack = UniversalPerturbation(
        art_classifier(task),
        attacker=inner,
        attacker_params=told,
        delta=1 - fooled,
        max_iter=passes,
        eps=share * task.eps,
        norm=math.inf if task.norm == "linf" else 2,
        batch_size=len(x),
        verbose=False,
    )
    attack.generate(x, y)
    return (task.x + torch.from_numpy(attack.noise)).clamp(0, 1)
