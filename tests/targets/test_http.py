"""Endpoints: a real server in another process, whose own log is the truth about what was asked of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import redan
from redan.errors import EvidenceError, SettingError, TargetError
from redan.protocols import Access
from redan.targets.base import Output, is_remote
from redan.targets.http import HttpTarget, from_http
from redan.threat.model import Http
from redan.wire import Kind, Ledger, Patience, Protocol, Service, client
from redan.wire.messages import messages, read_as

pytestmark = pytest.mark.extras

SERVER = Path(__file__).with_name("served.py")
NAMES = ["cat", "dog", "owl"]
WEIGHT = torch.tensor([[3.0, 2, 0, 0, 0, 0], [0, 0, 3, 2, 0, 0], [0, 0, 0, 0, 3, 2]], dtype=torch.float64)
FAULTS = {"errors": 0.01, "busy": 0.02, "cut": 0.01, "resets": 0.02, "latency": (0.001, 0.005)}
QUICK = {"latency": (0.0, 0.002)}
HURRIED = Patience(first_seconds=0.01)


class Served(NamedTuple):
    """A server that runs."""

    url: str
    log: Path

    @property
    def lines(self) -> list[dict[str, Any]]:
        whole = self.log.read_text().rpartition("\n")[0]  # without a line that is being written
        return [json.loads(line) for line in whole.splitlines()]

    @property
    def fates(self) -> Counter[str]:
        return Counter(line["fate"] for line in self.lines)


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server as it is told to be."""
    running: list[subprocess.Popen[bytes]] = []

    def start(**scene: Any) -> Served:
        log = tmp_path / f"server-{len(running)}.jsonl"
        told = json.dumps({"log": str(log), **QUICK, **scene})
        running.append(subprocess.Popen([sys.executable, str(SERVER), told]))
        port, end = log.with_name(log.name + ".port"), time.monotonic() + 60
        while not port.exists():
            assert running[-1].poll() is None, "the server ended"
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.02)
        return Served(f"http://127.0.0.1:{port.read_text()}", log)

    yield start
    for process in running:
        process.terminate()
        process.wait(20)


def rows(count: int, seed: int = 0) -> Tensor:
    """Inputs that the server answers, also after a change of 0.1."""
    return torch.rand(count, 6, generator=torch.Generator().manual_seed(seed)) * 0.8


def truth(x: Tensor) -> Tensor:
    """The model's own logits, but for a constant a row."""
    return (x.double() @ WEIGHT.T).log_softmax(1)


def mapped(url: str, path: str = "/score", response: dict[str, Any] | None = None, **chosen: Any) -> Service:
    request = {"row": "$row"} if chosen.get("rows_per_request", 1) == 1 else {"rows": "$rows"}
    answer = response or {"scores": "result.scores"}
    return Service(url=url + path, protocol=Protocol.MAPPING, request=request, response=answer, **chosen)


# -- the protocols -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("described", [True, False])
def test_open_inference(serve: Serve, described: bool) -> None:
    server, x = serve(described=described), rows(7)
    with from_http(Service(url=server.url, protocol=Protocol.OIP_V2, model="linear"), classes=3) as target:
        assert torch.allclose(target(x).double(), truth(x), atol=1e-5)
        assert target.bill.sent == len(server.lines) == 8
        assert target.bill.rows == 7
        named = any("its input is named input-0" in note for note in target.notes)
    assert named is not described


def test_mlflow(serve: Serve) -> None:
    server, x = serve(), rows(7)
    service = Service(url=server.url, protocol=Protocol.MLFLOW, rows_per_request=3)
    with from_http(service, dtype=torch.float64) as target:
        assert torch.allclose(target(x.double()), truth(x), atol=1e-9)
    assert [line["rows"] for line in sorted(server.lines, key=lambda line: str(line["id"]))] == [3, 3, 1]


