"""`certify`: how many rows of a threat-model file no attack can break, proven, whoever looks for one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path

from torch import Tensor

from redan.assessment.assess import inspect
from redan.assessment.certificates import Certified, CertifiedLine, Subject, judged, worst
from redan.assessment.certifying_questions import Asked, How, Question, check, notes, questions
from redan.assessment.preflight import refuse
from redan.assessment.provers import Proven, right_rows
from redan.certification.smoothing import Smoothing
from redan.certification.verifier import Completeness
from redan.engine.run import Progress
from redan.errors import NotCertifiableError, SettingError
from redan.evidence.report import IntervalPart
from redan.evidence.statistics import interval
from redan.goals import Task
from redan.runners.local import cores
from redan.threat.file import read
from redan.threat.schema import Auto, Family
from redan.threat.schema import Limits as OurLimits

__all__ = ["Certified", "How", "certify"]


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What is known of one question so far, a few rows at a time."""

    question: Question
    proven: list[Proven] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(each.right.shape[1] for each in self.proven)


def certify(
    threat_model: str | PathLike[str],
    *,
    method: How = How.AUTO,
    rows: int | None = None,
    radii: Sequence[float] = (),
    patches: Sequence[int] = (),
    smoothing: Smoothing | None = None,
    workers: int | None = None,
    trust_pickle: bool = False,
    watch: Callable[[str, Progress], None] | None = None,
) -> Certified:
    """Certified accuracy of the model that a threat-model file names, on the rows that it draws.

    Of each evasion attacker whose change is linf or l2: how many rows are right, and proven to be right all over the
    attacker's set? rows: the first so many of those drawn; None: all. radii: instead of the attackers', in units of the
    box. patches: sides of square patches in pixels, instead of attackers (PatchCleanser). smoothing: the noise, for
    method SMOOTHING, whose radii are L2: an L∞ attacker's is that of the L2 ball around the cube. workers: cores,
    instead of `run.workers`; 0 is all. watch is told for whom, and how far.

    An interrupt, and the file's limits of seconds, queries and US dollars, end it early: `stopped` says so, and what is
    known of the rows before is returned. Rows that were not reached never help to pass. Raises NotCertifiableError for
    a model of which the method can prove nothing, SettingError for settings that do not go together, and what
    `redan.assess` raises for the file, the model and the data.
    """
    loaded = read(Path(threat_model))
    model = loaded.model
    if rows is not None and rows < 1:
        raise SettingError(f"rows are 1 or more, got {rows}; leave them out for all that the file draws")
    said = model.run.workers
    asked = Asked(
        method=method,
        radii=tuple(radii),
        patches=tuple(patches),
        smoothing=smoothing,
        workers=workers if workers is not None else 0 if isinstance(said, Auto) else said,
    )
    check(model, asked)
    ready = inspect(threat_model, trust_pickle=trust_pickle)
    refuse(ready.findings)
    if ready.built.task is not Task.CLASS:
        raise NotCertifiableError("certificates are of one class a row, and this task has none; attack it instead")
    x, y = ready.built.x[:rows], ready.built.y[:rows]
    tallies = [_Tally(question=each) for each in questions(ready, asked, x)]
    stopped = _worked(tallies, x, y, model.limits, ready.plan.price, asked, watch)
    alpha = None if smoothing is None else smoothing.alpha
    confidence = model.statistics.confidence
    lines = [line for tally in tallies for line in _lines(tally, asked.subject, alpha, confidence)]
    family = model.statistics.family is Family.HOLM
    rulings = judged(model.requirements, lines, len(x), confidence, family=family)
    seen = tallies[0].rows
    served = None if asked.subject is Subject.SERVED else right_rows(ready.built.target, x[:seen], y[:seen])
    return Certified(
        model=model.system.name,
        subject=asked.subject,
        sigma=None if smoothing is None else smoothing.sigma,
        rows=len(x),
        confidence=confidence,
        served_right=None if served is None else int(served.sum()),
        lines=lines,
        requirements=rulings,
        verdict=worst([ruling.verdict for ruling in rulings]),
        stopped=stopped,
        notes=list(notes(model, asked, [tally.question for tally in tallies])),
    )


def _worked(
    tallies: Sequence[_Tally],
    x: Tensor,
    y: Tensor,
    limits: OurLimits,
    price: float,
    asked: Asked,
    watch: Callable[[str, Progress], None] | None,
) -> str | None:
    """Rows a few at a time, all questions about each; why it ended early, if it did."""
    start, spent, many = time.monotonic(), 0, asked.workers or cores()
    size = max(8, 2 * many) if asked.smoothing is None else 32 * many  # draws are asked in batches, proofs row by row
    most = max(1, sum(tally.question.most for tally in tallies))
    try:
        for first in range(0, len(x), size):
            part = slice(first, first + size)
            if limits.seconds is not None and time.monotonic() - start > limits.seconds:
                return "limits.seconds"
            if limits.queries is not None and spent + most * len(y[part]) > limits.queries:
                return "limits.queries"
            if limits.usd is not None and (spent + most * len(y[part])) * price > limits.usd:
                return "limits.usd"
            found = [tally.question.prover(x[part], y[part], tally.question.radii) for tally in tallies]
            spent += max(len(y[part]), sum(sum(each.asked) for each in found))
            for tally, each in zip(tallies, found, strict=True):
                tally.proven.append(each)
                if watch is not None:
                    name = ", ".join(tally.question.attackers) or tally.question.norm
                    watch(name, Progress(tally.rows / len(x), 0, tally.rows, len(x)))
    except KeyboardInterrupt:
        return "interrupted"
    return None


def _lines(tally: _Tally, about: Subject, alpha: float | None, confidence: float) -> Iterator[CertifiedLine]:
    """What is known at each radius."""
    question, n = tally.question, tally.rows
    for at, (radius, covers) in enumerate(zip(question.radii, question.covers, strict=True)):
        k = sum(int(each.certified[at].sum()) for each in tally.proven)
        broken = sum(int(each.broken[at].sum()) for each in tally.proven)
        found, verifier = interval(k, n, confidence), question.prover.verifier
        if verifier.completeness is Completeness.COMPLETE and k + broken < n:  # a search ran out of time, or into a tie
            verifier = replace(verifier, completeness=Completeness.INCOMPLETE)
        yield CertifiedLine(
            attackers=list(question.attackers),
            norm=question.norm,
            radius=radius,
            covers=list(covers),
            subject=about,
            k=k,
            n=n,
            interval=IntervalPart(
                low=found.low, high=found.high, confidence=confidence, method=found.method, sides=found.sides
            ),
            right=sum(int(each.right[at].sum()) for each in tally.proven),
            open=n - k - broken,
            completeness=verifier.completeness.value,
            certainty=verifier.certainty.value,
            verifier=str(verifier),
            alpha=alpha,
            samples=None if alpha is None or not n else sum(each.asked[at] for each in tally.proven) / n,
            seconds=round(sum(each.seconds[at] for each in tally.proven), 3),
        )
