"""Whole assessments of poisoning: what the report counts, what a broken-off run keeps, what never helps to pass."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jsonschema  # type: ignore[import-untyped]  # its stubs are a package of their own
import numpy as np
import pytest
from numpy.typing import NDArray

import redan
from redan.assessment.replay import replay
from redan.assessment.session import Stage
from redan.assessment.trainers import trained as trained_in_turn
from redan.assessment.victim import Done
from redan.assessment.workshop import Workshop
from redan.certification.poisoning import certify
from redan.errors import EvidenceError, TargetError
from redan.evidence.folder import REPORT, RunFolder
from redan.evidence.poison_lines import CertifiedLine, InspectedLine, VictimLine, VotesLine
from redan.evidence.poisoned import PoisoningPart
from redan.evidence.report import Report, Verdict
from redan.evidence.statistics import lower_bound, upper_bound
from redan.evidence.summary import report_of
from redan.oracle import Limits

Write = Callable[..., Path]
Threads = Callable[[], AbstractContextManager[None]]
ROWS, TRAIN = 60, 120
CERTIFICATE = {"parts": 6}
LABELER = {
    "name": "labeler",
    "kind": "poisoning",
    "why": "labels are bought",
    "goal": "availability",
    "capability": {"share": 0.3, "may_change_labels": True},
}
MILD: dict[str, Any] = {
    "attackers__0__goal": "availability",
    "attackers__0__capability__share": 0.05,
    "requirements__0": {"metric": "poisoned_accuracy", "at_least": 0.6, "against": "supplier"},
    "poisoning__victims": 5,
}
"""An attacker whom the model withstands."""
CHOSEN = 14
TARGETED: dict[str, Any] = {
    "attackers__0__goal": {"targeted_rows": CHOSEN},
    "attackers__0__capability": {"share": 0.2, "may_change_labels": True},
    "requirements__0": {"metric": "attack_success_rate", "at_most": 0.5, "against": "supplier"},
}
"""An attacker of chosen rows."""
CLEAN_LABEL: dict[str, Any] = {"attackers__0__capability": {"share": 0.2}}


class Run(NamedTuple):
    """A finished run."""

    path: Path
    report: Report

    @property
    def folder(self) -> RunFolder:
        return RunFolder.open(self.report.run.folder)


@pytest.fixture(scope="module")
def columns(supplied: Write, in_threads: Threads, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Rows of numbers, two attackers, a curve, a certificate."""
    path = supplied(
        tmp_path_factory.mktemp("columns"),
        attackers__1=LABELER,
        requirements__1={"metric": "poisoned_accuracy", "at_least": 0.5, "against": "labeler"},
        poisoning={"victims": 3, "curve": [0.5, 0.01], "curve_victims": 2, "detect": False, "certify": CERTIFICATE},
    )
    with in_threads():
        return Run(path, redan.assess(path))


