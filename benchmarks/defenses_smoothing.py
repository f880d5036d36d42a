"""Randomized smoothing: fixed and sequential certificates of the same networks, and ART's, on 500 rows.

Networks of the form `small` are trained on the 60,000 images of Fashion-MNIST with Gaussian noise of σ, a network a
seed. The first 500 test images are certified in L2 with n0 = 100 draws that choose the class and up to N = 10,000 that
prove it, α = 0.001 a row; one network on 100 rows with N = 100,000, the paper's:

    fixed       N draws of every row, Clopper and Pearson (Cohen et al. 2019, arXiv:1902.02918): all radii at once
    robust at   one radius, by the sequential test; a question of its own at each radius
    largest     the radius, by the confidence sequence, until no more than TOLERANCE may be gained
    ART         `PyTorchRandomizedSmoothing.certify`, the same network, rows, σ, n0, N and α, its own noise

Samples are all that the network was asked, those that choose the class included.

Coverage: `errors` are of rows whose true rate is known, so the draws are binomial and no network is asked. Exactly, by
the walk over misses, and in RUNS simulated rows a rate; `linear` runs `robust_at` itself, on a model whose smoothed
radius has a closed form. `defenses_smoothing_claims.py` says what follows.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent / "peers")]

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.special import ndtr
from torch import Tensor, nn
from worker import keep_memory

import defenses_nets
import harness
import parts
import poisoning_lab as lab
from redan.certification.sequential import SequentialTest, error, sequential_test, walk
from redan.certification.smoothing import Smoothed, Smoothing, certify
from redan.certification.stopping import _bounds, largest_radius, robust_at
from redan.hardening import Noise, Shuffled, Training, harden

MEASURES = (
    "benchmarks/defenses_nets.py",
    "benchmarks/defenses_smoothing.py",
    "benchmarks/peers/smoothing.py",
    "src/redan/certification/sequential.py",
    "src/redan/certification/smoothing.py",
    "src/redan/certification/stopping.py",
    "src/redan/certification/votes.py",
    "src/redan/evidence/sequences.py",
)
PEER = Path(__file__).resolve().parent / "peers" / "smoothing.py"
RADII = (0.25, 0.5, 1.0)
ROWS, SELECTION, DRAWS, ALPHA = 500, 100, 10_000, 0.001
TOLERANCE = 0.05
NETWORKS = ((0.5, 0), (0.5, 1), (0.5, 2), (0.25, 0))
"""σ and the seed of weights, batches and all noise."""
EPOCHS, RATE = 4, 3e-3
BATCHES = (128, 1000)
"""Draws a pass, of which ART takes the faster on other rows."""
DEEP_ROWS, DEEP_DRAWS = 100, 100_000
"""The paper's N, on fewer rows."""
RUNS = 400_000
MOST = (1_000, 10_000, 100_000)
OVER = (0.5, 1.0, 2.0)
"""Radii as multiples of σ, whose rates are to be beaten."""
LINEAR_ROWS, LINEAR_DRAWS = 100_000, 1_000


def cells() -> list[parts.Cell]:
    import defenses_smoothing as here  # not `__main__`, which a child process would not find

    return [
        *(
            parts.Cell(f"network-{sigma:g}-{seed}", here.network, {"sigma": sigma, "seed": seed})
            for sigma, seed in NETWORKS
        ),
        parts.Cell(
            "deep", here.network, {"sigma": 0.5, "seed": 0, "rows": DEEP_ROWS, "draws": DEEP_DRAWS, "beside": False}
        ),
        *(parts.Cell(f"errors-{most}", here.errors, {"most": most}) for most in MOST),
        parts.Cell("linear", here.linear, {}),
    ]


def trained(sigma: float, seed: int) -> nn.Module:
    """A network trained through noise."""
    train = lab.fashion().train
    torch.manual_seed(seed)
    model = defenses_nets.small()
    rows = Shuffled(torch.from_numpy(train.x), torch.from_numpy(train.y), batch=256)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    harden(model, rows, Training(objective=Noise(sigma=sigma), epochs=EPOCHS, seed=seed), optimizer=optimizer)
    return model.eval()


