"""Attacks whose code takes pictures of three channels only, on pictures of one."""

from adapters import Task
from torch import Tensor, nn


class _Gray(nn.Module):
    """Asks a model of one channel about the mean of three."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x.mean(1, keepdim=True))
        return logits


def tifgsm_torchattacks(task: Task, *, steps: int, share: float, decay: float, size: int) -> Tensor:
    """Torchattacks' TIFGSM with a kernel of `size` pixels, on three equal channels.

    They stay equal in a signed step, so it is the attack on one channel; its passes are those of one channel too.
    """
    from torchattacks import TIFGSM

    model = _Gray(task.model).eval()
    attack = TIFGSM(model, eps=task.eps, alpha=share * task.eps, steps=steps, decay=decay, len_kernel=size)
    made: Tensor = attack(task.x.expand(-1, 3, -1, -1), task.y)
    return made[:, :1]
