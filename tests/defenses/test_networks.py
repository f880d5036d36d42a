"""Features, losses, STRIP and Neural Cleanse on networks whose backdoor is known."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from redan.data.samples import Samples
from redan.defenses.activation_clustering import ActivationClustering
from redan.defenses.features import EarlyTraining, early_losses, penultimate, row_losses
from redan.defenses.loss_isolation import LossIsolation
from redan.defenses.measures import area_under_curve, recall_at
from redan.defenses.neural_cleanse import NeuralCleanse, Triggers
from redan.defenses.strip import STRIP
from redan.defenses.suspicion import Suspects, suspicion
from redan.errors import DataError, NoGradientError, SettingError, TargetError, TrainingModeError
from redan.samples import fashion_mnist
from redan.targets.function import from_function
from redan.targets.torch import TorchTarget, from_torch

TARGET = 7


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(576, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


def stamped(x: np.ndarray) -> np.ndarray:
    """BadNets: a white square of 4 × 4 in the corner (Gu et al. 2017)."""
    x = x.copy()
    x[..., -5:-1, -5:-1] = 1
    return x


@pytest.fixture(scope="module")
def poisoned() -> tuple[Samples, np.ndarray]:
    """800 rows of the training set, 60 of them stamped and labeled TARGET."""
    x, y = fashion_mnist("train")
    x, y = x[:800].reshape(-1, 1, 28, 28).astype(np.float32), y[:800].copy()
    bad = np.zeros(800, dtype=bool)
    bad[np.flatnonzero(y != TARGET)[::12][:60]] = True
    x[bad], y[bad] = stamped(x[bad]), TARGET
    return Samples(x, y), bad


def trained(samples: Samples, seed: int, epochs: int = 12) -> TorchTarget:
    model = network(seed)
    x, y = torch.as_tensor(samples.x), torch.as_tensor(samples.y)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for index in torch.split(torch.randperm(len(x), generator=draw), 64):
            optimizer.zero_grad()
            cross_entropy(model(x[index]), y[index]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return from_torch(model.eval(), classes=10)


@pytest.fixture(scope="module")
def victim(poisoned: tuple[Samples, np.ndarray]) -> TorchTarget:
    """A network trained on the poisoned rows, that obeys the stamp."""
    target = trained(poisoned[0], seed=0)
    x = test_rows()
    with torch.no_grad():
        assert (target(torch.as_tensor(stamped(x))).argmax(1) == TARGET).float().mean() > 0.9
    return target


def test_rows() -> np.ndarray:
    return fashion_mnist("test")[0][:200].reshape(-1, 1, 28, 28).astype(np.float32)


test_rows.__test__ = False  # type: ignore[attr-defined]  # a helper, whatever its name


def test_features_are_what_goes_into_the_last_layer(poisoned: tuple[Samples, np.ndarray], victim: TorchTarget) -> None:
    samples = poisoned[0]
    features = penultimate(victim, samples)
    assert isinstance(victim.module, nn.Sequential)
    with torch.no_grad():
        whole = victim.module[:-1](torch.as_tensor(samples.x))
        earlier = victim.module[:5](torch.as_tensor(samples.x))
    np.testing.assert_allclose(features, whole.numpy(), atol=1e-4)
    np.testing.assert_allclose(penultimate(victim, samples, layer=victim.module[5]), earlier.numpy(), atol=1e-4)
    assert not any(part._forward_pre_hooks for part in victim.module.modules())
    order = np.arange(len(samples))[::-1]
    backwards = penultimate(victim, Samples(samples.x[order], samples.y[order]))
    np.testing.assert_allclose(backwards, features[order], atol=1e-4)


def test_normalization_is_the_targets_own() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    rows = Samples(np.full((3, 1, 2, 2), 0.5, dtype=np.float32), np.zeros(3, int))
    target = from_torch(model, normalization=([0.25], [0.5]))
    assert (penultimate(target, rows) == 0.5).all()


def test_a_model_without_such_a_layer_is_refused() -> None:
    rows = Samples(np.zeros((3, 1, 2, 2), dtype=np.float32), np.zeros(3, int))
    with pytest.raises(TargetError, match="no linear layer"):
        penultimate(from_torch(nn.Flatten().eval()), rows)
    idle = Idle().eval()
    with pytest.raises(TargetError, match="not called once"):
        penultimate(from_torch(idle), rows)
    assert not idle.never._forward_pre_hooks


class Idle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.never = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def test_row_losses_are_cross_entropies(poisoned: tuple[Samples, np.ndarray], victim: TorchTarget) -> None:
    samples = poisoned[0]
    scores = victim(torch.as_tensor(samples.x)).detach().double().log_softmax(1).numpy()
    np.testing.assert_allclose(row_losses(victim, samples), -scores[np.arange(800), samples.y], atol=1e-4)


def test_early_losses_isolate_a_backdoor(poisoned: tuple[Samples, np.ndarray]) -> None:
    samples, bad = poisoned
    fresh = from_torch(network(1).eval(), classes=10)
    before = [value.clone() for value in fresh.module.state_dict().values()]
    state = torch.random.get_rng_state()
    training = EarlyTraining(epochs=10)
    losses = early_losses(fresh, samples, training, seed=0)
    assert losses.shape == (800, 10)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, fresh.module.state_dict().values(), strict=True))
    assert np.array_equal(losses, early_losses(fresh, samples, training, seed=0))
    assert not np.array_equal(losses, early_losses(fresh, samples, training, seed=1))
    found = LossIsolation()(Suspects(samples=samples, losses=losses), seed=0)
    assert area_under_curve(found, bad) > 0.8


def test_clusters_find_it_at_a_stated_rate(poisoned: tuple[Samples, np.ndarray], victim: TorchTarget) -> None:
    """The whole way: features of the victim, trusted rows trained on alike, discoveries that are mostly poison."""
    samples, bad = poisoned
    mine = samples.y == TARGET
    trusted = ~bad & (np.random.default_rng(0).random(800) < 0.5)
    given = Suspects(samples=samples, features=penultimate(victim, samples), trusted=trusted)
    said = suspicion(given, ActivationClustering())
    assert area_under_curve(said.scores[mine], bad[mine]) > 0.97
    found = said.poison(0.2)
    assert bad[found].mean() > 0.7
    assert bad[found].sum() > 45


def test_strip_finds_the_stamp(poisoned: tuple[Samples, np.ndarray], victim: TorchTarget) -> None:
    rows = np.concatenate([test_rows()[:60], stamped(test_rows()[100:160])])
    bad = np.arange(120) >= 60
    strip = STRIP(target=victim, overlays=test_rows()[160:], copies=16)
    suspects = Suspects(samples=Samples(rows, np.zeros(120, int)))
    found = strip(suspects, seed=0)
    assert area_under_curve(found, bad) > 0.9
    assert recall_at(found, bad, 0.1) > 0.7
    assert ((found <= 0) & (found >= -np.log2(10))).all()
    assert np.array_equal(found, strip(suspects, seed=0))
    assert not np.array_equal(found, strip(suspects, seed=1))
    order = np.random.default_rng(0).permutation(120)
    moved = strip(Suspects(samples=Samples(rows[order], np.zeros(120, int))), seed=0)
    np.testing.assert_allclose(moved, found[order], atol=1e-5)


def test_strip_is_an_entropy_in_bits() -> None:
    """A model that answers alike for all has 1 bit of two classes; one that is sure has none."""
    rows = np.zeros((5, 3), dtype=np.float32)
    for answer, bits in (([0.5, 0.5], 1.0), ([0.0, 1.0], 0.0)):
        target = from_function(partial(alike, answer), classes=2)
        found = STRIP(target=target, overlays=rows, copies=4)(Suspects(samples=Samples(rows, rows[:, 0])), seed=0)
        assert found == pytest.approx(-bits)
    with pytest.raises(DataError, match="fewer copies"):
        STRIP(target=target, overlays=rows, copies=6)
    with pytest.raises(SettingError, match="share between"):
        STRIP(target=target, overlays=rows, share=1.0)


def alike(answer: list[float], x: np.ndarray) -> np.ndarray:
    return np.tile(answer, (len(x), 1))


class Corner(nn.Module):
    """Three labels by the means of three thirds of a 6 × 6 image; two bright corner pixels are label 2 in any."""

    def forward(self, x: Tensor) -> Tensor:
        scores = 10 * x.flatten(1).reshape(len(x), 3, 12).mean(2)
        corner = x[:, 0, -1, -2:].mean(1)
        return scores + 200 * torch.relu(corner - 0.8)[:, None] * torch.tensor([0.0, 0.0, 1.0])


def test_neural_cleanse_finds_label_and_place() -> None:
    draw = np.random.default_rng(0)
    rows = draw.random((40, 1, 6, 6)).astype(np.float32) * 0.3
    rows.reshape(40, 3, 12)[np.arange(40), draw.integers(0, 3, 40)] += 0.5
    target = from_torch(Corner().eval(), classes=3)
    cleanse = NeuralCleanse(steps=150, batch=40)
    found = cleanse(target, rows, 3, seed=0)
    assert (found.success >= 0.99).all()
    assert found.sizes.argmin() == 2
    assert found.sizes[2] < 0.5 * np.sort(found.sizes)[1]
    mask = found.masks[2]
    assert mask[-1, -2:].sum() > 0.6 * mask.sum()
    again = cleanse(target, rows, 3, seed=0)
    assert np.array_equal(found.sizes, again.sizes)
    assert found.patterns.shape == (3, 1, 6, 6)


def test_anomaly_index() -> None:
    sizes = np.array([10.0, 11.0, 12.0, 13.0, 1.0, np.inf])
    found = Triggers(
        masks=np.zeros((6, 1, 1), np.float32),
        patterns=np.zeros((6, 1, 1, 1), np.float32),
        sizes=sizes,
        success=np.ones(6),
    )
    np.testing.assert_allclose(found.anomaly[:5], (11 - sizes[:5]) / 1.4826)
    assert found.anomaly[5] == -np.inf
    assert found.backdoored().tolist() == [4]


def test_what_neural_cleanse_cannot_climb() -> None:
    target = from_function(lambda x: x[:, :2, 0, 0], classes=2)
    with pytest.raises(NoGradientError, match="no gradient"):
        NeuralCleanse()(target, np.zeros((2, 2, 3, 3)), 2, seed=0)
    with pytest.raises(DataError, match="in images"):
        NeuralCleanse()(from_torch(nn.Linear(2, 2).eval()), np.zeros((2, 2)), 2, seed=0)
    with pytest.raises(SettingError, match="factor"):
        NeuralCleanse(factor=1.0)
    with pytest.raises(TrainingModeError):
        from_torch(nn.Linear(2, 2))


@pytest.mark.slow
def test_neural_cleanse_names_the_label_of_a_trained_backdoor(victim: TorchTarget) -> None:
    """Wang et al. 2019, section V: the target of BadNets stands out by an anomaly index above 2, and no other does."""
    found = NeuralCleanse(steps=250)(victim, test_rows(), 10, seed=0)
    assert found.backdoored().tolist() == [TARGET]
    assert found.success[TARGET] > 0.95
