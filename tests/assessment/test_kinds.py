"""Every kind of model file through a whole assessment: the same model gives the same verdict, whatever its file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import redan
from redan.assessment.assess import inspect
from redan.assessment.replay import replay
from redan.errors import TargetError, ThreatModelError

EPS = 0.08
Make = Callable[[Path, dict[str, object]], Path]


class Net(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.body(x) * self.scale
        return out


def rows() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    x = np.random.default_rng(0).uniform(0, 1, (48, 6)).astype(np.float32)
    with torch.no_grad():
        return x, Net().eval()(torch.from_numpy(x)).argmax(1).numpy()


def threat_model(folder: Path, model: dict[str, object], *, knowledge: str = "gradients", **system: object) -> Path:
    x, y = rows()
    np.savez(folder / "rows.npz", x=x, y=y)
    told = {
        "redan": 1,
        "system": {
            "name": "shop",
            "task": "classification",
            "classes": 3,
            "model": model,
            "output": "logits",
            "inputs": {"kind": "tensor", "shape": [6], "bounds": [0, 1]},
            "data": {"test": {"path": "rows.npz"}},
            **system,
        },
        "attackers": [
            {
                "name": "anyone",
                "kind": "evasion",
                "why": "inputs come from strangers",
                "goal": "untargeted",
                "knowledge": knowledge,
                "change": {"linf": EPS},
            }
        ],
        "requirements": [{"metric": "robust_accuracy", "at_least": 0.1}],
        "run": {"out": "runs"},
    }
    path = folder / "threat-model.yaml"
    path.write_text(yaml.safe_dump(told, sort_keys=False))
    return path


def scripted(folder: Path) -> dict[str, object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Net().eval()), folder / "model.pt")
    return {"torchscript": "model.pt"}


def exported(folder: Path) -> dict[str, object]:
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(Net().eval(), (torch.rand(4, 6),), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "model.pt2")
    return {"export": "model.pt2"}


def checkpoint(folder: Path) -> dict[str, object]:
    torch.save({"state_dict": Net().state_dict()}, folder / "model.ckpt")
    (folder / "kinds_shop.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.body = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))\n\n"
        "    def forward(self, x):\n        return self.body(x)\n\n\ndef build():\n    return Net().eval()\n"
    )
    return {"checkpoint": "model.ckpt", "factory": "kinds_shop:build"}


def broken_by_hand() -> int:
    """Of the very network, as a module."""
    x, y = rows()
    found = redan.robust_accuracy(Net().eval(), torch.from_numpy(x), torch.from_numpy(y), within=redan.Linf(EPS))
    return found.clean - found.k


@pytest.mark.parametrize("made", [scripted, pytest.param(exported, marks=pytest.mark.slow), checkpoint])
def test_the_same_network_in_another_file(made: Callable[[Path], dict[str, object]], tmp_path: Path) -> None:
    path = threat_model(tmp_path, made(tmp_path))
    trust = made is checkpoint
    if trust:
        with pytest.raises(TargetError, match="--trust-pickle"):
            redan.assess(path)
    report = redan.assess(path, trust_pickle=trust)
    counts = report.attackers[0].counts
    assert counts is not None
    assert counts.broken == broken_by_hand() > 0
    assert replay(report.run.folder, path, trust_pickle=trust).exit_code == 0


def test_another_graph_with_the_same_weights_is_another_model(tmp_path: Path) -> None:
    digests = set()
    for scale in (1.0, -1.0):
        folder = tmp_path / str(scale)
        folder.mkdir()
        program = torch.export.export(Net(scale).eval(), (torch.rand(4, 6),))
        torch.export.save(program, folder / "model.pt2")
        digests.add(inspect(threat_model(folder, {"export": "model.pt2"})).digests["model"])
    assert len(digests) == 2


@pytest.mark.extras
@pytest.mark.parametrize("knowledge", ["gradients", "scores"])
def test_onnx(tmp_path: Path, knowledge: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            Net().eval(), (torch.rand(4, 6),), tmp_path / "model.onnx", dynamo=False, input_names=["x"],
            dynamic_axes={"x": {0: "batch"}},
        )  # fmt: skip
    path = threat_model(tmp_path, {"onnx": "model.onnx"}, knowledge=knowledge)
    report = redan.assess(path)
    counts = report.attackers[0].counts
    assert counts is not None
    assert (counts.broken == broken_by_hand()) if knowledge == "gradients" else (0 < counts.broken <= broken_by_hand())
    assert replay(report.run.folder, path).exit_code == 0


@pytest.mark.extras
def test_huggingface_brings_its_own_normalization(tmp_path: Path) -> None:
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(
        num_channels=1, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=3
    )
    made = ResNetForImageClassification(config).eval()
    made.save_pretrained(tmp_path / "resnet")
    (tmp_path / "resnet" / "preprocessor_config.json").write_text(
        '{"do_rescale": true, "do_normalize": true, "image_mean": [0.5], "image_std": [0.25]}'
    )
    inputs = {"kind": "image", "shape": [1, 8, 8], "bounds": [0, 1]}
    path = threat_model(tmp_path, {"huggingface": "resnet"}, inputs=inputs)
    x = np.random.default_rng(1).uniform(0, 1, (24, 1, 8, 8)).astype(np.float32)
    with torch.no_grad():
        y = made(pixel_values=(torch.from_numpy(x) - 0.5) / 0.25).logits.argmax(1).numpy()
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    counts = redan.assess(path).attackers[0].counts
    assert counts is not None
    assert counts.right == 24
    assert counts.broken > 0


@pytest.mark.extras
def test_a_surrogate_of_another_kind_is_climbed_or_refused(tmp_path: Path) -> None:
    import skops.io
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    path = threat_model(tmp_path, scripted(tmp_path))
    told = yaml.safe_load(path.read_text())
    told["attackers"][0] |= {"knowledge": "surrogate", "surrogates": [{"sklearn": "linear.skops"}]}
    path.write_text(yaml.safe_dump(told))
    x, y = rows()
    y[:3] = [0, 1, 2]  # each class is there, so that the copy has as many
    skops.io.dump(LogisticRegression().fit(x, y), tmp_path / "linear.skops")
    counts = redan.assess(path).attackers[0].counts
    assert counts is not None
    assert 0 < counts.broken <= broken_by_hand()
    skops.io.dump(GradientBoostingClassifier(n_estimators=2, random_state=0).fit(x, y), tmp_path / "linear.skops")
    with pytest.raises(ThreatModelError, match=r"surrogates\[0\] shows scores alone"):
        redan.assess(path)
