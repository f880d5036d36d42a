"""`redan init`: on a real terminal, and by flags where there is none; what it writes can be planned and assessed."""

from __future__ import annotations

import contextlib
import fcntl
import inspect
import io
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redan.cli.app import run
from redan.cli.init import init
from redan.threat.file import read
from redan.threat.interview import QUESTIONS
from redan.threat.model import Factory
from redan.threat.presets import presets

Write = Callable[..., Path]
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "threat-modeling.md"
Captured = pytest.CaptureFixture[str]
ATTACKED = [
    *("--name", "shop", "--classes", "3", "--kind", "tensor", "--shape", "7", "--test", "rows.npz"),
    *("--inputs-from", "anyone", "--evasion-impact", "low", "--amount", "0.1", "--robust-accuracy", "0.7"),
    *("--training-from", "nobody", "--api-to", "nobody", "--no-input"),
]


def said(capsys: Captured) -> tuple[str, str]:
    found = capsys.readouterr()
    return " ".join(found.out.split()), found.err


@pytest.fixture(autouse=True)
def _in_a_folder_without_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())  # no terminal


def factory_of(path: Path) -> str:
    """What the shop calls its model."""
    match read(path).model.system.model:
        case Factory(factory=name):
            return name
    raise AssertionError(path)


# -- by flags -------------------------------------------------------------------------------------------------


def test_what_flags_say_can_be_planned_and_assessed(shop: Write, capsys: Captured) -> None:
    factory = factory_of(shop(weak=2))
    code = run(["init", "made.yaml", *ATTACKED, "--model", factory, "--clean-accuracy", "none"])
    out, err = said(capsys)
    assert (code, err) == (0, "")
    shown = "made.yaml: 1 attacker, 1 requirement anyone evasion .*fast-cascade next: redan plan made.yaml"
    assert re.fullmatch(shown, out)
    model = read("made.yaml").model
    assert (model.system.name, model.system.impact.evasion, model.attackers[0].name) == ("shop", "low", "anyone")
    assert run(["plan", "made.yaml"]) == 0
    assert "fast-cascade" in said(capsys)[0]
    assert run(["assess", "made.yaml"]) == 0
    assert said(capsys)[0].startswith("PASS shop, 32 rows")


@pytest.mark.parametrize("name", [each.name for each in presets()])
def test_a_preset_needs_no_other_flag_and_can_be_planned(capsys: Captured, name: str) -> None:
    assert run(["init", "--preset", name, "--no-input"]) == 0
    out, err = said(capsys)
    assert err == ""
    assert "fill in before you assess: system.model.factory (line 12), system.data.test (line" in out
    assert out.endswith("next: redan plan threat-model.yaml")
    assert run(["plan", "threat-model.yaml"]) == 0


def test_what_each_attacker_will_use_is_shown(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["init", "--preset", "driving", "--no-input"]) == 0
    out, _ = said(capsys)
    assert "someone who turns a sign evasion spatial-grid" in out
    assert "label contractor poisoning badnets owner of a car extraction untested: the copy is for someone with" in out


