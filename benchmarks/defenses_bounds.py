"""Intervals and linear relaxations: sound, no looser than auto_LiRPA's and faster, and trained for.

    exact       tiny networks, whose least margin over a box is found by a linear program a pattern of ReLUs
    random      small networks of all kinds, drawn by a seed: random points, corners and descent against every bound
    attacked    networks with certified rows: APGD, PGD and Square with restarts inside the certified balls, again and
                again, the rows with the least bound first; and descent in float64 that rests on no code of redan's
    beside      the same networks and rows by auto_LiRPA: bounds in float64 and float32, CPU seconds in pairs
    trained     a convolutional network with batch normalization trained by intervals on all of Fashion-MNIST,
                `redan.hardening`'s `Certified`, and what is proven of the first 2,000 test images at ε = 0.1

`plain` and `residual` are redan's sample models; `pooled` and `normalized` are trained here. redan's own bounds are in
float64 and hold for a model's rounding; auto_LiRPA's are in the model's type and leave it out. So tightness is compared
on models in float64, where rounding is next to nothing, and what rounding costs is told for float32.
`defenses_bounds_claims.py` says what follows.
"""

from __future__ import annotations

import copy
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent / "peers")]

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.optimize import linprog
from torch import Tensor, nn
from worker import keep_memory

import defenses_nets
import harness
import judge
import parts
import poisoning_lab as lab
import redan
from redan.certification import Method, certified, passes
from redan.certification.bounds import _by_lines
from redan.certification.certified_training import CertifiedTraining, initialize
from redan.certification.graph import steps_of
from redan.certification.region import region
from redan.certification.rounding import Rounding
from redan.evasion.apgd import APGD
from redan.evasion.cascade import Restarts
from redan.evasion.pgd import PGD
from redan.evasion.square import Square
from redan.hardening import Adversarial, Certified, Plain, Shuffled, Training, harden
from redan.losses import margin
from redan.perturbations.norms import L2, Linf
from redan.protocols import Attack
from redan.referee import Worst
from redan.targets import from_torch

MEASURES = (
    "benchmarks/defenses_bounds.py",
    "benchmarks/defenses_nets.py",
    "benchmarks/peers/linear_bounds.py",
    "src/redan/certification/bends.py",
    "src/redan/certification/bounds.py",
    "src/redan/certification/certified_training.py",
    "src/redan/certification/chains.py",
    "src/redan/certification/graph.py",
    "src/redan/certification/known.py",
    "src/redan/certification/layers.py",
    "src/redan/certification/passes.py",
    "src/redan/certification/patches.py",
    "src/redan/certification/region.py",
    "src/redan/certification/rounding.py",
    "src/redan/certification/steps.py",
    "src/redan/certification/trainable.py",
    "src/redan/certification/windows.py",
    "src/redan/hardening/certified.py",
)
PEER = Path(__file__).resolve().parent / "peers" / "linear_bounds.py"
SEEDS = (0, 1, 2)
TINY, TINY_ROWS = 8, 2
RANDOM, POINTS = 30, 400
ATTACKED = {"plain": 0.05, "residual": 0.02, "pooled": 0.02, "normalized": 0.05}
ATTACKED_ROWS, ATTEMPTS = 20, 2
BESIDE = {"plain": (0.02, 0.05), "normalized": (0.02,), "pooled": (0.02,), "residual": (0.02,)}
BESIDE_ROWS = {"plain": 12, "normalized": 12, "pooled": 4, "residual": 4}
REPEATS = 3
SETTINGS: tuple[dict[str, Any], ...] = ({"batch": 1}, {"batch": 4})
"""Of auto_LiRPA: the fastest of them on other rows is timed. Convolutions as matrices take it five times as long."""
EPS, TRAINED_EPS, EPOCHS, BATCH, RATE = 0.1, 0.105, 3, 128, 1e-3
PROVEN, PGD_ROWS = 2_000, 500

Row = parts.Row


def cells() -> list[parts.Cell]:
    import defenses_bounds as here  # not `__main__`, which a child process would not find

    return [
        *(parts.Cell(f"exact-{seed}", here.exact, {"seed": seed}) for seed in SEEDS),
        *(parts.Cell(f"random-{seed}", here.random, {"seed": seed}) for seed in SEEDS),
        *(parts.Cell(f"beside-{form}-{eps:g}", here.beside, {"form": form, "eps": eps})
          for form, radii in BESIDE.items() for eps in radii),
        *(parts.Cell(f"attacked-{form}", here.attacked, {"form": form, "eps": eps}) for form, eps in ATTACKED.items()),
        *(parts.Cell(f"trained-{seed}", here.trained, {"seed": seed}) for seed in SEEDS),
    ]  # fmt: skip


