"""The sentences that all views share: careful numbers, and the next step that fits what was found."""

from __future__ import annotations

import pytest

from redan.evidence.report import Report, Verdict
from redan.evidence.requirement import Direction
from redan.evidence.statistics import interval
from redan.report.advice import next_steps
from redan.report.untrusted import cleaned, visible
from redan.report.words import asked, by_risk, found, headline, must, said_counts, span, sure


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("verdict", "direction", "bound", "said"),
    [
        (Verdict.PASS, Direction.AT_LEAST, 0.76789, "is at least 76.7 %"),
        (Verdict.FAIL, Direction.AT_LEAST, 0.02151, "is at most 2.2 %"),
        (Verdict.INCONCLUSIVE, Direction.AT_LEAST, 0.5555, "is only shown to be at least 55.5 %"),
        (Verdict.PASS, Direction.AT_MOST, 0.1111, "is at most 11.2 %"),
        (Verdict.FAIL, Direction.AT_MOST, 0.8888, "is at least 88.8 %"),
        (Verdict.FAIL, Direction.AT_LEAST, 0.74996, "is at most 74.996 %"),  # not 75.0, which it must be
        (Verdict.PASS, Direction.AT_LEAST, 0.75, "is at least 75.0 %"),
    ],
)
def test_a_bound_is_rounded_to_the_careful_side(
    reports: dict[Verdict, Report], verdict: Verdict, direction: Direction, bound: float, said: str
) -> None:
    report = reports[Verdict.INCONCLUSIVE]
    part = report.requirements[1].model_copy(
        update={"verdict": verdict, "direction": direction, "bound_used": bound, "threshold": 0.75}
    )
    assert f"{said}, at 95 % confidence for the 2 requirements together" in plain(sure(report, part))


def test_each_requirement_is_said_with_all_its_places(reports: dict[Verdict, Report]) -> None:
    part = reports[Verdict.FAIL].requirements[1].model_copy(update={"threshold": 0.125, "value": None})
    assert asked(part) == "robust_accuracy ≥ 0.125"
    assert plain(must(part)) == "at least 12.5 %"
    assert found(part) == "not measured"


def test_what_next_fits_what_was_found(reports: dict[Verdict, Report], everything: Report) -> None:
    (step,) = next_steps(reports[Verdict.FAIL])
    lost = {part.name: part.right - part.robust for part in reports[Verdict.FAIL].attackers[0].by_class}
    assert step.startswith("Train the model against anyone with a camera within linf: 0.1")
    named = step.rsplit("; most rows are lost in ")[1].split(", ")
    assert 0 < len(named) <= 3
    assert [lost.pop(name) for name in named] >= [max(lost.values())]
    report = reports[Verdict.FAIL]
    first = report.requirements[0].model_copy(update={"verdict": Verdict.FAIL})
    assert next_steps(report.model_copy(update={"requirements": [first]}))[0].startswith("Mend the model before")
    assert next_steps(reports[Verdict.PASS]) == (
        f"Keep this run as the baseline: redan report NEW-RUN --compare {reports[Verdict.PASS].run.folder}",
    )
    rows = everything.requirements[1].rows_to_decide
    assert rows is not None
    said = " / ".join(next_steps(everything))
    for words in ("64 of 64 rows have none", f"Draw about {rows:,} rows", "1 rows are undecided", "kept 2 rows"):
        assert words in said
    assert said.endswith("supplier was not assessed: not built yet")
    nothing = report.model_copy(update={"requirements": [], "verdict": Verdict.INCONCLUSIVE, "reasons": []})
    assert next_steps(nothing) == ("Write requirements into the threat model: without them there is nothing to pass",)
    on_it = everything.requirements[1].model_copy(update={"rows_to_decide": None, "value": 0.7, "threshold": 0.7})
    open_report = everything.model_copy(update={"requirements": [on_it]})
    assert any("the threshold itself" in step for step in next_steps(open_report))
    assert headline(nothing) == ("the threat model requires nothing",)


def test_an_interval_lets_open_rows_be_either(reports: dict[Verdict, Report]) -> None:
    report = reports[Verdict.PASS]
    low, high = interval(5, 10).low, interval(8, 10).high
    assert span(report, 5, 10, 3) == (low, high)
    for update in ({"gate": True}, {"model_stochastic": True}):
        assert span(report.model_copy(update={"run": report.run.model_copy(update=update)}), 5, 10) is None


def test_counts_add_up_and_the_worst_risk_is_first(everything: Report) -> None:
    part = everything.attackers[0]
    assert part.counts is not None
    assert sum(rows for _, rows, _ in said_counts(part)) == part.counts.drawn
    assert said_counts(everything.attackers[1]) == []
    turned = everything.model_copy(update={"attackers": everything.attackers[::-1]})
    assert [a.name for a, _ in by_risk(turned)] == ["anyone with a camera", "supplier"]


def test_what_cannot_be_seen_is_shown(hostile: Report) -> None:
    assert visible("a\x00b\u202ec\ud800\r\n\u2028d\t e") == "a\ufffdb\ufffdc\ufffd d  e"
    assert visible("👩\N{ZERO WIDTH JOINER}🚀 é 中 ‰") == "👩\N{ZERO WIDTH JOINER}🚀 é 中 ‰"
    again = cleaned(hostile)
    assert cleaned(again) == again != hostile
    assert "\x00" not in again.model_dump_json()
