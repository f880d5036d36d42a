"""Silero VAD, a speech detector in TorchScript, and seconds with and without speech to ask it about.

pip install --no-deps silero-vad
bash examples/speech/install.sh
"""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import chirp, resample_poly
from torch import Tensor, nn

from redan.formats.torch_files import load_torchscript

RATE, SAMPLES = 16_000, 16_384
"""Samples a second, and of a row: 32 windows, 1.024 seconds."""
_WINDOW, _CONTEXT = 512, 64  # what the network takes at a time, and what it is shown again of the window before


class SpeechDetector(nn.Module):
    """Silero VAD over a whole signal: (N, samples) in [-1, 1] at 16 kHz to logits of no speech and speech (N, 2).

    A row counts as speech if any of its windows does, at the threshold of 0.5 that the package recommends: whoever
    hides speech has to hide all of it. Each call begins in silence and keeps its state to itself, so rows, calls and
    threads know nothing of each other, where the file's own forward writes its state into the module.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network  # of 16 kHz; the file holds one of 8 kHz too

    def windows(self, x: Tensor) -> Tensor:
        """The logit of speech of each window, (N, samples / 512).

        The file's forward ends in a sigmoid, which hardly has a gradient where speech is plain: the layer before it is
        asked. Its audio_forward has none at all, since it computes under no_grad.
        """
        if x.dim() != 2 or x.shape[1] % _WINDOW:
            raise ValueError(f"signals must be (N, a multiple of {_WINDOW}), got {tuple(x.shape)}")
        decoder = self.network.decoder
        head = dict(decoder.decoder.named_children())["2"]
        context, state, found = x.new_zeros(len(x), _CONTEXT), None, []
        for window in x.split(_WINDOW, 1):
            features = self.network.encoder(self.network.stft(torch.cat([context, window], 1)))
            state = decoder.rnn(features.squeeze(-1), state)
            found.append(head(state[0].relu().unsqueeze(-1)).flatten(1))
            context = window[:, -_CONTEXT:]
        return torch.cat(found, 1)

    def forward(self, x: Tensor) -> Tensor:
        half = self.windows(x).amax(1) / 2
        return torch.stack([-half, half], 1)


def silero() -> Path:
    """The TorchScript file in the installed package, which is not imported: it would ask for torchaudio."""
    spec = find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("no package silero_vad; run `pip install --no-deps silero-vad`")
    return Path(spec.origin).parent / "data" / "silero_vad.jit"


def model() -> nn.Module:
    """Silero VAD 16 kHz, evaluating."""
    script: Any = load_torchscript(silero())
    return SpeechDetector(script._model).eval()


SENTENCES = (
    "please open the door for me",
    "the meeting starts at nine",
    "transfer the money tomorrow",
    "where did you put the keys",
    "it is going to rain today",
    "call my sister this evening",
    "the train leaves in an hour",
    "turn off all of the lights",
    "we have never been there before",
    "my name is on the list",
    "can anybody hear me now",
    "the window is still broken",
    "read the last message again",
    "nobody told us about it",
    "she bought bread and milk",
    "this road goes to the harbor",
)
VOICES = ("en-us", "en-gb+f3", "en-gb-scotland+m3", "en-us+f4")


def sentence(text: str, voice: str) -> NDArray[np.float32]:
    """A sentence as eSpeak NG says it, at 16 kHz, from where it begins."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise FileNotFoundError("there is no espeak-ng; run `bash examples/speech/install.sh`")
    made = subprocess.run([program, "--stdout", "-v", voice, text], capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(made)) as file:
        rate, sound = file.getframerate(), np.frombuffer(file.readframes(len(made)), np.int16) / 32768
    signal = resample_poly(sound, RATE, rate)
    begins = int(np.argmax(np.abs(signal) > 0.02 * np.abs(signal).max()))
    return np.asarray(signal[max(0, begins - RATE // 20) :], np.float32)


def recorded(signal: NDArray[Any], draw: np.random.Generator, loudness: float = 0.05) -> NDArray[np.float32]:
    """The first second as a microphone in a room gives it: a common loudness (RMS), noise 34 dB below it, 16 bits.

    The noise is more than looks: in exact silence the network's spectrum is the root of 0, whose gradient is none.
    """
    signal = np.pad(signal[:SAMPLES], (0, max(0, SAMPLES - len(signal))))
    signal = signal * (loudness / np.sqrt(np.mean(signal**2))) + draw.normal(0, 1e-3, SAMPLES)
    return (np.clip(np.round(signal * 32768), -32768, 32767) / 32768).astype(np.float32)


def _colored(power: float, draw: np.random.Generator) -> NDArray[Any]:
    """Noise whose energy falls with the frequency to that power: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(draw.normal(size=SAMPLES))
    return np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 8) ** (power / 2), SAMPLES)


def _sounds() -> dict[str, Callable[[np.random.Generator], NDArray[Any]]]:
    """Sounds without speech, each made anew from a generator."""
    time = np.arange(SAMPLES) / RATE

    def hum(draw: np.random.Generator) -> NDArray[Any]:
        return np.asarray(sum(np.sin(2 * np.pi * 50 * k * time + draw.uniform(0, 6)) / k for k in range(1, 8)))

    def clicks(draw: np.random.Generator) -> NDArray[Any]:
        return np.where(draw.random(SAMPLES) < 0.001, draw.choice([-1.0, 1.0], SAMPLES), 0.0)

    return {
        "white noise": lambda draw: _colored(0, draw),
        "pink noise": lambda draw: _colored(1, draw),
        "brown noise": lambda draw: _colored(2, draw),
        "tone": lambda draw: np.sin(2 * np.pi * draw.uniform(200, 3000) * time),
        "chirp": lambda draw: chirp(time, draw.uniform(100, 500), time[-1], draw.uniform(1000, 6000)),
        "hum": hum,
        "clicks": clicks,
        "beating noise": lambda draw: _colored(1, draw) * (1 + np.sin(2 * np.pi * draw.uniform(1, 8) * time)),
    }


def seconds() -> dict[str, Any]:
    """32 seconds of speech (class 1) and 32 without (class 0): float32 (64, 16384) in [-1, 1]."""
    draw = np.random.default_rng(0)
    texts = [(text, VOICES[(i + turn) % len(VOICES)]) for turn in (0, 2) for i, text in enumerate(SENTENCES)]
    spoken = [recorded(sentence(text, voice), draw) for text, voice in texts]
    sounds = [(name, make) for name, make in _sounds().items() for _ in range(4)]
    silent = [recorded(make(draw), draw) for _, make in sounds]
    return {
        "x": np.stack([*spoken, *silent]),
        "y": np.array([1] * len(spoken) + [0] * len(silent)),
        "id": np.array(
            [f"{voice}: {text}" for text, voice in texts]
            + [f"{name} {i % 4 + 1}" for i, (name, _) in enumerate(sounds)]
        ),
    }
