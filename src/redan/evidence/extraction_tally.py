"""One extraction attacker's copies, counted from the log."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from statistics import fmean

from redan.errors import EvidenceError
from redan.evidence.base import MeanPart
from redan.evidence.extracted import (
    BudgetPart,
    ComparedPart,
    DirectPart,
    ExtractionPart,
    ExtractorPart,
    MilestonePart,
    TransferPart,
)
from redan.evidence.extraction_lines import Compared, CopyLine, CopyPoint, DirectLine, ExtractionHead
from redan.evidence.log import AttackerHead, dumped
from redan.evidence.report import ErrorPart
from redan.evidence.statistics import interval
from redan.evidence.victims import Victims

__all__ = ["ExtractionTally", "Key", "reached"]

Key = tuple[str, int]
"""A copy: extractor, number."""
_SHARES = (0.9, 0.95, 0.99)


class ExtractionTally:
    """What is known of each copy; one that is seen again counts as it was seen last."""

    def __init__(self, head: AttackerHead, about: ExtractionHead) -> None:
        self.head, self.about = head, about
        self.copies: dict[Key, CopyLine] = {}
        self.unfit: dict[str, str] = {}
        self.direct: DirectLine | None = None
        self._planned = [(each.name, number) for number in range(about.copies) for each in about.extractors]

    def see(self, line: CopyLine | DirectLine) -> None:
        """Count a copy, or the attack without one. Raises EvidenceError for what the run does not have."""
        if line.extractor not in [each.name for each in self.about.extractors]:
            raise EvidenceError(f"the log has '{line.extractor}', which is not of the run; the evidence was changed")
        match line:
            case CopyLine():
                key = (line.extractor, line.number)
                if key not in self._planned or not {point.queries for point in line.points} <= {*self.about.points}:
                    raise EvidenceError(
                        f"the log has a copy {line.number} of '{line.extractor}' that is not of the run; the evidence "
                        "was changed"
                    )
                self.copies[key] = line
                if line.unfit:
                    self.unfit[line.extractor] = line.error or "it cannot be used here"
            case DirectLine():
                self.direct = line

    def pending(self) -> list[Key]:
        """Copies that are not made yet; none of an extractor that cannot be used."""
        return [key for key in self._planned if key not in self.copies and key[0] not in self.unfit]

    def digest(self) -> bytes:
        """Of what was found, whatever the order in which it was."""
        whole = hashlib.sha256()
        for key in sorted(self.copies):
            whole.update(plain(self.copies[key]))
        if self.direct is not None:
            whole.update(plain(self.direct))
        return whole.digest()

    def strongest(self, confidence: float) -> str | None:
        """The extractor that goes furthest with the whole budget; the first of equals; None where no copy is known."""
        return _strongest(self._extractors(confidence, cut=False), self.about)

    def part(self, confidence: float, *, cut: bool) -> ExtractionPart:
        """All that is known. cut: whether limits of ours ended the run."""
        extractors, about = self._extractors(confidence, cut=cut), self.about
        return ExtractionPart(
            goal=about.goal,
            rows=about.rows,
            transfer=about.transfer,
            answers=about.answers,
            pool=about.pool,
            usd_per_1000_queries=self.head.usd_per_1000_queries,
            queries_per_day=about.queries_per_day,
            extractors=extractors,
            strongest=_strongest(extractors, about),
            direct=self._direct(confidence),
            notes=about.notes,
        )

    def errors(self) -> list[ErrorPart]:
        """Copies that could not be made, by reason."""
        reasons: dict[str, list[CopyLine]] = {}
        for key in sorted(self.copies):
            line = self.copies[key]
            if line.error is not None and not line.unfit:
                reasons.setdefault(line.error, []).append(line)
        return [
            ErrorPart(
                attacker=self.head.name,
                reason=f"making a copy: {reason}",
                rows=len(lines),
                first=f"copy {lines[0].number} of {lines[0].extractor}",
            )
            for reason, lines in reasons.items()
        ]

    def cost_of_success(self, confidence: float) -> tuple[float | None, float | None]:
        """What the strongest extractor's whole budget came to: answers, and US dollars for each broken input (of a copy
        that is wanted for itself: for the copy)."""
        extractors = self._extractors(confidence, cut=False)
        strongest = _strongest(extractors, self.about)
        point = next((each.points[0] for each in extractors if each.name == strongest), None)
        if point is None:
            return None, None
        return point.paid, point.usd if point.transfer is None else point.transfer.usd_per_success

    def _extractors(self, confidence: float, *, cut: bool) -> list[ExtractorPart]:
        found = []
        for extractor in self.about.extractors:
            mine = [line for key, line in sorted(self.copies.items()) if key[0] == extractor.name]
            known = extractor.name not in self.unfit
            left = self.about.copies - len(mine)
            status, reason = ("done", None) if known else ("not applicable", self.unfit[extractor.name])
            if known and left:
                status = "cut" if cut else "error"
                reason = None if cut else "the run was broken off before all copies were made"
            points = [self._point(mine, budget, left, confidence) for budget in self._budgets(mine)] if known else []
            found.append(
                ExtractorPart(
                    name=extractor.name,
                    settings=next((line.settings for line in mine if line.settings), ""),
                    techniques=extractor.techniques,
                    status=status,
                    reason=reason,
                    points=points,
                    milestones=[self._milestone(points, share) for share in _SHARES],
                )
            )
        return found

    def _budgets(self, lines: Sequence[CopyLine]) -> list[int]:
        """The budgets that were measured, the whole one first and always among them."""
        told = {point.queries for line in lines for point in line.points}
        return [budget for i, budget in enumerate(self.about.points) if not i or budget in told]

    def _point(self, lines: Sequence[CopyLine], budget: int, left: int, confidence: float) -> BudgetPart:
        found = [point for line in lines for point in line.points if point.queries == budget]
        paid = fmean(point.paid for point in found) if found else 0.0
        names = list(dict.fromkeys(name for point in found for name in point.compared))
        daily = self.about.queries_per_day
        usd, year = self._usd(paid), self._usd(365 * (daily or 0.0))
        return BudgetPart(
            queries=budget,
            paid=paid,
            usd=usd,
            days=paid / daily if daily else None,
            saves=None if not daily or usd is None or year is None else year - usd,
            copies=len(found),
            errors=len(lines) - len(found),
            undecided=left,
            compared=[_compared(name, [point.compared[name] for point in found], confidence) for name in names],
            transfer=self._transfer(found, confidence),
        )

    def _transfer(self, points: Sequence[CopyPoint], confidence: float) -> TransferPart | None:
        used = [(point.paid, point.transferred) for point in points if point.transferred is not None]
        told = [each for _, each in used]
        if not told:
            return None
        queries = fmean(each.queries for each in told)
        usd = self._usd(fmean(paid + each.queries for paid, each in used))
        broken = fmean(each.broken for each in told)
        rows = min(each.rows for each in told)
        return TransferPart(
            success=_mean([each.broken / each.rows for each in told if each.rows], rows, confidence),
            rows=rows,
            errors=max(each.errors for each in told),
            queries=queries,
            usd=usd,
            usd_per_success=usd / broken if usd is not None and broken else None,
        )

    def _direct(self, confidence: float) -> DirectPart | None:
        line = self.direct
        if line is None:
            return None
        exact, usd = interval(line.broken, line.rows, confidence), self._usd(line.queries)
        return DirectPart(
            attacks=line.attacks,
            queries_per_row=line.queries_per_row,
            rows=line.rows,
            broken=line.broken,
            errors=line.errors,
            low=exact.low,
            high=exact.high,
            confidence=confidence,
            queries=line.queries,
            usd=usd,
            usd_per_success=usd / line.broken if usd is not None and line.broken else None,
            breaks_even=self._breaks_even(line),
        )

    def _breaks_even(self, direct: DirectLine) -> int | None:
        """Broken inputs at which both ways have cost as many queries: the copy once and a few queries for each of its
        inputs, or more queries for each without it."""
        points = [line.points[0] for key, line in self.copies.items() if key[0] == direct.extractor and line.points]
        used = [(point.paid, each) for point in points if (each := point.transferred) is not None]
        broken = sum(each.broken for _, each in used)
        if not direct.broken or not broken:
            return None
        saved = direct.queries / direct.broken - sum(each.queries for _, each in used) / broken
        return max(1, math.ceil(fmean(paid for paid, _ in used) / saved)) if saved > 0 else None

    def _milestone(self, points: Sequence[BudgetPart], share: float) -> MilestonePart:
        means = [(point, mean) for point in points if (mean := reached(point, "fidelity", self.about.rows)) is not None]
        least = min((point for point, mean in means if mean.value >= share), key=lambda p: p.paid, default=None)
        shown = min((point for point, mean in means if mean.low >= share), key=lambda p: p.paid, default=None)
        return MilestonePart(
            share=share,
            queries=None if least is None else round(least.paid),
            shown=None if shown is None else round(shown.paid),
            usd=None if least is None else least.usd,
        )

    def _usd(self, queries: float) -> float | None:
        price = self.head.usd_per_1000_queries
        return None if price is None else queries * price / 1000


def plain(line: CopyLine | DirectLine) -> bytes:
    """A line without what differs when the same is measured again."""
    return dumped(line.model_copy(update={"seconds": 0.0, "saved": None}))


def _compared(name: str, told: Sequence[Compared], confidence: float) -> ComparedPart:
    n = min(each.n for each in told)
    right = [each for each in told if each.right is not None and each.n]
    model = next((each.model_right / each.n for each in right if each.model_right is not None), None)
    return ComparedPart(
        rows=name,
        n=n,
        unanswered=max(each.unanswered for each in told),
        fidelity=_mean([each.agreeing / each.n for each in told if each.n], n, confidence),
        accuracy=_mean([(each.right or 0) / each.n for each in right], n, confidence),
        model_accuracy=model,
        worst=max(each.worst for each in told),
    )


def _mean(rates: Sequence[float], rows: int, confidence: float) -> MeanPart | None:
    """Over copies; of one row none is told, as its copies would pass for copies that are hit or not."""
    return Victims(rates=tuple(rates), rows=rows).part(confidence) if rows > 1 else None


def _strongest(extractors: Sequence[ExtractorPart], about: ExtractionHead) -> str | None:
    found = [
        (mean.value, each.name)
        for each in extractors
        if each.points and (mean := reached(each.points[0], about.goal, about.rows)) is not None
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def reached(point: BudgetPart, goal: str, rows: str) -> MeanPart | None:
    """What the attacker wants of a budget: fidelity on the judged rows, or transfer."""
    if goal == "transfer":
        return None if point.transfer is None else point.transfer.success
    return next((each.fidelity for each in point.compared if each.rows == rows), None)
