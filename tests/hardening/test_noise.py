"""Training through noise: known answers of linear models, and the attack on the smoothed model written out again."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from redan.errors import SettingError
from redan.hardening import (
    AWP,
    FGSM,
    Adversarial,
    Ascent,
    Ask,
    Batch,
    Noise,
    Plain,
    Shuffled,
    SmoothAdv,
    ThroughNoise,
    Training,
    Validation,
    harden,
    streams,
)
from redan.hardening.noise import gaussian
from redan.hardening.objectives import is_armed
from redan.perturbations.norms import L2, Linf

WITHIN = L2(0.2)
ONE_STEP = Ascent(steps=1, rate=1.0, start=0.0)


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 3)).double()


def _batch(count: int = 12, done: float = 1.0) -> Batch:
    x = 0.4 + 0.2 * torch.rand(count, 1, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Batch(x, torch.arange(count) % 3, streams(0, 0, x), done=done)


def _squared(answers: Tensor, _: Tensor) -> Tensor:
    return answers[:, 0].square()


def test_the_mean_squared_answer_of_a_linear_model_grows_by_the_noise() -> None:
    """E (w · (x + σz))² = (w · x)² + σ² ‖w‖²."""
    model, batch = nn.Sequential(nn.Flatten(), nn.Linear(9, 2, bias=False)).double(), _batch(4000)
    found = float(Noise(sigma=0.5, row_loss=_squared)(model, batch).value.detach())
    w, x = next(model.parameters())[0].detach(), batch.x.flatten(1)
    clean, noise = float((x @ w).square().mean()), 0.25 * float(w.square().sum())
    assert abs(found - clean - noise) < 0.1 * noise


def test_without_noise_it_is_the_objective_without() -> None:
    model, batch = _net(), _batch()
    plain = Plain()(model, batch)
    found = Noise(sigma=0, draws=3)(model, batch)
    torch.testing.assert_close(found.value, plain.value)
    assert found.clean is not None
    assert plain.clean is not None
    assert torch.equal(found.clean, plain.clean)
    attacked = SmoothAdv(within=WITHIN, sigma=0, draws=3, inner=ONE_STEP)
    usual = Adversarial(within=WITHIN, inner=ONE_STEP)
    torch.testing.assert_close(attacked(model, batch).value, usual(model, batch).value)


def test_noise_differs_from_row_to_row_and_from_step_to_step_and_not_from_call_to_call() -> None:
    batch = _batch()
    one = gaussian(batch.x, batch.draw, 0.5, 2)
    assert one.shape == (12, 2, 1, 3, 3)
    assert torch.equal(one, gaussian(batch.x, batch.draw, 0.5, 2))
    assert len({round(float(v), 9) for v in one.flatten()}) == one.numel()
    assert not torch.equal(one, gaussian(batch.x, streams(0, 1, batch.x), 0.5, 2))
    many = gaussian(torch.zeros(500, 40, dtype=torch.float64), streams(0, 0, torch.zeros(500)), 0.5)
    assert abs(float(many.mean())) < 0.02
    assert abs(float(many.std()) - 0.5) < 0.02


def test_of_a_linear_model_with_two_classes_the_attack_goes_straight_at_the_other_class() -> None:
    """The smoothed model's level sets are the model's own, so that noise does not turn the steepest direction."""
    torch.manual_seed(0)
    model, batch = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).double(), _batch()
    y = torch.arange(12) % 2
    moved = SmoothAdv(within=WITHIN, sigma=1.0, draws=4).attacked(model, replace(batch, y=y))
    w = next(model.parameters()).detach()
    toward = (w[1 - y] - w[y]).reshape_as(batch.x)
    expected = batch.x + 0.2 * toward / toward.flatten(1).norm(dim=1)[:, None, None, None]
    torch.testing.assert_close(moved, expected)


def _by_hand(model: nn.Module, batch: Batch, sigma: float, draws: int, whole: bool) -> Tensor:
    """One step on -log of the mean probability, or (not whole) on the mean of the losses."""
    noise = gaussian(batch.x, batch.draw, sigma, draws)
    moved = []
    for x0, y, own in zip(batch.x, batch.y, noise, strict=True):
        x = x0.clone().requires_grad_()
        p = torch.stack([model((x + one)[None]).softmax(1)[0, y] for one in own])
        (g,) = torch.autograd.grad(-p.mean().log() if whole else -p.log().mean(), x)
        moved.append((x0 + 0.2 * g / g.norm()).clamp(0, 1))
    return torch.stack(moved)


def test_the_inner_attack_climbs_the_smoothed_model_and_not_the_mean_of_the_losses() -> None:
    model, batch = _net(), _batch()
    with torch.no_grad():  # answers sure enough for the two to differ
        next(model.parameters()).mul_(4)
    found = SmoothAdv(within=WITHIN, sigma=0.5, draws=3, inner=ONE_STEP).attacked(model, batch)
    torch.testing.assert_close(found, _by_hand(model, batch, 0.5, 3, whole=True))
    assert float((found - _by_hand(model, batch, 0.5, 3, whole=False)).abs().max()) > 1e-3


def test_the_model_is_trained_on_the_draws_that_the_attack_saw() -> None:
    model, batch = _net(), _batch()
    objective = SmoothAdv(within=WITHIN, sigma=0.5, draws=3, inner=ONE_STEP)
    moved = objective.attacked(model, batch)
    noise = gaussian(batch.x, batch.draw, 0.5, 3)
    losses = [functional.cross_entropy(model(moved + noise[:, i]), batch.y) for i in range(3)]
    found = objective(model, batch)
    torch.testing.assert_close(found.value, torch.stack(losses).mean())
    p = torch.stack([model(moved + noise[:, i]).softmax(1) for i in range(3)]).mean(0)
    assert found.robust is not None
    assert torch.equal(found.robust, p.argmax(1) == batch.y)


def test_the_radius_grows_from_nothing() -> None:
    model = _net()
    objective = SmoothAdv(within=WITHIN, sigma=0.5, inner=ONE_STEP, warm_up=0.5)
    far = [(objective.attacked(model, _batch(done=d)) - _batch().x).flatten(1).norm(dim=1) for d in (0.0, 0.25, 0.5, 1)]
    for found, expected in zip(far, (0.0, 0.1, 0.2, 0.2), strict=True):
        torch.testing.assert_close(found, torch.full_like(found, expected))


def test_others_go_around_it_and_it_runs_in_the_loop() -> None:
    objective = SmoothAdv(within=Linf(0.05), sigma=0.1)
    assert is_armed(objective)
    assert objective.armed(FGSM).inner is FGSM
    batch, model = _batch(48), _net().float()
    x, y = batch.x.float().clone(), batch.y
    x[torch.arange(48), 0, 0, y] += 0.4
    for one in (AWP(objective=objective), Noise(sigma=0.1)):
        before = [float(p.detach().sum()) for p in model.parameters()]
        validation = Validation(x=x, y=y, within=Linf(0.05), inner=ThroughNoise(sigma=0.1))
        found = harden(
            model,
            Shuffled(x, y, batch=24),
            Training(objective=one, epochs=30),
            optimizer=torch.optim.Adam(model.parameters(), lr=0.02),
            validation=validation,
        )
        assert before != [float(p.detach().sum()) for p in model.parameters()]
        assert found.epochs[-1].held_out_robust is not None
        assert found.epochs[-1].held_out_robust > 0.8


def test_the_validation_s_point_is_attacked_and_has_a_draw_of_its_own() -> None:
    model, batch = _net(), _batch()
    ask = Ask(model=model, wanted=batch.y)
    inner = ThroughNoise(sigma=0.5, draws=3, ascent=ONE_STEP)
    with torch.no_grad():
        found = inner(ask, batch.x, WITHIN, batch.draw)
    noise = gaussian(batch.x, batch.draw, 0.5, 4)
    moved = found - noise[:, 0]
    assert bool(WITHIN.contains(moved, batch.x).all())
    assert float((moved - batch.x).flatten(1).norm(dim=1).min()) > 0.19
    still = ThroughNoise(sigma=0.0, draws=1, ascent=ONE_STEP)(ask, batch.x, WITHIN, batch.draw)
    torch.testing.assert_close(still, ONE_STEP(ask, batch.x, WITHIN, batch.draw))


@pytest.mark.parametrize(
    "wrong", [{"sigma": -1.0}, {"sigma": math.nan}, {"sigma": math.inf}, {"sigma": 1.0, "draws": 0}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError, match="finite sigma"):
        Noise(**wrong)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="finite sigma"):
        SmoothAdv(within=WITHIN, **wrong)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="warm_up"):
        SmoothAdv(within=WITHIN, sigma=1.0, warm_up=2.0)
