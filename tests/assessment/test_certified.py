"""Certified accuracy in an assessment: counts in closed form, verdicts, resume, replay, and proofs beside attacks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import redan
from redan.assessment import certified as stage
from redan.assessment.certifying import certify
from redan.assessment.forecast import forecast
from redan.assessment.provers import Bounds, Proven
from redan.assessment.replay import replay
from redan.cli.app import run as cli
from redan.errors import EvidenceError
from redan.evidence.report import AttackerPart, Diagnosis, Doubt, Report, RequirementPart, Verdict
from redan.evidence.requirement import Metric, Requirement
from redan.evidence.statistics import lower_bound, upper_bound
from redan.report.html import render as as_html
from redan.report.markdown import render as as_markdown

Write = Callable[..., Path]
ASKED = {"metric": "certified_accuracy", "at_least": 0.5, "against": "anyone"}


def asking(shop: Write, at_least: float = 0.5, **changed: Any) -> Path:
    """A shop of whose model certified accuracy is required beside robust accuracy: 23 of 32 rows have it."""
    return shop(
        **{"weak": 9, "requirements__0__at_least": 0.4, **changed}, requirements__1=ASKED | {"at_least": at_least}
    )


def required(report: Report) -> RequirementPart:
    (found,) = [part for part in report.requirements if part.metric is Metric.CERTIFIED_ACCURACY]
    return found


def under_attack(report: Report) -> AttackerPart:
    (found,) = report.attackers
    return found


def events(report: Report) -> list[str]:
    text = "".join(file.read_text() for file in sorted(Path(report.run.folder).glob("log/*.jsonl")))
    return [json.loads(line)["event"] for line in text.splitlines()]


# -- counts and verdicts -------------------------------------------------------------------------------------


def test_rows_are_proven_as_redan_certify_does_and_the_verdict_is_exact(shop: Write) -> None:
    path = asking(shop)
    report = redan.assess(path, workers=1)
    part, found = required(report), under_attack(report).certified
    (line,) = certify(path, workers=1).lines
    assert found is not None
    assert (found.norm, found.radius, found.certified, found.open, found.broken) == ("linf", 0.1, line.k, line.open, 0)
    assert (found.drawn, found.right, found.missing, found.contradicted, found.reason) == (32, 32, 0, 0, None)
    assert (found.completeness, found.certainty, found.verifier) == (line.completeness, line.certainty, line.verifier)
    assert line.k == 23
    assert part.certified is not None
    assert (part.certified.k, part.certified.n, part.k, part.n, part.undecided) == (23, 32, 23, 32, 0)
    assert part.interval is not None
    assert (part.interval.low, part.interval.high) == (lower_bound(23, 32, 0.025), upper_bound(32, 32, 0.025))
    assert (part.verdict, report.verdict) == (Verdict.PASS, Verdict.PASS)
    robust = report.requirements[0]
    assert robust.certified == part.certified
    assert robust.k is not None
    assert part.certified.k <= robust.k
    again = Report.model_validate_json((Path(report.run.folder) / "report.json").read_text())
    assert again == report


def test_evidence_is_certified_where_every_row_is_proven_or_broken(shop: Write) -> None:
    closing = redan.assess(asking(shop), workers=1)
    counts, found = under_attack(closing).counts, under_attack(closing).certified
    assert counts is not None
    assert found is not None
    assert (counts.robust, counts.broken, found.certified) == (23, 9, 23)
    assert under_attack(closing).strength == "certified"
    assert {part.strength for part in closing.standards if part.attackers} == {"certified"}
    wider = redan.assess(asking(shop, attackers__0__change={"linf": 0.002}), workers=1)
    assert under_attack(wider).strength == "certified"
    unasked = redan.assess(shop(weak=9), workers=1)
    assert under_attack(unasked).strength == "heuristic"


def test_open_rows_show_neither_a_pass_nor_a_fail(shop: Write) -> None:
    report = redan.assess(asking(shop, 0.9), workers=1)
    part = required(report)
    assert part.verdict is Verdict.INCONCLUSIVE
    (reason,) = part.reasons
    assert reason.startswith("not shown either way: 23 of 32")
    assert reason.endswith("9 rows have no certificate and may be robust all the same")
    assert part.rows_to_decide is None


def test_wrong_rows_show_a_fail(shop: Write) -> None:
    path = asking(shop, 0.97, weak=0)
    with np.load(path.parent / "rows.npz") as rows:
        x, y = rows["x"], rows["y"].copy()
    y[:6] = (y[:6] + 1) % 3
    np.savez(path.parent / "rows.npz", x=x, y=y)
    report = redan.assess(path, workers=1)
    part = required(report)
    assert (part.k, part.verdict) == (26, Verdict.FAIL)
    assert part.reasons[0].startswith("shown to miss the threshold: 26 of 32")
    found = under_attack(report).certified
    assert found is not None
    assert (found.broken, found.open, found.right) == (6, 0, 26)


def test_nothing_is_proven_that_nobody_asked_for(shop: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bounds, "__call__", lambda *_: pytest.fail("nobody asked"))
    report = redan.assess(shop(), workers=1)
    assert under_attack(report).certified is None
    assert report.requirements[0].certified is None
    assert "proven" not in events(report)
    asked = redan.judge(report, [Requirement(metric=Metric.CERTIFIED_ACCURACY, at_least=0.1, against="anyone")])
    assert asked.verdict is Verdict.INCONCLUSIVE
    assert "was not asked for in this run" in asked.reasons[0]


def test_proofs_do_not_hang_on_attacks_that_failed(shop: Write) -> None:
    """A model whose gradients are masked is not believed to be robust, and is certified all the same."""
    report = redan.assess(asking(shop), workers=1)
    doubted = under_attack(report).model_copy(
        update={"diagnosis": [Diagnosis(name="x", status=Doubt.SUSPICIOUS, detail="masked", blocks_pass=True)]}
    )
    found = redan.judge(report.model_copy(update={"attackers": [doubted]}))
    robust, certified = found.requirements
    assert (robust.verdict, certified.verdict) == (Verdict.INCONCLUSIVE, Verdict.PASS)


def test_a_gate_ends_when_the_proofs_so_far_decide(shop: Write) -> None:
    path = asking(shop, 0.1, count=96, weak=0, requirements__0__at_least=0.1, statistics={"rows": 96})
    report = redan.assess(path, workers=1, gate=True)
    part = required(report)
    assert part.verdict is Verdict.PASS
    assert report.run.rows == part.n == 32
    assert part.interval is not None
    assert part.interval.method == "confidence-sequence"


# -- where nothing can be proven -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"attackers__0__change": {"l1": 0.3}}, "changes in linf and l2 can be certified"),
        ({"system__output": "probabilities", "model": "Softmax"}, "probabilities have no bounds"),
        ({"model": "Noisy"}, "a stochastic model has no one answer to bound"),
    ],
)
def test_what_cannot_be_proven_is_told_and_passes_nothing(shop: Write, changed: dict[str, Any], words: str) -> None:
    report = redan.assess(asking(shop, 0.01, **changed), workers=1)
    part, found = required(report), under_attack(report).certified
    assert found is not None
    assert words in (found.reason or "")
    assert part.verdict is Verdict.INCONCLUSIVE
    assert any(words in reason for reason in report.reasons)
    assert (part.k, part.n, part.certified) == (None, None, None)
    assert events(report).count("unprovable") == 1


# -- limits, resume, replay ----------------------------------------------------------------------------------


def test_our_limits_end_proofs_and_rows_that_were_not_tried_never_help(shop: Write) -> None:
    queries = sum(attack.queries for attack in under_attack(redan.assess(asking(shop), workers=1)).attacks)
    report = redan.assess(asking(shop, limits={"queries": queries + 20}), workers=1)
    part, found = required(report), under_attack(report).certified
    assert report.limits_hit == ["queries"]
    assert found is not None
    assert (found.missing, part.undecided) == (16, 16)
    assert under_attack(report).strength == "heuristic"
    assert part.verdict is Verdict.INCONCLUSIVE


def test_a_run_that_was_broken_off_proves_no_row_twice(shop: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = asking(shop)
    whole = redan.assess(path, workers=1)
    asked: list[list[int]] = []
    honest = stage.row_lines

    def torn(ready: Any, attacker: str, claim: Any, rows: list[int]) -> Any:
        if len(asked) == 2:
            asked.append([])
            raise KeyboardInterrupt
        asked.append(rows)
        return honest(ready, attacker, claim, rows)

    monkeypatch.setattr(stage, "row_lines", torn)
    with pytest.raises(KeyboardInterrupt):
        redan.assess(path, workers=1, out=path.parent / "torn")
    (folder,) = (path.parent / "torn").iterdir()
    report = redan.assess(path, workers=1, resume=folder)
    assert [row for part in asked for row in part] == list(range(32))
    assert report.digests["evidence"] == whole.digests["evidence"]
    assert report.requirements == whole.requirements


def rewritten(report: Report, old: str, new: str) -> None:
    for file in sorted(Path(report.run.folder).glob("log/*.jsonl")):
        text = file.read_text()
        if '"event":"proven"' in text:
            assert old in text
            file.write_text(text.replace(old, new, 1))
            return
    pytest.fail("there are no proofs")


def test_replay_proves_again(shop: Write) -> None:
    path = asking(shop)
    report = redan.assess(path, workers=1)
    found = replay(report.run.folder, path)
    assert (found.proofs, found.exit_code, found.differences) == (32, 0, ())
    rewritten(report, '"certified":false', '"certified":true')
    told = replay(report.run.folder, path)
    assert told.exit_code == 1
    assert any("what is proven of it changed: certified" in each for each in told.differences)
    assert "report.json is not what follows from the log" in told.differences


def test_a_proof_of_another_row_is_refused(shop: Write) -> None:
    path = asking(shop)
    report = redan.assess(path, workers=1)
    rewritten(report, '"row":0,', '"row":31,')
    with pytest.raises(EvidenceError, match="a proof of row 31"):
        replay(report.run.folder, path)


# -- proofs and attacks check each other ---------------------------------------------------------------------


def test_an_attack_that_breaks_a_certified_row_is_a_contradiction(
    shop: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A prover that certifies everything is found out by the attacks, and nothing passes then."""

    def liar(_: Bounds, x: Tensor, __: Tensor, radii: Sequence[float]) -> Proven:
        yes = torch.ones(len(radii), len(x), dtype=torch.bool)
        return Proven(yes, ~yes, yes, [0] * len(radii), [0.0] * len(radii))

    monkeypatch.setattr(Bounds, "__call__", liar)
    path = asking(shop, 0.1, requirements__0__at_least=0.1)
    assert cli(["assess", str(path), "--workers", "1", "--quiet"]) == 3
    shown = " ".join(capsys.readouterr().out.split())
    assert "CONTRADICTION" in shown
    (folder,) = (path.parent / "runs").iterdir()
    report = Report.model_validate_json((folder / "report.json").read_text())
    found = under_attack(report)
    assert found.certified is not None
    assert found.counts is not None
    assert found.certified.contradicted == found.counts.broken > 0
    assert found.strength == "heuristic"
    assert report.verdict is Verdict.INCONCLUSIVE
    assert [part.verdict for part in report.requirements] == [Verdict.INCONCLUSIVE] * 2
    assert "contradict each other, so neither is believed" in required(report).reasons[0]
    assert found.diagnosis[0].name == "certificate contradicted"
    assert report.errors[0].reason.startswith("certificate contradicted")
    assert report.errors[0].rows == found.certified.contradicted
    assert all(part.certified is None for part in report.requirements)


