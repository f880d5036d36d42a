"""Measuring one cell of `make bench-attacks`, and the cache of what was measured.

A cell is a contest, a contestant (redan or a peer) and a model: every setting on the tuning rows, the best of them on
the reported rows, judged by `judge.py`. It is one JSON file, with the adversarial images beside it; a cell that
stands there under the same digest is not measured again, so that a killed run goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import worker
from safetensors.torch import load_file, save_file
from torch import Tensor

import attacks_ours
import harness
import judge
import judge_spatial
from attacks_cells import DEGREES, PIXELS, Contest, Setting
from optimality import envelope, optimality
from redan.protocols import settings as stated

CACHE = harness.ROOT / "benchmarks" / "cache" / "attacks"
ARENA = Path(worker.__file__).with_name("arena.py")
REPORTED, TUNING = (0, 256), (936, 64)  # the first row, and how many
OURS = "redan"
REACH = {"linf": 1.0, "l2": math.sqrt(784), "l1": 784.0, "l0": 784.0}  # of the box
OVER, STOP = 1.1, 3.0  # budgets: what still counts, and where an attack is ended
SEED = 0

CODE = (  # of redan, that every run of ours rests on
    "src/redan/rows.py",
    "src/redan/oracle.py",
    "src/redan/answers.py",
    "src/redan/referee.py",
    "src/redan/losses.py",
    "src/redan/goals",
    "src/redan/targets/fast.py",
    "src/redan/targets/products.py",
    "src/redan/targets/torch.py",
    "src/redan/perturbations",
    "src/redan/engine",
    "src/redan/evasion",
)

Row = dict[str, Any]
Kind = Literal["reported", "tuning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One contestant of a contest on a model."""

    contest: Contest
    contestant: str
    model: str

    @property
    def path(self) -> Path:
        return CACHE / f"{self.contest.name}.{self.contestant}.{self.model}.json"

    @property
    def settings(self) -> tuple[Setting, ...]:
        if self.contestant != OURS:
            return self.contest.peers[self.contestant][1]
        every = enumerate(self.candidates)
        if self.contest.norm != "spatial":
            return tuple({"candidate": at, "is": stated(attack)} for at, attack in every)
        sets = [stated(attacks_ours.within(self.contest, at)) for at in range(len(self.candidates))]
        return tuple({"candidate": at, "is": stated(attack), "within": sets[at]} for at, attack in every)

    @property
    def candidates(self) -> tuple[object, ...]:
        """redan's attacks or fitters."""
        return attacks_ours.candidates(self.contest)

    @property
    def digest(self) -> str:
        """Of all that decides the result on its side: settings and code, not the libraries below."""
        if self.contestant == OURS:
            code = _ours()
        else:
            function = self.contest.peers[self.contestant][0]
            code = f"{_adapters()[function]}{(ARENA.parent / 'requirements.txt').read_text()}"
        contest = self.contest
        decisive = [contest.passes, contest.eps, self.settings, REPORTED, TUNING, code]
        if contest.lent or contest.fitted or contest.norm == "spatial":
            decisive += [contest.seen(self.model), contest.fitted, DEGREES, PIXELS]
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


@cache
def _ours() -> str:
    """The digest of our code: any change of it makes all our cells stale, and them alone."""
    return harness.sources(CODE)


@cache
def _adapters() -> dict[str, str]:
    """The source of each adapter function, read without importing any peer."""
    found: dict[str, str] = {}
    for path in sorted(ARENA.parent.glob("*.py")):
        for part in path.read_text().split("\ndef ")[1:]:
            found[part.split("(")[0]] = part
    return found


@cache
def right_rows(model: str, kind: Kind) -> tuple[int, ...]:
    """The test images that the model has right: nobody is asked to break another."""
    first, rows = REPORTED if kind == "reported" else TUNING
    x, y = worker.load_rows(rows, first)
    with torch.no_grad():
        right = worker.load_model(model)(x).argmax(1) == y
    return tuple(first + int(at) for at in right.nonzero())


class Shot(NamedTuple):
    """One run of one setting, judged: bits and distances of each row."""

    passes: float  # a row
    cpu_seconds: float
    broken: list[bool]
    distance: list[float]  # inf where not broken
    x_adv: Tensor


