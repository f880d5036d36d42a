"""redan's targets and attacks behind the interfaces of ART, Foolbox, CleverHans and torchattacks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import redan
from redan.errors import SetError, SettingError
from redan.integrations.cleverhans import as_cleverhans_attack, to_cleverhans
from redan.integrations.torchattacks import as_torchattacks_attack, to_torchattacks
from redan.targets import Output, from_function, from_torch

needs_peers = [
    pytest.mark.extras,
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning"),  # Foolbox, of SciPy
]
interop = [pytest.param(None, marks=needs_peers)]  # a single parameter, for its marks
EPSILON = 16 / 256
PGD = redan.PGD(steps=10)


@pytest.fixture
def labels(net: nn.Module, images: Tensor) -> Tensor:
    answers: Tensor = net(images)
    return answers.argmax(1)


@pytest.fixture
def ours(net: nn.Module, images: Tensor, labels: Tensor) -> redan.AttackResult:
    """What redan.attack says, with seed 7: some rows are broken and some are not."""
    result = redan.attack(net, images, labels, PGD, within=redan.Linf(EPSILON), seed=7)
    assert 0 < int(result.success.sum()) < len(images)
    return result


def untouched(net: nn.Module) -> bool:
    return all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("_", interop)
def test_art_asks_a_target(net: nn.Module, images: Tensor, labels: Tensor, _: None) -> None:
    from art.attacks.evasion import ProjectedGradientDescent

    from redan.integrations.art import to_art

    classifier = to_art(from_torch(net, classes=4), (1, 8, 8))
    array = images.numpy()
    assert np.array_equal(classifier.predict(array), net(images).detach().numpy())
    x = images.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(nn.functional.cross_entropy(net(x), labels, reduction="sum"), x)
    one_hot = nn.functional.one_hot(labels, 4).numpy()
    slope = classifier.loss_gradient(array, one_hot) * len(array)
    assert np.allclose(slope, slopes.numpy(), atol=1e-6)
    assert classifier.class_gradient(array).shape == (16, 4, 1, 8, 8)
    ProjectedGradientDescent(classifier, eps=EPSILON, eps_step=EPSILON / 4, max_iter=3, verbose=False).generate(array)
    assert untouched(net)


@pytest.mark.parametrize("_", interop)
def test_art_asks_a_black_box(connected: nn.Module, images: Tensor, _: None) -> None:
    from art.attacks.evasion import HopSkipJump, ProjectedGradientDescent
    from art.exceptions import EstimatorError

    from redan.integrations.art import to_art

    def answer(rows: Any) -> Any:
        with torch.no_grad():
            return connected(torch.from_numpy(rows)).argmax(1).numpy()

    target = from_function(answer, classes=4, output=Output.LABELS)
    classifier = to_art(target, (1, 8, 8))
    right = connected(images).argmax(1).numpy()
    assert np.array_equal(classifier.predict(images.numpy()).argmax(1), right)
    with pytest.raises(EstimatorError):
        ProjectedGradientDescent(classifier)
    changed = HopSkipJump(classifier, max_iter=1, init_eval=10, verbose=False).generate(images[:2].numpy())
    assert (answer(changed) != right[:2]).all()


@pytest.mark.parametrize("_", interop)
def test_ours_as_an_art_attack(
    net: nn.Module, images: Tensor, labels: Tensor, ours: redan.AttackResult, _: None
) -> None:
    from art.attacks import EvasionAttack

    from redan.integrations.art import as_art_attack

    attack = as_art_attack(PGD, redan.Linf(EPSILON), net, (1, 8, 8), classes=4, seed=7)
    assert isinstance(attack, EvasionAttack)
    for y in (labels.numpy(), nn.functional.one_hot(labels, 4).numpy()):
        assert np.array_equal(attack.generate(images.numpy(), y), ours.adversarial.numpy())
    with pytest.raises(SettingError, match="known labels"):
        attack.generate(images.numpy())
    with pytest.raises(SettingError, match="classes=K"):
        as_art_attack(PGD, redan.Linf(EPSILON), net, (1, 8, 8))


@pytest.mark.parametrize("_", interop)
def test_ours_called_as_foolbox_does(
    net: nn.Module, images: Tensor, labels: Tensor, ours: redan.AttackResult, _: None
) -> None:
    import foolbox

    from redan.integrations.foolbox import as_foolbox_attack, to_foolbox

    attack = as_foolbox_attack(PGD, redan.Linf, seed=7)
    for model in (to_foolbox(from_torch(net)), foolbox.PyTorchModel(net, (0, 1), device="cpu")):
        for criterion in (labels, foolbox.criteria.Misclassification(labels)):
            raw, clipped, won = attack(model, images, criterion, epsilons=EPSILON)
            assert torch.equal(raw, ours.adversarial)
            assert torch.equal(clipped, ours.adversarial)
            assert torch.equal(won, ours.success)
    raws, clips, wins = attack(to_foolbox(net), images, labels, epsilons=[0.001, EPSILON])
    assert torch.equal(raws[1], ours.adversarial)
    assert len(clips) == 2
    assert wins.shape == (2, 16)
    assert torch.equal(wins[1], ours.success)
    nearest, _, won = as_foolbox_attack(redan.DDN(steps=20), redan.L2)(to_foolbox(net), images, labels, epsilons=None)
    expected = redan.attack(
        net, images, labels, redan.DDN(steps=20), within=redan.L2(math.inf), keep=redan.Closest()
    ).adversarial
    assert torch.equal(nearest, expected)
    wanted = foolbox.criteria.TargetedMisclassification((labels + 1) % 4)
    goal = redan.Targeted((labels + 1) % 4)
    aimed = redan.attack(net, images, labels, PGD, within=redan.Linf(EPSILON), goal=goal, seed=7)
    assert torch.equal(attack(to_foolbox(net), images, wanted, epsilons=EPSILON)[2], aimed.success)
    with pytest.raises(SetError, match="Misclassification"):
        attack(to_foolbox(net), images, object(), epsilons=EPSILON)


@pytest.mark.parametrize("_", interop)
def test_theirs_on_our_targets(net: nn.Module, images: Tensor, labels: Tensor, _: None) -> None:
    """Each library's own PGD on the target behind its interface: the bytes that it gives on the module itself."""
    import foolbox
    import torchattacks
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

    from redan.integrations.foolbox import to_foolbox

    target = from_torch(net)
    for made in (net, to_cleverhans(target)):
        net.zero_grad(set_to_none=True)
        changed = projected_gradient_descent(
            made, images, EPSILON, EPSILON / 4, 5, math.inf, 0, 1, y=labels, rand_init=False
        )
        if made is net:
            expected = changed
    assert torch.equal(changed, expected)
    assert untouched(net)
    first, second = (
        torchattacks.PGD(model, EPSILON, EPSILON / 4, 5, random_start=False)(images, labels)
        for model in (net, to_torchattacks(target))
    )
    assert torch.equal(first, second)
    attack = foolbox.attacks.LinfPGD(rel_stepsize=0.25, steps=5, random_start=False)
    first, second = (
        attack(model, images, labels, epsilons=EPSILON)[0]
        for model in (foolbox.PyTorchModel(net, (0, 1), device="cpu"), to_foolbox(target))
    )
    assert torch.equal(first, second)


