"""The fast cascade: AutoAttack's verdict for a small part of its passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from redan.evasion.cascade import Cascade, Near, Sweep
from redan.evasion.descent import Descent
from redan.evasion.fmn import FMN
from redan.losses import gap
from redan.protocols import Attack, Ball, Cost, Gradients, cost
from redan.rows import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class FastCascade:
    """Short attacks in turn, each on the rows that are left, the dear ones only where they look breakable.

    A row's nearest wrong answer so far, inside the ball or not, tells how breakable it looks, and FMN finds one in
    twenty steps. targets: wrong classes, the likeliest, at which every row that is left is attacked; then rows within
    1.4 radii are attacked at all of them, and those within 1.1 radii from inside the ball as well.

    >>> FastCascade().cost(10).queries
    484
    """

    targets: int = 3

    @property
    def parts(self) -> tuple[Attack[Any, Any], ...]:
        few, wide = FMN(steps=20), FMN(steps=20, gamma=0.6)
        return (
            Descent(steps=10),
            few,
            Near(Sweep(few, targets=self.targets), 2.0),
            Near(Sweep(wide), 1.4),
            Near(Sweep(Descent(steps=20, random_start=True, loss=gap)), 1.1),
        )

    def cost(self, classes: int) -> Cost:
        return cost(Cascade(self.parts), classes) or Cost(0, 0)

    def __call__(self, referee: Gradients[Tensor], rows: Rows[Tensor, Ball]) -> None:
        Cascade(self.parts)(referee, rows)
