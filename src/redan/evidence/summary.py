"""From the log to the report: everything that `report.json` says follows from the lines of the log."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from redan.errors import EvidenceError
from redan.evidence.certified_lines import ProofsLine, ProvenLine, UnprovableLine
from redan.evidence.detected import Refusals, over_rate
from redan.evidence.evasion_tally import EvasionTally, strength
from redan.evidence.extracted import ExtractionPart, ExtractorPart
from redan.evidence.extraction_lines import CopyLine, DirectLine
from redan.evidence.extraction_tally import ExtractionTally
from redan.evidence.folder import RunFolder
from redan.evidence.log import (
    AttackerHead,
    BlockLine,
    CallsLine,
    EndedLine,
    ExaminedLine,
    Line,
    ResumedLine,
    RetriedLine,
    RetryLine,
    RowLine,
    RunLine,
)
from redan.evidence.poison_lines import CertifiedLine, InspectedLine, VictimLine, VotesLine
from redan.evidence.poison_tally import PoisonTally, plain
from redan.evidence.poisoned import PoisonerPart, PoisoningPart
from redan.evidence.report import AttackerPart, CallsPart, Diagnosis, Doubt, Report, RunPart, Verdict
from redan.evidence.risk import ranked
from redan.evidence.shows_not import shows_not
from redan.evidence.standing import standing
from redan.evidence.transfers import TransferLine
from redan.evidence.verdict import judge


class Summary:
    """A run so far, line by line."""

    def __init__(self, head: RunLine) -> None:
        self.head = head
        self.evasions = {
            each.name: EvasionTally(each, head)
            for each in head.attackers
            if each.status == "assessed" and each.poisoning is None and each.extraction is None
        }
        self.tallies = {name: each.rows for name, each in self.evasions.items()}
        """The rows of attackers who change inputs, by their names."""
        self.refusals = None if head.detector is None else Refusals(head.detector, len(head.labels), len(head.classes))
        self.poisons = {
            each.name: PoisonTally(each, each.poisoning, head.requirements)
            for each in head.attackers
            if each.status == "assessed" and each.poisoning is not None
        }
        self.extractions = {
            each.name: ExtractionTally(each, each.extraction)
            for each in head.attackers
            if each.status == "assessed" and each.extraction is not None
        }
        self.clean: dict[int, VictimLine] = {}
        """Victims of clean rows, by number."""
        self.votes: dict[int, VotesLine] = {}
        self.certified: CertifiedLine | None = None
        self.ended: EndedLine | None = None
        self.calls: CallsPart | None = None
        self._seconds = 0.0

    def see(self, *lines: Line) -> None:
        """Count some lines more."""
        for line in lines:
            match line:
                case RowLine():
                    self._evasion(line.attacker).see(line)
                    if self.refusals is not None and line.beside is None:
                        self.refusals.see(line.row, line.before)
                case BlockLine() | ExaminedLine() | RetryLine() | RetriedLine() | TransferLine():
                    self._evasion(line.attacker).see(line)
                case ProofsLine() | ProvenLine() | UnprovableLine():
                    self._evasion(line.attacker).see(line)
                case VictimLine(attacker=None):
                    self._clean_victim(line)
                case VictimLine(attacker=str(name)) | InspectedLine(attacker=name):
                    self._poison(name).see(line)
                case CopyLine() | DirectLine():
                    self._extraction(line.attacker).see(line)
                case VotesLine():
                    self.votes[line.model] = line
                case CertifiedLine():
                    self.certified = line
                case CallsLine():
                    self.calls = line.calls
                case EndedLine():
                    self.ended = line
                    self._seconds += line.seconds
                case ResumedLine():
                    self.ended = None
                case RunLine():
                    raise EvidenceError("the log begins twice; the evidence was changed, run again")

    def _evasion(self, attacker: str) -> EvasionTally:
        if attacker not in self.evasions:
            raise EvidenceError(f"the log has rows of '{attacker}', who is no attacker of the run; it was changed")
        return self.evasions[attacker]

    def _clean_victim(self, line: VictimLine) -> None:
        if not 0 <= line.number < max((each.about.clean for each in self.poisons.values()), default=0):
            raise EvidenceError(
                f"the log has a victim {line.number} of clean rows that is not of the run; it was changed"
            )
        self.clean[line.number] = line

    def _poison(self, attacker: str) -> PoisonTally:
        if attacker not in self.poisons:
            raise EvidenceError(f"the log has victims of '{attacker}', who is no attacker of the run; it was changed")
        return self.poisons[attacker]

    def _extraction(self, attacker: str) -> ExtractionTally:
        if attacker not in self.extractions:
            raise EvidenceError(f"the log has copies of '{attacker}', who is no attacker of the run; it was changed")
        return self.extractions[attacker]

    def _found(self, rows: int) -> bytes:
        """Of all that was found, whatever the order in which it was."""
        whole = b"".join(each.digest(rows) for each in self.evasions.values())
        whole += b"".join(extraction.digest() for extraction in self.extractions.values())
        if not self.poisons:
            return whole
        clean = b"".join(plain(self.clean[number]) for number in sorted(self.clean))
        return whole + clean + b"".join(poison.digest() for poison in self.poisons.values())

    @property
    def _over(self) -> bool:
        return self.ended is not None and self.ended.why in ("done", "decided")

    def taken(self) -> int:
        """Rows that were taken: all that were planned, but for a gate, which stops when it knows."""
        if not self.head.gate:
            return len(self.head.labels)
        if self.ended is not None:
            return min(self.ended.rows, len(self.head.labels))
        return max((int(tally.seen.sum()) for tally in self.tallies.values()), default=0)

    def report(self, url: str, rows: int | None = None) -> Report:
        """The report, judged by the run's own requirements. rows: so many as were taken so far, for a gate."""
        head, rows = self.head, self.taken() if rows is None else rows
        hit = [] if self.ended is None else self.ended.limits_hit
        parts = [self._attacker(each, rows, bool(hit)) for each in head.attackers]
        whole = hashlib.sha256(self._found(rows))
        report = Report(
            schema_version=1,
            verdict=Verdict.INCONCLUSIVE,
            exit_code=Verdict.INCONCLUSIVE.exit_code,
            reasons=[],
            system=head.system,
            defenses=head.defenses,
            detector=None if self.refusals is None else self.refusals.part(rows, head.confidence),
            classes=head.classes,
            requirements=[],
            attackers=parts,
            risks=ranked(parts, self._costs(rows)),
            preflight=head.preflight,
            plan=head.plan,
            standards=standing(head.standards, parts),
            skipped=head.skipped,
            errors=[
                *(part for each in self.evasions.values() for part in each.errors(rows)),
                *(part for poison in self.poisons.values() for part in poison.errors()),
                *(part for extraction in self.extractions.values() for part in extraction.errors()),
            ],
            limits_hit=hit,
            calls=self.calls,
            shows_not=[
                *shows_not(
                    poison=bool(self.poisons), copies=bool(self.extractions), detector=self.refusals is not None
                ),
                *(f"{part.name}: {part.reason}" for part in parts if not part.assessed),
            ],
            run=RunPart(
                id=head.id,
                folder=url,
                started=head.started,
                seconds=round(self._seconds, 3),
                mode=head.mode,
                seed=head.seed,
                rows=rows,
                planned=len(head.labels),
                gate=head.gate,
                confidence=head.confidence,
                family=head.family,
                reproducible=not hit
                and (head.gate or all(part.counts is None or not part.counts.missing for part in parts))
                and not any(poison.pending() for poison in self.poisons.values())
                and not any(extraction.pending() for extraction in self.extractions.values()),
                model_stochastic=head.stochastic,
            ),
            environment=head.environment,
            digests={**head.digests, "evidence": whole.hexdigest()},
        )
        found = judge(report, head.requirements)
        return report.model_copy(
            update={
                "verdict": found.verdict,
                "exit_code": found.exit_code,
                "reasons": list(found.reasons),
                "requirements": list(found.requirements),
            }
        )

    def _costs(self, rows: int) -> dict[str, tuple[float | None, float | None]]:
        """By attacker, queries and US dollars of a success."""
        found = {name: tally.cost_of_success(rows) for name, tally in self.tallies.items()}
        copied = {name: each.cost_of_success(self.head.confidence) for name, each in self.extractions.items()}
        return found | copied

    def _attacker(self, head: AttackerHead, rows: int, cut: bool) -> AttackerPart:
        about = {
            "name": head.name,
            "kind": head.kind,
            "why": head.why,
            "goal": head.goal,
            "impact": head.impact,
            "techniques": head.techniques,
            "change": head.change,
            "knowledge": head.knowledge,
            "status": head.status,
            "reason": head.reason,
        }
        if (poison := self.poisons.get(head.name)) is not None:
            part = poison.part(self.clean, self.head.confidence, cut=cut, certified=self.certified)
            why = None if part.measured else _first_reason(part.poisoners, "no victim could be trained")
            return self._unattacked(about, why, poisoning=part)
        if (extraction := self.extractions.get(head.name)) is not None:
            copied = extraction.part(self.head.confidence, cut=cut)
            why = None if copied.measured else _first_reason(copied.extractors, "no copy could be made")
            return self._unattacked(about, why, extraction=copied, doubts=extraction.about.doubts)
        if (evasion := self.evasions.get(head.name)) is not None:
            return evasion.part(about, rows, self._refuses_more(rows), over=self._over, cut=cut)
        return self._unattacked(about, head.reason)

    def _refuses_more(self, rows: int) -> list[Diagnosis]:
        """That the detector does not keep to its stated rate, if that is shown."""
        if self.refusals is None:
            return []
        part = self.refusals.part(rows, self.head.confidence)
        if not part.exceeded:
            return []
        return [Diagnosis(name="false positives", status=Doubt.SUSPICIOUS, detail=over_rate(part), blocks_pass=True)]

    def _unattacked(
        self,
        about: dict[str, Any],
        why: str | None,
        *,
        poisoning: PoisoningPart | None = None,
        extraction: ExtractionPart | None = None,
        doubts: Sequence[str] = (),
    ) -> AttackerPart:
        """Of an attacker without rows of their own: one who poisons or copies, or who was not assessed. why not."""
        of_models = poisoning or extraction
        measured = of_models is not None and of_models.measured
        return AttackerPart(
            **{**about, "reason": why},
            strength=strength(self.head, []) if measured else "not tested",
            counts=None,
            attacks=[],
            by_class=[],
            curve=[],
            success_8bit=None,
            diagnosis=[
                Diagnosis(name="rows to ask", status=Doubt.SUSPICIOUS, detail=each, blocks_pass=True) for each in doubts
            ],
            retries=[],
            defended=[],
            transfers=None,
            poisoning=poisoning,
            extraction=extraction,
            certified=None,
        )


def _first_reason(parts: Sequence[PoisonerPart | ExtractorPart], otherwise: str) -> str:
    return next((each.reason for each in parts if each.reason), otherwise)


def summary(lines: Iterable[Line]) -> Summary:
    """Everything that a log says. Raises EvidenceError if it does not begin as a log does."""
    found: Summary | None = None
    for line in lines:
        if found is None:
            if not isinstance(line, RunLine):
                raise EvidenceError("the log does not begin with what was run; the evidence is not complete")
            found = Summary(line)
        else:
            found.see(line)
    if found is None:
        raise EvidenceError("the log is empty: the run was broken off before its first line, so there is no evidence")
    return found


def report_of(folder: RunFolder) -> Report:
    """The report of a run folder, from its log alone."""
    return summary(folder.lines()).report(folder.url)
