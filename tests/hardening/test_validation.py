"""Held-out accuracy: by the room's own ascent, or by any attack under the referee."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import redan
from redan import samples
from redan.errors import DataError
from redan.hardening import PGD_10, Validation
from redan.perturbations.norms import Linf


def _rows(count: int = 200) -> tuple[Tensor, Tensor]:
    x, y = samples.fashion_mnist()
    return torch.tensor(x[:count]), torch.tensor(y[:count])


def test_both_accuracies_are_what_the_library_measures() -> None:
    x, y = _rows()
    model = samples.model("robust")
    score = Validation(x=x, y=y, within=Linf(0.1))(model, 0)
    found = redan.attack(model, x, y, redan.PGD(steps=10), within=Linf(0.1), workers=1)
    assert score.clean == int((model(x).argmax(1) == y).sum()) / 200
    assert abs(score.robust - (1 - int(found.success.sum()) / 200)) < 0.02
    assert score.robust < score.clean


def test_any_attack_may_judge_and_a_cascade_is_one() -> None:
    x, y = _rows(64)
    model = samples.model("robust").train()
    cascade = redan.Cascade((redan.FGSM(), redan.PGD(steps=10)))
    score = Validation(x=x, y=y, within=Linf(0.1), attack=cascade)(model, 3)
    assert model.training
    found = redan.attack(model.eval(), x, y, cascade, within=Linf(0.1), seed=3)
    assert score.robust == 1 - int(found.success.sum()) / 64
    assert score.robust <= Validation(x=x, y=y, within=Linf(0.1), inner=PGD_10)(model, 3).robust + 0.02


def test_the_same_seed_gives_the_same_score_and_touches_nothing() -> None:
    x, y = _rows(64)
    model = samples.model("residual").train()
    model[1].eval()  # type: ignore[index]
    state = {name: part.clone() for name, part in model.state_dict().items()}
    validation = Validation(x=x, y=y, within=Linf(0.1))
    assert validation(model, 5) == validation(model, 5)
    assert all(torch.equal(part, state[name]) for name, part in model.state_dict().items())
    assert [part.training for part in list(model.children())[:3]] == [True, False, True]


def test_rows_that_do_not_fit_are_refused() -> None:
    x, y = _rows(3)
    with pytest.raises(DataError, match="3 held-out rows with 2 labels"):
        Validation(x=x, y=y[:2], within=Linf(0.1))
    with pytest.raises(DataError, match="0 held-out rows"):
        Validation(x=x[:0], y=y[:0], within=Linf(0.1))
