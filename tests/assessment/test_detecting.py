"""`system.detector`: abstention is part of the verdict, and attacks know the detector."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import redan
from redan.assessment.assess import inspect
from redan.assessment.certifying import certify
from redan.assessment.replay import replay
from redan.assessment.session import bare_job_of, job_of
from redan.errors import DataError, NotCertifiableError, RedanError, TargetError
from redan.evidence.folder import RunFolder
from redan.evidence.log import RowLine
from redan.evidence.report import AttackerPart, Counts, Doubt, Report, Verdict
from redan.goals import Untargeted
from redan.oracle import Limits
from redan.rejection import Refusing, Undetected, false_positives, refused
from redan.rejection.accepting import Accepting
from redan.rejection.detector import Threshold
from redan.report import html, markdown, terminal
from redan.samples import fashion_mnist, model

Write = Callable[..., Path]
NEAR: dict[str, Any] = {"nearest_rows": {"k": 10}, "false_positive_rate": 0.1}
CLIMB = {
    "attacks__skip": ["fast-cascade", "balanced-pgd", "orthogonal-pgd", "lagrangian"],
    "attacks__add": ["guarded_models:climb"],
}
UNGUARDED: dict[str, Any] = {}
"""Instead of a detector: none."""


@pytest.fixture
def guarded(tmp_path: Path, shop: Write) -> Write:
    """A function that writes a threat model of Fashion-MNIST whose model refuses what is far from training rows.

    The rows are test rows of the data set, in parts that do not meet: attacked, trained on, trusted.
    """
    (tmp_path / "guarded_models.py").write_text(
        "from redan import PGD\nfrom redan.samples import model\n\n\n"
        "def bare(kind='natural'):\n    return model(kind)\n\n\n"
        "climb = PGD(steps=10)\n"
    )

    def write(*, rows: int = 16, trusted: int = 100, **changed: object) -> Path:
        x, y = fashion_mnist()
        np.savez(tmp_path / "trusted.npz", x=x[400 : 400 + trusted], y=y[400 : 400 + trusted])
        np.savez(tmp_path / "train.npz", x=x[600:], y=y[600:])
        if changed.get("system__detector", NEAR) is not UNGUARDED:
            changed = {"system__detector": NEAR, **changed}
        else:
            del changed["system__detector"]
        return shop(
            arrays={"x": x[:rows], "y": y[:rows]},
            **{
                "system__model": {"factory": "guarded_models:bare"},
                "system__classes": 10,
                "system__inputs": {"kind": "image", "shape": [1, 28, 28], "bounds": [0, 1]},
                "system__data__train": {"path": "train.npz"},
                "system__data__trusted": {"path": "trusted.npz"},
                "attackers__0__change": {"linf": 0.05},
                "run__workers": 1,
                **changed,
            },
        )

    return write


def counts(report: Report) -> Counts:
    found = report.attackers[0].counts
    assert found is not None
    return found


def served(path: Path) -> Refusing:
    found = inspect(path).built.target
    assert isinstance(found, Refusing)
    return found


def test_a_refused_row_counts_as_wrong_and_the_rate_is_measured(guarded: Write) -> None:
    path = guarded(rows=60, attackers__0__change={"linf": 0.2}, **CLIMB)
    report, target = redan.assess(path), served(path)
    built = inspect(path).built
    with torch.no_grad():
        answers = target(built.x)
    away, right = refused(answers), answers[:, :-1].argmax(1) == built.y
    part = report.detector
    assert part is not None
    assert (part.refused, part.rows, part.false_positive_rate) == (int(away.sum()), 60, 0.1)
    exact = false_positives(target.detector, Threshold(value=target.threshold, rate=0.1, rows=100), built.x)
    assert (part.low, part.high) == (exact.low, exact.high)
    assert part.refused > 0
    assert counts(report).right == int((right & ~away).sum()) < int(right.sum())
    folder = RunFolder.open(report.run.folder)
    lines = [line for line in folder.lines() if isinstance(line, RowLine) and line.beside is None]
    assert {line.row for line in lines if line.before == 10} == set(away.nonzero()[:, 0].tolist())
    assert all(line.after != 10 for line in lines if line.status == "broken")  # what broke it was answered


@pytest.mark.slow
def test_the_joint_attacks_break_what_an_attack_that_does_not_know_leaves(guarded: Write) -> None:
    path = guarded(rows=16, **{**CLIMB, "attacks__skip": ["fast-cascade", "lagrangian", "orthogonal-pgd"]})
    report = redan.assess(path)
    assert replay(report.run.folder, path).differences == ()
    (attacker,) = report.attackers
    assert [attack.name for attack in attacker.attacks][:2] == ["climb", "balanced-pgd"]
    (part,) = attacker.defended
    assert part.beside == "the model alone"
    assert part.held < part.naive  # inputs that are found on the model alone are refused, and others are not


def test_the_served_job_and_the_bare_one(guarded: Write) -> None:
    ready = inspect(guarded())
    (campaign,), (bare,) = ready.plan.campaigns, ready.built.bare
    job, plain = job_of(ready, campaign, range(4)), bare_job_of(ready, campaign, bare, range(4))
    assert (job.aim, plain.aim) == (Undetected(Untargeted()), Untargeted())
    assert [name for name, _ in plain.attacks] == ["fast-cascade"]
    assert [name for name, _ in job.attacks][1:] == ["balanced-pgd", "orthogonal-pgd", "lagrangian"]
    x = ready.built.x
    assert torch.equal(plain.target(x), job.target(x)[:, :10])
    assert torch.equal(plain.target(x), model("natural")(x))


@pytest.mark.parametrize(
    "detector",
    [
        {"feature_squeezing": {}},
        {"feature_squeezing": {"squeezers": [{"bit_depth": {"bits": 2}}]}, "false_positive_rate": 0.2},
        {"mahalanobis": {}},
        {"nearest_rows": {"k": 3, "normalized": False}},
    ],
)
def test_each_detector_is_calibrated_on_trusted_rows_alone(guarded: Write, detector: dict[str, Any]) -> None:
    ready = inspect(guarded(system__detector=detector))
    target, head = ready.built.target, ready.built.detector
    assert isinstance(target, Refusing)
    assert head is not None
    x, _ = fashion_mnist()
    trusted = torch.from_numpy(x[400:500])
    with torch.no_grad():
        share = float(refused(target(trusted)).float().mean())
    stated = detector.get("false_positive_rate", 0.05)
    assert 0 < share <= stated
    assert (head.rows, head.rate) == (100, stated)
    assert head.fit == (0 if "feature_squeezing" in detector else len(x) - 600)
    checks = {finding.check: finding for finding in ready.findings}
    assert not checks["detector"].fired, checks["detector"]
    assert not any(finding.fired for finding in ready.findings if finding.check == "output-scale")


def test_the_digest_of_the_model_covers_the_rows_that_its_detector_is_made_of(guarded: Write) -> None:
    other: list[dict[str, Any]] = [
        {},
        {},
        {"trusted": 99},
        {"system__detector": UNGUARDED},
        {"system__detector": {"mahalanobis": {}}},
    ]
    found = {inspect(guarded(**changed)).built.model_digest for changed in other}
    assert len(found) == 3  # the kind of detector is in the file's own digest


def test_a_detector_that_refuses_more_than_it_states_cannot_pass(guarded: Write, tmp_path: Path) -> None:
    path = guarded(
        rows=32,
        attackers__0__change={"linf": 0.0001},
        requirements=[{"metric": "robust_accuracy", "at_least": 0.05, "against": "anyone"}],
        system__data__trusted={"path": "calm.npz"},
        system__detector={"nearest_rows": {"k": 1}, "false_positive_rate": 0.1},
        **CLIMB,
    )
    x, y = fashion_mnist()
    seen = (x[600:680] * 0.999).astype(np.float32)  # nearly rows of the bank, as no new row is
    np.savez(tmp_path / "calm.npz", x=np.concatenate([seen, x[400:420]]), y=np.concatenate([y[600:680], y[400:420]]))
    ready = inspect(path)
    fired = {finding.check: finding.detail for finding in ready.findings if finding.fired}
    assert "clean rows are refused" in fired["detector"]
    report = redan.assess(path)
    assert report.detector is not None
    assert report.detector.exceeded
    (part,) = report.requirements
    assert part.verdict is Verdict.INCONCLUSIVE
    assert "the counts would pass, but cannot be trusted: the detector refuses" in part.reasons[0]
    (said,) = [d for d in report.attackers[0].diagnosis if d.name == "false positives"]
    assert said.status is Doubt.SUSPICIOUS


def test_a_run_that_our_limits_cut_goes_on(guarded: Write) -> None:
    path = guarded(rows=6, run__block=3, **CLIMB)
    whole = redan.assess(path)
    asked = sum(attack.queries for attack in whole.attackers[0].attacks)
    cut = redan.assess(path, limits=Limits(queries=asked // 2))
    assert cut.limits_hit == ["queries"]
    again = redan.assess(path, resume=cut.run.folder)
    assert again.digests["evidence"] == whole.digests["evidence"]
    assert again.detector == whole.detector
    assert replay(again.run.folder, path).exit_code == 0


@pytest.mark.parametrize("knowledge", ["scores", "labels", "surrogate"])
def test_attackers_who_do_not_look_inside(guarded: Write, knowledge: str) -> None:
    lent = [{"factory": "guarded_models:bare", "arguments": {"kind": "robust"}}]
    path = guarded(
        rows=8,
        attackers__0__knowledge=knowledge,
        **({"attackers__0__surrogates": lent} if knowledge == "surrogate" else {}),
        **({} if knowledge == "surrogate" else {"attackers__0__capability": {"queries_per_row": 100}}),
    )
    ready = inspect(path)
    (campaign,) = ready.plan.campaigns
    job = job_of(ready, campaign, range(8))
    assert (campaign.joint, job.aim) == ((), Undetected(Untargeted()))
    if job.surrogates is not None:
        assert all(isinstance(member, Accepting) for member in job.surrogates.members)
        assert job.surrogates.classes == job.target.classes == 11
        plain = bare_job_of(ready, campaign, ready.built.bare[0], range(8)).surrogates
        assert plain is not None
        assert plain.classes == 10
    report = redan.assess(path)
    part: AttackerPart = report.attackers[0]
    assert part.strength == "heuristic"
    assert counts(report).errors == 0
    assert any("without a detector" in line for line in report.shows_not)
    assert replay(report.run.folder, path).differences == ()


@pytest.mark.parametrize(
    ("changed", "kind", "told"),
    [
        ({"trusted": 5}, DataError, "system.detector: 5 clean rows say nothing of a rate of 0.1; give 9 or more"),
        ({"system__detector": {"nearest_rows": {"k": 500}}}, RedanError, "system.detector: k must be from 1 to the"),
        (
            {"system__detector": {"mahalanobis": {"layers": ["nowhere"]}}},
            TargetError,
            "system.detector: the model has no submodule of that name",
        ),
        (
            {"system__data__trusted": {"path": "train.npz", "y": "y"}, "system__data__train": {"path": "./train.npz"}},
            RedanError,
            "system.data.train",
        ),
        (
            {"system__model": {"factory": "{shop}:build", "arguments": {"kind": "Picture"}}, **{"system__classes": 3}},
            RedanError,
            "system.data.trusted: labels go from 0 to 9, and the system has the classes 0 to 2",
        ),
    ],
)
def test_what_a_detector_cannot_be_made_of(
    guarded: Write, changed: dict[str, Any], kind: type[RedanError], told: str
) -> None:
    with pytest.raises(kind) as error:
        inspect(guarded(**changed))
    assert told in str(error.value)


def test_rows_that_are_attacked_calibrate_nothing(guarded: Write, tmp_path: Path) -> None:
    path = guarded()
    x, y = fashion_mnist()
    np.savez(tmp_path / "trusted.npz", x=x[:100], y=y[:100])
    with pytest.raises(DataError, match="16 of 100 rows of system.data.trusted are rows of system.data.test too"):
        inspect(path)


def test_certificates_are_not_of_a_model_that_refuses(guarded: Write) -> None:
    with pytest.raises(NotCertifiableError, match="system.detector"):
        certify(guarded())


def test_every_view_says_what_is_refused(guarded: Write, tmp_path: Path) -> None:
    report = redan.assess(guarded(rows=24, attackers__0__change={"linf": 0.2}, **CLIMB))
    assert report.detector is not None
    told = f"refuses {report.detector.refused:,} of 24 clean rows"
    console = Console(file=StringIO(), width=200)
    terminal.show(report, console)
    assert isinstance(console.file, StringIO)
    page = html.render(report)
    for text in (console.file.getvalue(), markdown.render(report), page):
        assert told in text
        assert "10" in text
        assert "refuses by nearest-rows" in text
