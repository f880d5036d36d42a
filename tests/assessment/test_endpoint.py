"""An assessment of a model behind HTTP: its bill is the server's own log, also after it was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml

import redan
from redan.assessment.calls import LEDGER
from redan.assessment.forecast import forecast
from redan.errors import EvidenceError, SettingError, TargetError
from redan.evidence.report import Report, Verdict

pytestmark = pytest.mark.extras

SERVER = Path(__file__).parents[1] / "targets" / "served.py"
WEIGHT = np.array([[3.0, 2, 0, 0, 0, 0], [0, 0, 3, 2, 0, 0], [0, 0, 0, 0, 3, 2]])
CONCURRENCY = 4


class Served(NamedTuple):
    """A server that runs, and the log it writes before it answers."""

    url: str
    log: Path

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    running: list[subprocess.Popen[bytes]] = []

    def start(**scene: object) -> Served:
        log = tmp_path / f"server-{len(running)}.jsonl"
        told = json.dumps({"log": str(log), "latency": (0.0, 0.002), **scene})
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


def threat_model(folder: Path, url: str, **http: object) -> Path:
    """Rows near a boundary and rows far from it, one attacker who sees scores."""
    folder.mkdir(exist_ok=True)
    x = (np.random.default_rng(0).random((24, 6)) * 0.8).astype(np.float32)
    np.savez(folder / "rows.npz", x=x, y=(x @ WEIGHT.T).argmax(1))
    told = {
        "redan": 1,
        "system": {
            "name": "owls",
            "task": "classification",
            "classes": ["cat", "dog", "owl"],
            "model": {
                "http": {"url": url, "protocol": "oip-v2", "model": "linear", "concurrency": CONCURRENCY, **http}
            },
            "output": "probabilities",
            "inputs": {"kind": "tensor", "shape": [6], "bounds": [0, 1]},
            "data": {"test": {"path": "rows.npz"}},
        },
        "attackers": [
            {
                "name": "customer",
                "kind": "evasion",
                "why": "answers are sold per call",
                "goal": "untargeted",
                "knowledge": "scores",
                "change": {"linf": 0.05},
                "capability": {"queries_per_row": 60, "usd_per_1000_queries": 2.0},
            }
        ],
        "requirements": [{"metric": "robust_accuracy", "at_least": 0.2}],
        "run": {"out": "runs", "block": 8},
    }
    path = folder / "threat-model.yaml"
    path.write_text(yaml.safe_dump(told, sort_keys=False))
    return path


def test_the_bill_is_the_servers_log(serve: Callable[..., Served], tmp_path: Path) -> None:
    server = serve(errors=0.01, busy=0.02, cut=0.01, resets=0.01)
    report = redan.assess(threat_model(tmp_path / "shop", server.url))
    calls, counts = report.calls, report.attackers[0].counts

    assert calls is not None
    assert counts is not None
    assert counts.errors == 0
    assert counts.broken > 0
    assert calls.sent == len(server.requests)
    assert calls.sent == calls.answered + calls.refused + sum(calls.failed.values())
    assert calls.unknown == []
    assert calls.usd == pytest.approx(calls.rows * 2 / 1000)
    ledger = (Path(report.run.folder) / LEDGER).read_text()
    assert all(json.loads(line)["id"] in ledger for line in server.log.read_text().splitlines()[-100:])


def test_a_failing_row_is_an_error_and_never_helps_to_pass(serve: Callable[..., Served], tmp_path: Path) -> None:
    server = serve()
    path = threat_model(tmp_path / "shop", server.url)
    with np.load(path.parent / "rows.npz") as data:
        x, y = data["x"], data["y"]
    x[3, 0] = 0.99  # the server answers 500 to it, always
    np.savez(path.parent / "rows.npz", x=x, y=y)
    report = redan.assess(path)
    counts = report.attackers[0].counts
    assert counts is not None
    assert counts.errors == 1
    assert report.errors[0].reason.startswith("the endpoint gave no answer")


def test_killed_runs_pay_twice_for_what_was_under_way_alone(serve: Callable[..., Served], tmp_path: Path) -> None:
    calm = serve(latency=(0.0, 0.001))
    whole = redan.assess(threat_model(tmp_path / "calm", calm.url))
    slow = serve(latency=(0.0, 0.001))
    path = threat_model(tmp_path / "killed", slow.url)
    kills, asked = 3, 0
    resume: list[str] = []
    for _ in range(kills):
        run = subprocess.Popen(
            [sys.executable, "-m", "redan", "assess", str(path), "--quiet", *resume], stdout=subprocess.DEVNULL
        )
        end = time.monotonic() + 60
        asked += 150
        while len(slow.requests) < asked:
            assert run.poll() is None, "the run ended before it was killed"
            assert time.monotonic() < end
            time.sleep(0.005)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        asked = len(slow.requests)
        (folder,) = (path.parent / "runs").iterdir()
        resume = ["--resume", str(folder)]
    report = redan.assess(path, resume=folder)
    calls = report.calls

    assert calls is not None
    assert whole.calls is not None
    assert report.digests["evidence"] == whole.digests["evidence"]
    never_arrived = calls.sent - len(slow.requests)  # a kill between the bill and the wire
    assert 0 <= never_arrived <= min(CONCURRENCY * kills, len(calls.unknown))
    assert calls.replayed > 0
    extra = len(slow.requests) - len(calm.requests)
    assert 0 <= extra <= CONCURRENCY * kills
    assert len(calls.unknown) >= extra
    assert Report.model_validate_json((Path(report.run.folder) / "report.json").read_bytes()).calls == calls


def test_an_endpoint_is_not_tried_beforehand_and_needs_a_disk(serve: Callable[..., Served], tmp_path: Path) -> None:
    server = serve()
    path = threat_model(tmp_path / "shop", server.url)
    with pytest.raises(SettingError, match="not tried beforehand"):
        forecast(path)
    assert server.log.read_text() == "" if server.log.exists() else True
    with pytest.raises(EvidenceError, match="on a disk of this machine"):
        redan.assess(path, out="memory://runs")


def test_a_limit_in_money_counts_every_call(serve: Callable[..., Served], tmp_path: Path) -> None:
    """The preflight's too; a block that has begun is still measured again, a few calls a row."""
    server = serve()
    path = threat_model(tmp_path / "shop", server.url)
    path.write_text(path.read_text() + "limits: {usd: 0.8}\n")  # 400 calls
    report = redan.assess(path)
    assert report.limits_hit == ["usd"]
    assert 400 - CONCURRENCY <= len(server.requests) <= 400 + 8 * 8
    assert report.calls is not None
    assert report.calls.usd is not None
    assert report.calls.usd <= 0.8 * 1.17
    assert report.verdict is not Verdict.PASS


