"""The alarm rings on a collapse and on nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from redan import samples
from redan.errors import SettingError
from redan.hardening import Ascent, Batch, Reading, Watch, streams
from redan.perturbations.norms import Linf

NAMES = ("natural", "robust", "trades", "residual", "fast")
HONEST = tuple(Reading(0.1 + 0.6 * k / 20, 0.1 + 0.55 * k / 20) for k in range(21))


def test_honest_training_rings_nothing() -> None:
    watch = Watch()
    for count in range(1, len(HONEST) + 1):
        assert not watch.rings(HONEST[:count])
        assert watch.good(HONEST[:count])


def test_a_collapse_rings_at_the_second_look_and_is_nothing_to_come_back_to() -> None:
    watch = Watch()
    for fallen in (Reading(0.95, 0.0), Reading(0.8, 0.4)):
        assert not watch.rings((*HONEST, fallen))
        assert watch.rings((*HONEST, fallen, fallen))
        assert watch.rings((*HONEST, Reading(0.9, 0.69), fallen))
        assert not watch.good((*HONEST, fallen))
    half = (*HONEST, Reading(0.72, 0.5))  # on its way: no good state either
    assert not watch.good(half)


def test_a_fall_that_passes_rings_nothing() -> None:
    """Accuracies met in PGD training at a high learning rate, 20 steps apart."""
    passing = (Reading(0.63, 0.54), Reading(0.65, 0.29), Reading(0.64, 0.51), Reading(0.64, 0.59), Reading(0.9, 0.3))
    for count in range(1, len(passing) + 1):
        assert not Watch().rings(passing[:count])
    assert Watch().rings((*passing, Reading(0.9, 0.3)))


def test_a_second_look_comes_soon_where_the_first_found_a_gap() -> None:
    for every, again in ((100, 25), (26, 25), (25, 25), (20, 20), (1, 1)):
        watch = Watch(every=every)

        def next_look(*readings: Reading, watch: Watch = watch, every: int = every) -> int:
            begun = 3 * every
            return next(k for k in range(1, every + 1) if watch.due(begun + k, readings))

        assert next_look(*HONEST, Reading(0.9, 0.3)) == again
        assert next_look(*HONEST) == next_look() == every
        assert watch.due(every, ())


def test_a_model_that_loses_everything_alike_rings_nothing() -> None:
    assert not Watch().rings((*HONEST, Reading(0.1, 0.1)))
    assert not Watch().good((*HONEST, Reading(0.1, 0.1)))


def test_a_gap_that_was_there_from_the_start_rings_when_it_stays() -> None:
    gap = Reading(0.8, 0.05)
    assert not Watch().rings((gap,))
    assert Watch().rings((gap, gap))
    assert not Watch().rings((gap, Reading(0.6, 0.5)))


@given(
    readings=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6), fall=st.floats(0.05, 0.5)
)
def test_no_alarm_without_a_gap_and_no_good_state_with_one(readings: list[tuple[float, float]], fall: float) -> None:
    watch, seen = Watch(fall=fall), tuple(Reading(weak, strong) for weak, strong in readings)
    if watch.rings(seen):
        assert seen[-1].gap > fall
        assert not watch.good(seen)
        assert not Watch(fall=min(0.99, fall + 0.5)).rings(seen) or seen[-1].gap > fall + 0.49


def test_the_shipped_model_that_collapsed_is_told_from_those_that_did_not() -> None:
    x, y = (torch.tensor(part[:128]) for part in samples.fashion_mnist())
    batch = Batch(x, y, streams(0, 0, x))
    gaps = {name: Watch().read(samples.model(name), batch, Linf(0.1)).gap for name in NAMES}
    assert gaps.pop("fast") > 0.3
    assert max(gaps.values()) < 0.1


def test_a_reading_leaves_the_model_as_it_was() -> None:
    x, y = (torch.tensor(part[:8]) for part in samples.fashion_mnist())
    model = samples.model("residual").train()
    state = {name: part.clone() for name, part in model.state_dict().items()}
    batch = Batch(x, y, streams(0, 0, x))
    one, other = (Watch().read(model, batch, Linf(0.1)) for _ in range(2))
    assert one == other
    assert all(part.training for part in model.modules())
    assert all(torch.equal(part, state[name]) for name, part in model.state_dict().items())


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"every": 0}, {"rows": 1}, {"fall": 0.0}, {"fall": 1.0}):
        with pytest.raises(SettingError, match="a watch needs"):
            Watch(**wrong)
    assert Watch(remedies=(Ascent(steps=3),)).remedies[0] == Ascent(steps=3)
