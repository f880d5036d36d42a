"""`redan list`: what redan knows, by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from redan.registry.defenses import DEFENSES, DefenseEntry
from redan.registry.detectors import DETECTORS
from redan.registry.extractors import EXTRACTORS
from redan.registry.poisoners import POISONERS
from redan.threat.attackers import Kind
from redan.threat.papers import bibtex as as_bibtex
from redan.threat.presets import presets
from redan.threat.standards import crosswalk
from redan.threat.techniques import Technique, techniques

_Rows = list[dict[str, str]]
_WIDE = ("changes", "name of the item", "text", "about", "blind to", "attacked by")
_IN_JSON = ("used", "stochastic", "differentiable", "verifier", "techniques")
"""What a line has no room for."""


class What(StrEnum):
    """What can be listed."""

    ATTACKS = "attacks"
    POISONERS = "poisoners"
    DETECTORS = "detectors"
    DEFENSES = "defenses"
    EXTRACTORS = "extractors"
    TECHNIQUES = "techniques"
    STANDARDS = "standards"
    PRESETS = "presets"


def list_(
    what: Annotated[
        What,
        typer.Argument(
            metavar="WHAT",
            show_choices=False,  # they do not fit a line
            help="attacks on inputs, and defenses against them; poisoners of training rows, and detectors of poison; "
            "extractors of models; techniques, built or not; standards; presets.",
        ),
    ] = What.ATTACKS,
    bibtex: Annotated[bool, typer.Option("--bibtex", help="Their papers as BibTeX instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON instead.")] = False,
) -> None:
    """List what redan knows: attacks, defenses, poisoners, detectors and extractors; techniques, standards, presets.

    Attacks, poisoners and extractors are chosen by the threat model: `redan plan` says which, for whom and why. Their
    names are those that `attacks.skip` takes.

    `redan list detectors` finds poison among training rows. What refuses inputs that were attacked is among
    `redan list defenses`, with training, transformations, ensembles and certificates; --json says how each is used.

    Examples: `redan list`, `redan list defenses`, `redan list attacks --bibtex`, `redan list standards --json`
    """
    if bibtex:
        if what in (What.STANDARDS, What.PRESETS):
            raise typer.BadParameter(
                "--bibtex is for attacks, defenses, poisoners, detectors, extractors and techniques; leave it out"
            )
        typer.echo(as_bibtex(_papers(what)))
        return
    rows = _rows(what)
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    with suppress(BrokenPipeError, SystemExit):  # who reads us has left (| head)
        _show(rows)


def _papers(what: What) -> Sequence[str]:
    match what:
        case What.POISONERS:
            return [each.paper for each in POISONERS]
        case What.DETECTORS:
            return [each.paper for each in DETECTORS]
        case What.DEFENSES:
            return [each.paper for each in DEFENSES]
        case What.EXTRACTORS:
            return [each.paper for each in EXTRACTORS]
    return [each.paper for each in _known(what)]


def _known(what: What) -> Sequence[Technique]:
    attacks = [each for each in techniques() if each.built and each.kind is Kind.EVASION]
    return attacks if what is What.ATTACKS else techniques()


def _rows(what: What) -> _Rows:
    match what:
        case What.ATTACKS | What.TECHNIQUES:
            return [_technique(each, what is What.TECHNIQUES) for each in _known(what)]
        case What.POISONERS:
            return [
                {
                    "name": each.name,
                    "goal": str(each.goal),
                    "labels": "changed" if each.labels else "true",
                    "needs": "surrogates" if each.trains else "–",
                    "paper": each.paper,
                }
                for each in POISONERS
            ]
        case What.DETECTORS:
            return [
                {"name": each.name, "sees": each.sees.value, "blind to": each.blind, "paper": each.paper}
                for each in DETECTORS
            ]
        case What.DEFENSES:
            return [_defense(each) for each in DEFENSES]
        case What.EXTRACTORS:
            return [
                {
                    "name": each.name,
                    "needs": each.access.name.lower(),
                    "goal": "transfer" if each.transfers else "any",
                    "curve": "yes" if each.staged else "–",
                    "paper": each.paper,
                }
                for each in EXTRACTORS
            ]
        case What.STANDARDS:
            walk = crosswalk()
            return [
                {"id": item.id, "name of the item": item.name, "text": text.name, "dated": text.date.isoformat()}
                for item in walk.items.values()
                for text in [walk.texts[item.text]]
            ]
        case What.PRESETS:
            return [{"preset": each.name, "about": each.about} for each in presets()]


def _defense(each: DefenseEntry[Any]) -> dict[str, str]:
    return {
        "name": each.name,
        "kind": each.kind.value,
        "attacked by": ", ".join(retest.value for retest in each.retests),
        "paper": each.paper,
        "used": each.used,
        "stochastic": "yes" if each.stochastic else "no",
        "differentiable": "yes" if each.differentiable else "no",
        "verifier": "–" if each.verifier is None else str(each.verifier),
        "techniques": ", ".join(each.techniques),
    }


def _technique(each: Technique, state: bool) -> dict[str, str]:
    changes = [next(iter(change.model_fields)) for change in each.changes]
    row = {"name": each.name}
    if state:
        row |= {"kind": str(each.kind), "built": "yes" if each.built else "not yet"}
    return row | {"needs": str(each.knowledge or "–"), "changes": ", ".join(changes) or "–", "paper": each.paper}


def _show(rows: _Rows) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in rows[0] if rows else ():
        if heading not in _IN_JSON:
            table.add_column(heading, no_wrap=heading not in _WIDE, overflow="fold")
    for row in rows:
        shown = [cell for heading, cell in row.items() if heading not in _IN_JSON]
        table.add_row(*(Text(cell.partition(", arXiv:")[0]) for cell in shown))
    Console(highlight=False).print(table)
