"""A shop in a folder of its own: rows whose fate is known, models honest and not, a threat model that names them."""

from __future__ import annotations

import copy
import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

settings.register_profile("redan", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("redan")  # a busy machine is slow, and that is no finding

MODELS = '''
import time

import torch
from torch import nn

from redan.errors import SettingError
from redan.perturbations.norms import L2, Linf
from redan.protocols import Ball, Gradients, Scores
from redan.rows import Rows


class Pairs(nn.Module):
    """Three scores, each the sum of two of the first six numbers; the seventh only marks rows."""

    def __init__(self, **settings):
        super().__init__()
        weight = torch.zeros(3, 7)
        for c in range(3):
            weight[c, 2 * c : 2 * c + 2] = 1
        self.weight = nn.Parameter(weight)
        self.settings = settings

    def forward(self, x):
        return x @ self.weight.T


class Raising(Pairs):
    def forward(self, x):
        if bool((x[:, 6] > 0.6).any()):
            raise ConnectionError("connection reset")
        return super().forward(x)


class Nan(Pairs):
    def forward(self, x):
        return super().forward(x).masked_fill(x[:, 6:] > 0.6, torch.nan)


class AlwaysNan(Pairs):
    def forward(self, x):
        return super().forward(x) * torch.nan


class Noisy(Pairs):
    def forward(self, x):
        z = super().forward(x)
        return z + self.settings.get("sigma", 0.05) * torch.randn_like(z)


class Stateful(Pairs):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x).roll(int(self.calls % 7 == 0), 1)


class Rounded(Pairs):
    def forward(self, x):
        return super().forward((x * 20).round() / 20)


class Detached(Pairs):
    def forward(self, x):
        return super().forward(x).detach()


class Softmax(Pairs):
    def forward(self, x):
        return super().forward(x).softmax(1)


class Training(Pairs):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(super().forward(x))


class Wide(Pairs):
    def forward(self, x):
        z = super().forward(x)
        return torch.cat([z, z[:, :1] - 9], 1)


class Flat(Pairs):
    def forward(self, x):
        return super().forward(x)[:, 0]


class Turned(Pairs):
    """Every class is taken for the next: no row is right."""

    def forward(self, x):
        return super().forward(x).roll(1, 1)


class Normalized(Pairs):
    """Pairs, for inputs from which 0.5 was taken and that were divided by 0.25."""

    def forward(self, x):
        return super().forward(x.flatten(1) * 0.25 + 0.5)


class Picture(Pairs):
    def forward(self, x):
        return super().forward(x.flatten(1))


class Slow(Pairs):
    def forward(self, x):
        time.sleep(0.02)
        return super().forward(x)


class SlowOnce(Pairs):
    """A model that takes its time as soon as it was asked more than the preflight asks."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls == 60:
            print("attacking", flush=True)
        if self.calls > 60:
            time.sleep(0.05)
        return super().forward(x)


class Counting(Pairs):
    """Writes down which rows it was asked about: the seventh number says, however the others were changed."""

    def forward(self, x):
        rows = (x.detach()[:, 6] * self.settings["count"]).floor().long().tolist()
        with open(self.settings["asked"], "a") as file:
            print(*rows, file=file)
        time.sleep(self.settings.get("seconds", 0))
        return super().forward(x)


class Moody(Pairs):
    """Switches itself to training after some calls."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        self.training = self.calls > 60
        return super().forward(x)


def build(kind="Pairs", **settings):
    model = globals()[kind](**settings)
    return model if kind == "Training" else model.eval()


def breaks(**settings):
    raise OSError("no such bucket")


def number():
    return 3


text = "no function"


def rows():
    return dict(MADE)


def no_rows():
    return {"x": MADE["x"]}


class Corner:
    """An attack of the user's: every number a whole radius toward the runner-up, by scores alone."""

    def __call__(self, referee: Scores, rows: Rows[torch.Tensor, Ball]) -> None:
        radius = rows.within.radius
        weight = torch.zeros(3, 7)
        for c in range(3):
            weight[c, 2 * c : 2 * c + 2] = 1
        for _ in range(2):
            (rows,) = referee.survivors(rows)
            z = referee.scores(rows.x0, rows)
            top = z.topk(2, 1).indices
            toward = weight[top[:, 1]] - weight[top[:, 0]]
            referee.reached(rows.within.project(rows.x0 + radius * toward, rows.x0), rows)


class Crashing:
    def __call__(self, referee: Scores, rows: Rows[torch.Tensor, Ball]) -> None:
        raise ValueError("boom")


class Refusing:
    """Raises one of redan's own errors."""

    def __call__(self, referee: Scores, rows: Rows[torch.Tensor, Ball]) -> None:
        raise SettingError("steps must be above 0")


class OnlyL2:
    def __call__(self, referee: Scores, rows: Rows[torch.Tensor, L2]) -> None:
        referee.reached(rows.x0, rows)


class Climber:
    def __call__(self, referee: Gradients, rows: Rows[torch.Tensor, Linf]) -> None:
        referee.reached(rows.x0, rows)


class Liar:
    """Claims what it did not do."""

    def __call__(self, referee: Scores, rows: Rows[torch.Tensor, Ball]) -> None:
        rows.x0.fill_(0.5)
        referee.reached(rows.x0 + 10, rows)
        return True


class Needy:
    def __init__(self, argument):
        self.argument = argument

    def __call__(self, referee: Scores, rows: Rows[torch.Tensor, Ball]) -> None:
        referee.reached(rows.x0, rows)
'''

_NUMBER = itertools.count()


def rows_of_pairs(count: int, weak: int, marked: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows (count, 7) in [0, 1] and classes. At L∞ 0.1 the first `weak` can be broken and no other; the last
    `marked` carry a mark. All margins differ, and all are known: weak at most 0.3, the others at least 1.
    """
    draw = np.random.default_rng(5)
    y = np.arange(count) % 3
    x = np.zeros((count, 7))
    for i, c in enumerate(y):
        low, high = (0.46, 0.54) if i < weak else (0.2, 0.8)
        x[i, :6] = low
        x[i, 2 * c : 2 * c + 2] = high
    x[:, :6] += draw.uniform(-0.02, 0.02, (count, 6))
    x[count - marked :, 6] = 1
    return x.astype(np.float32), y.astype(np.int64)


@pytest.fixture(autouse=True)
def unexamined(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run is examined but in tests that are marked so: it takes longer than all else they do."""
    if request.node.get_closest_marker("examined") is None:
        module = importlib.import_module("redan.assessment.assess")  # the package has a function of that name
        monkeypatch.setattr(module, "distrust", lambda session, rows: None)


@pytest.fixture(scope="session")
def put_under() -> Callable[[Any, list[str], object], None]:
    """Changes what stands under some keys of a document; None takes it away, and one past a list's end is added."""
    return _change


@pytest.fixture
def fours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four rows are asked together at the least, as on most machines: for tests that count what a model is asked."""
    for module in ("redan.answers", "redan.oracle"):
        monkeypatch.setattr(f"{module}.smallest", lambda: 4)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """A function that writes models, rows and a threat model beside each other, and returns the last one's path.

    model: a class of MODELS; count, weak, marked: see `rows_of_pairs`; arrays: instead of those rows. `{shop}` in
    any text stands for the models' module. Other keywords change keys, `attackers__0__goal=…`; None takes one away.
    """
    module = f"shop_{next(_NUMBER)}"

    def write(
        model: str = "Pairs",
        *,
        count: int = 32,
        weak: int = 2,
        marked: int = 0,
        arrays: dict[str, Any] | None = None,
        **changed: object,
    ) -> Path:
        x, y = rows_of_pairs(count, weak, marked)
        np.savez(tmp_path / "rows.npz", **({"x": x, "y": y} if arrays is None else arrays))
        made = f"\n\nMADE = {{'x': {x.tolist()}, 'y': {y.tolist()}}}\n"
        (tmp_path / f"{module}.py").write_text(MODELS + made)
        document: dict[str, Any] = {
            "redan": 1,
            "system": {
                "name": "shop",
                "task": "classification",
                "classes": 3,
                "model": {"factory": "{shop}:build", "arguments": {"kind": model}},
                "output": "logits",
                "inputs": {"kind": "tensor", "shape": [7], "bounds": [0, 1]},
                "data": {"test": {"path": "rows.npz"}},
            },
            "attackers": [
                {
                    "name": "anyone",
                    "kind": "evasion",
                    "why": "open to all",
                    "goal": "untargeted",
                    "knowledge": "gradients",
                    "change": {"linf": 0.1},
                }
            ],
            "requirements": [{"metric": "robust_accuracy", "at_least": 0.7, "against": "anyone"}],
            "attacks": {"mode": "quick"},
            "run": {"out": "runs"},
        }
        for key, value in changed.items():
            _change(document, key.split("__"), copy.deepcopy(value))
        path = tmp_path / "threat-model.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True).replace("{shop}", module))
        return path

    yield write
    sys.modules.pop(module, None)


def _change(document: Any, keys: list[str], value: object) -> None:
    for key in keys[:-1]:
        document = document[int(key)] if key.isdigit() else document.setdefault(key, {})
    last = int(keys[-1]) if keys[-1].isdigit() else keys[-1]
    if value is None:
        del document[last]
    elif isinstance(document, list) and last == len(document):
        document.append(value)
    else:
        document[last] = value