@pytest.mark.parametrize(
    ("path", "response", "size"),
    [
        ("/score", {"scores": "result.scores"}, 1),
        ("/scores", {"scores": "results.*.p"}, 3),
        ("/named", {"scores": "predictions.0", "classes": NAMES}, 1),
    ],
)
def test_mappings(serve: Serve, path: str, response: dict[str, Any], size: int) -> None:
    server, x = serve(), rows(7)
    with from_http(mapped(server.url, path, response, rows_per_request=size), classes=3) as target:
        assert torch.allclose(target(x).double(), truth(x), atol=1e-5)
        assert target.notes == ()


def test_the_best_classes_rounded_are_recognised_and_decide_as_the_model_does(serve: Serve) -> None:
    server, x = serve(), rows(40)
    service = mapped(server.url, "/top", {"scores": "0", "classes": NAMES})
    with from_http(service) as target:
        found = target(x)
        assert (found.argmax(1) == truth(x).argmax(1)).all()
        told = found.sort(1, descending=True).values[:, :2].double().exp()
        assert torch.allclose(told, truth(x).sort(1, descending=True).values[:, :2].exp(), atol=6e-4)
        assert found.isfinite().all()
        assert (target.recognised.digits, target.recognised.top_k) == (3, 2)
        assert len(target.notes) == 2
        assert target.classes == 3


def test_labels(serve: Serve) -> None:
    server, x = serve(), rows(9)
    service = mapped(server.url, "/label", {"labels": "label", "classes": NAMES})
    with from_http(service, output=Output.LABELS) as target:
        assert target.access is Access.LABELS
        assert (target(x).argmax(1) == truth(x).argmax(1)).all()
        assert is_remote(target)


# -- the bill ----------------------------------------------------------------------------------------------


def test_square_through_an_unreliable_server_ends_and_its_bill_is_the_servers_log(serve: Serve, tmp_path: Path) -> None:
    server, x = serve(seed=3, **FAULTS), rows(30)
    service = Service(url=server.url, protocol=Protocol.OIP_V2, model="linear", concurrency=8)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    with from_http(service, classes=3, ledger=ledger, patience=HURRIED) as target:
        result = redan.attack(target, x, truth(x).argmax(1), redan.Square(queries=40), within=redan.Linf(0.1))
        bill = target.bill
    assert bill.sent == len(server.lines)
    fates = server.fates
    assert min(fates[fate] for fate in ("errors", "busy", "cut", "resets")) > 0
    assert bill.refused == fates["busy"]
    assert bill.failed == {
        "server error": fates["errors"],
        "cut off": fates["cut"],
        "connection lost": fates["resets"],
    }
    assert bill.answered == fates["fine"] + fates["description"]
    assert (bill.unknown, bill.unsent) == (0, 0)
    ids = [line["id"] for line in server.lines]
    assert len(set(ids)) == len(ids)
    written = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert sorted(ids) == sorted(line["id"] for line in written if "intent" in line)
    assert result.errors == {}
    assert 0 < int(result.success.sum()) < 30
    assert (truth(result.adversarial).argmax(1) != truth(x).argmax(1))[result.success].all()
    assert max(line["under_way"] for line in server.lines) == 8


def test_faults_do_not_change_a_byte(serve: Serve) -> None:
    x, found = rows(12), []
    for scene in ({}, {"seed": 5, **FAULTS}):
        with from_http(mapped(serve(**scene).url), classes=3, patience=HURRIED) as target:
            result = redan.attack(target, x, truth(x).argmax(1), redan.Square(queries=30), within=redan.Linf(0.1))
            found.append((result.adversarial, result.queries))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_told_to_wait_all_wait(serve: Serve) -> None:
    server = serve(seed=1, busy=0.06, retry_after="1", latency=(0.05, 0.05))
    with from_http(mapped(server.url), classes=3) as target:
        assert target(rows(60)).isfinite().all()
    times = [line["at"] for line in server.lines]
    told = [line["at"] for line in server.lines if line["fate"] == "busy"]
    assert min(told) < sorted(times)[40]  # much was left to ask
    assert not [at for at in times for then in told if then + 0.3 < at < then + 0.99]


# -- failures ----------------------------------------------------------------------------------------------


