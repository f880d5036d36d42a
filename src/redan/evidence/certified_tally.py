"""Rows under one attacker of whom a requirement asks for proof, as their lines come in.

Proofs and attacks check each other: a certified row that an attack breaks means that one of them is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from redan.errors import EvidenceError
from redan.evidence.certified import CertifiedPart
from redan.evidence.certified_lines import ProofsLine, ProvenLine, UnprovableLine
from redan.evidence.report import Counts, Diagnosis, Doubt, ErrorPart
from redan.evidence.requirement import Metric, Requirement
from redan.evidence.tally import Tally

__all__ = ["CertifiedTally", "asked_for_proof", "closed"]

_CONTRADICTION = "certificate contradicted"


def asked_for_proof(requirements: Sequence[Requirement], attacker: str) -> bool:
    """Whether certified accuracy is required against this attacker."""
    return any(each.metric is Metric.CERTIFIED_ACCURACY and each.against in (None, attacker) for each in requirements)


def closed(proven: CertifiedPart, counts: Counts) -> bool:
    """Whether nothing is left between proofs and attacks: every row is certified, or is seen to be wrong or to break.

    Then robust accuracy is known exactly on these rows, and no other attack can lower it.
    """
    judged = counts.errors + counts.undecided + counts.missing == 0
    return judged and not proven.contradicted and proven.certified == counts.robust


class CertifiedTally:
    """What is known of each row so far. attacked: the same rows under the attacker's attacks."""

    def __init__(self, attacked: Tally, ids: Sequence[str]) -> None:
        self._attacked, self._ids = attacked, ids
        self.proven: dict[int, ProvenLine] = {}
        self.reason: str | None = None
        """Why nothing can be proven."""
        self._how: ProofsLine | None = None
        self._seconds = 0.0

    def see(self, line: ProofsLine | ProvenLine | UnprovableLine) -> None:
        """Count a line. Raises EvidenceError for a row that is not of the run."""
        match line:
            case ProofsLine():
                self._how = line
                self._seconds += line.seconds
            case ProvenLine():
                if not 0 <= line.row < len(self._ids) or self._ids[line.row] != line.id:
                    raise EvidenceError(f"the log has a proof of row {line.row} ({line.id}), which is not of the run")
                self.proven[line.row] = line
            case UnprovableLine():
                self.reason = line.reason

    def pending(self, rows: Iterable[int]) -> list[int]:
        """Those of the rows that were not tried yet; none where nothing can be proven."""
        return [] if self.reason is not None else [row for row in rows if row not in self.proven]

    def digest(self, rows: int) -> bytes:
        """sha256 of what is known of the first rows, in their order."""
        told = [self.proven[row].model_dump_json() for row in sorted(self.proven) if row < rows]
        return hashlib.sha256("\n".join([self.reason or "", *told]).encode()).digest()

    def contradicted(self, rows: int) -> list[int]:
        """Those of the first rows that are certified, and were answered wrong, or broken by an attack."""
        lost = {row for row, right in self._attacked.right(rows) if not right}
        lost |= {row for row, holds in self._attacked.held(rows) if not holds}
        return sorted(row for row in lost if row in self.proven and self.proven[row].certified)

    def part(self, rows: int) -> CertifiedPart:
        """What a report says of the first rows."""
        seen = [line for row, line in self.proven.items() if row < rows]
        certified, broken = sum(each.certified for each in seen), sum(each.broken for each in seen)
        how = self._how
        whole = how is not None and how.completeness == "complete" and certified + broken == len(seen)
        return CertifiedPart(
            norm=None if how is None else how.norm,
            radius=None if how is None else how.radius,
            completeness=None if how is None else how.completeness if whole else "incomplete",
            certainty=None if how is None else how.certainty,
            verifier=None if how is None else how.verifier,
            drawn=rows,
            right=sum(each.right for each in seen),
            certified=certified,
            broken=broken,
            open=len(seen) - certified - broken,
            missing=rows - len(seen),
            contradicted=len(self.contradicted(rows)),
            reason=self.reason,
            seconds=round(self._seconds, 3),
        )

    def doubts(self, rows: int) -> list[Diagnosis]:
        """Why nothing about this attacker is believed, if a proof and an attack contradict each other."""
        found = self.contradicted(rows)
        if not found:
            return []
        detail = (
            f"{len(found)} certified rows were answered wrong or broken by an attack, the first {self._named(found)}: "
            "the proof or the attack's judgment is wrong; please report this as an error in redan"
        )
        return [Diagnosis(name=_CONTRADICTION, status=Doubt.SUSPICIOUS, detail=detail, blocks_pass=True)]

    def errors(self, rows: int) -> list[ErrorPart]:
        """The contradictions as an error of the run."""
        found = self.contradicted(rows)
        if not found:
            return []
        reason = f"{_CONTRADICTION}: proven right all over the set, and broken inside it"
        name = self._attacked.head.name
        return [ErrorPart(attacker=name, reason=reason, rows=len(found), first=self._ids[found[0]])]

    def _named(self, rows: Sequence[int]) -> str:
        return f"row {rows[0]} ({self._ids[rows[0]]})"
