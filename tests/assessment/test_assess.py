"""`assess` from file to report, on models of three lines whose rows have a known fate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import redan
from redan.assessment.session import Stage
from redan.errors import EvidenceError, PreflightError, RedanError, SettingError, TargetError
from redan.evidence.folder import MODEL, REPORT, RunFolder, digest, file_digest
from redan.evidence.report import AttackerPart, Counts, Report, Verdict
from redan.evidence.summary import report_of
from redan.report.words import doubts

Write = Callable[..., Path]
PASS, FAIL, OPEN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
SCORES = {"attackers__0__knowledge": "scores", "attackers__0__capability": {"queries_per_row": 60}}
IMAGE = {
    "system__inputs": {"kind": "image", "shape": [1, 1, 7], "bounds": [0, 1]},
    "system__model__arguments__kind": "Picture",
}
POISONING = {
    "name": "supplier",
    "kind": "poisoning",
    "why": "suppliers label",
    "goal": "availability",
    "capability": {"share": 0.01},
}
EXTRACTION = {
    "name": "customer",
    "kind": "extraction",
    "why": "answers are sold",
    "knowledge": "scores",
    "goal": {"fidelity": "test"},
    "capability": {"usd": 0.001, "usd_per_1000_queries": 2.0},
}


def first(report: Report) -> AttackerPart:
    return report.attackers[0]


def counts(report: Report) -> Counts:
    found = first(report).counts
    assert found is not None
    return found


def lines(report: Report, event: str) -> list[dict[str, Any]]:
    """Lines of the log, in the order of the rows; with what a row spent in all."""
    segments = sorted((Path(report.run.folder) / "log").iterdir())
    log = [json.loads(line) for path in segments for line in path.read_text("utf-8").splitlines()]
    found = [line for line in log if line["event"] == event]
    for line in found if event == "row" else ():
        line["queries"] = sum(queries for queries, _, _ in line["spent"].values())
    return sorted(found, key=lambda line: line["row"]) if event == "row" else found


def saved(report: Report) -> dict[str, torch.Tensor]:
    """All inputs of the run folder, by file."""
    return {path.name: load_file(path)["x"] for path in sorted((Path(report.run.folder) / "inputs").iterdir())}


def inputs(report: Report) -> dict[int, torch.Tensor]:
    """The saved input of each row."""
    found: dict[int, torch.Tensor] = {}
    for path in (Path(report.run.folder) / "inputs").iterdir():
        tensors = load_file(path)
        found |= dict(zip(tensors["row"].tolist(), tensors["x"], strict=True))
    return found


# -- verdicts -------------------------------------------------------------------------------------------


def test_a_robust_model_passes(shop: Write) -> None:
    report = redan.assess(shop(weak=2, requirements__1={"metric": "clean_accuracy", "at_least": 0.8}))
    assert (report.verdict, report.exit_code, report.reasons) == (PASS, 0, [])
    assert counts(report) == Counts(
        drawn=32, right=32, unanswered=0, robust=30, broken=2, errors=0, undecided=0, missing=0, held=None
    )
    (attack,) = first(report).attacks
    assert (attack.name, attack.status, attack.attempted, attack.broken) == ("fast-cascade", "done", 32, 2)
    assert attack.queries == attack.forwards >= 30 * 31  # two climbs
    assert attack.settings == "FastCascade(thorough=False, queries=1000)"
    assert [(part.name, part.drawn, part.right) for part in first(report).by_class] == [
        ("0", 11, 11),
        ("1", 11, 11),
        ("2", 10, 10),
    ]
    assert first(report).techniques == ["AML.T0015", "AML.T0043", "AML.T0043.000"]
    assert [part.verdict for part in report.requirements] == [PASS, PASS]


def test_a_weak_model_fails(shop: Write) -> None:
    report = redan.assess(shop(weak=28))
    assert (report.verdict, report.exit_code) == (FAIL, 1)
    assert (counts(report).robust, counts(report).broken) == (4, 28)
    assert "4 of 32" in report.reasons[0]


def test_too_few_rows_are_inconclusive(shop: Write) -> None:
    report = redan.assess(shop(weak=8, requirements__0__at_least=0.72))
    assert (report.verdict, report.exit_code) == (OPEN, 3)
    assert "more rows would decide" in report.reasons[0]


def test_the_attacker_s_success_rate_is_judged(shop: Write) -> None:
    asked = [{"metric": "attack_success_rate", "at_most": 0.3, "against": "anyone"}]
    assert redan.assess(shop(weak=2, requirements=asked)).verdict is PASS
    assert redan.assess(shop(weak=28, requirements=asked)).verdict is FAIL


@pytest.mark.parametrize(
    ("changed", "name", "words"),
    [
        ({"attackers__1": POISONING}, "supplier", "there are no training rows to poison; give system.data.train"),
        ({"attackers__1": EXTRACTION}, "customer", "the attacker's money buys no answer"),
        ({**IMAGE, "attackers__0__change": {"patch": {"area": 0.1}}}, "anyone", "changes of kind patch are not built"),
        (
            {"attackers__0__change": {"l0": 3}, "attackers__0__knowledge": "scores"},
            "anyone",
            "no L0 attack without gradients is built yet",
        ),
        (
            {"attackers__0__change": {"l1": 1.0}, "attackers__0__knowledge": "labels"},
            "anyone",
            "no attack on labels alone is built in L1 yet",
        ),
        (
            {"attacks__mode": "autoattack", "attackers__0__knowledge": "scores"},
            "anyone",
            "AutoAttack needs the model's own gradients",
        ),
        ({"attacks__skip": ["fast-cascade"]}, "anyone", "every attack was skipped"),
    ],
    ids=["poisoning", "extraction", "patch", "l0", "labels", "autoattack", "all skipped"],
)
def test_an_attacker_who_is_not_tried_makes_it_inconclusive(
    shop: Write, changed: dict[str, object], name: str, words: str
) -> None:
    report = redan.assess(shop(**changed))
    assert (report.verdict, report.exit_code) == (OPEN, 3)
    part = next(each for each in report.attackers if each.name == name)
    assert part.counts is None
    assert part.status in ("not built", "skipped")
    assert words in (part.reason or "")
    assert any(f"{name}: {words}" in reason for reason in report.reasons)
    assert any(words in sentence for sentence in report.shows_not)
    assert not [step for step in report.plan if step.attacker == name]


def test_an_attacker_who_is_not_built_does_not_hide_a_fail(shop: Write) -> None:
    report = redan.assess(shop(weak=28, attackers__1=POISONING))
    assert report.verdict is FAIL
    assert [part.status for part in report.attackers] == ["assessed", "not built"]


@pytest.mark.parametrize("metric", ["median_distance"])
def test_a_metric_that_is_not_built_is_inconclusive(shop: Write, metric: str) -> None:
    report = redan.assess(shop(requirements__1={"metric": metric, "at_least": 0.01, "against": "anyone"}))
    assert report.verdict is OPEN
    (reason,) = report.reasons
    assert reason.startswith(f"{metric} against anyone: {metric} is not built yet in an assessment")


def test_no_requirement_is_inconclusive(shop: Write) -> None:
    assert redan.assess(shop(requirements=[])).verdict is OPEN


# -- our own limits -------------------------------------------------------------------------------------


def test_rows_cut_off_by_our_queries_are_undecided(shop: Write) -> None:
    report = redan.assess(shop(limits={"queries": 200}), workers=1)
    assert report.limits_hit == ["queries"]
    assert not report.run.reproducible
    assert report.verdict is OPEN
    found = counts(report)
    assert found.undecided == 30  # the weak rows broke at once, and stay broken
    assert found.broken == 2
    assert first(report).attacks[0].status == "cut"
    assert sum(row["queries"] for row in lines(report, "row")) <= 200


def test_rows_cut_off_by_the_clock_are_undecided_and_a_fail_stands(shop: Write) -> None:
    slow = redan.assess(shop("Slow", limits={"seconds": 0.3}), workers=1)
    assert slow.limits_hit == ["seconds"]
    assert slow.verdict is OPEN
    assert counts(slow).robust == 0
    failed = redan.assess(shop("Slow", weak=31, count=32, limits={"seconds": 1.0}), workers=1)
    assert failed.verdict is FAIL


def test_what_the_attacker_may_spend_is_no_limit_of_ours(shop: Write) -> None:
    report = redan.assess(shop(weak=0, **SCORES))
    assert report.limits_hit == []
    assert report.verdict is PASS
    assert [attack.name for attack in first(report).attacks] == ["square"]
    assert {row["queries"] for row in lines(report, "row")} == {60}
    assert first(report).attacks[0].backwards == 0


# -- models that fail, change or mask -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "reason"),
    [("Raising", "the model raised ConnectionError: connection reset"), ("Nan", "the model answered NaN")],
)
def test_rows_on_which_the_model_fails_are_errors_and_the_run_goes_on(shop: Write, model: str, reason: str) -> None:
    report = redan.assess(shop(model, marked=3, requirements__0__at_least=0.65))
    assert counts(report) == Counts(
        drawn=32, right=29, unanswered=3, robust=27, broken=2, errors=3, undecided=0, missing=0, held=None
    )
    (error,) = report.errors
    assert (error.reason, error.rows, error.attacker) == (reason, 3, "anyone")
    assert error.first in [row["id"] for row in lines(report, "row") if row["reason"] == reason]
    assert [check.check for check in report.preflight if check.status != "pass"] == ["finite-answers"]
    assert doubts(first(report)) == []
    (part,) = report.requirements
    assert (part.k, part.n, part.errors) == (27, 32, 3)
    assert report.verdict is PASS  # though the three count as broken


def test_error_rows_never_help(shop: Write) -> None:
    report = redan.assess(shop("Raising", weak=0, marked=10))
    assert report.verdict is OPEN  # 22 of 32 if the rest were broken, 32 of 32 if they were robust
    assert "10 rows errored" in report.reasons[1]
    clean = redan.assess(shop("Raising", marked=10, requirements=[{"metric": "clean_accuracy", "at_least": 0.7}]))
    assert clean.verdict is OPEN


def test_a_model_that_answers_nothing_is_refused(shop: Write, tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match=r"finite-answers: 32 of 32 rows got no usable answer"):
        redan.assess(shop("AlwaysNan"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.examined
def test_a_random_model_is_judged_over_fresh_draws(shop: Write) -> None:
    report = redan.assess(shop("Noisy", weak=0, requirements__0__at_least=0.5, attacks__eot=10))
    assert report.run.model_stochastic
    (switch,) = [check for check in report.preflight if check.status == "switch"]
    assert switch.check == "determinism"
    found = counts(report)
    assert found.held is not None
    assert sum(found.held) + found.errors == 32
    (part,) = report.requirements
    assert part.interval is not None
    assert part.interval.method == "bootstrap"
    assert all(line["share"] * 20 == pytest.approx(round(line["share"] * 20)) for line in lines(report, "row"))
    assert doubts(first(report)) == []


def test_a_random_model_that_breaks_fails(shop: Write) -> None:
    assert redan.assess(shop("Noisy", weak=32, attackers__0__change={"linf": 0.3})).verdict is FAIL


@pytest.mark.slow
def test_a_random_model_s_rows_count_as_their_mean(shop: Write) -> None:
    """Every row of this model is wrong now and then: its rows were judged, and none is an error.

    Its attacks do not claim more than was broken.
    """
    report = redan.assess(shop("Noisy", weak=0, system__model__arguments__sigma=0.4, attacks__mode="quick"))
    found = counts(report)
    assert found.errors == 0
    assert found.held is not None
    assert sum(found.held) == 32
    assert found.held[20] < 32
    assert sum(attack.broken for attack in first(report).attacks) <= counts(report).broken


@pytest.mark.slow
def test_a_random_model_gets_the_same_report_again(shop: Write) -> None:
    path = shop("Noisy", weak=16, system__model__arguments__sigma=0.3, attacks__mode="quick")
    held = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        held.append(counts(redan.assess(path)))
    assert held[0] == held[1]


@pytest.mark.parametrize("model", [pytest.param("Stateful", marks=pytest.mark.slow), "Moody"])
def test_a_model_that_changes_while_it_is_asked_never_passes(shop: Write, model: str) -> None:
    try:
        report = redan.assess(shop(model, weak=0))
    except RedanError as error:
        assert "own state" in str(error)  # noqa: PT017  # either end is right
    else:
        assert report.verdict is not PASS or report.run.model_stochastic
        assert "determinism" in [check.check for check in report.preflight if check.status != "pass"]


@pytest.mark.examined
def test_masked_gradients_block_a_pass_and_are_named(shop: Write) -> None:
    report = redan.assess(shop("Rounded", count=12, weak=0))
    assert report.verdict is OPEN
    assert counts(report).robust == 12
    found = doubts(first(report))
    assert found[0].name == "masked gradients"
    assert all(doubt.blocks_pass for doubt in found)
    assert "cannot be trusted" in report.reasons[0]
    broken = redan.assess(shop("Rounded", count=12, weak=12, attacks__mode="default", requirements__0__at_least=0.9))
    assert broken.verdict is FAIL  # Square needs no gradient


def test_a_model_without_gradients_is_attacked_by_scores(shop: Write) -> None:
    report = redan.assess(shop("Detached", weak=32, attacks__mode="default", requirements__0__at_least=0.9))
    assert report.verdict is FAIL


def test_masked_gradients_do_not_matter_to_who_uses_none(shop: Write) -> None:
    report = redan.assess(shop("Rounded", weak=0, **SCORES))
    assert report.verdict is PASS


# -- measured again from what was saved -----------------------------------------------------------------


def test_a_saved_input_that_was_changed_is_refused(
    shop: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    honest = RunFolder.save_inputs

    def flipped(folder: RunFolder, name: str, tensors: dict[str, torch.Tensor]) -> str:
        sha = honest(folder, name, tensors)
        path = Path(folder.url) / "inputs" / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        return sha

    monkeypatch.setattr(RunFolder, "save_inputs", flipped)
    with pytest.raises(EvidenceError, match="is not the file that was logged"):
        redan.assess(shop())
    (run,) = (tmp_path / "runs").iterdir()
    assert not (run / REPORT).exists()
    last = json.loads(sorted((run / "log").iterdir())[-1].read_text().splitlines()[-1])
    assert (last["event"], last["why"]) == ("ended", "EvidenceError")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda _, x0: x0, "measured again: the saved input does not reach the goal"),
        (lambda _, x0: 1 - x0, "measured again: the saved input lies outside the attacker's set"),
        (lambda x, _: x + 3, "measured again: the saved input lies outside the attacker's set"),
        (lambda x, _: x * torch.nan, "measured again: the saved input lies outside the attacker's set"),
    ],
    ids=["clean", "far", "outside the box", "nan"],
)
def test_a_break_that_does_not_hold_on_the_disk_is_an_error(
    shop: Write, monkeypatch: pytest.MonkeyPatch, change: Callable[..., torch.Tensor], reason: str
) -> None:
    """Who writes files that fit the log, and do not show what it says, is found out by asking the model again."""
    honest = RunFolder.save_inputs
    clean = load_rows(shop(weak=28))

    def wrong(folder: RunFolder, name: str, tensors: dict[str, torch.Tensor]) -> str:
        at = tensors["row"]
        return honest(folder, name, {**tensors, "x": change(tensors["x"], clean[at])})

    monkeypatch.setattr(RunFolder, "save_inputs", wrong)
    report = redan.assess(shop(weak=28))
    found = counts(report)
    assert found.broken == 0
    assert found.errors >= 28
    assert reason in [error.reason for error in report.errors]
    assert report.verdict is OPEN


def load_rows(path: Path) -> torch.Tensor:
    """The rows that a threat model draws, in order."""
    with np.load(path.parent / "rows.npz") as file:
        x = file["x"]
    order = np.random.default_rng(0).permutation(len(x))
    return torch.from_numpy(x[order])


def test_a_robust_row_whose_saved_input_breaks_is_an_error(shop: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = RunFolder.save_inputs

    def wrong(folder: RunFolder, name: str, tensors: dict[str, torch.Tensor]) -> str:
        return honest(folder, name, {**tensors, "x": 1 - tensors["x"]})

    monkeypatch.setattr(RunFolder, "save_inputs", wrong)
    report = redan.assess(shop(weak=0))
    assert report.verdict is OPEN
    assert counts(report).robust == 0


def test_the_evidence_holds_together(shop: Write) -> None:
    path = shop(weak=5, run__block=16)
    report = redan.assess(path, workers=1)
    folder = Path(report.run.folder)
    assert (folder / MODEL).read_bytes() == path.read_bytes()
    assert report.digests["threat_model"] == digest(path.read_bytes())
    assert report.digests["data"] == file_digest(path.parent / "rows.npz")
    assert Report.model_validate_json((folder / REPORT).read_bytes()) == report
    (head,) = lines(report, "run")
    assert head["id"] == report.run.id == folder.name
    keys = ("model", "data", "rows", "threat_model", "redan")
    assert {head["digests"][key] == report.digests[key] for key in keys} == {True}
    assert [row["row"] for row in lines(report, "row")] == list(range(32))
    for block in lines(report, "block"):
        assert file_digest(folder / "inputs" / block["inputs"]) == block["sha256"]
    ((why, rows),) = [(line["why"], line["rows"]) for line in lines(report, "ended")]
    assert (why, rows) == ("done", 32)
    again = report_of(RunFolder.open(folder))
    assert again == report


def test_saved_inputs_break_the_model_by_hand(shop: Write) -> None:
    path = shop(weak=5)
    report = redan.assess(path, workers=1)
    (x,) = saved(report).values()
    clean = load_rows(path)
    weight = torch.eye(3).repeat_interleave(2, 1)
    answers = (x[:, :6] @ weight.T).argmax(1)
    for row in lines(report, "row"):
        at = row["saved"]
        assert (int(answers[at]) != row["y"]) == (row["status"] == "broken")
        assert float((x[at] - clean[row["row"]]).abs().max()) <= 0.1 + 1e-6
        assert row["index"] == np.random.default_rng(0).permutation(32)[row["row"]]


# -- what does not change a number ----------------------------------------------------------------------


def without_times(report: Report) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(report.model_dump_json())
    for key in ("id", "folder", "started", "seconds"):
        del found["run"][key]
    for part in found["attackers"]:
        for attack in part["attacks"]:
            del attack["seconds"]
    return found


def test_workers_change_no_byte(shop: Write) -> None:
    path = shop(count=48, weak=6, run__block=16, attacks__mode="default")
    one, two = (redan.assess(path, workers=workers) for workers in (1, 2))
    assert without_times(one) == without_times(two)
    assert inputs(one).keys() == inputs(two).keys() == set(range(48))
    assert all(torch.equal(x, inputs(two)[row]) for row, x in inputs(one).items())
    assert one.digests["evidence"] == two.digests["evidence"]  # every row's line, its input's digest in it


def test_a_seed_decides_rows_and_result(shop: Write) -> None:
    path = shop(count=48, weak=20, statistics={"rows": 24, "seed": 3})
    one, again = redan.assess(path), redan.assess(path)
    assert without_times(one) == without_times(again)
    other = redan.assess(shop(count=48, weak=20, statistics={"rows": 24, "seed": 4}))
    assert one.digests["rows"] != other.digests["rows"]
    drawn = [row["index"] for row in lines(one, "row")]
    assert len(set(drawn)) == 24
    assert sorted(drawn) != drawn


def test_out_is_used_instead_of_the_file_s(shop: Write, tmp_path: Path) -> None:
    report = redan.assess(shop(), out=tmp_path / "elsewhere")
    assert Path(report.run.folder).parent == tmp_path / "elsewhere"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("keep", "kept"), [("all", 32), ("broken", 5), ("none", 0)])
def test_which_inputs_are_kept(shop: Write, keep: str, kept: int) -> None:
    report = redan.assess(shop(weak=5, run__keep_inputs=keep))
    assert counts(report).broken == 5
    assert sum(len(x) for x in saved(report).values()) == kept
    assert report.verdict is redan.assess(shop(weak=5)).verdict


@pytest.mark.examined
def test_progress_is_told_to_who_watches(shop: Write) -> None:
    stages: list[Stage] = []
    redan.assess(shop(run__block=16, attackers__1=POISONING), watch=stages.append, workers=1)
    assert {(stage.attacker, stage.number, stage.of) for stage in stages} == {("anyone", 1, 1)}
    last = [stage for stage in stages if stage.doing is None][-1].progress
    assert {stage.doing for stage in stages} == {None, "examined"}
    assert (last.share, last.settled, last.rows) == (1, 32, 32)
    assert last.passes > 1000
    shares = [stage.progress.share for stage in stages if stage.doing is None]
    assert shares == sorted(shares)


# -- the user's own attacks -----------------------------------------------------------------------------


def test_an_added_attack_is_used_and_may_win_rows(shop: Write) -> None:
    report = redan.assess(shop(weak=6, attacks={"mode": "quick", "skip": ["fast-cascade"], "add": ["{shop}:Corner"]}))
    (attack,) = first(report).attacks
    assert (attack.name, attack.status, attack.broken) == ("Corner", "done", 6)
    assert (counts(report).broken, counts(report).robust) == (6, 26)
    assert report.skipped == ["fast-cascade"]
    assert {step.attack: step.status for step in report.plan}["fast-cascade"] == "skipped"
    assert {step.attack: step.status for step in report.plan}["Corner"] == "chosen"


@pytest.mark.parametrize(("weak", "verdict"), [(0, OPEN), (28, FAIL)])
def test_an_added_attack_that_crashes_is_contained_and_blocks_a_pass(shop: Write, weak: int, verdict: Verdict) -> None:
    report = redan.assess(shop(weak=weak, attacks__add=["{shop}:Crashing"]))
    assert [(attack.name, attack.status) for attack in first(report).attacks] == [
        ("fast-cascade", "done"),
        ("Crashing", "error"),
    ]
    assert report.verdict is verdict
    assert counts(report).errors == 32 - weak
    assert report.errors[0].reason == "Crashing raised ValueError: boom"
    (diagnosis,) = first(report).diagnosis
    assert (diagnosis.name, diagnosis.blocks_pass) == ("attacks that failed", True)


def test_an_added_attack_that_raises_redan_s_own_error_is_contained(shop: Write) -> None:
    report = redan.assess(shop(attacks__add=["{shop}:Refusing"]))
    assert first(report).attacks[-1].status == "error"


def test_added_attacks_may_have_the_same_name(shop: Write) -> None:
    path = shop(attacks__add=["{shop}:Corner", "others:Corner"])
    source = next(path.parent.glob("shop_*.py"))
    (path.parent / "others.py").write_text(f"from {source.stem} import Crashing as Corner\n")
    report = redan.assess(path)
    assert len(first(report).attacks) == 3
    assert report.verdict is OPEN


def test_an_added_attack_that_lies_wins_nothing(shop: Write) -> None:
    report = redan.assess(shop(weak=2, attacks__add=["{shop}:Liar"]))
    assert {attack.name: attack.broken for attack in first(report).attacks} == {"fast-cascade": 2, "Liar": 0}
    assert report.verdict is PASS


def test_skipped_attacks_are_told(shop: Write) -> None:
    report = redan.assess(shop(attacks={"mode": "default", "skip": ["square", "apgd-t"]}))
    assert report.skipped == ["square", "apgd-t"]
    assert [attack.name for attack in first(report).attacks] == ["fast-cascade"]
    assert {step.attack for step in report.plan if step.status == "skipped"} == {"square", "apgd-t"}


# -- goals, data, inputs --------------------------------------------------------------------------------


def test_a_targeted_attacker_breaks_only_rows_of_other_classes(shop: Write) -> None:
    path = shop(weak=6, attackers__0__goal={"targeted": 1})
    report = redan.assess(path)
    broken = [row for row in lines(report, "row") if row["status"] == "broken"]
    assert len(broken) == 4  # of six weak rows two have the class already
    assert {row["y"] for row in broken} == {0, 2}


def test_a_least_likely_attacker_gets_what_he_asked_for(shop: Write) -> None:
    path = shop(weak=12, attackers__0__goal={"targeted": "least_likely"})
    report = redan.assess(path, workers=1)
    clean = load_rows(path)
    weight = torch.eye(3).repeat_interleave(2, 1)
    (x,) = saved(report).values()
    broken = [row for row in lines(report, "row") if row["status"] == "broken"]
    assert len(broken) >= 8
    for row in broken:
        wanted = int((clean[row["row"], :6] @ weight.T).argmin())
        assert int((x[row["saved"], :6] @ weight.T).argmax()) == wanted


def test_a_targeted_attacker_s_errors_on_wrong_rows_do_not_count(shop: Write) -> None:
    x = np.asarray(load_rows(shop(weak=0)))
    y = (x[:, :6].reshape(-1, 3, 2).sum(2)).argmax(1)
    y[:4] = (y[:4] + 1) % 3  # four rows that are wrong on the clean input
    report = redan.assess(
        shop(
            arrays={"x": x, "y": y},
            attackers__0__goal={"targeted": 1},
            attacks__add=["{shop}:Crashing"],
            requirements=[{"metric": "attack_success_rate", "at_most": 0.9}],
        )
    )
    assert counts(report).right == 28
    assert counts(report).errors <= 28


def test_bytes_are_divided_by_255_and_it_is_said(shop: Write) -> None:
    x = np.asarray(load_rows(shop(weak=3)))
    y = (x[:, :6].reshape(-1, 3, 2).sum(2)).argmax(1)
    report = redan.assess(shop(arrays={"x": (x * 255).round().astype(np.uint8), "y": y}), workers=1)
    assert counts(report).right == 32
    notes = [check.detail for check in report.preflight if check.check == "data"]
    assert notes == ["inputs were uint8 and were divided by 255"]
    (inputs,) = saved(report).values()
    (row, *_) = [row for row in lines(report, "row") if row["status"] == "robust"]
    assert torch.equal(inputs[row["saved"]], torch.from_numpy((x * 255).round()[row["index"]]) / 255)


def test_whole_numbers_in_bounds_of_their_own_stay_what_they_are(shop: Write) -> None:
    x = np.asarray(load_rows(shop(weak=3)))
    y = (x[:, :6].reshape(-1, 3, 2).sum(2)).argmax(1)
    report = redan.assess(
        shop(
            arrays={"x": (x * 255).round().astype(np.uint8), "y": y},
            system__inputs__bounds=[0, 255],
            attackers__0__change={"linf": 25.5},
        )
    )
    assert [check.detail for check in report.preflight if check.check == "data"] == [
        "inputs were uint8 and became float32"
    ]
    assert max(float(saved_x.max()) for saved_x in saved(report).values()) > 100


def test_rows_keep_their_own_ids(shop: Write) -> None:
    x, y = np.asarray(load_rows(shop())), np.arange(32) % 3
    y = (x[:, :6].reshape(-1, 3, 2).sum(2)).argmax(1)
    names = np.array([f"order {i:03d}" for i in range(32)])
    report = redan.assess(shop(arrays={"x": x, "y": y, "order": names}, system__data__test__id="order"))
    assert {row["id"]: row["index"] for row in lines(report, "row")} == {f"order {i:03d}": i for i in range(32)}


def test_a_row_s_fate_depends_on_its_id_and_not_on_the_others(shop: Write) -> None:
    x = np.asarray(load_rows(shop(weak=16)))
    y = (x[:, :6].reshape(-1, 3, 2).sum(2)).argmax(1)
    names = np.array([f"{i}" for i in range(32)])
    found = []
    for part in (slice(0, 32), slice(8, 32)):
        arrays = {"x": x[part], "y": y[part], "id": names[part]}
        report = redan.assess(shop(arrays=arrays, system__data__test__id="id", **SCORES), workers=1)
        found.append({row["id"]: (row["status"], row["queries"], row["distance"]) for row in lines(report, "row")})
    assert {name: found[0][name] for name in found[1]} == found[1]


def test_rows_from_a_function(shop: Write) -> None:
    report = redan.assess(shop(system__data__test="{shop}:rows"))
    assert counts(report).right == 32
    assert report.digests["data"] is not None


def test_normalization_is_part_of_the_model(shop: Write) -> None:
    """ε stays in units of the bounds: the same rows break as without."""
    image = {"kind": "image", "shape": [1, 1, 7], "bounds": [0, 1]}
    norm = {**image, "normalization": {"mean": [0.5], "std": [0.25]}}
    plain = redan.assess(shop("Picture", weak=5, system__inputs=image))
    normalized = redan.assess(shop("Normalized", weak=5, system__inputs=norm))
    assert counts(plain) == counts(normalized)
    assert counts(plain).broken == 5
    assert "inputs of shape (7,) became (1, 1, 7)" in [check.detail for check in plain.preflight]


def test_normalization_of_tensors(shop: Write) -> None:
    inputs = {"kind": "tensor", "shape": [7], "bounds": [0, 1]}
    norm = {**inputs, "normalization": {"mean": [0.5] * 7, "std": [0.25] * 7}}
    assert counts(redan.assess(shop("Normalized", weak=5, system__inputs=norm))).broken == 5


def test_probabilities_are_attacked_as_logarithms(shop: Write) -> None:
    report = redan.assess(shop("Softmax", weak=5, system__output="probabilities"))
    assert (counts(report).broken, counts(report).robust) == (5, 27)


def test_l2_changes_are_attacked_too(shop: Write) -> None:
    report = redan.assess(shop(weak=5, attackers__0__change={"l2": 0.15}, attacks__mode="default"))
    assert (counts(report).broken, counts(report).robust) == (5, 27)
    assert first(report).change == "l2: 0.15"


def test_two_attackers_are_assessed_one_by_one(shop: Write) -> None:
    stronger = {
        "name": "insider",
        "kind": "evasion",
        "why": "staff leave",
        "goal": "untargeted",
        "knowledge": "gradients",
        "change": {"linf": 0.4},
    }
    report = redan.assess(shop(attackers__1=stronger, requirements__1={"metric": "clean_accuracy", "at_least": 0.5}))
    assert [part.name for part in report.attackers] == ["anyone", "insider"]
    found = [part.counts for part in report.attackers]
    assert [c.robust if c else None for c in found] == [30, 0]
    assert report.verdict is PASS  # nothing is required against the insider
    assert {line["attacker"] for line in lines(report, "block")} == {"anyone", "insider"}


# -- the report tells all -------------------------------------------------------------------------------


def test_what_the_report_says_of_the_run(shop: Write) -> None:
    report = redan.assess(
        shop(statistics={"rows": 24, "confidence": 0.9, "family": "none", "seed": 7}, system__classes=["a", "b", "c"])
    )
    run = report.run
    assert (run.rows, run.confidence, run.family, run.seed, run.mode) == (24, 0.9, "none", 7, "quick")
    assert run.reproducible
    assert not run.model_stochastic
    assert report.classes == ["a", "b", "c"]
    assert [part.name for part in first(report).by_class] == ["a", "b", "c"]
    assert {check.check for check in report.preflight} >= {"bounds", "gradients", "determinism", "labels"}
    assert all(check.status == "pass" for check in report.preflight)
    assert set(report.environment) >= {"python", "torch", "numpy", "redan", "cores", "device"}
    assert report.shows_not
    assert [step.attack for step in report.plan if step.status == "chosen"] == ["fast-cascade"]
    assert all(step.reason for step in report.plan)


def test_a_gate_stops_when_it_knows(shop: Write) -> None:
    """With no row or every row breakable, a few of 400 rows decide; the verdict is the one of all rows."""
    for weak, verdict in ((0, PASS), (400, FAIL)):
        path = shop(count=400, weak=weak, requirements__0__at_least=0.5)
        report = redan.assess(path, gate=True)
        assert (report.verdict, report.run.planned, report.run.gate) == (verdict, 400, True)
        assert report.run.rows in (32, 64, 96)
        assert counts(report).drawn == report.run.rows == len(lines(report, "row"))
        assert counts(report).missing == 0
        (ended,) = lines(report, "ended")
        assert (ended["why"], ended["rows"]) == ("decided", report.run.rows)
        (part,) = report.requirements
        assert part.interval is not None
        assert part.interval.method == "confidence-sequence"
        assert redan.assess(path, gate=False).verdict is verdict
        assert redan.assess(path).run.rows == 400


def test_a_gate_that_cannot_know_takes_every_row(shop: Write) -> None:
    report = redan.assess(shop(count=160, weak=48, requirements__0__at_least=0.69, statistics={"gate": True}))
    assert (report.verdict, report.run.rows) == (OPEN, 160)
    assert [line["why"] for line in lines(report, "ended")] == ["done"]


def test_a_gate_takes_the_same_rows_in_the_same_order(shop: Write) -> None:
    path = shop(count=200, weak=10)
    gated, whole = redan.assess(path, gate=True, workers=2), redan.assess(path, workers=1)
    both = [{row["row"]: (row["id"], row["input"], row["status"]) for row in lines(r, "row")} for r in (gated, whole)]
    assert 0 < len(both[0]) < 200
    assert both[0].items() <= both[1].items()


# -- beside the verdict -----------------------------------------------------------------------------------


def test_the_curve_falls_from_clean_to_robust_accuracy(shop: Write) -> None:
    report = redan.assess(shop(weak=20))
    curve = first(report).curve
    assert [point.radius for point in curve] == pytest.approx([0.1 * i / 20 for i in range(21)])
    robust = [point.robust for point in curve]
    assert robust == sorted(robust, reverse=True)
    assert (robust[0], robust[-1]) == (counts(report).right, counts(report).robust) == (32, 12)
    assert (robust[4], robust[10]) == (32, 12)  # the attack's inputs, cut short, break the rows at half the radius


def test_the_curve_is_no_lower_than_the_truth_and_close_to_it(shop: Write) -> None:
    """Rows of known margin: a row breaks at margin / 4, and a good attack's input, clipped, breaks it not far."""
    path = shop(weak=32, count=32, attackers__0__change={"linf": 0.06})
    report = redan.assess(path)
    x, y = load_rows(path), torch.tensor([row["y"] for row in lines(report, "row")])
    scores = x[:, :6] @ torch.eye(3).repeat_interleave(2, 1).T
    others = scores.scatter(1, y[:, None], -torch.inf).amax(1)
    breaks = (scores.gather(1, y[:, None])[:, 0] - others) / 4
    for point in first(report).curve:
        truth = int((breaks > point.radius).sum())
        assert truth <= point.robust
        assert point.robust <= int((breaks > point.radius / 1.5).sum())