def test_a_row_that_always_fails_is_an_error_and_never_robust(serve: Serve) -> None:
    server, x = serve(latency=(0, 0)), rows(6)
    x[2, 0] = 0.99
    y = truth(x).argmax(1)
    with from_http(mapped(server.url), classes=3, patience=HURRIED) as target:
        result = redan.attack(target, x, y, redan.Square(queries=20), within=redan.Linf(0.001))
        assert list(result.errors) == [2]
        assert "server error: answered 500" in result.errors[2]
        assert "the model fell over" in result.errors[2]
        assert not result.success.any()
        assert target.bill.failed == {"server error": 5 * int(server.fates["cursed"] / 5)}
        score = redan.robust_accuracy(target, x[2:3], y[2:3], within=redan.Linf(0.001), mode="quick")
        assert (score.value, score.low, score.high, score.errors) == (0, 0, 1, 1)
        assert target.bill.sent == len(server.lines)


def test_too_slow_is_a_timeout_of_the_row_and_billed(serve: Serve) -> None:
    server = serve(latency=(0.5, 0.5))
    patience = Patience(tries=2, first_seconds=0.01)
    with from_http(mapped(server.url, timeout_seconds=0.1), classes=3, patience=patience) as target:
        scores, reasons = target.asked(rows(2))
        assert scores.isnan().all()
        assert scores.shape == (2, 3)
        assert list(reasons) == [0, 1]
        assert "timeout: no answer in 0.1 seconds" in reasons[0]
        time.sleep(0.7)
        assert target.bill.sent == len(server.lines) == 4


def test_what_json_cannot_say_is_not_sent(serve: Serve) -> None:
    server, x = serve(), rows(3)
    x[1, 1] = torch.nan
    with from_http(mapped(server.url), classes=3) as target:
        scores, reasons = target.asked(x)
    assert scores.isnan().any(1).tolist() == [False, True, False]
    assert reasons == {}
    assert len(server.lines) == 2


