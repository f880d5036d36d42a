"""What is served is compared with the model without it, by the same attackers on the same rows."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

import redan
from redan.assessment.forecast import forecast
from redan.assessment.replay import replay
from redan.assessment.session import Stage
from redan.evidence.defended import DefendedPart
from redan.evidence.gain import Gain
from redan.evidence.report import Report
from redan.oracle import Limits
from redan.report import html, markdown, terminal
from redan.samples import fashion_mnist

Write = Callable[..., Path]
NATURAL = (
    "from redan import PGD\nfrom redan.samples import model\n\n\n"
    "def bare():\n    return model('natural')\n\n\n"
    "climb = PGD(steps=10)\n"
)


@pytest.fixture
def photos(tmp_path: Path, shop: Write) -> Write:
    """A function that writes a threat model of Fashion-MNIST behind a median of 2 by 2, attacked by PGD-10."""
    (tmp_path / "natural_models.py").write_text(NATURAL)

    def write(*, rows: int = 160, **changed: object) -> Path:
        x, y = fashion_mnist()
        return shop(
            arrays={"x": x[:rows], "y": y[:rows]},
            **{
                "system__model": {"factory": "natural_models:bare"},
                "system__classes": 10,
                "system__inputs": {"kind": "image", "shape": [1, 28, 28], "bounds": [0, 1]},
                "system__defenses": [{"median": {"size": 2}}],
                "attackers__0__change": {"linf": 0.1},
                "attacks__skip": ["fast-cascade"],
                "attacks__add": ["natural_models:climb"],
                **changed,
            },
        )

    return write


def compared(report: Report) -> DefendedPart:
    (part,) = report.attackers[0].defended
    return part


def black_and_white(count: int) -> dict[str, NDArray[Any]]:
    """Rows that are 0 and 1 alone: a change of 0.4 breaks the sums of a picture, and one bit takes it away."""
    y = np.arange(count) % 3
    x = np.zeros((count, 1, 1, 7), dtype=np.float32)
    x[np.arange(count), 0, 0, 2 * y] = 1
    return {"x": x, "y": y}


PICTURE: dict[str, Any] = {
    "system__inputs": {"kind": "image", "shape": [1, 1, 7], "bounds": [0, 1]},
    "system__model__arguments__kind": "Picture",
    "system__output": "probabilities",
    "attackers__0__change": {"linf": 0.4},
}


def test_what_holds_against_nobody_who_knows_it_is_no_gain(photos: Write) -> None:
    path = photos()
    report = redan.assess(path)
    found = compared(report)
    assert found.verdict is Gain.NO_GAIN
    assert found.beside == "the model alone"
    assert found.rows == 160
    assert found.naive - found.held >= 25  # an attacker who does not know of it would leave many rows
    assert report.attackers[0].counts is not None
    assert report.attackers[0].counts.robust == found.held
    said = "no gain: whatever it adds is no more than 5 points"
    screen = StringIO()
    terminal.show(report, Console(file=screen, width=400))
    for view in (screen.getvalue(), markdown.render(report), html.render(report)):
        assert said in view
        assert f"{found.naive} rows would hold if the attacker did not know" in view
    again = replay(report.run.folder, path)
    assert again.differences == ()
    assert again.kept > 2 * 160  # rows of what is served, of the model alone, and those that were shown


def test_what_takes_the_change_away_is_a_gain(shop: Write) -> None:
    report = redan.assess(shop(arrays=black_and_white(48), system__defenses=[{"bit_depth": {"bits": 1}}], **PICTURE))
    found = compared(report)
    assert (found.held_beside, found.naive, found.held, found.verdict) == (0, 48, 48, Gain.GAIN)
    assert found.low > 0.5


def test_without_defenses_nothing_is_compared(shop: Write) -> None:
    report = redan.assess(shop(arrays=black_and_white(6), **PICTURE))
    assert report.attackers[0].defended == []
    assert "beside the model alone" not in markdown.render(report)


@pytest.mark.parametrize("stop", ["attacked on the model alone", None])
def test_a_comparison_that_was_broken_off_goes_on_to_the_same_evidence(photos: Write, stop: str | None) -> None:
    path = photos(rows=12, run__block=4)
    whole = redan.assess(path)
    seen: list[str | None] = []

    def watch(stage: Stage) -> None:
        seen.append(stage.doing)
        if stop is not None and stage.doing == stop and stage.progress.settled >= 4:
            raise KeyboardInterrupt

    if stop is None:
        spent = sum(a.queries for a in whole.attackers[0].attacks)
        folder = redan.assess(path, limits=Limits(queries=spent + 20)).run.folder
    else:
        with pytest.raises(KeyboardInterrupt):
            redan.assess(path, watch=watch, workers=1)
        folder = str(max(Path(whole.run.folder).parent.iterdir()))
        assert stop in seen
    again = redan.assess(path, resume=folder)
    assert again.digests["evidence"] == whole.digests["evidence"]
    assert compared(again) == compared(whole)


def test_the_forecast_counts_both_models(photos: Write) -> None:
    outlook = forecast(photos(rows=16), rows=4)
    assert [each.attacker for each in outlook.attackers] == ["anyone", "anyone, on the model alone"]
    assert all(each.passes > 0 for each in outlook.attackers)
