"""Detectors on features whose answer is known: planted poison is found, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from redan.data.samples import Samples
from redan.defenses.activation_clustering import ActivationClustering, silhouettes, two_means, whitened
from redan.defenses.deep_knn import DeepKNN
from redan.defenses.loss_isolation import LossIsolation
from redan.defenses.measures import area_under_curve
from redan.defenses.near_duplicates import Among, NearDuplicates
from redan.defenses.neighbors import nearest
from redan.defenses.outliers import LocalOutlierFactor, RobustMahalanobis
from redan.defenses.spectral_signatures import SpectralSignatures
from redan.defenses.suspicion import Detector, Suspects, suspicion
from redan.errors import DataError, SettingError

CLASSES, ROWS, WIDTH, POISON = 3, 200, 16, 20
Planted = tuple[Suspects, np.ndarray]


def gaussian(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of three classes, each a Gaussian about a center of its own, and their labels."""
    draw = np.random.default_rng(seed)
    y = np.repeat(np.arange(CLASSES), ROWS)
    return draw.standard_normal((len(y), WIDTH)) + 8 * np.eye(WIDTH)[y], y


def made(features: np.ndarray, y: np.ndarray, losses: np.ndarray | None = None) -> Suspects:
    return Suspects(samples=Samples(features, y), features=features, losses=losses)


def nothing_planted(seed: int) -> Planted:
    """No poison: rows of class 0 that are called so, to be found by chance alone."""
    features, y = gaussian(seed)
    losses = np.random.default_rng(seed + 1).random((len(y), 5))
    return made(features, y, losses), np.arange(len(y)) < POISON


def cluster(seed: int) -> Planted:
    """A tight cluster in class 0, away from all classes."""
    features, y = gaussian(seed)
    features[:POISON] = 10 * np.eye(WIDTH)[5] + 0.5 * np.random.default_rng(seed).standard_normal((POISON, WIDTH))
    return made(features, y), np.arange(len(y)) < POISON


def flipped(seed: int) -> Planted:
    """Rows of class 1 that are labeled 0."""
    features, y = gaussian(seed)
    features[:POISON] += 8 * (np.eye(WIDTH)[1] - np.eye(WIDTH)[0])
    return made(features, y), np.arange(len(y)) < POISON


def scattered(seed: int) -> Planted:
    """Rows of class 0, each moved far in a direction of its own."""
    features, y = gaussian(seed)
    away = np.random.default_rng(seed).standard_normal((POISON, WIDTH))
    features[:POISON] += 12 * away / np.linalg.norm(away, axis=1, keepdims=True)
    return made(features, y), np.arange(len(y)) < POISON


def copied(seed: int) -> Planted:
    """Ten rows of class 1, and their copies in class 0 but for a little noise."""
    features, y = gaussian(seed)
    half = POISON // 2
    features[:half] = features[ROWS : ROWS + half] + 1e-3
    where = np.arange(len(y))
    return made(features, y), (where < half) | ((where >= ROWS) & (where < ROWS + half))


def learned_first(seed: int) -> Planted:
    """Losses that halve each epoch where the row is poison, and fall slowly where it is not."""
    features, y = gaussian(seed)
    bad = np.arange(len(y)) < POISON
    start = 2 + 0.2 * np.random.default_rng(seed).standard_normal((len(y), 1))
    return made(features, y, start * np.where(bad, 0.5, 0.9)[:, None] ** np.arange(5)), bad


FOUND: list[tuple[Detector, Callable[[int], Planted]]] = [
    (ActivationClustering(), cluster),
    (SpectralSignatures(), cluster),
    (DeepKNN(), flipped),
    (LossIsolation(), learned_first),
    (NearDuplicates(), copied),
    (NearDuplicates(among=Among.OTHER_LABELS), copied),
    (RobustMahalanobis(), cluster),
    (RobustMahalanobis(), scattered),
    (LocalOutlierFactor(), scattered),
]
EACH = list({repr(detector): detector for detector, _ in FOUND}.values())


@pytest.mark.parametrize(("detector", "plant"), FOUND, ids=lambda part: getattr(part, "__name__", type(part).__name__))
def test_planted_poison_is_found(detector: Detector, plant: Callable[[int], Planted]) -> None:
    for seed in range(3):
        rows, bad = plant(seed)
        assert area_under_curve(detector(rows, seed=0), bad) > 0.99


