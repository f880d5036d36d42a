"""A model's numbers, whatever they are, on the one scale that goals and losses read: logits (N, K)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from redan.errors import TargetError
from redan.targets.base import Output


def as_scores(answer: Tensor, output: Output, classes: int | None) -> Tensor:
    """A model's answer to N rows as scores (N, K), differentiable wherever the answer is.

    Logits stay, probabilities become their logarithms (log-odds for labels that do not exclude each other), class
    numbers become one-hot rows, 0 or 1 a label becomes -1 or 1, a value becomes one column. One number a row of a
    model with two classes is the second one's: its logit z becomes (-z / 2, z / 2), whose softmax is its sigmoid.

    Raises TargetError where class numbers come and the number of classes is not known, or does not hold them.

    >>> as_scores(torch.tensor([0.0, 2.0]), Output.LOGITS, 2).tolist()
    [[-0.0, 0.0], [-1.0, 1.0]]
    """
    match output:
        case Output.LOGITS:
            return _two(answer) if _single(answer, classes) else answer
        case Output.PROBABILITIES:
            if _single(answer, classes):
                answer = torch.stack([1 - answer.flatten(), answer.flatten()], 1)
            return _floored(answer).log()
        case Output.SIGMOIDS:
            return _floored(answer).log() - _floored(1 - answer).log()
        case Output.LABELS:
            return _from_labels(answer, classes)
        case Output.VALUE:
            return answer[:, None] if answer.dim() == 1 else answer


def _single(answer: Tensor, classes: int | None) -> bool:
    return classes == 2 and (answer.dim() == 1 or (answer.dim() == 2 and answer.shape[1] == 1))


def _two(answer: Tensor) -> Tensor:
    half = answer.flatten() / 2
    return torch.stack([-half, half], 1)


def _floored(share: Tensor) -> Tensor:
    return share.clamp_min(torch.finfo(share.dtype).tiny)


def _from_labels(answer: Tensor, classes: int | None) -> Tensor:
    if answer.dim() == 2 and answer.shape[1] > 1:
        return 2 * answer - 1
    numbers = answer.flatten().to(torch.int64)
    if classes is None:
        raise TargetError("the model answers class numbers alone, so their count must be said; give classes=K")
    if len(numbers) and not (int(numbers.min()) >= 0 and int(numbers.max()) < classes):
        raise TargetError(
            f"the model answered the class {int(numbers.max())}, but its classes are 0 to {classes - 1}; map its own "
            "labels to class numbers, in the order of the classes"
        )
    one_hot = functional.one_hot(numbers, classes)
    return one_hot.to(answer.dtype if answer.is_floating_point() else torch.get_default_dtype())
