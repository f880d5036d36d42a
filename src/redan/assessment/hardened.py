"""The model of a threat-model file, hardened against one of its attackers, and measured before and after.

The folder that is written holds `training.json` (what was chosen), `state.safetensors` (to go on from), `metrics.jsonl`
(a line an epoch and alarm) and, in the end, `weights.safetensors`, which fit the file's factory.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from redan.assessment.hardening_scene import Scene, scene
from redan.assessment.recipes import Method, Recipe, recipe
from redan.certification.certified_training import initialize
from redan.errors import DataError, EvidenceError, SettingError
from redan.evidence.statistics import Interval, interval
from redan.hardening import EMA, Batch, Hardened, Objective, Progress, Shuffled, Training, Watch, harden, streams
from redan.hardening.intake import adam, placed
from redan.hardening.objectives import is_armed
from redan.hardening.saving import write
from redan.hardening.training import METRICS, MODEL, STATE
from redan.perturbations.norms import L2
from redan.robustness import Mode, robust_accuracy
from redan.targets import from_torch
from redan.threat.file import read

__all__ = ["METRICS", "SETTINGS", "STATE", "WEIGHTS", "Accuracy", "Choice", "Outcome", "Step", "harden_file"]

SETTINGS, WEIGHTS = "training.json", "weights.safetensors"
_VERSION = 1
_SAVE_EVERY = 100  # steps
_WATCH = Watch()
_DEFAULTS: dict[str, Any] = {"method": "pgd-at", "epochs": 30, "batch": 128, "seed": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a user chose; None leaves the default. epsilon: instead of the attacker's radius. ema: decay of the weights'
    average. half: whether the inner attack computes in bfloat16. sigma: of the noise, for methods that have one."""

    method: Method | None = None
    attacker: str | None = None
    epochs: int | None = None
    batch: int | None = None
    rate: float | None = None
    epsilon: float | None = None
    ema: float | None = None
    half: bool | None = None
    seed: int | None = None
    sigma: float | None = None

    def __post_init__(self) -> None:
        for name in ("rate", "epsilon"):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf):
                raise SettingError(f"--{name} must be above 0 and finite, got {value}; leave it out for the default")


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Rows of n that were right: clean, and on every input that mode quick tried. Intervals are exact, 95 %."""

    n: int
    clean: int
    robust: int
    clean_interval: Interval
    robust_interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is going on: words, or how far the training is."""

    doing: str
    progress: Progress | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Outcome:
    """What became of a model. rows: that it was trained on. held_out: where the others came from, in words. looks: how
    often the alarm looked, None for methods without one. proof: what `redan certify` is told so that it proves what was
    trained for, None where nothing can be. line: of the threat-model file, with which it names the new weights."""

    system: str
    attacker: str
    within: str
    method: Method
    rows: int
    held_out: str
    before: Accuracy
    after: Accuracy
    hardened: Hardened
    looks: int | None
    folder: Path
    proof: tuple[str, ...] | None
    line: str
    notes: tuple[str, ...]


def harden_file(
    threat_model: Path,
    choice: Choice,
    *,
    out: Path | None = None,
    resume: Path | None = None,
    trust_pickle: bool = False,
    watch: Callable[[Step], None] | None = None,
) -> Outcome:
    """Harden the model that a threat-model file names, and leave its weights in a folder.

    out: a folder for a new training. resume: the folder of one that was broken off; what was chosen then holds again.
    The same file, rows and choices give the same bytes, broken off or not. Raises a RedanError with cause and remedy;
    where the file, the model or the rows cannot be used, nothing is written.
    """
    tell = watch or _nobody
    folder = _place(out, resume)
    chosen = _chosen(choice, folder) if resume is not None else _DEFAULTS | _given(choice)
    loaded = read(threat_model)
    found = scene(
        loaded.model,
        loaded.folder,
        attacker=chosen.get("attacker"),
        epsilon=chosen.get("epsilon"),
        seed=chosen["seed"],
        trust=trust_pickle,
    )
    method = Method(chosen["method"])
    how = recipe(method, found.within, chosen.get("sigma"))
    data = Shuffled(found.x, found.y, batch=chosen["batch"])
    training = Training(
        objective=how.objective,
        epochs=chosen["epochs"],
        average=None if chosen.get("ema") is None else EMA(decay=chosen["ema"]),
        watch=_WATCH,
        half=bool(chosen.get("half")),
        save_every=_SAVE_EVERY,
        seed=chosen["seed"],
    )
    optimizer = adam(found.model)
    for group in optimizer.param_groups:
        group["lr"] = chosen.get("rate") or how.rate
    if resume is not None and chosen.get("digest") != found.digest:
        raise EvidenceError(
            f"the model, its rows or the attacker's change are not those that the training in {folder} began with; put "
            "them back, or begin another with --out"
        )
    _rehearse(found, training.objective)
    tell(Step(doing="measuring the model as it is"))
    before = _measured(found)
    _write_settings(folder, {**chosen, "attacker": found.attacker, "digest": found.digest})
    if how.bounds is not None:
        initialize(found.model, torch.Generator().manual_seed(training.seed))
    made = harden(
        found.model,
        data,
        training,
        optimizer=optimizer,
        validation=how.validation(found.held_x, found.held_y, found.within),
        folder=folder,
        resume=resume is not None,
        progress=lambda now: tell(Step(doing="training", progress=now)),
    )
    weights = {name: part.detach().cpu().contiguous().clone() for name, part in found.module.state_dict().items()}
    write(folder / WEIGHTS, save(weights))
    (folder / MODEL).unlink(missing_ok=True)  # the same, with the names of the module that fed the factory's
    tell(Step(doing="measuring the hardened model"))
    return Outcome(
        system=loaded.model.system.name,
        attacker=found.attacker,
        within=found.words,
        method=method,
        rows=len(found.x),
        held_out=found.held_out,
        before=before,
        after=_measured(found),
        hardened=made,
        looks=made.epochs[-1].steps // _WATCH.every if is_armed(how.objective) else None,
        folder=folder,
        proof=_proof(how, found),
        line=f"weights: {os.path.relpath(folder / WEIGHTS, loaded.folder)}",
        notes=_notes(how, found),
    )