@pytest.fixture(scope="module")
def images(supplied: Write, in_threads: Threads, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Pictures, a patch, detectors and repairs."""
    path = supplied(tmp_path_factory.mktemp("images"), images=True, poisoning__detect=True)
    with in_threads():
        return Run(path, redan.assess(path))


@pytest.fixture
def assessed(in_threads: Threads) -> Iterator[Callable[..., Report]]:
    """`redan.assess`, victims trained in a thread."""
    with in_threads():
        yield redan.assess


def poisoning(report: Report, attacker: int = 0) -> PoisoningPart:
    found = report.attackers[attacker].poisoning
    assert found is not None
    return found


def trained(path: Path) -> list[str]:
    """What was trained, in order: a seed and a digest of the rows a line."""
    return [line.rsplit(" ", 1)[0] for line in (path.parent / "trained").read_text().splitlines()]


def victims(folder: RunFolder, attacker: str | None) -> list[VictimLine]:
    found = [line for line in folder.lines() if isinstance(line, VictimLine) and line.attacker == attacker]
    return sorted(found, key=lambda line: (-(line.share or 0), line.number))


def saved(folder: RunFolder, line: VictimLine) -> dict[str, NDArray[Any]]:
    assert line.answers is not None
    return {key: value.numpy() for key, value in folder.load_inputs(line.answers, line.sha256).items()}


def labels_of(path: Path) -> NDArray[np.int64]:
    """The test rows' labels in the order in which they are taken."""
    return Workshop(path).test.y


def but_times(report: Report) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(report.model_dump_json())
    for key in ("id", "folder", "started", "seconds"):
        del found["run"][key]
    return found


# -- what a run says -----------------------------------------------------------------------------------------


def test_an_undefended_model_fails(columns: Run, images: Run) -> None:
    for run, poisoner in ((columns, "table-trigger"), (images, "badnets")):
        assert run.report.verdict is Verdict.FAIL
        assert run.report.exit_code == 1
        assert poisoning(run.report).strongest == poisoner
        assert "shown to miss the threshold" in run.report.reasons[0]
        (part,) = poisoning(run.report).poisoners
        point = part.points[0]
        assert (part.status, part.name, point.victims, point.errors, point.undecided) == ("done", poisoner, 3, 0, 0)
        assert point.changed == TRAIN // 5
        assert point.used == pytest.approx(0.2)
        assert point.success is not None
        assert point.success.value > 0.9
        assert point.clean_success is not None
        assert point.clean_success.value < 0.2


@pytest.mark.parametrize("kind", ["columns", "images"])
def test_counts_are_those_of_the_saved_answers(kind: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(kind)
    labels, folder = labels_of(run.path), run.folder
    clean = {line.number: (saved(folder, line)["clean"] == labels).mean() for line in victims(folder, None)}
    for attacker in run.report.attackers:
        part = attacker.poisoning
        assert part is not None
        (poisoner,) = part.poisoners
        lines = victims(folder, attacker.name)
        assert sum(point.victims for point in poisoner.points) == len(lines)
        for point in poisoner.points:
            mine = [line for line in lines if line.share == point.share]
            answers = [saved(folder, line) for line in mine]
            assert [line.number for line in mine] == list(range(point.victims))
            assert point.accuracy is not None
            assert point.accuracy.each == [(each["clean"] == labels).mean() for each in answers]
            assert point.clean_accuracy is not None
            assert point.clean_accuracy.each == [clean[line.number] for line in mine]
            assert point.changed == max(len(each["changed"]) for each in answers)
            if part.goal == "availability":
                assert point.success is None
                continue
            assert point.success is not None
            assert point.success.each == [(each["asked"] == each["wanted"]).mean() for each in answers]
            assert point.success.rows == int((labels != 0).sum())


def test_points_go_down_from_the_whole_share(columns: Run) -> None:
    """A share below one row is no point of the curve."""
    for attacker, share in ((0, 0.2), (1, 0.3)):
        (part,) = poisoning(columns.report, attacker).poisoners
        assert [point.share for point in part.points] == pytest.approx([share, share / 2])
        assert [point.victims for point in part.points] == [3, 2]


def test_victims_of_clean_rows_are_shared(columns: Run) -> None:
    lines = victims(columns.folder, None)
    assert [line.number for line in lines] == [0, 1, 2]
    assert [line.seed for line in lines] == [0, 1, 2]
    first, second = (poisoning(columns.report, i).poisoners[0].points[0].clean_accuracy for i in (0, 1))
    assert first == second
    assert set(lines[0].asked) == {"supplier"}  # nobody else has a trigger


def test_no_victim_is_trained_twice(columns: Run) -> None:
    times = Counter(trained(columns.path))
    assert set(times.values()) == {1}
    assert len(times) == 3 + 2 * (3 + 2) + CERTIFICATE["parts"]


@pytest.mark.parametrize("kind", ["columns", "images"])
def test_the_report_follows_from_the_log(kind: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(kind)
    written = run.folder.read(REPORT)
    assert Report.model_validate_json(written) == report_of(run.folder) == run.report
    published = json.loads(files("redan.evidence").joinpath("report.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(published).validate(json.loads(written))


def test_the_plan_and_the_attackers_are_shown(columns: Run) -> None:
    chosen = {(step.attacker, step.attack) for step in columns.report.plan if step.status == "chosen"}
    assert {("supplier", "table-trigger"), ("labeler", "random-flips")} <= chosen
    told = [(each.name, each.kind, each.status, each.knowledge, each.counts) for each in columns.report.attackers]
    assert told == [
        ("supplier", "poisoning", "assessed", "training", None),
        ("labeler", "poisoning", "assessed", "training", None),
    ]
    assert "AML.T0020" in columns.report.attackers[0].techniques
    assert any("training" in sentence for sentence in columns.report.shows_not)
    assert columns.report.run.reproducible


def test_shares_at_which_the_model_breaks(columns: Run) -> None:
    """The smallest that breaks the requirement; flips at random leave more than half of the answers right."""
    assert poisoning(columns.report, 0).poisoners[0].breaks_at == pytest.approx(0.1)
    assert poisoning(columns.report, 1).poisoners[0].breaks_at is None


def test_all_is_asked_within_a_box_that_is_not_left(columns: Run) -> None:
    """Triggers are stamped by the file's own numbers: every stamped row differs in the fifth column alone."""
    shop = Workshop(columns.path)
    stamped = shop.stamped(shop.campaigns["supplier"])
    assert stamped is not None
    clean = shop.test.x[stamped.rows]
    assert (stamped.x[:, 5] == 1).all()
    assert (stamped.x[:, :5] == clean[:, :5]).all()
    assert (stamped.wanted == 0).all()
    assert (shop.test.y[stamped.rows] != 0).all()


# -- the certificate -----------------------------------------------------------------------------------------


def test_the_certificate_is_what_certify_proves(columns: Run) -> None:
    found = poisoning(columns.report).certificate
    assert found is not None
    assert poisoning(columns.report, 1).certificate == found
    right = [point.right for point in found.points]
    changes = [point.changes for point in found.points]
    assert changes[0] == 0
    assert changes == sorted(set(changes))
    assert right == sorted(right, reverse=True)
    assert right[-1] == 0
    assert (found.parts, found.copies, found.counts, found.rows) == (CERTIFICATE["parts"], 1, "rows", ROWS)
    shop = Workshop(columns.path)
    again = certify(shop.fit, shop.train, shop.test.x, shop.certificate_plan, classes=3, seed=0)
    assert right == [int(again.holds(shop.test.y, each).sum()) for each in changes]
    assert right[0] == int((again.prediction == shop.test.y).sum())
    votes = [line for line in columns.folder.lines() if isinstance(line, VotesLine)]
    for line in votes:
        kept = columns.folder.load_inputs(line.answers, line.sha256)["votes"].numpy()
        assert (kept == again.votes[:, line.model]).all()
    radii = np.sort(again.radius[again.prediction == shop.test.y])[::-1]
    assert found.share == radii[(len(radii) - 1) // 2] / TRAIN


def test_a_certificate_of_labels_with_copies(supplied: Write, assessed: Callable[..., Report], tmp_path: Path) -> None:
    path = supplied(
        tmp_path, poisoning={"victims": 2, "detect": False, "certify": {"parts": 3, "copies": 2, "counts": "labels"}}
    )
    report = assessed(path)
    found = poisoning(report).certificate
    assert found is not None
    assert (found.method, found.counts, found.parts, found.copies) == ("finite aggregation", "labels", 3, 2)
    lines = list(RunFolder.open(report.run.folder).lines())
    assert sum(isinstance(line, VotesLine) for line in lines) == 6
    assert sum(isinstance(line, CertifiedLine) for line in lines) == 1
    shop = Workshop(path)
    again = certify(shop.fit, shop.train, shop.test.x, shop.certificate_plan, classes=3, seed=0)
    assert [p.right for p in found.points] == [int(again.holds(shop.test.y, p.changes).sum()) for p in found.points]


# -- broken off ----------------------------------------------------------------------------------------------


def stopping(doing: str, count: int) -> Callable[[Stage], None]:
    """A watcher that interrupts the run as soon as so many models of a stage are trained."""

    def watch(stage: Stage) -> None:
        if stage.doing == doing and stage.progress.settled == count:
            raise KeyboardInterrupt

    return watch


@pytest.mark.parametrize(
    ("doing", "count"),
    [("clean rows", 1), ("poisoned rows", 0), ("poisoned rows", 4), ("the certificate", 2)],
)
def test_an_interrupted_run_goes_on(columns: Run, in_threads: Threads, tmp_path: Path, doing: str, count: int) -> None:
    path, whole = columns.path, columns.report
    log = path.parent / "trained"
    every, log_before = trained(path)[: 13 + CERTIFICATE["parts"]], log.read_bytes()
    log.write_bytes(b"")
    try:
        with in_threads(), pytest.raises(KeyboardInterrupt):
            redan.assess(path, out=tmp_path, watch=stopping(doing, count))
        (run,) = tmp_path.iterdir()
        assert not (run / REPORT).exists()
        lines = list(RunFolder.open(run).lines())
        recorded = sum(isinstance(line, VictimLine | VotesLine) for line in lines)
        first = trained(path)
        assert recorded <= len(first) <= recorded + 1  # one may have been under way
        with in_threads():
            again = redan.assess(path, resume=run)
        second = trained(path)[len(first) :]
        assert not set(first[:recorded]) & set(second)
        assert sorted(first[:recorded] + second) == sorted(every)
    finally:
        log.write_bytes(log_before)
    assert again.digests["evidence"] == whole.digests["evidence"]
    assert but_times(again) == but_times(whole)
    assert report_of(RunFolder.open(run)) == again


def test_an_interrupt_stops_what_is_under_way(supplied: Write, in_threads: Threads, tmp_path: Path) -> None:
    """Also while somebody holds on to the exception, and with it to the run's frames."""
    path = supplied(tmp_path, poisoning__victims=8)
    with in_threads():
        try:
            redan.assess(path, watch=stopping("clean rows", 2))
        except KeyboardInterrupt as error:
            held = error
            time.sleep(0.5)  # enough for all of them
            assert held.__traceback__ is not None
            assert len(trained(path)) <= 3


@pytest.mark.parametrize("count", [0, 1])
def test_an_interrupted_inspection_goes_on(images: Run, in_threads: Threads, tmp_path: Path, count: int) -> None:
    """Detectors look once: where they have, nothing is left to be trained."""
    with in_threads(), pytest.raises(KeyboardInterrupt):
        redan.assess(images.path, out=tmp_path, watch=stopping("detectors and repairs", count))
    (run,) = tmp_path.iterdir()
    before = len(trained(images.path))
    with in_threads():
        again = redan.assess(images.path, resume=run)
    assert but_times(again) == but_times(images.report)
    since = trained(images.path)[before:]
    assert not set(since) & set(trained(images.path)[:6])  # the victims
    assert bool(since) is (not count)


def test_a_finished_run_trains_nothing_more(columns: Run, in_threads: Threads) -> None:
    before = len(trained(columns.path))
    with in_threads():
        again = redan.assess(columns.path, resume=columns.report.run.folder)
    assert again == columns.report
    assert len(trained(columns.path)) == before


@pytest.mark.slow
def test_a_killed_run_goes_on(supplied: Write, in_threads: Threads, tmp_path: Path) -> None:
    path = supplied(tmp_path, "slow", poisoning__victims=6, poisoning__certify=CERTIFICATE)
    with in_threads():
        whole = redan.assess(path)
    every = trained(path)
    (tmp_path / "trained").unlink()
    command = [sys.executable, "-m", "redan", "assess", str(path), "--out", str(tmp_path / "killed"), "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while len(list((tmp_path / "killed").glob("*/log/*.jsonl"))) < 9:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    (run,) = (tmp_path / "killed").iterdir()
    pids = {int(line.rsplit(" ", 1)[1]) for line in (tmp_path / "trained").read_text().splitlines()}
    end = time.monotonic() + 60
    while any(alive(pid) for pid in pids):  # they see that nobody asks any more, and end
        assert time.monotonic() < end
        time.sleep(0.05)
    recorded = sum(isinstance(line, VictimLine) for line in RunFolder.open(run).lines())
    first = trained(path)
    assert recorded >= 8
    assert len(first) <= recorded + 2
    with in_threads():
        again = redan.assess(path, resume=run)
    second = trained(path)[len(first) :]
    assert len(second) == len(every) - recorded
    assert but_times(again) == but_times(whole)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # nobody may have looked at how it ended


@pytest.mark.slow
def test_workers_change_nothing(columns: Run, supplied: Write, tmp_path: Path) -> None:
    """In one process, in two, and in the test's own: the same evidence."""
    for workers in (1, 2):
        report = redan.assess(columns.path, out=tmp_path / str(workers), workers=workers)
        assert report.digests["evidence"] == columns.report.digests["evidence"]
        assert but_times(report) == but_times(columns.report)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("training.py", "the training rows"),
        ("train.npz", "the training rows"),
        ("trusted.npz", "the training rows"),
        ("threat-model.yaml", "the threat-model file"),
    ],
)
def test_what_changed_since_is_named(
    columns: Run, in_threads: Threads, tmp_path: Path, change: str, words: str
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(columns.path.parent, folder, ignore=shutil.ignore_patterns("runs", "__pycache__"))
    path = folder / "threat-model.yaml"
    with in_threads(), pytest.raises(KeyboardInterrupt):
        redan.assess(path, watch=stopping("clean rows", 1))
    (run,) = (folder / "runs").iterdir()
    if change.endswith("npz"):
        with np.load(folder / change) as kept:
            arrays = dict(kept)
        arrays["x"] = arrays["x"] + np.float32(0.01)
        np.savez(folder / change, **arrays)
    else:
        (folder / change).write_text((folder / change).read_text() + "\n# more\n")
    with in_threads(), pytest.raises(EvidenceError, match=f"cannot go on: .*{words}"):
        redan.assess(path, resume=run)
    if words == "the training rows":
        with in_threads(), pytest.raises(EvidenceError, match="the training rows, or the file with the training func"):
            redan.assess(path, resume=run)


def test_a_threat_model_that_changes_under_way_is_refused(supplied: Write, in_threads: Threads, tmp_path: Path) -> None:
    path = supplied(tmp_path)

    def watch(stage: Stage) -> None:
        if stage.doing == "clean rows" and not stage.progress.settled:
            path.write_text(path.read_text() + "# more\n")

    with in_threads(), pytest.raises(TargetError, match="the threat-model file changed while the run went on"):
        redan.assess(path, watch=watch)
    assert not (tmp_path / "trained").exists()


# -- limits --------------------------------------------------------------------------------------------------


def test_victims_that_limits_leave_out_never_help(
    supplied: Write, assessed: Callable[..., Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = supplied(tmp_path, **MILD)
    whole = assessed(path)
    assert whole.verdict is Verdict.PASS
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("redan.oracle.time", SimpleNamespace(monotonic=lambda: clock.now))

    def watch(stage: Stage) -> None:
        if stage.doing == "poisoned rows" and stage.progress.settled == 3:
            clock.now = 200.0

    cut = assessed(path, limits=Limits(seconds=100), watch=watch)
    point = poisoning(cut).poisoners[0].points[0]
    assert cut.limits_hit == ["seconds"]
    assert poisoning(cut).poisoners[0].status == "cut"
    assert (point.victims, point.undecided) in [(3, 2), (4, 1)]
    assert point.errors == 0
    assert cut.verdict is Verdict.INCONCLUSIVE
    assert cut.requirements[0].undecided == point.undecided
    assert not cut.run.reproducible
    clock.now = 0.0
    again = assessed(path, resume=cut.run.folder, limits=Limits(seconds=100))
    assert but_times(again) == but_times(whole)
    assert again.limits_hit == []


def test_limits_that_left_nothing_out_are_not_hit(
    supplied: Write, assessed: Callable[..., Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = supplied(tmp_path), tmp_path / "trained"

    class Late:
        """A clock that is late as soon as the last victim's training has begun."""

        def __call__(self) -> float:
            return 200.0 if seen.exists() and len(seen.read_text().splitlines()) == 6 else 0.0

    monkeypatch.setattr("redan.oracle.time", SimpleNamespace(monotonic=Late()))
    report = assessed(path, limits=Limits(seconds=100))
    assert poisoning(report).poisoners[0].points[0].undecided == 0
    assert report.limits_hit == []


# -- errors --------------------------------------------------------------------------------------------------


def test_a_victim_that_errs_never_helps(supplied: Write, assessed: Callable[..., Report], tmp_path: Path) -> None:
    """The same victims pass but for the one whose training failed."""
    good = assessed(supplied(tmp_path / "good", **MILD))
    assert good.verdict is Verdict.PASS
    path = supplied(tmp_path / "bad", "raises_second", **MILD)
    report = assessed(path)
    point = poisoning(report).poisoners[0].points[0]
    assert (point.victims, point.errors, point.undecided) == (4, 1, 0)
    assert report.verdict is Verdict.INCONCLUSIVE
    (error,) = report.errors
    assert (error.attacker, error.rows, error.first) == ("supplier", 1, "victim 2 of random-flips at 0.05")
    assert "system.training.call: calling it raised RuntimeError: out of memory" in error.reason
    assert report.requirements[0].errors == 1


def test_a_victim_of_clean_rows_that_errs_is_told(
    supplied: Write, assessed: Callable[..., Report], tmp_path: Path
) -> None:
    report = assessed(supplied(tmp_path, "raises_clean"))
    point = poisoning(report).poisoners[0].points[0]
    assert point.victims == 3
    assert point.clean_accuracy is not None
    assert len(point.clean_accuracy.each) == 2  # pairs of one seed
    assert point.equivalence is not None
    assert point.equivalence.pairs == 2


def test_the_strongest_victim_that_errs_keeps_nobody_from_a_verdict(
    supplied: Write, assessed: Callable[..., Report], tmp_path: Path
) -> None:
    """What finds and mends poison is shown of the first victim; where that cannot be trained, it is said."""
    report = assessed(supplied(tmp_path, "raises_first", poisoning__detect=True, poisoning__victims=4))
    point = poisoning(report).poisoners[0].points[0]
    assert (point.victims, point.errors) == (3, 1)
    assert report.verdict is not Verdict.PASS
    assert poisoning(report).detectors == []
    (note,) = poisoning(report).notes
    assert "out of memory" in note


def test_a_chosen_row_whose_clean_victim_errs_never_helps(
    supplied: Write, assessed: Callable[..., Report], tmp_path: Path
) -> None:
    """Whether it was right before is not known, so nothing is known of it."""
    report = assessed(supplied(tmp_path, "raises_clean", **TARGETED))
    (part,) = poisoning(report).poisoners
    point = part.points[0]
    assert point.errors == 1
    assert report.requirements[0].errors == 1


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ("raises", "calling it raised RuntimeError: the cluster is on fire"),
        ("nothing", "returned NoneType"),
        ("in_training", "in training mode"),
    ],
)
def test_a_training_that_never_works_is_named(
    supplied: Write, assessed: Callable[..., Report], tmp_path: Path, training: str, words: str
) -> None:
    path = supplied(tmp_path, training)
    with pytest.raises(TargetError, match=r"training on the clean rows failed: .*") as caught:
        assessed(path)
    assert words in str(caught.value)
    assert "system.training.call" in str(caught.value)
    (run,) = (tmp_path / "runs").iterdir()
    assert not (run / REPORT).exists()


# -- poisoners that do not fit -------------------------------------------------------------------------------


def test_others_go_on_where_a_poisoner_cannot_be_used(
    supplied: Write, assessed: Callable[..., Report], tmp_path: Path
) -> None:
    """A training without gradients: crafted rows are out of reach, a wave on clean labels is not."""
    path = supplied(
        tmp_path,
        "nearest",
        attackers__0__capability__may_change_labels=False,
        attackers__0__capability__share=0.3,
        attacks__mode="default",
    )
    report = assessed(path)
    told = {part.name: part for part in poisoning(report).poisoners}
    assert told["sig"].status == "done"
    for name in ("label-consistent", "sleeper-agent"):
        assert told[name].status == "not applicable"
        assert "which has no gradients to craft with" in (told[name].reason or "")
        assert told[name].points == []
    assert poisoning(report).strongest == "sig"
    assert report.errors == []
    folder = RunFolder.open(report.run.folder)
    tried = Counter(line.poisoner for line in victims(folder, "supplier"))
    assert tried == {"sig": 3, "label-consistent": 1, "sleeper-agent": 1}


def test_nothing_is_shown_where_no_poisoner_is_left(
    supplied: Write, assessed: Callable[..., Report], tmp_path: Path
) -> None:
    changed = {**TARGETED, **CLEAN_LABEL}
    report = assessed(supplied(tmp_path, "nearest", **changed))
    (part,) = poisoning(report).poisoners
    assert (part.name, part.status) == ("gradient-matching", "not applicable")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert any("no poisoner could be used" in reason and "no gradients" in reason for reason in report.reasons)


def test_a_share_below_one_row_is_no_attack(supplied: Write, assessed: Callable[..., Report], tmp_path: Path) -> None:
    report = assessed(supplied(tmp_path, attackers__0__capability__share=0.005))
    (part,) = poisoning(report).poisoners
    assert part.status == "not applicable"
    assert "less than one row" in (part.reason or "")
    assert report.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(("training", "labels"), [("fit", True), ("nearest", False)])
def test_whoever_is_done_first_changes_nothing(
    supplied: Write,
    assessed: Callable[..., Report],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    training: str,
    labels: bool,
) -> None:
    """As if each victim had a worker of its own, and the first victim the slowest one."""
    capability = {"share": 0.2, "may_change_labels": labels}
    changed = {**TARGETED, "attackers__0__goal": {"targeted_rows": 4}, "attackers__0__capability": capability}
    path = supplied(tmp_path, training, **changed)
    one = assessed(path)

    def backwards(*arguments: Any) -> Generator[tuple[int, Done]]:
        yield from reversed(list(trained_in_turn(*arguments[:5])))

    monkeypatch.setattr("redan.assessment.poisoning.trained", backwards)
    other = assessed(path)
    assert other.digests["evidence"] == one.digests["evidence"]
    assert but_times(other) == but_times(one)


def test_a_poisoner_that_could_be_used_once_errs_later(
    supplied: Write, assessed: Callable[..., Report], tmp_path: Path
) -> None:
    """What its first victims showed is not forgotten."""
    chosen = {**TARGETED, "attackers__0__goal": {"targeted_rows": 8}, "statistics": {"rows": 6}}
    report = assessed(supplied(tmp_path, **chosen))
    (part,) = poisoning(report).poisoners
    assert (part.status, part.points[0].victims, part.points[0].errors) == ("done", 6, 2)
    assert {error.reason for error in report.errors} == {
        f"training a victim: {n} rows are chosen and the test rows are 6; draw more rows" for n in (7, 8)
    }


@pytest.mark.slow
def test_workers_change_nothing_of_what_does_not_fit(supplied: Write, tmp_path: Path) -> None:
    """Two workers try two victims of a poisoner at a time; one finds out first."""
    path = supplied(tmp_path, "nearest", **{**TARGETED, **CLEAN_LABEL})
    one, two = (redan.assess(path, workers=workers) for workers in (1, 2))
    assert one.digests["evidence"] == two.digests["evidence"]
    assert but_times(one) == but_times(two)


# -- chosen rows, and all rows -------------------------------------------------------------------------------


def test_chosen_rows_are_counted_exactly(supplied: Write, assessed: Callable[..., Report], tmp_path: Path) -> None:
    path = supplied(tmp_path, **TARGETED)
    report = assessed(path)
    (part,) = poisoning(report).poisoners
    point, shop, folder = part.points[0], Workshop(path), RunFolder.open(report.run.folder)
    clean = {line.number: saved(folder, line)["clean"] for line in victims(folder, None)}
    hits: list[bool] = []
    for line in victims(folder, "supplier"):
        at, label = shop.chosen(line.number)
        kept = saved(folder, line)
        assert (kept["asked"].tolist(), kept["wanted"].tolist()) == ([kept["clean"][at]], [label])
        assert label != shop.test.y[at]
        if clean[line.number][at] == shop.test.y[at]:
            hits.append(bool(kept["clean"][at] == label))
            assert line.asked["supplier"] == (int(hits[-1]), 1)
        else:
            assert line.asked["supplier"] == (0, 0)
    n, k = len(hits), sum(hits)
    assert 0 < CHOSEN - n < CHOSEN  # some were wrong before, and are left out
    assert k >= 0.9 * n
    assert point.success is not None
    assert point.success.method == "clopper-pearson"
    assert point.success.each == [float(hit) for hit in hits]
    assert point.success.low == pytest.approx(lower_bound(k, n, 0.025))
    assert point.success.high == pytest.approx(upper_bound(k, n, 0.025))
    (required,) = report.requirements
    assert (required.k, required.n, required.errors, required.undecided) == (k, n, 0, 0)
    assert required.bound_used == pytest.approx(lower_bound(k, n, 0.05))
    assert report.verdict is Verdict.FAIL
    assert point.clean_success is None
    assert point.equivalence is None


def test_flips_lower_accuracy_and_are_judged(supplied: Write, assessed: Callable[..., Report], tmp_path: Path) -> None:
    changed: dict[str, Any] = {
        "attackers__0__goal": "availability",
        "attackers__0__capability__share": 0.45,
        "attacks__mode": "default",
        "poisoning__victims": 4,
    }
    strict = {"metric": "poisoned_accuracy", "at_least": 0.88, "against": "supplier"}
    report = assessed(supplied(tmp_path, requirements__0=strict, **changed))
    told = {part.name: part for part in poisoning(report).poisoners}
    assert set(told) == {"random-flips", "label-flip"}
    for part in told.values():
        point = part.points[0]
        assert point.accuracy is not None
        assert point.clean_accuracy is not None
        assert point.accuracy.value < point.clean_accuracy.value - 0.05
        assert point.success is None
        assert point.changed == TRAIN * 45 // 100
    assert report.verdict is Verdict.FAIL
    weakest = min(told.values(), key=lambda part: part.points[0].accuracy.value if part.points[0].accuracy else 1)
    assert poisoning(report).strongest == weakest.name
    mild = {**strict, "at_least": 0.1}
    assert assessed(supplied(tmp_path / "mild", requirements__0=mild, **changed)).verdict is Verdict.PASS


# -- replay --------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(columns: Run, tmp_path: Path, in_threads: Threads) -> Iterator[Path]:
    """The run folder of `columns`, to be spoiled."""
    run = tmp_path / "run"
    shutil.copytree(columns.report.run.folder, run)
    with in_threads():
        yield run


def rewrite(run: Path, change: Callable[[dict[str, Any]], None], event: str = "victim", **of: object) -> None:
    """Change the first line of the log that is of the event and has those values, and write its report anew."""
    for path in sorted((run / "log").iterdir()):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            if line["event"] == event and all(line[key] == value for key, value in of.items()):
                change(line)
                path.write_text("".join(json.dumps(each) + "\n" for each in lines))
                (run / REPORT).write_text(report_of(RunFolder.open(run)).model_dump_json())
                return
    raise AssertionError(f"no line of {event} {of}")


def found_in(run: Path, path: Path) -> tuple[str, ...]:
    found = replay(run, path)
    assert found.exit_code == (1 if found.differences else 0)
    return found.differences


def test_a_good_folder_agrees(columns: Run, images: Run, in_threads: Threads) -> None:
    with in_threads():
        found = replay(columns.report.run.folder, columns.path)
        assert (found.differences, found.exit_code, found.rows) == ((), 0, 0)
        assert found.victims == 13 + 1 + 3  # counted, the certificate, trained again
        assert replay(images.report.run.folder, images.path).exit_code == 0


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("attacker", [None, "supplier"])
def test_other_answers_are_found_out(columns: Run, copied: Path, attacker: str | None, number: int) -> None:
    line = next(each for each in victims(RunFolder.open(copied), attacker) if each.number == number)
    file = copied / "inputs" / str(line.answers)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    (sentence,) = set(found_in(copied, columns.path))
    assert f"{line.answers} is not the file that was logged" in sentence


def more_right(line: dict[str, Any]) -> None:
    line["right"] += 1


def less_success(line: dict[str, Any]) -> None:
    line["asked"]["supplier"][0] -= 1


def less_asked(line: dict[str, Any]) -> None:
    line["asked"]["supplier"] = [0, 0]


def fewer_changed(line: dict[str, Any]) -> None:
    line["changed"] -= 1


def without_answers(line: dict[str, Any]) -> None:
    line["answers"] = None


def other_poison(line: dict[str, Any]) -> None:
    line["poison"] = "0" * 64


@pytest.mark.parametrize(
    ("attacker", "change", "words"),
    [
        (None, more_right, "its saved answers give another accuracy"),
        ("supplier", more_right, "its saved answers give another accuracy"),
        ("labeler", more_right, "its saved answers give another accuracy"),
        ("supplier", less_success, "its saved answers give another success"),
        ("supplier", less_asked, "its saved answers give another success"),
        ("supplier", fewer_changed, "another number of changed rows"),
        ("supplier", without_answers, "its answers were not kept"),
        (None, without_answers, "its answers were not kept"),
        ("supplier", other_poison, "poisoning the rows again gives other rows"),
        (None, less_success, "trained again, it answers otherwise"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_changed_line_is_found_out(
    columns: Run, copied: Path, attacker: str | None, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    """Also where the report was written anew, so that it follows from the changed log."""
    share = {None: None, "supplier": 0.2, "labeler": 0.3}[attacker]
    rewrite(copied, change, attacker=attacker, number=0, share=share)
    (sentence,) = found_in(copied, columns.path)
    assert words in sentence
    named = "victim 0 of clean rows" if attacker is None else f"victim 0 of .* at {share:g} .{attacker}."
    assert re.search(named, sentence)


def test_a_changed_certificate_is_found_out(columns: Run, copied: Path) -> None:
    def more(line: dict[str, Any]) -> None:
        line["certificate"]["points"][-1]["right"] += 3

    rewrite(copied, more, "certified")
    assert found_in(copied, columns.path) == ("the certificate is not what its votes prove",)


def test_changed_votes_are_found_out(columns: Run, copied: Path) -> None:
    line = next(each for each in RunFolder.open(copied).lines() if isinstance(each, VotesLine))
    file = copied / "inputs" / line.answers
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    (sentence,) = found_in(copied, columns.path)
    assert f"{line.answers} is not the file that was logged" in sentence


def test_a_changed_report_is_found_out(columns: Run, copied: Path) -> None:
    text = (copied / REPORT).read_text()
    (copied / REPORT).write_text(text.replace('"verdict": "fail"', '"verdict": "pass"', 1))
    assert found_in(copied, columns.path) == ("report.json is not what follows from the log",)


def test_a_training_that_is_not_repeatable_is_found_out(
    supplied: Write, assessed: Callable[..., Report], tmp_path: Path
) -> None:
    path = supplied(tmp_path, "drifting")
    report = assessed(path)
    found = found_in(Path(report.run.folder), path)
    assert found
    assert all("trained again, it answers otherwise; system.training.deterministic is not true" in f for f in found)
    honest = supplied(tmp_path / "honest", "drifting", system__training__deterministic=False)
    assert found_in(Path(assessed(honest).run.folder), honest) == ()


def test_an_inspection_is_of_the_strongest_poisoner(images: Run) -> None:
    (line,) = (each for each in images.folder.lines() if isinstance(each, InspectedLine))
    assert (line.attacker, line.poisoner) == ("supplier", poisoning(images.report).strongest)
    assert [each.name for each in line.detectors] == [each.name for each in poisoning(images.report).detectors]


def test_environment_is_left_alone(columns: Run) -> None:
    """Files of a run are the log, the inputs, the threat model and the report."""
    assert sorted(os.listdir(columns.report.run.folder)) == ["inputs", "log", "report.json", "threat-model.yaml"]
