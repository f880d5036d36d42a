"""The models that a threat-model file names, as targets that take the system's inputs.

Weights are safetensors, estimators skops, tree ensembles and graphs their libraries' own files: none of them can run
code. What can (a pickle) is read only where the caller said so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from redan.assessment.imports import called, named
from redan.assessment.weights import content_digest, load_weights, module_digest
from redan.data.ranges import Ranges
from redan.ensembles import Combine, together
from redan.errors import NotBuiltError, TargetError, ThreatModelError
from redan.evidence.folder import digest
from redan.formats.checkpoint import load_checkpoint
from redan.formats.huggingface import load_huggingface
from redan.formats.isolated import load_joblib_isolated
from redan.formats.skops_file import load_skops
from redan.formats.torch_files import load_export, load_torchscript
from redan.targets import Output, Target, from_torch
from redan.targets.affine import affine
from redan.targets.http import from_http
from redan.targets.onnx import load_onnx
from redan.targets.sklearn import from_sklearn
from redan.targets.trees import load_trees
from redan.threat import system as said
from redan.threat.model import (
    Checkpoint,
    Endpoint,
    Ensemble,
    Export,
    Factory,
    Http,
    HuggingFace,
    Joblib,
    Members,
    Model,
    Onnx,
    Sklearn,
    TorchScript,
    Trees,
)
from redan.threat.schema import ThreatModel
from redan.threat.system import Task
from redan.wire.service import Protocol, Service


@dataclass(frozen=True, slots=True)
class Served:
    """A model of the file as a target. digest: sha256 of what it is; None where nobody can tell (an endpoint)."""

    target: Target[Tensor]
    digest: str | None


@dataclass(frozen=True, slots=True)
class Loading:
    """What decides how a model is read. folder: of the threat-model file. rows: real ones, in the data's own units,
    for a model whose gradients must be shown to be its own. climbed: whether an attacker needs gradients of it.
    trust: whether pickles may be read.
    """

    model: ThreatModel
    folder: Path
    rows: Tensor
    ranges: Ranges | None
    climbed: bool
    trust: bool

    @property
    def output(self) -> Output:
        """What the model's numbers are."""
        system = self.model.system
        if system.task is Task.MULTILABEL and system.output is said.Output.PROBABILITIES:
            return Output.SIGMOIDS
        return Output[system.output.name]

    @property
    def classes(self) -> int | None:
        """How many scores a row gets."""
        return 1 if self.model.system.task is Task.REGRESSION else self.model.system.class_count

    @property
    def normalization(self) -> tuple[Sequence[float], Sequence[float]] | None:
        """Mean and standard deviation a channel, in units of the data."""
        norm = getattr(self.model.system.inputs, "normalization", None)
        return None if norm is None else (norm.mean, norm.std)

    @property
    def names(self) -> tuple[str, ...] | None:
        """The classes' names in order, where the file has them."""
        said_classes = self.model.system.classes
        return said_classes if isinstance(said_classes, tuple) else None

    @property
    def bounds(self) -> tuple[float, float]:
        """The box that the model's own inputs live in."""
        if self.ranges is not None:
            return self.ranges.outermost
        bounds: tuple[float, float] | None = getattr(self.model.system.inputs, "bounds", None)
        return bounds or (0.0, 1.0)


def _in_file(path: Path, folder: Path, key: str) -> Path:
    """A file of the threat model. Raises TargetError where there is none."""
    whole = folder / path
    if not whole.exists():
        raise TargetError(f"there is no {whole}; check system.model.{key}")
    return whole


def _built(model: Factory | Checkpoint, folder: Path, key: str) -> nn.Module:
    made = called(named(str(model.factory), folder, key), key, folder, **dict(model.arguments))
    if not isinstance(made, nn.Module):
        raise TargetError(f"{key} returned {type(made).__name__}; it must return a torch.nn.Module")
    return made


def _service(said: Endpoint, classes: tuple[str, ...] | None) -> Service:
    """An endpoint of the file. classes: their names, in order, by which an answer may tell them."""
    response = said.response
    if classes is not None and "classes" not in (response or {}):
        response = {**(response or {}), "classes": list(classes)}
    auth = {} if said.auth is None else {"auth_header": said.auth.header, "auth_env": said.auth.env}
    return Service(
        url=said.url,
        protocol=Protocol[said.protocol.name],
        model=said.model,
        request=said.request,
        response=response,
        **auth,
        timeout_seconds=said.timeout_seconds,
        concurrency=said.concurrency,
        rows_per_request=said.rows_per_request,
    )


