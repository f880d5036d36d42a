"""Small real data and checkpoints for the first run: a cut of Fashion-MNIST and seven image classifiers.

    fashion_mnist()        images and labels of the shipped test or training rows
    fashion_mnist_test()   the test rows as the mapping that a threat model reads from "module:function"
    model(name)            a classifier: "natural", "robust", "residual", "distilled", "fast", "trades" or "winners"
    path(name)             where a shipped file lies

Every file is compared with its SHA-256 digest below before it is used, and nothing is unpickled. The data
are by Zalando SE (see THIRD_PARTY.md here); ``tools/make_samples.py`` made the files.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from redan.errors import DataError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["CLASSES", "DIGESTS", "fashion_mnist", "fashion_mnist_test", "model", "path", "verify"]

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""The garments; the position is the label."""

DIGESTS: Mapping[str, str] = MappingProxyType(
    {
        "fashion_mnist.npz": "6a39d84530669e87c83cfcf74caf0c6f089596c71579c21b493c4d313885b86f",
        "fashion_natural.safetensors": "b697c5f633cd235985cb14157d984fd019fe91454a3e0e5bf9377e9ab3c6432a",
        "fashion_robust.safetensors": "29340c87bb4eeabe834e0a610df7508f36147ef0ad17f4f11678adceacea3995",
        "fashion_residual.safetensors": "48085a6bb0263f6f408a42ce594a5d1c369135715155c336ba18fa42700614a1",
        "fashion_distilled.safetensors": "89cab042caae99018b2a735a573970c3db7b84bdd9c9c9e45251e7067389f696",
        "fashion_fast.safetensors": "bcec1a3d4ab061e9d4fbc00b0e20acd87f3d330a2c6eb663bfd73baceac186a7",
        "fashion_trades.safetensors": "89860afd7d7f7fded048d8056134d08e8b782e8f77a0eca83b2dccae857b1b1b",
        "fashion_winners.safetensors": "ec38d46dbabddbc1808f83cd97ba97b8e624d058d3483808babd98b3c55f92df",
    }
)
"""SHA-256 in hexadecimal of each shipped file."""


def verify(path: Path, digest: str) -> bytes:
    """Return the bytes of the file at path, or raise DataError unless their SHA-256 is digest.

    Callers parse the returned bytes and not the file again, so what was checked is what is used.
    """
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise DataError(f"the sample file {path} cannot be read ({error.strerror}); install redan again") from error
    found = hashlib.sha256(payload).hexdigest()
    if found != digest:
        raise DataError(
            f"the sample file {path} was changed: its SHA-256 is {found}, not {digest}; install redan again"
        )
    return payload


def path(name: str) -> Path:
    """Return where the shipped file of this name lies, after checking its digest."""
    _payload(name)
    return _location(name)


def fashion_mnist(split: str = "test") -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return images (N, 1, 28, 28) in [0, 1], 0 being black, and labels (N,) from 0 to 9.

    ``split`` is "test", the first 1,000 rows of the official test set, or "train", the first 4,000 of the
    official training set. Source: Xiao, Rasul and Vollgraf (2017), arXiv:1708.07747.
    """
    if split not in ("test", "train"):
        raise DataError(f'there is no split "{split}" of the samples; choose "test" or "train"')
    with np.load(io.BytesIO(_payload("fashion_mnist.npz")), allow_pickle=False) as arrays:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    return (images.astype(np.float32) / np.float32(255))[:, np.newaxis], labels.astype(np.int64)


def fashion_mnist_test() -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
    """Return the test rows: "x", images (1000, 1, 28, 28) in [0, 1], and "y", labels (1000,)."""
    images, labels = fashion_mnist("test")
    return {"x": images, "y": labels}


def model(name: str) -> nn.Module:
    """Return the classifier of this name with its trained weights, in eval mode on the CPU.

    "natural" was trained on clean images; "robust" (same network) and "residual" (batch normalization)
    were trained against projected gradient descent at l-infinity radius 0.1. "distilled" (the network of
    "natural") has defensive distillation at temperature 100: its cross-entropy hides its gradients, its
    logits do not. "fast" and "trades" (the same network) were trained by FGSM-RS and by TRADES. "winners"
    keeps the largest tenth of its units in each layer (k-WTA), which misleads gradients. All map images
    (N, 1, 28, 28) in [0, 1] to logits (N, 10).
    """
    # Imported here because torch takes seconds to load, and the data above do not need it.
    from safetensors.torch import load

    from redan.samples.models import cnn, residual, winners

    builders = {
        "natural": cnn,
        "robust": cnn,
        "residual": residual,
        "distilled": cnn,
        "fast": cnn,
        "trades": cnn,
        "winners": winners,
    }
    if name not in builders:
        raise DataError(f'there is no sample model "{name}"; choose one of {", ".join(builders)}')
    network = builders[name]()
    network.load_state_dict(load(_payload(f"fashion_{name}.safetensors")), strict=True)
    return network.eval()


def _location(name: str) -> Path:
    return Path(__file__).parent / name


def _payload(name: str) -> bytes:
    """Return the checked bytes of the shipped file of this name."""
    if name not in DIGESTS:
        raise DataError(f'there is no sample file "{name}"; choose one of {", ".join(DIGESTS)}')
    return verify(_location(name), DIGESTS[name])
