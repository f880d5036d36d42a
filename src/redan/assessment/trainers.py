"""Processes that train victims side by side, each with one thread, and give back what came out as it is done."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NamedTuple

from redan.assessment import trainer_child
from redan.assessment.victim import Done
from redan.errors import TargetError
from redan.formats.isolated_child import read_frame, write_frame

__all__ = ["Task", "trained"]

_ONE_THREAD = MappingProxyType(
    dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")
)


class Task(NamedTuple):
    """One thing to be done by a process: which, and its arguments, plain values."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Trainer:
    """One process and its pipes."""

    running: subprocess.Popen[bytes]
    requests: IO[bytes]
    replies: IO[bytes]
    errors: IO[bytes]

    def ask(self, threat_model: Path, digest: str, task: Task) -> Done:
        """What came out of a task. Raises TargetError where the process ended, or the task could not be begun."""
        header = {
            "threat_model": str(threat_model),
            "digest": digest,
            "task": task.name,
            "arguments": dict(task.arguments),
        }
        try:
            write_frame(self.requests, header)
            answer, arrays = read_frame(self.replies)
        except (OSError, EOFError, ValueError) as error:
            raise TargetError(
                f"the process that trains victims ended{self._last_words()}; call the training by hand to see why"
            ) from error
        if "error" in answer:
            raise TargetError(f"{task.name}: {answer['error']}")
        return trainer_child.told(answer, arrays)

    def _last_words(self) -> str:
        """The last line that the process wrote to stderr, as part of a sentence."""
        end = self.errors.seek(0, os.SEEK_END)
        self.errors.seek(max(0, end - 4096))
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return f" with '{lines[-1][:300]}'" if lines else ""

    def end(self) -> None:
        """End the process and whatever it started, also where it has ended by itself."""
        if self.running.returncode is None:  # nobody has waited for it yet, so its number is still its own
            try:
                if hasattr(os, "killpg"):
                    os.killpg(self.running.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # all ended; macOS says so by the latter
                pass
            self.running.kill()
            self.running.wait()
        for stream in (self.requests, self.replies, self.errors):
            try:
                stream.close()
            except OSError:  # what was never sent cannot be sent any more
                continue


def _started() -> _Trainer:
    errors = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
    known = os.pathsep.join(entry for entry in sys.path if entry and os.path.isabs(entry))
    running = subprocess.Popen(  # this interpreter and a module of ours
        [sys.executable, "-m", "redan.assessment.trainer_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env={**os.environ, **_ONE_THREAD, "PYTHONPATH": known},
        start_new_session=True,
    )
    assert running.stdin is not None and running.stdout is not None  # noqa: S101, PT018  # asked for above
    return _Trainer(running, running.stdin, running.stdout, errors)


def trained(
    threat_model: Path,
    digest: str,
    tasks: Sequence[Task],
    workers: int,
    more: Callable[[], bool],
    wanted: Callable[[int], bool] = lambda _: True,
) -> Generator[tuple[int, Done]]:
    """(position, what came out) of each task as it is done, in as many processes as there are workers.

    more: asked before each task is begun; where it says no, none is begun any more. wanted: asked of each task's
    position when its turn has come; where it says no, that task is left out. A process gets its next task when its
    last one has been taken and the generator asked again, so both are asked with everything before recorded. When the
    generator is closed, the processes are ended: what was under way is lost, at most a task a process, what was given
    back is not. Close it (`contextlib.closing`): an exception that somebody holds keeps it open. Raises TargetError
    where a process ended or a task could not be begun.
    """
    left: queue.SimpleQueue[int] = queue.SimpleQueue()
    for at in range(len(tasks)):
        left.put(at)
    done: queue.SimpleQueue[tuple[int, Done, threading.Semaphore] | BaseException | None] = queue.SimpleQueue()
    trainers: list[_Trainer] = []
    turns: list[threading.Semaphore] = []  # one a process: whether what it did last is taken
    stopped = threading.Event()

    def work(trainer: _Trainer, turn: threading.Semaphore) -> None:
        try:
            while not stopped.is_set():
                try:
                    at = left.get_nowait()
                except queue.Empty:
                    break
                if not wanted(at):
                    continue
                if not more():  # asked last: a limit that leaves nothing out is not hit
                    break
                done.put((at, trainer.ask(threat_model, digest, tasks[at]), turn))
                turn.acquire()
        except BaseException as error:  # given to whoever waits
            done.put(error)
        else:
            done.put(None)

    many = max(1, min(workers, len(tasks)))
    try:
        trainers.extend(_started() for _ in range(many if tasks else 0))
        turns.extend(threading.Semaphore(0) for _ in trainers)
        threads = [threading.Thread(target=work, args=both, daemon=True) for both in zip(trainers, turns, strict=True)]
        for thread in threads:
            thread.start()
        at_work = len(threads)
        while at_work:
            found = done.get()
            if found is None:
                at_work -= 1
            elif isinstance(found, BaseException):
                raise found
            else:
                at, out, turn = found
                yield at, out
                turn.release()
    finally:
        stopped.set()
        for turn in turns:
            turn.release()
        for trainer in trainers:
            trainer.end()
