"""Objectives against their papers' formulas, written out again in a few lines."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from redan.errors import SettingError
from redan.hardening import (
    AWP,
    FGSM,
    PGD_7,
    TRADES,
    Adversarial,
    Armed,
    Ask,
    Batch,
    Objective,
    Plain,
    adversarial_step,
    streams,
)
from redan.hardening.objectives import is_armed, right
from redan.perturbations.norms import Linf
from redan.protocols import Ball
from redan.rows import Streams

WITHIN = Linf(0.1)


def _net(norm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    between = nn.BatchNorm1d(8) if norm else nn.Identity()
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 8), between, nn.ReLU(), nn.Linear(8, 3)).double()


def _batch(done: float = 0.0) -> Batch:
    x = torch.rand(12, 1, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Batch(x, torch.arange(12) % 3, streams(0, 0, x), done=done)


def _gradients(objective: Objective, model: nn.Module) -> tuple[Tensor, list[Tensor]]:
    loss = objective(model, _batch()).value
    return loss.detach(), list(torch.autograd.grad(loss, list(model.parameters())))


def _same(one: tuple[Tensor, list[Tensor]], other: tuple[Tensor, list[Tensor]]) -> bool:
    return torch.equal(one[0], other[0]) and all(torch.equal(a, b) for a, b in zip(one[1], other[1], strict=True))


def test_all_weight_on_clean_rows_is_plain_training() -> None:
    model = _net()
    assert _same(_gradients(Plain(), model), _gradients(Adversarial(within=WITHIN, inner=FGSM, alpha=1.0), model))
    assert not _same(_gradients(Plain(), model), _gradients(Adversarial(within=WITHIN, inner=FGSM, alpha=0.9), model))


def test_a_mixture_is_goodfellow_s() -> None:
    model, batch = _net(), _batch()
    x = batch.x.clone().requires_grad_()
    clean = functional.cross_entropy(model(x), batch.y)
    (slope,) = torch.autograd.grad(clean, x)
    moved = functional.cross_entropy(model((batch.x + 0.1 * slope.sign()).clamp(0, 1)), batch.y)
    found = Adversarial(within=WITHIN, inner=FGSM, alpha=0.3)(model, batch)
    torch.testing.assert_close(found.value, 0.3 * clean + 0.7 * moved)
    assert found.clean is not None
    assert torch.equal(found.clean, model(batch.x).argmax(1) == batch.y)
    assert found.robust is not None
    assert found.robust.sum() <= found.clean.sum()
    only = Adversarial(within=WITHIN, inner=FGSM)(model, batch)
    torch.testing.assert_close(only.value, moved)
    assert only.clean is None


def test_labels_may_be_distributions() -> None:
    model, batch = _net(), _batch()
    soft = Batch(batch.x, functional.one_hot(batch.y, 3).double(), batch.draw)
    one = Adversarial(within=WITHIN, inner=FGSM)
    torch.testing.assert_close(one(model, batch).value, one(model, soft).value)
    assert torch.equal(right(model(batch.x), soft.y), right(model(batch.x), batch.y))


class Given:
    """An inner attack of the user's: it returns rows it was given."""

    def __init__(self, moved: Tensor) -> None:
        self.moved, self.asked = moved, 0

    def __call__(self, ask: Ask, x0: Tensor, within: Ball, draw: Streams) -> Tensor:
        self.asked += 1
        assert not ask.model.training
        assert ask(x0).shape == (len(x0),)
        return self.moved


def _trades_by_authors(model: nn.Module, x: Tensor, y: Tensor, moved: Tensor, beta: float) -> Tensor:
    natural = functional.cross_entropy(model(x), y)
    robust = functional.kl_div(model(moved).log_softmax(1), model(x).softmax(1), reduction="sum") / len(x)
    return natural + beta * robust


