"""What a person sees while attacks run: a line for each attacker, on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column

from redan.engine.run import Progress


def columns() -> tuple[TextColumn | BarColumn | TimeRemainingColumn, ...]:
    """Attacker, bar, passes, rows settled, and the time left if nothing more breaks: one line of 80 columns."""
    whole = Column(no_wrap=True)
    name = Column(no_wrap=True, ratio=1, overflow="ellipsis")  # what the others leave
    return (
        TextColumn("{task.description}", markup=False, table_column=name),
        BarColumn(bar_width=10, table_column=whole),
        TextColumn("{task.percentage:.0f}%", markup=False, table_column=whole),
        TextColumn("{task.fields[detail]}", markup=False, table_column=whole),
        TimeRemainingColumn(compact=True, table_column=whole),
        TextColumn("left", markup=False, table_column=whole),
    )


class Draw(Protocol):
    """Draws how far something is."""

    def __call__(self, attacker: str, now: Progress, *, counts: str | None = None) -> None:
        """counts: what is counted, in words; None: rows of an attack."""
        ...


def _settled(now: Progress) -> str:
    return f"{now.passes:,} passes {now.settled:,}/{now.rows:,} rows settled"


@contextmanager
def bars(*, quiet: bool = False) -> Iterator[Draw]:
    """A function that draws how far each attacker is; nothing is drawn without a terminal, or if quiet."""
    console = Console(stderr=True)
    tasks: dict[str, TaskID] = {}
    drawn = Bars(*columns(), console=console, disable=quiet or not console.is_terminal, transient=True, expand=True)
    with drawn as progress:

        def watch(attacker: str, now: Progress, *, counts: str | None = None) -> None:
            if attacker not in tasks:
                tasks[attacker] = progress.add_task(attacker, total=1.0, detail="")
            detail = _settled(now) if counts is None else f"{now.settled:,}/{now.rows:,} {counts}"
            progress.update(tasks[attacker], completed=now.share, detail=detail)

        yield watch


def span(seconds: float) -> str:
    """A length of time as one says it.

    >>> span(0.4), span(95), span(4000)
    ('under a second', '1 min 35 s', '1 h 6 min')
    """
    whole = round(seconds)
    if seconds < 1:
        return "under a second"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"
