"""What is served beside the model without it: every attacker on inputs attacks both, on the same rows.

What is found on the model without its defenses is then shown to what is served: the attack of one who does not know of
them, and a retry like any other, since a row that it breaks is broken. What a defense is worth is the difference that
is left against attacks that know it (`redan.evidence.gain`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from redan.assessment.recording import recorded
from redan.assessment.serving import Bare
from redan.assessment.session import Session, bare_job_of, job_of
from redan.engine.outcomes import Status
from redan.engine.run import Progress
from redan.evasion.given import Given
from redan.evidence.defended import shown
from redan.evidence.defended_tally import DefendedTally
from redan.evidence.log import AttackHead, RetriedLine, RetryLine
from redan.oracle import Capability
from redan.protocols import settings
from redan.threat.planner import Campaign

_STEP = 1024  # rows whose inputs are held in memory until they are shown


def compare_undefended(session: Session, rows: int) -> None:
    """Attack every model without what is served, and show what was found; rows that are done are not done again."""
    for campaign in session.ready.plan.campaigns:
        found = session.summary.evasions.get(campaign.attacker.name)
        for bare, tally in () if found is None else zip(session.ready.built.bare, found.beside, strict=True):
            _compared(session, campaign, bare, tally, rows)


def _compared(session: Session, campaign: Campaign, bare: Bare, tally: DefendedTally, rows: int) -> None:
    pending, attacker, name = tally.pending(rows), campaign.attacker.name, shown(bare.name)
    if pending and session.ready.built.target.stochastic:
        pending = list(range(rows))  # it draws for rows together: in a run that goes on, for the same ones
    if not pending or session.purse.hit:
        return
    attack = Given()
    begun = RetryLine(
        attacker=attacker,
        name=name,
        because=[f"the comparison with {bare.name}"],
        detail=f"inputs that were found on {bare.name} are shown to what is served",
        attack=AttackHead(name=name, settings=settings(attack), access="labels"),
    )
    session.write(begun)
    for first in range(0, len(pending), _STEP):
        if not session.purse.hit:
            _step(session, campaign, bare, tally, pending[first : first + _STEP])
    if not session.purse.hit:
        session.write(RetriedLine(attacker=attacker, name=name))


def _step(session: Session, campaign: Campaign, bare: Bare, tally: DefendedTally, pending: list[int]) -> None:
    """Some rows attacked on the model without its defenses, and what broke it shown to what is served."""
    job, tell = bare_job_of(session.ready, campaign, bare, pending), _told(session, campaign, tally)
    found = recorded(session, campaign, job, pending, beside=bare.name, tell=tell)
    broken = found.right & (found.status == Status.BROKEN)
    rows, name = [pending[at] for at in torch.nonzero(broken)[:, 0].tolist()], shown(bare.name)
    if not rows or session.purse.hit:
        return
    served = job_of(session.ready, campaign, rows)
    naive = replace(
        served, attacks=((name, Given()),), starts=found.x[broken], surrogates=None, capability=Capability()
    )
    recorded(session, campaign, served, rows, asked=naive, retry=name)


def _told(session: Session, campaign: Campaign, tally: DefendedTally) -> Callable[[Progress], None]:
    total, before, passes = len(session.summary.head.labels), tally.finished, tally.passes

    def tell(now: Progress) -> None:
        share = (before + now.settled) / max(1, total)
        whole = Progress(share, passes + now.passes, before + now.settled, total)
        session.tell(campaign, whole, f"attacked on {tally.beside}")

    return tell
