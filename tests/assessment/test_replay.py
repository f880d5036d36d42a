"""A run folder checked again: what agrees, and every way in which evidence may have been changed."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import redan
from redan.assessment.replay import Replay, replay
from redan.errors import EvidenceError
from redan.evidence.folder import REPORT

Write = Callable[..., Path]


def run_of(path: Path, **options: object) -> Path:
    return Path(redan.assess(path, workers=1, **options).run.folder)  # type: ignore[arg-type]


def rewrite(run: Path, change: Callable[[str], str]) -> None:
    """Change the log's text, and take the report that no longer fits away."""
    for path in (run / "log").iterdir():
        path.write_text(change(path.read_text()))


def test_what_was_not_touched_agrees(shop: Write) -> None:
    path = shop(weak=5, run__block=8, attacks__mode="default")
    found = replay(run_of(path), path)
    assert found == Replay(rows=32, kept=32, agreed=32, differences=())
    assert found.exit_code == 0


def test_inputs_that_were_not_kept_cannot_be_asked_about(shop: Write) -> None:
    """Rows that were never broken are still there: their saved input is the clean one."""
    path = shop(weak=5, run__keep_inputs="none")
    found = replay(run_of(path), path)
    assert (found.rows, found.kept, found.agreed, found.exit_code) == (32, 27, 27, 0)
    every = shop(weak=32, run__keep_inputs="none")
    nothing = replay(run_of(every), every)
    assert (nothing.kept, nothing.exit_code) == (0, 3)


@pytest.mark.slow
def test_random_models_are_replayed_with_their_own_seed(shop: Write) -> None:
    path = shop("Noisy", weak=16, system__model__arguments__sigma=0.3, run__block=8, attacks__mode="quick")
    assert replay(run_of(path), path).differences == ()


def test_a_broken_row_that_is_called_robust_is_found_out(shop: Write) -> None:
    path = shop(weak=5)
    run = run_of(path)
    rewrite(run, lambda text: text.replace('"status":"broken"', '"status":"robust"'))
    found = replay(run, path)
    assert found.exit_code == 1
    assert sum("was robust, now measured again" in sentence for sentence in found.differences) == 5
    assert "report.json is not what follows from the log" in found.differences


def test_a_robust_row_that_is_called_broken_is_found_out(shop: Write) -> None:
    path = shop(weak=5)
    run = run_of(path)
    rewrite(run, lambda text: text.replace('"status":"robust"', '"status":"broken"'))
    assert sum("was broken, now measured again" in sentence for sentence in replay(run, path).differences) == 27


@pytest.mark.parametrize("told", [False, True], ids=["silently", "with the digest"])
def test_other_inputs_are_found_out(shop: Write, told: bool) -> None:
    """Also by who changes the file's digest in the log: each row's own digest is there too."""
    path = shop(weak=5)
    run = run_of(path)
    (file,) = (run / "inputs").iterdir()
    tensors = load_file(file)
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    save_file({**tensors, "x": tensors["x"].flip(0)}, file)
    if told:
        after = hashlib.sha256(file.read_bytes()).hexdigest()
        rewrite(run, lambda text: text.replace(before, after))
    found = replay(run, path)
    assert found.exit_code == 1
    words = "the saved input's bytes are not those" if told else "is not the file that was logged"
    assert any(words in sentence for sentence in found.differences)


def test_a_file_that_is_gone_is_told(shop: Write) -> None:
    path = shop(weak=5)
    run = run_of(path)
    (file,) = (run / "inputs").iterdir()
    file.unlink()
    assert any("is missing" in sentence for sentence in replay(run, path).differences)


def test_a_log_that_points_out_of_its_folder_is_not_followed(shop: Write, tmp_path: Path) -> None:
    path = shop(weak=5)
    run = run_of(path)
    (file,) = (run / "inputs").iterdir()
    file.rename(tmp_path / "elsewhere.safetensors")
    rewrite(run, lambda text: text.replace(file.name, "../../../elsewhere.safetensors"))
    assert any("names inputs outside its folder" in sentence for sentence in replay(run, path).differences)


def test_another_model_is_told_by_its_digest_and_its_answers(shop: Write) -> None:
    run = run_of(shop(weak=5))
    path = shop("Turned", weak=5)
    found = replay(run, path)
    assert "the threat-model file changed since the run" in found.differences
    (source,) = run.parent.parent.glob("shop_*.py")
    source.write_text(source.read_text().replace("return x @ self.weight.T", "return 2 * (x @ self.weight.T)"))
    sys.modules.pop(source.stem)
    assert "the model changed since the run" in replay(run, path).differences
    assert sum(sentence.startswith("row ") for sentence in found.differences) >= 5


@pytest.mark.parametrize("change", ["verdict", "value", "nonsense"])
def test_a_report_that_does_not_follow_from_the_log_is_told(shop: Write, change: str) -> None:
    path = shop(weak=28)
    run = run_of(path)
    report = json.loads((run / REPORT).read_text())
    if change == "verdict":
        report |= {"verdict": "pass", "exit_code": 0}
    elif change == "value":
        report["attackers"][0]["counts"]["robust"] += 1
    (run / REPORT).write_text("{}" if change == "nonsense" else json.dumps(report))
    assert any("report.json" in sentence for sentence in replay(run, path).differences)


def test_a_moved_folder_agrees(shop: Write, tmp_path: Path) -> None:
    path = shop(weak=5)
    run = run_of(path)
    assert replay(run.rename(tmp_path / "moved"), path).exit_code == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"row":3,', '"row":99,'),
        lambda text: text.replace('"attacker":"anyone"', '"attacker":"nobody"'),
        lambda text: text.replace('"event":"row"', '"event":"raw"'),
        lambda text: text.replace("{", "", 1),
        lambda _: "",
    ],
    ids=["row", "attacker", "event", "syntax", "empty"],
)
def test_a_log_that_is_none_is_one_sentence(shop: Write, change: Callable[[str], str]) -> None:
    path = shop(weak=5)
    run = run_of(path)
    rewrite(run, change)
    with pytest.raises(EvidenceError, match="the log|evidence"):
        replay(run, path)


def test_nothing_of_the_run_folder_is_executed(shop: Write, tmp_path: Path) -> None:
    """The folder's own copy of the threat model names a function that must never run."""
    path = shop(weak=5)
    run = run_of(path)
    trap = tmp_path / "sprung"
    (run / "trap.py").write_text(f"open({str(trap)!r}, 'w').write('x')\n")
    copy = run / "threat-model.yaml"
    copy.write_text(copy.read_text().replace("factory:", "factory: trap:build #"))
    assert replay(run, path).exit_code == 0
    assert not trap.exists()


def test_more_rows_saved_than_logged_do_no_harm(shop: Write) -> None:
    path = shop(weak=5)
    run = run_of(path)
    (file,) = (run / "inputs").iterdir()
    tensors = load_file(file)
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    save_file({key: torch.cat([value, value]) for key, value in tensors.items()}, file)
    after = hashlib.sha256(file.read_bytes()).hexdigest()
    rewrite(run, lambda text: text.replace(before, after))
    assert replay(run, path).exit_code == 0
    save_file({"x": tensors["x"][:3], "row": tensors["row"][:3]}, file)
    shorter = hashlib.sha256(file.read_bytes()).hexdigest()
    rewrite(run, lambda text: text.replace(after, shorter))
    assert any("does not hold the rows" in sentence for sentence in replay(run, path).differences)
