"""What a threat-model file gives to a training: a module, rows to train on and to hold out, and the attacker's set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from redan.assessment.models import Loading
from redan.assessment.rows import array_inputs, rows_of
from redan.assessment.serving import served
from redan.data.ranges import Ranges
from redan.errors import DataError, NotBuiltError, TargetError, ThreatModelError
from redan.evidence.folder import digest
from redan.perturbations.norms import L2, Linf
from redan.targets import Output
from redan.targets.outputs import as_scores
from redan.targets.torch import TorchTarget
from redan.threat import system as said
from redan.threat.attackers import Evasion
from redan.threat.changes import L2Change, LinfChange
from redan.threat.inputs import TableInputs
from redan.threat.model import Checkpoint, Ensemble, Factory
from redan.threat.schema import ThreatModel

__all__ = ["Fed", "Scene", "scene"]

_HELD, _SHARE = 512, 5  # rows that are held out at the most, and one in how many


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Scene:
    """What is trained on what. module: the factory's own. model: the same, fed from the box and answering logits.
    words: the set, as one says it. held_out: where the held-out rows come from, in words."""

    module: nn.Module
    model: nn.Module
    classes: int
    attacker: str
    within: Linf | L2
    words: str
    x: Tensor
    y: Tensor
    held_x: Tensor
    held_y: Tensor
    held_out: str
    digest: str
    notes: tuple[str, ...]


class Fed(nn.Module):
    """A module that is fed x · scale + shift, and whose probabilities, if it answers those, become logits."""

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, module: nn.Module, scale: Tensor | None, shift: Tensor | None, output: Output) -> None:
        super().__init__()
        self.module, self.output = module, output
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.train(module.training)

    def forward(self, x: Tensor) -> Tensor:
        if self.scale is not None and self.shift is not None:
            x = x * self.scale + self.shift
        answer: Tensor = self.module(x)
        return answer if self.output is Output.LOGITS else as_scores(answer, self.output, None)


def scene(
    model: ThreatModel, folder: Path, *, attacker: str | None, epsilon: float | None, seed: int, trust: bool
) -> Scene:
    """Everything that a training needs of a file. seed: draws the held-out rows, and the weights of a factory that
    draws its own. Raises a RedanError with cause and remedy for what cannot be hardened."""
    if model.system.task is not said.Task.CLASSIFICATION or model.system.class_count is None:
        raise NotBuiltError(f"hardening is built for classification, and system.task is {model.system.task}")
    if model.system.output is said.Output.LABELS:
        raise ThreatModelError(
            "system.output is labels, which have no gradients; let the factory's module answer logits"
        )
    who, within, words = _set(model, attacker, epsilon)
    inputs = array_inputs(model)
    test, train = rows_of(model, folder, said.Split.TEST), rows_of(model, folder, said.Split.TRAIN)
    if train is None or test is None:
        raise ThreatModelError(
            "system.data names no training rows; add train: {path: train.npz}, rows that the model may be trained on"
        )
    ranges = Ranges.of(test.samples.x) if isinstance(inputs, TableInputs) and inputs.bounds is None else None
    box = (0.0, 1.0) if ranges is not None else inputs.bounds or (0.0, 1.0)
    within = within.inside(box)
    classes = model.system.class_count
    notes = list(dict.fromkeys(train.notes))
    if ranges is not None:
        notes.append("every column was scaled to its own range in the test rows: ε is a share of that range")
    if model.system.defenses:
        notes.append("system.defenses are served with the model, and had no part in the training")
    if model.system.detector is not None:
        notes.append("system.detector is fit and calibrated anew to the trained model when that is assessed")
    x, y = _checked(train.samples.x, train.samples.y, "train", classes, ranges, box)
    trusted = rows_of(model, folder, said.Split.TRUSTED)
    held = np.random.default_rng(seed)
    if trusted is not None:
        held_x, held_y = _checked(trusted.samples.x, trusted.samples.y, "trusted", classes, ranges, box)
        at = np.sort(held.permutation(len(held_x))[:_HELD])
        held_x, held_y, held_out = held_x[at], held_y[at], "of system.data.trusted"
    else:
        order = held.permutation(len(x))
        many = min(_HELD, len(x) // _SHARE)
        if many < 1:
            raise DataError(f"{len(x)} training rows are too few to hold some out; give {_SHARE} at the least")
        at, rest = np.sort(order[:many]), np.sort(order[many:])
        held_x, held_y, x, y = x[at], y[at], x[rest], y[rest]
        held_out = "held out of the training rows"
    module, fed, code = _module(model, folder, x[:2], ranges, seed, trust)
    _answers(fed, x[:2], classes)
    rows = digest(x.tobytes() + y.tobytes() + held_x.tobytes() + held_y.tobytes())
    return Scene(
        module=module,
        model=fed,
        classes=classes,
        attacker=who,
        within=within,
        words=words,
        x=torch.from_numpy(x),
        y=torch.from_numpy(y),
        held_x=torch.from_numpy(held_x),
        held_y=torch.from_numpy(held_y),
        held_out=held_out,
        digest=digest(f"{code} {rows} {within!r}".encode()),
        notes=tuple(notes),
    )


def _set(model: ThreatModel, attacker: str | None, epsilon: float | None) -> tuple[str, Linf | L2, str]:
    """The attacker's name, what he may change, and the same in words."""
    known = [each.name for each in model.attackers]
    if attacker is not None and attacker not in known:
        raise ThreatModelError(f"there is no attacker '{attacker}' in the file; it has {', '.join(known)}")
    for each in model.attackers:
        if not isinstance(each, Evasion) or attacker not in (None, each.name):
            continue
        match each.change:
            case LinfChange(linf=radius):
                return each.name, Linf(epsilon or radius), f"linf: {epsilon or radius:g}"
            case L2Change(l2=radius):
                return each.name, L2(epsilon or radius), f"l2: {epsilon or radius:g}"
    whose = "no attacker of the file changes" if attacker is None else f"attacker '{attacker}' does not change"
    raise ThreatModelError(
        f"{whose} inputs within linf or l2, and models are hardened within those; name an evasion attacker with such a "
        "change"
    )


