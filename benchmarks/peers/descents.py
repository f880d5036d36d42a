"""Minimum-norm attacks by projected, sparse or greedy steps, by each peer, in so many steps.

Only public interfaces are called. What a reader of the table should know:

* adv-lib's DDN rounds to 256 levels by default; here it does not, since no other attack does.
* JSMA needs a wanted class: it gets the likeliest wrong one of the clean image, which is stronger than the defaults
  (ART: a random class; torchattacks: the next one).
"""

from adapters import Task, adv_lib, art_classifier, by_art, by_foolbox
from torch import Tensor


def ddn_foolbox(task: Task, *, steps: int, start: float, gamma: float) -> Tensor:
    """Foolbox's DDNAttack."""
    from foolbox.attacks import DDNAttack

    return by_foolbox(DDNAttack(init_epsilon=start, steps=steps, gamma=gamma), task)


def ddn_adv_lib(task: Task, *, steps: int, start: float, gamma: float) -> Tensor:
    """adv-lib's ddn, without rounding to levels."""
    made: Tensor = adv_lib().ddn(task.model, task.x, task.y, steps=steps, γ=gamma, init_norm=start, levels=None)
    return made


def fmn_foolbox(task: Task, *, steps: int, rate: float, gamma: float) -> Tensor:
    """Foolbox's fast minimum-norm attacks."""
    from foolbox import attacks

    kind = {
        "linf": attacks.LInfFMNAttack,
        "l2": attacks.L2FMNAttack,
        "l1": attacks.L1FMNAttack,
        "l0": attacks.L0FMNAttack,
    }[task.norm]
    return by_foolbox(kind(steps=steps, max_stepsize=rate, gamma=gamma), task)


def fmn_adv_lib(task: Task, *, steps: int, rate: float, gamma: float) -> Tensor:
    """adv-lib's fmn, the authors' code."""
    made: Tensor = adv_lib().fmn(task.model, task.x, task.y, norm=task.order, steps=steps, α_init=rate, γ_init=gamma)
    return made


def sigma_zero_adv_lib(task: Task, *, steps: int, rate: float, sigma: float, threshold: float, turn: float) -> Tensor:
    """adv-lib's sigma_zero, the authors' code."""
    made: Tensor = adv_lib().sigma_zero(
        task.model, task.x, task.y, num_steps=steps, η_0=rate, σ=sigma, τ_0=threshold, τ_factor=turn
    )
    return made


def vfga_adv_lib(task: Task, *, steps: int, samples: int) -> Tensor:
    """adv-lib's vfga."""
    made: Tensor = adv_lib().vfga(
        task.model, task.x, task.y, targeted=False, max_iter=steps, n_samples=samples, large_memory=True
    )
    return made


def jsma_art(task: Task, *, theta: float, share: float) -> Tensor:
    """ART's SaliencyMapMethod toward the runner-up; share: of the coordinates, at most."""
    from art.attacks.evasion import SaliencyMapMethod

    attack = SaliencyMapMethod(art_classifier(task), theta=theta, gamma=share, batch_size=len(task.x), verbose=False)
    return by_art(attack, task, task.runner_up)


def jsma_torchattacks(task: Task, *, theta: float, share: float) -> Tensor:
    """Torchattacks' JSMA toward the runner-up, row by row."""
    from torchattacks import JSMA

    attack = JSMA(task.model, theta=theta, gamma=share)
    wanted = task.runner_up
    attack.set_mode_targeted_by_function(lambda images, labels: wanted, quiet=True)  # noqa: ARG005
    made: Tensor = attack(task.x, task.y)
    return made


def salt_and_pepper_foolbox(task: Task, *, steps: int) -> Tensor:
    """Foolbox's SaltAndPepperNoiseAttack."""
    from foolbox.attacks import SaltAndPepperNoiseAttack

    return by_foolbox(SaltAndPepperNoiseAttack(steps=steps), task)