def network(sigma: float, seed: int, rows: int = ROWS, draws: int = DRAWS, *, beside: bool = True) -> parts.Row:
    """One network by all four ways. Rows are told as their class, radius and samples, each in the rows' order.

    beside: ask ART too.
    """
    keep_memory()
    test = lab.fashion().test
    x, y = torch.from_numpy(test.x[:rows]), torch.from_numpy(test.y[:rows])
    model = trained(sigma, seed)
    settings = Smoothing(sigma=sigma, selection=SELECTION, draws=draws, alpha=ALPHA)
    with torch.no_grad():
        clean = int((model(x).argmax(1) == y).sum())
    certify(model, x[:2], settings, seed=seed, workers=1)  # what is loaded once is loaded
    fixed = timed(lambda: certify(model, x, settings, seed=seed, workers=1))
    found = {
        "sigma": sigma,
        "seed": seed,
        "rows": rows,
        "selection": SELECTION,
        "draws": draws,
        "alpha": ALPHA,
        "tolerance": TOLERANCE,
        "y": y.tolist(),
        "clean": clean,
        "fixed": fixed,
        "robust_at": {
            f"{radius:g}": timed(lambda r=radius: robust_at(model, x, r, settings, seed=seed, workers=1))  # type: ignore[misc]
            for radius in RADII
        },
        "largest": timed(lambda: largest_radius(model, x, settings, tolerance=TOLERANCE, seed=seed, workers=1)),
    }
    return {**found, "art": art(model, x, settings, seed)} if beside else found


def timed(work: Callable[[], Smoothed]) -> parts.Row:
    """What was found, with its CPU seconds."""
    begun = time.process_time()
    found = work()
    seconds = time.process_time() - begun
    return {
        "cpu_seconds": seconds,
        "prediction": found.prediction.tolist(),
        "radius": [round(radius, 6) for radius in found.radius.tolist()],
        "samples": found.samples.tolist(),
    }


def art(model: nn.Module, x: Tensor, settings: Smoothing, seed: int) -> parts.Row:
    """ART's certificates, with the batch that was the faster on other rows."""
    others = torch.from_numpy(lab.fashion().test.x[-4:])
    peer = harness.Peer(PEER)
    try:
        with tempfile.TemporaryDirectory() as folder:
            weights, rows, few = (str(Path(folder) / name) for name in ("w.st", "r.st", "f.st"))
            save_file(model.state_dict(), weights)
            save_file({"x": x}, rows)
            save_file({"x": others}, few)

            def ask(path: str, batch: int) -> parts.Row:
                return peer.ask(form="small", weights=weights, rows=path, sigma=settings.sigma, batch=batch, seed=seed,
                                selection=settings.selection, draws=settings.draws, alpha=settings.alpha)  # fmt: skip

            ask(few, BATCHES[0])
            tried = {batch: ask(few, batch)["cpu_seconds"] for batch in BATCHES}
            batch = min(tried, key=tried.__getitem__)
            found = ask(rows, batch)
        versions = peer.ask(versions=True)
    finally:
        peer.close()
    samples = [settings.selection + settings.draws] * len(x)
    return {**found, "batch": batch, "samples": samples, "versions": versions}


# -- coverage ---------------------------------------------------------------------------------------------------------


