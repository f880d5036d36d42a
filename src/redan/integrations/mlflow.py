"""An assessment in MLflow: its rates as metrics, its verdict as tags, its evidence as artifacts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from redan.evidence.extracted import ExtractionPart
from redan.evidence.folder import is_url
from redan.evidence.poisoned import PoisoningPart
from redan.evidence.report import AttackerPart, Report, RequirementPart
from redan.evidence.requirement import Metric, Requirement
from redan.evidence.verdict import judge

try:
    import mlflow
except ModuleNotFoundError as error:
    raise ImportError("logging to MLflow needs the package mlflow; run: pip install 'redan[mlflow]'") from error

__all__ = ["log_report"]

_TAG, _NAME = 5000, 100  # the longest tag that every MLflow store takes; a name that leaves room in a key of 250


def log_report(report: Report, *, prefix: str = "redan", evidence: bool = True) -> None:
    """Log a report into the active MLflow run; without one MLflow begins one, as it does for any metric.

    Metrics, `<prefix>/<metric>/<attacker>/…` with what the name may not hold as "_": rate (k / n; rows that errored or
    stayed undecided count as broken), low and high (the two-sided interval at the report's confidence), n, errors,
    undecided. Clean accuracy and the robust accuracy against each attacker that was assessed are there in any case, and
    of one who changes training rows what the strongest poison does at the whole share (n: victims); of one who copies
    the model what the strongest extractor's whole budget buys (n: copies; queries and usd: what a copy takes). Other
    metrics where the report has a requirement of them. Tags, `<prefix>.…`: verdict, exit_code, reasons, run,
    mode, seed, digests, and the verdict of each requirement. Artifacts, below `<prefix>/`: report.json and, if
    `evidence`, the run folder under its id, unless it lies elsewhere than on this machine.

    prefix: another one for each report of the same MLflow run.
    """
    metrics, tags = _metrics(report, prefix), _tags(report, prefix)
    mlflow.log_metrics(metrics)
    mlflow.set_tags({key: value[:_TAG] for key, value in tags.items()})
    mlflow.log_text(report.model_dump_json(indent=2) + "\n", f"{prefix}/report.json")
    if evidence and not is_url(report.run.folder) and Path(report.run.folder).is_dir():
        mlflow.log_artifacts(report.run.folder, f"{prefix}/{report.run.id}")


def _metrics(report: Report, prefix: str) -> dict[str, float]:
    """Every rate with its interval and counts, by MLflow's name."""
    assessed = [part.name for part in report.attackers if part.assessed and part.counts is not None]
    always = [Requirement(metric=Metric.ROBUST_ACCURACY, at_least=0.0, against=name) for name in assessed]
    if assessed:
        always.append(Requirement(metric=Metric.CLEAN_ACCURACY, at_least=0.0))
    names = _names(report)
    found = {
        f"{metric}/{names[part.name]}": figures for part in report.attackers for metric, figures in _of_models(part)
    }
    judged = (*judge(report, always).requirements, *report.requirements)
    for part in judged:
        key = _key(part, names, "/")
        found[key] = found.get(key, {}) | _figures(part)
    return {
        f"{prefix}/{key}/{figure}": float(value)
        for key, figures in found.items()
        for figure, value in figures.items()
        if value is not None
    }


def _of_models(part: AttackerPart) -> Iterator[tuple[str, dict[str, float | None]]]:
    """What was measured over trained models."""
    if part.poisoning is not None:
        yield from _poisoned(part.poisoning)
    if part.extraction is not None:
        yield from _copied(part.extraction)


def _poisoned(part: PoisoningPart) -> Iterator[tuple[str, dict[str, float | None]]]:
    """What the victims of the strongest poison do at the attacker's whole share."""
    strongest = next((each for each in part.poisoners if each.name == part.strongest and each.points), None)
    if strongest is None:
        return
    point = strongest.points[0]
    success = Metric.BACKDOOR_SUCCESS if part.goal == "backdoor" else Metric.ATTACK_SUCCESS_RATE
    for metric, mean in ((success, point.success), (Metric.POISONED_ACCURACY, point.accuracy)):
        if mean is not None:
            known = {"rate": mean.value, "low": mean.low, "high": mean.high}
            n = len(mean.each) + point.errors + point.undecided
            yield metric, {**known, "n": n, "errors": point.errors, "undecided": point.undecided}


def _copied(part: ExtractionPart) -> Iterator[tuple[str, dict[str, float | None]]]:
    """What the copies of the strongest extractor do that the attacker's whole budget buys."""
    strongest = next((each for each in part.extractors if each.name == part.strongest and each.points), None)
    if strongest is None:
        return
    point = strongest.points[0]
    fidelity = next((each.fidelity for each in point.compared if each.rows == part.rows), None)
    transfer = None if point.transfer is None else point.transfer.success
    for metric, mean in ((Metric.EXTRACTION_FIDELITY, fidelity), (Metric.TRANSFER_SUCCESS, transfer)):
        if mean is not None:
            known = {"rate": mean.value, "low": mean.low, "high": mean.high, "queries": point.paid, "usd": point.usd}
            n = len(mean.each) + point.errors + point.undecided
            yield metric, {**known, "n": n, "errors": point.errors, "undecided": point.undecided}


def _figures(part: RequirementPart) -> dict[str, float | None]:
    return {
        "rate": part.value,
        "low": None if part.interval is None else part.interval.low,
        "high": None if part.interval is None else part.interval.high,
        "n": part.n,
        "errors": part.errors,
        "undecided": part.undecided,
    }


def _tags(report: Report, prefix: str) -> dict[str, str]:
    names = _names(report)
    said = {
        "verdict": str(report.verdict),
        "exit_code": str(report.exit_code),
        "reasons": "\n".join(report.reasons),
        "run": report.run.id,
        "mode": report.run.mode,
        "seed": str(report.run.seed),
        **{f"digest.{name}": digest or "" for name, digest in report.digests.items()},
        **{f"verdict.{_key(part, names, '.')}": str(part.verdict) for part in report.requirements},
    }
    return {f"{prefix}.{name}": value for name, value in said.items()}


def _key(part: RequirementPart, names: dict[str, str], between: str) -> str:
    """The metric, and the attacker where one is named."""
    return part.metric if part.against is None else f"{part.metric}{between}{names[part.against]}"


def _names(report: Report) -> dict[str, str]:
    """The attackers' names as MLflow takes them: unlike each other, and no path."""
    found: dict[str, str] = {}
    for number, attacker in enumerate(report.attackers):
        name = re.sub(r"[^\w\- ]", "_", attacker.name)[:_NAME]
        found[attacker.name] = f"{name} {number}" if name in found.values() else name
    return found
