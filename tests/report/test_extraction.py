"""What the views say of stolen copies, and where their marks lie."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from tests.report.copies import CUSTOMER

from redan.evidence.extracted import ExtractionPart
from redan.evidence.report import AttackerPart, ErrorPart, Report, Verdict
from redan.evidence.requirement import Direction
from redan.report import extraction_plots, extraction_words
from redan.report.advice import next_steps
from redan.report.extraction_advice import enough
from redan.report.extraction_tables import tables
from redan.report.extraction_tiles import tiles
from redan.report.words import cautions, counted, found, noted, titled

Parts = tuple[Report, AttackerPart, ExtractionPart]


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def parts(report: Report, **changed: Any) -> Parts:
    """The report with its attacker's extraction part, in which something is changed."""
    document = report.model_dump()
    document["attackers"][0]["extraction"] |= changed
    made = Report.model_validate(document)
    part = made.attackers[0].extraction
    assert part is not None
    return made, made.attackers[0], part


def said(part: ExtractionPart) -> str:
    return plain(" / ".join(extraction_words.headline(part)))


def test_the_headline_tells_the_copy_its_price_and_its_worth(copied: dict[str, Report]) -> None:
    text = said(parts(copied["fidelity"])[2])
    for words in (
        "knockoff-nets copies the model: 20,000 answers for 30.00 USD in 20 days at the API's limit for one customer "
        "give a copy that agrees on 95.8 % of the test rows (95 % interval 92.1 to 97.9 %, 3 copies)",
        "the copy answers 88.6 % of the test rows right (95 % interval 83.5 to 92.2 %), the model 90.3 %",
        "on rows drawn at random from all inputs it agrees on 60.4 %",
        "0.83 of the probability lies on other classes",
        "90 % agreement takes 10,000 answers, 15.00 USD (by the mean; shown with 20,000)",
        "95 % agreement takes 20,000 answers, 30.00 USD (by the mean; not shown)",
        "no budget tried reaches 99 % agreement",
    ):
        assert words in text
    assert "broken" not in text  # nobody used the copy


def test_the_loop_is_closed_for_a_copy_that_is_used(copied: dict[str, Report]) -> None:
    text = said(parts(copied["transfer"])[2])
    for words in (
        "anyone with a camera on the copy: 62.0 % (95 % interval 51.2 to 71.7 %, 3 copies) of the 400 right rows",
        "2,000 queries for the copy and 400 to use it; 3.60 USD in all, 0.015 USD for each broken input",
        "attacked without a copy by square: 23.0 % broken (92 of 400; 95 % interval 19.0 to 27.4 %), 2,310 queries",
        "3.46 USD in all, 0.038 USD for each broken input",
        "on 1 of these rows the direct attack failed",
        "from 85 broken inputs on the copy is the cheaper way",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("copy", "direct", "even", "words"),
    [
        (0.5, 40, 7, "from 7 broken inputs on the copy is the cheaper way"),
        (0.5, 40, 1, "from 1 broken input on the copy is the cheaper way"),
        (0.5, 40, None, "the copy is never the cheaper way"),
        (0.5, 0, None, "the copy is the only way that broke anything"),
        (0.0, 40, None, "the copy broke nothing; the direct way did"),
        (0.0, 0, None, "neither way broke anything"),
    ],
)
def test_which_way_is_cheaper_is_said_for_every_outcome(
    copied: dict[str, Report], copy: float, direct: int, even: int | None, words: str
) -> None:
    _, _, part = parts(copied["transfer"])
    use = part.extractors[0].points[0].transfer
    assert use is not None
    assert use.success is not None
    assert part.direct is not None
    other = part.direct.model_copy(update={"broken": direct, "breaks_even": even})
    mine = use.model_copy(update={"success": use.success.model_copy(update={"value": copy})})
    assert extraction_words.way_out(mine, other).startswith(words)


def test_a_milestone_is_told_of_whoever_reaches_it_first(copied: dict[str, Report]) -> None:
    document = copied["fidelity"].model_dump()["attackers"][0]["extraction"]
    document["extractors"][1]["milestones"][0] |= {"queries": 700, "shown": 700, "usd": 1.05}
    (first, *_) = extraction_words.milestones(ExtractionPart.model_validate(document))
    assert "90 % agreement takes 700 answers by copycat-cnn, 1.05 USD; 95 %" in plain(first)