def test_success_is_told_after_rounding_to_eight_bits(shop: Write) -> None:
    x = (np.asarray(load_rows(shop(weak=3))) * 255).round().astype(np.uint8)
    y = (x[:, :6].astype(np.int64).reshape(-1, 3, 2).sum(2)).argmax(1)
    report = redan.assess(shop(arrays={"x": x, "y": y}, attackers__0__change={"linf": 0.5}, **IMAGE))
    assert counts(report).broken == first(report).success_8bit == 32
    little = redan.assess(shop(arrays={"x": x[:, :7], "y": y}, attackers__0__change={"linf": 0.5 / 255}, **IMAGE))
    assert first(little).success_8bit == 0  # half a level is no level


def test_tensors_and_floats_have_no_eight_bits(shop: Write) -> None:
    assert first(redan.assess(shop(weak=5))).success_8bit is None
    assert first(redan.assess(shop(weak=5, **IMAGE))).success_8bit is None


# -- money and other limits -------------------------------------------------------------------------------


def test_money_is_counted_and_limits_the_run(shop: Write) -> None:
    priced = {**SCORES, "attackers__0__capability": {"queries_per_row": 60, "usd_per_1000_queries": 2.0}}
    path = shop(weak=0, **priced)
    free = redan.assess(path, workers=1)
    assert first(free).attacks[0].usd == pytest.approx(32 * 60 * 0.002)
    report = redan.assess(path, workers=1, limits=redan.Limits(usd=1.0))
    assert report.limits_hit == ["usd"]
    assert counts(report).undecided == 32
    assert report.verdict is OPEN
    assert (first(report).attacks[0].usd or 0) <= 1.0


