"""What every view says in the same words of an attacker who copies the model."""

from __future__ import annotations

from collections.abc import Iterator

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
from redan.evidence.extraction_tally import reached as wanted
from redan.report.figures import days, percent, usd
from redan.report.means import interval

__all__ = [
    "DONE",
    "about",
    "beside",
    "bought",
    "cheapest",
    "compared",
    "direct_ends",
    "direct_rate",
    "headline",
    "judged_rows",
    "left_out",
    "milestones",
    "missing",
    "named",
    "over",
    "paid",
    "priced",
    "reached",
    "rows_asked",
    "share_of",
    "strongest",
    "timed",
    "uniform",
    "used",
    "wanted",
    "way_out",
    "whole",
]

DONE = "done"
"""The status of what was measured to its end."""
_UNIFORM = "uniform"
_ROWS = {"test": "test rows", "train": "training rows", "trusted": "trusted rows", _UNIFORM: "rows drawn at random"}


def strongest(part: ExtractionPart) -> ExtractorPart | None:
    """The extractor that goes furthest with the whole budget; None where no copy is known."""
    return next((each for each in part.extractors if each.name == part.strongest and each.points), None)


def whole(part: ExtractionPart) -> BudgetPart | None:
    """What the strongest extractor's whole budget bought; None where nothing is known of it."""
    found = strongest(part)
    point = None if found is None else found.points[0]
    return None if point is None or wanted(point, part.goal, part.rows) is None else point


def judged_rows(rows: str) -> str:
    """Rows on which copies are compared with the model, in words."""
    return _ROWS.get(rows, f"{rows} rows")


def compared(part: ExtractionPart, point: BudgetPart) -> ComparedPart | None:
    """The copies beside the model on the rows on which they are judged."""
    return next((each for each in point.compared if each.rows == part.rows), None)


def uniform(point: BudgetPart) -> ComparedPart | None:
    """The copies beside the model on rows drawn from the whole box of inputs."""
    return next((each for each in point.compared if each.rows == _UNIFORM), None)


def over(mean: MeanPart) -> str:
    """What a mean is taken over, in words."""
    return "1 copy" if len(mean.each) == 1 else f"{len(mean.each):,} copies"


def sure(mean: MeanPart) -> str:
    """How sure a mean is, in words."""
    return f"{interval(mean)}, {over(mean)}"


def paid(queries: float) -> str:
    """A number of answers; the mean of copies is rounded."""
    return f"{queries:,.0f}"


def priced(part: ExtractionPart) -> bool:
    """Whether answers have a price."""
    return part.usd_per_1000_queries is not None


def timed(part: ExtractionPart) -> bool:
    """Whether the API limits what one customer may ask a day."""
    return bool(part.queries_per_day)


def bought(point: BudgetPart) -> str:
    """What a budget's answers cost in money and time, in words."""
    money = "" if point.usd is None else f" for {usd(point.usd)}"
    time = "" if point.days is None else f" in {days(point.days)} at the API's limit for one customer"
    return f"{paid(point.paid)} answers{money}{time}"


def reached(part: ExtractionPart) -> str:
    """How far the attacker got, in a few words."""
    point = whole(part)
    mean = None if point is None else wanted(point, part.goal, part.rows)
    if mean is None:
        return "nothing could be measured"
    if part.goal == "transfer":
        return f"{percent(mean.value)} of right rows broken by inputs made on a copy"
    return f"a copy answers {percent(mean.value)} of the {judged_rows(part.rows)} as the model does"


def rows_asked(part: ExtractionPart) -> str:
    """The rows that the rate is of which the attacker wants, in words."""
    return "the rows that the model answers right" if part.goal == "transfer" else judged_rows(part.rows)


