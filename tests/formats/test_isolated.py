"""Pickles are opened only where that was said, and then in a process that gets nothing and cannot hold up the run."""

from __future__ import annotations

import gc
import io
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from redan.errors import TargetError
from redan.formats import isolated
from redan.formats.isolated import Isolated, load_joblib_isolated
from redan.formats.isolated_child import read_frame, write_frame
from redan.protocols import Access
from redan.targets import Output
from redan.targets.sklearn import from_sklearn

MODULE = '''
import ctypes, os, sys, time
import numpy as np

class Chatty:
    """A classifier that prints wherever it can, and does on some inputs what it should not."""
    classes_ = np.array(["no", "yes"])
    n_features_in_ = 2
    def predict_proba(self, X):
        print("hello from", len(X)); print("and again", file=sys.stderr); os.write(1, b"raw bytes on stdout\\n")
        first = X[0, 0]
        if first == 1: raise ValueError("negative income\\x1b[31m")
        if first == 2: print("the last words", file=sys.stderr, flush=True); os._exit(7)
        if first == 3: time.sleep(600)
        if first == 4: np.ones(2**40)
        if first == 5: return np.array([[object(), object()]] * len(X))
        if first == 6: return np.zeros((len(X) + 1, 2))
        if first == 7:
            for descriptor in range(3, 12):
                try: os.write(descriptor, b"\\xff" * 64)
                except OSError: pass
        return np.stack([1 - X[:, 1], X[:, 1]], 1)
    def predict(self, X):
        return self.classes_[(X[:, 1] > 0.5).astype(int)]

class Hostile:
    """Runs a program when it is loaded."""
    def __init__(self, program): self.program = program
    def __reduce__(self): return exec, (self.program,)
'''


@pytest.fixture
def pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """name, arguments -> a pickle of that class of MODULE, whose module this process and its children can import."""
    (tmp_path / "models_of_others.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "models_of_others", raising=False)

    def write(name: str, *arguments: object) -> Path:
        import models_of_others  # type: ignore[import-not-found]  # written above

        path = tmp_path / f"{name}.joblib"
        path.write_bytes(pickle.dumps(getattr(models_of_others, name)(*arguments)))
        return path

    return write


@pytest.fixture
def chatty(pickled: Callable[..., Path]) -> Any:
    made = load_joblib_isolated(pickled("Chatty"), trust=True)
    yield made
    made.close()


def rows(first: float = 0.0, count: int = 3) -> NDArray[np.float64]:
    return np.column_stack([np.full(count, first), np.linspace(0.1, 0.9, count)])


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# Frames


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3), np.array(["a", "bcd"]), np.zeros((0, 4), np.float32), np.array(3)]
)
def test_a_frame_comes_back_as_it_was_sent(array: NDArray[Any]) -> None:
    stream = io.BytesIO()
    write_frame(stream, {"ask": "predict"}, [array, array])
    stream.seek(0)
    header, (one, two) = read_frame(stream)
    assert header["ask"] == "predict"
    for found in (one, two):
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    "said",
    [
        {"arrays": [{"dtype": "O", "shape": [1]}]},
        {"arrays": [{"dtype": "<f8", "shape": [2**40]}]},
        {"arrays": [{"dtype": "<f8", "shape": [-1]}]},
        {"arrays": [{"dtype": "V8", "shape": [1]}]},
        {"arrays": 3},
        [1],
    ],
)
def test_what_is_no_frame_is_not_read(said: object) -> None:
    text = json.dumps(said).encode()
    with pytest.raises(ValueError):
        read_frame(io.BytesIO(len(text).to_bytes(4, "big") + text + b"\0" * 8))
    with pytest.raises(ValueError, match="is no header"):
        read_frame(io.BytesIO(b"\xff" * 8))
    with pytest.raises(EOFError):
        read_frame(io.BytesIO(b"\0\0\0\x09[]"))
    with pytest.raises(ValueError, match="cannot be sent"):
        write_frame(io.BytesIO(), {}, [np.array([object()])])


# Trust


