"""The torchmetrics metric, against torchmetrics itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from redan.errors import NotBuiltError, TrainingModeError
from redan.evidence.statistics import interval
from redan.oracle import Limits
from redan.perturbations.norms import Linf
from redan.targets import from_torch

Make = Callable[[int, int], tuple[Tensor, Tensor]]


def test_without_torchmetrics_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.delitem(sys.modules, "redan.integrations.torchmetrics", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'redan\[torchmetrics\]'"):
        import redan.integrations.torchmetrics  # noqa: F401


@pytest.fixture
def metric() -> Callable[..., Any]:
    """The metric's class, with an attack that finds the optimum of a linear model at once."""
    pytest.importorskip("torchmetrics", reason="needs torchmetrics (tools/extras.sh)")
    from redan.integrations.torchmetrics import RobustAccuracy

    def make(**changed: Any) -> Any:
        return RobustAccuracy(within=Linf(0.1), mode="quick", workers=1, **changed)

    return make


@pytest.mark.extras
def test_batches_add_up_to_all_rows_at_once(linear: nn.Module, known_rows: Make, metric: Callable[..., Any]) -> None:
    x, y = known_rows(60, 14)
    whole, parts = metric(), metric()
    whole.update(linear, x, y)
    for at in (slice(0, 7), slice(7, 50), slice(50, 60)):
        parts.update(linear, x[at], y[at])
    assert float(whole.compute()) == float(parts.compute()) == pytest.approx(46 / 60)
    assert parts.interval(0.9) == interval(46, 60, 0.9)
    parts.reset()
    assert parts.interval() == interval(0, 0)


@pytest.mark.extras
def test_states_of_two_processes_merge(linear: nn.Module, known_rows: Make, metric: Callable[..., Any]) -> None:
    x, y = known_rows(60, 14)
    here, there = metric(), metric()
    here.update(linear, x[:50], y[:50])
    there.update(linear, x[50:], y[50:])
    here.merge_state(there)
    assert float(here.compute()) == pytest.approx(46 / 60)


@pytest.mark.extras
def test_a_synchronized_interval_is_over_all_processes(
    linear: nn.Module, known_rows: Make, metric: Callable[..., Any]
) -> None:
    found = metric()
    found.dist_sync_fn = lambda state, group: [state, 3 * state]
    found.distributed_available_fn = lambda: True
    found.update(linear, *known_rows(30, 7))
    assert found.interval() == interval(4 * 23, 4 * 30)
    assert int(found.total) == 30  # its own again


@pytest.mark.extras
def test_beside_accuracy_in_a_collection_and_in_inference_mode(
    linear: nn.Module, known_rows: Make, metric: Callable[..., Any]
) -> None:
    from torchmetrics import MetricCollection
    from torchmetrics.classification import MulticlassAccuracy

    x, y = known_rows(60, 14)
    both = MetricCollection({"accuracy": MulticlassAccuracy(3, average="micro"), "robust": metric()})
    with torch.inference_mode():
        x = x.clone()  # as a loader's rows are there
        both.update(preds=linear(x), target=y, model=linear, x=x, y=y)
    found = both.compute()
    assert float(found["accuracy"]) == 1.0
    assert float(found["robust"]) == pytest.approx(46 / 60)
    assert not [name for name, _ in both["robust"].named_parameters()]  # no copy of the model


@pytest.mark.extras
def test_rows_cut_off_by_our_limits_widen_the_interval(
    linear: nn.Module, known_rows: Make, metric: Callable[..., Any]
) -> None:
    found = metric(limits=Limits(queries=0))
    found.update(linear, *known_rows(30, 0))
    assert float(found.compute()) == 0.0
    assert (found.interval().low, found.interval().high) == (0.0, 1.0)


@pytest.mark.extras
def test_what_cannot_be_counted_is_refused(linear: nn.Module, known_rows: Make, metric: Callable[..., Any]) -> None:
    with pytest.raises(NotBuiltError, match="stochastic"):
        metric().update(from_torch(linear, stochastic=True), *known_rows(6, 0))
    with pytest.raises(TrainingModeError):
        metric().update(linear.train(), *known_rows(6, 0))
