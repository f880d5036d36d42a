"""What was asked of an endpoint, written before it is asked, and what came back: a file that outlives a kill.

A *question* is one request's inputs with all its tries (token-7.1, token-7.2, …). What is not settled is given again
to the next process that asks the same, first in, first out; a question that was cut off goes on where it stood. An
intent without an outcome is *unknown*: the endpoint may have answered it, so it is billed.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import weakref
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redan.errors import EvidenceError
from redan.wire.journal import VERSION, append, lines, opened, outcome_of, told
from redan.wire.outcome import Answer, Failure, Outcome, Refusal, Told


@dataclass(frozen=True, slots=True)
class Bill:
    """Requests of all sittings: sent = answered + refused + failed + unknown.

    refused: 429 and 503. failed: by reason; `unsent` of them never left, and are not in `sent`. unknown: without an
    outcome, which the endpoint may have answered. rows: inputs in the requests that were sent. replayed: questions of
    this sitting that were answered from the ledger.
    """

    sent: int = 0
    answered: int = 0
    refused: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    unknown: int = 0
    unsent: int = 0
    rows: int = 0
    replayed: int = 0


@dataclass(slots=True)
class Question:
    """One request's inputs, and how far it is. `outcome`: an answer or the last failure, if it has one."""

    key: str
    digest: str
    rows: int
    tries: int = 0
    failures: int = 0
    refusals: int = 0
    outcome: Answer | Told | Failure | None = None


