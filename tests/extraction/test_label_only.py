"""Labels alone: a hyperplane to its precision, surrogates of any kind, and adaptive rounds that beat uniform rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from redan.errors import SettingError
from redan.extraction.curves import agreement
from redan.extraction.customer import Customer, Extractor, Shows, Spending, View
from redan.extraction.label_only import (
    AdaptiveRetraining,
    HyperplaneSearch,
    UniformRetraining,
    linear_copy,
    near_boundary,
)
from redan.extraction.surrogates import Bounds, ByLogLoss, Copy, Perceptron, Shape, uniform
from redan.targets import Target, from_sklearn
from redan.targets.torch import from_torch

UNIT = (0.0, 1.0)


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(classes: int, features: int, *, bounds: Bounds = UNIT, offset: float = 0.0, seed: int = 0) -> Target[Tensor]:
    """A linear model whose classes meet near the middle of the box; offset: of class 0."""
    weights = torch.randn(classes, features, generator=draw(seed), dtype=torch.float64)
    biases = -weights.sum(1) * sum(bounds) / 2
    biases[0] += offset
    return linear_copy(weights, biases, (features,), bounds).target


def stolen(target: Target[Tensor], extractor: Extractor[Copy], queries: int | None = None) -> tuple[Copy, int]:
    view = View(shows=Shows.LABELS)
    customer = Customer(target, Spending(queries=queries), classes=target.classes or 0, view=view)
    return extractor(customer, seed=0), customer.paid


def on_uniform(copy: Copy, target: Target[Tensor], shape: Shape, bounds: Bounds = UNIT) -> float:
    return agreement(copy.target, target, uniform(5000, shape, bounds, draw(99)))


def normal(target: Target[Tensor]) -> Tensor:
    """The weights and the bias of class 1 over class 0, with weights of length 1."""
    layer = next(part for part in getattr(target, "module").modules() if isinstance(part, nn.Linear))  # noqa: B009
    weights, bias = layer.weight[1] - layer.weight[0], layer.bias[1] - layer.bias[0]
    found: Tensor = torch.cat([weights, bias[None]]) / weights.norm()
    return found


@pytest.mark.parametrize("bounds", [UNIT, (-1.0, 1.0), (0.0, 255.0)])
@pytest.mark.parametrize("precision", [1e-3, 1e-6])
def test_a_hyperplane_is_found_to_the_precision(bounds: Bounds, precision: float) -> None:
    target = linear(2, 8, bounds=bounds, offset=0.3)
    copy, paid = stolen(target, HyperplaneSearch(shape=(8,), bounds=bounds, precision=precision))
    bits = int(np.ceil(-np.log2(precision)))
    assert paid <= 9 * bits + 60
    apart = (normal(copy.target) - normal(target)).abs()
    assert float(apart[:-1].max()) < 30 * precision
    assert float(apart[-1]) < 30 * precision * max(map(abs, bounds))
    assert on_uniform(copy, target, (8,), bounds) >= 1 - 30 * precision


def test_a_hyperplane_near_a_corner_is_found() -> None:
    target = linear(2, 8, offset=-2.0)
    copy, _ = stolen(target, HyperplaneSearch(shape=(8,)))
    assert float((normal(copy.target) - normal(target)).abs().max()) < 1e-3


def test_less_money_buys_less_precision() -> None:
    target = linear(2, 8)
    extractor = HyperplaneSearch(shape=(2, 4))
    shaped = linear_copy(*_numbers(target), (2, 4), UNIT).target
    shares = []
    for queries in (0, 50, 110, 150, 200):
        copy, paid = stolen(shaped, extractor, queries)
        assert paid <= queries
        shares.append(on_uniform(copy, shaped, (2, 4)))
    assert shares[2] > 0.9
    assert shares[3] > 0.99
    assert shares[4] > 0.999
    copy, paid = stolen(shaped, HyperplaneSearch(shape=(2, 4), queries=50))
    assert paid == 50


def _numbers(target: Target[Tensor]) -> tuple[Tensor, Tensor]:
    layer = next(part for part in getattr(target, "module").modules() if isinstance(part, nn.Linear))  # noqa: B009
    return layer.weight, layer.bias


def test_one_class_alone_is_what_the_copy_answers() -> None:
    target = linear(2, 3, offset=-100.0)
    for extractor in (
        HyperplaneSearch(shape=(3,), tries=20),
        UniformRetraining(shape=(3,), queries=20),
        AdaptiveRetraining(shape=(3,), queries=20, rounds=2),
    ):
        copy, paid = stolen(target, extractor)
        assert 10 < paid <= 20  # a corner may be drawn twice, and is paid once
        assert on_uniform(copy, target, (3,)) == 1


@pytest.mark.parametrize(
    "extractor",
    [
        HyperplaneSearch(shape=(3,)),
        UniformRetraining(shape=(3,)),
        AdaptiveRetraining(shape=(3,)),
    ],
)
def test_without_money_there_is_a_copy_still(extractor: Extractor[Copy]) -> None:
    copy, paid = stolen(linear(2, 3), extractor, 0)
    assert paid == 0
    assert copy.target(torch.rand(4, 3, dtype=torch.float64)).shape == (4, 2)


@pytest.mark.parametrize(("classes", "features"), [(2, 10), (4, 6)])
def test_adaptive_rounds_beat_uniform_rows(classes: int, features: int) -> None:
    target = linear(classes, features)
    wrong = {}
    for extractor in (
        UniformRetraining(shape=(features,), queries=200),
        AdaptiveRetraining(shape=(features,), queries=200, rounds=8),
    ):
        copy, paid = stolen(target, extractor)
        assert paid == 200
        wrong[type(extractor)] = 1 - on_uniform(copy, target, (features,))
    assert wrong[AdaptiveRetraining] < 0.5 * wrong[UniformRetraining]
    assert wrong[AdaptiveRetraining] < 0.015


def test_a_small_perceptron_is_retrained() -> None:
    ring = _Ring().double().eval()
    target = from_torch(ring, classes=2)
    trainer = ByLogLoss(network=Perceptron(hidden=(6,)), penalty=1e-5, steps=150)
    copy, paid = stolen(target, AdaptiveRetraining(shape=(2,), queries=200, rounds=5, trainer=trainer))
    assert paid == 200
    assert on_uniform(copy, target, (2,)) > 0.95
    assert set(copy.parameters) == {"1.weight", "1.bias", "3.weight", "3.bias"}


class _Ring(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.radius = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        level = self.radius - (x - 0.5).norm(dim=1)
        return torch.stack([-level, level], 1)


@pytest.mark.parametrize("extractor", [UniformRetraining, AdaptiveRetraining])
def test_the_trainer_may_be_anything(extractor: type[UniformRetraining] | type[AdaptiveRetraining]) -> None:
    seen: list[tuple[int, int, int]] = []

    def nearest_mean(x: Tensor, y: Tensor, classes: int, seed: int) -> Target[Tensor]:
        assert x.dtype == torch.float64
        assert bool((linear(3, 4)(x).argmax(1) == y).all())
        seen.append((len(x), classes, seed))
        means = torch.stack(
            [x[y == label].mean(0) if bool((y == label).any()) else x[0] * 99 for label in range(classes)]
        )
        return linear_copy(means, -means.square().sum(1) / 2, (4,), UNIT).target

    copy, paid = stolen(linear(3, 4), extractor(shape=(4,), queries=100, trainer=nearest_mean))
    assert paid == 100
    assert seen[-1] == (100, 3, 0)
    assert on_uniform(copy, linear(3, 4), (4,)) > 0.7


@pytest.mark.extras
def test_trees_are_retrained_too() -> None:
    from sklearn.ensemble import RandomForestClassifier

    def forest(x: Tensor, y: Tensor, classes: int, seed: int) -> Target[Tensor]:
        assert classes == 2
        return from_sklearn(RandomForestClassifier(20, random_state=seed).fit(x.numpy(), y.numpy()))

    target = from_torch(_Ring().double().eval(), classes=2)
    copy, paid = stolen(target, AdaptiveRetraining(shape=(2,), queries=200, rounds=4, trainer=forest))
    assert paid == 200
    assert copy.parameters == {}
    assert on_uniform(copy, target, (2,)) > 0.95


class _Failing(nn.Module):
    """NaN to a fifth of the rows."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.inner(x)
        return answer.masked_fill((1e5 * x.sum(1, keepdim=True)).long() % 5 == 0, torch.nan)