def test_tiles_show_the_rate_the_bill_and_the_milestone(copied: dict[str, Report]) -> None:
    shown = tiles(*parts(copied["fidelity"]))
    assert [plain(tile.value) for tile in shown] == ["95.8 %", "88.6 %", "30.00 USD", "20,000"]
    assert [tile.kind for tile in shown] == ["fail", "", "", ""]
    assert "no budget tried reaches 99 %" in plain(shown[-1].words[1])
    used = tiles(*parts(copied["transfer"]))
    assert [plain(tile.value) for tile in used] == ["62.0 %", "3.00 USD", "23.0 %", "85"]
    free = tiles(*parts(copied["errors"]))
    assert [plain(tile.value) for tile in free] == ["87.2 %", "82.0 %", "5,000", "none"]
    assert free[2].words == ("answers a copy takes; no price is named",)
    assert tiles(*parts(copied["nothing"])) == []
    report, attacker, part = parts(copied["transfer"], direct=None)
    assert len(tiles(report, attacker, part)) == 2
    assert "nothing is known of an attack on the model itself" in said(part)


def test_a_passed_requirement_is_green_and_one_left_open_has_no_color(copied: dict[str, Report]) -> None:
    report, attacker, part = parts(copied["fidelity"])
    for verdict, kind in ((Verdict.PASS, "pass"), (Verdict.FAIL, "fail"), (Verdict.INCONCLUSIVE, "")):
        (required,) = report.requirements
        judged = report.model_copy(update={"requirements": [required.model_copy(update={"verdict": verdict})]})
        assert tiles(judged, attacker, part)[0].kind == kind


def test_requirements_count_copies(copied: dict[str, Report]) -> None:
    (alike,), (used,) = (copied[kind].requirements for kind in ("fidelity", "transfer"))
    assert (alike.verdict, used.verdict) == (Verdict.FAIL, Verdict.FAIL)
    assert plain(found(alike)) == "95.8 % (mean of 3 copies)"
    assert counted(used) == "copies"
    assert titled(alike) == "agreement of a stolen copy by API customer"
    assert titled(used) == "share of right rows broken by inputs made on a stolen copy by API customer"


def test_what_next_names_answers_limits_and_money(copied: dict[str, Report]) -> None:
    show_less, limit, watch = map(plain, next_steps(copied["fidelity"]))
    assert show_less.startswith("Show less in an answer (now: probabilities of all classes)")
    assert "labels alone still allow them" in show_less
    assert "10,000 answers are enough, and take 10 days now; at 111 a day they would take 90 days" in limit
    assert "they cost 15.00 USD; each USD more for 1,000 answers adds 10.00 USD" in limit
    assert watch.endswith("a watermark may help to prove a theft afterwards, and prevents none")
    assert "guard" not in " ".join((show_less, limit, watch))
    harden, *_ = next_steps(copied["transfer"])
    assert harden.startswith("Train the model against anyone with a camera (adversarial training)")


def test_advice_fits_labels_slow_copies_and_cheap_ones(copied: dict[str, Report]) -> None:
    document = copied["fidelity"].model_dump()
    document["attackers"][0]["knowledge"] = "labels"
    labels, *_ = next_steps(Report.model_validate(document))
    assert labels.startswith("Answers show labels alone already")
    for point in (points := document["attackers"][0]["extraction"]["extractors"])[0]["points"]:
        point["days"] = 200.0
    assert "Keep the limit for one customer: 10,000 answers are enough, and take 200 days now" in plain(
        next_steps(Report.model_validate(document))[1]
    )
    for point in points[0]["points"]:
        point |= {"paid": 50.0, "days": None, "usd": None}
    text = plain(next_steps(Report.model_validate(document))[1])
    assert text.startswith("Do not rely on limits: 50 answers are enough, and no limit for one customer is named")
    assert "they cost" not in text


