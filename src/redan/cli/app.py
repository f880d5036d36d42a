"""The commands, and how their errors end: one sentence and an exit code, never a traceback for bad input."""

from __future__ import annotations

import sys
import traceback

import typer
from rich.console import Console
from rich.text import Text

from redan.cli.assess import assess
from redan.cli.plan import plan
from redan.errors import RedanError

USAGE, INTERNAL, INTERRUPTED = 2, 4, 130

app = typer.Typer(
    name="redan",
    help="Shows the owner of a machine-learning model how attackers break it, proves it, and helps to hold the line.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(assess)
app.command()(plan)


def run(arguments: list[str] | None = None) -> int:
    """The exit code of a command line; everything that can go wrong ends here."""
    console = Console(stderr=True, highlight=False)
    try:
        code = app(args=arguments, standalone_mode=False)
    except RedanError as error:
        console.print(Text(f"redan: {error}"), soft_wrap=True)
        return USAGE
    except typer.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        console.print(Text("redan: interrupted; what was finished is in the run folder"))
        return INTERRUPTED
    except Exception as error:
        return _unexpected(error, console)
    return code if isinstance(code, int) else 0


def _unexpected(error: Exception, console: Console) -> int:
    show = getattr(error, "show", None)  # a usage error of the command line prints itself
    if show is not None:
        show(file=sys.stderr)
        return USAGE
    console.print(
        Text(f"redan: internal error ({type(error).__name__}: {error}); this is a bug in redan, please report")
    )
    console.print(Text("".join(traceback.format_exception(error)), style="dim"), soft_wrap=True)
    return INTERNAL
