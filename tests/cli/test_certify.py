"""`redan certify`: its exit codes, what it prints, and one sentence for what cannot be certified."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redan.assessment.certificates import Certified
from redan.assessment.provers import Bounds
from redan.cli.app import run

Write = Callable[..., Path]
Captured = pytest.CaptureFixture[str]
REQUIRED = {"metric": "certified_accuracy", "at_least": 0.7}


def said(capsys: Captured, *arguments: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run(["certify", *map(str, arguments), "--workers", "1"])
    found = capsys.readouterr()
    return code, found.out, found.err


def mislabeled(path: Path, count: int) -> Path:
    """The first rows get the label of another class."""
    with np.load(path.parent / "rows.npz") as rows:
        x, y = rows["x"], rows["y"].copy()
    y[:count] = (y[:count] + 1) % 3
    np.savez(path.parent / "rows.npz", x=x, y=y)
    return path


@pytest.mark.parametrize(
    ("weak", "wrong", "threshold", "code", "word"),
    [(2, 0, 0.7, 0, "PASS"), (0, 12, 0.9, 1, "FAIL"), (20, 0, 0.7, 3, "INCON")],
)
def test_the_exit_code_is_the_verdict(
    shop: Write, capsys: Captured, weak: int, wrong: int, threshold: float, code: int, word: str
) -> None:
    path = mislabeled(shop(weak=weak, requirements__0={**REQUIRED, "at_least": threshold}), wrong)
    found, out, err = said(capsys, path)
    assert (found, err) == (code, "")
    assert out.startswith(word)
    assert f"{32 - weak - wrong} of 32" in out
    if code == 3:
        assert "20 rows have no certificate and may be robust all the same" in " ".join(out.split())


def test_without_a_requirement_nothing_is_judged(
    shop: Write, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = said(capsys, shop(weak=20), "--radius", "0.01", "--radius", "0.1")
    assert code == 0
    assert out.startswith("shop, 32 rows")
    assert "incomplete, deterministic, glass-box verifier" in out
    assert max(map(len, out.splitlines())) <= 80
    small, large = (line.split() for line in out.splitlines() if line.strip().startswith("0."))
    assert small[0] == "0.01"
    assert large[:4] == ["0.1", "12", "of", "32"]
    assert large[-2] == "20"  # open


def test_json_holds_all(shop: Write, capsys: Captured) -> None:
    code, out, _ = said(capsys, shop(requirements__0=REQUIRED), "--json", "--rows", "8")
    assert code == 3  # 8 rows show little
    found = Certified.model_validate_json(out)
    assert (found.rows, found.lines[0].n, found.verdict) == (8, 8, "inconclusive")
    assert json.loads(out)["requirements"][0]["threshold"] == 0.7


def test_smoothing_says_what_is_certified(shop: Write, capsys: Captured) -> None:
    arguments = ("--method", "smoothing", "--sigma", "0.25", "--radius", "0.25", "--samples", "1000")
    code, out, _ = said(capsys, shop(weak=8), *arguments)
    out = " ".join(out.split())
    assert code == 0
    assert "Certified is the smoothed model (sigma 0.25), NOT the model that the file serves" in out
    assert "which is right on 32 of 32" in out
    assert "incomplete, probabilistic, closed-box verifier" in out
    assert "false with chance 0.001" in out
    assert "0.25 24 of 32" in out


def test_smoothing_passes_no_requirement_of_the_model_that_is_served(shop: Write, capsys: Captured) -> None:
    path = shop(requirements__0=REQUIRED, attackers__0__change={"l2": 0.2})
    code, out, _ = said(capsys, path, "--method", "smoothing", "--sigma", "0.25", "--samples", "1000")
    assert code == 3
    assert "the counts are not about what is served" in " ".join(out.split())


def test_patches(shop: Write, capsys: Captured) -> None:
    path = shop(
        "Picture",
        system__inputs={"kind": "image", "shape": [1, 1, 7], "bounds": [0, 1]},
    )
    code, out, _ = said(capsys, path, "--patch", "1")
    assert code == 0
    assert "the model inside PatchCleanser, NOT the model that the file serves" in " ".join(out.split())


def test_an_interrupt_shows_what_is_known_and_ends_with_130(
    shop: Write, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    whole = Bounds.__call__

    def stops(self: Bounds, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(self, *arguments)

    monkeypatch.setattr(Bounds, "__call__", stops)
    code, out, err = said(capsys, shop(weak=0))
    assert code == 130
    assert "16 of 16" in out
    assert err == "redan: interrupted after 16 of 32 rows; what is shown is of those\n"


HTTP = {"http": {"url": "http://127.0.0.1:9/score", "protocol": "mlflow"}}


@pytest.mark.parametrize(
    ("changed", "arguments", "words"),
    [
        ({"model": "Noisy"}, (), ("stochastic model", "method smoothing")),
        ({"model": "Rounded", "attackers__0__knowledge": "scores"}, (), ("has no bound", "method smoothing")),
        (
            {"system__model": HTTP, "system__output": "probabilities", "attackers__0__knowledge": "scores"},
            (),
            ("an endpoint shows answers and no layers", "method smoothing"),
        ),
        ({"attackers__0__change": {"l1": 1.0}}, (), ("no evasion attacker", "within linf or l2")),
        ({"system__inputs": {"kind": "table"}}, (), ("columns are scaled", "system.inputs.bounds")),
        ({}, ("--method", "exact"), ("for trees", "leave the method to auto")),
        ({}, ("--method", "smoothing"), ("give --sigma",)),
        ({}, ("--sigma", "0.5"), ("add --method smoothing",)),
        ({}, ("--radius", "-1"), ("above 0, got -1",)),
        ({}, ("--patch", "3"), ("patches are of images",)),
        ({}, ("--patch", "3", "--radius", "0.1"), ("give patches alone",)),
        ({}, ("--method", "smoothing", "--sigma", "-1"), ("sigma is a standard deviation",)),
        ({}, ("--method", "magic"), ("magic", "redan certify --help")),
    ],
)
def test_what_cannot_be_certified_is_one_sentence(
    shop: Write, capsys: Captured, changed: dict[str, Any], arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    code, out, err = said(capsys, shop(**changed), *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("redan: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err
