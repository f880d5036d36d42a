"""PatchCleanser: answers that no patch of a given size can change, wherever it is and whatever it shows.

Masks are laid on the image so that one of them hides the patch, wherever that is; what is left of the image then
answers as it did without it. Two rounds of masking tell that answer from those that the patch still reaches (Xiang,
Mahloujifar and Mittal 2022, arXiv:2108.09135, algorithm 1), and a row whose every pair of masks answers alike is
certified: theorem 1. Any image classifier will do, if it answers the same input alike; one trained with masks is
certified far more often.

The certificate is of the defended classifier, so that is what must be served.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from redan.answers import evaluate, micro_batch
from redan.certification.verifier import PATCH_CLEANSER, Verifier
from redan.engine.intake import checked_rows
from redan.errors import DataError, NotCertifiableError, SettingError
from redan.targets import Target, as_target
from redan.targets.torch import unchanged

__all__ = [
    "UNANSWERED",
    "Masks",
    "PatchCertificate",
    "certify_patches",
    "covering",
    "defended",
    "two_masks",
    "usual_masks",
]

UNANSWERED = -1
"""The class of an image that the model failed on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """How masks are laid. patch: its largest height and width, in pixels. stride: pixels from one mask to the next,
    down and across; smaller hides less of the image with each, and asks the model more often. fill: what a masked pixel
    becomes, in units of the box.
    """

    patch: tuple[int, int]
    stride: tuple[int, int]
    fill: float = 0.5

    def __post_init__(self) -> None:
        if min(*self.patch, *self.stride) < 1:
            raise SettingError(f"patch and stride are 1 pixel or more, got {self.patch} and {self.stride}")


def usual_masks(height: int, width: int, side: int, bounds: tuple[float, float]) -> Masks:
    """Gray masks against a square patch, six a side of the image at the most: section 3.2 of the paper has the stride.

    >>> usual_masks(28, 28, 5, (0.0, 1.0)).stride
    (4, 4)
    """
    stride = max(1, math.ceil((height - side + 1) / 6)), max(1, math.ceil((width - side + 1) / 6))
    return Masks(patch=(side, side), stride=stride, fill=sum(bounds) / 2)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PatchCertificate:
    """One entry a row, in the order given.

    prediction: (N,) int64, the defended classifier's class; UNANSWERED (-1) where the model failed. certified: (N,)
    bool, no patch of the size in one place changes the defended classifier's class.
    """

    prediction: Tensor
    certified: Tensor
    masks: Masks
    verifier: Verifier = PATCH_CLEANSER


def covering(height: int, width: int, masks: Masks) -> Tensor:
    """Masks (M, height, width) bool, True where a pixel is hidden; one of them hides any patch in the image.

    Section 3.2 of the paper: masks one pixel less than patch and stride together, so that none falls between two.

    Raises SettingError for a patch that is larger than the image.

    >>> covering(8, 8, Masks(patch=(2, 2), stride=(3, 3))).flatten(1).sum(1).tolist()  # 4 × 4 pixels each
    [16, 16, 16, 16, 16, 16, 16, 16, 16]
    """
    if masks.patch[0] > height or masks.patch[1] > width:
        raise SettingError(f"a patch of {masks.patch} pixels does not fit an image of {(height, width)}; give less")
    rows, columns = (
        list(_spans(size, patch, stride))
        for size, patch, stride in zip((height, width), masks.patch, masks.stride, strict=True)
    )
    found = torch.zeros(len(rows) * len(columns), height, width, dtype=torch.bool)
    for at, (down, across) in enumerate(product(rows, columns)):
        found[at, down, across] = True
    return found


def two_masks(
    model: nn.Module | Target[Tensor],
    x: ArrayLike | Tensor,
    masks: Masks,
    *,
    bounds: tuple[float, float] | None = None,
) -> Tensor:
    """The class of images x (N, C, H, W) under each pair of masks: (N, M, M), symmetric; the diagonal has single masks.

    M (M + 1) / 2 forward passes a row. Raises NotCertifiableError for a stochastic model, whose answers prove nothing.
    """
    target, inputs = _images(model, x, bounds)
    hidden = covering(inputs.shape[-2], inputs.shape[-1], masks).to(inputs.device)
    first, second = torch.triu_indices(len(hidden), len(hidden), device=inputs.device)
    found = inputs.new_empty(len(inputs), len(hidden), len(hidden), dtype=torch.int64)
    with unchanged(target), torch.no_grad():
        both = hidden[first] | hidden[second]
        for row, image in enumerate(inputs):
            answers = _classes(target, image.expand(len(both), *image.shape), both, masks.fill)
            found[row, first, second] = answers
            found[row, second, first] = answers
    return found


