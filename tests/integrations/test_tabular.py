"""examples/tabular: models from their files to a verdict, held to the closed form of the linear one."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redan.assessment import assess
from redan.errors import ThreatModelError
from redan.threat.file import read

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "tabular"
README = (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["sklearn", "xgboost"])
def test_the_threat_models_are_valid_and_the_page_names_what_they_ask(name: str) -> None:
    model = read(FOLDER / f"{name}.yaml").model
    assert model.system.class_count == 2
    for requirement in model.requirements:
        assert f"{requirement.metric} ≥ {requirement.at_least:.2f}" in README
    assert all(attacker.name in README for attacker in model.attackers)
    assert f"redan assess examples/tabular/{name}.yaml" in README


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the threat models and all that train.py writes."""
    folder = tmp_path_factory.mktemp("tabular")
    for name in ("sklearn.yaml", "xgboost.yaml"):
        shutil.copy(FOLDER / name, folder)
    subprocess.run([sys.executable, str(FOLDER / "train.py"), str(folder)], check=True, timeout=120)
    return folder


def robust_rows(folder: Path, radius: float) -> int:
    """How many rows no change within the radius can turn: each column moves by its share against its weight."""
    from redan.formats.skops_file import load_skops

    pipeline = load_skops(folder / "sklearn.skops")
    with np.load(folder / "test.npz") as file:
        x, y = file["x"], file["y"]
    low, width = x.min(0), np.ptp(x, axis=0)
    unit, toward = (x - low) / width, np.sign(pipeline[-1].coef_[0]) * np.where(y == 1, -1, 1)[:, None]
    worst = (unit + radius * toward).clip(0, 1) * width + low
    return int((pipeline.predict(worst) == y).sum())


def counts(report: Any) -> list[tuple[int, int, int]]:
    return [(found.drawn, found.right, found.robust) for found in (each.counts for each in report.attackers)]


@pytest.mark.extras
def test_the_pipeline_falls_exactly_as_far_as_a_linear_model_can(trained: Path, tmp_path: Path) -> None:
    report = assess(trained / "sklearn.yaml", out=tmp_path / "runs", workers=1)
    by_scores, by_gradients = counts(report)
    truth = robust_rows(trained, 0.05)
    assert by_gradients == (228, robust_rows(trained, 0.0), truth)
    assert truth <= by_scores[2] <= truth + 5
    assert report.exit_code == 0
    assert f"{truth} of 228" in README
    told = [f"{robust_rows(trained, radius)} at {radius:g}" for radius in (0.0125, 0.025, 0.0375, 0.05)]
    assert all(figure in re.sub(r"\s+", " ", README) for figure in told)
    assert f"{robust_rows(trained, 0.1)} of the 228 rows" in README


@pytest.mark.extras
def test_the_trees_are_attacked_by_their_scores(trained: Path, tmp_path: Path) -> None:
    report = assess(trained / "xgboost.yaml", out=tmp_path / "runs", workers=1)
    ((drawn, right, robust),) = counts(report)
    assert (drawn, report.exit_code) == (228, 0)
    assert f"{right} of 228" in README
    assert robust < right - 20


@pytest.mark.extras
def test_gradients_of_trees_are_refused_in_one_sentence(trained: Path, tmp_path: Path) -> None:
    text = (trained / "xgboost.yaml").read_text(encoding="utf-8")
    text = re.sub(r"\n +capability: .*", "", text).replace("knowledge: scores", "knowledge: gradients")
    (trained / "climbed.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ThreatModelError, match="knowledge is gradients, but this model shows scores"):
        assess(trained / "climbed.yaml", out=tmp_path / "runs", workers=1)
