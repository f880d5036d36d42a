"""`redan harden`: every method trains and none makes it worse; broken off or not, the same bytes; weights that fit."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from redan.assessment.build import build
from redan.assessment.hardened import Choice, Outcome, Step, harden_file
from redan.assessment.recipes import Method, recipe
from redan.cli.app import run
from redan.cli.harden import _alarm
from redan.errors import SettingError
from redan.hardening import Alarm, SmoothAdv, Watch
from redan.hardening.loop import Loop
from redan.perturbations.norms import L2, Linf
from redan.threat.file import read

Write = Callable[..., Path]
Captured = pytest.CaptureFixture[str]
OWN = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, wide=24, probabilities=False, classes=3, one=False, trains=True, detached=False, drop=0):
        super().__init__()
        dropped = [nn.Dropout(drop)] if drop else []
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(7, wide), nn.ReLU(), *dropped, nn.Linear(wide, classes))
        self.probabilities, self.one, self.detached = probabilities, one, detached
        if not trains:
            self.requires_grad_(False)

    def forward(self, x):
        z = self.body(x.detach() if self.detached else x)
        if self.one:
            return z[:, 0]
        return z.softmax(1) if self.probabilities else z


def build(training=False, **how):
    return Net(**how).train(training)
"""


def _rows(count: int, seed: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    y = np.arange(count) % 3
    x = draw.uniform(0.3, 0.5, (count, 7))
    x[np.arange(count), 2 * y] += 0.3
    x[np.arange(count), 2 * y + 1] += 0.3
    return {"x": x.astype(np.float32), "y": y.astype(np.int64)}


@pytest.fixture
def own(shop: Write, tmp_path: Path) -> Write:
    """A threat model of a little network that is not trained, and rows that it can learn."""

    def write(*, train: dict[str, Any] | None = None, test: dict[str, Any] | None = None, **changed: Any) -> Path:
        (tmp_path / "own.py").write_text(OWN)
        np.savez(tmp_path / "train.npz", **(train or _rows(120, 1)))
        settings: dict[str, Any] = {
            "system__model": {"factory": "own:build"},
            "system__data__train": {"path": "train.npz"},
            "attackers__0__change": {"linf": 0.05},
        }
        settings = {key: value for key, value in (settings | changed).items() if value is not None}
        return shop(arrays=test or _rows(30, 2), **settings)

    return write


def _harden(path: Path, out: Path, *arguments: str) -> int:
    return run(["harden", str(path), "--out", str(out), "--batch", "16", *arguments])


def _library(path: Path, out: Path, **how: Any) -> Outcome:
    settings: dict[str, Any] = {"batch": 16, "epochs": 4, "rate": 0.02} | how
    return harden_file(path, Choice(**settings), out=out)


@pytest.mark.parametrize(
    "method", [m if m in (Method.PGD_AT, Method.IBP) else pytest.param(m, marks=pytest.mark.slow) for m in Method]
)
def test_every_method_makes_it_hold_better(own: Write, tmp_path: Path, method: Method) -> None:
    epochs = 12 if method in (Method.IBP, Method.CROWN_IBP) else 8
    found = _library(own(), tmp_path / "out", method=method, epochs=epochs)
    assert found.before.n == found.after.n == 24
    assert found.rows == 96
    assert found.after.robust > found.before.robust
    assert found.after.robust >= 18
    assert found.after.robust <= found.after.clean
    sure = found.after.robust_interval
    assert sure.low <= found.after.robust / 24 <= sure.high
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["epoch"] * len(found.hardened.epochs)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "training.json",
        "state.safetensors",
        "metrics.jsonl",
        "weights.safetensors",
    }


def test_one_epoch_from_the_command_line_says_before_and_after_and_what_next(
    own: Write, tmp_path: Path, capsys: Captured
) -> None:
    path = own()
    assert _harden(path, tmp_path / "out", "--epochs", "1", "--method", "fgsm-rs") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("HARDENED  shop, by fgsm-rs against anyone (linf: 0.05)\n")
    assert "before" in out
    assert "of 24" in out
    assert "alarm: the training was too short for it to look" in out
    assert "weights: out/weights.safetensors" in out
    assert f"redan assess {path}" in out


def test_the_weights_fit_the_factory_and_answer_as_the_hardened_model(own: Write, tmp_path: Path) -> None:
    found = _library(own(), tmp_path / "out")
    key, _, value = found.line.partition(": ")
    path = own(system__model={"factory": "own:build", key: value})
    loaded = read(path)
    built = build(loaded.model, loaded.folder)
    with torch.no_grad():
        assert torch.equal(built.target(built.x), found.hardened.model(built.x))
    assert run(["assess", str(path), "--preflight-only"]) == 0


