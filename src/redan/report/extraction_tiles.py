"""The figures of an attacker who copies the model that a page shows large."""

from __future__ import annotations

from collections.abc import Iterator

from redan.evidence.extracted import BudgetPart, ExtractionPart, TransferPart
from redan.evidence.report import AttackerPart, Report
from redan.evidence.requirement import Metric
from redan.report.extraction_words import (
    cheapest,
    compared,
    direct_ends,
    direct_rate,
    judged_rows,
    over,
    paid,
    share_of,
    strongest,
    wanted,
    way_out,
    whole,
)
from redan.report.figures import NONE, days, percent, usd
from redan.report.means import Tile, asked_of, interval, kind_of

__all__ = ["tiles"]

_METRICS = {"fidelity": Metric.EXTRACTION_FIDELITY, "transfer": Metric.TRANSFER_SUCCESS}


def tiles(report: Report, attacker: AttackerPart, part: ExtractionPart) -> list[Tile]:
    """The figures that a reader must see first."""
    point, found = whole(part), strongest(part)
    if point is None or found is None:
        return []
    shown = [*_far(report, attacker, part, point, found.name), _bill(point)]
    if point.transfer is not None:
        shown += _closed(part, point.transfer)
    else:
        shown += _milestone(part)
    return shown


def _far(report: Report, attacker: AttackerPart, part: ExtractionPart, point: BudgetPart, name: str) -> Iterator[Tile]:
    mean, of = wanted(point, part.goal, part.rows), compared(part, point)
    metric = _METRICS.get(part.goal, Metric.EXTRACTION_FIDELITY)
    if mean is not None:
        does = f"of the {judged_rows(part.rows)} answered by a copy as by the model"
        if part.goal == "transfer":
            does = "of right rows broken by inputs that were made on a copy"
        words = (f"{does}, over {over(mean)}; {interval(mean)}", f"{name}, {paid(point.paid)} answers")
        yield Tile(value=percent(mean.value), words=words, kind=kind_of(asked_of(report, attacker, metric)))
    if of is not None and of.accuracy is not None and part.goal != "transfer":
        model = () if of.model_accuracy is None else (f"the model: {percent(of.model_accuracy)}",)
        yield Tile(value=percent(of.accuracy.value), words=("right answers of the copy", *model))


def _bill(point: BudgetPart) -> Tile:
    """Money, or answers where they have no price."""
    time = () if point.days is None else (f"{days(point.days)} at the API's limit for one customer",)
    if point.usd is None:
        return Tile(value=paid(point.paid), words=("answers a copy takes; no price is named", *time))
    return Tile(value=usd(point.usd), words=(f"a copy costs: {paid(point.paid)} answers", *time))


def _milestone(part: ExtractionPart) -> Iterator[Tile]:
    """The highest share of agreement that is reached, and the first that is not."""
    known = cheapest(part)
    near = [(share, m) for share, _, m in known if m is not None]
    never = [share for share, _, m in known if m is None]
    beyond = (f"no budget tried reaches {share_of(min(never))}",) if never else ()
    if near:
        share, found = max(near, key=lambda pair: pair[0])
        said = f"answers are the least budget tried whose copies agree on {share_of(share)}"
        yield Tile(value=f"{found.queries:,}", words=(said, *beyond))
    elif never:
        yield Tile(value="none", words=(f"of the budgets tried reaches {share_of(min(never))} agreement",))


def _closed(part: ExtractionPart, transfer: TransferPart) -> Iterator[Tile]:
    direct = part.direct
    if direct is None:
        return
    asked = f"{direct.queries:,} queries" + ("" if direct.usd is None else f", {usd(direct.usd)}")
    words = (f"of right rows broken without a copy, with as many queries; {direct_ends(direct)}", asked)
    yield Tile(value=percent(direct_rate(direct)), words=words)
    if direct.breaks_even is not None:
        yield Tile(value=f"{direct.breaks_even:,}", words=("broken inputs from which on the copy is the cheaper way",))
    else:
        yield Tile(value=NONE, words=(way_out(transfer, direct),))
