"""The state of a training in one file, safetensors with its plain parts as JSON in the header: no pickle, no code."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from redan.errors import EvidenceError, SettingError

_KEY = "redan.hardening"
_LENGTH = 8  # bytes at the beginning of a safetensors file, which say how long its header is


def encoded(state: Any, tensors: dict[str, Tensor]) -> Any:
    """Nested state as JSON, its tensors put aside: dictionaries keep the types of their keys, and tuples theirs.

    Raises SettingError for what is no number, text, tensor, or a dictionary, list or tuple of such.
    """
    match state:
        case None | bool() | int() | float() | str():
            return state
        case Tensor():
            name = str(len(tensors))
            tensors[name] = state.detach().cpu().contiguous().clone()  # a copy: weights that are shared stay apart
            return {"tensor": name}
        case Counter():
            return {"counter": [[encoded(k, tensors), encoded(v, tensors)] for k, v in state.items()]}
        case dict():
            return {"dict": [[encoded(k, tensors), encoded(v, tensors)] for k, v in state.items()]}
        case tuple():
            return {"tuple": [encoded(part, tensors) for part in state]}
        case list():
            return [encoded(part, tensors) for part in state]
    raise SettingError(
        f"the training's state holds {type(state).__name__}, which cannot be saved without pickle; leave folder= out, "
        "or use an optimizer and a scheduler whose state is numbers and tensors"
    )


def decoded(found: Any, tensors: dict[str, Tensor]) -> Any:
    """What was `encoded`."""
    match found:
        case {"tensor": name}:
            return tensors[name]
        case {"counter": pairs}:
            return Counter({decoded(k, tensors): decoded(v, tensors) for k, v in pairs})
        case {"dict": pairs}:
            return {decoded(k, tensors): decoded(v, tensors) for k, v in pairs}
        case {"tuple": parts}:
            return tuple(decoded(part, tensors) for part in parts)
        case list():
            return [decoded(part, tensors) for part in found]
    return found


def write(path: Path, content: bytes) -> None:
    """A whole file, there or not there."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def save_state(path: Path, state: Any) -> None:
    """Write nested state to one file."""
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(encoded(state, tensors))
    write(path, save(tensors, metadata={_KEY: plain}))


def load_state(path: Path) -> Any:
    """Read what `save_state` wrote, tensors on the CPU. Raises EvidenceError where it cannot be read."""
    try:
        content = path.read_bytes()
        length = int.from_bytes(content[:_LENGTH], "little")
        header = json.loads(content[_LENGTH : _LENGTH + length])
        return decoded(json.loads(header["__metadata__"][_KEY]), load(content))
    except FileNotFoundError as error:
        raise EvidenceError(f"there is no saved training {path}; check the folder, or train without resume") from error
    except (OSError, ValueError, LookupError, SafetensorError) as error:
        raise EvidenceError(
            f"the saved training {path} cannot be read ({error}); it was changed or cut short: train again"
        ) from error
