"""Certified bounds, and ten CPU minutes of trying to break what they certify (`make bench-soundness`).

On every sample model, in L∞ and L2 at several radii: the share of the first test rows that each method certifies and
the CPU seconds of it on one thread; and then attacks on the certified rows at the very radius, those with the smallest
certified bound of the margin first. `judge.py` decides which points are inside and which rows are broken; the margin
of every point that an attack hands back is measured on the model's own scores. It may never be below the bound, which
says more than that no row breaks. Bounds and attacks on a cell (a model in a set) are cached apart, so that bounds
outlast changes of attacks. The same on small random networks, by properties, is `tests/certification/test_bounds.py`.

    python benchmarks/soundness.py --seconds 600    CPU seconds of trying, shared by the cells with certified rows
    python benchmarks/soundness.py --bounds         only the bounds, which take most of the time
    python benchmarks/soundness.py --report         measure nothing; write the result if all is there
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, when numpy and torch are loaded

import argparse
import copy
import hashlib
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent / "peers")]

import harness
import judge
import redan
from attacks_run import CODE
from redan.certification import Method, certified
from redan.errors import NotCertifiableError
from redan.evasion.apgd import APGD
from redan.evasion.cascade import Restarts, Sweep
from redan.evasion.descent import Descent
from redan.evasion.fab import FAB
from redan.evasion.fast_cascade import FastCascade, FastCascadeL2
from redan.evasion.fmn import FMN
from redan.evasion.square import Square, SquareL2
from redan.losses import margin, targeted_dlr
from redan.perturbations.norms import L2, Linf
from redan.protocols import Attack
from redan.protocols import settings as stated
from redan.referee import Closest, Worst

CACHE = harness.ROOT / "benchmarks" / "cache" / "soundness"
PROOF = (  # of redan, that a bound rests on
    "src/redan/certification",
    "src/redan/answers.py",
    "src/redan/perturbations/balls.py",
    "src/redan/perturbations/norms.py",
    "src/redan/samples/models.py",
    "src/redan/targets/base.py",
    "src/redan/targets/torch.py",
)
MEASURES = (*dict.fromkeys((*PROOF, *CODE)), "benchmarks/soundness.py", "benchmarks/judge.py")
REFUSED = "winners"  # keeps the largest units, which is no operation with bounds
MODELS = ("natural", "robust", "residual", "distilled", "fast", "trades", REFUSED)
RADII = {"linf": (0.01, 0.02, 0.05, 0.1), "l2": (0.05, 0.1, 0.2)}
SETS: dict[str, type[Linf] | type[L2]] = {"linf": Linf, "l2": L2}
ROWS = 100
FEWER = {"residual": 25}  # rows, where one takes ten times as long as on the others
SECONDS = 600.0
TURN = 8  # rows attacked together
STEPS = 40  # of `straight`
TRIED: dict[str, str] = {}  # by the claim's words: what was tried where it is missed

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One model in one set."""

    model: str
    norm: Any
    eps: float

    @property
    def rows(self) -> int:
        """How many of the first test rows are bounded."""
        return FEWER.get(self.model, ROWS)

    @property
    def within(self) -> Linf | L2:
        return SETS[self.norm](self.eps)

    @property
    def key(self) -> Row:
        """What names the cell in a row."""
        return {"model": self.model, "norm": self.norm, "eps": self.eps}

    def path(self, kind: str) -> Path:
        return CACHE / f"{kind}.{self.model}.{self.norm}.{self.eps:g}.json"

    def digest(self) -> str:
        """Of all that decides its bounds."""
        weights = redan.samples.DIGESTS[f"fashion_{self.model}.safetensors"]
        return _digest(
            [weights, redan.samples.DIGESTS["fashion_mnist.npz"], self.key, self.rows, harness.sources(PROOF)]
        )

    def bounded(self) -> Row | None:
        """Its bounds, if they were measured before and nothing that decides them has changed."""
        return harness.cached(self.path("bounds"), self.digest())

    def tried(self, share: float) -> Row | None:
        """The attacks on its certified rows, so many CPU seconds long, if they were made before by this very code."""
        return harness.cached(self.path("tries"), self.attempt(share))

    def attempt(self, share: float) -> str:
        """Digest of all that decides the attacks on it."""
        suite = {name: stated(attack) for name, attack in attacks(self.norm).items()}
        return _digest([self.digest(), share, TURN, STEPS, suite, harness.sources(CODE)])


CELLS = tuple(Cell(model=model, norm=norm, eps=eps) for model in MODELS for norm in RADII for eps in RADII[norm])