def test_trades_is_the_authors_formula() -> None:
    model, batch = _net(), _batch()
    moved = (batch.x + 0.05).clamp(0, 1)
    inner = Given(moved)
    loss = TRADES(within=WITHIN, inner=inner, beta=6.0)(model, batch).value
    expected = _trades_by_authors(model, batch.x, batch.y, moved, 6.0)
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(value, list(model.parameters())) for value in (loss, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    assert inner.asked == 1


def test_trades_climbs_the_divergence() -> None:
    model, batch = _net(), _batch()
    moved = TRADES(within=WITHIN).attacked(model, batch)
    plain = Adversarial(within=WITHIN).attacked(model, batch)
    assert WITHIN.contains(moved, batch.x).all()

    @torch.no_grad()
    def apart(x: Tensor) -> float:
        return float(functional.kl_div(model(x).log_softmax(1), model(batch.x).softmax(1), reduction="sum"))

    assert apart(moved) > 10 * apart((batch.x + 0.01).clamp(0, 1))
    assert apart(moved) >= 0.99 * apart(plain)


def test_an_objective_is_armed_anew() -> None:
    inner = Given(_batch().x)
    objectives: list[Armed] = [
        Adversarial(within=WITHIN, alpha=0.5),
        TRADES(within=WITHIN, beta=2.0),
        AWP(objective=TRADES(within=WITHIN, beta=2.0), gamma=0.1),
    ]
    for one in objectives:
        other = one.armed(inner)
        assert other.inner is inner
        assert other.within is WITHIN
        assert other.armed(one.inner) == one
        assert is_armed(other)
    assert not is_armed(Plain())


# -- AWP -----------------------------------------------------------------------------------------------------------


def _step_by_authors(model: nn.Module, batch: Batch, moved: Tensor, gamma: float, rate: float) -> None:
    """A copy climbs one step; its way is scaled by each weight's own length; train there; go back."""
    proxy = copy.deepcopy(model)
    climb = torch.optim.SGD(proxy.parameters(), lr=0.01)
    torch.autograd.backward(-functional.cross_entropy(proxy(moved), batch.y))
    climb.step()
    pairs = [(w, p - w) for w, p in zip(model.parameters(), proxy.parameters(), strict=True) if w.dim() > 1]
    ways = [(w, (w.norm() / (way.norm() + 1e-20) * way).detach()) for w, way in pairs]
    with torch.no_grad():
        for w, way in ways:
            w.add_(gamma * way)
    descend = torch.optim.SGD(model.parameters(), lr=rate)
    torch.autograd.backward(functional.cross_entropy(model(moved), batch.y))
    descend.step()
    with torch.no_grad():
        for w, way in ways:
            w.add_(-gamma * way)


@pytest.mark.parametrize("norm", [False, True])
def test_awp_takes_the_authors_step(norm: bool) -> None:
    ours, batch = _net(norm), _batch()
    theirs = copy.deepcopy(ours)
    moved = (batch.x + 0.05).clamp(0, 1)
    _step_by_authors(theirs, batch, moved, 0.05, 0.5)
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.5)
    torch.autograd.backward(
        AWP(objective=Adversarial(within=WITHIN, inner=Given(moved)), gamma=0.05)(ours, batch).value
    )
    optimizer.step()
    for (name, one), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_awp_leaves_weights_as_they_are_and_moves_statistics_once() -> None:
    model, plain = _net(norm=True), _net(norm=True)
    weights = {name: p.clone() for name, p in model.named_parameters()}
    objective = AWP(objective=TRADES(within=WITHIN), gamma=0.5)
    loss = objective(model, _batch()).value
    for name, p in model.named_parameters():
        assert torch.equal(p, weights[name])
        assert p.grad is None
    torch.autograd.backward(loss)
    assert all(p.grad is not None for p in model.parameters())
    objective.objective(plain, _batch())
    assert (
        model.get_buffer("2.num_batches_tracked") == plain.get_buffer("2.num_batches_tracked") == 2
    )  # clean rows and attacked rows


def test_awp_s_loss_is_higher_and_without_gamma_or_before_its_time_the_same() -> None:
    model, inner = _net(), Adversarial(within=WITHIN, inner=PGD_7)
    plain = inner(model, _batch()).value
    assert AWP(objective=inner, gamma=0.01)(model, _batch()).value > plain
    assert torch.equal(AWP(objective=inner, gamma=0.0)(model, _batch()).value, plain)
    late = AWP(objective=inner, gamma=0.01, after=0.5)
    assert torch.equal(late(model, _batch(done=0.4)).value, plain)
    assert late(model, _batch(done=0.6)).value > plain
    moved = AWP(objective=inner, gamma=0.01).moved(model, _batch(), _batch().x)
    assert sorted(moved) == ["1.weight", "4.weight"]
    for name, weight in moved.items():
        own = model.get_parameter(name)
        torch.testing.assert_close((weight - own).norm(), 0.01 * own.norm())


# -- a step for those who own their loop ---------------------------------------------------------------------------


def test_a_step_follows_seed_and_number() -> None:
    model, batch = _net(norm=True), _batch()
    objective = Adversarial(within=WITHIN)

    def loss(**how: Any) -> Tensor:
        return adversarial_step(copy.deepcopy(model), batch.x, batch.y, objective, **how).detach()

    assert torch.equal(loss(step=3), loss(step=3))
    assert not torch.equal(loss(step=3), loss(step=4))
    assert not torch.equal(loss(step=3), loss(step=3, seed=1))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Adversarial(within=WITHIN, alpha=1.5), "alpha"),
        (lambda: TRADES(within=WITHIN, beta=-1), "beta"),
        (lambda: AWP(objective=TRADES(within=WITHIN), gamma=-1), "gamma"),
        (lambda: AWP(objective=TRADES(within=WITHIN), after=2), "after"),
    ],
)
def test_settings_out_of_range_are_refused(make: Any, match: str) -> None:
    with pytest.raises(SettingError, match=match):
        make()