class _Made(NamedTuple):
    """A torch module, and the normalization that it brings, where the file has none."""

    module: nn.Module
    normalization: tuple[Sequence[float], Sequence[float]] | None = None


def _module(model: Model, how: Loading) -> _Made | None:
    """The model as a torch module; None for one that is none."""
    folder = how.folder
    match model:
        case Factory(factory=name, weights=weights):
            module = _built(model, folder, f"system.model.factory '{name}'")
            if weights is not None:
                load_weights(module, folder / weights)
            return _Made(module)
        case TorchScript(torchscript=path):
            return _Made(load_torchscript(_in_file(path, folder, "torchscript"), trust=how.trust))
        case Export(export=path):
            return _Made(load_export(_in_file(path, folder, "export"), trust=how.trust))
        case Checkpoint(checkpoint=path, factory=factory):
            own = None if factory is None else _built(model, folder, f"system.model.factory '{factory}'")
            return _Made(load_checkpoint(_in_file(path, folder, "checkpoint"), trust=how.trust, module=own))
        case HuggingFace(huggingface=path):
            found = load_huggingface(_in_file(path, folder, "huggingface"))
            return _Made(found.module, found.normalization if how.normalization is None else None)
    return None


def _other(model: Model, how: Loading) -> Target[Tensor]:
    """A model that is no torch module, as a target that takes the data as they are."""
    folder, output, bounds = how.folder, how.output, how.bounds
    match model:
        case Onnx(onnx=path):
            return load_onnx(
                _in_file(path, folder, "onnx"),
                bounds=bounds,
                classes=how.classes,
                normalization=how.normalization,
                output=output,
                rows=how.rows,
                gradients=how.climbed and output is not Output.LABELS,
            )
        case Sklearn(sklearn=path):
            estimator = load_skops(_in_file(path, folder, "sklearn"))
            rows = how.rows if how.climbed else None
            return _normalized(from_sklearn(estimator, bounds=bounds, output=output, rows=rows, names=how.names), how)
        case Joblib(joblib=path):
            isolated = load_joblib_isolated(_in_file(path, folder, "joblib"), trust=how.trust)
            return _normalized(from_sklearn(isolated, bounds=bounds, output=output, names=how.names), how)
        case Trees(trees=path):
            forest = load_trees(_in_file(path, folder, "trees"), bounds=bounds, output=output, classes=how.classes)
            return _normalized(forest, how)
        case Http(http=endpoint):
            remote = from_http(_service(endpoint, how.names), bounds=bounds, classes=how.classes, output=output)
            return _normalized(remote, how)
    kind = next(iter(type(model).model_fields))
    raise NotBuiltError(f"models of kind {kind} are not built yet; name a factory that returns a torch.nn.Module")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ThreatModelError(f"run.device '{name}' is not there; use auto or cpu") from error


def _together(said: Members, how: Loading) -> Served:
    """Several models as one; its digest covers all of them, in their order."""
    found = [loaded_model(each, how) for each in said.members]
    target = together([each.target for each in found], Combine[said.combine.name])
    return Served(target, digest("\n".join([said.combine, *(each.digest or "" for each in found)]).encode()))


def loaded_model(model: Model, how: Loading) -> Served:
    """One model of the file, taking what the system takes."""
    match model:
        case Ensemble(ensemble=said):
            return _together(said, how)
    made = _module(model, how)
    if made is not None:
        inner: Target[Tensor] = from_torch(
            made.module.to(_device(how.model.run.device)),
            bounds=how.bounds,
            classes=how.classes,
            normalization=made.normalization or how.normalization,
            output=how.output,
        )
        return Served(_on_unit(inner, how), module_digest(made.module, model, how.folder))
    return Served(_on_unit(_other(model, how), how), content_digest(model, how.folder))


def _normalized(target: Target[Tensor], how: Loading) -> Target[Tensor]:
    """The target with the file's normalization before it."""
    if how.normalization is None:
        return target
    mean, std = (torch.tensor(part, dtype=target.dtype) for part in how.normalization)
    channel = (-1, *[1] * (how.rows.dim() - 2))
    return affine(target, (1 / std).reshape(channel), (-mean / std).reshape(channel), how.bounds)


def _on_unit(target: Target[Tensor], how: Loading) -> Target[Tensor]:
    """The target for rows whose columns lie on [0, 1], each over its own range."""
    if how.ranges is None:
        return target
    return affine(target, torch.from_numpy(how.ranges.width), torch.from_numpy(how.ranges.low), (0.0, 1.0))
