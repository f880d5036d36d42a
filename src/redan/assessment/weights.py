"""Weights that go into a module, and what tells one model from another."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from redan.errors import TargetError
from redan.evidence.folder import digest, file_digest
from redan.formats.checkpoint import fill
from redan.threat.model import Model


def load_weights(module: nn.Module, path: Path) -> None:
    """Safetensors into a module, name by name. Raises TargetError where they are not its own."""
    if not path.is_file():
        raise TargetError(f"there is no weights file {path}; check system.model.weights")
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise TargetError(
            f"{path} is not a safetensors file ({error}); write one with safetensors.torch.save_model"
        ) from error
    fill(module, weights, path.name)


def _weights_digest(module: nn.Module, folder: Path) -> str:
    """sha256 over the module's tensors, by name, and over those files beside the threat model that define it."""
    found = hashlib.sha256()
    state = module.state_dict()
    for name in sorted(state):
        found.update(name.encode() + state[name].detach().cpu().contiguous().numpy().tobytes())
    files = {getattr(sys.modules.get(type(part).__module__), "__file__", None) for part in module.modules()}
    for path in sorted(Path(file) for file in files if file is not None):
        if path.is_relative_to(folder) and "site-packages" not in path.parts:
            found.update(file_digest(path).encode())
    return found.hexdigest()


def content_digest(model: Model, folder: Path) -> str | None:
    """sha256 of the model's own file, or of the files in its folder; None where it has none."""
    named_first = next(iter(model.model_dump().values()))
    if not isinstance(named_first, Path):
        return None
    path = folder / named_first
    if path.is_file():
        return file_digest(path)
    return digest("".join(f"{p.name} {file_digest(p)}\n" for p in sorted(path.iterdir()) if p.is_file()).encode())


def module_digest(module: nn.Module, model: Model, folder: Path) -> str:
    """sha256 of a module's weights and code, and of its file, where its code is in there."""
    found, content = _weights_digest(module, folder), content_digest(model, folder)
    return found if content is None else digest(f"{found} {content}".encode())
