"""The pages of docs/attacks: their Python runs, every attack stands on one of them, their tables say what was found."""

from __future__ import annotations

import contextlib
import io
import math
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "peers"))  # scripts, not a package
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[2]))

from tools import write_docs

import attacks_claims
import attacks_ours
from attacks_cells import CONTESTS
from redan.evasion.apgd import APGD
from redan.evasion.cascade import Restarts, Sweep
from redan.evasion.momentum import MomentumFGSM
from redan.evasion.pgd import PGD
from redan.evasion.treatments import Diverse, Scaled, Translated
from redan.goals import Untargeted
from redan.losses import cross_entropy, targeted_dlr
from redan.perturbations.norms import Linf
from redan.registry.attacks import ATTACKS

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "attacks"
PAGES = sorted(FOLDER.glob("*.md"))
every = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def part(page: Path) -> str:
    """The generated part of a page; the index has none."""
    found = re.search(r"<!-- (family: .*?) -->\n(.*?)<!-- /\1 -->", text(page), re.DOTALL)
    return found[2] if found else ""


# -- pages -------------------------------------------------------------------------------------------------


LONG = ("black-box", "minimum-norm", "momentum-and-transfer", "penalty")


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (page.stem in LONG)) for page in PAGES],
    ids=lambda page: page.stem,
)
def test_python_of_a_page_runs(page: Path) -> None:
    names: dict[str, Any] = {"__name__": page.stem}
    found = re.findall(r"^```python\n(.*?)^```", text(page), re.DOTALL | re.MULTILINE)
    assert found
    with contextlib.redirect_stdout(io.StringIO()):
        for block in found:
            exec(compile(block, str(page), "exec", dont_inherit=True), names)  # noqa: S102  # our own document


@every
def test_relative_links_resolve(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", text(page)):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), link
        headings = re.findall(r"^#+ (.*)$", text(there), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in anchors, link


def test_every_page_has_a_family_and_is_in_the_index() -> None:
    names = {page.stem for page in PAGES} - {"README"}
    assert names == {name.removeprefix("family: ") for name in write_docs.PARTS if name.startswith("family: ")}
    for name in names:
        assert f"<!-- family: {name} -->" in text(FOLDER / f"{name}.md")
        assert f"({name}.md)" in text(FOLDER / "README.md")


def test_every_attack_stands_on_one_page() -> None:
    calls = Counter((entry.name, write_docs.call(entry.make())) for entry in ATTACKS)
    shown = [line for page in PAGES for line in part(page).splitlines()]
    for (name, call), count in calls.items():
        assert sum(line.startswith(f"| {name} | `{call}` |") for line in shown) == count


def test_every_contest_of_ours_belongs_to_one_attack() -> None:
    ours = {contest.attack for contest in CONTESTS if attacks_ours.candidates(contest)}
    claimed = Counter(
        contest for contests in (*write_docs.CONTESTS.values(), write_docs.FITTED_CONTESTS) for contest in contests
    )
    assert claimed == Counter(ours)
    assert set(write_docs.CONTESTS) <= {entry.name for entry in ATTACKS}


# -- what is made from the code ------------------------------------------------------------------------------


def test_a_stale_part_is_written_anew() -> None:
    page = text(FOLDER / "sparse.md")
    assert write_docs.filled(page) == page
    assert write_docs.filled(page.replace("| 1,001 |", "| 1,002 |")) == page


def test_a_benchmark_that_is_not_measured_says_how_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(write_docs, "RESULTS", tmp_path)
    assert write_docs.benchmark("verdict") == "Not measured yet: `make bench-verdict`."


def test_every_missed_claim_is_told() -> None:
    met, missed = ({"claim": f"of {met}", "measured": "4", "goal": "≤ 3", "met": met} for met in (True, False))
    assert write_docs.held("verdict", [met]) == "1 of 1 claims of `benchmarks/results/verdict.json` are met."
    told = write_docs.held("verdict", [met, missed])
    assert told.startswith("1 of 2 claims")
    assert told.endswith("missed:\n\n- of False: 4 (goal ≤ 3)")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (PGD(), "PGD()"),
        (Restarts(PGD(steps=3), 2), "Restarts(PGD(steps=3), 2)"),
        (Sweep(APGD(loss=targeted_dlr)), "Sweep(APGD(loss=targeted_dlr))"),
        (MomentumFGSM(treatments=(Scaled(),)), "MomentumFGSM(treatments=(Scaled(),))"),
        (MomentumFGSM(treatments=(Translated(), Diverse())), "MomentumFGSM(treatments=(Translated(), Diverse()))"),
    ],
)
def test_the_call_makes_the_value(value: object, said: str) -> None:
    import redan

    assert write_docs.call(value) == said
    names = {name: getattr(redan, name) for name in redan.__all__} | {"targeted_dlr": targeted_dlr}
    assert eval(said, names) == value  # noqa: S307  # our own text


