"""The fast cascade: dear stages for near rows alone, blind rows as near ones, and AutoAttack's rows broken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from redan import samples
from redan.engine.run import attack
from redan.errors import SettingError
from redan.evasion.descent import Descent
from redan.evasion.fast_cascade import Closing, FastCascade, FastCascadeL2, Stage
from redan.evasion.fmn import FMN, Start
from redan.evasion.square import Square, SquareL2
from redan.losses import cross_entropy, margin
from redan.perturbations.norms import L2, Linf
from redan.protocols import Access, Ball, Cost, Gradients
from redan.robustness import robust_accuracy
from redan.rows import Rows
from redan.testing.victims import LinearVictim, dual_l2, dual_linf

VICTIM = LinearVictim.drawn(5, classes=2, shape=(12,))
CLIMB = Descent(steps=8, loss=margin)


@dataclass(frozen=True, slots=True)
class Seen:
    """An attack that asks nothing and remembers whom it was shown."""

    ids: list[int] = field(default_factory=list, hash=False)

    def cost(self, classes: int) -> Cost:
        return Cost(0, 0)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        self.ids.extend(rows.ids.tolist())


def shown(model: nn.Module, x: Tensor, y: Tensor, radius: float, share: float) -> set[int]:
    seen = Seen()
    made = Closing((), CLIMB, (Stage(seen, share),), Seen())
    attack(model, x, y, made, within=Linf(radius), block=len(x), workers=1)
    return set(seen.ids)


def test_a_stage_sees_the_rows_of_whose_margin_little_is_left() -> None:
    """On a linear model the margin falls in proportion: at this radius 1 - radius / distance of it is left."""
    x, y = VICTIM.rows(40)
    away = VICTIM.optimum(x, y, dual_linf)
    radius = float(away.min()) * 0.9
    left = 1 - radius / away
    for share in (0.0, 0.3, 0.6):
        assert shown(VICTIM.module(), x, y, radius, share) == set((left <= share + 1e-4).nonzero().flatten().tolist())
    assert shown(VICTIM.module(), x, y, radius, 1.0) == set(range(40))


class _Rounded(nn.Module):
    """Gradients of zero everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = VICTIM.module()

    def forward(self, x: Tensor) -> Tensor:
        answers: Tensor = self.inner((x * 64).round() / 64)
        return answers


def test_rows_whose_margin_never_rises_count_as_near() -> None:
    x, y = VICTIM.rows(20)
    y = VICTIM.module()((x * 64).round() / 64).argmax(1)
    assert shown(_Rounded().eval(), x, y, 0.05, 0.0) == set(range(20))


@pytest.mark.parametrize(("name", "misleads"), [("winners", True), ("residual", False), ("fast", False)])
def test_rows_whose_gradients_foretell_little_are_attacked_without_them(name: str, misleads: bool) -> None:
    images, labels = samples.fashion_mnist()
    staged, unguided = Seen(), Seen()
    made = Closing((), Descent(steps=20, random_start=True, loss=margin), (Stage(staged, 1.0),), unguided)
    result = attack(samples.model(name), images[:64], labels[:64], made, within=Linf(0.1), workers=1)
    left = (~result.success).nonzero().flatten().tolist()
    assert len(left) >= 5
    assert sorted(staged.ids + unguided.ids) == left
    assert (len(unguided.ids) >= 0.9 * len(left)) if misleads else not unguided.ids


def test_the_dearest_row_is_told_whichever_way_it_goes() -> None:
    few, many = (FastCascade(queries=queries).cost(10) for queries in (1, 4000))
    assert few.queries >= few.backwards  # through every stage
    assert 20_000 < many.queries < 20_200  # without gradients, after a short climb and a look at the way
    assert few.backwards == many.backwards


class _Detached(_Rounded):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