def headline(part: ExtractionPart) -> Iterator[str]:
    """What was found, a sentence each: the copy and its price, what it is good for, its accuracy, milestones."""
    found, point = strongest(part), whole(part)
    if found is None or point is None:
        why = dict.fromkeys(each.reason or each.status for each in part.extractors)
        yield "nothing could be measured: " + ("; ".join(why) or "no extractor was tried")
        return
    yield f"{found.name} copies the model: {bought(point)} give a copy{_agreeing(part, point)}"
    if point.transfer is not None:
        yield from used(part, point, point.transfer)
    if point.saves is not None and point.saves > 0:
        yield f"a year of answers at the API's limit for one customer costs {usd(point.saves)} more than the copy"
    yield from beside(part, point)
    yield from milestones(part)
    if said := missing(part):
        yield said


def _agreeing(part: ExtractionPart, point: BudgetPart) -> str:
    of = compared(part, point)
    if of is None or of.fidelity is None:
        return ""
    return f" that agrees on {percent(of.fidelity.value)} of the {judged_rows(of.rows)} ({sure(of.fidelity)})"


def beside(part: ExtractionPart, point: BudgetPart) -> Iterator[str]:
    """The copy beside the model: accuracy, rows drawn at random, the worst difference, rows without an answer."""
    of, drawn = compared(part, point), uniform(point)
    if of is not None and of.accuracy is not None:
        model = "" if of.model_accuracy is None else f", the model {percent(of.model_accuracy)}"
        rows = judged_rows(of.rows)
        yield f"the copy answers {percent(of.accuracy.value)} of the {rows} right ({interval(of.accuracy)}){model}"
    if drawn is not None and drawn.fidelity is not None and drawn is not of:
        yield f"on rows drawn at random from all inputs it agrees on {percent(drawn.fidelity.value)}"
    if of is not None and of.n:
        yield (
            f"where they differ most, {of.worst:.2f} of the probability lies on other classes "
            "(total variation distance; 1 is no overlap at all)"
        )
    if of is not None and of.unanswered:
        yield f"{of.unanswered:,} {judged_rows(of.rows)} got no answer of the model: nothing is known of them"


def cheapest(part: ExtractionPart) -> list[tuple[float, ExtractorPart, MilestonePart | None]]:
    """For each share of agreement the extractor that reaches it with the fewest answers; None where none does."""
    found = []
    for share in dict.fromkeys(m.share for each in part.extractors if each.points for m in each.milestones):
        ways = [(each, m) for each in part.extractors for m in each.milestones if m.share == share and each.points]
        near = [(each, m) for each, m in ways if m.queries is not None]
        best = min(near, key=lambda way: way[1].queries or 0, default=None)
        found.append((share, *(best or (ways[0][0], None))))
    return found


def milestones(part: ExtractionPart) -> Iterator[str]:
    """The least budget tried for each share of agreement, in one sentence."""
    known = cheapest(part)
    said = [_least(share, each, m, part) for share, each, m in known if m is not None]
    never = [share_of(share) for share, _, m in known if m is None]
    if said:
        yield f"of the budgets tried, {'; '.join(said)}"
    if never:
        yield f"no budget tried reaches {_listed(never)} agreement"


def _least(share: float, extractor: ExtractorPart, found: MilestonePart, part: ExtractionPart) -> str:
    money = "" if found.usd is None else f", {usd(found.usd)}"
    by = f" by {extractor.name}" if extractor.name != part.strongest else ""
    if found.shown == found.queries:
        shown = ""
    else:
        shown = " (by the mean; not shown)" if found.shown is None else f" (by the mean; shown with {found.shown:,})"
    return f"{share_of(share)} agreement takes {found.queries:,} answers{by}{money}{shown}"


def share_of(value: float) -> str:
    """A milestone in percent."""
    return f"{100 * value:g}\N{NO-BREAK SPACE}%"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def direct_rate(direct: DirectPart) -> float | None:
    """Of the rows that the model answers right, those that were broken without a copy."""
    return direct.broken / direct.rows if direct.rows else None


