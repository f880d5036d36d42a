"""The grid of shifts and turns (Engstrom et al. 2019, arXiv:1712.02779, section 3.2) by each peer.

`degrees` and `pixels` are the range, the same for all. Only public interfaces are called. Where the peers differ:

* Foolbox reads between pixels bilinearly. It shifts by (side - 1) / side of the pixels asked for, so it is asked for
  as much more. Its search shows every picture every point until all are broken, one batch a point.
* ART shifts by whole pixels, reads between them with cubic splines, and shows the model one picture at a time. Given
  many pictures it returns the one transformation that breaks most of them; it is given one, so that each gets its own.
  It takes the second and third axes for height and width wherever the channels stand, so they are put last: with the
  channel first it would take a side of one pixel, and never shift down.
"""

import torch
from adapters import CLASSES, Task
from torch import Tensor, nn


class _ChannelsLast(nn.Module):
    """A model of (N, C, H, W) asked with (N, H, W, C)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x.permute(0, 3, 1, 2))
        return logits


def spatial_foolbox(
    task: Task, *, degrees: float, pixels: float, rotations: int, translations: int, draws: int
) -> Tensor:
    """Foolbox's SpatialAttack: its grid, or so many draws between its points where `draws` is not 0."""
    from foolbox import Misclassification, PyTorchModel
    from foolbox.attacks import SpatialAttack

    side = task.x.shape[-1]
    attack = SpatialAttack(
        max_translation=pixels * side / (side - 1),
        max_rotation=degrees,
        num_translations=translations,
        num_rotations=rotations,
        grid_search=draws == 0,
        random_steps=draws,
    )
    made: Tensor = attack.run(PyTorchModel(task.model, bounds=(0, 1), device="cpu"), task.x, Misclassification(task.y))
    return made


def spatial_art(task: Task, *, degrees: float, pixels: float, rotations: int, translations: int) -> Tensor:
    """ART's SpatialTransformation, once for each picture."""
    from art.attacks.evasion import SpatialTransformation
    from art.estimators.classification import PyTorchClassifier

    images = task.x.permute(0, 2, 3, 1).contiguous()
    classifier = PyTorchClassifier(
        _ChannelsLast(task.model).eval(),
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(images.shape[1:]),
        nb_classes=CLASSES,
        channels_first=False,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    made = []
    for image in images.numpy():
        attack = SpatialTransformation(
            classifier,
            max_translation=100 * pixels / task.x.shape[-1],
            num_translations=translations,
            max_rotation=degrees,
            num_rotations=rotations,
            verbose=False,
        )
        made.append(torch.from_numpy(attack.generate(image[None])))
    return torch.cat(made).permute(0, 3, 1, 2)
