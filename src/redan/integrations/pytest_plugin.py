"""The pytest plugin: `assert_robust` in a test, and the marker `robustness` to leave such tests out.

pytest loads this file when it starts, so nothing here imports torch before a model is asserted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor, nn

    from redan.oracle import Limits
    from redan.protocols import Access, Ball
    from redan.robustness import Mode, RobustAccuracy
    from redan.targets import Target

__all__ = ["Inconclusive", "assert_robust"]


class Inconclusive(StrEnum):
    """What a test does when the rows show neither a pass nor a fail."""

    FAIL = "fail"
    SKIP = "skip"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", 'robustness: attacks a model and takes its time (-m "not robustness")')


def assert_robust(
    model: nn.Module | Target[Tensor],
    data: tuple[ArrayLike | Tensor, ArrayLike | Tensor],
    *,
    within: Ball,
    at_least: float,
    confidence: float = 0.95,
    mode: Mode | str = "default",
    seed: int = 0,
    limits: Limits | None = None,
    bounds: tuple[float, float] | None = None,
    knowledge: Access | None = None,
    ids: Sequence[object] | None = None,
    workers: int = 0,
    inconclusive: Inconclusive | str = Inconclusive.FAIL,
    record: Callable[[str, object], None] | None = None,
) -> RobustAccuracy:
    """Assert that a model's robust accuracy on data (x, y) is shown to be at least `at_least`; return the score.

    Passes if the one-sided lower bound at `confidence` is no lower than `at_least`. Fails if the upper bound is
    lower; the message has the count, the bound, the attack that broke most rows and the first row it broke.
    Otherwise the rows show neither, and the test fails too unless `inconclusive` is "skip". Clopper–Pearson for
    rows that are right or not, the bootstrap for a model whose answers vary; rows that errored or were cut off by
    `limits` help neither side. A pass does not rest on masked gradients: it is inconclusive then.

    The other arguments are those of `robust_accuracy`. knowledge: None is all that the model answers. record: called
    with a name and a value for each figure; pytest's own `record_property` writes them into the JUnit file.

    Raises AssertionError as said, and a RedanError if the preflight refuses the set-up: a submodule in training
    mode, inputs outside the bounds, labels that are not the model's.
    """
    __tracebackhide__ = True
    from redan.errors import SettingError
    from redan.evidence.report import Verdict
    from redan.integrations.ruling import ruled

    if inconclusive not in list(Inconclusive):
        raise SettingError(f"inconclusive must be one of {', '.join(Inconclusive)}, got {inconclusive!r}; choose one")
    ruling = ruled(
        model,
        data,
        within=within,
        at_least=at_least,
        confidence=confidence,
        mode=mode,
        seed=seed,
        limits=limits,
        bounds=bounds,
        knowledge=knowledge,
        ids=ids,
        workers=workers,
    )
    if record is not None:
        for name, value in ruling.figures.items():
            record(f"redan.{name}", value)
    if ruling.verdict is Verdict.PASS:
        return ruling.score
    if ruling.verdict is Verdict.INCONCLUSIVE and inconclusive == Inconclusive.SKIP:
        pytest.skip(ruling.reason)
    raise AssertionError(ruling.reason)
