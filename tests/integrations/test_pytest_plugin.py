"""`assert_robust`: three-valued, exact at the threshold, and light when pytest starts."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from redan.errors import PreflightError, SettingError, TrainingModeError
from redan.evidence.statistics import lower_bound, upper_bound
from redan.integrations.pytest_plugin import assert_robust
from redan.oracle import Limits
from redan.perturbations.norms import Linf
from redan.protocols import Access
from redan.targets import from_torch

Make = Callable[[int, int], tuple[Tensor, Tensor]]
QUICK: dict[str, Any] = {"within": Linf(0.1), "mode": "quick", "workers": 1}


def test_a_pass_returns_the_score(linear: nn.Module, known_rows: Make) -> None:
    score = assert_robust(linear, known_rows(60, 6), at_least=0.8, **QUICK)
    assert (score.k, score.n, score.clean) == (54, 60, 60)


def test_at_the_threshold_the_lower_bound_passes_and_no_more(linear: nn.Module, known_rows: Make) -> None:
    data, edge = known_rows(60, 6), lower_bound(54, 60, 0.1)
    assert_robust(linear, data, at_least=edge, confidence=0.9, **QUICK)
    with pytest.raises(AssertionError, match="not shown on either side of"):
        assert_robust(linear, data, at_least=math.nextafter(edge, 1), confidence=0.9, **QUICK)


def test_at_the_threshold_the_upper_bound_does_not_fail_yet(linear: nn.Module, known_rows: Make) -> None:
    data, edge = known_rows(60, 6), upper_bound(54, 60, 0.1)
    with pytest.raises(AssertionError, match="not shown on either side of"):
        assert_robust(linear, data, at_least=edge, confidence=0.9, **QUICK)
    with pytest.raises(AssertionError, match="shown to be below"):
        assert_robust(linear, data, at_least=math.nextafter(edge, 1), confidence=0.9, **QUICK)


def test_a_fail_names_count_bound_attack_and_first_row(linear: nn.Module, known_rows: Make) -> None:
    with pytest.raises(AssertionError) as found:
        assert_robust(linear, known_rows(60, 40), at_least=0.6, ids=[f"r{i}" for i in range(60)], **QUICK)
    said = str(found.value)
    assert f"shown to be below 0.6: upper bound {upper_bound(20, 60, 0.05):.4f}; 20 of 60 rows are robust" in said
    assert "within Linf(radius=0.1" in said
    assert said.endswith("fast-cascade broke most, 40 of 60 rows, the first is row r20")


def test_without_ids_a_row_is_its_position(linear: nn.Module, known_rows: Make) -> None:
    with pytest.raises(AssertionError, match="the first is row 20$"):
        assert_robust(linear, known_rows(60, 40), at_least=0.6, **QUICK)


def test_rows_that_no_attack_had_to_break_are_not_ascribed_to_one(linear: nn.Module, known_rows: Make) -> None:
    x, y = known_rows(60, 0)
    y = torch.where(torch.arange(60) < 33, y, (y + 1) % 3)
    with pytest.raises(AssertionError, match="33 right without an attack .* the first is row 33$"):
        assert_robust(linear, (x, y), at_least=0.8, **QUICK)


def test_inconclusive_says_what_would_decide_and_may_skip(linear: nn.Module, known_rows: Make) -> None:
    data = known_rows(30, 6)
    with pytest.raises(AssertionError, match=r"0\.6430 to 0\.9091; 24 of 30 rows .* about \d+ at this rate"):
        assert_robust(linear, data, at_least=0.7, **QUICK)
    with pytest.raises(pytest.skip.Exception, match="not shown on either side of 0.7"):
        assert_robust(linear, data, at_least=0.7, inconclusive="skip", **QUICK)
    with pytest.raises(AssertionError, match="below"):  # a fail is never skipped
        assert_robust(linear, known_rows(60, 40), at_least=0.6, inconclusive="skip", **QUICK)
    with pytest.raises(SettingError, match="one of fail, skip"):
        assert_robust(linear, data, at_least=0.7, inconclusive="xfail", **QUICK)


def test_rows_that_our_limits_cut_off_never_help(linear: nn.Module, known_rows: Make) -> None:
    for at_least in (0.01, 0.99):
        with pytest.raises(AssertionError, match="not shown .* 0 errored and 30 stayed undecided"):
            assert_robust(linear, known_rows(30, 0), at_least=at_least, limits=Limits(queries=0), **QUICK)


@pytest.mark.parametrize("at_least", [-0.1, 1.1])
def test_a_threshold_that_is_no_rate_is_refused(linear: nn.Module, known_rows: Make, at_least: float) -> None:
    with pytest.raises(SettingError, match="threshold"):
        assert_robust(linear, known_rows(30, 0), at_least=at_least, **QUICK)


def test_a_broken_set_up_is_refused_by_name(linear: nn.Module, known_rows: Make) -> None:
    x, y = known_rows(60, 0)
    with pytest.raises(TrainingModeError):
        assert_robust(nn.Sequential(linear, nn.Dropout()), (x, y), at_least=0.0, **QUICK)
    with pytest.raises(PreflightError, match="clean-accuracy|labels"):
        assert_robust(linear, (x, (y + 1) % 3), at_least=0.0, **QUICK)


class Stepped(nn.Module):
    """A model behind coarse rounding: right as ever, without a gradient, and no harder to break."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.inner((x * 40).round() / 40 + 0 * x)
        return answer


