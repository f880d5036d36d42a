"""`redan harden`: train the model of a threat model so that it holds against one of its attackers."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.progress import Progress as Bars
from rich.progress import TaskID
from rich.table import Table
from rich.text import Text

from redan.assessment.hardened import SETTINGS, Accuracy, Choice, Outcome, Step, harden_file
from redan.assessment.recipes import EXPLAINED, Method
from redan.cli.progress import columns
from redan.cli.trust import TrustPickle
from redan.errors import BrokenOffError
from redan.evidence.statistics import Interval
from redan.hardening import Alarm, Progress

_METHODS = "\n".join(f"{method:<10}{words}" for method, words in EXPLAINED.items())


def harden(
    threat_model: Annotated[
        Path,
        typer.Argument(metavar="THREAT_MODEL", help="The threat-model file (YAML, version 1).", show_default=False),
    ],
    method: Annotated[
        Method | None, typer.Option(help="How; pgd-at unless said. See above.", metavar="<method>", show_default=False)
    ] = None,
    attacker: Annotated[
        str | None,
        typer.Option(help="Against whom; the first who changes inputs in linf or l2.", show_default=False),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the rows; 30.", show_default=False)] = None,
    batch: Annotated[int | None, typer.Option(min=2, help="Rows of one step; 128.", show_default=False)] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Adam's learning rate; 0.002, and 0.0005 for ibp and crown-ibp.", show_default=False),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="Radius to train with, instead of the attacker's.", show_default=False)
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option(help="Noise of noise and smoothadv; half of an l2 radius, a whole linf one.", show_default=False),
    ] = None,
    ema: Annotated[
        float | None, typer.Option(help="Keep the average of the weights; 0.995 is usual.", show_default=False)
    ] = None,
    half: Annotated[
        bool | None,
        typer.Option(
            "--half", help="Let the attack compute in bfloat16: faster where the processor does.", show_default=False
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Decides every random number; 0.", show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the weights and what belongs to them.", show_default=False)
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="The folder of a training that was broken off: go on as it began.", show_default=False),
    ] = None,
    trust_pickle: TrustPickle = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")] = False,
) -> None:
    """Train the model that THREAT_MODEL names so that it holds against one of its attackers.

    system.model must name a factory of a torch module; the rows are system.data.train. Epochs are compared on rows that
    are held out: those of system.data.trusted, or a fifth of the training rows. The training begins from the factory's
    weights, save with ibp and crown-ibp.

    \b
    METHODS

    A method that collapses (holds against single steps and nothing else) rings an alarm, goes back to the last good
    state and on with more steps. The folder gets weights.safetensors, metrics.jsonl, and the state that --resume goes
    on from, as after Ctrl-C (exit code 130). Nothing is judged here: `redan assess` does that, on the test rows.

    Examples: `redan harden threat-model.yaml --out hardened`,
    `redan harden threat-model.yaml --method trades --epochs 10 --ema 0.995 --out trades`,
    `redan harden threat-model.yaml --resume hardened`
    """
    choice = Choice(
        method=method,
        attacker=attacker,
        epochs=epochs,
        batch=batch,
        rate=rate,
        epsilon=epsilon,
        ema=ema,
        half=half,
        seed=seed,
        sigma=sigma,
    )
    begun = False
    with _bar(quiet=quiet) as draw:

        def watch(step: Step) -> None:
            nonlocal begun
            begun = True
            draw(step)

        try:
            found = harden_file(threat_model, choice, out=out, resume=resume, trust_pickle=trust_pickle, watch=watch)
        except KeyboardInterrupt:
            folder = resume or out
            if folder is None or not (begun and (folder / SETTINGS).exists()):
                raise
            again = ["redan", "harden", str(threat_model), "--resume", str(folder)]
            words = shlex.join([*again, "--trust-pickle"] if trust_pickle else again)
            raise BrokenOffError(f"interrupted; what was saved is kept, go on with: {words}") from None
    with suppress(BrokenPipeError, SystemExit):  # who reads us has left (| head)
        _show(found, threat_model, Console(highlight=False))


harden.__doc__ = (harden.__doc__ or "").replace("METHODS", _METHODS.replace("\n", "\n    "))


@contextmanager
def _bar(*, quiet: bool) -> Iterator[Callable[[Step], None]]:
    """A function that draws how far a training is, and says its alarms; nothing without a terminal, or if quiet."""
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    task: list[TaskID] = []
    told = 0
    with Bars(*columns(), console=console, disable=hidden, transient=True, expand=True) as drawn:

        def draw(step: Step) -> None:
            nonlocal told
            if not task:
                task.append(drawn.add_task(step.doing, total=1.0, detail=""))
            now = step.progress
            if now is None:
                drawn.update(task[0], description=step.doing, detail="")
                return
            share = (now.epoch - 1 + now.batch / now.batches) / now.epochs
            drawn.update(task[0], description=f"epoch {now.epoch}/{now.epochs}", completed=share, detail=_detail(now))
            if now.alarm is not None and now.alarms > told and not hidden:
                drawn.console.print(Text(_alarm(now.alarm)), soft_wrap=True)
            told = now.alarms

        yield draw


def _detail(now: Progress) -> str:
    """Loss and accuracies, those on held-out rows as soon as there are any.

    >>> told = {"clean": None, "robust": 0.25, "held_out": None, "alarms": 0}
    >>> now = Progress(epoch=1, epochs=2, batch=1, batches=9, loss=0.5, **told)
    >>> _detail(now)
    'loss 0.500 robust 25 %'
    """
    clean, robust = (now.clean, now.robust) if now.held_out is None else now.held_out
    shares = [
        f" {name} {100 * share:.0f} %" for name, share in (("clean", clean), ("robust", robust)) if share is not None
    ]
    return f"loss {now.loss:.3f}{''.join(shares)}"


def _alarm(alarm: Alarm) -> str:
    """What rang, and what was done about it."""
    what = (
        f"alarm in epoch {alarm.epoch}: single steps leave {100 * alarm.weak:.0f} % right and 10 steps "
        f"{100 * alarm.strong:.0f} % (catastrophic overfitting)"
    )
    if alarm.remedy is None:
        return f"{what}; no remedy was tried"
    back = "" if alarm.restored is None else f"back to the state after step {alarm.restored:,}, and "
    return f"{what}; {back}on with a stronger attack, {alarm.remedy}"


def _silence(looks: int | None) -> str:
    """Why no alarm rang."""
    if looks is None:
        return "alarm: none is needed, for this method has no inner attack that a model could learn to mislead"
    if looks == 0:
        return "alarm: the training was too short for it to look"
    return f"alarm: it looked {looks:,} times and did not ring"


def _show(found: Outcome, threat_model: Path, console: Console) -> None:
    """Before and after, what the alarm did, and what to do next."""
    made, before, after = found.hardened, found.before, found.after
    console.print(Text(f"HARDENED  {found.system}, by {found.method} against {found.attacker} ({found.within})"))
    console.print()
    console.print(_table(before, after))
    console.print(
        Text(
            f"{after.n:,} rows {found.held_out}; attacked as in mode quick. Trained on {found.rows:,} rows for "
            f"{len(made.epochs)} epochs; the weights are those of epoch {made.best}, which these rows chose."
        )
    )
    for note in found.notes:
        console.print(Text(f"note: {note}"))
    console.print()
    if after.robust <= before.robust:
        console.print(
            Text(
                "Robust accuracy did not rise. Train for more epochs, with another method or from other weights; the "
                "curve is in metrics.jsonl."
            )
        )
    for alarm in made.alarms:
        console.print(Text(_alarm(alarm)))
    if not made.alarms:
        console.print(Text(_silence(found.looks)))
    console.print()
    console.print(
        Text("next: put this line into system.model of the threat model, and judge the model on the test rows")
    )
    lines = [found.line, shlex.join(["redan", "assess", str(threat_model)])]
    if found.proof is not None:
        lines.append(shlex.join(["redan", "certify", str(threat_model), *found.proof]))
    for line in lines:
        console.print(Text(f"  {line}"), soft_wrap=True)


def _table(before: Accuracy, after: Accuracy) -> Padding:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("")
    for name in ("before", "after"):
        table.add_column(name, justify="right")
        table.add_column("95 % interval", justify="right")
    for words, pairs in (
        ("clean accuracy", [(one.clean, one.n, one.clean_interval) for one in (before, after)]),
        ("robust accuracy", [(one.robust, one.n, one.robust_interval) for one in (before, after)]),
    ):
        table.add_row(words, *(part for k, n, sure in pairs for part in (f"{k:,} of {n:,}", _percent(sure))))
    return Padding(table, (0, 0, 1, 0))


def _percent(sure: Interval) -> str:
    return f"{100 * sure.low:.1f} to {100 * sure.high:.1f} %"
