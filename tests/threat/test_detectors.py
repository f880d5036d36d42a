"""`system.detector` and ensembles in a threat-model file: what is taken, and what is refused by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from redan.errors import ThreatModelError
from redan.threat.detectors import ByMahalanobis, ByNearestRows, BySqueezing
from redan.threat.file import read
from redan.threat.model import Combine, Ensemble, Factory
from redan.threat.planner import Status, plan
from redan.threat.system import System

MODEL = {"factory": "shop:build"}
DATA = {name: {"path": f"{name}.npz"} for name in ("test", "train", "trusted")}
SYSTEM: dict[str, Any] = {
    "name": "shop",
    "task": "classification",
    "classes": 3,
    "model": MODEL,
    "output": "logits",
    "inputs": {"kind": "image", "shape": [1, 8, 8], "bounds": [0, 1]},
    "data": DATA,
}
ATTACKER: dict[str, Any] = {
    **{"name": "anyone", "kind": "evasion", "why": "open", "goal": "untargeted"},
    **{"knowledge": "gradients", "change": {"linf": 0.1}},
}


def system(**changed: object) -> System:
    return System.model_validate({**copy.deepcopy(SYSTEM), **changed})


def written(folder: Path, attackers: list[dict[str, Any]] | None = None, **changed: object) -> Path:
    path = folder / "threat-model.yaml"
    document = {"redan": 1, "system": {**SYSTEM, **changed}, "attackers": attackers or [ATTACKER]}
    path.write_text(yaml.safe_dump(document))
    return path


def test_each_detector_and_its_defaults() -> None:
    match system(detector={"feature_squeezing": {}}).detector:
        case BySqueezing() as squeezing:
            assert (squeezing.false_positive_rate, squeezing.feature_squeezing.squeezers) == (0.05, ())
    match system(detector={"nearest_rows": {"layers": ["body.0"]}, "false_positive_rate": 0.1}).detector:
        case ByNearestRows() as near:
            assert (near.false_positive_rate, near.nearest_rows.k, near.nearest_rows.layers) == (0.1, 50, ("body.0",))
    assert system(detector={"mahalanobis": {}}).detector == ByMahalanobis.model_validate({"mahalanobis": {}})


@pytest.mark.parametrize(
    ("detector", "words"),
    [
        ({"feature_squeezing": {}}, "refuses by feature-squeezing(as published)"),
        (
            {"feature_squeezing": {"squeezers": [{"bit_depth": {"bits": 1}}, {"median": {"size": 2}}]}},
            "refuses by feature-squeezing(bit-depth(bits=1), median(size=2))",
        ),
        ({"nearest_rows": {"k": 5}}, "refuses by nearest-rows(k=5, normalized=true)"),
        ({"mahalanobis": {"layers": ["a", "b"]}}, "refuses by mahalanobis(magnitude=0, layers=a+b)"),
    ],
)
def test_a_detector_is_the_outermost_of_what_is_served(detector: dict[str, Any], words: str) -> None:
    found = system(detector=detector, defenses=[{"bit_depth": {"bits": 3}}])
    assert found.served_behind == ["bit-depth(bits=3)", words]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"detector": {"squeezing": {}}}, "system.detector must be {feature_squeezing: …}, {nearest_rows: …} or"),
        ({"detector": {"mahalanobis": {}, "false_positive_rate": 1}}, "system.detector.false_positive_rate"),
        ({"detector": {"nearest_rows": {"k": 0}}}, "system.detector.nearest_rows.k"),
        ({"detector": {"mahalanobis": {"magnitud": 1}}}, "did you mean magnitude"),
        (
            {"detector": {"mahalanobis": {}}, "data": {"test": DATA["test"], "train": DATA["train"]}},
            "false_positive_rate needs system.data.trusted: clean rows that neither the model nor the detector",
        ),
        (
            {"detector": {"mahalanobis": {}}, "data": {"test": DATA["test"], "trusted": DATA["trusted"]}},
            "system.detector.mahalanobis needs system.data.train",
        ),
        (
            {"detector": {"nearest_rows": {}}, "data": {**DATA, "trusted": DATA["train"]}},
            "system.data.trusted names the rows of system.data.train",
        ),
        ({"detector": {"mahalanobis": {}}, "output": "labels"}, "system.detector is for task: classification"),
        (
            {"detector": {"mahalanobis": {}}, "task": "regression", "output": "value", "classes": None},
            "system.detector is for task: classification",
        ),
        (
            {"detector": {"feature_squeezing": {}}, "inputs": {"kind": "tensor", "shape": [7], "bounds": [0, 1]}},
            "feature_squeezing fits inputs of kind image, and they are tensor",
        ),
        (
            {"detector": {"feature_squeezing": {"squeezers": [{"median": {"sice": 2}}]}}},
            "squeezers[0].median is refused: median has no setting 'sice'",
        ),
        (
            {"detector": {"feature_squeezing": {"squeezers": [{"thermometer": {"levels": 4}}]}}},
            "squeezers[0].thermometer makes (4, 8, 8) of images (1, 8, 8)",
        ),
        (
            {"detector": {"mahalanobis": {}}, "inputs": {"kind": "table"}},
            "system.detector.mahalanobis needs inputs.bounds",
        ),
        (
            {
                "detector": {"feature_squeezing": {}},
                "model": {"http": {"url": "http://localhost:1", "protocol": "mlflow"}},
            },
            "an endpoint refuses inputs itself",
        ),
        (
            {"detector": {"mahalanobis": {}}, "model": {"ensemble": {"members": [MODEL, MODEL]}}},
            "looks into one torch module, and the model is an ensemble",
        ),
        ({"model": {"ensemble": {"members": [MODEL]}}}, "system.model.ensemble.members"),
        ({"model": {"ensemble": {"members": [MODEL, {"factry": "a:b"}]}}}, "system.model.ensemble.members[1]"),
        (
            {
                "model": {
                    "ensemble": {"members": [MODEL, {"http": {"url": "http://localhost:1", "protocol": "mlflow"}}]}
                }
            },
            "system.model.ensemble.members[1].http is refused in an ensemble",
        ),
        (
            {
                "model": {"ensemble": {"members": [MODEL, MODEL], "combine": "votes"}},
                **{"task": "regression", "output": "value", "classes": None},
            },
            "system.model.ensemble.combine must be logits for task: regression",
        ),
        (
            {"model": {"ensemble": {"members": [MODEL, MODEL], "combine": "mean"}}},
            "must be logits, probabilities or votes",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    attacker = {**ATTACKER, "goal": {"deviate": 0.1}} if changed.get("task") == "regression" else ATTACKER
    path = written(tmp_path, [attacker], **changed)
    document = yaml.safe_load(path.read_text())
    document["system"] = {key: value for key, value in document["system"].items() if value is not None}
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ThreatModelError) as error:
        read(path)
    assert told in str(error.value)


def test_an_ensemble_of_two_kinds(tmp_path: Path) -> None:
    both = [MODEL, {"onnx": "m.onnx"}]
    match read(written(tmp_path, model={"ensemble": {"members": both}})).model.system.model:
        case Ensemble(ensemble=found):
            assert found.combine is Combine.PROBABILITIES
            assert isinstance(found.members[0], Factory)
            assert next(iter(type(found.members[1]).model_fields)) == "onnx"


def chosen(path: Path) -> dict[str, str]:
    return {step.attack: step.reason for step in plan(read(path).model).steps if step.status is Status.CHOSEN}


def test_a_detector_adds_the_joint_attacks(tmp_path: Path) -> None:
    alone, guarded = chosen(written(tmp_path)), chosen(written(tmp_path, detector={"mahalanobis": {}}))
    assert list(guarded) == [*alone, "balanced-pgd", "orthogonal-pgd", "lagrangian"]
    assert all("to be answered wrong and not refused" in reason for reason in guarded.values())
    (campaign,) = plan(read(tmp_path / "threat-model.yaml").model).campaigns
    assert [name for name, _ in campaign.attacks] == list(alone)
    assert [name for name, _ in campaign.served] == list(guarded)


@pytest.mark.parametrize("knowledge", ["scores", "labels"])
def test_who_sees_no_gradients_has_no_joint_climbs(tmp_path: Path, knowledge: str) -> None:
    found = chosen(written(tmp_path, [{**ATTACKER, "knowledge": knowledge}], detector={"mahalanobis": {}}))
    assert not {"balanced-pgd", "orthogonal-pgd", "lagrangian"} & set(found)


def test_without_a_detector_they_are_not_realistic(tmp_path: Path) -> None:
    steps = {step.attack: step for step in plan(read(written(tmp_path)).model).steps}
    assert steps["lagrangian"].status is Status.NOT_REALISTIC
    assert "no system.detector" in steps["lagrangian"].reason


def test_joint_and_leveled_attacks_can_be_skipped(tmp_path: Path) -> None:
    path = written(tmp_path, detector={"feature_squeezing": {}}, model={"ensemble": {"members": [MODEL, MODEL]}})
    document = yaml.safe_load(path.read_text())
    document["attacks"] = {"skip": ["lagrangian", "fast-cascade-leveled"]}
    path.write_text(yaml.safe_dump(document))
    assert list(chosen(path)) == ["fast-cascade", "balanced-pgd", "orthogonal-pgd"]


@pytest.mark.parametrize(("combine", "leveled"), [("logits", True), ("probabilities", True), ("votes", False)])
def test_an_ensemble_is_climbed_leveled_too(tmp_path: Path, combine: str, leveled: bool) -> None:
    found = chosen(written(tmp_path, model={"ensemble": {"members": [MODEL, MODEL], "combine": combine}}))
    assert ("fast-cascade-leveled" in found) is leveled
    if leveled:
        assert "as if all members of the ensemble were as sure" in found["fast-cascade-leveled"]


def test_copying_what_refuses_is_not_built(tmp_path: Path) -> None:
    copier = {
        **{"name": "customer", "kind": "extraction", "why": "sold", "knowledge": "scores"},
        **{"goal": {"fidelity": "test"}, "capability": {"queries_total": 100}},
    }
    path = written(tmp_path, [copier], detector={"mahalanobis": {}})
    (campaign,) = plan(read(path).model).campaigns
    assert "copying a model that refuses inputs is not built yet" in str(campaign.reason)
