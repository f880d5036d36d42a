"""How extraction is tried: copies made, what their attacker has and is told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from redan.threat.parts import Count, Import, Loose, Part, Positive, wrong
from redan.threat.system import DataSource

__all__ = ["ExtractionRun"]


class ExtractionRun(Part):
    """How extraction attackers are tried; each copy is a model that an extractor made with a seed of its own."""

    copies: Annotated[int, Field(ge=2)] = 3
    """Copies that each extractor makes, from 2; how they differ is part of the interval."""
    curve: Loose[tuple[Annotated[float, Field(gt=0, lt=1)], ...]] | None = None
    """Shares of each attacker's answers of which copies are made too, between 0 and 1, both excluded; absent: none for
    mode quick, 1/2, 1/5, 1/10 by default, and 1/20, 1/50, 1/100 besides for audit."""
    queries: Count = 10_000
    """Answers that an attacker buys whose capability names no limit."""
    pool: DataSource | None = None
    """Rows that the attackers have to ask about; absent: the training rows if they are given, which is as good as a
    pool can be, and else rows drawn from the box of inputs."""
    surrogate: Import | None = None
    """A function "module:name" that takes (shape, classes) and returns what copies are: an untrained nn.Module, or an
    estimator with fit and predict (scikit-learn, boosted trees); absent: a small network of redan's."""
    decimals: Annotated[int, Field(ge=0)] | None = None
    """Decimals that answers are rounded to before anybody is shown them; absent: they are not."""
    top: Count | None = None
    """How many of the largest scores are shown; absent: all."""
    noise: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of normal noise on each shown score, the same for the same row."""
    queries_per_day: Positive | None = None
    """Answers that one customer gets a day at the most; the report tells how long a copy takes. Absent: no limit."""
    transfer_rows: Count = 200
    """Rows, the first of those drawn, that are attacked by way of each copy, and once directly."""
    uniform_rows: Count = 1000
    """Rows drawn from the box of inputs on which copies are compared with the model too."""

    @field_validator("curve")
    @classmethod
    def _once(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        twice = [share for i, share in enumerate(value or ()) if share in (value or ())[:i]]
        if twice:
            raise wrong(f"must name each share once, got {twice[0]:g} twice")
        return value
