"""From what a run kept to what a page shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import redan
from redan.errors import EvidenceError
from redan.evidence.folder import RunFolder
from redan.evidence.log import RightAnswer, RowLine
from redan.evidence.pictures import PICTURES, load_pictures
from redan.evidence.report import Report
from redan.report.gallery import Gallery, gallery_of

Write = Callable[..., Path]
IMAGE = {
    "system__inputs": {"kind": "image", "shape": [1, 1, 7], "bounds": [0, 1]},
    "system__model__arguments__kind": "Picture",
}


def opened(report: Report) -> tuple[RunFolder, Gallery]:
    folder = RunFolder.open(report.run.folder)
    rows = [line for line in folder.lines() if isinstance(line, RowLine)]
    ids = [""] * report.run.rows
    labels: list[RightAnswer] = [0] * report.run.rows
    for line in rows:
        ids[line.row], labels[line.row] = line.id, line.y
    return folder, gallery_of(report, load_pictures(folder), ids, labels)


def test_the_first_broken_rows_are_shown_beside_what_they_were_made_of(shop: Write) -> None:
    report = redan.assess(shop(weak=10, **IMAGE))
    folder, gallery = opened(report)
    lines = {line.id: line for line in folder.lines() if isinstance(line, RowLine)}
    assert len(gallery.examples) == 6
    for each in gallery.examples:
        line = lines[each.row]
        assert (each.attacker, each.label, each.clean, each.adversarial) == ("anyone", line.y, line.before, line.after)
        assert each.adversarial != each.label
        assert each.distance == pytest.approx(line.distance)
        assert each.x.shape == each.x0.shape == (1, 1, 7)
        assert each.scores is not None
        assert each.scores[0].shape == (3,)
    assert [lines[each.row].row for each in gallery.examples] == sorted(
        line.row for line in lines.values() if line.status == "broken"
    )[:6]


@pytest.mark.parametrize("changed", [{}, {**IMAGE, "run__keep_inputs": "none"}, {**IMAGE, "weak": 0}])
def test_there_is_nothing_to_show_of_other_inputs_or_where_none_are_kept(
    shop: Write, changed: dict[str, object]
) -> None:
    report = redan.assess(shop(**{"weak": 10, **changed}))
    assert not (Path(report.run.folder) / PICTURES).exists()
    assert opened(report)[1] == Gallery()


def test_pictures_of_another_run_are_not_shown(shop: Write) -> None:
    report = redan.assess(shop(weak=10, **IMAGE))
    path = Path(report.run.folder) / PICTURES
    tensors = load_file(path)
    save_file({**tensors, "row": tensors["row"] + 1000}, path)
    assert opened(report)[1].examples == ()


@pytest.mark.parametrize("spoiled", ["bytes", "keys", "lengths", "bounds"])
def test_a_file_that_is_not_ours_is_one_sentence(shop: Write, spoiled: str) -> None:
    report = redan.assess(shop(weak=10, **IMAGE))
    path = Path(report.run.folder) / PICTURES
    tensors = load_file(path)
    if spoiled == "bytes":
        path.write_bytes(b"none")
    else:
        other = {
            "keys": {"more": torch.zeros(6)},
            "lengths": {"x": torch.zeros(2, 1, 1, 7)},
            "bounds": {"bounds": torch.zeros(3)},
        }
        save_file({**tensors, **other[spoiled]}, path)
    with pytest.raises(EvidenceError, match=PICTURES):
        opened(report)
