"""What a report says of rows that are proven right all over an attacker's set."""

from __future__ import annotations

from redan.evidence.base import Part

__all__ = ["CertifiedPart"]


class CertifiedPart(Part):
    """The rows drawn, under one attacker: certified + broken + open + missing is drawn.

    Certified rows are a lower bound of those that are robust, rows not broken an upper one.
    """

    norm: str | None
    """linf or l2; absent, as is all about the proofs, where none was tried."""
    radius: float | None
    """In units of the box."""
    completeness: str | None
    """Of the verifier: complete where a row without a certificate is shown to break, else incomplete."""
    certainty: str | None
    verifier: str | None
    """All words of ISO/IEC 24029-2 for the verifier."""
    drawn: int
    right: int
    """Answered right as they stand."""
    certified: int
    """Right, and proven to be all over the attacker's set."""
    broken: int
    """Wrong as they stand, or shown to break by a complete verifier."""
    open: int
    """Neither certified nor shown to break."""
    missing: int
    """Never tried: our limits, or an interrupt, ended the run before."""
    contradicted: int
    """Certified, and answered wrong or broken by an attack: one of the two is wrong, and nothing here is believed."""
    reason: str | None
    """Why nothing can be proven; absent where something can."""
    seconds: float
