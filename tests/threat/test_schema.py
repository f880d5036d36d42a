"""The parts of a threat model: every alternative, every default, what must fit together."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from redan.evidence.requirement import Metric
from redan.threat.attackers import (
    AllToAll,
    Attacker,
    Availability,
    Backdoor,
    BackdoorGoal,
    DeviateGoal,
    Evasion,
    Extraction,
    Kind,
    Knowledge,
    LeastLikely,
    Poisoning,
    PoisoningCapability,
    TargetedGoal,
    TargetedRowsGoal,
    TransferGoal,
    Untargeted,
)
from redan.threat.changes import (
    BytesChange,
    L0Change,
    L1Change,
    L2Change,
    LinfChange,
    PatchChange,
    SpatialChange,
    TableChange,
    TextChange,
)
from redan.threat.inputs import BytesInputs, ImageInputs, TableInputs, TensorInputs, TextInputs
from redan.threat.model import (
    Checkpoint,
    Export,
    Factory,
    Http,
    HuggingFace,
    Joblib,
    Onnx,
    Sklearn,
    TorchScript,
    Trees,
)
from redan.threat.parts import Part
from redan.threat.poisoning import Certificate, Counts
from redan.threat.schema import Auto, Family, KeepInputs, ModeName, ThreatModel
from redan.threat.system import DataFile, Output, Task
from redan.threat.triggers import ColumnsTrigger, CornerName, PatchShape, PatchTrigger, TriggerName, trigger_name

Document = dict[str, object]
FULL = Path(__file__).with_name("full.yaml")
IMAGE: Document = {"kind": "image", "shape": [3, 32, 32], "bounds": [0, 1]}


def document(**changed: object) -> Document:
    """A small file as a mapping; `attackers__0__goal=…` replaces attackers[0].goal, `None` takes the key away."""
    base: Document = {
        "redan": 1,
        "system": {
            "name": "digits",
            "task": "classification",
            "classes": 10,
            "model": {"onnx": "digits.onnx"},
            "output": "logits",
            "inputs": copy.deepcopy(IMAGE),
            "data": {"test": "shop.data:test"},
        },
        "attackers": [
            {
                "name": "anyone",
                "kind": "evasion",
                "why": "open to all",
                "goal": "untargeted",
                "knowledge": "scores",
                "change": {"l2": 2},
            }
        ],
    }
    for name, value in changed.items():
        *path, last = name.split("__")
        place: Any = base
        for key in path:
            place = place[int(key)] if isinstance(place, list) else place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return base


def load(**changed: object) -> ThreatModel:
    return ThreatModel.model_validate(document(**changed))


def evader(**changed: object) -> Evasion:
    (attacker,) = load(**{f"attackers__0__{key}": value for key, value in changed.items()}).attackers
    assert isinstance(attacker, Evasion)
    return attacker


def refusal(**changed: object) -> str:
    with pytest.raises(ValidationError) as caught:
        load(**changed)
    return str(caught.value)


POISONER = {"name": "supplier", "kind": "poisoning", "why": "w", "goal": "availability", "capability": {"share": 0.1}}
COPIER = {"name": "customer", "kind": "extraction", "why": "w", "knowledge": "labels", "goal": {"fidelity": "test"}}
EVADER = {
    "name": "anyone",
    "kind": "evasion",
    "why": "w",
    "goal": "untargeted",
    "knowledge": "labels",
    "change": {"linf": 0.1},
}


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ({"factory": "shop.models:build"}, Factory),
        ({"factory": "shop:Build.tiny", "arguments": {"width": 16, "deep": {"a": [1, None]}}}, Factory),
        ({"factory": "shop:build", "weights": "w/weights.safetensors"}, Factory),
        ({"torchscript": "f.pt"}, TorchScript),
        ({"export": "f.pt2"}, Export),
        ({"onnx": "f.onnx"}, Onnx),
        ({"sklearn": "f.skops"}, Sklearn),
        ({"trees": "f.json"}, Trees),
        ({"huggingface": "folder"}, HuggingFace),
        ({"checkpoint": "f.pt"}, Checkpoint),
        ({"joblib": "f.joblib"}, Joblib),
        ({"http": {"url": "http://localhost:8080", "protocol": "mlflow"}}, Http),
        (
            {
                "http": {
                    "url": "https://models.example/v2",
                    "protocol": "mapping",
                    "request": {"rows": "$x"},
                    "response": {"scores": "/answers"},
                    "auth": {"header": "X-Key", "env": "API_TOKEN"},
                    "timeout_seconds": 3,
                    "concurrency": 1,
                }
            },
            Http,
        ),
    ],
)
def test_every_kind_of_model(written: Document, kind: type[Part]) -> None:
    assert isinstance(load(system__model=written).system.model, kind)
    surrogate = evader(knowledge="surrogate", surrogates=[written])
    assert isinstance(surrogate.surrogates[0], kind)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".PT"])
def test_pickled_weights_are_refused_with_the_remedy(suffix: str) -> None:
    message = refusal(system__model={"factory": "shop:build", "weights": f"weights{suffix}"})
    assert "safetensors.torch.save_model" in message
    assert "--trust-pickle" in message


@pytest.mark.parametrize(
    "name", ["shop", "shop:", ":build", "shop/models:build", "shop:build()", "1:a", "a:b:c", "a b:c"]
)
def test_a_function_is_named_by_module_and_name(name: str) -> None:
    assert "module:name" in refusal(system__model={"factory": name})
    assert "module:name" in refusal(attacks={"add": [name]})


@pytest.mark.parametrize(
    ("written", "change", "kind"),
    [
        ({"kind": "image", "shape": [3, 8, 8], "bounds": [0, 255]}, {"l2": 1}, ImageInputs),
        ({"kind": "tensor", "shape": [7], "bounds": [-1, 1.5]}, {"l2": 1}, TensorInputs),
        ({"kind": "table"}, {"table": {"columns": ["amount"]}}, TableInputs),
        ({"kind": "table", "shape": [4], "bounds": [0, 1]}, {"linf": 1}, TableInputs),
        ({"kind": "text"}, {"text": {"words": 3}}, TextInputs),
        ({"kind": "bytes", "shape": [2048]}, {"bytes": {"append": 100}}, BytesInputs),
    ],
)
def test_every_kind_of_input(written: Document, change: Document, kind: type[Part]) -> None:
    loaded = load(system__inputs=written, attackers__0__change=change)
    assert isinstance(loaded.system.inputs, kind)
    assert loaded.system.inputs.kind == written["kind"]


@pytest.mark.parametrize(
    ("written", "kind", "inputs"),
    [
        ({"linf": 0.1}, LinfChange, ("image", "tensor", "table")),
        ({"linf": 1}, LinfChange, ("image", "tensor", "table")),
        ({"l2": 300.5}, L2Change, ("image", "tensor", "table")),
        ({"l1": 12}, L1Change, ("image", "tensor", "table")),
        ({"l0": 10}, L0Change, ("image", "tensor", "table")),
        ({"patch": {"area": 0.05}}, PatchChange, ("image",)),
        ({"spatial": {"rotation": 30}}, SpatialChange, ("image",)),
        ({"spatial": {"rotation": 30, "translation": 0.1}}, SpatialChange, ("image",)),
        ({"text": {"characters": 2}}, TextChange, ("text",)),
        ({"text": {"characters": 2, "words": 1}}, TextChange, ("text",)),
        ({"table": {"columns": ["amount", "hour"]}}, TableChange, ("table",)),
        ({"bytes": {"append": 100, "replace": 8}}, BytesChange, ("bytes",)),
    ],
)
def test_every_change_fits_its_inputs_and_no_others(
    written: Document, kind: type[Part], inputs: tuple[str, ...]
) -> None:
    kinds: dict[str, Document] = {
        "image": IMAGE,
        "tensor": {"kind": "tensor", "shape": [7], "bounds": [0, 1]},
        "table": {"kind": "table"},
        "text": {"kind": "text"},
        "bytes": {"kind": "bytes"},
    }
    for name, each in kinds.items():
        changed: Document = {"system__inputs": each, "attackers__0__change": written}
        if name in inputs:
            (attacker,) = load(**changed).attackers
            assert isinstance(attacker, Evasion)
            assert isinstance(attacker.change, kind)
        else:
            assert "fits inputs of kind" in refusal(**changed)


@pytest.mark.parametrize(
    "change",
    [
        {"linf": -0.1},
        {"linf": float("nan")},
        {"l0": 1.5},
        {"l0": 0},
        {"patch": {"area": 0}},
        {"patch": {"area": 1.1}},
        {"patch": 0.05},
        {"spatial": {}},
        {"spatial": {"translation": 2}},
        {"linf": 1.001},
        {},
        {"linf": 0.1, "l2": 1},
        "linf",
    ],
)
def test_a_change_that_cannot_be_is_refused(change: object) -> None:
    assert "attackers" in refusal(attackers__0__change=change)


def test_every_goal_of_evasion() -> None:
    assert evader().goal is Untargeted.UNTARGETED
    assert evader(goal={"targeted": 9}).goal == TargetedGoal(targeted=9)
    assert evader(goal={"targeted": "least_likely"}).goal == TargetedGoal(targeted=LeastLikely.LEAST_LIKELY)
    assert "from 0 to 9" in refusal(attackers__0__goal={"targeted": 10})
    assert "targeted" in refusal(attackers__0__goal={"targeted": -1})
    assert "least_likely" in refusal(attackers__0__goal={"targeted": True})


def test_regression_has_no_classes_and_one_goal() -> None:
    regression: Document = {
        "system__task": "regression",
        "system__classes": None,
        "system__output": "value",
        "attackers__0__goal": {"deviate": 0.2},
    }
    loaded = load(**regression)
    assert (loaded.system.task, loaded.system.output, loaded.system.class_count) == (
        Task.REGRESSION,
        Output.VALUE,
        None,
    )
    (attacker,) = loaded.attackers
    assert isinstance(attacker, Evasion)
    assert attacker.goal == DeviateGoal(deviate=0.2)
    assert "{deviate: …} for task: regression" in refusal(**{**regression, "attackers__0__goal": "untargeted"})
    assert "is refused for task: regression" in refusal(**{**regression, "system__classes": 3})
    assert "must be value for task: regression" in refusal(**{**regression, "system__output": "logits"})
    worst = [{"metric": "worst_class_robust_accuracy", "at_least": 0.1}]
    assert "task: regression has no one class a row" in refusal(**{**regression, "requirements": worst})
    several = {"system__task": "multilabel", "requirements": worst}
    assert "task: multilabel has no one class a row" in refusal(**several)
    assert "must be a label's number" in refusal(
        system__task="multilabel", attackers__0__goal={"targeted": "least_likely"}
    )
    backdoor = {**POISONER, "goal": {"backdoor": {"trigger": "patch", "target": 0}}}
    assert "names a class" in refusal(**{**regression, "attackers": [backdoor]})


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_classes_are_required_where_there_are_some(task: str) -> None:
    assert "is required for task" in refusal(system__task=task, system__classes=None)
    assert load(system__task=task, system__classes=["a", "b"]).system.class_count == 2
    assert load(system__task=task, system__classes=2).system.class_count == 2


@pytest.mark.parametrize("classes", [1, 0, ["a"], ["a", "a"], ["a", ""], ["a", 2], "ab", True, 2.0, {"a": 1}])
def test_classes_are_a_count_or_unique_names(classes: object) -> None:
    assert "classes" in refusal(system__classes=classes)


def test_normalization_has_an_entry_a_channel() -> None:
    fitting = {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}
    inputs = load(system__inputs={**IMAGE, "normalization": fitting}).system.inputs
    assert isinstance(inputs, ImageInputs)
    assert inputs.normalization is not None
    assert inputs.normalization.std == (1.0, 1.0, 1.0)
    misfits: list[Document] = [
        {"mean": [0.1], "std": [1, 1, 1]},
        {"mean": [0.1, 0.2, 0.3], "std": [1]},
        {"mean": [], "std": []},
    ]
    for wrong in misfits:
        assert "one entry a channel: 3" in refusal(system__inputs={**IMAGE, "normalization": wrong})
        tensor = {"kind": "tensor", "shape": [3, 5], "bounds": [0, 1], "normalization": wrong}
        assert "one entry a channel: 3" in refusal(system__inputs=tensor)
    assert "std" in refusal(system__inputs={**IMAGE, "normalization": {"mean": [0, 0, 0], "std": [1, 1, -1]}})


@pytest.mark.parametrize("bounds", [[1, 0], [1, 1], [0], [0, 1, 2], [0, "1"], [0, float("inf")], 1, None])
def test_bounds_are_low_and_high(bounds: object) -> None:
    assert "bounds" in refusal(system__inputs={**IMAGE, "bounds": bounds})


@pytest.mark.parametrize("shape", [[28, 28], [1, 28, 28, 1], [0, 28, 28], [1, 28, 28.0], 784, None])
def test_an_image_has_channels_height_and_width(shape: object) -> None:
    assert "shape" in refusal(system__inputs={**IMAGE, "shape": shape})


def test_training_rows_are_named_as_test_rows_unless_said() -> None:
    data = load(
        system__data={
            "test": {"path": "test.csv", "x": ["amount", "hour"], "y": "fraud", "id": "key", "source": "bank"},
            "train": {"path": "train.csv", "source": "supplier"},
            "trusted": {"path": "trusted.csv", "x": "features"},
        }
    ).system.data
    assert data.train == DataFile(path=Path("train.csv"), x=("amount", "hour"), y="fraud", source="supplier")
    assert data.trusted == DataFile(path=Path("trusted.csv"), x="features", y="fraud")
    assert load(system__data={"test": {"path": "a.npz"}}).system.data.test == DataFile(path=Path("a.npz"), x="x", y="y")
    function = load(system__data={"test": "shop:test", "train": {"path": "a.npz"}}).system.data
    assert (function.test, function.train) == ("shop:test", DataFile(path=Path("a.npz")))


def test_a_defense_has_a_name_and_settings() -> None:
    system = load(system__defenses=[{"jpeg": {"quality": 75}}, {"bit_depth": {"bits": 3}}]).system
    first, second = system.defenses
    assert (first.name, first.settings) == ("jpeg", {"quality": 75})
    assert (second.name, second.settings) == ("bit_depth", {"bits": 3})
    assert system.served_behind == ["jpeg(quality=75)", "bit-depth(bits=3)"]
    assert load().system.served_behind == []
    misfits: list[object] = [[{}], [{"a": {}, "b": {}}], ["jpeg"], [{"jpeg": 75}], {"jpeg": {}}]
    for wrong in misfits:
        assert "defenses" in refusal(system__defenses=wrong)


def test_queries_are_counted_but_for_who_has_the_gradients() -> None:
    assert evader().capability.queries_per_row is None
    for knowledge in ("scores", "labels"):
        assert evader(knowledge=knowledge, capability={"queries_per_row": 5}).capability.queries_per_row == 5
    surrogate = evader(knowledge="surrogate", surrogates=[{"onnx": "a"}], capability={"queries_per_row": 5})
    assert surrogate.knowledge is Knowledge.SURROGATE
    changed: Document = {"attackers__0__capability": {"queries_per_row": 5}, "attackers__0__knowledge": "gradients"}
    assert "is refused for knowledge: gradients" in refusal(**changed)
    assert evader(knowledge="gradients", capability={}).capability.queries_per_row is None


def test_surrogates_are_for_who_has_nothing_else() -> None:
    assert "must name one model at least" in refusal(attackers__0__knowledge="surrogate")
    assert "is for knowledge: surrogate" in refusal(attackers__0__surrogates=[{"onnx": "a.onnx"}])


def test_every_goal_of_poisoning() -> None:
    goals: list[object] = ["availability", {"targeted_rows": 20}, {"backdoor": {"trigger": "patch", "target": 9}}]
    found = []
    for goal in goals:
        (attacker,) = load(attackers=[{**POISONER, "goal": goal}]).attackers
        assert isinstance(attacker, Poisoning)
        found.append(attacker.goal)
    assert found[0] is Availability.AVAILABILITY
    assert found[1] == TargetedRowsGoal(targeted_rows=20)
    assert isinstance(found[2], BackdoorGoal)
    misfits: list[object] = [
        "untargeted",
        {"targeted_rows": 0},
        {"backdoor": {"trigger": "patch"}},
        {"targeted": 1},
    ]
    for wrong in misfits:
        assert "attackers" in refusal(attackers=[{**POISONER, "goal": wrong}])


TABLE: Document = {"kind": "table", "shape": [5], "bounds": [0, 9]}
VECTOR: Document = {"kind": "tensor", "shape": [5], "bounds": [0, 1]}


def planted(trigger: object, inputs: Document = IMAGE, **changed: object) -> Backdoor:
    """The backdoor of a poisoner with that trigger, of such inputs."""
    goal = {"backdoor": {"trigger": trigger, "target": 0}}
    (attacker,) = load(attackers=[{**POISONER, "goal": goal}], system__inputs=inputs, **changed).attackers
    assert isinstance(attacker, Poisoning)
    assert isinstance(attacker.goal, BackdoorGoal)
    return attacker.goal.backdoor


def misplanted(trigger: object, inputs: Document = IMAGE, target: object = 0, **changed: object) -> str:
    goal = {"backdoor": {"trigger": trigger, "target": target}}
    return refusal(attackers=[{**POISONER, "goal": goal}], system__inputs=inputs, **changed)


def test_every_trigger() -> None:
    assert planted("patch").trigger is TriggerName.PATCH
    assert planted("blend", TABLE).trigger is planted("blend", VECTOR).trigger is TriggerName.BLEND
    assert planted("sinusoid").trigger is TriggerName.SINUSOID
    assert planted({"patch": {}}).trigger == PatchTrigger(patch=PatchShape(size=3, value=None))
    said = {"patch": {"size": 5, "value": 0.5, "corner": "top_left"}}
    assert planted(said).trigger == PatchTrigger(patch=PatchShape(size=5, value=0.5, corner=CornerName.TOP_LEFT))
    assert planted({"columns": {3: 1.0, 0: 2}}, TABLE).trigger == ColumnsTrigger(columns={3: 1.0, 0: 2})
    names = [planted("patch").trigger, planted({"patch": {}}).trigger, planted({"columns": {0: 1}}, VECTOR).trigger]
    assert [*map(trigger_name, names)] == ["patch", "patch", "columns"]


def test_a_trigger_fits_the_inputs() -> None:
    assert "is patch, which fits inputs of kind image, and they are table" in misplanted("patch", TABLE)
    assert "is sinusoid, which fits inputs of kind image, and they are tensor" in misplanted("sinusoid", VECTOR)
    assert "is columns, which fits inputs of kind table or tensor" in misplanted({"columns": {0: 1}})
    assert "is blend, which needs inputs.bounds" in misplanted("blend", {"kind": "table"})
    assert "is blend, which fits inputs of kind image or tensor or table" in misplanted("blend", {"kind": "text"})
    small: Document = {"kind": "image", "shape": [1, 2, 8], "bounds": [0, 1]}
    assert "is patch, of 3 pixels a side, and images have 2 by 8" in misplanted("patch", small)
    assert planted({"patch": {"size": 2}}, small).target == 0
    assert "patch.size must be 2 at most, as images are, got 3" in misplanted({"patch": {}}, small)
    assert "value must lie within inputs.bounds [0, 1], in whose units it is, got 2" in misplanted(
        {"patch": {"value": 2.0}}
    )
    assert "columns must be from 0 to 4, got 5" in misplanted({"columns": {1: 0, 5: 0}}, TABLE)
    assert "columns.3 must lie within inputs.bounds [0, 9]" in misplanted({"columns": {3: 10}}, TABLE)
    assert (
        planted({"columns": {70: 1e6}}, {"kind": "table"}).target == 0
    )  # how many there are, and what they hold, is not said
    deep: Document = {"kind": "tensor", "shape": [5, 2], "bounds": [0, 1]}
    assert "columns needs tensors of one axis, and inputs.shape has 2" in misplanted({"columns": {0: 1}}, deep)
    wrongs: list[Document] = [
        {"columns": {}},
        {"columns": {-1: 1}},
        {"patch": {"size": 0}},
        {"patch": {"corner": "left"}},
    ]
    for wrong in wrongs:
        assert "trigger" in misplanted(wrong, IMAGE if "patch" in wrong else TABLE)


def test_a_backdoor_s_target_is_a_class_or_all_to_all() -> None:
    goal: Document = {"backdoor": {"trigger": "patch", "target": "all_to_all"}}
    (attacker,) = load(attackers=[{**POISONER, "goal": goal}]).attackers
    assert isinstance(attacker, Poisoning)
    assert isinstance(attacker.goal, BackdoorGoal)
    assert attacker.goal.backdoor.target is AllToAll.ALL_TO_ALL
    assert "must be a class from 0 to 9, got 10" in misplanted("patch", target=10)
    assert "a label's number" in misplanted("patch", target="all_to_all", system__task="multilabel")


def test_how_far_rows_are_crafted() -> None:
    def crafting(linf: float, inputs: Document) -> Document:
        return {"attackers": [{**POISONER, "capability": {"share": 0.1, "linf": linf}}], "system__inputs": inputs}

    (attacker,) = load(**crafting(9, TABLE)).attackers
    assert isinstance(attacker, Poisoning)
    assert attacker.capability.linf == 9
    assert load(attackers=[POISONER]).attackers[0].capability == PoisoningCapability(share=0.1, linf=None)
    assert "must not exceed the width of inputs.bounds [0, 1], in whose units it is, got 2" in refusal(
        **crafting(2, IMAGE)
    )
    assert "linf needs inputs.bounds" in refusal(**crafting(0.1, {"kind": "table"}))
    assert "linf fits inputs of kind image" in refusal(**crafting(0.1, {"kind": "bytes"}))
    assert "greater than 0" in refusal(**crafting(0, IMAGE))


def test_how_poisoning_is_tried() -> None:
    plain = load().poisoning
    assert (plain.victims, plain.curve, plain.curve_victims, plain.margin) == (10, None, 3, 0.01)
    assert (plain.detect, plain.repair_until, plain.certify) == (True, 0.05, None)
    said = {"victims": 2, "curve": [0.5, 0.1], "certify": {"parts": 50, "copies": 2, "counts": "labels"}}
    found = load(poisoning=said).poisoning
    assert found.curve == (0.5, 0.1)
    assert found.certify == Certificate(parts=50, copies=2, counts=Counts.LABELS)
    assert load(poisoning={"certify": {"parts": 1}}).poisoning.certify == Certificate(parts=1, counts=Counts.ROWS)
    assert load(poisoning={"curve": []}).poisoning.curve == ()
    wrongs: list[Document] = [
        {"victims": 1},
        {"curve": [1.0]},
        {"curve": [0]},
        {"curve_victims": 0},
        {"margin": 0},
        {"repair_until": 1.5},
        {"certify": {}},
        {"certify": {"parts": 0}},
        {"certify": {"parts": 5, "counts": "sources"}},
        {"trials": 3},
    ]
    for wrong in wrongs:
        assert "poisoning" in refusal(poisoning=wrong)
    assert "must name each share once, got 0.5 twice" in refusal(poisoning={"curve": [0.5, 0.1, 0.5]})


@pytest.mark.parametrize(
    "capability", [None, {}, {"share": 0}, {"share": 1.1}, {"share": 0.1, "queries_per_row": 5}, {"sources": ["a"]}]
)
def test_a_poisoner_says_how_much(capability: object) -> None:
    assert "capability" in refusal(attackers=[{**POISONER, "capability": capability}])


def test_sources_need_a_column_that_names_them() -> None:
    supplied = {**POISONER, "capability": {"share": 0.1, "sources": ["b"]}}
    data: Document = {"test": "shop:test", "train": {"path": "a.npz"}}
    assert "needs system.data.train.source" in refusal(attackers=[supplied], system__data=data)
    data["train"] = {"path": "a.npz", "source": "supplier"}
    (attacker,) = load(attackers=[supplied], system__data=data).attackers
    assert isinstance(attacker, Poisoning)
    assert attacker.capability.sources == ("b",)
    data["train"] = "shop:train"  # a function returns the sources itself
    assert load(attackers=[supplied], system__data=data).system.data.train == "shop:train"


def test_every_goal_of_extraction() -> None:
    (copier,) = load(attackers=[COPIER]).attackers
    assert isinstance(copier, Extraction)
    assert copier.capability.queries_total is None
    transfer = {**COPIER, "goal": {"transfer": "anyone"}}
    second = load(attackers=[EVADER, transfer]).attackers[1]
    assert isinstance(second, Extraction)
    assert second.goal == TransferGoal(transfer="anyone")
    assert "must name an evasion attacker" in refusal(attackers=[EVADER, {**COPIER, "goal": {"transfer": "customer"}}])
    assert "system.data.train is not given" in refusal(attackers=[{**COPIER, "goal": {"fidelity": "train"}}])


@pytest.mark.parametrize("knowledge", ["gradients", "surrogate", None])
def test_who_extracts_sees_scores_or_labels(knowledge: object) -> None:
    assert "knowledge" in refusal(attackers=[{**COPIER, "knowledge": knowledge}])


def test_money_needs_a_price() -> None:
    assert "usd_per_1000_queries is required" in refusal(attackers=[{**COPIER, "capability": {"usd": 30}}])
    priced = {"usd": 30, "usd_per_1000_queries": 1.5, "queries_total": 100}
    (copier,) = load(attackers=[{**COPIER, "capability": priced}]).attackers
    assert isinstance(copier, Extraction)
    assert copier.capability.usd == 30.0


@pytest.mark.parametrize(
    ("attacker", "extra"),
    [
        (EVADER, {"capability": {"share": 0.1}}),
        (POISONER, {"knowledge": "scores"}),
        (POISONER, {"change": {"linf": 0.1}}),
        (POISONER, {"surrogates": []}),
        (COPIER, {"change": {"linf": 0.1}}),
        (COPIER, {"capability": {"queries_per_row": 1}}),
        (COPIER, {"surrogates": []}),
    ],
)
def test_what_belongs_to_another_kind_is_refused(attacker: Document, extra: Document) -> None:
    assert "Extra inputs are not permitted" in refusal(attackers=[{**attacker, **extra}])


def test_attackers_have_names_of_their_own() -> None:
    assert "repeats attackers[0]" in refusal(attackers=[EVADER, {**POISONER, "name": "anyone"}])
    assert "at least 1" in refusal(attackers=[])
    for key in ("name", "why", "kind", "goal"):
        assert "attackers" in refusal(**{f"attackers__0__{key}": None})


BACKDOOR = {**POISONER, "name": "insider", "goal": {"backdoor": {"trigger": "patch", "target": 0}}}
TRANSFER = {**COPIER, "name": "rival", "goal": {"transfer": "anyone"}}
EVERYONE = [EVADER, POISONER, BACKDOOR, COPIER, TRANSFER]
ONLY = {
    Metric.CLEAN_ACCURACY: None,
    Metric.ROBUST_ACCURACY: "anyone",
    Metric.WORST_CLASS_ROBUST_ACCURACY: "anyone",
    Metric.ATTACK_SUCCESS_RATE: "anyone",
    Metric.MEDIAN_DISTANCE: "anyone",
    Metric.CERTIFIED_ACCURACY: "anyone",
    Metric.BACKDOOR_SUCCESS: "insider",
    Metric.EXTRACTION_FIDELITY: "customer",
    Metric.TRANSFER_SUCCESS: "rival",
}


@pytest.mark.parametrize("metric", ONLY)
def test_the_only_attacker_that_fits_need_not_be_named(metric: Metric) -> None:
    written = {"metric": str(metric), "at_least": 0.5}
    (requirement,) = load(attackers=EVERYONE, requirements=[written]).requirements
    assert requirement.against == ONLY[metric]


@pytest.mark.parametrize("metric", ONLY)
def test_an_attacker_that_does_not_fit_is_refused(metric: Metric) -> None:
    for name in {"anyone", "supplier", "insider", "customer", "rival", "nobody"} - {ONLY[metric]}:
        requirement = {"metric": str(metric), "at_least": 0.5, "against": name}
        words = "must name" if metric.needs_attacker else "without an attacker"
        assert words in refusal(attackers=EVERYONE, requirements=[requirement])


def test_of_several_attackers_that_fit_one_must_be_named() -> None:
    poisoned: Document = {"metric": "poisoned_accuracy", "at_least": 0.5}
    assert "several attackers fit: supplier, insider" in refusal(attackers=EVERYONE, requirements=[poisoned])
    (requirement,) = load(attackers=EVERYONE, requirements=[{**poisoned, "against": "insider"}]).requirements
    assert requirement.against == "insider"


def test_a_success_rate_is_of_rows_chosen_by_a_poisoner_too() -> None:
    sender = {**POISONER, "name": "sender", "goal": {"targeted_rows": 5}}
    rate: Document = {"metric": "attack_success_rate", "at_most": 0.5}
    (requirement,) = load(attackers=[sender], requirements=[rate]).requirements
    assert requirement.against == "sender"
    assert "several attackers fit: anyone, sender" in refusal(attackers=[EVADER, sender], requirements=[rate])
    assert "an evasion attacker, or a poisoning attacker whose goal is targeted_rows" in refusal(
        attackers=[POISONER, BACKDOOR], requirements=[rate]
    )


def test_a_metric_without_an_attacker_to_measure_it_is_refused() -> None:
    for metric in set(Metric) - {Metric.CLEAN_ACCURACY}:
        others = [each for each in EVERYONE if ONLY.get(metric, "supplier") != each["name"]]
        others = [each for each in others if metric is not Metric.POISONED_ACCURACY or each["kind"] != "poisoning"]
        others = [each for each in others if each is not TRANSFER] if EVADER not in others else others
        message = refusal(attackers=others, requirements=[{"metric": str(metric), "at_least": 0.5}])
        assert "this file has none" in message


def test_a_requirement_is_not_told_twice() -> None:
    twice = [{"metric": "robust_accuracy", "at_least": 0.5}, {"metric": "robust_accuracy", "at_least": 0.6}]
    assert "repeats requirements[0]" in refusal(requirements=twice)
    assert "repeats requirements[0]" in refusal(requirements=[twice[0], {**twice[1], "against": "anyone"}])
    assert len(load(requirements=[twice[0], {"metric": "robust_accuracy", "at_most": 0.6}]).requirements) == 2


@pytest.mark.parametrize(
    ("part", "written"),
    [
        ("statistics", {"confidence": 0.5}),
        ("statistics", {"confidence": 1}),
        ("statistics", {"rows": 0}),
        ("statistics", {"seed": -1}),
        ("statistics", {"seed": 0.5}),
        ("statistics", {"gate": "yes"}),
        ("statistics", {"family": "bonferroni"}),
        ("limits", {"seconds": 0}),
        ("limits", {"queries": 0}),
        ("limits", {"usd": -1}),
        ("run", {"workers": 0}),
        ("run", {"workers": "four"}),
        ("run", {"workers": True}),
        ("run", {"block": 0}),
        ("run", {"device": "gpu"}),
        ("run", {"device": "cuda:x"}),
        ("run", {"out": " "}),
        ("run", {"keep_inputs": "some"}),
        ("attacks", {"mode": "fast"}),
        ("attacks", {"add": "my:Attack"}),
        ("attacks", {"skip": [""]}),
        ("redan", 2),
        ("redan", "1"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(part: str, written: object) -> None:
    assert part in refusal(**{part: written})


def test_every_setting() -> None:
    loaded = load(
        attacks={"mode": "audit", "add": ["my_attacks:Mine"], "skip": ["Square"]},
        statistics={"confidence": 0.99, "family": "none", "rows": 10, "seed": 7, "gate": True},
        limits={"seconds": 1.5, "queries": 10, "usd": 0.5},
        run={"out": "s3://bucket/runs", "device": "cuda:1", "workers": 4, "block": 64, "keep_inputs": "broken"},
        system__training={"call": "shop.train:fit", "deterministic": True},
        system__expect={"clean_accuracy": 0.83, "within": 0.03},
        system__impact={"evasion": "critical"},
    )
    assert (loaded.attacks.mode, loaded.attacks.add, loaded.attacks.skip) == (
        ModeName.AUDIT,
        ("my_attacks:Mine",),
        ("Square",),
    )
    assert (loaded.statistics.family, loaded.statistics.gate) == (Family.NONE, True)
    assert (loaded.run.out, loaded.run.workers, loaded.run.keep_inputs) == ("s3://bucket/runs", 4, KeepInputs.BROKEN)
    assert load().run.workers is Auto.AUTO
    assert loaded.system.impact.poisoning is None


def test_a_threat_model_is_frozen_and_returns_to_what_was_written() -> None:
    loaded = ThreatModel.model_validate(yaml.safe_load(FULL.read_text(encoding="utf-8")))
    with pytest.raises(ValidationError, match="frozen"):
        loaded.__setattr__("redan", 1)
    assert ThreatModel.model_validate(loaded.model_dump(mode="json")) == loaded
    assert ThreatModel.model_validate_json(loaded.model_dump_json()) == loaded
    assert [attacker.kind for attacker in loaded.attackers] == [Kind.EVASION, Kind.POISONING, Kind.EXTRACTION]


def test_a_threat_model_can_be_made_of_its_parts() -> None:
    loaded = load()
    attackers: tuple[Attacker, ...] = loaded.attackers
    assert ThreatModel(redan=1, system=loaded.system, attackers=attackers) == loaded


def _parts(part: type[Part]) -> list[type[Part]]:
    return [part, *(each for child in part.__subclasses__() for each in _parts(child))]


def _name(part: type[Part]) -> str:
    return part.__name__


@pytest.mark.parametrize("part", _parts(Part), ids=_name)
def test_every_part_and_every_key_says_what_it_is(part: type[Part]) -> None:
    assert part.__doc__
    assert [name for name, field in part.model_fields.items() if not field.description] == []


def test_the_schema_can_be_published() -> None:
    schema = ThreatModel.model_json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"redan", "system", "attackers"}


def test_a_share_of_a_columns_range_is_1_at_the_most() -> None:
    table = {"system__inputs": {"kind": "table"}}
    load(**table, attackers__0__change={"linf": 1.0})
    assert "the whole range of a column" in refusal(**table, attackers__0__change={"linf": 1.5})
