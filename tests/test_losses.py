"""Losses against their papers' formulas, written out row by row, and their invariances."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from redan.goals import Targeted, Untargeted
from redan.losses import cross_entropy, dlr, margin, targeted_dlr
from redan.protocols import Loss

GIVEN = settings(max_examples=80, deadline=None, derandomize=True)


@st.composite
def answers(draw: st.DrawFn, least: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """(scores (N, K), right classes, other classes) in double precision."""
    count, classes = draw(st.integers(1, 6)), draw(st.integers(least, 7))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    z = torch.randn(count, classes, generator=generator, dtype=torch.float64) * draw(st.sampled_from([0.1, 1.0, 30.0]))
    y = torch.randint(classes, (count,), generator=generator)
    return z, y, (y + torch.randint(1, classes, (count,), generator=generator)) % classes


@GIVEN
@given(answers())
def test_margin_is_above_zero_exactly_when_the_goal_is_reached(case: tuple[Tensor, Tensor, Tensor]) -> None:
    z, y, t = case

    for goal in (Untargeted(y), Targeted(t, y)):
        assert torch.equal(margin(z, goal) > 0, goal.reached(z))
        assert torch.equal(goal.loss(z), margin(z, goal))


@GIVEN
@given(answers())
def test_margin_written_out(case: tuple[Tensor, Tensor, Tensor]) -> None:
    z, y, t = case
    for i, scores in enumerate(z.tolist()):
        right, wanted = int(y[i]), int(t[i])
        others = [s for k, s in enumerate(scores) if k != right]
        assert float(margin(z, Untargeted(y))[i]) == pytest.approx(max(others) - scores[right])
        others = [s for k, s in enumerate(scores) if k != wanted]
        assert float(margin(z, Targeted(t, y))[i]) == pytest.approx(scores[wanted] - max(others))


@GIVEN
@given(answers())
def test_cross_entropy_written_out(case: tuple[Tensor, Tensor, Tensor]) -> None:
    z, y, t = case
    for i, scores in enumerate(z.tolist()):
        whole = math.log(sum(math.exp(s - max(scores)) for s in scores)) + max(scores)
        assert float(cross_entropy(z, Untargeted(y))[i]) == pytest.approx(whole - scores[int(y[i])])
        assert float(cross_entropy(z, Targeted(t, y))[i]) == pytest.approx(scores[int(t[i])] - whole)


@GIVEN
@given(answers(least=3))
def test_dlr_written_out(case: tuple[Tensor, Tensor, Tensor]) -> None:
    """Croce and Hein 2020, equation 6: -(z_y - max other) / (z_π1 - z_π3)."""
    z, y, _ = case
    for i, scores in enumerate(z.tolist()):
        top = sorted(scores, reverse=True)
        others = [s for k, s in enumerate(scores) if k != int(y[i])]
        wanted = -(scores[int(y[i])] - max(others)) / (top[0] - top[2])
        assert float(dlr(z, Untargeted(y))[i]) == pytest.approx(wanted, rel=1e-6)


@GIVEN
@given(answers(least=4))
def test_targeted_dlr_written_out(case: tuple[Tensor, Tensor, Tensor]) -> None:
    """Croce and Hein 2020, equation 7: -(z_y - z_t) / (z_π1 - (z_π3 + z_π4) / 2)."""
    z, y, t = case
    for i, scores in enumerate(z.tolist()):
        top = sorted(scores, reverse=True)
        wanted = -(scores[int(y[i])] - scores[int(t[i])]) / (top[0] - (top[2] + top[3]) / 2)
        assert float(targeted_dlr(z, Targeted(t, y))[i]) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("loss", [dlr, targeted_dlr])
@GIVEN
@given(answers(least=4), st.sampled_from([0.01, 3.0, 1000.0]), st.sampled_from([-50.0, 7.0]))
def test_dlr_does_not_care_for_shift_and_scale(
    loss: Loss, case: tuple[Tensor, Tensor, Tensor], scale: float, shift: float
) -> None:
    z, y, t = case
    goal = Targeted(t, y) if loss is targeted_dlr else Untargeted(y)

    assert loss(z * scale + shift, goal).tolist() == pytest.approx(loss(z, goal).tolist(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("loss", [dlr, targeted_dlr, margin, cross_entropy])
def test_two_classes(loss: Loss) -> None:
    z = torch.tensor([[1.0, 3.0], [2.0, -1.0]])
    y = torch.tensor([0, 0])
    goal = Targeted(1 - y, y)

    found = loss(z, goal)

    assert bool(found.isfinite().all())
    assert float(found[0]) > float(found[1])


@pytest.mark.parametrize("loss", [dlr, targeted_dlr, margin, cross_entropy])
def test_larger_is_nearer_the_goal(loss: Loss) -> None:
    """Along the way from a sure right answer to a sure wrong one every loss rises."""
    t = torch.linspace(-4, 4, 9)
    z = torch.stack([-t, t, torch.full((9,), -6.0), torch.full((9,), -7.0)], 1)
    y = torch.zeros(9, dtype=torch.int64)

    for goal in (Targeted(torch.ones(9, dtype=torch.int64), y), Untargeted(y)):
        if loss is targeted_dlr and isinstance(goal, Untargeted):
            continue
        found = loss(z, goal)
        steps = found[1:] - found[:-1]
        assert bool((steps >= 0).all())
        assert float(found[-1]) > float(found[0])


@pytest.mark.parametrize("loss", [targeted_dlr, margin, cross_entropy])
@GIVEN
@given(answers())
def test_every_target_can_be_climbed_to(loss: Loss, case: tuple[Tensor, Tensor, Tensor]) -> None:
    """Also one that is the least likely: a higher score for it, and a lower one for the rest, is nearer the goal."""
    z, y, t = case
    z = z.scatter(1, y[:, None], z.amax(1, keepdim=True) + 0.1).div(z.abs().max() + 0.1).requires_grad_()
    (slope,) = torch.autograd.grad(loss(z, Targeted(t, y)).sum(), z)

    assert bool((slope.gather(1, t[:, None]) > 0).all())


@pytest.mark.parametrize("loss", [dlr, targeted_dlr, margin, cross_entropy])
def test_ties_and_large_scores_stay_numbers(loss: Loss) -> None:
    z = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1e30, -1e30, 0.0, 5.0]])
    y = torch.tensor([0, 0])

    assert not bool(loss(z, Targeted(torch.tensor([1, 1]), y)).isnan().any())


@pytest.mark.parametrize("loss", [dlr, targeted_dlr, margin, cross_entropy])
def test_each_row_by_itself(loss: Loss) -> None:
    z = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    y = torch.arange(6) % 5
    goal = Targeted((y + 1) % 5, y)
    whole = loss(z, goal)

    assert whole.shape == (6,)
    for i in range(6):
        index = torch.tensor([i])
        assert torch.equal(loss(z[index], goal.take(index)), whole[index])
