"""The command line: its exit codes, one sentence for bad input and nothing half-written, help that teaches."""

from __future__ import annotations

import json
import os
import pickle
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from redan.assessment.session import Stage
from redan.cli.app import run

Write = Callable[..., Path]
Captured = pytest.CaptureFixture[str]
Y = np.arange(32) % 3
X = (0.2 + 0.6 * np.eye(3)[Y].repeat(2, 1)).astype(np.float32)[:, [0, 1, 2, 3, 4, 5, 0]]


def said(capsys: Captured) -> tuple[str, str]:
    found = capsys.readouterr()
    return found.out, found.err


def redan(*arguments: str | Path, **changed: Any) -> subprocess.Popen[bytes]:
    """The command in a process of its own, which may be interrupted wherever this one runs."""
    settings = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "env": {**os.environ, "COLUMNS": "80"},
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    }
    return subprocess.Popen([sys.executable, "-m", "redan", *map(str, arguments)], **{**settings, **changed})


# -- exit codes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weak", "threshold", "code", "word"), [(2, 0.7, 0, "PASS"), (28, 0.7, 1, "FAIL"), (8, 0.72, 3, "INCONCLUSIVE")]
)
def test_the_exit_code_is_the_verdict(
    shop: Write, capsys: Captured, tmp_path: Path, weak: int, threshold: float, code: int, word: str
) -> None:
    path = shop(weak=weak, requirements__0__at_least=threshold)
    assert run(["assess", str(path), "--out", str(tmp_path / "out"), "--workers", "1"]) == code
    out, err = said(capsys)
    assert out.strip().startswith(f"{word}  shop, 32 rows")
    assert err == ""  # no terminal, no progress
    (folder,) = (tmp_path / "out").iterdir()
    assert json.loads((folder / "report.json").read_text())["exit_code"] == code
    assert f"report: {folder}/report.json" in out


def test_an_attacker_who_is_not_built_ends_with_3(shop: Write, capsys: Captured) -> None:
    assert run(["assess", str(shop(attackers__0__change={"l1": 1.0}, attackers__0__knowledge="labels"))]) == 3
    assert "no attack on labels alone is built in L1 yet" in said(capsys)[0]


