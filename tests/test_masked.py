"""The planted victims: they do what they say, and look more robust to a plain climb than they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from redan.samples import fashion_mnist, model
from redan.testing import VICTIMS, Masked
from redan.testing.masks import jpeg, resized_and_padded, thermometer

IMAGES, LABELS = (torch.from_numpy(rows[:200]) for rows in fashion_mnist())


@pytest.fixture(scope="module")
def natural() -> nn.Module:
    return model("natural")


def test_names_are_distinct() -> None:
    assert len({victim.name for victim in VICTIMS}) == len(VICTIMS) == 13


@pytest.mark.parametrize("victim", VICTIMS, ids=lambda victim: victim.name)
def test_a_victim_is_as_accurate_and_leaves_the_classifier_alone(victim: Masked, natural: nn.Module) -> None:
    state = {name: tensor.clone() for name, tensor in natural.state_dict().items()}
    served = victim.around(natural)
    assert not any(part.training for part in served.modules())
    with torch.no_grad():
        plain, draws = natural(IMAGES).argmax(1), [served(IMAGES).argmax(1) for _ in range(12)]
    if victim.unchanged:
        assert torch.equal(plain, draws[0])
    right = torch.stack([answers == LABELS for answers in draws]).float().mean()
    assert float(right) >= float((plain == LABELS).float().mean()) - 0.3
    assert all(torch.equal(tensor, state[name]) for name, tensor in natural.state_dict().items())


@pytest.mark.parametrize("victim", VICTIMS, ids=lambda victim: victim.name)
def test_a_victim_draws_if_it_says_so(victim: Masked, natural: nn.Module) -> None:
    served = victim.around(natural)
    with torch.no_grad():
        first, *others = (served(IMAGES[:8]) for _ in range(12))
    assert all(torch.equal(first, other) for other in others) != victim.stochastic


@pytest.mark.parametrize("name", ["quantized", "jpeg", "zeroed", "quantized-noise", "zeroed-resized-and-padded"])
def test_a_hidden_gradient_is_zero(name: str, natural: nn.Module) -> None:
    (victim,) = [each for each in VICTIMS if each.name == name]
    x = IMAGES[:8].clone().requires_grad_()
    (slope,) = torch.autograd.grad(victim.around(natural)(x).sum(), x)
    assert not bool(slope.any())


def test_loud_scores_leave_cross_entropy_flat(natural: nn.Module) -> None:
    (victim,) = [each for each in VICTIMS if each.name == "louder"]
    x = IMAGES.clone().requires_grad_()
    loss = functional.cross_entropy(victim.around(natural)(x), natural(IMAGES).argmax(1), reduction="sum")
    (slope,) = torch.autograd.grad(loss, x)
    assert float((slope.flatten(1).abs().amax(1) == 0).float().mean()) > 0.8


def test_the_stages_are_what_they_are_named_after() -> None:
    levels = torch.linspace(0, 1, 301)[None, None, None]
    assert (thermometer(levels) - levels).abs().max() <= 0.5 / 15 + 1e-6
    assert len(set(thermometer(levels).flatten().tolist())) == 16
    assert float((jpeg(IMAGES) - IMAGES).abs().mean()) < 0.02
    assert not torch.equal(jpeg(IMAGES), IMAGES)
    flat = torch.full((2, 1, 28, 28), 0.5)
    assert (jpeg(flat) - flat).abs().max() <= 1 / 255
    small = resized_and_padded(torch.ones(1, 1, 28, 28))
    assert small.shape == (1, 1, 28, 28)
    assert ((small - small.round()).abs() <= 1e-6).all()  # ones, and zeros around them
