"""The cheaper gradient pass beside the plain one, and what a whole PGD-40 gains by it (`make bench-passes`).

A pass is one forward pass with its input gradient. `chosen` is the path that redan takes, which shapes alone decide;
the others are what a choice by timing could take instead, weights in channels-last order among them. One row is asked
as redan asks it on every path: with copies of itself. Errors are those of the whole batch's gradients, in the largest
entry of the plain one's. PGD-40 is `benchmarks/pgd.py`'s contest.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, when numpy and torch are loaded

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent / "peers")]

import worker

import harness
import pgd
import redan
from redan.answers import smallest
from redan.targets.fast import TOLERANCE, Cheaper, choose

MEASURES = (*pgd.MEASURES, "src/redan/answers.py", "benchmarks/passes.py")
MODELS = ("natural", "robust", "residual")
BATCHES = {1: 300, 16: 150, 128: 40, 512: 20}  # and how often each is timed
REPEATS = 11
GOALS = {"natural": 0.75, "robust": 0.75, "residual": 0.65}
FASTER = 1.3
NOISE = 1.05
SMALL = (
    "a choice by batch size, which would make a row's gradient depend on its batch-mates, and one by timing, which "
    "falls one way or the other from day to day; in the smallest batches the interpreter's work is more than is saved."
)
TRIED = (
    "weights and activations in channels-last order (in `rows`: no gain beside the products), strided convolutions' "
    "input gradients as transposed convolutions and, with 16 input channels, as sub-pixel convolutions (0.7 of that "
    "kernel for one shape, more for others). Of PGD-40 on a small network nine tenths are the passes themselves, which "
    "take 0.74 to 0.79 of the plain one alone; the limit is measured in a process of its own, beside other work."
)


class Pass:
    """One way to compute a pass: a module, and the context it runs in."""

    def __init__(self, module: nn.Module, how: Cheaper) -> None:
        self.module, self.how = module, how

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Input gradients of the cross-entropy: (N, …)."""
        x = x.detach().requires_grad_()
        with self.how.on():
            scores = self.module(x)
        loss = functional.cross_entropy(scores, y, reduction="sum")
        return torch.autograd.grad(loss, x)[0].contiguous()


def paths(model: str) -> dict[str, Pass]:
    """The plain pass, the chosen one, and what else could be chosen."""
    module, x = worker.load_model(model), worker.load_rows(8)[0]
    chosen = choose(module, module, x)
    ordered = copy.deepcopy(module).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = {
        "plain": Pass(module, Cheaper()),
        "chosen": Pass(module, chosen),
        "channels-last": Pass(ordered, Cheaper()),
        "chosen, channels-last": Pass(ordered, chosen),
    }
    if chosen.norms:
        found["products"] = Pass(module, Cheaper(products=True))
        found["folded norms"] = Pass(module, Cheaper(norms=True))
    return found


def timed(run: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """CPU seconds of one pass."""
    start = time.process_time()
    run(x, y)
    return time.process_time() - start


def measured(model: str, batch: int, repeats: int) -> list[dict[str, Any]]:
    """Every path of a model at one batch size, in turn."""
    x, y = worker.load_rows(batch)
    if batch < smallest():
        x, y = x.repeat(smallest(), 1, 1, 1)[: smallest()], y.repeat(smallest())[: smallest()]
    ways = paths(model)
    plain = ways["plain"](x, y)
    errors = {name: float((way(x, y) - plain).abs().amax() / plain.abs().amax()) for name, way in ways.items()}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats):
        turn = list(ways)[repeat % len(ways) :] + list(ways)[: repeat % len(ways)]
        for name in turn:
            spent[name].append(timed(ways[name], x, y))
    rows = [
        {"model": model, "batch": batch, "path": name, "words": ways[name].how.words, "cpu_seconds": spent[name],
         "error": errors[name]}
        for name in ways
    ]  # fmt: skip
    ratios = {name: round(harness.ratio(spent[name], spent["plain"]), 2) for name in ways}
    print(f"{model}, batch {batch}: {ratios}", file=sys.stderr, flush=True)
    return rows


def whole(repeats: int) -> list[dict[str, Any]]:
    """PGD-40 of redan, of the peers, and the plain limit, in every cell."""
    peers = {name: harness.Peer(Path(worker.__file__)) for name in (*pgd.PEERS, "limit")}
    rows = []
    for model, norm, eps in pgd.CELLS:
        times = pgd.contest(peers, model, norm, eps, repeats)[1]
        rows += [
            {"model": model, "norm": norm, "eps": eps, "contestant": name, "cpu_seconds": spent}
            for name, spent in times.items()
        ]
        ratios = {name: round(harness.ratio(spent, times["limit"]), 2) for name, spent in times.items()}
        print(f"PGD-40 {model} {norm}: {ratios}", file=sys.stderr, flush=True)
    for peer in peers.values():
        peer.close()
    return rows