def _digest(decisive: object) -> str:
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


@cache
def module(model: str) -> nn.Module:
    """The sample model."""
    return redan.samples.model(model)


@cache
def sample_rows() -> tuple[Tensor, Tensor]:
    """Images (N, 1, 28, 28) and labels (N,)."""
    images, labels = redan.samples.fashion_mnist()
    return torch.from_numpy(images), torch.from_numpy(labels)


# -- bounds -----------------------------------------------------------------------------------------------------------


def bound(cell: Cell) -> Row:
    """Every method's bounds of a cell, made now and kept; or why there are none."""
    x, y = (part[: cell.rows] for part in sample_rows())
    found: list[Row] = []
    lower: list[float] = []
    try:
        for method in Method:
            start = time.process_time()
            proof = certified(module(cell.model), x, y, within=cell.within, most=method, workers=1)
            spent = time.process_time() - start
            lower = proof.lower.tolist()
            found.append({"kind": "bounds", **cell.key, "method": method.name, "rows": cell.rows,
                          "right": int((margins(module(cell.model), x, y) > 0).sum()),
                          "certified": proof.certified.nonzero().flatten().tolist(), "cpu_seconds": spent})  # fmt: skip
    except NotCertifiableError as error:
        found = [{"kind": "refused", **cell.key, "error": type(error).__name__, "reason": str(error)}]
    # -inf is no JSON: only what is certified is attacked
    kept = {str(i): value for i, value in enumerate(lower) if value > 0}
    row = {"digest": cell.digest(), "rows": found, "lower": kept}
    harness.keep(cell.path("bounds"), row)
    return row


