"""Equation solving: known models come back to the last digits for d + 1 answers, and near them where answers are not
exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from redan.errors import SettingError
from redan.extraction.curves import agreement, agreement_curve
from redan.extraction.customer import Customer, Extractor, Shows, Spending, View
from redan.extraction.equation_solving import MLP, LogisticRegression, OneVersusRestRegression
from redan.extraction.label_only import linear_copy
from redan.extraction.surrogates import Bounds, Copy, Shape, uniform
from redan.targets import Target, from_sklearn
from redan.targets.function import from_function
from redan.targets.torch import from_torch

UNIT = (0.0, 1.0)
LABELS = View(shows=Shows.LABELS)


def numbers(classes: int, features: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Weights (K, D) and biases (K,), zeros for class 0, whose logits are near 0 in the middle of the unit box."""
    draw = torch.Generator().manual_seed(0)
    weights = scale * torch.randn(classes, features, generator=draw, dtype=torch.float64)
    weights[0] = 0
    biases = -weights.sum(1) / 2 + 0.3 * torch.randn(classes, generator=draw, dtype=torch.float64)
    return weights, biases - biases[0]


def model(weights: Tensor, biases: Tensor, shape: Shape | None = None, bounds: Bounds = UNIT) -> Target[Tensor]:
    return linear_copy(weights, biases, shape or (weights.shape[1],), bounds).target


def stolen(
    target: Target[Tensor], extractor: Extractor[Copy], *, queries: int | None = None, view: View | None = None
) -> tuple[Copy, int]:
    """The copy and what was paid."""
    customer = Customer(target, Spending(queries=queries), classes=target.classes or 0, view=view or View())
    return extractor(customer, seed=0), customer.paid


def anywhere(count: int, shape: Shape, bounds: Bounds = UNIT) -> Tensor:
    return uniform(count, shape, bounds, torch.Generator().manual_seed(99))


def assert_is(copy: Copy, weights: Tensor, biases: Tensor, within: float = 1e-8) -> None:
    torch.testing.assert_close(copy.parameters["weights"], weights, rtol=0, atol=within)
    torch.testing.assert_close(copy.parameters["biases"], biases, rtol=0, atol=within)
    shape = (weights.shape[1],)
    torch.testing.assert_close(
        copy.target(anywhere(50, shape)), anywhere(50, shape) @ weights.T + biases, rtol=0, atol=10 * within
    )


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("features", [1, 9])
def test_as_many_answers_as_unknowns_a_class_give_the_model(classes: int, features: int) -> None:
    weights, biases = numbers(classes, features)
    copy, paid = stolen(model(weights, biases), LogisticRegression(shape=(features,)))
    assert paid == features + 1
    assert_is(copy, weights, biases)
    assert agreement(copy.target, model(weights, biases), anywhere(1000, (features,))) == 1


@pytest.mark.parametrize("bounds", [(0.0, 255.0), (0.1, 0.7), (-2.0, -1.0)])
def test_pictures_and_other_boxes(bounds: Bounds) -> None:
    weights, biases = numbers(4, 12)
    low, high = bounds
    weights, biases = weights / (high - low), biases - low / (high - low) * weights.sum(1)
    copy, paid = stolen(model(weights, biases, (1, 3, 4), bounds), LogisticRegression(shape=(1, 3, 4), bounds=bounds))
    assert paid == 13
    torch.testing.assert_close(copy.parameters["weights"], weights, rtol=0, atol=1e-9)
    torch.testing.assert_close(copy.parameters["biases"], biases, rtol=0, atol=1e-9)
    x = anywhere(20, (1, 3, 4), bounds)
    torch.testing.assert_close(copy.target(x), model(weights, biases, (1, 3, 4), bounds)(x))
    assert copy.target.bounds == bounds


def by_one_minus(weights: Tensor, biases: Tensor) -> Target[Tensor]:
    """A binary model that tells the second probability, and 1 minus it: it loses the digits of a saturated one."""

    def answer(x: NDArray[np.float64]) -> NDArray[np.float64]:
        share = 1 / (1 + np.exp(-(x @ weights[1].numpy() + float(biases[1]))))
        return np.stack([1 - share, share], 1)

    return from_function(answer, classes=2, dtype=torch.float64)


def test_saturated_answers_are_found_out_and_paid() -> None:
    weights, biases = numbers(2, 10, scale=60.0)
    biases[1] += 25  # the middle of the box answers 1 - 1e-11
    copy, paid = stolen(by_one_minus(weights, biases), LogisticRegression(shape=(10,)))
    assert 11 < paid <= 60
    assert_is(copy, weights, biases)


