"""The training under way: all that changes is here, and all of it is saved and restored."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from redan.errors import EvidenceError, TargetError
from redan.hardening.averaging import EMA
from redan.hardening.batches import seed_of, seeded
from redan.hardening.metrics import Alarm, Line, Tally, read, written
from redan.hardening.objectives import Batch, Objective, is_armed
from redan.hardening.overfitting import Reading, Watch
from redan.hardening.passes import Path
from redan.hardening.step import streams

Schedule = Callable[[float], float]
"""(share of the training that is over) -> the share of the full learning rate."""

VERSION = 1


@dataclass(slots=True, kw_only=True)
class Loop:
    """One training's state. What is chosen comes first, what changes after it."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    schedule: Schedule
    watch: Watch | None
    watched: tuple[Tensor, Tensor]  # the rows that the watch looks at, and their labels
    path: Path
    seed: int
    epochs: int
    batches: int
    objective: Objective
    average: AveragedModel | None = None

    epoch: int = 0  # finished ones
    at: int = 0  # batches of the next one that are done
    tally: Tally = field(default_factory=Tally)
    lines: list[Line] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    best_epoch: int | None = None
    highest: float = -1.0  # robust accuracy of the best epoch
    over: bool = False
    readings: tuple[Reading, ...] = ()
    good: dict[str, Any] | None = None  # the last state without a sign of a collapse
    alarms: int = 0
    rates: list[float] = field(default_factory=list)  # full learning rates of the optimizer's groups

    @property
    def steps(self) -> int:
        return self.epoch * self.batches + self.at

    @property
    def trained(self) -> nn.Module:
        """The module whose weights count: the average's, where there is one."""
        return self.model if self.average is None else self.average.module

    def step(self, x: Tensor, y: Tensor) -> None:
        """One batch: a step of the optimizer, and a look for a collapse where one is due."""
        step = self.steps
        seeded(seed_of(self.seed, "step", step))
        done = (step + 0.5) / (self.epochs * self.batches)
        if self.scheduler is None:
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * self.schedule(done)
        loss = self.objective(self.model, Batch(self.path.ordered(x), y, streams(self.seed, step, x), self.path, done))
        value = float(loss.value.detach())
        if not math.isfinite(value):
            raise TargetError(
                f"the loss is {value} at step {step}, in epoch {self.epoch + 1}; lower the learning rate, or clip "
                "gradients, and train again"
            )
        self.optimizer.zero_grad()
        loss.value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.tally.add(loss, value, len(x))
        self.at += 1
        if self.watch is not None and self.watch.due(self.steps, self.readings):
            self._look(self.watch)

    def _look(self, watch: Watch) -> None:
        objective = self.objective
        if not is_armed(objective):
            return
        x, y = self.watched
        batch = Batch(self.path.ordered(x), y, streams(seed_of(self.seed, "watch"), self.steps, x), self.path)
        self.readings = (*self.readings, watch.read(self.model, batch, objective.within))
        if watch.rings(self.readings):
            last = self.readings[-1]
            remedy = watch.remedies[min(self.alarms, len(watch.remedies) - 1)] if watch.remedies else None
            restored = None
            self.readings = ()
            if remedy is not None:
                self.objective = objective.armed(remedy)
                if self.good is not None:
                    restored = self.good["steps"]
                    self.readings = (Reading(*self.good["reading"]),)
                    self._back(self.good)
            self.alarms += 1
            self.lines.append(
                Alarm(
                    epoch=self.epoch + 1,
                    step=self.steps,
                    weak=last.weak,
                    strong=last.strong,
                    restored=restored,
                    remedy=None if remedy is None else repr(remedy),
                )
            )
        elif watch.good(self.readings):
            self.good = copy.deepcopy({"steps": self.steps, "reading": tuple(self.readings[-1]), **self._weights()})

    def _weights(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def _restore(self, weights: dict[str, Any]) -> None:
        self.model.load_state_dict(weights["model"])
        self.optimizer.load_state_dict(copy.deepcopy(weights["optimizer"]))  # it may keep the tensors it is given
        if self.average is not None:
            self.average.load_state_dict(weights["average"])

    def _back(self, weights: dict[str, Any]) -> None:
        """Restore weights, and leave the learning rates as they are: time has gone on."""
        now = [{name: value for name, value in g.items() if name != "params"} for g in self.optimizer.param_groups]
        self._restore(weights)
        for group, values in zip(self.optimizer.param_groups, now, strict=True):
            group.update(values)

    def kept(self) -> None:
        """Take the weights as they are for the best so far."""
        self.best = {name: part.detach().clone() for name, part in self.trained.state_dict().items()}
        self.best_epoch = self.epoch

    def state(self) -> dict[str, Any]:
        """All that changes, as nested dictionaries of tensors and plain values."""
        return {
            "version": VERSION,
            "training": [self.seed, self.epochs, self.batches],
            **self._weights(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "epoch": self.epoch,
            "at": self.at,
            "tally": asdict(self.tally),
            "lines": written(self.lines).decode(),
            "best": self.best,
            "best_epoch": self.best_epoch,
            "highest": self.highest,
            "over": self.over,
            "readings": [tuple(reading) for reading in self.readings],
            "good": self.good,
            "alarms": self.alarms,
            "rates": self.rates,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a saved state. Raises EvidenceError for that of another training."""
        if state["version"] != VERSION or state["training"] != [self.seed, self.epochs, self.batches]:
            raise EvidenceError(
                f"the saved training (seed, epochs, batches an epoch: {state['training']}) is not this one "
                f"({[self.seed, self.epochs, self.batches]}); resume with the same settings, or in another folder"
            )
        self._restore(state)
        if self.scheduler is not None and state["scheduler"] is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.epoch, self.at, self.tally = state["epoch"], state["at"], Tally(**state["tally"])
        self.lines = read(state["lines"].encode())
        self.best, self.best_epoch, self.highest = state["best"], state["best_epoch"], state["highest"]
        self.over, self.good, self.alarms, self.rates = state["over"], state["good"], state["alarms"], state["rates"]
        self.readings = tuple(Reading(*reading) for reading in state["readings"])
        if self.alarms and self.watch is not None and self.watch.remedies and is_armed(self.objective):
            self.objective = self.objective.armed(self.watch.remedies[min(self.alarms, len(self.watch.remedies)) - 1])


def averaged(average: EMA | None, model: nn.Module) -> AveragedModel | None:
    """The average of a model's weights, where one is kept."""
    return None if average is None else average.of(model)
