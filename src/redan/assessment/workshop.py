"""Where poison is made and victims are trained: what a poisoning attacker has, and the user's own training.

A `Workshop` is built from the threat-model file by whoever works in it (a child process as a rule), so that nothing
but small messages has to be sent.
"""

from __future__ import annotations

import hashlib
import inspect
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from redan.answers import evaluate, micro_batch
from redan.assessment.imports import called, named
from redan.assessment.rows import order_of, rows_of
from redan.certification.poisoning import Change, Plan, partition
from redan.data.samples import Samples
from redan.defenses.repair import only
from redan.errors import DataError, RedanError, SettingError, TargetError, ThreatModelError
from redan.evidence.folder import digest, file_digest
from redan.poisoning.backdoor import Backdoor, Victims
from redan.poisoning.budget import Poisoned, held_to
from redan.poisoning.scene import PoisonGoal, Scene
from redan.protocols import settings
from redan.registry.poisoners import PoisonerEntry
from redan.targets import Target, as_target
from redan.threat import attackers as who
from redan.threat.file import read
from redan.threat.planner import plan
from redan.threat.poisoners import Point, PoisonCampaign, target_of, trigger_of
from redan.threat.poisoning import Counts
from redan.threat.schema import ThreatModel
from redan.threat.system import Split

__all__ = ["UnfitError", "Workshop", "poison_digest"]

Whole = NDArray[np.int64]
_ATTACKERS = 10**6  # seeds of the attacker's own models, far from any victim's
_HELD_OUT = 500  # rows that the attacker keeps to see how their poison does


class UnfitError(Exception):
    """A poisoner cannot be used here at all; the message says why."""