@torch.no_grad()
def margins(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The right class's score minus the largest other, of the model's own scores: (N,) float64, exact differences.

    -inf where a score is no number, so that it counts as below any bound.
    """
    scores = model(x).double()
    other = scores.scatter(1, y[:, None], -torch.inf).amax(1)
    apart: Tensor = scores.gather(1, y[:, None])[:, 0] - other
    return apart.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


# -- attacks ----------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What an attack hands over: a point a row, and passes spent on all of them."""

    x: Tensor
    passes: int


def attacks(norm: str) -> dict[str, Attack[Any, Any]]:
    """redan's attacks, by name."""
    linf = norm == "linf"
    return {
        "apgd-ce": APGD(),
        "fast-cascade": FastCascade() if linf else FastCascadeL2(),
        "apgd-t": Sweep(APGD(steps=40, loss=targeted_dlr), targets=9),
        "fmn": FMN(),
        "fab": FAB(steps=50, candidates=9),
        "descent": Restarts(Descent(steps=20, random_start=True, loss=margin), 10),
        "square": Square(queries=1000) if linf else SquareL2(queries=1000),
    }


FROM_OUTSIDE = ("fmn", "fab")  # they look for the nearest wrong answer, wherever it is


def suite(cell: Cell) -> dict[str, Callable[[Tensor, Tensor, int], Found]]:
    """Every way to try, by name: rows, labels and a seed in, points out."""

    def ours(name: str, attack: Attack[Any, Any]) -> Callable[[Tensor, Tensor, int], Found]:
        def run(x: Tensor, y: Tensor, seed: int) -> Found:
            outside = name in FROM_OUTSIDE
            found = redan.attack(
                module(cell.model), x, y, attack, within=cell.within.sized(math.inf) if outside else cell.within,
                keep=Closest() if outside else Worst(), seed=seed, workers=1,
            )  # fmt: skip
            passes = int((found.forwards + found.backwards).sum())
            return Found(cell.within.project(found.adversarial, x) if outside else found.adversarial, passes)

        return run

    def straightly(x: Tensor, y: Tensor, seed: int) -> Found:
        return straight(module(cell.model), x, y, norm=cell.norm, eps=cell.eps, seed=seed)

    return {"straight": straightly, **{name: ours(name, attack) for name, attack in attacks(cell.norm).items()}}


def straight(model: nn.Module, x: Tensor, y: Tensor, *, norm: str, eps: float, seed: int, steps: int = STEPS) -> Found:
    """Descent in float64 on the margin over each other class, from x for seed 0 and from random points for others.

    It rests on no code of redan's. The point of the least margin on the way is handed over in x's type, a row each.
    """
    double, x0 = copy.deepcopy(model).double(), x.double()
    classes = int(double(x0[:1]).shape[1])
    other = torch.arange(classes - 1).repeat(len(x))
    truth, clean = y.repeat_interleave(classes - 1), x0.repeat_interleave(classes - 1, dim=0)
    other = other + (other >= truth)
    draw = torch.Generator().manual_seed(seed)
    moved = clean.clone()
    if seed:
        noise = torch.rand(clean.shape, generator=draw, dtype=clean.dtype) * 2 - 1
        moved = _back(clean + (eps * noise if norm == "linf" else eps * _unit(noise)), clean, norm, eps)
    best, lowest = moved, torch.full((len(moved),), torch.inf, dtype=clean.dtype)
    for i in range(steps + 1):
        moved = moved.detach().requires_grad_()
        scores = double(moved)
        gap = (scores.gather(1, truth[:, None]) - scores.gather(1, other[:, None]))[:, 0]
        better = gap.detach() < lowest
        best = torch.where(better.reshape(-1, 1, 1, 1), moved.detach(), best)
        lowest = torch.minimum(lowest, gap.detach())
        if i < steps:
            (slope,) = torch.autograd.grad(gap.sum(), moved)
            step = eps * (1 + math.cos(math.pi * i / steps))
            ahead = moved.detach() - step * (slope.sign() if norm == "linf" else _unit(slope))
            moved = _back(ahead, clean, norm, eps)
    at = lowest.reshape(len(x), -1).argmin(1) + torch.arange(len(x)) * (classes - 1)
    return Found(best[at].to(x.dtype), len(clean) * (2 * steps + 1))


def _unit(step: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(step.flatten(1), dim=1)
    return step / length.clamp_min(1e-300).reshape(-1, 1, 1, 1)


def _back(x: Tensor, x0: Tensor, norm: str, eps: float) -> Tensor:
    """Into the ball and then the box, which leads no farther from x0."""
    change = x - x0
    if norm == "linf":
        change = change.clamp(-eps, eps)
    else:
        length: Tensor = torch.linalg.vector_norm(change.flatten(1), dim=1)
        change = change * (eps / length.clamp_min(eps)).reshape(-1, 1, 1, 1)
    return (x0 + change).clamp(0, 1)


def attempt(cell: Cell, lower: dict[int, float], share: float) -> Row:
    """So many CPU seconds of attacks on the certified rows of a cell, the least certain first, and what they met.

    lower: the certified bound of the margin, by row. A trial is one run of an attack on one row. The attacks share the
    time evenly: the one that had least of it is next, on the rows after its last ones, and on the first again with
    another seed when it had all. None is left out, even if that takes longer.
    """
    order = sorted(lower, key=lower.__getitem__)
    images, labels = sample_rows()
    model, ways = module(cell.model), suite(cell)
    met, broken = dict.fromkeys(order, math.inf), set[int]()
    spent: dict[str, dict[str, float]] = {
        name: dict.fromkeys(("turns", "trials", "passes", "cpu_seconds", "broken", "outside"), 0) for name in ways
    }
    pieces = [order[first : first + TURN] for first in range(0, len(order), TURN)]
    while any(not part["turns"] for part in spent.values()) or _sum(spent, "cpu_seconds") < share:
        name = min(spent, key=lambda one: spent[one]["cpu_seconds"])
        seed, at = divmod(int(spent[name]["turns"]), len(pieces))
        index = pieces[at]
        x, y = images[index], labels[index]
        start = time.process_time()
        found = ways[name](x, y, seed)
        seconds = time.process_time() - start
        ruled = judge.judge(model, x, y, found.x, norm=cell.norm, eps=cell.eps)
        for i, value, inside in zip(index, margins(model, found.x, y).tolist(), ruled.inside.tolist(), strict=True):
            met[i] = min(met[i], value) if inside else met[i]
        beaten = [i for i, out in zip(index, ruled.broken.tolist(), strict=True) if out]
        broken |= set(beaten)
        more = {"turns": 1, "trials": len(index), "passes": found.passes, "cpu_seconds": seconds, "broken": len(beaten),
                "outside": int((~ruled.inside).sum())}  # fmt: skip
        spent[name] = {what: value + more[what] for what, value in spent[name].items()}
    index = [i for i in order if met[i] < math.inf]
    clean = margins(model, images[index], labels[index]).tolist()
    return {"kind": "tries", **cell.key, "certified": len(order), "index": index, "broken": sorted(broken),
            "lower": [lower[i] for i in index], "clean": clean, "met": [met[i] for i in index],
            "spent": [{"attack": name, **part} for name, part in spent.items()]}  # fmt: skip


def _sum(spent: dict[str, dict[str, float]], what: str) -> float:
    return sum(part[what] for part in spent.values())


# -- the whole --------------------------------------------------------------------------------------------------------


def measure(seconds: float, *, only_bounds: bool = False) -> None:
    """The bounds and the attacks that are not there yet."""
    torch.set_num_threads(1)
    todo = [cell for cell in CELLS if cell.bounded() is None]
    for at, cell in enumerate(todo):
        row = bound(cell)
        for part in row["rows"]:
            told = (
                f"{len(part['certified'])} of {part['rows']}, {part['cpu_seconds']:.1f} CPU s"
                if "method" in part
                else part["error"]
            )
            print(
                f"[{at + 1}/{len(todo)}] {_where(part)} {part.get('method', '')}: {told}", file=sys.stderr, flush=True
            )
    if only_bounds:
        return
    share, open_cells = shared(seconds)
    waiting = [(cell, lower) for cell, lower in open_cells if cell.tried(share) is None]
    for at, (cell, lower) in enumerate(waiting):
        row = attempt(cell, lower, share)
        harness.keep(cell.path("tries"), {"digest": cell.attempt(share), **row})
        told = f"{len(row['index'])} of {row['certified']} rows, {len(row['broken'])} broken, least {least([row]):.3g}"
        print(f"[{at + 1}/{len(waiting)}] {_where(row)} attacked: {told}", file=sys.stderr, flush=True)


def shared(seconds: float) -> tuple[float, list[tuple[Cell, dict[int, float]]]]:
    """The cells with certified rows, the bounds of these, and the CPU seconds for each cell."""
    found = [(cell, cell.bounded()) for cell in CELLS]
    there = [
        (cell, {int(i): value for i, value in row["lower"].items()}) for cell, row in found if row and row["lower"]
    ]
    return seconds / max(1, len(there)), there


def gathered(seconds: float) -> tuple[list[Row], int]:
    """The rows of what is there, and how many cells' bounds or attacks are missing."""
    bounds = [cell.bounded() for cell in CELLS]
    share, there = shared(seconds)
    tries = [cell.tried(share) for cell, _ in there]
    rows = [part for row in bounds if row is not None for part in row["rows"]]
    rows += [{key: value for key, value in row.items() if key != "digest"} for row in tries if row is not None]
    return rows, sum(row is None for row in (*bounds, *tries))


def _where(row: Row) -> str:
    return f"{row['model']} {row['norm']} {row['eps']:g}"


def kinds(rows: Sequence[Row], kind: str) -> list[Row]:
    """The rows of one kind: bounds, refused or tries."""
    return [row for row in rows if row["kind"] == kind]


def least(tries: Sequence[Row]) -> float:
    """The least of the margin met minus the certified bound of it; inf where nothing was attacked."""
    return min((m - low for row in tries for m, low in zip(row["met"], row["lower"], strict=True)), default=math.inf)


def closed(row: Row) -> float:
    """The median share of the way from the clean margin down to the bound that attacks went; nan if there were none."""
    ways = [(c - m) / (c - low) for c, m, low in zip(row["clean"], row["met"], row["lower"], strict=True) if c > low]
    return statistics.median(ways) if ways else math.nan


def spent(tries: Sequence[Row], what: str) -> float:
    """Trials, passes, CPU seconds or points outside, of all attacks together."""
    return float(sum(part[what] for row in tries for part in row["spent"]))


def lost(rows: Sequence[Row]) -> list[tuple[str, str, int]]:
    """(cell, method, row) of each row that a method certifies and a tighter one does not."""
    found, names = [], [method.name for method in Method]
    by = {(_where(row), row["method"]): set(row["certified"]) for row in kinds(rows, "bounds")}
    for (cell, method), sure in by.items():
        for tighter in names[names.index(method) + 1 :]:
            found += [(cell, method, i) for i in sorted(sure - by.get((cell, tighter), sure))]
    return found


def claims(rows: Sequence[Row]) -> list[harness.Claim]:
    """Every figure of verdict.e, from the rows."""
    return [claim._replace(tried="" if claim.met else TRIED.get(claim.claim, "")) for claim in _claims(rows)]


def _claims(rows: Sequence[Row]) -> Iterator[harness.Claim]:
    tries = kinds(rows, "tries")
    broken = sum(len(row["broken"]) for row in tries)
    yield _claim("rows broken inside a certified ball", "0", f"{broken}", bool(tries) and not broken)
    seconds = spent(tries, "cpu_seconds")
    yield _claim("CPU seconds of trying", f"≥ {SECONDS:g}", f"{seconds:.1f}", seconds >= SECONDS)
    room = least(tries)
    yield _claim("least of the margin met minus the certified bound of it", "≥ 0", f"{room:.3g}", 0 <= room < math.inf)
    last = [row for row in kinds(rows, "bounds") if row["method"] == Method.CROWN.name and row["certified"]]
    attacked = {_where(row) for row in tries if row["index"] and all(part["trials"] for part in row["spent"])}
    reached = sum(_where(row) in attacked for row in last)
    yield _claim(
        "models in sets with certified rows, attacked in every way",
        f"{len(last)}",
        f"{reached}",
        0 < reached == len(last),
    )
    outside = spent(tries, "outside")
    yield _claim("points of attacks outside the ball, which count for nothing", "0", f"{outside:g}", not outside)
    gone = lost(rows)
    yield _claim("rows certified by a method and not by a tighter one", "0", f"{len(gone)}", not gone)
    refused = sorted({row["model"] for row in kinds(rows, "refused")})
    yield _claim("models refused for want of bounds", REFUSED, ", ".join(refused) or "none", refused == [REFUSED])


def _claim(what: str, goal: str, measured: str, met: bool) -> harness.Claim:
    return harness.Claim("verdict.e", what, goal, measured, met)


def table(rows: Sequence[Row]) -> str:
    """Shares certified, a line a cell; what attacks met there; and what each attack spent."""
    bounds, tries = kinds(rows, "bounds"), kinds(rows, "tries")
    names = [method.name for method in Method]
    lines = [_line("model", "norm", "ε", "rows", "right", *names, *(f"CPU s {name}" for name in names)), _rule(11)]
    for where in dict.fromkeys(_where(row) for row in bounds):
        by = {row["method"]: row for row in bounds if _where(row) == where}
        one = next(iter(by.values()))
        shares = [f"{len(by[name]['certified']) / by[name]['rows']:.1%}" for name in names if name in by]
        times = [f"{by[name]['cpu_seconds']:.1f}" for name in names if name in by]
        lines.append(_line(*where.split(), one["rows"], one["right"], *shares, *times))
    for model in dict.fromkeys(row["model"] for row in kinds(rows, "refused")):
        error = next(row["error"] for row in kinds(rows, "refused") if row["model"] == model)
        lines.append(_line(model, "", "", f"refused: {error}", *[""] * 7))
    lines += [
        "",
        _line("model", "norm", "ε", "certified", "attacked", "trials", "passes", "CPU s", "broken",
              "least over the bound", "way to the bound"),
        _rule(11),
    ]  # fmt: skip
    lines += [
        _line(*_where(row).split(), row["certified"], len(row["index"]), f"{spent([row], 'trials'):,.0f}",
              f"{spent([row], 'passes'):,.0f}", f"{spent([row], 'cpu_seconds'):.1f}", len(row["broken"]),
              f"{least([row]):.3g}", f"{closed(row):.0%}")
        for row in tries
    ]  # fmt: skip
    lines += ["", _line("attack", "trials", "passes", "CPU s", "broken"), _rule(5)]
    for name in dict.fromkeys(part["attack"] for row in tries for part in row["spent"]):
        parts = [part for row in tries for part in row["spent"] if part["attack"] == name]
        total = {what: sum(part[what] for part in parts) for what in ("trials", "passes", "cpu_seconds", "broken")}
        lines.append(
            _line(
                name,
                f"{total['trials']:,.0f}",
                f"{total['passes']:,.0f}",
                f"{total['cpu_seconds']:.1f}",
                f"{total['broken']:g}",
            )
        )
    return "\n".join(lines)


def _line(*parts: object) -> str:
    return f"| {' | '.join(str(part) for part in parts)} |"


def _rule(columns: int) -> str:
    return _line(*["---"] * columns)


def main() -> None:
    """Measure what is missing, print what is there; write the result when nothing is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="CPU seconds of trying")
    parser.add_argument(
        "--bounds", action="store_true", help="measure the bounds only, which outlast our attacks' code"
    )
    parser.add_argument("--report", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if not options.report:
        measure(options.seconds, only_bounds=options.bounds)
    rows, missing = gathered(options.seconds)
    if missing:
        harness.show(table(rows), claims(rows))
        print(f"{missing} cells are not measured yet; no result is written from a part (kept in {CACHE})")
        return
    harness.write(
        "soundness",
        rows=rows,
        claims=claims(rows),
        environment=harness.environment(redan=redan.__version__, torch=torch.__version__),
        measures=MEASURES,
        tables=lambda: table(rows),
    )


if __name__ == "__main__":
    main()
