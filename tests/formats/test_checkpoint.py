"""Pickled checkpoints: nothing without trust, tensors alone where tensors are all there is, the right names."""

from __future__ import annotations

from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from redan.errors import TargetError, TrainingModeError
from redan.formats.checkpoint import load_checkpoint


def network(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2)).eval()


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, aim: Path) -> None:
        self.aim = aim

    def __reduce__(self) -> Any:
        return Path.touch, (self.aim,)


def saved(found: object, tmp_path: Path) -> Path:
    torch.save(found, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def alike(one: nn.Module, other: nn.Module) -> bool:
    x = torch.rand(4, 3)
    return bool(torch.equal(one(x), other(x)))


@pytest.mark.parametrize("found", [Bomb, lambda aim: network().state_dict()], ids=["bomb", "weights"])
def test_without_trust_nothing_is_read(found: Any, tmp_path: Path) -> None:
    path = saved(found(tmp_path / "written"), tmp_path)
    with pytest.raises(TargetError, match=r"model\.pt is a pickle, .*safetensors.*--trust-pickle"):
        load_checkpoint(path, trust=False, module=network())
    assert not (tmp_path / "written").exists()


def test_the_remedy_works(tmp_path: Path) -> None:
    """The one line that the error shows makes a file that safetensors reads."""
    from safetensors.torch import load_file

    model, path = network(), saved(network().state_dict(), tmp_path)
    torch.save(model.state_dict(), path)
    with pytest.raises(TargetError) as caught:
        load_checkpoint(path, trust=False)
    line = str(caught.value).split("`")[1].replace("'weights.safetensors'", "out")
    out = tmp_path / "weights.safetensors"
    import safetensors.torch

    eval(line, {"safetensors": safetensors, "torch": torch, "path": path, "out": out})  # noqa: S307  # our own sentence
    assert set(load_file(out)) == set(model.state_dict())


WRAPPINGS = [
    lambda weights: weights,
    lambda weights: {"state_dict": weights, "epoch": 3},
    lambda weights: {"model": weights, "optimizer": {"lr": 0.1}},
    lambda weights: {"model_state_dict": weights},
    lambda weights: {"model": {"state_dict": weights}},
    lambda weights: {f"module.{name}": part for name, part in weights.items()},
    lambda weights: {"state_dict": {f"_orig_mod.module.{name}": part for name, part in weights.items()}},
    lambda weights: {"state_dict": {f"module._orig_mod.{name}": part for name, part in weights.items()}},
]


@pytest.mark.parametrize("wrap", WRAPPINGS)
def test_weights_are_found_where_they_lie(wrap: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read by the reader of tensors alone: the other one is not even asked."""
    asked = []
    load = torch.load

    def watched(*args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs["weights_only"])
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", watched)
    source, module = network(), network()
    made = load_checkpoint(saved(wrap(source.state_dict()), tmp_path), trust=True, module=module)
    assert made is module
    assert alike(module, source)
    assert asked == [True]


def test_a_module_saved_as_an_object_is_read_with_trust(tmp_path: Path) -> None:
    source = network()
    assert alike(load_checkpoint(saved(source, tmp_path), trust=True), source)
    module = network()
    assert load_checkpoint(saved(source, tmp_path), trust=True, module=module) is module
    assert alike(module, source)


def test_weights_among_other_objects_are_read_with_trust(tmp_path: Path) -> None:
    source, module = network(), network()
    path = saved({"args": Namespace(lr=0.1), "state_dict": source.state_dict()}, tmp_path)
    assert alike(load_checkpoint(path, trust=True, module=module), source)
    path = saved({"args": Namespace(lr=0.1), "model": source}, tmp_path)
    assert alike(load_checkpoint(path, trust=True, module=network()), source)


def test_a_module_in_training_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingModeError, match="in training mode"):
        load_checkpoint(saved(network().train(), tmp_path), trust=True)


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        (network(5).state_dict(), r"do not fit the module: 0\.weight is \(5, 3\) there and \(4, 3\) here; check"),
        (nn.Sequential(nn.Linear(3, 4)).state_dict(), r"it lacks 2\.bias, 2\.weight; check"),
        (
            OrderedDict(network().state_dict()) | {"3.weight": torch.ones(1)},
            r"it has beside them 3\.weight; check",
        ),
        ({f"net.{k}": v for k, v in network().state_dict().items()}, "it lacks .*and 1 more; it has beside .*net"),
        ({"epoch": 3}, "holds dict, and neither a module nor a state dict"),
        ([1, 2], "holds list, and neither"),
    ],
)
def test_what_does_not_fit_is_named(found: object, cause: str, tmp_path: Path) -> None:
    module = network()
    before = {name: part.clone() for name, part in module.state_dict().items()}
    with pytest.raises(TargetError, match=cause):
        load_checkpoint(saved(found, tmp_path), trust=True, module=module)
    assert all(torch.equal(part, before[name]) for name, part in module.state_dict().items())


def test_weights_alone_need_a_factory(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="holds weights alone; name a factory"):
        load_checkpoint(saved(network().state_dict(), tmp_path), trust=True)


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="there is no checkpoint .*; check the path"):
        load_checkpoint(tmp_path / "absent", trust=True)
    for name, data in {"text": b"no model", "empty": b"", "cut": saved(network(), tmp_path).read_bytes()[:900]}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(TargetError, match=rf"torch cannot read {name} \(.*\); save it again with torch.save"):
            load_checkpoint(tmp_path / name, trust=True)


def test_torchscript_is_named(tmp_path: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(network()), tmp_path / "model.pt")
    with pytest.raises(TargetError, match="is TorchScript; name it under torchscript, or call load_torchscript"):
        load_checkpoint(tmp_path / "model.pt", trust=True)
