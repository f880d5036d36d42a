"""The ledger's file and its lines.

One JSON object a line, appended:

{"ledger": 1, "service": digest}                       the first line: whose answers these are
{"sitting": token}                                     a process began
{"id": "token-7.1", "intent": digest, "rows": 1}       about to be sent; the id goes out as X-Request-ID
{"id": "token-7.1", "answer": [[0.1, 0.9]]}            numbers, exact; null for a class that was left out
{"id": "token-1.1", "told": {"tensor": "x"}}           what the endpoint says of itself: it stands for good
{"id": "token-7.1", "refused": 429}                    not now
{"id": "token-7.1", "failed": "timeout", "why": "…", "status": null, "last": true}
{"before": {"sent": 3}, "failed": {"timeout": 1}}      what was asked before the ledger had a file
{"stands": digest, "told": {"tensor": "x"}}            what the endpoint said of itself then
{"settled": true}                                      all above is in evidence that is on disk
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from redan.errors import EvidenceError
from redan.wire.outcome import Answer, Failure, Outcome, Reason, Refusal, Told

VERSION = 1
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def told(outcome: Outcome, last: bool) -> dict[str, Any]:
    """An outcome as a line has it."""
    match outcome:
        case Answer(values=values):
            return {"answer": _exact(values.tolist())}
        case Told(facts=facts):
            return {"told": dict(facts)}
        case Refusal(status=status):
            return {"refused": status}
        case Failure(reason=reason, why=why, status=status):
            return {"failed": str(reason), "why": why, "status": status, "last": last}


def outcome_of(line: Mapping[str, Any]) -> tuple[Outcome, bool]:
    """The outcome of a line, and whether no other was to follow. Raises ValueError where it holds none."""
    match line:
        case {"answer": list() as values}:
            return Answer(np.array(values, dtype=np.float64)), True
        case {"told": dict() as facts}:
            return Told({str(key): str(value) for key, value in facts.items()}), True
        case {"refused": int() as status}:
            return Refusal(status, None), False
        case {"failed": str() as reason, "why": str() as why, "status": status, "last": bool() as last}:
            return Failure(Reason(reason), why, status), last
        case _:
            raise ValueError


def _exact(values: Any) -> Any:
    """Nested lists of numbers, null for NaN; a number's text is read back as the very same number."""
    if isinstance(values, list):
        return [_exact(one) for one in values]
    return None if math.isnan(values) else values


def opened(path: Path) -> int:
    """The file, for this process alone. Raises EvidenceError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise EvidenceError(f"the ledger {path} cannot be opened ({error.strerror}); give a path on a disk") from error
    try:
        import fcntl  # not on Windows, where a second process is not noticed

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ModuleNotFoundError:
        pass
    except OSError as error:
        os.close(file)
        raise EvidenceError(f"the ledger {path} is in use by another run; wait for it, or give another path") from error
    return file


def lines(file: int) -> Iterator[bytes]:
    """The whole lines of a file; a last one that a kill cut off is dropped, from the file too."""
    whole, rest, at = 0, b"", 0
    while chunk := os.pread(file, 2**20, at):
        at += len(chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            whole += len(line) + 1
            yield line
    if rest:
        os.ftruncate(file, whole)


def append(file: int, path: Path, line: Mapping[str, Any]) -> None:
    """One more line, handed to the system before this returns. Raises EvidenceError."""
    rest = memoryview((_ENCODER.encode(line) + "\n").encode())
    try:
        while rest:
            rest = rest[os.write(file, rest) :]
    except OSError as error:
        raise EvidenceError(f"the ledger {path} cannot be written ({error.strerror}); make room") from error
