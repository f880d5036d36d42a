"""Where poison is made and victims are trained, in the test's own process: budgets, seeds, refusals."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from redan.assessment.victim import clean_victim, victim, votes
from redan.assessment.workshop import UnfitError, Workshop, poison_digest
from redan.certification.poisoning import given, partition, spread
from redan.data.samples import Samples
from redan.errors import DataError, RedanError, SetError, SettingError, TargetError, ThreatModelError
from redan.poisoning.budget import Budget, Poisoned
from redan.registry.poisoners import PoisonerEntry, poisoner
from redan.targets import TorchTarget

Write = Callable[..., Path]
CLEAN_LABEL = {"share": 0.2, "may_change_labels": False}


@pytest.fixture
def shop(supplied: Write, tmp_path: Path) -> Callable[..., Workshop]:
    """A workshop whose training and threat model are written by `supplied`."""

    def made(training: str = "fit", **changed: Any) -> Workshop:
        return Workshop(supplied(tmp_path / "shop", training, **changed))

    return made


# -- what an attacker may do -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cheat:
    """Changes labels of the first rows, more or others than it may or says."""

    rows: int
    listed: int
    row: int = 0
    """The first one."""
    added: int = 0

    def __call__(self, samples: Samples, budget: Budget, *, seed: int) -> Poisoned:
        y = samples.y.copy()
        y[self.row : self.row + self.rows] = (y[self.row : self.row + self.rows] + 1) % 3
        return Poisoned(
            samples=replace(samples, y=y),
            changed=np.arange(self.row, self.row + self.listed, dtype=np.int64),
            added=self.added,
        )


def entry_of(made: object) -> PoisonerEntry:
    return replace(poisoner("badnets"), make=lambda scene: made)  # type: ignore[arg-type,return-value]  # a cheat


@pytest.mark.parametrize(
    ("cheat", "words"),
    [
        (Cheat(rows=5, listed=4), "a row that is not listed is not as it was"),
        (Cheat(rows=25, listed=25), "25 rows are changed, and the budget has 24"),
        (Cheat(rows=3, listed=3, added=1), "0 rows were added, and the poisoner says 1"),
    ],
    ids=["more than it lists", "more than its budget", "rows that it did not add"],
)
def test_a_poisoner_that_cheats_is_refused(shop: Callable[..., Workshop], cheat: Cheat, words: str) -> None:
    """An honest one of the same kind is not."""
    found = shop()
    campaign = found.campaigns["supplier"]
    with pytest.raises(SetError, match=words):
        found.poisoned(campaign, entry_of(cheat), 0.2, 0)
    made, _ = found.poisoned(campaign, entry_of(Cheat(rows=4, listed=4)), 0.2, 0)
    assert len(made.changed) == 4


def test_labels_that_may_not_be_changed_are_held_to(shop: Callable[..., Workshop]) -> None:
    found = shop(attackers__0__capability=CLEAN_LABEL)
    with pytest.raises(SetError, match="a label was changed, which the budget does not allow"):
        found.poisoned(found.campaigns["supplier"], entry_of(Cheat(rows=2, listed=2)), 0.2, 0)


def test_rows_of_other_suppliers_are_held_to(shop: Callable[..., Workshop]) -> None:
    found = shop(attackers__0__capability={"share": 0.2, "may_change_labels": True, "sources": ["b"]})
    campaign = found.campaigns["supplier"]
    with pytest.raises(SetError, match="a row of another supplier was changed"):
        found.poisoned(campaign, entry_of(Cheat(rows=1, listed=1)), 0.2, 0)
    made, _ = found.poisoned(campaign, entry_of(Cheat(rows=1, listed=1, row=2)), 0.2, 0)
    assert made.samples.source is not None
    assert made.samples.source[2] == "b"
    honest, _ = found.poisoned(campaign, poisoner("table-trigger"), 0.2, 0)
    assert {found.train.source[row] for row in honest.changed} == {"b"}  # type: ignore[index]  # it has sources


def test_a_cheat_is_an_error_of_its_victim(shop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one of those that cannot be used: it would be left out of the verdict."""
    monkeypatch.setattr("redan.assessment.victim.entry_of", lambda name: entry_of(Cheat(rows=5, listed=4)))
    done = victim(shop(), "supplier", "badnets", 0.2, 0)
    assert "a row that is not listed is not as it was" in done.told["error"]
    assert "unfit" not in done.told
    assert done.arrays == {}


def test_the_share_that_is_told_is_the_share_that_was_used(shop: Callable[..., Workshop]) -> None:
    found = shop()
    campaign = found.campaigns["supplier"]
    for share, rows in ((0.2, 24), (0.1, 12), (0.01, 1)):
        done = victim(found, "supplier", "table-trigger", share, 0)
        assert (done.told["changed"], done.told["used"]) == (rows, rows / 120)
        made, settings = found.poisoned(campaign, poisoner("table-trigger"), share, 0)
        assert (made.samples.x[made.changed, 5] == 1).all()
        assert (made.samples.y[made.changed] == 0).all()
        assert "Columns" in settings
        assert done.told["poison"] == poison_digest(made)
        assert done.arrays["changed"].tolist() == made.changed.tolist()


