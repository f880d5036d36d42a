"""Backoff, Retry-After, and the pause that all share; rounding and left-out classes; the secret."""

from __future__ import annotations

import math
import threading
import time
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redan.errors import TargetError
from redan.wire import Patience, Protocol, Recognised, Service
from redan.wire.patience import Pause, retry_after
from redan.wire.recognition import Seen
from redan.wire.secret import secret_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@given(st.integers(1, 100), st.text(max_size=4), st.integers(0, 9))
def test_waits_double_within_their_bounds_and_are_drawn_from_the_seed(failures: int, digest: str, seed: int) -> None:
    patience = Patience(first_seconds=0.1, longest_seconds=5.0, seed=seed)
    wait = patience.wait(digest, failures)
    doubled = 0.1 * 2.0 ** min(failures - 1, 30)
    assert min(5.0, doubled / 2) <= wait <= min(5.0, doubled * 1.5)
    assert wait == Patience(first_seconds=0.1, longest_seconds=5.0, seed=seed).wait(digest, failures)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 12 ", 12.0),
        ("Fri, 02 Jan 2026 03:04:35 GMT", 30.0),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0.0),
        ("9" * 400, math.inf),
        ("soon", None),
        ("-3", None),
        ("", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


def test_a_pause_holds_everybody_back_and_ends_at_once_when_stopped() -> None:
    pause, stop = Pause(), threading.Event()
    pause.ask(0.1)
    pause.ask(0.01)  # a shorter one does not end a longer one
    start = time.monotonic()
    assert pause.over(stop)
    assert time.monotonic() - start >= 0.09
    pause.ask(60)
    threading.Timer(0.05, stop.set).start()
    assert not pause.over(stop)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("digits", [1, 2, 4, 6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_is_recognised(digits: int, dtype: type) -> None:
    seen = Seen()
    for row in np.random.default_rng(0).dirichlet(np.ones(5), 40):
        assert seen.look(row[None].round(digits).astype(dtype).astype(np.float64)) is None
    assert seen.recognised == Recognised(digits=digits)
    assert seen.recognised.notes == (
        f"the endpoint rounds its scores to {digits} decimals, so small changes are not seen",
    )


def test_nothing_is_recognised_in_exact_scores_and_few_numbers() -> None:
    exact, few, hard = Seen(), Seen(), Seen()
    exact.look(np.random.default_rng(0).dirichlet(np.ones(5), 40))
    few.look(np.array([[0.5, 0.5]]))
    hard.look(np.tile([[0.0, 1.0]], (50, 1)))
    assert exact.recognised == few.recognised == hard.recognised == Recognised()


def test_left_out_classes_are_recognised_and_other_forms_refused() -> None:
    seen = Seen()
    seen.look(np.array([[0.7, 0.2, math.nan, math.nan]]))
    assert seen.recognised.top_k == 2
    assert seen.look(np.array([[0.7, 0.3]])) == "2 numbers a row where the first answer had 4 numbers a row"
    assert seen.look(np.array([3.0])) == "a single number a row where the first answer had 4 numbers a row"


def test_the_secret_comes_from_the_environment_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(url="http://127.0.0.1:1", protocol=Protocol.MLFLOW, auth_env="MY_TOKEN")
    monkeypatch.delenv("MY_TOKEN", raising=False)
    with pytest.raises(TargetError, match="MY_TOKEN, which should hold the endpoint's secret, is not set"):
        secret_of(service)
    monkeypatch.setenv("MY_TOKEN", "Bearer s3cret\r\nX-Evil: 1")
    with pytest.raises(TargetError, match="characters that no header may have") as raised:
        secret_of(service)
    assert "s3cret" not in str(raised.value)
    monkeypatch.setenv("MY_TOKEN", "Bearer s3cret")
    secret = secret_of(service)
    assert secret is not None
    assert "s3cret" not in repr(secret)
    assert secret.hidden("you sent Bearer s3cret, s3cret!") == "you sent [secret], [secret]!"
