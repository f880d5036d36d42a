"""What detectors and repairs are told to have done of a run's poison, and what is kept to be looked at."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import redan
from redan.assessment.inspection_scene import Found
from redan.assessment.victim import Done
from redan.assessment.workshop import Workshop
from redan.data.samples import Samples
from redan.defenses.fine_pruning import FinePruning
from redan.defenses.suspicion import Suspects, suspicion
from redan.defenses.unlearning import Unlearning
from redan.errors import DataError
from redan.evidence.folder import RunFolder
from redan.evidence.pictures import load_pictures
from redan.evidence.poisoned import DetectorPart, PoisoningPart, RepairPart, TriggerPart
from redan.evidence.report import Report
from redan.evidence.summary import report_of
from redan.poisoning.triggers import Patch
from redan.registry.detectors import DETECTORS
from redan.registry.poisoners import poisoner

Write = Callable[..., Path]
Threads = Callable[[], AbstractContextManager[None]]
inspection = import_module("redan.assessment.inspection")
looking = import_module("redan.assessment.inspection_detectors")
mending = import_module("redan.assessment.inspection_repairs")
TRAIN, TRUSTED, POISONED = 120, 30, 24


def looked(shop: Workshop, name: str) -> Done:
    found: Done = inspection.inspected(shop, "supplier", name)
    return found


def detectors(done: Done) -> list[DetectorPart]:
    return [DetectorPart.model_validate(each) for each in done.told["detectors"]]


def repairs(done: Done) -> list[RepairPart]:
    return [RepairPart.model_validate(each) for each in done.told["repairs"]]


@pytest.fixture(scope="module")
def shop(supplied: Write, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Pictures with a patch, and trusted rows."""
    return Workshop(supplied(tmp_path_factory.mktemp("pictures"), images=True))


@pytest.fixture(scope="module")
def done(shop: Workshop) -> Done:
    return looked(shop, "badnets")


# -- detectors -------------------------------------------------------------------------------------------------


def test_every_detector_is_told_of(done: Done) -> None:
    parts = detectors(done)
    assert [part.name for part in parts] == [entry.name for entry in DETECTORS]
    for part in parts:
        if part.name == "confident-learning" and importlib.util.find_spec("cleanlab") is None:
            assert (part.status, part.auc) == ("not applicable", None)
            assert "redan[poisoning]" in (part.reason or "")
            continue
        assert part.status == "done"
        assert part.reason is None
        assert part.auc is not None
        assert 0 <= part.auc <= 1
        assert part.recall is not None
        assert 0 <= part.recall <= 1
        assert part.q == 0.1
        assert part.found is not None
        assert part.caught is not None
        assert 0 <= part.caught <= min(part.found, POISONED)
    told = {part.name: part.auc for part in parts}
    for name in ("activation-clustering", "spectral-signatures", "local-outlier-factor"):
        assert (told[name] or 0) > 0.9  # a patch in one row of five is easily seen


def test_suppliers_are_told_with_their_poison(shop: Workshop, done: Done) -> None:
    """Of trusted rows nobody is a supplier: all that is suspicious falls on the training rows."""
    made, _ = shop.poisoned(shop.campaigns["supplier"], poisoner("badnets"), 0.2, 0)
    assert shop.train.source is not None
    suppliers = np.array(shop.train.source)
    told = {each["source"]: each for each in done.told["sources"]}
    assert set(told) == {"a", "b"}
    for name, each in told.items():
        assert each["rows"] == (suppliers == name).sum()
        assert each["poisoned"] == (suppliers[made.changed] == name).sum()
    assert sum(each["suspicious"] for each in told.values()) == POISONED


def test_it_is_repeatable(shop: Workshop, done: Done) -> None:
    again = looked(Workshop(shop.folder / "threat-model.yaml"), "badnets")
    assert again.told | {"seconds": 0} == done.told | {"seconds": 0}
    assert {key: value.tobytes() for key, value in again.arrays.items()} == {
        key: value.tobytes() for key, value in done.arrays.items()
    }


