"""Commands that are imported when they are called.

Attacks need torch, which takes seconds to import; a help, a completion or another command does not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

__all__ = ["Later"]


class Later(TyperCommand):
    """A command that stands for the function of its name in a module of the same name, until it is called.

    name: as it is typed. short_help: its line among others. function: what it is called in `redan.cli.NAME`; its name
    unless given.
    """

    def __init__(self, name: str, short_help: str, function: str | None = None) -> None:
        super().__init__(name, callback=None, short_help=short_help)
        self._function = function or name

    def make_context(self, *args: Any, **settings: Any) -> Any:
        """The context of the command itself, which parses what follows and is invoked instead of this one."""
        module = import_module(f"redan.cli.{self.name}")
        function: Callable[..., Any] = getattr(module, self._function)
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        alone.command(self.name)(function)
        return get_command(alone).make_context(*args, **settings)
