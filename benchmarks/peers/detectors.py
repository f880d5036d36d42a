"""ART's detectors of poison on features that a benchmark computed, one request a line.

Its parent writes JSON lines to standard input and reads one line back for each:

    {"detector": "spectral-signatures", "features": "f.npz", "settings": {"expected_pp_poison": 0.05}, "seed": 0}
    {"cpu_seconds": 0.04, "clean": [1, 0, ...], "scores": {"1": 3.2}}

* ``features``: an .npz file with `features` (N, D) and `labels` (N,). ART asks its classifier for activations; a
  classifier that answers these takes the place of a network, so that both sides look at the same numbers.
* ``detector``: "activation-clustering" (``ActivationDefence``) or "spectral-signatures"
  (``SpectralSignatureDefense``). ``settings`` go to ART's own arguments: to ``detect_poison`` of the former, to the
  constructor of the latter.
* ``clean``: ART's verdict for each row, 1 clean and 0 poison. ``scores``: of rows it suspects, where it tells.
* ``seed``: of numpy's global numbers, which ART's k-means draws from.
* ``{"versions": true}`` answers versions. Where ART itself raises, the answer is
  ``{"error": ..., "unsupported": true}``.

Time is that of one call on one thread, constructor included, in CPU seconds; reading the file is not. redan is not
imported, and no code of ART is copied.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # these are read once, when numpy is loaded
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import gc
import json
import platform
import sys
import time
import traceback
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import numpy as np
from numpy.typing import NDArray
from worker import keep_memory, silence

PACKAGES = ("adversarial-robustness-toolbox", "scikit-learn", "numpy")


class Refused(RuntimeError):
    """ART raised."""


class Answering:
    """What ART's detectors ask of a classifier: names of its layers, how many classes, the activations of one layer.

    Which layer is asked for does not matter: all rows' features are given.
    """

    layer_names = ("input", "penultimate")
    input_shape = (1,)

    def __init__(self, features: NDArray[Any], classes: int) -> None:
        self._features = features
        self.nb_classes = classes

    def get_activations(self, x: NDArray[Any], layer: int, batch_size: int) -> NDArray[Any]:  # noqa: ARG002
        """The features (N, D)."""
        return self._features


@cache
def loaded(path: str) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Features (N, D), one-hot labels (N, K) and K."""
    with np.load(path, allow_pickle=False) as file:
        features, labels = file["features"], file["labels"]
    classes = int(labels.max()) + 1
    return features, np.eye(classes)[labels], classes


def once(detector: str, path: str, settings: Mapping[str, Any]) -> tuple[Any, float]:
    """ART's (report, verdicts) and CPU seconds."""
    from art.defences.detector.poison import ActivationDefence, SpectralSignatureDefense

    features, labels, classes = loaded(path)
    classifier, rows = Answering(features, classes), np.zeros((len(features), 1), dtype=np.float32)
    if detector not in ("activation-clustering", "spectral-signatures"):
        raise ValueError(f"no detector {detector!r}")
    gc.collect()
    with silence():
        begun = time.process_time()
        try:
            if detector == "activation-clustering":
                found = ActivationDefence(classifier, rows, labels).detect_poison(**settings)
            else:
                found = SpectralSignatureDefense(classifier, rows, labels, **settings).detect_poison()
        except Exception as error:
            raise Refused(f"{type(error).__name__}: {error}") from error
        return found, time.process_time() - begun


def serve(detector: str, features: str, settings: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """Answer one request."""
    np.random.seed(seed)  # ART's k-means has no seed of its own
    (report, clean), seconds = once(detector, features, settings)
    told = {int(row): float(score) for row, score in report.items()} if detector == "spectral-signatures" else None
    return {"cpu_seconds": seconds, "clean": [int(one) for one in clean], "scores": told}


def reply(line: str) -> dict[str, Any]:
    """Answer one line; whatever goes wrong becomes part of the answer."""
    try:
        fields = json.loads(line)
        if fields == {"versions": True}:
            return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}
        return serve(**fields)
    except Refused as error:
        return {"error": str(error), "unsupported": True, "traceback": None}
    except Exception as error:
        return {
            "error": f"{type(error).__name__}: {error}",
            "unsupported": False,
            "traceback": traceback.format_exc(),
        }


def main() -> None:
    """Serve until standard input ends."""
    keep_memory()
    # The answers get a descriptor of their own, and descriptor 1 becomes standard error.
    answers: TextIO = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        if line.strip():
            print(json.dumps(reply(line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
