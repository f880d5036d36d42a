"""A run on a model behind calls: its ledger beside the evidence, and what it was asked in all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fsspec.implementations.local import LocalFileSystem
from torch import Tensor

from redan.errors import EvidenceError
from redan.evidence.folder import RunFolder
from redan.evidence.log import CallsLine
from redan.evidence.report import CallsPart
from redan.targets import Target, is_remote
from redan.threat.planner import Plan

LEDGER = "ledger.jsonl"
"""In the run folder: every request before it was sent, and its answer."""


@contextmanager
def ledgered(target: Target[Tensor], folder: RunFolder) -> Iterator[None]:
    """The calls of a remote target are written to the run folder, and those of a sitting that was killed are known.

    Raises EvidenceError where the folder is on no disk of this machine: a line must be there before a call is made.
    """
    if not is_remote(target):
        yield
        return
    if not isinstance(folder.files, LocalFileSystem):
        raise EvidenceError(
            f"{folder.url}: the ledger of an endpoint's calls must be on a disk of this machine; give a folder with "
            "--out or run.out, and copy it when the run is done"
        )
    target.ledger.attach(f"{folder.root}/{LEDGER}")
    try:
        yield
    finally:
        target.close()


def money(target: Target[Tensor], plan: Plan, *, resumed: bool) -> Callable[[], float] | None:
    """What a sitting's calls cost so far in US dollars: those of the preflight, the clean pass and the second
    measurement too. None for a model that is here.
    """
    if not is_remote(target):
        return None
    ledger, price = target.ledger, plan.price
    before = ledger.bill.rows * price if resumed else 0.0
    return lambda: ledger.bill.rows * price - before


def settled(target: Target[Tensor]) -> None:
    """All answers so far are in evidence that is on disk."""
    if is_remote(target):
        target.ledger.settle()


def calls_line(target: Target[Tensor], plan: Plan) -> list[CallsLine]:
    """What an endpoint was sent so far; nothing for a model that is here.

    The price of a request's row is that of the attackers' queries, the highest of them.
    """
    if not is_remote(target):
        return []
    bill = target.ledger.bill
    calls = CallsPart(
        sent=bill.sent,
        answered=bill.answered,
        refused=bill.refused,
        failed=dict(bill.failed),
        unknown=list(target.ledger.unknown),
        rows=bill.rows,
        replayed=bill.replayed,
        usd=bill.rows * plan.price or None,
        notes=list(target.notes),
    )
    return [CallsLine(calls=calls)]
