"""Minimum-norm attacks that step to linearized boundaries, by each peer, in so many steps.

Only public interfaces are called. What a reader of the table should know:

* The peers' untargeted FAB and DeepFool differentiate all classes in each step; Foolbox's DeepFool also repeats the
  forward pass for each.
* A targeted FAB ends a row at the first class that succeeds inside the radius.
"""

import math

from adapters import CLASSES, Task, adv_lib, art_classifier, by_art, by_foolbox
from torch import Tensor


def trust_region_adv_lib(task: Task, *, steps: int, eps: float, adaptive: bool, candidates: int) -> Tensor:
    """adv-lib's tr."""
    made: Tensor = adv_lib().tr(
        task.model, task.x, task.y, iter=steps, adaptive=adaptive, p=task.order, eps=eps, c=candidates
    )
    return made


def superdeepfool_adv_lib(task: Task, *, steps: int, inner: int, overshoot: float, search: int) -> Tensor:
    """adv-lib's sdf."""
    made: Tensor = adv_lib().sdf(
        task.model, task.x, task.y, steps=steps, df_steps=inner, overshoot=overshoot, search_iter=search
    )
    return made


def deepfool_art(task: Task, *, steps: int, overshoot: float, candidates: int) -> Tensor:
    """ART's DeepFool."""
    from art.attacks.evasion import DeepFool

    attack = DeepFool(
        art_classifier(task),
        max_iter=steps,
        epsilon=overshoot,
        nb_grads=candidates,
        batch_size=len(task.x),
        verbose=False,
    )
    return by_art(attack, task)


def deepfool_foolbox(task: Task, *, steps: int, overshoot: float, candidates: int) -> Tensor:
    """Foolbox's L2DeepFoolAttack or LinfDeepFoolAttack: a forward pass for each candidate."""
    from foolbox.attacks import L2DeepFoolAttack, LinfDeepFoolAttack

    kind = L2DeepFoolAttack if task.norm == "l2" else LinfDeepFoolAttack
    return by_foolbox(kind(steps=steps, candidates=candidates, overshoot=overshoot), task)


def deepfool_torchattacks(task: Task, *, steps: int, overshoot: float) -> Tensor:
    """Torchattacks' DeepFool, row by row."""
    from torchattacks import DeepFool

    made: Tensor = DeepFool(task.model, steps=steps, overshoot=overshoot)(task.x, task.y)
    return made


def deepfool_adv_lib(task: Task, *, steps: int, overshoot: float) -> Tensor:
    """adv-lib's df."""
    made: Tensor = adv_lib().df(task.model, task.x, task.y, steps=steps, overshoot=overshoot, norm=task.order)
    return made


def _radius(task: Task) -> float:
    """The task's radius, or one that no image of the box exceeds."""
    size = task.x[0].numel()
    return min(task.eps, {"linf": 1.0, "l2": math.sqrt(size), "l1": float(size), "l0": float(size)}[task.norm])


def fab_adv_lib(task: Task, *, steps: int, pull: float, backward: float, overshoot: float) -> Tensor:
    """adv-lib's fab."""
    made: Tensor = adv_lib().fab(
        task.model, task.x, task.y, norm=task.order, n_iter=steps, α_max=pull, β=backward, η=overshoot
    )
    return made


def fab_torchattacks(
    task: Task, *, steps: int, pull: float, backward: float, overshoot: float, targeted: bool
) -> Tensor:
    """Torchattacks' FAB; targeted: toward each of nine classes in turn."""
    from torchattacks import FAB

    attack = FAB(
        task.model,
        norm={"linf": "Linf", "l2": "L2", "l1": "L1"}[task.norm],
        eps=_radius(task),
        steps=steps,
        n_restarts=1,
        alpha_max=pull,
        eta=overshoot,
        beta=backward,
        seed=task.seed,
        multi_targeted=targeted,
        n_classes=CLASSES,
    )
    made: Tensor = attack(task.x, task.y)
    return made


def fab_pyautoattack(task: Task, *, steps: int, pull: float, backward: float, overshoot: float, targets: int) -> Tensor:
    """pyautoattack's FABAttack_PT; targets: classes attacked in turn, 0 for the untargeted attack."""
    from pyautoattack.fab_pt import FABAttack_PT

    attack = FABAttack_PT(
        task.model,
        norm={"linf": "Linf", "l2": "L2", "l1": "L1"}[task.norm],
        n_restarts=1,
        n_iter=steps,
        eps=_radius(task),
        alpha_max=pull,
        eta=overshoot,
        beta=backward,
        seed=task.seed,
        targeted=targets > 0,
        device="cpu",
        n_target_classes=targets,
    )
    made: Tensor = attack.perturb(task.x, task.y)
    return made
