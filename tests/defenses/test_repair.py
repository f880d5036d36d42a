"""Repair: a planted backdoor goes, accuracy stays, and the model that was given is as it was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy

from redan.data.samples import Samples
from redan.defenses.fine_pruning import FinePruning
from redan.defenses.repair import accuracy, only, without
from redan.defenses.training import Tuning, copied
from redan.defenses.unlearning import Unlearning
from redan.errors import DataError, SettingError, TargetError, TrainingModeError
from redan.samples import fashion_mnist
from redan.targets import Output, TorchTarget, from_torch

TRIGGER = np.array([0.0, 0, 0, 1])


def triggered(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Images with three bright pixels by three in a corner."""
    x = x.copy()
    x[:, :, -3:, -3:] = 1
    return x


def fit(samples: Samples, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 9, 10),
        )
        optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
        x, y = torch.from_numpy(samples.x), torch.from_numpy(samples.y)
        for _ in range(5):
            for index in torch.split(torch.randperm(len(x)), 50):
                optimizer.zero_grad()
                cross_entropy(net(x[index]), y[index]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return net.eval()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A model with a backdoor to class 0, the rows it was trained on and which of them are poison, and clean rows."""

    target: TorchTarget
    samples: Samples
    poison: NDArray[np.int64]
    trusted: Samples
    test: Samples
    attacked: Samples

    def success(self, target: TorchTarget) -> float:
        return accuracy(target, self.attacked)


@pytest.fixture(scope="module")
def scene() -> Scene:
    (x, y), (test_x, test_y) = fashion_mnist("train"), fashion_mnist("test")
    x, test_x = (avg_pool2d(torch.from_numpy(images), 2).numpy() for images in (x, test_x[:300]))
    test_y = test_y[:300]
    poison = np.flatnonzero(y[:1200] != 0)[:50]
    poisoned_x, poisoned_y = x[:1200].copy(), y[:1200].copy()
    poisoned_x[poison], poisoned_y[poison] = triggered(x[poison]), 0
    samples = Samples(poisoned_x, poisoned_y)
    others = test_y != 0
    made = Scene(
        target=from_torch(fit(samples, 1), classes=10),
        samples=samples,
        poison=poison,
        trusted=Samples(x[1200:2400], y[1200:2400]),
        test=Samples(test_x, test_y),
        attacked=Samples(triggered(test_x[others]), np.zeros(int(others.sum()), dtype=np.int64)),
    )
    assert made.success(made.target) >= 0.8
    assert accuracy(made.target, made.test) >= 0.7
    return made


def _bytes(module: nn.Module) -> list[bytes]:
    return [value.numpy().tobytes() for value in module.state_dict().values()]


def _repaired(scene: Scene, target: TorchTarget) -> None:
    assert scene.success(target) <= 0.1
    assert accuracy(target, scene.test) >= accuracy(scene.target, scene.test) - 0.03
    assert not any(part.training for part in target.module.modules())


# -- a backdoor goes -----------------------------------------------------------------------------------------------


def test_training_without_the_poison_repairs(scene: Scene) -> None:
    _repaired(scene, from_torch(fit(without(scene.samples, scene.poison), 1), classes=10))


def test_fine_pruning_repairs_and_leaves_the_given_model_alone(scene: Scene) -> None:
    before, state = _bytes(scene.target.module), torch.get_rng_state()
    found = FinePruning()(scene.target, scene.trusted, seed=0)
    _repaired(scene, found.target)
    assert found.layer == "4"
    assert len(found.channels) >= 1
    assert found.before == accuracy(scene.target, scene.trusted)
    assert found.before - 0.04 <= found.pruned <= found.before + 0.01
    assert found.after == accuracy(found.target, scene.trusted)
    norm = found.target.module.get_submodule("4")
    assert isinstance(norm.weight, Tensor)
    assert torch.equal(norm.weight[torch.from_numpy(found.channels)], torch.zeros(len(found.channels)))
    assert _bytes(scene.target.module) == before
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("isolated", [50, 20])
def test_unlearning_repairs_and_leaves_the_given_model_alone(scene: Scene, isolated: int) -> None:
    before, state = _bytes(scene.target.module), torch.get_rng_state()
    forget = Unlearning(tuning=Tuning(epochs=5, rate=0.001))
    found = forget(scene.target, scene.samples, scene.poison[:isolated], seed=0)
    _repaired(scene, found.target)
    assert found.remembered[0] > 0.7
    assert found.remembered[-1] <= 0.05
    assert len(found.remembered) == 6
    assert _bytes(scene.target.module) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_unlearning_clean_rows_repairs_nothing(scene: Scene) -> None:
    """What repairs is the poison that was found, and not the further training."""
    clean = np.setdiff1d(np.flatnonzero(scene.samples.y == 1), scene.poison)[:20]
    found = Unlearning(tuning=Tuning(epochs=1, rate=0.001))(scene.target, scene.samples, clean, seed=0)
    assert scene.success(found.target) > 0.5


def test_repairs_are_the_same_for_the_same_seed(scene: Scene) -> None:
    few = Samples(scene.trusted.x[:129], scene.trusted.y[:129])  # the last batch has one row, and is left out
    prune = FinePruning(tuning=Tuning(epochs=2), channels=8)
    one, two, other = (_bytes(prune(scene.target, few, seed=seed).target.module) for seed in (3, 3, 4))
    assert one == two
    assert one != other
    forget, some = Unlearning(tuning=Tuning(epochs=1)), only(scene.samples, np.arange(300))
    one, two, other = (_bytes(forget(scene.target, some, np.arange(9), seed=s).target.module) for s in (3, 3, 4))
    assert one == two
    assert one != other


# -- known answers -------------------------------------------------------------------------------------------------


def _by_hand(between: nn.Module | None = None) -> tuple[TorchTarget, Samples]:
    """Class by the larger of two numbers; a third is noise, and the fourth, always 0, is a backdoor to class 0."""
    first, last = nn.Linear(4, 4), nn.Linear(4, 2)
    with torch.no_grad():
        first.weight.copy_(torch.eye(4))
        first.bias.zero_()
        last.weight.copy_(torch.tensor([[1.0, 0.0, 0.01, 9.0], [0.0, 1.0, 0.0, -9.0]]))
        last.bias.zero_()
    net = nn.Sequential(first, between or nn.ReLU(), last).eval()
    x = np.random.default_rng(0).uniform(0.2, 1, (40, 4))
    x[:, 2:] = [0.1, 0]
    x[:20, 0] += 1
    x[20:, 1] += 1
    return from_torch(net, classes=2), Samples(x, np.repeat([0, 1], 20))


def test_the_idlest_channels_go_first_and_pruning_ends_before_accuracy_falls() -> None:
    target, trusted = _by_hand()
    attack = Samples(trusted.x[20:] + TRIGGER, np.zeros(20, dtype=np.int64))
    assert accuracy(target, attack) == 1
    found = FinePruning(fall=0.0, tuning=Tuning(epochs=0))(target, trusted, seed=0)
    assert found.layer == "0"
    assert found.channels.tolist() == [3, 2]  # without either of the others half of the rows are wrong
    assert found.before == found.pruned == found.after == 1
    assert accuracy(found.target, attack) == 0
    deeper = FinePruning(fall=0.6, tuning=Tuning(epochs=0))(target, trusted, seed=0)
    assert len(deeper.channels) == 3  # one is left, whatever may fall
    named = FinePruning(layer="2", fall=0.0, tuning=Tuning(epochs=0))(target, trusted, seed=0)
    assert named.layer == "2"
    assert not len(named.channels)


def test_pruned_channels_stay_silent_while_the_rest_is_tuned() -> None:
    target, trusted = _by_hand(nn.Identity())  # through which pruned channels get gradients, as not through a ReLU at 0
    found = FinePruning(fall=0.0, tuning=Tuning(epochs=5, rate=0.1))(target, trusted, seed=0)
    layer = found.target.module.get_submodule("0")
    assert isinstance(layer, nn.Linear)
    assert not layer.weight[[2, 3]].any()
    assert not layer.bias[[2, 3]].any()
    assert not torch.equal(layer.weight[:2], torch.eye(4)[:2])


def test_unlearning_ends_where_it_was_asked_to_and_says_when_it_did_not() -> None:
    target, samples = _by_hand()
    rows = Samples(
        np.concatenate([samples.x, samples.x[20:30] + TRIGGER]), np.concatenate([samples.y, np.zeros(10, int)])
    )
    bad = np.arange(40, 50)
    none = Unlearning(tuning=Tuning(epochs=0))(target, rows, bad, seed=0)
    assert none.remembered == (1.0,)
    long = Unlearning(ceiling=20.0, tuning=Tuning(epochs=400, rate=0.05))(target, rows, bad, seed=0)
    assert long.remembered[0] == 1
    assert long.remembered[-1] == 0
    assert accuracy(long.target, samples) >= 0.95
    half = Unlearning(until=0.5, ceiling=20.0, tuning=Tuning(epochs=400, rate=0.05))(target, rows, bad, seed=0)
    assert half.remembered == long.remembered[: len(half.remembered)]
    assert half.remembered[-1] <= 0.5 < half.remembered[-2]


def test_an_isolated_row_above_the_ceiling_pulls_no_more() -> None:
    target, samples = _by_hand()
    wrong = Samples(samples.x, np.concatenate([samples.y[:39], [0]]))  # the last row's loss is above 0.2 already
    expected = copied(target)
    x, y = torch.from_numpy(samples.x[:39]).float(), torch.from_numpy(samples.y[:39])
    cross_entropy(expected(x), y).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for value in expected.module.parameters():
            assert value.grad is not None
            value.sub_(0.1 * value.grad)
    one_step = Tuning(epochs=1, rate=0.1)
    capped, free = (
        Unlearning(ceiling=ceiling, tuning=one_step)(target, wrong, np.array([39]), seed=0).target.module.state_dict()
        for ceiling in (0.2, 100.0)
    )
    for name, value in expected.module.state_dict().items():
        torch.testing.assert_close(capped[name], value)
    assert not torch.allclose(free["2.bias"], capped["2.bias"])


# -- rows ----------------------------------------------------------------------------------------------------------


def test_rows_are_taken_out_with_their_ids_and_sources() -> None:
    samples = Samples(np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1]), tuple("abcd"), tuple("ppqq"), "train")
    left = without(samples, np.array([3, 0]))
    assert left.x.tolist() == [[2, 3], [4, 5]]
    assert left.y.tolist() == [1, 0]
    assert (left.ids, left.source, left.split) == (("b", "c"), ("p", "q"), "train")
    assert only(samples, np.array([3, 0])).ids == ("d", "a")
    assert len(samples) == 4
    assert len(without(samples, np.array([], dtype=np.int64))) == 4
    for wrong in ([-1], [4]):
        with pytest.raises(DataError, match="positions from 0 to 3"):
            without(samples, np.array(wrong))
    with pytest.raises(DataError, match="flatnonzero"):
        without(samples, np.array([True, False, False, False]))
    with pytest.raises(DataError, match="every row of class 1"):
        without(samples, np.array([1, 3]))


# -- refusals ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_repaired_is_refused() -> None:
    target, samples = _by_hand()
    one = from_torch(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval())
    with pytest.raises(TargetError, match="no layer to prune"):
        FinePruning()(one, samples, seed=0)
    with pytest.raises(TargetError, match="'1' is no layer .* 0, 2"):
        FinePruning(layer="1")(target, samples, seed=0)
    frozen = from_torch(nn.Linear(4, 2).eval().requires_grad_(False))
    with pytest.raises(TargetError, match="requires_grad"):
        Unlearning()(frozen, samples, np.array([0]), seed=0)
    with pytest.raises(TargetError, match="no parameters"):
        copied(from_torch(nn.Linear(4, 2).eval(), output=Output.LABELS))
    with pytest.raises(DataError, match="no rows to unlearn"):
        Unlearning()(target, samples, np.array([], dtype=np.int64), seed=0)
    with pytest.raises(DataError, match="no rows to measure"):
        FinePruning()(target, only(samples, np.array([], dtype=np.int64)), seed=0)
    trained = from_torch(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).eval())
    trained.module.train()
    with pytest.raises(TrainingModeError):
        FinePruning()(trained, samples, seed=0)
    unused = nn.Sequential(nn.Linear(4, 2)).eval()
    unused[0].extra = nn.Conv1d(1, 2, 1).eval()
    with pytest.raises(TargetError, match="not called"):
        FinePruning()(from_torch(unused), samples, seed=0)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(SettingError, match="further training"):
        Tuning(batch=1)
    with pytest.raises(SettingError, match="fall"):
        FinePruning(fall=1.0)
    with pytest.raises(SettingError, match="until"):
        Unlearning(until=1.0)
