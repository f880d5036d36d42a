"""Trainers: networks by Adam and estimators, from labels and from probabilities, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.extraction.learned import CLASSES, QUICK, draw, images, linear, nearest
from torch import Tensor, nn

from redan.errors import SettingError, TargetError
from redan.extraction.surrogates import Shape
from redan.extraction.trainers import ByAdam, ByEstimator, SmallNetwork, spread
from redan.targets import Target

ROWS = torch.rand(300, 6, generator=draw(1)).double()
FRESH = torch.rand(300, 6, generator=draw(2)).double()


def agrees(copy: Target[Tensor], model: Target[Tensor], x: Tensor) -> float:
    answers = [each(x.to(each.dtype)).argmax(1) for each in (copy, model)]
    return float((answers[0] == answers[1]).double().mean())


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.0, 255.0)])
def test_a_network_learns_labels_and_probabilities(bounds: tuple[float, float]) -> None:
    model, scale = linear(), bounds[1]
    trainer = ByAdam(bounds=bounds, epochs=30)
    hard = trainer(scale * ROWS, model(ROWS).argmax(1), 3, 0)
    soft = trainer.shown(scale * ROWS, model(ROWS).softmax(1), 0)
    for copy in (hard, soft):
        assert float((copy((scale * FRESH).float()).argmax(1) == model(FRESH).argmax(1)).double().mean()) > 0.9
        assert copy.bounds == bounds
    torch.testing.assert_close(
        soft((scale * FRESH).float()).double().softmax(1), model(FRESH).softmax(1), rtol=0, atol=0.35
    )


def test_a_network_of_images_can_be_climbed() -> None:
    x, _ = images(200, 1)
    model = nearest()
    copy = QUICK.shown(x.double(), model(x).double().softmax(1), 0)
    fresh = images(200, 2)[0].requires_grad_()
    assert agrees(copy, model, fresh.detach()) > 0.9
    (slope,) = torch.autograd.grad(copy(fresh).sum(), fresh)
    assert float(slope.abs().flatten(1).amax(1).min()) > 0
    assert copy.differentiable
    assert not any(part.requires_grad for part in copy.module.parameters())


def test_the_same_seed_gives_the_same_network_and_leaves_the_global_one() -> None:
    x, y = images(100, 1)
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (QUICK(x.double(), y, CLASSES, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), wanted)
    assert torch.equal(first(x), second(x))
    assert not torch.equal(first(x), other(x))


class _Normed:
    """A network that cannot learn from one row, and drops units."""

    def __call__(self, shape: Shape, classes: int) -> nn.Module:
        middle = (nn.BatchNorm1d(8), nn.Dropout(0.2), nn.ReLU())
        return nn.Sequential(nn.Linear(shape[0], 8), *middle, nn.Linear(8, classes))


def test_a_last_batch_of_one_row_is_left_out() -> None:
    copy = ByAdam(network=_Normed(), batch=64, epochs=2, least_steps=0)(ROWS[:65], ROWS[:65, 0].gt(0.5).long(), 2, 0)
    assert torch.equal(copy(FRESH.float()), copy(FRESH.float()))
    assert not copy.module.training


@pytest.mark.parametrize("shape", [(3,), (1, 8, 8), (3, 9, 12), (1, 4, 4), (5, 7)])
def test_the_small_network_takes_any_shape(shape: Shape) -> None:
    assert SmallNetwork()(shape, 5)(torch.rand(2, *shape)).shape == (2, 5)


def test_impossible_training_is_refused() -> None:
    makes: tuple[Callable[[], ByAdam], ...] = (
        lambda: ByAdam(epochs=0),
        lambda: ByAdam(batch=1),
        lambda: ByAdam(rate=0.0),
        lambda: ByAdam(least_steps=-1),
    )
    for make in makes:
        with pytest.raises(SettingError, match="training needs"):
            make()
    with pytest.raises(SettingError, match="bounds"):
        ByEstimator(estimator=lambda _: None, bounds=(1.0, 1.0))


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(30, random_state=seed)


def _boosted(seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=20, random_state=seed)


def _logistic(_: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=100)


@pytest.mark.extras
@pytest.mark.parametrize(("make", "least"), [(_forest, 0.75), (_boosted, 0.75), (_logistic, 0.95)])
@pytest.mark.parametrize("soft", [True, False])
def test_estimators_learn_labels_and_probabilities(make: Any, least: float, soft: bool) -> None:
    model = linear()
    trainer = ByEstimator(estimator=make)
    copy = trainer.shown(ROWS, model(ROWS).softmax(1), 0) if soft else trainer(ROWS, model(ROWS).argmax(1), 3, 0)
    assert agrees(copy, model, FRESH) > least
    assert copy.classes == 3
    assert torch.equal(copy(FRESH), copy(FRESH))


@pytest.mark.extras
def test_probabilities_teach_an_estimator_more_than_labels() -> None:
    from sklearn.linear_model import LogisticRegression

    model = linear()
    told = model(ROWS).softmax(1)
    few = ByEstimator(estimator=lambda _: LogisticRegression(C=1e6, max_iter=2000))
    soft = few.shown(ROWS[:30], told[:30], 0)
    apart = (soft(FRESH).softmax(1) - model(FRESH).softmax(1)).abs().amax()
    assert float(apart) < 0.05


@pytest.mark.extras
def test_an_estimator_with_an_exact_copy_is_climbed() -> None:
    model = linear()
    copy = ByEstimator(estimator=_logistic)(ROWS, model(ROWS).argmax(1), 3, 0)
    assert copy.differentiable
    fresh = FRESH.clone().requires_grad_()
    (slope,) = torch.autograd.grad(copy(fresh).sum(), fresh)
    assert slope.shape == FRESH.shape


@pytest.mark.extras
def test_images_and_classes_never_seen_are_taken() -> None:
    x, y = images(120, 1)
    kept = y != 1
    copy = ByEstimator(estimator=_forest)(x[kept].double(), y[kept], CLASSES, 0)
    answer = copy(images(50, 2)[0].double())
    assert answer.shape == (50, CLASSES)
    assert bool((answer[:, 1] < answer[:, [0, 2, 3]].amin(1)).all())
    assert 1 not in answer.argmax(1)


@pytest.mark.extras
def test_an_estimator_of_decisions_or_labels_alone_will_do() -> None:
    from sklearn.svm import SVC

    model = linear()
    copy = ByEstimator(estimator=lambda _: SVC(C=100))(ROWS, model(ROWS).argmax(1), 3, 0)
    assert agrees(copy, model, FRESH) > 0.85


@pytest.mark.extras
def test_an_estimator_that_knows_no_weights_says_so() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    with pytest.raises(TargetError, match="KNeighborsClassifier takes no sample_weight"):
        ByEstimator(estimator=lambda _: KNeighborsClassifier()).shown(ROWS, linear()(ROWS).softmax(1), 0)


def test_what_is_hidden_is_spread() -> None:
    shown = torch.tensor([[0.5, 0.5, 0.0], [0.7, 0.0, 0.0], [0.0, 0.0, 0.0], [0.6, 0.6, 0.3], [1.0, 0.0, 0.0]])
    wanted = torch.tensor([[0.5, 0.5, 0.0], [0.7, 0.15, 0.15], [1 / 3] * 3, [0.4, 0.4, 0.2], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(spread(shown), wanted)
