"""How long and how often a failing endpoint is asked again."""

from __future__ import annotations

import math
import random
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Exponential backoff with jitter, bounded.

    tries: requests for the same inputs that may fail before their rows are errors. refusals: 429 and 503 that they
    may meet before. first_seconds, longest_seconds: of the wait between two tries, which doubles. longest_pause: the
    most that a Retry-After is believed, in seconds. seed: of the jitter.
    """

    tries: int = 5
    refusals: int = 30
    first_seconds: float = 0.1
    longest_seconds: float = 10.0
    longest_pause: float = 60.0
    seed: int = 0

    def wait(self, digest: str, failures: int) -> float:
        """Seconds before the next try, after so many failures: half to one and a half times the doubled wait."""
        doubled = self.first_seconds * 2.0 ** min(failures - 1, 30)
        jitter = random.Random(f"{self.seed} {digest} {failures}").random()  # noqa: S311  # spreads load, keeps no secret
        return min(self.longest_seconds, doubled * (0.5 + jitter))


def retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, section 10.2.3): a number, or a date. None: neither.

    >>> retry_after("7")
    7.0
    """
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header) if len(header) < 10 else math.inf
    try:
        then = parsedate_to_datetime(header)
    except ValueError:
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - (now or datetime.now(UTC))).total_seconds())


class Pause:
    """When anyone is told to wait, all wait. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0

    def ask(self, seconds: float) -> None:
        """Let nobody send for so long from now."""
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)

    def over(self, stop: threading.Event) -> bool:
        """Wait until all may send, or until `stop`: False then."""
        while not stop.is_set():
            left = self._until - time.monotonic()
            if left <= 0:
                return True
            stop.wait(left)
        return False