def test_a_longer_answer_than_allowed_is_not_read(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MOST_BYTES", 10)
    with from_http(mapped(serve().url), classes=3) as target:
        _, reasons = target.asked(rows(1))
    assert "too large: the answer has more than 10 bytes" in reasons[0]


def test_a_wrong_token_is_told_at_once_without_the_secret(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server, path = serve(token="good", echo=True), tmp_path / "ledger.jsonl"  # noqa: S106
    monkeypatch.setenv("ENDPOINT_TOKEN", "Bearer wr0ng")
    service = mapped(server.url, auth_env="ENDPOINT_TOKEN")
    with from_http(service, classes=3, ledger=Ledger(path)) as target:
        with pytest.raises(TargetError, match="let nobody in .401.; check .* environment variable ENDPOINT_TOKEN") as e:
            redan.attack(target, rows(9), torch.zeros(9).long(), redan.Square(queries=9), within=redan.Linf(0.1))
        assert len(server.lines) <= service.concurrency
        assert "wr0ng" not in str(e.value) + repr(target) + path.read_text() + repr(service)
    monkeypatch.setenv("ENDPOINT_TOKEN", "Bearer good")
    with from_http(service, classes=3, ledger=Ledger(path)) as target:
        assert target(rows(9)).isfinite().all()
        assert target.bill.sent == len(server.lines)


def test_nobody_there_is_one_sentence() -> None:
    with from_http(mapped("http://127.0.0.1:9"), classes=3, patience=HURRIED) as target:
        with pytest.raises(TargetError, match="^the endpoint http://127.0.0.1:9/score cannot be reached") as raised:
            target(rows(2))
        assert "Connection refused" in str(raised.value)
        assert (target.bill.sent, target.bill.rows) == (0, 0)


def test_no_redirect_is_followed(serve: Serve) -> None:
    server = serve()
    with from_http(mapped(server.url, "/moved"), classes=3) as target, pytest.raises(TargetError, match="final url"):
        target(rows(1))
    assert server.fates == {"moved": 1}


def test_a_wrong_address_and_a_wrong_mapping_are_told_at_once(serve: Serve) -> None:
    server = serve()
    with from_http(mapped(server.url, "/nowhere")) as target, pytest.raises(TargetError, match="nothing answers at"):
        target(rows(1))
    for response, classes in (({"scores": "result.probabilities"}, None), ({"scores": "result.scores"}, 4)):
        target = from_http(mapped(server.url, "/score", response), classes=classes)
        with target, pytest.raises(TargetError, match="answers are not understood"):
            target(rows(1))


def test_urllib3_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(TargetError, match=re.escape("pip install 'redan[http]'")):
        from_http(mapped("http://127.0.0.1:9"))


def test_values_that_cannot_be_are_refused() -> None:
    service = mapped("http://127.0.0.1:9")
    with pytest.raises(SettingError, match="low < high"):
        from_http(service, bounds=(1, 0))
    with pytest.raises(SettingError, match="dtype must be"):
        from_http(service, dtype=torch.float16)
    with pytest.raises(SettingError, match="needs classes=K"):
        from_http(mapped("http://127.0.0.1:9", "/label", {"labels": "label"}), output=Output.LABELS)
    ledger = Ledger()
    from_http(service, ledger=ledger).client
    with pytest.raises(EvidenceError, match="another endpoint"):
        from_http(mapped("http://127.0.0.1:9", "/label"), ledger=ledger)


# -- kills -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forked() -> Iterator[subprocess.Popen[str]]:
    """What attacks in processes of their own, one after another."""
    process = subprocess.Popen(
        [sys.executable, str(SERVER.with_name("attacking.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    with process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


def attacked(
    forked: subprocess.Popen[str], server: Served, ledger: Path, out: Path, *, kill_after: int | None = None
) -> int:
    """How an attack ended; with SIGKILL once the server has seen so many requests of it."""
    assert forked.stdin is not None
    assert forked.stdout is not None
    goal, end = len(server.lines) + (kill_after or 0), time.monotonic() + 60
    forked.stdin.write(json.dumps([server.url, str(ledger), str(out)]) + "\n")
    forked.stdin.flush()
    process = int(forked.stdout.readline())
    if kill_after is not None:
        while len(server.lines) < goal:
            assert time.monotonic() < end
            time.sleep(0.002)
        os.kill(process, signal.SIGKILL)
    ended = int(forked.stdout.readline())
    time.sleep(0.1)  # what had arrived is written down
    return ended


@pytest.mark.parametrize("faults", [{}, {"seed": 11, **FAULTS}], ids=["reliable", "unreliable"])
def test_killed_again_and_again_it_ends_with_the_same_bytes_and_pays_for_little_more(
    serve: Serve, forked: subprocess.Popen[str], tmp_path: Path, faults: dict[str, Any]
) -> None:
    slow = {"latency": (0.005, 0.02)}
    calm, server, kills = serve(**slow), serve(**(faults | slow)), (7, 60, 41)
    path, ended = tmp_path / "ledger.jsonl", tmp_path / "ended"
    assert attacked(forked, calm, tmp_path / "calm.jsonl", tmp_path / "calm") == 0
    for lines in kills:
        assert attacked(forked, server, path, ended, kill_after=lines) == -signal.SIGKILL
        assert not ended.exists()
    assert attacked(forked, server, path, ended) == 0
    assert ended.read_bytes() == (tmp_path / "calm").read_bytes()
    assert b"answered 500" in ended.read_bytes()

    ledger = Ledger(path)
    unknown, bill = ledger.unknown, ledger.bill
    ledger.close()
    ids = {line["id"] for line in server.lines}
    assert len(ids) == len(server.lines)
    assert len(unknown) == bill.unknown <= 4 * len(kills)
    assert bill.sent == len(ids | set(unknown))
    # what reached the server beyond what an undisturbed run sends is unknown, or a fault that the server had
    excused = Counter(line["fate"] for line in server.lines if line["id"] not in unknown)
    assert {fate: excused[fate] for fate in ("fine", "description", "cursed")} == dict(calm.fates)
    if not faults:
        extra = len(server.lines) - len(calm.lines)
        assert 0 < extra <= len(unknown)


def test_interrupted_it_waits_for_what_is_under_way_and_sends_no_more(serve: Serve) -> None:
    server = serve(latency=(0.05, 0.1))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's is ignored
    with from_http(mapped(server.url), classes=3) as target, contextlib.ExitStack() as after:
        after.callback(signal.signal, signal.SIGINT, before)
        timer = threading.Timer(0.5, signal.pthread_kill, (threading.main_thread().ident or 0, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            target(rows(500))
        timer.join()
        assert target.bill.unknown == 0
        assert 0 < target.bill.answered == target.bill.sent == len(server.lines) < 500


def test_settled_answers_are_asked_for_again_by_the_next_run(serve: Serve, tmp_path: Path) -> None:
    server, x = serve(), rows(5)

    def run(settle: bool) -> HttpTarget:
        with from_http(mapped(server.url), classes=3, ledger=Ledger(tmp_path / "ledger.jsonl")) as target:
            target(x)
            if settle:
                target.settle()
        return target

    run(False)
    assert run(True).bill.replayed == 5
    assert len(server.lines) == 5
    run(True)
    assert len(server.lines) == 10


def test_scores_are_the_same_from_the_wire_and_from_the_ledger(serve: Serve, tmp_path: Path) -> None:
    server, x, found = serve(), rows(20), []
    for _ in range(2):
        service = mapped(server.url, "/top", {"scores": "0", "classes": NAMES})
        with from_http(service, ledger=Ledger(tmp_path / "ledger.jsonl")) as target:
            found.append((target(x).numpy().tobytes(), target.notes))
    assert found[0] == found[1]
    assert np.frombuffer(found[0][0], np.float32).size == 60
    assert len(server.lines) == 20


# -- the page ----------------------------------------------------------------------------------------------

PAGE = (SERVER.parents[2] / "docs" / "targets" / "http.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_pages_program_runs(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, (program,) = serve(), blocks("python")
    assert "http://127.0.0.1:8000" in program
    monkeypatch.chdir(tmp_path)
    exec(compile(program.replace("http://127.0.0.1:8000", server.url), "docs/targets/http.md", "exec"), {})  # noqa: S102  # our own document
    said = capsys.readouterr().out
    found = re.fullmatch(r"(\d+) of 16 rows are broken\n(\d+) requests were sent, (\d+) of them answered\n", said)
    assert found is not None
    assert int(found[1]) > 0
    assert int(found[2]) == int(found[3]) == len(server.lines)


def test_the_pages_endpoints_are_endpoints() -> None:
    found = blocks("yaml")
    assert len(found) == 5
    for block in found:
        said = Http.model_validate(yaml.safe_load(block)).http
        service = Service(
            url=said.url,
            protocol=Protocol[said.protocol.name],
            model=said.model,
            request=said.request,
            response=said.response,
            rows_per_request=said.rows_per_request,
        )
        from_http(service, classes=3).close()


@pytest.mark.parametrize("row", [line for line in PAGE.splitlines() if re.match(r"\| `[\[{]", line)])
def test_the_pages_answers_are_read_as_it_says(row: str) -> None:
    answer, response = re.findall(r"`([^`]+)`", row.replace('`"$rows"`', ""))
    mapping = yaml.safe_load(response.replace(", …", ""))
    text = answer.replace(", …", "")
    kind = Kind.LABELS if "labels" in mapping else Kind.VALUE if "value" in mapping else Kind.PROBABILITIES
    service = mapped("http://127.0.0.1:9", "/", mapping, rows_per_request=1)
    if "$rows" in row:
        service = replace(service, request={"rows": "$rows"})
    how = messages(service, read_as(service, kind, None), told={}, datatype="FP32")
    found = how.decode(text.encode(), 1)
    expected = {Kind.LABELS: [1], Kind.VALUE: [12.5]}.get(kind)
    assert found.tolist() == expected if expected else np.nanargmax(found, 1).tolist() == [1]
