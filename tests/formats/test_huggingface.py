"""Hugging Face's image classifiers from a folder: their logits and gradients, and nothing from anywhere else."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import redan
from redan.errors import TargetError
from redan.formats.huggingface import load_huggingface
from redan.targets import from_torch

CLASSES = ("cat", "dog", "owl")


def classifier(kind: str) -> Any:
    """A tiny classifier of 16 × 16 pictures with random weights."""
    import transformers as hf

    torch.manual_seed(0)
    names = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: i for i, name in enumerate(CLASSES)}}
    match kind:
        case "vit":
            sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
            return hf.ViTForImageClassification(hf.ViTConfig(image_size=16, patch_size=4, **sizes, **names)).eval()
        case _:
            config = hf.ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], **names)
            return hf.ResNetForImageClassification(config).eval()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection can be made, and none may be tried."""

    def refuse(*args: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def preprocessor(folder: Path, **said: object) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


@pytest.mark.extras
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_folder_becomes_a_module(kind: str, offline: None, tmp_path: Path) -> None:
    model = classifier(kind)
    model.save_pretrained(tmp_path)
    found = load_huggingface(tmp_path)
    x = torch.rand(5, 3, 16, 16, requires_grad=True)
    ours, theirs = found.module(x), model(pixel_values=x).logits

    assert (found.classes, found.normalization, found.size) == (CLASSES, None, None)
    assert torch.allclose(ours, theirs, atol=1e-5)
    one, other = (torch.autograd.grad(answer[:, 1].sum(), x)[0] for answer in (ours, theirs))
    assert float(one.abs().max()) > 0
    assert torch.allclose(one, other, atol=1e-5)
    assert not any(part.training for part in found.module.modules())


@pytest.mark.extras
def test_it_is_attacked_with_its_own_normalization(tmp_path: Path) -> None:
    model = classifier("vit")
    model.save_pretrained(tmp_path)
    said = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "size": {"height": 16, "width": 16}}
    preprocessor(tmp_path, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.2, 0.3], **said)
    found = load_huggingface(tmp_path)
    assert found.size == (16, 16)
    target = from_torch(found.module, classes=3, normalization=found.normalization)

    x = torch.rand(8, 3, 16, 16)
    mean, std = (torch.tensor(part).reshape(3, 1, 1) for part in ([0.4, 0.5, 0.6], [0.2, 0.2, 0.3]))
    expected = model(pixel_values=(x - mean) / std).logits
    assert torch.allclose(target(x), expected, atol=1e-5)
    result = redan.attack(target, x, expected.argmax(1), redan.PGD(steps=10), within=redan.Linf(0.3))
    assert result.success.any()


@pytest.mark.extras
@pytest.mark.parametrize(
    ("said", "normalization", "size"),
    [
        ({"do_normalize": False, "size": {"shortest_edge": 8}}, None, (8, 8)),
        ({"size": 8, "do_center_crop": True, "crop_size": {"height": 6, "width": 5}}, None, (6, 5)),
        ({"image_mean": [0.5], "image_std": [0.5], "do_rescale": False}, ((0.5 / 255,), (0.5 / 255,)), None),
        ({"image_mean": [0.0], "image_std": [1.0], "rescale_factor": 2 / 255}, ((0.0,), (0.5,)), None),
    ],
)
def test_what_the_preprocessor_says(said: Any, normalization: Any, size: Any, tmp_path: Path) -> None:
    classifier("resnet").save_pretrained(tmp_path)
    found = load_huggingface(preprocessor(tmp_path, **said))
    assert found.size == size
    if normalization is None:
        assert found.normalization is None
    else:
        assert found.normalization is not None
        for ours, theirs in zip(found.normalization, normalization, strict=True):
            assert ours == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('{"rescale_offset": true}', "in a way of its own"),
        ('{"do_normalize": false, "do_rescale": false}', "and does not normalize them"),
        ('{"image_mean": [0.5]}', "cannot be understood"),
        ('{"rescale_factor": 0}', "cannot be understood"),
        ("[1]", "is no JSON object"),
        ("{", "is no JSON "),
    ],
)
def test_a_preprocessor_that_does_other_things_is_refused(text: str, cause: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(TargetError, match=rf"/preprocessor_config\.json .*{cause}.*; "):
        load_huggingface(tmp_path)


def test_a_name_on_a_hub_is_no_folder(offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TargetError, match=r"there is no folder google/vit-base-patch16-224 .*asks no hub"):
        load_huggingface("google/vit-base-patch16-224")


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(TargetError, match=r"has no model\.safetensors, and pickled weights are not read"):
        load_huggingface(tmp_path)


def test_without_transformers_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(TargetError, match=r"run `pip install 'redan\[hf\]'`"):
        load_huggingface(tmp_path)


@pytest.mark.extras
def test_a_head_that_was_never_trained_is_refused(offline: None, tmp_path: Path) -> None:
    """transformers itself would draw it at random and go on."""
    from safetensors.torch import load_file, save_file

    classifier("vit").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: part for name, part in weights.items() if "classifier" not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TargetError, match=r"2 parameters are missing .*classifier\.bias, classifier\.weight"):
        load_huggingface(tmp_path)


@pytest.mark.extras
@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "bert"},
        {"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine", "AutoModelForImageClassification": "code.Net"}},
        {},
    ],
)
def test_what_is_no_classifier_is_one_sentence(config: dict[str, Any], offline: None, tmp_path: Path) -> None:
    classifier("vit").save_pretrained(tmp_path / "made")
    folder = tmp_path / "other"
    folder.mkdir()
    shutil.copy(tmp_path / "made" / "model.safetensors", folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'written')!r}, 'w')\n")
    with pytest.raises(TargetError, match=r"^other: this is no image classifier that transformers can build \([^\n]+$"):
        load_huggingface(folder)
    assert not (tmp_path / "written").exists()


def test_importing_it_does_not_import_transformers() -> None:
    import subprocess
    import sys

    code = "import sys, redan.formats.huggingface; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.extras
def test_the_module_is_an_ordinary_one(tmp_path: Path) -> None:
    classifier("resnet").save_pretrained(tmp_path)
    module = load_huggingface(tmp_path).module
    assert isinstance(module, nn.Module)
    assert module.state_dict()
