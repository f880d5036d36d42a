"""The benchmarks' judge on cases made by hand, where the right verdict is known without running anything."""

import ast
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

from judge import TOLERANCE, Norm, distances, judge

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
D = 4
EPS = 0.1


def bright(x: Tensor) -> Tensor:
    """Answer 1 where the mean of a row (N, 4) is above one half, else 0."""
    mean = x.flatten(1).mean(dim=1)
    return torch.stack([0.5 - mean, mean - 0.5], dim=1)


def rows(*values: float) -> Tensor:
    """Return one constant row (4,) for each value."""
    return torch.tensor(values).unsqueeze(1).repeat(1, D)


def test_broken_kept_and_wrong_before() -> None:
    x0, y = rows(0.55, 0.55, 0.55, 0.45), torch.ones(4, dtype=torch.long)
    found = judge(bright, x0, y, rows(0.46, 0.52, 0.55, 0.40), norm="linf", eps=EPS)
    assert found.right_before.tolist() == [True, True, True, False]
    assert found.broken.tolist() == [True, False, False, False]
    assert found.inside.tolist() == [True, True, True, True]
    assert found.robust_accuracy == 0.5


def test_wrong_before_is_not_broken_when_made_right() -> None:
    found = judge(bright, rows(0.45), torch.tensor([1]), rows(0.54), norm="linf", eps=EPS)
    assert not found.right_before.any()
    assert not found.broken.any()
    assert found.robust_accuracy == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_coordinate_that_is_not_finite(norm: Norm, value: float) -> None:
    x_adv = rows(0.46, 0.46)
    x_adv[0, 2] = value
    found = judge(bright, rows(0.55, 0.55), torch.tensor([1, 1]), x_adv, norm=norm, eps=1.0)
    assert found.inside.tolist() == [False, True]
    assert found.broken.tolist() == [False, True]
    assert found.robust_accuracy == 0.5


@pytest.mark.parametrize(("clean", "label", "adversarial"), [(0.55, 1, -0.01), (0.45, 0, 1.01)])
def test_outside_the_box_is_not_broken(clean: float, label: int, adversarial: float) -> None:
    found = judge(bright, rows(clean), torch.tensor([label]), rows(adversarial), norm="linf", eps=1.0)
    assert not found.inside.any()
    assert not found.broken.any()
    assert found.robust_accuracy == 1.0


def test_outside_the_ball_is_not_broken() -> None:
    found = judge(bright, rows(0.55), torch.tensor([1]), rows(0.44), norm="linf", eps=EPS)
    assert (found.inside.item(), found.broken.item(), found.robust_accuracy) == (False, False, 1.0)
    # the same change has length 0.22 in four coordinates
    for eps, broken in ((0.21, False), (0.23, True)):
        assert judge(bright, rows(0.55), torch.tensor([1]), rows(0.44), norm="l2", eps=eps).broken.item() is broken


@pytest.mark.parametrize(("norm", "radius"), [("linf", 0.125), ("l2", 0.25), ("l1", 0.5)])
@pytest.mark.parametrize(("share", "inside"), [(0.0, True), (0.9, True), (1.1, False)])
def test_tolerance_of_the_ball(norm: Norm, radius: float, share: float, inside: bool) -> None:
    """A change of (0.125 + share * t * w) in each of the four coordinates, in a box of width 2."""
    x0 = rows(0.5).double()
    x_adv = x0 - 0.125 - share * TOLERANCE * 2
    found = judge(bright, x0, torch.tensor([0]), x_adv, norm=norm, eps=radius, bounds=(-1.0, 1.0))
    assert found.inside.item() is inside


@pytest.mark.parametrize(("eps", "inside"), [(1.0, False), (2.0, True), (2.9, True)])
def test_l0_counts_coordinates_however_little_they_move(eps: float, inside: bool) -> None:
    x0 = rows(0.55)
    x_adv = x0.clone()
    x_adv[0, :2] -= torch.tensor([0.5, 1e-6])
    found = judge(bright, x0, torch.tensor([1]), x_adv, norm="l0", eps=eps)
    assert (found.inside.item(), found.broken.item()) == (inside, inside)


def test_distances_of_one_change() -> None:
    x_adv = rows(0.5) + torch.tensor([0.25, 0.0, -0.125, 0.0])
    found = {norm: distances(rows(0.5), x_adv, norm=norm).item() for norm in ("linf", "l2", "l1", "l0")}
    assert found == {"linf": 0.25, "l2": math.hypot(0.25, 0.125), "l1": 0.375, "l0": 2.0}


