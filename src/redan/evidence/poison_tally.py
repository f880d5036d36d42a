"""One poisoning attacker's victims, counted from the log."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from redan.errors import EvidenceError
from redan.evidence.base import MeanPart
from redan.evidence.log import AttackerHead, dumped
from redan.evidence.poison_lines import CertifiedLine, InspectedLine, PoisoningHead, VictimLine
from redan.evidence.poisoned import PointPart, PoisonerPart, PoisoningPart
from redan.evidence.report import ErrorPart
from redan.evidence.requirement import Direction, Metric, Requirement
from redan.evidence.victims import Victims, equivalence

__all__ = ["PoisonTally"]

Key = tuple[str, float, int]
_SUCCESS = (Metric.BACKDOOR_SUCCESS, Metric.ATTACK_SUCCESS_RATE)


class PoisonTally:
    """What is known of each victim; one that is seen again counts as it was seen last."""

    def __init__(self, head: AttackerHead, about: PoisoningHead, requirements: Sequence[Requirement]) -> None:
        self.head, self.about = head, about
        self._limits = [each for each in requirements if each.against == head.name]
        self.victims: dict[Key, VictimLine] = {}
        self.unfit: dict[str, str] = {}
        self.inspected: InspectedLine | None = None
        self._planned = {
            (poisoner.name, point.share, number)
            for poisoner in about.poisoners
            for point in about.points
            for number in range(point.victims)
        }

    def see(self, line: VictimLine | InspectedLine) -> None:
        """Count a victim, or what detectors made of the poison. Raises EvidenceError for what the run does not have."""
        match line:
            case VictimLine():
                key = (line.poisoner or "", line.share or 0.0, line.number)
                if key not in self._planned:
                    raise EvidenceError(
                        f"the log has a victim of '{line.poisoner}' that is not of the run; the evidence was changed"
                    )
                self.victims[key] = line
                if line.unfit:
                    self.unfit[key[0]] = line.error or "it cannot be used here"
            case InspectedLine():
                if line.poisoner not in [poisoner.name for poisoner in self.about.poisoners]:
                    raise EvidenceError(
                        f"the log has detectors of '{line.poisoner}', who is not of the run; the evidence was changed"
                    )
                self.inspected = line

    def pending(self) -> list[Key]:
        """Victims that are not trained yet, the whole share first; none of a poisoner that cannot be used."""
        found = []
        for point in self.about.points:
            for number in range(point.victims):
                for poisoner in self.about.poisoners:
                    key = (poisoner.name, point.share, number)
                    if key not in self.victims and poisoner.name not in self.unfit:
                        found.append(key)
        return found

    def digest(self) -> bytes:
        """Of what was found, whatever the order in which it was."""
        whole = hashlib.sha256()
        for key in sorted(self.victims):
            whole.update(plain(self.victims[key]))
        if self.inspected is not None:
            whole.update(dumped(self.inspected.model_copy(update={"seconds": 0.0, "pictures": None})))
        return whole.digest()

    def strongest(self, clean: Mapping[int, VictimLine], confidence: float) -> str | None:
        """The poisoner that goes furthest at the whole share; the first of equals; None where no victim is known."""
        return _strongest(self._poisoners(clean, confidence, cut=False), self.about.goal)

    def part(
        self,
        clean: Mapping[int, VictimLine],
        confidence: float,
        *,
        cut: bool,
        certified: CertifiedLine | None,
    ) -> PoisoningPart:
        """All that is known. clean: victims of clean rows, by number. cut: whether limits of ours ended the run."""
        poisoners, seen = self._poisoners(clean, confidence, cut=cut), self.inspected
        return PoisoningPart(
            goal=self.about.goal,
            poisoners=poisoners,
            strongest=_strongest(poisoners, self.about.goal),
            detectors=[] if seen is None else seen.detectors,
            sources=[] if seen is None else seen.sources,
            repairs=[] if seen is None else seen.repairs,
            trigger=None if seen is None else seen.trigger,
            certificate=None if certified is None else certified.certificate,
            notes=[] if seen is None else seen.notes,
        )

    def errors(self) -> list[ErrorPart]:
        """Victims that could not be trained, by reason."""
        reasons: dict[str, list[VictimLine]] = {}
        for key in sorted(self.victims):
            line = self.victims[key]
            if line.error is not None and not line.unfit:
                reasons.setdefault(line.error, []).append(line)
        return [
            ErrorPart(
                attacker=self.head.name,
                reason=f"training a victim: {reason}",
                rows=len(lines),
                first=f"victim {lines[0].number} of {lines[0].poisoner} at {lines[0].share:g}",
            )
            for reason, lines in reasons.items()
        ]

    def _poisoners(self, clean: Mapping[int, VictimLine], confidence: float, *, cut: bool) -> list[PoisonerPart]:
        found = []
        for poisoner in self.about.poisoners:
            mine = [line for key, line in sorted(self.victims.items()) if key[0] == poisoner.name]
            points = [self._point(poisoner.name, p.share, p.victims, clean, confidence) for p in self.about.points]
            known = poisoner.name not in self.unfit
            left = any(point.undecided for point in points)
            status = "not applicable" if not known else "done"
            if known and left:
                status = "cut" if cut else "error"
            reason = None if known else self.unfit[poisoner.name]
            if status == "error":
                reason = "the run was broken off before all victims were trained"
            found.append(
                PoisonerPart(
                    name=poisoner.name,
                    settings=next((line.settings for line in mine if line.settings), ""),
                    techniques=poisoner.techniques,
                    status=status,
                    reason=reason,
                    points=points if known else [],
                    breaks_at=min((p.share for p in points if known and self._broken(p)), default=None),
                )
            )
        return found

    def _point(
        self, poisoner: str, share: float, planned: int, clean: Mapping[int, VictimLine], confidence: float
    ) -> PointPart:
        lines = {n: self.victims[poisoner, share, n] for n in range(planned) if (poisoner, share, n) in self.victims}
        good = {n: line for n, line in lines.items() if line.error is None}
        mates = {n: clean[n] for n in good if n in clean and clean[n].error is None}
        errors, undecided = len(lines) - len(good), planned - len(lines)
        success = self._asked(good, confidence)
        hits = self.about.goal == "targeted rows"
        pairs = [] if hits else sorted(mates)
        accuracy = {n: line for n, line in good.items() if line.rows}
        return PointPart(
            share=share,
            used=max((line.used for line in good.values()), default=0.0),
            changed=max((line.changed for line in good.values()), default=0),
            victims=len(good),
            errors=errors,
            undecided=undecided,
            success=success,
            clean_success=None if hits else self._asked(mates, confidence),
            accuracy=_accuracy(accuracy, confidence),
            clean_accuracy=_accuracy({n: clean[n] for n in pairs}, confidence),
            equivalence=equivalence(
                [good[n].right / good[n].rows for n in pairs],
                [mates[n].right / mates[n].rows for n in pairs],
                margin=self.about.margin,
                confidence=confidence,
            ),
        )

    def _asked(self, lines: Mapping[int, VictimLine], confidence: float) -> MeanPart | None:
        """How often the attacker's rows are answered as they want."""
        if self.about.goal == "availability":
            return None
        asked = [line.asked[self.head.name] for line in lines.values() if line.asked.get(self.head.name, (0, 0))[1]]
        if not asked:
            return None
        rates = tuple(reached / of for reached, of in asked)
        return Victims(rates=rates, rows=min(of for _, of in asked)).part(confidence)

    def _broken(self, point: PointPart) -> bool:
        """Whether the means at this share break what is required; half of the rows where nothing is."""
        told = [(point.success, each) for each in self._limits if each.metric in _SUCCESS]
        told += [(point.accuracy, each) for each in self._limits if each.metric is Metric.POISONED_ACCURACY]
        if not told:
            return point.success is not None and point.success.value >= 0.5
        for mean, each in told:
            if mean is not None:
                above = mean.value > each.threshold
                if (above and each.direction is Direction.AT_MOST) or (
                    mean.value < each.threshold and each.direction is Direction.AT_LEAST
                ):
                    return True
        return False


def plain(line: VictimLine) -> bytes:
    """A victim's line without what differs when the same is measured again."""
    return dumped(line.model_copy(update={"seconds": 0.0, "answers": None}))


def _accuracy(lines: Mapping[int, VictimLine], confidence: float) -> MeanPart | None:
    if not lines:
        return None
    rates = tuple(line.right / line.rows for line in lines.values())
    return Victims(rates=rates, rows=min(line.rows for line in lines.values())).part(confidence)


def _strongest(poisoners: Sequence[PoisonerPart], goal: str) -> str | None:
    found = []
    for each in poisoners:
        if each.points:
            point = each.points[0]
            mean = point.accuracy if goal == "availability" else point.success
            if mean is not None:
                found.append((mean.value if goal != "availability" else -mean.value, each.name))
    return max(found, key=lambda pair: pair[0])[1] if found else None
