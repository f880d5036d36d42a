"""What a rounded number is climbed as."""

from __future__ import annotations

from torch import Tensor

_LEAST = 0.1  # the slope on a whole number; 0.03 to 0.3 broke about as many rows


def nearly_rounded(x: Tensor) -> Tensor:
    """Close to x.round(), steepest halfway between whole numbers, and nowhere flat: r + d³ + d/10 for d = x - r.

    The cube is Shin and Song's (2017, "JPEG-resistant adversarial images", workshop on machine learning and computer
    security): a number that is soon rounded otherwise counts most, which the identity does not know. Theirs is flat on
    whole numbers, where a clean image often lies and a climb would never leave. Any shape.

    >>> import torch
    >>> nearly_rounded(torch.tensor([1.0, 1.5]))
    tensor([1.0000, 1.8250])
    """
    whole = x.round()
    apart = x - whole
    return whole + apart**3 + _LEAST * apart