@pytest.mark.parametrize("detector", EACH, ids=repr)
def test_nothing_is_found_where_nothing_is(detector: Detector) -> None:
    """AUC about 1/2: the mean over 10 sets within 4 standard errors of it, of 20 rows against the others of a class."""
    found = []
    for seed in range(10):
        rows, called = nothing_planted(seed)
        first = rows.samples.y == 0
        found.append(area_under_curve(detector(rows, seed=0)[first], called[first]))
    one = np.sqrt((ROWS + 1) / (12 * POISON * (ROWS - POISON)))
    assert abs(np.mean(found) - 0.5) < 4 * one / np.sqrt(10)


def test_each_is_blind_somewhere() -> None:
    """What a detector's docstring says that it does not see, it does not see: the tests above can fail."""
    rows, bad = cluster(0)
    assert area_under_curve(DeepKNN(k=10)(rows, seed=0), bad) < 0.6
    assert area_under_curve(NearDuplicates(among=Among.OTHER_LABELS)(rows, seed=0), bad) < 0.6
    rows, bad = copied(0)
    assert area_under_curve(RobustMahalanobis()(rows, seed=0), bad & (rows.samples.y == 1)) < 0.8
    rows, bad = scattered(0)
    assert area_under_curve(NearDuplicates()(rows, seed=0), bad) < 0.1


@pytest.mark.parametrize("detector", EACH, ids=repr)
def test_order_and_seed(detector: Detector) -> None:
    rows, _ = cluster(1)
    losses = np.random.default_rng(0).random((len(rows), 4))
    features, y = rows.known_features(), rows.samples.y
    plain = detector(made(features, y, losses), seed=3)
    assert plain.shape == (len(y),)
    assert np.array_equal(plain, detector(made(features, y, losses), seed=3))
    order = np.random.default_rng(1).permutation(len(y))
    moved = detector(made(features[order], y[order], losses[order]), seed=3)
    np.testing.assert_allclose(moved, plain[order], rtol=1e-6, atol=1e-8)
    trusted = Suspects(samples=rows.samples, features=features, losses=losses, trusted=np.arange(len(y)) % 2 == 0)
    assert np.array_equal(detector(trusted, seed=3), plain), "a detector must not see who is trusted"


@pytest.mark.parametrize("detector", EACH, ids=repr)
@pytest.mark.parametrize("sizes", [(1,), (2, 1), (60, 1), (60, 3), (30, 30)])
@pytest.mark.parametrize("same", [False, True])
def test_small_and_degenerate_classes(detector: Detector, sizes: tuple[int, ...], same: bool) -> None:
    y = np.repeat(np.arange(len(sizes)), sizes)
    features = np.ones((len(y), 4)) if same else np.random.default_rng(0).standard_normal((len(y), 4))
    said = suspicion(made(features, y, features**2), detector)
    assert said.scores.shape == (len(y),)
    assert said.p is None


def test_spectral_scores_are_squared_projections() -> None:
    rows, _ = cluster(2)
    scores = SpectralSignatures()(rows, seed=0)
    for label in range(CLASSES):
        mine = rows.samples.y == label
        centered = rows.known_features()[mine] - rows.known_features()[mine].mean(0)
        values, vectors = np.linalg.eigh(centered.T @ centered)
        np.testing.assert_allclose(scores[mine], (centered @ vectors[:, -1]) ** 2, atol=1e-8)
        np.testing.assert_allclose(scores[mine].sum(), values[-1])


def test_losses_are_read_after_an_epoch() -> None:
    rows, _ = learned_first(0)
    losses = rows.known_losses()
    assert np.array_equal(LossIsolation(epochs=2)(rows, seed=0), -losses[:, 1])
    assert np.array_equal(LossIsolation()(rows, seed=0), -losses[:, 4])
    with pytest.raises(DataError, match="none after 6"):
        LossIsolation(epochs=6)(rows, seed=0)


def test_neighbors_by_brute_force() -> None:
    draw = np.random.default_rng(0)
    rows, labels = draw.standard_normal((50, 3)) + 1000, draw.integers(0, 3, 50)
    rows[7] = rows[3]
    gap = np.linalg.norm(rows[:, None] - rows, axis=2)
    np.fill_diagonal(gap, np.inf)
    distances, positions = nearest(rows, 4)
    np.testing.assert_allclose(distances, np.sort(gap, 1)[:, :4], atol=1e-9)
    np.testing.assert_allclose(np.take_along_axis(gap, positions, 1), distances, atol=1e-9)
    assert distances[3, 0] == distances[7, 0] == 0
    gap[labels[:, None] == labels] = np.inf
    np.testing.assert_allclose(nearest(rows, 2, labels)[0], np.sort(gap, 1)[:, :2], atol=1e-9)
    lonely = nearest(rows[:3], 5)
    assert np.isinf(lonely[0][:, 2:]).all()
    assert (lonely[1][:, 2:] == -1).all()