def test_without_trust_nothing_is_opened(pickled: Callable[..., Path], tmp_path: Path) -> None:
    path = pickled("Hostile", f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(TargetError, match=r"was not opened; pass --trust-pickle.*skops\.io\.dump\(joblib\.load"):
        load_joblib_isolated(path, trust=False)
    time.sleep(0.2)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(TargetError, match="there is no file"):
        load_joblib_isolated(tmp_path / "missing.joblib", trust=True)


@pytest.mark.extras
def test_a_trusted_pickle_gets_no_secret_and_an_empty_folder(
    pickled: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does run: trust was given. What it finds is a handful of harmless variables."""
    monkeypatch.setenv("API_TOKEN", "a secret that nobody may see")
    program = (
        "import json, os, sys\n"
        f"json.dump([dict(os.environ), os.getcwd(), os.listdir(), sys.argv], open({str(tmp_path / 'seen')!r}, 'w'))"
    )
    with pytest.raises(TargetError, match="holds a NoneType, which answers no rows"):
        load_joblib_isolated(pickled("Hostile", program), trust=True)
    environment, folder, files, arguments = json.loads((tmp_path / "seen").read_text())
    assert "a secret" not in json.dumps([environment, arguments])
    assert set(environment) <= {
        *("PATH", "LANG", "HOME", "TMPDIR", "TEMP", "TMP", "LD_LIBRARY_PATH", "LC_CTYPE"),
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
        *("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"),  # set by packages that the process itself imports
    }
    assert files == []
    assert environment["HOME"] == folder
    assert not Path(folder).exists()


@pytest.mark.extras
def test_a_pickle_that_hangs_is_ended(pickled: Callable[..., Path], tmp_path: Path) -> None:
    program = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    path = pickled("Hostile", program)
    before = time.monotonic()
    with pytest.raises(TargetError, match="did not answer within 3 s and was ended"):
        load_joblib_isolated(path, trust=True, seconds=3)
    assert time.monotonic() - before < 60
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.extras
def test_a_file_that_is_no_estimator_says_why(tmp_path: Path) -> None:
    path = tmp_path / "notes.joblib"
    path.write_bytes(b"not a pickle")
    with pytest.raises(TargetError, match=r"died \(exit code 1\) with '\w+Error"):
        load_joblib_isolated(path, trust=True)


# Answers


@pytest.mark.extras
def test_what_it_prints_does_not_reach_the_answers(chatty: Isolated, capfd: pytest.CaptureFixture[str]) -> None:
    assert chatty.classes_.tolist() == ["no", "yes"]
    np.testing.assert_allclose(chatty.predict_proba(rows())[:, 1], [0.1, 0.5, 0.9])
    assert chatty.predict(rows()).tolist() == ["no", "no", "yes"]
    assert capfd.readouterr() == ("", "")
    assert not hasattr(chatty, "decision_function")
    with pytest.raises(AttributeError, match="Chatty has no decision_function"):
        chatty.decision_function(rows())


@pytest.mark.extras
def test_an_error_is_told_and_the_process_goes_on(chatty: Isolated) -> None:
    with pytest.raises(TargetError, match=r"Chatty.predict_proba raised ValueError: negative income \[31m; ask"):
        chatty.predict_proba(rows(1))
    with pytest.raises(TargetError, match="raised .*MemoryError"):
        chatty.predict_proba(rows(4))
    with pytest.raises(TargetError, match="does not answer one row for each"):
        chatty.predict_proba(rows(6))
    assert chatty.predict_proba(rows()).shape == (3, 2)


@pytest.mark.extras
def test_a_process_that_dies_is_named_with_its_last_words(chatty: Isolated) -> None:
    with pytest.raises(TargetError, match=r"died \(exit code 7\) with 'the last words'"):
        chatty.predict_proba(rows(2))
    with pytest.raises(TargetError, match="has ended with 'the last words'; load the file again"):
        chatty.predict_proba(rows())


@pytest.mark.extras
def test_an_answer_that_never_comes_is_waited_for_so_long(pickled: Callable[..., Path]) -> None:
    slow = load_joblib_isolated(pickled("Chatty"), trust=True, seconds=20)
    object.__setattr__(slow.process, "seconds", 0.5)
    with pytest.raises(TargetError, match=r"did not answer within 0\.5 s"):
        slow.predict_proba(rows(3))
    slow.close()


@pytest.mark.extras
def test_nonsense_on_the_wire_ends_it(chatty: Isolated) -> None:
    with pytest.raises(TargetError, match="answered nonsense and was ended"):
        chatty.predict_proba(rows(7))
    chatty.process.running.wait(10)


@pytest.mark.extras
def test_after_an_interrupt_no_answer_is_taken_for_another(chatty: Isolated, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(stream: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(isolated, "read_frame", interrupted)
        chatty.predict_proba(rows(count=2))
    with pytest.raises(TargetError, match="has ended"):
        chatty.predict_proba(rows())


@pytest.mark.extras
def test_threads_share_it(chatty: Isolated) -> None:
    wrong: list[int] = []

    def ask(count: int) -> None:
        for _ in range(10):
            found = chatty.predict_proba(rows(count=count))
            if not np.allclose(found[:, 1], rows(count=count)[:, 1]):
                wrong.append(count)

    threads = [threading.Thread(target=ask, args=(count,)) for count in range(2, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.extras
def test_it_is_an_estimator_like_any_other(chatty: Isolated) -> None:
    target = from_sklearn(chatty, rows=rows())
    assert (target.access, target.classes, target.dtype) == (Access.SCORES, 2, torch.float64)
    np.testing.assert_allclose(target(torch.from_numpy(rows())).softmax(1)[:, 1].numpy(), [0.1, 0.5, 0.9])
    labels = from_sklearn(chatty, output=Output.LABELS)(torch.from_numpy(rows()))
    assert labels.argmax(1).tolist() == [0, 0, 1]
    with pytest.raises(TargetError, match="Chatty has no decision_function; use output: probabilities or labels"):
        from_sklearn(chatty, output=Output.LOGITS)


# The end


@pytest.mark.extras
def test_it_ends_with_the_value_and_on_request(pickled: Callable[..., Path]) -> None:
    first = load_joblib_isolated(pickled("Chatty"), trust=True)
    pid, folder = first.process.running.pid, Path(first.process.folder.name)
    assert folder.exists()
    del first
    gc.collect()
    assert gone(pid)
    assert not folder.exists()
    second = load_joblib_isolated(pickled("Chatty"), trust=True)
    second.close()
    second.close()
    assert gone(second.process.running.pid)
    with pytest.raises(TargetError, match="has ended; load the file again"):
        second.predict(rows())


@pytest.mark.extras
def test_it_ends_with_the_interpreter(pickled: Callable[..., Path]) -> None:
    program = (
        "from pathlib import Path; from redan.formats.isolated import load_joblib_isolated as load\n"
        f"made = load(Path({str(pickled('Chatty'))!r}), trust=True); print(made.process.running.pid)"
    )
    folder = str(pickled("Chatty").parent)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({folder!r})\n{program}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert gone(int(done.stdout))
    assert done.stderr == ""


@pytest.mark.extras
def test_it_answers_as_the_estimator_does_in_this_process(tmp_path: Path) -> None:
    import joblib
    from sklearn.datasets import load_iris, make_multilabel_classification
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load_iris(return_X_y=True)
    many, yes = make_multilabel_classification(40, 4, n_classes=3, random_state=0)
    for model, inputs in (
        (make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y), x),
        (RandomForestClassifier(3, random_state=0).fit(many, yes), many),
    ):
        joblib.dump(model, tmp_path / "model.joblib")
        made = load_joblib_isolated(tmp_path / "model.joblib", trust=True)
        there, here = from_sklearn(made, bounds=(0, 99)), from_sklearn(model, bounds=(0, 99))
        assert torch.equal(there(torch.from_numpy(inputs)), here(torch.from_numpy(inputs)))
        assert there.output is here.output
        made.close()