def used(part: ExtractionPart, point: BudgetPart, transfer: TransferPart) -> Iterator[str]:
    """What the copy buys, beside attacking the model itself with as many queries: a sentence each."""
    who = f"{part.transfer} on the copy" if part.transfer else "inputs made on the copy"
    mean = transfer.success
    far = "nothing that can be counted" if mean is None else f"{percent(mean.value)} ({sure(mean)})"
    cost = f"{paid(point.paid)} queries for the copy and {paid(transfer.queries)} to use it"
    yield f"{who}: {far} of the {transfer.rows:,} right rows broken, {cost}{_money(transfer)}"
    if transfer.errors:
        yield f"on {transfer.errors:,} of these rows the model or a copy failed; such rows count as not broken"
    direct = part.direct
    if direct is None:
        yield "nothing is known of an attack on the model itself with as many queries"
        return
    rate = direct_rate(direct)
    exact = f"{direct.broken:,} of {direct.rows:,}; {direct_ends(direct)}"
    yield (
        f"the model itself, attacked without a copy by {', '.join(direct.attacks) or 'nothing'}: {percent(rate)} "
        f"broken ({exact}), {direct.queries:,} queries, {direct.queries_per_row:,} a row at the most{_money(direct)}"
    )
    if direct.errors:
        yield f"on {direct.errors:,} of these rows the direct attack failed; such rows count as not broken"
    yield way_out(transfer, direct)


def direct_ends(direct: DirectPart) -> str:
    """The interval of what was broken without a copy, in words."""
    low, high = (f"{100 * end:.1f}" for end in (direct.low, direct.high))
    return f"{100 * direct.confidence:g}\N{NO-BREAK SPACE}% interval {low} to {high}\N{NO-BREAK SPACE}%"


def _money(of: TransferPart | DirectPart) -> str:
    if of.usd is None:
        return ""
    each = "" if of.usd_per_success is None else f", {usd(of.usd_per_success)} for each broken input"
    return f"; {usd(of.usd)} in all{each}"


def way_out(transfer: TransferPart, direct: DirectPart) -> str:
    """Which way is the cheaper one, and from when on, in words."""
    copy_breaks = transfer.success is not None and transfer.success.value > 0
    if direct.breaks_even is not None:
        many = "broken inputs" if direct.breaks_even != 1 else "broken input"
        return f"from {direct.breaks_even:,} {many} on the copy is the cheaper way"
    if copy_breaks and direct.broken:
        return "the copy is never the cheaper way: each input made on it takes as many queries as one made without it"
    if copy_breaks:
        return "the copy is the only way that broke anything"
    return "the copy broke nothing; the direct way did" if direct.broken else "neither way broke anything"


def named(part: ExtractorPart) -> str:
    """A name, with its status where that is not the usual one."""
    return part.name if part.status == DONE else f"{part.name} ({part.status})"


def left_out(part: ExtractionPart) -> list[str]:
    """What was not done to its end, and why."""
    return [f"{each.name}: {each.reason or each.status}" for each in part.extractors if each.status != DONE]


def missing(part: ExtractionPart) -> str | None:
    """Copies of whom nothing is known, in words; None where there is none."""
    points = [each.points[0] for each in part.extractors if each.points]
    errors, undecided = sum(p.errors for p in points), sum(p.undecided for p in points)
    told = ((errors, "could not be made"), (undecided, "left out"))
    said = ", ".join(f"{count:,} {how}" for count, how in told if count)
    return f"copies of which nothing is known: {said}; they never help to pass" if said else None


def about(part: ExtractionPart) -> list[tuple[str, str]]:
    """What the attacker had to work with: (what, in words)."""
    per_1000, daily = part.usd_per_1000_queries, part.queries_per_day
    said = [
        ("an answer holds", part.answers),
        ("rows come from", part.pool),
        ("judged on", judged_rows(part.rows)),
        ("price", "none is named" if per_1000 is None else f"{usd(per_1000)} for 1,000 answers"),
        ("rate limit", "none is named" if not daily else f"{daily:,.0f} answers a day for one customer"),
    ]
    return said + ([("used by", part.transfer)] if part.transfer else [])
