"""A model that refuses: decisions to the last bit, goals, and the two ends, never and always."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.rejection.toys import EPSILON, LINE, blind_to_both, clean_rows, sees_all, side
from torch import Tensor

from redan.engine.run import attack
from redan.errors import SettingError, TargetError
from redan.evasion.apgd import APGD
from redan.evasion.pgd import PGD
from redan.goals import LeastLikely, Targeted, Untargeted
from redan.losses import cross_entropy, margin
from redan.perturbations.norms import Linf
from redan.rejection.detector import Scored
from redan.rejection.goal import Undetected
from redan.rejection.refusing import Refusing, excess, refused, refusing
from redan.samples import fashion_mnist, model
from redan.targets import FunctionTarget, from_function, from_torch
from redan.targets.base import declared
from redan.targets.rescaled import Rescaled

IMAGES, LABELS = (torch.from_numpy(rows) for rows in fashion_mnist())


class AllButLast(torch.nn.Module):
    """The first numbers of a row are its scores."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :-1]


def given_scores(scores: Tensor, suspicion: Tensor, threshold: float, scale: float = 1.0) -> Tensor:
    """What a model with these scores and a detector with these answer: (N, K + 1)."""
    target, detector = from_torch(AllButLast().eval()), Scored(score=lambda x: x[:, -1])
    served = Refusing(target=target, detector=detector, threshold=threshold, scale=scale)
    return served(torch.cat([scores, suspicion[:, None]], 1))


numbers = st.floats(-1e6, 1e6, width=32)


@given(
    scores=st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=6),
    threshold=st.floats(-1e3, 1e3, width=32),
    ulps=st.integers(-3, 3),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_an_input_is_refused_exactly_above_the_threshold(
    scores: list[tuple[float, float, float]], threshold: float, ulps: int, scale: float
) -> None:
    """However large the logits are beside the excess, and however near the score is to the threshold."""
    z = torch.tensor(scores)
    suspicion = torch.full((len(z),), threshold)
    for _ in range(abs(ulps)):
        suspicion = torch.nextafter(suspicion, torch.full_like(suspicion, math.copysign(math.inf, ulps)))
    found = given_scores(z, suspicion, threshold, scale)
    assert torch.equal(found[:, :-1], z)
    assert bool((refused(found) == (ulps > 0)).all())
    assert bool(((excess(found) > 0) == (ulps > 0)).all())


outputs = st.lists(st.lists(st.floats(-9, 9, width=32), min_size=5, max_size=5), min_size=1, max_size=8)


@given(drawn=outputs, seed=st.integers(0, 99))
def test_margins_are_above_zero_exactly_where_the_goal_is_reached(drawn: list[list[float]], seed: int) -> None:
    z, draw = torch.tensor(drawn), torch.Generator().manual_seed(seed)
    z = z + torch.rand(z.shape, generator=draw) * 1e-3  # no ties
    y = torch.randint(4, (len(z),), generator=draw)
    for aim in (Untargeted(), Targeted((y + 1) % 4), LeastLikely()):
        goal: Any = Undetected(aim).about(y, z, torch.arange(len(z)))
        scores = goal.scores(z)
        assert scores.shape == (len(z), 4)
        assert torch.equal(goal.loss(scores) > 0, goal.reached(z))
        assert torch.equal(margin(scores, goal) > 0, goal.reached(z))
        assert torch.equal(goal.reached(z) & goal.right(z), torch.zeros(len(z), dtype=torch.bool))
        answered, accepted = goal.conditions
        assert torch.equal(answered.reached(z) & accepted.reached(z), goal.reached(z))
        for one in (answered, accepted):
            assert torch.equal(one.loss(one.scores(z)) > 0, one.reached(z))
            assert torch.equal(margin(one.scores(z), one), one.loss(one.scores(z)))
        for way in goal.ways(scores, 3):
            assert not bool((way.reached(z) & ~goal.reached(z)).any())
        kept = torch.arange(len(z)) % 2 == 0
        assert torch.equal(goal.take(kept).reached(z[kept]), goal.reached(z)[kept])


def test_a_margin_is_the_lower_of_two_rooms() -> None:
    goal = Undetected().about(torch.tensor([0, 0, 0]), torch.zeros(3, 3))
    #             margin 2, room 0.5    margin 2, 1 above       margin -1, 0.5 above
    z = torch.tensor([[1.0, 3.0, 2.5], [1.0, 3.0, 4.0], [2.0, 1.0, 2.5]])
    assert goal.loss(goal.scores(z)).tolist() == [0.5, -1.0, -1.5]


