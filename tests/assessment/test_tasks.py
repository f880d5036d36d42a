"""Tasks beside one of many classes, and tables: what is right, what is broken, and how it is told and replayed.

The models are linear, so the share of rows that can be broken is known: a row breaks where its slack is below
ε times the weights' sum.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

import redan
from redan.assessment.replay import replay
from redan.errors import PreflightError, ThreatModelError

MODELS = '''
import torch
from torch import nn


class Linear(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        return x @ self.weight.to(x.dtype).T


class Odds(Linear):
    """One probability a row: of the second class."""

    def forward(self, x):
        return (super().forward(x)[:, 0] - 0.5).sigmoid()


class Signs(Linear):
    def forward(self, x):
        return super().forward(x) - 0.5


def build(kind, weight):
    return globals()[kind](weight).eval()
'''
WEIGHT = [[1.0, 0.0, 0.5], [0.0, 1.0, -0.5]]
EPS = 0.05
Made = Callable[..., Path]


def rows_of(seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0.1, 0.9, (40, 3))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Writes a model, its rows and a threat model; keywords change the system."""

    def write(x: NDArray[np.generic], y: NDArray[np.generic], goal: object = "untargeted", **system: object) -> Path:
        np.savez(tmp_path / "rows.npz", x=x, y=y)
        (tmp_path / "tasks_shop.py").write_text(MODELS)
        told: dict[str, object] = {
            "name": "shop",
            "inputs": {"kind": "tensor", "shape": [3], "bounds": [0, 1]},
            "data": {"test": {"path": "rows.npz"}},
            **system,
        }
        threat = {
            "redan": 1,
            "system": told,
            "attackers": [
                {
                    "name": "anyone",
                    "kind": "evasion",
                    "why": "inputs come from strangers",
                    "goal": goal,
                    "knowledge": "gradients",
                    "change": {"linf": EPS},
                }
            ],
            "requirements": [{"metric": "robust_accuracy", "at_least": 0.1}],
            "statistics": {"rows": 40},
            "run": {"out": str(tmp_path / "runs")},
        }
        path = tmp_path / "threat-model.yaml"
        path.write_text(yaml.safe_dump(threat, sort_keys=False))
        return path

    return write


def model(kind: str, weight: object = WEIGHT) -> dict[str, object]:
    return {"factory": "tasks_shop:build", "arguments": {"kind": kind, "weight": weight}}


def log_of(folder: str) -> list[dict[str, object]]:
    return [
        json.loads(line)
        for part in sorted(Path(folder, "log").glob("*.jsonl"))
        for line in part.read_text().splitlines()
    ]


def test_several_labels_a_row(made: Made) -> None:
    x = rows_of().astype(np.float32)
    z = x @ np.array(WEIGHT, dtype=np.float32).T - 0.5
    y = (z > 0).astype(np.int64)
    path = made(x, y, task="multilabel", classes=["wet", "cold"], output="logits", model=model("Signs"))
    report = redan.assess(path)
    counts = report.attackers[0].counts
    expected = int((np.abs(z) <= 1.5 * EPS).any(1).sum())

    assert counts is not None
    assert (counts.right, counts.broken) == (40, expected)
    assert 0 < expected < 40
    assert report.attackers[0].by_class == []
    row = next(line for line in log_of(report.run.folder) if line["event"] == "row" and line["status"] == "broken")
    assert row["before"] == row["y"] != row["after"]
    assert replay(report.run.folder, path).exit_code == 0


def test_a_label_that_the_attacker_names(made: Made) -> None:
    x = rows_of().astype(np.float32)
    z = x @ np.array(WEIGHT, dtype=np.float32).T - 0.5
    path = made(
        x,
        (z > 0).astype(np.int64),
        {"targeted": 1},
        task="multilabel",
        classes=2,
        output="logits",
        model=model("Signs"),
    )
    counts = redan.assess(path).attackers[0].counts
    assert counts is not None
    assert counts.broken == int((np.abs(z[:, 1]) <= 1.5 * EPS).sum())


def test_values(made: Made) -> None:
    x = rows_of().astype(np.float32)
    value = x @ np.array(WEIGHT[0])
    off = np.random.default_rng(1).uniform(-0.2, 0.2, 40)
    path = made(x, value + off, {"deviate": 0.15}, task="regression", output="value", model=model("Linear", WEIGHT[:1]))
    report = redan.assess(path)
    counts = report.attackers[0].counts
    right = np.abs(off) <= 0.15
    expected = int((right & (np.abs(off) + 1.5 * EPS > 0.15)).sum())

    assert counts is not None
    assert (counts.right, counts.broken) == (int(right.sum()), expected)
    assert 0 < expected < counts.right
    assert replay(report.run.folder, path).exit_code == 0


