"""Means and votes: closed forms, no overflow, and slopes that are those of the answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from redan.ensembles.combine import Combine, combined, in_leads, mean_probabilities, votes


def drawn(members: int = 3, rows: int = 5, classes: int = 4, *, scale: float = 3.0, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return scale * torch.randn(members, rows, classes, generator=draw, dtype=torch.float64)


def chosen(*classes: int, of: int = 3, sure: float = 1.0) -> Tensor:
    """Logits (M, 1, K) of members that choose these classes."""
    return sure * functional.one_hot(torch.tensor(classes), of).double()[:, None]


def test_logits_are_averaged() -> None:
    logits = drawn()
    assert np.allclose(combined(logits, Combine.LOGITS), logits.numpy().mean(0))


@given(st.integers(1, 5), st.integers(2, 6), st.integers(0, 99))
def test_probabilities_are_averaged_as_one_would_by_hand(members: int, classes: int, seed: int) -> None:
    logits = drawn(members, 4, classes, seed=seed)
    e = np.exp(logits.numpy())
    assert np.allclose(combined(logits, Combine.PROBABILITIES), np.log((e / e.sum(-1, keepdims=True)).mean(0)))


def test_probabilities_that_no_number_can_hold_keep_their_order_and_slope() -> None:
    """One class of a thousandth of the others' smallest 32-bit number."""
    logits = torch.tensor([[[0.0, 900.0, -900.0]], [[0.0, 800.0, -700.0]]], requires_grad=True)
    answer = mean_probabilities(logits)
    assert answer[0].tolist() == pytest.approx([-800 - math.log(2), 0, -1500 - math.log(2)])
    (slope,) = torch.autograd.grad(answer[0, 0], logits)
    assert slope.isfinite().all()
    assert slope[1, 0, 0].item() == pytest.approx(1)


def test_one_member_is_itself() -> None:
    alone = drawn(1)
    assert torch.equal(combined(alone, Combine.LOGITS), alone[0])
    for how in (Combine.PROBABILITIES, Combine.VOTES):
        assert torch.equal(combined(alone, how).argmax(1), alone[0].argmax(1))
    assert torch.allclose(combined(alone, Combine.PROBABILITIES), alone[0].log_softmax(1))


def test_the_majority_wins_however_sure_the_others_are() -> None:
    logits = torch.cat([chosen(2, 2, sure=1e-3), chosen(0, sure=1e4)])
    assert combined(logits, Combine.VOTES).argmax(1).item() == 2
    assert combined(logits, Combine.PROBABILITIES).argmax(1).item() == 0
    assert combined(logits, Combine.LOGITS).argmax(1).item() == 0


@pytest.mark.parametrize(("sure", "winner"), [((2.0, 1.0), 0), ((1.0, 2.0), 2)])
def test_a_tie_goes_to_the_likelier(sure: tuple[float, float], winner: int) -> None:
    logits = torch.cat([chosen(0, sure=sure[0]), chosen(2, sure=sure[1])])
    assert votes(logits).argmax(1).item() == winner


def test_a_class_without_a_vote_is_behind_a_tie_that_is_less_likely() -> None:
    """The second choice of both has the highest mean probability, and no vote."""
    logits = torch.tensor([[[1.1, 1.0, -9.0]], [[-9.0, 1.0, 1.2]]])
    assert mean_probabilities(logits).argmax(1).item() == 1
    assert votes(logits).argmax(1).item() == 2


@given(st.integers(1, 6), st.integers(2, 6), st.integers(0, 99))
def test_a_vote_is_the_count_and_the_scores_are_shares(members: int, classes: int, seed: int) -> None:
    logits = drawn(members, 6, classes, scale=20, seed=seed)
    answer = combined(logits, Combine.VOTES)
    mean = logits.softmax(-1).mean(0)
    for row in range(6):
        count = np.bincount(logits[:, row].argmax(-1).numpy(), minlength=classes)
        best = max(range(classes), key=lambda c: (count[c], mean[row, c].item()))
        assert answer[row].argmax().item() == best
        assert np.allclose(answer[row].exp(), (count + mean[row].numpy() / 2) / (members + 0.5))
    assert torch.allclose(answer.exp().sum(1), torch.ones(6, dtype=torch.float64))


def test_votes_of_very_sure_members_stay_finite() -> None:
    logits = chosen(0, 1, 1, sure=1e4).float().requires_grad_()
    answer = combined(logits, Combine.VOTES)
    (slope,) = torch.autograd.grad(functional.cross_entropy(answer, torch.tensor([1])), logits)
    assert answer.isfinite().all()
    assert slope.isfinite().all()
    assert slope.abs().sum() > 0


@pytest.mark.parametrize("how", [Combine.LOGITS, Combine.PROBABILITIES])
def test_slopes_are_those_of_finite_differences(how: Combine) -> None:
    assert torch.autograd.gradcheck(lambda z: combined(z, how), drawn().requires_grad_())


def test_a_vote_is_answered_as_it_is_and_climbed_as_means_in_leads() -> None:
    logits = drawn().requires_grad_()
    answer = combined(logits, Combine.VOTES)
    assert torch.allclose(answer, votes(logits.detach()))
    weights = drawn(1)[0]
    slope, stand_in = (torch.autograd.grad((weights * f).sum(), logits)[0] for f in (answer, in_leads(logits)))
    assert torch.equal(slope, stand_in)


def test_in_leads_no_member_is_surer_than_another() -> None:
    """A member that is a thousand times surer changes nothing; its own mean probability has no slope left for it."""
    logits = drawn(2, 1).float()
    sure = logits * torch.tensor([1000.0, 1.0])[:, None, None]
    assert torch.allclose(in_leads(sure), in_leads(logits), atol=1e-5)
    slopes = []
    for f in (in_leads, mean_probabilities):
        z = sure.clone().requires_grad_()
        slopes.append(torch.autograd.grad(f(z * torch.tensor([1.0, 1.0])[:, None, None])[0, 0], z)[0])
    assert slopes[0][0].abs().max() > 0
    assert slopes[1][0].abs().max() < 1e-6


def test_members_without_an_opinion_are_no_division_by_zero() -> None:
    assert in_leads(torch.zeros(2, 3, 4)).isfinite().all()
