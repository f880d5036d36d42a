"""Surrogates: whose gradients, whose decisions, and an honest count of what the target was asked."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from redan.engine.run import attack
from redan.errors import SettingError, TrainingModeError
from redan.evasion.apgd import APGD
from redan.evasion.bim import BIM
from redan.evasion.momentum import MomentumFGSM
from redan.evasion.pgd import PGD
from redan.evasion.square import Square
from redan.evasion.treatments import Diverse, Translated, Variance
from redan.goals import LeastLikely
from redan.oracle import Capability
from redan.perturbations.norms import L2, Linf
from redan.protocols import Access, settings
from redan.referee import Closest, Worst
from redan.samples import fashion_mnist, model
from redan.targets import from_torch
from redan.targets.surrogates import ensemble
from redan.testing import LinearVictim, dual_linf


class Counting(nn.Module):
    """Answers decisions alone, as one-hot scores without a gradient, and counts the rows it is asked."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.asked = inner, 0

    def forward(self, x: Tensor) -> Tensor:
        assert not x.requires_grad
        self.asked += len(x)
        answer: Tensor = self.inner(x)
        return nn.functional.one_hot(answer.argmax(1), answer.shape[1]).to(x.dtype)


def pair(seed: int = 0, **options: Any) -> tuple[LinearVictim, Tensor, Tensor]:
    victim = LinearVictim.drawn(seed, **options)
    return victim, *victim.rows(12)


def test_an_ensemble_answers_the_mean_logits() -> None:
    one, two = nn.Linear(4, 3).eval(), nn.Linear(4, 3).double().eval()
    like = from_torch(one, classes=3)
    both = ensemble([one, two], like)
    x = torch.rand(5, 4)

    assert torch.allclose(both(x), (one(x) + two(x.double()).float()) / 2, atol=1e-6)
    assert both(x).dtype == x.dtype
    assert (both.access, both.differentiable, both.stochastic, both.surrogate) == (Access.GRADIENTS, True, False, False)
    assert (both.bounds, both.classes, both.dtype) == (like.bounds, 3, torch.float32)


def test_surrogates_that_do_not_fit_are_refused() -> None:
    like = from_torch(nn.Linear(4, 3).eval(), classes=3)
    with pytest.raises(SettingError, match="at least one model"):
        ensemble([], like)
    with pytest.raises(SettingError, match=r"bounds are \(-1.0, 1.0\)"):
        ensemble([from_torch(nn.Linear(4, 3).eval(), bounds=(-1, 1))], like)
    with pytest.raises(SettingError, match="2 classes, the target 3"):
        ensemble([from_torch(nn.Linear(4, 2).eval(), classes=2)], like)
    with pytest.raises(TrainingModeError):
        ensemble([nn.Dropout()], like)


@pytest.mark.usefixtures("fours")
@pytest.mark.parametrize("one", [PGD(steps=7), BIM(), MomentumFGSM(steps=5), APGD(steps=7)], ids=settings)
@pytest.mark.parametrize("keep", [None, Closest(), Worst()], ids=["first", "closest", "worst"])
def test_the_target_is_asked_one_decision_a_row(one: Any, keep: Any) -> None:
    """Its own log is the truth: a clean pass, one query a row, and the second measurement; and no gradient."""
    victim, x, y = pair()
    target = Counting(victim.module()).eval()
    within = Linf(victim.optimum(x, y, dual_linf).float() * 1.2)
    known = from_torch(target, classes=2)
    found = attack(known, x, y, one, within=within, surrogates=[victim.module()], keep=keep, workers=1)

    assert found.success.all()
    assert found.queries.tolist() == [1] * 12
    assert target.asked == 12 + 12 + 12
    passes = one.cost(2)
    assert found.backwards.tolist() == [passes.backwards] * 12, "no row left early: the target had not been asked"
    assert found.forwards.tolist() == [passes.queries + int(isinstance(one, APGD))] * 12


def test_scores_are_the_surrogates_too() -> None:
    victim, x, y = pair()
    target = Counting(victim.module()).eval()
    within = Linf(victim.optimum(x, y, dual_linf).float() * 2)
    found = attack(target, x, y, Square(queries=60), within=within, surrogates=[victim.module()])

    assert found.queries.tolist() == [1] * 12
    assert int(found.forwards.sum()) == 12 * 61
    assert found.success.float().mean() > 0.8


