"""A few inputs that broke the model, beside what they were made of, for people to look at.

They are no evidence: counts rest on the log and on inputs/, which hold every input.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from redan.errors import EvidenceError
from redan.evidence.folder import RunFolder

PICTURES = "pictures.safetensors"
_KEYS = {"attacker", "row", "x0", "x", "before", "after", "bounds"}


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


def save_pictures(folder: RunFolder, found: Pictures) -> None:
    """Write them into a run folder."""
    tensors = {key: getattr(found, key).detach().cpu().contiguous() for key in _KEYS - {"bounds"}}
    folder.write(PICTURES, save({**tensors, "bounds": torch.tensor(found.bounds, dtype=torch.float64)}))


def load_pictures(folder: RunFolder) -> Pictures | None:
    """Read them back; None where there are none. Raises EvidenceError for a file that is not what we write."""
    if not folder.has(PICTURES):
        return None
    try:
        found = load(folder.read(PICTURES))
    except SafetensorError as error:
        raise EvidenceError(f"{folder.url}/{PICTURES} cannot be read ({error}); delete it") from error
    rows = {len(tensor) for key, tensor in found.items() if key != "bounds"}
    if set(found) != _KEYS or len(rows) != 1 or found["bounds"].shape != (2,) or found["x"].shape != found["x0"].shape:
        raise EvidenceError(f"{folder.url}/{PICTURES} is not what redan writes; delete it")
    low, high = found.pop("bounds").tolist()
    return Pictures(**found, bounds=(low, high))