def test_saturated_softmax_answers_are_found_out_and_paid() -> None:
    weights, biases = numbers(5, 12, scale=100.0)
    biases += 180 * torch.arange(5)  # in the middle of the box the last class is exp(720) times as likely as the first
    copy, paid = stolen(model(weights, biases), LogisticRegression(shape=(12,)), queries=200)
    assert 13 < paid <= 100
    assert_is(copy, weights, biases, within=1e-7)


def test_a_model_of_float32_is_copied_to_its_digits() -> None:
    weights, biases = numbers(3, 8)
    layer = nn.Linear(8, 3)
    with torch.no_grad():
        layer.weight.copy_(weights)
        layer.bias.copy_(biases)
    copy, paid = stolen(from_torch(layer.eval(), classes=3), LogisticRegression(shape=(8,)))
    assert paid == 9
    assert_is(copy, weights, biases, within=3e-5)


def test_raw_scores_give_all_weights_whole() -> None:
    weights, biases = numbers(4, 6)
    weights, biases = weights + 1, biases + 3  # what softmax would hide
    raw = View(shows=Shows.RAW)
    copy, paid = stolen(model(weights, biases), LogisticRegression(shape=(6,)), view=raw)
    assert paid == 7
    assert_is(copy, weights, biases)
    rounded = View(shows=Shows.RAW, decimals=2)
    copy, paid = stolen(model(weights, biases), LogisticRegression(shape=(6,)), view=rounded, queries=500)
    assert paid == 500
    assert_is(copy, weights, biases, within=5e-3)


def test_the_larger_of_two_probabilities_tells_both() -> None:
    weights, biases = numbers(2, 6)
    copy, paid = stolen(model(weights, biases), LogisticRegression(shape=(6,)), view=View(top=1))
    assert paid == 7
    assert_is(copy, weights, biases)


@pytest.mark.parametrize(
    ("view", "least"),
    [
        (View(decimals=2), 0.99),
        (View(decimals=4), 0.999),
        (View(noise=0.02), 0.985),
        (View(top=2), 0.999),
        (LABELS, 0.97),
    ],
)
def test_less_exact_answers_cost_more_and_give_a_near_copy(view: View, least: float) -> None:
    weights, biases = numbers(3, 6)
    target = model(weights, biases)
    copy, paid = stolen(target, LogisticRegression(shape=(6,)), view=view, queries=140)
    assert paid == 140
    assert agreement(copy.target, target, anywhere(2000, (6,))) >= least
    assert float(copy.parameters["weights"][0].abs().max()) == 0


def test_two_classes_by_labels_alone() -> None:
    weights, biases = numbers(2, 6)
    copy, paid = stolen(model(weights, biases), LogisticRegression(shape=(6,)), view=LABELS, queries=300)
    assert paid <= 300
    assert agreement(copy.target, model(weights, biases), anywhere(2000, (6,))) >= 0.999


def test_its_own_limit_holds_where_the_customer_has_none() -> None:
    target = model(*numbers(3, 4))
    for view in (View(decimals=3), LABELS, View(shows=Shows.RAW, decimals=1), View()):
        for extractor in (LogisticRegression(shape=(4,), queries=4), OneVersusRestRegression(shape=(4,), queries=4)):
            assert stolen(target, extractor, view=view)[1] == 4
    assert stolen(target, LogisticRegression(shape=(4,), rounds=1), view=View(decimals=3))[1] == 500


@pytest.mark.parametrize(
    "view", [View(), View(decimals=2), View(shows=Shows.RAW), View(shows=Shows.RAW, decimals=2), LABELS]
)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("queries", [0, 1, 3])
def test_the_poor_get_something(view: View, classes: int, queries: int) -> None:
    target = model(*numbers(classes, 5))
    copy, paid = stolen(target, LogisticRegression(shape=(5,)), view=view, queries=queries)
    assert paid == queries
    assert bool(copy.target(anywhere(10, (5,))).isfinite().all())


class Failing(nn.Module):
    """A linear model that answers NaN to a third of the rows, drawn by their digits."""

    def __init__(self, weights: Tensor, biases: Tensor) -> None:
        super().__init__()
        self.weights, self.biases = nn.Parameter(weights), nn.Parameter(biases)

    def forward(self, x: Tensor) -> Tensor:
        place = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)
        bad = (1e3 * (x @ place)[:, None]).round().long() % 3 == 0
        return (x @ self.weights.T + self.biases).masked_fill(bad, torch.nan)


def test_rows_without_an_answer_are_asked_otherwise() -> None:
    weights, biases = numbers(2, 10)
    target = from_torch(Failing(weights, biases).eval(), classes=2)
    copy, paid = stolen(target, LogisticRegression(shape=(10,)))
    assert 11 < paid <= 40
    assert_is(copy, weights, biases)
    for view in (View(decimals=3), View(shows=Shows.RAW, decimals=3), LABELS):
        copy, paid = stolen(target, LogisticRegression(shape=(10,)), view=view, queries=300)
        assert paid <= 300
        assert agreement(copy.target, model(weights, biases), anywhere(1000, (10,))) >= 0.99


