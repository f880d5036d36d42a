"""Fits by log-loss: they meet what they were shown, whatever of it is hidden."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from redan.errors import SettingError
from redan.extraction.label_only import linear_copy
from redan.extraction.surrogates import (
    ByLogLoss,
    Linear,
    Network,
    OneVersusRest,
    Perceptron,
    corners,
    fitted,
    in_box,
    uniform,
)
from redan.targets import Target

BOX = (-1.0, 3.0)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(classes: int = 3, features: int = 4) -> Target[Tensor]:
    numbers = torch.randn(classes, features + 1, generator=draw(), dtype=torch.float64)
    return linear_copy(numbers[:, :-1], numbers[:, -1], (features,), BOX).target


def fit(network: Network, x: Tensor, shown: Tensor, *, starts: int = 1, steps: int = 2000) -> Tensor:
    """Log-probabilities of the fit at fresh rows."""
    module = fitted(network, x, shown, bounds=BOX, penalty=0.0, starts=starts, steps=steps, seed=0)
    found: Tensor = module(uniform(200, (4,), BOX, draw(9))).log_softmax(1)
    return found


def test_exact_answers_are_met() -> None:
    x = uniform(40, (4,), BOX, draw(1))
    shown = model()(x).softmax(1)
    wanted = model()(uniform(200, (4,), BOX, draw(9))).log_softmax(1)
    torch.testing.assert_close(fit(Linear(), x, shown), wanted, rtol=0, atol=1e-4)


def test_what_is_hidden_is_fitted_by_its_sum() -> None:
    x = uniform(400, (4,), BOX, draw(1))
    shown = model()(x).softmax(1)
    shown = torch.where(shown >= shown.topk(2, 1).values[:, -1:], shown, 0.0)
    wanted = model()(uniform(200, (4,), BOX, draw(9))).log_softmax(1)
    torch.testing.assert_close(fit(Linear(), x, shown), wanted, rtol=0, atol=1e-3)


def test_one_versus_rest_has_sigmoids_divided_by_their_sum() -> None:
    x = uniform(100, (4,), BOX, draw(1))
    shares = model()(x).sigmoid()
    fresh = model()(uniform(200, (4,), BOX, draw(9))).sigmoid()
    found = fit(OneVersusRest(), x, shares / shares.sum(1, keepdim=True)).exp()
    torch.testing.assert_close(found, fresh / fresh.sum(1, keepdim=True), rtol=0, atol=1e-4)


def test_a_perceptron_fits_what_a_line_cannot() -> None:
    x = uniform(200, (4,), BOX, draw(1))
    inside = ((x - 1).norm(dim=1) < 2).long()
    told = torch.nn.functional.one_hot(inside, 2).double()
    losses = []
    for network in (Linear(), Perceptron(hidden=(8,))):
        module = fitted(network, x, told, bounds=BOX, penalty=1e-4, starts=1, steps=200, seed=0)
        losses.append(float(torch.nn.functional.cross_entropy(module(x), inside)))
    assert losses[1] < 0.2 < losses[0]


def test_the_same_seed_gives_the_same_numbers_and_no_global_one_is_touched() -> None:
    x = uniform(30, (4,), BOX, draw(1))
    y = model()(x).argmax(1)
    trainer = ByLogLoss(network=Perceptron(hidden=(3,)), bounds=BOX, starts=2, steps=20)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = trainer(x, y, 3, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(trainer(x, y, 3, 1)(x), first(x))
    assert not torch.equal(trainer(x, y, 3, 2)(x), first(x))


def test_more_starts_are_never_worse() -> None:
    x = uniform(60, (4,), BOX, draw(1))
    shown = fitted(
        Perceptron(hidden=(4,)), x, model()(x).softmax(1), bounds=BOX, penalty=0.0, starts=1, steps=30, seed=3
    )(x).softmax(1)

    def loss(starts: int) -> float:
        module = fitted(Perceptron(hidden=(4,)), x, shown, bounds=BOX, penalty=0.0, starts=starts, steps=30, seed=0)
        return float(-(shown * module(x).log_softmax(1)).sum())

    assert loss(3) <= loss(1)


def test_no_rows_give_a_model_that_says_nothing() -> None:
    trainer = ByLogLoss(bounds=BOX)
    target = trainer(torch.empty(0, 2, 2, dtype=torch.float64), torch.empty(0, dtype=torch.int64), 3, 0)
    assert target(torch.ones(2, 2, 2, dtype=torch.float64)).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.1, 0.7), (-0.3, 255.0)])
def test_rows_stay_in_the_box_and_in_float32(bounds: tuple[float, float]) -> None:
    edges = torch.tensor([[bounds[0] - 1, bounds[0]], [bounds[1], bounds[1] + 1]], dtype=torch.float64)
    for x in (in_box(edges, bounds), uniform(50, (2,), bounds, draw()), corners(50, (2,), bounds, draw())):
        assert float(x.min()) >= bounds[0]
        assert float(x.max()) <= bounds[1]
        assert torch.equal(x, x.float().double())


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(SettingError, match="hidden layers"):
        Perceptron(hidden=())
    for wrong in ({"penalty": -1.0}, {"starts": 0}, {"steps": 0}):
        with pytest.raises(SettingError, match="a fit needs"):
            ByLogLoss(**wrong)
