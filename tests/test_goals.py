"""Goals: what counts, how goals meet their rows, and the narrower goals a sweep goes through."""

import pytest
import torch

from redan.errors import SettingError
from redan.goals import Deviate, FlipLabels, LeastLikely, Targeted, Task, Untargeted, Wrong
from redan.losses import cross_entropy, margin

Z = torch.tensor([[0.1, 0.9, 0.5], [0.7, 0.2, 0.1], [0.3, 0.3, 0.4]])
Y = torch.tensor([0, 0, 2])


def test_untargeted_is_any_wrong_class() -> None:
    assert Untargeted().about(Y, Z).reached(Z).tolist() == [True, False, False]


def test_targeted_is_that_class_alone() -> None:
    assert Targeted(1).about(Y, Z).reached(Z).tolist() == [True, False, False]
    assert Targeted(2).about(Y, Z).reached(Z).tolist() == [False, False, False]  # row 2 is of that class


def test_a_right_answer_is_never_an_attack() -> None:
    goal = Targeted(torch.tensor([0, 0, 2])).about(Y, Z)

    assert not bool(goal.reached(torch.eye(3)[Y]).any())


def test_a_target_each() -> None:
    goal = Targeted(torch.tensor([1, 2, 0])).about(Y, Z)

    assert goal.reached(torch.eye(3)[[1, 1, 0]]).tolist() == [True, False, True]
    assert goal.take(torch.tensor([2, 0])).label.tolist() == [0, 1]
    assert goal.take(torch.tensor([False, True, True])).truth.tolist() == [0, 2]


@pytest.mark.parametrize("target", [3, -1, torch.tensor([0, 1, 3])])
def test_a_class_the_model_does_not_have_is_refused(target: int | torch.Tensor) -> None:
    with pytest.raises(SettingError, match="from 0 to 2"):
        Targeted(target).about(Y, Z)


def test_as_many_targets_as_rows() -> None:
    with pytest.raises(SettingError, match="one class, or one a row"):
        Targeted(torch.tensor([0, 1])).about(Y, Z)


def test_about_copies_its_target() -> None:
    target = torch.tensor([1, 2, 0])
    goal = Targeted(target).about(Y, Z)
    target.zero_()

    assert goal.label.tolist() == [1, 2, 0]


def test_least_likely_of_the_wrong_classes() -> None:
    z = torch.tensor([[0.1, 0.9, 0.5], [-3.0, -1.0, -2.0]])
    goal = LeastLikely().about(torch.tensor([1, 0]), z)

    assert goal.label.tolist() == [0, 2]  # never the right class, although row 1 finds it least likely
    assert goal.truth.tolist() == [1, 0]


def test_ways_go_through_the_wrong_classes_likeliest_first() -> None:
    ways = Untargeted().about(Y, Z).ways(Z, 5)

    assert [way.label.tolist() for way in ways if isinstance(way, Targeted)] == [[1, 1, 0], [2, 2, 1]]
    assert all(torch.equal(way.truth, Y) for way in ways if isinstance(way, Targeted))
    assert len(Untargeted().about(Y, Z).ways(Z, 1)) == 1


def test_each_way_implies_the_goal() -> None:
    z = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    y = torch.arange(200) % 3
    goal = Untargeted().about(y, z)
    reached = torch.stack([way.reached(z) for way in goal.ways(z, 9)])

    assert torch.equal(reached.any(0), goal.reached(z))


def test_ways_of_answers_that_did_not_come() -> None:
    """A row over its capability gets NaN scores; its ways are wrong classes still."""
    z = torch.full((3, 3), torch.nan)

    ways = [way for way in Untargeted().about(Y, Z).ways(z, 9) if isinstance(way, Targeted)]
    assert len(ways) == 2
    assert not any(bool((way.label == Y).any()) for way in ways)


def test_a_targeted_goal_has_one_way() -> None:
    goal = Targeted(1).about(Y, Z)

    assert goal.ways(Z, 9) == [goal]


