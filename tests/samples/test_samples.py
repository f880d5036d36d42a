"""The shipped samples: unchanged bytes, the promised shapes, the accuracies measured when made."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from redan import samples
from redan.errors import DataError
from redan.samples.models import cnn, residual

# Measured by tools/make_samples.py on the 1,000 shipped test rows. Another processor may round one or two
# rows near a decision boundary to the other side, hence the tolerance.
CLEAN = {"natural": 0.891, "robust": 0.843, "residual": 0.872, "distilled": 0.883}
TOLERANCE = 0.003


def folder() -> Path:
    return Path(samples.__file__).parent


@pytest.mark.parametrize("name", samples.DIGESTS)
def test_path_is_a_file_with_the_listed_digest(name: str) -> None:
    payload = samples.path(name).read_bytes()

    assert hashlib.sha256(payload).hexdigest() == samples.DIGESTS[name]


def test_every_binary_in_the_folder_has_a_digest() -> None:
    binaries = {file.name for file in folder().iterdir() if file.suffix in (".npz", ".safetensors")}

    assert binaries == set(samples.DIGESTS)


@pytest.mark.parametrize("name", samples.DIGESTS)
def test_a_flipped_bit_is_refused(name: str, tmp_path: Path) -> None:
    payload = bytearray(samples.path(name).read_bytes())
    payload[len(payload) // 2] ^= 1
    copy = tmp_path / name
    copy.write_bytes(payload)

    with pytest.raises(DataError, match=r"was changed.*install redan again"):
        samples.verify(copy, samples.DIGESTS[name])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read.*install redan again"):
        samples.verify(tmp_path / "absent.npz", "0" * 64)


def test_loaders_refuse_a_changed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in samples.DIGESTS:
        (tmp_path / name).write_bytes(samples.path(name).read_bytes() + b"\0")
    monkeypatch.setattr(samples, "__file__", str(tmp_path / "__init__.py"))

    for load in (
        samples.fashion_mnist,
        samples.fashion_mnist_test,
        lambda: samples.model("natural"),
        lambda: samples.path("fashion_robust.safetensors"),
    ):
        with pytest.raises(DataError, match="was changed"):
            load()


def test_unknown_names_are_refused_with_the_choices() -> None:
    with pytest.raises(DataError, match=r"fashion_mnist\.npz"):
        samples.path("../errors.py")
    with pytest.raises(DataError, match='"test" or "train"'):
        samples.fashion_mnist("validation")
    with pytest.raises(DataError, match="natural, robust, residual, distilled"):
        samples.model("../natural")


@pytest.mark.parametrize(("split", "rows"), [("test", 1_000), ("train", 4_000)])
def test_images_and_labels(split: str, rows: int) -> None:
    images, labels = samples.fashion_mnist(split)

    assert images.shape == (rows, 1, 28, 28)
    assert images.dtype == np.float32
    assert images.min() == 0.0
    assert images.max() == 1.0
    # Whole numbers of 255ths: the bytes of the source, scaled and nothing else.
    assert np.array_equal(np.rint(images * 255) / np.float32(255), images)
    assert labels.shape == (rows,)
    assert labels.dtype == np.int64
    # Each of the ten classes is a tenth of the official sets, so a cut holds about as much of each.
    assert np.all(np.abs(np.bincount(labels, minlength=10) / rows - 0.1) < 0.025)


def test_test_rows_are_the_first_of_the_official_test_set() -> None:
    _, labels = samples.fashion_mnist("test")

    # The opening of the official t10k labels.
    assert labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert [samples.CLASSES[label] for label in labels[:3]] == ["Ankle boot", "Pullover", "Trouser"]


def test_mapping_of_the_test_rows_is_the_test_split() -> None:
    images, labels = samples.fashion_mnist("test")
    rows = samples.fashion_mnist_test()

    assert set(rows) == {"x", "y"}
    assert np.array_equal(rows["x"], images)
    assert np.array_equal(rows["y"], labels)


def test_each_call_returns_arrays_of_its_own() -> None:
    first, _ = samples.fashion_mnist("test")
    first[:] = 0.5
    second, _ = samples.fashion_mnist("test")

    assert second.max() == 1.0


def logits(network: nn.Module) -> torch.Tensor:
    images, _ = samples.fashion_mnist("test")
    with torch.no_grad():
        outputs: torch.Tensor = network(torch.from_numpy(images))
    return outputs


@pytest.mark.parametrize("name", CLEAN)
def test_clean_accuracy_is_the_measured_one(name: str) -> None:
    _, labels = samples.fashion_mnist("test")
    network = samples.model(name)
    outputs = logits(network)

    assert not any(module.training for module in network.modules())
    assert outputs.shape == (1_000, 10)
    accuracy = (outputs.argmax(1).numpy() == labels).mean()
    assert accuracy == pytest.approx(CLEAN[name], abs=TOLERANCE)


def test_natural_breaks_and_the_others_hold_against_one_gradient_step() -> None:
    images, labels = samples.fashion_mnist("test")
    y = torch.from_numpy(labels)
    held = {}
    for name in CLEAN:
        network = samples.model(name)
        x = torch.from_numpy(images).requires_grad_(True)
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(network(x), y), x)
        moved = (x.detach() + 0.1 * gradient.sign()).clamp(0, 1)
        with torch.no_grad():
            held[name] = float((network(moved).argmax(1) == y).float().mean())

    assert held["natural"] < 0.30
    assert held["robust"] > 0.70
    assert held["residual"] > 0.70
    assert held["distilled"] > 0.70  # but only against the gradient of its cross-entropy


def test_natural_and_robust_share_an_architecture_but_not_weights() -> None:
    natural, robust = samples.model("natural").state_dict(), samples.model("robust").state_dict()

    assert {key: value.shape for key, value in natural.items()} == {key: value.shape for key, value in robust.items()}
    assert not any(torch.equal(natural[key], robust[key]) for key in natural)


def test_builders_return_fresh_modules_of_the_documented_size() -> None:
    assert sum(parameter.numel() for parameter in cnn().parameters()) == 166_406
    assert sum(parameter.numel() for parameter in residual().parameters()) == 77_754
    assert cnn() is not cnn()


def test_sizes() -> None:
    checkpoints = list(folder().glob("*.safetensors"))

    assert len(checkpoints) == 7
    assert all(file.stat().st_size < 700_000 for file in checkpoints)
    # Not the byte code that Python keeps next to the sources.
    shipped = [f for f in folder().rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    assert sum(file.stat().st_size for file in shipped) < 7_000_000


def test_third_party_notice_names_the_owner_and_the_license() -> None:
    notice = (folder() / "THIRD_PARTY.md").read_text(encoding="utf-8")

    assert "Copyright: 2017, Zalando SE" in notice
    assert "Permission is hereby granted, free of charge" in notice


def test_import_loads_no_torch_of_its_own() -> None:
    command = (
        "import sys, redan; before = 'torch' in sys.modules; "
        "import redan.samples; sys.exit(('torch' in sys.modules) != before)"
    )
    environment = {**os.environ, "PYTHONPATH": str(folder().parents[1])}

    assert subprocess.run([sys.executable, "-c", command], env=environment, check=False).returncode == 0
