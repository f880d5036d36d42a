"""The smoothed classifier as it is served: what it answers, which way it is climbed, and that attacks can."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from redan.certification.smoothed_classifier import Vote, smoothed_classifier
from redan.certification.smoothing import Smoothing, certify
from redan.engine.run import attack
from redan.errors import SettingError, TargetError
from redan.evasion.pgd import PGD
from redan.perturbations.norms import L2
from redan.protocols import Access
from redan.targets import Output, TorchTarget, from_function, from_torch


def linear(sharpness: float = 1.0) -> TorchTarget:
    """Class 1 right of the first coordinate's 1/2."""
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(sharpness * torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
        model.bias.copy_(sharpness * torch.tensor([0.5, -0.5]))
    return from_torch(model.eval())


def test_votes_are_shares_of_the_draws_as_probable_as_in_closed_form() -> None:
    served = smoothed_classifier(linear(), sigma=0.5, draws=400)
    with torch.no_grad():
        shares = served(torch.tensor([[0.7, 0.5], [0.5, 0.5]])).exp()
    assert shares.sum(1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert float(shares[0, 1]) == pytest.approx(norm.cdf(0.2 / 0.5), abs=0.1)
    assert float(shares[1, 1]) == pytest.approx(0.5, abs=0.1)
    assert torch.allclose(shares * 400, (shares * 400).round(), atol=1e-3)


def test_the_mean_is_that_of_the_draws_probabilities() -> None:
    target, x = linear(3.0), torch.tensor([[0.7, 0.5], [0.2, 0.1]])
    served = smoothed_classifier(target, sigma=0.3, draws=5, vote=Vote.MEAN, seed=4)
    draw = torch.Generator().manual_seed(4)
    wanted = torch.stack([target(x + 0.3 * torch.randn(2, 2, generator=draw)).softmax(1) for _ in range(5)]).mean(0)
    assert torch.allclose(served(x).exp(), wanted, atol=1e-6)


@pytest.mark.parametrize("vote", list(Vote))
def test_it_is_climbed_along_the_mean_of_the_draws(vote: Vote) -> None:
    target, x = linear(3.0), torch.tensor([[0.9, 0.5], [0.2, 0.1]], requires_grad=True)
    found = smoothed_classifier(target, sigma=0.3, draws=6, vote=vote, seed=2)(x)
    (slope,) = torch.autograd.grad(found[:, 0].sum(), x)
    draw = torch.Generator().manual_seed(2)
    soft = torch.stack([target(x + 0.3 * torch.randn(2, 2, generator=draw)).softmax(1) for _ in range(6)]).mean(0)
    (wanted,) = torch.autograd.grad(soft.log()[:, 0].sum(), x)
    assert torch.allclose(slope, wanted, atol=1e-5)
    assert bool((slope[:, 0] < 0).all())


def test_votes_with_a_gradient_are_the_votes_without() -> None:
    x = torch.rand(5, 2, generator=torch.Generator().manual_seed(0))
    plain, climbed = (smoothed_classifier(linear(), sigma=0.3, draws=6, seed=2) for _ in range(2))
    assert torch.allclose(plain(x), climbed(x.clone().requires_grad_()), atol=1e-6)


def test_a_class_without_a_vote_has_less_than_one_and_not_nothing() -> None:
    found = smoothed_classifier(linear(), sigma=0.01, draws=10)(torch.tensor([[0.9, 0.5]]))
    assert found[0].detach().tolist() == pytest.approx([math.log(0.05), 0.0])


def test_each_answer_has_fresh_noise_from_the_seed() -> None:
    x = torch.full((8, 2), 0.5)
    served, again = (smoothed_classifier(linear(), sigma=0.5, draws=9, seed=1) for _ in range(2))
    first = served(x)
    assert torch.equal(first, again(x))
    assert not torch.equal(first, served(x))
    assert served.stochastic


def test_it_says_what_it_is() -> None:
    votes = smoothed_classifier(linear(), sigma=0.5, draws=2)
    mean = smoothed_classifier(linear(), sigma=0.5, draws=2, vote=Vote.MEAN)
    assert (votes.access, votes.differentiable, votes.surrogate) == (Access.GRADIENTS, True, True)
    assert (mean.access, mean.differentiable, mean.surrogate) == (Access.GRADIENTS, True, False)
    assert (votes.bounds, votes.dtype, votes.device.type) == ((0.0, 1.0), torch.float32, "cpu")
    closed = smoothed_classifier(
        from_function(lambda x: x[:, 0] > 0.5, classes=2, output=Output.LABELS), sigma=0.5, draws=4
    )
    assert (closed.access, closed.differentiable) == (Access.SCORES, False)
    assert closed(torch.zeros(3, 2)).shape == (3, 2)


@pytest.mark.parametrize("vote", list(Vote))
def test_attacks_break_what_is_served_beyond_the_certified_radius_and_not_within(vote: Vote) -> None:
    distance = torch.linspace(0.3, 0.4, 3)
    x = torch.stack([0.5 + distance, torch.linspace(0, 1, 3)], 1)
    y = torch.ones(3, dtype=torch.int64)
    radius = certify(linear(), x, Smoothing(sigma=0.5, draws=5_000)).radius.to(x.dtype)
    served = smoothed_classifier(linear(), sigma=0.5, draws=100, vote=vote)
    beyond = attack(served, x, y, PGD(steps=4), within=L2(distance + 0.2))
    assert bool((beyond.success > 0.5).all())
    within = attack(served, x, y, PGD(steps=4), within=L2(radius - 0.2))
    assert bool((within.success < 0.5).all())


def test_what_cannot_be_is_refused() -> None:
    for sigma, draws in ((0.0, 1), (math.inf, 1), (1.0, 0)):
        with pytest.raises(SettingError):
            smoothed_classifier(linear(), sigma=sigma, draws=draws)
    labels = from_function(lambda x: x[:, 0] > 0.5, classes=2, output=Output.LABELS)
    with pytest.raises(SettingError):
        smoothed_classifier(labels, sigma=1.0, draws=2, vote=Vote.MEAN)
    with pytest.raises(SettingError):
        smoothed_classifier(from_function(lambda x: x.sum(1), output=Output.VALUE), sigma=1.0, draws=2)

    def flat(x: np.ndarray) -> np.ndarray:
        return np.zeros(len(x), dtype=np.float32)

    served = smoothed_classifier(from_function(flat, output=Output.LOGITS), sigma=1.0, draws=2)
    with pytest.raises(TargetError):
        served(Tensor([[0.0, 1.0]]))
