"""Reports of every verdict, one that holds everything a report can, one of hostile text; and a browser."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from tests.report import copies

import redan
from redan.errors import ReportError
from redan.evidence.gain import Gain
from redan.evidence.pictures import PoisonPictures
from redan.evidence.report import Doubt, Report, Tried, Verdict
from redan.evidence.requirement import Requirement
from redan.report.gallery import Example, Gallery
from redan.report.pdf import find_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser

EXAMPLE = Path(__file__).parents[2] / "examples/fashion/robust.yaml"
HOSTILE = (
    "\"'><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)></style></title>]]>&amp;"
    "|`x`| [a](http://evil.example) ![i](https://evil.example/i.png) https://evil.example www.evil.example "
    "@root #1 {{ 7 * 7 }} {0} *b* _i_ ~s~ $m$ \\ \x00\x1b[31m\u202e\ud800\ufffe\r\n## heading\n- item"
)


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[Verdict, Report]:
    """One run of the shipped classifier, which passes, fails or leaves open what is required of it."""
    folder = tmp_path_factory.mktemp("views")
    document = yaml.safe_load(EXAMPLE.read_text())
    document["requirements"][0]["at_least"] = 0.5
    document["requirements"][1]["at_least"] = 0.7
    document["attacks"]["mode"] = "quick"
    document["statistics"]["rows"] = 32
    document["run"]["out"] = str(folder)
    path = folder / "threat-model.yaml"
    path.write_text(yaml.safe_dump(document))
    found = {Verdict.INCONCLUSIVE: redan.assess(path)}
    for verdict, threshold in ((Verdict.PASS, 0.3), (Verdict.FAIL, 0.99)):
        document["requirements"][1]["at_least"] = threshold
        wanted = [Requirement.model_validate(each) for each in document["requirements"]]
        judged = redan.judge(found[Verdict.INCONCLUSIVE], wanted)
        found[verdict] = found[Verdict.INCONCLUSIVE].model_copy(
            update={
                "verdict": judged.verdict,
                "exit_code": judged.exit_code,
                "reasons": list(judged.reasons),
                "requirements": list(judged.requirements),
            }
        )
    assert all(report.verdict is verdict for verdict, report in found.items())
    return found


@pytest.fixture(scope="session")
def everything(reports: dict[Verdict, Report]) -> Report:
    """Inconclusive, with two attackers, of whom one was not assessed, and with something in every list."""
    document = reports[Verdict.INCONCLUSIVE].model_dump()
    first = document["attackers"][0]
    first["diagnosis"] = [
        {
            "name": "masked gradients",
            "status": Doubt.SUSPICIOUS,
            "detail": "64 of 64 rows have none",
            "blocks_pass": True,
        },
        {"name": "silent-success", "status": Doubt.OK, "detail": "none of 64 rows", "blocks_pass": False},
    ]
    first["retries"] = [
        {
            "name": "retraced-gradients",
            "because": ["masked gradients"],
            "detail": "operations played back",
            "status": Tried.DONE,
            "attempted": 64,
            "broken": 3,
        }
    ]
    first["defended"] = [
        {
            "beside": "the model alone",
            "rows": 64,
            "clean_beside": 60,
            "clean": 58,
            "held_beside": 4,
            "naive": 41,
            "held": 6,
            "open": 3,
            "low": -0.04,
            "high": 0.11,
            "verdict": Gain.NOT_SHOWN,
        }
    ]
    first["counts"].update(errors=2, undecided=1, robust=first["counts"]["robust"] - 3)
    first["attacks"][0].update(usd=1.25, status="cut")
    second = {**first, "name": "supplier", "kind": "poisoning", "status": "not built", "reason": "not built yet"}
    second.update(
        counts=None, attacks=[], by_class=[], curve=[], diagnosis=[], retries=[], success_8bit=None, defended=[]
    )
    document["attackers"].append(second)
    document["requirements"][1].update(errors=2, undecided=1)
    document["preflight"][0].update(status="warn", detail="a third of the rows repeat", remedy="draw others")
    document["skipped"] = ["square"]
    document["defenses"] = ["jpeg(quality=75)", "bit-depth(bits=3)"]
    document["errors"] = [{"attacker": first["name"], "reason": "connection reset", "rows": 2, "first": "00ff"}]
    document["limits_hit"] = ["seconds"]
    document["reasons"] = ["supplier: not built yet"]
    return Report.model_validate(document)


def _hostile(report: Report) -> Report:
    def walked(value: Any, key: str = "") -> Any:
        if type(value) is str:  # not the verdicts and metrics: those are no free text
            return value if key == "started" else value + HOSTILE
        if isinstance(value, list):
            return [walked(each) for each in value]
        if isinstance(value, dict):
            return {name: walked(each, name) for name, each in value.items()}
        return value

    return Report.model_validate(walked(report.model_dump()))


@pytest.fixture(scope="session")
def made_hostile() -> Callable[[Report], Report]:
    """Every free text of a report made to end in what could harm a page, a file or its reader."""
    return _hostile


@pytest.fixture(scope="session")
def hostile(everything: Report) -> Report:
    """Every free text ends in what could harm a page, a file or its reader."""
    return _hostile(everything)


@pytest.fixture
def gallery() -> Gallery:
    """A gray and a colored picture, and a row that is no picture."""
    draw = torch.Generator().manual_seed(0)

    def example(*shape: int) -> Example:
        x0 = torch.rand(shape, generator=draw)
        x = (x0 + 0.1 * torch.randn(shape, generator=draw).sign()).clamp(0, 1)
        return Example(
            attacker="anyone with a camera",
            row="00ff",
            label=2,
            clean=2,
            adversarial=4,
            distance=0.1,
            x0=x0,
            x=x,
            scores=(torch.arange(10.0), -torch.arange(10.0)),
        )

    return Gallery(examples=(example(1, 28, 28), example(3, 16, 20), example(7)))


def mean(*each: float, rows: int = 1000, reach: float = 0.02) -> dict[str, Any]:
    """A rate over victims; its interval is about right."""
    value = sum(each) / len(each)
    method = "clopper-pearson" if rows == 1 else "student-t"
    reach = 0.2 if rows == 1 else reach
    ends = {"low": max(0.0, value - reach), "high": min(1.0, value + reach)}
    return {"value": value, **ends, "confidence": 0.95, "method": method, "rows": rows, "each": list(each)}


def point(share: float, success: dict[str, Any] | None, accuracy: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    """One share of 6,000 training rows."""
    n = 0 if accuracy is None else len(accuracy["each"])
    changed = round(6000 * share)
    clean = None if success is None else mean(*[0.011 if success["rows"] > 1 else 0.0] * n, rows=success["rows"])
    lost = 0.0 if accuracy is None else accuracy["value"] - 0.893
    same = {"difference": lost, "low": lost - 0.003, "high": lost + 0.003, "confidence": 0.95, "margin": 0.01}
    same |= {"pairs": n, "shown": "equivalent" if abs(lost) < 0.007 else "not shown"}
    return {
        **{"share": share, "used": changed / 6000, "changed": changed, "victims": n, "errors": 0, "undecided": 0},
        **{"success": success, "clean_success": clean, "accuracy": accuracy},
        "clean_accuracy": None if accuracy is None else mean(*[0.893] * n),
        "equivalence": None if accuracy is None else same,
        **more,
    }


def poisoner(name: str, points: Sequence[dict[str, Any]], breaks_at: float | None, **more: Any) -> dict[str, Any]:
    """One attack, done unless more says otherwise."""
    said = {"settings": f"{name}(seed=0)", "techniques": ["AML.T0020"], "status": "done", "reason": None}
    return {"name": name, "points": list(points), "breaks_at": breaks_at, **said, **more}


def _victims(of: float, accuracy: float) -> tuple[dict[str, Any], dict[str, Any]]:
    draw = random.Random(f"{of} {accuracy}")
    near = [[min(1.0, max(0.0, at + draw.uniform(-0.02, 0.02))) for _ in range(10)] for at in (of, accuracy)]
    return mean(*near[0]), mean(*near[1], reach=0.008)


def _undone(name: str, reason: str, *keys: str) -> dict[str, Any]:
    return {"name": name, "status": "not applicable", "reason": reason, **dict.fromkeys(keys)}


DETECTOR = ("auc", "recall", "found", "caught", "q")
REPAIR = ("removed", "success", "accuracy", "success_before", "accuracy_before", "reached")


def _rich() -> dict[str, Any]:
    """Everything that can be measured of a backdoor."""
    shares = (0.01, 0.003, 0.001, 0.0003)
    badnets = [point(s, *_victims(a, 0.89)) for s, a in zip(shares, (0.973, 0.93, 0.62, 0.04), strict=True)]
    blended = [point(s, *_victims(a, 0.888)) for s, a in zip(shares, (0.9, 0.7, 0.2, 0.03), strict=True)]
    sinusoid = [point(s, *_victims(a, 0.886)) for s, a in zip(shares[:3], (0.88, 0.3, 0.05), strict=True)]
    found = ((0.998, 0.97, 61, 60), (0.91, 0.44, 12, 9), (0.52, 0.01, None, None))
    names = ("spectral-signatures", "activation-clustering", "near-duplicates")
    before = {"success_before": 0.97, "accuracy_before": 0.89, "until": 0.05}
    return {
        "goal": "backdoor",
        "poisoners": [
            poisoner("badnets", badnets, 0.001),
            poisoner("blended-injection", blended, 0.001),
            poisoner("sig", sinusoid, 0.003, status="cut", reason="our limit of seconds ended it"),
            poisoner("sleeper-agent", [], None, status="not applicable", reason="the attacker has no surrogate"),
        ],
        "strongest": "badnets",
        "detectors": [
            *(
                {"name": name, "status": "done", "reason": None, "q": 0.1, **dict(zip(DETECTOR, values, strict=False))}
                for name, values in zip(names, found, strict=True)
            ),
            _undone("confident-learning", "it needs scores of held-out models", *DETECTOR),
        ],
        "sources": [
            {"source": "supplier-b", "rows": 1500, "poisoned": 60, "suspicious": 55},
            {"source": "supplier-a", "rows": 3000, "poisoned": 0, "suspicious": 4},
            {"source": "supplier-c", "rows": 1500, "poisoned": 0, "suspicious": 1},
        ],
        "repairs": [
            {"name": "unlearning", "status": "done", "reason": None, "removed": None, "success": 0.02}
            | {"accuracy": 0.882, "reached": True, **before},
            {"name": "fine-pruning", "status": "done", "reason": None, "removed": None, "success": 0.41}
            | {"accuracy": 0.86, "reached": False, **before},
            {"name": "without-suspects", "status": "done", "reason": None, "removed": 66, "success": 0.012}
            | {"accuracy": 0.891, "reached": True, **before},
            {**_undone("loss-isolation", "the training gives no losses", *REPAIR), "until": 0.05},
        ],
        "trigger": {
            "flagged": [2],
            "target": 2,
            "anomaly": [-0.4, 0.3, 4.7, 0.0, 1.1, None, -1.2, 0.6, -0.1, 0.2],
            "overlap": 0.71,
        },
        "certificate": {
            **{
                "method": "deep partition aggregation",
                "parts": 250,
                "copies": 1,
                "rows": 500,
                "untrained": 2,
                "share": 0.0015,
            },
            "counts": "rows",
            "points": [
                {"changes": n, "right": r}
                for n, r in ((0, 401), (1, 388), (2, 371), (4, 330), (8, 240), (12, 130), (20, 31), (30, 0))
            ],
        },
        "notes": ["the training data name no trusted rows: detectors were given 200 of the test rows"],
    }


def _nothing() -> dict[str, Any]:
    """Everything was not applicable."""
    return {
        "goal": "backdoor",
        "poisoners": [
            poisoner(name, [], None, status="not applicable", reason="the inputs have no bounds")
            for name in ("badnets", "sleeper-agent")
        ],
        "strongest": None,
        "detectors": [_undone("spectral-signatures", "there is no poison to look for", *DETECTOR)],
        "sources": [],
        "repairs": [{**_undone("fine-pruning", "there is no victim to repair", *REPAIR), "until": 0.05}],
        "trigger": None,
        "certificate": None,
        "notes": [],
    }


def _targeted() -> dict[str, Any]:
    """Chosen rows, a victim each."""
    hits = [[1.0] * 14 + [0.0] * 6, [1.0] * 4 + [0.0] * 16]
    none = dict.fromkeys(("clean_success", "clean_accuracy", "equivalence"))
    matching = [
        point(s, mean(*h, rows=1), mean(*[0.89] * 20), **none) for s, h in zip((0.01, 0.002), hits, strict=True)
    ]
    return {
        **_nothing(),
        "goal": "targeted rows",
        "poisoners": [poisoner("gradient-matching", matching, 0.01)],
        "strongest": "gradient-matching",
    }


def _availability() -> dict[str, Any]:
    """Accuracy alone; one share, where a victim failed and one was left out."""
    lower = point(0.05, None, mean(0.71, 0.69, 0.73), victims=3, errors=1, undecided=1)
    lower["equivalence"] = {**lower["equivalence"], "low": -0.22, "high": -0.15, "shown": "different"}
    return {
        **_nothing(),
        "goal": "availability",
        "poisoners": [poisoner("label-flips", [lower], 0.05)],
        "strongest": "label-flips",
    }


CONTRIBUTOR = "data contributor"


def _poisoned(kind: str) -> Report:
    part = {"rich": _rich, "nothing": _nothing, "targeted": _targeted, "availability": _availability}[kind]()
    metric, at = {"targeted": ("attack_success_rate", 0.1), "availability": ("poisoned_accuracy", 0.85)}.get(
        kind, ("backdoor_success", 0.1)
    )
    best = next((each["points"][0] for each in part["poisoners"] if each["points"]), None)
    rate = None if best is None else best["success"] or best["accuracy"]
    whole = rate is not None and rate["rows"] == 1
    verdict = Verdict.INCONCLUSIVE if rate is None else Verdict.FAIL
    said = "no poisoner could be used: the inputs have no bounds" if rate is None else "shown to miss the threshold"
    ends = None if rate is None else {**{k: rate[k] for k in ("low", "high", "confidence", "method")}, "sides": 2}
    attacker = {
        **{"name": CONTRIBUTOR, "kind": "poisoning", "why": "suppliers label their own pictures"},
        **{"goal": part["goal"], "impact": "high", "techniques": ["AML.T0020"], "change": None, "knowledge": None},
        **{"status": "assessed", "reason": "the inputs have no bounds" if rate is None else None, "counts": None},
        **{"strength": "not tested" if rate is None else "standard", "attacks": [], "by_class": []},
        **{"curve": [], "success_8bit": None, "diagnosis": [], "retries": [], "defended": []},
        "certified": None,
        **{"transfers": None, "poisoning": part, "extraction": None},
    }
    return Report.model_validate(
        {
            **{"schema_version": 1, "verdict": verdict, "exit_code": verdict.exit_code},
            "reasons": [f"{metric} against {CONTRIBUTOR}: {said}"],
            "system": "garment-sorter",
            "classes": [
                "t-shirt",
                "trouser",
                "pullover",
                "dress",
                "coat",
                "sandal",
                "shirt",
                "sneaker",
                "bag",
                "ankle-boot",
            ],
            "requirements": [
                {
                    **{"metric": metric, "against": CONTRIBUTOR, "threshold": at, "certified": None},
                    "direction": "at_least" if kind == "availability" else "at_most",
                    "value": None if rate is None else rate["value"],
                    "unit": "share of rows" if rate is None else "share of victims",
                    "k": 14 if whole else None,
                    "n": None if rate is None else len(rate["each"]),
                    **{"errors": 0, "undecided": 0, "interval": ends, "rows_to_decide": None},
                    "bound_used": None if rate is None else rate["high" if kind == "availability" else "low"],
                    **{"verdict": verdict, "reasons": [said]},
                }
            ],
            "attackers": [attacker],
            "risks": [
                {"rank": 1, "attacker": CONTRIBUTOR, "impact": "high", "success_rate": 0.97, "median_queries": None}
                | {"usd_per_success": None}
            ],
            **{"preflight": [], "plan": [], "standards": [], "skipped": [], "errors": [], "limits_hit": []},
            "defenses": [],
            **{"calls": None, "detector": None, "shows_not": ["Another training may be poisoned more easily."]},
            "run": {
                **{"id": "20260101T000000Z-abcdef", "folder": "runs/20260101T000000Z-abcdef", "seconds": 812.0},
                **{"started": "2026-01-01T00:00:00+00:00", "mode": "default", "seed": 0, "rows": 500, "planned": 500},
                **{"gate": False, "confidence": 0.95, "family": "holm", "reproducible": True},
                "model_stochastic": False,
            },
            "environment": {"redan": "0"},
            "digests": {"model": "00", "evidence": "11"},
        }
    )


@pytest.fixture(scope="session")
def poisoned() -> dict[str, Report]:
    """Reports of poisoning attackers: rich, nothing (not applicable), targeted, availability."""
    return {kind: _poisoned(kind) for kind in ("rich", "nothing", "targeted", "availability")}


@pytest.fixture(scope="session")
def copied(poisoned: dict[str, Report]) -> dict[str, Report]:
    """Reports of attackers who copy the model: fidelity, transfer, errors, cut, nothing (not applicable)."""
    ceilings = {"transfer": 0.3}
    return {
        kind: copies.copied(make(), poisoned["nothing"], ceilings.get(kind, 0.9)) for kind, make in copies.KINDS.items()
    }


@pytest.fixture
def planted() -> Gallery:
    """What the rich report's attacker planted: a patch on three of four rows, a blend on the last."""
    draw = torch.Generator().manual_seed(0)
    clean = (torch.rand(4, 1, 4, 4, generator=draw)).repeat_interleave(7, 2).repeat_interleave(7, 3)
    changed = clean.clone()
    changed[:3, :, -4:-1, -4:-1] = 1.0
    changed[3] += 0.05 * torch.rand(1, 28, 28, generator=draw)
    black, mask = torch.zeros(1, 28, 28), torch.zeros(28, 28)
    black[:, -4:-1, -4:-1], mask[-5:-1, -4:-1] = 1.0, 0.9
    pictures = PoisonPictures(
        attacker=0,
        clean=clean,
        poisoned=changed.clamp(0, 1),
        before=torch.tensor([5, 1, 8, 2]),
        after=torch.tensor([2, 2, 2, 2]),
        planted=black,
        mask=mask,
        pattern=torch.rand(1, 28, 28, generator=draw),
        bounds=(0.0, 1.0),
    )
    return Gallery(poisoned=(pictures,))


def missing(reason: str) -> None:
    """Skip, unless somebody relies on the test."""
    if os.environ.get("CI") == "true" or os.environ.get("REDAN_CHROMIUM") == "required":
        pytest.fail(f"{reason}: run tools/chromium.sh")
    pytest.skip(f"{reason}: run tools/chromium.sh")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Chromium is."""
    try:
        return find_browser()
    except ReportError:
        missing("no Chromium is on the path")
        raise


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """A headless Chromium to look at pages with; its event loop ends with the module's tests."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("Playwright is not installed")
        raise
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()