def test_never_refusing_is_the_bare_model_to_the_byte() -> None:
    bare = Rescaled(from_torch(model("natural"), classes=10), 1.0)  # as a wrapper, it is not accelerated either
    served = Refusing(target=bare, detector=Scored(score=lambda x: x.flatten(1).sum(1)), threshold=math.inf)
    x, y = IMAGES[:16], LABELS[:16]
    with torch.no_grad():
        assert torch.equal(served(x)[:, :-1], bare(x))
        assert not bool(refused(served(x)).any())
    for climbs in (PGD(steps=5), PGD(steps=5, loss=margin), APGD(steps=5)):
        plain = attack(bare, x, y, climbs, within=Linf(0.03))
        joint = attack(served, x, y, climbs, within=Linf(0.03), goal=Undetected())
        assert torch.equal(plain.adversarial, joint.adversarial)
        assert torch.equal(plain.queries, joint.queries)


def test_always_refusing_is_never_broken_and_never_right() -> None:
    x, y = clean_rows()
    served = replace(blind_to_both(), threshold=-math.inf)
    goal = Undetected().about(y, served(x))
    assert bool(refused(served(x)).all())
    assert not bool(goal.right(served(x)).any())
    assert not attack(served, x, y, PGD(steps=20), within=Linf(EPSILON), goal=Undetected()).success.any()
    # an attacker who is content with a refusal has won before he began: that is another threat
    assert attack(served, x, y, PGD(steps=20), within=Linf(EPSILON)).success.all()


def test_gradients_are_finite_differences_even_where_rounding_is_mended() -> None:
    z = torch.tensor([[0.5, 1.5], [2.0, 0.0]], dtype=torch.float64)

    def last(suspicion: Tensor) -> Tensor:
        return given_scores(z, suspicion, 0.25, 0.5)[:, -1]

    near = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(last, (near,))
    at = torch.full((2,), 0.25, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(last(at).sum(), at)
    assert slope.tolist() == [2.0, 2.0]


def test_what_it_says_of_itself() -> None:
    noisy = Scored(score=LINE.score, stochastic=True, surrogate=True)
    served = blind_to_both()
    told = replace(served, detector=noisy)
    assert (served.classes, served.stochastic, served.surrogate) == (3, False, False)
    assert (told.stochastic, told.surrogate, told.bounds, told.access) == (True, True, (0.0, 1.0), side().access)
    assert Refusing(target=from_torch(torch.nn.Linear(2, 2).eval()), detector=LINE, threshold=0).classes is None
    assert declared(served, stochastic=True).stochastic


def test_a_detector_without_an_answer_is_an_error_and_no_success() -> None:
    x, y = clean_rows(8)
    broken = Scored(score=lambda rows: torch.where(rows[:, 0] > 0.5, torch.nan, 0.0))
    served = replace(blind_to_both(), detector=broken)
    found = attack(served, x, y, PGD(steps=10), within=Linf(EPSILON), goal=Undetected())
    assert not found.success.any()
    assert sorted(found.errors) == list(range(8))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SettingError, match="scale must be above 0"):
        replace(blind_to_both(), scale=0.0)

    class Endpoint:
        def asked(self, x: Tensor) -> None:
            return None

    with pytest.raises(TargetError, match="an endpoint refuses by itself"):
        Refusing(target=Endpoint(), detector=LINE, threshold=0.0)  # type: ignore[arg-type]  # no endpoint at all


def test_calibrated_on_clean_rows_it_refuses_few() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(400, 2, generator=draw)
    served = refusing(side(), LINE, x[:200], false_positive_rate=0.1)
    assert served.rate == 0.1
    assert 0.03 <= float(refused(served(x[200:])).float().mean()) <= 0.17


def test_a_model_that_is_only_asked_may_refuse_too() -> None:
    asked: FunctionTarget = from_function(lambda x: x[:, :1] > 0.5, classes=2)
    served = Refusing(target=asked, detector=LINE, threshold=0.05)
    assert served.access == asked.access
    assert refused(served(torch.tensor([[0.9, 0.1], [0.9, 0.9]]))).tolist() == [True, False]


def test_losses_read_a_refusal_as_the_right_class() -> None:
    served, (x, y) = sees_all(), clean_rows(4)
    with torch.no_grad():
        output = served(x + torch.tensor([0.15, 0.0]))  # class 1, refused
    goal = Undetected().about(y, output)
    assert bool(refused(output).all())
    assert bool((margin(goal.scores(output), goal) < 0).all())
    assert bool((cross_entropy(goal.scores(output), goal) < cross_entropy(output[:, :-1], Untargeted(y))).all())
