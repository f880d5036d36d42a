"""What goes into the run folder as it happens, and the second measurement of what was saved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from redan.engine.block import JUDGING_DRAWS, Job
from redan.engine.outcomes import Outcomes, Status
from redan.evidence.folder import RunFolder
from redan.oracle import evaluate, micro_batch, share
from redan.threat.schema import KeepInputs

LOG_VERSION = 1


@dataclass(frozen=True, slots=True)
class Recorder:
    """Writes one attacker's blocks to the run folder: first the inputs, then the rows that name them."""

    folder: RunFolder
    attacker: str
    number: int
    job: Job
    index: Sequence[int]  # position of each row in the data
    keep: KeepInputs

    def __call__(self, block: Outcomes) -> None:
        name = f"{self.number:02d}-{int(block.index[0]):06d}.safetensors"
        broken = block.status == Status.BROKEN
        saved = broken & torch.isfinite(block.distance) & (block.distance > 0)
        if self.keep is KeepInputs.ALL:
            saved = torch.ones_like(saved)
        place = saved.cumsum(0) - 1
        sha = self.folder.save_inputs(name, {"x": block.x[saved], "index": block.index[saved]})
        names = [attack for attack, _ in self.job.attacks]
        rows = []
        for i, at in enumerate(block.index.tolist()):
            by, distance = int(block.by[i]), float(block.distance[i])
            rows.append(
                {
                    "event": "row",
                    "attacker": self.attacker,
                    "row": at,
                    "id": self.job.names[at],
                    "index": self.index[at],
                    "y": int(self.job.y[at]),
                    "answered": bool(block.answered[i]),
                    "right": bool(block.right[i]),
                    "status": Status(int(block.status[i])).name.lower(),
                    "by": names[by] if by >= 0 else None,
                    "distance": distance if math.isfinite(distance) else None,
                    "queries": int(block.queries[i]),
                    "forwards": int(block.forwards[i]),
                    "backwards": int(block.backwards[i]),
                    "blind": int(block.blind[i]),
                    "reason": block.reasons.get(at),
                    "saved": int(place[i]) if saved[i] else None,
                }
            )
        accounts = [account._asdict() for account in block.accounts]
        block_line = {"event": "block", "attacker": self.attacker, "inputs": name, "sha256": sha, "accounts": accounts}
        self.folder.append(*rows, block_line)


def remeasure(recorder: Recorder) -> None:
    """Read every saved input back, check its bytes, and ask the model again; the answers join the log.

    A row counts as broken only if its saved input lies in the attacker's set and reaches the goal again, and as
    robust only if its clean input does not.
    """
    rows: list[dict[str, Any]] = []
    for record in recorder.folder.records():
        if record.get("attacker") != recorder.attacker:
            continue
        if record["event"] == "row":
            rows.append(record)
        elif record["event"] == "block":
            recorder.folder.append(*_measured(recorder, record, rows))
            rows = []


def _measured(recorder: Recorder, block: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    job = recorder.job
    at = torch.tensor([row["row"] for row in rows])
    x0, y = job.x[at], job.y[at]
    x = x0.clone()
    saved = recorder.folder.load_inputs(block["inputs"], block["sha256"])["x"].to(x0)
    for i, row in enumerate(rows):
        if row["saved"] is not None:
            x[i] = saved[row["saved"]]
    clean = evaluate(job.target, x0, micro=micro_batch(x0))
    goal = job.aim.about(y, clean.output, at)
    inside = job.within.inside(job.target.bounds).take(at).contains(x, x0)
    draws = JUDGING_DRAWS if job.target.stochastic else 1
    often, failures = share(job.target, x, goal, draws, micro_batch(x0))
    for i, row in enumerate(rows):
        status, reason = _confirmed(row, bool(inside[i]), float(often[i]), failures.get(i), job.target.stochastic)
        yield {
            "event": "measured",
            "attacker": recorder.attacker,
            "row": row["row"],
            "status": status,
            "share": float(often[i]),
            "reason": reason,
        }
    if recorder.keep is KeepInputs.NONE:
        recorder.folder.remove_inputs(block["inputs"])


def _confirmed(
    row: dict[str, Any], inside: bool, often: float, failure: str | None, stochastic: bool
) -> tuple[str, str | None]:
    """A row's final status: what the log says, unless the second measurement disagrees."""
    status: str = row["status"]
    if failure is not None and status in ("broken", "robust"):
        return "error", f"measured again: {failure}"
    if status == "broken" and not inside:
        return "error", "measured again: the saved input lies outside the attacker's set"
    if status == "broken" and often == 0:
        return "error", "measured again: the saved input does not reach the goal"
    if status == "robust" and often > 0 and not stochastic:
        return "error", "measured again: the clean input gets another answer"
    return status, row["reason"]


def header(folder: RunFolder, **settings: Any) -> None:
    """The log's first line: everything that decides the run."""
    folder.append({"event": "run", "version": LOG_VERSION, "id": folder.id, **settings})
