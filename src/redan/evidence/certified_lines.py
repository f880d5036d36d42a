"""The lines of a run's log about rows that are proven right all over an attacker's set."""

from __future__ import annotations

from typing import Literal

from redan.evidence.base import LogPart

__all__ = ["ProofsLine", "ProvenLine", "UnprovableLine"]


class ProofsLine(LogPart):
    """Rows that were proven together, or not: how, and what it took. Their lines follow."""

    event: Literal["proofs"] = "proofs"
    attacker: str
    norm: Literal["linf", "l2"]
    radius: float
    """In units of the box."""
    completeness: Literal["complete", "incomplete"]
    certainty: Literal["deterministic", "probabilistic"]
    verifier: str
    """All words of ISO/IEC 24029-2 for how rows are proven."""
    seconds: float
    """Of the wall clock."""


class ProvenLine(LogPart):
    """One row: what is neither certified nor broken is open."""

    event: Literal["proven"] = "proven"
    attacker: str
    row: int
    """Its place in the order in which rows are taken."""
    id: str
    right: bool
    """Answered right as it stands."""
    certified: bool
    """Right, and proven to be all over the attacker's set."""
    broken: bool
    """Shown not to be: wrong as it stands, or where a complete search looked."""


class UnprovableLine(LogPart):
    """Why nothing can be proven against an attacker."""

    event: Literal["unprovable"] = "unprovable"
    attacker: str
    reason: str
