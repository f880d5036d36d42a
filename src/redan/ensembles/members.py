"""Several modules as one: trained together, saved together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from redan.ensembles.combine import Combine, combined, voting
from redan.errors import SettingError


class Members(nn.Module):
    """A module whose answer is its members', combined; `each` has theirs one by one.

    It is what a training loop holds where members are trained together (`redan.ensembles.adp`), and a factory may
    return it to serve them: `redan.targets.from_torch` wraps it as any module, and sees that a vote's gradients are a
    stand-in. `together` serves members of other kinds. Raises SettingError without members.

    >>> pair = Members([nn.Linear(4, 3), nn.Linear(4, 3)])
    >>> pair(torch.rand(5, 4)).shape, pair.each(torch.rand(5, 4)).shape
    (torch.Size([5, 3]), torch.Size([2, 5, 3]))
    """

    def __init__(self, members: Sequence[nn.Module], combine: Combine = Combine.PROBABILITIES) -> None:
        super().__init__()
        if not members:
            raise SettingError("an ensemble needs at least one model; give it one or more")
        self.members, self.combine = nn.ModuleList(members), combine
        self.vote = voting() if combine is Combine.VOTES else None
        self.training = self.members.training = any(member.training for member in members)

    def each(self, x: Tensor) -> Tensor:
        """Every member's logits: (N, …) to (M, N, K)."""
        return torch.stack([member(x) for member in self.members])

    def forward(self, x: Tensor) -> Tensor:
        """The common answer: (N, …) to (N, K)."""
        logits = self.each(x)
        if self.vote is None:
            return combined(logits, self.combine)
        vote: Tensor = self.vote(logits)
        return vote
