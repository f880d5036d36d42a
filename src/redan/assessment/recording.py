"""A block of rows on its way into the evidence: saved, read back, measured again, written down.

Nothing counts that was not measured from the disk: the inputs are saved first, their bytes read back and checked,
the model asked again, and only then a row gets its line.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redan.assessment.calls import settled
from redan.assessment.measuring import Measured, measure
from redan.assessment.session import Session
from redan.engine.block import Job
from redan.engine.outcomes import Outcomes, Status
from redan.engine.run import Progress, run
from redan.evidence.folder import RunFolder
from redan.evidence.log import BlockLine, Line, RowLine
from redan.threat.planner import Campaign
from redan.threat.schema import KeepInputs


@dataclass(frozen=True, slots=True)
class Recorder:
    """Writes one attacker's blocks to the run folder. rows: each job row's place in the order of the run.

    beside: the model that the job is about, where it is not the one that is served.
    """

    folder: RunFolder
    attacker: str
    job: Job
    rows: Sequence[int]
    index: Sequence[int]  # place of each job row in the data
    keep: KeepInputs
    eight_bit: bool
    retry: str | None = None
    beside: str | None = None

    def __call__(self, block: Outcomes) -> list[Line]:
        """The lines that were written."""
        name = self.folder.fresh()
        broken = block.status == Status.BROKEN
        kept = broken & torch.isfinite(block.distance) & (block.distance > 0)
        if self.keep is KeepInputs.ALL:
            kept = torch.ones_like(kept)
        file = f"{name}.safetensors"
        sha = self.folder.save_inputs(file, {"x": block.x[kept], "row": self._places(block)[kept]})
        x0 = self.job.x[block.index]
        x = x0.clone()
        x[kept] = self.folder.load_inputs(file, sha)["x"].to(x0)
        measured = measure(self.job, block.index, x, _said(block), self.eight_bit)
        forget = self.keep is KeepInputs.NONE
        head = BlockLine(
            attacker=self.attacker,
            inputs=None if forget else file,
            sha256=sha,
            seconds=dict(zip(block.names, block.seconds, strict=True)),
            crashed=block.crashed,
            beside=self.beside,
        )
        lines: list[Line] = [head, *self._lines(block, x, kept & (not forget), measured)]
        self.folder.append(*lines, name=name)
        settled(self.job.target)
        if forget:
            self.folder.remove_inputs(file)
        return lines

    def _places(self, block: Outcomes) -> Tensor:
        return torch.tensor([self.rows[at] for at in block.index.tolist()], dtype=torch.int64)

    def _lines(self, block: Outcomes, x: Tensor, kept: Tensor, measured: Sequence[Measured]) -> Iterator[RowLine]:
        place = kept.cumsum(0) - 1
        for i, at in enumerate(block.index.tolist()):
            by, failed, distance = int(block.by[i]), int(block.failed[i]), float(block.distance[i])
            again = measured[i]
            yield RowLine(
                attacker=self.attacker,
                row=self.rows[at],
                id=self.job.names[at],
                index=self.index[at],
                y=self.job.y[at].tolist(),
                answered=bool(block.answered[i]),
                right=bool(block.right[i]),
                status=again.status,
                share=again.share,
                by=block.names[by] if by >= 0 else None,
                failed=block.names[failed] if failed >= 0 else None,
                reason=again.reason or block.reasons.get(at),
                distance=distance if math.isfinite(distance) else None,
                near=again.near,
                before=again.before,
                after=again.after,
                eight_bit=again.eight_bit,
                spent={
                    name: tuple(int(each[i, a]) for each in (block.queries_by, block.forwards_by, block.backwards_by))
                    for a, name in enumerate(block.names)
                    if block.shown[i, a]
                },
                blind=int(block.blind[i]),
                input=input_digest(x[i]),
                saved=int(place[i]) if kept[i] else None,
                retry=self.retry,
                beside=self.beside,
            )


def recorded(
    session: Session,
    campaign: Campaign,
    job: Job,
    rows: Sequence[int],
    *,
    asked: Job | None = None,
    retry: str | None = None,
    beside: str | None = None,
    tell: Callable[[Progress], None] | None = None,
) -> Outcomes:
    """Run an attacker's job on these rows of the run, and write each block down as it ends.

    job: what saved inputs are judged by. asked: what is run, where it climbs something else. retry, beside: see
    `RowLine`. A model beside the served one is not asked about rounded inputs.
    """
    model = session.ready.loaded.model
    record = Recorder(
        folder=session.folder,
        attacker=campaign.attacker.name,
        job=job,
        rows=rows,
        index=[session.ready.built.index[row] for row in rows],
        keep=model.run.keep_inputs,
        eight_bit=session.summary.head.eight_bit and beside is None,
        retry=retry,
        beside=beside,
    )

    def done(block: Outcomes) -> None:
        session.summary.see(*record(block))

    return run(
        asked or job, workers=session.workers, block=model.run.block, purse=session.purse, done=done, progress=tell
    )


def input_digest(x: Tensor) -> str:
    """sha256 of one input's bytes."""
    return hashlib.sha256(x.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def _said(block: Outcomes) -> list[str]:
    return [Status(int(status)).name.lower() for status in block.status]
