"""One exchange with servers that break every rule: it ends in time, with a reason, and is counted as sent or not."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from redan.wire.connection import Connection, Received, clean
from redan.wire.outcome import Failure, Reason

pytestmark = pytest.mark.extras

Reply = Callable[[socket.socket], None]
OK = b"HTTP/1.1 200 OK\r\n"


def received(connection: socket.socket) -> bytes:
    """A whole request, or the first bytes of what is none."""
    found = b""
    while part := connection.recv(65536):
        found += part
        head, end, body = found.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if found[:1] == b"\x16" or (end and len(body) >= int(length[1] if length else 0)):
            break
    return found


class Heard:
    """A server of one thread that answers each connection in its own way; what it was sent is kept."""

    def __init__(self, *replies: Reply) -> None:
        self.requests: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(10)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, args=replies)
        self._thread.start()

    def _serve(self, *replies: Reply) -> None:
        with self._listening:
            for reply in replies:
                connection, _ = self._listening.accept()
                with connection:
                    connection.settimeout(10)
                    self.requests.append(received(connection))
                    with contextlib.suppress(OSError):  # the client may be gone
                        reply(connection)

    def close(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


def sending(*parts: bytes, pause: float = 0.0) -> Reply:
    def reply(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)

    return reply


def resetting(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.fixture
def ask() -> Iterator[Callable[..., Received | Failure]]:
    """One exchange with a server that replies so."""
    opened: list[Any] = []

    def exchange(reply: Reply, *, seconds: float = 5.0, most: int = 1000) -> Received | Failure:
        server = Heard(reply)
        connection = Connection(server.url, seconds, most)
        opened.extend((connection, server))
        return connection.exchange("POST", f"{server.url}/p?q=1", {"X-Request-ID": "i"}, b"{}")

    yield exchange
    for one in opened:
        one.close()


@pytest.mark.parametrize(
    "reply",
    [
        sending(OK + b"Content-Length: 4\r\n\r\nabcd"),
        sending(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", b"3\r\nbcd\r\n", b"0\r\n\r\n", pause=0.01),
        sending(OK + b"Connection: close\r\n\r\nab", b"cd", pause=0.01),
    ],
    ids=["length", "chunked", "until closed"],
)
def test_whole_answers_are_read(ask: Callable[..., Received | Failure], reply: Reply) -> None:
    assert ask(reply) == Received(200, None, b"abcd")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (sending(OK + b"Content-Length: 9\r\n\r\nabcd"), Reason.RESET),
        (sending(OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nab"), Reason.RESET),
        (sending(OK + b"Content-Length: 4\r\nContent-Encoding: gzip\r\n\r\nabcd"), Reason.MISFIT),
        (sending(OK + b"Content-Length: 5000\r\n\r\n" + b"a" * 5000), Reason.TOO_LARGE),
        (sending(b"\x00\x01nonsense\r\n\r\n"), Reason.RESET),
        (sending(OK + b"X: y\r\n" * 500 + b"\r\n"), Reason.RESET),
        (sending(), Reason.RESET),
        (resetting, Reason.RESET),
    ],
    ids=["short", "short chunk", "compressed", "large", "no HTTP", "many headers", "nothing", "reset"],
)
def test_broken_answers_have_a_reason_and_count_as_sent(
    ask: Callable[..., Received | Failure], reply: Reply, reason: Reason
) -> None:
    found = ask(reply)
    assert isinstance(found, Failure)
    assert found.reason is reason
    assert found.reason.sent


@pytest.mark.parametrize(
    "reply",
    [
        sending(OK + b"Content-Length: 90\r\n\r\n", *[b"a"] * 30, pause=0.1),
        sending(b"", pause=1.5),
    ],
    ids=["drip", "silence"],
)
def test_an_answer_has_its_time_however_it_is_spread(ask: Callable[..., Received | Failure], reply: Reply) -> None:
    start = time.monotonic()
    found = ask(reply, seconds=0.5)
    assert isinstance(found, Failure)
    assert found.reason is Reason.TIMEOUT
    assert time.monotonic() - start < 1.4


def test_nobody_there_is_nothing_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}", "http://name.invalid"):
        connection = Connection(url, 5.0, 1000)
        found = connection.exchange("POST", url, {}, b"")
        assert isinstance(found, Failure)
        assert found.reason is Reason.UNREACHABLE
        assert not found.reason.sent


def test_no_tls_is_nothing_sent() -> None:
    server = Heard(sending(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    url = server.url.replace("http:", "https:")
    found = Connection(url, 5.0, 1000).exchange("POST", url, {"Authorization": "s3cret"}, b"s3cret")
    server.close()
    assert isinstance(found, Failure)
    assert found.reason is Reason.TLS
    assert b"s3cret" not in server.requests[0]


def test_a_failed_connection_is_not_used_again_and_a_request_goes_out_once() -> None:
    server = Heard(sending(), sending(OK + b"Content-Length: 1\r\n\r\na"))
    connection = Connection(server.url, 5.0, 1000)
    first = connection.exchange("POST", f"{server.url}/p?q=1", {"X-Request-ID": "one"}, b"{}")
    second = connection.exchange("POST", f"{server.url}/p?q=1", {"X-Request-ID": "two"}, b"{}")
    server.close()
    connection.close()
    assert isinstance(first, Failure)
    assert second == Received(200, None, b"a")
    assert [b"one" in request for request in server.requests] == [True, False]
    assert server.requests[1].startswith(b"POST /p?q=1 HTTP/1.1\r\n")


def test_a_proxy_in_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server = Heard(sending(OK + b"Content-Length: 1\r\n\r\na"))
    connection = Connection(server.url, 5.0, 1000)
    assert connection.exchange("POST", server.url, {}, b"") == Received(200, None, b"a")
    connection.close()
    server.close()


def test_what_others_wrote_is_made_plain() -> None:
    assert clean("a\x1b[31m\nb\u202e" + "c" * 500) == "a [31m b " + "c" * 111