@cache
def network(form: str) -> nn.Module:
    """A network of a form with weights."""
    if form in ("plain", "residual"):
        sample = redan.samples.model("natural" if form == "plain" else form)
        model = defenses_nets.FORMS[form]()
        model.load_state_dict(sample.state_dict())
        return model.eval()
    train = lab.subset(lab.fashion().train, 6_000, 0)
    torch.manual_seed(0)
    model = defenses_nets.FORMS[form]()
    rows = Shuffled(torch.from_numpy(train.x), torch.from_numpy(train.y), batch=128)
    objective = Adversarial(within=Linf(0.05)) if form == "normalized" else Plain()
    harden(model, rows, Training(objective=objective, epochs=2, watch=None, seed=0))
    return model.eval()


def images(count: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Test images (N, 1, 28, 28) and labels (N,)."""
    test = lab.fashion().test
    return torch.from_numpy(test.x[first : first + count]), torch.from_numpy(test.y[first : first + count])


def margins(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The right class's score minus the largest other, of the model's own scores: (N,) float64."""
    with torch.no_grad():
        scores = model(x).double()
    apart: Tensor = scores.gather(1, y[:, None])[:, 0] - scores.scatter(1, y[:, None], -torch.inf).amax(1)
    return apart


# -- against the exact least margin -----------------------------------------------------------------------------------


def exact(seed: int) -> Row:
    """Tiny networks of two inputs: the exact least margin over a box, a grid's, and every method's bound of it."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for at in range(TINY):
        with torch.random.fork_rng():
            torch.manual_seed(1000 * seed + at)
            model = nn.Sequential(
                nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)
            ).double().eval()  # fmt: skip
        model.requires_grad_(False)
        x = 0.3 + 0.4 * torch.rand(TINY_ROWS, 2, generator=draw, dtype=torch.float64)
        y = model(x).argmax(1)
        eps = (0.05, 0.1, 0.2)[at % 3]
        least = [least_margin(model, row, int(label), eps) for row, label in zip(x, y, strict=True)]
        lines = torch.linspace(-eps, eps, 101, dtype=torch.float64)
        steps = torch.cartesian_prod(lines, lines)
        grid = [
            float(margins(model, row + steps, label.expand(len(steps))).min()) for row, label in zip(x, y, strict=True)
        ]
        for method in Method:
            proof = certified(from_torch(model), x, y, within=Linf(eps), most=method, workers=1)
            found += [
                {"method": method.name, "eps": eps, "exact": true, "grid": seen, "lower": bound, "certified": sure}
                for true, seen, bound, sure in zip(
                    least, grid, proof.lower.tolist(), proof.certified.tolist(), strict=True
                )
            ]
    return {"seed": seed, "nets": TINY, "found": found}


def least_margin(model: nn.Module, x: Tensor, label: int, eps: float) -> float:
    """The least of the label's score minus another's over the box: a linear program for each pattern of ReLUs."""
    layers: list[Any] = [model[at] for at in (0, 2, 4)]  # type: ignore[index]
    weights = [(part.weight.numpy(), part.bias.numpy()) for part in layers]
    box = [(float(v - eps), float(v + eps)) for v in x]
    best = np.inf
    for first in itertools.product((0, 1), repeat=4):
        (w1, b1), (w2, b2), (w3, b3) = weights
        on = np.array(first)
        inside1 = _signs(w1, b1, on)
        if not _feasible(inside1, box):
            continue
        hidden, shift = w2 @ (on[:, None] * w1), w2 @ (on * b1) + b2
        for second in itertools.product((0, 1), repeat=4):
            also = np.array(second)
            inside = [np.concatenate(both) for both in zip(inside1, _signs(hidden, shift, also), strict=True)]
            out, end = w3 @ (also[:, None] * hidden), w3 @ (also * shift) + b3
            for other in range(3):
                if other == label:
                    continue
                solved = linprog(out[label] - out[other], A_ub=inside[0], b_ub=inside[1], bounds=box, method="highs")
                if solved.status == 0:
                    best = min(best, float(solved.fun + end[label] - end[other]))
                else:
                    break  # no point has this pattern, whatever the class
    return best


def _signs(weight: Any, bias: Any, on: Any) -> tuple[Any, Any]:
    """A x ≤ b for the inputs at which just these numbers are above 0."""
    sign = 1 - 2 * on
    return sign[:, None] * weight, -sign * bias


def _feasible(inside: tuple[Any, Any], box: Sequence[tuple[float, float]]) -> bool:
    return bool(linprog(np.zeros(len(box)), A_ub=inside[0], b_ub=inside[1], bounds=box, method="highs").status == 0)


# -- random networks --------------------------------------------------------------------------------------------------


class Branch(nn.Module):
    """A residual block without normalization."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.two(torch.relu(self.one(x))))


def drawn(seed: int) -> nn.Module:
    """A small network of images (N, 1, 8, 8): convolutions, and by the seed normalization, a pool, a residual block."""
    torch.manual_seed(seed)
    kinds = np.random.default_rng(seed)
    channels, stride = int(kinds.integers(2, 5)), int(kinds.integers(1, 3))
    layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, stride=stride, padding=int(kinds.integers(0, 2)))]
    if kinds.random() < 0.5:
        layers.append(nn.BatchNorm2d(channels))
    layers.append(nn.ReLU() if kinds.random() < 0.7 else nn.Tanh())
    if kinds.random() < 0.5:
        layers.append(nn.MaxPool2d(2) if kinds.random() < 0.5 else nn.AvgPool2d(2))
    if kinds.random() < 0.5:
        layers.append(Branch(channels))
    layers += [nn.Flatten(), nn.LazyLinear(12), nn.ReLU(), nn.Linear(12, 4)]
    model = nn.Sequential(*layers)
    model.train()
    with torch.no_grad():
        model(torch.rand(32, 1, 8, 8))  # statistics for the normalization
        model[-1].weight.mul_(3)  # type: ignore[operator]
    return model.eval()


