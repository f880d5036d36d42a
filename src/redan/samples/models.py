"""The three small architectures behind the shipped checkpoints, as plain torch modules.

All map images (N, 1, 28, 28), floats in [0, 1], to logits (N, 10). None normalizes its input: a
perturbation budget given in pixel units is therefore the budget the first layer sees. The builders
return fresh, randomly initialized modules in training mode; whoever loads weights calls ``eval()``.

Each builder can serve as a threat-model factory, for example ``redan.samples.models:cnn``.
"""

import torch
from torch import Tensor, nn

_CLASSES = 10


def cnn() -> nn.Module:
    """Return the two-convolution network, 166,406 parameters.

    (N, 1, 28, 28) -> 16 x 14 x 14 -> 32 x 7 x 7 -> 100 -> logits (N, 10). The layout is the small
    convolutional network of Wong and Kolter (2018, arXiv:1711.00851).
    """
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, kernel_size=4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 100),
        nn.ReLU(),
        nn.Linear(100, _CLASSES),
    )


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch normalization, plus a shortcut (He et al. 2016, arXiv:1512.03385).

    (N, inputs, H, W) -> (N, outputs, ceil(H / stride), ceil(W / stride)). The shortcut is the identity
    where shapes agree and a strided 1 x 1 convolution with batch normalization elsewhere.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, ceil(H / stride), ceil(W / stride))."""
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


def residual() -> nn.Module:
    """Return the eight-layer residual network with batch normalization, 77,754 parameters.

    (N, 1, 28, 28) -> 16 x 14 x 14 -> 16 x 14 x 14 -> 32 x 7 x 7 -> 64 x 4 x 4 -> mean over positions
    -> logits (N, 10).
    """
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        ResidualBlock(16, 16, stride=1),
        ResidualBlock(16, 32, stride=2),
        ResidualBlock(32, 64, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, _CLASSES),
    )


class WinnersTakeAll(nn.Module):
    """Keeps the largest share of each row's units and sets the rest to 0 (k-WTA: Xiao et al. 2020, arXiv:1905.10510).

    A step function of its input wherever two units change places, so its gradients mislead. (N, ...) -> (N, ...).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, ...) to the same shape."""
        flat = x.flatten(1)
        least = flat.topk(max(1, int(self.share * flat.shape[1])), 1).values[:, -1:]
        return torch.where(flat >= least, flat, 0).reshape(x.shape)


def winners() -> nn.Module:
    """Return the network of `cnn` with `WinnersTakeAll` of a tenth in the places of its ReLUs, 166,406 parameters."""
    network = cnn()
    for name, part in network.named_children():
        if isinstance(part, nn.ReLU):
            setattr(network, name, WinnersTakeAll(0.1))
    return network