@pytest.mark.parametrize("kind", ["normalized", "probabilities", "ranges"])
def test_the_model_is_trained_as_it_is_asked_in_an_assessment(own: Write, tmp_path: Path, kind: str) -> None:
    train, test, changed = _rows(120, 1), _rows(30, 2), dict[str, Any]()
    if kind == "normalized":
        norm = {"mean": [0.45] * 7, "std": [0.25] * 7}
        changed["system__inputs"] = {"kind": "tensor", "shape": [7], "bounds": [0, 1], "normalization": norm}
    elif kind == "probabilities":
        changed |= {"system__model": {"factory": "own:build", "arguments": {"probabilities": True}}}
        changed["system__output"] = "probabilities"
    else:
        changed["system__inputs"] = {"kind": "table"}
        for each in (train, test):
            each["x"] = each["x"] * 10 - 3
    path = own(train=train, test=test, **changed)
    found = _library(path, tmp_path / "out", epochs=6)
    assert found.after.robust > found.before.robust
    text = path.read_text().replace("factory: own:build", f"factory: own:build\n    {found.line}")
    path.write_text(text)
    loaded = read(path)
    built = build(loaded.model, loaded.folder)
    assert built.target.bounds == (0, 1)
    with torch.no_grad():
        ours = found.hardened.model(built.x.float()).log_softmax(1)
        theirs = built.target(built.x.to(built.target.dtype)).float().log_softmax(1)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def test_a_training_that_is_broken_off_goes_on_to_the_same_bytes(
    own: Write, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own()
    how = ["--epochs", "4", "--method", "trades", "--ema", "0.9", "--half", "--rate", "0.01", "--seed", "3"]
    assert _harden(path, tmp_path / "whole", *how) == 0
    step = Loop.step

    def stop(loop: Loop, x: Tensor, y: Tensor) -> None:
        if loop.steps == 14:  # in the third epoch
            raise KeyboardInterrupt
        step(loop, x, y)

    monkeypatch.setattr(Loop, "step", stop)
    capsys.readouterr()
    assert _harden(path, tmp_path / "broken", *how) == 130
    monkeypatch.undo()
    out, err = capsys.readouterr()
    assert out == ""
    told = "redan: interrupted; what was saved is kept, go on with: "
    assert err == f"{told}redan harden {path} --resume {tmp_path / 'broken'}\n"
    assert not (tmp_path / "broken" / "weights.safetensors").exists()
    assert run(shlex.split(err.removeprefix(told))[1:]) == 0
    for name in ("weights.safetensors", "state.safetensors"):
        one, other = (load_file(tmp_path / folder / name) for folder in ("whole", "broken"))
        assert one.keys() == other.keys()
        if name.startswith("weights"):
            assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()
    assert run(shlex.split(err.removeprefix(told))[1:]) == 0  # once more: it is over, and says the same


@pytest.mark.parametrize(
    ("changed", "arguments", "words"),
    [
        ({"system__data__train": None}, [], "system.data names no training rows"),
        ({"attackers__0__change": {"l1": 1.0}}, [], "no attacker of the file changes inputs within linf or l2"),
        ({}, ["--attacker", "nobody"], "there is no attacker 'nobody' in the file; it has anyone"),
        ({"attackers__0__change": {"l2": 0.2}}, ["--method", "ibp"], "ibp bounds changes in linf"),
        ({}, ["--sigma", "0.5"], "--sigma is for noise and smoothadv"),
        ({}, ["--method", "noise", "--sigma", "nan"], "finite sigma"),
        ({}, ["--epsilon", "0"], "--epsilon must be above 0"),
        ({}, ["--rate", "-1"], "--rate must be above 0"),
        ({}, ["--ema", "1.5"], "a decay must be from 0 to below 1"),
        ({}, ["--epochs", "0"], "--epochs"),
        ({}, ["--method", "magic"], "magic"),
        ({"train": {"x": np.zeros((3, 7)), "y": np.arange(3)}}, [], "too few to hold some out"),
        ({"train": {"x": np.full((30, 7), np.nan), "y": np.arange(30) % 3}}, [], "train holds NaN"),
        ({"train": {"x": np.full((30, 7), 3.0), "y": np.arange(30) % 3}}, [], "outside of inputs.bounds"),
        ({"train": {"x": np.zeros((30, 7)), "y": np.arange(30)}}, [], "there are 3 classes"),
        ({"system__model": {"onnx": "model.onnx"}}, [], "names a onnx alone"),
        ({"system__model": {"factory": "own:build", "arguments": {"training": True}}}, [], "in training mode"),
        ({"system__model": {"factory": "own:build", "arguments": {"trains": False}}}, [], "no parameters that can be"),
        (
            {"system__model": {"factory": "own:build", "arguments": {"detached": True}}},
            [],
            "have no gradient in its input",
        ),
        (
            {"system__model": {"factory": "own:build", "arguments": {"drop": 0.5}}},
            ["--method", "ibp"],
            "dropout has no",
        ),
        ({"system__model": {"factory": "own:build", "arguments": {"classes": 4}}}, [], "answered (2, 4) to 2 rows"),
        ({"system__model": {"factory": "own:build", "arguments": {"one": True}}}, [], "answered (2,) to 2 rows"),
        (
            {
                "system__model": {"factory": "own:build", "arguments": {"probabilities": True}},
                "system__output": "labels",
            },
            [],
            "system.output is labels",
        ),
    ],
)
def test_what_cannot_be_hardened_is_refused_in_one_sentence_and_leaves_nothing(
    own: Write, tmp_path: Path, capsys: Captured, changed: dict[str, Any], arguments: list[str], words: str
) -> None:
    assert _harden(own(**changed), tmp_path / "out", *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("redan: ")
    assert words in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_folders_are_not_mixed_up(own: Write, tmp_path: Path, capsys: Captured) -> None:
    path, out = own(), tmp_path / "out"
    assert run(["harden", str(path)]) == 2
    assert "say --out FOLDER" in capsys.readouterr().err
    assert _harden(path, out, "--epochs", "1") == 0
    capsys.readouterr()
    assert _harden(path, out, "--epochs", "1") == 2
    assert f"go on with --resume {out}" in capsys.readouterr().err
    assert run(["harden", str(path), "--resume", str(out), "--epochs", "2"]) == 2
    assert "--epochs 2 was asked for, and the training in" in capsys.readouterr().err
    assert run(["harden", str(path), "--resume", str(tmp_path / "none")]) == 2
    assert "holds no training" in capsys.readouterr().err
    assert run(["harden", str(own(train=_rows(120, 7))), "--resume", str(out)]) == 2
    assert "are not those that the training in" in capsys.readouterr().err
    (out / "training.json").write_text("{")
    assert run(["harden", str(path), "--resume", str(out)]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert _harden(path, tmp_path / "own.py") == 2
    assert "is a file; say a folder" in capsys.readouterr().err


def test_trusted_rows_are_held_out_where_there_are_some(own: Write, tmp_path: Path) -> None:
    path = own(system__data__trusted={"path": "rows.npz"})
    seen: list[Step] = []
    found = harden_file(path, Choice(epochs=1, batch=16), out=tmp_path / "out", watch=seen.append)
    assert (found.rows, found.after.n) == (120, 30)
    assert found.held_out == "of system.data.trusted"
    assert {step.doing for step in seen} == {
        "measuring the model as it is",
        "training",
        "measuring the hardened model",
    }
    told = [step.progress for step in seen if step.progress is not None]
    assert told[-1].batch == told[-1].batches == 8


def test_the_alarm_says_how_often_it_looked(
    own: Write, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own()
    assert _harden(path, tmp_path / "bounds", "--epochs", "1", "--method", "ibp") == 0
    out = capsys.readouterr().out
    assert "alarm: none is needed" in out
    assert out.endswith(f"  redan certify {path}\n")
    monkeypatch.setattr("redan.assessment.hardened._WATCH", Watch(every=2, rows=8))
    assert _harden(path, tmp_path / "steps", "--epochs", "1", "--method", "fgsm-at") == 0
    assert "alarm: it looked 3 times and did not ring" in capsys.readouterr().out
    monkeypatch.setattr(Watch, "rings", lambda self, readings: len(readings) == 2)
    assert _harden(path, tmp_path / "rung", "--epochs", "1", "--method", "fgsm-at") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "alarm in epoch 1: single steps leave" in out
    assert "on with a stronger attack, Ascent(steps=2" in out


def test_what_was_trained_for_a_proof_is_to_be_proven(own: Write, tmp_path: Path) -> None:
    path = own(attackers__0__change={"l2": 0.2})
    found = _library(path, tmp_path / "out", method=Method.SMOOTHADV, epochs=1)
    assert found.within == "l2: 0.2"
    assert found.proof == ("--method", "smoothing", "--sigma", "0.1")
    assert _library(path, tmp_path / "other", epochs=1, epsilon=0.1).within == "l2: 0.1"


def test_noise_has_a_size_of_its_own_in_each_norm() -> None:
    assert recipe(Method.NOISE, L2(0.5)).sigma == 0.25
    assert recipe(Method.NOISE, Linf(0.1)).sigma == 0.1
    made = recipe(Method.SMOOTHADV, L2(0.5), 1.0).objective
    assert isinstance(made, SmoothAdv)
    assert made.sigma == 1.0
    with pytest.raises(SettingError, match="is for noise and smoothadv"):
        recipe(Method.TRADES, L2(0.5), 1.0)


def test_an_alarm_is_said_in_words() -> None:
    alarm = Alarm(epoch=5, step=900, weak=0.9, strong=0.1, restored=800, remedy="Ascent(steps=2)")
    assert _alarm(alarm) == (
        "alarm in epoch 5: single steps leave 90 % right and 10 steps 10 % (catastrophic overfitting); back to the "
        "state after step 800, and on with a stronger attack, Ascent(steps=2)"
    )
    assert _alarm(Alarm(epoch=1, step=9, weak=0.9, strong=0.1, restored=None, remedy=None)).endswith(
        "no remedy was tried"
    )
