"""Image classifiers as Hugging Face's transformers saves them in a folder: no network, no pickle, no remote code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from redan.errors import TargetError

_LOGITS_ALONE = "this is no image classifier that transformers can build"


@dataclass(frozen=True, slots=True)
class HuggingFaceModel:
    """An image classifier and what its folder says of it. Read it with `load_huggingface`.

    module: pictures (N, C, H, W), normalized, to logits (N, K), in evaluation mode. mean, std: per channel, of pixels
    in [0, 1]; what the preprocessor does after it has made a picture of them; None if it only scales to [0, 1].
    classes: names in the order of the logits. size: (height, width) the preprocessor makes, None if it does not say.
    """

    module: nn.Module = field(repr=False)
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    classes: tuple[str, ...]
    size: tuple[int, int] | None

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """For `from_torch(normalization=…)`, with bounds (0, 1)."""
        return None if self.mean is None or self.std is None else (self.mean, self.std)


class _Logits(nn.Module):
    """A classifier of transformers that answers its logits alone."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(pixel_values=x, return_dict=True).logits
        return logits


def load_huggingface(folder: Path | str) -> HuggingFaceModel:
    """The image classifier in a folder that `save_pretrained` wrote: config.json and weights as safetensors.

    Nothing is asked of any network, whatever the folder says; code that it brings and weights that are pickled are not
    used. Attention is computed plainly (eager), so that gradients do not depend on the machine's kernels.

    Raises TargetError for a name that is no folder, weights that are no safetensors or not all of the model's, a
    preprocessor that does more than scale and normalize, and where transformers is not installed.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise TargetError(
            f"there is no folder {folder} with a config.json; redan reads local folders and asks no hub: save the "
            "model with save_pretrained(folder)"
        )
    if not any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        raise TargetError(
            f"{folder.name} has no model.safetensors, and pickled weights are not read; save the model again with "
            "save_pretrained(folder), which writes it"
        )
    mean, std, size = _preprocessor(folder)
    classifier = _classifier(folder)
    names = classifier.config.id2label
    module = _Logits(classifier)
    module.training = False
    return HuggingFaceModel(module, mean, std, tuple(str(names[i]) for i in sorted(names)), size)


def _classifier(folder: Path) -> Any:
    try:
        from transformers import AutoModelForImageClassification
    except ImportError as error:
        raise TargetError(
            "models of Hugging Face need the package transformers, which is not installed; "
            "run `pip install 'redan[hf]'`"
        ) from error
    try:
        classifier, report = AutoModelForImageClassification.from_pretrained(
            str(folder.resolve()),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation="eager",
            output_loading_info=True,
        )
    except Exception as error:  # its readers raise what they like
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TargetError(
            f"{folder.name}: {_LOGITS_ALONE} ({reason[:200]}); name a factory that builds it instead"
        ) from error
    absent = sorted(str(name) for key in ("missing_keys", "mismatched_keys") for name in report[key])
    if absent:
        raise TargetError(
            f"{folder.name}: the weights of {len(absent)} parameters are missing or of another shape "
            f"({', '.join(absent[:3])}), and transformers would draw them at random; save the whole classifier"
        )
    return classifier


_Pair = tuple[tuple[float, ...] | None, tuple[float, ...] | None, tuple[int, int] | None]


def _preprocessor(folder: Path) -> _Pair:
    """Mean and standard deviation for pixels in [0, 1], and the size, of preprocessor_config.json if there is one."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return None, None, None
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TargetError(f"{folder.name}/{path.name} is no JSON ({error}); save the preprocessor again") from error
    if not isinstance(said, Mapping):
        raise TargetError(f"{folder.name}/{path.name} is no JSON object; save the preprocessor again")
    if said.get("rescale_offset") or said.get("include_top"):
        raise TargetError(
            f"{folder.name}/{path.name} shifts or normalizes pixels in a way of its own (rescale_offset, include_top); "
            "put that into a module of your own, and name a factory"
        )
    try:
        factor = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
        scale = 1 / (255 * factor)  # of pixels in [0, 1]
        if said.get("do_normalize", "image_mean" in said):
            mean, std = (tuple(float(part) * scale for part in said[key]) for key in ("image_mean", "image_std"))
            return mean, std, _size(said)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise TargetError(
            f"{folder.name}/{path.name} cannot be understood ({error}); give the normalization in the threat model"
        ) from error
    if abs(scale - 1) > 1e-6:
        raise TargetError(
            f"{folder.name}/{path.name} scales pixels by {factor} and not to [0, 1], and does not normalize them; "
            "scale them in a module of your own, and name a factory"
        )
    return None, None, _size(said)


def _size(said: Mapping[str, Any]) -> tuple[int, int] | None:
    size = said.get("crop_size") if said.get("do_center_crop") else None
    match size if size is not None else said.get("size"):
        case {"height": int(height), "width": int(width)}:
            return height, width
        case {"shortest_edge": int(side)} | int(side):
            return side, side
    return None
