"""The MLflow logger, against MLflow itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redan.assessment import assess
from redan.evidence.report import Report


def test_without_mlflow_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "redan.integrations.mlflow", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'redan\[mlflow\]'"):
        import redan.integrations.mlflow  # noqa: F401


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """MLflow with a store of its own in a folder."""
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow (tools/extras.sh)")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "tracking").as_uri())
    yield mlflow
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(before)


@pytest.fixture
def report(shop: Callable[..., Path], tmp_path: Path) -> Report:
    """28 of 32 rows hold against one attacker, who has an inconvenient name; another is not built."""
    path = shop(weak=4, attackers__0__name="anyone/../at 100 %", requirements__0__against="anyone/../at 100 %")
    return assess(path, out=tmp_path / "runs", workers=1)


pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # MLflow's own


@pytest.mark.extras
def test_rates_verdict_and_evidence_are_logged(tracking: Any, report: Report) -> None:
    from redan.integrations.mlflow import log_report

    with tracking.start_run() as run:
        log_report(report)
    found = tracking.get_run(run.info.run_id).data
    (part,) = report.requirements
    assert part.interval is not None
    key = "redan/robust_accuracy/anyone____at 100 _"
    assert found.metrics[f"{key}/rate"] == 28 / 32
    assert found.metrics[f"{key}/n"] == 32
    assert (found.metrics[f"{key}/low"], found.metrics[f"{key}/high"]) == (part.interval.low, part.interval.high)
    assert found.metrics["redan/clean_accuracy/rate"] == 1.0  # without a requirement of it
    assert found.tags["redan.verdict"] == report.verdict == "pass"
    assert found.tags["redan.verdict.robust_accuracy.anyone____at 100 _"] == "pass"
    assert found.tags["redan.digest.model"] == report.digests["model"]
    saved = Path(tracking.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="redan"))
    assert Report.model_validate_json((saved / "report.json").read_text()) == report
    assert (saved / report.run.id / "log").is_dir()
    assert list((saved / report.run.id / "inputs").iterdir())


@pytest.mark.extras
def test_two_reports_of_one_run_have_a_prefix_each(tracking: Any, report: Report) -> None:
    from redan.integrations.mlflow import log_report

    away = report.model_copy(update={"run": report.run.model_copy(update={"folder": "s3://bucket/runs/1"})})
    with tracking.start_run() as run:
        log_report(report, prefix="edge", evidence=False)
        log_report(away, prefix="cloud")
    found = tracking.get_run(run.info.run_id)
    assert {name.split("/")[0] for name in found.data.metrics} == {"edge", "cloud"}
    saved = Path(tracking.artifacts.download_artifacts(run_id=run.info.run_id))
    assert sorted(str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()) == [
        "cloud/report.json",
        "edge/report.json",
    ]


@pytest.mark.extras
def test_attackers_of_like_names_keep_their_own_figures(tracking: Any, report: Report) -> None:
    from redan.integrations.mlflow import log_report

    (first,) = report.attackers
    assert first.counts is not None
    second = first.model_copy(
        update={"name": "anyone?..?at 100 ?", "counts": first.counts.model_copy(update={"robust": 8, "broken": 24})}
    )
    with tracking.start_run() as run:
        log_report(report.model_copy(update={"attackers": [first, second]}), evidence=False)
    found = tracking.get_run(run.info.run_id).data.metrics
    rates = {name: value for name, value in found.items() if "robust_accuracy" in name and name.endswith("/rate")}
    assert sorted(rates.values()) == [8 / 32, 28 / 32]