def test_a_limit_in_money_without_a_price_is_refused(shop: Write, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no attacker's queries have a price"):
        redan.assess(shop(limits={"usd": 3}))
    assert not (tmp_path / "runs").exists()


def test_the_caller_s_limits_go_before_the_file_s(shop: Write) -> None:
    path = shop(limits={"queries": 200})
    assert redan.assess(path, limits=redan.Limits(queries=10**6)).limits_hit == []
    assert redan.assess(path).limits_hit == ["queries"]


@pytest.mark.slow
def test_scores_that_break_rows_first_are_no_sign_of_masked_gradients(shop: Write) -> None:
    attacks = {"mode": "audit", "skip": ["fast-cascade"], "add": ["{shop}:Climber"]}
    report = redan.assess(shop(weak=8, attacks=attacks, requirements__0__at_least=0.5))
    assert [(a.name, a.broken) for a in first(report).attacks] == [("square", 8), ("Climber", 0)]
    assert doubts(first(report)) == []


def test_two_threat_models_may_name_modules_alike(tmp_path: Path, shop: Write) -> None:
    """In one process, as in a notebook: the second file's model must not be the first one's."""
    digests = []
    for i, text in enumerate(("Pairs", "Turned")):
        path = shop(text, weak=0)
        folder = tmp_path / f"folder{i}"
        folder.mkdir()
        source = next(path.parent.glob("shop_*.py")).read_text()
        (folder / "models_of_both.py").write_text(source + f"\n\ndef both(**_):\n    return {text}().eval()\n")
        (folder / "rows.npz").write_bytes((path.parent / "rows.npz").read_bytes())
        told = path.read_text().replace(next(path.parent.glob("shop_*.py")).stem + ":build", "models_of_both:both")
        (folder / "threat-model.yaml").write_text(told)
        try:
            digests.append(redan.assess(folder / "threat-model.yaml").verdict)
        except PreflightError as error:
            digests.append(str(error).split(":")[0])  # type: ignore[arg-type]  # what became of it
    assert digests == [PASS, "preflight clean-accuracy"]


# -- knowledge: surrogate, and changes without a norm ----------------------------------------------------------


def test_an_attacker_with_surrogates_only_asks_the_model_for_decisions(shop: Write, tmp_path: Path) -> None:
    lent = [{"factory": "{shop}:build", "arguments": {"kind": "Pairs"}}]
    path = shop(weak=28, attackers__0__knowledge="surrogate", attackers__0__surrogates=lent)
    report = redan.assess(path)
    part = first(report)
    assert (part.status, part.knowledge) == ("assessed", "surrogate")
    assert (counts(report).robust, counts(report).broken) == (4, 28)
    (found,) = part.attacks
    assert found.queries == found.attempted == 32  # one decision a row
    assert found.forwards == 32 + 10 * 32  # and ten gradients of the surrogate
    assert found.backwards == 10 * 32
    assert redan.assess(path).digests["evidence"] == report.digests["evidence"]


def test_the_least_likely_class_is_the_surrogates_in_both_measurements(shop: Write, tmp_path: Path) -> None:
    """The target's least likely class may be another: then the second measurement would deny every success."""
    (tmp_path / "leaning.py").write_text(
        "import torch\n\n\nclass Leaning(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x[:, :6].reshape(-1, 3, 2).sum(2) + torch.tensor([0.9, 0.0, -0.9])\n"
        "\n\ndef build():\n    return Leaning().eval()\n"
    )
    said = {"knowledge": "surrogate", "surrogates": [{"factory": "leaning:build"}], "change": {"linf": 0.9}}
    path = shop(
        weak=28, **{f"attackers__0__{k}": v for k, v in said.items()}, attackers__0__goal={"targeted": "least_likely"}
    )
    found = counts(redan.assess(path))
    assert found.errors == 0
    assert found.broken > 10


def test_another_surrogate_is_another_run(shop: Write) -> None:
    def digest(**arguments: object) -> str | None:
        lent = [{"factory": "{shop}:build", "arguments": {"kind": "Pairs"}}] * arguments.pop("times", 1)  # type: ignore[operator]
        return redan.assess(shop(attackers__0__knowledge="surrogate", attackers__0__surrogates=lent)).digests["model"]

    assert digest() != digest(times=2)


def test_a_surrogate_that_cannot_be_built_is_refused(shop: Write) -> None:
    lent = [{"onnx": "a.onnx"}]
    with pytest.raises(TargetError, match=r"there is no .*a.onnx; check system.model.onnx"):
        redan.assess(shop(attackers__0__knowledge="surrogate", attackers__0__surrogates=lent))


def test_labels_alone_get_a_verdict(shop: Write) -> None:
    said = {"attackers__0__knowledge": "labels", "attackers__0__capability": {"queries_per_row": 200}}
    bad, good = (redan.assess(shop(weak=weak, system__output="labels", **said)) for weak in (28, 2))
    assert (bad.verdict, good.verdict) == (FAIL, PASS)
    assert (counts(bad).broken, counts(good).broken) == (28, 2)
    (attack,) = first(bad).attacks
    assert (attack.name, attack.backwards) == ("hop-skip-jump", 0)
    assert 0 < attack.queries <= 32 * 200


def test_shifted_pictures_are_judged_and_have_no_curve_by_projection(shop: Write) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(32, 1, 1, 7)).astype(np.float32)
    y = x.reshape(32, 7)[:, :6].reshape(32, 3, 2).sum(2).argmax(1)
    path = shop(
        "Picture",
        arrays={"x": x, "y": y},
        system__inputs={"kind": "image", "shape": [1, 1, 7], "bounds": [0, 1]},
        attackers__0__change={"spatial": {"translation": 0.3}},
        attackers__0__knowledge="labels",
        attackers__0__capability={"queries_per_row": 20},
        system__output="logits",
    )
    report = redan.assess(path)
    part = first(report)
    assert [attack.name for attack in part.attacks] == ["spatial-grid"]
    assert counts(report).broken > 10
    assert counts(report).errors == 0
    assert part.curve[-1].robust == counts(report).robust
    assert report.verdict is FAIL
