"""Attacks written by hand against each planted victim (`make bench-adaptive`), the yardstick of `distrust.py`.

Whoever knows a trick takes it off. 256 test rows, L∞ radius 0.1: 1,000 steps from 5 starts with the losses in turn, the
gradient of what the victim would be without its trick, the mean of 20 draws where it draws, then Square with 5,000
queries; lowest for each row. Nothing of redan attacks here: only its victims and sample models are used.

    python benchmarks/adaptive.py --seconds 1200   start no victim after so many seconds; what is measured stays
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, when numpy and torch are loaded

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import harness
from redan.samples import fashion_mnist, model
from redan.testing import VICTIMS
from redan.testing.masks import jpeg, noisy, quantized, resized_and_padded, rippled, thermometer

ROWS, EPS, STEPS, STARTS, DRAWS, QUERIES, JUDGED = 256, 0.1, 1000, 5, 20, 5000, 20
KEPT = harness.RESULTS / "cells" / "adaptive"
MEASURES = ("benchmarks/adaptive.py", "src/redan/testing/masked.py", "src/redan/testing/masks.py", "src/redan/samples")

Stage = Callable[[Tensor], Tensor]


def straight(stage: Stage) -> Stage:
    """The stage, with the gradient of the identity."""
    return lambda x: x + (stage(x) - x).detach()


def same(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Hand:
    """How one victim is attacked. before: its stages with gradients put in; scale: of the scores; smooth: points around
    that a gradient is averaged over."""

    before: Stage = same
    network: str = "natural"
    scale: float = 1.0
    draws: int = 1
    smooth: float = 0.0


HANDS = {
    "quantized": Hand(straight(quantized)),
    "thermometer": Hand(straight(thermometer)),
    "bits": Hand(straight(lambda x: (x * 255).floor().div(32).floor() / 7)),
    "jpeg": Hand(straight(jpeg)),
    "detached": Hand(),
    "zeroed": Hand(),
    "louder": Hand(),
    "rippled": Hand(straight(rippled), smooth=0.01),
    "noise": Hand(noisy, draws=DRAWS),
    "resized-and-padded": Hand(resized_and_padded, draws=DRAWS),
    "quantized-noise": Hand(lambda x: straight(quantized)(noisy(x)), draws=DRAWS),
    "zeroed-resized-and-padded": Hand(resized_and_padded, draws=DRAWS),
    "thermometer-louder": Hand(straight(thermometer)),
    "winners": Hand(network="winners", smooth=0.05),
    "distilled": Hand(network="distilled", scale=0.01),
}
TRAINED = ("winners", "distilled")


def victim(name: str) -> tuple[nn.Module, bool]:
    """The victim as it is served, and whether it draws."""
    if name in TRAINED:
        return model(name), False
    (found,) = [each for each in VICTIMS if each.name == name]
    return found.around(model("natural")), found.stochastic


def _loss(scores: Tensor, y: Tensor, start: int) -> Tensor:
    """Cross-entropy, the margin, and the margin to the second and third likeliest classes, by turns."""
    if start % 5 in (0, 3):
        return functional.cross_entropy(scores, y, reduction="none")
    right = scores.gather(1, y[:, None])[:, 0]
    others = scores.scatter(1, y[:, None], -torch.inf).sort(1, descending=True).values
    return others[:, (0, 0, 1, 0, 2)[start % 5]] - right


def _slope(hand: Hand, network: nn.Module, x: Tensor, y: Tensor, start: int) -> Tensor:
    total = torch.zeros_like(x)
    points = max(hand.draws, 8 if hand.smooth else 1)
    for _ in range(points):
        at = (x + hand.smooth * torch.randn_like(x) if hand.smooth else x).requires_grad_()
        scores = network(hand.before(at)) * hand.scale
        (slope,) = torch.autograd.grad(_loss(scores, y, start).sum(), at)
        total += slope
        x = x.detach()
    return total


def _share(served: nn.Module, x: Tensor, y: Tensor, draws: int) -> Tensor:
    """How often each input is answered wrong: (n,)."""
    with torch.no_grad():
        return torch.stack([served(x).argmax(1) != y for _ in range(draws)]).float().mean(0)


class Best:
    """The worst input found for each row."""

    def __init__(self, served: nn.Module, x: Tensor, y: Tensor, *, stochastic: bool) -> None:
        self.served, self.x0, self.y = served, x, y
        self.looks = 5 if stochastic else 1
        self.sure = 40 if stochastic else 1
        self.x, self.share = x.clone(), _share(served, x, y, self.sure)

    @property
    def open(self) -> Tensor:
        return (self.share < 1).nonzero().flatten()

    def offer(self, rows: Tensor, x: Tensor) -> None:
        better = _share(self.served, x, self.y[rows], self.looks) > self.share[rows]
        if bool(better.any()):
            rows, x = rows[better], x[better]
            share = _share(self.served, x, self.y[rows], self.sure)
            held = share > self.share[rows]
            self.x[rows[held]], self.share[rows[held]] = x[held], share[held]


def climb(hand: Hand, network: nn.Module, best: Best, start: int, steps: int) -> None:
    """One start: momentum ascent, the step falling from the radius to nothing."""
    rows = best.open
    low, high = (best.x0 - EPS).clamp(0, 1), (best.x0 + EPS).clamp(0, 1)
    x = (best.x0 + EPS * (2 * torch.rand_like(best.x0) - 1)).clamp(low, high)
    before = x.clone()
    for step in range(steps):
        rows = rows[best.share[rows] < 1]
        if not len(rows):
            return
        slope = _slope(hand, network, x[rows].clone(), best.y[rows], start)
        rate = EPS * (1 + math.cos(math.pi * step / steps)) / 2
        ahead = torch.maximum(torch.minimum(x[rows] + rate * slope.sign(), high[rows]), low[rows])
        ahead = x[rows] + 0.75 * (ahead - x[rows]) + 0.25 * (x[rows] - before[rows])
        ahead = torch.maximum(torch.minimum(ahead, high[rows]), low[rows])
        before[rows], x[rows] = x[rows], ahead
        if step % (1 if best.looks == 1 else 10) == 0 or step > steps - 20:
            best.offer(rows, ahead)


def square(best: Best, queries: int) -> None:
    """Square (Andriushchenko et al. 2020, arXiv:1912.00049) on the margin, for rows that are left."""
    rows = best.open
    low, high = (best.x0 - EPS).clamp(0, 1), (best.x0 + EPS).clamp(0, 1)
    side = best.x0.shape[-1]
    x = torch.maximum(torch.minimum(best.x0 + EPS * torch.randn(len(best.x0), 1, 1, side).sign(), high), low)
    reached = torch.full((len(x),), -torch.inf)
    for query in range(queries):
        rows = rows[best.share[rows] < 1]
        if not len(rows):
            return
        share = 0.8 / 2 ** sum(query / queries * 10_000 > at for at in (10, 50, 200, 1000, 2000, 4000, 6000, 8000))
        width = max(1, round(math.sqrt(share) * side))
        tried = x[rows].clone()
        for at in range(len(rows)):
            top, left = (int(torch.randint(0, side - width + 1, ())) for _ in range(2))
            window = (..., slice(top, top + width), slice(left, left + width))
            tried[at][window] = best.x0[rows[at]][window] + EPS * (1 if torch.rand(()) < 0.5 else -1)
        tried = torch.maximum(torch.minimum(tried, high[rows]), low[rows])
        with torch.no_grad():
            scores = best.served(tried)
        right = scores.gather(1, best.y[rows][:, None])[:, 0]
        value = scores.scatter(1, best.y[rows][:, None], -torch.inf).amax(1) - right
        better = value >= reached[rows]
        x[rows[better]], reached[rows[better]] = tried[better], value[better]
        if bool((value > 0).any()):
            best.offer(rows[value > 0], tried[value > 0])


def attacked(name: str, rows: int = ROWS, steps: int = STEPS, queries: int = QUERIES) -> dict[str, Any]:
    """The victim under its own attack: what is left of each row, in 20 fresh answers where it draws."""
    torch.manual_seed(0)
    hand, (served, stochastic) = HANDS[name], victim(name)
    images, labels = fashion_mnist("test")
    x, y = torch.from_numpy(images[:rows]), torch.from_numpy(labels[:rows])
    network, start = model(hand.network), time.process_time()
    best = Best(served, x, y, stochastic=stochastic)
    clean = float((1 - best.share).sum())
    for turn in range(STARTS):
        climb(hand, network, best, turn, steps)
    square(best, queries)
    left = 1 - _share(served, best.x, y, JUDGED if stochastic else 1)
    return {"victim": name, "clean": clean, "robust": round(float(left.sum()), 3), "rows": rows,
            "stochastic": stochastic, "cpu_seconds": round(time.process_time() - start, 1)}  # fmt: skip


def digest(name: str) -> str:
    decisive = [name, ROWS, EPS, STEPS, STARTS, DRAWS, QUERIES, harness.sources(MEASURES)]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def cached(name: str) -> dict[str, Any] | None:
    """What a victim's own attack left, if its code is still the same."""
    return harness.cached(KEPT / f"{name}.json", digest(name))


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| victim | clean | robust, hand-written | CPU s |", "|---|---|---|---|"]
    return "\n".join(
        lines + [f"| {row['victim']} | {row['clean']:g} | {row['robust']:g} | {row['cpu_seconds']} |" for row in rows]
    )


def main() -> None:
    """Measure what is missing; write the result when nothing is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no victim after so many")
    options = parser.parse_args()
    torch.set_num_threads(1)
    until = time.monotonic() + options.seconds
    for name in HANDS:
        if cached(name) is None and time.monotonic() < until:
            new = attacked(name)
            harness.keep(KEPT / f"{name}.json", new | {"digest": digest(name)})
            print(f"{name}: {new['robust']:g} of {new['rows']} rows, {new['cpu_seconds']} CPU s", file=sys.stderr)
    found = [row for name in HANDS if (row := cached(name)) is not None]
    rows = [{key: value for key, value in row.items() if key != "digest"} for row in found]
    if len(rows) < len(HANDS):
        print(table(rows))
        print(f"{len(HANDS) - len(rows)} victims are not measured yet; no result is written from a part")
        return
    harness.write(
        "adaptive",
        rows=rows,
        claims=[],
        environment=harness.environment(torch=str(torch.__version__)),
        measures=MEASURES,
        tables=lambda: table(rows),
    )


if __name__ == "__main__":
    main()
