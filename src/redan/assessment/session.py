"""One sitting of an assessment: what it works on, what it may spend, and whom it tells how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from redan.assessment.build import Built
from redan.assessment.extraction_scene import Ground
from redan.assessment.meeting import evened, lent_to, wanted
from redan.assessment.opening import digests
from redan.assessment.preflight import Finding
from redan.assessment.serving import Bare
from redan.assessment.workshop import Workshop
from redan.engine.block import Job
from redan.engine.run import Progress
from redan.errors import SettingError
from redan.evidence.folder import RunFolder, digest
from redan.evidence.log import Line
from redan.evidence.summary import Summary
from redan.oracle import Purse
from redan.robustness import Mode, eot_of
from redan.threat.file import Loaded
from redan.threat.planner import Campaign, Plan


@dataclass(frozen=True, slots=True)
class Stage:
    """What an assessment is doing: which attacker, of how many, how far, and where its evidence is."""

    attacker: str
    number: int
    of: int
    progress: Progress
    folder: str
    doing: str | None = None
    """None for its attacks; else that they are examined, which retry is tried, or what models are trained on."""
    counts: str | None = None
    """What is counted, in words: models, answers; None: rows of an attack."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that is known before the first attack: the file, the plan, the target, the rows, the preflight."""

    loaded: Loaded
    plan: Plan
    built: Built
    names: tuple[str, ...]
    findings: tuple[Finding, ...]
    shop: Workshop | None = None
    """Where victims are trained; None where nobody poisons."""
    grounds: Mapping[str, Ground] = field(default_factory=dict)
    """What extraction attackers have, by their names."""

    @property
    def digests(self) -> dict[str, str | None]:
        """sha256 of everything that decides the run."""
        found = digests(self.loaded, self.built, self.names)
        if self.shop is not None:
            found["training"] = self.shop.digest_of_training
        if self.grounds:
            found["extraction"] = digest("\n".join(each.digest for each in self.grounds.values()).encode())
        return found


@dataclass(frozen=True, slots=True)
class Session:
    """One sitting of a run: what it works on, what it may spend, and all that is known so far."""

    ready: Prepared
    folder: RunFolder
    summary: Summary
    purse: Purse
    workers: int
    watch: Callable[[Stage], None] | None

    def tell(self, campaign: Campaign, now: Progress, doing: str | None = None, counts: str | None = None) -> None:
        """Tell the caller how far one attacker is; see `Stage`."""
        if self.watch is not None:
            name, names = campaign.attacker.name, list(self.summary.tallies)
            self.watch(Stage(name, names.index(name) + 1, len(names), now, self.folder.url, doing, counts))

    def write(self, *lines: Line) -> None:
        """Write lines to the log, and count them."""
        self.folder.append(*lines)
        self.summary.see(*lines)


def job_of(ready: Prepared, campaign: Campaign, rows: Sequence[int]) -> Job:
    """One attacker's attacks on some of the rows. Raises SettingError for an attacker who is not built yet."""
    target, job = ready.built.target, _plain(ready, campaign, rows)
    even = evened(target) if campaign.leveled else None
    return replace(
        job,
        attacks=campaign.served,
        aim=wanted(target, campaign.aim),
        surrogates=lent_to(target, job.surrogates),
        instead={} if even is None else {name: even for name, _ in campaign.leveled},
    )


def bare_job_of(ready: Prepared, campaign: Campaign, bare: Bare, rows: Sequence[int]) -> Job:
    """The same attacker on a model without what is served: their plain attacks and goal. Raises like `job_of`."""
    return replace(_plain(ready, campaign, rows), target=bare.target)


def _plain(ready: Prepared, campaign: Campaign, rows: Sequence[int]) -> Job:
    """An attacker who knows of nothing that is served with the model."""
    if campaign.within is None:
        raise SettingError(f"{campaign.attacker.name}: {campaign.reason}")
    built, here = ready.built, torch.tensor(rows, device=ready.built.x.device, dtype=torch.int64)
    return Job(
        target=built.target,
        x=built.x[here],
        y=built.y[here],
        names=[ready.names[row] for row in rows],
        attacks=campaign.attacks,
        within=campaign.within,
        aim=campaign.aim,
        knowledge=campaign.knowledge,
        surrogates=built.surrogates.get(campaign.attacker.name),
        capability=campaign.capability,
        seed=ready.loaded.model.statistics.seed,
        eot=eot_of(Mode(ready.loaded.model.attacks.mode.value), ready.loaded.model.attacks.eot),
        contain=True,
    )


def told(session: Session, campaign: Campaign, pending: Sequence[int]) -> Callable[[Progress], None] | None:
    """Tells the caller how far one attacker is, rows that were finished before included. pending: those to come."""
    if session.watch is None:
        return None
    tally, total = session.summary.tallies[campaign.attacker.name], len(session.summary.head.labels)
    before, passes = int(tally.finished.sum() - tally.finished[list(pending)].sum()), tally.passes

    def tell(now: Progress) -> None:
        share = (before + now.share * len(pending)) / max(1, total)
        session.tell(campaign, Progress(share, passes + now.passes, before + now.settled, total))

    tell(Progress(0.0, 0, 0, len(pending)))
    return tell
