"""Projected gradient descent (Madry et al. 2018, arXiv:1706.06083) by each peer, behind one signature.

Every function takes images in [0, 1] and attacks all rows as one batch from a random start inside the ball,
untargeted, on the cross-entropy of the given labels. Only public interfaces of the peers are called, each in
the fastest of its settings that leaves the algorithm as asked:

* the model must be in evaluation mode with frozen parameters (``requires_grad_(False)``): ART, Foolbox and
  CleverHans call ``backward()``, which would otherwise compute weight gradients that the attack throws away;
* Foolbox's ``run`` instead of its ``__call__``, which would add a pass that only measures success;
* CleverHans without its sanity checks, ART without its progress bar;
* CleverHans's L2 under hooks that detach what autograd saves. Its projection multiplies a tensor in place that
  autograd has saved, a reference cycle that keeps every step's memory for good (its issue 1230: 6.6 MB a step at
  256 rows of 28 x 28). The hooks break the cycle; the adversarial images are bit for bit the same.

Where the peers differ although the settings agree:

* adv-lib returns the last iterate that fooled the model, and the clean image where none did. It never
  evaluates what the last step made. It has no L2 PGD.
* ART measures the success rate at the end of every call and cannot be told not to: two forward passes more.
* L2 starts: ART and Foolbox draw uniformly from the ball; torchattacks draws the radius uniformly, so its
  starts are nearer; CleverHans draws each coordinate from [-eps, eps] and projects, so its starts lie on the
  sphere wherever the dimension is not tiny.

The peers are imported inside the functions: no environment needs more of them than it calls.
"""

import contextlib
import math
import sys
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm: TypeAlias = Literal["linf", "l2"]

STEPS = 40
CLASSES = 10  # of the sample models; ART wants to be told
STUBS = Path(__file__).parent / "stubs"


class Attack(Protocol):
    """PGD on a frozen model: images (N, ...) in [0, 1] and labels (N,) to adversarial images (N, ...)."""

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        norm: Norm,
        eps: float,
        steps: int,
        step_size: float,
        seed: int,
    ) -> Tensor: ...


class UnsupportedNorm(ValueError):
    """The peer has no PGD for this norm."""


def default_step_size(eps: float) -> float:
    """Return the step of all benchmarks: 2.5 times the radius, spread over 40 steps."""
    return 2.5 * eps / STEPS


def art(
    model: nn.Module, x: Tensor, y: Tensor, *, norm: Norm, eps: float, steps: int, step_size: float, seed: int
) -> Tensor:
    """Run IBM ART's ``ProjectedGradientDescent``; it takes its start from numpy's generator."""
    import numpy as np
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    np.random.seed(seed)
    classifier = PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=CLASSES,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attack = ProjectedGradientDescent(
        classifier,
        norm=np.inf if norm == "linf" else 2,
        eps=eps,
        eps_step=step_size,
        max_iter=steps,
        num_random_init=1,
        batch_size=len(x),
        verbose=False,
    )
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def foolbox(
    model: nn.Module, x: Tensor, y: Tensor, *, norm: Norm, eps: float, steps: int, step_size: float, seed: int
) -> Tensor:
    """Run Foolbox's ``LinfPGD`` or ``L2PGD``."""
    from foolbox import Misclassification, PyTorchModel
    from foolbox.attacks import L2PGD, LinfPGD

    torch.manual_seed(seed)
    victim = PyTorchModel(model, bounds=(0, 1), device=x.device)
    attack = (LinfPGD if norm == "linf" else L2PGD)(abs_stepsize=step_size, steps=steps, random_start=True)
    adversarial: Tensor = attack.run(victim, x, Misclassification(y), epsilon=eps)
    return adversarial


