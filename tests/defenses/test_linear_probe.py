"""What a linear model believes of rows that it was not fitted to."""

from __future__ import annotations

import numpy as np
import pytest

from redan.defenses.linear_probe import held_out_beliefs
from redan.errors import DataError, SettingError


def gaussians(count: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    y = np.arange(count) % 3
    return np.random.default_rng(seed).standard_normal((count, width)) + 5 * np.eye(width)[y], y


def test_a_wrong_label_is_not_believed() -> None:
    features, y = gaussians(300, 8, 0)
    told = y.copy()
    told[:9] = (told[:9] + 1) % 3
    beliefs = held_out_beliefs(features, told, 3, seed=0)
    np.testing.assert_allclose(beliefs.sum(1), 1)
    own = beliefs[np.arange(300), told]
    assert own[:9].max() < 0.1
    assert np.mean(own[9:] > 0.9) > 0.95


def test_a_row_does_not_speak_for_itself() -> None:
    """Labels that mean nothing, and nearly as many columns as rows: a model believes 0.9 of those that it has seen."""
    y, own = np.arange(120) % 3, []
    for seed in range(5):
        features = np.random.default_rng(seed).standard_normal((120, 100))
        own.append(held_out_beliefs(features, y, 3, seed=0)[np.arange(120), y].mean())
    assert np.mean(own) < 0.45


@pytest.mark.parametrize("width", [3, 600])
def test_order_and_seed(width: int) -> None:
    features, y = gaussians(120, width, 2)
    order = np.random.default_rng(0).permutation(120)
    plain = held_out_beliefs(features, y, 3, seed=4)
    np.testing.assert_allclose(held_out_beliefs(features[order], y[order], 3, seed=4), plain[order], atol=1e-8)
    assert not np.array_equal(held_out_beliefs(features, y, 3, seed=5), plain)


def test_copies_are_in_one_fold() -> None:
    features, y = gaussians(60, 4, 3)
    twice, labels = np.concatenate([features, features]), np.concatenate([y, y])
    found = held_out_beliefs(twice, labels, 3, seed=0)
    np.testing.assert_allclose(found[:60], found[60:])


@pytest.mark.parametrize(("count", "classes"), [(0, 3), (1, 2), (4, 5)])
def test_few_rows_and_absent_classes(count: int, classes: int) -> None:
    features, y = gaussians(count, 3, 4)
    found = held_out_beliefs(features, y % classes, classes, seed=0)
    assert found.shape == (count, classes)
    assert np.isfinite(found).all()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match="labels from 0 to 2 are not all classes from 0 to 1"):
        held_out_beliefs(np.zeros((3, 1)), np.arange(3), 2, seed=0)
    with pytest.raises(SettingError, match="2 folds at least, got 1"):
        held_out_beliefs(np.zeros((2, 1)), np.zeros(2, dtype=np.int64), 2, folds=1, seed=0)
