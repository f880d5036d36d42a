"""examples/imagenet: a published model, real pictures, an ordinary threat model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from redan.assessment import assess
from redan.threat.file import read

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "imagenet"


def test_the_threat_model_is_valid() -> None:
    assert read(FOLDER / "threat-model.yaml").model.system.class_count == 1000


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_published_model_falls_to_one_step_a_pixel(tmp_path: Path) -> None:
    for package in ("PIL", "efficientnet_lite_pytorch"):
        pytest.importorskip(package, reason="needs the example's packages (tools/extras.sh)")
    shutil.copy(FOLDER / "imagenet.py", tmp_path)
    text = (FOLDER / "threat-model.yaml").read_text(encoding="utf-8")
    text = text.replace("queries_per_row: 300", "queries_per_row: 3")  # a minute less
    (tmp_path / "threat-model.yaml").write_text(text, encoding="utf-8")
    report = assess(tmp_path / "threat-model.yaml", out=tmp_path / "runs", workers=1)
    white, black = (attacker.counts for attacker in report.attackers)
    assert white is not None
    assert black is not None
    assert (white.drawn, white.right, white.robust) == (20, 18, 0)
    assert black.robust > 10  # three questions are too few
    assert report.exit_code == 1
