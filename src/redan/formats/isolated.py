"""Estimators in a process of their own: a pickle is a program, and may hang, crash or print without harm to the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from redan.errors import TargetError
from redan.formats import isolated_child
from redan.formats.isolated_child import Described, read_frame, write_frame

SECONDS = 60.0
"""How long a process may take to load, and for each answer."""
MEMORY = 8 * 2**30
"""Bytes that a process may address."""

_PASSED_ON = ("LD_LIBRARY_PATH", "SYSTEMROOT", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class _Process:
    """A child with all that belongs to it; one exchange at a time."""

    running: subprocess.Popen[bytes]
    requests: IO[bytes]
    replies: IO[bytes]
    errors: IO[bytes]
    folder: tempfile.TemporaryDirectory[str]
    lock: threading.Lock
    name: str
    seconds: float


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Isolated:
    """A fitted estimator in another process, asked over pipes. Build it with `load_joblib_isolated`.

    It has the estimator's methods that take rows (N, d): `predict_proba`, `decision_function` and `predict`, each an
    AttributeError where the estimator lacks it, and each a TargetError where it raises or does not answer. Threads may
    share it. The process ends with `close`, with the last reference to this value, and with the interpreter.
    """

    described: Described
    process: _Process = field(repr=False, compare=False)

    @property
    def classes_(self) -> NDArray[Any]:
        """The labels, in the order of the columns."""
        if self.described.classes is None or self.described.several:
            raise AttributeError(f"{self.described.called} has no single list of classes")
        return np.array(self.described.classes)

    @property
    def predict_proba(self) -> Callable[[NDArray[Any]], Any]:
        """Rows (N, d) -> probabilities (N, K)."""
        return self._method("predict_proba")

    @property
    def decision_function(self) -> Callable[[NDArray[Any]], Any]:
        """Rows (N, d) -> scores (N, K), or (N,) of two classes."""
        return self._method("decision_function")

    @property
    def predict(self) -> Callable[[NDArray[Any]], Any]:
        """Rows (N, d) -> labels or values (N,)."""
        return self._method("predict")

    def close(self) -> None:
        """End the process; a second time does nothing."""
        _end(self.process)

    def _method(self, name: str) -> Callable[[NDArray[Any]], Any]:
        if name not in self.described.methods:
            raise AttributeError(f"{self.described.called} has no {name}")
        return partial(_ask, self, name)


def load_joblib_isolated(path: Path, *, trust: bool, seconds: float = SECONDS, memory: int = MEMORY) -> Isolated:
    """The estimator in a joblib or pickle file, which is read in a process of its own and nowhere else.

    A pickle is a program. Its process gets none of this one's environment, an empty folder to work in, and bounds on
    its memory (bytes), on the files it writes and on the seconds that loading and each answer may take. It is no
    sandbox: it runs as the same user, and can read what that user can. So it is started only where `trust` is True.

    Raises TargetError where it is not, and where the file cannot be loaded or its process dies or is too slow.
    """
    if not trust:
        raise TargetError(
            f"{path} is a pickle, which may run any program when it is loaded, so it was not opened; pass "
            "--trust-pickle if you trust whoever made it, or convert it where it was made: "
            "skops.io.dump(joblib.load('model.joblib'), 'model.skops')"
        )
    return isolated(path, None, seconds=seconds, memory=memory)


def isolated(path: Path, types: Sequence[str] | None, *, seconds: float = SECONDS, memory: int = MEMORY) -> Isolated:
    """The estimator of a pickle (types: None), or of a skops file that may hold those types, in its own process.

    Raises TargetError as `load_joblib_isolated` does; whether to trust the file was decided before.
    """
    if not path.is_file():
        raise TargetError(f"there is no file {path}; check system.model in the threat model")
    process = _started(path.name, seconds)
    first = {"path": str(path.resolve()), "skops": None if types is None else list(types), "memory": memory}
    try:
        header, _ = _exchange(process, first, ())
        made = Isolated(_described(header, path), process)
        if not made.described.methods:
            raise TargetError(
                f"{path.name} holds a {made.described.called}, which answers no rows; save the fitted estimator itself"
            )
    except BaseException:
        _end(process)
        raise
    weakref.finalize(made, _end, process)
    return made


def _started(name: str, seconds: float) -> _Process:
    folder = tempfile.TemporaryDirectory(prefix="redan-", ignore_cleanup_errors=True)
    errors = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
    known = [entry for entry in sys.path if os.path.isabs(entry)]  # where this process finds its packages
    running = subprocess.Popen(  # noqa: S603  # this interpreter and a file of ours
        [sys.executable, "-I", isolated_child.__file__, json.dumps(known)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        cwd=folder.name,
        env=_environment(folder.name),
        start_new_session=True,
    )
    assert running.stdin is not None and running.stdout is not None  # noqa: S101, PT018  # asked for above
    return _Process(running, running.stdin, running.stdout, errors, folder, threading.Lock(), name, seconds)


def _environment(folder: str) -> dict[str, str]:
    """What a program needs to run at all; whatever else is set here may be a secret."""
    own = {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": folder, "TMPDIR": folder, "TEMP": folder, "TMP": folder}
    return own | {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


def _described(header: Mapping[str, Any], path: Path) -> Described:
    """The child's first words, none of them believed unseen."""
    try:
        said = header["described"]
        return Described(
            called=_shown(said["called"]),
            methods=tuple(name for name in isolated_child.METHODS if name in said["methods"]),
            classes=None if said["classes"] is None else tuple(_hashable(each) for each in said["classes"]),
            several=bool(said["several"]),
            float32=bool(said["float32"]),
            votes=bool(said["votes"]),
            columns=None if said["columns"] is None else int(said["columns"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise TargetError(f"{path.name} does not describe itself as an estimator does; check what was saved") from error


def _hashable(label: Any) -> Any:
    return tuple(_hashable(each) for each in label) if isinstance(label, list) else label


def _ask(made: Isolated, method: str, x: NDArray[Any]) -> NDArray[Any] | list[NDArray[Any]]:
    header, arrays = _exchange(made.process, {"ask": method}, (x,))
    if "error" in header:
        raise TargetError(
            f"{made.described.called}.{method} raised {_shown(header['error'])}; ask it by hand to see why"
        )
    if not arrays or any(not each.ndim or len(each) != len(x) for each in arrays):
        raise TargetError(
            f"{made.described.called}.{method} does not answer one row for each it is given; check the file"
        )
    return arrays if header.get("many") else arrays[0]


def _exchange(
    process: _Process, header: Mapping[str, Any], arrays: Sequence[NDArray[Any]]
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """One frame there and one back. Raises TargetError where the process is gone, too slow or talks nonsense."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        _kill(process.running)

    with process.lock:
        if process.running.poll() is not None or process.requests.closed:
            raise TargetError(f"the process of {process.name} has ended{_last_words(process)}; load the file again")
        timer = threading.Timer(process.seconds, stop)
        timer.daemon = True
        timer.start()
        try:
            write_frame(process.requests, header, arrays)
            return read_frame(process.replies)
        except (OSError, EOFError) as error:
            process.running.wait()  # it closed the pipe; if it goes on, the timer ends it
            if late.is_set():
                raise TargetError(
                    f"the process of {process.name} did not answer within {process.seconds:g} s and was ended; give it "
                    "more time, or look for what it waits for"
                ) from error
            raise TargetError(
                f"the process of {process.name} died (exit code {process.running.returncode}){_last_words(process)}; "
                "load the file by hand, where you trust it, to see why"
            ) from error
        except (ValueError, TypeError, KeyError) as error:  # no frame: who knows where the next one begins
            _kill(process.running)
            raise TargetError(
                f"the process of {process.name} answered nonsense and was ended; check the file"
            ) from error
        except BaseException:  # an interrupt: the answer to this question must not be taken for the next one's
            _kill(process.running)
            raise
        finally:
            timer.cancel()


def _last_words(process: _Process) -> str:
    """The last line that the process wrote to stderr, as part of a sentence."""
    if process.errors.closed:
        return ""
    end = process.errors.seek(0, os.SEEK_END)
    process.errors.seek(max(0, end - 4096))
    lines = process.errors.read().decode(errors="replace").strip().splitlines()
    return f" with '{_shown(lines[-1])}'" if lines else ""


def _shown(text: object) -> str:
    """Somebody else's text, as one line of printable characters."""
    return "".join(sign if sign.isprintable() else " " for sign in str(text))[:300].strip()


def _kill(running: subprocess.Popen[bytes]) -> None:
    """The process and whatever it started."""
    if running.poll() is not None:
        return
    try:
        if hasattr(os, "killpg"):
            os.killpg(running.pid, signal.SIGKILL)
        else:
            running.kill()
    except ProcessLookupError:  # it ended meanwhile
        pass
    running.wait()


def _end(process: _Process) -> None:
    _kill(process.running)
    for stream in (process.requests, process.replies, process.errors):
        try:
            stream.close()
        except OSError:  # what was never sent cannot be sent any more
            continue
    process.folder.cleanup()