# -- what needs none of them ------------------------------------------------------------------------------


def test_ours_called_as_cleverhans_does(
    net: nn.Module, images: Tensor, labels: Tensor, ours: redan.AttackResult
) -> None:
    attack = as_cleverhans_attack(PGD, seed=7)
    for model in (net, to_cleverhans(from_torch(net)), lambda x: net(x)):
        assert torch.equal(attack(model, images, EPSILON, math.inf, 0.0, 1.0, y=labels), ours.adversarial)
    assert torch.equal(attack(net, images, EPSILON, math.inf), ours.adversarial)  # its own answers are the labels
    wanted = (labels + 1) % 4
    aimed = redan.attack(
        net, images, labels, PGD, within=redan.Linf(EPSILON), goal=redan.Targeted(wanted), seed=7
    ).adversarial
    assert torch.equal(attack(net, images, EPSILON, math.inf, y=wanted, targeted=True), aimed)
    short = attack(net, images, 0.3, 2, y=labels) - images
    assert float(short.flatten(1).norm(dim=1).max()) < 0.3001
    with pytest.raises(SetError, match=r"math\.inf, 2 or 1"):
        attack(net, images, 0.3, 3, y=labels)
    with pytest.raises(SettingError, match="own bounds"):
        attack(to_cleverhans(net), images, 0.3, 2, 0.0, 255.0, y=labels)


def test_ours_called_as_torchattacks_does(
    net: nn.Module, images: Tensor, labels: Tensor, ours: redan.AttackResult
) -> None:
    attack = as_torchattacks_attack(PGD, redan.Linf(EPSILON), net, seed=7)
    assert torch.equal(attack(images, labels), ours.adversarial)
    through = as_torchattacks_attack(PGD, redan.Linf(EPSILON), to_torchattacks(net), seed=7)
    assert torch.equal(through(images, labels), ours.adversarial)
    with pytest.raises(SettingError, match=r"\[0, 1\] alone"):
        to_torchattacks(from_torch(net, bounds=(0.0, 255.0)))


def test_gradients_through_a_target_stay_out_of_its_weights(net: nn.Module, images: Tensor) -> None:
    x = images.clone().requires_grad_()
    torch.autograd.backward(to_cleverhans(net)(x).square().sum())
    assert x.grad is not None
    assert bool(x.grad.abs().sum() > 0)
    assert untouched(net)
