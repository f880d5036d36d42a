"""The fast cascade beside what torchattacks and ART call AutoAttack, and on an ImageNet model (`make bench-beside`).

64 test rows on three sample models, in L∞ and L2: our mode default against torchattacks' AutoAttack, version standard,
and ART's, with the attacks it chooses itself; and EfficientNet-Lite0 on its twenty pictures at 4/255: our modes default
and autoattack against AutoAttack's standard version (pyautoattack), in the environment that `tools/extras.sh` makes.
`judge.py` decides from the adversarial images. Counted are the rows left, those that one side alone breaks, passes, and
CPU seconds on one thread. The peers' runs are kept and committed; ours are made anew when any of our code changed.

    python benchmarks/beside.py --seconds 3000    start no run after so many seconds; what is measured stays
    python benchmarks/beside.py --references      only the peers' runs, which outlast changes of our code
    python benchmarks/beside.py --report          measure nothing; write the result if all is there
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, when numpy and torch are loaded

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent / "peers")]

import repeats
import torch
import worker
from safetensors.torch import load_file
from torch import Tensor

import harness
import judge
import redan
from attacks_run import CODE

CACHE = harness.ROOT / "benchmarks" / "cache" / "beside"
KEPT = harness.RESULTS / "cells" / "beside"  # what takes long and depends on none of our code is committed
ENSEMBLES = Path(worker.__file__).with_name("ensembles.py")
ON_PICTURES = Path(__file__).with_name("beside_pictures.py")
EXTRAS_PYTHON = harness.ROOT / ".envs" / "extras" / "bin" / "python"
EXAMPLE = harness.ROOT / "examples" / "imagenet" / "imagenet.py"
OURS = (*CODE, "src/redan/robustness.py")
MEASURES = (
    *OURS,
    "examples/imagenet",
    "benchmarks/beside.py",
    "benchmarks/beside_pictures.py",
    "benchmarks/judge.py",
    "benchmarks/peers/ensembles.py",
    "benchmarks/peers/repeats.py",
)
MODELS, RADII, ROWS, SEED = ("natural", "robust", "residual"), {"linf": 0.1, "l2": 1.5}, 64, 0
PEERS = ("torchattacks", "art")
PICTURES, TWENTY = "EfficientNet-Lite0", 20
REFERENCE = "pyautoattack"
MODES = ("default", "autoattack")
TRIED = {  # by the claim's words: what was tried where it is missed
    "EfficientNet-Lite0 linf, our mode autoattack: passes": (
        "every picture breaks in the first climb of either mode, after four passes in the mean: nothing is to be saved."
    ),
}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One contestant, which is a mode of ours or a peer, on one model under one set."""

    contestant: str
    model: str
    norm: Any

    @property
    def ours(self) -> bool:
        return self.contestant in MODES

    @property
    def eps(self) -> float:
        return 4 / 255 if self.model == PICTURES else RADII[self.norm]

    @property
    def rows(self) -> int:
        return TWENTY if self.model == PICTURES else ROWS

    @property
    def path(self) -> Path:
        return (CACHE if self.ours else KEPT) / f"{self.contestant}.{self.model}.{self.norm}.json"

    @property
    def digest(self) -> str:
        """Of all that decides the result on its side: the model, the rows and the code, not the libraries below."""
        decisive: list[object] = [self.contestant, self.model, self.norm, self.eps, self.rows, SEED]
        if self.model == PICTURES:
            code, model = ON_PICTURES.read_text(), EXAMPLE.read_bytes()
        else:
            code, model = (
                ENSEMBLES.read_text() + Path(repeats.__file__).read_text(),
                (worker.SAMPLES / f"fashion_{self.model}.safetensors").read_bytes(),
            )
        decisive += [code, (ENSEMBLES.parent / "requirements.txt").read_text(), hashlib.sha256(model).hexdigest()]
        if self.ours:
            decisive.append(harness.sources(OURS))
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()

    def cached(self) -> Row | None:
        """What was measured before, if it is still the same run."""
        return harness.cached(self.path, self.digest)

    def measured(self) -> Row:
        """The run, made now, judged by `judge.py` and kept."""
        row = {"digest": self.digest, "contestant": self.contestant, "model": self.model, "norm": self.norm,
               "eps": self.eps, "rows": self.rows}  # fmt: skip
        if self.model == PICTURES:
            row |= self._on_pictures()
        else:
            row |= self._here() if self.ours else self._asked()
        harness.keep(self.path, row)
        return row

    def _here(self) -> Row:
        x, y = worker.load_rows(ROWS)
        within = redan.Linf(self.eps) if self.norm == "linf" else redan.L2(self.eps)
        score, spent = repeats.repeated(
            lambda: redan.robust_accuracy(
                worker.load_model(self.model), x, y, within=within, mode=self.contestant, seed=SEED, workers=1
            )
        )
        passes = {"forwards": score.forwards, "backwards": score.backwards}
        return self._judged(score.outcomes.x) | repeats.told(spent) | passes

    def _asked(self) -> Row:
        out = CACHE / self.path.with_suffix(".safetensors").name
        out.parent.mkdir(parents=True, exist_ok=True)
        peer = harness.Peer(ENSEMBLES)
        answer = peer.ask(
            peer=self.contestant, model=self.model, norm=self.norm, eps=self.eps, rows=ROWS, seed=SEED, out=str(out)
        )
        peer.close()
        return answer if "stopped" in answer else self._judged(load_file(out)["x_adv"]) | answer

    def _judged(self, x_adv: Tensor) -> Row:
        found = judge.judge(worker.load_model(self.model), *worker.load_rows(ROWS), x_adv, norm=self.norm, eps=self.eps)
        return told(found)

    def _on_pictures(self) -> Row:
        """In the environment of the extras, which has the network and the pictures."""
        request = json.dumps({"contestant": self.contestant, "norm": self.norm, "eps": self.eps, "seed": SEED})
        done = subprocess.run(
            [str(EXTRAS_PYTHON), str(ON_PICTURES), request], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"no run on {PICTURES}; make its environment with tools/extras.sh\n{done.stderr}")
        answer: Row = json.loads(done.stdout)
        return answer