def test_what_is_left_to_fill_in_is_refused_by_its_key(shop: Write, capsys: Captured) -> None:
    factory = factory_of(shop())
    flags = ["init", "--preset", "driving", "--classes", "3", "--no-input", "--force"]
    rows = factory.partition(":")[0] + ":rows"
    for more, key in (([], "system.data.test"), (["--test", rows], "system.model.factory")):
        run([*flags, *more])
        said(capsys)
        path = Path("threat-model.yaml")
        narrow = {"shape: [3, 48, 48]": "shape: [1, 1, 7]", "trigger: patch": "trigger: {patch: {size: 1}}"}
        for wide, written in narrow.items():
            path.write_text(path.read_text().replace(wide, written))
        assert run(["assess", "threat-model.yaml"]) == 2
        out, err = said(capsys)
        assert out == ""
        assert err.startswith(f"redan: {key} 'FILL_IN_MODULE:")
        assert err.endswith("there is no module 'FILL_IN_MODULE'; put it beside the threat model, or install it\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "these flags are missing: --name, --classes, --kind, --shape, --model, --test, --inputs-from,"),
        (["--preset", "frod"], "there is no preset 'frod'"),
        (["--preset", "fraud", "--kind", "text"], "--kind is not asked with a preset"),
        (["--preset", "driving", "--classes", "one"], "--classes: must be a number, got 'one'"),
        (["no/such/file.yaml", "--preset", "fraud"], "there is no folder no/such; make it"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(capsys: Captured, arguments: list[str], sentence: str) -> None:
    assert run(["init", *arguments]) == 2
    out, err = said(capsys)
    assert out == ""
    assert sentence in err
    assert err.count("\n") == 1
    assert not list(Path().iterdir())


def test_a_file_is_overwritten_only_by_force(capsys: Captured) -> None:
    Path("threat-model.yaml").write_text("mine")
    assert run(["init", "--preset", "fraud", "--no-input"]) == 2
    assert said(capsys)[1] == (
        "redan: threat-model.yaml is there already; name another file, or overwrite it with --force\n"
    )
    assert Path("threat-model.yaml").read_text() == "mine"
    assert run(["init", "--preset", "fraud", "--no-input", "--force"]) == 0
    assert read("threat-model.yaml").model.system.name == "payment screen"
    Path("folder").mkdir()
    assert run(["init", "folder", "--preset", "fraud", "--no-input", "--force"]) == 2
    assert "folder cannot be written (Is a directory); name another file" in said(capsys)[1]


def test_the_commands_of_the_document_run_as_they_stand_there(capsys: Captured) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    assert sum(" init " in line for line in lines) == 2
    for line in lines:
        assert run(shlex.split(line)[1:]) == 0, line
        said(capsys)
    for each in presets():
        assert f"| `{each.name}` |" in text


def test_every_question_has_its_flag() -> None:
    own = {"context", "to", "preset", "force", "no_input"}
    flags = [name for name in inspect.signature(init).parameters if name not in own]
    assert flags == [question.name for question in QUESTIONS]


# -- on a terminal --------------------------------------------------------------------------------------------


class Terminal:
    """A process on a pseudo-terminal of its own, and what it showed so far."""

    def __init__(self, process: subprocess.Popen[bytes], ours: int) -> None:
        self.process, self.ours, self.shown, self.seen = process, ours, "", 0

    def wait_for(self, text: str) -> None:
        """Read until the text is shown, after what was waited for before."""
        while text not in self.shown[self.seen :]:
            try:
                piece = os.read(self.ours, 4096)
            except OSError:  # the other end is closed
                piece = b""
            assert piece, f"ended before {text!r}: {self.shown}"
            self.shown += piece.decode()
        self.seen = self.shown.index(text, self.seen) + len(text)

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def interrupt(self) -> int:
        """Press Ctrl-C, and again after a while: one that falls between a prompt and its read waits for a key."""
        for _ in range(10):
            self.type("\x03")
            while select.select([self.ours], [], [], 5)[0]:
                try:
                    piece = os.read(self.ours, 4096)
                except OSError:  # the other end is closed
                    piece = b""
                self.shown += piece.decode()
                if not piece:
                    return self.process.wait(timeout=60)
        raise AssertionError(f"did not end: {self.shown}")

    def rest(self) -> int:
        """Read to the end; return the exit code."""
        with contextlib.suppress(OSError):
            while piece := os.read(self.ours, 4096):
                self.shown += piece.decode()
        return self.process.wait(timeout=60)


@contextlib.contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()

    def start() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)  # so that Ctrl-C is a signal, as on any terminal

    environment = {**os.environ, "TERM": "dumb", "COLUMNS": "200"}
    with subprocess.Popen(
        [sys.executable, "-m", "redan", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        start_new_session=True,
        preexec_fn=start,
    ) as process:
        os.close(theirs)
        try:
            yield Terminal(process, ours)
        finally:
            process.kill()
            os.close(ours)


def test_the_interview_on_a_terminal(tmp_path: Path) -> None:
    """Enter takes the default; a wrong answer is told at once, and asked again; only what fits is asked."""
    typed = {
        "name": ["toll gate"],
        "classes": ["1", "car, lorry"],
        "change": ["words", "patch"],
        "api_to": ["drivers"],
        "model": ["gate:model"],
    }
    poisoning = {"training_why", "share", "change_labels", "poisoning_goal", "train", "training", "poisoning_impact"}
    unasked = {"deviation", "queries", "poisoned_accuracy", "extraction_impact", *poisoning}
    with terminal("init", "--extraction-impact", "high") as on:
        for question in QUESTIONS:
            if question.name not in unasked:
                for answer in typed.get(question.name, [""]):
                    on.wait_for(question.ask)
                    on.type(f"{answer}\n")
        assert on.rest() == 0
    assert "Error: system.classes must be at least 2, got 1" in on.shown
    assert "Error: must be linf, l2, l1, l0, patch, rotation or translation, got 'words'" in on.shown
    assert "fill in before you assess: system.data.test (line" in on.shown
    assert "next: redan plan threat-model.yaml" in on.shown
    assert not any(question.ask in on.shown for question in QUESTIONS if question.name in unasked)
    model = read(tmp_path / "threat-model.yaml").model
    assert (model.system.name, model.system.classes) == ("toll gate", ("car", "lorry"))
    assert [attacker.name for attacker in model.attackers] == ["anyone who sends an input", "drivers"]
    assert model.system.impact.extraction == "high"


@pytest.mark.slow
def test_ctrl_c_writes_nothing(tmp_path: Path) -> None:
    with terminal("init", "--preset", "driving", "--name", "signs") as on:
        on.wait_for("What is it for?")
        on.type("reading\n")
        on.wait_for("Which classes are there?")
        on.wait_for(": ")
        assert on.interrupt() == 130
    assert on.shown.split("redan: ")[-1].strip() == "interrupted; nothing was written"
    assert not list(tmp_path.iterdir())
