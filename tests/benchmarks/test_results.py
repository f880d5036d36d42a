"""Every result file is well formed, holds every claim its benchmark owes, and says whether it is stale."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWED = {
    "pgd": {"kernel.c"},
    "gate": {"evidence.c"},
    "preflight": {"evidence.b"},
    "forecast": {"threat.d"},
    "attacks": {"whitebox.b", "whitebox.c", "whitebox.d"},
    "verdict": {"verdict.a"},
    "beside": {"verdict.b"},
    "passes": {"verdict.c"},
    "distrust": {"verdict.d"},
    "soundness": {"verdict.e"},
    "targets": {"targets.e"},
    "poisoning": {f"poisoning.{part}" for part in "abcde"},
    "extraction": {f"extraction.{part}" for part in "abcde"},
    "defenses": {f"defenses.{part}" for part in "abcde"},
}


def result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    return found


@pytest.mark.parametrize("name", OWED)
def test_result_holds_what_its_benchmark_owes(name: str) -> None:
    found = result(name)
    assert {"benchmark", "date", "environment", "measures", "sources", "claims", "rows"} <= set(found)
    assert {claim["id"] for claim in found["claims"]} == OWED[name]
    for claim in found["claims"]:
        assert set(claim) == {"id", "claim", "goal", "measured", "met", "tried"}
        assert claim["met"] or claim["tried"], f"missed without a word on what was tried: {claim}"


def test_pgd_claims_follow_from_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "peers"))
    import pgd

    found = result("pgd")
    again = [claim._asdict() for claim in pgd.claims(found["rows"])]
    assert again == found["claims"]
    assert all(len(row["cpu_seconds"]) >= 15 for row in found["rows"])


def test_preflight_claims_follow_from_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import preflight

    found = result("preflight")
    assert [claim._asdict() for claim in preflight.claims(found["rows"])] == found["claims"]
    assert all(len(row["cpu_seconds"]) == 5 for row in found["rows"] if row["kind"] == "time")
    assert all(row["variants"] >= 60 for row in found["rows"] if row["kind"] == "liar")


@pytest.mark.parametrize("name", OWED)
def test_staleness_is_said(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import harness

    found = result(name)
    now = harness.sources(found["measures"])
    with capsys.disabled():
        if now != found["sources"]:
            sys.stdout.write(f"\nstale: benchmarks/results/{name}.json is older than the code it measures\n")
    assert len(now) == len(found["sources"]) == 64


def test_forecast_claims_follow_from_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import forecast

    found = result("forecast")
    assert [claim._asdict() for claim in forecast.claims(found["rows"])] == found["claims"]
    assert {row["case"] for row in found["rows"]} == set(forecast.CASES)


def test_attacks_claims_follow_from_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell of every contest is there, and what is claimed of them is computed from them alone."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "peers"))
    import attacks
    import attacks_cells
    import attacks_claims

    found = result("attacks")
    assert [claim._asdict() for claim in attacks_claims.claims(found["rows"])] == found["claims"]
    cells = [row for row in found["rows"] if row.get("kind") != "time"]
    there = [(row["model"], f"{row['attack']}-{row['norm']}", row["contestant"]) for row in cells]
    every = attacks.cells(attacks_cells.CONTESTS, attacks.MODELS)
    assert there == [(cell.model, cell.contest.name, cell.contestant) for cell in every]


@pytest.mark.parametrize(
    "name", ["verdict", "beside", "passes", "distrust", "soundness", "targets", "poisoning", "extraction", "defenses"]
)
def test_claims_of_the_verdict_follow_from_the_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "peers"))
    found = result(name)
    again = [claim._asdict() for claim in import_module(name).claims(found["rows"])]
    assert again == found["claims"]
    assert found["rows"]


def test_the_verdict_is_of_every_mode_cell_and_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "peers"))
    import verdict
    from verdict_cells import CELLS, SEEDS

    runs = {(row["contestant"], row["model"], row["norm"], row["seed"]) for row in result("verdict")["rows"]}
    every = {(mode, cell.model, cell.norm, 0) for mode in verdict.MODES for cell in CELLS}
    every |= {("autoattack", cell.model, cell.norm, seed) for cell in CELLS for seed in SEEDS}
    assert runs == every


def test_every_victim_and_honest_model_is_assessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "peers"))
    import adaptive
    import distrust

    assessed = [(row["model"], row["norm"]) for row in result("distrust")["rows"]]
    assert assessed == [*((name, "linf") for name in adaptive.HANDS), *distrust.HONEST, (distrust.PICTURES, "linf")]
