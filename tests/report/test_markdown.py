"""Markdown: a reviewer sees the verdict, why, and what next; whatever a name holds is shown as it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from redan.evidence.report import Report, Verdict
from redan.report.markdown import escaped, render
from redan.report.untrusted import visible

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def tokens(text: str) -> list[Token]:
    return [leaf for token in PARSER.parse(text) for leaf in (token, *(token.children or ()))]


def shown(text: str) -> str:
    """The text that a reader sees, without the spaces of no width."""
    words = "".join(token.content for token in tokens(text) if token.type in ("text", "text_special"))
    return words.replace("\u200b", "").replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("verdict", list(Verdict))
def test_the_verdict_comes_first(reports: dict[Verdict, Report], verdict: Verdict) -> None:
    text = render(reports[verdict])
    assert text.startswith("## ")
    assert f" {verdict.capitalize()}: garment-sorter" in text.splitlines()[0]
    assert "**How sure:**" in text
    assert "**What next:**" in text


def test_each_requirement_and_attacker_has_its_row(everything: Report) -> None:
    kinds = [token.type for token in PARSER.parse(render(everything))]
    assert kinds.count("table_open") == 4  # requirements, attackers, what is served beside the model alone, digests
    text = shown(render(everything))
    for part in everything.requirements:
        assert f"{part.k} of {part.n} rows" in text
        assert part.verdict in text
    for words in ("Masked gradients", "not built yet", "connection reset", "skipped on request: square"):
        assert words.lower() in text.lower()
    assert everything.shows_not[0] in text
    assert everything.digests["evidence"] is not None
    assert everything.digests["evidence"] in text


def test_poisoning_has_its_tables(poisoned: dict[str, Report]) -> None:
    text = shown(render(poisoned["rich"]))
    for words in (
        "96.8 % of triggered rows answered as the attacker wants over 10 trained victims, 95 % interval 94.8 to 98.8 %",
        "Clean accuracy changes by −0.9 points (90 % interval −1.2 to −0.6 points, 10 pairs of victims): not shown",
        "0.1 % of the training rows is the smallest share tried that breaks the requirement",
        "Sleeper-agent: the attacker has no surrogate",
    ):
        assert words in text
    kinds = [token.type for token in PARSER.parse(render(poisoned["rich"]))]
    assert kinds.count("table_open") == 3 + 5  # requirements, attackers, digests; victims to certificate
    nothing = render(poisoned["nothing"])
    assert [token.type for token in PARSER.parse(nothing)].count("table_open") == 3
    assert "Nothing could be measured: the inputs have no bounds." in shown(nothing)


def test_copying_has_its_tables(copied: dict[str, Report]) -> None:
    text = shown(render(copied["transfer"]))
    for words in (
        "62.0 % of right rows broken by inputs made on a copy",
        "Copying by API customer:",
        "2,000 answers for 3.00 USD in 2 days at the API's limit for one customer give a copy that agrees on 88.6 %",
        "From 85 broken inputs on the copy is the cheaper way.",
    ):
        assert words in text
    kinds = [token.type for token in PARSER.parse(render(copied["transfer"]))]
    assert kinds.count("table_open") == 3 + 4  # requirements, attackers, digests; budgets to milestones
    assert "Equation-solving: the model has 78,500 parameters" in shown(render(copied["fidelity"]))
    nothing = render(copied["nothing"])
    assert [token.type for token in PARSER.parse(nothing)].count("table_open") == 3
    assert "Nothing could be measured: the model answers no rows of ours." in shown(nothing)


def test_hostile_text_about_copies_stays_text(
    copied: dict[str, Report], made_hostile: Callable[[Report], Report]
) -> None:
    report = made_hostile(copied["transfer"])
    text = render(report)
    found = {token.type for token in tokens(text)}
    assert not found & {"link_open", "image", "html_inline", "code_inline", "em_open", "s_open", "fence"}
    blocks = {token.content.strip() for token in tokens(text) if token.type == "html_block"}
    assert all(re.fullmatch(r"<details><summary>[A-Za-z ]+</summary>|</details>", block) for block in blocks)
    part = report.attackers[0].extraction
    assert part is not None
    assert visible(part.extractors[0].name) in shown(text)
    assert not re.search(r"@\w|#\d|://|www\.\w", text.replace("&#8203;", "\u200b"))


def test_hostile_text_about_poison_stays_text(
    poisoned: dict[str, Report], made_hostile: Callable[[Report], Report]
) -> None:
    report = made_hostile(poisoned["rich"])
    text = render(report)
    found = {token.type for token in tokens(text)}
    assert not found & {"link_open", "image", "html_inline", "code_inline", "em_open", "s_open", "fence"}
    blocks = {token.content.strip() for token in tokens(text) if token.type == "html_block"}
    assert all(re.fullmatch(r"<details><summary>[A-Za-z ]+</summary>|</details>", block) for block in blocks)
    part = report.attackers[0].poisoning
    assert part is not None
    assert visible(part.poisoners[0].name) in shown(text)
    assert not re.search(r"@\w|#\d|://|www\.\w", text.replace("&#8203;", "\u200b"))


def test_hostile_text_stays_text(hostile: Report, everything: Report) -> None:
    def form(report: Report) -> set[str]:
        return {token.type for token in PARSER.parse(render(report))}

    text = render(hostile)
    assert form(hostile) == form(everything)
    found = {token.type for token in tokens(text)}
    assert not found & {"link_open", "image", "html_inline", "code_inline", "em_open", "s_open", "fence"}
    blocks = {token.content.strip() for token in tokens(text) if token.type == "html_block"}
    assert all(re.fullmatch(r"<details><summary>[A-Za-z ]+</summary>|</details>", block) for block in blocks)
    for name in (hostile.system, hostile.attackers[0].name, hostile.shows_not[0]):
        assert visible(name) in shown(text)
    assert not re.search(r"@\w|#\d|://|www\.\w", text.replace("&#8203;", "\u200b"))


def test_hostile_text_stays_in_its_cell(hostile: Report) -> None:
    cells = [after.content for token, after in pairwise(PARSER.parse(render(hostile))) if token.type == "td_open"]
    name = visible(hostile.attackers[0].name)
    assert [shown(cell) for cell in cells].count(name) == 1
    assert visible(f"not built yet{name[len('anyone with a camera') :]}") in " ".join(map(shown, cells))


@pytest.mark.parametrize("text", ["- a", "+ a", "1. a", "12) a", "# a", "> a", "* a", "a | b", "`a``", "~~a~~", "a_b_"])
def test_nothing_becomes_markup(text: str) -> None:
    found = PARSER.parse(f"- {escaped(text)}")
    assert [token.type for token in found] == [
        "bullet_list_open",
        "list_item_open",
        "paragraph_open",
        "inline",
        "paragraph_close",
        "list_item_close",
        "bullet_list_close",
    ]
    assert shown(f"- {escaped(text)}") == text


def test_the_same_report_gives_the_same_text(everything: Report) -> None:
    assert render(everything) == render(Report.model_validate(everything.model_dump()))