def test_points_below_one_row_are_left_out_but_for_the_whole_share(shop: Callable[..., Workshop]) -> None:
    found = shop(poisoning__curve=[0.5, 0.05, 0.04])
    assert [point.share for point in found.points(found.campaigns["supplier"])] == pytest.approx([0.2, 0.1, 0.01])
    little = shop(attackers__0__capability__share=0.001, poisoning__curve=[0.5])
    assert [point.share for point in little.points(little.campaigns["supplier"])] == [0.001]


# -- seeds -----------------------------------------------------------------------------------------------------


def test_the_same_number_is_the_same_victim(shop: Callable[..., Workshop]) -> None:
    """Whatever was trained before, and in another workshop: processes share nothing."""
    first = shop()
    one = [victim(first, "supplier", "table-trigger", 0.2, number) for number in (0, 1)]
    other = victim(Workshop(first.folder / "threat-model.yaml"), "supplier", "table-trigger", 0.2, 1)
    assert other.told | {"seconds": 0} == one[1].told | {"seconds": 0}
    assert all((other.arrays[key] == each).all() for key, each in one[1].arrays.items())
    assert one[0].told["poison"] != one[1].told["poison"]
    assert [each.told["seed"] for each in one] == [0, 1]


def test_another_seed_of_the_file_draws_other_rows(shop: Callable[..., Workshop]) -> None:
    one = victim(shop(), "supplier", "table-trigger", 0.2, 0)
    other = victim(shop(statistics__seed=5), "supplier", "table-trigger", 0.2, 0)
    assert other.told["seed"] == 5
    assert other.told["poison"] != one.told["poison"]


@pytest.mark.parametrize("goal", [{"targeted_rows": 3}, "availability"], ids=str)
def test_chosen_rows_and_flips_are_drawn_by_number(shop: Callable[..., Workshop], goal: object) -> None:
    name = "random-flips" if goal == "availability" else "insertion"
    first, second = (shop(attackers__0__goal=goal, requirements=[]) for _ in range(2))
    for number in (2, 0):
        one, other = (victim(each, "supplier", name, 0.2, number) for each in (first, second))
        assert one.told | {"seconds": 0} == other.told | {"seconds": 0}
        second = Workshop(first.folder / "threat-model.yaml")


def test_global_generators_are_seeded_for_trainings_that_draw_from_them(
    shop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shop("draws")
    torch.rand(3)
    np.random.rand(3)
    one, two, three = (found.fit(found.train, seed) for seed in (4, 4, 5))
    weights = [[part.detach().sum().item() for part in each.parameters()] for each in (one, two, three)]  # type: ignore[union-attr]  # a module
    assert weights[0] == weights[1] != weights[2]


def test_the_attackers_own_models_are_of_other_seeds(shop: Callable[..., Workshop]) -> None:
    found = shop(attackers__0__goal={"targeted_rows": 3}, requirements=[])
    found.chosen(0)
    found.chosen(1)
    ((seed, _, _),) = [line.split() for line in (found.folder / "trained").read_text().splitlines()]
    assert int(seed) >= 10**6


def test_chosen_rows_are_different_and_wanted_of_another_class(shop: Callable[..., Workshop]) -> None:
    found = shop(attackers__0__goal={"targeted_rows": 3}, requirements=[])
    drawn = [found.chosen(number) for number in range(60)]
    assert sorted(at for at, _ in drawn) == list(range(60))
    assert all(label != found.test.y[at] for at, label in drawn)
    with pytest.raises(UnfitError, match="61 rows are chosen and the test rows are 60; draw more rows"):
        found.chosen(60)


# -- training ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("training", "kind", "words"),
    [
        ("raises", ThreatModelError, "system.training.call: calling it raised RuntimeError: the cluster is on fire"),
        ("nothing", TargetError, "system.training.call returned NoneType; return a torch module"),
        ("in_training", TargetError, "in training mode"),
        ("nowhere", ThreatModelError, "system.training.call: module 'training' has no 'nowhere'"),
    ],
)
def test_a_training_that_does_not_work_is_named(
    shop: Callable[..., Workshop], training: str, kind: type[RedanError], words: str
) -> None:
    found = shop(training)
    with pytest.raises(kind, match=words):
        found.fit(found.train, 0)
    done = clean_victim(found, 0)
    assert words in done.told["error"]
    assert done.arrays == {}


def test_a_victim_that_answers_nothing_is_an_error(shop: Callable[..., Workshop]) -> None:
    found = shop("answers_nan")
    done = victim(found, "supplier", "table-trigger", 0.2, 0)
    assert "a trained victim does not answer every row" in done.told["error"]
    assert "unfit" not in done.told


def test_a_training_without_gradients_cannot_be_crafted_with(shop: Callable[..., Workshop]) -> None:
    found = shop(
        "nearest", attackers__0__capability=CLEAN_LABEL, attackers__0__goal={"targeted_rows": 2}, requirements=[]
    )
    done = victim(found, "supplier", "gradient-matching", 0.2, 0)
    assert done.told["unfit"] is True
    assert "has no gradients to craft with" in done.told["error"]
    with pytest.raises(UnfitError, match="system.training.call returns CallableTarget|returns .*, which has no grad"):
        found.module(found.train, 0)


