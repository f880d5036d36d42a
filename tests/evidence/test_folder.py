"""The run folder: what was written stays, what was changed is refused, and nothing outside it is read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from redan.errors import EvidenceError
from redan.evidence.folder import LOG, RunFolder, digest, file_digest


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs")


def test_a_run_folder_is_new_and_named_by_time(tmp_path: Path) -> None:
    folders = [RunFolder.create(tmp_path / "a" / "b") for _ in range(20)]
    assert len({folder.id for folder in folders}) == 20
    for folder in folders:
        assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", folder.id)
        assert folder.path.parent == tmp_path / "a" / "b"
        assert [path.name for path in folder.path.iterdir()] == ["inputs"]


@pytest.mark.parametrize("out", ["file/runs", "file"])
def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EvidenceError, match=r"cannot be made \(.*\); choose another with --out or run.out"):
        RunFolder.create(tmp_path / out)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# -- the log --------------------------------------------------------------------------------------------


def test_the_log_only_grows(folder: RunFolder) -> None:
    before = b""
    for i in range(5):
        folder.append({"event": "row", "row": i}, {"event": "row", "name": f"ünï\n{i}"})
        now = (folder.path / LOG).read_bytes()
        assert now.startswith(before)
        assert now.count(b"\n") == 2 * (i + 1)
        before = now
    assert [record["row"] for record in folder.records() if "row" in record] == list(range(5))
    assert [record["name"] for record in folder.records() if "name" in record] == [f"ünï\n{i}" for i in range(5)]


def test_appending_nothing_changes_nothing(folder: RunFolder) -> None:
    folder.append({"a": 1})
    before = (folder.path / LOG).read_bytes()
    folder.append()
    assert (folder.path / LOG).read_bytes() == before


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_json_has_no_word_for_is_not_written(folder: RunFolder, number: float) -> None:
    folder.append({"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        folder.append({"a": 2}, {"a": number})
    assert list(folder.records()) == [{"a": 1}]  # not half of it either


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_last_line_that_was_cut_is_left_out(folder: RunFolder, cut: int) -> None:
    folder.append({"row": 1}, {"row": 22})
    log = folder.path / LOG
    log.write_bytes(log.read_bytes()[:-cut])
    assert list(folder.records()) == [{"row": 1}]


def test_a_last_line_that_was_cut_inside_a_letter_is_left_out(folder: RunFolder) -> None:
    folder.append({"row": 1}, {"name": "ü"})
    log = folder.path / LOG
    log.write_bytes(log.read_bytes()[:-4])
    assert log.read_bytes().endswith(b"\xc3")
    assert list(folder.records()) == [{"row": 1}]


def test_a_line_that_was_spoiled_in_the_middle_is_refused(folder: RunFolder) -> None:
    folder.append({"row": 1}, {"row": 2}, {"row": 3})
    log = folder.path / LOG
    log.write_text(log.read_text().replace('{"row":2}', '{"row":2'))
    with pytest.raises(EvidenceError, match=r"line 2 of .*log.jsonl is not JSON; the evidence was changed, run again"):
        list(folder.records())


# -- whole files and inputs -----------------------------------------------------------------------------


def test_a_whole_file_leaves_no_part_behind(folder: RunFolder) -> None:
    assert folder.write("report.json", b"{}") == digest(b"{}") == file_digest(folder.path / "report.json")
    assert sorted(path.name for path in folder.path.iterdir()) == ["inputs", "report.json"]


def test_inputs_come_back_as_they_were(folder: RunFolder) -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    sha = folder.save_inputs("01-000000.safetensors", {"x": x.t(), "index": torch.arange(5)})
    loaded = folder.load_inputs("01-000000.safetensors", sha)
    assert torch.equal(loaded["x"], x.t())
    assert torch.equal(loaded["index"], torch.arange(5))
    assert sha == file_digest(folder.path / "inputs" / "01-000000.safetensors")


def test_no_input_at_all_can_be_saved(folder: RunFolder) -> None:
    sha = folder.save_inputs("none.safetensors", {"x": torch.empty(0, 3)})
    assert folder.load_inputs("none.safetensors", sha)["x"].shape == (0, 3)


@pytest.mark.parametrize("at", [0, 20, -1])
def test_inputs_that_were_changed_are_refused(folder: RunFolder, at: int) -> None:
    sha = folder.save_inputs("a.safetensors", {"x": torch.zeros(4, 4)})
    path = folder.path / "inputs" / "a.safetensors"
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(EvidenceError, match="not the file that was logged; the evidence was changed, run again"):
        folder.load_inputs("a.safetensors", sha)


def test_inputs_of_another_file_are_refused(folder: RunFolder) -> None:
    one = folder.save_inputs("a.safetensors", {"x": torch.zeros(4)})
    folder.save_inputs("b.safetensors", {"x": torch.ones(4)})
    with pytest.raises(EvidenceError, match="not the file that was logged"):
        folder.load_inputs("b.safetensors", one)


def test_inputs_that_are_gone_are_refused(folder: RunFolder) -> None:
    sha = folder.save_inputs("a.safetensors", {"x": torch.zeros(4)})
    folder.remove_inputs("a.safetensors")
    with pytest.raises(EvidenceError, match="is missing; the evidence is not complete"):
        folder.load_inputs("a.safetensors", sha)


def test_what_was_logged_but_is_no_safetensors_is_refused(folder: RunFolder) -> None:
    sha = folder.write("inputs/a.safetensors", b"\x80\x04junk")
    with pytest.raises(EvidenceError, match="cannot be read"):
        folder.load_inputs("a.safetensors", sha)


@pytest.mark.parametrize("trick", ["../secret.safetensors", "../inputs/a.safetensors", "./a.safetensors", "..", ""])
def test_a_name_that_is_a_path_is_refused(folder: RunFolder, trick: str) -> None:
    sha = folder.save_inputs("a.safetensors", {"x": torch.zeros(4)})
    content = (folder.path / "inputs" / "a.safetensors").read_bytes()
    (folder.path / "secret.safetensors").write_bytes(content)
    with pytest.raises(EvidenceError, match="is missing"):
        folder.load_inputs(trick, sha)


def test_an_absolute_name_is_refused(folder: RunFolder, tmp_path: Path) -> None:
    secret = tmp_path / "secret.safetensors"
    sha = folder.save_inputs("a.safetensors", {"x": torch.zeros(4)})
    secret.write_bytes((folder.path / "inputs" / "a.safetensors").read_bytes())
    with pytest.raises(EvidenceError, match="is missing"):
        folder.load_inputs(str(secret), sha)


def test_lines_are_plain_json(folder: RunFolder) -> None:
    folder.append({"event": "row", "y": 3, "by": None, "distance": 0.1})
    (line,) = (folder.path / LOG).read_text().splitlines()
    assert json.loads(line) == {"event": "row", "y": 3, "by": None, "distance": 0.1}
