"""A surrogate has no detector: it answers one score more, and never refuses."""

from __future__ import annotations

import torch
from torch import nn

from redan.goals import Targeted, attainable
from redan.rejection import Undetected, refused
from redan.rejection.accepting import Accepting
from redan.targets import from_torch


def test_it_answers_as_the_model_and_never_refuses() -> None:
    torch.manual_seed(0)
    inner = from_torch(nn.Linear(4, 3).eval(), classes=3)
    model, x = Accepting(inner), torch.rand(16, 4)
    assert torch.equal(model(x)[:, :3], inner(x))
    assert not bool(refused(model(x)).any())
    assert (model.classes, model.bounds, model.access, model.surrogate) == (4, (0.0, 1.0), inner.access, False)


def test_what_is_climbed_is_the_model_s_own_margin() -> None:
    torch.manual_seed(1)
    inner = from_torch(nn.Linear(4, 3).eval(), classes=3)
    y = torch.tensor([0, 1, 2, 0])
    slopes = []
    for target, joint in ((inner, False), (Accepting(inner), True)):
        x = torch.rand(4, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
        output = target(x)
        goal = (Undetected() if joint else Undetected().aim).about(y, output)
        (slope,) = torch.autograd.grad(goal.loss(goal.scores(output)).sum(), x)
        slopes.append(slope)
    assert torch.equal(*slopes)


def test_rows_of_the_wanted_class_cannot_be_broken_with_a_detector_either() -> None:
    y, output = torch.tensor([0, 1, 2]), torch.zeros(3, 4)
    able = attainable(Undetected(Targeted(1)).about(y, output))
    assert able is not None
    assert able.tolist() == [True, False, True]
    assert attainable(Undetected().about(y, output)) is None
