"""Attacks inside a ball that pace or search by themselves, by each peer: APGD and Square.

Only public interfaces are called. ART's AutoPGD evaluates each new point twice.
"""

from adapters import CLASSES, Task, adv_lib, art_classifier, by_art
from torch import Tensor


def _norm_name(task: Task) -> str:
    return {"linf": "Linf", "l2": "L2", "l1": "L1"}[task.norm]


def apgd_art(task: Task, *, steps: int, loss: str, share: float) -> Tensor:
    """ART's AutoProjectedGradientDescent; `share` is its first step in radii."""
    from art.attacks.evasion import AutoProjectedGradientDescent

    attack = AutoProjectedGradientDescent(
        art_classifier(task),
        norm=task.order,
        eps=task.eps,
        eps_step=share * task.eps,
        max_iter=steps,
        nb_random_init=1,
        batch_size=len(task.x),
        loss_type=loss,
        verbose=False,
    )
    return by_art(attack, task)


def apgd_adv_lib(task: Task, *, steps: int, loss: str, rho: float) -> Tensor:
    """adv-lib's apgd; in L1 with the larger radii first."""
    made: Tensor = adv_lib().apgd(
        task.model,
        task.x,
        task.y,
        eps=task.eps,
        norm=task.order,
        n_iter=steps,
        loss_function=loss,
        rho=rho,
        use_large_reps=task.norm == "l1",
    )
    return made


def apgd_torchattacks(task: Task, *, steps: int, loss: str, rho: float) -> Tensor:
    """Torchattacks' APGD."""
    from torchattacks import APGD

    attack = APGD(task.model, norm=_norm_name(task), eps=task.eps, steps=steps, loss=loss, rho=rho, seed=task.seed)
    made: Tensor = attack(task.x, task.y)
    return made


def apgd_pyautoattack(task: Task, *, steps: int, loss: str, rho: float) -> Tensor:
    """pyautoattack's APGDAttack; in L1 with the larger radii first."""
    from pyautoattack.autopgd_base import APGDAttack

    attack = APGDAttack(
        task.model,
        n_iter=steps,
        norm=_norm_name(task),
        eps=task.eps,
        loss=loss,
        rho=rho,
        seed=task.seed,
        device="cpu",
        use_largereps=task.norm == "l1",
    )
    made: Tensor = attack.perturb(task.x, task.y)
    return made


def apgd_t_adv_lib(task: Task, *, steps: int, targets: int, rho: float) -> Tensor:
    """adv-lib's apgd_targeted."""
    made: Tensor = adv_lib().apgd_targeted(
        task.model,
        task.x,
        task.y,
        eps=task.eps,
        norm=task.order,
        n_iter=steps,
        rho=rho,
        use_large_reps=task.norm == "l1",
        num_targets=targets,
    )
    return made


def apgd_t_torchattacks(task: Task, *, steps: int, rho: float) -> Tensor:
    """Torchattacks' APGDT, nine targets."""
    from torchattacks import APGDT

    attack = APGDT(
        task.model, norm=_norm_name(task), eps=task.eps, steps=steps, rho=rho, seed=task.seed, n_classes=CLASSES
    )
    made: Tensor = attack(task.x, task.y)
    return made


def apgd_t_pyautoattack(task: Task, *, steps: int, targets: int, rho: float) -> Tensor:
    """pyautoattack's APGDAttack_targeted."""
    from pyautoattack.autopgd_base import APGDAttack_targeted

    attack = APGDAttack_targeted(
        task.model,
        n_iter=steps,
        norm=_norm_name(task),
        eps=task.eps,
        rho=rho,
        seed=task.seed,
        device="cpu",
        n_target_classes=targets,
        use_largereps=task.norm == "l1",
    )
    made: Tensor = attack.perturb(task.x, task.y)
    return made


def square_art(task: Task, *, queries: int, p: float) -> Tensor:
    """ART's SquareAttack."""
    from art.attacks.evasion import SquareAttack

    attack = SquareAttack(
        art_classifier(task),
        norm=task.order,
        max_iter=queries,
        eps=task.eps,
        p_init=p,
        nb_restarts=1,
        batch_size=len(task.x),
        verbose=False,
    )
    return by_art(attack, task)


def square_torchattacks(task: Task, *, queries: int, p: float) -> Tensor:
    """Torchattacks' Square."""
    from torchattacks import Square

    attack = Square(task.model, norm=_norm_name(task), eps=task.eps, n_queries=queries, p_init=p, seed=task.seed)
    made: Tensor = attack(task.x, task.y)
    return made


def square_pyautoattack(task: Task, *, queries: int, p: float) -> Tensor:
    """pyautoattack's SquareAttack."""
    from pyautoattack.square import SquareAttack

    attack = SquareAttack(
        task.model, norm=_norm_name(task), eps=task.eps, n_queries=queries, p_init=p, seed=task.seed, device="cpu"
    )
    made: Tensor = attack.perturb(task.x, task.y)
    return made
