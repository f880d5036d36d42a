"""Reports of attackers who copy the model, put together by hand; their requirements are judged as a run's are."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

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
from redan.evidence.report import AttackerPart, Report
from redan.evidence.requirement import Requirement
from redan.evidence.statistics import interval
from redan.evidence.verdict import judge
from redan.evidence.victims import Victims

__all__ = ["CUSTOMER", "KINDS", "copied"]

CUSTOMER = "API customer"
PRICE, DAILY = 1.5, 1000.0
ROWS = 1000
BUDGETS = (20_000, 10_000, 4_000, 2_000)


def mean(about: float, copies: int = 3, rows: int = ROWS) -> MeanPart | None:
    """A rate over copies that differ a little, with its real interval."""
    draw = random.Random(f"{about}")
    each = tuple(round(min(1.0, max(0.0, about + draw.uniform(-0.004, 0.004))), 4) for _ in range(copies))
    return Victims(rates=each, rows=rows).part(0.95)


def compared(agreement: float, right: float, copies: int = 3, **more: Any) -> list[ComparedPart]:
    """Copies beside the model on the test rows and on rows of the whole box."""
    test = ComparedPart(
        **{"rows": "test", "n": ROWS, "unanswered": 0, "model_accuracy": 0.903, "worst": 0.83, **more},
        fidelity=mean(agreement, copies),
        accuracy=mean(right, copies),
    )
    box = ComparedPart(
        **{"rows": "uniform", "n": ROWS, "unanswered": 0, "accuracy": None, "model_accuracy": None, "worst": 0.97},
        fidelity=mean(agreement - 0.35, copies),
    )
    return [test, box]


def budget(queries: int, agreement: float, right: float, copies: int = 3, **more: Any) -> BudgetPart:
    """What one budget bought, at 1.50 USD for 1,000 answers and 1,000 answers a day."""
    said: dict[str, Any] = {
        "paid": float(queries),
        "usd": queries * PRICE / 1000,
        "days": queries / DAILY,
        "saves": (365 * DAILY - queries) * PRICE / 1000,
    }
    said |= {"copies": copies, "errors": 0, "undecided": 0, "transfer": None}
    said |= {"compared": compared(agreement, right, copies) if copies else []}
    return BudgetPart(queries=queries, **{**said, **more})


def extractor(name: str, points: Sequence[BudgetPart], **more: Any) -> ExtractorPart:
    """An attack with its milestones, done unless more says otherwise."""
    said = {"settings": f"{name}(seed=0)", "techniques": ["AML.T0024.002"], "status": "done", "reason": None}
    return ExtractorPart(
        name=name, points=list(points), milestones=[milestone(points, s) for s in (0.9, 0.95, 0.99)], **{**said, **more}
    )


def milestone(points: Sequence[BudgetPart], share: float) -> MilestonePart:
    found = [(point, of) for point in points if point.compared and (of := point.compared[0].fidelity)]
    by_mean = min((point for point, of in found if of.value >= share), key=lambda p: p.paid, default=None)
    by_low = min((point for point, of in found if of.low >= share), key=lambda p: p.paid, default=None)
    return MilestonePart(
        share=share,
        queries=None if by_mean is None else round(by_mean.paid),
        shown=None if by_low is None else round(by_low.paid),
        usd=None if by_mean is None else by_mean.usd,
    )


def unfit(name: str, reason: str) -> ExtractorPart:
    return extractor(name, [], status="not applicable", reason=reason)


def part(extractors: Sequence[ExtractorPart], strongest: str | None, **more: Any) -> ExtractionPart:
    said: dict[str, Any] = {"goal": "fidelity", "rows": "test", "transfer": None}
    said |= {"answers": "probabilities of all classes", "pool": "the training rows, 6,000 rows"}
    said |= {"usd_per_1000_queries": PRICE, "queries_per_day": DAILY, "direct": None, "notes": []}
    return ExtractionPart(extractors=list(extractors), strongest=strongest, **{**said, **more})


def fidelity() -> ExtractionPart:
    """Two that copy, one of them better, and one that cannot be used."""
    knockoff = zip(BUDGETS, (0.957, 0.931, 0.884, 0.822), (0.884, 0.871, 0.834, 0.79), strict=True)
    copycat = zip(BUDGETS, (0.921, 0.889, 0.833, 0.761), (0.866, 0.842, 0.8, 0.74), strict=True)
    return part(
        [
            extractor("knockoff-nets", [budget(*each) for each in knockoff]),
            extractor("copycat-cnn", [budget(*each) for each in copycat]),
            unfit("equation-solving", "the model has 78,500 parameters, more than answers can be bought"),
        ],
        "knockoff-nets",
        notes=["no extraction.pool is given, so the attacker asks about the training rows"],
    )


def use(queries: int, success: float) -> TransferPart:
    """Of 400 rows, each shown to the model once."""
    usd = (queries + 400) * PRICE / 1000
    said = {"success": mean(success, rows=400), "rows": 400, "errors": 0, "queries": 400.0, "usd": usd}
    return TransferPart(**said, usd_per_success=usd / (400 * success))


def transfer() -> ExtractionPart:
    """Copies that are used, beside the model attacked itself."""
    rates = zip((2_000, 1_000), (0.884, 0.822), (0.834, 0.79), (0.62, 0.41), strict=True)
    exact = interval(92, 400, 0.95)
    direct = DirectPart(
        **{"attacks": ["square"], "queries_per_row": 6, "rows": 400, "broken": 92, "errors": 1},
        **{"low": exact.low, "high": exact.high, "confidence": 0.95},
        **{"queries": 2_310, "usd": 3.465, "usd_per_success": 3.465 / 92, "breaks_even": 85},
    )
    points = [budget(q, a, r, transfer=use(q, s)) for q, a, r, s in rates]
    return part(
        [extractor("jacobian-augmentation", points)],
        "jacobian-augmentation",
        goal="transfer",
        transfer="anyone with a camera",
        direct=direct,
    )


def errors() -> ExtractionPart:
    """One copy, one that could not be made, one that limits left out; no price and no limit of the API."""
    point = budget(5_000, 0.87, 0.82, 1, usd=None, days=None, saves=None, errors=1, undecided=1)
    point = point.model_copy(update={"compared": compared(0.87, 0.82, 1, unanswered=12)})
    return part([extractor("knockoff-nets", [point])], "knockoff-nets", usd_per_1000_queries=None, queries_per_day=None)


def cut() -> ExtractionPart:
    """Limits ended the run: one extractor has two copies of three, the other has none."""
    reason = {"status": "cut", "reason": "our limit of seconds ended it"}
    first = budget(20_000, 0.93, 0.88, 2, undecided=1)
    none = budget(20_000, 0.0, 0.0, 0, paid=0.0, usd=0.0, days=0.0, undecided=3)
    return part(
        [extractor("knockoff-nets", [first], **reason), extractor("copycat-cnn", [none], **reason)], "knockoff-nets"
    )


def nothing() -> ExtractionPart:
    """Nothing could be tried."""
    return part([unfit(name, "the model answers no rows of ours") for name in ("knockoff-nets", "copycat-cnn")], None)


KINDS = {"fidelity": fidelity, "transfer": transfer, "errors": errors, "cut": cut, "nothing": nothing}


def copied(found: ExtractionPart, frame: Report, at_most: float = 0.9) -> Report:
    """A report of one attacker of whom this was found; all else is the frame's."""
    attacker = AttackerPart(
        **{"name": CUSTOMER, "kind": "extraction", "why": "answers are sold per call", "goal": found.goal},
        **{"impact": "medium", "techniques": ["AML.T0024.002"], "change": None, "knowledge": "scores"},
        **{"status": "assessed", "reason": None if found.measured else "the model answers no rows of ours"},
        **{"strength": "standard" if found.measured else "not tested", "counts": None, "attacks": []},
        **{"by_class": [], "curve": [], "success_8bit": None, "diagnosis": [], "retries": [], "defended": []},
        **{"transfers": None, "certified": None, "poisoning": None},
        extraction=found,
    )
    metric = "transfer_success" if found.goal == "transfer" else "extraction_fidelity"
    bare = frame.model_copy(update={"attackers": [attacker], "requirements": [], "risks": []})
    judged = judge(bare, [Requirement.model_validate({"metric": metric, "at_most": at_most, "against": CUSTOMER})])
    return bare.model_copy(
        update={
            "verdict": judged.verdict,
            "exit_code": judged.exit_code,
            "reasons": list(judged.reasons),
            "requirements": list(judged.requirements),
        }
    )
