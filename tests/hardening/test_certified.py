"""Certified training through `harden`: closed forms of a linear model, and rows that are proven in the end."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import redan
from redan.certification.certified_training import CertifiedTraining, initialize
from redan.certification.trainable import Relaxation
from redan.errors import DataError, NotCertifiableError
from redan.hardening import (
    Batch,
    Certified,
    CertifiedValidation,
    Hardened,
    Plain,
    Progress,
    Shuffled,
    Training,
    Validation,
    harden,
    streams,
)
from redan.perturbations.norms import Linf

EPS = 0.1
AT_ONCE = CertifiedTraining(radius=EPS, warm_up=(0, 0), regularization=0)


def _rows(count: int = 96) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    y = torch.arange(count) % 3
    x = 0.35 + 0.1 * torch.rand(count, 6, generator=draw)
    x[torch.arange(count), 2 * y] += 0.3
    x[torch.arange(count), 2 * y + 1] += 0.3
    return x, y


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def test_of_a_linear_model_it_is_the_closed_form() -> None:
    """The worst score of class j against y is (w_j - w_y)·x + b_j - b_y + ε‖w_j - w_y‖₁, away from the box."""
    torch.manual_seed(0)
    model = nn.Linear(6, 3).double()
    x, y = _rows(12)
    x = x.double()
    found = Certified(settings=AT_ONCE)(model, Batch(x, y, streams(0, 0, x), done=0.5)).value
    apart = model.weight[None] - model.weight[y][:, None]
    logits = model(x)
    gaps = logits - logits.gather(1, y[:, None]) + EPS * apart.abs().sum(2)
    torch.testing.assert_close(found, functional.cross_entropy(gaps, y))
    assert bool(found > functional.cross_entropy(logits, y))


def test_the_radius_grows_with_the_training() -> None:
    model, (x, y) = _net(), _rows(12)
    settings = CertifiedTraining(radius=EPS, warm_up=(0.2, 0.6), regularization=0)
    values = [
        float(Certified(settings=settings)(model, Batch(x, y, streams(0, 0, x), done=done)).value.detach())
        for done in (0.1, 0.3, 0.5, 0.7, 1.0)
    ]
    plain = float(Plain()(model, Batch(x, y, streams(0, 0, x))).value.detach())
    assert math.isclose(values[0], plain, rel_tol=1e-5)
    assert values[0] < values[1] < values[2] < values[3] == values[4]


def _hardened(settings: CertifiedTraining, **how: object) -> Hardened:
    model = _net()
    initialize(model, torch.Generator().manual_seed(0))
    x, y = _rows()
    return harden(
        model,
        Shuffled(x, y, batch=32),
        Training(objective=Certified(settings=settings), epochs=20, seed=3),
        optimizer=torch.optim.Adam(model.parameters(), lr=0.02),
        validation=CertifiedValidation(x=x[:30], y=y[:30], settings=settings),
        **how,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("relaxation", list(Relaxation))
def test_what_was_trained_so_is_proven(relaxation: Relaxation) -> None:
    settings = CertifiedTraining(radius=0.05, relaxation=relaxation)
    found = _hardened(settings)
    x, y = _rows()
    proof = redan.certified(found.model.eval(), x[:30], y[:30], within=Linf(0.05))
    best = found.epochs[found.best - 1]
    assert best.held_out_robust is not None
    assert best.held_out_robust >= 0.9
    assert int(proof.certified.sum()) >= 30 * best.held_out_robust  # CROWN is tighter than intervals
    assert found.epochs[0].robust is None
    assert not found.alarms


def test_validation_counts_what_intervals_prove() -> None:
    torch.manual_seed(0)
    model, (x, y) = nn.Linear(6, 3).double(), _rows(30)
    with torch.no_grad():
        model.weight.copy_(torch.eye(3).repeat_interleave(2, 1))
        model.bias.zero_()
    x = x.double()
    settings = CertifiedTraining(radius=EPS)
    score = CertifiedValidation(x=x, y=y, settings=settings)(model.train(), 0)
    logits = model(x)
    others = (logits - logits.gather(1, y[:, None])).scatter(1, y[:, None], -torch.inf).amax(1)
    assert score.clean == 1
    assert score.robust == int((others + EPS * 4 < 0).sum()) / 30  # two weights of 1 against two others
    assert score.robust > 0
    assert score.robust <= Validation(x=x, y=y, within=Linf(EPS))(model, 0).robust
    assert model.training


def test_it_can_be_broken_off_and_gives_the_same_bytes(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(now: Progress) -> None:
        if now.epoch == 5:
            raise Stopped

    settings = CertifiedTraining(radius=EPS)
    whole = _hardened(settings, folder=tmp_path / "whole")
    with pytest.raises(Stopped):
        _hardened(settings, folder=tmp_path / "broken", progress=stop)
    again = _hardened(settings, folder=tmp_path / "broken", resume=True)
    for one, other in zip(whole.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_what_has_no_bounds_is_refused() -> None:
    x, y = _rows(12)
    batch = Batch(x, functional.one_hot(y, 3).float(), streams(0, 0, x), done=1.0)
    with pytest.raises(DataError, match="needs class numbers"):
        Certified(settings=AT_ONCE)(_net(), batch)
    with pytest.raises(NotCertifiableError):
        Certified(settings=AT_ONCE)(
            nn.Sequential(nn.Linear(6, 3), nn.Softmax(1)), Batch(x, y, streams(0, 0, x), done=1.0)
        )
    with pytest.raises(DataError, match="0 held-out rows"):
        CertifiedValidation(x=x[:0], y=y[:0], settings=AT_ONCE)