def test_rows_without_an_answer_are_left_out() -> None:
    whole = linear(2, 6)
    target = from_torch(_Failing(getattr(whole, "module")).eval(), classes=2)  # noqa: B009
    for extractor, least in (
        (HyperplaneSearch(shape=(6,), precision=1e-4), 0.99),
        (UniformRetraining(shape=(6,), queries=200), 0.9),
        (AdaptiveRetraining(shape=(6,), queries=200), 0.97),
    ):
        copy, _ = stolen(target, extractor)
        assert on_uniform(copy, whole, (6,)) > least


def test_the_same_seed_asks_the_same_rows() -> None:
    target = linear(3, 4)
    for extractor in (UniformRetraining(shape=(4,), queries=60), AdaptiveRetraining(shape=(4,), queries=60, rounds=3)):
        x = uniform(50, (4,), UNIT, draw(1))
        answers = []
        for seed in (4, 4, 5):
            customer = Customer(target, Spending(), classes=3, view=View(shows=Shows.LABELS))
            answers.append(extractor(customer, seed=seed).target(x))
            assert customer.paid == 60
        assert torch.equal(answers[0], answers[1])
        assert not torch.equal(answers[0], answers[2])


@pytest.mark.parametrize("shape", [(5,), (1, 2, 3)])
def test_rows_near_the_boundary_are_on_it(shape: Shape) -> None:
    features = int(np.prod(shape))
    target = linear_copy(*_numbers(linear(3, features)), shape, UNIT).target
    x = near_boundary(target, 40, shape=shape, bounds=UNIT, draw=draw(0))
    assert x.shape == (40, *shape)
    top = target(x).topk(2, 1).values
    assert float((top[:, 0] - top[:, 1]).max()) < 1e-5
    assert bool(((x >= 0) & (x <= 1)).all())
    assert len({tuple(row) for row in x.flatten(1).tolist()}) == 40


def test_where_one_class_is_everywhere_small_margins_are_taken() -> None:
    target = linear(2, 5, offset=-50.0)
    x = near_boundary(target, 10, shape=(5,), bounds=UNIT, draw=draw(0))
    assert x.shape == (10, 5)
    margins = target(uniform(2000, (5,), UNIT, draw(1))).diff(dim=1)
    assert float(target(x).diff(dim=1).max()) < float(margins.quantile(0.1))
    assert near_boundary(target, 0, shape=(5,), bounds=UNIT, draw=draw(0)).shape == (0, 5)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(SettingError, match="two classes"):
        stolen(linear(3, 2), HyperplaneSearch(shape=(2,)))
    for wrong in (0.0, 1.0):
        with pytest.raises(SettingError, match="precision"):
            HyperplaneSearch(shape=(2,), precision=wrong)
    with pytest.raises(SettingError, match="retraining"):
        UniformRetraining(shape=(2,), queries=0)
    with pytest.raises(SettingError, match="random share"):
        AdaptiveRetraining(shape=(2,), random_share=1.5)