def told(found: judge.Judgement) -> Row:
    """The numbers of the rows right before and not broken, and how many came back outside of ball or box."""
    robust = (found.right_before & ~found.broken).nonzero().flatten().tolist()
    return {"robust": robust, "outside": int((~found.inside).sum())}


def runs() -> list[Run]:
    """Every run: ours, then the peers', the cheap ones first."""
    cells = [(model, norm) for model in MODELS for norm in RADII]
    found = [Run(contestant="default", model=model, norm=norm) for model, norm in cells]
    found += [Run(contestant=mode, model=PICTURES, norm="linf") for mode in MODES]
    found.append(Run(contestant=REFERENCE, model=PICTURES, norm="linf"))
    return found + [Run(contestant=peer, model=model, norm=norm) for peer in PEERS for model, norm in cells]


def measure(until: float, *, ours: bool = True) -> None:
    """Every run that is not there yet; ends after `until`, between two runs."""
    torch.set_num_threads(1)
    worker.keep_memory()
    todo = [run for run in runs() if (ours or not run.ours) and run.cached() is None]
    for at, run in enumerate(todo):
        if time.monotonic() > until:
            return
        row = run.measured()
        came = row.get("stopped") or f"{len(row['robust'])} robust, {row['cpu_seconds']:.1f} CPU s"
        told_run = f"[{at + 1}/{len(todo)}] {run.model} {run.norm} {run.contestant}: {came}"
        print(told_run, file=sys.stderr, flush=True)


def gathered() -> tuple[list[Row], int]:
    """The rows of the runs that are there, without what decided them, and how many are missing."""
    rows = [run.cached() for run in runs()]
    there = [{key: value for key, value in row.items() if key != "digest"} for row in rows if row is not None]
    return there, len(rows) - len(there)


@dataclass(frozen=True, slots=True)
class Bout:
    """Our mode default beside another contestant on a cell, where that one ran."""

    ours: Row
    theirs: Row

    @property
    def what(self) -> str:
        names = {"torchattacks": "torchattacks' AutoAttack", "art": "ART's AutoAttack", REFERENCE: "AutoAttack"}
        other = names.get(self.theirs["contestant"], f"our mode {self.theirs['contestant']}")
        return f"{self.ours['model']} {self.ours['norm']}, {other}"

    @property
    def missed(self) -> list[int]:
        """Rows that they break and we do not."""
        return sorted(set(self.ours["robust"]) - set(self.theirs["robust"]))

    @property
    def extra(self) -> list[int]:
        """Rows that we break and they do not."""
        return sorted(set(self.theirs["robust"]) - set(self.ours["robust"]))

    def cheaper(self, *what: str) -> float:
        """How many times less of this we spend."""
        return float(sum(self.theirs[key] for key in what) / max(1e-9, sum(self.ours[key] for key in what)))


