"""Which attack runs on which kind of target at which access: every cell is tried, and refusals keep their sentence.

Needs the extras. Fills the generated part of docs/targets/README.md; with --check, nothing is written and the exit
code is 1 if the part is stale.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import redan
from redan.errors import RedanError
from redan.evasion.fast_cascade import FastCascade, FastCascadeL2
from redan.formats.checkpoint import load_checkpoint
from redan.formats.huggingface import load_huggingface
from redan.formats.isolated import load_joblib_isolated
from redan.formats.skops_file import load_skops
from redan.formats.torch_files import load_export, load_torchscript
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.perturbations.spatial import Spatial
from redan.protocols import Access, Attack, Bounded
from redan.registry.attacks import ATTACKS
from redan.targets import Output, Target, from_function, from_torch
from redan.targets.http import from_http
from redan.targets.onnx import load_onnx
from redan.targets.sklearn import from_sklearn
from redan.targets.trees import load_trees
from redan.wire.service import Protocol, Service

PAGE = Path(__file__).resolve().parents[1] / "docs" / "targets" / "README.md"
CLASSES, COLUMNS, SIDE, ROWS = 3, 8, 8, 4
_DRAW = np.random.default_rng(0)
VECTORS = _DRAW.uniform(0.2, 0.8, (64, COLUMNS))
WEIGHT = _DRAW.normal(size=(CLASSES, COLUMNS))
LABELS = (VECTORS @ WEIGHT.T).argmax(1)
PICTURES = torch.rand(ROWS, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
SETS: dict[type, Callable[[], Bounded]] = {
    Linf: lambda: Linf(0.05),
    L2: lambda: L2(0.1),
    L1: lambda: L1(0.3),
    L0: lambda: L0(2),
    Spatial: lambda: Spatial(10, 0.1, rotations=3, translations=3),
}
_OPEN, _CLOSE = "<!-- matrix -->", "<!-- /matrix -->"
_FEW = {"steps": 2, "queries": 6, "searches": 1, "tries": 2, "restarts": 1, "samples": 2, "search": 1}


# -- the targets ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of target, made with a folder for its file. pictures: whether it takes images, else rows of a table."""

    name: str
    make: Callable[[Path], Target[Tensor]]
    pictures: bool = False


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 6 * 6, CLASSES)).eval()


def _torchscript(folder: Path) -> Target[Tensor]:
    path = folder / "model.pt"
    torch.jit.save(torch.jit.script(_network()), path)
    return from_torch(load_torchscript(path), classes=CLASSES)


def _export(folder: Path) -> Target[Tensor]:
    path = folder / "model.pt2"
    batch = torch.export.Dim("batch", min=1, max=1024)
    torch.export.save(torch.export.export(_network(), (PICTURES,), dynamic_shapes=({0: batch},)), path)
    return from_torch(load_export(path), classes=CLASSES)


def _checkpoint(folder: Path) -> Target[Tensor]:
    path = folder / "checkpoint.pt"
    torch.save(_network().state_dict(), path)
    return from_torch(load_checkpoint(path, trust=True, module=_network()), classes=CLASSES)


def _huggingface(folder: Path) -> Target[Tensor]:
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(
        num_channels=1, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=CLASSES
    )
    ResNetForImageClassification(config).eval().save_pretrained(folder / "resnet")
    found = load_huggingface(folder / "resnet")
    return from_torch(found.module, classes=CLASSES, normalization=found.normalization)


def _graph(folder: Path) -> Path:
    path = folder / "model.onnx"
    torch.onnx.export(_network(), (PICTURES,), path, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "batch"}})
    return path


def _onnx(folder: Path) -> Target[Tensor]:
    return load_onnx(_graph(folder), classes=CLASSES, rows=PICTURES)


def _onnx_runtime(folder: Path) -> Target[Tensor]:
    return load_onnx(_graph(folder), classes=CLASSES, gradients=False)


