"""Copies made in an assessment: what they cost, how they are judged, what they are used for, and all of it again."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import redan
from redan.assessment.bought import Bought, LimitHitError
from redan.assessment.replay import replay
from redan.assessment.session import Stage
from redan.errors import DataError, EvidenceError, ThreatModelError
from redan.evidence.extracted import BudgetPart, ExtractionPart
from redan.evidence.extraction_lines import CopyLine
from redan.evidence.folder import RunFolder
from redan.evidence.report import AttackerPart, Report, Verdict
from redan.evidence.requirement import Requirement
from redan.evidence.summary import summary
from redan.evidence.verdict import judge
from redan.extraction.customer import named
from redan.oracle import Limits, Purse
from redan.targets import from_torch

WEIGHT = [[3.0, 2, 0, 0, 0, 0], [0, 0, 3, 2, 0, 0], [0, 0, 0, 0, 3, 2]]
ROWS, POOL, ANSWERS = 60, 90, 80
MODEL = f"""
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3, bias=False)
        self.linear.weight.data = torch.tensor({WEIGHT})

    def forward(self, x):
        with (HERE / "asked").open("ab") as file:
            file.write(x.detach().numpy().astype(np.float32).tobytes())
        return 4 * self.linear(x)


def build():
    return Linear().eval()


def wide(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0], classes))


def no_module(shape, classes):
    return classes


def crumbling(shape, classes):
    if (HERE / "crumble").exists():
        raise KeyError("no clay is left")
    return wide(shape, classes)


def unlabeled():
    return {{"x": np.random.default_rng(5).random((70, 6)).astype(np.float32)}}
"""
ESTIMATORS = """

def forest(shape, classes):
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=10)


