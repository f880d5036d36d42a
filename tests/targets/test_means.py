"""Gradients found for models that hide their own: BPDA from a tape, other scales, smoothing, a student."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import redan
from redan.errors import NoGradientError
from redan.samples import fashion_mnist, model
from redan.targets import StandIn, from_torch, rescaled, retraced, smoothed, student
from redan.testing import VICTIMS

IMAGES, LABELS = (torch.from_numpy(rows[:48]) for rows in fashion_mnist())


def slope(target: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(functional.cross_entropy(target(x), y, reduction="sum"), x)
    return found


def standing(target: Any) -> int:
    """Rows that PGD with 20 steps leaves; those of a target without a gradient are all left."""
    try:
        found = redan.attack(target, IMAGES, LABELS, redan.PGD(steps=20), within=redan.Linf(0.1), workers=1)
    except NoGradientError:
        return len(IMAGES)
    return len(IMAGES) - int(found.success.sum())


class Formula(nn.Module):
    """A function of x (N, 1) with two scores."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        value = self.function(x)
        return torch.cat([value, -value], 1)


@pytest.mark.parametrize("name", ["natural", "residual", "winners"])
def test_operations_played_back_give_torch_s_own_gradient_where_it_is_honest(name: str) -> None:
    target = from_torch(model(name))
    again = retraced(target, IMAGES)
    assert again is not None
    assert torch.equal(again(IMAGES), target(IMAGES))
    own, played = slope(target, IMAGES, LABELS), slope(again, IMAGES, LABELS)
    assert torch.allclose(own, played, rtol=1e-5, atol=1e-6 * float(own.abs().max()))


@pytest.mark.parametrize("name", ["natural", "jpeg", "thermometer"])
def test_a_played_gradient_does_not_depend_on_batch_mates(name: str) -> None:
    module = model("natural") if name == "natural" else victim(name)
    target = retraced(from_torch(module), IMAGES)
    assert target is not None
    whole, part = slope(target, IMAGES, LABELS), slope(target, IMAGES[8:16], LABELS[8:16])
    assert torch.allclose(whole[8:16], part, rtol=1e-4, atol=1e-6 * float(whole.abs().max()))


def victim(name: str) -> nn.Module:
    (found,) = [each for each in VICTIMS if each.name == name]
    return found.around(model("natural"))


@pytest.mark.parametrize("name", ["quantized", "thermometer", "bits", "jpeg", "detached", "zeroed"])
def test_masked_gradients_are_found_again(name: str) -> None:
    target = from_torch(victim(name))
    again = retraced(target, IMAGES)
    assert again is not None
    assert again.surrogate
    assert standing(target) >= 30
    assert standing(again) <= 12


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: (x * 4).round() * 3, 12.0),
        (lambda x: x.detach() * 3, 3.0),
        (lambda x: (x * 255).to(torch.uint8).to(x.dtype) / 51, 5.0),
        (lambda x: x.clone().mul_(2).floor_(), 2.0),
        (lambda x: torch.div(x * 6, 2, rounding_mode="floor"), 3.0),
        (lambda x: x * (x > 0), 1.0),
    ],
    ids=["round", "detach", "bytes", "in place", "floor division", "gate"],
)
def test_each_step_without_a_slope_has_the_one_of_what_it_stands_for(
    function: Callable[[Tensor], Tensor], expected: float
) -> None:
    target = retraced(from_torch(Formula(function)), torch.tensor([[0.3], [0.6]]))
    assert target is not None
    x = torch.tensor([[0.3]], requires_grad=True)
    (found,) = torch.autograd.grad(target(x)[0, 0], x)
    assert found.item() == pytest.approx(expected)


def test_a_comparison_counts_as_a_ramp_that_rises_as_it_does() -> None:
    def passed(x: Tensor) -> Tensor:
        return (x > torch.tensor([0.2, 0.4, 0.6])).float().sum(1, keepdim=True)

    for function, sign in ((passed, 1), (lambda x: (x < 0.5).float(), -1), (lambda x: x.sub(0.5).sign(), 1)):
        target = retraced(from_torch(Formula(function)), torch.tensor([[0.3], [0.6]]))
        assert target is not None
        x = torch.tensor([[0.45], [0.55]], requires_grad=True)
        (found,) = torch.autograd.grad(target(x)[:, 0].sum(), x)
        assert bool((sign * found > 0).all())