def random(seed: int) -> Row:
    """Bounds of random networks in L∞ and L2 by every method, and the least margin that any point inside has."""
    found = []
    for at in range(RANDOM):
        model = drawn(RANDOM * seed + at)
        x = torch.rand(3, 1, 8, 8)
        with torch.no_grad():
            y = model(x).argmax(1)
        norm = (Linf, L2)[at % 2]
        eps = float(np.random.default_rng(at).choice((0.01, 0.03, 0.1))) * (1 if norm is Linf else 4)
        met, tried = torch.full((3,), torch.inf, dtype=torch.float64), 0
        for points in inside(model, x, y, eps, norm is Linf):
            count = len(points) // len(x)
            ruled = judge.judge(
                model, x.repeat_interleave(count, 0), y.repeat_interleave(count), points,
                norm="linf" if norm is Linf else "l2", eps=eps,
            )  # fmt: skip
            seen = margins(model, points, y.repeat_interleave(count)).masked_fill(~ruled.inside, torch.inf)
            met = torch.minimum(met, seen.reshape(len(x), count).amin(1))
            tried += int(ruled.inside.sum())
        for method in Method:
            proof = certified(model, x, y, within=norm(eps), most=method, workers=1)
            room = (met - proof.lower).tolist()
            found.append({"method": method.name, "norm": norm.__name__, "eps": eps, "room": room, "tried": tried,
                          "certified": int(proof.certified.sum())})  # fmt: skip
    return {"seed": seed, "nets": RANDOM, "found": found}


def inside(model: nn.Module, x: Tensor, y: Tensor, eps: float, box: bool) -> Iterator[Tensor]:
    """Points around each row, all of a row together: random ones, corners, and those that descent went through."""
    wide = x.repeat_interleave(POINTS, 0)
    noise = torch.rand_like(wide) * 2 - 1
    for change in (noise, noise.sign()):
        yield _back(wide + eps * (change if box else _unit(change)), wide, eps, box)
    start, truth = x.repeat_interleave(3, 0), y.repeat_interleave(3)
    other = torch.arange(3).repeat(len(x))
    other = other + (other >= truth).long()
    moved = start.clone()
    for step in range(40):
        moved = moved.detach().requires_grad_()
        scores = model(moved)
        gap = (scores.gather(1, truth[:, None]) - scores.gather(1, other[:, None])).sum()
        (slope,) = torch.autograd.grad(gap, moved)
        size = eps * (1 - step / 40)
        moved = _back(moved.detach() - size * (slope.sign() if box else _unit(slope)), start, eps, box)
        yield moved