class Workshop:
    """One threat model's training, rows and poisoning attackers."""

    def __init__(self, threat_model: Path) -> None:
        loaded = read(threat_model)
        self.model: ThreatModel = loaded.model
        self.folder = loaded.folder
        self.digest = loaded.digest
        self.campaigns = {each.attacker.name: each for each in plan(self.model).poisonings}
        self.classes = _classes_of(self.model)
        self.digests: dict[str, str] = {}
        """sha256 of the rows read so far, by split."""
        self._surrogates: list[nn.Module | Target[Tensor]] = []
        self._stamped: dict[str, Victims] = {}  # by attacker

    def checked(self) -> Workshop:
        """This workshop, its rows read and its training found. Raises a RedanError for what is wrong with them."""
        for rows in (self.train, self.test, self.trusted):
            if rows is not None and rows.x.shape[1:] != self.train.x.shape[1:]:
                raise DataError(
                    f"system.data.{rows.split} has rows of shape {rows.x.shape[1:]}, and the training rows have "
                    f"{self.train.x.shape[1:]}; they must be alike"
                )
            if rows is not None and len(rows) and not (rows.y.min() >= 0 and rows.y.max() < self.classes):
                raise DataError(f"system.data.{rows.split} has labels that are not from 0 to {self.classes - 1}")
        _ = self._fit
        for campaign in self.campaigns.values():
            campaign.budget.controlled(self.train)
        return self

    def points(self, campaign: PoisonCampaign) -> tuple[Point, ...]:
        """The shares at which the budget has a row at least; the whole share in any case."""
        first, *others = campaign.points
        return (first, *(p for p in others if replace(campaign.budget, share=p.share).rows(self.train)))

    # -- rows ---------------------------------------------------------------------------------------------

    @cached_property
    def train(self) -> Samples:
        """The rows that victims are trained on, before anybody poisoned them."""
        return self._rows(Split.TRAIN)

    @property
    def digest_of_training(self) -> str:
        """sha256 of the training and trusted rows, and of the file that the training function is in."""
        _ = self.train, self.trusted
        told = [self.digests.get(split, "") for split in (Split.TRAIN, Split.TRUSTED)]
        file = inspect.getsourcefile(inspect.unwrap(self._fit)) if inspect.isroutine(self._fit) else None
        told.append(file_digest(Path(file)) if file is not None and Path(file).is_file() else "")
        return digest("\n".join(told).encode())

    @cached_property
    def trusted(self) -> Samples | None:
        """Clean rows that a defender has; None where the file names none."""
        return None if self.model.system.data.trusted is None else self._rows(Split.TRUSTED)

    @cached_property
    def test(self) -> Samples:
        """The rows that victims are asked, in the order in which they are drawn."""
        found = self._rows(Split.TEST)
        return only(found, order_of(self.model, len(found)))

    def _rows(self, split: Split) -> Samples:
        found = rows_of(self.model, self.folder, split)
        if found is None:
            raise ThreatModelError(f"poisoning needs system.data.{split}; name the rows there")
        self.digests[split] = found.digest
        return found.samples

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The box of the inputs, where they have one."""
        found: tuple[float, float] | None = getattr(self.model.system.inputs, "bounds", None)
        return found

    # -- training -----------------------------------------------------------------------------------------

    @cached_property
    def _fit(self) -> Callable[[Samples, int], Any]:
        training = self.model.system.training
        if training is None:
            raise ThreatModelError("poisoning needs system.training.call, a function (samples, seed) -> model")
        found: Callable[[Samples, int], Any] = named(training.call, self.folder, "system.training.call")
        return found

    def fit(self, samples: Samples, seed: int) -> nn.Module | Target[Tensor]:
        """The user's training. Global generators are seeded first, for training code that draws from them.

        Raises ThreatModelError where it raises, TargetError where it returns no model.
        """
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # the user's code may draw from it
        random.seed(seed)
        call = self._fit
        made: Any = called(lambda: call(samples, seed), "system.training.call", self.folder)
        if not isinstance(made, nn.Module) and not callable(made):
            raise TargetError(
                f"system.training.call returned {type(made).__name__}; return a torch module in evaluation mode or a "
                "target, such as redan.targets.from_sklearn(estimator)"
            )
        model: nn.Module | Target[Tensor] = made
        as_target(model, None)  # refuses a module in training mode
        return model

    def module(self, samples: Samples, seed: int) -> nn.Module:
        """The user's training where it gives a torch module. Raises UnfitError where it gives something else."""
        return _as_module(self.fit(samples, seed))

    def answers(self, model: nn.Module | Target[Tensor], x: NDArray[Any]) -> Whole:
        """The class that a model gives each row: (N,). Raises TargetError where it does not answer."""
        return np.asarray(self.scores(model, x).argmax(1), dtype=np.int64)

    def scores(self, model: nn.Module | Target[Tensor], x: NDArray[Any]) -> NDArray[np.float64]:
        """A model's scores of each row: (N, K). Raises TargetError where it does not answer."""
        if not len(x):
            return np.zeros((0, self.classes))
        target = self.target(model)
        rows = torch.as_tensor(x).to(device=target.device, dtype=target.dtype)
        found = evaluate(target, rows, micro=micro_batch(rows), classes=self.classes)
        if not bool(found.answered.all()):
            why = next(iter(found.reasons.values()), "it answered NaN")
            raise TargetError(f"a trained victim does not answer every row ({why}); mend what the training returns")
        return np.asarray(found.output.cpu().double().numpy())

    def target(self, model: nn.Module | Target[Tensor]) -> Target[Tensor]:
        """A trained model as a target, in the inputs' box."""
        return as_target(model, self.bounds if isinstance(model, nn.Module) else None)

    def seed(self, number: int) -> int:
        """What victims of one number are trained with, and their poison is drawn by."""
        return self.model.statistics.seed + number

    # -- poison -------------------------------------------------------------------------------------------

    def poisoned(
        self, campaign: PoisonCampaign, entry: PoisonerEntry, share: float, number: int
    ) -> tuple[Poisoned, str]:
        """The training rows as the attacker leaves them, held to the budget, and the poisoner's settings.

        Raises UnfitError where the poisoner cannot be used on these rows or this model.
        """
        budget = replace(campaign.budget, share=share)
        try:
            poisoner = entry.make(self.scene(campaign, entry, number))
            made = poisoner(self.train, budget, seed=self.seed(number))
        except (SettingError, DataError, TargetError) as error:
            raise UnfitError(str(error)) from error
        held_to(made, self.train, budget)
        return made, settings(poisoner)

    def scene(self, campaign: PoisonCampaign, entry: PoisonerEntry, number: int) -> Scene:
        """What the attacker has for one victim."""
        planted = self.backdoor(campaign)
        rows, label = np.empty(0), None
        if campaign.goal is PoisonGoal.TARGETED_ROWS:
            at, label = self.chosen(number)
            rows = self.test.x[at : at + 1]
        return Scene(
            classes=self.classes,
            held_out=self.held_out,
            radius=campaign.attacker.capability.linf,
            bounds=self.bounds,
            trigger=None if planted is None else planted.trigger,
            target=None if planted is None else planted.target,
            rows=rows,
            label=label,
            fit=self.module,
            surrogates=tuple(_as_module(self._surrogate(i)) for i in range(entry.surrogates)),
        )

    @cached_property
    def held_out(self) -> Samples:
        """Rows like the training rows, that the attacker looks at: some of the training rows themselves."""
        drawn = np.random.default_rng(self.model.statistics.seed + _ATTACKERS).permutation(len(self.train))
        return only(self.train, np.sort(drawn[:_HELD_OUT]))

    def chosen(self, number: int) -> tuple[int, int]:
        """A chosen test row, and the class it is to be taken for: the one that the attacker's own model finds likeliest
        but for the right one."""
        order = np.random.default_rng(self.model.statistics.seed + _ATTACKERS).permutation(len(self.test))
        if number >= len(order):
            raise UnfitError(f"{number + 1} rows are chosen and the test rows are {len(order)}; draw more rows")
        at = int(order[number])
        scores = self.scores(self._surrogate(0), self.test.x[at : at + 1])[0].copy()
        scores[self.test.y[at]] = -np.inf
        return at, int(scores.argmax())

    def _surrogate(self, i: int) -> nn.Module | Target[Tensor]:
        while len(self._surrogates) <= i:
            self._surrogates.append(self.fit(self.train, _ATTACKERS + self.seed(len(self._surrogates))))
        return self._surrogates[i]

    def backdoor(self, campaign: PoisonCampaign) -> Backdoor | None:
        """A backdoor's trigger and target; None where the goal is another."""
        match campaign.attacker.goal:
            case who.BackdoorGoal(backdoor=said):
                return Backdoor(trigger=trigger_of(said, self.bounds), target=target_of(said, self.classes))
        return None

    def stamped(self, campaign: PoisonCampaign) -> Victims | None:
        """The test rows with the trigger, and what the attacker wants of each; None where there is no trigger."""
        name, planted = campaign.attacker.name, self.backdoor(campaign)
        if planted is not None and name not in self._stamped:
            self._stamped[name] = planted.victims(self.test.x, self.test.y)
        return self._stamped.get(name)

    # -- certificate --------------------------------------------------------------------------------------

    @property
    def certificate_plan(self) -> Plan:
        """How rows are given to the certificate's models. Raises SettingError where the file asks for none."""
        said = self.model.poisoning.certify
        if said is None:
            raise SettingError("the threat model asks for no certificate; give poisoning.certify")
        against = Change.LABELS if said.counts is Counts.LABELS else Change.ROWS
        return Plan(parts=said.parts, copies=said.copies, against=against)

    @cached_property
    def pieces(self) -> Whole:
        """The piece that each clean training row belongs to, (N,): each row is hashed once."""
        return partition(self.train, self.certificate_plan.models, self.certificate_plan.against)


def _as_module(made: nn.Module | Target[Tensor]) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise UnfitError(f"system.training.call returns {type(made).__name__}, which has no gradients to craft with")
    return made


def _classes_of(model: ThreatModel) -> int:
    count = model.system.class_count
    if count is None:
        raise ThreatModelError("poisoning is measured for task: classification; this system has no classes")
    return count


def poison_digest(made: Poisoned) -> str:
    """sha256 of the list of changed rows and of what they are now."""
    whole = hashlib.sha256(made.changed.astype("<i8").tobytes())
    whole.update(np.ascontiguousarray(made.samples.x[made.changed]).tobytes())
    whole.update(np.ascontiguousarray(made.samples.y[made.changed]).tobytes())
    return whole.hexdigest()


def reason(error: Exception) -> str:
    """Why something failed, in one line."""
    return str(error) if isinstance(error, RedanError | UnfitError) else f"{type(error).__name__}: {error}"