@pytest.mark.parametrize(("share", "inside"), [(0.9, True), (1.1, False)])
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_tolerance_of_the_box(side: float, share: float, inside: bool) -> None:
    x0 = rows(side).double()
    x_adv = x0 + side * share * TOLERANCE * 2
    found = judge(bright, x0, torch.tensor([0]), x_adv, norm="l2", eps=1.0, bounds=(-1.0, 1.0))
    assert found.inside.item() is inside


def test_measures_what_the_model_gets() -> None:
    """Half precision has steps of 2^-11 here: a change of 0.6 steps becomes a whole one, and 0.4 none at all."""
    x0, step = rows(0.55).half(), 2.0**-11
    for share, eps, inside in ((0.6, 0.8 * step, False), (0.4, 0.0, True)):
        x_adv = x0.double() + share * step
        assert judge(bright, x0, torch.tensor([1]), x_adv, norm="linf", eps=eps).inside.item() is inside


def test_a_model_never_sees_a_row_outside() -> None:
    seen: list[Tensor] = []

    def recording(x: Tensor) -> Tensor:
        seen.append(x)
        return bright(x)

    x_adv = rows(math.nan, 7.0, 0.46)
    judge(recording, rows(0.55, 0.55, 0.55), torch.tensor([1, 1, 1]), x_adv, norm="linf", eps=EPS)
    assert torch.cat(seen).isfinite().all()
    assert torch.cat(seen).max() < 0.6


def test_no_answer_is_neither_right_nor_broken() -> None:
    def partial(x: Tensor) -> Tensor:
        return torch.where(x.flatten(1).mean(dim=1, keepdim=True) < 0.5, math.nan, bright(x))

    found = judge(partial, rows(0.55, 0.45), torch.tensor([1, 0]), rows(0.46, 0.54), norm="linf", eps=EPS)
    assert found.right_before.tolist() == [True, False]
    assert found.broken.tolist() == [False, False]


def test_inputs_are_left_alone_and_gradients_not_kept() -> None:
    x0, x_adv = rows(0.55), rows(0.46).requires_grad_()
    model = nn.Sequential(nn.Linear(D, 2)).eval()
    found = judge(model, x0, torch.tensor([1]), x_adv, norm="linf", eps=EPS)
    assert torch.equal(x_adv.detach(), rows(0.46))
    assert not any(value.requires_grad for value in found[:3])


def test_more_rows_than_one_batch() -> None:
    x0 = rows(0.55).repeat(2500, 1)
    x_adv = x0.clone()
    x_adv[::5] -= 0.09
    found = judge(bright, x0, torch.ones(2500, dtype=torch.long), x_adv, norm="linf", eps=EPS)
    assert found.broken.sum() == 500
    assert found.robust_accuracy == pytest.approx(0.8)


@pytest.mark.parametrize(
    "call",
    [
        lambda x, y: judge(bright, x, y, x[:1], norm="linf", eps=EPS),
        lambda x, y: judge(bright, x, y[:1], x, norm="linf", eps=EPS),
        lambda x, y: judge(bright, x[:0], y[:0], x[:0], norm="linf", eps=EPS),
        lambda x, y: judge(bright, x, y - 1, x, norm="linf", eps=EPS),
        lambda x, y: judge(bright, x, y, x, norm="linf", eps=-EPS),
        lambda x, y: judge(bright, x, y, x, norm="linf", eps=math.nan),
        lambda x, y: judge(bright, x, y, x, norm=cast(Norm, "l3"), eps=EPS),
        lambda x, y: judge(bright, x * 255, y, x * 255, norm="linf", eps=EPS),
        lambda x, y: judge(bright, x, y, x, norm="linf", eps=EPS, bounds=(1.0, 0.0)),
        lambda x, y: judge(nn.Sequential(nn.Linear(D, 2)), x, y, x, norm="linf", eps=EPS),
    ],
    ids=[
        "shape",
        "labels",
        "empty",
        "negative-label",
        "radius",
        "nan-radius",
        "norm",
        "units",
        "bounds",
        "training-mode",
    ],
)
def test_refusals(call: Callable[[Tensor, Tensor], object]) -> None:
    with pytest.raises(ValueError):
        call(rows(0.55, 0.45), torch.tensor([1, 0]))


def test_the_judge_is_independent() -> None:
    """It may import the standard library and torch; nothing of ours, nothing of a peer's."""
    tree = ast.parse((BENCHMARKS / "judge.py").read_text())
    roots = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    roots |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert roots <= {"math", "collections", "typing", "torch"}