def cleverhans(
    model: nn.Module, x: Tensor, y: Tensor, *, norm: Norm, eps: float, steps: int, step_size: float, seed: int
) -> Tensor:
    """Run CleverHans's ``projected_gradient_descent`` for torch."""
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

    torch.manual_seed(seed)
    no_cycles = torch.autograd.graph.saved_tensors_hooks(torch.Tensor.detach, lambda saved: saved)
    with contextlib.nullcontext() if norm == "linf" else no_cycles:
        adversarial: Tensor = projected_gradient_descent(
            model,
            x,
            eps=eps,
            eps_iter=step_size,
            nb_iter=steps,
            norm=math.inf if norm == "linf" else 2,
            clip_min=0.0,
            clip_max=1.0,
            y=y,
            rand_init=True,
            sanity_checks=False,
        )
    return adversarial.detach()


def torchattacks(
    model: nn.Module, x: Tensor, y: Tensor, *, norm: Norm, eps: float, steps: int, step_size: float, seed: int
) -> Tensor:
    """Run torchattacks's ``PGD`` or ``PGDL2``."""
    from torchattacks import PGD, PGDL2

    torch.manual_seed(seed)
    attack = (PGD if norm == "linf" else PGDL2)(model, eps=eps, alpha=step_size, steps=steps, random_start=True)
    adversarial: Tensor = attack(x, y)
    return adversarial


def adv_lib(
    model: nn.Module, x: Tensor, y: Tensor, *, norm: Norm, eps: float, steps: int, step_size: float, seed: int
) -> Tensor:
    """Run adv-lib's ``pgd_linf``; raise `UnsupportedNorm` for L2.

    The stand-ins for torchvision and visdom come last on the path: the real packages win where they exist.
    """
    if norm != "linf":
        raise UnsupportedNorm("adv-lib has no L2 PGD: ask it for linf only")
    if str(STUBS) not in sys.path:
        sys.path.append(str(STUBS))
    from adv_lib.attacks import pgd_linf

    torch.manual_seed(seed)
    adversarial: Tensor = pgd_linf(
        model, x, y, ε=eps, steps=steps, random_init=True, restarts=1, absolute_step_size=step_size
    )
    return adversarial


def plain(
    model: nn.Module, x: Tensor, y: Tensor, *, norm: Norm, eps: float, steps: int, step_size: float, seed: int
) -> Tensor:
    """Run the loop a careful user would write, with nothing but torch: input gradients only, no copies."""
    torch.manual_seed(seed)
    if norm == "linf":
        low, high = (x - eps).clamp_(min=0), (x + eps).clamp_(max=1)
        adversarial = torch.empty_like(x).uniform_(-eps, eps).add_(x).clamp_(0, 1)
    else:
        direction = torch.randn_like(x)
        radius = eps * torch.rand_like(_length(x)) ** (1 / x[0].numel())
        adversarial = (x + direction * (radius / _length(direction))).clamp_(0, 1)
    for _ in range(steps):
        adversarial.requires_grad_()
        loss = F.cross_entropy(model(adversarial), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, adversarial)
        adversarial = adversarial.detach()
        if norm == "linf":
            adversarial = adversarial.add_(gradient.sign_(), alpha=step_size).clamp_(low, high)
        else:
            change = adversarial - x + gradient * (step_size / _length(gradient).clamp_(min=1e-12))
            adversarial = (x + change * (eps / _length(change).clamp_(min=eps))).clamp_(0, 1)
    return adversarial


def limit(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: Norm,  # noqa: ARG001
    eps: float,  # noqa: ARG001
    steps: int,
    step_size: float,  # noqa: ARG001
    seed: int,  # noqa: ARG001
) -> Tensor:
    """Compute one forward pass and one input gradient a step, and nothing else: what no loop can undercut.

    Returns x unchanged. A cheaper pass (a folded batch norm, another memory format) can go below it.
    """
    x = x.detach().requires_grad_()
    for _ in range(steps):
        torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)
    return x.detach()


def _length(x: Tensor) -> Tensor:
    """Return each row's Euclidean length, shaped to divide the rows."""
    length: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return length.reshape(-1, *[1] * (x.dim() - 1))


PEERS: dict[str, Attack] = {
    "limit": limit,
    "plain": plain,
    "art": art,
    "foolbox": foolbox,
    "cleverhans": cleverhans,
    "torchattacks": torchattacks,
    "adv_lib": adv_lib,
}