def test_one_probability_for_two_classes(made: Made) -> None:
    x = rows_of().astype(np.float32)
    z = x @ np.array(WEIGHT[0]) - 0.5
    path = made(
        x,
        (z > 0).astype(np.int64),
        task="classification",
        classes=["no", "yes"],
        output="probabilities",
        model=model("Odds", WEIGHT[:1]),
    )
    counts = redan.assess(path).attackers[0].counts
    assert counts is not None
    assert (counts.right, counts.broken) == (40, int((np.abs(z) <= 1.5 * EPS).sum()))


def test_a_table_is_scaled_to_its_columns_ranges(made: Made) -> None:
    """The same rows in other units: as many are broken at the same share of each column's range."""
    x = rows_of()
    width = np.array([1000.0, 1.0, 0.01])
    z = (x - 0.5) @ np.array(WEIGHT).T
    y = (z > 0).astype(np.int64)
    span = x.max(0) - x.min(0)
    expected = int((np.abs(z) <= EPS * (np.abs(WEIGHT) * span).sum(1)).any(1).sum())
    table = {"kind": "table"}
    scaled = made(
        x * width - 7,
        y,
        task="multilabel",
        classes=2,
        output="logits",
        inputs=table,
        model=model("Table", None),
    )
    shop = scaled.with_name("tasks_shop.py")
    shop.write_text(
        MODELS
        + f"""

class Table(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor({WEIGHT}, dtype=torch.float64))

    def forward(self, x):
        return ((x + 7) / torch.tensor({width.tolist()}, dtype=torch.float64) - 0.5) @ self.weight.T
"""
    )
    report = redan.assess(scaled)
    counts = report.attackers[0].counts
    assert counts is not None
    assert (counts.right, counts.broken) == (40, expected)
    assert any("scaled to its own range" in part.detail for part in report.preflight)
    assert replay(report.run.folder, scaled).exit_code == 0


def test_an_attacker_who_would_see_more_than_the_model_shows_is_refused(made: Made) -> None:
    x = rows_of().astype(np.float32)
    path = made(
        x, np.zeros(40, dtype=np.int64), task="classification", classes=2, output="labels", model=model("Classes")
    )
    path.with_name("tasks_shop.py").write_text(
        MODELS
        + """

class Classes(Linear):
    def forward(self, x):
        return super().forward(x).argmax(1)
"""
    )
    with pytest.raises(ThreatModelError, match="knowledge is gradients, but this model shows labels"):
        redan.assess(path)


def test_deviations_must_agree_and_detection_is_refused(made: Made) -> None:
    x = rows_of().astype(np.float32)
    path = made(x, x[:, 0], {"deviate": 0.15}, task="regression", output="value", model=model("Linear", WEIGHT[:1]))
    told = yaml.safe_load(path.read_text())
    told["attackers"].append({**told["attackers"][0], "name": "another", "goal": {"deviate": 0.3}})
    path.write_text(yaml.safe_dump(told))
    with pytest.raises(ThreatModelError, match="must be 0.15 as of attackers"):
        redan.assess(path)
    path.write_text(path.read_text().replace("regression", "detection"))
    with pytest.raises(ThreatModelError, match="does not attack detection, whose answers"):
        redan.assess(path)


@pytest.mark.parametrize(
    ("y", "message"),
    [(np.zeros((40, 3)), "0 or 1 for each of them"), (np.full((40, 2), 2), "0 or 1 for each of them")],
)
def test_labels_of_another_form_are_refused(made: Made, y: NDArray[np.generic], message: str) -> None:
    path = made(rows_of(), y, task="multilabel", classes=2, output="logits", model=model("Signs"))
    with pytest.raises(redan.errors.DataError, match=message):
        redan.assess(path)


def test_no_value_answered_right_is_refused(made: Made) -> None:
    x = rows_of().astype(np.float32)
    path = made(x, x[:, 0] + 9, {"deviate": 0.1}, task="regression", output="value", model=model("Linear", WEIGHT[:1]))
    with pytest.raises(PreflightError, match="no row is answered right"):
        redan.assess(path)
