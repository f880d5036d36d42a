"""One request and its answer, over a connection that one thread keeps."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from redan.errors import TargetError
from redan.wire.outcome import Failure, Reason

_STALE = 1.0  # seconds: an idle connection is given up long before common servers do so (2 to 5), for a race lost
# there is a request of which nobody knows whether it arrived
_CHUNK = 2**16


@dataclass(frozen=True, slots=True)
class Received:
    """An answer as it came."""

    status: int
    retry_after: str | None
    body: bytes


class Connection:
    """A kept connection to one address: no proxy, no redirect, no second try of its own, certificates checked."""

    def __init__(self, url: str, timeout_seconds: float, most_bytes: int) -> None:
        self._urllib3 = _urllib3()
        self._url, self._timeout, self._most = url, timeout_seconds, most_bytes
        self._pool: Any = None
        self._used = 0.0

    def exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Received | Failure:
        """Send, and read the answer whole."""
        if self._pool is None or time.monotonic() - self._used > _STALE:
            self._renew()
        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            found = self._exchange(method, path, headers, body)
        except (self._urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            found = self._failure(error)
        if isinstance(found, Failure):
            self.close()
        self._used = time.monotonic()
        return found

    def close(self) -> None:
        """Let the connection go."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _renew(self) -> None:
        self.close()
        secure = {"cert_reqs": "CERT_REQUIRED"} if self._url.startswith("https:") else {}
        self._pool = self._urllib3.connection_from_url(
            self._url, maxsize=1, retries=False, timeout=self._urllib3.Timeout(self._timeout), **secure
        )

    def _exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> Received | Failure:
        end = time.monotonic() + self._timeout
        answer = self._pool.urlopen(
            method, path, body=body, headers=headers, redirect=False, preload_content=False, decode_content=False
        )
        try:
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                return Failure(Reason.MISFIT, "the answer is compressed, which was not asked for", answer.status)
            parts, size = [], 0
            while part := answer.read1(_CHUNK):
                parts.append(part)
                size += len(part)
                if size > self._most:
                    return Failure(Reason.TOO_LARGE, f"the answer has more than {self._most} bytes", answer.status)
                if time.monotonic() > end:
                    return Failure(Reason.TIMEOUT, f"not whole after {self._timeout:g} seconds", answer.status)
        except BaseException:
            answer.close()
            raise
        answer.release_conn()
        return Received(answer.status, answer.headers.get("Retry-After"), b"".join(parts))

    def _failure(self, error: Exception) -> Failure:
        kinds = self._urllib3.exceptions
        match error:
            case kinds.NameResolutionError():
                return Failure(Reason.UNREACHABLE, "its name is not known")
            case kinds.NewConnectionError():
                return Failure(Reason.UNREACHABLE, _last_words(error))
            case kinds.ConnectTimeoutError():
                return Failure(Reason.UNREACHABLE, f"no connection in {self._timeout:g} seconds")
            case kinds.SSLError():
                return Failure(Reason.TLS, _last_words(error))
            case kinds.TimeoutError() | TimeoutError():
                return Failure(Reason.TIMEOUT, f"no answer in {self._timeout:g} seconds")
            case _:
                return Failure(Reason.RESET, _last_words(error))


def clean(text: str) -> str:
    """One short line of plain characters: what others wrote, made fit for a report."""
    return re.sub(r"[^ -~]+", " ", text)[:120].strip()


def _last_words(error: Exception) -> str:
    """What the system said: the deepest cause's own text."""
    cause: BaseException = error
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
    said = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return clean(said)


def _urllib3() -> Any:
    try:
        import urllib3
    except ModuleNotFoundError as error:
        raise TargetError("asking an endpoint needs urllib3; pip install 'redan[http]'") from error
    return urllib3
