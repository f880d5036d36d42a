"""A run folder checked again: the saved inputs' bytes, the model's answers to them, the report that follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike

import torch
from torch import Tensor

from redan.assessment.assess import read_run
from redan.assessment.certified import proofs_again
from redan.assessment.measuring import measure
from redan.assessment.opening import changed_since
from redan.assessment.recording import input_digest
from redan.assessment.replay_copies import copies_again
from redan.assessment.replay_poison import victims_again
from redan.assessment.session import Prepared, bare_job_of, job_of
from redan.assessment.transferring import transfers_again
from redan.engine.block import Job
from redan.errors import EvidenceError
from redan.evidence.folder import REPORT, RunFolder
from redan.evidence.log import BlockLine, RowLine
from redan.evidence.report import Report
from redan.evidence.summary import summary
from redan.runners.local import one_thread_each
from redan.threat.planner import Campaign

_CLOSE = 1e-4  # relative: another machine's kernels round otherwise


@dataclass(frozen=True, slots=True)
class Replay:
    """What a second look found.

    rows: rows looked at; agreed: whose saved input has the logged bytes and meets the same fate; kept: rows whose
    input is there to be asked about. differences: one sentence each.
    """

    rows: int
    kept: int
    agreed: int
    differences: tuple[str, ...]
    victims: int = 0
    """Trained victims (and the certificate) whose saved answers were counted again, or who were trained again."""
    copies: int = 0
    """Stolen copies (and attacks without one) whose saved answers were counted again, or that were made again."""
    proofs: int = 0
    """Rows that were proven again, or not."""

    @property
    def exit_code(self) -> int:
        """0 all agrees, 1 something does not, 3 there was nothing to look at."""
        return 1 if self.differences else 0 if self.kept or self.victims or self.copies or self.proofs else 3


def replay(
    run: str | PathLike[str],
    threat_model: str | PathLike[str],
    *,
    trust_pickle: bool = False,
    watch: Callable[[int, int], None] | None = None,
) -> Replay:
    """Ask the model of a threat-model file again about a run's saved inputs, and recompute its report.

    run: the run folder or its URL; it is evidence and not trusted: nothing in it is executed, and the model comes
    from the threat model that the caller names (a pickled one only with trust_pickle). watch(rows looked at, rows in
    the log). Raises EvidenceError for a folder that holds no evidence; what merely disagrees is told in the result.
    """
    folder = RunFolder.open(str(run))
    found = summary(folder.lines())
    ready = read_run(threat_model, found.head, trust_pickle=trust_pickle)
    differences = [f"{what} changed since the run" for what in changed_since(found.head, ready.digests)]
    differences += _report_differs(folder, found.report(folder.url))
    total = sum(int(tally.seen.sum()) for tally in found.tallies.values())
    rows = kept = agreed = 0
    if len(ready.names) < len(found.head.labels):
        raise EvidenceError(
            "the threat model draws fewer rows than the run has; give the file that the run was made of"
        )
    campaigns = {campaign.attacker.name: campaign for campaign in ready.plan.campaigns}
    with one_thread_each():
        for segment in folder.segments():
            lines = list(folder.segment(segment))
            if not lines or not isinstance(lines[0], BlockLine):
                continue
            block, mine = lines[0], [line for line in lines if isinstance(line, RowLine)]
            campaign = campaigns.get(block.attacker)
            if campaign is None or campaign.within is None:
                raise EvidenceError(f"the threat model has no attacker '{block.attacker}'; give the run's own file")
            rows += len(mine)
            try:
                there, odd = _looked(ready, campaign, folder, block, mine)
                kept += there
                agreed += there - len(odd)
                differences += odd
            except EvidenceError as error:
                differences.append(str(error))
            if watch is not None:
                watch(rows, total)
    differences += transfers_again(ready, folder, found)
    checked = list(victims_again(ready, folder, found))
    copied = list(copies_again(ready, folder, found))
    proven = list(proofs_again(ready, found))
    differences += [each for each in (*checked, *copied, *proven) if each is not None]
    return Replay(rows, kept, agreed, tuple(differences), len(checked), len(copied), len(proven))


def _report_differs(folder: RunFolder, again: Report) -> Iterator[str]:
    """Whether report.json is what follows from the log."""
    if not folder.has(REPORT):
        yield "there is no report.json: the run was broken off, or its report was taken away"
        return
    try:
        written = Report.model_validate_json(folder.read(REPORT))
    except ValueError:
        yield "report.json is no report that this redan can read"
        return
    here = {"folder": again.run.folder}  # a folder may be moved
    if written.model_copy(update={"run": written.run.model_copy(update=here)}) != again:
        yield "report.json is not what follows from the log"


def _looked(
    ready: Prepared, campaign: Campaign, folder: RunFolder, block: BlockLine, lines: Sequence[RowLine]
) -> tuple[int, list[str]]:
    """How many rows' inputs are there, and what disagrees, a sentence a row."""
    job, x, there = _again(ready, campaign, folder, block, lines)
    index = torch.arange(len(lines), device=job.x.device)[there]
    kept = [line for line, here in zip(lines, there.tolist(), strict=True) if here]
    eight_bit = any(line.eight_bit is not None for line in kept)
    measured = measure(job, index, x[there], [line.status for line in kept], eight_bit)
    odd = []
    for line, again, row in zip(kept, measured, x[there], strict=True):
        if input_digest(row) != line.input:
            odd.append(f"row {line.row} ({line.id}): the saved input's bytes are not those that were logged")
        elif again.status != line.status:
            odd.append(f"row {line.row} ({line.id}): was {line.status}, now {again.reason}")
        elif not _close(again.near, line.near) or again.eight_bit != line.eight_bit:
            odd.append(f"row {line.row} ({line.id}): its nearest or its rounded input meets another fate")
    return len(kept), odd


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= _CLOSE * max(abs(one), abs(other)) + 1e-9


def _again(
    ready: Prepared, campaign: Campaign, folder: RunFolder, block: BlockLine, lines: Sequence[RowLine]
) -> tuple[Job, Tensor, Tensor]:
    """The block's rows as they were worked on, their saved inputs, and for which rows those are there."""
    rows = [line.row for line in lines]
    bare = next((each for each in ready.built.bare if each.name == block.beside), None)
    if block.beside is not None and bare is None:
        raise EvidenceError(f"the threat model serves nothing beside '{block.beside}'; give the run's own file")
    job = job_of(ready, campaign, rows) if bare is None else bare_job_of(ready, campaign, bare, rows)
    x = job.x.clone()
    clean = torch.tensor([input_digest(row) == line.input for row, line in zip(x, lines, strict=True)])
    places = [line.saved for line in lines]
    saved = torch.tensor([place is not None for place in places])
    if block.inputs is not None and bool(saved.any()):
        inputs = folder.load_inputs(block.inputs, block.sha256)["x"].to(x)
        if max(place for place in places if place is not None) >= len(inputs) or inputs.shape[1:] != x.shape[1:]:
            raise EvidenceError(f"{folder.url}/inputs/{block.inputs} does not hold the rows that the log says")
        x[saved] = inputs[[place for place in places if place is not None]]
    return job, x, (saved | clean).to(x.device)
