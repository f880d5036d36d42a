"""The run folder: what was written stays, what was changed is refused, and nothing outside it is read."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from redan.errors import EvidenceError
from redan.evidence.folder import RunFolder, digest, file_digest
from redan.evidence.log import BlockLine, EndedLine, Line, ResumedLine


def ended(rows: int, why: str = "done") -> EndedLine:
    return EndedLine(why=why, rows=rows, limits_hit=[], seconds=1.5)


@pytest.fixture(params=["path", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> RunFolder:
    out = tmp_path / "runs" if request.param == "path" else f"memory://{uuid.uuid4().hex}/runs"
    return RunFolder.create(out)


@pytest.fixture
def local(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs")


def segment(folder: RunFolder, number: int = 1) -> str:
    return f"log/{number:06d}.jsonl"


def lines(folder: RunFolder) -> list[Line]:
    return list(folder.lines())


def test_a_run_folder_is_new_and_named_by_time(tmp_path: Path) -> None:
    folders = [RunFolder.create(tmp_path / "a" / "b") for _ in range(20)]
    assert len({folder.id for folder in folders}) == 20
    for folder in folders:
        assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", folder.id)
        assert Path(folder.url).parent == tmp_path / "a" / "b"
        assert sorted(path.name for path in Path(folder.url).iterdir()) == ["inputs", "log"]


@pytest.mark.parametrize("out", ["file/runs", "file"])
def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EvidenceError, match=r"cannot be made \(.*\); choose another with --out or run.out"):
        RunFolder.create(tmp_path / out)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("where", ["nosuch://x/y", "nowhere://"])
def test_a_filesystem_that_nothing_serves_is_one_sentence(where: str) -> None:
    with pytest.raises(EvidenceError, match="address cannot be used"):
        RunFolder.create(where)


def test_a_run_folder_is_opened_where_it_is(folder: RunFolder) -> None:
    folder.append(ended(3))
    again = RunFolder.open(folder.url + "/")
    assert again.id == folder.id
    assert lines(again) == [ended(3)]


def test_what_is_no_run_folder_is_not_opened(folder: RunFolder) -> None:
    with pytest.raises(EvidenceError, match="is no run folder"):
        RunFolder.open(folder.url)


# -- the log --------------------------------------------------------------------------------------------


def test_the_log_only_grows(folder: RunFolder) -> None:
    before: dict[str, bytes] = {}
    for i in range(12):
        folder.append(ended(i), ended(100 + i, why=f"ünï\n{i}"))
        now = {name: folder.read(f"log/{name}") for name in folder.segments()}
        assert before.items() <= now.items()
        assert len(now) == i + 1
        before = now
    assert [line.rows for line in lines(folder) if isinstance(line, EndedLine) and line.rows < 100] == list(range(12))
    assert [line.why for line in lines(folder) if isinstance(line, EndedLine)][1::2] == [f"ünï\n{i}" for i in range(12)]


def test_appending_nothing_changes_nothing(folder: RunFolder) -> None:
    folder.append(ended(1))
    folder.append()
    assert list(folder.segments()) == ["000001.jsonl"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_json_has_no_word_for_is_no_line(number: float) -> None:
    with pytest.raises(ValidationError):
        EndedLine(why="done", rows=1, limits_hit=[], seconds=number)


@pytest.mark.parametrize("cut", [1, 2, 5, 20, 60])
def test_a_last_line_that_was_cut_is_left_out(folder: RunFolder, cut: int) -> None:
    folder.append(ended(1), ended(22, why="ü"))
    folder.write(segment(folder), folder.read(segment(folder))[:-cut])
    assert lines(folder) == [ended(1)]


def test_a_torn_segment_does_not_hide_those_after_it(folder: RunFolder) -> None:
    folder.append(ended(1), ended(2))
    folder.append(ended(3))
    folder.write(segment(folder), folder.read(segment(folder))[:-7])
    assert lines(folder) == [ended(1), ended(3)]


def test_a_line_that_was_spoiled_in_the_middle_is_refused(folder: RunFolder) -> None:
    folder.append(ended(1), ended(2), ended(3))
    folder.write(segment(folder), folder.read(segment(folder)).replace(b'"rows":2', b'"rows":'))
    with pytest.raises(EvidenceError, match=r"line 2 of .*000001.jsonl is not a line of evidence; it was changed"):
        lines(folder)


@pytest.mark.parametrize("text", [b"{}\n", b'{"event":"other"}\n', b"[]\n", b'{"event":"ended"}\n', b"\xff\n"])
def test_what_is_no_line_of_ours_is_refused(folder: RunFolder, text: bytes) -> None:
    folder.write(segment(folder), text)
    with pytest.raises(EvidenceError, match="is not a line of evidence"):
        lines(folder)


def test_files_that_are_no_segments_are_not_read(folder: RunFolder) -> None:
    folder.append(ended(1))
    for name in ("log/000002.jsonl.part", "log/notes.txt", "log/2.jsonl"):
        folder.write(name, b"no line\n")
    assert lines(folder) == [ended(1)]
    assert folder.fresh() == "000002"


def test_lines_are_plain_json(folder: RunFolder) -> None:
    block = BlockLine(attacker="a", inputs=None, sha256="0", seconds={"pgd": 0.5}, crashed={})
    folder.append(block, ResumedLine(started="now"))
    first, second = map(json.loads, folder.read(segment(folder)).splitlines())
    assert first == {
        "event": "block",
        "attacker": "a",
        "inputs": None,
        "sha256": "0",
        "seconds": {"pgd": 0.5},
        "crashed": {},
        "beside": None,
    }
    assert second == {"event": "resumed", "started": "now"}
    assert lines(folder)[0] == block


# -- whole files and inputs -----------------------------------------------------------------------------


def test_a_whole_file_leaves_no_part_behind(local: RunFolder) -> None:
    path = Path(local.url)
    assert local.write("report.json", b"{}") == digest(b"{}") == file_digest(path / "report.json")
    assert sorted(file.name for file in path.iterdir()) == ["inputs", "log", "report.json"]


def test_a_file_is_there_or_not(folder: RunFolder) -> None:
    assert not folder.has("report.json")
    folder.write("report.json", b"{}")
    assert folder.has("report.json")
    assert folder.read("report.json") == b"{}"
    with pytest.raises(EvidenceError, match="is missing"):
        folder.read("other.json")


def test_inputs_come_back_as_they_were(folder: RunFolder) -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    sha = folder.save_inputs("000002.safetensors", {"x": x.t(), "row": torch.arange(5)})
    loaded = folder.load_inputs("000002.safetensors", sha)
    assert torch.equal(loaded["x"], x.t())
    assert torch.equal(loaded["row"], torch.arange(5))
    assert sha == digest(folder.read("inputs/000002.safetensors"))


def test_no_input_at_all_can_be_saved(folder: RunFolder) -> None:
    sha = folder.save_inputs("none.safetensors", {"x": torch.empty(0, 3)})
    assert folder.load_inputs("none.safetensors", sha)["x"].shape == (0, 3)


@pytest.mark.parametrize("at", [0, 20, -1])
def test_inputs_that_were_changed_are_refused(folder: RunFolder, at: int) -> None:
    sha = folder.save_inputs("a.safetensors", {"x": torch.zeros(4, 4)})
    content = bytearray(folder.read("inputs/a.safetensors"))
    content[at] ^= 1
    folder.write("inputs/a.safetensors", bytes(content))
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


@pytest.mark.parametrize(
    "trick", ["../secret.safetensors", "../inputs/a.safetensors", "./a.safetensors", "..", "", "/etc/hostname"]
)
def test_a_name_that_is_a_path_is_refused(folder: RunFolder, trick: str) -> None:
    sha = folder.save_inputs("a.safetensors", {"x": torch.zeros(4)})
    folder.write("secret.safetensors", folder.read("inputs/a.safetensors"))
    with pytest.raises(EvidenceError, match="names inputs outside its folder"):
        folder.load_inputs(trick, sha)