def _unit(step: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(step.flatten(1), dim=1)
    return step / length.clamp_min(1e-30).reshape(-1, 1, 1, 1)


def _back(x: Tensor, x0: Tensor, eps: float, box: bool) -> Tensor:
    change = x - x0
    if box:
        return (x0 + change.clamp(-eps, eps)).clamp(0, 1)
    length: Tensor = torch.linalg.vector_norm(change.flatten(1), dim=1)
    return (x0 + change * (eps / length.clamp_min(eps)).reshape(-1, 1, 1, 1)).clamp(0, 1)


# -- attacks inside certified balls -----------------------------------------------------------------------------------


def attacks() -> dict[str, Attack[Any, Any]]:
    """What keeps trying, by name."""
    return {
        "apgd": APGD(steps=40),
        "apgd-margin": APGD(steps=40, loss=margin),
        "pgd": Restarts(PGD(steps=20), 5),
        "square": Square(queries=500),
    }


def attacked(form: str, eps: float) -> Row:
    """Attacks on a network's certified rows at the very radius."""
    x, y = images(ATTACKED_ROWS)
    proof = certified(network(form), x, y, within=Linf(eps), workers=1)
    return {"form": form, **tries(network(form), x, y, proof.lower, eps)}


def tries(model: nn.Module, x: Tensor, y: Tensor, lower: Tensor, eps: float) -> Row:
    """Every attack on the certified rows, with seeds of its own each time; a try is one attack on one row."""
    order = [i for i in lower.argsort().tolist() if lower[i] > 0]
    x, y, low = x[order], y[order], lower[order]
    met = torch.full((len(order),), torch.inf, dtype=torch.float64)
    broken, counts, passes_made, outside = set[int](), dict.fromkeys(attacks(), 0), 0, 0
    for seed in range(ATTEMPTS if order else 0):
        for name, attack in attacks().items():
            found = redan.attack(model, x, y, attack, within=Linf(eps), keep=Worst(), seed=seed, workers=1)
            ruled = judge.judge(model, x, y, found.adversarial, norm="linf", eps=eps)
            seen = margins(model, found.adversarial, y).masked_fill(~ruled.inside, torch.inf)
            met = torch.minimum(met, seen)
            counts[name] += len(x)
            outside += int((~ruled.inside).sum())
            passes_made += int((found.forwards + found.backwards).sum())
            broken |= {order[i] for i in ruled.broken.nonzero().flatten().tolist()}
    room = (met - low).tolist()
    return {"eps": eps, "rows": len(lower), "certified": len(order), "tries": counts, "passes": passes_made,
            "outside": outside, "broken": sorted(broken), "room": min(room) if room else None}  # fmt: skip


# -- beside auto_LiRPA ------------------------------------------------------------------------------------------------


def beside(form: str, eps: float) -> Row:
    """The same bounds of the same rows by both, and CPU seconds of CROWN in pairs, on the network in float32."""
    keep_memory()
    model = network(form)
    x, y = images(BESIDE_ROWS[form])
    more, labels = images(4, 1000)
    peer = harness.Peer(PEER)
    try:
        with tempfile.TemporaryDirectory() as folder:
            weights, rows, few = (str(Path(folder) / name) for name in ("w.st", "r.st", "f.st"))
            save_file(model.state_dict(), weights)
            save_file({"x": x, "y": y}, rows)
            save_file({"x": more, "y": labels}, few)

            def ask(path: str, method: str, *, double: bool, **settings: Any) -> Row:
                return peer.ask(
                    form=form, weights=weights, rows=path, eps=eps, method=method, double=double, **settings
                )

            tight, refused = {}, {}
            for method, double in (("IBP", True), ("CROWN", True), ("IBP", False), ("CROWN", False)):
                kind, theirs = f"{method}-{'float64' if double else 'float32'}", ask(rows, method, double=double)
                if "error" in theirs:
                    refused[kind] = theirs["error"]
                    continue
                mine = ours(model.double() if double else model.float(), x, y, eps, method)
                tight[kind] = {"ours": mine, "theirs": theirs["lower"]}
            model.float()
            answers = [ask(few, "CROWN", double=False, **settings) for settings in SETTINGS]
            tried = [answer.get("cpu_seconds", float("inf")) for answer in answers]
            best = SETTINGS[min(range(len(tried)), key=tried.__getitem__)]
            seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
            ours(model, more[:1], labels[:1], eps, "CROWN")
            for _ in range(REPEATS):
                begun = time.process_time()
                ours(model, x, y, eps, "CROWN")
                seconds["ours"].append(time.process_time() - begun)
                seconds["theirs"].append(ask(rows, "CROWN", double=False, **best)["cpu_seconds"])
        versions = peer.ask(versions=True)
    finally:
        peer.close()
    return {
        "form": form,
        "eps": eps,
        "rows": len(x),
        "tight": tight,
        "refused": refused,
        "seconds": seconds,
        "setting": best,
        "tried": [None if one == float("inf") else one for one in tried],
        "versions": versions,
    }


def ours(model: nn.Module, x: Tensor, y: Tensor, eps: float, method: str) -> list[list[float]]:
    """Lower bounds of the label's score less each other's by one method alone: for each row, in the classes' order."""
    within = Linf(eps).inside((0.0, 1.0))
    inputs = x.to(next(model.parameters()).dtype)
    found: list[list[float]] = []
    with torch.no_grad():
        steps, rounding = steps_of(from_torch(model), inputs.shape[1:]), Rounding(inputs.dtype)
        bound: Callable[..., passes.Bounds] = passes.intervals if method == "IBP" else passes.refined
        for at in range(len(inputs)):
            made = bound(steps, region(inputs[at : at + 1], within, eps), rounding)
            found.append(_by_lines(made, int(y[at]), bends=method != "IBP").tolist())
    return found


# -- trained by intervals ---------------------------------------------------------------------------------------------


def trained(seed: int) -> Row:
    """A network trained by intervals: what is proven of all test rows, and what attacks leave of the first ones."""
    keep_memory()
    split = lab.fashion()
    torch.manual_seed(seed)
    model = defenses_nets.normalized()
    initialize(model, torch.Generator().manual_seed(seed))
    rows = Shuffled(torch.from_numpy(split.train.x), torch.from_numpy(split.train.y), batch=BATCH)
    objective = Certified(settings=CertifiedTraining(radius=TRAINED_EPS))
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    begun = time.process_time()
    harden(model, rows, Training(objective=objective, epochs=EPOCHS, seed=seed, watch=None), optimizer=optimizer)
    spent = time.process_time() - begun
    model.eval()
    x, y = images(PROVEN)
    begun = time.process_time()
    proof = certified(model, x, y, within=Linf(EPS), most=Method.CROWN_IBP, workers=1)
    proving = time.process_time() - begun
    clean = (margins(model, x, y) > 0).tolist()
    few, labels = x[:PGD_ROWS], y[:PGD_ROWS]
    stand = redan.attack(
        model, few, labels, Restarts(PGD(steps=40), 2), within=Linf(EPS), seed=seed, workers=1
    )  # fmt: skip
    return {
        "seed": seed,
        "eps": EPS,
        "trained_eps": TRAINED_EPS,
        "epochs": EPOCHS,
        "training_seconds": spent,
        "proving_seconds": proving,
        "rows": len(x),
        "clean": sum(clean),
        "certified": int(proof.certified.sum()),
        "by_intervals": sum(
            sure and method is Method.IBP for sure, method in zip(proof.certified.tolist(), proof.method, strict=True)
        ),
        "pgd_rows": PGD_ROWS,
        "pgd": int((~stand.success).sum()),
        "certified_pgd": int(proof.certified[:PGD_ROWS].sum()),
        "attacked": tries(copy.deepcopy(model), x[:50], y[:50], proof.lower[:50], EPS),
    }


def claims(rows: Mapping[str, Row]) -> list[harness.Claim]:
    """What follows from the rows."""
    found: list[harness.Claim] = import_module("defenses_bounds_claims").claims(rows)
    return found


def table(rows: Mapping[str, Row]) -> str:
    """Bounds beside, rows trained by intervals, and tries."""
    found: str = import_module("defenses_bounds_claims").table(rows)
    return found


if __name__ == "__main__":
    import defenses_bounds

    parts.main(defenses_bounds, "defenses/bounds")