def test_enough_is_the_least_budget_of_any_extractor(copied: dict[str, Report]) -> None:
    report, _, part = parts(copied["fidelity"])
    (required,) = report.requirements
    for at, queries in ((0.95, 20_000), (0.9, 10_000), (0.88, 4_000), (0.5, 2_000)):
        least = enough(part, required.model_copy(update={"threshold": at}))
        assert least is not None
        assert least.queries == queries
    assert enough(part, required.model_copy(update={"threshold": 0.99})) is None


def test_whoever_wants_good_copies_is_not_told_to_prevent_them(copied: dict[str, Report]) -> None:
    report = copied["fidelity"]
    (required,) = report.requirements
    wanted = required.model_copy(update={"direction": Direction.AT_LEAST})
    (step,) = next_steps(report.model_copy(update={"requirements": [wanted]}))
    assert step == f"Change the model or its defenses against {CUSTOMER}, then assess again"


def test_what_is_open_asks_for_copies(copied: dict[str, Report]) -> None:
    report = copied["errors"]
    assert report.verdict is Verdict.INCONCLUSIVE
    text = " / ".join(next_steps(report))
    assert "Make about 4 copies by each extractor (extraction: copies)" in text
    assert "1 copies are undecided" in text
    assert "kept 1 copies from being judged" in text
    error = ErrorPart(attacker=CUSTOMER, reason="making a copy: out of memory", rows=1, first="copy 1 of knockoff-nets")
    assert "1 copies could not be judged: making a copy: out of memory (first: copy 1 of knockoff-nets)" in cautions(
        report.model_copy(update={"errors": [error]})
    )
    assert f"{CUSTOMER}: no extraction.pool is given, so the attacker asks about the training rows" in noted(
        copied["fidelity"]
    )


def test_copies_of_which_nothing_is_known_are_counted_once(copied: dict[str, Report]) -> None:
    text = said(parts(copied["errors"])[2])
    assert "copies of which nothing is known: 1 could not be made, 1 left out; they never help to pass" in text
    assert "12 test rows got no answer of the model" in text
    assert "copies of which nothing is known: 4 left out" in said(parts(copied["cut"])[2])
    assert extraction_words.missing(parts(copied["fidelity"])[2]) is None


def test_copies_that_all_failed_are_nothing_measured(copied: dict[str, Report]) -> None:
    document = copied["errors"].model_dump()["attackers"][0]["extraction"]
    document["extractors"][0] |= {"reason": "out of memory", "milestones": []}
    document["extractors"][0]["points"][0] |= {"copies": 0, "paid": 0.0, "errors": 3, "undecided": 0, "compared": []}
    report, attacker, lost = parts(copied["errors"], **(document | {"strongest": None}))
    assert tiles(report, attacker, lost) == []
    assert said(lost) == "nothing could be measured: out of memory"
    assert extraction_words.reached(lost) == "nothing could be measured"
    assert extraction_plots.agreement(report, attacker, lost) is None
    assert extraction_plots.ways(report, attacker, lost) is None
    assert extraction_plots.bar(lost) == ()
    (budgets,) = tables(lost)
    assert budgets.rows == (("knockoff-nets", "–", "0", "–", "–"),)
    none = parts(copied["nothing"], extractors=[])[2]
    assert said(none) == "nothing could be measured: no extractor was tried"
    assert tables(none) == []


def test_tables_hold_every_budget_and_both_ways(copied: dict[str, Report]) -> None:
    budgets, beside, milestones = tables(parts(copied["fidelity"])[2])
    assert len(budgets.rows) == len(beside.rows) == 8
    assert [plain(cell) for cell in budgets.rows[1]] == [
        *("knockoff-nets", "10,000", "15.00", "10", "3", "93.0 %", "88.6–95.9")
    ]
    assert [plain(cell) for cell in beside.rows[0]][2:] == ["60.4 %", "88.6 %", "90.3 %", "0.83"]
    assert [plain(cell) for cell in milestones.rows[0]] == ["knockoff-nets", "90 %", "10,000", "15.00", "20,000"]
    assert milestones.rows[2][2:] == ("not reached", "–", "–")
    uses = tables(parts(copied["transfer"])[2])[2]
    assert [plain(cell) for cell in uses.rows[-1]] == [
        *("without a copy", "2,310", "400", "23.0 %", "19.0–27.4", "3.46", "0.038")
    ]
    assert [plain(cell) for cell in uses.rows[0]][1:4] == ["2,400", "400", "62.0 %"]
    for table in (*tables(parts(copied["errors"])[2]), *tables(parts(copied["cut"])[2]), budgets, beside, uses):
        assert {len(row) for row in table.rows} == {len(table.heads)}
    assert "USD" not in tables(parts(copied["errors"])[2])[0].heads