@pytest.mark.parametrize("victim", [_Rounded, _Detached], ids=["gradients of zero", "no gradients"])
@pytest.mark.parametrize(("made", "within"), [(FastCascade(), Linf(0.3)), (FastCascadeL2(), L2(0.9))])
def test_masked_gradients_do_not_help(victim: type[nn.Module], made: Any, within: Ball) -> None:
    x, y = VICTIM.rows(12)
    model = victim().eval()
    y = model(x).argmax(1)
    assert attack(model, x, y, made, within=within, seed=1).success.all()


def test_an_attacker_without_gradients_is_refused() -> None:
    x, y = VICTIM.rows(4)
    with pytest.raises(SettingError, match="gradients"):
        attack(VICTIM.module(), x, y, FastCascade(), within=Linf(0.1), knowledge=Access.SCORES)


@pytest.mark.parametrize("start", list(Start))
def test_a_far_start_is_where_it_says(start: Start) -> None:
    x, y = VICTIM.rows(6)
    asked: list[Tensor] = []

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.requires_grad:
                asked.append(x.detach().clone())
            answers: Tensor = VICTIM.module()(x)
            return answers

    attack(Watched().eval(), x, y, FMN(steps=1, start=start), within=L2(0.01), seed=2)
    first = asked[-1][: len(x)]  # copies fill the batch up; the checks of the gradient path come before
    away = (first - x).flatten(1).norm(dim=1)
    if start is Start.CLEAN:
        assert torch.equal(first, x)
    elif start is Start.OPPOSITE:
        assert torch.allclose(first, 1 - x)
    else:
        assert bool((away <= 0.04 + 1e-6).all())
        assert bool((away > 0.01).all())


@pytest.mark.slow
@pytest.mark.parametrize(("within", "fewer"), [(Linf(0.1), 0), (L2(1.5), 4)], ids=["linf", "l2"])
def test_no_more_rows_stand_than_under_autoattack(within: Ball, fewer: int) -> None:
    """Beside AutoAttack's own protocol on 64 test rows of the robust network; in L2 so many fewer rows stand."""
    x, y = samples.fashion_mnist()
    model, rows = samples.model("robust"), slice(0, 64)
    ours, theirs = (
        robust_accuracy(model, x[rows], y[rows], within=within, mode=mode) for mode in ("default", "autoattack")
    )
    assert ours.k <= theirs.k - fewer
    assert ours.forwards + ours.backwards <= (theirs.forwards + theirs.backwards) / 10


@pytest.mark.parametrize(("search", "within"), [(Square, Linf), (SquareL2, L2)])
def test_square_leaves_rows_that_lag_behind(search: Any, within: Any) -> None:
    """Rows far inside their class are left after a tenth of the queries; near ones are broken all the same."""
    x, y = VICTIM.rows(40)
    away = VICTIM.optimum(x, y, dual_linf if within is Linf else dual_l2)
    near, far = away <= away.median(), away > away.median()
    radius = torch.where(near, 3 * away, away / 20).float()
    plain, shorter = (
        attack(VICTIM.module(), x, y, search(queries=500, discard=leave), within=within(radius), workers=1)
        for leave in (False, True)
    )
    assert bool((plain.success == near).all())
    assert bool((shorter.success == near).all())
    assert bool((plain.queries[far] == 500).all())
    assert bool((shorter.queries[far] <= 102).all())


@pytest.mark.parametrize("search", [Square, SquareL2])
def test_square_refuses_to_leave_rows_by_another_loss(search: Any) -> None:
    with pytest.raises(SettingError, match="leave it out"):
        search(loss=cross_entropy, discard=True)
    assert search(loss=cross_entropy).loss is cross_entropy


def test_a_climb_that_is_watched_goes_the_same_way() -> None:
    """What is remembered of the losses changes no step; a plain climb remembers nothing."""
    x, y = VICTIM.rows(20)
    radius = float(VICTIM.optimum(x, y, dual_linf).median())
    plain, watched = (
        attack(VICTIM.module(), x, y, made, within=Linf(radius), workers=1)
        for made in (CLIMB, Closing((), CLIMB, (), Seen()))
    )
    assert torch.equal(plain.success, watched.success)
    assert torch.equal(plain.adversarial, watched.adversarial)
