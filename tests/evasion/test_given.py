"""Inputs that were made elsewhere are shown as they are, judged like any other, and cost a query a row."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from redan import Linf
from redan.engine.block import Job
from redan.engine.outcomes import Status
from redan.engine.run import run
from redan.errors import SettingError
from redan.evasion.given import Given
from redan.targets import from_torch


class Sign(nn.Module):
    """Class 1 above a half."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.5 - x, x - 0.5], 1)


def job(starts: torch.Tensor | None) -> Job:
    x = torch.tensor([[0.45], [0.45], [0.45]])
    return Job(
        target=from_torch(Sign().eval(), classes=2),
        x=x,
        y=torch.zeros(3, dtype=torch.long),
        names=["a", "b", "c"],
        attacks=(("given", Given()),),
        within=Linf(0.1),
        starts=starts,
    )


def test_an_input_counts_where_it_is_in_the_set_and_wrong() -> None:
    found = run(job(torch.tensor([[0.52], [0.48], [0.9]])), workers=1)
    assert [Status(int(status)) for status in found.status] == [Status.BROKEN, Status.ROBUST, Status.ROBUST]
    assert found.queries_by.tolist() == [[1], [1], [1]]
    assert found.x[0].item() == pytest.approx(0.52)


def test_nothing_to_show_is_told() -> None:
    with pytest.raises(SettingError, match="give rows.starts"):
        run(job(None), workers=1)
