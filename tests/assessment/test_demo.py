"""The README's demo says what `robust_accuracy` says on the same rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from redan.assessment import assess
from redan.evidence.folder import RunFolder
from redan.evidence.inputs import saved_inputs
from redan.evidence.log import RowLine
from redan.perturbations.norms import Linf
from redan.robustness import robust_accuracy
from redan.samples import fashion_mnist, model

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "fashion"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "verdict"), [("natural", "fail"), ("robust", "pass")])
def test_demo_equals_robust_accuracy(name: str, verdict: str, tmp_path: Path) -> None:
    report = assess(EXAMPLES / f"{name}.yaml", out=tmp_path)
    assert report.verdict == verdict
    folder = RunFolder.open(report.run.folder)
    rows = sorted((line for line in folder.lines() if isinstance(line, RowLine)), key=lambda line: line.row)
    index = [row.index for row in rows]
    x, y = fashion_mnist()
    score = robust_accuracy(model(name), x[index], y[index], within=Linf(0.1), mode="default", seed=0, workers=1)
    (requirement,) = (r for r in report.requirements if r.metric == "robust_accuracy")
    assert (requirement.k, requirement.n) == (score.k, score.n)
    assert requirement.value == score.value
    counts = report.attackers[0].counts
    assert counts is not None
    assert counts.right == score.clean
    assert {a.name: a.broken for a in report.attackers[0].attacks} == score.by
    saved = dict(saved_inputs(folder, "anyone with a camera", range(len(rows))))
    assert torch.equal(torch.stack([saved[row.row] for row in rows]), score.outcomes.x)
