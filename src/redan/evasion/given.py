"""Inputs that were made elsewhere, shown as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redan.errors import SettingError
from redan.protocols import Cost, Labels
from redan.rows import PerturbationSet, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Each row's sample in `rows.starts`, one query a row: an attack that another model was the target of.

    What was found against a model without its defense is the naive attack on the defended one (Athalye et al. 2018,
    arXiv:1802.00420, section 3: an attack must know of the defense).

    Raises SettingError for rows without starts.
    """

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(1, 0)

    def __call__(self, referee: Labels[Any], rows: Rows[Any, PerturbationSet[Any]]) -> None:
        if rows.starts is None:
            raise SettingError("there is nothing to show; give rows.starts the inputs that were made elsewhere")
        referee.reached(rows.starts, rows)
