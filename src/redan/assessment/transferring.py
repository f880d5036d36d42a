"""How far inputs carry over within an ensemble: what was saved is shown to every member, and to the whole.

No input is made for it: those are shown that an attack on the whole, or on a member alone, left in the run folder. They
were saved as soon as they broke their model, and so lie near its boundary: what carries over is a lower bound
(`redan.ensembles.between` attacks on, and carries over more).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from redan.answers import Answers, evaluate, micro_batch, share
from redan.assessment.session import Prepared, Session, bare_job_of, job_of
from redan.engine.block import JUDGING_DRAWS, Job, seeded
from redan.evidence.defended import shown
from redan.evidence.folder import RunFolder
from redan.evidence.inputs import inputs_of
from redan.evidence.log import RowLine
from redan.evidence.summary import Summary
from redan.evidence.transfers import WHOLE, TransferLine
from redan.goals import Task
from redan.threat.model import Ensemble
from redan.threat.planner import Campaign
from redan.threat.schema import KeepInputs

__all__ = ["measure_transfers", "transfers_again"]


def measure_transfers(session: Session, rows: int) -> None:
    """Show every white-box attacker's inputs of the first rows around; what was shown before is not shown again."""
    for campaign in session.ready.plan.campaigns:
        found = session.summary.evasions.get(campaign.attacker.name)
        if found is not None and found.transfer is None and _is_about(session.ready, campaign):
            if session.purse.hit:
                return
            session.write(_line(session.ready, session.folder, campaign, rows))


def transfers_again(ready: Prepared, folder: RunFolder, found: Summary) -> Iterator[str]:
    """What a second look at the saved inputs finds otherwise than the log says, a sentence each."""
    campaigns = {campaign.attacker.name: campaign for campaign in ready.plan.campaigns}
    for name, evasion in found.evasions.items():
        line, campaign = evasion.transfer, campaigns.get(name)
        if line is None:
            continue
        if campaign is None or not _is_about(ready, campaign):
            yield f"{name}: the log has inputs shown between models, and the threat model has no ensemble for them"
        elif line.reason is None and _line(ready, folder, campaign, found.taken()) != line:
            yield f"{name}: inputs that were shown between the ensemble's models meet another fate"


def _is_about(ready: Prepared, campaign: Campaign) -> bool:
    """Whether an attacker sees the members of an ensemble, which has classes to be wrong about."""
    several = isinstance(ready.loaded.model.system.model, Ensemble)
    return several and campaign.within is not None and campaign.sees == "gradients" and ready.built.task is Task.CLASS


class _Model(NamedTuple):
    """A model with its job on all rows taken, and what it answers them. saved: the input of each row that broke it."""

    name: str
    job: Job
    clean: Answers
    saved: dict[int, Tensor]

    @property
    def right(self) -> Tensor:
        """Which rows it has right: (N,) bool."""
        everyone = torch.arange(len(self.job.x), device=self.job.x.device)
        goal = self.job.aim.about(self.job.y, self.clean.output, everyone)
        return self.clean.answered & goal.right(self.clean.output)


def _line(ready: Prepared, folder: RunFolder, campaign: Campaign, rows: int) -> TransferLine:
    everyone = range(rows)
    members = [bare for bare in ready.built.bare if bare.member]
    names = [WHOLE, *(bare.name for bare in members)]
    if ready.loaded.model.run.keep_inputs is KeepInputs.NONE:
        why = "run.keep_inputs is none, so there are no inputs to show; say broken or all"
        return TransferLine(attacker=campaign.attacker.name, names=names, shown=[], broken=[], reason=why)
    saved = _saved(folder, campaign.attacker.name, rows, [shown(bare.name) for bare in ready.built.bare])
    jobs = [job_of(ready, campaign, everyone), *(bare_job_of(ready, campaign, bare, everyone) for bare in members)]
    found = zip(names, jobs, (None, *names[1:]), strict=True)
    models = [_Model(name, job, _clean(job), saved.get(key, {})) for name, job, key in found]
    right = [model.right for model in models]
    counts = [
        [_carried(one, other, right[i] & right[j]) for j, other in enumerate(models)] for i, one in enumerate(models)
    ]
    return TransferLine(
        attacker=campaign.attacker.name,
        names=names,
        shown=[[n for _, n in row] for row in counts],
        broken=[[k for k, _ in row] for row in counts],
    )


def _saved(folder: RunFolder, attacker: str, rows: int, handed: list[str]) -> dict[str | None, dict[int, Tensor]]:
    """By model (None: what is served), the input of each row that broke it; of several the last.

    handed: retries that show what was found on another model.
    """

    def broke(line: RowLine) -> bool:
        mine = line.attacker == attacker and line.row < rows and line.retry not in handed
        return mine and line.right and line.status == "broken"

    found: dict[str | None, dict[int, Tensor]] = {}
    for line, x in inputs_of(folder, broke):
        found.setdefault(line.beside, {})[line.row] = x
    return found


def _clean(job: Job) -> Answers:
    with seeded(job, job.seed), torch.inference_mode(False):
        return evaluate(job.target, job.x, micro=micro_batch(job.x))


def _carried(one: _Model, other: _Model, right: Tensor) -> tuple[int, int]:
    """Rows that break the other too, and rows that were shown to it."""
    rows = [row for row in sorted(one.saved) if bool(right[row])]
    if not rows:
        return 0, 0
    job, at = other.job, torch.tensor(rows, device=other.job.x.device)
    x = torch.stack([one.saved[row] for row in rows]).to(job.x)
    with seeded(job, job.seed), torch.inference_mode(False):
        goal = job.aim.about(job.y[at], other.clean.output[at], at)
        often, reasons = share(job.target, x, goal, JUDGING_DRAWS if job.target.stochastic else 1, micro_batch(x))
    return int((often >= 0.5).sum()), len(rows) - len(reasons)
