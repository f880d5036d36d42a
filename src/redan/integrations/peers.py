"""Others' attacks under redan's referee: the bridge that ART, Foolbox, CleverHans and torchattacks share.

A peer is given a *facade*: a module whose forward asks `referee.scores` and whose backward asks `referee.gradient` for
the vector-Jacobian product with the very cotangent that the peer's own loss sent back. So a peer climbs exactly as it
does on the bare model, and the referee bills, judges and keeps as for any attack. What that means:

* Each forward is a query, and each backward is one more, which runs its own forward: the cotangent is known only after
  the scores were seen. A step of a peer's PGD is therefore billed as two queries and one backward.
* Rows that are decided, or over what the attacker may spend, are asked no more: the peer sees their last scores again,
  and a gradient of 0. When no row is left, the peer is stopped inside its next forward.
* A call about all rows is taken to be in their order. A peer that asks about another number of them (a subset, or many
  candidates of one row) is started again on each row alone, where every call belongs to it; `alone` does so at once.
* Radii that differ are attacked one radius after the other, since peers know only one.
* Peers draw from the process's generators. Those are seeded from the rows' streams and put back after, and one peer
  runs at a time. In a batch its draws depend on the rows that it holds; with `alone` they depend on the row only.
* What a peer returns is shown to the referee as it is.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import field, make_dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from redan.errors import SetError, SettingError
from redan.integrations.facade import Facade, Over, Unaligned
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L0, L1
from redan.protocols import Access, Attack, Ball, Gradients, Labels, Scores
from redan.rows import Rows

_PROCESS_WIDE = threading.RLock()  # the generators that peers draw from belong to the process, not to a thread


@contextmanager
def _seeded(rows: Rows[Tensor, Any]) -> Iterator[None]:
    """The process's generators, seeded from the rows' streams for one peer, and put back."""
    words = rows.draw.integers(2**31, (1,)).cpu().numpy()
    seed = int.from_bytes(hashlib.blake2b(words.tobytes(), digest_size=4).digest(), "big")
    with _PROCESS_WIDE, torch.random.fork_rng(devices=[]):
        plain, arrays = random.getstate(), np.random.get_state()  # what peers draw from
        random.seed(seed)
        np.random.seed(seed)
        torch.random.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(plain)
            np.random.set_state(arrays)


Run = Callable[[Facade, Rows[Tensor, Any]], Tensor | None]
"""Runs the peer against the facade on rows of one radius; answers changed inputs (N, …), or None for none."""


def _once(run: Run, referee: Any, rows: Rows[Tensor, Any], access: Access) -> None:
    (rows,) = referee.survivors(rows)
    if not len(rows):
        return
    try:
        with _seeded(rows):
            found = run(Facade(referee, rows, access), rows)
    except Over:
        return
    if found is None:
        return
    if found.shape != rows.x0.shape:
        raise SetError(
            f"the attack returned inputs {tuple(found.shape)} for rows {tuple(rows.x0.shape)}; it must change each "
            "row and keep its shape"
        )
    left, shown = referee.survivors(rows, found.detach().to(rows.x0))
    if len(left):
        referee.reached(shown, left)


def play(run: Run, referee: Any, rows: Rows[Tensor, Any], *, access: Access, alone: bool, most: int) -> None:
    """Run a peer on all rows: by radius, at most so many at a time, or each row alone.

    A radius of 0 allows no change, so its rows are not asked about.
    """
    size = 1 if alone else most
    radius = torch.as_tensor(rows.within.radius, device=rows.ids.device).expand(len(rows))
    for group in [rows.take(radius == value) for value in sorted(set(radius.tolist())) if value > 0]:
        places = torch.arange(len(group), device=group.ids.device)
        for start in range(0, len(group), size):
            piece = group.take(places[start : start + size])
            try:
                _once(run, referee, piece, access)
            except Unaligned:
                for at in range(len(piece)):
                    _once(run, referee, piece.take(torch.tensor([at], device=piece.ids.device)), access)


_VERBS: dict[Access, Any] = {
    Access.LABELS: Labels[Tensor],
    Access.SCORES: Scores[Tensor],
    Access.GRADIENTS: Gradients[Tensor],
}
_MOST = 1024


@cache
def _kind(name: str, access: Access, within: Hashable) -> Callable[..., Attack[Any, Any]]:
    """The frozen class of one attack of a peer. Its signature is the requirement, as it is for redan's own."""

    def called(self: Any, referee: Any, rows: Any) -> None:
        play(self.run, referee, rows, access=access, alone=self.alone, most=self.most)

    called.__annotations__ = {"referee": _VERBS[access], "rows": cast("Any", Rows)[Tensor, within], "return": None}
    return make_dataclass(
        name,
        [
            ("library", str),
            ("options", str),
            ("run", Run, field(repr=False)),
            ("alone", bool),
            ("most", int, field(repr=False)),
        ],
        namespace={"__call__": called, "__doc__": f"{name} of another library, under redan's referee."},
        frozen=True,
        slots=True,
        kw_only=True,
    )


def peer_attack(
    name: str,
    run: Run,
    *,
    library: str,
    options: str,
    access: Access,
    within: type[Any],
    alone: bool = False,
    most: int = _MOST,
) -> Attack[Any, Any]:
    """A peer's attack as a redan attack value.

    name: what reports call it; library, options: for the record, the same text in every process; access and within:
    the least knowledge, and the kind of set. alone: run it on each row by itself; most: rows at a time otherwise.
    """
    return _kind(name, access, cast("Hashable", within))(
        library=library, options=options, run=run, alone=alone, most=most
    )


def release(package: str) -> str:
    """The package's name with its installed version, for the record."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:  # a copy that was not installed
        return package


_ORDERS: tuple[tuple[type[Any], float], ...] = ((Linf, np.inf), (L2, 2), (L1, 1), (L0, 0))


def order(within: Ball) -> float:
    """The p of an Lp ball: inf, 2, 1 or 0. Raises SetError for other sets."""
    found = next((p for kind, p in _ORDERS if isinstance(within, kind)), None)
    if found is None:
        raise SetError(
            f"other libraries' attacks move in Lp balls, and {type(within).__name__} is none; use redan's own attacks"
        )
    return found


def ball(p: float) -> type[Any]:
    """The kind of set of a p. Raises SettingError for others."""
    found = next((kind for kind, known in _ORDERS if known == p), None)
    if found is None:
        raise SettingError(f"redan has no ball of the norm p = {p:g}; use p = inf, 2, 1 or 0")
    return found


def one_radius(within: Ball) -> float:
    """The radius that all rows of one call have."""
    return float(torch.as_tensor(within.radius).flatten()[0])
