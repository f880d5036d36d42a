"""A report as Markdown for a pull request: the verdict, the requirements, what to do next, and what is not shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from redan.evidence.report import AttackerPart, Report, Verdict
from redan.report import (
    defended_words,
    detector_words,
    extraction_tables,
    extraction_words,
    poison_tables,
    poison_words,
    transfer_words,
)
from redan.report.advice import next_steps
from redan.report.certified_words import headline as proofs
from redan.report.means import Table
from redan.report.untrusted import cleaned
from redan.report.words import (
    NONE,
    by_risk,
    capital,
    found,
    headline,
    must,
    noted,
    percent,
    sentence,
    served,
    sure,
    titled,
    worst_classes,
)

__all__ = ["escaped", "render"]

_SIGNS = {Verdict.PASS: "✅", Verdict.FAIL: "❌", Verdict.INCONCLUSIVE: "❔"}
_WORST = 3


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, also in a table: no markup, HTML, link, mention or reference.

    A sign that works on GitHub after Markdown is done with the text (`@name`, `#1`) is parted from its neighbor by a
    space of no width.
    """
    text = re.sub(r"[\\`*_\[\]<>|~!$&]", r"\\\g<0>", text)
    text = re.sub(r"[@#](?=\S)", r"\\\g<0>&#8203;", text)
    text = text.replace("://", r":&#8203;//")
    text = re.sub(r"(?i)\bwww\.", r"\g<0>&#8203;", text)
    return re.sub(r"^(?:[-+#]|\d+(?=[.)]\s))", _at_start, text)


def _at_start(match: re.Match[str]) -> str:
    """What would open a list, a heading or a quotation at the start of a line."""
    sign = match[0]
    return f"{sign}&#8203;" if sign.isdigit() else f"\\{sign}"


def render(report: Report) -> str:
    """Write the text. The same report gives the same bytes."""
    return "\n\n".join(_blocks(cleaned(report))) + "\n"


def _blocks(report: Report) -> Iterator[str]:
    yield f"## {_SIGNS[report.verdict]} {report.verdict.capitalize()}: {escaped(report.system)}"
    yield " ".join(escaped(sentence(line)) for line in headline(report))
    if report.defenses:
        yield f"**Served, and attacked:** {escaped(served(report.defenses))}"
    if report.detector is not None:
        yield f"**Refused:** {escaped(sentence(detector_words.refusals(report.detector, report.run.confidence)))}"
    told = [sure(report, part) for part in report.requirements if part.verdict is report.verdict]
    if told:
        yield "**How sure:** " + " ".join(escaped(sentence(line)) for line in told)
    if steps := next_steps(report):
        yield "**What next:** " + " ".join(escaped(sentence(step)) for step in steps)
    if report.requirements:
        yield _requirements(report)
    if report.attackers:
        yield _attackers(report)
    for part in report.attackers:
        if part.certified is not None:
            yield from _of_models(f"Certified against {part.name}", proofs(part.certified), "", (), ())
        for beside in part.defended:
            said = defended_words.headline(beside)
            title = "Rows with what is served and without it"
            yield from _of_models(f"Defended against {part.name}", said, title, [defended_words.table(beside)], ())
        if (moved := part.transfers) is not None:
            tables = [transfer_words.table(moved)] if moved.rates else []
            said = transfer_words.headline(moved)
            yield from _of_models(f"Members against {part.name}", said, transfer_words.TITLE, tables, ())
        if (poison := part.poisoning) is not None:
            said, left = poison_words.headline(report, part, poison), poison_words.left_out(poison)
            title = "Victims detectors repairs and certificate"
            yield from _of_models(f"Poisoning by {part.name}", said, title, poison_tables.tables(poison), left)
        if (copied := part.extraction) is not None:
            said, left = extraction_words.headline(copied), extraction_words.left_out(copied)
            title = "Budgets copies and milestones"
            yield from _of_models(f"Copying by {part.name}", said, title, extraction_tables.tables(copied), left)
    if notes := noted(report):
        yield "**Be careful:**\n\n" + _listed(notes)
    if report.shows_not:
        yield _folded("What this does not show", _listed(report.shows_not))
    yield _folded("Run and digests", _facts(report))


def _requirements(report: Report) -> str:
    heads = ("requirement", "asked", "found", f"{100 * report.run.confidence:g} % interval", "verdict")
    rows = []
    for part in report.requirements:
        at = part.interval
        between = NONE if at is None else f"{percent(at.low)} to {percent(at.high)}"
        verdict = f"{_SIGNS[part.verdict]} {part.verdict}"
        rows.append((capital(titled(part)), must(part), found(part), between, verdict))
    return _table(heads, rows)


def _attackers(report: Report) -> str:
    return _table(("who", "what", "how far they got", "worst classes"), [_attacker(a) for a, _ in by_risk(report)])


def _attacker(part: AttackerPart) -> tuple[str, ...]:
    what = ", ".join(word for word in (part.kind, part.change) if word)
    if part.poisoning is not None:
        return (part.name, what, poison_words.reached(part.poisoning), NONE)
    if part.extraction is not None:
        return (part.name, what, extraction_words.reached(part.extraction), NONE)
    if part.counts is None:
        return (part.name, what, f"{part.status}: {part.reason}", NONE)
    broken = f"{part.counts.broken:,} of {part.counts.right:,} right rows broken"
    far = "; ".join([broken, *map(defended_words.reached, part.defended)])
    worst = [c for c in worst_classes(part)[:_WORST] if c.robust < c.drawn]
    return (part.name, what, far, ", ".join(f"{c.name} ({c.robust} of {c.drawn})" for c in worst) or NONE)


def _of_models(
    who: str, headline: Iterable[str], title: str, tables: Iterable[Table], left: Sequence[str]
) -> Iterator[str]:
    """What trained models showed of an attacker: sentences, tables below a title, and what was not done to its end."""
    yield f"**{escaped(who)}:** " + " ".join(escaped(sentence(line)) for line in headline)
    found = [_table(each.heads, each.rows) for each in tables]
    if left:
        found.append(_listed(left))
    if found:
        yield _folded(title, "\n\n".join(found))


def _facts(report: Report) -> str:
    facts = {"run": report.run.id, "folder": report.run.folder, "seed": str(report.run.seed), **report.digests}
    return _table(("fact", "value"), [(name.replace("_", " "), value or NONE) for name, value in facts.items()])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    lines += [" | ".join(map(escaped, row)) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def _listed(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(sentence(line))}" for line in sentences)


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"
