"""examples/speech: Silero VAD as its file answers, row by row and thread by thread, and deaf to speech by gradients."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import redan
from redan.assessment import assess
from redan.formats.torch_files import load_torchscript
from redan.threat.file import read

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "speech"


def test_the_threat_model_is_valid() -> None:
    system = read(FOLDER / "threat-model.yaml").model.system
    assert system.classes == ("no speech", "speech")


@pytest.fixture(scope="module")
def speech() -> Iterator[Any]:
    """The example's module."""
    sys.path.insert(0, str(FOLDER))
    yield import_module("speech")
    sys.path.remove(str(FOLDER))
    sys.modules.pop("speech", None)


@pytest.fixture
def synthesizer() -> None:
    if shutil.which("espeak-ng") is None:
        if os.environ.get("REDAN_ESPEAK") == "required":
            pytest.fail("there is no espeak-ng, and REDAN_ESPEAK=required; run examples/speech/install.sh")
        pytest.skip("needs espeak-ng (examples/speech/install.sh)")


@pytest.fixture
def seconds(speech: Any, synthesizer: None) -> tuple[Tensor, Tensor]:
    made = speech.seconds()
    return torch.from_numpy(made["x"]), torch.from_numpy(made["y"])


def noise(speech: Any, rows: int, windows: int = 4) -> Tensor:
    return 0.1 * torch.randn(rows, 512 * windows, generator=torch.Generator().manual_seed(0))


@pytest.mark.extras
def test_it_answers_what_the_file_answers(speech: Any) -> None:
    """The sigmoid of its logits is the file's own forward, window after window from a reset state."""
    x = noise(speech, 5)
    script: Any = load_torchscript(speech.silero())
    with torch.no_grad():
        script.reset_states()
        theirs = torch.cat([script(window, 16_000) for window in torch.split(x, 512, 1)], 1)
        ours = speech.model().windows(x).sigmoid()
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.extras
def test_rows_calls_and_threads_know_nothing_of_each_other(speech: Any) -> None:
    """Bytes differ where batches' sizes do, as in any network; a state that leaks would be far more."""
    model = speech.model()
    x = noise(speech, 24)
    with torch.no_grad():
        together = model(x)
        alone = torch.cat([model(row[None]) for row in x])
        assert torch.allclose(together, alone, atol=1e-4)
        assert torch.equal(model(x), together)
        assert torch.equal(model(x.flip(0)).flip(0), together)
        parts = [x[i : i + 4] for i in range(0, 24, 4)]
        one_by_one = [model(part) for part in parts]
        with ThreadPoolExecutor(4) as pool:

            def ask(part: Tensor) -> Tensor:
                with torch.no_grad():
                    answer: Tensor = model(part)
                return answer

            at_once = list(pool.map(ask, parts * 4))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(at_once, one_by_one * 4, strict=True))


@pytest.mark.extras
def test_where_the_files_own_gradient_is_lost(speech: Any) -> None:
    """What the wrapper goes round: no gradient under audio_forward, NaN in exact silence."""
    script: Any = load_torchscript(speech.silero())
    model = speech.model()
    x = noise(speech, 4).requires_grad_()
    assert not script.audio_forward(x, 16_000).requires_grad

    silent = noise(speech, 4)
    silent[:, :1024] = 0
    silent.requires_grad_()
    (lost,) = torch.autograd.grad(model(silent)[:, 1].sum(), silent)
    assert bool(lost.isnan().any())

    (found,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    assert bool(found.isfinite().all())
    assert bool((found.abs().sum(1) > 0).all())


@pytest.mark.extras
def test_a_signal_that_is_no_whole_window_is_refused(speech: Any) -> None:
    with pytest.raises(ValueError, match="a multiple of 512"):
        speech.model()(torch.zeros(2, 700))


@pytest.mark.extras
def test_plain_speech_has_little_gradient_behind_the_sigmoid(speech: Any, seconds: tuple[Tensor, Tensor]) -> None:
    model: nn.Module = speech.model()
    x = seconds[0][:8].clone().requires_grad_()
    logits = model.windows(x).amax(1)  # type: ignore[operator]  # the example's own method
    (by_logit,) = torch.autograd.grad(logits.sum(), x, retain_graph=True)
    (by_share,) = torch.autograd.grad(logits.sigmoid().sum(), x)
    assert float(by_share.abs().max()) < 1e-3 * float(by_logit.abs().max())


@pytest.mark.extras
def test_gradients_are_the_slopes_of_the_answers(speech: Any, seconds: tuple[Tensor, Tensor]) -> None:
    """Along a small step; a thousandth of the box, as the preflight goes, is nearly half of ε here, and too far."""
    x, model = seconds[0][::4].clone().requires_grad_(), speech.model()
    (slope,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    step = 2e-4 * slope.sign() * (torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.5)
    with torch.no_grad():
        rise = (model(x + step) - model(x - step))[:, 1]
    promised = (2 * slope * step).sum(1)
    assert bool(((rise - promised).abs() < promised.abs() / 2).all())


@pytest.mark.extras
def test_it_hears_speech_and_is_deafened_by_a_quiet_sound(speech: Any, seconds: tuple[Tensor, Tensor]) -> None:
    x, y = seconds
    model = speech.model()
    with torch.no_grad():
        right = model(x).argmax(1) == y
    assert int(right[y == 1].sum()) >= 30
    assert int(right[y == 0].sum()) >= 28

    spoken = x[:4], y[:4]
    quiet, loud = (
        redan.attack(model, *spoken, redan.PGD(steps=15), within=redan.Linf(radius), bounds=(-1, 1))
        for radius in (0.0005, 0.02)
    )
    assert int(quiet.success.sum()) <= 1
    assert int(loud.success.sum()) >= 3
    with torch.no_grad():
        script: Any = load_torchscript(speech.silero())
        script.reset_states()
        heard = torch.cat([script(window, 16_000) for window in torch.split(loud.adversarial, 512, 1)], 1)
    assert bool((heard.amax(1)[loud.success] < 0.5).all())  # the file itself, and not the wrapper alone, hears nothing


@pytest.mark.extras
def test_the_threat_model_runs(synthesizer: None, tmp_path: Path) -> None:
    shutil.copy(FOLDER / "speech.py", tmp_path)
    text = (FOLDER / "threat-model.yaml").read_text(encoding="utf-8")
    text = text.replace("rows: 64", "rows: 8").replace("linf: 0.005}", "linf: 0.02}")
    (tmp_path / "threat-model.yaml").write_text(text, encoding="utf-8")
    report = assess(tmp_path / "threat-model.yaml", out=tmp_path / "runs", workers=1)
    (attacker,) = report.attackers
    assert attacker.counts is not None
    assert (attacker.counts.drawn, attacker.counts.right, attacker.counts.robust) == (8, 8, 0)
    assert report.exit_code == 1  # 0 of 8 are below 60 %
