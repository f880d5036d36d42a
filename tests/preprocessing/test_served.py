"""What is served keeps the kind of the bare target, and whoever looks into it finds the transformations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from redan.certification import certified
from redan.errors import NotCertifiableError, TargetError, TrainingModeError
from redan.perturbations.norms import Linf
from redan.preprocessing.bit_depth import BitDepth
from redan.preprocessing.median import Median
from redan.preprocessing.resize_pad import ResizePad
from redan.preprocessing.served import PreprocessedPair, behind
from redan.preprocessing.transformation import Transformation
from redan.preprocessing.wrapped import Preprocessed
from redan.protocols import Access, Output
from redan.samples import fashion_mnist, model
from redan.targets import Paired, TorchTarget, affine, as_target, declared, from_function, from_torch
from redan.targets.base import Target
from redan.targets.torch import accelerated, rounds, unchanged

IMAGES = torch.from_numpy(fashion_mnist()[0][:8])
STAGES = (Median(size=2), BitDepth(bits=3))


@pytest.fixture(scope="module")
def bare() -> TorchTarget:
    return from_torch(model("natural"), classes=10, normalization=([0.3], [0.4]))


def slopes(target: Target[Tensor]) -> Tensor:
    x = IMAGES.clone().requires_grad_()
    return torch.autograd.grad(target(x).square().sum(), x)[0]


def pair(net: nn.Module) -> Paired:
    return Paired(from_torch(net, classes=10), net)


def test_a_torch_target_stays_one_and_answers_as_the_wrapper_does(bare: TorchTarget) -> None:
    served, wrapped = behind(bare, STAGES), Preprocessed(target=bare, transformations=STAGES)
    assert isinstance(served, TorchTarget)
    assert torch.equal(served(IMAGES), wrapped(IMAGES))
    assert not torch.equal(served(IMAGES), bare(IMAGES))
    assert torch.equal(slopes(served), slopes(wrapped))
    assert (served.stochastic, served.surrogate) == (False, True)
    assert behind(bare, ()) is bare


def test_its_module_alone_answers_as_it_does(bare: TorchTarget) -> None:
    served = behind(bare, STAGES)
    assert isinstance(served, TorchTarget)
    assert torch.equal(served.module(IMAGES), served(IMAGES))


@pytest.mark.parametrize(
    ("stage", "stochastic", "surrogate"),
    [
        (Median(size=2), False, False),
        (BitDepth(bits=3), False, True),
        (ResizePad(smallest=24, side=28), True, False),
    ],
)
def test_it_says_what_its_stages_are(
    bare: TorchTarget, stage: Transformation, stochastic: bool, surrogate: bool
) -> None:
    for target in (bare, pair(bare.module)):
        found = behind(target, (stage,))
        assert (found.stochastic, found.surrogate) == (stochastic, surrogate)


def test_it_is_accelerated_as_the_bare_one_is(bare: TorchTarget) -> None:
    for target in (bare, behind(bare, STAGES)):
        found = accelerated(target, IMAGES)
        assert isinstance(found, TorchTarget)
        assert found.fast is not None
        assert found.fast.products
        near = slopes(target)
        torch.testing.assert_close(slopes(found), near, rtol=1e-3, atol=1e-3 * float(near.abs().max()))


def test_modes_are_watched_and_never_switched() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(784, 10)).eval()
    served = behind(from_torch(net), STAGES)
    with pytest.raises(TargetError, match=r"model\.1"), unchanged(served):
        net[1].train()
    assert not net[1].training
    net[1].train()
    assert isinstance(served, TorchTarget)
    with pytest.raises(TrainingModeError, match=r"model\.1 \(Dropout\)"):
        as_target(served, None)
    behind(replace(served, module=net), STAGES)
    assert net[1].training


def test_a_pair_stays_a_pair(bare: TorchTarget) -> None:
    class Off(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = bare.module(x) + 1
            return answer

    both = Paired(from_torch(bare.module, classes=10), Off())
    scaled = affine(both, torch.tensor(2.0), torch.tensor(-1.0), (0.0, 1.0))
    for target in (both, scaled):
        served = behind(target, STAGES)
        assert isinstance(served, PreprocessedPair)
        assert (served.access, served.surrogate) == (Access.GRADIENTS, True)
        assert rounds(served)
        assert torch.equal(served(IMAGES), target(STAGES[1](STAGES[0](IMAGES))))
        torch.testing.assert_close(served(IMAGES.clone().requires_grad_()) - 1, served(IMAGES))
        assert declared(served, stochastic=True).stochastic
    assert not rounds(behind(bare, STAGES))


def test_what_is_no_module_is_wrapped(bare: TorchTarget) -> None:
    asked = from_function(lambda x: bare(torch.from_numpy(x)).detach().numpy(), classes=10, output=Output.LOGITS)
    served = behind(asked, STAGES)
    assert isinstance(served, Preprocessed)
    assert torch.equal(served(IMAGES), Preprocessed(target=bare, transformations=STAGES)(IMAGES))


@pytest.mark.parametrize("stages", [(Median(size=2),), (BitDepth(bits=3),), STAGES])
def test_no_bounds_are_computed_behind_a_transformation(stages: tuple[Transformation, ...]) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
    y = torch.zeros(8, dtype=torch.int64)
    for target in (from_torch(net), pair(net)):
        with pytest.raises(
            NotCertifiableError, match=r"transformation of the inputs \(.*\), and do not hold behind it"
        ):
            certified(behind(target, stages), IMAGES, y, within=Linf(0.01))
    assert len(certified(from_torch(net), IMAGES, y, within=Linf(0.01)).certified) == 8
