"""Minimum-norm attacks that weigh distance against misclassification, by each peer, in so many steps.

Only public interfaces are called. What a reader of the table should know:

* ART's C&W tries up to `tries` halvings and doublings of each step, a forward pass each.
* ART's L0 attack works in tanh space, where every coordinate moves by rounding: coordinates that moved by less than
  0.0001 are put back.
* The peers' EAD evaluates two points a step.
"""

import torch
from adapters import CLASSES, Task, adv_lib, art_classifier, by_art, by_foolbox
from torch import Tensor


def cw_l2_art(task: Task, *, searches: int, steps: int, rate: float, weight: float, tries: int) -> Tensor:
    """ART's CarliniL2Method."""
    from art.attacks.evasion import CarliniL2Method

    attack = CarliniL2Method(
        art_classifier(task),
        learning_rate=rate,
        binary_search_steps=searches,
        max_iter=steps,
        initial_const=weight,
        max_halving=tries,
        max_doubling=tries,
        batch_size=len(task.x),
        verbose=False,
    )
    return by_art(attack, task)


def cw_l2_foolbox(task: Task, *, searches: int, steps: int, rate: float, weight: float) -> Tensor:
    """Foolbox's L2CarliniWagnerAttack."""
    from foolbox.attacks import L2CarliniWagnerAttack

    attack = L2CarliniWagnerAttack(
        binary_search_steps=searches, steps=steps, stepsize=rate, initial_const=weight, abort_early=False
    )
    return by_foolbox(attack, task)


def cw_l2_torchattacks(task: Task, *, steps: int, rate: float, weight: float) -> Tensor:
    """Torchattacks' CW: no search for the weight."""
    from torchattacks import CW

    made: Tensor = CW(task.model, c=weight, steps=steps, lr=rate)(task.x, task.y)
    return made


def cw_l2_adv_lib(
    task: Task, *, searches: int, steps: int, rate: float, weight: float, abort_early: bool = False
) -> Tensor:
    """adv-lib's carlini_wagner_l2."""
    made: Tensor = adv_lib().carlini_wagner_l2(
        task.model,
        task.x,
        task.y,
        learning_rate=rate,
        initial_const=weight,
        binary_search_steps=searches,
        max_iterations=steps,
        abort_early=abort_early,
    )
    return made


def cw_l2_cleverhans(task: Task, *, searches: int, steps: int, rate: float, weight: float) -> Tensor:
    """CleverHans' carlini_wagner_l2."""
    from cleverhans.torch.attacks.carlini_wagner_l2 import carlini_wagner_l2

    made: Tensor = carlini_wagner_l2(
        task.model,
        task.x,
        CLASSES,
        y=task.y,
        lr=rate,
        initial_const=weight,
        binary_search_steps=searches,
        max_iterations=steps,
    )
    return made


def cw_linf_art(task: Task, *, steps: int, rate: float, weight: float, factor: float, fall: float) -> Tensor:
    """ART's CarliniLInfMethod, row by row."""
    from art.attacks.evasion import CarliniLInfMethod

    attack = CarliniLInfMethod(
        art_classifier(task),
        learning_rate=rate,
        max_iter=steps,
        decrease_factor=fall,
        initial_const=weight,
        const_factor=factor,
        verbose=False,
    )
    return by_art(attack, task)


def cw_linf_adv_lib(task: Task, *, steps: int, rate: float, weight: float, factor: float, fall: float) -> Tensor:
    """adv-lib's carlini_wagner_linf."""
    made: Tensor = adv_lib().carlini_wagner_linf(
        task.model,
        task.x,
        task.y,
        learning_rate=rate,
        max_iterations=steps,
        initial_const=weight,
        const_factor=factor,
        decrease_factor=fall,
    )
    return made


def cw_l0_art(task: Task, *, searches: int, steps: int, rate: float, weight: float, tries: int) -> Tensor:
    """ART's CarliniL0Method, batched, without the rounding of its tanh space."""
    from art.attacks.evasion import CarliniL0Method

    attack = CarliniL0Method(
        art_classifier(task),
        learning_rate=rate,
        binary_search_steps=searches,
        max_iter=steps,
        initial_const=weight,
        max_halving=tries,
        max_doubling=tries,
        batch_size=len(task.x),
        verbose=False,
    )
    made = by_art(attack, task)
    return torch.where((made - task.x).abs() < 1e-4, task.x, made)


def ead_art(task: Task, *, searches: int, steps: int, rate: float, weight: float, beta: float) -> Tensor:
    """ART's ElasticNet, rule L1."""
    from art.attacks.evasion import ElasticNet

    attack = ElasticNet(
        art_classifier(task),
        learning_rate=rate,
        binary_search_steps=searches,
        max_iter=steps,
        beta=beta,
        initial_const=weight,
        batch_size=len(task.x),
        decision_rule="L1",
        verbose=False,
    )
    return by_art(attack, task)


def ead_foolbox(task: Task, *, searches: int, steps: int, rate: float, weight: float, beta: float) -> Tensor:
    """Foolbox's EADAttack, rule L1."""
    from foolbox.attacks import EADAttack

    attack = EADAttack(
        binary_search_steps=searches,
        steps=steps,
        initial_stepsize=rate,
        initial_const=weight,
        regularization=beta,
        decision_rule="L1",
        abort_early=False,
    )
    return by_foolbox(attack, task)


def ead_torchattacks(task: Task, *, searches: int, steps: int, rate: float, weight: float, beta: float) -> Tensor:
    """Torchattacks' EADL1."""
    from torchattacks import EADL1

    attack = EADL1(
        task.model,
        lr=rate,
        binary_search_steps=searches,
        max_iterations=steps,
        abort_early=False,
        initial_const=weight,
        beta=beta,
    )
    made: Tensor = attack(task.x, task.y)
    return made


def pdpgd_adv_lib(task: Task, *, steps: int, rate: float, dual_rate: float) -> Tensor:
    """adv-lib's pdpgd; in L0 with the proximal operator of L 2/3, as its authors advise."""
    made: Tensor = adv_lib().pdpgd(
        task.model,
        task.x,
        task.y,
        norm=task.order,
        num_steps=steps,
        proximal_operator=23 if task.norm == "l0" else None,
        primal_lr=rate,
        dual_lr=dual_rate,
    )
    return made


def pdgd_adv_lib(task: Task, *, steps: int, rate: float, dual_rate: float) -> Tensor:
    """adv-lib's pdgd."""
    made: Tensor = adv_lib().pdgd(task.model, task.x, task.y, num_steps=steps, primal_lr=rate, dual_lr=dual_rate)
    return made


def alma_adv_lib(task: Task, *, steps: int, rate: float, start: float | None) -> Tensor:
    """adv-lib's alma."""
    made: Tensor = adv_lib().alma(
        task.model, task.x, task.y, num_steps=steps, lr_init=rate, distance=task.norm, init_lr_distance=start, α=0.5
    )
    return made