def test_an_endpoint_that_goes_away_ends_the_run_which_goes_on(serve: Callable[..., Served], tmp_path: Path) -> None:
    server = serve(life=4.0, latency=(0.01, 0.02))  # seconds, of about 1,000 requests' eight
    path = threat_model(tmp_path / "shop", server.url, timeout_seconds=1)
    with pytest.raises(TargetError, match=r"answered none of the last 16 questions .* --resume"):
        redan.assess(path)
    (folder,) = (path.parent / "runs").iterdir()
    again = serve()
    with pytest.raises(EvidenceError, match="changed since it began"):  # another address is another model
        path.write_text(path.read_text().replace(server.url, again.url))
        redan.assess(path, resume=folder)


def test_copies_share_what_was_bought_and_a_kill_costs_what_was_under_way(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    def selling(folder: Path, url: str) -> Path:
        path = threat_model(folder, url)
        told = yaml.safe_load(path.read_text())
        told["attackers"] = [
            {
                "name": "customer",
                "kind": "extraction",
                "why": "answers are sold per call",
                "knowledge": "scores",
                "goal": {"fidelity": "test"},
                "capability": {"queries_total": 100, "usd_per_1000_queries": 2.0},
            }
        ]
        told["requirements"] = []
        told["attacks"] = {"mode": "quick"}
        told["extraction"] = {"copies": 2, "pool": {"path": "pool.npz"}, "uniform_rows": 20}
        x = (np.random.default_rng(3).random((120, 6)) * 0.9).astype(np.float32)
        np.savez(folder / "pool.npz", x=x)
        path.write_text(yaml.safe_dump(told, sort_keys=False))
        return path

    calm = serve()
    whole = redan.assess(selling(tmp_path / "calm", calm.url))
    part = whole.attackers[0].extraction
    assert part is not None
    assert part.extractors[0].points[0].paid == 100  # each copy's customer pays for all of its answers
    asked = [line["asked"] for line in calm.requests if line["rows"]]
    bought = 120 + 24 + 20  # the pool, the rows copies are judged on
    assert len(set(asked)) <= bought
    assert whole.calls is not None
    assert whole.calls.sent == len(calm.requests)

    server = serve()
    path = selling(tmp_path / "killed", server.url)
    run = subprocess.Popen([sys.executable, "-m", "redan", "assess", str(path), "--quiet"], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(server.requests) < len(calm.requests) - 60:
        assert run.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < end
        time.sleep(0.005)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    (folder,) = (path.parent / "runs").iterdir()
    report = redan.assess(path, resume=folder)
    assert report.digests["evidence"] == whole.digests["evidence"]
    assert report.calls is not None
    assert 0 <= len(server.requests) - len(calm.requests) <= CONCURRENCY
    assert abs(report.calls.sent - len(server.requests)) <= CONCURRENCY
    assert report.calls.replayed > 0
