"""Any module as a target: what is declared once, what is refused, and that nothing about the module changes."""

import pytest
import torch
from torch import Tensor, nn

from redan.errors import SettingError, TargetError, TrainingModeError
from redan.formats.modes import refuse_training
from redan.protocols import Access
from redan.targets import Output, as_target, from_torch
from redan.targets.torch import unchanged


def model() -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(4 * 16, 5))
    return net.eval()


X = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def test_a_target_answers_as_its_module_does() -> None:
    net = model()
    target = from_torch(net, classes=5)

    assert torch.equal(target(X), net(X))
    assert target.access is Access.GRADIENTS
    assert (target.bounds, target.classes, target.stochastic) == ((0.0, 1.0), 5, False)
    assert target.differentiable
    assert not target.surrogate


def test_normalization_is_inside_the_target() -> None:
    net = model()
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    by_hand = (X - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    assert torch.allclose(from_torch(net, normalization=(mean, std))(X), net(by_hand), atol=1e-5)


@pytest.mark.parametrize("wrong", [((0.5,), (0.0,)), ((0.5,), (-1.0,)), ((0.5, 0.5), (0.5,))])
def test_impossible_normalizations_are_refused(wrong: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
    with pytest.raises(SettingError, match="standard deviations"):
        from_torch(model(), normalization=wrong)


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.5, 0.5)])
def test_impossible_bounds_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(SettingError, match="bounds must be"):
        from_torch(model(), bounds=bounds)


def test_probabilities_become_logits() -> None:
    """Up to a constant in each row, which no loss and no goal sees; and a probability of 0 stays finite."""
    net = model()
    target = from_torch(nn.Sequential(net, nn.Softmax(1)).eval(), output=Output.PROBABILITIES)
    difference = target(X) - net(X)

    assert torch.allclose(difference, difference[:, :1].expand_as(difference), atol=1e-4)
    sure = from_torch(nn.Sequential(nn.Flatten(), nn.Threshold(2.0, 0.0)).eval(), output=Output.PROBABILITIES)
    assert bool(sure(X).isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_parameters_type_rules(dtype: torch.dtype) -> None:
    target = from_torch(model().to(dtype), normalization=((0.5,) * 3, (0.5,) * 3))

    assert target.dtype == dtype
    assert target(X.to(dtype)).dtype == dtype
    assert from_torch(nn.Flatten().eval()).dtype == torch.float32


@pytest.mark.parametrize("path", ["", "0", "1", "3"])
def test_training_mode_anywhere_is_refused_by_name(path: str) -> None:
    net = model()
    net.get_submodule(path).training = True

    with pytest.raises(TrainingModeError, match=rf"1 submodule.*{path or 'the module itself'} \(.*model.eval"):
        from_torch(net)
    assert net.get_submodule(path).training


def test_a_long_list_is_cut() -> None:
    with pytest.raises(TrainingModeError, match=r"6 submodule.* and 3 more"):
        refuse_training(model().train())


def test_a_target_whose_module_went_back_to_training_is_refused() -> None:
    net = model()
    target = from_torch(net)
    net.train()

    with pytest.raises(TrainingModeError):
        as_target(target, None)


def test_a_ready_target_keeps_its_bounds() -> None:
    target = from_torch(model(), bounds=(-1, 1))

    assert as_target(target, None) is target
    assert as_target(target, (-1, 1)) is target
    with pytest.raises(SettingError, match="own bounds"):
        as_target(target, (0, 1))
    assert as_target(model(), (0.0, 255.0)).bounds == (0.0, 255.0)


def test_nothing_changed_is_no_complaint() -> None:
    net = model()
    with unchanged(from_torch(net)):
        net(X)
    with unchanged(object()):
        pass


@pytest.mark.parametrize("what", ["mode", "flag", "gradient"])
def test_what_a_forward_changes_is_named_and_put_back(what: str) -> None:
    net = model()
    weight = net.get_submodule("4").weight
    assert isinstance(weight, Tensor)

    def change() -> None:
        if what == "mode":
            net.get_submodule("4").train()
        elif what == "flag":
            weight.requires_grad_(False)
        else:
            net(X).sum().backward()

    with pytest.raises(TargetError, match=r"4|0\.weight"), unchanged(from_torch(net)):
        change()
    assert not any(part.training for part in net.modules())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_flags_that_were_unusual_before_are_kept() -> None:
    net = model()
    frozen = net.get_submodule("0").requires_grad_(False)
    with unchanged(from_torch(net)):
        pass

    assert not any(p.requires_grad for p in frozen.parameters())


def test_an_error_inside_is_the_one_that_is_raised() -> None:
    net = model()

    def fail() -> None:
        net.train()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), unchanged(from_torch(net)):
        fail()
    assert not net.training
