"""The GitHub Action and the GitLab template: their steps, as they stand in the files, on a sample repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
GITLAB = yaml.safe_load((ROOT / "ci" / "gitlab" / "redan.gitlab-ci.yml").read_text(encoding="utf-8"))[".redan"]


MODELS = '''
import torch
from torch import nn


def build(careless):
    """Three scores of two numbers each; a careless model also listens to the seventh, which is 0 in every row."""
    model = nn.Linear(7, 3, bias=False)
    with torch.no_grad():
        model.weight.zero_()
        model.weight[:, :6] = torch.eye(3).repeat_interleave(2, 1)
        model.weight[:, 6] = torch.tensor([careless, -careless, 0.0])
    return model.eval()


def rows():
    y = torch.arange(48) % 3
    x = torch.zeros(48, 7)
    x[:, :6] = 0.2 + 0.5 * torch.eye(3)[y].repeat_interleave(2, 1)
    x[:, :6] += 0.02 * torch.rand(48, 6, generator=torch.Generator().manual_seed(0))
    return {"x": x.numpy(), "y": y.numpy()}
'''

GOOD, WORSE = 0.0, 30.0


class Job(NamedTuple):
    """How a job ended: its exit code, its log, and what people see without opening the log."""

    code: int
    log: str
    summary: str
    outputs: Mapping[str, str]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a model and its threat model."""
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "models.py").write_text(MODELS)
    return tmp_path / "repository"


def commit(repository: Path, careless: float, at_least: float = 0.7) -> None:
    """The model of the day."""
    document: dict[str, Any] = {
        "redan": 1,
        "system": {
            "name": "sorter",
            "task": "classification",
            "classes": 3,
            "model": {"factory": "models:build", "arguments": {"careless": careless}},
            "output": "logits",
            "inputs": {"kind": "tensor", "shape": [7], "bounds": [0, 1]},
            "data": {"test": "models:rows"},
        },
        "attackers": [
            {
                "name": "anyone",
                "kind": "evasion",
                "why": "open to all",
                "goal": "untargeted",
                "knowledge": "gradients",
                "change": {"linf": 0.1},
            }
        ],
        "requirements": [{"metric": "robust_accuracy", "at_least": at_least, "against": "anyone"}],
        "attacks": {"mode": "quick"},
    }
    (repository / "threat-model.yaml").write_text(yaml.safe_dump(document))


def bash(script: str, folder: Path, variables: Mapping[str, str]) -> tuple[int, str]:
    """A script as both CIs run it, with this interpreter as `python` and no package index."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, "PIP_NO_INDEX": "1", "OMP_NUM_THREADS": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def filled(text: str, inputs: Mapping[str, str]) -> str:
    """The runner's ${{ inputs.name }}; nothing else is used where steps are written."""
    found = re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda match: inputs[match[1]], text)
    assert "${{" not in found
    return found


