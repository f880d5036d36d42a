"""What the views say of poisoning, and where its marks lie."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from redan.evidence.poisoned import PoisoningPart
from redan.evidence.report import AttackerPart, Report, Verdict
from redan.report import poison_plots, poison_words
from redan.report.advice import next_steps
from redan.report.poison_tables import tables
from redan.report.words import found, titled

Parts = tuple[Report, AttackerPart, PoisoningPart]


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def parts(report: Report, **changed: Any) -> Parts:
    """The report with its attacker's poisoning part, in which something is changed."""
    document = report.model_dump()
    document["attackers"][0]["poisoning"] |= changed
    made = Report.model_validate(document)
    part = made.attackers[0].poisoning
    assert part is not None
    return made, made.attackers[0], part


def test_the_plot_is_to_scale(poisoned: dict[str, Report]) -> None:
    report, attacker, part = parts(poisoned["rich"])
    drawn = poison_plots.success(report, attacker, part)
    assert drawn is not None
    assert [t.name for t in drawn.tracks] == ["blended-injection", "sig", "badnets"]  # the strongest above all
    main = drawn.tracks[-1]
    assert main.strongest
    x = [mark.x for mark in main.marks]
    assert x[0] - x[1] == pytest.approx(x[2] - x[3], abs=0.02)  # 1 to 0.3 and 0.1 to 0.03 %: the axis is a logarithm
    foot, top = drawn.rates[0].at, drawn.rates[-1].at
    for mark, point in zip(main.marks, part.poisoners[0].points, strict=True):
        assert point.success is not None
        for height, rate in ((mark.y, point.success.value), (mark.low, point.success.low)):
            assert height == pytest.approx(foot - rate * (foot - top), abs=0.01)
        assert [y for _, y in mark.dots] == pytest.approx(
            [foot - rate * (foot - top) for rate in point.success.each], abs=0.01
        )
        assert all(at < mark.x for at, _ in mark.dots)
    (required,) = drawn.required
    assert required.at == pytest.approx(foot - 0.1 * (foot - top))
    assert plain(required.label) == "10 %"
    assert drawn.breaks is not None
    assert drawn.breaks.at == x[2]
    labels = sorted(t.label.at for t in drawn.tracks if t.label)
    assert min(b - a for a, b in pairwise(labels)) >= 12.9
    assert [plain(t.label) for t in drawn.shares] == ["0.03 %", "0.1 %", "0.3 %", "1 %"]
    assert "badnets: 96.8 % at 1 %" in plain(drawn.about)


def test_accuracy_has_an_axis_of_its_own(poisoned: dict[str, Report]) -> None:
    drawn = poison_plots.accuracy(*parts(poisoned["rich"]))
    assert drawn is not None
    assert drawn.cut
    assert drawn.breaks is None  # it is about success
    assert all(drawn.rates[-1].at < y < 210 for t in drawn.tracks for m in t.marks for y in (m.low, m.high))
    lower = poison_plots.accuracy(*parts(poisoned["availability"]))
    assert lower is not None
    assert plain(lower.required[0].label) == "85 %"
    assert lower.breaks is not None
    (only,) = lower.tracks
    assert only.label is None  # one poisoner needs no name beside it
    assert len(lower.clean.split()) == 2  # one share: the line of clean rows goes across


def test_there_is_no_plot_of_nothing(poisoned: dict[str, Report]) -> None:
    report, attacker, part = parts(poisoned["nothing"])
    assert poison_plots.success(report, attacker, part) is None
    assert poison_plots.accuracy(report, attacker, part) is None
    assert poison_plots.certificate(part) is None
    assert poison_plots.bar(part) == ()
    assert poison_plots.anomalies(part, str) == poison_plots.sources(part) == []
    assert poison_plots.success(*parts(poisoned["availability"])) is None
    targeted = poison_plots.success(*parts(poisoned["targeted"]))
    assert targeted is not None
    assert targeted.clean == ""
    assert all(mark.dots == () for mark in targeted.tracks[0].marks)  # hit or not: the mean says all


def test_the_certificate_claims_nothing_between_its_points(poisoned: dict[str, Report]) -> None:
    _, _, part = parts(poisoned["rich"])
    drawn = poison_plots.certificate(part)
    assert drawn is not None
    steps = [tuple(map(float, pair.split(","))) for pair in drawn.line.split()]
    assert part.certificate is not None
    heights = [210 - 194 * p.right / 500 for p in part.certificate.points]
    for before, after, height in zip(steps[2::2], steps[3::2], heights[1:], strict=True):
        assert before[1] == after[1] == pytest.approx(height, abs=0.01)  # at the lower end all the way
        assert before[0] < after[0]
    places = {p.changed: mark.x for p, mark in zip(part.poisoners[0].points, drawn.marks, strict=True)}
    assert places[60] > places[18] > places[6] > places[2] > steps[0][0]
    assert "80.2 % at 0" in plain(drawn.about)


def test_bars_are_sorted_and_marked(poisoned: dict[str, Report]) -> None:
    _, _, part = parts(poisoned["rich"])
    unusual = poison_plots.anomalies(part, lambda k: f"label {k}")
    assert [bar.name for bar in unusual][:2] == ["label 2", "label 4"]
    assert unusual[-1].name == "label 5"  # no trigger
    assert unusual[0].width == 100
    assert {bar.at for bar in unusual} == {round(100 * 2 / 4.7, 2)}
    assert [bar.kind for bar in unusual].count("broken") == 1
    assert all(0 <= bar.width <= 100 for bar in unusual)
    suppliers = poison_plots.sources(part)
    assert [(bar.name, bar.at) for bar in suppliers] == [
        ("supplier-b", 100.0),
        ("supplier-a", None),
        ("supplier-c", None),
    ]
    (first, second) = poison_plots.bar(part)
    assert first.kind == "broken"
    assert first.width + second.width == pytest.approx(100)


