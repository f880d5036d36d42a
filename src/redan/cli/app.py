"""The commands, and how their errors end: one sentence and an exit code, never a traceback for bad input."""

from __future__ import annotations

import io
import sys
import traceback
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from redan import __version__
from redan.cli.later import Later
from redan.errors import BrokenOffError, RedanError

USAGE, INTERNAL, INTERRUPTED = 2, 4, 130

_VERBS = (
    Later("init", "Write a threat model from a few answers, or from a preset."),
    Later("assess", "Attack a model and judge it: pass, fail or inconclusive."),
    Later("plan", "Show what assess would do, why, and what it would cost."),
    Later("certify", "Prove which rows no attack can break: certified accuracy."),
    Later("harden", "Train a model so that it holds against an attacker."),
    Later("list", "List attacks, defenses, techniques, standards and presets.", "list_"),
    Later("report", "Render a run's report again, or compare it with a baseline."),
    Later("replay", "Check a run folder: ask the model again about its saved inputs."),
)


class _Redan(TyperGroup):
    """All verbs, in the order in which they are used."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for verb in _VERBS:
            self.add_command(verb)


app = typer.Typer(
    name="redan",
    cls=_Redan,
    epilog=(
        "Exit codes: 0 pass, 1 fail, 2 the command line, the file, the model or the data cannot be used, "
        "3 inconclusive, 4 internal error, 130 interrupted."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _told_version(asked: bool) -> None:
    if asked:
        typer.echo(f"redan {__version__}")
        raise typer.Exit


@app.callback()
def _redan(
    version: Annotated[
        bool, typer.Option("--version", callback=_told_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Shows the owner of a machine-learning model how attackers break it, proves it, and helps to hold the line."""


def run(arguments: list[str] | None = None) -> int:
    """The exit code of a command line; everything that can go wrong ends here."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ≥ shows ?, and the verdict stands
    try:
        code = app(args=arguments, prog_name="redan", standalone_mode=False)
    except BrokenOffError as error:
        return _told(str(error), INTERRUPTED)
    except RedanError as error:
        return _told(str(error), USAGE)
    except typer.Exit as error:
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        return _unexpected(error)
    if code == INTERRUPTED:  # some versions of typer turn the interrupt into an exit
        return _told("interrupted; nothing was attacked yet", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _told(sentence: str, code: int) -> int:
    """Say one sentence on stderr, however wide the terminal is."""
    _stderr().print(Text(f"redan: {sentence}"), soft_wrap=True)
    return code


def _stderr() -> Console:
    return Console(stderr=True, highlight=False)


def _unexpected(error: Exception) -> int:
    message = getattr(error, "format_message", None)  # the command line's own errors have one
    if message is None:
        _told(f"internal error ({type(error).__name__}: {error}); this is a bug in redan, please report it", INTERNAL)
        _stderr().print(Text("".join(traceback.format_exception(error)), style="dim"), soft_wrap=True)
        return INTERNAL
    if "\n" in message():  # nothing was asked for: the help is the answer
        _stderr().print(Text(message()), soft_wrap=True)
        return USAGE
    context = getattr(error, "ctx", None)
    command = "redan" if context is None else context.command_path
    return _told(f"{message().rstrip('.')} (see {command} --help)", USAGE)
