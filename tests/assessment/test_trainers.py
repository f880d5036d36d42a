"""Processes that train victims: what they print, how they die, what they leave behind, when they are begun."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import numpy as np
import pytest

from redan.assessment.trainers import Task, trained
from redan.assessment.victim import Done, clean_victim, victim
from redan.assessment.workshop import Workshop
from redan.errors import TargetError

Write = Callable[..., Path]
Threads = Callable[[], AbstractContextManager[None]]
POISONED = {"attacker": "supplier", "poisoner": "table-trigger", "share": 0.2}


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def clean(count: int) -> list[Task]:
    return [Task("clean", {"number": number}) for number in range(count)]


def begun(path: Path) -> int:
    """How many trainings were begun."""
    file = path.parent / "trained"
    return len(file.read_text().splitlines()) if file.exists() else 0


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def gone(pids: list[int]) -> bool:
    """Whether all of them end within seconds: a signal takes its time."""
    end = time.monotonic() + 20
    while any(alive(pid) for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def same(one: Done, other: Done) -> bool:
    def plain(done: Done) -> dict[str, object]:
        asked = {name: tuple(counts) for name, counts in done.told.get("asked", {}).items()}
        return {**done.told, "asked": asked, "seconds": 0}

    arrays = set(one.arrays) == set(other.arrays) and all(
        np.array_equal(one.arrays[key], other.arrays[key]) for key in one.arrays
    )
    return arrays and plain(one) == plain(other)


posix = pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are POSIX's")


@posix
@pytest.mark.slow
def test_a_process_answers_whatever_the_training_prints_and_takes_its_helpers_along(
    supplied: Write, tmp_path: Path
) -> None:
    """What comes out is what comes out here, and nothing of it is left when the caller has enough."""
    path = supplied(tmp_path, "prints_with_helper")
    tasks = [*clean(1), Task("victim", {**POISONED, "number": 0}), *clean(40)[1:]]
    with closing(trained(path, digest_of(path), tasks, 1, lambda: True)) as found:
        first, second = next(found), next(found)
        helpers = [int(each.name.split("-")[1]) for each in tmp_path.glob("helper-*")]
        trainers = {int(line.split()[2]) for line in (tmp_path / "trained").read_text().splitlines()}
        assert len(helpers) >= 2
        assert all(alive(pid) for pid in helpers)
    assert gone([*helpers, *trainers])
    assert begun(path) < 40
    shop = Workshop(supplied(tmp_path / "here"))
    assert (first[0], second[0]) == (0, 1)
    assert same(first[1], clean_victim(shop, 0))
    assert same(second[1], victim(shop, "supplier", "table-trigger", 0.2, 0))


@posix
@pytest.mark.slow
def test_a_process_that_dies_is_told_with_its_last_words_and_its_helpers_die_too(
    supplied: Write, tmp_path: Path
) -> None:
    path = supplied(tmp_path, "helper_then_leaves")
    with pytest.raises(TargetError, match="the process that trains victims ended with 'segmentation fault, core dump"):
        list(trained(path, digest_of(path), clean(3), 1, lambda: True))
    (helper,) = [int(each.name.split("-")[1]) for each in tmp_path.glob("helper-*")]
    assert gone([helper])


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others(supplied: Write, tmp_path: Path) -> None:
    path = supplied(tmp_path, "leaves_at_three")
    done = []
    with pytest.raises(TargetError, match="ended with 'out of memory'"):
        done += list(trained(path, digest_of(path), clean(40), 2, lambda: True))
    pids = {int(line.split()[2]) for line in (tmp_path / "trained").read_text().splitlines()}
    assert gone(sorted(pids))
    assert begun(path) < 40


# -- in a thread ---------------------------------------------------------------------------------------------


def test_each_task_is_done_once_and_given_back_with_its_position(
    supplied: Write, in_threads: Threads, tmp_path: Path
) -> None:
    path = supplied(tmp_path)
    with in_threads():
        found = list(trained(path, digest_of(path), clean(3), 1, lambda: True))
    assert [at for at, _ in found] == [0, 1, 2]
    assert [done.told["seed"] for _, done in found] == [0, 1, 2]
    assert begun(path) == 3


def test_no_task_starts_no_process(supplied: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start() -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("redan.assessment.trainers._started", start)
    path = supplied(tmp_path)
    assert list(trained(path, digest_of(path), [], 2, lambda: True)) == []


def test_none_is_begun_when_no_more_may_be(supplied: Write, in_threads: Threads, tmp_path: Path) -> None:
    path = supplied(tmp_path)
    answers = iter([True, True, False])
    with in_threads():
        assert [at for at, _ in trained(path, digest_of(path), clean(5), 1, lambda: next(answers))] == [0, 1]
    assert begun(path) == 2


def test_nobody_is_asked_whether_there_may_be_more_when_nothing_is_left(
    supplied: Write, in_threads: Threads, tmp_path: Path
) -> None:
    """Else a limit that is reached with the last victim would be called hit."""
    path = supplied(tmp_path)
    answers = iter([True, True])
    with in_threads():
        assert len(list(trained(path, digest_of(path), clean(2), 1, lambda: next(answers)))) == 2


def test_what_is_not_wanted_any_more_is_left_out(supplied: Write, in_threads: Threads, tmp_path: Path) -> None:
    path = supplied(tmp_path)
    with in_threads():
        found = [at for at, _ in trained(path, digest_of(path), clean(4), 1, lambda: True, lambda at: at % 2 == 1)]
    assert found == [1, 3]
    assert begun(path) == 2


def test_none_is_begun_before_the_last_one_is_taken(supplied: Write, in_threads: Threads, tmp_path: Path) -> None:
    """However long whoever records it takes."""
    path = supplied(tmp_path)
    with in_threads(), closing(trained(path, digest_of(path), clean(6), 1, lambda: True)) as found:
        for many in range(1, 4):
            next(found)
            time.sleep(0.3)  # enough for all six
            assert begun(path) == many


def test_a_changed_threat_model_is_refused_before_anything_is_trained(
    supplied: Write, in_threads: Threads, tmp_path: Path
) -> None:
    path = supplied(tmp_path)
    with in_threads(), pytest.raises(TargetError, match="clean: the threat-model file changed while the run went on; "):
        list(trained(path, "0" * 64, clean(1), 1, lambda: True))
    assert begun(path) == 0


def test_a_task_that_cannot_be_begun_is_told(supplied: Write, in_threads: Threads, tmp_path: Path) -> None:
    path = supplied(tmp_path)
    with in_threads():
        with pytest.raises(TargetError, match="KeyError: 'dance'"):
            list(trained(path, digest_of(path), [Task("dance", {})], 1, lambda: True))
        (tmp_path / "train.npz").write_bytes(b"gone")
        ((_, done),) = trained(path, digest_of(path), clean(1), 1, lambda: True)
    assert f"{tmp_path / 'train.npz'} holds" in done.told["error"]


def test_no_thread_is_left_behind(supplied: Write, in_threads: Threads, tmp_path: Path) -> None:
    path, before = supplied(tmp_path), threading.active_count()
    with in_threads():
        found = trained(path, digest_of(path), clean(30), 1, lambda: True)
        next(found)
        found.close()
    end = time.monotonic() + 20
    while threading.active_count() > before:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert begun(path) < 30