def errors(most: int) -> parts.Row:
    """How often rows are shown by the sequential test that may not be, and how often radii come out too large."""
    draw = np.random.default_rng(most)
    found = []
    for over in OVER:
        rate = float(ndtr(over))
        test = sequential_test(rate, most, ALPHA)
        for true in (rate, rate - 0.1 * (1 - rate), rate + 0.1 * (1 - rate), rate + 0.5 * (1 - rate)):
            patient = walk(test, true, patient=True)
            found.append(
                {
                    "kind": "robust_at",
                    "rate": rate,
                    "true": true,
                    "may": true > rate,
                    "runs": RUNS,
                    "exact": walk(test, true).shown,
                    "exact_patient": error(test) if true == rate else patient.shown,
                    "shown": shown(test, true, RUNS, draw),
                }
            )
    for true in (0.6, *(float(ndtr(over)) for over in OVER), 0.999):
        above = too_large(true, most)
        found.append(
            {
                "kind": "largest",
                "rate": true,
                "true": true,
                "may": False,
                "runs": RUNS,
                "exact": walk(above, true, patient=True).shown,
                "exact_patient": walk(above, true, patient=True).shown,
                "shown": shown(above, true, RUNS, draw, patient=True),
            }
        )
    return {"most": most, "alpha": ALPHA, "found": found}


def shown(test: SequentialTest, true: float, runs: int, draw: np.random.Generator, *, patient: bool = False) -> int:
    """Of so many simulated rows of a true rate, how many the test shows. patient: nobody gives up."""
    misses, before, count = np.zeros(runs, dtype=np.int64), 0, 0
    for look, least, enough in zip(test.looks.tolist(), test.shown.tolist(), test.given_up.tolist(), strict=True):
        misses += draw.binomial(look - before, 1 - true, len(misses))
        before = look
        over = misses <= least
        count += int(over.sum())
        misses = misses[~over if patient else ~over & (misses < enough)]
        if not len(misses):
            break
    return count


def too_large(true: float, most: int) -> SequentialTest:
    """What `largest_radius` says, as a test: shown are runs in which its bound is ever above the true rate."""
    settings = Smoothing(sigma=1.0, draws=most, alpha=ALPHA)
    looks, fewest, look = [], [], 0
    while look < most:
        look = min(most, max(32, -int(-look * 1.2 // 1)))
        low, high = -1, look + 1  # misses: with `low` the bound is above the true rate, with `high` it is not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _bounds(look - middle, look, settings).low > true else (low, middle)
        looks.append(look)
        fewest.append(low)
    return SequentialTest(
        rate=true,
        alpha=ALPHA,
        looks=np.array(looks, dtype=np.int64),
        shown=np.array(fewest, dtype=np.int64),
        given_up=np.full(len(looks), most + 1, dtype=np.int64),
        fixed=fewest[-1],
    )


def linear() -> parts.Row:
    """`robust_at` itself on rows whose radius is known: of a linear model of two numbers, the distance to its line."""
    model = nn.Linear(2, 2, bias=False).eval()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    sigma, radius = 0.5, 0.25
    along = torch.linspace(0.3, 0.6, LINEAR_ROWS, dtype=torch.float64)
    settings = Smoothing(sigma=sigma, selection=SELECTION, draws=LINEAR_DRAWS, alpha=ALPHA)
    found = []
    for distance in (radius * (1 - 1e-5), 1.5 * radius):
        half = distance / 2**0.5
        x = torch.stack([along + half, along - half], 1).float()
        proof = robust_at(model, x, radius, settings, workers=1)
        found.append(
            {
                "distance": distance,
                "runs": len(x),
                "shown": int((proof.radius >= radius).sum()),
                "samples": float(proof.samples.double().mean()),
            }
        )
    return {"sigma": sigma, "radius": radius, "draws": LINEAR_DRAWS, "alpha": ALPHA, "found": found}


def claims(rows: Mapping[str, parts.Row]) -> list[harness.Claim]:
    """What follows from the rows."""
    found: list[harness.Claim] = import_module("defenses_smoothing_claims").claims(rows)
    return found


def table(rows: Mapping[str, parts.Row]) -> str:
    """Each way by radius, and errors."""
    found: str = import_module("defenses_smoothing_claims").table(rows)
    return found


if __name__ == "__main__":
    import defenses_smoothing

    parts.main(defenses_smoothing, "defenses/smoothing")
