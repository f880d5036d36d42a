"""Whether a finished run can be trusted, and what is tried again where it cannot.

When all of a white-box attacker's rows are done, thirteen indicators of a failing attack are looked at on some of them
(`redan.assessment.indicators`). What is suspicious stands in the evidence, makes a pass impossible, and calls for
retries on every row that still counts (`redan.assessment.retries`): one that stands, or that a stochastic model answers
rightly now and then. A row that a retry breaks is recorded like any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from redan.assessment.examinee import Examinee
from redan.assessment.indicators import examine
from redan.assessment.recording import recorded
from redan.assessment.retries import RETRIES, Retry
from redan.assessment.session import Session, job_of
from redan.engine.run import Progress
from redan.errors import BrokenOffError
from redan.evidence.log import AttackHead, ExaminedLine, RetriedLine, RetryLine
from redan.evidence.report import Doubt, Verdict
from redan.evidence.requirement import Metric
from redan.protocols import Access, is_ball, needs, settings
from redan.robustness import Mode
from redan.threat.planner import Campaign

_MIXED, _STANDING = 48, 64  # rows looked at: of any fate, and of those that stand


def distrust(session: Session, rows: int) -> None:
    """Examine every white-box attacker's run over the first `rows` rows, and retry what looks suspicious.

    What was examined or retried before, in a run that goes on, is not done again. Where every requirement against an
    attacker is failed already nothing is examined: attacks that were too weak hide more failure, and no success.
    """
    for campaign in session.ready.plan.campaigns:
        if campaign.attacker.name in session.summary.tallies and examinable(campaign):
            if _is_open(session, campaign, rows):
                _examined(session, campaign, rows)
            _retried(session, campaign, rows)


def examinable(campaign: Campaign) -> bool:
    """Whether an attacker climbs the model's own gradients: of others the indicators say nothing."""
    climbs = any(needs(attack).access == Access.GRADIENTS for _, attack in campaign.attacks)
    within = campaign.within
    return climbs and within is not None and is_ball(within) and campaign.sees == "gradients"


def _is_open(session: Session, campaign: Campaign, rows: int) -> bool:
    """Whether anything rests on an attacker's rows still: a requirement that is not failed, or none at all."""
    named = (None, campaign.attacker.name)
    report = session.summary.report(session.folder.url, rows)
    about = [
        part
        for part in report.requirements
        if part.metric.needs_attacker and part.metric is not Metric.CERTIFIED_ACCURACY and part.against in named
    ]
    return not about or any(part.verdict is not Verdict.FAIL for part in about)


def _examined(session: Session, campaign: Campaign, rows: int) -> None:
    tally = session.summary.tallies[campaign.attacker.name]
    standing = tally.standing(rows)
    right = [row for row, is_right in tally.right(rows) if is_right]
    if tally.examined is not None or not standing or session.purse.hit:
        return
    mixed, stood = right[:_MIXED], standing[:_STANDING]
    looked = sorted({*mixed, *stood})
    job, place = job_of(session.ready, campaign, looked), {row: at for at, row in enumerate(looked)}
    start = time.monotonic()
    examinee = Examinee(
        job=job,
        mixed=torch.tensor([place[row] for row in mixed], device=job.x.device),
        standing=torch.tensor([place[row] for row in stood], device=job.x.device),
        worth=len(standing) / len(stood) / rows,
        purse=session.purse,
        workers=session.workers,
    )
    tell = _told(session, campaign, "examined", len(looked))
    try:
        found = examine(examinee, lambda share: tell(Progress(share, examinee.forwards + examinee.backwards, 0, 0)))
    except BrokenOffError:
        return  # a run that our limits ended is not examined, and passes nothing
    session.write(
        ExaminedLine(
            attacker=campaign.attacker.name,
            indications=found,
            forwards=examinee.forwards,
            backwards=examinee.backwards,
            seconds=round(time.monotonic() - start, 3),
        ),
    )


def _raised(session: Session, campaign: Campaign, rows: int) -> list[str]:
    """What is suspicious about an attacker's run, by name."""
    report = session.summary.report(session.folder.url, rows)
    (part,) = [each for each in report.attackers if each.name == campaign.attacker.name]
    return list(dict.fromkeys(each.name for each in part.diagnosis if each.status is Doubt.SUSPICIOUS))


def _retried(session: Session, campaign: Campaign, rows: int) -> None:
    tally = session.summary.tallies[campaign.attacker.name]
    if tally.examined is None:
        return
    raised = _raised(session, campaign, rows)
    for retry in RETRIES:
        because = retry.because(raised)
        if because and not session.purse.hit and not tally.is_retried(retry.name):
            _retry(session, campaign, rows, retry, because)


def _retry(session: Session, campaign: Campaign, rows: int, retry: Retry, because: Sequence[str]) -> None:
    """One retry on the rows that still count and did not meet it yet."""
    attacker, model = campaign.attacker.name, session.ready.loaded.model
    tally = session.summary.tallies[attacker]
    right = [row for row, is_right in tally.right(rows) if is_right][:_STANDING]
    pending = tally.open_to(retry.name, rows)
    if not pending:
        return
    job = job_of(session.ready, campaign, pending)
    adapted = retry.adapt(job, job_of(session.ready, campaign, right).x, Mode(model.attacks.mode.value))
    attack = None
    if adapted.job is not None:
        ((_, value),) = adapted.job.attacks
        adapted = adapted._replace(job=replace(adapted.job, attacks=((retry.name, value),)))
        attack = AttackHead(name=retry.name, settings=settings(value), access=_WORDS[needs(value).access])
    session.write(
        RetryLine(attacker=attacker, name=retry.name, because=list(because), detail=adapted.detail, attack=attack),
    )
    if adapted.job is None:
        return
    tell = _told(session, campaign, retry.name, len(pending))
    recorded(session, campaign, job, pending, asked=adapted.job, retry=retry.name, tell=tell)
    if not session.purse.hit:
        session.write(RetriedLine(attacker=attacker, name=retry.name))


_WORDS = {Access.LABELS: "labels", Access.SCORES: "scores", Access.GRADIENTS: "gradients"}


def _told(session: Session, campaign: Campaign, doing: str, rows: int) -> Callable[[Progress], None]:
    return lambda now: session.tell(campaign, replace(now, rows=now.rows or rows), doing)