def test_masked_gradients_are_no_pass(linear: nn.Module, known_rows: Make) -> None:
    data, masked = known_rows(60, 30), Stepped(linear).eval()
    with pytest.raises((AssertionError, PreflightError), match="gradient"):
        assert_robust(masked, data, at_least=0.3, **QUICK)  # the counts alone would pass: half of the rows stand
    with pytest.raises(AssertionError, match=r"below 0\.8: .* square broke most, 30 of 60"):  # no gradient is needed
        assert_robust(masked, data, at_least=0.8, knowledge=Access.SCORES, **QUICK)


class Noisy(nn.Module):
    """A model whose answers vary."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.inner(x)
        return z + 0.05 * torch.randn_like(z)


def test_a_model_whose_answers_vary_is_noticed(linear: nn.Module, known_rows: Make) -> None:
    figures: dict[str, Any] = {}
    score = assert_robust(Noisy(linear).eval(), known_rows(60, 6), at_least=0.6, record=figures.__setitem__, **QUICK)
    assert 0.85 < score.value < 0.95
    assert figures["redan.low"] != lower_bound(score.k, score.n, 0.05)  # the bootstrap's
    assert figures["redan.low"] < score.value < figures["redan.high"]


def test_undecided_rows_of_a_model_whose_answers_vary_never_help(linear: nn.Module, known_rows: Make) -> None:
    target = from_torch(Noisy(linear).eval(), stochastic=True)
    with pytest.raises(AssertionError, match="not shown .* 30 stayed undecided"):
        assert_robust(target, known_rows(30, 0), at_least=0.01, limits=Limits(queries=0), **QUICK)


TESTS = """
import sys
import pytest
from redan.integrations.pytest_plugin import assert_robust

LIGHT = [m for m in ("torch", "scipy", "numpy", "pydantic") if m in sys.modules]

def test_start_up():
    assert LIGHT == []

def check(count, weak, record, **changed):
    import torch
    from redan import Linf
    model = torch.nn.Linear(2, 2, bias=False).eval()
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
    y = torch.arange(count) % 2
    gap = torch.where(torch.arange(count) < count - weak, 0.5, 0.1)[:, None]
    x = 0.2 + gap * torch.eye(2)[y] + 0.001 * torch.rand(count, 2)
    assert_robust(model, (x, y), within=Linf(0.1), at_least=0.7, mode="quick", record=record, **changed)

@pytest.mark.robustness
def test_good(record_property):
    check(40, 2, record_property)

@pytest.mark.robustness
def test_worse(record_property):
    check(40, 30, record_property)

@pytest.mark.robustness
def test_unclear(record_property):
    check(10, 2, record_property, inconclusive="skip")
"""


@pytest.mark.slow
def test_in_a_test_run_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "test_model.py").write_text(TESTS)
    plugin = "redan.integrations.pytest_plugin"
    loaded = [] if _installed_entry_point() else ["-p", plugin]
    command = [sys.executable, "-m", "pytest", *loaded, "-q", "-rs", "--strict-markers"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "--junitxml=junit.xml", "test_model.py"],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
    )
    out = done.stdout
    assert done.returncode == 1, out + done.stderr
    assert "2 passed, 1 skipped" in out.replace("1 failed, ", ""), out
    assert "AssertionError: robust accuracy is shown to be below 0.7: upper bound" in out
    assert "__tracebackhide__" not in out  # the failure is shown where the test asserts
    assert "SKIPPED" in out
    assert "not shown on either side of 0.7" in out
    junit = (tmp_path / "junit.xml").read_text()
    assert '<property name="redan.verdict" value="fail" />' in junit
    assert '<property name="redan.k" value="10" />' in junit


def _installed_entry_point() -> bool:
    """Whether pytest finds the plugin by itself."""
    from importlib.metadata import entry_points

    return any(each.value == "redan.integrations.pytest_plugin" for each in entry_points(group="pytest11"))
