"""The search for bends, against functions whose bends are known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from redan.extraction.kinks import kinks


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_one_bend_takes_eight_values_and_is_exact() -> None:
    asked: list[Tensor] = []

    def values(t: Tensor) -> Tensor:
        asked.append(t)
        return (t[:, None] - 0.31).clamp_min(0) * torch.tensor([1.0, -2.0]) + 0.3 - 0.7 * t[:, None]

    found = kinks(values, noise=1e-16, draw=draw())
    assert found.at.tolist() == pytest.approx([0.31], abs=1e-14)
    assert len(torch.cat(asked)) == 2 + 2 + 4


def test_a_straight_line_has_none() -> None:
    assert not len(kinks(lambda t: 3 * t[:, None] - 1, noise=1e-16, draw=draw()).at)


def test_two_bends_whose_outer_lines_meet_on_one_of_them_are_two() -> None:
    where, jumps = torch.tensor([0.5, 0.501], dtype=torch.float64), torch.tensor([[1.0], [-0.9]], dtype=torch.float64)
    for seed in range(20):
        found = kinks(
            lambda t: (t[:, None] - where).clamp_min(0) @ jumps,
            noise=1e-16,
            draw=torch.Generator().manual_seed(seed),
        )
        assert torch.allclose(found.at, where, rtol=0, atol=1e-11)


@given(
    st.lists(st.integers(1, 999), min_size=1, max_size=20, unique=True),
    st.integers(1, 3),
    st.integers(0, 1000),
)
def test_every_bend_is_found_where_it_is(at: list[int], outputs: int, seed: int) -> None:
    gen = torch.Generator().manual_seed(seed)
    where = (torch.tensor(sorted(at), dtype=torch.float64) + 0.1 * torch.rand(1, generator=gen)) / 1000.3
    jumps = torch.randn(len(at), outputs, generator=gen, dtype=torch.float64)
    jumps += 0.1 * jumps.sign()

    def values(t: Tensor) -> Tensor:
        return (t[:, None] - where).clamp_min(0) @ jumps

    found = kinks(values, noise=1e-15, draw=draw())
    assert bool(found.sure.all())
    assert torch.allclose(found.at, where, rtol=0, atol=1e-11)


def test_bends_too_near_are_said_not_to_be_sure() -> None:
    where = torch.tensor([0.4, 0.4 + 1e-5], dtype=torch.float64)
    found = kinks(
        lambda t: (t[:, None] - where).clamp_min(0).sum(1, keepdim=True), noise=1e-16, draw=draw(), finest=1e-3
    )
    assert not bool(found.sure.any())
    assert float((found.at - 0.4).abs().max()) < 1e-3
