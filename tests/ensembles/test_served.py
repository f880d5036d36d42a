"""Several models served as one target."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from redan.engine.run import attack
from redan.ensembles import Combine, Members, combined, leveled, together
from redan.errors import SettingError, TargetError, TrainingModeError
from redan.evasion.apgd import APGD
from redan.evasion.pgd import PGD
from redan.evasion.square import Square
from redan.perturbations.norms import Linf
from redan.protocols import Access, Output
from redan.samples import fashion_mnist, model
from redan.targets import declared, from_function, from_torch

IMAGES, LABELS = (torch.from_numpy(rows[:24]) for rows in fashion_mnist())
NAMES = ("natural", "fast", "trades")


@pytest.fixture(scope="module")
def trio() -> list[nn.Module]:
    return [model(name) for name in NAMES]


def linear(seed: int = 0, classes: int = 3) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = nn.Linear(4, classes)
    made.eval()
    return made


def test_two_linear_models_by_their_logits_are_the_linear_model_of_their_means() -> None:
    one, two = linear(0), linear(1)
    mean = linear()
    with torch.no_grad():
        mean.weight.copy_((one.weight + two.weight) / 2)
        mean.bias.copy_((one.bias + two.bias) / 2)
    x = torch.rand(7, 4)
    assert torch.allclose(together([one, two], Combine.LOGITS)(x), mean(x), atol=1e-6)


@pytest.mark.parametrize("how", Combine)
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_it_answers_its_members_combined(how: Combine, rows: int) -> None:
    one, two = linear(0), linear(1)
    x = torch.rand(rows, 4)
    assert torch.allclose(together([one, two], how)(x), combined(torch.stack([one(x), two(x)]), how), atol=1e-6)


@pytest.mark.parametrize(
    ("how", "output", "surrogate"),
    [
        (Combine.LOGITS, Output.LOGITS, False),
        (Combine.PROBABILITIES, Output.PROBABILITIES, False),
        (Combine.VOTES, Output.LABELS, True),
    ],
)
def test_it_says_what_it_is(how: Combine, output: Output, surrogate: bool) -> None:
    members = [from_torch(linear(i), bounds=(-1, 1), classes=known) for i, known in enumerate((None, 3))]
    both = together(members, how)
    assert (both.access, both.differentiable, both.stochastic) == (Access.GRADIENTS, True, False)
    assert (both.bounds, both.classes, both.dtype, both.device.type) == ((-1, 1), 3, torch.float32, "cpu")
    assert (both.output, both.surrogate) == (output, surrogate)
    assert both.members == tuple(members)


def test_it_shows_what_its_most_reticent_member_shows() -> None:
    closed = from_function(lambda x: x[:, :3], classes=3, output=Output.LOGITS)
    assert closed.access is Access.SCORES
    both = together([linear(), closed])
    assert (both.access, both.differentiable) == (Access.SCORES, False)
    x = torch.rand(5, 4)
    assert torch.allclose(both(x), combined(torch.stack([linear()(x), x[:, :3]]), both.combine), atol=1e-6)


def test_one_random_member_makes_it_random() -> None:
    both = together([linear(), from_torch(linear(1), stochastic=True)], Combine.VOTES)
    assert both.stochastic
    still = declared(both, stochastic=False)
    assert (still.stochastic, still.surrogate) == (False, True)
    assert declared(together([linear()]), stochastic=True).stochastic
    x = torch.rand(3, 4)
    assert torch.equal(still(x), both(x))


def test_members_of_other_types_get_inputs_in_their_own() -> None:
    wide = linear(1).double()
    both = together([linear(), wide], Combine.LOGITS)
    assert both.dtype == torch.float64
    x = torch.rand(5, 4, dtype=torch.float64, requires_grad=True)
    answer = both(x)
    assert answer.dtype == torch.float64
    assert torch.allclose(answer, (linear()(x.float()).double() + wide(x)) / 2)
    (slope,) = torch.autograd.grad(answer[:, 0].sum(), x)
    weights = (linear().weight[0].double() + wide.weight[0]) / 2
    assert torch.allclose(slope, weights.expand(5, 4), atol=1e-6)
    found = attack(both, x.detach().numpy(), [0, 1, 2, 0, 1], PGD(steps=3), within=Linf(0.2))
    assert found.adversarial.dtype == torch.float64


def test_values_are_averaged_and_not_voted_on() -> None:
    values = [from_torch(linear(i, 1), output=Output.VALUE) for i in (0, 1)]
    x = torch.rand(5, 4)
    both = together(values, Combine.LOGITS)
    assert both.output is Output.VALUE
    assert torch.allclose(both(x), (linear(0, 1)(x) + linear(1, 1)(x)) / 2, atol=1e-6)
    with pytest.raises(
        SettingError, match="votes are of classes that exclude each other, and the members answer value"
    ):
        together(values, Combine.VOTES)
    with pytest.raises(SettingError, match="answer logits and value"):
        together([values[0], linear()], Combine.LOGITS)
    odds = [from_torch(linear(), output=Output.SIGMOIDS), from_torch(linear(1))]
    assert together(odds, Combine.LOGITS).output is Output.SIGMOIDS
    with pytest.raises(SettingError, match="probabilities are of classes"):
        together(odds)


def test_members_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SettingError, match="at least one model"):
        together([])
    with pytest.raises(SettingError, match=r"bounds are \(0.0, 1.0\), another's \(-1.0, 1.0\)"):
        together([from_torch(linear()), from_torch(linear(), bounds=(-1, 1))])
    with pytest.raises(SettingError, match="3 and 5 classes"):
        together([linear(), from_torch(linear(), classes=3), from_torch(linear(0, 5), classes=5)])
    with pytest.raises(TargetError, match=r"\(2, 3\), \(2, 5\)"):
        together([linear(), linear(0, 5)])(torch.rand(2, 4))
    with pytest.raises(TrainingModeError):
        together([linear(), nn.Linear(4, 3)])


def test_an_endpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    far: Any = from_function(lambda x: x, classes=3)
    monkeypatch.setattr("redan.ensembles.served.is_remote", lambda target: target is far)
    with pytest.raises(TargetError, match="asked at an endpoint"):
        together([linear(), far])


def test_an_ensemble_may_be_a_member() -> None:
    inner = together([linear(0), linear(1)], Combine.LOGITS)
    x = torch.rand(4, 4)
    outer = together([inner, linear(2)], Combine.LOGITS)
    assert torch.allclose(outer(x), (inner(x) + linear(2)(x)) / 2)


@pytest.mark.parametrize("how", [Combine.LOGITS, Combine.PROBABILITIES])
def test_gradients_are_those_of_the_whole(how: Combine, trio: list[nn.Module]) -> None:
    """Against finite differences, on a real row in 64-bit numbers."""
    members = [from_torch(net, classes=10) for net in trio]
    try:
        for net in trio:
            net.double()
        whole = together([from_torch(net, classes=10) for net in trio], how)
        x = IMAGES[:2].double().requires_grad_()
        (slope,) = torch.autograd.grad(whole(x)[:, 3].sum(), x)
        step = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        with torch.no_grad():
            rise = (whole(x + 1e-6 * step) - whole(x - 1e-6 * step))[:, 3] / 2e-6
        assert torch.allclose((slope * step).flatten(1).sum(1), rise, rtol=1e-4)
    finally:
        for net in trio:
            net.float()
    assert members[0].dtype == torch.float32


def standing(target: Any, x: Tensor, y: Tensor, climbs: Any = None) -> int:
    found = attack(target, x, y, climbs or APGD(steps=10), within=Linf(0.1), workers=1)
    assert not found.errors
    return len(x) - int(found.success.sum())


@pytest.mark.parametrize("how", Combine)
def test_an_attack_on_the_whole_beats_one_that_climbs_a_member(how: Combine, trio: list[nn.Module]) -> None:
    """The same target, the same decisions: only what is climbed differs."""
    whole = together(trio, how)
    own = standing(whole, IMAGES, LABELS)
    for member in trio:
        carried = attack(
            whole, IMAGES, LABELS, APGD(steps=10), within=Linf(0.1), surrogates=[member], workers=1
        ).success
        assert own <= len(IMAGES) - int(carried.sum())
    assert own < int((whole(IMAGES).argmax(1) == LABELS).sum())


def test_a_vote_falls_to_an_attack_by_scores_and_by_its_stand_in(trio: list[nn.Module]) -> None:
    voted = together(trio, Combine.VOTES)
    right = int((voted(IMAGES).argmax(1) == LABELS).sum())
    assert standing(voted, IMAGES, LABELS) < right
    assert standing(voted, IMAGES, LABELS, Square(queries=60)) < right


@pytest.mark.parametrize("how", Combine)
def test_the_same_model_twice_is_as_robust_as_once(how: Combine, trio: list[nn.Module]) -> None:
    assert standing(together([trio[1]] * 2, how), IMAGES, LABELS) == standing(trio[1], IMAGES, LABELS)


@pytest.mark.parametrize("how", Combine)
def test_modules_together_answer_alike_as_a_module(how: Combine, trio: list[nn.Module]) -> None:
    whole = together(trio, how)
    module = Members(trio, how)
    assert not module.training
    served = from_torch(module, classes=10)
    assert torch.allclose(served(IMAGES), whole(IMAGES), atol=1e-5)
    assert served.surrogate == whole.surrogate
    assert module.each(IMAGES).shape == (3, 24, 10)
    x, z = (IMAGES[:4].clone().requires_grad_() for _ in range(2))
    one, other = (torch.autograd.grad(t(i)[:, 1].sum(), i)[0] for t, i in ((served, x), (whole, z)))
    assert torch.allclose(one, other, atol=1e-5)


def test_a_member_that_is_far_surer_does_not_hide_from_an_attack_in_leads() -> None:
    """The distilled network's probabilities have no slope: climbed as it is, the mean looks more robust than it is."""
    x, y = (torch.from_numpy(rows[100:164]) for rows in fashion_mnist())
    mean = together([model(name) for name in ("natural", "residual", "distilled")])
    level = leveled(mean)
    assert torch.equal(level(x), mean(x))
    assert (level.surrogate, level.access, level.bounds) == (True, mean.access, mean.bounds)
    left = [
        64 - int(attack(target, x, y, PGD(steps=8), within=Linf(0.03), workers=1).success.sum())
        for target in (mean, level)
    ]
    assert left[1] < left[0]


def test_modules_without_members_are_refused() -> None:
    with pytest.raises(SettingError, match="at least one model"):
        Members([])
    assert Members([nn.Linear(2, 2)]).training
