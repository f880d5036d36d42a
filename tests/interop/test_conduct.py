"""How others' attacks behave under the referee: random numbers, limits, rows that end, other boxes and goals."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import redan
from redan.errors import SetError, SettingError
from redan.goals import FlipLabels
from redan.oracle import Capability
from redan.protocols import Access, Attack, needs
from redan.targets import Output, from_function, from_torch
from redan.testing import check_attack

pytestmark = [
    pytest.mark.extras,
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning"),  # Foolbox, of SciPy
]


class Peer(Protocol):
    name: str
    adapted: Callable[..., Attack[Any, Any]]


def named(library: str, name: str) -> Attack[Any, Any]:
    """What `redan.integrations.LIBRARY:NAME` says."""
    from redan.integrations import art, cleverhans, foolbox, torchattacks

    modules = {"art": art, "cleverhans": cleverhans, "foolbox": foolbox, "torchattacks": torchattacks}
    found: Attack[Any, Any] = getattr(modules[library], name)
    return found


def generators() -> tuple[object, ...]:
    """The state of the process's three generators."""
    arrays: Any = np.random.get_state()
    return random.getstate(), arrays[1].tolist(), arrays[2], torch.random.get_rng_state().tolist()


def test_random_numbers_come_from_the_seed_and_go_back(net: nn.Module, peer: Peer, images: Tensor) -> None:
    y = net(images).argmax(1)
    attack = peer.adapted(0.25, redan.Linf, True)
    before = generators()
    first, again, other = (
        redan.attack(net, images, y, attack, within=redan.Linf(0.06), seed=seed, workers=1) for seed in (3, 3, 4)
    )
    after = generators()
    assert torch.equal(first.adversarial, again.adversarial)
    assert torch.equal(first.queries, again.queries)
    assert bool(first.success.any())
    assert not torch.equal(first.adversarial, other.adversarial)
    assert before == after


def test_a_capability_is_kept(net: nn.Module, peer: Peer, images: Tensor) -> None:
    y = net(images).argmax(1)
    for most in (1, 2, 7):
        found = redan.attack(
            net,
            images,
            y,
            peer.adapted(0.25, redan.Linf, True),
            within=redan.Linf(1e-6),
            capability=Capability(queries_per_row=most),
        )
        assert found.queries.tolist() == [most] * 16
        assert not found.errors


def test_it_ends_when_the_last_row_is_won(net: nn.Module, peer: Peer, images: Tensor) -> None:
    y = net(images).argmax(1)
    found = redan.attack(net, images, y, peer.adapted(0.5, redan.Linf, False), within=redan.Linf(0.9), workers=1)
    assert bool(found.success.all())
    assert int(found.backwards.max()) < 10


def test_rows_the_model_fails_on_are_errors_and_no_others(net: nn.Module, peer: Peer, images: Tensor) -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            strange = (x[:, 0, 0, 0] > 0.9) & (x[:, 0, 0, 0] < 0.999)  # no clean row
            answer: Tensor = net(x).masked_fill(strange[:, None], torch.nan)
            return answer

    images[:, 0, 0, 0] = 0.5
    images[3, 0, 0, 0] = 0.9
    y = net(images).argmax(1)
    attack = peer.adapted(0.25, redan.Linf, False)
    found = redan.attack(Failing().eval(), images, y, attack, within=redan.Linf(0.01), workers=1)
    sound = redan.attack(net, images, y, attack, within=redan.Linf(0.01), workers=1)
    assert set(found.errors) <= {3}
    others = torch.arange(16) != 3
    assert torch.equal(found.adversarial[others], sound.adversarial[others])