def test_a_module_and_a_target_are_asked_alike(shop: Callable[..., Workshop]) -> None:
    found = shop()
    made = found.fit(found.train, 0)
    assert isinstance(made, nn.Module)
    assert isinstance(found.target(made), TorchTarget)
    scores = found.scores(made, found.test.x)
    assert scores.shape == (60, 3)
    assert (found.answers(made, found.test.x) == scores.argmax(1)).all()
    assert found.scores(made, found.test.x[:0]).shape == (0, 3)


# -- rows --------------------------------------------------------------------------------------------------


def spoil(folder: Path, name: str, **arrays: Any) -> None:
    with np.load(folder / f"{name}.npz") as kept:
        found = dict(kept)
    np.savez(folder / f"{name}.npz", **{**found, **arrays})


@pytest.mark.parametrize(
    ("name", "arrays", "words"),
    [
        ("train", {"y": np.arange(120) % 4}, "system.data.train has labels that are not from 0 to 2"),
        ("trusted", {"y": np.arange(30) - 1}, "system.data.trusted has labels that are not from 0 to 2"),
        ("trusted", {"y": np.arange(3)}, "arrays of different lengths"),
        ("trusted", {"x": np.zeros((30, 5), dtype=np.float32)}, "rows have the shape"),
    ],
)
def test_rows_that_do_not_fit_are_named(
    shop: Callable[..., Workshop], name: str, arrays: dict[str, Any], words: str
) -> None:
    found = shop()
    spoil(found.folder, name, **arrays)
    with pytest.raises(DataError, match=words):
        found.checked()


def test_sources_that_the_rows_do_not_have_are_refused(shop: Callable[..., Workshop]) -> None:
    capability = {"share": 0.2, "may_change_labels": True, "sources": ["b"]}
    found = shop(attackers__0__capability=capability, system__data__train="training:unsourced")
    with pytest.raises(SettingError, match="the budget names sources, and the samples have none"):
        found.checked()
    assert shop(attackers__0__capability=capability).checked() is not None


def test_a_source_that_nobody_is_leaves_nothing_to_poison(shop: Callable[..., Workshop]) -> None:
    found = shop(attackers__0__capability={"share": 0.2, "may_change_labels": True, "sources": ["c"]})
    done = victim(found, "supplier", "table-trigger", 0.2, 0)
    assert done.told["unfit"] is True
    assert "the attacker controls no row that the attack can use" in done.told["error"]


def test_trusted_rows_may_be_missing(shop: Callable[..., Workshop]) -> None:
    found = shop(system__data__trusted=None).checked()
    assert found.trusted is None
    assert victim(found, "supplier", "table-trigger", 0.2, 0).told["asked"]["supplier"][1] > 0


def test_held_out_rows_are_training_rows(shop: Callable[..., Workshop]) -> None:
    found = shop()
    assert found.held_out.ids is not None
    assert set(found.held_out.ids) <= set(found.train.ids or ())


@pytest.mark.parametrize("change", ["training.py", "train", "trusted"])
def test_what_decides_a_training_is_in_its_digest(shop: Callable[..., Workshop], tmp_path: Path, change: str) -> None:
    found = shop()
    before, path = found.digest_of_training, found.folder / "threat-model.yaml"
    assert Workshop(path).digest_of_training == before
    moved = tmp_path / "moved"
    shutil.copytree(found.folder, moved)
    assert Workshop(moved / "threat-model.yaml").digest_of_training == before
    if change == "training.py":
        (found.folder / change).write_text((found.folder / change).read_text() + "\nmore = 1\n")
    else:
        spoil(found.folder, change, y=np.zeros(120 if change == "train" else 30, dtype=np.int64))
    assert Workshop(path).digest_of_training != before


def test_test_rows_are_no_part_of_a_training(shop: Callable[..., Workshop]) -> None:
    found = shop()
    before = found.digest_of_training
    spoil(found.folder, "test", y=np.zeros(60, dtype=np.int64))
    assert Workshop(found.folder / "threat-model.yaml").digest_of_training == before


# -- the certificate's models ----------------------------------------------------------------------------------


def test_a_model_votes_after_training_on_its_part_alone(shop: Callable[..., Workshop]) -> None:
    found = shop(poisoning__certify={"parts": 6, "copies": 2})
    plan = found.certificate_plan
    assert (plan.parts, plan.copies, plan.models) == (6, 2, 12)
    done = votes(found, 4)
    rows = given(found.train, partition(found.train, plan.models), spread(plan, 0), 4)
    assert 0 < len(rows) < 60
    assert (done.arrays["votes"] == found.answers(found.fit(rows, 4), found.test.x)).all()


def test_no_certificate_is_made_that_nobody_asked_for(shop: Callable[..., Workshop]) -> None:
    with pytest.raises(SettingError, match="the threat model asks for no certificate"):
        _ = shop().certificate_plan