def test_a_detector_that_cannot_look_says_why(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others go on."""

    class Blind:
        def __call__(self, suspects: Any, *, seed: int) -> Any:
            raise DataError("there is nothing to see; look elsewhere")

    first = replace(DETECTORS[0], make=lambda seen: Blind())
    monkeypatch.setattr(looking, "DETECTORS", (first, DETECTORS[1]))
    one, other = detectors(looked(shop, "badnets"))
    assert (one.status, one.reason) == ("not applicable", "there is nothing to see; look elsewhere")
    assert (one.auc, one.recall, one.found, one.caught, one.q) == (None, None, None, None, None)
    assert other.status == "done"


def test_without_any_detector_there_is_nothing_to_take_out(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "DETECTORS", ())
    found = looked(shop, "badnets")
    assert found.told["detectors"] == []
    assert found.told["sources"] == []
    told = {part.name: part for part in repairs(found)}
    for name in ("remove and retrain", "unlearning"):
        assert told[name].status == "not applicable"
        assert told[name].reason == "no detector could look at the rows"
    assert told["fine-pruning"].status == "done"


def test_a_training_without_layers_is_looked_at_from_outside(supplied: Write, tmp_path: Path) -> None:
    """No features, no losses, no weights: each is told with its reason."""
    shop = Workshop(supplied(tmp_path, "nearest"))
    found = looked(shop, "table-trigger")
    told = {part.name: part for part in detectors(found)}
    assert set(told) == {entry.name for entry in DETECTORS}
    assert told["loss-isolation"].status == "not applicable"
    assert told["loss-isolation"].reason
    assert told["near-duplicates"].status == "done"
    assert "The training gives no torch module, so features are the inputs themselves." in found.told["notes"]
    for part in repairs(found)[1:]:
        assert part.status == "not applicable"
        assert part.reason == "the training gives no torch module whose weights could be changed"


def test_without_trusted_rows_suspicions_are_ranks(supplied: Write, tmp_path: Path) -> None:
    shop = Workshop(supplied(tmp_path, system__data__trusted=None))
    found = looked(shop, "table-trigger")
    assert any("No row is trusted, so suspicions are ranks" in note for note in found.told["notes"])
    for part in detectors(found):
        assert (part.found, part.caught, part.q) == (None, None, None)
        assert part.status != "done" or part.auc is not None
    told = {part.name: part for part in repairs(found)}
    assert told["fine-pruning"].status == "not applicable"
    assert "trusted rows" in (told["fine-pruning"].reason or "")


# -- trusted rows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["badnets", "flagged"])
def test_trusted_rows_are_never_taken_out(
    supplied: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Also where the best detector finds them most suspicious of all."""
    shop = Workshop(supplied(tmp_path, images=True))

    class Backwards:
        def __call__(self, suspects: Any, *, seed: int) -> NDArray[np.float64]:
            trusted = np.asarray(suspects.trusted, dtype=float)
            return trusted * 100 + np.arange(len(trusted)) / 1000

    entry = replace(DETECTORS[0], make=lambda seen: Backwards())
    monkeypatch.setattr(looking, "DETECTORS", (entry,))
    flagged = (0,) if kind == "flagged" else ()
    monkeypatch.setattr(
        inspection,
        "trigger_found",
        lambda scene: (TriggerPart(flagged=list(flagged), target=0, anomaly=[None] * 3, overlap=None), {}),
    )
    taken: list[NDArray[np.int64]] = []
    without, unlearn = mending.without, Unlearning.__call__

    def removed(rows: Samples, out: NDArray[np.int64]) -> Samples:
        taken.append(out)
        found: Samples = without(rows, out)
        return found

    def unlearned(self: Any, target: Any, rows: Samples, few: NDArray[np.int64], *, seed: int) -> Any:
        taken.append(few)
        return unlearn(self, target, rows, few, seed=seed)

    monkeypatch.setattr(mending, "without", removed)
    monkeypatch.setattr(Unlearning, "__call__", unlearned)
    found = looked(shop, "badnets")
    assert len(taken) >= 2
    for rows in taken:
        assert len(rows)
        assert rows.max() < TRAIN
        assert (np.diff(rows) > 0).all()
    counts = [part.removed for part in repairs(found) if part.name == "remove and retrain"]
    assert counts[0] in {len(rows) for rows in taken}


def test_of_flagged_labels_somebody_stays(supplied: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine tenths of their rows at the most are taken out."""
    shop = Workshop(supplied(tmp_path, images=True, attackers__0__capability__share=0.6))
    taken: list[tuple[int, int]] = []
    most = Found.most_suspicious

    def counted(self: Found, count: int) -> NDArray[np.int64]:
        found, scene = most(self, count), self.scene
        if scene.flagged:
            mine = np.isin(scene.rows.y, scene.flagged) & ~scene.trusted
            assert mine[found].all()
            taken.append((len(found), int(mine.sum())))
        return found

    monkeypatch.setattr(Found, "most_suspicious", counted)
    trigger = TriggerPart(flagged=[0], target=0, anomaly=[None] * 3, overlap=None)
    monkeypatch.setattr(inspection, "trigger_found", lambda scene: (trigger, {}))
    looked(shop, "badnets")
    assert taken
    assert all(out <= 0.9 * of for out, of in taken)


# -- repairs -----------------------------------------------------------------------------------------------------


def test_repairs_reach_what_they_say(shop: Workshop, done: Done) -> None:
    parts = repairs(done)
    assert [part.name for part in parts] == ["remove and retrain", "fine-pruning", "unlearning"]
    for part in parts:
        assert part.status == "done"
        assert part.until == shop.model.poisoning.repair_until == 0.05
        assert part.success is not None
        assert part.accuracy is not None
        assert part.success_before is not None
        assert part.success_before > 0.9
        assert part.reached is (part.success <= part.until)
        assert (part.removed is None) == (part.name != "remove and retrain")
    assert parts[0].reached
    assert parts[0].removed == round(1.5 * POISONED)


def test_a_repair_that_fails_is_told(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def pruned(*_: object, **__: object) -> None:
        raise DataError("there is no layer to prune; use another repair")

    monkeypatch.setattr(FinePruning, "__call__", pruned)
    told = {part.name: part for part in repairs(looked(shop, "badnets"))}
    part = told["fine-pruning"]
    assert (part.status, part.reason) == ("not applicable", "there is no layer to prune; use another repair")
    assert (part.success, part.reached) == (None, None)
    assert told["unlearning"].status == "done"


def test_of_availability_no_success_is_told(supplied: Write, tmp_path: Path) -> None:
    shop = Workshop(supplied(tmp_path, attackers__0__goal="availability", requirements=[]))
    found = looked(shop, "random-flips")
    assert found.told["trigger"] is None
    for part in repairs(found):
        assert (part.success, part.success_before, part.reached) == (None, None, None)
        assert part.status == "not applicable" or part.accuracy is not None


def test_of_chosen_rows_the_first_is_mended(supplied: Write, tmp_path: Path) -> None:
    """Inserted rows stand behind the training rows, and before the trusted ones."""
    shop = Workshop(supplied(tmp_path, attackers__0__goal={"targeted_rows": 4}, requirements=[]))
    found = looked(shop, "insertion")
    assert {part.success_before for part in repairs(found)} <= {0.0, 1.0}
    rows = sum(each["rows"] for each in found.told["sources"])
    assert rows == TRAIN + POISONED
    assert sum(each["poisoned"] for each in found.told["sources"]) == POISONED
    assert sum(each["suspicious"] for each in found.told["sources"]) == POISONED


@pytest.mark.parametrize("training", ["raises_first", "raises", "nothing", "answers_nan"])
def test_what_cannot_be_trained_is_a_note(supplied: Write, tmp_path: Path, training: str) -> None:
    found = looked(Workshop(supplied(tmp_path, training)), "table-trigger")
    (note,) = found.told["notes"]
    assert note.startswith("Detectors and repairs could not be tried: ")
    assert (found.told["detectors"], found.told["repairs"], found.told["trigger"]) == ([], [], None)
    assert found.arrays == {}


# -- pictures and triggers ---------------------------------------------------------------------------------------


def test_the_planted_trigger_is_the_files_own(shop: Workshop, done: Done) -> None:
    planted = done.arrays["planted"]
    assert planted.shape == (1, 8, 8)
    wanted = np.zeros((1, 8, 8), dtype=np.float32)
    wanted[:, 6:, 6:] = 1
    assert (planted == wanted).all()
    assert (planted == Patch(size=2)(np.zeros((1, 1, 8, 8), dtype=np.float32))[0]).all()
    trigger = done.told["trigger"]
    assert trigger["target"] == 0
    assert len(trigger["anomaly"]) == 3
    both = ((done.arrays["mask"] > 0.5) & (wanted[0] == 1)).sum()
    either = ((done.arrays["mask"] > 0.5) | (wanted[0] == 1)).sum()
    assert trigger["overlap"] == pytest.approx(both / either)


def test_rows_are_shown_before_and_after(shop: Workshop, done: Done) -> None:
    made, _ = shop.poisoned(shop.campaigns["supplier"], poisoner("badnets"), 0.2, 0)
    shown = done.arrays
    assert len(shown["clean"]) == len(shown["poisoned"]) == len(shown["before"]) == len(shown["after"]) == 6
    assert (shown["after"] == 0).all()
    assert (shown["before"] != 0).all()
    assert (shown["poisoned"][:, :, 6:, 6:] == 1).all()
    assert (shown["poisoned"][:, :, :6] == shown["clean"][:, :, :6]).all()
    clean = shop.train.x[made.changed].reshape(POISONED, -1)
    for row in shown["clean"].reshape(6, -1):
        assert (clean == row).all(1).any()


def part_of(report: Report) -> PoisoningPart:
    found = report.attackers[0].poisoning
    assert found is not None
    return found


@pytest.mark.parametrize("keep", ["broken", "none"])
def test_pictures_are_kept_as_the_file_says(supplied: Write, in_threads: Threads, tmp_path: Path, keep: str) -> None:
    path = supplied(tmp_path, images=True, poisoning__detect=True, poisoning__victims=2, run__keep_inputs=keep)
    with in_threads():
        report = redan.assess(path)
    folder = RunFolder.open(report.run.folder)
    assert part_of(report).trigger is not None
    assert report_of(folder) == report
    pictures = load_pictures(folder)
    if keep == "none":
        assert pictures is None
        assert not any("picture" in each.name for each in Path(folder.root).iterdir())
        return
    assert pictures is not None
    (shown,) = pictures.poisoned
    assert shown.attacker == 0
    assert shown.clean.shape == shown.poisoned.shape == (6, 1, 8, 8)
    assert shown.bounds == (0.0, 1.0)
    assert shown.mask is not None
    assert shown.mask.shape == (8, 8)
    assert shown.planted is not None
    assert torch.equal(shown.planted[0, 6:, 6:], torch.ones(2, 2))


def test_rows_that_are_no_pictures_are_not_shown(supplied: Write, tmp_path: Path) -> None:
    found = looked(Workshop(supplied(tmp_path)), "table-trigger")
    assert found.arrays == {}
    assert found.told["trigger"] is None


def test_rows_of_different_labels_are_compared_by_their_place_among_trusted_ones() -> None:
    """One label's numbers are a thousand above another's: what is suspicious is so in its label."""
    y = np.array([0] * 12 + [1] * 12)
    trusted = np.tile(np.arange(12) >= 6, 2)
    scores = np.concatenate([np.arange(12.0), 1000 + np.arange(12.0)])
    scores[0], scores[12] = 50.0, 999.0  # the first row of label 0 is the odd one; of label 1 it is the least odd
    rows = Samples(np.zeros((24, 1)), y)
    found = suspicion(Suspects(samples=rows, trusted=trusted), lambda suspects, *, seed: scores)
    scene = SimpleNamespace(rows=rows, trusted=trusted)
    compared = looking.compared(found, scene)
    assert compared.argmax() == 0
    assert np.isneginf(compared[trusted]).all()
    ranks_only = suspicion(Suspects(samples=rows), lambda suspects, *, seed: scores)
    assert (looking.compared(ranks_only, scene) == scores).all()
