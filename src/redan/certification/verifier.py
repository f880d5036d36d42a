"""What kind of proof a certificate is, in the words of ISO/IEC 24029-2:2023, clauses 5.3 and 6.2.1.

Every certificate here proves the standard's stability property (5.3): the class stays the same all over a domain around
the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = [
    "LINEAR_BOUNDS",
    "PARTITION",
    "PATCH_CLEANSER",
    "SMALLEST_CHANGE",
    "SMOOTHING",
    "Arithmetic",
    "Certainty",
    "Completeness",
    "Insight",
    "Verifier",
]


class Completeness(Enum):
    """Clause 6.2.1.2: what a row without a certificate means."""

    COMPLETE = "complete"
    """There is an input in the domain that changes the class."""
    INCOMPLETE = "incomplete"
    """Nothing: the row may be stable all the same."""


class Certainty(Enum):
    """Clause 6.2.1.3 (deterministic and non-deterministic verifiers): whether a certificate may be false."""

    DETERMINISTIC = "deterministic"
    """Never."""
    PROBABILISTIC = "probabilistic"
    """With a chance of α at the most, by the draws of the verifier."""


class Insight(Enum):
    """Clause 6.2.1.4: what the verifier sees of the model."""

    GLASS_BOX = "glass-box"
    """Its layers and weights."""
    CLOSED_BOX = "closed-box"
    """Its answers."""


class Arithmetic(Enum):
    """Clause 6.2.1.5: the numbers that the proof is about."""

    REAL = "real"
    """Real numbers: the model's rounding, and that of inputs, is left out."""
    COMPUTER = "computer"
    """Those that the model computes with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """A method of proof in the standard's words.

    >>> print(SMOOTHING)
    incomplete, probabilistic, closed-box verifier, real arithmetic
    """

    completeness: Completeness
    certainty: Certainty
    insight: Insight
    arithmetic: Arithmetic

    def __str__(self) -> str:
        kind = ", ".join(word.value for word in (self.completeness, self.certainty, self.insight))
        return f"{kind} verifier, {self.arithmetic.value} arithmetic"


SMOOTHING = Verifier(
    completeness=Completeness.INCOMPLETE,
    certainty=Certainty.PROBABILISTIC,
    insight=Insight.CLOSED_BOX,
    arithmetic=Arithmetic.REAL,
)
"""Randomized smoothing: `redan.certification.smoothing` and `redan.certification.stopping`."""

PATCH_CLEANSER = Verifier(
    completeness=Completeness.INCOMPLETE,
    certainty=Certainty.DETERMINISTIC,
    insight=Insight.CLOSED_BOX,
    arithmetic=Arithmetic.COMPUTER,
)
"""Two masks: `redan.certification.patch_cleanser`. A masked pixel is the same number whatever was there."""

LINEAR_BOUNDS = Verifier(
    completeness=Completeness.INCOMPLETE,
    certainty=Certainty.DETERMINISTIC,
    insight=Insight.GLASS_BOX,
    arithmetic=Arithmetic.COMPUTER,
)
"""Intervals and linear relaxations: `redan.certification.certified`; abstract interpretation, in clause 6.2.3."""

SMALLEST_CHANGE = Verifier(
    completeness=Completeness.COMPLETE,
    certainty=Certainty.DETERMINISTIC,
    insight=Insight.GLASS_BOX,
    arithmetic=Arithmetic.COMPUTER,
)
"""Trees, where the search ended: `redan.certification.trees`; a solver, in clause 6.2.2."""

PARTITION = Verifier(
    completeness=Completeness.INCOMPLETE,
    certainty=Certainty.DETERMINISTIC,
    insight=Insight.CLOSED_BOX,
    arithmetic=Arithmetic.COMPUTER,
)
"""Votes of models trained on parts: `redan.certification.poisoning`; the domain is training sets, not inputs."""
