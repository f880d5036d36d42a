"""The grid search of shifts and turns: its whole grid by brute force, its budget, and beside Foolbox's."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from redan.engine.run import attack
from redan.errors import SetError
from redan.evasion.pgd import PGD
from redan.evasion.spatial import SpatialGrid
from redan.goals import Targeted
from redan.oracle import Capability
from redan.perturbations.norms import Linf
from redan.perturbations.spatial import Spatial
from redan.protocols import Access, needs
from redan.protocols import Labels as LabelsVerbs
from redan.referee import Closest
from redan.rows import Rows
from redan.samples import fashion_mnist, model
from redan.testing import DoesNothing

ROOT = Path(__file__).resolve().parents[2]
SMALL: Any = Spatial(10, 0.05, rotations=5, translations=3)  # 45 points; Any: it is no norm ball


def rows(count: int = 48) -> tuple[Tensor, Tensor]:
    images, labels = fashion_mnist()
    return torch.from_numpy(images[:count]), torch.from_numpy(labels[:count])


class Labels(nn.Module):
    """Decisions alone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(self.inner(x).argmax(1), 10).to(x.dtype)


def brute(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The size of the smallest transformation that is answered wrong: (N,), 0 if x is, inf if none."""
    grid = SMALL.grid(x)
    with torch.no_grad():
        wrong = torch.stack([net(SMALL.transformed(x, p.expand(len(x), 3))).argmax(1) != y for p in grid], 1)
        size = torch.where(wrong, grid.abs().amax(1), torch.inf).amin(1)
        return torch.where(net(x).argmax(1) != y, 0, size)


def test_the_whole_grid_breaks_what_brute_force_breaks() -> None:
    x, y = rows()
    net = model("natural")
    best = brute(net, x, y)
    found = attack(Labels(net).eval(), x, y, SpatialGrid(), within=SMALL)
    nearest = attack(Labels(net).eval(), x, y, SpatialGrid(), within=SMALL, keep=Closest())

    assert torch.equal(found.success, best.isfinite())
    assert 0.2 < float(found.success.float().mean()) < 0.9
    assert torch.allclose(nearest.distance.double(), best)
    assert bool((found.distance >= best - 1e-6).all())
    assert not attack(net, x, y, DoesNothing(SpatialGrid()), within=SMALL).success[best > 0].any()
    robust = ~found.success
    assert found.queries[robust].tolist() == [44] * int(robust.sum()), "no point twice, and not the picture itself"


def test_worst_of_k_spends_k() -> None:
    x, y = rows()
    few, more = (attack(model("robust"), x, y, SpatialGrid(queries=k), within=SMALL) for k in (4, 20))

    assert int(few.queries.max()) == SpatialGrid(queries=4).cost(10).queries
    assert int(few.success.sum()) <= int(more.success.sum())
    assert torch.equal(few.adversarial[few.success], more.adversarial[few.success]), "a longer search begins the same"
    cut = attack(model("robust"), x, y, SpatialGrid(), within=SMALL, capability=Capability(queries_per_row=4))
    assert torch.equal(cut.adversarial, few.adversarial)


def test_rows_do_not_hang_on_each_other() -> None:
    x, y = rows(12)

    def run(index: Tensor, **options: Any) -> Any:
        return attack(model("robust"), x[index], y[index], SpatialGrid(), within=SMALL, **options)

    whole = run(torch.arange(12), workers=1)
    for index, options in ((torch.arange(12).flip(0), {"block": 5}), (torch.arange(0, 12, 3), {"workers": 2})):
        part = run(index, **options)
        assert torch.equal(part.adversarial, whole.adversarial[index])
        assert torch.equal(part.queries, whole.queries[index])
    assert not torch.equal(whole.queries, run(torch.arange(12), seed=1).queries), "each row has an order of its own"


def test_no_rows_one_row_and_a_target() -> None:
    x, y = rows(2)
    assert len(attack(model("robust"), x[:0], y[:0], SpatialGrid(), within=SMALL).success) == 0
    assert len(attack(model("robust"), x[:1], y[:1], SpatialGrid(), within=SMALL).success) == 1
    found = attack(model("natural"), *rows(), SpatialGrid(), within=SMALL, goal=Targeted(8))
    assert bool((model("natural")(found.adversarial).argmax(1) == 8)[found.success].all())


def test_what_the_set_does_not_make_is_no_win() -> None:
    """A candidate may look turned; the set finds out whether it is."""

    class Noisy:
        def __call__(self, referee: LabelsVerbs[Tensor], rows: Rows[Tensor, Spatial]) -> None:
            grid = rows.within.grid(rows.x0)[-1:].expand(len(rows), 3)
            made = rows.within.transformed(rows.x0, grid)
            referee.reached(1 - made, rows)
            referee.reached(rows.within.sized(1.5).transformed(rows.x0, grid), rows)

    x, y = rows()
    already = model("natural")(x).argmax(1) != y
    assert torch.equal(attack(model("natural"), x, y, Noisy(), within=SMALL).success, already)


def test_it_needs_decisions_and_its_own_set() -> None:
    x, y = rows(2)
    assert needs(SpatialGrid()).access is Access.LABELS
    with pytest.raises(SetError, match="SpatialGrid moves in Spatial, not in Linf"):
        attack(model("natural"), x, y, SpatialGrid(), within=Linf(0.1))
    with pytest.raises(SetError, match="PGD moves in norm balls, and Spatial is none"):
        attack(model("natural"), x, y, PGD(), within=SMALL)


PEER = """
import json, sys, warnings
warnings.filterwarnings("ignore")
import torch
sys.path.insert(0, sys.argv[1])
import worker
from foolbox import Misclassification, PyTorchModel
from foolbox.attacks import SpatialAttack
torch.set_num_threads(1)
x, y = worker.load_rows(256)
out = {}
for name in ("natural", "robust", "residual"):
    net = worker.load_model(name)
    search = SpatialAttack(max_translation=1.4, max_rotation=10, num_translations=5, num_rotations=11)
    made = search.run(PyTorchModel(net, bounds=(0, 1), device="cpu"), x, Misclassification(y))
    with torch.no_grad():
        out[name] = (net(made).argmax(1) != y).tolist()
print(json.dumps(out))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_breaks_the_rows_that_foolbox_breaks() -> None:
    """Foolbox turns shares of the sides and shifts by (side - 1) / side of the pixels asked for."""
    subprocess.run(["bash", str(ROOT / "benchmarks/peers/install.sh")], check=True, capture_output=True)
    command = [str(ROOT / ".envs/peers/bin/python"), "-c", PEER, str(ROOT / "benchmarks/peers")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    x, y = rows(256)
    within: Any = Spatial(10, 1.4 / 28 * 27 / 28, rotations=11)
    for name, broken in json.loads(done.stdout.strip().splitlines()[-1]).items():
        mine = attack(model(name), x, y, SpatialGrid(), within=within, workers=1).success
        theirs = torch.tensor(broken)
        half = attack(model(name), x, y, SpatialGrid(), within=within.sized(0.5), workers=1).success

        assert 0.1 < float(theirs.float().mean()) < 0.95, "the ranges tell nothing"
        assert int((mine != theirs).sum()) <= 2, (name, int(mine.sum()), int(theirs.sum()))
        assert int((half != theirs).sum()) > 2