def _skops(estimator: Any, folder: Path, *, output: Output = Output.PROBABILITIES, climbed: bool) -> Target[Tensor]:
    import skops.io

    skops.io.dump(estimator.fit(VECTORS, LABELS), folder / "model.skops")
    return from_sklearn(load_skops(folder / "model.skops"), output=output, rows=VECTORS if climbed else None)


def _linear(folder: Path) -> Target[Tensor]:
    from sklearn.linear_model import LogisticRegression

    return _skops(LogisticRegression(), folder, climbed=True)


def _forest(folder: Path) -> Target[Tensor]:
    from sklearn.ensemble import RandomForestClassifier

    return _skops(RandomForestClassifier(5, random_state=0, n_jobs=1), folder, climbed=False)


def _decisions(folder: Path) -> Target[Tensor]:
    from sklearn.svm import LinearSVC

    return _skops(LinearSVC(random_state=0), folder, output=Output.LABELS, climbed=False)


def _joblib(folder: Path) -> Target[Tensor]:
    import joblib
    from sklearn.linear_model import LogisticRegression

    joblib.dump(LogisticRegression().fit(VECTORS, LABELS), folder / "model.joblib")
    return from_sklearn(load_joblib_isolated(folder / "model.joblib", trust=True))


def _xgboost(folder: Path) -> Target[Tensor]:
    from xgboost import XGBClassifier

    XGBClassifier(n_estimators=3, max_depth=2, n_jobs=1).fit(VECTORS, LABELS).save_model(folder / "model.json")
    return load_trees(folder / "model.json", classes=CLASSES)


def _lightgbm(folder: Path) -> Target[Tensor]:
    from lightgbm import LGBMClassifier

    made = LGBMClassifier(n_estimators=3, num_leaves=4, min_child_samples=2, n_jobs=1, verbose=-1)
    made.fit(VECTORS, LABELS).booster_.save_model(folder / "model.txt")
    return load_trees(folder / "model.txt", classes=CLASSES)


def _function(_: Path) -> Target[Tensor]:
    return from_function(lambda x: x @ WEIGHT.T, classes=CLASSES, output=Output.LOGITS, dtype=torch.float64)


class _Answering(BaseHTTPRequestHandler):
    """MLflow's protocol on a linear model: scores, or at /labels class numbers."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        scores = np.array(asked["inputs"]) @ WEIGHT.T
        answers = scores.argmax(1) if self.path.startswith("/labels") else scores
        body = json.dumps({"predictions": answers.tolist()}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: Any) -> None:
        """Nothing is printed."""


@contextmanager
def _endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answering)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def kinds(url: str) -> tuple[Kind, ...]:
    """Every kind of target. url: of an endpoint that answers."""

    def http(path: str, output: Output) -> Callable[[Path], Target[Tensor]]:
        service = Service(url=url + path, protocol=Protocol.MLFLOW, rows_per_request=8)
        return lambda _: from_http(service, classes=CLASSES, output=output)

    return (
        Kind("module", lambda _: from_torch(_network(), classes=CLASSES), pictures=True),
        Kind("TorchScript", _torchscript, pictures=True),
        Kind("torch.export", _export, pictures=True),
        Kind("checkpoint", _checkpoint, pictures=True),
        Kind("Hugging Face", _huggingface, pictures=True),
        Kind("ONNX", _onnx, pictures=True),
        Kind("ONNX, not converted", _onnx_runtime, pictures=True),
        Kind("scikit-learn, linear or MLP", _linear),
        Kind("scikit-learn, others", _forest),
        Kind("scikit-learn, labels", _decisions),
        Kind("joblib", _joblib),
        Kind("XGBoost", _xgboost),
        Kind("LightGBM", _lightgbm),
        Kind("HTTP", http("", Output.LOGITS)),
        Kind("HTTP, labels", http("/labels", Output.LABELS)),
        Kind("function", _function),
    )


# -- the cells -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cell:
    """What became of one attack on one kind of target at one access. refused: the sentence, or None where it ran."""

    kind: str
    access: Access
    attack: str
    refused: str | None


def few(attack: Any) -> Any:
    """The attack with as little effort as it can make."""
    if isinstance(attack, FastCascade | FastCascadeL2):
        return replace(attack, thorough=False)
    if isinstance(attack, tuple):
        return tuple(few(part) for part in attack)
    if not is_dataclass(attack) or isinstance(attack, type):
        return attack
    changed = {
        f.name: min(_FEW[f.name], value) if f.name in _FEW and isinstance(value, int) else few(value)
        for f in fields(attack)
        if f.init and (value := getattr(attack, f.name)) is not None
    }
    return replace(attack, **changed)


def _sentence(error: RedanError, attack: Attack[Any, Any]) -> str:
    """The error without what belongs to the attack's own name."""
    return str(error).replace(type(attack).__name__, "the attack")


