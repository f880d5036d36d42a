"""Rows of a run that are proven right all over an attacker's set, where the file requires certified accuracy.

The provers are those of `redan certify`. Only what is proven of the model as it is served counts, so nothing is
smoothed here. Certified rows are attacked like all others: a row that breaks all the same contradicts its proof, and
the report says so (`redan.evidence.certified_tally`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch

from redan.assessment.certifying_questions import Asked, Norm, check, named, prover_of, set_of
from redan.assessment.provers import Prover
from redan.assessment.session import Prepared, Session
from redan.engine.run import Progress
from redan.errors import NotCertifiableError
from redan.evidence.certified_lines import ProofsLine, ProvenLine, UnprovableLine
from redan.evidence.certified_tally import CertifiedTally, asked_for_proof
from redan.evidence.summary import Summary
from redan.goals import Task
from redan.runners.local import cores
from redan.threat.attackers import Evasion
from redan.threat.model import Http, Trees
from redan.threat.planner import Campaign
from redan.threat.schema import ThreatModel

__all__ = ["Claim", "Proving", "certify_rows", "claim_of", "foreseen", "proofs_again", "proving", "row_lines"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is to be proven of rows: right, and right all over the ball of this radius."""

    norm: Norm
    radius: float
    prover: Prover


def claim_of(ready: Prepared, campaign: Campaign, workers: int) -> Claim:
    """What is to be proven against an attacker. Raises NotCertifiableError where nothing can be."""
    found = set_of(campaign.attacker.change) if isinstance(campaign.attacker, Evasion) else None
    if found is None:
        raise NotCertifiableError(
            "changes in linf and l2 can be certified, and this attacker's are others; require robust_accuracy"
        )
    if ready.built.task is not Task.CLASS:
        raise NotCertifiableError("certificates are of one class a row, and this task has none; require other metrics")
    asked, (norm, radius) = Asked(workers=workers), found
    check(ready.loaded.model, asked)
    return Claim(norm=norm, radius=radius, prover=prover_of(ready, asked, ready.built.x, norm))


def row_lines(ready: Prepared, attacker: str, claim: Claim, rows: list[int]) -> list[ProofsLine | ProvenLine]:
    """What is proven of some rows, as the log has it. Raises NotCertifiableError where nothing can be."""
    start, at = time.monotonic(), torch.tensor(rows, dtype=torch.int64)
    built, verifier = ready.built, claim.prover.verifier
    found = claim.prover(built.x[at], built.y[at], (claim.radius,))
    head = ProofsLine(
        attacker=attacker,
        norm=named(claim.norm),
        radius=claim.radius,
        completeness=verifier.completeness.value,
        certainty=verifier.certainty.value,
        verifier=str(verifier),
        seconds=round(time.monotonic() - start, 3),
    )
    columns = zip(rows, found.right[0].tolist(), found.certified[0].tolist(), found.broken[0].tolist(), strict=True)
    return [
        head,
        *(
            ProvenLine(attacker=attacker, row=row, id=ready.names[row], right=right, certified=certified, broken=broken)
            for row, right, certified, broken in columns
        ),
    ]


def certify_rows(session: Session, rows: range) -> None:
    """Prove what can be of those rows that were not tried yet, against each attacker of whom a requirement asks it."""
    for campaign in session.ready.plan.campaigns:
        found = session.summary.evasions.get(campaign.attacker.name)
        tally = None if found is None else found.proofs
        if tally is not None and tally.pending(rows):
            _certified(session, campaign, tally, tally.pending(rows))


def _certified(session: Session, campaign: Campaign, tally: CertifiedTally, pending: list[int]) -> None:
    """A few rows at a time: a proof may take seconds, and one that is written is not made again."""
    attacker, many = campaign.attacker.name, session.workers or cores()
    size = max(8, 2 * many)
    try:
        claim = claim_of(session.ready, campaign, session.workers)
        for first in range(0, len(pending), size):
            part = pending[first : first + size]
            if not session.purse.pay(claim.prover.most((claim.radius,)) * len(part)):
                return
            session.write(*row_lines(session.ready, attacker, claim, part))
            done, total = len(tally.proven), len(session.ready.names)
            counts = f"{done:,} of {total:,} rows certified or not"
            session.tell(campaign, Progress(done / total, 0, done, total), "certified", counts)
    except NotCertifiableError as error:
        session.write(UnprovableLine(attacker=attacker, reason=f"nothing can be proven: {error}"))


# -- beforehand --------------------------------------------------------------------------------------------


def foreseen(model: ThreatModel) -> Iterator[str]:
    """For each attacker of whom a requirement asks it, how rows will be certified, as far as the file tells."""
    for attacker in model.attackers:
        if not asked_for_proof(model.requirements, attacker.name):
            continue
        match model.system.model:
            case Http():
                how = "an endpoint shows no layers, so nothing can be proven: the requirement stays inconclusive"
            case Trees():
                how = "rows are certified besides, by the exact search of trees: seconds a row, 60 at the most"
            case _:
                how = (
                    "rows are certified besides, by bounds of the model's layers: up to seconds a row, and one clean "
                    "answer; what has no bounds stays inconclusive"
                )
        yield f"certified_accuracy against {attacker.name}: {how}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Proving:
    """What the proofs against one attacker will take on all rows of an assessment, in seconds of the wall clock.

    pilot: rows that were tried.
    """

    attacker: str
    pilot: int
    rows: int
    seconds: float


def proving(ready: Prepared, most: int, workers: int) -> Iterator[Proving]:
    """Try to prove a few rows, evenly spread, for each attacker of whom a requirement asks it, and write nothing.

    Where nothing can be proven there is nothing to foretell.
    """
    for campaign in ready.plan.campaigns:
        attacker, rows = campaign.attacker.name, len(ready.names)
        if not campaign.attacks or not asked_for_proof(ready.loaded.model.requirements, attacker):
            continue
        tried = sorted({round(row) for row in torch.linspace(0, rows - 1, min(most, rows)).tolist()})
        start = time.monotonic()
        with suppress(NotCertifiableError):
            row_lines(ready, attacker, claim_of(ready, campaign, workers), tried)
            seconds = (time.monotonic() - start) * rows / len(tried)
            yield Proving(attacker=attacker, pilot=len(tried), rows=rows, seconds=seconds)


# -- afterwards --------------------------------------------------------------------------------------------


def proofs_again(ready: Prepared, found: Summary, workers: int = 0) -> Iterator[str | None]:
    """Each row of the log with a proof: what it says now in other words than then, None where it says the same.

    A row that was open and no longer is differs in nothing that was claimed: a search had more seconds.
    """
    campaigns = {campaign.attacker.name: campaign for campaign in ready.plan.campaigns}
    for attacker, evasion in found.evasions.items():
        tally = evasion.proofs
        if tally is None or not tally.proven:
            continue
        try:
            claim = claim_of(ready, campaigns[attacker], workers)
            lines = row_lines(ready, attacker, claim, sorted(tally.proven))
        except NotCertifiableError as error:
            yield f"{attacker}: {len(tally.proven)} rows have proofs, and now nothing can be proven: {error}"
            continue
        for line in lines:
            match line:
                case ProvenLine():
                    yield _differs(tally.proven[line.row], line)


def _differs(then: ProvenLine, now: ProvenLine) -> str | None:
    changes = {
        "right": then.right != now.right,
        "certified": then.certified and not now.certified,
        "broken": then.broken and not now.broken,
    }
    told = ", ".join(what for what, changed in changes.items() if changed)
    return f"row {then.row} ({then.id}) under {then.attacker}: what is proven of it changed: {told}" if told else None
