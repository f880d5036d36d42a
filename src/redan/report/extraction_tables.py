"""What was measured of an attacker who copies the model as plain tables, for views of text."""

from __future__ import annotations

from redan.evidence.extracted import BudgetPart, ExtractionPart, ExtractorPart
from redan.report import extraction_words as words
from redan.report.figures import NONE, money, percent
from redan.report.means import Table, ends, value

__all__ = ["tables"]

_WITHOUT = "without a copy"


def tables(part: ExtractionPart) -> list[Table]:
    """What budgets buy, what the copies are worth, how far they are used, milestones: those with something to say."""
    found = [_budgets(part), _beside(part), _uses(part), _milestones(part)]
    return [table for table in found if table.rows]


def _points(part: ExtractionPart) -> list[tuple[ExtractorPart, BudgetPart]]:
    return [(each, point) for each in part.extractors for point in each.points]


def _budgets(part: ExtractionPart) -> Table:
    """A row a budget: answers, money, time, agreement."""
    priced, timed = words.priced(part), words.timed(part)
    more = (*(("USD",) if priced else ()), *(("days",) if timed else ()))
    rows = []
    for each, point in _points(part):
        of = words.compared(part, point)
        mean = None if of is None else of.fidelity
        cost = (
            words.paid(point.paid),
            *((money(point.usd),) if priced else ()),
            *((_days(point.days),) if timed else ()),
        )
        spent = cost if point.copies else (NONE,) * len(cost)
        rows.append((words.named(each), *spent, f"{point.copies:,}", value(mean), ends(mean)))
    return Table(heads=("extractor", "queries", *more, "copies", "agreement", "interval"), rows=tuple(rows))


def _beside(part: ExtractionPart) -> Table:
    """A row a budget: agreement on rows drawn at random, accuracy, the largest difference."""
    rows = []
    for each, point in _points(part):
        of, drawn = words.compared(part, point), words.uniform(point)
        if of is None:
            continue
        rows.append(
            (
                each.name,
                words.paid(point.paid),
                value(None if drawn is None else drawn.fidelity),
                value(of.accuracy),
                percent(of.model_accuracy),
                f"{of.worst:.2f}",
            )
        )
    heads = ("extractor", "queries", "uniform rows", "accuracy", "model's", "worst")
    return Table(heads=heads, rows=tuple(rows))


def _uses(part: ExtractionPart) -> Table:
    """A row a budget: rows broken by inputs that were made on the copies; the last one without a copy."""
    priced = words.priced(part)
    rows = []
    for each, point in _points(part):
        if (use := point.transfer) is not None:
            queries = words.paid(point.paid + use.queries)
            cost = (money(use.usd), money(use.usd_per_success)) if priced else ()
            rows.append((each.name, queries, f"{use.rows:,}", value(use.success), ends(use.success), *cost))
    if (direct := part.direct) is not None:
        cost = (money(direct.usd), money(direct.usd_per_success)) if priced else ()
        reach = f"{100 * direct.low:.1f}–{100 * direct.high:.1f}"
        rate = percent(words.direct_rate(direct))
        rows.append((_WITHOUT, f"{direct.queries:,}", f"{direct.rows:,}", rate, reach, *cost))
    more = ("USD", "USD each") if priced else ()
    return Table(heads=("way", "queries", "rows", "broken", "interval", *more), rows=tuple(rows))


def _milestones(part: ExtractionPart) -> Table:
    """A row an extractor and share of agreement: the least budget that reaches it."""
    priced = words.priced(part)
    rows = [
        (
            each.name,
            words.share_of(found.share),
            "not reached" if found.queries is None else f"{found.queries:,}",
            *((money(found.usd),) if priced else ()),
            NONE if found.shown is None else f"{found.shown:,}",
        )
        for each in part.extractors
        if any(point.copies for point in each.points)
        for found in each.milestones
    ]
    heads = ("extractor", "agreement", "queries", *(("USD",) if priced else ()), "shown by")
    return Table(heads=heads, rows=tuple(rows))


def _days(days: float | None) -> str:
    return NONE if days is None else f"{days:,.0f}" if days >= 9.95 else f"{days:.2g}"
