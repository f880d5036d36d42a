"""A run that is broken off anywhere goes on: the same report, and no finished row asked again."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import redan
from redan.assessment.build import Built
from redan.assessment.opening import environment, on_path
from redan.errors import EvidenceError
from redan.evidence.folder import REPORT
from redan.evidence.log import RowLine, parsed
from redan.evidence.report import Report
from redan.goals import Task
from redan.oracle import Limits
from redan.samples import fashion_mnist, model
from redan.targets import TorchTarget, from_torch
from redan.targets.torch import accelerated

Write = Callable[..., Path]
COUNT = 32


@pytest.fixture
def counted(shop: Write, tmp_path: Path) -> Callable[..., Path]:
    """A shop whose model writes down, row by row, what it was asked.

    One broken row fails the requirement, so that nothing is left to examine: rows are asked by attacks alone.
    """

    def write(seconds: float = 0.0, **changed: Any) -> Path:
        draw = np.random.default_rng(7)
        x = np.full((COUNT, 7), 0.5)
        y = np.arange(COUNT) % 3
        for row, c in enumerate(y):
            x[row, 2 * c : 2 * c + 2] += draw.uniform(0.004, 0.02) if row % 3 == 0 else 0.2
        x[:, 6] = (np.arange(COUNT) + 0.5) / COUNT
        x[0, :2] = 0.95  # the rows fill the box
        arguments = {"kind": "Counting", "count": COUNT, "asked": str(tmp_path / "asked"), "seconds": seconds}
        return shop(
            arrays={"x": x.astype(np.float32), "y": y},
            system__model__arguments=arguments,
            attackers__0__change={"linf": 0.01},
            run__block=4,
            **{"requirements__0__at_least": 1.0, **changed},
        )

    return write


def asked(tmp_path: Path) -> list[int]:
    return [int(line) for line in (tmp_path / "asked").read_text().split()]


def but_times(report: Report) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(report.model_dump_json())
    for key in ("id", "folder", "started", "seconds"):
        del found["run"][key]
    for part in found["attackers"]:
        for attack in part["attacks"]:
            del attack["seconds"]
    return found


def finished(run: Path) -> set[int]:
    """Places in the data of the rows that have a whole line in the log."""
    found = set()
    for path in (run / "log").glob("*.jsonl"):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                said = parsed(line)
                if isinstance(said, RowLine):
                    found.add(said.index)
    return found


def cut(run: Path, at: int) -> None:
    """The run folder as it would be if it had been broken off after so many bytes of log."""
    for path in sorted((run / "log").iterdir()):
        size = path.stat().st_size
        if at <= 0:
            path.unlink()
        elif at < size:
            path.write_bytes(path.read_bytes()[:at])
        at -= size
    (run / REPORT).unlink()


def test_a_run_cut_off_at_any_byte_goes_on(counted: Write, tmp_path: Path) -> None:
    path = counted()
    whole = redan.assess(path, workers=1)
    folder = Path(whole.run.folder)
    first = (folder / "log" / "000001.jsonl").stat().st_size
    size = sum(file.stat().st_size for file in (folder / "log").iterdir())
    for at in random.Random(3).sample(range(first, size), 6):
        run = tmp_path / f"cut-{at}"
        shutil.copytree(folder, run)
        cut(run, at)
        done = finished(run)
        before = len(asked(tmp_path))
        again = redan.assess(path, resume=run, workers=2)
        assert but_times(again) == but_times(whole), at
        assert done.isdisjoint(asked(tmp_path)[before:]), at
        assert set(range(COUNT)) - done <= set(asked(tmp_path)[before:]), at
        assert Report.model_validate_json((run / REPORT).read_bytes()) == again


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_run_goes_on(counted: Write, tmp_path: Path) -> None:
    """SIGKILL at 20 random times, and the last segment torn at a random byte besides."""
    path = counted(seconds=0.004)
    whole = redan.assess(path, workers=2)
    draw = random.Random(11)
    lengths = []
    for number in range(20):
        out = tmp_path / f"kill-{number}"
        command = [sys.executable, "-m", "redan", "assess", str(path), "--out", str(out), "--workers", "2"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(out.glob("*/log/*.jsonl")):
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 2.5))
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
        (run,) = out.iterdir()
        last = sorted((run / "log").glob("*.jsonl"))[-1]
        if last.name != "000001.jsonl" and number % 2:
            content = last.read_bytes()
            last.write_bytes(content[: draw.randrange(len(content))])
        done = finished(run)
        lengths.append(len(done))
        before = len(asked(tmp_path))
        again = redan.assess(path, resume=run, workers=2)
        assert but_times(again) == but_times(whole), number
        assert done.isdisjoint(asked(tmp_path)[before:]), number
    assert len(set(lengths)) > 4, lengths  # they were killed at different points


def test_a_finished_run_is_not_run_again(counted: Write, tmp_path: Path) -> None:
    path = counted()
    whole = redan.assess(path)
    before = len(asked(tmp_path))
    again = redan.assess(path, resume=whole.run.folder)
    assert again == whole
    assert len(asked(tmp_path)) == before


def test_rows_that_our_limits_cut_off_go_on(counted: Write, tmp_path: Path) -> None:
    path = counted()
    whole = redan.assess(path, workers=1)
    part = redan.assess(path, workers=1, limits=Limits(queries=700))
    assert part.limits_hit == ["queries"]
    counts = part.attackers[0].counts
    assert counts is not None
    assert 0 < counts.undecided < COUNT
    again = redan.assess(path, resume=part.run.folder, workers=1, limits=Limits(queries=10**6))
    assert but_times(again) == but_times(whole)
    assert again.limits_hit == []


def test_an_interrupt_leaves_a_run_that_goes_on(counted: Write, tmp_path: Path) -> None:
    path = counted(seconds=0.002)
    whole = redan.assess(path, workers=1)
    calls = 0

    def watch(_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        redan.assess(path, workers=1, watch=watch, out=tmp_path / "stopped")
    (run,) = (tmp_path / "stopped").iterdir()
    assert not (run / REPORT).exists()
    done = finished(run)
    assert 0 < len(done) < COUNT
    before = len(asked(tmp_path))
    again = redan.assess(path, resume=run, workers=1)
    assert but_times(again) == but_times(whole)
    assert done.isdisjoint(asked(tmp_path)[before:])


def test_a_gate_goes_on_too(counted: Write, tmp_path: Path) -> None:
    path = counted(statistics={"gate": True})
    whole = redan.assess(path)
    run = tmp_path / "cut"
    shutil.copytree(whole.run.folder, run)
    sizes = [file.stat().st_size for file in sorted((run / "log").iterdir())]
    cut(run, sum(sizes[:3]) + 40)
    assert but_times(redan.assess(path, resume=run)) == but_times(whole)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.write_text(path.read_text() + "# more\n"), "the threat-model file"),
        (lambda path: _other_rows(path.parent / "rows.npz"), "the data, the rows drawn"),
    ],
    ids=["file", "data"],
)
def test_what_changed_since_is_named(counted: Write, change: Callable[[Path], object], words: str) -> None:
    path = counted()
    report = redan.assess(path, limits=Limits(queries=300))
    change(path)
    with pytest.raises(EvidenceError, match=f"cannot go on: {words} changed since it began"):
        redan.assess(path, resume=report.run.folder)


def _other_rows(path: Path) -> None:
    with np.load(path) as file:
        x, y = file["x"], file["y"]
    x[5, 0] += 0.01
    np.savez(path, x=x, y=y)


def test_a_run_goes_on_with_the_gradient_path_that_it_began_with() -> None:
    x, y = (torch.from_numpy(part[:8]) for part in fashion_mnist())
    built = Built(from_torch(model("residual")), {}, Task.CLASS, x, y, None, tuple(range(8)), "", None, ())
    names = [str(row) for row in range(8)]
    assert environment(on_path(built, names))["gradient_path"] == "products and folded norms"
    for words in ("plain", "products", "folded norms"):
        begun = on_path(built, names, words)
        assert environment(begun)["gradient_path"] == words
        kept = accelerated(begun.target, x)
        assert isinstance(kept, TorchTarget)
        assert kept.fast is not None
        assert kept.fast.words == words


def test_a_folder_without_a_log_is_no_run(counted: Write, tmp_path: Path) -> None:
    (tmp_path / "empty" / "log").mkdir(parents=True)
    for where in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(EvidenceError, match="is no run folder"):
            redan.assess(counted(), resume=where)


def test_a_run_folder_may_be_on_any_filesystem(counted: Write) -> None:
    path = counted()
    whole = redan.assess(path)
    report = redan.assess(path, out="memory://evidence/runs")
    assert report.run.folder.startswith("memory://evidence/runs/2")
    assert but_times(report) == but_times(whole)
    assert redan.assess(path, resume=report.run.folder) == report


def test_an_address_that_nothing_serves_is_one_sentence(counted: Write) -> None:
    with pytest.raises(EvidenceError, match="the run folder's address cannot be used"):
        redan.assess(counted(run__out="nosuch://bucket/runs"))