def test_a_bug_of_ours_ends_with_4_and_says_so(shop: Write, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("redan.cli.assess.run_assessment", wrong)
    assert run(["assess", str(shop())]) == 4
    out, err = said(capsys)
    assert out == ""
    assert err.startswith("redan: internal error (ZeroDivisionError: division by zero); this is a bug in redan")
    assert "Traceback" in err  # here it is wanted: who reports the bug needs it


@pytest.mark.parametrize("where", ["start", "watch", "attack"])
def test_an_interrupt_ends_with_130(
    shop: Write, capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    if where == "start":
        monkeypatch.setattr("redan.cli.assess.run_assessment", stop)
    elif where == "watch":
        monkeypatch.setattr("redan.assessment.recording.Recorder.__call__", stop)
    else:
        monkeypatch.setattr("redan.evasion.fast_cascade.FastCascade.__call__", stop)
    assert run(["assess", str(shop())]) == 130
    out, err = said(capsys)
    assert out == ""
    if where == "start":
        assert err == "redan: interrupted; nothing was attacked yet\n"
        return
    (folder,) = (tmp_path / "runs").iterdir()
    again = f"redan assess {tmp_path / 'threat-model.yaml'} --resume {folder}"
    assert err == f"redan: interrupted; what was finished is kept, go on with: {again}\n"
    assert last(folder) == ("ended", "interrupted")


def last(folder: Path) -> tuple[str, str]:
    """The end of a run's log."""
    line = json.loads(sorted((folder / "log").iterdir())[-1].read_text().splitlines()[-1])
    return line["event"], line["why"]


def test_a_real_interrupt_ends_with_130_and_leaves_a_log_that_says_so(shop: Write, tmp_path: Path) -> None:
    with redan("assess", shop("SlowOnce", run__block=16)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"attacking\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        (folder,) = (tmp_path / "runs").iterdir()
        assert process.stderr.read().decode().startswith("redan: interrupted; what was finished is kept, go on with: ")
    assert not (folder / "report.json").exists()
    assert last(folder) == ("ended", "interrupted")
    assert run(["assess", str(tmp_path / "threat-model.yaml"), "--resume", str(folder)]) in (0, 1, 3)
    assert (folder / "report.json").exists()


@pytest.mark.slow
def test_the_verdict_stands_when_nobody_reads_it_and_quiet_means_quiet(shop: Write) -> None:
    """On a terminal, where progress would be shown."""
    ours, theirs = pty.openpty()
    with redan("assess", shop(weak=32), "--quiet", stderr=theirs) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=60) == 1
    os.close(theirs)
    os.set_blocking(ours, False)
    with pytest.raises(OSError, match=r"."):  # nothing to read
        os.read(ours, 1)
    os.close(ours)


@pytest.mark.slow
def test_the_verdict_stands_on_a_terminal_with_few_letters(shop: Write) -> None:
    path = shop(weak=32, attackers__0__name="Jürgen ∞", requirements__0__against=None)
    with redan("assess", path, env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, b"")
    assert b"robust_accuracy ? 0.70" in out.replace(b"??", b"? ")
    assert b"against J?rgen ?:" in out


# -- progress -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_progress_on_a_terminal_is_one_line_with_passes_rows_and_time(shop: Write) -> None:
    """Whatever the attacker's name looks like, and with the report alone on stdout."""
    name = "[/x] a customer with [bold]tools[/bold]"
    path = shop("Slow", attackers__0__name=name, requirements=[], limits={"seconds": 1.5})
    ours, theirs = pty.openpty()
    with redan("assess", path, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
        out, _ = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 3
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    bars = [line for line in re.split(r"[\r\n]+", text) if "settled" in line]
    assert bars
    for line in bars:
        assert len(line) <= 80
        assert re.search(r"\[/x\] .* +\d+% +[\d,]+ passes +\d+/32 rows settled +(--|\d+):.* left", line), line
    assert name in out.decode()
    assert "settled" not in out.decode()


def test_watching_counts_attackers(shop: Write, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    from redan.assessment import assess as honest

    stages: list[Stage] = []

    def spied(path: Path, *, watch: Callable[[Stage], None], **options: Any) -> object:
        def both(stage: Stage) -> None:
            stages.append(stage)
            watch(stage)

        return honest(path, watch=both, **options)

    monkeypatch.setattr("redan.cli.assess.run_assessment", spied)
    assert run(["assess", str(shop())]) == 0
    assert stages
    assert said(capsys)[1] == ""


# -- other ways to run it, and what becomes of a run --------------------------------------------------------


def test_preflight_only_attacks_nothing(shop: Write, capsys: Captured, tmp_path: Path) -> None:
    assert run(["assess", str(shop(weak=28)), "--preflight-only"]) == 0
    out, err = said(capsys)
    assert err == ""
    assert re.search(r"^gradients +pass ", out, re.MULTILINE)
    assert not (tmp_path / "runs").exists()


def test_preflight_only_shows_all_that_was_found_before_it_refuses(shop: Write, capsys: Captured) -> None:
    assert run(["assess", str(shop("Softmax")), "--preflight-only"]) == 2
    out, err = said(capsys)
    assert re.search(r"^bounds +pass ", out, re.MULTILINE)
    assert re.search(r"^output-scale +refuse ", out, re.MULTILINE)
    one_sentence(err)


def test_a_gate_is_told(shop: Write, capsys: Captured) -> None:
    path = shop(count=400, weak=0, requirements__0__at_least=0.5)
    assert run(["assess", str(path), "--gate"]) == 0
    assert "of 400 rows: no more were needed to decide" in " ".join(said(capsys)[0].split())


@pytest.mark.parametrize(("option", "limit"), [("--max-queries", "200"), ("--max-seconds", "0")])
def test_our_limits_are_inconclusive_and_can_be_raised(
    shop: Write, capsys: Captured, tmp_path: Path, option: str, limit: str
) -> None:
    path = shop(weak=0)
    assert run(["assess", str(path), option, limit]) == 3
    out = " ".join(said(capsys)[0].split())
    assert f"our own limit of {option.removeprefix('--max-')} ended the run" in out
    (folder,) = (tmp_path / "runs").iterdir()
    assert run(["assess", str(path), "--resume", str(folder)]) == 0


def test_money_limits_too(shop: Write, capsys: Captured) -> None:
    priced = {"queries_per_row": 60, "usd_per_1000_queries": 5}
    path = shop(weak=0, attackers__0__knowledge="scores", attackers__0__capability=priced)
    assert run(["assess", str(path), "--max-usd", "1"]) == 3
    assert "our own limit of usd ended the run" in " ".join(said(capsys)[0].split())
    assert run(["assess", str(shop()), "--max-usd", "1"]) == 2
    one_sentence(said(capsys)[1])


def test_a_replay_agrees_or_says_what_differs(shop: Write, capsys: Captured, tmp_path: Path) -> None:
    path = shop(weak=5)
    run(["assess", str(path)])
    (folder,) = (tmp_path / "runs").iterdir()
    said(capsys)
    assert run(["replay", str(folder), str(path)]) == 0
    assert said(capsys) == ("AGREES  32 rows, 32 inputs kept, 32 agree\n", "")
    for log in (folder / "log").iterdir():
        log.write_text(log.read_text().replace('"status":"broken"', '"status":"robust"'))
    assert run(["replay", str(folder), str(path)]) == 1
    out, _ = said(capsys)
    assert out.startswith("DIFFERS  32 rows")
    assert out.count("was robust, now") == 5


def test_a_report_is_computed_again_from_the_log(shop: Write, capsys: Captured, tmp_path: Path) -> None:
    run(["assess", str(shop(weak=28))])
    before = said(capsys)[0]
    (folder,) = (tmp_path / "runs").iterdir()
    written = json.loads((folder / "report.json").read_text())
    (folder / "report.json").unlink()
    assert run(["report", str(folder)]) == 1
    assert said(capsys)[0] == before
    (folder / "again.json").unlink(missing_ok=True)
    assert run(["report", str(folder), "--format", "json", "--to", str(folder / "again.json")]) == 1
    assert json.loads((folder / "again.json").read_text()) == written


@pytest.mark.parametrize(
    ("form", "begins"),
    [
        ("html", "<!doctype html>"),
        ("markdown", "#"),
        ("junit", "<?xml"),
        ("sarif", "{"),
        ("json", "{"),
        ("terminal", "\nFAIL"),
    ],
    ids=["html", "markdown", "junit", "sarif", "json", "terminal"],
)
def test_a_report_is_shown_in_every_form(shop: Write, capsys: Captured, tmp_path: Path, form: str, begins: str) -> None:
    run(["assess", str(shop(weak=28))])
    said(capsys)
    (folder,) = (tmp_path / "runs").iterdir()
    page = tmp_path / f"page.{form}"
    assert run(["report", str(folder), "--format", form, "--to", str(page)]) == 1
    assert said(capsys) == ("", "")
    assert page.read_text().lower().startswith(begins.lower())
    assert "shop" in page.read_text()
    assert run(["report", str(folder), "--format", form, "--to", str(tmp_path / "no" / "page")]) == 2
    one_sentence(said(capsys)[1])


def test_a_run_that_was_broken_off_has_a_report(shop: Write, capsys: Captured, tmp_path: Path) -> None:
    run(["assess", str(shop(weak=0, run__block=8)), "--workers", "1"])
    said(capsys)
    (folder,) = (tmp_path / "runs").iterdir()
    for name in ("000004", "000005", "000006"):
        (folder / "log" / f"{name}.jsonl").unlink()
    assert run(["report", str(folder)]) == 3
    out = " ".join(said(capsys)[0].split())
    assert "16 never reached" in out
    assert "the run was broken off before all rows were reached" in out


def test_a_worse_model_than_the_last_fails_though_it_would_pass(shop: Write, capsys: Captured, tmp_path: Path) -> None:
    """The same rows; six more of them break than the last time."""
    folders = []
    for radius in (0.01, 0.1):
        path = shop(weak=8, requirements__0__at_least=0.3, attackers__0__change={"linf": radius})
        assert run(["assess", str(path), "--out", str(tmp_path / f"out{radius}")]) == 0
        (folder,) = (tmp_path / f"out{radius}").iterdir()
        log = folder / "log" / "000001.jsonl"  # as if the same was allowed both times, and the model had changed
        log.write_text(log.read_text().replace("linf: 0.01", "linf: 0.1"))
        folders.append(str(folder))
    said(capsys)
    assert run(["report", folders[1], "--compare", folders[0]]) == 1
    out = said(capsys)[0]
    assert re.search(r"robust_accuracy, +100.0 % +75.0 % +8 +0 +0.00391 +worse", out)
    assert run(["report", folders[0], "--compare", folders[1]]) == 0
    assert run(["report", folders[0], "--compare", folders[0]]) == 0


@pytest.mark.parametrize("verb", ["replay", "report"])
def test_what_is_no_run_folder_is_one_sentence(shop: Write, capsys: Captured, tmp_path: Path, verb: str) -> None:
    more = [str(shop())] if verb == "replay" else []
    assert run([verb, str(tmp_path / "nowhere"), *more]) == 2
    one_sentence(said(capsys)[1])


# -- bad input ------------------------------------------------------------------------------------------


def wrong_weights(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"not at all")


def other_weights(folder: Path) -> None:
    save_file({"bias": torch.zeros(3)}, folder / "weights.safetensors")


def small_weights(folder: Path) -> None:
    save_file({"weight": torch.zeros(3, 4)}, folder / "weights.safetensors")


def pickled(folder: Path) -> None:
    with (folder / "model.pt").open("wb") as file:
        pickle.dump({"weight": 1}, file)


def blocked(folder: Path) -> None:
    (folder / "file").write_text("")


def ready(folder: Path) -> None:
    """Nothing is needed."""


MODEL = "system__model"
DATA = "system__data__test"
BAD: dict[str, tuple[dict[str, Any], Callable[[Path], None], str]] = {
    # the file
    "unknown key": ({"system__purpos": "sort"}, ready, "system.purpos is an unknown key; did you mean purpose?"),
    "unknown section": ({"requirement": []}, ready, "requirement is an unknown key; did you mean requirements?"),
    "missing key": ({"system__output": None}, ready, "system.output is missing"),
    "wrong type": ({"statistics__rows": "many"}, ready, "statistics.rows must be a whole number, got 'many'"),
    "wrong word": ({"attacks__mode": "quik"}, ready, "did you mean quick?"),
    "out of range": ({"statistics__confidence": 95}, ready, "statistics.confidence must be less than 1"),
    "no such class": ({"attackers__0__goal": {"targeted": 7}}, ready, "must be a class from 0 to 2, got 7"),
    "no such attacker": ({"requirements__0__against": "anyon"}, ready, "did you mean 'anyone'?"),
    "too wide a change": ({"attackers__0__change": {"linf": 8}}, ready, "must not exceed the width of inputs.bounds"),
    "other version": ({"redan": 2}, ready, "redan must be 1"),
    # attacks
    "unknown attack": (
        {"attacks__skip": ["pdg"]},
        ready,
        "which is no attack that redan runs; did you mean 'pdpgd'?",
    ),
    "no such module": ({"attacks__add": ["nowhere:Mine"]}, ready, "there is no module 'nowhere'"),
    "no such name": ({"attacks__add": ["{shop}:Mine"]}, ready, "has no 'Mine'; check the name after the colon"),
    "wrong norm": ({"attacks__add": ["{shop}:OnlyL2"]}, ready, "moves in L2, and the change is Linf; leave it out"),
    "no attack": ({"attacks__add": ["{shop}:text"]}, ready, "is no attack; an attack is called with"),
    "attack with arguments": ({"attacks__add": ["{shop}:Needy"]}, ready, "calling it raised TypeError"),
    # the data
    "no data file": ({f"{DATA}__path": "gone.npz"}, ready, "there is no file"),
    "no such array": ({f"{DATA}__x": "images"}, ready, "has no array 'images'; it has x, y"),
    "data in csv": ({f"{DATA}__path": "rows.csv"}, ready, "reading .csv files is not built yet"),
    "pickled data": ({"arrays": {"x": np.array([{}] * 32), "y": Y}}, ready, "holds pickled objects"),
    "other shape": ({"system__inputs__shape": [8]}, ready, "rows have the shape (7,), but system.inputs.shape says"),
    "outside the bounds": ({"arrays": {"x": X * 2, "y": Y}}, ready, "outside the bounds (0, 1); undo the"),
    "a corner of the bounds": ({"arrays": {"x": X * 0.01, "y": Y}}, ready, "fill less than a tenth of them"),
    "no numbers": ({"arrays": {"x": X * np.nan, "y": Y}}, ready, "inputs hold NaN or infinity"),
    "other lengths": ({"arrays": {"x": X, "y": Y[:9]}}, ready, "arrays of different lengths (x 32, y 9)"),
    "no rows": ({"arrays": {"x": X[:0], "y": Y[:0]}}, ready, "has no rows"),
    "labels out of range": ({"arrays": {"x": X, "y": Y + 1}}, ready, "labels go from 1 to 3"),
    "labels in halves": ({"arrays": {"x": X, "y": Y / 2}}, ready, "labels must be class numbers (N,)"),
    "labels of two": ({"arrays": {"x": X, "y": np.eye(3)[Y]}}, ready, "labels must be class numbers (N,)"),
    "ids twice": (
        {"arrays": {"x": X, "y": Y, "i": Y}, f"{DATA}__id": "i"},
        ready,
        "32 ids (3 different) for 32 rows; give each row its own",
    ),
    "rows without labels": ({DATA: "{shop}:no_rows"}, ready, "must return a dict with x and y"),
    # the model
    "no factory": ({f"{MODEL}__factory": "{shop}:biuld"}, ready, "has no 'biuld'"),
    "factory that raises": ({f"{MODEL}__factory": "{shop}:breaks"}, ready, "calling it raised OSError: no such bucket"),
    "factory of a number": (
        {MODEL: {"factory": "{shop}:number"}},
        ready,
        "returned int; it must return a torch.nn.Module",
    ),
    "pickled checkpoint": (
        {MODEL: {"checkpoint": "model.pt"}},
        pickled,
        "is a pickle, and reading one can run any code",
    ),
    "pickled weights": ({f"{MODEL}__weights": "model.pt"}, pickled, "is a pickled file (.pt)"),
    "no weights": ({f"{MODEL}__weights": "weights.safetensors"}, ready, "there is no weights file"),
    "spoiled weights": ({f"{MODEL}__weights": "weights.safetensors"}, wrong_weights, "is not a safetensors file"),
    "other weights": (
        {f"{MODEL}__weights": "weights.safetensors"},
        other_weights,
        "it lacks weight; it has beside them bias",
    ),
    "small weights": ({f"{MODEL}__weights": "weights.safetensors"}, small_weights, "do not fit the module"),
    "another kind of model": ({MODEL: {"onnx": "model.onnx"}}, ready, "check system.model.onnx"),
    "defenses": ({"system__defenses": [{"jpeg": {}}]}, ready, "fits inputs of kind image, and they are tensor"),
    "training mode": ({"model": "Training"}, ready, "in training mode"),
    "no row right": ({"model": "Turned"}, ready, "no row is answered right"),
    "no usable answer": ({"model": "AlwaysNan"}, ready, "32 of 32 rows got no usable answer"),
    "probabilities": ({"model": "Softmax"}, ready, "declared logits look like probabilities"),
    "one score too many": ({"model": "Wide"}, ready, "answers 4 scores a row, and 3 classes are declared"),
    "one number a row": ({"model": "Flat"}, ready, "(N, K); check the declared classes"),
    "other accuracy": ({"system__expect": {"clean_accuracy": 0.5, "within": 0.1}}, ready, "expects 0.5 within 0.1"),
    "no such device": ({"run__device": "cuda:77"}, ready, "is not there; use auto or cpu"),
    # the run folder
    "unwritable folder": ({"run__out": "file/runs"}, blocked, "cannot be made (Not a directory); choose another"),
}


def one_sentence(err: str) -> None:
    assert err.startswith("redan: ")
    assert err.count("\n") == 1, err
    assert err.endswith("\n")
    assert "Traceback" not in err
    assert len(err) < 600
    assert "  " not in err


@pytest.mark.parametrize(("changed", "prepare", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_and_exit_2(
    shop: Write,
    capsys: Captured,
    tmp_path: Path,
    changed: dict[str, Any],
    prepare: Callable[[Path], None],
    words: str,
) -> None:
    path = shop(**changed)
    prepare(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert run(["assess", str(path)]) == 2
    out, err = said(capsys)
    assert out == ""
    one_sentence(err)
    assert words in err
    left = [each for each in sorted(tmp_path.iterdir()) if each.name != "__pycache__"]
    assert left == [each for each in before if each.name != "__pycache__"]  # no run folder, no part of one


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"attackers__0__knowlege": "scores"}, "attackers[0].knowlege is an unknown key; did you mean knowledge?"),
        ({"attackers__0__why": None}, "attackers[0].why is missing"),
    ],
)
def test_a_slip_in_the_only_attacker_is_one_sentence(
    shop: Write, capsys: Captured, changed: dict[str, Any], words: str
) -> None:
    assert run(["assess", str(shop(**changed))]) == 2
    err = said(capsys)[1]
    assert words in err
    one_sentence(err)


def test_there_are_many_kinds_of_bad_input() -> None:
    assert len(BAD) >= 20


@pytest.mark.parametrize("verb", ["assess", "plan"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: None, "does not exist; give the path of a threat-model file"),
        (lambda path: path.mkdir(), "is a folder; give the path of a threat-model file"),
        (lambda path: path.write_text(""), "is empty; a threat model starts with redan: 1"),
        (lambda path: path.write_text("- 1\n- 2\n"), "must be a mapping that starts with redan: 1"),
        (lambda path: path.write_text("redan: [1"), "line 1"),
        (lambda path: path.write_bytes(b"redan: \xff\xfe"), "not UTF-8 text"),
        (lambda path: path.write_text("redan: 1\nredan: 1\n"), "redan"),
    ],
    ids=["missing", "folder", "empty", "list", "syntax", "encoding", "twice"],
)
def test_a_file_that_is_none_is_one_sentence_and_exit_2(
    capsys: Captured, tmp_path: Path, verb: str, make: Callable[[Path], object], words: str
) -> None:
    path = tmp_path / "threat-model.yaml"
    make(path)
    assert run([verb, str(path)]) == 2
    out, err = said(capsys)
    assert out == ""
    one_sentence(err)
    assert words in err


@contextmanager
def a_mere_mortal(folder: Path) -> Iterator[None]:
    """Rights as anyone has them in the folder; root, whom no mode stops, becomes somebody else."""
    root = os.geteuid() == 0
    if root:
        for above in (folder, *folder.parents):
            if not above.stat().st_mode & 0o001:
                above.chmod(above.stat().st_mode | 0o001)
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_an_unreadable_file_is_one_sentence(shop: Write, capsys: Captured, tmp_path: Path) -> None:
    path = shop()
    path.chmod(0)
    with a_mere_mortal(tmp_path):
        assert run(["assess", str(path)]) == 2
    err = said(capsys)[1]
    one_sentence(err)
    assert "permission" in err.lower()


def test_a_folder_that_may_not_be_written_is_one_sentence(shop: Write, capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir(mode=0o500)
    path = shop()
    with a_mere_mortal(tmp_path):
        assert run(["assess", str(path)]) == 2
    one_sentence(said(capsys)[1])


def test_out_below_a_file_is_one_sentence(shop: Write, capsys: Captured, tmp_path: Path) -> None:
    blocked(tmp_path)
    assert run(["assess", str(shop()), "--out", str(tmp_path / "file")]) == 2
    one_sentence(said(capsys)[1])


@pytest.mark.slow
def test_bad_input_in_a_process_of_its_own_shows_no_traceback(shop: Write) -> None:
    with redan("assess", shop("Turned")) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, b"")
    one_sentence(err.decode())


def test_several_slips_are_told_at_once_a_line_each(shop: Write, capsys: Captured) -> None:
    assert run(["assess", str(shop(statistics__rows="many", attacks__mode="quik"))]) == 2
    err = said(capsys)[1]
    assert "has 2 problems:" in err
    assert err.count("\n") == 3
    assert "Traceback" not in err


# -- the command line itself ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["assess"], "Missing argument 'THREAT_MODEL' (see redan assess --help)"),
        (["plan"], "Missing argument 'THREAT_MODEL' (see redan plan --help)"),
        (["asess", "a.yaml"], "No such command 'asess'. Did you mean 'assess'? (see redan --help)"),
        (["assess", "--ou", "x", "a.yaml"], "No such option: --ou"),
        (["assess", "a.yaml", "b.yaml"], "unexpected extra argument"),
        (["assess", "a.yaml", "--workers", "-1"], "Invalid value for '--workers'"),
        (["assess", "a.yaml", "--workers", "two"], "Invalid value for '--workers'"),
    ],
)
def test_a_slip_on_the_command_line_is_one_sentence(capsys: Captured, arguments: list[str], words: str) -> None:
    assert run(arguments) == 2
    out, err = said(capsys)
    assert out == ""
    one_sentence(err)
    assert words in err