def test_other_boxes_and_radii_a_row(net: nn.Module, peer: Peer, images: Tensor) -> None:
    class Byte(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = net(x / 256)
            return answer

    y = net(images).argmax(1)
    radii = torch.tensor([0.0, 1 / 256, 16 / 256, 64 / 256]).repeat_interleave(4)
    attack = peer.adapted(0.25, redan.Linf, False)
    small = redan.attack(net, images, y, attack, within=redan.Linf(radii), workers=1)
    wide = redan.attack(
        from_torch(Byte().eval(), bounds=(0.0, 256.0)), images * 256, y, attack, within=redan.Linf(radii * 256)
    )
    assert int(small.success.sum()) >= 4
    assert torch.equal(small.success, wide.success)
    assert bool((small.distance[small.success] <= radii[small.success] + 1e-6).all())
    assert not bool(small.success[:4].any())


@pytest.mark.parametrize("library", ["foolbox", "torchattacks"])
def test_it_passes_the_conformance_test(library: str) -> None:
    """The two that compute in the model's own type. Random starts are off: a batch's draws depend on the batch."""
    from redan.integrations.foolbox import foolbox_attack
    from redan.integrations.torchattacks import torchattacks_attack

    if library == "foolbox":
        import foolbox

        attack = foolbox_attack(foolbox.attacks.LinfPGD(steps=12, rel_stepsize=0.25, random_start=False))
    else:
        import torchattacks

        attack = torchattacks_attack(
            lambda model, radius: torchattacks.PGD(model, radius, radius / 4, steps=12, random_start=False)
        )
    assert check_attack(attack).sets == ("Linf",)


WEAK = Capability(queries_per_row=400)
NAMED = [
    ("foolbox", "LinfPGD", Access.GRADIENTS, redan.Linf(0.1)),
    ("foolbox", "DDNAttack", Access.GRADIENTS, redan.L2(1.0)),
    ("foolbox", "L2DeepFoolAttack", Access.GRADIENTS, redan.L2(1.0)),
    ("foolbox", "L1FMNAttack", Access.GRADIENTS, redan.L1(6.0)),
    ("foolbox", "HopSkipJumpAttack", Access.LABELS, redan.L2(2.5)),
    ("art", "ProjectedGradientDescent", Access.GRADIENTS, redan.Linf(0.1)),
    ("art", "AutoProjectedGradientDescent", Access.GRADIENTS, redan.Linf(0.1)),
    ("art", "DeepFool", Access.GRADIENTS, redan.L2(1.0)),
    ("art", "SquareAttack", Access.SCORES, redan.Linf(0.1)),
    ("art", "SimBA", Access.SCORES, redan.L2(2.5)),
    ("art", "HopSkipJump", Access.LABELS, redan.L2(2.5)),
    ("art", "SignOPTAttack", Access.LABELS, redan.L2(2.5)),
    ("cleverhans", "projected_gradient_descent", Access.GRADIENTS, redan.Linf(0.1)),
    ("cleverhans", "sparse_l1_descent", Access.GRADIENTS, redan.L1(6.0)),
    ("cleverhans", "fast_gradient_method", Access.GRADIENTS, redan.Linf(0.1)),
    ("cleverhans", "spsa", Access.SCORES, redan.Linf(0.4)),
    ("cleverhans", "hop_skip_jump_attack", Access.LABELS, redan.L2(2.5)),
    ("torchattacks", "PGD", Access.GRADIENTS, redan.Linf(0.1)),
    ("torchattacks", "APGDT", Access.GRADIENTS, redan.Linf(0.1)),
    ("torchattacks", "DeepFool", Access.GRADIENTS, redan.L2(1.0)),
    ("torchattacks", "EADL1", Access.GRADIENTS, redan.L1(6.0)),
    ("torchattacks", "Square", Access.SCORES, redan.Linf(0.1)),
]


@pytest.mark.filterwarnings("ignore::UserWarning:foolbox", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("library", "name", "access", "within"), NAMED, ids=[f"{n[0]}:{n[1]}" for n in NAMED])
def test_by_name(
    convolutional: nn.Module, images: Tensor, library: str, name: str, access: Access, within: Any
) -> None:
    """An attacker of exactly the declared access breaks rows with it, and only as often as he may ask."""
    net = convolutional
    x = images[:4]
    y = net(x).argmax(1)
    attack = named(library, name)
    assert needs(attack) == (access, type(within))
    found = redan.attack(net, x, y, attack, within=within, knowledge=access, capability=WEAK, workers=1)
    again = redan.attack(net, x, y, attack, within=within, knowledge=access, capability=WEAK, workers=1)
    assert bool(found.success.any())
    assert int(found.queries.max()) <= 400
    many = net(found.adversarial.repeat(8, 1, 1, 1))[: len(x)]  # few rows alone may be rounded otherwise
    assert bool((many.argmax(1) != y)[found.success].all())
    assert torch.equal(found.adversarial, again.adversarial)
    assert torch.equal(found.queries, again.queries)


def test_settings_of_a_cleverhans_function(convolutional: nn.Module, images: Tensor) -> None:
    """It is told the number of classes, and no epsilon: minimum norm, in a set without limit."""
    from cleverhans.torch.attacks.carlini_wagner_l2 import carlini_wagner_l2

    from redan.integrations.cleverhans import cleverhans_attack

    y = convolutional(images).argmax(1)
    options = {"initial_const": 10, "lr": 0.05, "max_iterations": 40, "binary_search_steps": 2}
    attack = cleverhans_attack(carlini_wagner_l2, options, within=redan.L2)
    found = redan.attack(convolutional, images, y, attack, within=redan.L2(math.inf), keep=redan.Closest())
    assert bool(found.success.all())
    assert float(found.distance.median()) < 1
    assert "initial_const=10" in repr(attack)
    assert "0x" not in repr(attack)


def test_labels_are_enough_for_attacks_on_labels(connected: nn.Module, images: Tensor) -> None:
    net = connected
    x = images[:4]
    y = net(x).argmax(1)

    def answer(rows: Any) -> Any:
        with torch.no_grad():
            return net(torch.from_numpy(rows)).argmax(1).numpy()

    target = from_function(answer, classes=4, output=Output.LABELS)
    found = redan.attack(target, x, y, named("art", "HopSkipJump"), within=redan.L2(3.0), capability=WEAK)
    assert bool(found.success.any())
    with pytest.raises(SettingError, match="needs gradients"):
        redan.attack(target, x, y, named("foolbox", "LinfPGD"), within=redan.Linf(0.1))
    with pytest.raises(SetError, match="moves in Linf"):
        redan.attack(net, x, y, named("foolbox", "LinfPGD"), within=redan.L2(0.1))


def test_several_labels_are_attacked_too(connected: nn.Module, images: Tensor, peer: Peer) -> None:
    net = connected
    y = (net(images) > 0).long()
    target = from_torch(net, classes=4)
    attack = peer.adapted(0.25, redan.Linf, False)
    found = redan.attack(target, images, y, attack, within=redan.Linf(0.06), goal=FlipLabels())
    assert bool(found.success.any())
    assert bool(((net(found.adversarial) > 0).long() != y).any(1)[found.success].all())


def test_surrogates_lend_it_their_gradients(
    convolutional: nn.Module, connected: nn.Module, images: Tensor, peer: Peer
) -> None:
    y = convolutional(images).argmax(1)
    attack = peer.adapted(0.25, redan.Linf, False)
    lent = redan.attack(convolutional, images, y, attack, within=redan.Linf(0.5), surrogates=[connected])
    own = redan.attack(convolutional, images, y, attack, within=redan.Linf(0.5))
    assert bool(lent.success.any())
    assert int(lent.queries.max()) <= 2  # the target is shown the last input alone
    assert int(own.queries.max()) > 2


def test_what_is_broken_in_art_runs_here(convolutional: nn.Module, images: Tensor) -> None:
    """HopSkipJump hands a float32 model float64; GeoDA calls a function that numpy has no more."""
    from art.attacks.evasion import HopSkipJump
    from art.estimators.classification import PyTorchClassifier

    x = images[:2]
    y = convolutional(x).argmax(1)
    classifier = PyTorchClassifier(convolutional, nn.CrossEntropyLoss(), (1, 8, 8), 4, clip_values=(0.0, 1.0))
    with pytest.raises(RuntimeError, match="double"):
        HopSkipJump(classifier, verbose=False).generate(x.numpy())
    assert not hasattr(np, "mat")
    for name in ("HopSkipJump", "GeoDA"):
        found = redan.attack(convolutional, x, y, named("art", name), within=redan.L2(4.0), capability=WEAK)
        assert bool(found.success.any())
        assert not hasattr(np, "mat")


def test_inputs_of_another_shape_are_refused() -> None:
    table = nn.Linear(7, 3).eval()
    x = torch.full((4, 7), 0.5)
    with pytest.raises(SetError, match="often images alone"):
        redan.attack(table, x, table(x).argmax(1), named("torchattacks", "APGD"), within=redan.Linf(0.1))


def test_unknown_names_are_no_attacks() -> None:
    for library in ("art", "foolbox", "cleverhans", "torchattacks"):
        with pytest.raises(AttributeError):
            named(library, "NoSuchAttack")
    with pytest.raises(SettingError, match="cannot be made without settings"):
        named("foolbox", "GaussianBlurAttack")
    with pytest.raises(SettingError, match="not known to keep to an Lp ball"):
        named("art", "AdversarialPatch")
