# ruff: noqa: ARG001  # the answers are taken from the context, where typer has them by name
"""`redan init`: a threat model from a few answers."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from redan.errors import BrokenOffError, SettingError, ThreatModelError
from redan.threat.asking import Question
from redan.threat.file import read
from redan.threat.interview import QUESTIONS, blank, conduct, from_preset
from redan.threat.planner import plan
from redan.threat.presets import preset as preset_of
from redan.threat.presets import presets, unfilled
from redan.threat.schema import ThreatModel

_PRESETS = [each.name for each in presets()]
_MANY = 6  # words; more of them are no name for a value
_BY_NAME = {question.name: question for question in QUESTIONS}


def _flag(name: str) -> Any:
    """The option that answers a question."""
    question = _BY_NAME[name]
    words = list(question.words)
    many = len(words) > _MANY
    return typer.Option(
        question.flag,
        help=f"{question.ask} {', '.join(words)}" if many else question.ask,
        metavar="WORD" if many else "|".join(words) or "TEXT",
        autocompletion=lambda incomplete: [word for word in words if word.startswith(incomplete)],
        show_default=False,
    )


def init(
    context: typer.Context,
    to: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")] = Path("threat-model.yaml"),
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(_PRESETS),
            help="Start from a threat model of this kind.",
            autocompletion=lambda incomplete: [name for name in _PRESETS if name.startswith(incomplete)],
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    no_input: Annotated[bool, typer.Option("--no-input", help="Ask nothing, as where there is no terminal.")] = False,
    name: Annotated[str | None, _flag("name")] = None,
    purpose: Annotated[str | None, _flag("purpose")] = None,
    task: Annotated[str | None, _flag("task")] = None,
    classes: Annotated[str | None, _flag("classes")] = None,
    kind: Annotated[str | None, _flag("kind")] = None,
    shape: Annotated[str | None, _flag("shape")] = None,
    bounds: Annotated[str | None, _flag("bounds")] = None,
    output: Annotated[str | None, _flag("output")] = None,
    model_kind: Annotated[str | None, _flag("model_kind")] = None,
    model: Annotated[str | None, _flag("model")] = None,
    test: Annotated[str | None, _flag("test")] = None,
    inputs_from: Annotated[str | None, _flag("inputs_from")] = None,
    inputs_why: Annotated[str | None, _flag("inputs_why")] = None,
    knowledge: Annotated[str | None, _flag("knowledge")] = None,
    change: Annotated[str | None, _flag("change")] = None,
    amount: Annotated[str | None, _flag("amount")] = None,
    deviation: Annotated[str | None, _flag("deviation")] = None,
    queries: Annotated[str | None, _flag("queries")] = None,
    evasion_impact: Annotated[str | None, _flag("evasion_impact")] = None,
    training_from: Annotated[str | None, _flag("training_from")] = None,
    training_why: Annotated[str | None, _flag("training_why")] = None,
    share: Annotated[str | None, _flag("share")] = None,
    change_labels: Annotated[str | None, _flag("change_labels")] = None,
    poisoning_goal: Annotated[str | None, _flag("poisoning_goal")] = None,
    train: Annotated[str | None, _flag("train")] = None,
    training: Annotated[str | None, _flag("training")] = None,
    poisoning_impact: Annotated[str | None, _flag("poisoning_impact")] = None,
    api_to: Annotated[str | None, _flag("api_to")] = None,
    api_why: Annotated[str | None, _flag("api_why")] = None,
    api_answers: Annotated[str | None, _flag("api_answers")] = None,
    api_queries: Annotated[str | None, _flag("api_queries")] = None,
    extraction_impact: Annotated[str | None, _flag("extraction_impact")] = None,
    clean_accuracy: Annotated[str | None, _flag("clean_accuracy")] = None,
    robust_accuracy: Annotated[str | None, _flag("robust_accuracy")] = None,
    poisoned_accuracy: Annotated[str | None, _flag("poisoned_accuracy")] = None,
    extraction_fidelity: Annotated[str | None, _flag("extraction_fidelity")] = None,
) -> None:
    """Write a threat model: ask who can touch inputs, training data and the API, and what failure costs.

    Every question has a default and a flag, and is not asked if the flag answers it. Without a terminal only flags
    answer. With --preset, attackers and requirements of such a system are there already; model and data can be left
    to fill in later. Ctrl-C writes nothing (exit code 130), and a file that is there stays, unless --force is given.

    Examples: `redan init --preset driving`, `redan init fraud.yaml --preset fraud --name checkout --no-input`
    """
    interview = blank() if preset is None else from_preset(preset_of(preset))
    if to.exists() and not force:
        raise SettingError(f"{to} is there already; name another file, or overwrite it with --force")
    if not to.parent.is_dir():
        raise ThreatModelError(f"there is no folder {to.parent}; make it, or name a file in another one")
    given = {key: value for key, value in context.params.items() if key in _BY_NAME and value is not None}
    asking = sys.stdin.isatty() and sys.stderr.isatty() and not no_input
    try:
        text = conduct(interview, given, _ask if asking else None)
    except typer.Abort:
        raise BrokenOffError("interrupted; nothing was written") from None
    try:
        to.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ThreatModelError(f"{to} cannot be written ({error.strerror}); name another file") from None
    _show(to, read(to).model, text)


def _ask(question: Question, default: str, choices: tuple[str, ...], check: Callable[[str], str]) -> str:
    """Ask on the terminal until the answer can be."""

    def checked(said: str) -> str:
        try:
            return check(said)
        except SettingError as error:
            raise typer.BadParameter(str(error)) from None

    words = f" ({', '.join(choices)})" if choices else ""
    Console(stderr=True, highlight=False).print(Text(f"\n{question.about}", style="dim"))
    return str(typer.prompt(f"{question.ask}{words}", default=default, value_proc=checked, err=True))


def _show(to: Path, model: ThreatModel, text: str) -> None:
    """What was written, whom it is against, and what comes next."""
    console = Console(highlight=False)
    counts = [(len(model.attackers), "attacker"), (len(model.requirements), "requirement")]
    said = ", ".join(f"{count} {word}{'s' * (count != 1)}" for count, word in counts)
    console.print(f"{to}: {said}", soft_wrap=True, markup=False)
    table = Table.grid(padding=(0, 2, 0, 0))
    found = plan(model)
    attacks = {c.attacker.name: ", ".join(name for name, _ in c.attacks) or c.reason for c in found.campaigns}
    poisons = {each.attacker.name: ", ".join(entry.name for entry in each.attacks) for each in found.poisonings}
    copiers = {each.attacker.name: ", ".join(entry.name for entry in each.attacks) for each in found.extractions}
    untested = {c.attacker.name for c in found.campaigns if not c.attacks}
    for each in model.attackers:
        used = (attacks | poisons | copiers)[each.name] or ""
        told = f"untested: {used}" if each.name in untested else used
        table.add_row("", Text(each.name), Text(each.kind), Text(told))
    console.print(table)
    marked = [f"{key} (line {line})" for line, key in unfilled(text)]
    if marked:
        console.print(Text(f"fill in before you assess: {', '.join(marked)}", style="yellow"))
    console.print(f"next: redan plan {shlex.quote(str(to))}", soft_wrap=True, markup=False)
