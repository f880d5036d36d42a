"""A few inputs that broke the model, or that were planted in its training rows, for people to look at.

They are no evidence: counts rest on the log and on inputs/, which hold every input.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from redan.errors import EvidenceError
from redan.evidence.folder import RunFolder

__all__ = [
    "PICTURES",
    "POISON_PICTURES",
    "Pictures",
    "PoisonPictures",
    "load_pictures",
    "save_pictures",
    "save_poison_pictures",
]

PICTURES = "pictures.safetensors"
POISON_PICTURES = "poison-pictures.safetensors"
_KEYS = {"attacker", "row", "x0", "x", "before", "after", "bounds"}
_ROWS = {"clean", "poisoned", "before", "after", "bounds"}
_LABELS = {"before", "after"}
_TRIGGER = {"planted", "mask", "pattern"}
_NAME = re.compile(r"(\d{1,6})\.([a-z]+)")
_MOST_BYTES, _MOST_ROWS, _MOST_SIDE = 2**26, 64, 2048


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoisonPictures:
    """What one poisoning attacker planted, and what was found of it.

    attacker: place in the report's list. clean, poisoned: training rows before and after, (N, C, H, W) both; before,
    after: their labels, (N,) whole numbers. planted: what the trigger makes of an input that is `bounds[0]`
    everywhere, (C, H, W). mask (H, W) and pattern (C, H, W): the trigger that Neural Cleanse found, which makes
    (1 - mask) · x + mask · pattern of an input; both or neither.
    """

    attacker: int
    clean: Tensor
    poisoned: Tensor
    before: Tensor
    after: Tensor
    planted: Tensor | None = None
    mask: Tensor | None = None
    pattern: Tensor | None = None
    bounds: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Row-aligned tensors. attacker: place in the report's list; row: place in the run; before, after: scores."""

    attacker: Tensor
    row: Tensor
    x0: Tensor
    x: Tensor
    before: Tensor
    after: Tensor
    bounds: tuple[float, float]
    poisoned: tuple[PoisonPictures, ...] = ()
    """Of the attackers who changed training rows; saved by itself."""


def save_pictures(folder: RunFolder, found: Pictures) -> None:
    """Write what was made of the run's rows into a run folder."""
    tensors = {key: getattr(found, key).detach().cpu().contiguous() for key in _KEYS - {"bounds"}}
    folder.write(PICTURES, save({**tensors, "bounds": torch.tensor(found.bounds, dtype=torch.float64)}))


def save_poison_pictures(folder: RunFolder, found: Sequence[PoisonPictures]) -> None:
    """Write what was planted into a run folder, 64 rows of an attacker at the most. Of nothing there is no file.

    Raises EvidenceError for tensors that do not fit each other.
    """
    tensors: dict[str, Tensor] = {}
    for each in found:
        kept = {"bounds": torch.tensor(each.bounds, dtype=torch.float64)}
        for key in sorted((_ROWS | _TRIGGER) - {"bounds"}):
            if (value := getattr(each, key)) is not None:
                kind = torch.int64 if key in _LABELS else torch.float32
                kept[key] = value.detach().cpu().to(kind).clone(memory_format=torch.contiguous_format)
        _of_one(
            each.attacker,
            kept,
            f"the pictures of attacker {each.attacker} do not fit each other; give tensors of "
            f"the shapes that PoisonPictures names, {_MOST_ROWS} rows at the most",
        )
        tensors |= {f"{each.attacker}.{key}": value for key, value in kept.items()}
    if tensors:
        folder.write(POISON_PICTURES, save(tensors))


def load_pictures(folder: RunFolder) -> Pictures | None:
    """Read them back; None where there are none. Raises EvidenceError for a file that is not what we write."""
    poisoned = _planted(folder)
    if not folder.has(PICTURES):
        none = torch.zeros(0, dtype=torch.int64)
        empty = Pictures(
            attacker=none, row=none, x0=none, x=none, before=none, after=none, bounds=(0.0, 1.0), poisoned=poisoned
        )
        return empty if poisoned else None
    found = _read(folder, PICTURES)
    rows_each = {len(tensor) for key, tensor in found.items() if key != "bounds"}
    whole = set(found) == _KEYS and len(rows_each) == 1
    if not whole or found["bounds"].shape != (2,) or found["x"].shape != found["x0"].shape:
        raise EvidenceError(f"{folder.url}/{PICTURES} is not what redan writes; delete it")
    low, high = found.pop("bounds").tolist()
    return Pictures(**found, bounds=(low, high), poisoned=poisoned)


def _read(folder: RunFolder, name: str) -> dict[str, Tensor]:
    try:
        return load(folder.read(name))
    except SafetensorError as error:
        raise EvidenceError(f"{folder.url}/{name} cannot be read ({error}); delete it") from error


def _planted(folder: RunFolder) -> tuple[PoisonPictures, ...]:
    """What was planted, by attacker. The file is not trusted: it may come from anybody."""
    where = f"{folder.url}/{POISON_PICTURES}"
    foreign = f"{where} is not what redan writes; delete it"
    if not folder.has(POISON_PICTURES):
        return ()
    if (folder.files.size(f"{folder.root}/{POISON_PICTURES}") or 0) > _MOST_BYTES:
        raise EvidenceError(f"{where} is larger than redan writes; delete it")
    by_attacker: dict[int, dict[str, Tensor]] = {}
    for key, tensor in _read(folder, POISON_PICTURES).items():
        name = _NAME.fullmatch(key)
        if name is None:
            raise EvidenceError(foreign)
        by_attacker.setdefault(int(name[1]), {})[name[2]] = tensor
    return tuple(_of_one(number, by_attacker[number], foreign) for number in sorted(by_attacker))


def _of_one(number: int, tensors: Mapping[str, Tensor], said: str) -> PoisonPictures:
    """One attacker's, if all tensors fit each other and are no larger than people look at. said: EvidenceError's."""
    if not _ROWS <= set(tensors) <= _ROWS | _TRIGGER or tensors["bounds"].shape != (2,):
        raise EvidenceError(said)
    low, high = tensors["bounds"].double().tolist()
    images = {key: value for key, value in tensors.items() if key not in {"bounds", *_LABELS}}
    shape = tensors["clean"].shape
    wanted = {"clean": shape, "poisoned": shape, "planted": shape[1:], "mask": shape[2:], "pattern": shape[1:]}
    if not (
        len(shape) == 4
        and shape[0] <= _MOST_ROWS
        and 0 < min(shape[1:]) <= max(shape[1:]) <= _MOST_SIDE
        and all(value.is_floating_point() and value.shape == wanted[key] for key, value in images.items())
        and all(tensors[key].dtype == torch.int64 and tensors[key].shape == shape[:1] for key in _LABELS)
        and ("mask" in images) == ("pattern" in images)
        and all(map(math.isfinite, (low, high)))
        and low < high
    ):
        raise EvidenceError(said)
    labels = {key: tensors[key] for key in _LABELS}
    return PoisonPictures(attacker=number, **images, **labels, bounds=(low, high))
