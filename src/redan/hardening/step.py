"""One step's loss, for those who own their training loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from redan.hardening.objectives import Batch, Objective
from redan.hardening.passes import PLAIN, Path
from redan.rows import Streams


def streams(seed: int, step: int, x: Tensor) -> Streams:
    """A random stream for each row of a batch x, by the seed and the number of the step alone."""
    row = torch.arange(len(x), device=x.device)
    return Streams(row, torch.zeros_like(row), row).keyed(f"{seed}|{step}")


def adversarial_step(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    objective: Objective,
    *,
    step: int,
    seed: int = 0,
    done: float = 0.0,
    path: Path = PLAIN,
) -> Tensor:
    """The loss of an objective on one batch x (N, …), y (N,): (), ready for `backward`.

    step: counts up over the training; with the seed it decides every random number. done: the share of the training
    that is over, for objectives that change with it. path: `cheapest(model, x)`, asked once before training, makes
    convolutional networks cheaper to train on a CPU. The model's mode, weights and gradients are left as they were;
    train in training mode, as usual: the attack puts the model in evaluation mode only while it lasts.

    A plain loop:

    >>> import torch
    >>> from redan.hardening import FGSM_RS, Adversarial
    >>> from redan.perturbations.norms import Linf
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(9, 3))
    >>> objective = Adversarial(within=Linf(0.1), inner=FGSM_RS)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> batches = [(torch.rand(8, 1, 3, 3), torch.arange(8) % 3)] * 2
    >>> for step, (x, y) in enumerate(batches):
    ...     optimizer.zero_grad()
    ...     loss = adversarial_step(model, x, y, objective, step=step)
    ...     loss.backward()
    ...     optimizer.step()

    With Lightning the loss is what a module's step returns:

        def training_step(self, batch, index):
            return adversarial_step(self.network, *batch, self.objective, step=self.global_step)

    With accelerate it goes through the accelerator:

        accelerator.backward(adversarial_step(model, x, y, objective, step=step))
    """
    return objective(model, Batch(path.ordered(x), y, streams(seed, step, x), path, done)).value