def certify_patches(
    model: nn.Module | Target[Tensor],
    x: ArrayLike | Tensor,
    masks: Masks,
    *,
    bounds: tuple[float, float] | None = None,
) -> PatchCertificate:
    """The defended classifier's class of images x (N, C, H, W), and where no patch in the image can change it.

    A row is certified where all pairs of masks answer alike, rightly or not. Pixels outside of the patch must be as
    they are, and the patch is a rectangle of at most `masks.patch` pixels. Raises what `two_masks` raises.

    >>> from torch import nn
    >>> dark = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False)).eval()
    >>> dark[1].weight.data = torch.tensor([[-1.0], [1.0]]).expand(2, 64) / 64
    >>> certify_patches(dark, torch.ones(1, 1, 8, 8), Masks(patch=(2, 2), stride=(3, 3), fill=0.0)).certified
    tensor([True])
    """
    maps = two_masks(model, x, masks, bounds=bounds)
    single = maps.diagonal(dim1=1, dim2=2)
    alike = (maps == single[:, :1, None]).flatten(1).all(1)
    prediction = torch.tensor([_defended(pairs) for pairs in maps], dtype=torch.int64)
    return PatchCertificate(prediction=prediction, certified=alike.cpu() & (prediction != UNANSWERED), masks=masks)


def defended(
    model: nn.Module | Target[Tensor],
    x: ArrayLike | Tensor,
    masks: Masks,
    *,
    bounds: tuple[float, float] | None = None,
) -> Tensor:
    """The defended classifier's class of images x (N, C, H, W): (N,), as it is served (algorithm 1).

    M forward passes a row, and M more for each mask whose answer is not the most frequent one. The same as
    `certify_patches` says, which asks about every pair.
    """
    target, inputs = _images(model, x, bounds)
    hidden = covering(inputs.shape[-2], inputs.shape[-1], masks).to(inputs.device)
    found = []
    with unchanged(target), torch.no_grad():
        for image in inputs:
            images = image.expand(len(hidden), *image.shape)
            single = _classes(target, images, hidden, masks.fill)
            answer = majority = _majority(single)
            for at in (single != majority).nonzero().flatten().tolist():
                pairs = _classes(target, images, hidden | hidden[at], masks.fill)
                if bool((pairs == single[at]).all()):
                    answer = int(single[at])
                    break
            found.append(answer)
    return torch.tensor(found, dtype=torch.int64)


def _defended(pairs: Tensor) -> int:
    """The class that two rounds of masking find in a row's answers (M, M)."""
    single = pairs.diagonal()
    majority = _majority(single)
    for at in (single != majority).nonzero().flatten().tolist():
        if bool((pairs[at] == single[at]).all()):
            return int(single[at])  # a mask that hides the patch answers as the image, whatever else is hidden
    return majority


def _majority(single: Tensor) -> int:
    """The most frequent class, the smallest of equally frequent ones."""
    return int((single - UNANSWERED).bincount().argmax()) + UNANSWERED


def _spans(size: int, patch: int, stride: int) -> Iterator[slice]:
    """Where masks lie on one axis: wide enough that the next begins before a patch could stick out of both."""
    width = min(patch + stride - 1, size)
    for start in range(0, size - width + stride, stride):
        last = min(start, size - width)
        yield slice(last, last + width)


def _images(
    model: nn.Module | Target[Tensor], x: ArrayLike | Tensor, bounds: tuple[float, float] | None
) -> tuple[Target[Tensor], Tensor]:
    target = as_target(model, bounds)
    if target.stochastic:
        raise NotCertifiableError("a stochastic model may answer the same image differently; certify one that does not")
    inputs, _ = checked_rows(x, torch.zeros(np.shape(x)[:1], dtype=torch.int64), target)
    if inputs.dim() != 4:
        raise DataError(f"patches need images (N, C, H, W), got {tuple(inputs.shape)}")
    return target, inputs


def _classes(target: Target[Tensor], images: Tensor, hidden: Tensor, fill: float) -> Tensor:
    """The class of each image (n, C, H, W) under its mask (n, H, W): (n,)."""
    micro = micro_batch(images)
    size, found = max(micro, 1024), []
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        answers = evaluate(target, images[part].masked_fill(hidden[part][:, None], fill), micro=micro)
        classes = answers.output.nan_to_num(nan=-torch.inf).argmax(1)
        found.append(classes.masked_fill(~answers.answered, UNANSWERED))
    return torch.cat(found)
