"""A target behind transformations: the same target, and gradients an attacker can use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from redan.engine.run import attack
from redan.errors import TargetError
from redan.evasion.pgd import PGD
from redan.evasion.square import Square
from redan.perturbations.norms import Linf
from redan.preprocessing.bit_depth import BitDepth
from redan.preprocessing.median import Median
from redan.preprocessing.non_local import NonLocalMeans
from redan.preprocessing.resize_pad import ResizePad
from redan.preprocessing.thermometer import Thermometer
from redan.preprocessing.total_variation import TotalVariation
from redan.preprocessing.transformation import Transformation
from redan.preprocessing.wrapped import Preprocessed, Slope
from redan.protocols import Access, Output
from redan.samples import fashion_mnist, model
from redan.targets import declared, from_function, from_torch

IMAGES, LABELS = (torch.from_numpy(rows[:16]) for rows in fashion_mnist())
PADDED = ResizePad(smallest=24, side=28, fill=0)


@pytest.fixture(scope="module")
def natural() -> nn.Module:
    return model("natural")


def behind(net: nn.Module, *stages: Transformation, stochastic: bool = False) -> Preprocessed:
    return Preprocessed(target=from_torch(net, classes=10, stochastic=stochastic), transformations=stages)


def test_without_transformations_it_is_the_bare_model_to_the_byte(natural: nn.Module) -> None:
    bare, none = from_torch(natural, classes=10), behind(natural)
    assert torch.equal(none(IMAGES), bare(IMAGES))
    one, other = (attack(target, IMAGES, LABELS, PGD(steps=5), within=Linf(0.03)) for target in (bare, none))
    assert torch.equal(one.success, other.success)
    x = IMAGES.clone().requires_grad_()
    slopes = [torch.autograd.grad(target(x).square().sum(), x)[0] for target in (bare, none)]
    assert torch.equal(*slopes)


def test_it_says_what_the_target_says(natural: nn.Module) -> None:
    inner = from_torch(natural.double(), bounds=(0.0, 1.0), classes=10, output=Output.LOGITS)
    target = Preprocessed(target=inner, transformations=(Median(size=2),))
    for name in ("access", "output", "bounds", "classes", "dtype", "device", "differentiable"):
        assert getattr(target, name) == getattr(inner, name)
    natural.float()
    assert (target.stochastic, target.surrogate) == (False, False)


@pytest.mark.parametrize(
    ("stages", "stochastic", "surrogate"),
    [
        ((), False, False),
        ((Median(size=3),), False, False),
        ((Median(size=3), BitDepth(bits=3)), False, True),
        ((PADDED,), True, False),
        ((TotalVariation(), PADDED), True, True),
    ],
)
def test_it_declares_what_its_stages_are(
    natural: nn.Module, stages: tuple[Transformation, ...], stochastic: bool, surrogate: bool
) -> None:
    target = behind(natural, *stages)
    assert (target.stochastic, target.surrogate) == (stochastic, surrogate)
    assert not replace(target, slope=Slope.OWN).surrogate
    assert behind(natural, *stages, stochastic=True).stochastic
    assert declared(target, stochastic=True).stochastic


def test_stages_come_in_their_order() -> None:
    first, second = BitDepth(bits=1), NonLocalMeans(search=3, strength=90)
    inner = from_torch(nn.Flatten().eval())
    x = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    found = Preprocessed(target=inner, transformations=(first, second))(x)
    assert torch.equal(found, second(first(x)).flatten(1))
    assert not torch.equal(found, first(second(x)).flatten(1))


def test_answers_are_the_same_with_and_without_a_gradient(natural: nn.Module) -> None:
    for slope in Slope:
        target = replace(behind(natural, Median(size=2), BitDepth(bits=3)), slope=slope)
        with torch.no_grad():
            plain = target(IMAGES)
        assert torch.equal(target(IMAGES.clone().requires_grad_()), plain)


def test_a_stand_in_is_climbed_and_the_own_slope_is_zero(natural: nn.Module) -> None:
    for stages in ((BitDepth(bits=3),), (TotalVariation(steps=5),), (TotalVariation(steps=5), BitDepth(bits=3))):
        slopes = []
        for slope in Slope:
            x = IMAGES.clone().requires_grad_()
            target = replace(behind(natural, *stages), slope=slope)
            slopes.append(torch.autograd.grad(target(x).square().sum(), x)[0])
        assert bool(slopes[0].flatten(1).any(1).all())
        assert not bool(slopes[1].any())


def test_the_gradient_is_the_models_at_the_rounded_input_times_the_stand_ins(natural: nn.Module) -> None:
    stage = BitDepth(bits=3)
    x, rounded, soft = (rows.clone().requires_grad_() for rows in (IMAGES, stage(IMAGES), IMAGES))
    found = torch.autograd.grad(behind(natural, stage)(x).square().sum(), x)[0]
    behind_it = torch.autograd.grad(natural(rounded).square().sum(), rounded)[0]
    assert torch.equal(found, torch.autograd.grad(stage.stand_in(soft), soft, behind_it)[0])


def test_channels_may_change() -> None:
    net = nn.Sequential(nn.Conv2d(16, 4, 3), nn.Flatten(), nn.LazyLinear(10)).eval()
    with torch.no_grad():
        net(torch.zeros(1, 16, 28, 28))
    target = behind(net, Thermometer())
    found = attack(target, IMAGES, LABELS, PGD(steps=2), within=Linf(0.1))
    assert found.adversarial.shape == IMAGES.shape
    assert not found.errors


@pytest.mark.parametrize("stages", [(BitDepth(bits=3),), (PADDED,)])
def test_a_run_can_be_made_again_and_takes_none_of_the_callers_numbers(
    natural: nn.Module, stages: tuple[Transformation, ...]
) -> None:
    target = behind(natural, *stages)
    with torch.random.fork_rng():
        found = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            start = torch.get_rng_state()
            found.append(attack(target, IMAGES, LABELS, PGD(steps=3), within=Linf(0.03), seed=7))
            assert torch.equal(torch.get_rng_state(), start)
    assert torch.equal(found[0].adversarial, found[1].adversarial)
    assert torch.equal(found[0].success, found[1].success)


def test_rows_may_come_in_any_order_one_by_one_or_not_at_all(natural: nn.Module) -> None:
    target, order = behind(natural, Median(size=2), BitDepth(bits=3)), torch.arange(16).flip(0)
    whole = attack(target, IMAGES, LABELS, PGD(steps=3), within=Linf(0.05))
    turned = attack(target, IMAGES[order], LABELS[order], PGD(steps=3), within=Linf(0.05))
    assert torch.equal(turned.adversarial[order], whole.adversarial)
    alone = attack(target, IMAGES[2:3], LABELS[2:3], PGD(steps=3), within=Linf(0.05))
    assert torch.equal(alone.adversarial, whole.adversarial[2:3])
    for some in (target, behind(natural, PADDED)):
        assert attack(some, IMAGES[:0], LABELS[:0], PGD(steps=3), within=Linf(0.05)).adversarial.shape[0] == 0


def test_a_model_without_gradients_is_transformed_too() -> None:
    def answered(x: NDArray[Any]) -> NDArray[Any]:
        return np.stack([x.reshape(len(x), -1).mean(1), np.full(len(x), 0.4)], 1)

    inner = from_function(answered, classes=2, output=Output.LOGITS)
    target = Preprocessed(target=inner, transformations=(BitDepth(bits=1),))
    assert (target.access, target.differentiable) == (Access.SCORES, False)
    x = torch.full((4, 1, 6, 6), 0.55, dtype=target.dtype)
    assert target(x)[:, 0].tolist() == pytest.approx([1.0] * 4)
    found = attack(target, x, torch.zeros(4, dtype=torch.int64), Square(queries=50), within=Linf(0.1))
    assert bool(found.success.any())


@dataclass(frozen=True, slots=True)
class Called:
    """A target whose answers are calls."""

    asked = None


def test_an_endpoint_is_not_transformed_by_us() -> None:
    with pytest.raises(TargetError, match="an endpoint transforms its own inputs"):
        Preprocessed(target=Called())  # type: ignore[arg-type]  # only what tells an endpoint


def test_a_stand_in_of_another_shape_is_refused(natural: nn.Module) -> None:
    class Odd(BitDepth):
        def stand_in(self, x: Tensor, /) -> Tensor:
            return x[..., :-1]

    with pytest.raises(TargetError, match="what is differentiated instead"):
        behind(natural, Odd(bits=3))(IMAGES.clone().requires_grad_())