def test_no_command_at_all_shows_the_help(capsys: Captured) -> None:
    assert run([]) == 2
    assert "Usage: redan" in said(capsys)[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["assess", "plan", "Exit codes: 0 pass, 1 fail, 2", "3 inconclusive", "130 interrupted"]),
        (
            ["assess"],
            ["THREAT_MODEL", "--out", "--workers", "--quiet", "0 (pass), 1 (fail), 3", "report.json"],
        ),
        (["plan"], ["THREAT_MODEL", "or left out, and why", "neither built nor asked", "worst case"]),
    ],
)
def test_help_teaches(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*arguments, "--help"]) == 0
    out, err = said(capsys)
    assert err == ""
    assert max(map(len, out.splitlines())) <= 80
    flat = " ".join(out.split())
    assert all(word in flat for word in words)


# -- plan -----------------------------------------------------------------------------------------------


def test_a_plan_neither_builds_the_model_nor_reads_the_data(shop: Write, capsys: Captured, tmp_path: Path) -> None:
    path = shop(system__model__factory="{shop}:breaks", system__data__test__path="gone.npz", attacks__mode="default")
    assert run(["plan", str(path)]) == 0
    out, err = said(capsys)
    assert err == ""
    assert "apgd-t" in out
    assert not (tmp_path / "runs").exists()
    assert run(["assess", str(path)]) == 2