class Ledger:
    """The ledger of one endpoint, in a file or (path None) in memory alone. Threads may share it, processes may not.

    Raises EvidenceError where the file cannot be written or read, is in use, or is another endpoint's.

    >>> Ledger(None).bill.sent
    0
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path: Path | None = None
        self._lock = threading.Lock()
        self._service: str | None = None
        self._token, self._number = secrets.token_hex(4), 0
        self._tally: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._open: dict[str, int] = {}
        self._past: dict[str, deque[Question]] = defaultdict(deque)
        self._standing: dict[str, Question] = {}
        self._file: int | None = None
        self._before: tuple[str, ...] = ()
        if path is not None:
            self.attach(path)

    def attach(self, path: str | os.PathLike[str]) -> None:
        """Keep a ledger of memory in a file from now on: what the file holds already was asked before.

        What was asked in memory is in the bill, and is never given again. Raises EvidenceError as the class does.
        """
        with self._lock:
            if self._file is not None:
                raise EvidenceError(f"the ledger is kept in {self.path} already; attach another one")
            service, spent, failed = self._service, +self._tally, +self._failed
            told_before = dict(self._standing)
            self.path, self._service = Path(path), None
            self._file = opened(self.path)
            self._finalizer = weakref.finalize(self, os.close, self._file)
            self._load()
            if service is not None and self._service is None:
                self._service = service
                self._write({"ledger": VERSION, "service": service})
            self._write({"sitting": self._token})
            self._before = tuple(self._open)
            del spent["replayed"]  # is told of one sitting alone
            if spent or failed:
                self._write({"before": dict(spent), "failed": dict(failed)})
            for digest, question in told_before.items():
                if isinstance(question.outcome, Told):
                    self._write({"stands": digest, "told": dict(question.outcome.facts)})
        if service is not None:
            self.belongs(service)

    # -- what was asked before ------------------------------------------------------------------------------

    @property
    def unknown(self) -> tuple[str, ...]:
        """Ids of earlier sittings that were sent, or about to be, and have no outcome."""
        return self._before

    def belongs(self, service: str) -> None:
        """Raise EvidenceError if the ledger was begun for another endpoint than the one of this digest."""
        with self._lock:
            if self._service is None:
                self._service = service
                self._write({"ledger": VERSION, "service": service})
            elif self._service != service:
                raise EvidenceError(
                    f"the ledger {self.path or 'in memory'} was begun for another endpoint or another reading of its "
                    "answers; give each its own"
                )

    def question(self, digest: str, rows: int) -> Question:
        """The earliest question about these inputs that was not settled and not taken yet, else a new one.

        rows 0: a question about the endpoint itself, whose answer stands for good.
        """
        with self._lock:
            if not rows and digest in self._standing:
                found = self._standing[digest]
            elif self._past.get(digest):
                found = self._past[digest].popleft()
            else:
                self._number += 1
                return Question(f"{self._token}-{self._number}", digest, rows)
            if found.outcome is not None:
                self._tally["replayed"] += 1
            return found

    # -- what is asked --------------------------------------------------------------------------------------

    def intend(self, question: Question) -> str:
        """The id of the question's next try, which is on disk when this returns."""
        question.tries += 1
        name = f"{question.key}.{question.tries}"
        with self._lock:
            self._write({"id": name, "intent": question.digest, "rows": question.rows})
            self._open[name] = question.rows
        return name

    def conclude(self, name: str, question: Question, outcome: Outcome, *, last: bool = False) -> None:
        """How a try ended. last: no other will follow."""
        line = {"id": name, **told(outcome, last)}
        with self._lock:
            self._write(line)
            self._close(name, question, outcome, last)
            if not question.rows and question.outcome is not None:
                self._standing[question.digest] = question

    def settle(self) -> None:
        """Everything so far is in finished work that is on disk: it will not be given again."""
        with self._lock:
            self._past.clear()
            self._write({"settled": True})
            if self._file is not None:
                os.fsync(self._file)

    @property
    def bill(self) -> Bill:
        """Requests of all sittings by how they ended."""
        with self._lock:
            tally, unknown, rows = self._tally, len(self._open), sum(self._open.values())
            return Bill(
                sent=tally["sent"] + unknown,
                answered=tally["answered"],
                refused=tally["refused"],
                failed=dict(self._failed),
                unknown=unknown,
                unsent=tally["unsent"],
                rows=tally["rows"] + rows,
                replayed=tally["replayed"],
            )

    def close(self) -> None:
        """Let another process use the file."""
        if self._file is not None:
            self._file = None
            self._finalizer()

    # -- private --------------------------------------------------------------------------------------------

    def _close(self, name: str, question: Question, outcome: Outcome, last: bool) -> None:
        rows = self._open.pop(name)
        match outcome:
            case Answer() | Told():
                self._tally["answered"] += 1
                question.outcome = outcome
            case Refusal():
                self._tally["refused"] += 1
                question.refusals += 1
            case Failure(reason=reason):
                self._failed[str(reason)] += 1
                question.failures += 1
                if last and reason.ours:  # it may be put right, and is asked anew
                    question.failures = 0
                elif last:
                    question.outcome = outcome
                if not reason.sent:
                    self._tally["unsent"] += 1
                    return
        self._tally["sent"] += 1
        self._tally["rows"] += rows

    def _write(self, line: Mapping[str, Any]) -> None:
        if self.path is None:
            return
        if self._file is None:
            raise EvidenceError(f"the ledger {self.path} is closed; open it anew")
        append(self._file, self.path, line)

    def _load(self) -> None:
        assert self._file is not None and self.path is not None  # noqa: S101, PT018  # for the type checker
        questions: dict[str, Question] = {}
        asked: dict[str, Question] = {}
        for number, line in enumerate(lines(self._file), 1):
            try:
                self._again(json.loads(line), questions, asked)
            except (ValueError, KeyError, TypeError) as error:
                raise EvidenceError(
                    f"line {number} of the ledger {self.path} is none of redan's; move the file away and begin anew"
                ) from error
        for question in questions.values():
            if question.rows:
                self._past[question.digest].append(question)

    def _again(self, line: Any, questions: dict[str, Question], asked: dict[str, Question]) -> None:
        match line:
            case {"ledger": 1, "service": str() as service}:
                self._service = service
            case {"sitting": str()}:
                pass
            case {"settled": True}:
                questions.clear()
            case {"before": dict() as spent, "failed": dict() as failed}:
                self._tally.update(spent)
                self._failed.update(failed)
            case {"stands": str() as digest, "told": dict()}:
                outcome, _ = outcome_of(line)
                if isinstance(outcome, Told):
                    self._standing[digest] = Question("", digest, 0, outcome=outcome)
            case {"id": str() as name, "intent": str() as digest, "rows": int() as rows}:
                key, _, at = name.rpartition(".")
                question = questions.get(key) or Question(key, digest, rows)
                question.tries = int(at)
                questions[key] = asked[name] = question
                self._open[name] = rows
            case {"id": str() as name}:
                outcome, last = outcome_of(line)
                question = asked.pop(name)
                self._close(name, question, outcome, last)
                if not question.rows and question.outcome is not None:
                    self._standing[question.digest] = question
            case _:
                raise ValueError