def test_no_attack_breaks_a_certified_row_of_the_shipped_model(tmp_path: Path) -> None:
    """The robust garment model, its own rows, and the radius of its training: a bracket that closes."""
    path = tmp_path / "threat-model.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "redan": 1,
                "system": {
                    "name": "garments",
                    "task": "classification",
                    "classes": 10,
                    "model": {"factory": "redan.samples:model", "arguments": {"name": "robust"}},
                    "output": "logits",
                    "inputs": {"kind": "image", "shape": [1, 28, 28], "bounds": [0, 1]},
                    "data": {"test": "redan.samples:fashion_mnist_test"},
                },
                "attackers": [
                    {
                        "name": "anyone",
                        "kind": "evasion",
                        "why": "pictures",
                        "goal": "untargeted",
                        "knowledge": "gradients",
                        "change": {"linf": 0.03},
                    }
                ],
                "requirements": [ASKED | {"at_least": 0.4}],
                "attacks": {"mode": "quick"},
                "statistics": {"rows": 24},
                "run": {"out": "runs"},
            }
        )
    )
    report = redan.assess(path, workers=1)
    found, counts = under_attack(report).certified, under_attack(report).counts
    assert found is not None
    assert counts is not None
    assert report.verdict is Verdict.PASS
    assert 16 <= found.certified <= counts.robust <= found.certified + found.open
    assert found.contradicted == 0


