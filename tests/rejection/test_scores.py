"""Mahalanobis distances and nearest rows: closed forms, brute force, the paper written out, finite differences."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.linalg import pinvh
from scipy.spatial.distance import cdist
from scipy.spatial.distance import mahalanobis as scipys
from torch import Tensor, nn

from redan.errors import DataError, SettingError, TargetError
from redan.rejection.detector import Detector
from redan.rejection.features import Features, features_of
from redan.rejection.mahalanobis import Mahalanobis, gaussians, mahalanobis, weighted
from redan.rejection.nearest import nearest_rows
from redan.targets import TorchTarget, from_torch


def plane() -> Features:
    """Features that are the inputs themselves."""
    return Features(target=from_torch(nn.Linear(2, 2).double().eval()))


def net() -> tuple[TorchTarget, tuple[nn.Module, ...]]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        parts = [
            nn.Conv2d(1, 3, 3),
            nn.Tanh(),
            nn.Conv2d(3, 4, 3),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(16, 5),
            nn.Tanh(),
        ]
        module = nn.Sequential(*parts, nn.Linear(5, 3)).double().eval()
    return from_torch(module, classes=3), (module[2], module[5], module[7])


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def clusters(seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(60) % 3
    center = torch.tensor([[0.0, 0.0], [4.0, 1.0], [-2.0, 5.0]], dtype=torch.float64)
    shape = torch.tensor([[1.0, 0.0], [0.8, 0.3]], dtype=torch.float64)
    return center[y] + torch.randn(60, 2, generator=draw, dtype=torch.float64) @ shape.T, y


def test_distances_are_scipy_s() -> None:
    x, y = clusters()
    means = torch.stack([x[y == c].mean(0) for c in range(3)])
    precision = np.linalg.inv(np.cov((x - means[y]).T.numpy(), bias=True))
    asked = clusters(1)[0][:7]
    found = mahalanobis(plane(), x, y, weights=[1.0]).score(asked)
    for row, score in zip(asked, found, strict=True):
        assert float(score) == pytest.approx(min(scipys(row, mean, precision) ** 2 for mean in means), rel=1e-9)
    usual = mahalanobis(plane(), x, y)
    assert usual.weights == (0.5,)
    assert float(usual.score(x).mean()) == pytest.approx(1, abs=0.15)  # E of a chi-square over its degrees of freedom


def test_it_is_the_paper_s_score_with_its_sign_turned() -> None:
    """Algorithm 1, written out in numpy on features averaged over places, with input preprocessing."""
    target, layers = net()
    features, x, y = Features(target=target, layers=layers), images(40), torch.arange(40) % 3
    detector = mahalanobis(features, x, y, weights=[1.0, 2.0, -0.5], magnitude=0.01)
    asked, total = images(5, 1), np.zeros(5)
    for layer, weight in enumerate(detector.weights):
        train = features_of(features, x)[layer].numpy()
        means = np.stack([train[y.numpy() == c].mean(0) for c in range(3)])
        centered = train - means[y.numpy()]
        precision = torch.from_numpy(pinvh(centered.T @ centered / len(x)))
        here = asked.clone().requires_grad_()
        apart = features(here)[layer][:, None] - torch.from_numpy(means)
        score = torch.einsum("nci,ij,ncj->nc", apart, precision, apart).amin(1)
        (slope,) = torch.autograd.grad(score.sum(), here)
        with torch.no_grad():
            apart = features(asked - 0.01 * slope.sign())[layer][:, None] - torch.from_numpy(means)
            total += weight * torch.einsum("nci,ij,ncj->nc", apart, precision, apart).amin(1).numpy()
    with torch.no_grad():
        assert np.allclose(detector.score(asked), total, rtol=1e-6)
        bare = mahalanobis(features, x, y, weights=detector.weights)
        assert not np.allclose(bare.score(asked), total, rtol=1e-3)


def test_directions_without_rows_are_left_out() -> None:
    """A unit that is always 0 (a dead one) says nothing: the pseudo-inverse."""
    x, y = clusters()
    flat = torch.cat([x, torch.zeros(60, 1, dtype=x.dtype)], 1)
    found = gaussians(flat, y)
    assert found.whiten.shape == (3, 2)
    assert torch.allclose(found.distances(flat), gaussians(x, y).distances(x), rtol=1e-6)
    with pytest.raises(DataError, match="do not vary"):
        gaussians(torch.ones(4, 2), torch.tensor([0, 0, 1, 1]))


@pytest.mark.parametrize("k", [1, 4, 30])
@pytest.mark.parametrize("normalized", [True, False])
def test_nearest_rows_are_those_of_brute_force(k: int, normalized: bool) -> None:
    bank, asked = (torch.randn(n, 2, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (30, 11))
    detector = nearest_rows(plane(), bank, k=k, normalized=normalized)
    a, b = (rows / rows.norm(dim=1, keepdim=True) if normalized else rows for rows in (asked, bank))
    assert np.allclose(detector.score(asked), np.sort(cdist(a, b), 1)[:, k - 1], rtol=1e-12)
    assert np.allclose(nearest_rows(plane(), bank, k=1).score(bank), 0, atol=1e-12)  # a bank's row is at 0 from itself


def each() -> list[Detector]:
    target, layers = net()
    x, y = images(40), torch.arange(40) % 3
    several, last = Features(target=target, layers=layers), Features(target=target)
    return [
        mahalanobis(several, x, y),
        mahalanobis(last, x, y),
        nearest_rows(several, x, k=3),
        nearest_rows(last, x, k=5),
    ]


@pytest.mark.parametrize("detector", each())
def test_gradients_are_finite_differences(detector: Detector) -> None:
    x = images(3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: detector.score(rows), (x,))
    with torch.no_grad():
        one_by_one = torch.cat([detector.score(row[None]) for row in x])
        assert torch.allclose(detector.score(x), one_by_one, rtol=1e-12)
        assert detector.score(x[:0]).shape == (0,)


def test_a_gradient_passes_through_input_preprocessing() -> None:
    target, layers = net()
    detector = mahalanobis(Features(target=target, layers=layers[2:]), images(40), torch.arange(40) % 3, magnitude=1e-3)
    x = images(3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: detector.score(rows), (x,), eps=1e-7)


def test_features_are_what_goes_into_a_layer() -> None:
    target, layers = net()
    x, module = images(4), target.module
    assert isinstance(module, nn.Sequential)
    with torch.no_grad():
        first, second, third = Features(target=target, layers=layers)(x)
        assert torch.equal(first, module[:2](x).mean((2, 3)))
        assert torch.equal(second, module[:5](x))
        assert torch.equal(third, module[:7](x))
        assert torch.equal(third, Features(target=target)(x)[0])
    assert not any(part._forward_pre_hooks for part in module.modules())


def test_blocks_on_several_threads_do_not_meet() -> None:
    target, layers = net()
    features = Features(target=target, layers=layers)
    rows = [images(5, seed) for seed in range(24)]
    with torch.no_grad():
        alone = [features(x) for x in rows]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: [part.detach() for part in features(x)], rows * 4))
    for at, found in enumerate(together):
        assert all(torch.equal(a, b) for a, b in zip(found, alone[at % 24], strict=True))


def test_weights_find_the_layer_that_tells() -> None:
    target, layers = net()
    detector = mahalanobis(Features(target=target, layers=layers[1:]), images(60), torch.arange(60) % 3)
    clean, attacked = images(40, 5), images(40, 6) * 3 - 1
    found = weighted(detector, clean, attacked)
    with torch.no_grad():
        before, after = (torch.stack([d.score(clean), d.score(attacked)]) for d in (detector, found))
    wins = [float((pair[1][:, None] > pair[0]).float().mean()) for pair in (before, after)]
    assert wins[1] >= max(wins[0], 0.95)
    with pytest.raises(DataError, match="learned from both"):
        weighted(detector, clean, attacked[:0])


def test_what_cannot_be_is_refused() -> None:
    target, _ = net()
    x, y = images(8), torch.arange(8) % 3
    with pytest.raises(TargetError, match="no linear layer"):
        Features(target=from_torch(nn.Flatten().eval()))
    with pytest.raises(TargetError, match="not one of the model's submodules"):
        Features(target=target, layers=(nn.Linear(2, 2),))
    with pytest.raises(DataError, match="need classes"):
        mahalanobis(Features(target=target), x, y[:5])
    with pytest.raises(SettingError, match="as many weights"):
        mahalanobis(Features(target=target), x, y, weights=[1.0, 2.0])
    with pytest.raises(SettingError, match="k must be from 1 to the bank's 8 rows, got 9"):
        nearest_rows(Features(target=target), x, k=9)
    with pytest.raises(DataError, match="no rows"):
        nearest_rows(Features(target=target), x[:0], k=1)


class Skips(nn.Module):
    """Has a layer that is never called, and one that is called with other rows."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle, self.whole = nn.Linear(4, 2), nn.Linear(4, 2), nn.Flatten(0)

    def forward(self, x: Tensor) -> Tensor:
        self.whole(x)
        found: Tensor = self.used(x)
        return found


def test_layers_that_say_nothing_of_rows_are_named() -> None:
    module = Skips().eval()
    target = from_torch(module)
    with torch.no_grad():
        assert Features(target=target)(torch.rand(3, 4))[0].shape == (3, 4)
        with pytest.raises(TargetError, match="a row for each input"):
            Features(target=target, layers=(module.idle,))(torch.rand(3, 4))


def test_a_detector_of_a_stochastic_model_is_stochastic() -> None:
    target = from_torch(nn.Linear(2, 2).eval(), stochastic=True)
    x, y = torch.rand(9, 2), torch.arange(9) % 2
    detector: Mahalanobis = mahalanobis(Features(target=target), x, y)
    assert detector.stochastic
    assert not detector.surrogate
