"""From a poisoning attacker to what is tried for him: attacks by mode, shares, victims, and why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redan.errors import SettingError
from redan.poisoning.backdoor import AllToAll
from redan.poisoning.budget import Budget
from redan.poisoning.scene import PoisonGoal
from redan.poisoning.triggers import Blend, Columns, Corner, Patch, Sinusoid
from redan.protocols import settings
from redan.threat import attackers as who
from redan.threat.file import read
from redan.threat.planner import Plan, Status, Step, plan
from redan.threat.poisoners import Point, PoisonCampaign, goal_of, target_of, trainings, trigger_of

Write = Callable[..., Path]
IMAGE = {"kind": "image", "shape": [1, 4, 4], "bounds": [0, 1]}
TRAINS: dict[str, Any] = {
    "system__data": {"test": {"path": "rows.npz"}, "train": {"path": "rows.npz", "source": "s"}},
    "system__training": {"call": "{shop}:fit"},
}
PATCH = {"backdoor": {"trigger": "patch", "target": 0}}


def planned(
    shop: Write, goal: object = "availability", *, labels: bool = True, mode: str = "default", **more: Any
) -> Plan:
    """The plan of one poisoning attacker with a tenth of the training rows, on images."""
    attacker = {
        "name": "supplier",
        "kind": "poisoning",
        "why": "suppliers label",
        "goal": goal,
        "capability": {"share": 0.1, "may_change_labels": labels},
    }
    said = {"attackers__0": attacker, "requirements": [], "attacks__mode": mode, "system__inputs": IMAGE, **TRAINS}
    return plan(read(shop(**{key: value for key, value in (said | more).items() if value is not None})).model)


def the(found: Plan) -> PoisonCampaign:
    (campaign,) = found.poisonings
    return campaign


def steps(found: Plan, status: Status) -> dict[str, Step]:
    return {step.attack: step for step in found.steps if step.status is status}


CRAFTED = ["unlearnable-examples", "error-maximizing"]
HIDDEN = ["sig", "label-consistent", "sleeper-agent"]


@pytest.mark.parametrize(
    ("goal", "labels", "mode", "names"),
    [
        (PATCH, True, "quick", ["badnets"]),
        (PATCH, True, "default", ["badnets"]),
        (PATCH, True, "audit", ["badnets", *HIDDEN]),
        (PATCH, True, "autoattack", ["badnets"]),
        (PATCH, False, "quick", ["sig"]),
        (PATCH, False, "default", HIDDEN),
        (PATCH, False, "audit", HIDDEN),
        ({"targeted_rows": 5}, True, "default", ["insertion"]),
        ({"targeted_rows": 5}, True, "audit", ["insertion", "gradient-matching", "feature-collision"]),
        ({"targeted_rows": 5}, False, "quick", ["gradient-matching"]),
        ({"targeted_rows": 5}, False, "audit", ["gradient-matching", "feature-collision"]),
        ("availability", True, "quick", ["random-flips"]),
        ("availability", True, "default", ["random-flips", "label-flip"]),
        ("availability", True, "audit", ["random-flips", "label-flip", "targeted-flips", *CRAFTED]),
        ("availability", False, "quick", CRAFTED),
        ("availability", False, "default", CRAFTED),
    ],
)
def test_goal_labels_and_mode_choose(shop: Write, goal: object, labels: bool, mode: str, names: list[str]) -> None:
    found = planned(shop, goal, labels=labels, mode=mode)
    assert [each.name for each in the(found).attacks] == names
    assert list(steps(found, Status.CHOSEN)) == names
    assert found.campaigns == ()
    assert the(found).budget == Budget(share=0.1, may_change_labels=labels)
    assert all(each.goal is the(found).goal for each in the(found).attacks)
    assert {step.attacker for step in steps(found, Status.CHOSEN).values()} == {"supplier"}


@pytest.mark.parametrize(
    ("trigger", "name"),
    [("blend", "blended"), ({"columns": {2: 1.0}}, "table-trigger")],
)
def test_the_trigger_chooses_the_stamp(shop: Write, trigger: object, name: str) -> None:
    vector = {"kind": "tensor", "shape": [7], "bounds": [0, 1]}
    goal = {"backdoor": {"trigger": trigger, "target": 0}}
    assert [each.name for each in the(planned(shop, goal, system__inputs=vector)).attacks] == [name]


@pytest.mark.parametrize(
    ("kind", "classes", "taken"), [("table", 2, True), ("table", 3, False), ("tensor", 2, True), ("image", 2, False)]
)
def test_gradient_poisoning_is_for_two_classes_of_vectors(shop: Write, kind: str, classes: int, taken: bool) -> None:
    inputs = IMAGE if kind == "image" else {"kind": kind, "shape": [7], "bounds": [0, 1]}
    found = planned(shop, system__inputs=inputs, system__classes=classes)
    assert ("gradient-poisoning" in steps(found, Status.CHOSEN)) == taken
    if not taken:
        why = "inputs are images" if kind == "image" else "it is for two classes, and the model tells 3"
        assert why in steps(found, Status.NOT_REALISTIC)["gradient-poisoning"].reason


@pytest.mark.parametrize(
    ("mode", "said", "points"),
    [
        ("quick", {}, [(0.1, 10)]),
        ("default", {}, [(0.1, 10), (0.05, 3), (0.02, 3), (0.01, 3)]),
        ("audit", {}, [(0.1, 10), (0.05, 3), (0.02, 3), (0.01, 3), (0.005, 3), (0.002, 3)]),
        ("quick", {"victims": 4, "curve": [0.2, 0.5], "curve_victims": 2}, [(0.1, 4), (0.05, 2), (0.02, 2)]),
        ("audit", {"curve": []}, [(0.1, 10)]),
    ],
)
def test_shares_and_victims(shop: Write, mode: str, said: dict[str, Any], points: list[tuple[float, int]]) -> None:
    found = the(planned(shop, mode=mode, poisoning=said)).points
    assert [point.victims for point in found] == [count for _, count in points]
    assert [point.share for point in found] == pytest.approx([share for share, _ in points])


def test_chosen_rows_take_a_victim_each_and_no_curve(shop: Write) -> None:
    found = planned(shop, {"targeted_rows": 7}, mode="audit", poisoning={"curve": [0.5]})
    assert the(found).points == (Point(0.1, 7),)
    assert steps(found, Status.CHOSEN)["insertion"].reason == (
        "mode audit, labels may be changed, 10 % of the training rows, 7 victims"
    )


def test_reasons_and_ids(shop: Write) -> None:
    found = planned(shop, PATCH, labels=False)
    step = steps(found, Status.CHOSEN)["sig"]
    assert step.reason == (
        "mode default, labels stay, 10 % of the training rows, 10 victims, and 3 each at 5 %, 2 %, 1 %"
    )
    assert step.techniques == ("AML.T0020", "AML.T0018.000", "AML.T0043.004")
    assert step.queries is step.forwards is step.backwards is step.usd is None
    assert steps(found, Status.NOT_REALISTIC)["badnets"].reason == "it changes labels, and supplier may not"
    dirty = planned(shop, PATCH)
    assert steps(dirty, Status.NOT_NEEDED)["sig"].reason == "mode default takes others"
    assert steps(dirty, Status.NOT_TESTABLE)["wanet"].reason == "redan has not built it yet"
    wave = "it does not plant patch, which is the trigger of supplier"
    assert steps(dirty, Status.NOT_REALISTIC)["sinusoid-trigger"].reason == wave


def test_skipped_ones_are_left_out_and_named(shop: Write) -> None:
    found = planned(shop, PATCH, labels=False, attacks__skip=["sleeper-agent"])
    assert [each.name for each in the(found).attacks] == ["sig", "label-consistent"]
    assert list(steps(found, Status.SKIPPED)) == ["sleeper-agent"]


ONE = {"backdoor": {"trigger": "patch", "target": "all_to_all"}}


@pytest.mark.parametrize(
    ("goal", "labels", "more", "reason"),
    [
        ("availability", True, {"system__training": None}, "nothing trains the victims; give system.training.call"),
        ("availability", True, {"system__data": {"test": {"path": "rows.npz"}}}, "no training rows to poison"),
        ("availability", True, {"system__inputs": {"kind": "text"}}, "poisoning of text inputs is not built yet"),
        ("availability", True, {"system__task": "multilabel"}, "for task: classification, and this is multilabel"),
        (
            "availability",
            True,
            {"attacks__skip": ["random-flips", "label-flip"]},
            "every attack that fits is skipped; take one out of attacks.skip",
        ),
        (
            ONE,
            False,
            {},
            "no attack fits: sig: it plants one class, and the target of supplier is all_to_all",
        ),
        (
            "availability",
            False,
            {"system__inputs": {"kind": "table"}},
            "no attack fits: unlearnable-examples: it crafts rows within a box; give system.inputs.bounds",
        ),
    ],
)
def test_who_cannot_be_tried_stays_with_the_reason(
    shop: Write, goal: object, labels: bool, more: dict[str, Any], reason: str
) -> None:
    found = planned(shop, goal, labels=labels, **more)
    assert found.poisonings == ()
    (campaign,) = found.campaigns
    assert isinstance(campaign.attacker, who.Poisoning)
    assert (campaign.within, campaign.attacks) == (None, ())
    assert reason in (campaign.reason or "")
    assert not steps(found, Status.CHOSEN)


def test_what_cannot_be_tried_of_it_is_told(shop: Write) -> None:
    bare = planned(shop, mode="audit", system__inputs={"kind": "table"}, system__classes=2)
    assert [each.name for each in the(bare).attacks] == ["random-flips", "label-flip", "targeted-flips"]
    told = steps(bare, Status.NOT_TESTABLE)
    assert {told[name].reason for name in [*CRAFTED, "gradient-poisoning"]} == {
        "it crafts rows within a box; give system.inputs.bounds"
    }
    large = planned(shop, system__inputs={"kind": "image", "shape": [3, 64, 64], "bounds": [0, 1]})
    assert [each.name for each in the(large).attacks] == ["random-flips"]
    assert "8192 values at most, and these have 12288" in steps(large, Status.NOT_TESTABLE)["label-flip"].reason
    mapped = planned(shop, ONE, mode="audit")
    assert [each.name for each in the(mapped).attacks] == ["badnets"]
    assert "it plants one class" in steps(mapped, Status.NOT_REALISTIC)["sig"].reason


def test_clean_victims_are_shared(shop: Write) -> None:
    other = {
        "name": "contributor",
        "kind": "poisoning",
        "why": "anyone may",
        "goal": {"targeted_rows": 12},
        "capability": {"share": 0.02, "may_change_labels": True, "sources": ["b"]},
    }
    found = planned(shop, attackers__1=other)
    assert [each.attacker.name for each in found.poisonings] == ["supplier", "contributor"]
    assert found.poisonings[1].budget.sources == ("b",)
    assert trainings(found.poisonings) == (12, 2 * (10 + 3 * 3) + 12)
    assert trainings(()) == (0, 0)


def backdoor(trigger: object, target: object = 1) -> who.Backdoor:
    return who.Backdoor.model_validate({"trigger": trigger, "target": target})


@pytest.mark.parametrize(
    ("trigger", "bounds", "made"),
    [
        ("patch", (0.0, 1.0), Patch(size=3, value=1.0)),
        ("patch", (0.0, 255.0), Patch(size=3, value=255.0)),
        ("patch", None, Patch(size=3, value=1.0)),
        (
            {"patch": {"size": 2, "value": 0.5, "corner": "top_left"}},
            (0.0, 1.0),
            Patch(size=2, value=0.5, corner=Corner.TOP_LEFT),
        ),
        ("blend", (-1.0, 1.0), Blend(bounds=(-1.0, 1.0))),
        ("sinusoid", (0.0, 255.0), Sinusoid(amplitude=20.0, bounds=(0.0, 255.0))),
        ({"columns": {3: 1.5}}, None, Columns({3: 1.5})),
    ],
)
def test_triggers_of_the_file(trigger: object, bounds: tuple[float, float] | None, made: object) -> None:
    assert settings(trigger_of(backdoor(trigger), bounds)) == settings(made)


def test_a_trigger_stays_in_the_bounds() -> None:
    x = np.random.default_rng(0).uniform(-2, 2, (3, 1, 5, 5))
    for trigger in ("patch", "blend", "sinusoid"):
        stamped = trigger_of(backdoor(trigger), (-2.0, 2.0))(x)
        assert -2 <= stamped.min() <= stamped.max() <= 2
        assert not np.array_equal(stamped, x)
        if trigger != "patch":
            with pytest.raises(SettingError, match=f"a trigger of {trigger} needs the box"):
                trigger_of(backdoor(trigger), None)


def test_targets_and_goals_of_the_file() -> None:
    assert target_of(backdoor("patch"), 3) == 1
    assert target_of(backdoor("patch", "all_to_all"), 3) == AllToAll(3)
    assert goal_of(who.Availability.AVAILABILITY) is PoisonGoal.AVAILABILITY
    assert goal_of(who.TargetedRowsGoal(targeted_rows=2)) is PoisonGoal.TARGETED_ROWS
    assert goal_of(who.BackdoorGoal(backdoor=backdoor("patch"))) is PoisonGoal.BACKDOOR
