"""From what a run kept to what a page shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import redan
from redan.errors import EvidenceError
from redan.evidence.folder import RunFolder
from redan.evidence.log import RightAnswer, RowLine
from redan.evidence.pictures import (
    PICTURES,
    POISON_PICTURES,
    Pictures,
    PoisonPictures,
    load_pictures,
    save_pictures,
    save_poison_pictures,
)
from redan.evidence.report import Report
from redan.report.gallery import Gallery, gallery_of
from redan.report.poison_gallery import poison_pictures

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


# -- poison ------------------------------------------------------------------------------------------------


def same(a: PoisonPictures, b: PoisonPictures) -> bool:
    pairs = [(getattr(a, key), getattr(b, key)) for key in PoisonPictures.__dataclass_fields__]
    return all(x.equal(y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path)


def test_pictures_of_poison_are_read_back_as_they_were_saved(
    folder: RunFolder, planted: Gallery, poisoned: dict[str, Report]
) -> None:
    (whole,) = planted.poisoned
    bare = replace(whole, attacker=3, planted=None, mask=None, pattern=None, bounds=(-1.0, 1.0))
    assert load_pictures(folder) is None
    save_poison_pictures(folder, [])
    assert not folder.has(POISON_PICTURES)
    save_poison_pictures(folder, [bare, whole])
    found = load_pictures(folder)
    assert found is not None
    assert len(found.attacker) == 0
    assert [same(*pair) for pair in zip(found.poisoned, (whole, bare), strict=True)] == [True, True]
    gallery = gallery_of(poisoned["rich"], found, [], [])
    assert [each.attacker for each in gallery.poisoned] == [0]  # the report has no fourth attacker
    assert gallery.examples == ()


def test_pictures_of_poison_stand_beside_those_of_rows(folder: RunFolder, planted: Gallery) -> None:
    one = torch.zeros(1, dtype=torch.int64)
    rows = Pictures(
        attacker=one,
        row=one.clone(),
        x0=torch.zeros(1, 1, 2, 2),
        x=torch.ones(1, 1, 2, 2),
        before=torch.zeros(1, 3),
        after=torch.ones(1, 3),
        bounds=(0.0, 1.0),
    )
    save_pictures(folder, rows)
    save_poison_pictures(folder, planted.poisoned)
    found = load_pictures(folder)
    assert found is not None
    assert (len(found.attacker), len(found.poisoned)) == (1, 1)


def test_no_pictures_of_poison_of_an_attacker_who_did_not_poison(
    folder: RunFolder, planted: Gallery, poisoned: dict[str, Report]
) -> None:
    save_poison_pictures(folder, planted.poisoned)
    part = poisoned["rich"].attackers[0].model_copy(update={"poisoning": None})
    report = poisoned["rich"].model_copy(update={"attackers": [part]})
    assert gallery_of(report, load_pictures(folder), [], []).poisoned == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"poisoned": torch.zeros(4, 1, 27, 28)},
        {"before": torch.zeros(3)},
        {"mask": None},
        {"planted": torch.zeros(28, 28)},
        {"bounds": (1.0, 0.0)},
        {"bounds": (0.0, float("nan"))},
        {key: torch.zeros(65, 1, 2, 2) for key in ("clean", "poisoned")}
        | {key: torch.zeros(65) for key in ("before", "after")}
        | dict.fromkeys(("planted", "mask", "pattern")),
    ],
)
def test_pictures_that_do_not_fit_each_other_are_not_saved(
    folder: RunFolder, planted: Gallery, changed: dict[str, Any]
) -> None:
    with pytest.raises(EvidenceError, match="do not fit each other"):
        save_poison_pictures(folder, [replace(planted.poisoned[0], **changed)])
    assert not folder.has(POISON_PICTURES)


@pytest.mark.parametrize(
    "other",
    [
        {"0.more": torch.zeros(1)},
        {"clean": torch.zeros(1)},
        {"../0.clean": torch.zeros(1)},
        {"1.clean": torch.zeros(1, 1, 2, 2)},
        {"0.clean": torch.zeros(())},
        {"0.before": torch.zeros(4)},
        {"0.bounds": torch.zeros(3, dtype=torch.float64)},
        {"0.clean": torch.zeros(4, 1, 28, 28, dtype=torch.int64)},
        {"0.clean": torch.zeros(4, 1, 4000, 1), "0.poisoned": torch.zeros(4, 1, 4000, 1)},
        b"none",
    ],
)
def test_pictures_of_poison_that_are_not_ours_are_one_sentence(folder: RunFolder, planted: Gallery, other: Any) -> None:
    save_poison_pictures(folder, planted.poisoned)
    path = Path(folder.root) / POISON_PICTURES
    if isinstance(other, bytes):
        path.write_bytes(other)
    else:
        save_file({**load_file(path), **other}, path)
    with pytest.raises(EvidenceError, match=f"{POISON_PICTURES} .*delete it"):
        load_pictures(folder)


def test_a_file_too_large_to_be_ours_is_not_read(folder: RunFolder) -> None:
    with (Path(folder.root) / POISON_PICTURES).open("wb") as file:
        file.truncate(2**26 + 1)
    with pytest.raises(EvidenceError, match="larger than redan writes; delete it"):
        load_pictures(folder)


def test_the_found_trigger_is_mask_times_pattern_and_dark_ones_are_magnified(planted: Gallery) -> None:
    (whole,) = planted.poisoned
    assert whole.mask is not None
    assert whole.planted is not None
    assert whole.pattern is not None
    drawn = poison_pictures(planted)[0]
    assert drawn.found is not None
    assert drawn.planted is not None
    assert [row.factor for row in drawn.rows][3] == pytest.approx(10, rel=0.05)
    assert (drawn.planted.factor, drawn.width, drawn.height) == (1.0, 28, 28)
    faint = replace(whole, planted=0.25 * whole.planted)
    again = poison_pictures(Gallery(poisoned=(faint,)))[0].planted
    assert again is not None
    assert (again.factor, again.image) == (4.0, drawn.planted.image)
    shifted = replace(whole, bounds=(-1.0, 1.0), pattern=2 * whole.pattern - 1)
    other = poison_pictures(Gallery(poisoned=(shifted,)))[0].found
    assert other is not None
    assert other.image == drawn.found.image
    empty = replace(whole, planted=None, mask=None, pattern=None, clean=whole.poisoned)
    none = poison_pictures(Gallery(poisoned=(empty,)))[0]
    assert (none.planted, none.found, none.rows[0].factor) == (None, None, 1.0)
