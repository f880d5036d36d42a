"""What a person sees: the verdict first, every number, nothing wider than the terminal, no word cut in two."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

import redan
from redan.assessment.parts import plan_parts
from redan.evasion.fast_cascade import FastCascade
from redan.evidence.report import ErrorPart, PlanPart, Report, Verdict
from redan.report.terminal import attacker, requirements, show, show_plan
from redan.threat.file import read
from redan.threat.planner import plan

Write = Callable[..., Path]
LONG = "an industrious customer with a great many cameras and a lot of time on their hands"


def printed(report: Report | RenderableType, width: int = 80) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False)
    if isinstance(report, Report):
        show(report, console)
    else:
        console.print(report)
    return file.getvalue()


def planned(parts: list[PlanPart], rows: int, untested: dict[str, str] | None = None) -> str:
    file = io.StringIO()
    show_plan(parts, rows, Console(file=file, width=80, highlight=False), untested)
    return file.getvalue()


def flat(text: str) -> str:
    return " ".join(text.replace("\N{NO-BREAK SPACE}", " ").split())


def fits(text: str, width: int = 80) -> None:
    """No line is too wide; the path at the end may be, since it is there to be copied."""
    wide = [line for line in text.splitlines() if len(line.rstrip()) > width and not line.startswith("report: ")]
    assert wide == []


INSIDER = {
    "name": LONG,
    "kind": "evasion",
    "why": "staff leave",
    "goal": "untargeted",
    "knowledge": "scores",
    "change": {"l2": 0.15},
    "capability": {"queries_per_row": 30},
}
SUPPLIER = {
    "name": "supplier",
    "kind": "poisoning",
    "why": "suppliers label",
    "goal": "availability",
    "capability": {"share": 0.01},
}


@pytest.fixture
def report(shop: Write) -> Report:
    """Two attackers assessed, one not built; pass, fail and inconclusive requirements; errors and warnings."""
    return redan.assess(
        shop(
            "Raising",
            weak=10,
            marked=3,
            attackers__1=INSIDER,
            attackers__2=SUPPLIER,
            requirements=[
                {"metric": "robust_accuracy", "at_least": 0.95, "against": "anyone"},
                {"metric": "clean_accuracy", "at_least": 0.6},
                {"metric": "attack_success_rate", "at_most": 0.125, "against": LONG},
                {"metric": "worst_class_robust_accuracy", "at_least": 0.5, "against": "anyone"},
            ],
        )
    )


@pytest.mark.parametrize(("weak", "word"), [(2, "PASS"), (28, "FAIL")])
def test_the_verdict_comes_first(shop: Write, weak: int, word: str) -> None:
    text = printed(redan.assess(shop(weak=weak)))
    assert text.split()[0] == word
    assert text.strip().splitlines()[0] == f"{word}  shop, 32 rows"


def test_all_numbers_are_there(report: Report) -> None:
    text = flat(printed(report))
    for part in report.requirements:
        assert str(part.metric) in text
        if part.k is not None and part.value is not None and part.interval is not None:
            assert f"{part.k} of {part.n}" in text
            assert f"{100 * part.value:.1f} %" in text
            assert f"{100 * part.interval.low:.1f} to {100 * part.interval.high:.1f} %" in text
    for each in report.attackers:
        assert each.name in text
        if each.counts is None:
            assert each.reason
            assert each.reason in text
            continue
        c = each.counts
        assert f"{c.right} of {c.drawn} rows right on the clean input: {c.broken} broken, {c.robust} robust" in text
        assert f"{c.errors} errors" in text
        for attack in each.attacks:
            line = f"{attack.name} {attack.attempted:,} {attack.broken:,} {attack.queries:,}"
            assert f"{line} {attack.forwards + attack.backwards:,}" in text
    assert all(flat(reason) in text for reason in (*report.reasons, *report.shows_not))
    assert "3 rows could not be judged: the model raised ConnectionError: connection reset" in text
    assert "preflight finite-answers: 3 of 32 rows got no usable answer" in text
    assert "95 % interval" in text
    assert text.endswith(f"report: {report.run.folder}/report.json")


@pytest.mark.parametrize("width", [80, 100, 140])
def test_nothing_is_wider_than_the_terminal(report: Report, width: int) -> None:
    fits(printed(report, width), width)


def test_requirements_stand_on_one_line_below_who_they_are_against(report: Report) -> None:
    lines = [line.replace("\N{NO-BREAK SPACE}", " ") for line in printed(requirements(report)).splitlines()]
    told = {line.split("  ")[0].strip(): line for line in lines}
    assert told["robust_accuracy ≥ 0.95"].rstrip().endswith("fail")
    assert told["clean_accuracy ≥ 0.60"].rstrip().endswith("pass")
    assert told["attack_success_rate ≤ 0.125"].split()[-1] in {"fail", "pass", "inconclusive"}
    assert lines[0].split()[0] == "requirement"
    assert "clean_accuracy" in lines[1]  # what no attacker is needed for comes first
    assert lines[2].strip() == "against anyone:"
    columns = {line.rstrip().rfind(word) for line in lines for word in ("pass", "fail") if line.rstrip().endswith(word)}
    assert len(columns) == 1  # all below each other


def test_the_attacker_is_named_where_nothing_else_is_required(shop: Write) -> None:
    lines = printed(requirements(redan.assess(shop()))).splitlines()
    assert lines[0].split()[0] == "requirement"
    assert lines[1] == "against anyone:"
    assert lines[2].startswith("robust_accuracy")
    assert lines[0].index("verdict") == lines[2].index("pass")


@pytest.mark.parametrize(
    ("threshold", "shown"), [(0.6, "0.60"), (0.0, "0.00"), (1.0, "1.00"), (0.125, "0.125"), (0.8334, "0.8334")]
)
def test_thresholds_are_shown_whole(shop: Write, threshold: float, shown: str) -> None:
    text = flat(printed(requirements(redan.assess(shop(requirements__0__at_least=threshold)))))
    assert f"robust_accuracy ≥ {shown} " in text


def test_no_word_is_cut_in_two(report: Report) -> None:
    """Each word of the widest print is in the narrowest, but for paths, which the terminal wraps."""
    wide, narrow = (set(flat(printed(report, width)).split()) for width in (300, 80))
    assert {word for word in wide - narrow if "/" not in word} == set()


def test_large_numbers_stay_whole_beside_long_names(report: Report) -> None:
    (attack, *_) = report.attackers[0].attacks
    large = attack.model_copy(
        update={"name": "my-own-attack with a name that goes on for a while", "queries": 1_234_567_890}
    )
    part = report.attackers[0].model_copy(update={"attacks": [large]})
    text = printed(attacker(report, part))
    fits(text)
    assert " 1,234,567,890 " in text
    assert all(word in text for word in large.name.split())
    assert f"{large.forwards + large.backwards:,}" in text


def test_a_pass_has_no_reasons_to_list(shop: Write) -> None:
    text = printed(redan.assess(shop(weak=1)))
    assert "•" not in text
    assert "!" not in text


def test_diagnoses_skips_limits_and_notes_are_told(shop: Write) -> None:
    masked = redan.assess(shop("Rounded", weak=0, attacks={"mode": "quick", "skip": ["apgd-t"]}))
    text = flat(printed(masked))
    assert "! masked gradients: 32 of 32 rows have a zero or non-finite gradient" in text
    assert "! skipped on request: apgd-t" in text
    cut = flat(printed(redan.assess(shop(limits={"queries": 100}))))
    assert "our own limit of queries ended the run" in cut
    assert "fast-cascade (cut)" in cut
    assert "undecided" in cut


def test_what_was_done_to_the_data_is_told(shop: Write) -> None:
    found = redan.assess(shop("Picture", system__inputs={"kind": "image", "shape": [1, 1, 7], "bounds": [0, 1]}))
    assert "! data: inputs of shape (7,) became (1, 1, 7)" in flat(printed(found))


def test_a_random_model_is_told(shop: Write) -> None:
    text = flat(printed(redan.assess(shop("Noisy", weak=0))))
    assert "! preflight determinism: " in text
    assert "judged over 20 fresh answers each" in text


def test_names_are_text_and_no_markup(shop: Write) -> None:
    name = "[red]anyone[/red] [/oops]"
    report = redan.assess(shop(attackers__0__name=name, requirements=[], system__name="[b]shop"))
    assert name in printed(report)
    assert "[b]shop" in printed(report)
    error = ErrorPart(attacker=name, reason="[/x] broke", rows=1, first="[0]")
    assert "[/x] broke (first: [0])" in printed(report.model_copy(update={"errors": [error]}))


def test_an_attacker_who_was_not_assessed_is_one_line(report: Report) -> None:
    part = report.attackers[2]
    assert part.reason
    assert flat(printed(attacker(report, part))) == f"supplier poisoning, not built: {part.reason}"


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_has_its_color(shop: Write, verdict: Verdict) -> None:
    found = redan.assess(shop()).model_copy(update={"verdict": verdict})
    file = io.StringIO()
    show(found, Console(file=file, width=80, force_terminal=True, color_system="standard"))
    color = {Verdict.PASS: "32", Verdict.FAIL: "31", Verdict.INCONCLUSIVE: "33"}[verdict]
    assert f"\x1b[1;{color}m{verdict.upper()}" in file.getvalue()


@pytest.mark.parametrize("kind", ["rich", "nothing", "targeted", "availability"])
@pytest.mark.parametrize("width", [80, 140])
def test_poisoning_fits_and_cuts_no_word(poisoned: dict[str, Report], kind: str, width: int) -> None:
    text = printed(poisoned[kind], width)
    fits(text, width)
    wide = set(flat(printed(poisoned[kind], 300)).split())
    assert wide - set(flat(text).split()) == set()


def test_poisoning_is_told_in_figures(poisoned: dict[str, Report]) -> None:
    text = flat(printed(poisoned["rich"]))
    for words in (
        "backdoor_success ≤ 0.10 96.8 % 10 victims 94.8 to 98.8 % fail",
        "96.8 % of triggered rows answered as the attacker wants over 10 trained victims",
        "badnets 1 % 10 96.8 % 94.8–98.8 88.4 % 89.3 %",
        "spectral-signatures 0.998 97.0 % 61 60 0.1",
        "supplier-b 55 60 1,500",
        "fine-pruning 97.0 % → 41.0 % 89.0 % → 86.0 % – no, > 5 %",
        "12 130 of 500 26.0 %",
        "– sleeper-agent: the attacker has no surrogate",
        "! the training data name no trusted rows",
    ):
        assert words in text
    assert "14 of 20 50.0 to 90.0 %" in flat(printed(poisoned["targeted"]))
    lower = flat(printed(poisoned["availability"]))
    assert "Accuracy 71.0 % (89.3 % without poison) over 3 trained victims" in lower
    assert "label-flips 5 % 3 71.0 % 89.3 %" in lower
    assert "Nothing could be measured: the inputs have no bounds." in flat(printed(poisoned["nothing"]))


@pytest.mark.parametrize("kind", ["fidelity", "transfer", "errors", "cut", "nothing"])
@pytest.mark.parametrize("width", [80, 140])
def test_copying_fits_and_cuts_no_word(copied: dict[str, Report], kind: str, width: int) -> None:
    text = printed(copied[kind], width)
    fits(text, width)
    wide = set(flat(printed(copied[kind], 400)).split())
    assert wide - set(flat(text).split()) == set()


def test_copying_is_told_in_figures(copied: dict[str, Report]) -> None:
    text = flat(printed(copied["fidelity"]))
    for words in (
        "extraction_fidelity ≤ 0.90 95.8 % 3 copies 89.9 to 97.9 % fail",
        "a copy that agrees on 95.8 % of the test rows (95 % interval 92.1 to 97.9 %, 3 copies)",
        "knockoff-nets 20,000 30.00 20 3 95.8 % 92.1–97.9",
        "knockoff-nets 20,000 60.4 % 88.6 % 90.3 % 0.83",
        "knockoff-nets 95 % 20,000 30.00 –",
        "– equation-solving: the model has 78,500 parameters",
        "! no extraction.pool is given",
    ):
        assert words in text
    used = flat(printed(copied["transfer"]))
    assert "transfer_success ≤ 0.30 62.0 % 3 copies" in used
    assert "without a copy 2,310 400 23.0 % 19.0–27.4 3.46 0.038" in used
    assert "– copycat-cnn: our limit of seconds ended it" in flat(printed(copied["cut"]))
    assert "Nothing could be measured: the model answers no rows of ours." in flat(printed(copied["nothing"]))


# -- plans ----------------------------------------------------------------------------------------------


def parts(shop: Write, **changed: object) -> list[PlanPart]:
    return plan_parts(plan(read(shop(**changed)).model))


def test_a_plan_groups_what_is_chosen_below_the_attacker_and_the_rest_by_reason(shop: Write) -> None:
    found = parts(shop, attackers__1=INSIDER, attackers__2=SUPPLIER, attacks__mode="default")
    text = planned(found, 32, untested={"supplier": "attackers of kind poisoning are not built yet"})
    fits(text)
    starts = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert starts[0].strip() == "anyone"
    lines = flat(text)
    assert lines.count("queries a row") == 2  # nothing was chosen for the supplier
    most = FastCascade().cost(3)
    passes = most.queries + most.backwards
    assert f"fast-cascade {most.queries:,} {32 * passes:,} mode default, knowledge gradients" in lines
    assert "square 30 960 mode default, knowledge scores" in lines
    assert "supplier nothing is chosen: attackers of kind poisoning are not built yet" in lines
    assert lines.count("redan has not built it yet") == 1  # once for all of that reason
    assert f"32 rows: at most {32 * (passes + 30):,} passes" in lines


def test_a_plan_at_80_columns_names_each_technique_once(shop: Write) -> None:
    found = parts(shop, attacks__mode="default", attacks__skip=["apgd-t"])
    text = planned(found, 1000)
    fits(text)
    for part in found:
        assert len(re.findall(rf"(?<![\w-]){part.attack}(?![\w-])", text)) == 1, part.attack
    assert "skipped" in text


def test_a_plan_tells_the_worst_bill(shop: Write) -> None:
    capability = {"queries_per_row": 200, "usd_per_1000_queries": 1.5}
    text = flat(planned(parts(shop, attackers__0__knowledge="scores", attackers__0__capability=capability), 1000))
    assert "square 200 200,000 300.00" in text
    assert "200,000 passes (forward and backward) and 300.00 USD if nothing breaks" in text


def test_an_attack_that_does_not_say_its_cost_is_not_counted_as_free(shop: Write) -> None:
    silent = PlanPart(
        attacker="anyone",
        attack="Mine",
        status="chosen",
        reason="the threat model says attacks.add",
        techniques=[],
        queries=None,
        forwards=None,
        backwards=None,
        usd=None,
    )
    text = flat(planned([*parts(shop), silent], 10))
    assert "Mine unknown unknown the threat model says attacks.add" in text
    assert "and those of Mine, which does not say its cost" in text


def test_a_plan_s_names_are_text_and_no_markup() -> None:
    odd = PlanPart(
        attacker=None,
        attack="[b]",
        status="not needed",
        reason="[/y]",
        techniques=[],
        queries=None,
        forwards=None,
        backwards=None,
        usd=None,
    )
    text = planned([odd], 10)
    assert all(word in text for word in ("[b]", "[/y]"))
