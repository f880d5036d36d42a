"""Random streams depend on the seed and the row's own name alone; state of every kind is taken and put by row."""

from typing import Any, NamedTuple

import pytest
import torch
from scipy import stats
from torch import Tensor

from redan.goals import Untargeted
from redan.perturbations.norms import Linf
from redan.rows import Rows, Streams, nth, put, take

NAMES = [f"row-{i}" for i in range(40)]


def streams(names: list[str] = NAMES, seed: int = 0) -> Streams:
    return Streams.start(seed, names)


def rows(count: int = 4, starts: Tensor | None = None) -> Rows[Tensor, Linf]:
    x0 = torch.arange(count * 2.0).reshape(count, 2)
    goal = Untargeted(torch.arange(count))
    within = Linf(torch.linspace(0.1, 0.4, count))
    return Rows(torch.arange(count), x0, goal, within, streams(NAMES[:count]), starts)


# -- streams ------------------------------------------------------------------------------------------------


def test_the_first_numbers_are_splitmix64() -> None:
    """The published generator (Steele, Lea, Flood 2014), in whole numbers, on the row's key."""
    draw = streams(NAMES[:3])
    keys = draw.key.tolist()
    mask = (1 << 64) - 1

    def words(key: int, count: int) -> list[int]:
        state, out = key & mask, []
        for _ in range(count):
            state = (state + 0x9E3779B97F4A7C15) & mask
            z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
            out.append(z ^ (z >> 31))
        return out

    found = draw.uniform((5,), torch.float64)

    assert found.tolist() == [[(word >> 11) * 2.0**-53 for word in words(key, 5)] for key in keys]


def test_same_seed_and_name_same_numbers() -> None:
    assert torch.equal(streams().uniform((3, 2)), streams().uniform((3, 2)))


def test_another_seed_or_name_other_numbers() -> None:
    one = streams().uniform((50,))

    assert float((one == streams(seed=1).uniform((50,))).float().mean()) < 0.01
    assert float((one == one.roll(1, 0)).float().mean()) < 0.01


def test_order_and_pool_do_not_matter() -> None:
    whole = streams().uniform((7,))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))

    shuffled = streams([NAMES[i] for i in order.tolist()]).uniform((7,))
    alone = torch.cat([streams([name]).uniform((7,)) for name in NAMES])

    assert torch.equal(shuffled, whole[order])
    assert torch.equal(alone, whole)


def test_taking_does_not_matter() -> None:
    """A row draws the same whether or not others draw beside it, at any time."""
    draw = streams()
    first = draw.uniform((3,))
    some = draw.take(torch.tensor([5, 2, 30]))
    then = some.uniform((2,))
    last = draw.uniform((2,))

    whole = streams()
    assert torch.equal(whole.uniform((3,)), first)
    second = whole.uniform((2,))
    assert torch.equal(then, second[[5, 2, 30]])
    others = torch.ones(40, dtype=torch.bool)
    others[[5, 2, 30]] = False
    assert torch.equal(last[others], second[others])
    assert not torch.equal(last[[5, 2, 30]], second[[5, 2, 30]])


def test_a_mask_takes_as_indices_do() -> None:
    mask = torch.arange(40) % 3 == 0

    assert torch.equal(streams().take(mask).uniform((4,)), streams().take(mask.nonzero().flatten()).uniform((4,)))


def test_repeated_rows_draw_different_parts_of_their_stream() -> None:
    draw = streams(NAMES[:2])
    found = draw.take(torch.tensor([0, 1, 0, 0])).uniform((3,), torch.float64)

    line = streams(NAMES[:2]).uniform((9,), torch.float64)
    assert torch.equal(found[[0, 2, 3]].flatten(), line[0])
    assert torch.equal(found[1], line[1, :3])
    after = draw.uniform((1,), torch.float64)
    longer = streams(NAMES[:2]).uniform((10,), torch.float64)
    assert after[0, 0] == longer[0, 9]
    assert after[1, 0] == longer[1, 3]


def test_nested_takes_with_repeats() -> None:
    """A take of a take sees the repeats of the first, and no two entries ever share a number."""
    draw = streams(NAMES[:3])
    twice = draw.take(torch.tensor([0, 0, 1, 2])).take(torch.tensor([True, True, False, True]))
    numbers = torch.cat([twice.uniform((4,), torch.float64), twice.uniform((4,), torch.float64)], 1)
    again = draw.take(torch.tensor([2, 2])).take(torch.tensor([1, 1, 0]))
    more = again.uniform((4,), torch.float64)

    assert len({*numbers.flatten().tolist(), *more.flatten().tolist()}) == numbers.numel() + more.numel()
    assert torch.equal(draw.drawn, torch.tensor([16, 0, 20]))


