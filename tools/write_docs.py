"""Fill the generated parts of the README and of docs: attacks from the registry, figures from benchmarks.

A generated part stands between `<!-- NAME -->` and `<!-- /NAME -->`. With --check, nothing is written and the exit
code is 1 if a part is stale.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin, get_type_hints

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "peers"))  # scripts, not a package
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from harness import ratio
from redan.engine.run import attack
from redan.ensembles.members import Members
from redan.evasion.apgd import APGD
from redan.evasion.cascade import Cascade, Restarts, Sweep
from redan.evasion.pgd import PGD
from redan.evasion.square import Square
from redan.evasion.universal import UAP, UniversalPGD
from redan.goals import LeastLikely, Untargeted
from redan.hardening.certified import Certified
from redan.hardening.step import adversarial_step
from redan.losses import targeted_dlr
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.perturbations.spatial import Spatial
from redan.protocols import Access, Attack, Bounded, Gradients, Labels, Scores, cost, needs
from redan.registry.attacks import ATTACKS, Entry
from redan.registry.defense_makers import Fitted
from redan.registry.defenses import DEFENSES, DefenseEntry, Kind
from redan.registry.detectors import DETECTORS
from redan.registry.extractors import EXTRACTORS
from redan.registry.poisoners import POISONERS
from redan.rejection.refusing import refusing
from redan.targets import from_torch
from redan.testing.victims import LinearVictim

if TYPE_CHECKING:
    from attacks_claims import Bout, Side

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"

# -- what stands where ---------------------------------------------------------------------------------------

FAMILIES: dict[str, tuple[str, ...]] = {  # page -> names in the registry
    "fast-cascade": ("fast-cascade",),
    "gradient-steps": ("fgsm", "bim", "pgd", "apgd-ce", "apgd-dlr", "apgd-t"),
    "momentum-and-transfer": ("mi-fgsm", "vmi-fgsm", "si-ni-fgsm", "ti-di-mi-fgsm"),
    "minimum-norm": ("fmn", "ddn", "pdpgd", "fab", "fab-t", "deepfool"),
    "penalty": ("lbfgs", "carlini-wagner", "ead"),
    "sparse": ("sigma-zero", "jsma"),
    "spatial": ("spatial-grid",),
    "black-box": ("square", "hop-skip-jump", "random-noise"),
}
CONTESTS: dict[str, tuple[str, ...]] = {  # name in the registry -> attacks of benchmarks/attacks_cells.py
    "fgsm": ("fgsm",),
    "bim": ("bim",),
    "pgd": ("pgd", "sparse-descent"),
    "apgd-ce": ("apgd-ce",),
    "apgd-dlr": ("apgd-dlr",),
    "apgd-t": ("apgd-t",),
    "mi-fgsm": ("mi-fgsm", "nifgsm", "transfer-mi-fgsm", "transfer-nifgsm"),
    "vmi-fgsm": ("vmifgsm", "vnifgsm", "transfer-vmifgsm", "transfer-vnifgsm"),
    "si-ni-fgsm": ("sinifgsm", "transfer-sinifgsm"),
    "ti-di-mi-fgsm": ("tifgsm", "difgsm", "transfer-tifgsm", "transfer-difgsm"),
    "fmn": ("fmn", "engine"),
    "ddn": ("ddn",),
    "pdpgd": ("pdpgd",),
    "fab": ("fab",),
    "fab-t": ("fab-t",),
    "deepfool": ("deepfool",),
    "lbfgs": ("lbfgs",),
    "carlini-wagner": ("cw", "cw-long"),
    "ead": ("ead",),
    "sigma-zero": ("sigma-zero",),
    "jsma": ("jsma",),
    "square": ("square",),
    "spatial-grid": ("grid",),
}
FITTED_CONTESTS = ("uap", "universal-pgd")
MODELS = ("robust", "natural")
FITTERS = (
    (UniversalPGD(), "Shafahi 2020, arXiv:1811.11304"),
    (UAP(), "Moosavi-Dezfooli 2017, arXiv:1610.08401"),
)
COMPOSITES: tuple[Attack[Any, Any], ...] = (
    Cascade((APGD(), Square())),
    Restarts(PGD(), 5),
    Sweep(APGD(loss=targeted_dlr)),
)
SIGNS = {"Linf": "L∞", "linf": "L∞"}

# -- attacks ---------------------------------------------------------------------------------------------------


def _sets(entry: Entry) -> str:
    return ", ".join(SIGNS.get(s.__name__, s.__name__) for s in entry.sets)


def _spent(value: Attack[Any, Any]) -> str:
    most = cost(value, 10)
    return f"{most.queries:,}" if most else "–"


def attacks() -> str:
    """Every registered attack with what it needs and its worst-case cost."""
    lines = ["| name | in Python | needs | moves in | queries a row, 10 classes | paper |", "|---|---|---|---|---|---|"]
    for entry in ATTACKS:
        value = entry.make()
        python = type(value).__name__ + (f"({type(value.attack).__name__})" if hasattr(value, "attack") else "")
        lines.append(
            f"| {entry.name} | `{python}` | {entry.access.name.lower()} | {_sets(entry)} | {_spent(value)} "
            f"| {entry.paper} |"
        )
    return "\n".join(lines)


def call(value: object) -> str:
    """The Python that makes a frozen value: its class, and the fields that differ from their defaults."""
    if isinstance(value, tuple):
        return f"({', '.join(call(part) for part in value)}{',' if len(value) == 1 else ''})"
    if not is_dataclass(value) or isinstance(value, type):
        return str(getattr(value, "__name__", None) or repr(value))
    told = []
    for f in fields(value):
        here = getattr(value, f.name)
        if f.init and (f.default is MISSING or here != f.default):
            told.append(f"{f.name}={call(here)}" if f.kw_only else call(here))
    return f"{type(value).__name__}({', '.join(told)})"


def cited(paper: str) -> str:
    """The paper, linked to arXiv where it has a number there."""
    return re.sub(r"^(.*), arXiv:(\d{4}\.\d{4,5})$", r"[\1](https://arxiv.org/abs/\2)", paper)


_WIDE: dict[type, Bounded] = {Linf: Linf(0.5), L2: L2(1.5), L1: L1(4.0), L0: L0(9), Spatial: Spatial(0, 0.5)}
_FEW = 200  # queries, of those that count them


def goals(value: Attack[Any, Any], kind: type) -> list[str]:
    """The goals that an attack reaches, with ample room, on most of eight rows of a linear model.

    The class that the model finds least likely is wanted, so that an attack that only flees the right one shows.
    """
    if any(f.name == "queries" for f in fields(value)):  # type: ignore[arg-type]  # attacks are dataclasses
        value = replace(value, queries=_FEW)  # type: ignore[type-var]
    victim = LinearVictim.drawn(3, classes=5, shape=(12,))
    x, y = victim.rows(8)
    found = []
    for name, aim in (("untargeted", Untargeted()), ("targeted", LeastLikely())):
        result = attack(victim.module(), x, y, value, within=_WIDE[kind], goal=aim, workers=1)
        if float(result.success.double().mean()) >= 0.5:
            found.append(name)
    return found


def family(name: str) -> str:
    """A page's attacks, then what was measured of them."""
    lines = [
        "| name | in Python | access | moves in | goals | queries a row, 10 classes | paper |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in (entry for each in FAMILIES[name] for entry in ATTACKS if entry.name == each):
        value = entry.make()
        aims = ", ".join(goals(value, entry.sets[0]))
        lines.append(
            f"| {entry.name} | `{call(value)}` | {entry.access.name.lower()} | {_sets(entry)} | {aims} "
            f"| {_spent(value)} | {cited(entry.paper)} |"
        )
    contests = tuple(contest for each in FAMILIES[name] for contest in CONTESTS.get(each, ()))
    return "\n".join([*lines, "", measured(contests) if contests else "No other library is measured beside it."])


def universal() -> str:
    """What fits a stamp, and the stamp."""
    verbs: dict[Any, Access] = {Labels: Access.LABELS, Scores: Access.SCORES, Gradients: Access.GRADIENTS}
    lines = [
        "| in Python | access to fit | access to attack | queries a row to attack | paper |",
        "|---|---|---|---|---|",
    ]
    for fitter, paper in FITTERS:
        hints = get_type_hints(type(fitter).fit)
        fits = next(verbs[get_origin(hint)] for hint in hints.values() if get_origin(hint) in verbs)
        stamp = hints["return"]
        told = needs(stamp.__new__(stamp)).access
        lines.append(
            f"| `{call(fitter)}` | {fits.name.lower()} | {told.name.lower()} "
            f"| {stamp.cost(None, 10).queries} | {cited(paper)} |"
        )
    return "\n".join([*lines, "", measured(FITTED_CONTESTS)])


def combining() -> str:
    """Examples of attacks made of attacks, with what they need and cost."""
    lines = ["| in Python | access | queries a row, 10 classes | backward passes a row |", "|---|---|---|---|"]
    for value in COMPOSITES:
        most = cost(value, 10)
        assert most is not None
        lines.append(
            f"| `{call(value)}` | {needs(value).access.name.lower()} | {most.queries:,} | {most.backwards:,} |"
        )
    return "\n".join(lines)


# -- figures -------------------------------------------------------------------------------------------------


def measured(contests: Sequence[str]) -> str:
    """Ours beside the best peer in each contest, or that nobody has measured yet."""
    path = RESULTS / "attacks.json"
    if not path.exists():
        return "Not measured yet: `make bench-attacks`."
    return beside(_rows(path, path.stat().st_mtime_ns), contests)


@cache
def _rows(path: Path, changed: int) -> list[dict[str, Any]]:  # noqa: ARG001  # read again when it changed
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return rows


def beside(rows: Sequence[dict[str, Any]], contests: Sequence[str]) -> str:
    """The measured table of some contests; rows are those of `attacks_claims.compact`."""
    from attacks_claims import bouts

    found = [bout for bout in bouts(rows) if bout.contest.attack in contests and bout.model in MODELS and bout.ours]
    found.sort(key=lambda bout: contests.index(bout.contest.attack))  # stable: norms and models as they are
    if not found:
        return "Not measured yet: `make bench-attacks`."
    lines = [
        "| attack | model | success | median distance | passes a row | CPU s | best peer | its success "
        "| its median distance | its passes | its CPU s | CPU time, ours ÷ its |",
        "|" + "---|" * 12,
    ]
    for bout in found:
        assert bout.ours is not None
        peer = (bout.nearest if bout.contest.nearest else bout.strongest) if bout.peers else None
        near = bout.contest.nearest
        where = SIGNS.get(bout.contest.norm, bout.contest.norm.upper())
        where = "shifts and turns" if where == "SPATIAL" else where if near else f"{where} {bout.contest.eps:g}"
        theirs = " | ".join([peer.name, *_figures(peer, near)] if peer else ["none"] + ["–"] * 4)
        ours = " | ".join(_figures(bout.ours, near))
        lines.append(
            f"| {bout.contest.attack}, {where} | {bout.model} | {ours} | {theirs} | {_duel(rows, bout, peer)} |"
        )
    return "\n".join(lines)


def _figures(side: Side, near: bool) -> Iterator[str]:
    """Success, median distance, passes and CPU seconds of one contestant."""
    yield f"{sum(side.broken)} of {len(side.broken)}"
    yield ("–" if not near else "∞" if math.isinf(side.median) else f"{side.median:.4g}")
    yield f"{side.passes:,.0f}"
    yield f"{side.row['cpu_seconds']:.2f}"


def _duel(rows: Sequence[dict[str, Any]], bout: Bout, peer: Side | None) -> str:
    """The median over repeats of our CPU seconds ÷ the peer's, each pair from the same repeat."""
    key = (bout.contest.attack, bout.contest.norm, bout.model, peer.name if peer else None)
    for row in rows:
        if row.get("kind") == "time" and (row["attack"], row["norm"], row["model"], row["peer"]) == key:
            return f"{ratio(row['ours_cpu_seconds'], row['peer_cpu_seconds']):.2f}"
    return "–"


def _ratio(rows: list[dict[str, Any]], model: str, norm: str, contestant: str) -> str:
    cell = {row["contestant"]: row for row in rows if (row["model"], row["norm"]) == (model, norm)}
    if contestant not in cell:
        return "–"
    return f"{ratio(cell[contestant]['cpu_seconds'], cell['limit']['cpu_seconds']):.2f}"


def pgd() -> str:
    """PGD-40's CPU time over the physical limit, a line a contestant."""
    path = RESULTS / "pgd.json"
    if not path.exists():
        return "Not measured yet: `make bench-pgd`."
    found = json.loads(path.read_text())
    rows = found["rows"]
    cells = list(dict.fromkeys((row["model"], row["norm"]) for row in rows))
    contestants = list(dict.fromkeys(row["contestant"] for row in rows))
    names = {"limit": "physical limit", "redan-early-exit": "redan, early exit on", "redan": "**redan**"}
    lines = [
        "| | " + " | ".join(f"{model} {norm}" for model, norm in cells) + " |",
        "|---" * (len(cells) + 1) + "|",
    ]
    for contestant in contestants:
        values = " | ".join(_ratio(rows, model, norm, contestant) for model, norm in cells)
        lines.append(f"| {names.get(contestant, contestant)} | {values} |")
    return "\n".join([*lines, "", held("pgd", found["claims"])])


def held(name: str, claims: Sequence[dict[str, Any]]) -> str:
    """How many claims of a benchmark are met, and every one that is not."""
    lost = [f"- {claim['claim']}: {claim['measured']} (goal {claim['goal']})" for claim in claims if not claim["met"]]
    told = f"{len(claims) - len(lost)} of {len(claims)} claims of `benchmarks/results/{name}.json` are met"
    return "\n".join([f"{told}; missed:", "", *lost]) if lost else f"{told}."


def benchmark(name: str) -> str:
    """The table of a benchmark as it prints it, and what is claimed of it."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return f"Not measured yet: `make bench-{name}`."
    found = json.loads(path.read_text())
    return "\n".join([import_module(name).table(found["rows"]), "", held(name, found["claims"])])


# -- files ---------------------------------------------------------------------------------------------------


def poisoners() -> str:
    """Every registered poisoner, as a table."""
    lines = ["| poisoner | goal | labels | paper |", "|---|---|---|---|"]
    for entry in POISONERS:
        labels = "changes them" if entry.labels else "stay true"
        lines.append(f"| `{entry.name}` | {entry.goal} | {labels} | {cited(entry.paper)} |")
    return "\n".join(lines)


def detectors() -> str:
    """Every registered detector, as a table."""
    lines = ["| detector | looks at | cannot see | paper |", "|---|---|---|---|"]
    lines += [f"| `{e.name}` | {e.sees.value} | {e.blind} | {cited(e.paper)} |" for e in DETECTORS]
    return "\n".join(lines)


def extractors() -> str:
    """Every registered extractor, as a table."""
    lines = [
        "| extractor | answers hold | made to be attacked | a curve from one run | paper |",
        "|---|---|---|---|---|",
    ]
    for e in EXTRACTORS:
        needs = "scores" if e.access is Access.SCORES else "labels, or more"
        attacked, staged = ("yes" if each else "–" for each in (e.transfers, e.staged))
        lines.append(f"| `{e.name}` | {needs} | {attacked} | {staged} | {cited(e.paper)} |")
    return "\n".join(lines)


def defenses(kind: Kind) -> str:
    """Every registered defense of a kind, as a table."""
    proven = kind is Kind.CERTIFICATE
    last = "its proof (ISO/IEC 24029-2)" if proven else PRICES[kind]
    lines = [f"| defense | chosen by | random | own gradient | attacked by | {last} | paper |", "|" + "---|" * 7]
    for e in (each for each in DEFENSES if each.kind is kind):
        random, own = ("yes" if each else "no" for each in (e.stochastic, e.differentiable))
        retests = ", ".join(retest.value for retest in e.retests)
        told = str(e.verifier) if proven else _passes(e)
        lines.append(f"| `{e.name}` | `{e.used}` | {random} | {own} | {retests} | {told} | {cited(e.paper)} |")
    return "\n".join(lines)


PRICES = {
    Kind.TRAINING: "answers a row, a step",
    Kind.PREPROCESSING: "answers a row",
    Kind.DETECTOR: "answers a row",
    Kind.ENSEMBLE: "answers a row, of three members",
}


def _passes(entry: DefenseEntry[Any]) -> str:
    """How often a small network answers a row: in a step of training, or where one answer is served. Counted."""
    rows = 8
    counted: list[int] = []
    x = torch.rand(rows, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(rows) % 4

    def network() -> nn.Module:
        made = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 4)).eval()
        made.register_forward_pre_hook(lambda _, given: counted.append(len(given[0])))
        return made

    match entry.kind:
        case Kind.TRAINING:
            objective = entry.make(Linf(0.1))
            if isinstance(objective, Certified):
                return "– (bounds)"
            model = Members([network(), network()]) if entry.name == "adp" else network()
            adversarial_step(model, x, y, objective, step=0, done=0.5)
        case Kind.PREPROCESSING:
            smaller = nn.Sequential(nn.AdaptiveAvgPool3d((1, 8, 8)), network()).eval()
            smaller(entry.make().stand_in(x))  # as the transformation does, and without a codec that is an extra
        case Kind.DETECTOR:
            target = from_torch(network())
            served = refusing(target, entry.make(Fitted(target=target, x=x, y=y)), x, false_positive_rate=0.5)
            counted.clear()
            served(x)
        case _:
            entry.make([from_torch(network()) for _ in range(3)])(x)
    return f"{sum(counted) / rows:g}"


def _family(name: str) -> Callable[[], str]:
    return lambda: family(name)


def _benchmark(name: str) -> Callable[[], str]:
    return lambda: benchmark(name)


PARTS: dict[str, Callable[[], str]] = {
    "attacks": attacks,
    "pgd": pgd,
    "poisoners": poisoners,
    "detectors": detectors,
    "extractors": extractors,
    **{f"defenses: {kind.value}": partial(defenses, kind) for kind in Kind},
    "family: universal-and-fitted": universal,
    "family: combining": combining,
    **{f"family: {name}": _family(name) for name in FAMILIES},
    **{
        f"bench-{name}": _benchmark(name)
        for name in (
            "verdict",
            "beside",
            "passes",
            "distrust",
            "soundness",
            "targets",
            "poisoning",
            "extraction",
            "defenses",
        )
    },
}


def filled(text: str) -> str:
    """The text with every generated part written anew."""
    for name, make in PARTS.items():
        pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
        found = pattern.search(text)
        if found:
            text = f"{text[: found.start()]}{found[1]}{make()}\n{found[2]}{text[found.end() :]}"
    return text


def main() -> int:
    """0, or 1 if --check finds a stale part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for path in (README, *sorted((ROOT / "docs").rglob("*.md"))):
        before = path.read_text(encoding="utf-8")
        after = filled(before)
        if before != after:
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                path.write_text(after, encoding="utf-8")
    if check and stale:
        print(f"stale: {', '.join(stale)}; run `python tools/write_docs.py`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