def test_deep_knn_counts_votes() -> None:
    features = np.array([[0.0], [0.1], [0.25], [0.45], [9.0], [9.1], [9.3]])
    y = np.array([0, 0, 1, 0, 1, 1, 1])
    assert DeepKNN(k=2)(made(features, y), seed=0).tolist() == [0.0, 0.0, 1.0, 0.0, -1.0, -1.0, -1.0]


def test_two_means_is_the_best_split_by_brute_force() -> None:
    for seed in range(5):
        rows = np.random.default_rng(seed).standard_normal((9, 2))
        best = np.inf
        for code in range(1, 2**8):
            first = np.array([code >> i & 1 for i in range(9)], dtype=bool)
            best = min(best, sum(((rows[side] - rows[side].mean(0)) ** 2).sum() for side in (first, ~first)))
        directions = np.random.default_rng(1).standard_normal((40, 2))
        assert two_means(rows, directions).inertia == pytest.approx(best)


def test_silhouette_by_its_definition() -> None:
    draw = np.random.default_rng(0)
    rows, first = draw.standard_normal((20, 3)), draw.random(20) < 0.4
    gap = ((rows[:, None] - rows) ** 2).sum(2)
    values = []
    for i in range(20):
        own = first == first[i]
        a, b = gap[i, own].sum() / (own.sum() - 1), gap[i, ~own].mean()
        values.append((b - a) / max(a, b))
    np.testing.assert_allclose(silhouettes(rows, first), values)


def test_whitened_components_have_variance_one() -> None:
    rows = np.random.default_rng(0).standard_normal((80, 6)) @ np.diag([9, 5, 3, 1, 0.1, 0])
    reduced = whitened(rows, 10)
    assert reduced.shape == (80, 5)
    np.testing.assert_allclose(reduced.T @ reduced / 80, np.eye(5), atol=1e-9)


def test_clusters_say_which_class_is_poisoned() -> None:
    """All poisoned rows come before all clean ones, also those of classes without poison, by a margin."""
    rows, bad = cluster(4)
    scores = ActivationClustering()(rows, seed=0)
    assert bad[np.argsort(-scores)[:POISON]].all()
    assert scores[bad].min() > 2 * scores[~bad].max()


def test_robust_distances_are_mahalanobis_distances() -> None:
    """On clean Gaussians within 15 % of the classical ones; with 20 % of outliers, where classical ones are masked."""
    draw = np.random.default_rng(0)
    mixing = np.diag([5.0, 2.0, 1.0, 0.5])
    clean = draw.standard_normal((2000, 4)) @ mixing
    y = np.zeros(2000, dtype=int)
    exact = (np.linalg.solve(mixing, clean.T) ** 2).sum(0)
    assert np.median(RobustMahalanobis(shrinkage=1e-6)(made(clean, y), seed=0) / exact) == pytest.approx(1, abs=0.15)
    dirty = clean.copy()
    dirty[:400] = draw.standard_normal((400, 4)) * 0.1 + [40, 16, 8, 4]
    bad = np.arange(2000) < 400
    assert area_under_curve(RobustMahalanobis()(made(dirty, y), seed=0), bad) == 1.0
    classical = np.einsum(
        "nd,nd->n", dirty - dirty.mean(0), np.linalg.solve(np.cov(dirty.T), (dirty - dirty.mean(0)).T).T
    )
    assert area_under_curve(classical, bad) < 0.9


def test_local_outlier_factor_by_its_definition() -> None:
    rows, k = np.random.default_rng(0).standard_normal((40, 2)), 5
    gap = np.linalg.norm(rows[:, None] - rows, axis=2)
    near = np.argsort(gap, 1)[:, 1 : k + 1]
    reach = np.sort(gap, 1)[:, k]
    density = [1 / np.mean([max(reach[j], gap[i, j]) for j in near[i]]) for i in range(40)]
    factor = [np.mean([density[j] for j in near[i]]) / density[i] for i in range(40)]
    np.testing.assert_allclose(LocalOutlierFactor(k=k)(made(rows, np.zeros(40, int)), seed=0), factor)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: DeepKNN(k=0),
        lambda: LocalOutlierFactor(k=0),
        lambda: LossIsolation(epochs=0),
        lambda: ActivationClustering(components=0),
        lambda: RobustMahalanobis(keep=0.5),
    ],
)
def test_settings_out_of_range(wrong: Callable[[], Any]) -> None:
    with pytest.raises(SettingError, match="got"):
        wrong()
