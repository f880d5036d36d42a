"""What the preflight costs, and what it finds (`make bench-preflight`).

Seconds on the Fashion-MNIST demo and on a residual network of 25 million parameters; every liar of `redan.testing`
and its honest twin, twenty fresh variants of each mechanism. One thread.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, when numpy and torch are loaded

import argparse
import secrets
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent))

import harness
import redan
from redan import samples
from redan.assessment.preflight import Scene, preflight
from redan.targets import from_torch
from redan.testing import LIARS, Liar

MEASURES = (
    "src/redan/assessment/preflight.py",
    *(
        f"src/redan/assessment/checks_{name}.py"
        for name in ("scene", "look", "data", "answers", "repeats", "gradients")
    ),
    "src/redan/testing",
    "src/redan/oracle.py",
    "benchmarks/preflight.py",
)
REPEATS, SEEDS, SECONDS = 5, 20, 5.0
SAID = "labels are the model's own answers, since random weights are at chance"


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside the identity (He et al. 2016, figure 5)."""

    def __init__(self, entering: int, width: int, stride: int) -> None:
        super().__init__()
        leaving = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(entering, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, leaving, 1, bias=False),
            nn.BatchNorm2d(leaving),
        )
        same = entering == leaving and stride == 1
        self.skip = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(entering, leaving, 1, stride, bias=False), nn.BatchNorm2d(leaving))
        )

    def forward(self, x: Tensor) -> Tensor:
        summed: Tensor = self.body(x) + self.skip(x)
        return summed.relu()


def residual(images: Tensor) -> nn.Module:
    """A network with the layout of ResNet-50 and random weights, whose scores have mean 0 over these images."""
    parts: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    parts.append(nn.MaxPool2d(3, 2, 1))
    entering = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            parts.append(Bottleneck(entering, width, stride if block == 0 else 1))
            entering = 4 * width
    network = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(entering, 1000))
    with torch.no_grad():
        network.eval()[-1].bias -= network(images).mean(0)  # or one class would be answered to all
    return network


def demo() -> Scene:
    """The robust model of the demo on 256 rows."""
    images, labels = samples.fashion_mnist()
    target = from_torch(samples.model("robust"), classes=10)
    return Scene(target, torch.from_numpy(images[:256]), torch.from_numpy(labels[:256]), image=True)


def large(rows: int = 256) -> Scene:
    """The large network on smooth random pictures, off the 8-bit grid, so that no check is spared."""
    draw = torch.Generator().manual_seed(0)
    x = functional.interpolate(torch.rand(rows, 3, 9, 9, generator=draw), (224, 224), mode="bilinear")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = residual(x[:16])
    with torch.no_grad():
        y = torch.cat([network(part).argmax(1) for part in x.reshape(-1, 16, *x.shape[1:])])
    return Scene(from_torch(network, classes=1000), x, y, image=True)


def timed(name: str, scene: Scene, note: str = "") -> dict[str, Any]:
    """Wall and CPU seconds of each repeat, after one that warms up, and what was found."""
    found = preflight(scene)
    seconds, cpu = [], []
    for _ in range(REPEATS):
        start, spent = time.perf_counter(), time.process_time()
        found = preflight(scene)
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - spent)
    parameters = sum(p.numel() for p in scene.target.module.parameters())  # type: ignore[attr-defined]  # from_torch's
    return {
        "kind": "time",
        "case": name,
        "parameters": parameters,
        "rows": len(scene.x),
        "shape": list(scene.x.shape[1:]),
        "note": note,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "fired": [finding.check for finding in found if finding.fired],
        "details": {finding.check: finding.detail for finding in found},
    }


def judged(liar: Liar, first: int) -> dict[str, Any]:
    """How many variants were named by the right check, and how many twins were let pass by all of them."""
    seeds = range(first, first + SEEDS * len(liar.mechanisms))
    missed, accused = [], []
    for seed in seeds:
        if not any(finding.fired and finding.check == liar.check for finding in preflight(liar.make(seed).scene)):
            missed.append(seed)
        if any(finding.fired for finding in preflight(liar.honest(seed).scene)):
            accused.append(seed)
    return {
        "kind": "liar",
        "case": liar.name,
        "check": liar.check,
        "mechanisms": len(liar.mechanisms),
        "first_seed": first,
        "variants": len(seeds),
        "missed": missed,
        "accused": accused,
    }


def claims(rows: list[dict[str, Any]]) -> list[harness.Claim]:
    """The figures of evidence.b, from the rows. One thread computes, so CPU time is wall time on a free core."""
    found = []
    for row in (row for row in rows if row["kind"] == "time"):
        median = statistics.median(row["cpu_seconds"])
        what = f"preflight of {row['case']}, {row['rows']} rows, CPU time, median of {len(row['cpu_seconds'])}"
        found.append(harness.Claim("evidence.b", what, f"< {SECONDS:g} s", f"{median:.2f} s", median < SECONDS))
    liars = [row for row in rows if row["kind"] == "liar"]
    variants = sum(row["variants"] for row in liars)
    what = f"variants of {len(liars)} liars ({sum(row['mechanisms'] for row in liars)} mechanisms)"
    for words, key in (("named by the right check", "missed"), ("whose honest twin no check names", "accused")):
        good = variants - sum(len(row[key]) for row in liars)
        found.append(harness.Claim("evidence.b", f"{what} {words}", "all", f"{good} of {variants}", good == variants))
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Median seconds, and counts a liar, as Markdown."""
    lines = ["| preflight of | parameters | rows | CPU s | wall s |", "|---|---|---|---|---|"]
    for row in (row for row in rows if row["kind"] == "time"):
        cpu, wall = (statistics.median(row[key]) for key in ("cpu_seconds", "seconds"))
        lines.append(f"| {row['case']} | {row['parameters']:,} | {row['rows']} | {cpu:.2f} | {wall:.2f} |")
    lines += ["", "| liar | check | named | twins passed |", "|---|---|---|---|"]
    for row in (row for row in rows if row["kind"] == "liar"):
        n = row["variants"]
        named, passed = n - len(row["missed"]), n - len(row["accused"])
        lines.append(f"| {row['case']} | {row['check']} | {named} of {n} | {passed} of {n} |")
    return "\n".join(lines)


def main() -> None:
    """Time both models, draw every liar and twin, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31), help="first seed of the liars")
    first = parser.parse_args().seed
    torch.set_num_threads(1)
    rows = [
        timed("the Fashion-MNIST demo", demo()),
        timed("a residual network of 25 million parameters, 3x224x224", large(), SAID),
        *(judged(liar, first) for liar in LIARS),
    ]
    harness.write(
        "preflight",
        rows=rows,
        claims=claims(rows),
        environment=harness.environment(redan=redan.__version__, torch=torch.__version__),
        measures=MEASURES,
        tables=lambda: table(rows),
    )


if __name__ == "__main__":
    main()
