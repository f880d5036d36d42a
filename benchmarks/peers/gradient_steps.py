"""Signed and normalized gradient steps inside a ball of given radius, by each peer: what it returns is judged there.

Only public interfaces are called. A step is given as a share of the radius, so that a setting means the same in
every norm. ART measures success after the attack: two forward passes more.
"""

from typing import Any

from adapters import Task, adv_lib, art_classifier, by_art, by_foolbox
from torch import Tensor


def fgsm_art(task: Task) -> Tensor:
    """ART's FastGradientMethod."""
    from art.attacks.evasion import FastGradientMethod

    return by_art(FastGradientMethod(art_classifier(task), norm=task.order, eps=task.eps, batch_size=len(task.x)), task)


def fgsm_foolbox(task: Task) -> Tensor:
    """Foolbox's LinfFastGradientAttack, L2FastGradientAttack or L1FastGradientAttack."""
    from foolbox import attacks

    kinds = {
        "linf": attacks.LinfFastGradientAttack,
        "l2": attacks.L2FastGradientAttack,
        "l1": attacks.L1FastGradientAttack,
    }
    return by_foolbox(kinds[task.norm](), task)


def fgsm_torchattacks(task: Task) -> Tensor:
    """Torchattacks' FGSM."""
    from torchattacks import FGSM

    made: Tensor = FGSM(task.model, eps=task.eps)(task.x, task.y)
    return made


def fgsm_cleverhans(task: Task) -> Tensor:
    """CleverHans' fast_gradient_method."""
    from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method

    made: Tensor = fast_gradient_method(
        task.model, task.x, task.eps, task.order, clip_min=0.0, clip_max=1.0, y=task.y, sanity_checks=False
    )
    return made.detach()


def pgd_art(task: Task, *, steps: int, share: float, start: bool) -> Tensor:
    """ART's ProjectedGradientDescent."""
    from art.attacks.evasion import ProjectedGradientDescent

    attack = ProjectedGradientDescent(
        art_classifier(task),
        norm=task.order,
        eps=task.eps,
        eps_step=share * task.eps,
        max_iter=steps,
        num_random_init=int(start),
        batch_size=len(task.x),
        verbose=False,
    )
    return by_art(attack, task)


def pgd_foolbox(task: Task, *, steps: int, share: float, start: bool) -> Tensor:
    """Foolbox's LinfPGD, L2PGD or L1PGD; without a random start they are its basic iterative attacks."""
    from foolbox import attacks

    kind = {"linf": attacks.LinfPGD, "l2": attacks.L2PGD, "l1": attacks.L1PGD}[task.norm]
    return by_foolbox(kind(abs_stepsize=share * task.eps, steps=steps, random_start=start), task)


def pgd_torchattacks(task: Task, *, steps: int, share: float, start: bool) -> Tensor:
    """Torchattacks' PGD or PGDL2."""
    from torchattacks import PGD, PGDL2

    kind = PGD if task.norm == "linf" else PGDL2
    attack = kind(task.model, eps=task.eps, alpha=share * task.eps, steps=steps, random_start=start)
    made: Tensor = attack(task.x, task.y)
    return made


def bim_torchattacks(task: Task, *, steps: int, share: float) -> Tensor:
    """Torchattacks' BIM."""
    from torchattacks import BIM

    made: Tensor = BIM(task.model, eps=task.eps, alpha=share * task.eps, steps=steps)(task.x, task.y)
    return made


def pgd_cleverhans(task: Task, *, steps: int, share: float, start: bool) -> Tensor:
    """CleverHans' projected_gradient_descent."""
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

    made: Tensor = projected_gradient_descent(
        task.model,
        task.x,
        eps=task.eps,
        eps_iter=share * task.eps,
        nb_iter=steps,
        norm=task.order,
        clip_min=0.0,
        clip_max=1.0,
        y=task.y,
        rand_init=start,
        sanity_checks=False,
    )
    return made.detach()


def pgd_adv_lib(task: Task, *, steps: int, share: float, start: bool) -> Tensor:
    """adv-lib's pgd_linf."""
    made: Tensor = adv_lib().pgd_linf(
        task.model,
        task.x,
        task.y,
        ε=task.eps,
        steps=steps,
        random_init=start,
        restarts=1,
        absolute_step_size=share * task.eps,
    )
    return made


def sparse_foolbox(task: Task, *, steps: int, share: float, quantile: float) -> Tensor:
    """Foolbox's SparseL1DescentAttack."""
    from foolbox.attacks import SparseL1DescentAttack

    attack = SparseL1DescentAttack(quantile=quantile, abs_stepsize=share * task.eps, steps=steps, random_start=False)
    return by_foolbox(attack, task)


def sparse_cleverhans(task: Task, *, steps: int, share: float, sparsity: float) -> Tensor:
    """CleverHans' sparse_l1_descent."""
    from cleverhans.torch.attacks.sparse_l1_descent import sparse_l1_descent

    made: Tensor = sparse_l1_descent(
        task.model,
        task.x,
        eps=task.eps,
        eps_iter=share * task.eps,
        nb_iter=steps,
        y=task.y,
        clip_min=0.0,
        clip_max=1.0,
        grad_sparsity=sparsity,
        sanity_checks=False,
    )
    return made.detach()


def momentum_art(task: Task, *, steps: int, share: float, decay: float) -> Tensor:
    """ART's MomentumIterativeMethod."""
    from art.attacks.evasion import MomentumIterativeMethod

    attack = MomentumIterativeMethod(
        art_classifier(task),
        norm=task.order,
        eps=task.eps,
        eps_step=share * task.eps,
        decay=decay,
        max_iter=steps,
        batch_size=len(task.x),
        verbose=False,
    )
    return by_art(attack, task)


def momentum_foolbox(task: Task, *, steps: int, share: float, decay: float) -> Tensor:
    """Foolbox's momentum iterative attacks."""
    from foolbox.attacks import mi_fgsm

    kind = {
        "linf": mi_fgsm.LinfMomentumIterativeFastGradientMethod,
        "l2": mi_fgsm.L2MomentumIterativeFastGradientMethod,
    }[task.norm]
    return by_foolbox(kind(momentum=decay, abs_stepsize=share * task.eps, steps=steps), task)


def momentum_torchattacks(task: Task, *, steps: int, share: float, decay: float, kind: str) -> Tensor:
    """Torchattacks' MIFGSM and its successors; `kind` is one of their class names."""
    import torchattacks

    made_of: Any = getattr(torchattacks, kind)
    attack = made_of(task.model, eps=task.eps, alpha=share * task.eps, steps=steps, decay=decay)
    made: Tensor = attack(task.x, task.y)
    return made