def test_what_the_surrogates_believe_is_no_win() -> None:
    """Surrogates that are wrong about everything: nothing is won, whatever they say of it."""
    victim, x, y = pair()
    wrong = LinearVictim(-victim.weights, -victim.bias, victim.shape).module()
    found = attack(victim.module(), x, y, PGD(), within=Linf(0.3), surrogates=[wrong])

    assert not found.success.any()
    assert torch.equal(found.adversarial, x)


def test_the_target_s_gradients_steer_nothing() -> None:
    """Two targets that agree on decisions get the same candidates, to the byte."""
    victim, x, y = pair(classes=3)
    within, lent = Linf(0.2), [LinearVictim.drawn(9, classes=3).module()]
    for goal in (None, LeastLikely()):
        one, other = (
            attack(each, x, y, APGD(steps=5), within=within, surrogates=lent, goal=goal).adversarial
            for each in (victim.module(), Counting(victim.module()).eval())
        )
        assert torch.equal(one, other)


def test_the_capability_is_of_the_target() -> None:
    victim, x, y = pair()
    within = Linf(victim.optimum(x, y, dual_linf).float() * 1.2)
    found = attack(victim.module(), x, y, PGD(), within=within, surrogates=[victim.module()], capability=Capability(1))

    assert found.success.all()
    assert found.queries.tolist() == [1] * 12


@pytest.mark.parametrize("lent", [False, True])
def test_a_surrogate_that_fails_makes_errors_and_no_robust_rows(lent: bool) -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :2] * torch.nan

    victim, x, y = pair()
    found = attack(victim.module(), x, y, PGD(steps=2), within=Linf(0.0), surrogates=[Failing().eval()] if lent else ())

    assert len(found.errors) == (12 if lent else 0)


def test_rows_do_not_hang_on_each_other() -> None:
    victim, x, y = pair(classes=3)
    lent = [LinearVictim.drawn(1, classes=3).module(), victim.module()]

    def run(index: Tensor, **options: Any) -> Any:
        return attack(victim.module(), x[index], y[index], PGD(steps=4), within=L2(0.3), surrogates=lent, **options)

    whole = run(torch.arange(12), workers=1)
    for index, options in ((torch.arange(12).flip(0), {"block": 5}), (torch.arange(0, 12, 3), {"workers": 2})):
        part = run(index, **options)
        assert torch.equal(part.adversarial, whole.adversarial[index])
        assert torch.equal(part.forwards, whole.forwards[index])


def carried(source: str, to: str, one: Any, radius: float, rows: int = 256) -> float:
    """Share of rows broken on one sample model by what was found on another."""
    images, labels = fashion_mnist()
    found = attack(
        model(to), images[:rows], labels[:rows], one, within=Linf(radius), surrogates=[model(source)], workers=1
    )
    return float(found.success.float().mean())


def test_attacks_carry_over_from_the_natural_model() -> None:
    """More than random noise of the same size would; less than the target's own gradients."""
    from redan.evasion.noise import RandomNoise

    images, labels = fashion_mnist()
    noise, own = (
        float(attack(model("robust"), images[:64], labels[:64], one, within=Linf(0.15)).success.float().mean())
        for one in (RandomNoise(tries=1), PGD())
    )
    over = carried("natural", "robust", MomentumFGSM(), 0.15, 64)
    assert noise + 0.1 < over < own


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("source", "to", "radius"),
    [
        ("natural", "robust", 0.15),
        ("natural", "residual", 0.15),
        ("residual", "natural", 0.1),
        ("robust", "natural", 0.1),
    ],
)
def test_momentum_and_treatments_beat_bim_in_transfer(source: str, to: str, radius: float) -> None:
    """Dong 2018, table 1, and its successors: what is found with momentum and treatments carries over better."""
    treated = MomentumFGSM(treatments=(Translated(size=3), Diverse()), variance=Variance())
    bim, momentum, best = (carried(source, to, one, radius) for one in (BIM(), MomentumFGSM(), treated))

    assert momentum > bim, (bim, momentum)
    assert best > bim + 0.05, (bim, best)
