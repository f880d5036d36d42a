"""Adversarial training of any module, from rows to the weights that held best."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from redan.errors import DataError, SettingError
from redan.hardening.averaging import EMA
from redan.hardening.batches import Data, Loader, as_data, seed_of
from redan.hardening.intake import adam, first_batch, opened, placed
from redan.hardening.loop import Loop, Schedule, averaged
from redan.hardening.metrics import Alarm, Epoch, written
from redan.hardening.objectives import Objective, is_armed
from redan.hardening.overfitting import Watch
from redan.hardening.passes import cheapest
from redan.hardening.saving import load_state, save_state, write
from redan.hardening.validation import Score, Validates

STATE, METRICS, MODEL = "state.safetensors", "metrics.jsonl", "model.safetensors"
_WATCH = Watch()
_RISE = 0.1
_QUIET = 0.2  # seconds between two calls of `progress`


def rise_and_fall(done: float) -> float:
    """The learning rate rises in a tenth of the training and falls to 0 in the rest; late small steps are what brings
    robust accuracy up.

    >>> rise_and_fall(0.05), rise_and_fall(0.1), rise_and_fall(1.0)
    (0.5, 1.0, 0.0)
    """
    return min(done / _RISE, (1 - done) / (1 - _RISE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a model is trained.

    objective: what each step minimizes. epochs: passes over the rows at the most. schedule: of the learning rate, where
    no scheduler is given. average: keep the average of the weights, and take it for the result. watch: for catastrophic
    overfitting, where the objective has an inner attack; None watches for nothing. patience: end after so many epochs
    without a gain in robust accuracy on the held-out rows. save_every: steps after which the state is written, besides
    after each epoch. half: the inner attack computes in bfloat16, which is faster where the hardware does so, and
    changes nothing else (`redan.hardening.Path`). seed: decides every random number.
    """

    objective: Objective
    epochs: int = 30
    schedule: Schedule = rise_and_fall
    average: EMA | None = None
    watch: Watch | None = _WATCH
    patience: int | None = None
    save_every: int | None = None
    half: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("epochs", self.epochs), ("patience", self.patience), ("save_every", self.save_every)):
            if value is not None and value < 1:
                raise SettingError(f"{name} must be 1 or more, got {value}; leave it out for the default")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a training is: batches done of the current epoch (from 1), means over them so far, and the last epoch's
    accuracies on the held-out rows; the alarms so far, and the last of them."""

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    clean: float | None
    robust: float | None
    held_out: Score | None
    alarms: int
    alarm: Alarm | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Hardened:
    """The trained module, which is the one that was given; its epochs and alarms; the epoch, from 1, that its weights
    are of."""

    model: nn.Module
    epochs: tuple[Epoch, ...]
    alarms: tuple[Alarm, ...]
    best: int


def harden(
    model: nn.Module,
    data: Data | Loader,
    training: Training,
    *,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    validation: Validates | None = None,
    folder: Path | str | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Hardened:
    """Train a module in place, and leave the best weights in it.

    model: any `nn.Module` that answers logits (N, K); it is trained in training mode, but where it is in that mode
    already, parts that are not stay so. Afterwards every part is in the mode it was in. data: `Shuffled(x, y)`, or a
    loader of batches (x, y). optimizer: over the model's parameters; Adam with a rate of 0.002 unless given. scheduler:
    torch's, stepped after each batch, in place of the training's schedule. validation: of held-out rows; the result is
    the epoch with the highest robust accuracy on them (Rice, Wong, Kolter 2020, arXiv:2002.11569: the last epoch is
    often overfitted), else the last one.

    folder: where `state.safetensors`, `metrics.jsonl` (a line an epoch or alarm) and, in the end, `model.safetensors`
    are written. resume: go on from the folder's state, if it has one; the same settings then give the same bytes as a
    training that was not broken off. progress: called a few times a second.

    On a CPU, convolutional networks go the cheapest path that agrees with the plain one (`cheapest`). Torch's
    generators are as before in the end.

    Raises DataError for rows outside of the objective's box, TargetError for a loss that is not finite, SettingError
    and EvidenceError for a folder that does not fit.
    """
    rows = as_data(data)
    place = opened(folder, resume, STATE)
    optimizer = optimizer or adam(model)
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    modes = [(part, part.training) for part in model.modules()]
    if not model.training:
        model.train()
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            x, y = first_batch(model, rows, training.objective, training.seed)
            watch = training.watch if is_armed(training.objective) else None
            loop = Loop(
                model=model,
                optimizer=optimizer,
                scheduler=scheduler,
                schedule=training.schedule,
                watch=watch,
                watched=(x, y) if watch is None else (x[: watch.rows], y[: watch.rows]),
                path=cheapest(model, x, half=training.half),
                seed=training.seed,
                epochs=training.epochs,
                batches=len(rows),
                objective=training.objective,
                average=averaged(training.average, model),
                rates=[group["lr"] for group in optimizer.param_groups],
            )
            if place is not None and resume and (place / STATE).exists():
                loop.resume(load_state(place / STATE))
            _run(loop, rows, training, validation, place, progress)
            model.load_state_dict(loop.best if loop.best is not None else loop.trained.state_dict())
            optimizer.zero_grad()
    finally:
        for part, mode in modes:
            part.training = mode
    if place is not None:
        write(place / MODEL, save({name: part.cpu().contiguous().clone() for name, part in model.state_dict().items()}))
    return Hardened(
        model=model,
        epochs=tuple(line for line in loop.lines if isinstance(line, Epoch)),
        alarms=tuple(line for line in loop.lines if isinstance(line, Alarm)),
        best=loop.best_epoch or loop.epoch,
    )


def _run(
    loop: Loop,
    rows: Data,
    training: Training,
    validation: Validates | None,
    place: Path | None,
    progress: Callable[[Progress], None] | None,
) -> None:
    """The epochs that are left."""
    told = 0.0
    while loop.epoch < training.epochs and not loop.over:
        begun = time.perf_counter() - loop.tally.seconds
        for x, y in islice(rows.batches(loop.epoch, training.seed), loop.at, loop.batches):
            loop.step(*placed(loop.model, x, y))
            loop.tally.seconds = time.perf_counter() - begun
            if place is not None and training.save_every and loop.steps % training.save_every == 0:
                _save(loop, place)
            if progress is not None and (loop.at == loop.batches or time.monotonic() - told > _QUIET):
                told = time.monotonic()
                progress(_progress(loop))
        if loop.at < loop.batches:
            raise DataError(
                f"the loader said {loop.batches} batches an epoch and gave {loop.at}; its length must be right"
            )
        _finish(loop, validation, training.patience, begun)
        if place is not None:
            _save(loop, place)


def _finish(loop: Loop, validation: Validates | None, patience: int | None, begun: float) -> None:
    """End an epoch: measure, compare, record."""
    trained = loop.tally.seconds
    loop.epoch, loop.at = loop.epoch + 1, 0
    score = None
    if validation is not None:
        score = validation(loop.trained, seed_of(loop.seed, "validation"))
        if score.robust > loop.highest:
            loop.highest = score.robust
            loop.kept()
        loop.over = patience is not None and loop.epoch - (loop.best_epoch or 0) >= patience
    tally = loop.tally
    loop.lines.append(
        Epoch(
            number=loop.epoch,
            steps=loop.steps,
            loss=tally.mean_loss,
            clean=tally.clean_share,
            robust=tally.robust_share,
            held_out_clean=None if score is None else score.clean,
            held_out_robust=None if score is None else score.robust,
            rate=float(loop.optimizer.param_groups[0]["lr"]),
            best=score is not None and loop.best_epoch == loop.epoch,
            rows_per_second=tally.rows / max(trained, 1e-9),
            seconds=time.perf_counter() - begun,
        )
    )
    loop.tally = type(tally)()


def _progress(loop: Loop) -> Progress:
    epochs = [line for line in loop.lines if isinstance(line, Epoch)]
    shown = epochs[-1] if epochs else None
    score = None
    if shown is not None and shown.held_out_clean is not None and shown.held_out_robust is not None:
        score = Score(shown.held_out_clean, shown.held_out_robust)
    return Progress(
        epoch=loop.epoch + 1,
        epochs=loop.epochs,
        batch=loop.at,
        batches=loop.batches,
        loss=loop.tally.mean_loss,
        clean=loop.tally.clean_share,
        robust=loop.tally.robust_share,
        held_out=score,
        alarms=loop.alarms,
        alarm=next((line for line in reversed(loop.lines) if isinstance(line, Alarm)), None),
    )


def _save(loop: Loop, place: Path) -> None:
    save_state(place / STATE, loop.state())
    write(place / METRICS, written(loop.lines))