def _nobody(_: Step) -> None:
    """Nobody watches."""


def _place(out: Path | None, resume: Path | None) -> Path:
    if out is not None and resume is not None and out.resolve() != resume.resolve():
        raise SettingError(f"--resume {resume} goes on in that folder, and --out says {out}; leave --out out")
    folder = resume or out
    if folder is None:
        raise SettingError("there is no folder for the weights; say --out FOLDER")
    if resume is None and any((folder / name).exists() for name in (SETTINGS, STATE)):
        raise SettingError(f"{folder} holds a training already; go on with --resume {folder}, or say another --out")
    if folder.exists() and not folder.is_dir():
        raise SettingError(f"{folder} is a file; say a folder")
    return folder


def _given(choice: Choice) -> dict[str, Any]:
    return {name: value for name, value in asdict(choice).items() if value is not None}


def _chosen(choice: Choice, folder: Path) -> dict[str, Any]:
    """What was chosen when the training began. Raises EvidenceError where it cannot be read, and SettingError where
    something else is asked for now."""
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        chosen: dict[str, Any] = settings["chosen"]
        if settings["version"] != _VERSION or not set(_DEFAULTS) <= set(chosen):
            raise ValueError("it is of another version")
    except FileNotFoundError as error:
        raise EvidenceError(f"{folder} holds no training ({SETTINGS} is missing); begin one with --out") from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise EvidenceError(f"{folder / SETTINGS} cannot be read ({error}); begin again with another --out") from error
    for name, value in _given(choice).items():
        if chosen.get(name) != value:
            was = "without it" if chosen.get(name) is None else f"with {chosen[name]}"
            raise SettingError(
                f"--{name} {value} was asked for, and the training in {folder} began {was}; leave it out, or begin "
                "another with --out"
            )
    return chosen


def _rehearse(found: Scene, objective: Objective) -> None:
    """One step on a copy, so that what a method cannot do with a model is raised before anything is written."""
    model = copy.deepcopy(found.model).train()
    x, y = placed(model, found.x[:2], found.y[:2])
    with torch.random.fork_rng():
        objective(model, Batch(x, y, streams(0, 0, x), done=1.0))


def _write_settings(folder: Path, chosen: dict[str, Any]) -> None:
    """Write down what was chosen, for those who go on."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"version": _VERSION, "chosen": chosen}, indent=2)
        write(folder / SETTINGS, f"{content}\n".encode())
    except OSError as error:
        raise EvidenceError(f"{folder} cannot be written ({error}); say another --out") from error


def _measured(found: Scene) -> Accuracy:
    """Both accuracies on the held-out rows, with the attacks of mode quick."""
    target = from_torch(found.model, bounds=found.within.bounds, classes=found.classes)
    score = robust_accuracy(target, found.held_x, found.held_y, within=found.within, mode=Mode.QUICK, workers=1)
    if score.errors:
        raise DataError(
            f"the model raised errors on {score.errors} of {score.n} held-out rows, so nothing can be said of it; "
            "run redan assess --preflight-only to see which"
        )
    return Accuracy(
        n=score.n,
        clean=score.clean,
        robust=score.k,
        clean_interval=interval(score.clean, score.n),
        robust_interval=Interval(score.low, score.high, 0.95),
    )


def _proof(how: Recipe, found: Scene) -> tuple[str, ...] | None:
    if how.sigma is not None and isinstance(found.within, L2):
        return ("--method", "smoothing", "--sigma", f"{how.sigma:g}")
    return None if how.bounds is None else ()


def _notes(how: Recipe, found: Scene) -> tuple[str, ...]:
    """What a reader must know of the figures."""
    notes = found.notes
    if how.bounds is not None:
        notes += ("epochs were compared by the rows that interval bounds prove, rounding left out",)
    if how.sigma is not None:
        notes += (f"the model is one to be served with noise of {how.sigma:g}, and was measured without",)
    return notes