def bouts(rows: Sequence[Row]) -> Iterator[Bout]:
    """Our mode default beside each other contestant on the same cell."""
    for ours in rows:
        if ours["contestant"] == "default":
            for theirs in rows:
                same = (theirs["model"], theirs["norm"]) == (ours["model"], ours["norm"])
                if same and theirs is not ours:
                    yield Bout(ours, theirs)


def claims(rows: Sequence[Row]) -> list[harness.Claim]:
    """Every goal of verdict.b, from the rows."""
    found = [claim for bout in bouts(rows) for claim in _claims(bout)]
    return [claim if claim.met else claim._replace(tried=TRIED.get(claim.claim, claim.tried)) for claim in found]


def _claims(bout: Bout) -> Iterator[harness.Claim]:
    what, left = bout.what, f"robust rows of {bout.ours['rows']}"
    if "stopped" in bout.theirs:
        raises = f"it raises {bout.theirs['stopped']}"
        yield harness.Claim("verdict.b", f"{what}: {left}", "≤ its own", raises, False, "it does not run as published")
        return
    ours, theirs = len(bout.ours["robust"]), len(bout.theirs["robust"])
    yield harness.Claim("verdict.b", f"{what}: {left}", f"≤ {theirs}", f"{ours}", ours <= theirs)
    missed = len(bout.missed)
    yield harness.Claim("verdict.b", f"{what}: rows that it breaks and we do not", "0", f"{missed}", not missed)
    for name, keys in (("passes", ("forwards", "backwards")), ("CPU time", ("cpu_seconds",))):
        times = bout.cheaper(*keys)
        yield harness.Claim("verdict.b", f"{what}: {name}", "< 1 of its own", f"1/{times:.1f}", times > 1)


def table(rows: Sequence[Row]) -> str:
    """One line a contestant and cell."""
    head = ("model", "norm", "beside", "its rows", "ours", "missed", "extra", "outside", "its passes", "ours",
            "its CPU s", "ours")  # fmt: skip
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for bout in bouts(rows):
        ours, theirs = bout.ours, bout.theirs
        cells: tuple[Any, ...] = (ours["model"], ours["norm"], theirs["contestant"])
        if "stopped" in theirs:
            cells += (f"raises {theirs['stopped']}", len(ours["robust"]), *["–"] * 4, _passes(ours), "–")
        else:
            cells += (len(theirs["robust"]), len(ours["robust"]), len(bout.missed), len(bout.extra), theirs["outside"],
                      _passes(theirs), _passes(ours), f"{theirs['cpu_seconds']:.1f}")  # fmt: skip
        lines.append(" | ".join(str(cell) for cell in (*cells, f"{ours['cpu_seconds']:.1f}")))
    return "\n".join(f"| {line} |" for line in lines)


def _passes(row: Row) -> str:
    """A row."""
    return f"{(row['forwards'] + row['backwards']) / row['rows']:,.0f}"


def main() -> None:
    """Measure what is missing, print what is there; write the result when nothing is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no run after so many")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--references", action="store_true", help="measure the peers only, whose runs outlast our code")
    options = parser.parse_args()
    if not options.report:
        measure(time.monotonic() + options.seconds, ours=not options.references)
    rows, missing = gathered()
    if missing:
        harness.show(table(rows), claims(rows))
        print(f"{missing} runs are not measured yet; no result is written from a part (kept in {KEPT} and {CACHE})")
        return
    peer = harness.Peer(ENSEMBLES)
    versions = peer.ask(versions=True)
    peer.close()
    harness.write(
        "beside",
        rows=rows,
        claims=claims(rows),
        environment=harness.environment(redan=redan.__version__, **versions),
        measures=MEASURES,
        tables=lambda: table(rows),
    )


if __name__ == "__main__":
    main()