def _checked(
    x: NDArray[np.floating],
    y: NDArray[np.int64],
    split: str,
    classes: int,
    ranges: Ranges | None,
    box: tuple[float, float],
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Rows in the box, and their classes."""
    if not len(x):
        raise DataError(f"system.data.{split} has no rows; give some")
    if not np.isfinite(x).all():
        raise DataError(f"system.data.{split} holds NaN or infinity; clean those rows, or leave them out")
    if not (int(y.min()) >= 0 and int(y.max()) < classes):
        raise DataError(
            f"labels of system.data.{split} lie between {y.min()} and {y.max()}, and there are {classes} classes; "
            "number them from 0 in the order of system.classes"
        )
    if ranges is not None:
        return ranges.unit(x), y
    if not (float(x.min()) >= box[0] and float(x.max()) <= box[1]):
        raise DataError(
            f"rows of system.data.{split} lie between {x.min():.4g} and {x.max():.4g}, outside of inputs.bounds "
            f"[{box[0]:g}, {box[1]:g}]; scale them as the test rows are"
        )
    return x, y


def _module(
    model: ThreatModel, folder: Path, x: NDArray[np.floating], ranges: Ranges | None, seed: int, trust: bool
) -> tuple[nn.Module, nn.Module, str | None]:
    """The factory's module, the same as the training asks it, and the digest of what it is."""
    said_model = model.system.model
    if isinstance(said_model, Ensemble):
        raise TargetError(
            "system.model names an ensemble, and one module is trained at a time; train each member in a file of its "
            "own, or name a factory that returns redan.ensembles.Members"
        )
    if not (isinstance(said_model, Factory) or (isinstance(said_model, Checkpoint) and said_model.factory is not None)):
        kind = next(iter(type(said_model).model_fields))
        raise TargetError(
            f"system.model names a {kind} alone, and only a torch module that a factory builds can be trained and "
            'given its weights back; name factory: "module:function" (and weights)'
        )
    alone = model.model_copy(update={"attackers": (), "system": model.system.model_copy(update={"defenses": ()})})
    rows = torch.from_numpy(x)
    how = Loading(model=alone, folder=folder, rows=rows, ranges=None, climbed=False, trust=trust)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = served(how).main
    target = made.target
    if not isinstance(target, TorchTarget):
        raise TargetError("system.model is no torch module; name a factory that returns one")
    scale, shift = _affine(target, rows.dim(), ranges)
    if scale is None and target.output is Output.LOGITS:
        return target.module, target.module, made.digest
    return target.module, Fed(target.module, scale, shift, target.output).to(target.device), made.digest


def _affine(target: TorchTarget, dims: int, ranges: Ranges | None) -> tuple[Tensor | None, Tensor | None]:
    """What takes rows of the box to the module's inputs: x · scale + shift."""
    scale = shift = None
    if ranges is not None:
        scale, shift = (torch.from_numpy(part).to(target.device, target.dtype) for part in (ranges.width, ranges.low))
    if target.mean is not None and target.std is not None:
        mean, std = (part.reshape(-1, *[1] * (dims - 2)) for part in (target.mean, target.std))
        scale, shift = (1 / std, -mean / std) if scale is None or shift is None else (scale / std, (shift - mean) / std)
    return scale, shift


def _answers(model: nn.Module, x: NDArray[np.floating], classes: int) -> None:
    """Raise TargetError for a model that does not answer a score a class."""
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    if like is None:
        raise TargetError("the factory's module has no parameters, so nothing can be trained")
    try:
        with torch.no_grad():
            found = model(torch.from_numpy(x).to(like))
    except Exception as error:  # whatever a forward raises
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TargetError(
            f"the model refused two training rows of shape {x.shape[1:]} ({reason[:200]}); check inputs.shape and the "
            "factory"
        ) from error
    if not isinstance(found, Tensor) or tuple(found.shape) != (len(x), classes):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise TargetError(
            f"the model answered {shape} to {len(x)} rows, and one score for each of {classes} classes is needed; let "
            "its forward return the logits (N, K) alone"
        )
