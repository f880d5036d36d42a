"""Universal perturbations: fitted on some rows, saved and loaded, and judged as an attack on others."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from redan.engine.fit import fit
from redan.engine.run import attack
from redan.errors import DataError, SetError
from redan.evasion.noise import RandomNoise
from redan.evasion.universal import UAP, Stamp, UniversalPGD
from redan.goals import Targeted
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L1
from redan.protocols import settings
from redan.samples import fashion_mnist, model
from redan.testing import FlippedSign, check_attack

FITTERS = [UniversalPGD(passes=10), UAP(passes=5)]
every = pytest.mark.parametrize("fitter", FITTERS, ids=settings)


def halves(name: str = "test", count: int = 64) -> tuple[Tensor, Tensor]:
    images, labels = fashion_mnist(name)
    return torch.from_numpy(images[:count]), torch.from_numpy(labels[:count])


class Plane(nn.Module):
    """Class 0 below a plane and class 1 above it: rows of class 0 share the way out."""

    def forward(self, x: Tensor) -> Tensor:
        above = ((x - 0.5) * torch.ones(6)).sum(1)
        return torch.stack([-above, above], 1) * 5


@every
@pytest.mark.parametrize(
    ("ball", "farthest"), [(Linf, 0.1), (L2, 0.1 * math.sqrt(6)), (L1, 0.6)], ids=["linf", "l2", "l1"]
)
def test_the_rows_of_a_plane_share_the_way_out(fitter: Any, ball: Any, farthest: float) -> None:
    """The farthest row sums up to 0.6 below it: held-out rows break at little more, and not at less."""
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(40, 6, generator=draw) / 4 + 0.3
    x = x - (x.mean(1, keepdim=True) - torch.linspace(0.4, 0.45, 40)[torch.randperm(40, generator=draw)][:, None])
    y = torch.zeros(40, dtype=torch.int64)
    patient = UAP(fooled=1.0) if isinstance(fitter, UAP) else fitter
    for factor, least, most in ((1.3, 0.95, 1.0), (0.45, 0.0, 0.05)):
        within = ball(farthest * factor)
        stamp = fit(Plane().eval(), x[:20], y[:20], patient, within=within)
        broken = float(attack(Plane().eval(), x[20:], y[20:], stamp, within=within).success.float().mean())
        assert least <= broken <= most, (factor, broken)
        assert float(within.distance(stamp.perturbation[None], torch.zeros(1, 6))) <= farthest * factor * (1 + 1e-5)


def test_rows_beyond_reach_are_reached_for_in_the_end() -> None:
    """No row breaks within a tenth of the radius: the reach grows until one does."""
    x = torch.full((4, 6), 0.4)
    stamp = fit(Plane().eval(), x, torch.zeros(4, dtype=torch.int64), UAP(reach=0.1), within=Linf(0.15))

    assert bool(attack(Plane().eval(), x, torch.zeros(4, dtype=torch.int64), stamp, within=Linf(0.15)).success.all())


@every
def test_it_breaks_rows_that_it_was_not_fitted_on(fitter: Any) -> None:
    """Far more than random noise of the same size, and than the same ascent downhill."""

    class Downhill:
        def fit(self, referee: Any, rows: Any) -> Stamp:
            made: list[Stamp] = []
            FlippedSign(lambda referee, rows: made.append(fitter.fit(referee, rows)))(referee, rows)
            return made[0]

    net, within = model("natural"), Linf(0.1)
    x, y = halves("train", 24)
    held, truth = halves("test", 128)
    stamp = fit(net, x, y, fitter, within=within)
    downhill = fit(net, x, y, Downhill(), within=within)
    broken, worse, noise = (
        float(attack(net, held, truth, one, within=within).success.float().mean())
        for one in (stamp, downhill, RandomNoise(tries=1))
    )
    assert broken > max(worse, noise) + 0.1, (broken, worse, noise)


def test_a_target_class_is_shared_too() -> None:
    net, within = model("natural"), Linf(0.2)
    stamp = fit(net, *halves("train"), UniversalPGD(), within=within, goal=Targeted(8))
    found = attack(net, *halves("test"), stamp, within=within, goal=Targeted(8))

    assert float(found.success.float().mean()) > 0.3
    assert bool((net(found.adversarial[found.success]).argmax(1) == 8).all())


@every
def test_the_seed_decides(fitter: Any) -> None:
    x, y = halves("train", 12)
    one, again, other = (
        fit(model("natural"), x, y, fitter, within=L2(1.0), seed=seed).perturbation for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    made = Stamp(perturbation=torch.rand(1, 28, 28), origin=settings(UAP()))
    made.save(tmp_path / "stamp.safetensors")
    again = Stamp.load(tmp_path / "stamp.safetensors")

    assert torch.equal(made.perturbation, again.perturbation)
    assert (made.origin, made.digest) == (again.origin, again.digest)
    assert settings(made) == settings(again)
    assert "UAP(passes=30" in settings(made)
    assert settings(made) != settings(Stamp(perturbation=torch.rand(1, 28, 28), origin=made.origin))


def test_what_is_no_stamp_is_refused(tmp_path: Path) -> None:
    save_file({"perturbation": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no safetensors")
    for name in ("other", "broken", "missing"):
        with pytest.raises(DataError, match=r"give the file that Stamp\.save wrote"):
            Stamp.load(tmp_path / f"{name}.safetensors")


def test_a_stamp_is_one_query_inside_the_set() -> None:
    x, y = halves("test", 16)
    stamp = Stamp(perturbation=torch.ones(1, 28, 28), origin="by hand")
    found = attack(model("natural"), x, y, stamp, within=Linf(torch.linspace(0, 0.3, 16)))

    assert int(found.queries.max()) == 1
    assert bool((found.distance[found.success] <= torch.linspace(0, 0.3, 16)[found.success] + 1e-6).all())
    with pytest.raises(SetError, match=r"fitted to inputs \(2, 2\)"):
        attack(model("natural"), x, y, Stamp(perturbation=torch.ones(2, 2), origin="by hand"), within=Linf(0.1))


def test_there_must_be_rows() -> None:
    x, y = halves("train", 4)
    with pytest.raises(DataError, match="no rows to fit on"):
        fit(model("natural"), x[:0], y[:0], UAP(), within=Linf(0.1))


def test_a_stamp_of_one_number_conforms() -> None:
    assert check_attack(Stamp(perturbation=torch.tensor(0.1), origin="by hand"), reach=None).checks
