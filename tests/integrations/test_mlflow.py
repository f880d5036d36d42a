"""The MLflow logger, against MLflow itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redan.assessment import assess
from redan.evidence.base import MeanPart
from redan.evidence.extracted import BudgetPart, ComparedPart, ExtractionPart, ExtractorPart, TransferPart
from redan.evidence.poisoned import PointPart, PoisonerPart, PoisoningPart
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


def over(*each: float) -> MeanPart:
    value = sum(each) / len(each)
    ends = {"low": value - 0.1, "high": value + 0.1}
    return MeanPart(value=value, **ends, confidence=0.95, method="student-t", rows=100, each=list(each))


@pytest.mark.extras
def test_the_strongest_poison_is_logged_and_one_that_could_not_be_tried_is_not(tracking: Any, report: Report) -> None:
    from redan.integrations.mlflow import log_report

    none = dict.fromkeys(("clean_success", "clean_accuracy", "equivalence"))
    point = PointPart(
        **{"share": 0.01, "used": 0.01, "changed": 6, "victims": 2, "errors": 1, "undecided": 0},
        success=over(0.9, 0.7),
        accuracy=over(0.6, 0.8),
        **none,
    )
    weaker = point.model_copy(update={"success": over(0.2, 0.2)})
    told: dict[str, Any] = {"settings": "", "techniques": [], "status": "done", "reason": None, "breaks_at": None}
    part = PoisoningPart(
        goal="backdoor",
        poisoners=[PoisonerPart(name=name, points=[p], **told) for name, p in (("blend", weaker), ("patch", point))],
        strongest="patch",
        **{"detectors": [], "sources": [], "repairs": [], "trigger": None, "certificate": None, "notes": []},
    )
    (first,) = report.attackers
    empty: dict[str, Any] = {"counts": None, "attacks": [], "by_class": [], "curve": [], "kind": "poisoning"}
    supplier = first.model_copy(update={**empty, "name": "supplier", "poisoning": part})
    nothing = part.model_copy(update={"poisoners": [], "strongest": None})
    other = supplier.model_copy(update={"name": "other", "poisoning": nothing})
    with tracking.start_run() as run:
        log_report(report.model_copy(update={"attackers": [first, supplier, other]}), evidence=False)
    found = tracking.get_run(run.info.run_id).data.metrics
    assert found["redan/backdoor_success/supplier/rate"] == pytest.approx(0.8)
    assert found["redan/backdoor_success/supplier/low"] == pytest.approx(0.7)
    assert (found["redan/poisoned_accuracy/supplier/n"], found["redan/poisoned_accuracy/supplier/errors"]) == (3, 1)
    assert found["redan/poisoned_accuracy/supplier/high"] == pytest.approx(0.8)
    assert [name for name in found if "robust_accuracy/supplier" in name or "other" in name] == []
    assert found["redan/robust_accuracy/anyone____at 100 _/rate"] == 28 / 32
    assert found["redan/clean_accuracy/rate"] == 1.0


@pytest.mark.extras
def test_the_strongest_copies_are_logged_with_what_they_cost(tracking: Any, report: Report) -> None:
    from redan.integrations.mlflow import log_report

    of = ComparedPart(
        **{"rows": "test", "n": 100, "unanswered": 0, "accuracy": None, "model_accuracy": None, "worst": 0.5},
        fidelity=over(0.9, 0.7),
    )
    use = TransferPart(
        **{"success": over(0.3, 0.5), "rows": 100, "errors": 0, "queries": 100.0, "usd": 3.3, "usd_per_success": 0.08}
    )
    point = BudgetPart(
        **{
            "queries": 2000,
            "paid": 2000.0,
            "usd": 3.0,
            "days": 2.0,
            "saves": 545.0,
            "copies": 2,
            "errors": 1,
            "undecided": 0,
        },
        compared=[of],
        transfer=use,
    )
    weaker = point.model_copy(update={"compared": [of.model_copy(update={"fidelity": over(0.2, 0.2)})]})
    told: dict[str, Any] = {"settings": "", "techniques": [], "status": "done", "reason": None, "milestones": []}
    extractors = [ExtractorPart(name=name, points=[p], **told) for name, p in (("b", weaker), ("a", point))]
    part = ExtractionPart(
        **{"goal": "transfer", "rows": "test", "transfer": "anyone", "answers": "labels", "pool": "noise"},
        **{"usd_per_1000_queries": 1.5, "queries_per_day": 1000.0, "direct": None, "notes": []},
        extractors=extractors,
        strongest="a",
    )
    (first,) = report.attackers
    empty: dict[str, Any] = {"counts": None, "attacks": [], "by_class": [], "curve": [], "kind": "extraction"}
    customer = first.model_copy(update={**empty, "name": "customer", "extraction": part})
    nothing = part.model_copy(update={"extractors": [], "strongest": None})
    other = customer.model_copy(update={"name": "other", "extraction": nothing})
    with tracking.start_run() as run:
        log_report(report.model_copy(update={"attackers": [first, customer, other]}), evidence=False)
    found = tracking.get_run(run.info.run_id).data.metrics
    alike = {name.rsplit("/")[-1]: value for name, value in found.items() if "extraction_fidelity/customer" in name}
    assert alike == pytest.approx(
        {"rate": 0.8, "low": 0.7, "high": 0.9, "n": 3, "errors": 1, "undecided": 0, "queries": 2000, "usd": 3.0}
    )
    assert found["redan/transfer_success/customer/rate"] == pytest.approx(0.4)
    assert [name for name in found if "robust_accuracy/customer" in name or "other" in name] == []
    assert found["redan/clean_accuracy/rate"] == 1.0
