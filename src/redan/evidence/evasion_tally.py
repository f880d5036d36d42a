"""All that is known of one attacker who changes inputs: their rows, other models' rows beside them, proofs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from redan.errors import EvidenceError
from redan.evidence.certified_lines import ProofsLine, ProvenLine, UnprovableLine
from redan.evidence.certified_tally import CertifiedTally, asked_for_proof, closed
from redan.evidence.defended import shown
from redan.evidence.defended_tally import DefendedTally
from redan.evidence.diagnosis import diagnosed
from redan.evidence.log import (
    AttackerHead,
    BlockLine,
    ExaminedLine,
    RetriedLine,
    RetryLine,
    RowLine,
    RunLine,
    dumped,
)
from redan.evidence.report import AttackerPart, Diagnosis, ErrorPart, RetryPart, Tried
from redan.evidence.tally import Tally
from redan.evidence.transfers import TransferLine, transfer_part

__all__ = ["EvasionLine", "EvasionTally", "strength"]

EvasionLine: TypeAlias = (
    RowLine
    | BlockLine
    | ExaminedLine
    | RetryLine
    | RetriedLine
    | ProofsLine
    | ProvenLine
    | UnprovableLine
    | TransferLine
)
"""A line about one attacker who changes inputs."""


def strength(run: RunLine, retries: list[RetryPart]) -> str:
    """How strong the attacks of a run were: heuristic, standard, or adapted to what looked suspicious."""
    if run.mode == "quick" or run.skipped:
        return "heuristic"
    naive = [shown(beside) for beside in run.beside]
    adapted = (part for part in retries if part.status is Tried.DONE and part.name not in naive)
    return "adaptive" if any(adapted) else "standard"


class EvasionTally:
    """One attacker, line by line.

    rows: what is served, under the attacks. beside: the same rows of each model without what is served. proofs: what is
    certified, where a requirement asks for it.
    """

    def __init__(self, head: AttackerHead, run: RunLine) -> None:
        self._run = run
        self.rows = Tally(head, run.labels, run.classes)
        self.beside = [DefendedTally(name, head, run.labels, run.classes) for name in run.beside]
        asked = asked_for_proof(run.requirements, head.name)
        self.proofs = CertifiedTally(self.rows, run.ids) if asked else None
        self.transfer: TransferLine | None = None
        """Inputs that were shown between an ensemble's models."""

    def see(self, line: EvasionLine) -> None:
        """Count a line. Raises EvidenceError for one that the run cannot have."""
        match line:
            case RowLine() | BlockLine():
                self._about_rows(line)
            case ExaminedLine() | RetryLine() | RetriedLine():
                self.rows.later(line)
            case ProofsLine() | ProvenLine() | UnprovableLine() if self.proofs is not None:
                self.proofs.see(line)
            case ProofsLine() | ProvenLine() | UnprovableLine():
                raise EvidenceError(
                    f"the log has proofs against '{line.attacker}', of whom none is required; it was changed"
                )
            case TransferLine():
                self.transfer = line

    def _about_rows(self, line: RowLine | BlockLine) -> None:
        about = [each for each in self.beside if each.is_about(line)]
        if line.beside is not None and not about:
            raise EvidenceError(f"the log has rows of '{line.beside}', which the run does not attack; it was changed")
        match line:
            case BlockLine(beside=None):
                self.rows.block(line)
            case RowLine(beside=None):
                self.rows.row(line)
        for each in about:
            each.see(line)

    def digest(self, rows: int) -> bytes:
        """sha256 of all that was found of the first rows, whatever the order in which it was."""
        whole = self.rows.digest(rows) + b"".join(each.digest(rows) for each in self.beside)
        whole += b"" if self.proofs is None else self.proofs.digest(rows)
        return whole + (b"" if self.transfer is None else dumped(self.transfer))

    def errors(self, rows: int) -> Iterator[ErrorPart]:
        """Rows that could not be judged, by reason, after what proofs and attacks contradict each other about."""
        yield from () if self.proofs is None else self.proofs.errors(rows)
        yield from self.rows.errors(rows)

    def part(self, about: dict[str, Any], rows: int, doubts: list[Diagnosis], *, over: bool, cut: bool) -> AttackerPart:
        """What the report says. about: the attacker. doubts: about what is served, whoever attacks it. over: whether
        the run came to its end; cut: whether a limit of ours ended it."""
        run, tally, proofs = self._run, self.rows, self.proofs
        attacks, retries, counts = tally.attacks(rows, cut), tally.retries(rows), tally.counts(rows, run.stochastic)
        proven = None if proofs is None else proofs.part(rows)
        compared = [each.part(tally, rows, run.confidence) for each in self.beside]
        naive = [shown(name) for name in run.beside]
        return AttackerPart(
            **about,
            strength="certified" if proven is not None and closed(proven, counts) else strength(run, retries),
            counts=counts,
            attacks=attacks,
            by_class=tally.by_class(rows),
            curve=[] if run.stochastic else tally.curve(rows),
            success_8bit=tally.success_8bit(rows) if run.eight_bit else None,
            diagnosis=[
                *(() if proofs is None else proofs.doubts(rows)),
                *doubts,
                *diagnosed(tally, attacks, run.preflight, rows, over=over and not cut, handed=naive),
            ],
            retries=retries,
            defended=[part for part in compared if part is not None],
            transfers=None if self.transfer is None else transfer_part(self.transfer, run.confidence),
            poisoning=None,
            extraction=None,
            certified=proven,
        )