def cells(folder: Path) -> Iterator[Cell]:
    """Every attack of the registry, in each set it moves in, on every kind of target at every access."""
    with _endpoint() as url:
        for kind in kinds(url):
            place = folder / re.sub(r"\W+", "-", kind.name)
            place.mkdir()
            target = kind.make(place)
            x = PICTURES if kind.pictures else torch.from_numpy(VECTORS[:ROWS])
            y = target(x.to(target.dtype)).argmax(1)
            for access in sorted(Access):
                for name, entries in groupby(ATTACKS, key=lambda entry: entry.name):
                    for entry in entries:
                        yield from (
                            Cell(kind.name, access, name, _tried(target, x, y, few(entry.make()), SETS[made](), access))
                            for made in entry.sets
                        )


def _tried(
    target: Target[Tensor], x: Tensor, y: Tensor, attack: Attack[Any, Any], within: Bounded, access: Access
) -> str | None:
    try:
        found = redan.attack(target, x, y, attack, within=within, knowledge=access)
    except RedanError as error:
        return _sentence(error, attack)
    if found.errors:
        raise AssertionError(f"{type(attack).__name__} on {target}: {found.errors}")
    return None


# -- the page ------------------------------------------------------------------------------------------------


def table(found: list[Cell]) -> str:
    """The cells as Markdown: a table for each access, attacks of the same fate in one row, and refusals' sentences."""
    sentences: dict[str, int] = {}
    told: dict[tuple[Access, str, str], list[str | None]] = defaultdict(list)
    for cell in found:
        told[cell.access, cell.attack, cell.kind].append(cell.refused)
    order = list(dict.fromkeys(cell.kind for cell in found))
    lines = []
    for access in sorted(Access):
        lines += [f"**knowledge: {access.name.lower()}**", ""]
        lines += ["| attacks | " + " | ".join(order) + " |", "|---|" + "---|" * len(order)]
        alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for attack in dict.fromkeys(cell.attack for cell in found):
            alike[tuple(_fate(told[access, attack, kind], sentences) for kind in order)].append(attack)
        lines += [f"| {', '.join(attacks)} | " + " | ".join(fates) + " |" for fates, attacks in alike.items()]
        lines.append("")
    return "\n".join([*lines, *(f"{number}. {text}" for text, number in sentences.items())])


def _fate(refused: list[str | None], sentences: dict[str, int]) -> str:
    """✓ where an attack ran in each of its sets, and the number of each sentence that refused it."""
    numbers = sorted({sentences.setdefault(text, len(sentences) + 1) for text in refused if text is not None})
    return " ".join(["✓"] * (None in refused) + [str(number) for number in numbers])


def page(text: str, made: str) -> str:
    """The page with its generated part made anew."""
    before, _, rest = text.partition(_OPEN)
    return before + _OPEN + "\n" + made + "\n" + rest[rest.index(_CLOSE) :]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the table is stale")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        made = table(list(cells(Path(folder))))
    before = PAGE.read_text()
    after = page(before, made)
    if not check:
        PAGE.write_text(after)
    elif before != after:
        print(f"{PAGE} is stale; run tools/target_matrix.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
