"""What every view says in the same words of an attacker who changes training rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from redan.evidence.base import MeanPart
from redan.evidence.poisoned import (
    CertificatePart,
    DetectorPart,
    Equivalence,
    EquivalencePart,
    PointPart,
    PoisonerPart,
    PoisoningPart,
    RepairPart,
    TriggerPart,
)
from redan.evidence.report import AttackerPart, Report
from redan.evidence.requirement import Metric
from redan.report.figures import NONE, percent, points, share
from redan.report.means import Tile, asked_of, interval, kind_of

__all__ = [
    "DONE",
    "advice",
    "best_detector",
    "breaks",
    "change",
    "equality",
    "examined",
    "headline",
    "left_out",
    "mended",
    "missing",
    "named",
    "over",
    "planted",
    "points",
    "reached",
    "repaired",
    "share",
    "strongest",
    "tiles",
    "whole",
]

DONE = "done"
"""The status of what was measured to its end."""

_WHAT = {"backdoor": "triggered rows", "targeted rows": "chosen rows"}
METRICS = (Metric.BACKDOOR_SUCCESS, Metric.ATTACK_SUCCESS_RATE)


def strongest(part: PoisoningPart) -> PoisonerPart | None:
    """The poisoner that goes furthest at the full share; None where none could be measured."""
    return next((each for each in part.poisoners if each.name == part.strongest and each.points), None)


def whole(part: PoisoningPart) -> PointPart | None:
    """What the strongest poisoner did with all of the rows that the attacker may change; None where none is known."""
    found = strongest(part)
    point = None if found is None else found.points[0]
    return None if point is None or (point.success is None and point.accuracy is None) else point


def rows_asked(part: PoisoningPart) -> str:
    """The rows whose answers the attacker wants to choose, in words."""
    return _WHAT.get(part.goal, "rows")


def over(mean: MeanPart) -> str:
    """What a mean is taken over, in words."""
    return "1 trained victim" if len(mean.each) == 1 else f"{len(mean.each):,} trained victims"


def wanted(part: PoisoningPart, mean: MeanPart) -> str:
    """The rows answered as the attacker wants: their share, and how many where each victim is hit or not."""
    if mean.rows == 1:
        hit = f"{round(sum(mean.each)):,} of {len(mean.each):,}"
        return f"{percent(mean.value)} of {rows_asked(part)} ({hit})"
    return f"{percent(mean.value)} of {rows_asked(part)}"


def reached(part: PoisoningPart) -> str:
    """How far the attacker got, in a few words."""
    point = whole(part)
    if point is not None and point.success is not None:
        return f"{wanted(part, point.success)} answered as the attacker wants"
    if point is not None and point.accuracy is not None:
        clean = "" if point.clean_accuracy is None else f" ({percent(point.clean_accuracy.value)} without poison)"
        return f"accuracy {percent(point.accuracy.value)}{clean}"
    return "nothing could be measured"


def equality(part: EquivalencePart) -> str:
    """What two one-sided tests show of clean accuracy, in words."""
    margin = f"{100 * part.margin:g}\N{NO-BREAK SPACE}{'point' if part.margin == 0.01 else 'points'}"
    return {
        Equivalence.EQUIVALENT: f"equal within {margin}",
        Equivalence.DIFFERENT: f"different by more than {margin}",
        Equivalence.NOT_SHOWN: f"not shown to be equal within {margin}",
    }[part.shown]


def difference(part: EquivalencePart) -> str:
    """The interval of the difference in clean accuracy: that of two one-sided tests, at 2 · confidence - 1."""
    low = points(part.low).removesuffix("\N{NO-BREAK SPACE}points")
    level = f"{100 * (2 * part.confidence - 1):.3g}\N{NO-BREAK SPACE}%"
    return f"{level} interval {low} to {points(part.high)}, {part.pairs:,} pairs of victims"


def breaks(report: Report, attacker: AttackerPart, part: PoisoningPart) -> tuple[float | None, str]:
    """The smallest of the shares tried that is enough for the attacker, None if none is, and what it is enough for."""
    required = asked_of(report, attacker, *METRICS, Metric.POISONED_ACCURACY)
    enough = "breaks the requirement" if required else f"reaches half of the {rows_asked(part)}"
    found = [each.breaks_at for each in part.poisoners if each.breaks_at is not None]
    return (min(found) if found else None), enough


def headline(report: Report, attacker: AttackerPart, part: PoisoningPart) -> Iterator[str]:
    """What was found, a sentence each: success, accuracy, the share that is enough."""
    found, point = strongest(part), whole(part)
    if found is None or point is None:
        why = dict.fromkeys(each.reason or each.status for each in part.poisoners)
        yield "nothing could be measured: " + ("; ".join(why) or "no poisoner was tried")
        return
    mean = point.success or point.accuracy
    sure = "" if mean is None else f" over {over(mean)}, {interval(mean)}"
    yield f"{reached(part)}{sure}, by {found.name} with {planted(point)}"
    if point.success is not None and point.clean_success is not None:
        yield f"victims of clean rows: {wanted(part, point.clean_success)}"
    elif point.success is not None and point.accuracy is not None and point.equivalence is None:
        yield f"accuracy on clean rows: {percent(point.accuracy.value)}, {interval(point.accuracy)}"
    if point.equivalence is not None:
        lost = f"clean accuracy changes by {points(point.equivalence.difference)} ({difference(point.equivalence)}): "
        yield lost + equality(point.equivalence)
    at, enough = breaks(report, attacker, part)
    if at is None:
        yield f"none of the shares tried {enough}"
    else:
        yield f"{share(at)} of the training rows is the smallest share tried that {enough}"
    if said := missing(part):
        yield said


def planted(point: PointPart) -> str:
    """The rows that were changed, in words."""
    return f"{share(point.share)} of the training rows ({point.changed:,} rows)"


def tiles(report: Report, attacker: AttackerPart, part: PoisoningPart) -> list[Tile]:
    """The figures that a reader must see first."""
    point, found = whole(part), strongest(part)
    if point is None or found is None:
        return []
    shown = [*_success(report, attacker, part, point, found.name), *_accuracy(report, attacker, point, found.name)]
    at, enough = breaks(report, attacker, part)
    if at is None:
        shown.append(Tile(value="none", words=(f"of the shares tried {enough}",)))
    else:
        shown.append(Tile(value=share(at), words=(f"of the training rows is the smallest share tried that {enough}",)))
    return shown


def _success(
    report: Report, attacker: AttackerPart, part: PoisoningPart, point: PointPart, name: str
) -> Iterator[Tile]:
    if (mean := point.success) is None:
        return
    got = wanted(part, mean).removeprefix(percent(mean.value)).strip()
    words = (
        f"{got} answered as the attacker wants, over {over(mean)}; {interval(mean)}",
        f"{name}, {planted(point)}",
    )
    yield Tile(value=percent(mean.value), words=words, kind=kind_of(asked_of(report, attacker, *METRICS)))
    if (clean := point.clean_success) is not None:
        yield Tile(value=percent(clean.value), words=(f"of the same rows, over {over(clean)} without poison",))


def _accuracy(report: Report, attacker: AttackerPart, point: PointPart, name: str) -> Iterator[Tile]:
    if (mean := point.accuracy) is not None and point.success is None:
        words = (f"accuracy on clean rows, over {over(mean)}; {interval(mean)}", f"{name}, {planted(point)}")
        kind = kind_of(asked_of(report, attacker, Metric.POISONED_ACCURACY))
        yield Tile(value=percent(mean.value), words=words, kind=kind)
        if (clean := point.clean_accuracy) is not None:
            yield Tile(value=percent(clean.value), words=(f"accuracy of {over(clean)} without poison",))
    elif mean is not None and point.equivalence is None:
        yield Tile(value=percent(mean.value), words=(f"accuracy on clean rows, over {over(mean)}; {interval(mean)}",))
    if (found := point.equivalence) is not None:
        value, unit = points(found.difference).split("\N{NO-BREAK SPACE}")
        yield Tile(value=value, words=(f"{unit} of clean accuracy: {equality(found)}", difference(found)))


def named(part: PoisonerPart | DetectorPart | RepairPart) -> str:
    """A name, with its status where that is not the usual one."""
    return part.name if part.status == DONE else f"{part.name} ({part.status})"


def left_out(part: PoisoningPart) -> list[str]:
    """What was not done to its end, and why."""
    each: tuple[PoisonerPart | DetectorPart | RepairPart, ...] = (*part.poisoners, *part.detectors, *part.repairs)
    return [f"{one.name}: {one.reason or one.status}" for one in each if one.status != DONE]


def best_detector(part: PoisoningPart) -> DetectorPart | None:
    """The detector that tells poison from clean rows best."""
    found = [each for each in part.detectors if each.status == DONE and each.auc is not None]
    return max(found, key=lambda each: each.auc or 0.0, default=None)


def mended(part: PoisoningPart) -> RepairPart | None:
    """The repair that reached what it was to reach, at the highest accuracy; None if none did."""
    return max((each for each in part.repairs if each.reached), key=lambda each: each.accuracy or 0.0, default=None)


def examined(part: TriggerPart, name_of: Callable[[int], str]) -> str:
    """What Neural Cleanse said, in words. name_of: of a label."""
    flagged = ", ".join(map(name_of, part.flagged)) or "no label"
    if part.target is None:
        said = f"it flags {flagged}; the attacker wants every label"
    elif part.target in part.flagged:
        said = f"it flags {flagged}; the attacker's label is {name_of(part.target)}"
    else:
        said = f"it flags {flagged} and misses {name_of(part.target)}, the attacker's label"
    return said if part.overlap is None else f"{said}; its trigger overlaps the planted one by {percent(part.overlap)}"


def repaired(part: RepairPart) -> str:
    """Whether a repair reached what it was to reach, in words."""
    if part.reached is None:
        return NONE
    word, sign = ("yes", "≤") if part.reached else ("no", ">")
    return f"{word}, {sign}\N{NO-BREAK SPACE}{share(part.until)}"


def change(part: CertificatePart) -> str:
    """What one change of the training rows is to a certificate, in words."""
    said = {"rows": "a row added, removed or given another label", "labels": "a row given another label"}
    return said.get(part.counts, part.counts)


def missing(part: PoisoningPart) -> str | None:
    """Victims of whom nothing is known, in words; None where there is none."""
    points = [p for each in part.poisoners for p in each.points]
    errors, undecided = sum(p.errors for p in points), sum(p.undecided for p in points)
    told = ((errors, "could not be trained or asked"), (undecided, "left out"))
    said = ", ".join(f"{count:,} {how}" for count, how in told if count)
    return f"victims of whom nothing is known: {said}; they never help to pass" if said else None


def advice(attacker: AttackerPart, part: PoisoningPart) -> Iterator[str]:
    """What to do against a poisoner who breaks a requirement."""
    found, mend = best_detector(part), mended(part)
    if found is not None and found.auc is not None and found.auc >= 0.9:
        yield (
            f"Screen the training rows that {attacker.name} can reach with {found.name} (AUC {found.auc:.3f}), train "
            "without what it finds, then assess again"
        )
    else:
        yield (
            f"Take fewer training rows from sources that {attacker.name} can reach, or check them before they are "
            "used: no detector tells their poison well enough; then assess again"
        )
    if mend is not None:
        yield (
            f"Repair a model that is already trained with {mend.name}: success {percent(mend.success_before)} → "
            f"{percent(mend.success)}, accuracy {percent(mend.accuracy_before)} → {percent(mend.accuracy)}"
        )
