"""What a detector that is served with the model does to clean rows, in words."""

from __future__ import annotations

from redan.evidence.detected import DetectorPart
from redan.report.figures import NONE, percent

__all__ = ["refusals"]


def refusals(part: DetectorPart, confidence: float) -> str:
    """How many clean rows are refused, beside the rate that is stated."""
    stated = f"{100 * part.false_positive_rate:g}\N{NO-BREAK SPACE}% at the most are stated"
    made = f"its threshold is from {part.calibrated_on:,} trusted rows"
    if not part.rows:
        return f"{part.name} refused {NONE} of no clean row; {stated}, and {made}"
    level = f"{100 * confidence:g}\N{NO-BREAK SPACE}% interval {percent(part.low)} to {percent(part.high)}"
    over = ", which is shown to be exceeded" if part.exceeded else ""
    return (
        f"{part.name} refuses {part.refused:,} of {part.rows:,} clean rows ({percent(part.measured)}, {level}): "
        f"{stated}{over}; {made}. Refused rows count as wrong without an attack and as held under one"
    )