def test_the_plot_is_to_scale(copied: dict[str, Report]) -> None:
    report, attacker, part = parts(copied["fidelity"])
    drawn = extraction_plots.agreement(report, attacker, part)
    assert drawn is not None
    assert [t.name for t in drawn.tracks] == ["copycat-cnn", "knockoff-nets"]  # the strongest above all
    other, main = drawn.tracks
    assert main.strongest
    x = [mark.x for mark in main.marks]
    assert x[0] - x[1] == pytest.approx(x[2] - x[3], abs=0.02)  # twice the answers each time: the axis is a logarithm
    assert {round(theirs.x - ours, 2) for theirs, ours in zip(other.marks, x, strict=True)} == {7.0}
    (first, second), *_ = pairwise(drawn.rates)
    scale = (first.at - second.at) / 0.1  # 70 and 80 %
    assert (plain(first.label), plain(second.label)) == ("70 %", "80 %")
    for mark, point in zip(main.marks, part.extractors[0].points, strict=True):
        of = point.compared[0].fidelity
        assert of is not None
        for height, rate in ((mark.y, of.value), (mark.low, of.low), (mark.high, of.high)):
            assert height == pytest.approx(first.at - (rate - 0.7) * scale, abs=0.02)
        assert len(mark.dots) == 3
    (required,) = drawn.required
    assert required.at == pytest.approx(first.at - 0.2 * scale, abs=0.01)
    assert [plain(t.label) for t in drawn.milestones] == ["99 %", "95 %", "90 %"]
    assert drawn.milestones[2].at == required.at
    assert drawn.cut
    assert [plain(t.label) for t in drawn.queries] == ["2 k", "4 k", "10 k", "20 k"]
    assert "knockoff-nets: 95.8 % at 20,000 answers" in plain(drawn.about)
    labels = [t.at for t in (*drawn.rates, *drawn.milestones) if t.label]
    assert min(abs(a - b) for i, a in enumerate(labels) for b in labels[:i]) >= 12


def test_one_copy_has_an_axis_from_none_to_all(copied: dict[str, Report]) -> None:
    drawn = extraction_plots.agreement(*parts(copied["errors"]))
    assert drawn is not None
    assert not drawn.cut
    (only,) = drawn.tracks
    assert only.label is None  # one extractor needs no name beside it
    assert [plain(t.label) for t in drawn.milestones] == ["99 %", "", "90 %"]  # 95 has no room
    (mark,) = only.marks
    assert mark.low - mark.high == pytest.approx(194)


def test_both_ways_are_to_scale(copied: dict[str, Report]) -> None:
    report, attacker, part = parts(copied["transfer"])
    drawn = extraction_plots.ways(report, attacker, part)
    assert drawn is not None
    start, end = drawn.rates[0].at, drawn.rates[-1].at
    copy, direct = drawn.ways
    assert direct.width == pytest.approx(0.23 * (end - start), abs=0.01)
    assert copy.width == pytest.approx(0.62 * (end - start), abs=0.2)
    assert copy.low < start + copy.width < copy.high
    assert direct.low < start + direct.width < direct.high
    (required,) = drawn.required
    assert required.at == pytest.approx(start + 0.3 * (end - start))
    assert "on the model itself: 23.0 % (19.0–27.4)" in plain(drawn.about)
    alone = extraction_plots.ways(*parts(copied["transfer"], direct=None))
    assert alone is not None
    assert [way.kind for way in alone.ways] == ["copy"]
    assert extraction_plots.ways(*parts(copied["fidelity"])) is None


def test_the_bar_is_what_the_attacker_wants(copied: dict[str, Report]) -> None:
    for kind, words in (("fidelity", "95.8 % as the model"), ("transfer", "62.0 % broken")):
        first, second = extraction_plots.bar(parts(copied[kind])[2])
        assert first.kind == "broken"
        assert first.width + second.width == pytest.approx(100)
        assert plain(first.words) == words