def github(repository: Path, **given: str) -> Job:
    """The composite action's steps in turn, until one fails."""
    known = {name: entry.get("default", "") for name, entry in ACTION["inputs"].items()}
    inputs = {**known, **{name.replace("_", "-"): value for name, value in given.items()}}
    files = {name: repository.parent / name for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT", "RUNNER_TEMP")}
    files["RUNNER_TEMP"].mkdir(exist_ok=True)
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        files[name].write_text("")
    log, code = "", 0
    for step in ACTION["runs"]["steps"]:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"]  # what somebody else typed is never part of a script
        variables = {name: filled(value, inputs) for name, value in step["env"].items()}
        code, said = bash(
            step["run"],
            repository,
            {**{name: str(path) for name, path in files.items()}, "GITHUB_ACTION_PATH": str(ROOT), **variables},
        )
        log += said
        if code:
            break
    outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
    return Job(code, log, files["GITHUB_STEP_SUMMARY"].read_text(), outputs)


def gitlab(repository: Path, **given: str) -> Job:
    """The template's script, its lines in one shell."""
    code, log = bash("\n".join(GITLAB["script"]), repository, {**GITLAB["variables"], **given})
    junit = repository / GITLAB["artifacts"]["reports"]["junit"]
    return Job(code, log, junit.read_text() if junit.exists() else "", {})


@pytest.mark.slow
def test_action_passes_a_good_model_and_fails_a_worse_one(repository: Path) -> None:
    commit(repository, GOOD)
    good = github(repository, threat_model="threat-model.yaml", package="redan")
    assert good.code == 0, good.log
    assert "Pass: sorter" in good.summary
    assert good.outputs["exit-code"] == "0"
    assert Path(good.outputs["run"], "report.json").is_file()

    commit(repository, WORSE)
    worse = github(repository, threat_model="threat-model.yaml", package="redan")
    assert worse.code == 1, worse.log
    assert "Fail: sorter" in worse.summary
    assert "(16 of 48 rows)" in worse.summary  # two classes listen to what an attacker can add
    assert worse.outputs["exit-code"] == "1"
    assert "shown to miss the threshold" in worse.log
    assert not list(repository.glob("*run*"))  # the checkout stays as it was


@pytest.mark.slow
def test_action_tells_a_file_that_cannot_be_used_from_a_fail(repository: Path) -> None:
    (repository / "threat-model.yaml").write_text("redan: 1\nsystems: {}\n")
    found = github(repository, threat_model="threat-model.yaml", package="redan")
    assert (found.code, found.outputs["exit-code"], found.outputs["run"]) == (2, "2", "")
    assert found.summary.startswith("## Nothing was attacked\n")
    assert "systems" in found.summary


@pytest.mark.slow
def test_action_passes_arguments_on_and_runs_none_of_them(repository: Path) -> None:
    commit(repository, GOOD)
    found = github(
        repository, threat_model="threat-model.yaml", package="redan", arguments="--max-queries 0 $(touch${IFS}owned)"
    )
    assert found.code == 2
    assert "$(touch${IFS}owned)" in found.summary
    assert not (repository / "owned").exists()
    found = github(repository, threat_model="threat-model.yaml", package="redan", arguments="--max-queries 0")
    assert found.code == 3, found.log
    assert "Inconclusive: sorter" in found.summary


@pytest.mark.slow
def test_template_passes_a_good_model_and_fails_a_worse_one(repository: Path) -> None:
    commit(repository, GOOD)
    good = gitlab(repository)
    assert good.code == 0, good.log
    assert ElementTree.fromstring(good.summary).get("failures") == "0"  # noqa: S314  # our own file

    shutil.rmtree(repository / "redan-run")  # as the runner does
    commit(repository, WORSE)
    worse = gitlab(repository)
    assert worse.code == 1, worse.log
    assert ElementTree.fromstring(worse.summary).get("failures") == "1"  # noqa: S314
    assert "16 of 48" in worse.summary
    assert "shown to miss the threshold" in worse.log


@pytest.mark.slow
def test_template_ends_with_redans_code_where_nothing_was_attacked(repository: Path) -> None:
    found = gitlab(repository, REDAN_THREAT_MODEL="none.yaml")
    assert found.code == 2
    assert "none.yaml does not exist" in found.log
    assert GITLAB["artifacts"]["when"] == "always"


@pytest.mark.extras
def test_action_installs_its_own_revision(tmp_path: Path) -> None:
    """The first step without an input, in an environment that has what redan needs; it builds with pip's own means."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "outer.pth").write_text(sysconfig.get_paths()["purelib"])
    step = ACTION["runs"]["steps"][0]
    inside = tmp_path / "venv" / "bin"
    variables = {"REDAN_PACKAGE": "", "GITHUB_ACTION_PATH": str(ROOT), "PIP_NO_INDEX": "0"}
    path = os.pathsep.join((str(inside), os.environ["PATH"]))
    code, log = bash(step["run"], tmp_path, {**variables, "PATH": path})
    assert code == 0, log
    code, log = bash("python -c 'import redan; print(redan.__file__)'", tmp_path, {"PATH": path})
    assert log.strip() == str(site / "redan" / "__init__.py")
