"""How poisoning is tried: models trained, shares measured, defenses beside them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, field_validator

from redan.threat.parts import Count, Loose, Part, Share, wrong

__all__ = ["Certificate", "Counts", "PoisoningRun"]


class Counts(StrEnum):
    """What one unit of a certified radius is."""

    ROWS = "rows"
    """A row added, taken away, or labeled anew."""
    LABELS = "labels"
    """A label changed, and no row."""


class Certificate(Part):
    """Many models on parts of the training rows, whose vote few poisoned rows cannot turn: a proof beside attacks."""

    parts: Count
    """Into how many parts the training rows are dealt."""
    copies: Count = 1
    """How many models each row is given to; parts · copies models are trained."""
    counts: Loose[Counts] = Counts.ROWS
    """What is counted."""


class PoisoningRun(Part):
    """How poisoning attackers are tried; each victim is a model trained by `system.training.call`."""

    victims: Annotated[int, Field(ge=2)] = 10
    """Models trained on poisoned rows, for each attack at the full share, and as many on clean rows; from 2. Where
    rows are chosen (`targeted_rows`), one for each of them."""
    curve: Loose[tuple[Annotated[float, Field(gt=0, lt=1)], ...]] | None = None
    """Shares of each attacker's share at which success is measured too, between 0 and 1, both excluded; absent: none
    for mode quick, 1/2, 1/5, 1/10 by default, and 1/20, 1/50 besides for audit. Not for chosen rows."""
    curve_victims: Count = 3
    """Models trained at each of those shares."""
    margin: Share = 0.01
    """The difference of clean accuracy that counts as none, above 0 and 1 at most."""
    detect: bool = True
    """Whether detectors look for the poisoned rows, and the model is repaired, in every mode."""
    repair_until: Share = 0.05
    """The attack's success at which a model counts as repaired, above 0 and 1 at most."""
    certify: Certificate | None = None
    """What is proven beside; absent: nothing."""

    @field_validator("curve")
    @classmethod
    def _once(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        twice = [share for i, share in enumerate(value or ()) if share in (value or ())[:i]]
        if twice:
            raise wrong(f"must name each share once, got {twice[0]:g} twice")
        return value