def test_keyed_streams_start_anew_and_leave_the_others_alone() -> None:
    draw = streams()
    draw.uniform((3,))
    fresh = draw.keyed("PGD").uniform((4,))
    draw.uniform((5,))

    assert torch.equal(draw.keyed("PGD").uniform((4,)), fresh)
    assert float((draw.keyed("APGD").uniform((4,)) == fresh).float().mean()) < 0.05
    untouched = streams()
    untouched.uniform((3,))
    untouched.uniform((5,))
    assert torch.equal(draw.uniform((4,)), untouched.uniform((4,)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_is_uniform(dtype: torch.dtype) -> None:
    numbers = streams().uniform((2501,), dtype).flatten()

    assert numbers.dtype == dtype
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1
    assert stats.kstest(numbers.double().numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_is_normal(dtype: torch.dtype) -> None:
    numbers = streams().normal((2501,), dtype).flatten()

    assert numbers.dtype == dtype
    assert bool(numbers.isfinite().all())
    assert stats.kstest(numbers.double().numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("draw_from", [Streams.uniform, Streams.normal, Streams.signs])
def test_neighbors_are_not_correlated(draw_from: Any) -> None:
    """Between rows, between a row's numbers in a call, and from call to call."""
    draw = streams()
    one: Tensor = draw_from(draw, (2500,)).double()
    two: Tensor = draw_from(draw, (2500,)).double()
    one, two = one - one.mean(), two - two.mean()
    scale = float(one.square().mean())

    for a, b in ((one[1:], one[:-1]), (one[:, 1:], one[:, :-1]), (one, two), (one[:, :1250], one[:, 1250:])):
        assert abs(float((a * b).mean()) / scale) < 5 / a.numel() ** 0.5


def test_signs_are_even() -> None:
    numbers = streams().signs((2500,))

    assert set(numbers.flatten().tolist()) == {-1.0, 1.0}
    assert abs(float(numbers.mean())) < 5 / 100_000**0.5


@pytest.mark.parametrize("high", [1, 2, 7, 255])
def test_integers_are_in_range_and_even(high: int) -> None:
    numbers = streams().integers(high, (2500,)).flatten()

    assert int(numbers.min()) == 0
    assert int(numbers.max()) == high - 1
    counts = numbers.bincount(minlength=high).numpy()
    assert high == 1 or stats.chisquare(counts).pvalue > 1e-3


def test_integers_take_a_bound_each() -> None:
    high = torch.tensor([1, 5, 100])
    numbers = streams().integers(high, (3,))

    assert bool((numbers < high).all())
    assert bool((numbers[:, 2] > 5).any())


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3)])
def test_shapes_of_draws(shape: tuple[int, ...]) -> None:
    draw = streams()

    for numbers in (draw.uniform(shape), draw.normal(shape), draw.signs(shape), draw.integers(3, shape)):
        assert numbers.shape == (40, *shape)


def test_no_rows_draw_nothing() -> None:
    nobody = streams([])

    assert nobody.uniform((3,)).shape == (0, 3)
    assert streams().take(torch.zeros(40, dtype=torch.bool)).normal((2,)).shape == (0, 2)


# -- take, put, nth -----------------------------------------------------------------------------------------


class Pair(NamedTuple):
    numbers: Tensor
    words: list[str]


@pytest.mark.parametrize("index", [torch.tensor([2, 0, 0]), torch.tensor([True, False, True])])
def test_take_picks_the_same_rows_of_everything(index: Tensor) -> None:
    state = Pair(torch.tensor([10, 11, 12]), ["a", "b", "c"])
    tensor, words, pair, nothing = take(index, state.numbers, state.words, state, None)

    wanted = [2, 0, 0] if index.dtype == torch.int64 else [0, 2]
    assert tensor.tolist() == [10 + i for i in wanted]
    assert words == ["abc"[i] for i in wanted]
    assert isinstance(pair, Pair)
    assert (pair.numbers.tolist(), pair.words) == (tensor.tolist(), words)
    assert nothing is None


def test_take_asks_values_that_know_how() -> None:
    goal, within = take(torch.tensor([1]), Untargeted(torch.tensor([4, 5])), Linf(torch.tensor([0.1, 0.2])))

    assert goal.truth.tolist() == [5]
    assert torch.as_tensor(within.radius).tolist() == pytest.approx([0.2])


def test_take_copies() -> None:
    x = torch.zeros(3)
    (part,) = take(torch.tensor([0, 1, 2]), x)
    part.fill_(1)

    assert not bool(x.any())


def test_put_is_the_inverse_of_take() -> None:
    index = torch.tensor([2, 0])
    x, words = torch.arange(4.0), ["a", "b", "c", "d"]
    some, named = take(index, x, words)

    assert put(index, torch.zeros(4), some + 1).tolist() == [1, 0, 3, 0]
    assert put(index, list("....")[:4], named) == ["a", ".", "c", "."]


def test_put_keeps_the_type_and_refuses_a_wrong_count() -> None:
    assert put(torch.tensor([1]), torch.zeros(2), torch.ones(1, dtype=torch.float64)).dtype == torch.float32
    with pytest.raises(ValueError, match="shorter"):
        put(torch.tensor([0, 1]), ["a", "b"], ["c"])


def test_nth_counts_earlier_ones() -> None:
    assert nth(torch.tensor([5, 3, 5, 5, 3, 9])).tolist() == [0, 0, 1, 2, 1, 0]
    assert nth(torch.empty(0, dtype=torch.int64)).shape == (0,)


# -- rows ---------------------------------------------------------------------------------------------------


def test_rows_take_everything_along() -> None:
    some = rows(starts=torch.arange(4.0)[:, None]).take(torch.tensor([3, 1, 1]))

    assert some.ids.tolist() == [3, 1, 1]
    assert some.x0[:, 0].tolist() == [6, 2, 2]
    assert isinstance(some.goal, Untargeted)
    assert some.goal.truth.tolist() == [3, 1, 1]
    assert torch.as_tensor(some.within.radius).tolist() == pytest.approx([0.4, 0.2, 0.2])
    assert some.draw.ids.tolist() == [3, 1, 1]
    assert some.starts is not None
    assert some.starts.flatten().tolist() == [3, 1, 1]
    assert len(some) == 3


def test_rows_aim_elsewhere_and_stay_the_same() -> None:
    before = rows()
    other = before.aim(Untargeted(torch.zeros(4, dtype=torch.int64)))

    assert other.goal is not before.goal
    assert other.x0 is before.x0
    assert before.take(torch.tensor([0])).starts is None


def test_rows_are_frozen() -> None:
    with pytest.raises(AttributeError):
        setattr(rows(), "x0", torch.zeros(4, 2))  # noqa: B010  # mypy would refuse the plain way
