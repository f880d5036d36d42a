"""What the adapters to the peers share: a task, and each library's view of the model.

The peers are imported inside the functions: no environment needs more of them than it calls.
"""

import math
import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

Norm: TypeAlias = Literal["linf", "l2", "l1", "l0"]

CLASSES = 10  # of the sample models; some peers want to be told
STUBS = Path(__file__).parent / "stubs"


class Task(NamedTuple):
    """What is asked of a peer: images (N, ...) in [0, 1], their labels, the norm, and the radius (inf: the nearest).

    model: the one that the attacker looks into. fitted: other rows of his with their labels, for what is fitted first.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    norm: Norm
    eps: float
    seed: int
    fitted: tuple[Tensor, Tensor] | None = None

    @property
    def order(self) -> float:
        """The norm as a number."""
        return {"linf": math.inf, "l2": 2, "l1": 1, "l0": 0}[self.norm]

    @property
    def runner_up(self) -> Tensor:
        """The likeliest wrong class of each clean image: (N,)."""
        with torch.no_grad():
            scores: Tensor = self.model(self.x)
        return scores.scatter(1, self.y[:, None], -math.inf).argmax(1)


def art_classifier(task: Task) -> Any:
    """The model as ART's classifier."""
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        task.model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(task.x.shape[1:]),
        nb_classes=CLASSES,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


def by_art(attack: Any, task: Task, labels: Tensor | None = None) -> Tensor:
    """What an ART attack makes of the task; labels instead of the task's own."""
    given = task.y if labels is None else labels
    return torch.from_numpy(attack.generate(task.x.numpy(), given.numpy()))


def by_foolbox(attack: Any, task: Task) -> Tensor:
    """What a Foolbox attack makes of the task, without the pass that only measures success."""
    from foolbox import Misclassification, PyTorchModel

    victim = PyTorchModel(task.model, bounds=(0, 1), device=task.x.device)
    if math.isfinite(task.eps):
        made: Tensor = attack.run(victim, task.x, Misclassification(task.y), epsilon=task.eps)
    else:
        made = attack.run(victim, task.x, Misclassification(task.y))
    return made


def adv_lib() -> Any:
    """adv-lib's attacks. Stand-ins for torchvision and visdom come last on the path: the real packages win."""
    if str(STUBS) not in sys.path:
        sys.path.append(str(STUBS))
    from adv_lib import attacks

    return attacks