def test_an_attack_that_ignores_its_goal_reaches_one_only() -> None:
    def away(output: Tensor, goal: Any) -> Tensor:
        return cross_entropy(output, Untargeted(goal.truth))

    assert write_docs.goals(PGD(), Linf) == ["untargeted", "targeted"]
    assert write_docs.goals(PGD(loss=away), Linf) == ["untargeted"]


# -- what was measured ---------------------------------------------------------------------------------------


def cell(contestant: str, attack: str = "ddn", model: str = "robust", **told: Any) -> dict[str, Any]:
    """A row as the bench writes it, then as its result file keeps it."""
    row = {"digest": "", "attack": attack, "norm": "l2", "eps": math.inf, "budget": 202, "contestant": contestant,
           "model": model, "setting": {}, "passes": 200.4, "cpu_seconds": 1.234, "broken": [True, True, True, False],
           "distance": [0.5, 1.0, 1.5, math.inf]} | told  # fmt: skip
    return attacks_claims.compact(row)


ROWS = [
    cell("redan"),
    cell("foolbox", distance=[0.5, 1.0, 3.0, math.inf], passes=150.0),
    cell("adv_lib", distance=[0.1, 0.1, 0.1, math.inf], passes=230.0),  # over the budget
    attacks_claims.compact(
        {
            "digest": "",
            "attack": "ddn",
            "norm": "l2",
            "eps": math.inf,
            "budget": 202,
            "contestant": "art",
            "model": "robust",
            "stopped": "out of time",
        }
    ),
    cell("redan", model="natural", broken=[False] * 4, distance=[math.inf] * 4),
    cell("redan", "apgd-ce", eps=1.5, budget=204, passes=1200.0),
    cell("art", "apgd-ce", eps=1.5, budget=204, broken=[True] * 4, passes=201.0),
    cell("adv_lib", "apgd-ce", eps=1.5, budget=204, broken=[True, False, False, False], passes=100.0),
    {
        "kind": "time",
        "attack": "ddn",
        "norm": "l2",
        "model": "robust",
        "peer": "foolbox",
        "ours_cpu_seconds": [1.0, 2.0, 3.0],
        "peer_cpu_seconds": [2.0, 2.0, 2.0],
        "ours_passes": 200.4,
        "peer_passes": 150.0,
    },
    cell("redan", model="residual"),
]


def test_the_measured_table_puts_the_best_peer_in_the_budget_beside_ours() -> None:
    table = write_docs.beside(ROWS, ("apgd-ce", "ddn")).splitlines()
    assert table[0].count("|") == table[1].count("|")
    assert table[2:] == [
        "| apgd-ce, L2 1.5 | robust | 3 of 4 | – | 1,200 | 1.23 | art | 4 of 4 | – | 201 | 1.23 | – |",
        "| ddn, L2 | robust | 3 of 4 | 1.25 | 200 | 1.23 | foolbox | 3 of 4 | 2 | 150 | 1.23 | 1.00 |",
        "| ddn, L2 | natural | 0 of 4 | ∞ | 200 | 1.23 | none | – | – | – | – | – |",
    ]
    assert write_docs.beside(ROWS, ("fmn",)) == "Not measured yet: `make bench-attacks`."


def test_figures_come_from_the_result_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    monkeypatch.setattr(write_docs, "RESULTS", tmp_path)
    assert write_docs.measured(("ddn",)) == "Not measured yet: `make bench-attacks`."
    (tmp_path / "attacks.json").write_text(json.dumps({"rows": ROWS}), encoding="utf-8")
    assert "| ddn, L2 | robust | 3 of 4 |" in write_docs.family("minimum-norm")
