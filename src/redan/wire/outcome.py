"""How one request may end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Reason(StrEnum):
    """Why a request got no answer; the words stand in the ledger and in a report's errors."""

    UNREACHABLE = "unreachable"
    """Nothing was sent: no address, no connection."""
    TLS = "TLS"
    """Nothing was sent: the other side is not who it should be."""
    RESET = "connection lost"
    TIMEOUT = "timeout"
    SERVER = "server error"
    """5xx."""
    GARBLED = "cut off"
    """No whole JSON."""
    MISFIT = "not understood"
    """JSON that is not what was to come."""
    TOO_LARGE = "too large"
    MOVED = "moved"
    """3xx: no other address is ever asked."""
    DENIED = "denied"
    """401 and 403."""
    MISSING = "no such address"
    """404 and 405."""
    REFUSED = "refused"
    """429 or 503, each time."""
    CLIENT = "bad request"
    """Any other 4xx."""

    @property
    def sent(self) -> bool:
        """Whether the endpoint may have seen the request."""
        return self not in (Reason.UNREACHABLE, Reason.TLS)

    @property
    def passing(self) -> bool:
        """Whether the same request may be answered the next time."""
        return self in (Reason.UNREACHABLE, Reason.RESET, Reason.TIMEOUT, Reason.SERVER, Reason.GARBLED)

    @property
    def ours(self) -> bool:
        """Whether the cause is how or where the endpoint is asked, and not the input."""
        return self in (Reason.UNREACHABLE, Reason.TLS, Reason.MOVED, Reason.DENIED, Reason.MISSING)


@dataclass(frozen=True, slots=True)
class Answer:
    """Numbers (N,) or (N, K), NaN where a class was left out."""

    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Told:
    """What an endpoint says of itself."""

    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer. why: in words; status: the HTTP status, where there was one."""

    reason: Reason
    why: str
    status: int | None = None

    def __str__(self) -> str:
        return f"{self.reason}: {self.why}" if self.why else str(self.reason)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Not now (429, 503). wait: seconds that the endpoint asks for, if it says."""

    status: int
    wait: float | None


Outcome = Answer | Told | Failure | Refusal
