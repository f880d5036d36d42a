"""From lines to a report: every count by hand, rows in any order, the last line of a row, 10^5 of them, two runs."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from redan.errors import EvidenceError
from redan.evidence.comparison import compared
from redan.evidence.folder import RunFolder
from redan.evidence.log import (
    AttackerHead,
    AttackHead,
    BlockLine,
    EndedLine,
    Line,
    ResumedLine,
    RetryLine,
    RowLine,
    RunLine,
)
from redan.evidence.paired import Change
from redan.evidence.report import Counts, Report
from redan.evidence.requirement import Requirement
from redan.evidence.summary import Summary, report_of, summary

Fate = Literal["robust", "broken", "error", "undecided"]


def head(rows: int, *, gate: bool = False, stochastic: bool = False, attackers: Sequence[str] = ("anyone",)) -> RunLine:
    return RunLine(
        id="run",
        started="2026-01-01T00:00:00+00:00",
        system="shop",
        classes=["a", "b", "c"],
        ids=[f"row {i}" for i in range(rows)],
        labels=[i % 3 for i in range(rows)],
        requirements=[Requirement.model_validate({"metric": "robust_accuracy", "at_least": 0.5, "against": "anyone"})],
        attackers=[
            AttackerHead(
                name=name,
                kind="evasion",
                why="open to all",
                goal="untargeted",
                impact="high",
                techniques=[],
                change="linf: 0.1",
                radius=0.1,
                knowledge="gradients",
                usd_per_1000_queries=2.0,
                status="assessed",
                reason=None,
                attacks=[
                    AttackHead(name="apgd-ce", settings="APGD()", access="gradients"),
                    AttackHead(name="square", settings="Square()", access="scores"),
                ],
            )
            for name in attackers
        ],
        preflight=[],
        plan=[],
        standards=[],
        skipped=[],
        mode="default",
        seed=0,
        confidence=0.95,
        family="holm",
        gate=gate,
        stochastic=stochastic,
        eight_bit=True,
        environment={},
        digests={},
    )


def row(at: int, status: Fate = "robust", **changed: Any) -> RowLine:
    broken = status == "broken"
    said: dict[str, Any] = {
        "attacker": "anyone",
        "row": at,
        "id": f"row {at}",
        "index": at,
        "y": at % 3,
        "answered": True,
        "right": True,
        "status": status,
        "share": float(broken),
        "by": "apgd-ce" if broken else None,
        "failed": None,
        "reason": "the model answered NaN" if status == "error" else None,
        "distance": 0.1 if broken else None,
        "near": 0.04 if broken else None,
        "before": at % 3,
        "after": (at + broken) % 3,
        "eight_bit": True if broken else None,
        "spent": {"apgd-ce": (3, 3, 3)} if broken else {"apgd-ce": (101, 101, 101), "square": (1000, 1000, 0)},
        "blind": 0,
        "input": "0" * 64,
        "saved": None,
    }
    return RowLine(**{**said, **changed})


BLOCK = BlockLine(attacker="anyone", inputs=None, sha256="0", seconds={"apgd-ce": 1.5, "square": 0.5}, crashed={})


def done(rows: int, **changed: Any) -> EndedLine:
    return EndedLine(**{"why": "done", "rows": rows, "limits_hit": [], "seconds": 2.0, **changed})


def report(*lines: Line, **options: Any) -> Report:
    return summary([head(6, **options), *lines]).report("runs/run")


SIX = (
    row(0),
    row(1, "broken"),
    row(2, "broken", by="square", spent={"apgd-ce": (101, 101, 101), "square": (40, 40, 0)}, near=0.1, eight_bit=False),
    row(3, "error", failed="square"),
    row(4, "undecided"),
    row(5, "broken", right=False, by=None, spent={}, distance=0.0, near=0.0, eight_bit=None),
)


def test_every_count_by_hand() -> None:
    found = report(BLOCK, *SIX, done(6, limits_hit=["queries"]))
    (part,) = found.attackers
    assert part.counts == Counts(
        drawn=6, right=5, unanswered=0, robust=1, broken=2, errors=1, undecided=1, missing=0, held=None
    )
    ce, square = part.attacks
    assert (ce.attempted, ce.broken, ce.errors, ce.queries, ce.backwards) == (5, 1, 0, 3 + 4 * 101, 3 + 4 * 101)
    assert (square.attempted, square.broken, square.errors, square.queries, square.backwards) == (4, 1, 1, 3040, 0)
    assert (ce.seconds, square.seconds, ce.status) == (1.5, 0.5, "cut")
    assert square.usd == pytest.approx(6.08)
    assert part.success_8bit == 1
    by_class = [(c.name, c.drawn, c.right, c.robust, c.errors, c.undecided) for c in part.by_class]
    assert by_class == [("a", 2, 2, 1, 1, 0), ("b", 2, 2, 0, 0, 1), ("c", 2, 1, 0, 0, 0)]
    curve = {round(point.radius, 3): point.robust for point in part.curve}
    assert (curve[0.0], curve[0.035], curve[0.04], curve[0.095], curve[0.1]) == (3, 3, 2, 2, 1)
    (error,) = found.errors
    assert (error.reason, error.rows, error.first) == ("the model answered NaN", 1, "row 3")
    assert (found.limits_hit, found.run.seconds, found.run.rows) == (["queries"], 2.0, 6)


def test_a_model_that_gave_no_clean_answer_is_an_error_and_not_wrong() -> None:
    found = report(BLOCK, row(0, "error", answered=False, right=False), *(row(i) for i in range(1, 6)), done(6))
    counts = found.attackers[0].counts
    assert counts is not None
    assert (counts.right, counts.unanswered, counts.errors, counts.robust) == (5, 1, 1, 5)


def test_a_row_that_was_wrong_anyway_is_neither_broken_nor_an_error() -> None:
    wrong = row(0, "error", right=False)
    counts = report(BLOCK, wrong, *(row(i) for i in range(1, 6)), done(6)).attackers[0].counts
    assert counts is not None
    assert (counts.right, counts.errors, counts.broken, counts.robust) == (5, 0, 0, 5)


def test_rows_in_any_order_are_the_same_report_and_evidence() -> None:
    for seed in range(5):
        shuffled = list(SIX)
        random.Random(seed).shuffle(shuffled)
        assert report(BLOCK, *shuffled, done(6)) == report(BLOCK, *SIX, done(6))


def test_a_row_counts_as_its_last_line_says() -> None:
    twice = report(BLOCK, *SIX, done(6), ResumedLine(started="later"), BLOCK, row(4, "broken"), done(6))
    once = report(BLOCK, *SIX[:4], row(4, "broken"), SIX[5], done(6))
    assert twice.attackers[0].counts == once.attackers[0].counts
    assert twice.attackers[0].by_class == once.attackers[0].by_class
    assert twice.digests["evidence"] == once.digests["evidence"]
    assert [a.queries for a in twice.attackers[0].attacks] == [a.queries for a in once.attackers[0].attacks]


def test_an_error_that_was_mended_is_told_no_more() -> None:
    found = report(BLOCK, row(0, "error"), *(row(i) for i in range(1, 6)), BLOCK, row(0), done(6))
    assert found.errors == []


def test_another_byte_of_any_input_is_other_evidence() -> None:
    plain = report(BLOCK, *SIX, done(6)).digests["evidence"]
    for changed in ({"input": "1" + "0" * 63}, {"share": 0.5}, {"blind": 1}):
        other = report(BLOCK, row(0, **changed), *SIX[1:], done(6)).digests["evidence"]
        assert other != plain
    assert report(BLOCK, row(0, saved=3), *SIX[1:], done(6)).digests["evidence"] == plain


def test_rows_that_were_never_reached_are_missing() -> None:
    found = report(BLOCK, *SIX[:2])
    part = found.attackers[0]
    assert part.counts is not None
    assert (part.counts.missing, part.counts.drawn) == (4, 6)
    assert [(c.drawn, c.undecided) for c in part.by_class] == [(2, 1), (2, 1), (2, 2)]
    assert not found.run.reproducible


def test_rows_that_a_gate_did_not_take_are_not_missing() -> None:
    found = report(BLOCK, *SIX[:3], done(3, why="decided"), gate=True)
    part = found.attackers[0]
    assert part.counts is not None
    assert (part.counts.drawn, part.counts.missing, found.run.rows, found.run.planned) == (3, 0, 3, 6)
    assert sum(c.drawn for c in part.by_class) == 3


def test_a_random_model_s_rows_by_how_often_they_held() -> None:
    rows = (row(0, share=0.0), row(1, "broken", share=0.25), row(2, "broken", share=1.0), row(3, "error"))
    wrong = row(4, "robust", right=False, share=0.0)
    counts = report(BLOCK, *rows, wrong, row(5, share=0.05), done(6), stochastic=True).attackers[0].counts
    assert counts is not None
    assert counts.held is not None
    held = {i: count for i, count in enumerate(counts.held) if count}
    assert held == {20: 1, 15: 1, 0: 2, 19: 1}  # the third broken row and the wrong one never held


def test_a_retry_is_tried_on_what_counts_still_and_only_makes_it_worse() -> None:
    again = AttackHead(name="black-box", settings="Square()", access="scores")
    begins = RetryLine(attacker="anyone", name="black-box", because=["chance"], detail="none", attack=again)

    def retried(at: int, status: Fate, share: float) -> RowLine:
        by = "black-box" if status == "broken" else None
        return row(at, status, share=share, by=by, retry="black-box", spent={"black-box": (9, 9, 0)})

    found = summary(
        [
            head(6, stochastic=True),
            BLOCK,
            row(0, share=0.3),
            *(row(at, "broken", share=share) for at, share in ((1, 0.6), (2, 0.85), (3, 0.9), (4, 1.0))),
            row(5, "error"),
            begins,
        ]
    )
    tally = found.tallies["anyone"]
    assert tally.standing(6) == [0]
    assert tally.open_to("black-box", 6) == [0, 1, 2]
    found.see(BLOCK, retried(0, "robust", 0.4), retried(1, "broken", 0.5), retried(2, "broken", 0.95))
    assert tally.open_to("black-box", 6) == []
    assert tally.open_to("another", 6) == [0, 1]
    (part,) = found.report("runs/run").attackers
    assert part.counts is not None
    assert part.counts.held is not None
    assert {i: count for i, count in enumerate(part.counts.held) if count} == {12: 1, 8: 1, 1: 1, 2: 1, 0: 1}
    assert (part.retries[0].attempted, part.retries[0].broken) == (3, 1)
    assert [attack.broken for attack in part.attacks] == [3, 0, 1]


def test_rows_without_what_is_served_are_counted_apart_and_compared() -> None:
    name = "found on the model alone"
    begun = RetryLine(
        attacker="anyone",
        name=name,
        because=["the comparison"],
        detail="shown",
        attack=AttackHead(name=name, settings="Given()", access="labels"),
    )

    def beside(at: int, status: Fate = "broken", **more: Any) -> RowLine:
        return row(at, status, beside="the model alone", **more)

    def naive(at: int, status: Fate) -> RowLine:
        by = name if status == "broken" else None
        return row(at, status, by=by, retry=name, spent={name: (1, 1, 0)})

    other = BLOCK.model_copy(update={"beside": "the model alone"})
    served = [row(0), row(1), row(2), row(3, "broken"), row(4), row(5, right=False)]
    found = summary([head(6).model_copy(update={"beside": ["the model alone"]}), BLOCK, *served])
    assert found.report("runs/run").attackers[0].defended == []
    (tally,) = found.evasions["anyone"].beside
    assert tally.pending(6) == [0, 1, 2, 3, 4, 5]
    found.see(other, *(beside(at) for at in range(4)), beside(4, "undecided"), beside(5, "robust"))
    assert tally.pending(6) == [0, 1, 2, 3, 4]
    found.see(begun, BLOCK, naive(0, "robust"), naive(1, "broken"), naive(2, "robust"), naive(3, "robust"))
    assert tally.pending(6) == [4]
    (part,) = found.report("runs/run").attackers
    assert part.counts is not None
    assert (part.counts.right, part.counts.broken, part.counts.robust) == (5, 2, 3)
    (compared,) = part.defended
    assert (compared.clean, compared.clean_beside) == (5, 6)
    assert (compared.held, compared.naive, compared.held_beside, compared.open) == (3, 4, 1, 1)
    assert compared.verdict == "not shown"
    assert compared.low < compared.gain < compared.high
    with pytest.raises(EvidenceError, match="which the run does not attack"):
        found.see(row(0, beside="another model"))


def test_inputs_of_the_model_alone_that_beat_the_attacks_are_a_doubt() -> None:
    name = "found on the model alone"
    attack = AttackHead(name=name, settings="Given()", access="labels")
    begun = RetryLine(attacker="anyone", name=name, because=["it"], detail="shown", attack=attack)
    lines: list[Line] = [head(8).model_copy(update={"beside": ["the model alone"]}), BLOCK, *map(row, range(8)), begun]
    broken = [row(at, "broken", by=name, retry=name, spent={name: (1, 1, 0)}) for at in range(3)]
    for count, doubts in ((2, []), (3, ["naive beats adaptive"])):
        part = summary([*lines, *broken[:count], done(8)]).report("runs/run").attackers[0]
        assert [d.name for d in part.diagnosis if d.blocks_pass] == doubts


def test_attacks_that_raised_are_told() -> None:
    crashed = BLOCK.model_copy(update={"crashed": {"square": "square raised ValueError: boom"}})
    found = report(crashed, *SIX, done(6))
    assert [a.status for a in found.attackers[0].attacks] == ["done", "error"]
    assert [d.name for d in found.attackers[0].diagnosis] == ["attacks that failed"]


def test_gradients_that_vanish_are_told() -> None:
    found = report(BLOCK, *(row(i, blind=60) for i in range(6)), done(6))
    assert [d.name for d in found.attackers[0].diagnosis] == ["vanishing gradients"]


@pytest.mark.parametrize("broken", [2, 3])
def test_scores_that_break_what_gradients_left_are_told(broken: int) -> None:
    spent = {"apgd-ce": (101, 101, 101), "square": (40, 40, 0)}
    rows = [row(i, "broken", by="square", spent=spent) if i < broken else row(i) for i in range(6)]
    names = [d.name for d in report(BLOCK, *rows, done(6)).attackers[0].diagnosis]
    assert names == (["black box beats white box"] if broken > 2 else [])


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [row(0)],
        [head(6), head(6)],
        [head(6), row(6)],
        [head(6), row(-1)],
        [head(6), row(0, y=1)],
        [head(6), row(0, attacker="nobody")],
        [head(6), row(0, spent={"unheard": (1, 1, 0)})],
        [head(6), BLOCK.model_copy(update={"attacker": "nobody"})],
    ],
    ids=["empty", "no head", "two heads", "row beyond", "row below", "label", "attacker", "attack", "block"],
)
def test_a_log_that_does_not_hold_together_is_refused(lines: list[Line]) -> None:
    with pytest.raises(EvidenceError):
        summary(lines)


def _many(count: int) -> Iterator[tuple[Line, ...]]:
    yield (head(count),)
    for start in range(0, count, 500):
        yield (BLOCK, *(row(i, "broken" if i % 4 else "robust", input=f"{i:064d}") for i in range(start, start + 500)))
    yield (done(count),)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_report_on_many_rows_needs_little_memory(tmp_path: Path) -> None:
    """10^5 rows: the lines pass one by one, and what stays is a few numbers a row."""
    rows = 100_000
    folder = RunFolder.create(tmp_path)
    for segment in _many(rows):
        folder.append(*segment)
    size = sum(path.stat().st_size for path in (Path(folder.url) / "log").iterdir())
    tracemalloc.start()
    found = report_of(folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    counts = found.attackers[0].counts
    assert counts is not None
    assert (counts.robust, counts.broken) == (25_000, 75_000)
    assert size > 30e6
    assert peak < size, (peak, size)


def test_attackers_are_ranked_by_success_times_impact_then_by_cost() -> None:
    """The insider breaks twice as many rows; he costs the owner as much, so he comes first."""
    lines: list[Line] = [head(6, attackers=("anyone", "insider")), BLOCK]
    lines += [row(i, "broken" if i < 2 else "robust") for i in range(6)]
    lines += [row(i, "broken" if i < 4 else "robust", attacker="insider") for i in range(6)]
    first, second = summary([*lines, done(6)]).report("runs/run").risks
    assert (first.rank, first.attacker, first.impact) == (1, "insider", "high")
    assert (second.rank, second.attacker) == (2, "anyone")
    assert [first.success_rate, second.success_rate] == pytest.approx([4 / 6, 2 / 6])
    assert (first.median_queries, second.median_queries) == (3, 3)
    assert second.usd_per_success == pytest.approx((2 * 3 + 4 * 1101) * 0.002 / 2)


def test_an_attacker_who_broke_nothing_has_no_cost() -> None:
    (risk,) = report(BLOCK, *(row(i) for i in range(6)), done(6)).risks
    assert (risk.success_rate, risk.median_queries, risk.usd_per_success) == (0, None, None)


# -- beside an earlier run ----------------------------------------------------------------------------------


def run(broken: set[int], rows: int = 60, **options: Any) -> Summary:
    fates: dict[bool, Fate] = {True: "broken", False: "robust"}
    return summary([head(rows, **options), BLOCK, *(row(i, fates[i in broken]) for i in range(rows)), done(rows)])


def test_rows_lost_and_won_are_counted() -> None:
    clean, robust = compared(run({0, 1, 2}), run({2, 3, 4, 5, 6}))
    assert (clean.metric, clean.against, clean.rows.lost, clean.rows.won) == ("clean_accuracy", None, 0, 0)
    assert (robust.metric, robust.against) == ("robust_accuracy", "anyone")
    assert (robust.rows.both, robust.rows.lost, robust.rows.won, robust.rows.rows) == (53, 4, 2, 60)
    assert (robust.unjudged, robust.only_before, robust.only_now) == (0, 0, 0)
    assert robust.p_value == pytest.approx(22 / 64)
    assert not robust.worse


@pytest.mark.parametrize(("lost", "worse"), [(5, False), (6, True)])
def test_worse_is_beyond_noise_after_holm(lost: int, worse: bool) -> None:
    """Of two metrics the smaller p-value is tested at 0.025: 1 / 32 is above it, 1 / 64 below."""
    _, robust = compared(run(set()), run(set(range(lost))))
    assert robust.p_value == pytest.approx(0.5**lost)
    assert robust.level == pytest.approx(0.025)
    assert robust.worse is worse


def test_a_run_is_not_worse_than_itself() -> None:
    assert all(part.change is not Change.WORSE for part in compared(run({1, 2}), run({1, 2})))


def test_rows_that_were_not_judged_are_told_and_not_compared() -> None:
    before = run(set())
    before.see(row(7, "error"), row(8, "undecided"))
    now = summary([head(60), BLOCK, *(row(i) for i in range(50))])
    _, robust = compared(before, now)
    assert (robust.rows.rows, robust.unjudged, robust.only_before, robust.only_now) == (48, 12, 0, 0)


def test_rows_that_one_run_did_not_take_are_told() -> None:
    gated = summary([head(60, gate=True), BLOCK, *(row(i) for i in range(20)), done(20, why="decided")])
    _, robust = compared(run(set()), gated)
    assert (robust.rows.rows, robust.only_before, robust.only_now) == (20, 40, 0)


def test_a_row_that_is_wrong_on_the_clean_input_is_lost() -> None:
    now = run(set())
    now.see(*(row(i, "robust", right=False) for i in range(10)))
    clean, robust = compared(run(set()), now)
    assert (clean.rows.lost, robust.rows.lost) == (10, 10)
    assert clean.worse
    assert robust.worse


@pytest.mark.parametrize("what", ["attackers", "change", "rows"])
def test_runs_that_cannot_be_compared_are_refused(what: str) -> None:
    other = head(60, attackers=("insider",) if what == "attackers" else ("anyone",))
    if what == "change":
        stronger = other.attackers[0].model_copy(update={"change": "linf: 0.2"})
        other = other.model_copy(update={"attackers": [stronger]})
    if what == "rows":
        other = other.model_copy(update={"ids": [f"other {i}" for i in range(60)]})
    lines: list[Line] = [BLOCK, *(row(i) for i in range(60))] if what != "attackers" else []
    with pytest.raises(EvidenceError, match="compare|in common"):
        compared(run(set()), summary([other, *lines, done(60)]))