def test_one_versus_rest_by_log_loss() -> None:
    weights, biases = numbers(4, 5)
    weights, biases = weights + 1, biases - 1
    linear = nn.Linear(5, 4).double()
    with torch.no_grad():
        linear.weight.copy_(weights)
        linear.bias.copy_(biases)
    target = from_torch(nn.Sequential(linear, nn.LogSigmoid()).eval(), classes=4)
    copy, paid = stolen(target, OneVersusRestRegression(shape=(5,)), queries=80)
    assert paid == 80
    x = anywhere(500, (5,))
    torch.testing.assert_close(copy.target(x).softmax(1), target(x).softmax(1), rtol=0, atol=1e-4)
    # The best softmax of linear logits is another model.
    softmax, _ = stolen(target, LogisticRegression(shape=(5,)), queries=80)
    apart = (softmax.target(x).softmax(1) - target(x).softmax(1)).abs().detach()
    assert float(apart.max()) > 1e-3


def test_a_perceptron_by_log_loss() -> None:
    draw = torch.Generator().manual_seed(1)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        for part in module.parameters():
            part.copy_(1.5 * torch.randn(part.shape, generator=draw, dtype=torch.float64))
    target = from_torch(module.eval(), classes=3)
    few = MLP(shape=(3,), hidden=(4,), queries=10, starts=1, steps=300)
    many = MLP(shape=(3,), hidden=(4,), queries=155, starts=1, steps=300)  # 5 a parameter
    x = anywhere(2000, (3,))
    shares = []
    for extractor in (few, many):
        copy, paid = stolen(target, extractor)
        assert paid == extractor.queries
        shares.append(agreement(copy.target, target, x))
    assert shares[1] >= 0.99 > shares[0]
    assert sum(part.numel() for part in copy.parameters.values()) == 31
    by_labels, _ = stolen(target, many, view=LABELS)
    assert 0.9 < agreement(by_labels.target, target, x) < 1


def test_curves_have_a_point_a_budget_and_seed() -> None:
    target = model(*numbers(3, 4))
    curve = agreement_curve(
        LogisticRegression(shape=(4,), rounds=2),
        target,
        {"uniform": anywhere(500, (4,)), "corner": torch.zeros(3, 4)},
        classes=3,
        queries=(5, 60),
        view=View(decimals=2),
        seeds=(0, 1),
    )
    assert [(point.queries, point.paid, point.seed) for point in curve] == [
        (5, 5, 0),
        (5, 5, 1),
        (60, 60, 0),
        (60, 60, 1),
    ]
    assert min(point.agreement["uniform"] for point in curve[2:]) > 0.95
    assert all(point.agreement["corner"] in (0, 1) for point in curve)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(SettingError, match="queries and rounds"):
        LogisticRegression(shape=(3,), queries=0)
    with pytest.raises(SettingError, match="bounds"):
        LogisticRegression(shape=(3,), bounds=(1.0, 0.0))


@pytest.mark.extras
def test_breast_cancer_is_stolen_for_31_answers() -> None:
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression as Learner

    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.min(0)) / (x.max(0) - x.min(0))
    learned = Learner(max_iter=5000).fit(x[::2], y[::2])
    target = from_sklearn(learned)
    copy, paid = stolen(target, LogisticRegression(shape=(30,)))
    assert paid == 31
    np.testing.assert_allclose(copy.parameters["weights"][1].numpy(), learned.coef_[0], rtol=0, atol=1e-8)
    assert abs(float(copy.parameters["biases"][1]) - learned.intercept_[0]) < 1e-8
    assert agreement(copy.target, target, torch.from_numpy(x[1::2])) == 1
    assert agreement(copy.target, target, anywhere(10_000, (30,))) == 1


@pytest.mark.extras
def test_softmax_on_digits_is_stolen_for_65_answers() -> None:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression as Learner

    x, y = load_digits(return_X_y=True)
    x = x / 16
    learned = Learner(max_iter=5000).fit(x[::2], y[::2])
    target = from_sklearn(learned)
    copy, paid = stolen(target, LogisticRegression(shape=(64,)))
    assert paid == 65
    rows = torch.cat([anywhere(10_000, (64,)), torch.from_numpy(x[1::2])])
    found, wanted = copy.target(rows), torch.from_numpy(learned.decision_function(rows.numpy()))
    torch.testing.assert_close(
        found - found.mean(1, keepdim=True), wanted - wanted.mean(1, keepdim=True), rtol=0, atol=1e-8
    )
    assert agreement(copy.target, target, rows) == 1
