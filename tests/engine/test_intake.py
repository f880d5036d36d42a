"""What comes in: rows, labels and attacks that cannot mean what was intended are refused, with cause and remedy."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from redan.engine.intake import checked_rows, count_classes, refuse_misfits, row_names
from redan.errors import DataError, RedanError, SetError, SettingError, TargetError
from redan.evasion.cascade import Cascade, Restarts
from redan.evasion.noise import RandomNoise
from redan.evasion.pgd import PGD
from redan.evasion.square import Square, SquareL2
from redan.perturbations.norms import L2, Linf
from redan.protocols import Access, Ball, Gradients, Labels, needs
from redan.rows import Rows
from redan.targets import from_torch
from redan.testing import LinearVictim

VICTIM = LinearVictim.drawn(0, classes=3, shape=(2, 2))
X, Y = VICTIM.rows(5)


class Answers(nn.Module):
    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(x)


def target(classes: int | None = None, dtype: torch.dtype = torch.float32) -> Any:
    return from_torch(VICTIM.module().to(dtype), classes=classes)


# -- names --------------------------------------------------------------------------------------------------


def test_names_are_of_the_content() -> None:
    names = row_names(X)

    assert len(set(names)) == 5
    assert row_names(X.flip(0)) == names[::-1]
    assert row_names(X + 0.0) == names
    changed = X.clone()
    changed[2, 0, 0] += 1e-6
    assert [a == b for a, b in zip(row_names(changed), names, strict=True)] == [True, True, False, True, True]


def test_equal_rows_are_numbered() -> None:
    names = row_names(X[[0, 1, 0, 0]])

    assert len(set(names)) == 4
    assert names[0] == row_names(X)[0]
    assert names[3].startswith(names[0])


def test_names_may_be_given_if_they_are_one_each() -> None:
    assert row_names(X, [3, "a", 2.5, None, ()]) == ["3", "a", "2.5", "None", "()"]
    for wrong in ([1, 2], [1, 1, 2, 3, 4], [1, "1", 2, 3, 4]):
        with pytest.raises(DataError, match="give each row its own"):
            row_names(X, wrong)


# -- rows and labels ----------------------------------------------------------------------------------------


def test_what_is_taken() -> None:
    x, y = checked_rows(X.numpy(), Y.tolist(), target())

    assert torch.equal(x, X)
    assert torch.equal(y, Y)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert checked_rows(X.double(), Y.to(torch.int32), target())[0].dtype == torch.float32
    assert checked_rows(X, Y, target(dtype=torch.float64))[0].dtype == torch.float64
    assert checked_rows(X[:0], Y[:0], target())[0].shape == (0, 2, 2)


def test_the_callers_rows_are_not_tied_to_a_graph() -> None:
    assert not checked_rows(X.clone().requires_grad_(), Y, target())[0].requires_grad


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        ((X * 255).to(torch.uint8), Y, "floating point"),
        (X[:, 0, 0], Y, "need labels"),
        (X, Y[:4], "need labels"),
        (X, torch.eye(3)[Y], "argmax"),
        (X, Y.float(), "class numbers"),
        (X, Y > 0, "class numbers"),
        (X * torch.nan, Y, "NaN or infinity"),
        (X / 0, Y, "NaN or infinity"),
        (X * 255, Y, "outside the bounds"),
        (X - 0.9, Y, "outside the bounds"),
    ],
)
def test_what_is_refused(x: Tensor, y: Tensor, says: str) -> None:
    with pytest.raises(DataError, match=says):
        checked_rows(x, y, target())


def test_a_bound_that_the_inputs_type_cannot_hold_is_no_reason_to_refuse() -> None:
    """A white pixel of ImageNet, normalized, is 2.64 in float32, which is above 2.64 in double precision."""
    white = torch.full((2, 2, 2), 2.64)
    assert float(white.max()) > 2.64

    x, _ = checked_rows(white, torch.tensor([0, 1]), from_torch(VICTIM.module(), bounds=(-2.1179, 2.64)))
    assert torch.equal(x, white)


def test_read_only_arrays_are_taken() -> None:
    """Memory-mapped data sets are; and nothing may be written into them."""
    array = X.numpy().copy()
    array.flags.writeable = False

    assert np.array_equal(checked_rows(array, Y, target())[0].numpy(), array)


# -- classes ------------------------------------------------------------------------------------------------


def test_classes_come_from_the_targets_word_or_its_answer() -> None:
    assert count_classes(target(), X, Y) == 3
    assert count_classes(target(7), X, Y) == 7
    assert count_classes(target(), X[:0], Y[:0]) == 2
    assert count_classes(target(), X[:1], Y[:1]) == 3


@pytest.mark.parametrize("wrong", [3, -1])
def test_labels_that_the_model_does_not_know(wrong: int) -> None:
    y = Y.clone()
    y[1] = wrong
    with pytest.raises(DataError, match="classes 0 to 2"):
        count_classes(target(), X, y)


def test_one_score_is_not_enough() -> None:
    model = Answers(lambda x: x.flatten(1)[:, :1]).eval()
    with pytest.raises(TargetError, match=r"from_torch\(model, classes=2\)"):
        count_classes(from_torch(model), X, Y * 0)
    assert count_classes(from_torch(model, classes=2), X, Y * 0) == 2


def test_the_first_row_may_fail() -> None:
    def answer(x: Tensor) -> Tensor:
        bad = (x == X[0]).flatten(1).all(1)
        answer: Tensor = VICTIM.module()(x)
        return answer.masked_fill(bad[:, None], torch.nan)

    assert count_classes(from_torch(Answers(answer).eval()), X, Y) == 3


def test_a_model_that_fails_on_every_row_is_refused() -> None:
    def answer(x: Tensor) -> Tensor:
        raise ConnectionError("no route to host")

    with pytest.raises(TargetError, match=r"every row .*no route to host"):
        count_classes(from_torch(Answers(answer).eval()), X, Y)


@pytest.mark.parametrize("answer", [lambda _: None, lambda x: {"logits": x}, lambda x: (x.flatten(1), x)])
def test_answers_that_are_no_tensor_are_refused(answer: Any) -> None:
    """A Hugging Face module answers a mapping: say so, and not with an AttributeError."""
    with pytest.raises(RedanError, match=r"scores|tensor|every row"):
        count_classes(from_torch(Answers(answer).eval()), X, Y)


# -- attacks ------------------------------------------------------------------------------------------------


class OnAnything:
    """Annotated for a set of any kind."""

    def __call__(self, referee: Labels[Tensor], rows: Rows[Tensor, Any]) -> None:
        referee.reached(rows.x0, rows)


class Unannotated:
    def __call__(self, referee, rows):  # type: ignore[no-untyped-def]  # that is what is tested
        referee.reached(rows.x0, rows)


class Nearest:
    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, L2]) -> None:
        referee.reached(rows.x0, rows)


@pytest.mark.parametrize(
    ("attack", "access", "within"),
    [
        (PGD(), Access.GRADIENTS, Ball),
        (Square(), Access.SCORES, Linf),
        (SquareL2(), Access.SCORES, L2),
        (RandomNoise(), Access.LABELS, Ball),
        (Nearest(), Access.GRADIENTS, L2),
        (Cascade((RandomNoise(), Square())), Access.SCORES, Linf),
        (Restarts(Cascade((PGD(), Square()))), Access.GRADIENTS, Linf),
        (OnAnything(), Access.LABELS, Ball),
        (Unannotated(), Access.LABELS, Ball),
    ],
)
def test_what_an_attack_needs_is_read_from_its_signature(attack: Any, access: Access, within: type[Any]) -> None:
    assert needs(attack) == (access, within)


@pytest.mark.parametrize("attack", [Square(), Cascade((PGD(), Square())), Restarts(Square())])
def test_an_attack_for_another_set_is_refused(attack: Any) -> None:
    with pytest.raises(SetError, match="moves in Linf, not in L2"):
        refuse_misfits([attack], L2(0.1), Access.GRADIENTS)
    refuse_misfits([attack], Linf(0.1), Access.GRADIENTS)


def test_an_attack_that_needs_more_knowledge_is_refused() -> None:
    for attack in (PGD(), Cascade((RandomNoise(), PGD()))):
        with pytest.raises(SettingError, match="needs gradients, but the attacker's knowledge is scores"):
            refuse_misfits([attack], Linf(0.1), Access.SCORES)
    refuse_misfits([RandomNoise(), OnAnything(), Unannotated()], Linf(0.1), Access.LABELS)