class Lab:
    """Runs contestants; holds the peers' process."""

    def __init__(self, scratch: Path) -> None:
        self._out = scratch / f"{os.getpid()}.safetensors"
        self._peer: harness.Peer | None = None

    def shoot(self, cell: Cell, setting: Setting, kind: Kind) -> Shot | str:
        """One run on the tuning or the reported rows, or why there is none."""
        index = right_rows(cell.model, kind)
        if cell.contestant == OURS:
            made = attacks_ours.run(cell.contest, setting["candidate"], cell.model, index, SEED)
        else:
            answer = self._asked(cell, setting, index)
            if isinstance(answer, str):
                return answer
            x_adv = load_file(self._out)["x_adv"]
            made = attacks_ours.Made(x_adv, answer["cpu_seconds"], answer["forwards"], answer["backwards"])
        broken, distance = judged(cell.contest, cell.model, index, made.x_adv)
        passes = (made.forwards + made.backwards) / spread(cell.contest, index)
        return Shot(passes, made.cpu_seconds, broken, distance, made.x_adv)

    def _asked(self, cell: Cell, setting: Setting, index: Sequence[int]) -> Row | str:
        self._peer = self._peer or harness.Peer(ARENA)
        contest = cell.contest
        more = {} if contest.fitted is None else {"fitted": contest.fitted}
        try:
            answer = self._peer.ask(
                attack=contest.peers[cell.contestant][0], setting=setting, model=contest.seen(cell.model),
                norm=contest.norm, eps=contest.eps, index=list(index), seed=SEED,
                passes=STOP * contest.passes * spread(contest, index), seconds=contest.seconds, out=str(self._out),
                **more,
            )  # fmt: skip
        except RuntimeError:
            self._peer = None
            return "the peer's process ended"
        stopped: str | None = answer.get("stopped")
        return answer if stopped is None else stopped

    def versions(self) -> dict[str, str]:
        """The peers'."""
        self._peer = self._peer or harness.Peer(ARENA)
        return self._peer.ask(versions=True)

    def close(self) -> None:
        """End the peers' process."""
        if self._peer is not None:
            self._peer.close()
        self._out.unlink(missing_ok=True)


def spread(contest: Contest, index: Sequence[int]) -> int:
    """How many rows a run's passes are spread over: those fitted on where there are any, else those attacked."""
    return len(index) if contest.fitted is None else contest.fitted[1]


def judged(contest: Contest, model: str, index: Sequence[int], x_adv: Tensor) -> tuple[list[bool], list[float]]:
    """Which rows are broken, inside the radius or anywhere in the box, and how far each broken one is.

    Far is, in a spatial contest, the larger of the turn and the shift as shares of their ranges.
    """
    x, y = (part[torch.tensor(index)] for part in worker.load_rows(1000))
    if contest.norm == "spatial":
        broken, far = judge_spatial.judge(worker.load_model(model), x, y, x_adv, degrees=DEGREES, pixels=PIXELS)
        return broken.tolist(), torch.where(broken, far, math.inf).tolist()
    eps = min(contest.eps, REACH[contest.norm])
    broken = judge.judge(worker.load_model(model), x, y, x_adv, norm=contest.norm, eps=eps).broken
    far = judge.distances(x, x_adv, norm=contest.norm)
    return broken.tolist(), torch.where(broken, far, math.inf).tolist()


def chosen(contest: Contest, shots: Sequence[Shot | str]) -> int | None:
    """The best setting: of those in the budget, the one with most rows broken, or with the highest optimality.

    Where none is in the budget it is the cheapest; None where none ran.
    """
    ran = {at: shot for at, shot in enumerate(shots) if not isinstance(shot, str)}
    fair = {at: shot for at, shot in ran.items() if shot.passes <= OVER * contest.passes}
    if not ran:
        return None
    if not fair:
        return min(ran, key=lambda at: ran[at].passes)
    if not contest.nearest:
        return max(fair, key=lambda at: sum(fair[at].broken))
    best = envelope([shot.distance for shot in fair.values()])
    return max(fair, key=lambda at: optimality(fair[at].distance, best))


def cached(cell: Cell) -> Row | None:
    """What was measured before, if settings and code are still the same."""
    return harness.cached(cell.path, cell.digest)


def measured(lab: Lab, cell: Cell) -> Row:
    """The cell, measured now and kept."""
    shots = [lab.shoot(cell, setting, "tuning") for setting in cell.settings]
    at = chosen(cell.contest, shots)
    final = str(shots[0]) if at is None else lab.shoot(cell, cell.settings[at], "reported")
    row: Row = {
        "digest": cell.digest, "attack": cell.contest.attack, "norm": cell.contest.norm, "eps": cell.contest.eps,
        "budget": cell.contest.passes, "contestant": cell.contestant, "model": cell.model,
        **({} if cell.contest.lent is None else {"seen": cell.contest.seen(cell.model)}),
        "tried": [shot if isinstance(shot, str) else _summary(shot) for shot in shots],
    }  # fmt: skip
    if isinstance(final, str):
        row |= {"stopped": final}
    else:
        row |= {"setting": None if at is None else cell.settings[at], "passes": final.passes,
                "cpu_seconds": final.cpu_seconds, "broken": final.broken, "distance": final.distance}  # fmt: skip
    CACHE.mkdir(parents=True, exist_ok=True)
    if not isinstance(final, str):
        save_file({"x_adv": final.x_adv.float().contiguous()}, cell.path.with_suffix(".safetensors"))
    harness.keep(cell.path, row)
    return row


def _summary(shot: Shot) -> dict[str, float]:
    return {"passes": shot.passes, "broken": sum(shot.broken), "rows": len(shot.broken)}
