"""Detectors of the registry: one finite number a row, the same for a seed, whatever the order of rows."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from redan.data.samples import Samples
from redan.defenses.suspicion import Suspects
from redan.errors import SettingError
from redan.poisoning.crafting import seeded
from redan.registry.detectors import DETECTORS, DetectorEntry, Inspection, Sees, detector
from redan.targets.torch import from_torch

every = pytest.mark.parametrize("each", DETECTORS, ids=[each.name for each in DETECTORS])
asked = pytest.mark.parametrize(
    "each",
    [
        pytest.param(each, id=each.name, marks=[pytest.mark.extras] if each.name == "confident-learning" else [])
        for each in DETECTORS
    ],
)
"""As `every`; cleanlab is an extra."""
DRAW = np.random.default_rng(0)
Y = np.arange(60) % 3
X = (DRAW.random((60, 5)) * 0.5 + 0.5 * (np.arange(5) == Y[:, None])).astype(np.float32)
FEATURES, LOSSES = np.concatenate([X, X**2], 1).astype(np.float64), DRAW.random((60, 4))
ORDER = DRAW.permutation(60)


def inspection(clean: int = 40) -> Inspection:
    with seeded(0):
        model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    rows = np.random.default_rng(4).random((clean, 5)).astype(np.float32)
    return Inspection(target=from_torch(model), clean=rows, classes=3)


def suspects(order: np.ndarray) -> Suspects:
    return Suspects(samples=Samples(X[order], Y[order]), features=FEATURES[order], losses=LOSSES[order])


@every
def test_an_entry_is_complete(each: DetectorEntry) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", each.name)
    assert each.paper == "a baseline" or re.search(r"\b(19|20)\d\d(, arXiv:\d{4}\.\d{4,5})?$", each.paper)
    assert 5 < len(each.blind) <= 40
    assert detector(each.name) is each


def test_names_are_unique_and_every_sight_is_used() -> None:
    assert len({each.name for each in DETECTORS}) == len(DETECTORS)
    assert {each.sees for each in DETECTORS} == set(Sees)


@asked
def test_one_finite_number_a_row_for_a_seed_in_any_order(each: DetectorEntry) -> None:
    plain = np.arange(60)
    one = each.make(inspection())(suspects(plain), seed=3)
    assert one.shape == (60,)
    assert np.isfinite(one).all()
    assert len(np.unique(one)) > 1
    assert np.array_equal(one, each.make(inspection())(suspects(plain), seed=3))
    moved = each.make(inspection())(suspects(ORDER), seed=3)
    np.testing.assert_allclose(moved, one[ORDER], rtol=1e-5, atol=1e-7)


@pytest.mark.extras
def test_probabilities_that_are_known_are_taken() -> None:
    sure = np.full((60, 3), 0.05)
    sure[np.arange(60), Y] = 0.9
    sure[7] = 0.05, 0.05, 0.9  # row 7 is of class 1
    told = Inspection(target=None, clean=X[:0], classes=3, probabilities=sure)
    assert int(detector("confident-learning").make(told)(suspects(np.arange(60)), seed=0).argmax()) == 7


def test_strip_needs_a_model_and_takes_the_clean_rows_that_there_are() -> None:
    with pytest.raises(SettingError, match="there is none; leave strip out"):
        detector("strip").make(Inspection(target=None, clean=X, classes=3))
    found = detector("strip").make(inspection(clean=4))(suspects(np.arange(60)), seed=0)
    assert np.isfinite(found).all()
    assert torch.is_grad_enabled()


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(SettingError, match=r"there is no detector named 'knn'; redan knows activation-clustering, "):
        detector("knn")