def main() -> None:
    """Time passes and whole attacks, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of a whole PGD-40")
    parser.add_argument("--share", type=float, default=1.0, help="of the repeats of single passes")
    said = parser.parse_args()
    torch.set_num_threads(1)
    worker.keep_memory()
    rows = [
        row
        for model in MODELS
        for batch, repeats in BATCHES.items()
        for row in measured(model, batch, max(5, round(repeats * said.share)))
    ]
    rows += whole(said.repeats)
    harness.write(
        "passes",
        rows=rows,
        claims=claims(rows),
        environment=harness.environment(redan=redan.__version__, torch=torch.__version__),
        measures=MEASURES,
        tables=lambda: table(rows),
    )


def single(rows: list[dict[str, Any]], model: str, batch: int) -> dict[str, dict[str, Any]]:
    """The paths of one model at one batch size."""
    return {row["path"]: row for row in rows if row.get("batch") == batch and row["model"] == model}


def claims(rows: list[dict[str, Any]]) -> list[harness.Claim]:
    """Every figure of verdict.c, from the rows."""
    found = []
    for model in MODELS:
        for batch in BATCHES:
            by = single(rows, model, batch)
            plain, chosen = by["plain"]["cpu_seconds"], by["chosen"]
            ratios = {name: harness.ratio(row["cpu_seconds"], plain) for name, row in by.items()}
            best = min((name for name in ratios if name != "chosen"), key=ratios.__getitem__)
            beside = ratios["chosen"] / ratios[best]
            where = f"{model}, batch {batch}"
            found += [
                harness.Claim("verdict.c", f"one pass, {where}, CPU time over the plain pass", f"<= {NOISE}",
                              f"{ratios['chosen']:.3f}", ratios["chosen"] <= NOISE,
                              SMALL if ratios["chosen"] > NOISE else ""),
                harness.Claim("verdict.c", f"one pass, {where}, largest error of the gradient in its largest entry",
                              f"<= {TOLERANCE:.0e}", f"{chosen['error']:.1e}", chosen["error"] <= TOLERANCE),
                harness.Claim("verdict.c", f"one pass, {where}, CPU time over what timing would choose ({best})",
                              f"<= {NOISE}", f"{beside:.3f}", beside <= NOISE, TRIED if beside > NOISE else ""),
            ]  # fmt: skip
    for model, norm in dict.fromkeys((row["model"], row["norm"]) for row in rows if "norm" in row):
        contest = {row["contestant"]: row["cpu_seconds"] for row in rows
                   if row["model"] == model and row.get("norm") == norm}  # fmt: skip
        limit = harness.ratio(contest["redan"], contest["limit"])
        fastest = min((name for name in pgd.PEERS if name in contest), key=lambda n: statistics.median(contest[n]))
        faster = 1 / harness.ratio(contest["redan"], contest[fastest])
        goal = GOALS[model]
        found += [
            harness.Claim("verdict.c", f"PGD-40 {model} {norm}, CPU time over the plain limit", f"<= {goal}",
                          f"{limit:.3f}", limit <= goal, TRIED if limit > goal else ""),
            harness.Claim("verdict.c", f"PGD-40 {model} {norm}, times as fast as the fastest peer ({fastest})",
                          f">= {FASTER}", f"{faster:.2f}", faster >= FASTER, TRIED if faster < FASTER else ""),
        ]  # fmt: skip
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Ratios to the plain pass and to the plain limit, as Markdown."""
    lines = ["| model | batch | path | CPU ms | x plain | error |", "|---|---|---|---|---|---|"]
    for row in (row for row in rows if "batch" in row):
        plain = single(rows, row["model"], row["batch"])["plain"]["cpu_seconds"]
        spent = 1000 * statistics.median(row["cpu_seconds"])
        lines.append(
            f"| {row['model']} | {row['batch']} | {row['path']} | {spent:.2f} "
            f"| {harness.ratio(row['cpu_seconds'], plain):.2f} | {row['error']:.1e} |"
        )
    lines += ["", "| model | norm | contestant | CPU s | x limit |", "|---|---|---|---|---|"]
    for row in (row for row in rows if "norm" in row):
        limit = next(
            other["cpu_seconds"]
            for other in rows
            if (other["model"], other.get("norm"), other.get("contestant")) == (row["model"], row["norm"], "limit")
        )
        spent = statistics.median(row["cpu_seconds"])
        ratio = harness.ratio(row["cpu_seconds"], limit)
        lines.append(f"| {row['model']} | {row['norm']} | {row['contestant']} | {spent:.3f} | {ratio:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
