"""What a report says of an attacker who copies the model: copies, what they cost, what they are good for.

The independent unit is the copy: one that an extractor made with a seed of its own. Rows of several copies are never
counted as if they were independent.
"""

from __future__ import annotations

from redan.evidence.base import MeanPart, Part

__all__ = [
    "BudgetPart",
    "ComparedPart",
    "DirectPart",
    "ExtractionPart",
    "ExtractorPart",
    "MilestonePart",
    "TransferPart",
]


class ComparedPart(Part):
    """Copies beside the model on one set of rows."""

    rows: str
    """test, train or trusted; uniform: rows drawn from the whole box of inputs."""
    n: int
    """Rows that the model answered."""
    unanswered: int
    """Rows that it did not; nothing is known of them."""
    fidelity: MeanPart | None
    """Rows on which copy and model answer the same class."""
    accuracy: MeanPart | None
    """Rows that the copies answer right; None where no right answers are known."""
    model_accuracy: float | None
    worst: float
    """The largest total variation distance between a copy's and the model's probabilities that was found."""


class TransferPart(Part):
    """Inputs made on the copies, shown to the model."""

    success: MeanPart | None
    """Rows broken, of those that the model answers right."""
    rows: int
    """Rows that the model answers right: all of them were attacked."""
    errors: int
    """Rows on which the model or a copy failed, the most of the copies."""
    queries: float
    """Asked of the model for all rows besides what the copy cost, the mean of the copies."""
    usd: float | None
    """Of the copy and of these queries."""
    usd_per_success: float | None


class BudgetPart(Part):
    """What one budget bought: copies that differ in their seeds."""

    queries: int
    """Answers that could be bought at the most."""
    paid: float
    """Answers that were bought, the mean of the copies."""
    usd: float | None
    """What they cost; None without a price."""
    days: float | None
    """How long they take one customer at the API's rate limit; None without one."""
    saves: float | None
    """US dollars that a year of answers at that limit costs, less those of the copy: what it saves its owner; None
    without a price and a limit."""
    copies: int
    errors: int
    """Copies that could not be made."""
    undecided: int
    """Copies that our limits left out."""
    compared: list[ComparedPart]
    transfer: TransferPart | None
    """None where the attacker wants no transfer."""


class MilestonePart(Part):
    """The least budget tried at which copies agree so often with the model on the judged rows."""

    share: float
    queries: int | None
    """By the mean of the copies; None where none does."""
    shown: int | None
    """By the lower end of its interval."""
    usd: float | None
    """What `queries` cost."""


class ExtractorPart(Part):
    """One extraction attack, from the whole budget to the smallest part of it."""

    name: str
    settings: str
    techniques: list[str]
    status: str
    """done, cut (our limits ended the run), error, or not applicable."""
    reason: str | None
    points: list[BudgetPart]
    milestones: list[MilestonePart]


class DirectPart(Part):
    """The attacker's other way: the model attacked itself, with as many queries as the copy and its use cost."""

    attacks: list[str]
    queries_per_row: int
    """That it may ask for a row at the most."""
    rows: int
    """Rows that the model answers right: the same as of the transfer."""
    broken: int
    errors: int
    low: float
    high: float
    """Ends of the exact two-sided interval of broken of rows."""
    confidence: float
    queries: int
    """Asked in all."""
    usd: float | None
    usd_per_success: float | None
    breaks_even: int | None
    """Broken inputs from which on the copy is the cheaper way, at what each took; None where it never is, or is not
    known."""


class ExtractionPart(Part):
    """All that was measured of one extraction attacker."""

    goal: str
    """fidelity or transfer."""
    rows: str
    """On which rows copies are judged: test, train or trusted."""
    transfer: str | None
    """The evasion attacker who uses the copy."""
    answers: str
    """What an answer holds."""
    pool: str
    """Where the rows come from that were asked."""
    usd_per_1000_queries: float | None
    queries_per_day: float | None
    """The API's rate limit for one customer."""
    extractors: list[ExtractorPart]
    strongest: str | None
    """The extractor that goes furthest with the whole budget."""
    direct: DirectPart | None
    """Beside the strongest extractor's transfer."""
    notes: list[str]
    """What the attacker had to do without."""

    @property
    def measured(self) -> bool:
        """Whether any copy was made and judged."""
        return any(point.copies for extractor in self.extractors for point in extractor.points)
