"""Checkpoints that `torch.save` wrote: pickles, which are read only by who trusts them, and no further than needed."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from redan.errors import TargetError
from redan.formats.archive import names
from redan.formats.modes import refuse_training

_NESTED = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""

_TO_SAFETENSORS = (
    "convert it where it was made, "
    "`safetensors.torch.save_file(torch.load(path, weights_only=True), 'weights.safetensors')`"
)


def load_checkpoint(path: Path | str, *, trust: bool, module: nn.Module | None = None) -> nn.Module:
    """The module that a checkpoint holds, or `module` with the checkpoint's weights in it; on the CPU.

    With trust the file is first read by torch's reader of tensors alone (`weights_only=True`), which runs no code. What
    is found is a state dict, bare or under state_dict, model_state_dict or model, whose names must be the module's own;
    the prefixes of DataParallel and torch.compile are taken off. Only where that reader refuses is the pickle read
    whole, which may run any code: for a module that was saved as an object, or a state dict among other objects.

    trust: whether whoever wrote the file may run code here. module: what the weights are for, as a factory builds it;
    its mode is not changed. Raises TargetError without trust, for a file that cannot be read, and for weights that are
    not the module's; TrainingModeError for a module saved in training mode.
    """
    path = Path(path)
    if not path.is_file():
        raise TargetError(f"there is no checkpoint {path}; check the path")
    if not trust:
        raise TargetError(
            f"{path.name} is a pickle, and reading one can run any code; {_TO_SAFETENSORS} and name a factory and "
            "weights, or allow it (--trust-pickle) if you know who wrote it"
        )
    found = _read(path)
    if isinstance(found, nn.Module) and module is None:
        refuse_training(found)
        return found
    weights = found.state_dict() if isinstance(found, nn.Module) else _state_dict(found)
    if weights is None:
        raise TargetError(
            f"{path.name} holds {type(found).__name__}, and neither a module nor a state dict, bare or under "
            f"{', '.join(_NESTED)}; save model.state_dict()"
        )
    if module is None:
        raise TargetError(
            f"{path.name} holds weights alone; name a factory beside it that builds the module they belong to"
        )
    fill(module, weights, path.name)
    return module


def _read(path: Path) -> Any:
    if "constants.pkl" in names(path):
        raise TargetError(f"{path.name} is TorchScript; name it under torchscript, or call load_torchscript")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        pass  # it holds more than tensors
    except (RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        raise TargetError(_unreadable(path, error)) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=False)  # trusted by who started this
    except Exception as error:  # whatever the pickle's own code raises
        raise TargetError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"torch cannot read {path.name} ({reason[:150]}); save it again with torch.save"


def _state_dict(found: object) -> dict[str, Tensor] | None:
    """The tensors by name, bare or one or two steps inside; without the prefixes that wrappers add."""
    for _ in range(3):
        if not isinstance(found, Mapping):
            return None
        if found and all(isinstance(name, str) and isinstance(part, Tensor) for name, part in found.items()):
            return _unwrapped(dict(found))
        inner = next((found[name] for name in _NESTED if isinstance(found.get(name), Mapping | nn.Module)), None)
        found = inner.state_dict() if isinstance(inner, nn.Module) else inner
    return None


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES * 2:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): part for name, part in weights.items()}
    return weights


def fill(module: nn.Module, weights: Mapping[str, Tensor], called: str) -> None:
    """Put weights in a module, which must have exactly these names and shapes.

    called: what the weights' file is called, for the error. Raises TargetError that names what differs; the module is
    then as it was.
    """
    own = module.state_dict()
    missing, odd = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    if missing or odd:
        said = [
            f"{words} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
            for words, names in (("it lacks", missing), ("it has beside them", odd))
            if names
        ]
        raise TargetError(
            f"the weights in {called} are not this module's: {'; '.join(said)}; check the factory and its arguments"
        )
    for name, part in own.items():
        if part.shape != weights[name].shape:
            raise TargetError(
                f"the weights in {called} do not fit the module: {name} is {tuple(weights[name].shape)} there and "
                f"{tuple(part.shape)} here; check the factory's arguments"
            )
    module.load_state_dict(dict(weights))
