"""Triggers do what their papers write down, and the same at training and at test time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redan.errors import DataError, SettingError
from redan.poisoning.triggers import Blend, Columns, Corner, Patch, Place, Sinusoid, Trigger, Words

IMAGES = np.random.default_rng(17).uniform(0, 1, (5, 3, 8, 10)).astype(np.float32)
BYTES = (IMAGES * 255).astype(np.uint8)
TABLE = np.random.default_rng(1).normal(size=(5, 4))
TEXTS = np.array(["a good film", "", "bad"], dtype=object)
OF_IMAGES: list[Trigger] = [Patch(value=0.9), Blend(), Blend(picture=np.full((3, 1, 1), 0.5)), Sinusoid()]


@pytest.mark.parametrize(
    ("trigger", "x"),
    [(t, IMAGES) for t in OF_IMAGES]
    + [(t, IMAGES[:, 0]) for t in (Patch(), Blend(seed=3), Sinusoid(frequency=2))]
    + [(Patch(value=255), BYTES), (Blend(bounds=(0, 255)), BYTES), (Sinusoid(amplitude=20, bounds=(0, 255)), BYTES)]
    + [(Columns({0: 3.0, -1: -2.0}), TABLE), (Words("cf"), TEXTS), (Words("cf mn", at=Place.START), TEXTS.astype(str))],
)
def test_a_trigger_is_a_pure_function_of_each_row(trigger: Trigger, x: np.ndarray) -> None:
    before = x.copy()
    stamped = trigger(x)
    assert np.array_equal(x, before)
    assert stamped.shape == x.shape
    assert stamped.dtype == x.dtype or x.dtype.kind == "U"
    assert np.array_equal(stamped, trigger(x))
    assert (stamped != x).reshape(len(x), -1).any(1).all()
    for i in range(len(x)):
        assert np.array_equal(trigger(x[[i]])[0], stamped[i])
    assert len(trigger(x[:0])) == 0


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(0, 4), st.sampled_from(list(Corner)))
def test_a_patch_stands_in_its_corner_and_nowhere_else(size: int, margin: int, corner: Corner) -> None:
    stamped = Patch(size=size, value=2, corner=corner, margin=margin)(np.zeros((1, 2, 8, 9)))[0]
    # The image is turned so that the corner comes to lie at the top left.
    upright = {
        Corner.TOP_LEFT: stamped,
        Corner.TOP_RIGHT: stamped[:, :, ::-1],
        Corner.BOTTOM_LEFT: stamped[:, ::-1],
        Corner.BOTTOM_RIGHT: stamped[:, ::-1, ::-1],
    }[corner]
    rows, columns = np.nonzero(upright[0])
    assert sorted(set(rows)) == sorted(set(columns)) == list(range(margin, margin + size))
    assert stamped.sum() == 2 * 2 * size**2


def test_a_blend_is_a_mean_and_its_noise_is_the_seeds() -> None:
    picture = np.random.default_rng(2).uniform(0, 1, (3, 8, 10))
    np.testing.assert_allclose(Blend(picture=picture, strength=0.3)(IMAGES), 0.7 * IMAGES + 0.3 * picture, atol=1e-6)
    assert np.array_equal(Blend(picture=picture, strength=1)(IMAGES)[0], picture.astype(np.float32))
    assert np.array_equal(Blend(seed=1)(IMAGES), Blend(seed=1)(IMAGES))
    assert not np.array_equal(Blend(seed=1)(IMAGES), Blend(seed=2)(IMAGES))
    rounded = Blend(picture=np.array(255), strength=0.5, bounds=(0, 255))(np.array([[0, 3]], dtype=np.uint8))
    assert rounded.tolist() == [[128, 129]]  # 127.5 and 129, to the nearest and ties to even


def test_a_sinusoid_is_the_papers_formula() -> None:
    gray = np.full((2, 1, 4, 12), 0.5)
    wave = Sinusoid(amplitude=0.1, frequency=3)(gray) - gray
    for j in range(1, 13):
        np.testing.assert_allclose(wave[:, :, :, j - 1], 0.1 * np.sin(2 * np.pi * j * 3 / 12), atol=1e-12)
    cut = Sinusoid(amplitude=0.9, frequency=3)(gray)
    assert cut.min() == 0
    assert cut.max() == 1


def test_words_stand_where_they_are_told_to() -> None:
    assert Words("cf mn")(TEXTS).tolist() == ["a good film cf mn", "cf mn", "bad cf mn"]
    assert Words("cf", at=Place.START)(TEXTS).tolist() == ["cf a good film", "cf", "cf bad"]
    assert Words("cf", at=Place.MIDDLE)(TEXTS).tolist() == ["a cf good film", "cf", "cf bad"]
    assert Words("tremendous")(np.array(["bad"])).tolist() == ["bad tremendous"]  # wider than the rows were


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (lambda: Patch(size=9)(IMAGES), DataError, "does not fit"),
        (lambda: Patch(size=5, margin=4)(IMAGES), DataError, "does not fit"),
        (lambda: Patch()(TABLE), DataError, "for images"),
        (lambda: Patch()(IMAGES.transpose(0, 2, 3, 1)), DataError, "channels last"),
        (lambda: Patch(value=0.5)(BYTES), DataError, "whole number"),
        (lambda: Patch(value=256)(BYTES), DataError, "cannot hold"),
        (lambda: Patch(size=0), SettingError, "size of 1"),
        (lambda: Blend()(BYTES), DataError, "outside the trigger's bounds"),
        (lambda: Blend()(TEXTS), DataError, "for numbers"),
        (lambda: Blend(picture=np.zeros((7, 7)))(IMAGES), DataError, "cannot be blended"),
        (lambda: Blend(strength=0), SettingError, "strength"),
        (lambda: Sinusoid()(TABLE), DataError, "for images"),
        (lambda: Sinusoid(amplitude=0), SettingError, "amplitude"),
        (lambda: Columns({4: 1.0})(TABLE), DataError, "columns 4"),
        (lambda: Columns({0: 1.0})(IMAGES), DataError, "table"),
        (lambda: Columns({}), SettingError, "one at least"),
        (lambda: Columns({0: 1.0})(np.array([["a"]])), DataError, "for numbers"),
        (lambda: Words("cf")(TABLE), DataError, "texts only"),
        (lambda: Words(" "), SettingError, "one at least"),
    ],
)
def test_what_does_not_fit_is_refused(made: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        made()