def neighbors(shape, classes):
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier()
"""
FIDELITY = {
    "name": "customer",
    "kind": "extraction",
    "why": "answers are sold per call",
    "knowledge": "scores",
    "goal": {"fidelity": "test"},
    "capability": {"queries_total": ANSWERS, "usd_per_1000_queries": 2.0},
}
EVASION = {
    "name": "fraudster",
    "kind": "evasion",
    "why": "wrong answers pay",
    "goal": "untargeted",
    "knowledge": "scores",
    "change": {"linf": 0.1},
    "capability": {"queries_per_row": 5, "usd_per_1000_queries": 2.0},
}
TRANSFER = {**FIDELITY, "name": "copier", "knowledge": "labels", "goal": {"transfer": "fraudster"}}

Write = Callable[..., Path]


@pytest.fixture
def shop(tmp_path: Path) -> Write:
    """Writes a threat model of a linear model whose answers are sold, with the rows that a customer has."""

    def write(*attackers: dict[str, Any], name: str = "shop", **sections: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        draw = np.random.default_rng(0)
        for file, count in (("test", ROWS), ("pool", POOL)):
            x = draw.random((count, 6)).astype(np.float32)
            np.savez(folder / f"{file}.npz", x=x, y=(x @ np.array(WEIGHT).T).argmax(1))
        (folder / "sold.py").write_text(MODEL)
        told: dict[str, Any] = {
            "redan": 1,
            "system": {
                "name": "owls",
                "task": "classification",
                "classes": ["cat", "dog", "owl"],
                "model": {"factory": "sold:build"},
                "output": "logits",
                "inputs": {"kind": "tensor", "shape": [6], "bounds": [0, 1]},
                "data": {"test": {"path": "test.npz"}},
            },
            "attackers": list(attackers) or [FIDELITY],
            "attacks": {"mode": "quick"},
            "extraction": {
                "copies": 2,
                "curve": [],
                "pool": {"path": "pool.npz"},
                "surrogate": "sold:wide",
                "uniform_rows": 40,
                "transfer_rows": 30,
            },
            "run": {"out": "runs"},
        }
        for section, value in sections.items():
            told[section] = {**told[section], **value} if isinstance(value, dict) and section in told else value
        path = folder / "threat-model.yaml"
        path.write_text(yaml.safe_dump(told, sort_keys=False))
        return path

    return write


def of(report: Report, name: str) -> AttackerPart:
    return next(part for part in report.attackers if part.name == name)


def copied(report: Report, name: str) -> ExtractionPart:
    part = of(report, name).extraction
    assert part is not None
    return part


def lines(report: Report) -> list[CopyLine]:
    return [line for line in RunFolder.open(report.run.folder).lines() if isinstance(line, CopyLine)]


def asked(path: Path) -> np.ndarray[Any, Any]:
    return np.frombuffer((path.parent / "asked").read_bytes(), dtype=np.float32).reshape(-1, 6)


def test_copies_are_bought_judged_and_billed(shop: Write) -> None:
    path = shop(
        extraction={"curve": [0.5], "queries_per_day": 20},
        requirements=[{"metric": "extraction_fidelity", "at_most": 0.1}],
    )
    report = redan.assess(path)
    part = copied(report, "customer")
    (knockoff,) = part.extractors
    whole, half = knockoff.points

    assert (part.goal, part.rows, part.strongest) == ("fidelity", "test", "knockoff-nets")
    assert part.answers == "raw scores"
    assert f"{POOL:,} rows" in part.pool
    assert (whole.queries, whole.paid, half.queries, half.paid) == (ANSWERS, ANSWERS, ANSWERS / 2, ANSWERS / 2)
    assert (whole.usd, whole.days, half.days) == (ANSWERS * 2 / 1000, 4.0, 2.0)
    assert [each.rows for each in whole.compared] == ["test", "uniform"]
    test, uniform = whole.compared
    assert (test.n, uniform.n) == (ROWS, 40)
    assert test.fidelity is not None
    assert test.fidelity.value > 0.8  # a linear model of a linear model
    assert uniform.accuracy is None
    assert test.model_accuracy == 1.0
    assert test.accuracy is not None
    assert test.accuracy.each == test.fidelity.each  # the model is right everywhere
    assert 0 < test.worst < 1
    for each in knockoff.milestones:
        reached = [point.queries for point in (whole, half) if fidelity_of(point) >= each.share]
        assert each.queries == min(reached, default=None)
    assert report.verdict is Verdict.FAIL
    assert report.requirements[0].unit == "share of copies"
    assert report.requirements[0].n == 2
    assert report.risks[0].success_rate == test.fidelity.value
    assert report.risks[0].median_queries == ANSWERS


def fidelity_of(point: BudgetPart) -> float:
    found = next(each.fidelity for each in point.compared if each.rows == "test")
    return 0.0 if found is None else found.value


def test_equations_give_a_linear_model_away(shop: Write) -> None:
    """d answers along the axes and one in the middle are enough, whatever may be bought."""
    report = redan.assess(shop(attacks={"mode": "default"}))
    part = copied(report, "customer")
    by_name = {each.name: each for each in part.extractors}
    solved = by_name["equation-solving"].points[0]
    assert solved.paid == 7
    assert all(each.fidelity is not None and each.fidelity.value == 1.0 for each in solved.compared)
    assert solved.compared[0].worst < 1e-4
    assert part.strongest == "equation-solving"
    kinks = by_name["functionally-equivalent"]
    assert kinks.status == "not applicable"
    assert kinks.reason is not None
    assert "float64" in kinks.reason
    assert not kinks.points


def test_a_copy_is_used_and_compared_with_an_attack_without_one(shop: Write) -> None:
    path = shop(EVASION, TRANSFER, requirements=[{"metric": "transfer_success", "at_most": 0.01}])
    report = redan.assess(path)
    part = copied(report, "copier")
    assert part.answers == "the class alone"
    point = next(each for each in part.extractors if each.name == part.strongest).points[0]
    used, direct = point.transfer, part.direct
    assert used is not None
    assert used.success is not None
    assert direct is not None
    assert used.success.value > 0.1
    assert used.rows == direct.rows == 30  # the model is right on all
    assert direct.queries_per_row == max(10, math.ceil((point.paid + used.queries) / 30))
    assert direct.attacks == ["hop-skip-jump"]
    assert used.usd == pytest.approx((point.paid + used.queries) * 2 / 1000)
    assert used.usd is not None
    assert used.usd_per_success == pytest.approx(used.usd / (used.success.value * 30))
    assert report.verdict is Verdict.FAIL

    folder = RunFolder.open(report.run.folder)
    x0 = np.load(path.parent / "test.npz")["x"]
    order = np.random.default_rng(0).permutation(ROWS)
    for line in lines(report):
        told = line.points[0].transferred
        assert told is not None
        arrays = folder.load_inputs(line.saved or "", line.sha256)
        clean = torch.from_numpy(x0[order[arrays["transfer.row"].numpy()]])
        assert len(clean) == told.broken
        assert float((arrays["transfer.x"] - clean).abs().max()) <= 0.1 + 1e-6
        scores = arrays["transfer.x"] @ torch.tensor(WEIGHT).T
        assert bool((scores.argmax(1) != (clean @ torch.tensor(WEIGHT).T).argmax(1)).all())


def test_what_the_rows_are_judged_on_is_never_asked_for_training(shop: Write) -> None:
    path = shop()
    with np.load(path.parent / "test.npz") as test, np.load(path.parent / "pool.npz") as pool:
        mixed = np.concatenate([test["x"][:50], pool["x"]])
    np.savez(path.parent / "pool.npz", x=mixed, y=np.zeros(len(mixed)))
    report = redan.assess(path)
    part = copied(report, "customer")
    assert "50 more are judged on, and not asked" in part.pool
    np.savez(path.parent / "pool.npz", x=mixed[:50], y=np.zeros(50))
    with pytest.raises(DataError, match="give others as extraction.pool"):
        redan.assess(path)


def test_a_pass_over_noise_alone_is_not_believed(shop: Write) -> None:
    path = shop(
        attacks={"mode": "quick"},
        extraction={"pool": None},
        requirements=[{"metric": "extraction_fidelity", "at_most": 1.0}],
    )
    report = redan.assess(path)
    assert "noise" in copied(report, "customer").pool
    assert report.verdict is Verdict.INCONCLUSIVE
    assert any("drawn rows alone" in reason for reason in report.reasons)


def test_training_rows_are_the_pool_where_no_other_is_named(shop: Write) -> None:
    path = shop(
        extraction={"pool": None},
        system={"data": {"test": {"path": "test.npz"}, "train": {"path": "pool.npz"}}},
    )
    part = copied(redan.assess(path), "customer")
    assert part.pool.startswith("the training rows")
    assert any("as good a pool as there is" in note for note in part.notes)


def test_copies_may_be_judged_on_other_rows_and_a_pool_needs_no_labels(shop: Write) -> None:
    path = shop(
        {**FIDELITY, "goal": {"fidelity": "trusted"}},
        extraction={"pool": "sold:unlabeled"},
        system={"data": {"test": {"path": "test.npz"}, "trusted": {"path": "pool.npz"}}},
    )
    part = copied(redan.assess(path), "customer")
    assert part.rows == "trusted"
    assert part.extractors[0].points[0].compared[0].n == POOL
    assert part.extractors[0].points[0].paid == 70  # all that there are


@pytest.mark.slow
def test_limits_of_ours_leave_copies_undecided_and_a_resume_makes_them(shop: Write) -> None:
    whole = redan.assess(shop(name="whole", requirements=[{"metric": "extraction_fidelity", "at_most": 0.99}]))
    path = shop(name="cut", requirements=[{"metric": "extraction_fidelity", "at_most": 0.99}])
    report = redan.assess(path, limits=Limits(queries=ROWS + 40 + ANSWERS + 3))
    part = copied(report, "customer")
    assert report.limits_hit == ["queries"]
    assert part.extractors[0].status == "cut"
    assert part.extractors[0].points[0].copies == 1
    assert part.extractors[0].points[0].undecided == 1
    assert report.verdict is Verdict.INCONCLUSIVE
    again = redan.assess(path, resume=report.run.folder)
    assert again.digests["evidence"] == whole.digests["evidence"]
    assert of(again, "customer").extraction == of(whole, "customer").extraction


def test_an_interrupt_keeps_what_is_done(shop: Write) -> None:
    path = shop(EVASION, TRANSFER)
    seen: list[Stage] = []

    def stop(stage: Stage) -> None:
        seen.append(stage)
        if stage.counts == "answers" and stage.progress.settled > ROWS + 40 + ANSWERS:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        redan.assess(path, watch=stop)
    (folder,) = (path.parent / "runs").iterdir()
    assert len([line for line in RunFolder.open(folder).lines() if isinstance(line, CopyLine)]) == 1
    assert seen[-1].progress.rows == 2 * ANSWERS
    report = redan.assess(path, resume=folder)
    assert [line.number for line in lines(report)] == [0, 1]
    assert of(report, "copier").extraction is not None
    finished = redan.assess(path, resume=folder)
    assert finished.digests == report.digests


def test_a_copy_that_fails_is_an_error_and_never_helps(shop: Write) -> None:
    path = shop(
        extraction={"surrogate": "sold:crumbling"}, requirements=[{"metric": "extraction_fidelity", "at_most": 1.0}]
    )
    calls: list[Stage] = []

    def crumble(stage: Stage) -> None:
        calls.append(stage)
        (path.parent / "crumble").touch()

    report = redan.assess(path, watch=crumble)
    assert report.verdict is Verdict.INCONCLUSIVE
    (error,) = report.errors
    assert (error.rows, error.first) == (2, "copy 0 of knockoff-nets")
    assert "no clay is left" in error.reason
    assert not of(report, "customer").assessed


@pytest.mark.parametrize(
    ("extraction", "error", "words"),
    [
        ({"surrogate": "sold:no_module"}, ThreatModelError, "must return an nn.Module, or an estimator"),
        ({"surrogate": "sold:nothing"}, ThreatModelError, "has no 'nothing'"),
        ({"pool": {"path": "no.npz"}}, DataError, "there is no file"),
        ({"copies": 1}, ThreatModelError, "copies"),
        ({"curve": [0.5, 0.5]}, ThreatModelError, "twice"),
        ({"top": 0}, ThreatModelError, "top"),
    ],
)
def test_what_cannot_be_used_is_named_before_anything_is_asked(
    shop: Write, extraction: dict[str, Any], error: type[Exception], words: str
) -> None:
    path = shop(extraction=extraction)
    with pytest.raises(error, match=words):
        redan.assess(path)
    assert not (path.parent / "runs").exists()


def test_nothing_that_was_made_stays_where_nothing_may(shop: Write) -> None:
    report = redan.assess(shop(EVASION, TRANSFER, run={"keep_inputs": "none"}))
    folder = RunFolder.open(report.run.folder)
    for line in lines(report):
        assert line.points[0].transferred is not None
        kept = folder.load_inputs(line.saved or "", line.sha256)
        assert {key.partition(".")[0] for key in kept} == {"copy", "model"}
    assert copied(report, "copier").direct is not None


def test_answers_are_rounded_and_cut_before_anybody_sees_them(shop: Write) -> None:
    part = copied(redan.assess(shop(extraction={"decimals": 1, "top": 2})), "customer")
    assert part.answers == "probabilities, the 2 largest, rounded to 1 decimals"


def test_a_replay_looks_at_each_copy_again(shop: Write) -> None:
    path = shop(EVASION, TRANSFER)
    report = redan.assess(path)
    found = replay(report.run.folder, path)
    assert found.differences == ()
    assert found.copies == 3  # two copies, and the attack without one


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ("bytes", "is not the file that was logged"),
        ("agreement", "another agreement on the test rows"),
        ("broken", "of its saved inputs fool the model"),
        ("paid", "made again, it is another one"),
        ("model", "the model answers the test rows otherwise"),
    ],
)
def test_a_replay_names_what_was_changed(
    shop: Write, monkeypatch: pytest.MonkeyPatch, changed: str, words: str
) -> None:
    path = shop(EVASION, TRANSFER)
    report = redan.assess(path)
    folder = Path(report.run.folder)
    first = lines(report)[0]
    if changed == "bytes":
        with (folder / "inputs" / str(first.saved)).open("ab") as file:
            file.write(b"\0")
    elif changed == "model":
        (path.parent / "sold.py").write_text(MODEL.replace("4 * self", "-4 * self"))
        monkeypatch.delitem(sys.modules, "sold")
    else:
        for segment in sorted((folder / "log").iterdir()):
            told = [json.loads(line) for line in segment.read_text().splitlines()]
            for line in told:
                if line["event"] == "copy" and not line["number"]:
                    point = line["points"][0]
                    if changed == "agreement":
                        point["compared"]["test"]["agreeing"] -= 1
                    elif changed == "broken":
                        point["transferred"]["broken"] += 1
                    else:
                        point["paid"] -= 1
            segment.write_text("".join(json.dumps(line) + "\n" for line in told))
    assert any(words in each for each in replay(folder, path).differences)


def test_a_replay_asks_the_model_once_for_all_copies(shop: Write) -> None:
    path = shop()
    report = redan.assess(path)
    (path.parent / "asked").unlink()
    assert replay(report.run.folder, path).differences == ()
    again = asked(path)
    with np.load(path.parent / "test.npz") as test:
        of_test = sum(int((again == row).all(1).sum()) for row in test["x"])
    assert ROWS <= of_test < 2 * ROWS  # for both copies together


def test_a_log_with_foreign_copies_is_refused(shop: Write) -> None:
    report = redan.assess(shop())
    folder = RunFolder.open(report.run.folder)
    line = lines(report)[0]
    for change in ({"attacker": "nobody"}, {"extractor": "copycat-cnn"}, {"number": 9}):
        with pytest.raises(EvidenceError, match="not of the run|no attacker of the run"):
            summary([*folder.lines(), line.model_copy(update=change)])


def test_bought_asks_each_row_once_within_our_limits() -> None:
    calls: list[int] = []

    class Counting(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(len(x))
            return super().forward(x)

    target = from_torch(Counting(4, 2).eval())
    told: list[int] = []
    model = Bought(target, Purse(Limits(queries=40)), 0.0, told.append)
    x = torch.rand(30, 4)
    with torch.no_grad():
        once = model(x)
        assert torch.equal(model(torch.cat([x, x])), torch.cat([once, once]))
    assert told == [30]
    assert len(calls) == 1
    kept = model.fresh()
    assert [bytes(row).hex() for row in kept["asked"].tolist()] == named(x)
    assert torch.equal(kept["answers"], once)
    assert model.fresh() == {}
    with pytest.raises(LimitHitError, match="queries"):
        model(torch.rand(11, 4))
    other = Bought(target, Purse(Limits(queries=0)))
    other.know(kept["asked"], kept["answers"])
    assert torch.equal(other(x), once)


def test_a_requirement_of_a_copy_counts_unanswered_rows_against_itself(shop: Write) -> None:
    report = redan.assess(shop())
    part = copied(report, "customer")
    point = part.extractors[0].points[0]
    fidelity = point.compared[0].fidelity
    assert fidelity is not None
    spoiled = point.compared[0].model_copy(update={"unanswered": ROWS})
    changed = part.model_copy(
        update={
            "extractors": [
                part.extractors[0].model_copy(
                    update={"points": [point.model_copy(update={"compared": [spoiled, point.compared[1]]})]}
                )
            ]
        }
    )
    attackers = [each.model_copy(update={"extraction": changed}) for each in report.attackers]
    worse = report.model_copy(update={"attackers": attackers})

    def value(of: Report, **limit: float) -> float:
        judged = judge(
            of, [Requirement.model_validate({"metric": "extraction_fidelity", "against": "customer", **limit})]
        )
        found = judged.requirements[0].value
        assert found is not None
        return found

    assert value(worse, at_most=0.5) == pytest.approx((fidelity.value + 1) / 2)
    assert value(worse, at_least=0.5) == pytest.approx(fidelity.value / 2)
    assert value(report, at_most=0.5) == pytest.approx(fidelity.value)


@pytest.mark.extras
@pytest.mark.parametrize("name", ["forest", "neighbors"])
def test_copies_may_be_estimators(shop: Write, name: str) -> None:
    """One that weighs rows learns probabilities, one that does not the labels alone."""
    path = shop(extraction={"surrogate": f"sold:{name}"}, attacks={"mode": "audit"})
    with (path.parent / "sold.py").open("a") as file:
        file.write(ESTIMATORS)
    part = copied(redan.assess(path), "customer")
    knockoff = next(each for each in part.extractors if each.name == "knockoff-nets")
    assert f"soft={name == 'forest'}" in knockoff.settings
    forest = knockoff.points[0].compared[0].fidelity
    assert forest is not None
    assert forest.value > 0.6


@pytest.mark.extras
def test_a_tree_is_found_leaf_by_leaf(shop: Write) -> None:
    """As its answers tell each leaf from the others, its walls are found to a thousandth of each column."""
    from sklearn.tree import DecisionTreeClassifier
    from skops.io import dump

    path = shop(
        {**FIDELITY, "capability": {"queries_total": 3000}},
        attacks={"mode": "default", "skip": ["knockoff-nets"]},
        system={
            "model": {"sklearn": "tree.skops"},
            "output": "probabilities",
            "inputs": {"kind": "table"},
            "data": {"test": {"path": "test.npz"}},
        },
    )
    draw = np.random.default_rng(2)
    x = draw.random((400, 6)).astype(np.float32)
    y = (x @ np.array(WEIGHT).T).argmax(1)
    y = np.where(draw.random(400) < 0.1, 0, y)  # so that no two leaves answer alike
    dump(DecisionTreeClassifier(max_leaf_nodes=12, random_state=0).fit(x, y), path.parent / "tree.skops")
    with np.load(path.parent / "test.npz") as test:
        np.savez(path.parent / "test.npz", x=test["x"].astype(np.float64), y=test["y"])
    part = copied(redan.assess(path), "customer")
    by_name = {each.name: each for each in part.extractors}
    assert part.strongest == "tree-path-finding"
    found = by_name["tree-path-finding"].points[0]
    assert found.paid < 3000
    test_rows = next(each.fidelity for each in found.compared if each.rows == "test")
    assert test_rows is not None
    assert test_rows.value > 0.95
    assert by_name["equation-solving"].status == "done"