@pytest.mark.extras
def test_trees_are_certified_exactly_and_attacked_beside(shop: Write, tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    path = asking(
        shop,
        0.2,
        system__model={"trees": "model.json"},
        system__output="probabilities",
        attackers__0__knowledge="scores",
        attackers__0__change={"linf": 0.05},
    )
    with np.load(tmp_path / "rows.npz") as rows:
        x, y = rows["x"], rows["y"]
    fit = xgboost.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1}, xgboost.DMatrix(x, y), 5)
    fit.save_model(tmp_path / "model.json")
    report = redan.assess(path, workers=1)
    found, counts = under_attack(report).certified, under_attack(report).counts
    assert found is not None
    assert counts is not None
    assert (found.completeness, found.certainty, found.open) == ("complete", "deterministic", 0)
    assert found.certified + found.broken == 32
    assert 0 < found.certified <= counts.robust
    assert (found.certified, counts.robust) == (26, 26)
    assert required(report).verdict is Verdict.PASS
    again = replay(report.run.folder, path)
    assert (again.proofs, again.exit_code) == (32, 0)


# -- what is shown -------------------------------------------------------------------------------------------


def test_every_view_says_what_is_certified(shop: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = asking(shop)
    assert cli(["assess", str(path), "--workers", "1", "--quiet"]) == 0
    said = "23 of 32 rows certified in linf 0.1, 9 open"
    assert said in " ".join(capsys.readouterr().out.split())
    (folder,) = (path.parent / "runs").iterdir()
    report = Report.model_validate_json((folder / "report.json").read_text())
    assert said in as_markdown(report)
    assert said in as_html(report)


def test_plan_and_forecast_say_that_rows_will_be_certified(shop: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = asking(shop)
    assert cli(["plan", str(path)]) == 0
    assert "certified_accuracy against anyone: rows are certified besides, by bounds" in " ".join(
        capsys.readouterr().out.split()
    )
    outlook = forecast(path, rows=8, workers=1)
    (proof,) = outlook.proofs
    assert (proof.attacker, proof.pilot, proof.rows) == ("anyone", 8, 32)
    assert proof.seconds > 0
    assert outlook.seconds == outlook.preparing + sum(each.seconds for each in outlook.attackers) + proof.seconds
    assert forecast(shop(), rows=8, workers=1).proofs == ()