def test_equality_is_said_in_words(poisoned: dict[str, Report]) -> None:
    _, _, part = parts(poisoned["rich"])
    point = poison_words.whole(part)
    assert point is not None
    assert point.equivalence is not None
    said = {
        shown: plain(poison_words.equality(point.equivalence.model_copy(update={"shown": shown, "margin": margin})))
        for shown, margin in (("equivalent", 0.01), ("different", 0.02), ("not shown", 0.005))
    }
    assert said == {
        "equivalent": "equal within 1 point",
        "different": "different by more than 2 points",
        "not shown": "not shown to be equal within 0.5 points",
    }


def test_what_is_enough_is_half_of_the_rows_where_nothing_is_required(poisoned: dict[str, Report]) -> None:
    report, attacker, part = parts(poisoned["rich"])
    bare = report.model_copy(update={"requirements": []})
    assert poison_words.breaks(report, attacker, part) == (0.001, "breaks the requirement")
    assert poison_words.breaks(bare, attacker, part) == (0.001, "reaches half of the triggered rows")
    for poisoner in (unbroken := part.model_dump())["poisoners"]:
        poisoner["breaks_at"] = None
    none = PoisoningPart.model_validate(unbroken)
    lines = list(poison_words.headline(report, attacker, none))
    assert "none of the shares tried breaks the requirement" in lines
    assert poison_words.tiles(report, attacker, none)[-1].value == "none"


def test_a_passed_requirement_is_green_and_one_left_open_has_no_color(poisoned: dict[str, Report]) -> None:
    report, attacker, part = parts(poisoned["rich"])
    for verdict, kind in ((Verdict.PASS, "pass"), (Verdict.FAIL, "fail"), (Verdict.INCONCLUSIVE, "")):
        (required,) = report.requirements
        judged = report.model_copy(update={"requirements": [required.model_copy(update={"verdict": verdict})]})
        assert poison_words.tiles(judged, attacker, part)[0].kind == kind


def test_requirements_count_victims(poisoned: dict[str, Report]) -> None:
    (rich,), (targeted,) = (poisoned[kind].requirements for kind in ("rich", "targeted"))
    assert plain(found(rich)) == "96.8 % (mean of 10 victims)"
    assert plain(found(targeted)) == "70.0 % (14 of 20 victims)"
    assert titled(targeted) == "share of chosen rows answered as the attacker wants by data contributor"


def test_what_next_fits_what_was_found(poisoned: dict[str, Report]) -> None:
    report, _, part = parts(poisoned["rich"])
    screen, repair = map(plain, next_steps(report))
    assert screen.startswith("Screen the training rows that data contributor can reach with spectral-signatures")
    assert repair.startswith("Repair a model that is already trained with without-suspects: success 97.0 % → 1.2 %")
    blind = [each for each in part.detectors if (each.auc or 0) < 0.9]
    (check,) = next_steps(parts(report, detectors=blind, repairs=[])[0])
    assert check.startswith("Take fewer training rows from sources that data contributor can reach")
    (required,) = report.requirements
    left = {"verdict": Verdict.INCONCLUSIVE, "rows_to_decide": 30, "errors": 2, "undecided": 1}
    said = " / ".join(next_steps(report.model_copy(update={"requirements": [required.model_copy(update=left)]})))
    for words in (
        "Train about 30 victims of each attack",
        "1 victims are undecided",
        "kept 2 victims from being judged",
    ):
        assert words in said


def test_victims_that_all_failed_are_nothing_measured(poisoned: dict[str, Report]) -> None:
    report, attacker, part = parts(poisoned["availability"])
    document = part.model_dump()
    document["poisoners"][0]["points"][0] |= {"accuracy": None, "equivalence": None, "errors": 5}
    lost = PoisoningPart.model_validate(document)
    assert poison_words.tiles(report, attacker, lost) == []
    assert next(iter(poison_words.headline(report, attacker, lost))).startswith("nothing could be measured")
    assert poison_words.reached(lost) == "nothing could be measured"
    assert poison_plots.accuracy(report, attacker, lost) is None


def test_long_certificates_are_sampled_in_text(poisoned: dict[str, Report]) -> None:
    _, _, part = parts(poisoned["rich"])
    assert part.certificate is not None
    points = [{"changes": k, "right": 400 - k} for k in range(301)]
    proof = {**part.certificate.model_dump(), "points": points}
    _, _, long = parts(poisoned["rich"], certificate=proof)
    rows = tables(long)[-1].rows
    assert len(rows) == 8
    assert (rows[0][0], rows[-1][0]) == ("0", "300")


def test_the_poison_s_label_is_told_apart_from_those_flagged(poisoned: dict[str, Report]) -> None:
    _, _, part = parts(poisoned["rich"])
    assert part.trigger is not None

    def said(**changed: Any) -> str:
        assert part.trigger is not None
        return poison_words.examined(part.trigger.model_copy(update={"overlap": None, **changed}), str)

    assert said() == "it flags 2; the attacker's label is 2"
    assert said(flagged=[]) == "it flags no label and misses 2, the attacker's label"
    assert said(flagged=[1, 3], target=None) == "it flags 1, 3; the attacker wants every label"
