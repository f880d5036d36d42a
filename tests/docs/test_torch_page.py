"""docs/targets/torch.md: its programs run, and timm's calling convention goes through a factory as it says."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from redan.assessment import assess
from redan.errors import RedanError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "targets" / "torch.md"
_BLOCK = re.compile(r"^(<!-- extras -->\n)?```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = _BLOCK.findall(PAGE.read_text(encoding="utf-8"))
PYTHON = [(bool(extras), code) for extras, language, code in BLOCKS if language == "python"]


def run(code: str, names: dict[str, Any]) -> str:
    said = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(said):
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)  # the maker's side
        exec(compile(code, str(PAGE), "exec", dont_inherit=True), names)  # noqa: S102  # our own document
    return said.getvalue()


def test_its_programs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "torch_page"}
    said = "".join(run(code, names) for extras, code in PYTHON if not extras)
    broken, alike = re.findall(r"(\d+) of 16 rows", said)
    assert int(broken) >= 8
    assert int(alike) == 16
    assert said.endswith("True\n")
    assert set(load_file("weights.safetensors")) == set(names["model"].state_dict())


@pytest.mark.extras
def test_its_hugging_face_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers as hf

    names = {"id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 0, "dog": 1}}
    config = hf.ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], **names)
    monkeypatch.chdir(tmp_path)
    hf.ResNetForImageClassification(config).save_pretrained("folder")
    ((_, code),) = [block for block in PYTHON if block[0]]
    found: dict[str, Any] = {}
    assert run(code, found) == "('cat', 'dog') None\n"
    assert found["target"](torch.rand(4, 3, 16, 16)).shape == (4, 2)


TIMM = '''
from torch import nn


def create_model(model_name, pretrained=False, checkpoint_path="", scriptable=None, **kwargs):
    """As timm's: a name, switches, and whatever else the model's own builder takes."""
    assert (model_name, pretrained) == ("resnet18", False)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, kwargs["num_classes"]))
'''


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A threat model with the page's factory and arguments, a stand-in for timm, weights and rows."""
    (code,) = [code for _, code in PYTHON if code.startswith("# mine.py")]
    (said,) = [yaml.safe_load(code)["model"] for _, language, code in BLOCKS if language == "yaml"]
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "timm.py").write_text(TIMM)
    weights = {"2.weight": torch.eye(10, 12), "2.bias": torch.zeros(10)}
    save_file(weights, tmp_path / said["weights"])
    y = np.arange(20) % 10
    x = 0.3 + 0.4 * np.eye(10, 12, dtype=np.float32)[y]
    np.savez(tmp_path / "rows.npz", x=x.reshape(20, 3, 2, 2), y=y)
    document = {
        "redan": 1,
        "system": {
            "name": "timm",
            "task": "classification",
            "classes": 10,
            "model": said,
            "output": "logits",
            "inputs": {"kind": "image", "shape": [3, 2, 2], "bounds": [0, 1]},
            "data": {"test": {"path": "rows.npz"}},
        },
        "attackers": [
            {
                "name": "anyone",
                "kind": "evasion",
                "why": "open to all",
                "goal": "untargeted",
                "knowledge": "gradients",
                "change": {"linf": 0.25},
            }
        ],
        "attacks": {"mode": "quick"},
        "requirements": [{"metric": "robust_accuracy", "at_most": 0.5, "against": "anyone"}],
        "run": {"out": "runs"},
    }
    (tmp_path / "threat-model.yaml").write_text(yaml.safe_dump(document))
    yield tmp_path
    for name in ("mine", "timm"):
        sys.modules.pop(name, None)


def test_timms_calling_convention_goes_through_a_factory(folder: Path) -> None:
    report = assess(folder / "threat-model.yaml", workers=1)
    (attacker,) = report.attackers
    assert attacker.counts is not None
    assert (attacker.counts.right, attacker.counts.robust) == (20, 0)


def test_timms_own_function_is_refused_for_its_training_mode(folder: Path) -> None:
    path = folder / "threat-model.yaml"
    path.write_text(path.read_text().replace("mine:build", "timm:create_model"))
    with pytest.raises(RedanError, match=r"training mode.*call model\.eval\(\)"):
        assess(path, workers=1)


def test_every_way_in_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for key in ("factory", "torchscript", "export", "huggingface", "checkpoint"):
        assert f"`{{{key}: " in text