def test_a_model_that_writes_into_a_part_of_a_tensor_is_followed() -> None:
    def pasted(x: Tensor) -> Tensor:
        whole = torch.zeros(len(x), 2)
        whole[:, :1] = x
        return whole.sum(1, keepdim=True)

    target = retraced(from_torch(Formula(pasted)), torch.rand(4, 1))
    assert target is not None
    x = torch.rand(4, 1, requires_grad=True)
    assert bool((torch.autograd.grad(target(x)[:, 0].sum(), x)[0] == 1).all())


def test_a_model_that_does_not_read_its_input_has_no_gradient_to_find() -> None:
    assert retraced(from_torch(Formula(lambda x: torch.ones_like(x))), torch.rand(4, 1)) is None


def test_a_random_model_s_gradient_is_that_of_the_draw_it_answered() -> None:
    target = retraced(from_torch(Formula(lambda x: x * torch.rand(len(x), 1)), stochastic=True), torch.rand(4, 1))
    assert target is not None
    x = torch.ones(5, 1, requires_grad=True)
    answer = target(x)[:, 0]
    (found,) = torch.autograd.grad(answer.sum(), x)
    assert torch.allclose(found[:, 0], answer.detach())  # the slope of x * draw is the draw


def test_a_stand_in_answers_as_the_target_and_climbs_as_another() -> None:
    target = from_torch(Formula(lambda x: (x * 4).round() / 4))
    stand_in = StandIn(target, lambda x: torch.cat([x * 7, -x], 1))
    x = torch.tensor([[0.3]], requires_grad=True)
    assert torch.equal(stand_in(x), target(x))
    (found,) = torch.autograd.grad(stand_in(x)[0, 0], x)
    assert found.item() == 7
    assert (stand_in.bounds, stand_in.stochastic, stand_in.surrogate) == ((0, 1), False, True)


@pytest.mark.parametrize("factor", [1000.0, 1e-4])
def test_scores_of_another_scale_are_brought_back(factor: float) -> None:
    network = model("natural")
    target = from_torch(Formula(lambda x: x))
    assert rescaled(from_torch(network), IMAGES) is None
    loud = from_torch(nn.Sequential(network, Scale(factor)).eval())
    again = rescaled(loud, IMAGES)
    assert again is not None
    assert torch.equal(again(IMAGES).argmax(1), network(IMAGES).argmax(1))
    assert bool((slope(again, IMAGES, LABELS).flatten(1).abs().amax(1) > 0).all())
    assert standing(again) <= 4
    assert target.bounds == again.bounds


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_a_ripple_is_smoothed_away() -> None:
    target = from_torch(victim("rippled"))
    around = smoothed(target, IMAGES)
    assert around is not None
    assert torch.equal(around(IMAGES), target(IMAGES))
    assert standing(around) < standing(target) - 10


def test_an_honest_model_has_nothing_to_gain_from_smoothing() -> None:
    assert smoothed(from_torch(model("natural")), IMAGES) is None


@pytest.mark.slow
def test_a_student_is_climbed_instead_of_a_model_without_gradients() -> None:
    target = from_torch(victim("detached"))
    before = torch.random.get_rng_state()
    taught = student(target, IMAGES)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert taught is not None
    assert torch.equal(taught(IMAGES), target(IMAGES))
    assert standing(target) >= 40
    assert standing(taught) <= 20
    one, again = (student(target, IMAGES[:4]) for _ in range(2))
    assert one is not None
    assert again is not None
    assert torch.equal(slope(one, IMAGES, LABELS), slope(again, IMAGES, LABELS))


def test_a_student_of_plain_numbers_has_a_hidden_layer() -> None:
    target = from_torch(Formula(lambda x: (x[:, :1] > 0.5).float() - 0.5))
    taught = student(target, torch.rand(64, 3, generator=torch.Generator().manual_seed(0)))
    assert taught is not None
    x = torch.full((1, 3), 0.45, requires_grad=True)
    (found,) = torch.autograd.grad(taught(x)[0, 0], x)
    assert found[0, 0] > found[0, 1:].abs().max()
