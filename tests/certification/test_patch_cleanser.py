"""Two masks against a patch: every patch of a small image is tried on certified rows; masks too small are caught."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from redan.certification import patch_cleanser
from redan.certification.patch_cleanser import UNANSWERED, Masks, certify_patches, covering, defended, two_masks
from redan.certification.verifier import PATCH_CLEANSER, Certainty, Completeness
from redan.errors import DataError, NotCertifiableError, SettingError
from redan.targets import Output, from_function, from_torch

SMALL = Masks(patch=(1, 2), stride=(2, 1), fill=0.5)


class Bright(nn.Module):
    """Three classes by how many pixels of each third of an image are bright: no mask alone turns a clear one over."""

    def __init__(self, seed: int, size: int = 5) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.rand(size * size, 3, generator=draw) - 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(4 * (x.flatten(1) - 0.5)) @ self.weight


def images(count: int, seed: int = 0, size: int = 5) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, size, size, generator=draw).round()


def clear(model: Bright, count: int, seed: int = 0) -> Tensor:
    """Images that speak for one class, each a few pixels off."""
    top = (model.weight > model.weight.roll(1, 1)) & (model.weight > model.weight.roll(2, 1))
    base = torch.stack([top[:, k] | (model.weight[:, k] > 0.1) for k in range(3)]).float()
    flips = torch.rand(count, 25, generator=torch.Generator().manual_seed(seed)) < 0.1
    return (base[torch.arange(count) % 3] - flips.float()).abs().reshape(count, 1, 5, 5)


def patched(image: Tensor, patch: tuple[int, int]) -> Iterator[Tensor]:
    """The image with a patch everywhere, of every black and white content: (contents, 1, H, W) for each place."""
    height, width = patch
    contents = torch.tensor(list(itertools.product((0.0, 1.0), repeat=height * width))).reshape(-1, 1, height, width)
    for top in range(image.shape[-2] - height + 1):
        for left in range(image.shape[-1] - width + 1):
            changed = image.expand(len(contents), *image.shape).clone()
            changed[:, :, top : top + height, left : left + width] = contents
            yield changed


def broken(model: nn.Module, x: Tensor, masks: Masks) -> tuple[int, int]:
    """Certified rows, and those of them whose defended class a patch changes."""
    found = certify_patches(model, x, masks)
    certified = found.certified.nonzero().flatten().tolist()
    changed = 0
    for row in certified:
        attacked = torch.cat(list(patched(x[row], masks.patch)))
        changed += bool((defended(model, attacked, masks) != found.prediction[row]).any())
    return len(certified), changed


# -- masks ---------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 6)] * 2), st.tuples(*[st.integers(1, 5)] * 2))
def test_one_mask_hides_any_patch(size: tuple[int, int], patch: tuple[int, int], stride: tuple[int, int]) -> None:
    patch = (min(patch[0], size[0]), min(patch[1], size[1]))
    hidden = covering(*size, Masks(patch=patch, stride=stride))
    for top in range(size[0] - patch[0] + 1):
        for left in range(size[1] - patch[1] + 1):
            assert bool(hidden[:, top : top + patch[0], left : left + patch[1]].flatten(1).all(1).any())


def test_masks_of_a_large_image_are_the_published_ones() -> None:
    hidden = covering(224, 224, Masks(patch=(32, 32), stride=(33, 33)))  # 2 % of the pixels, 6 masks an axis
    assert len(hidden) == 36
    assert set(hidden.flatten(1).sum(1).tolist()) == {64 * 64}


def test_a_patch_as_large_as_the_image_hides_all_of_it() -> None:
    assert covering(3, 4, Masks(patch=(3, 4), stride=(1, 1))).all()


# -- soundness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", [SMALL, Masks(patch=(2, 2), stride=(1, 2), fill=0.5)])
def test_no_patch_changes_a_certified_row(masks: Masks) -> None:
    certified = changed = 0
    for seed in range(3):
        model = Bright(seed).eval()
        more, worse = broken(model, clear(model, 6, seed), masks)
        certified, changed = certified + more, changed + worse
    assert certified >= 4
    assert changed == 0


def test_masks_that_are_too_small_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def gaps(size: int, patch: int, stride: int) -> Iterator[slice]:
        for start in range(0, size - patch + 1, stride):
            yield slice(start, start + patch)

    monkeypatch.setattr(patch_cleanser, "_spans", gaps)
    masks = Masks(patch=(2, 2), stride=(2, 2), fill=0.5)
    changed = 0
    for seed in range(2):
        model = Bright(seed).eval()
        changed += broken(model, clear(model, 6, seed), masks)[1]
    assert changed > 0


def test_agreement_of_single_masks_proves_nothing() -> None:
    changed = 0
    for seed in range(6):
        model = Bright(seed).eval()
        x = clear(model, 12, seed)
        single = two_masks(model, x, SMALL).diagonal(dim1=1, dim2=2)
        found = certify_patches(model, x, SMALL)
        alike = (single == single[:, :1]).all(1) & ~found.certified
        for row in alike.nonzero().flatten().tolist():
            attacked = torch.cat(list(patched(x[row], SMALL.patch)))
            changed += bool((defended(model, attacked, SMALL) != found.prediction[row]).any())
    assert changed > 0


# -- the algorithm -------------------------------------------------------------------------------------------------


def by_hand(model: nn.Module, image: Tensor, masks: Masks) -> int:
    """Algorithm 1, mask by mask."""
    hidden = list(covering(5, 5, masks))

    def answer(mask: Tensor) -> int:
        return int(model(torch.where(mask, torch.tensor(masks.fill), image)[None]).argmax())

    first = [answer(mask) for mask in hidden]
    counts = Counter(first)
    most = min(k for k, count in counts.items() if count == max(counts.values()))
    for mask, other in zip(hidden, first, strict=True):
        if other != most and all(answer(mask | second) == other for second in hidden):
            return other
    return most


def test_the_defended_class_is_that_of_the_algorithm() -> None:
    model = Bright(3).eval()
    x = images(30)
    wanted = [by_hand(model, image, SMALL) for image in x]
    assert certify_patches(model, x, SMALL).prediction.tolist() == wanted
    assert defended(model, x, SMALL).tolist() == wanted


def test_pairs_of_masks_are_answered_symmetrically() -> None:
    model = Bright(1).eval()
    maps = two_masks(model, images(3), SMALL)
    hidden = covering(5, 5, SMALL)
    assert maps.shape == (3, len(hidden), len(hidden))
    assert torch.equal(maps, maps.transpose(1, 2))
    both = torch.where(hidden[2] | hidden[5], torch.tensor(0.5), images(3))
    assert torch.equal(maps[:, 2, 5], model(both).argmax(1))


def test_a_patch_that_carries_the_answer_is_left_without_a_certificate() -> None:
    def corner(x: NDArray[np.float32]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = x[:, 0, 0, 0] > 0.5
        return found

    target = from_function(corner, classes=2, output=Output.LABELS)
    bright = torch.ones(1, 1, 5, 5)
    assert not certify_patches(target, bright, SMALL).certified.any()
    assert certify_patches(target, torch.zeros(1, 1, 5, 5), SMALL).certified.all()  # what hides it says the same


def test_an_image_that_the_model_fails_on_is_not_certified() -> None:
    def fails(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full((len(x), 2), np.nan, dtype=np.float32)

    found = certify_patches(from_function(fails, output=Output.LOGITS), images(2), SMALL)
    assert found.prediction.tolist() == [UNANSWERED] * 2
    assert not found.certified.any()


def test_the_standard_s_words() -> None:
    found = certify_patches(Bright(0).eval(), images(1), SMALL)
    assert found.verifier is PATCH_CLEANSER
    assert (PATCH_CLEANSER.completeness, PATCH_CLEANSER.certainty) == (
        Completeness.INCOMPLETE,
        Certainty.DETERMINISTIC,
    )


def test_no_rows_are_certified_at_once() -> None:
    found = certify_patches(Bright(0).eval(), torch.zeros(0, 1, 5, 5), SMALL)
    assert len(found.prediction) == len(found.certified) == 0


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SettingError):
        covering(4, 4, Masks(patch=(5, 1), stride=(1, 1)))
    with pytest.raises(SettingError):
        Masks(patch=(0, 1), stride=(1, 1))
    with pytest.raises(DataError):
        certify_patches(nn.Linear(4, 2).eval(), torch.zeros(2, 4), SMALL)
    noisy = from_torch(Bright(0).eval(), stochastic=True)
    with pytest.raises(NotCertifiableError):
        certify_patches(noisy, images(1), SMALL)
