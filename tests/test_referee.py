"""The referee believes rows.ids and nothing else: what it calls a win, what it keeps, and what an attack may know."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from redan.errors import AccessError
from redan.goals import Targeted, Untargeted
from redan.losses import margin
from redan.oracle import Capability, Limits, Oracle, Purse
from redan.perturbations.norms import L2, Linf
from redan.protocols import Access
from redan.referee import Closest, First, Referee, Rule, Worst
from redan.rows import Rows, Streams
from redan.targets import from_torch

# One number decides: class 1 from 0.5 on. Rows 0 to 3 are of class 0, the radius is 0.2.
X0 = torch.tensor([[0.40, 0.5], [0.45, 0.5], [0.10, 0.5], [0.49, 0.5]])
ROWS = len(X0)


class Threshold(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        away = x[:, 0] - 0.5
        return torch.stack([-away, away], 1)


class Coin(nn.Module):
    """Wrong with the probability that the first number says."""

    def forward(self, x: Tensor) -> Tensor:
        wrong = torch.rand(len(x)) < x[:, 0]
        return torch.stack([~wrong, wrong], 1).float()


def refereed(
    rule: Rule | None = None,
    *,
    model: nn.Module | None = None,
    knowledge: Access = Access.GRADIENTS,
    cap: int | None = None,
    already: Tensor | None = None,
    draws: int = 0,
    within: Linf | L2 | None = None,
) -> tuple[Referee, Rows[Tensor, Any]]:
    target = from_torch((model or Threshold()).eval(), stochastic=draws > 0)
    one = Oracle(target, ROWS, 2, capability=Capability(queries_per_row=cap), purse=Purse(Limits()), micro=64)
    every, y = torch.arange(ROWS), torch.zeros(ROWS, dtype=torch.int64)
    within = within or Linf(0.2)
    referee = Referee(
        one,
        x0=X0,
        goal=Untargeted(y.clone()),
        within=within,
        clean=torch.tensor([[1.0, 0.0]]).repeat(ROWS, 1),
        already=torch.zeros(ROWS, dtype=torch.bool) if already is None else already,
        rule=rule or First(),
        knowledge=knowledge,
        draws=draws,
    )
    streams = Streams.start(0, [str(i) for i in range(ROWS)])
    return referee, Rows(every, X0.clone(), Untargeted(y), within, streams)


def at(first: list[float]) -> Tensor:
    x = X0.clone()
    x[:, 0] = torch.tensor(first)
    return x


# -- wins ---------------------------------------------------------------------------------------------------


def test_a_win_reaches_the_goal_inside_the_set() -> None:
    referee, rows = refereed()
    x = at([0.55, 0.45, 0.90, 0.55])  # reached and inside; not reached; reached outside; reached and inside
    reached = referee.reached(x, rows)
    kept = referee.kept()

    assert reached.tolist() == [True, False, True, True]
    assert kept.won.tolist() == [True, False, False, True]
    assert torch.equal(kept.x, torch.where(kept.won[:, None], x, X0))
    assert kept.distance.tolist() == pytest.approx([0.15, math.inf, math.inf, 0.06])


def test_outside_the_box_is_outside() -> None:
    referee, rows = refereed(within=Linf(5.0))
    x = X0.clone()
    x[:, 0], x[:, 1] = 0.6, torch.tensor([0.5, 1.0 + 1e-6, -1e-6, 1.0])
    referee.reached(x, rows)

    assert referee.kept().won.tolist() == [True, False, False, True]


def test_every_verb_judges() -> None:
    x = at([0.55, 0.55, 0.25, 0.55])
    for verb in ("reached", "scores", "gradient"):
        referee, rows = refereed()
        getattr(referee, verb)(x, rows, *([margin] if verb == "gradient" else []))
        assert referee.kept().won.tolist() == [True, True, False, True]


def test_what_gradient_answers() -> None:
    referee, rows = refereed()
    gradient, loss, reached = referee.gradient(at([0.55, 0.45, 0.1, 0.5]), rows, margin)

    assert loss.tolist() == pytest.approx([0.1, -0.1, -0.8, 0.0])
    assert reached.tolist() == [True, False, False, False]
    assert gradient[:, 0].tolist() == pytest.approx([2.0] * 4)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_never_wins(number: float) -> None:
    referee, rows = refereed(Worst())
    x = at([0.55] * 4)
    x[:, 1] = number
    referee.reached(x, rows)
    referee.reached(torch.full_like(x, number), rows)

    assert not referee.kept().won.any()
    assert bool(referee.kept().x.isfinite().all())
    assert not referee.oracle.reasons


# -- whom it believes ---------------------------------------------------------------------------------------


def test_only_the_ids_count() -> None:
    """False inputs, goals, sets and starts in the rows change nothing."""
    referee, rows = refereed()
    lies = replace(
        rows,
        x0=torch.full_like(X0, 0.9),
        goal=Targeted(torch.zeros(ROWS, dtype=torch.int64), torch.ones(ROWS, dtype=torch.int64)),
        within=Linf(100.0, (-100.0, 100.0)),
    )
    x = at([0.3, 0.9, 0.3, 0.55])

    assert referee.reached(x, lies).tolist() == [False, True, False, True]
    assert referee.kept().won.tolist() == [False, False, False, True]


def test_ids_say_which_row_a_candidate_is_for() -> None:
    referee, rows = refereed()
    x = at([0.45, 0.55, 0.45, 0.55])
    referee.reached(x, replace(rows, ids=torch.tensor([1, 0, 3, 2])))

    assert referee.kept().won.tolist() == [True, False, False, False]  # row 2 is too far from 0.55
    assert torch.equal(referee.kept().x[0], x[1])


def test_what_the_attack_writes_later_changes_nothing() -> None:
    referee, rows = refereed(Closest())
    x = at([0.55] * 4)
    found = referee.reached(x, rows)
    before = referee.kept().x.clone()
    for tensor in (x, found, rows.x0, referee.best(rows).x, referee.best(rows).distance):
        tensor.fill_(0)
    goal: Any = rows.goal
    goal.truth.fill_(1)

    assert torch.equal(referee.kept().x, before)
    assert referee.best(rows).distance.tolist() == pytest.approx([0.15, 0.10, 0.45, 0.06])
    assert not referee.reached(at([0.4] * 4), rows).any()


# -- rules of keeping ---------------------------------------------------------------------------------------


def test_first_keeps_the_first_win_and_the_row_is_decided() -> None:
    referee, rows = refereed(First())
    referee.reached(at([0.58, 0.4, 0.1, 0.4]), rows)
    (left,) = referee.survivors(rows)
    referee.reached(at([0.51, 0.55, 0.1, 0.4]), rows)

    assert left.ids.tolist() == [1, 2, 3]
    assert referee.kept().x[:, 0].tolist() == pytest.approx([0.58, 0.55, 0.1, 0.49])
    assert referee.kept().open.tolist() == [False, False, True, True]


def test_closest_keeps_the_nearest_win_and_goes_on() -> None:
    referee, rows = refereed(Closest())
    for first in ([0.58] * 4, [0.51] * 4, [0.55] * 4):
        referee.reached(at(first), rows)
        assert referee.survivors(rows)[0] is rows

    assert referee.kept().x[:, 0].tolist() == pytest.approx([0.51, 0.51, 0.1, 0.51])
    assert referee.kept().distance.tolist() == pytest.approx([0.11, 0.06, math.inf, 0.02])


def test_worst_keeps_the_highest_loss_won_or_not() -> None:
    referee, rows = refereed(Worst())
    for first in ([0.3, 0.6, 0.2, 0.45], [0.45, 0.55, 0.25, 0.44], [0.9, 0.4, 0.9, 0.3]):
        referee.reached(at(first), rows)

    assert referee.kept().x[:, 0].tolist() == pytest.approx([0.45, 0.6, 0.25, 0.45])
    assert referee.kept().open.all()


@pytest.mark.parametrize("rule", [First(), Closest(), Worst()])
def test_the_best_of_many_candidates_of_a_row_in_one_call(rule: Rule) -> None:
    referee, rows = refereed(rule)
    index = torch.tensor([3, 0, 3, 0, 3, 0, 3])
    x = X0[index].clone()
    x[:, 0] = torch.tensor([0.60, 0.55, 0.52, 0.42, 0.68, 0.58, 0.9])
    referee.reached(x, rows.take(index))
    wanted = {First: (0.55, 0.60), Closest: (0.55, 0.52), Worst: (0.58, 0.68)}[type(rule)]

    assert referee.kept().x[[0, 3], 0].tolist() == pytest.approx(wanted)
    assert referee.kept().won.tolist() == [True, False, False, True]


def test_a_row_already_wrong_is_won_at_distance_nothing() -> None:
    already = torch.tensor([False, True, False, False])
    for rule in (First(), Closest()):
        referee, rows = refereed(rule, already=already)
        referee.reached(at([0.3, 0.55, 0.1, 0.4]), rows)
        kept = referee.kept()
        assert kept.won.tolist() == already.tolist()
        assert kept.distance[1] == 0
        assert torch.equal(kept.x, X0)
        assert referee.survivors(rows)[0].ids.tolist() == [0, 2, 3]
        best = referee.best(rows)
        assert float(best.distance[1]) == 0
        assert torch.equal(best.x[1], X0[1])


# -- what an attack may ask ---------------------------------------------------------------------------------


def test_best_is_the_nearest_that_reached_inside_the_set_or_not() -> None:
    referee, rows = refereed(Closest())
    nothing = referee.best(rows)
    assert torch.equal(nothing.x, X0)
    assert nothing.distance.tolist() == [math.inf] * 4

    referee.reached(at([0.9, 0.9, 0.9, 0.4]), rows)
    assert referee.best(rows).distance.tolist() == pytest.approx([0.5, 0.45, 0.8, math.inf])
    referee.reached(at([0.95, 0.55, 0.8, 0.4]), rows)
    best = referee.best(rows.take(torch.tensor([2, 0, 2, 1])))

    assert best.distance.tolist() == pytest.approx([0.7, 0.5, 0.7, 0.1])
    assert best.x[:, 0].tolist() == pytest.approx([0.8, 0.9, 0.8, 0.55])
    assert referee.kept().won.tolist() == [False, True, False, False]


def test_survivors_are_the_same_objects_while_nothing_is_decided() -> None:
    referee, rows = refereed()
    state = torch.arange(4)
    again, kept = referee.survivors(rows, state)
    assert again is rows
    assert kept is state

    referee.reached(at([0.55, 0.4, 0.1, 0.55]), rows)
    left, numbers, names = referee.survivors(rows, state, ["a", "b", "c", "d"])
    assert left.ids.tolist() == numbers.tolist() == [1, 2]
    assert names == ["b", "c"]
    assert len(referee.survivors(left.take(torch.tensor([1, 1, 0])))[0]) == 3


def test_nobody_survives() -> None:
    referee, rows = refereed(within=Linf(0.5))
    referee.reached(at([0.55] * 4), rows)
    left, state = referee.survivors(rows, torch.zeros(4, 3))

    assert len(left) == 0
    assert state.shape == (0, 3)
    assert referee.reached(left.x0, left).shape == (0,)
    assert referee.gradient(left.x0, left, margin).gradient.shape == (0, 2)
    assert referee.scores(left.x0, left).shape == (0, 2)
    assert referee.best(left).x.shape == (0, 2)


@pytest.mark.parametrize(
    ("knowledge", "refused"), [(Access.LABELS, ("scores", "gradient")), (Access.SCORES, ("gradient",))]
)
def test_no_answer_beyond_the_attackers_knowledge(knowledge: Access, refused: tuple[str, ...]) -> None:
    referee, rows = refereed(knowledge=knowledge)
    referee.reached(X0, rows)
    for verb in refused:
        with pytest.raises(AccessError, match="knowledge is"):
            getattr(referee, verb)(X0, rows, *([margin] if verb == "gradient" else []))
    assert referee.oracle.queries.tolist() == [1] * 4


def test_a_row_over_its_capability_is_told_nothing_and_leaves() -> None:
    referee, rows = refereed(cap=1)
    referee.reached(at([0.4, 0.55, 0.1, 0.4]), rows)
    gradient, loss, reached = referee.gradient(at([0.55] * 4), rows, margin)

    assert not reached.any()
    assert loss.tolist() == [-math.inf] * 4
    assert not gradient.any()
    assert referee.scores(at([0.55] * 4), rows).isnan().all()
    assert referee.kept().won.tolist() == [False, True, False, False]
    assert len(referee.survivors(rows)[0]) == 0
    assert referee.oracle.queries.tolist() == [1] * 4


# -- stochastic targets -------------------------------------------------------------------------------------


def test_a_lucky_answer_does_not_decide_a_row() -> None:
    """Hits are confirmed on fresh draws: a row is decided only where all of them are hits too."""
    torch.manual_seed(0)
    referee, rows = refereed(model=Coin(), draws=10, within=Linf(1.0))
    x = at([0.3, 0.3, 0.3, 1.0])
    for _ in range(30):
        referee.reached(x, rows)

    assert referee.kept().open.tolist() == [True, True, True, False]
    assert referee.kept().won[3]


def test_the_likelier_hit_is_kept() -> None:
    torch.manual_seed(0)
    referee, rows = refereed(model=Coin(), draws=20, within=Linf(1.0))
    for first in (0.2, 0.9, 0.2, 0.9, 0.2):
        for _ in range(4):
            referee.reached(at([first] * 4), rows)

    assert referee.kept().x[:, 0].tolist() == pytest.approx([0.9] * 4)


def test_confirming_draws_are_not_billed_to_the_attacker() -> None:
    torch.manual_seed(0)
    referee, rows = refereed(model=Coin(), draws=10, within=Linf(1.0))
    referee.reached(at([1.0] * 4), rows)

    assert referee.oracle.queries.tolist() == [1] * 4


# -- beside a second writing of it --------------------------------------------------------------------------


@dataclass
class Naive:
    """One row's referee, in plain Python: what was asked, kept and told."""

    x0: tuple[float, float]
    rule: Rule
    cap: int | None
    queries: int = 0
    kept: tuple[float, tuple[float, float] | None] = (-math.inf, None)  # merit, input
    near: float = math.inf
    done: bool = False

    def ask(self, x: tuple[float, float]) -> bool:
        """Whether x reached the goal, as the attack is told."""
        if self.cap is not None and self.queries >= self.cap:
            return False
        self.queries += 1
        reached = x[0] > 0.5
        distance = max(abs(a - b) for a, b in zip(x, self.x0, strict=True))
        inside = distance <= 0.2 + 5e-7 and all(0 <= a <= 1 for a in x)
        if reached and not (self.done and isinstance(self.rule, First)):
            self.near = min(self.near, distance)
        merit = {First: 1.0, Closest: -distance, Worst: 2 * (x[0] - 0.5)}[type(self.rule)]
        if inside and (reached or isinstance(self.rule, Worst)) and not self.done and merit > self.kept[0]:
            self.kept = merit, x
            self.done = isinstance(self.rule, First)
        return reached


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("rule", [First(), Closest(), Worst()], ids=["first", "closest", "worst"])
def test_a_naive_referee_keeps_and_tells_the_same(rule: Rule, seed: int) -> None:
    """Random questions: any rows in any order, many candidates of one, inside and outside, with and without a cap."""
    draw = torch.Generator().manual_seed(seed)
    cap = None if seed % 3 == 0 else seed
    referee, rows = refereed(rule, cap=cap)
    naive = [Naive((x[0], x[1]), rule, cap) for x in X0.tolist()]
    if isinstance(rule, Worst):
        for one in naive:
            one.kept = -1.0, one.x0  # the clean answer that `refereed` hands over has this loss
    for _ in range(8):
        index = torch.randint(ROWS, (int(torch.randint(9, (), generator=draw)),), generator=draw)
        x = X0[index] + torch.randn(len(index), 2, generator=draw) * torch.tensor([0.15, 0.1])
        told = referee.reached(x, rows.take(index))
        assert told.tolist() == [naive[i].ask((c[0], c[1])) for i, c in zip(index.tolist(), x.tolist(), strict=True)]
    kept, best = referee.kept(), referee.best(rows)

    assert referee.oracle.queries.tolist() == [one.queries for one in naive]
    assert best.distance.tolist() == pytest.approx([one.near for one in naive], abs=1e-6)
    for i, one in enumerate(naive):
        assert kept.x[i].tolist() == pytest.approx(one.kept[1] or one.x0)
        assert bool(kept.won[i]) == (one.kept[1] is not None)
        assert bool(kept.open[i]) == (not one.done and (cap is None or one.queries < cap))
