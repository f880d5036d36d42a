"""The planted victims: they do what they say, and look more robust to a plain climb than they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
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
    served, times = victim.around(natural), 12 if victim.stochastic else 2
    assert not any(part.training for part in served.modules())
    with torch.no_grad():
        plain, draws = natural(IMAGES).argmax(1), [served(IMAGES).argmax(1) for _ in range(times)]
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


@pytest.mark.parametrize("victim", VICTIMS, ids=lambda victim: victim.name)
def test_a_victim_costs_few_right_answers(victim: Masked, natural: nn.Module) -> None:
    served, times = victim.around(natural), 40 if victim.stochastic else 2
    with torch.no_grad():
        plain = (natural(IMAGES).argmax(1) == LABELS).float().mean()
        right = torch.stack([served(IMAGES).argmax(1) == LABELS for _ in range(times)]).float().mean()
    # The network was not trained on shrunken garments, so that these cost more than the few points of all others.
    assert float(plain - right) <= (0.2 if "resized" in victim.name else 0.03)


@pytest.mark.parametrize("victim", VICTIMS, ids=lambda victim: victim.name)
def test_a_row_does_not_depend_on_the_rows_beside_it(victim: Masked, natural: nn.Module) -> None:
    served = victim.around(natural)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(3)
        first = served(IMAGES[:8])
        torch.manual_seed(3)
        other = served(torch.cat([IMAGES[:1], IMAGES[100:107]]))
    assert torch.allclose(first[0], other[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("victim", VICTIMS, ids=lambda victim: victim.name)
def test_a_victim_draws_from_the_global_generator_and_seeds_nothing(victim: Masked, natural: nn.Module) -> None:
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(5)
        start = torch.get_rng_state()
        served = victim.around(natural)
        assert torch.equal(torch.get_rng_state(), start)
        answers = served(IMAGES[:4])
        assert torch.equal(torch.get_rng_state(), start) != victim.stochastic
        assert torch.initial_seed() == 5
        torch.set_rng_state(start)
        assert torch.equal(served(IMAGES[:4]), answers)


@pytest.mark.parametrize("name", ["thermometer", "bits", "detached", "thermometer-louder"])
def test_a_cut_off_input_has_no_gradient(name: str, natural: nn.Module) -> None:
    (victim,) = [each for each in VICTIMS if each.name == name]
    x = IMAGES[:8].clone().requires_grad_()
    found: tuple[Tensor | None, ...] = torch.autograd.grad(victim.around(natural)(x).sum(), x, allow_unused=True)
    assert all(slope is None or not bool(slope.any()) for slope in found)


def test_a_ripple_turns_slopes_around(natural: nn.Module) -> None:
    (victim,) = [each for each in VICTIMS if each.name == "rippled"]
    slopes = []
    for served in (natural, victim.around(natural)):
        x = IMAGES[:50].clone().requires_grad_()
        slopes.append(torch.autograd.grad(functional.cross_entropy(served(x), LABELS[:50], reduction="sum"), x)[0])
    lit = (IMAGES[:50] > 0.05) & (slopes[0] != 0)  # on black the ripple has one phase
    assert 0.3 <= float((slopes[0].sign() != slopes[1].sign())[lit].float().mean()) <= 0.7


def test_fresh_draws_have_fresh_gradients(natural: nn.Module) -> None:
    for name in ("noise", "resized-and-padded"):
        (victim,) = [each for each in VICTIMS if each.name == name]
        served, slopes = victim.around(natural), []
        for _ in range(6):
            x = IMAGES[:8].clone().requires_grad_()
            slopes.append(torch.autograd.grad(served(x).sum(), x)[0])
        assert any(not torch.equal(slopes[0], other) for other in slopes[1:])
