"""A training's state survives a file, whatever the optimizer and scheduler keep in it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from redan.errors import EvidenceError, SettingError
from redan.hardening.saving import decoded, encoded, load_state, save_state

_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_STATES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(state=_STATES)
def test_nested_values_come_back_with_their_types(state: Any) -> None:
    tensors: dict[str, Tensor] = {}
    assert repr(decoded(encoded(state, tensors), tensors)) == repr(state)


def test_tensors_come_back_bit_by_bit(tmp_path: Path) -> None:
    shared = torch.randn(4, 3)
    state: dict[str, Any] = {
        "float": torch.tensor([math.nan, -0.0, 1e-42]),
        "whole": torch.tensor(7),
        "flag": torch.tensor([True]),
        "half": torch.randn(3, dtype=torch.bfloat16),
        "across": shared.t(),
        "tied": (shared, shared),
        "counts": Counter({3: 2}),
        "infinite": math.inf,
    }
    save_state(tmp_path / "s", state)
    found = load_state(tmp_path / "s")
    assert list(found) == list(state)
    for name in ("whole", "flag", "half", "across"):
        assert torch.equal(found[name], state[name])
        assert found[name].dtype == state[name].dtype
    assert found["float"].view(torch.int32).tolist() == state["float"].view(torch.int32).tolist()
    assert torch.equal(found["tied"][1], shared)
    assert found["counts"] == state["counts"]
    assert type(found["counts"]) is Counter
    assert found["infinite"] == math.inf
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    "make",
    [
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=9),
        lambda o: lr_scheduler.MultiStepLR(o, [2, 4]),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o), lr_scheduler.CosineAnnealingLR(o, 6)], milestones=[3]
        ),
    ],
)
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop])
def test_optimizers_and_schedulers_go_on_as_if_nothing_had_been(
    make: Callable[[Optimizer], lr_scheduler.LRScheduler], kind: type[torch.optim.Adam], tmp_path: Path
) -> None:
    def begun() -> tuple[nn.Module, Optimizer, lr_scheduler.LRScheduler]:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = kind(model.parameters(), lr=0.1)
        return model, optimizer, make(optimizer)

    def steps(parts: tuple[nn.Module, Optimizer, lr_scheduler.LRScheduler], count: int) -> None:
        for _ in range(count):
            parts[1].zero_grad()
            torch.autograd.backward(parts[0](torch.ones(1, 3)).square().sum())
            parts[1].step()
            parts[2].step()

    whole, first, second = begun(), begun(), begun()
    steps(whole, 6)
    steps(first, 3)
    save_state(tmp_path / "s", [part.state_dict() for part in first])
    part: Any
    for part, state in zip(second, load_state(tmp_path / "s"), strict=True):
        part.load_state_dict(state)
    steps(second, 3)
    for one, other in zip(whole[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(one, other)
    assert whole[1].param_groups[0]["lr"] == second[1].param_groups[0]["lr"]


def test_what_needs_pickle_is_refused_and_what_is_broken_too(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="function, which cannot be saved without pickle"):
        save_state(tmp_path / "s", {"f": lambda: None})
    with pytest.raises(EvidenceError, match="no saved training"):
        load_state(tmp_path / "s")
    save_state(tmp_path / "s", {"x": torch.ones(4)})
    content = (tmp_path / "s").read_bytes()
    for broken in (content[:-3], content[:20], b"", b"PK" + content):
        (tmp_path / "s").write_bytes(broken)
        with pytest.raises(EvidenceError, match="cannot be read"):
            load_state(tmp_path / "s")