def test_goals_of_no_rows() -> None:
    nobody, nothing = torch.empty(0, dtype=torch.int64), torch.empty(0, 3)

    assert Untargeted().about(nobody, nothing).reached(nothing).shape == (0,)
    assert Targeted(2).about(nobody, nothing).loss(nothing).shape == (0,)
    assert len(Untargeted().about(nobody, nothing).ways(nothing, 9)) == 2


LABELS = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 1]])
SCORES = torch.tensor([[2.0, -1.0, 0.5], [-1.0, 0.5, 1.0], [0.5, 1.0, -2.0]])


def test_labels_are_right_when_all_of_them_are() -> None:
    goal = FlipLabels().about(LABELS, SCORES)

    assert goal.right(SCORES).tolist() == [True, False, False]
    assert goal.reached(SCORES).tolist() == [False, True, True]


def test_one_label_alone() -> None:
    goal = FlipLabels(2).about(LABELS, SCORES)

    assert goal.reached(SCORES).tolist() == [False, False, True]
    assert goal.right(SCORES).tolist() == [True, False, False]  # whatever the attacker wants
    with pytest.raises(SettingError, match="from 0 to 2"):
        FlipLabels(3).about(LABELS, SCORES)


def test_values_are_right_within_what_is_allowed() -> None:
    values, answers = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64), torch.tensor([[1.1], [1.3], [0.5]])
    goal = Deviate(0.2).about(values, answers)

    assert goal.right(answers).tolist() == [True, False, False]
    assert goal.reached(answers).tolist() == [False, True, True]
    for by in (0.0, -1.0, float("nan")):
        with pytest.raises(SettingError, match="above 0"):
            Deviate(by)


@pytest.mark.parametrize(
    ("goal", "answers"),
    [
        (FlipLabels().about(LABELS, SCORES), torch.randn(3, 3, generator=torch.Generator().manual_seed(0))),
        (FlipLabels(1).about(LABELS, SCORES), torch.randn(3, 3, generator=torch.Generator().manual_seed(1))),
        (Deviate(0.5).about(torch.zeros(3), SCORES), torch.randn(3, 1, generator=torch.Generator().manual_seed(2))),
    ],
)
def test_the_margin_is_above_0_exactly_when_the_goal_is_reached(
    goal: FlipLabels | Deviate, answers: torch.Tensor
) -> None:
    scores = goal.scores(answers)

    assert torch.equal(margin(scores, goal) > 0, goal.reached(answers))
    assert torch.equal(goal.loss(scores), margin(scores, goal))
    assert bool(cross_entropy(scores, goal).isfinite().all())
    assert goal.take(torch.tensor([2, 0])).reached(answers[[2, 0]]).tolist() == goal.reached(answers)[[2, 0]].tolist()


@pytest.mark.parametrize("goal", [FlipLabels().about(LABELS, SCORES), Deviate(0.5).about(torch.zeros(3), SCORES)])
def test_each_wrong_label_and_each_side_is_a_way(goal: FlipLabels | Deviate) -> None:
    columns = 3 if goal.task is Task.LABELS else 1
    draw = torch.Generator().manual_seed(3)
    ways = goal.ways(goal.scores(torch.randn(3, columns, generator=draw)), 9)
    assert len(ways) == (3 if goal.task is Task.LABELS else 2)
    reached = torch.zeros(3, dtype=torch.bool)
    for _ in range(50):
        answers = torch.randn(3, columns, generator=draw)
        hits = torch.stack([way.reached(answers) for way in ways])
        assert not bool((hits & ~goal.reached(answers)).any())
        assert torch.equal(hits.any(0), goal.reached(answers))  # and together they are all there is
        reached |= hits.any(0)
    assert bool(reached.all())
    assert ways[0].take(torch.tensor([1])).reached(answers[1:2]).tolist() == ways[0].reached(answers)[1:2].tolist()


def test_wrong_is_any_answer_that_is_not_right() -> None:
    goal = Wrong(Targeted(1).about(Y, Z))
    assert goal.reached(Z).tolist() == (~Untargeted(Y).right(Z)).tolist()


def test_outcomes_of_each_task() -> None:
    assert [task.outcomes(4) for task in Task] == [4, 5, 3]
