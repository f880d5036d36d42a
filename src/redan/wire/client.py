"""Many requests at once to one endpoint: asked again where it failed, paused where it refuses, all in the ledger."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redan.errors import TargetError
from redan.wire import service as chosen
from redan.wire.blame import gone, reason_of, refuse_babel, refused
from redan.wire.connection import Connection, Received, clean
from redan.wire.ledger import Ledger, Question
from redan.wire.messages import Messages, messages
from redan.wire.open_inference import DEFAULT_TENSOR, tensor_told
from redan.wire.outcome import Answer, Failure, Outcome, Reason, Refusal, Told
from redan.wire.patience import Patience, Pause, retry_after
from redan.wire.reading import Garbled, Misfit
from redan.wire.recognition import Seen
from redan.wire.secret import secret_of
from redan.wire.service import Reading, Service, signature

MOST_BYTES = 2**24
"""Of one answer: 16 MiB. A longer one is not read to its end."""
MOST_LOST = 16
"""Questions in a row, each tried as often as patience allows, that nobody answers: then the endpoint is gone."""


class Stopped(Exception):
    """The call ended before this request was sent."""


class Client:
    """Asks one endpoint. At most `service.concurrency` requests are under way, whoever calls.

    Raises TargetError where the secret is not in the environment, or urllib3 is not installed; EvidenceError where
    the ledger is another endpoint's.
    """

    def __init__(
        self, service: Service, reading: Reading, *, ledger: Ledger, patience: Patience, datatype: str
    ) -> None:
        """datatype: of inputs, FP32 or FP64."""
        self.service, self.ledger, self.seen = service, ledger, Seen()
        self._reading, self._patience, self._datatype = reading, patience, datatype
        self._secret = secret_of(service)
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"redan/{version('redan')}",
        } | ({} if self._secret is None else {self._secret.header: self._secret.value})
        messages(service, reading, told={}, datatype=datatype)  # raises for what cannot be meant so, as the next does
        Connection(service.url, service.timeout_seconds, MOST_BYTES)
        ledger.belongs(signature(service, reading))
        self._pause, self._getting_ready = Pause(), threading.Lock()
        self._kept = threading.local()
        self._connections: list[Connection] = []
        self._threads = ThreadPoolExecutor(service.concurrency, thread_name_prefix="redan-wire")
        self._messages: Messages | None = None
        self._answered = False
        self._lost = 0  # questions in a row that nobody answered
        self.notes: tuple[str, ...] = ()

    def ask(self, x: NDArray[Any]) -> list[tuple[range, Answer | Failure]]:
        """Answers to inputs (N, …), in pieces of `rows_per_request`, in order. Waits for all of them.

        Raises TargetError where the endpoint was never reached or refuses everybody, so that no row is to blame.
        """
        size = self.service.rows_per_request
        pieces = [range(at, min(at + size, len(x))) for at in range(0, len(x), size)]
        questions = [self.ledger.question(_digest(x[p.start : p.stop]), len(p)) for p in pieces]
        found: dict[int, Answer | Failure] = {}
        for at, question in enumerate(questions):
            if isinstance(question.outcome, Answer | Failure):
                found[at] = question.outcome
                if isinstance(question.outcome, Answer):
                    self._answered = True
                    self.seen.look(question.outcome.values)
        left = [at for at in range(len(pieces)) if at not in found]
        if left:
            how = self._ready()
            parts = [x[pieces[at].start : pieces[at].stop] for at in left]
            found |= zip(left, self._all(how, parts, [questions[at] for at in left]), strict=True)
        if not self._answered:
            refuse_babel(list(found.values()))
        return [(piece, found[at]) for at, piece in enumerate(pieces)]

    def close(self) -> None:
        """Let the connections and the ledger's file go."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for connection in self._connections:
            connection.close()
        self.ledger.close()

    # -- all of them ----------------------------------------------------------------------------------------

    def _all(
        self, how: Messages, parts: Sequence[NDArray[Any]], questions: Sequence[Question]
    ) -> list[Answer | Failure]:
        stop = threading.Event()
        futures: list[Future[Answer | Failure]] = [
            self._threads.submit(self._until_done, how, part, question, stop)
            for part, question in zip(parts, questions, strict=True)
        ]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            for future in futures:
                future.cancel()
            wait(futures)  # what is under way still reaches the ledger
        raised = [future.exception() for future in futures if not future.cancelled()]
        for error in raised:
            if error is not None and not isinstance(error, Stopped):
                raise error
        return [future.result() for future in futures]

    def _until_done(
        self, how: Messages, part: NDArray[Any], question: Question, stop: threading.Event
    ) -> Answer | Failure:
        body = how.encode(part)
        try:
            outcome = self._tried(question, stop, lambda name: self._infer(how, name, body, question.rows))
        except BaseException:
            stop.set()  # before this thread takes up another
            raise
        assert not isinstance(outcome, Told)  # noqa: S101  # for the type checker
        return outcome

    def _tried(
        self, question: Question, stop: threading.Event, send: Callable[[str], Outcome]
    ) -> Answer | Told | Failure:
        """The question's outcome, after as many tries as it takes or patience allows."""
        while True:
            if not self._pause.over(stop):
                raise Stopped
            name = self.ledger.intend(question)
            outcome = send(name)
            match outcome:
                case Refusal(status=status, wait=asked):
                    if question.refusals + 1 >= self._patience.refusals:
                        outcome = Failure(Reason.REFUSED, f"answered {status} each time", status)
                        self.ledger.conclude(name, question, outcome, last=True)
                        return outcome
                    self.ledger.conclude(name, question, outcome)
                    backoff = self._patience.wait(question.digest, question.refusals)
                    self._pause.ask(min(self._patience.longest_pause, backoff if asked is None else asked))
                case Failure(reason=reason):
                    last = not reason.passing or question.failures + 1 >= self._patience.tries
                    self.ledger.conclude(name, question, outcome, last=last)
                    if last:
                        if not self._answered and reason.ours:
                            raise refused(self.service, outcome)
                        self._lost = self._lost + 1 if reason.ours or reason is Reason.TIMEOUT else 0
                        if self._lost >= MOST_LOST:
                            raise gone(self.service, outcome, self._lost)
                        return outcome
                    stop.wait(self._patience.wait(question.digest, question.failures))
                case Answer() | Told():
                    self.ledger.conclude(name, question, outcome)
                    self._answered, self._lost = self._answered or isinstance(outcome, Answer), 0
                    return outcome

    # -- one of them ----------------------------------------------------------------------------------------

    def _infer(self, how: Messages, name: str, body: bytes, rows: int) -> Outcome:
        received = self._exchange("POST", self.service.address, name, body)
        if not isinstance(received, Received):
            return received
        try:
            values = how.decode(received.body, rows)
        except Garbled as error:
            return Failure(Reason.GARBLED, str(error), received.status)
        except Misfit as error:
            return Failure(Reason.MISFIT, self._plain(f"the endpoint answered {error}"), received.status)
        strange = self.seen.look(values)
        if strange is not None:
            return Failure(Reason.MISFIT, f"the endpoint answered {strange}", received.status)
        return Answer(values)

    def _exchange(self, method: str, url: str, name: str, body: bytes | None) -> Received | Failure | Refusal:
        """What came, if it is of status 200; what else it was, if not."""
        headers = self._headers | {"X-Request-ID": name}
        received = self._connection().exchange(method, url, headers, body)
        if isinstance(received, Failure) or received.status == 200:
            return received
        status, said = received.status, self._plain(received.body[:400].decode("utf-8", "replace"))
        if status == 429 or status == 503:
            return Refusal(status, retry_after(received.retry_after))
        return Failure(reason_of(status), f"answered {status}{f' ({said})' if said else ''}", status)

    def _connection(self) -> Connection:
        """This thread's own."""
        if not hasattr(self._kept, "connection"):
            self._kept.connection = Connection(self.service.url, self.service.timeout_seconds, MOST_BYTES)
            self._connections.append(self._kept.connection)
        connection: Connection = self._kept.connection
        return connection

    def _plain(self, text: str) -> str:
        """What an endpoint wrote, without the secret, should it tell it."""
        return clean(text if self._secret is None else self._secret.hidden(text))

    # -- the endpoint itself --------------------------------------------------------------------------------

    def _ready(self) -> Messages:
        with self._getting_ready:
            if self._messages is None:
                self._messages = messages(self.service, self._reading, told=self._described(), datatype=self._datatype)
            return self._messages

    def _described(self) -> dict[str, str]:
        """What a model of the Open Inference Protocol says of its input, where that was not declared."""
        if self.service.protocol is not chosen.Protocol.OIP_V2 or "tensor" in (self.service.request or {}):
            return {}
        question = self.ledger.question("description", 0)
        outcome = (
            question.outcome or self._threads.submit(self._tried, question, threading.Event(), self._describe).result()
        )
        match outcome:
            case Told(facts=facts) if facts:
                return dict(facts)
            case Told() | Failure(reason=Reason.CLIENT):
                self.notes = (f"the endpoint does not describe its model, so its input is named {DEFAULT_TENSOR}",)
                return {}
            case _:
                raise TargetError(
                    f"the endpoint {self.service.shown} did not describe its model ({outcome}); put that right, or "
                    "name its one input by request: {tensor: …, datatype: FP32}"
                )

    def _describe(self, name: str) -> Outcome:
        received = self._exchange("GET", self.service.described_at, name, None)
        match received:
            case Failure(reason=Reason.MISSING, why=why, status=status):
                return Failure(Reason.CLIENT, why, status)  # its model may well be there without
            case Failure() | Refusal():
                return received
            case Received():
                try:
                    return Told(tensor_told(received.body))
                except Garbled as error:
                    return Failure(Reason.GARBLED, str(error), received.status)
                except Misfit as error:
                    return Failure(Reason.MISFIT, str(error), received.status)


def _digest(part: NDArray[Any]) -> str:
    """Of inputs (n, …): bytes, type and shape."""
    key = f"{part.dtype.str}{part.shape}".encode()[:64]
    return hashlib.blake2b(np.ascontiguousarray(part).tobytes(), digest_size=16, key=key).hexdigest()
