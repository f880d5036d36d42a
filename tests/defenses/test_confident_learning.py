"""Confident learning finds labels that were flipped, by models that never saw them."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from redan.data.samples import Samples
from redan.defenses.confident_learning import ConfidentLearning, held_out_probabilities
from redan.defenses.measures import area_under_curve
from redan.defenses.suspicion import Suspects
from redan.errors import DataError, SettingError
from redan.targets.torch import TorchTarget, from_torch


def flipped() -> tuple[Samples, np.ndarray]:
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 3, 300)
    x = draw.standard_normal((300, 3)) + 5 * np.eye(3)[truth]
    bad = np.arange(300) < 20
    return Samples(x.astype(np.float32), np.where(bad, (truth + 1) % 3, truth), tuple(map(str, range(300)))), bad


def nearest_mean(samples: Samples, seed: int) -> TorchTarget:
    """Linear discriminant analysis with equal covariances."""
    means = np.stack([samples.x[samples.y == label].mean(0) for label in range(3)])
    layer = nn.Linear(3, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(means))
        layer.bias.copy_(torch.as_tensor(-(means**2).sum(1) / 2))
    return from_torch(layer.eval(), bounds=(-20.0, 20.0), classes=3)


def test_each_row_is_held_out_once_with_its_share_of_labels() -> None:
    samples, _ = flipped()
    seen: list[set[str]] = []

    def fit(given: Samples, seed: int) -> TorchTarget:
        assert given.ids is not None
        assert seed == 7 + len(seen)
        seen.append(set(given.ids))
        counts = np.bincount(given.y)
        assert np.abs(counts - np.bincount(samples.y) * 4 / 5).max() <= 1
        return nearest_mean(given, seed)

    found = held_out_probabilities(fit, samples, folds=5, seed=7)
    assert found.shape == (300, 3)
    assert samples.ids is not None
    assert all(sum(name in kept for kept in seen) == 4 for name in samples.ids)
    without = next(kept for kept in seen if "5" not in kept)
    rows = [at for at in range(300) if str(at) in without]
    alone = nearest_mean(Samples(samples.x[rows], samples.y[rows]), 0)(torch.as_tensor(samples.x[5:6]))
    np.testing.assert_allclose(found[5], alone.double().softmax(1).detach().numpy()[0], atol=1e-5)
    for folds in (1, 301):
        with pytest.raises(SettingError, match="2 to 300 folds"):
            held_out_probabilities(fit, samples, folds=folds, seed=0)


@pytest.mark.extras
def test_flipped_labels_are_found() -> None:
    samples, bad = flipped()
    probabilities = held_out_probabilities(nearest_mean, samples, seed=0)
    found = ConfidentLearning(probabilities=probabilities)(Suspects(samples=samples), seed=0)
    assert area_under_curve(found, bad) > 0.99
    order = np.random.default_rng(0).permutation(300)
    moved = Suspects(samples=Samples(samples.x[order], samples.y[order]))
    np.testing.assert_allclose(ConfidentLearning(probabilities=probabilities[order])(moved, seed=0), found[order])
    shuffled = np.random.default_rng(1).permutation(bad)
    assert 0.3 < area_under_curve(found, shuffled) < 0.7
    with pytest.raises(DataError, match="do not fit 300 samples"):
        ConfidentLearning(probabilities=probabilities[:5])(Suspects(samples=samples), seed=0)


def test_without_cleanlab_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.rank", None)
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    samples, _ = flipped()
    with pytest.raises(SettingError, match=r"pip install 'redan\[poisoning\]'"):
        ConfidentLearning(probabilities=np.full((300, 3), 1 / 3))(Suspects(samples=samples), seed=0)


def test_what_are_no_probabilities_is_refused() -> None:
    for wrong in (np.ones((3, 2)), np.ones(3), np.array([[2.0, -1.0]]), np.array([[np.nan, 1.0]])):
        with pytest.raises(DataError, match="no distributions"):
            ConfidentLearning(probabilities=wrong)
