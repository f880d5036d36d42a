"""Checks that ask the model nothing: its own state, and the rows.

Tolerances: data may fill a tenth of the box or more; one row in twenty may be a copy; converting the inputs to the
parameters' type may move them by a quarter of an 8-bit level.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from redan.assessment.checks_scene import Finding, Level, Scene
from redan.evidence.statistics import lower_bound
from redan.targets import TorchTarget

_CRAMPED = 0.1  # of the box
_COPIES = 0.05  # of the rows
_LOSS = 0.25 / 255  # of the box's width
_KEY = 64  # numbers of a row that tell most rows apart


def _module(scene: Scene) -> nn.Module:
    """The target's module; an empty one for a target that has none."""
    return scene.target.module if isinstance(scene.target, TorchTarget) else nn.Identity().eval()


def _state(scene: Scene) -> Iterator[tuple[str, Tensor]]:
    module = _module(scene)
    yield from module.named_parameters()
    yield from module.named_buffers()


def submodule_modes(scene: Scene) -> Finding:
    """A dropout or batch norm in training mode changes every answer."""
    name = "submodule-modes"
    modules = list(_module(scene).named_modules())
    training = [f"{path or 'the module itself'} ({type(m).__name__})" for path, m in modules if m.training]
    if training:
        detail = f"{len(training)} of {len(modules)} submodules are in training mode: {', '.join(training[:3])}"
        return Finding(name, Level.REFUSE, True, detail, "call model.eval() where the model is built")
    return Finding(name, Level.REFUSE, False, f"all {len(modules)} submodules are in evaluation mode")


def device(scene: Scene) -> Finding:
    """Parameters on several devices, or on none: their weights were never loaded."""
    name = "device"
    where: dict[str, str] = {}
    for path, tensor in _state(scene):
        where.setdefault(str(tensor.device), path)
    if "meta" in where:
        detail = f"'{where['meta']}' has no numbers yet (device meta)"
        return Finding(name, Level.REFUSE, True, detail, "load the weights of every part before the model is wrapped")
    if len(where) > 1:
        parts = ", ".join(f"'{path}' on {key}" for key, path in where.items())
        remedy = "bring the whole model to one device with model.to(device)"
        return Finding(name, Level.REFUSE, True, f"parameters lie on {len(where)} devices: {parts}", remedy)
    return Finding(name, Level.REFUSE, False, f"model on {scene.target.device}, data came on {scene.x.device}")


def dtype(scene: Scene) -> Finding:
    """Inputs are given in the type of the first parameter: another type elsewhere, or a coarse one, bends them."""
    name = "dtype"
    types: dict[torch.dtype, str] = {}
    for path, tensor in _state(scene):
        if tensor.is_floating_point():
            types.setdefault(tensor.dtype, path)
    if len(types) > 1:
        parts = ", ".join(f"'{path}' is {key}" for key, path in types.items())
        remedy = f"inputs are given as {scene.target.dtype}: bring the model to one type with model.to(dtype)"
        return Finding(name, Level.WARN, True, f"parameters and buffers have {len(types)} types: {parts}", remedy)
    low, high = scene.target.bounds
    if scene.x.dtype != scene.target.dtype and scene.x.is_floating_point():
        lost = float((scene.x.to(scene.target.dtype).to(scene.x.dtype) - scene.x).abs().max())
        if lost > _LOSS * (high - low):
            detail = f"data are {scene.x.dtype}, the model {scene.target.dtype}: inputs move by up to {lost:.3g}"
            remedy = "assess the model in float32, or give the data as the model will be given them"
            return Finding(name, Level.WARN, True, detail, remedy)
    return Finding(name, Level.WARN, False, f"data are {scene.x.dtype}, the model {scene.target.dtype}")


def bounds(scene: Scene) -> Finding:
    """Data outside the declared box, or in a corner of it, give ε another meaning."""
    name, (low, high) = "bounds", scene.target.bounds
    least, most = (float(end) for end in scene.x.aminmax())
    box = scene.x.new_tensor([low, high])  # as the data's own type rounds it
    where = f"data lie in [{least:.4g}, {most:.4g}], declared bounds are [{low:g}, {high:g}]"
    if not (least >= float(box[0]) and most <= float(box[1])):  # NaN is outside too
        remedy = "undo the data's normalization (declare it in inputs.normalization), or correct inputs.bounds"
        return Finding(name, Level.REFUSE, True, where, remedy)
    if most - least < _CRAMPED * (high - low):
        remedy = "correct inputs.bounds: the data fill less than a tenth of them, so ε would be in the wrong unit"
        return Finding(name, Level.REFUSE, True, where, remedy)
    return Finding(name, Level.REFUSE, False, where)


def _copies(x: Tensor) -> list[tuple[int, int]]:
    """(row, the first row with the very same content), for each row that has one before it."""
    flat = x.flatten(1)
    key = flat[:, :: max(1, flat.shape[1] // _KEY)].contiguous().cpu().numpy()
    alike: dict[bytes, list[int]] = defaultdict(list)
    found = []
    for i, numbers in enumerate(key):
        first = alike[numbers.tobytes()]
        same = next((j for j in first if torch.equal(flat[i], flat[j])), None)
        if same is None:
            first.append(i)
        else:
            found.append((i, same))
    return found


def duplicates(scene: Scene) -> Finding:
    """A row that is there several times counts several times, though it shows one thing: intervals are too narrow."""
    name, n, copies = "duplicates", len(scene.x), _copies(scene.x)
    torn = sum(not torch.equal(scene.y[i], scene.y[j]) for i, j in copies)
    detail = f"{len(copies)} of {n} rows repeat another row's content"
    if torn:
        detail += f", {torn} of them under another label"
    if len(copies) > _COPIES * n:
        remedy = "drop repeated rows from the data (numpy.unique with axis=0), so that each row is a draw of its own"
        return Finding(name, Level.WARN, True, detail, remedy)
    return Finding(name, Level.WARN, False, detail)


def sample_size(scene: Scene) -> Finding:
    """So few rows that no result could pass: even if every one of them held."""
    name, n, required = "sample-size", len(scene.x), scene.required
    if required is None:
        return Finding(name, Level.WARN, False, f"{n} rows; no rate that they have to show was given")
    alpha = 1 - required.confidence
    best = lower_bound(n, n, alpha) if n else 0.0
    what = f"{n} rows that all hold show {best:.4f} at {required.confidence:g} confidence, {required.at_least:g} needed"
    if best < required.at_least:
        need = "no number of rows is enough"
        if required.at_least < 1:
            need = f"draw {math.ceil(math.log(alpha) / math.log(required.at_least))} rows or more (statistics.rows)"
        return Finding(name, Level.WARN, True, what, f"{need}, or lower the requirement")
    return Finding(name, Level.WARN, False, what)