@pytest.mark.parametrize("name", ["unknown attack", "no such module", "wrong norm", "no attack"])
def test_a_plan_refuses_what_cannot_be_planned(shop: Write, capsys: Captured, name: str) -> None:
    changed, _, words = BAD[name]
    assert run(["plan", str(shop(**changed))]) == 2
    out, err = said(capsys)
    assert out == ""
    one_sentence(err)
    assert words in err


def test_a_plan_counts_the_victims_of_poisoning(shop: Write, capsys: Captured) -> None:
    supplier = {
        "name": "supplier",
        "kind": "poisoning",
        "why": "suppliers label",
        "goal": {"backdoor": {"trigger": "blend", "target": 1}},
        "capability": {"share": 0.1, "may_change_labels": True},
    }
    trained = {
        "attackers__1": supplier,
        "system__training": {"call": "{shop}:gone"},
        "system__data__train": {"path": "gone.npz"},
        "poisoning": {"victims": 4, "curve": [0.5], "curve_victims": 2},
    }
    assert run(["plan", str(shop(**trained))]) == 0
    out, err = said(capsys)
    assert err == ""
    assert max(map(len, out.splitlines())) <= 80
    flat = " ".join(out.split())
    assert "supplier chosen victims why blended 6 mode" in flat
    assert "labels may be changed, 10 % of the training rows, 4 victims, and 2 each at 5 %" in flat
    assert "10 victims are trained: 4 on clean rows for the poisoning attacker and 6 on poisoned ones" in flat
    assert "anyone chosen queries a row" in flat
    assert "which does not say its cost" not in flat


def test_a_plan_names_what_is_not_built(shop: Write, capsys: Captured) -> None:
    assert run(["plan", str(shop(attackers__0__change={"l1": 1.0}, attackers__0__knowledge="labels"))]) == 0
    assert "no attack on labels alone is built in L1 yet" in " ".join(said(capsys)[0].split())
