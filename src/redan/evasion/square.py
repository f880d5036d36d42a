"""Square attack (Andriushchenko et al. 2020, arXiv:1912.00049): random search with squares, by scores alone.

Each row has a window of its own. Inputs of other shapes than (C, H, W) are seen as one channel: (D,) as a line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from redan.errors import SettingError
from redan.losses import margin
from redan.perturbations.norms import L2, Linf
from redan.perturbations.sparse import L1
from redan.protocols import Cost, Loss, Scores, wide
from redan.rows import PerturbationSet, Rows, take

W = TypeVar("W", bound=PerturbationSet[Any])

_WHOLE = 10_000  # queries of the whole schedule (section 5)
_LOOK = 50  # queries from one look at who lags behind to the next
_HALVE_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def _image(shape: torch.Size) -> tuple[int, int, int]:
    """(C, H, W) of one input."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return (1, shape[0], shape[1]) if len(shape) == 2 else (1, 1, math.prod(shape))


def _share(at: int, queries: int, first: float) -> float:
    """The share of pixels that a square covers at one query of so many: halved on a fixed schedule."""
    scaled = at * _WHOLE // queries
    return first * 0.5 ** sum(scaled > mark for mark in _HALVE_AT)


def _sides(share: float, height: int, width: int) -> tuple[int, int]:
    """Height and width of a window of that share: square where the image allows it."""
    side = max(1, round(math.sqrt(share * height * width)))
    tall = min(side, height)
    return tall, min(width, side if height > 1 else max(1, round(share * width)))


def _placed(rows: Rows[Tensor, Any], shape: tuple[int, int, int], window: tuple[int, int]) -> Tensor:
    """The coordinates of a random window in each row, the same in every channel: (N, C, cells), in H · W."""
    deep, height, width = shape
    tall, broad = window
    places = torch.tensor([height - tall + 1, width - broad + 1], device=rows.ids.device)
    top, left = rows.draw.integers(places, (2,)).unbind(1)
    down, across = (torch.arange(n, device=rows.ids.device) for n in window)
    cells = (down[:, None] * width + across).flatten()
    return ((top * width + left)[:, None] + cells)[:, None, :].expand(-1, deep, -1)


def _hope(share: float) -> float:
    """How much of a row's margin may remain after this share of its queries.

    On tuning rows of a k-WTA network Square broke 35 of 87 with 5,000 queries. This bound leaves 33 of them after two
    fifths of the queries. A³ (Liu et al. 2022, arXiv:2203.05154, section 3.4) discards by rank instead.
    """
    return 0.55 * (1 - share) ** 2


def _check(loss: Loss, *, discard: bool) -> None:
    """Raise SettingError where nothing says how far a row that lags behind is from breaking."""
    if discard and loss is not margin:
        raise SettingError(
            "discard leaves rows by what is left of their margin; use it with loss=redan.losses.margin, or leave it out"
        )


def _searched(
    referee: Scores[Tensor],
    rows: Rows[Tensor, W],
    best: Tensor,
    proposed: Callable[[Tensor, Rows[Tensor, W], int], Tensor],
    loss: Loss,
    queries: int,
    *,
    discard: bool = False,
) -> None:
    """Show each row its best candidate changed at random, and keep the change where the loss rises.

    discard: a row that lags behind is left: one of whose loss at x0 more remains than `_hope` says.
    """
    highest = loss(referee.scores(best, rows), rows.goal)
    clean = loss(referee.scores(rows.x0, rows), rows.goal) if discard else highest
    for i in range(1, queries):
        rows, best, highest, clean = referee.survivors(rows, best, highest, clean)
        if discard and i % _LOOK == 0 and 10 * i >= queries:
            rows, best, highest, clean = take(highest >= _hope(i / queries) * clean, rows, best, highest, clean)
        if not len(rows):
            return
        x = proposed(best, rows, i)
        value = loss(referee.scores(x, rows), rows.goal)
        better = value > highest
        best, highest = torch.where(wide(better, x), x, best), torch.where(better, value, highest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """Square attack in L∞ (algorithms 1 and 2): stripes of ±ε, then squares of ±ε, kept when the loss rises.

    queries: inputs shown a row. first: p, the share of pixels of the first square. discard: leave rows that lag behind
    (not in the paper): a few breakable rows among them, for less than half of the queries. Raises SettingError with
    discard and another loss than `margin`, which alone is 0 where a row breaks.

    >>> Square(queries=1000).cost(10)
    Cost(queries=1000, backwards=0)
    """

    queries: int = 5000
    first: float = 0.8
    loss: Loss = margin
    discard: bool = False

    def __post_init__(self) -> None:
        _check(self.loss, discard=self.discard)

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.queries + self.discard, 0)

    def __call__(self, referee: Scores[Tensor], rows: Rows[Tensor, Linf]) -> None:
        deep, height, width = _image(rows.x0.shape[1:])

        def edge(x0: Tensor, signs: Tensor, rows: Rows[Tensor, Linf]) -> Tensor:
            """The corner of ball and box that signs point to, in each coordinate of x0."""
            return rows.within.project(x0 + signs * 2 * _span(rows.within), x0)

        def proposed(best: Tensor, rows: Rows[Tensor, Linf], i: int) -> Tensor:
            window = _sides(_share(i, self.queries, self.first), height, width)
            into = _placed(rows, (deep, height, width), window)
            signs = rows.draw.signs((deep, 1), best.dtype)
            corner = edge(rows.x0.reshape(len(rows), deep, -1).gather(2, into), signs, rows)
            return best.reshape(len(rows), deep, -1).scatter(2, into, corner).reshape(best.shape)

        signs = rows.draw.signs((deep, 1, width), rows.x0.dtype).expand(-1, deep, height, width)
        start = edge(rows.x0, signs.reshape(rows.x0.shape), rows)
        _searched(referee, rows, start, proposed, self.loss, self.queries, discard=self.discard)


def _span(within: Linf) -> float:
    """A length that reaches past the ball from anywhere: the projection cuts it to ±ε."""
    return within.bounds[1] - within.bounds[0]


def _pyramid(tall: int, broad: int, order: int) -> Tensor:
    """The update of section 3.3 on a rectangle: highest in the middle, falling in square rings, faster in L1."""
    i, j = torch.arange(tall)[:, None], torch.arange(broad)[None, :]
    ring = torch.maximum((i - tall // 2).abs(), (j - broad // 2).abs())
    drops: Tensor = 1 / torch.arange(1, max(tall, broad) // 2 + 2, dtype=torch.float64) ** (4 // order)
    heights = drops.flip(0).cumsum(0).flip(0)
    pyramid: Tensor = heights[ring.clamp_max(len(heights) - 1)]
    return pyramid


def _bump(tall: int, broad: int, order: int) -> Tensor:
    """A pyramid up and a pyramid down, side by side, of length 1 in the norm of that order: (tall, broad)."""
    if tall == 1 and broad == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    if tall == 1:
        return _bump(broad, 1, order).t()
    half = tall // 2
    both = torch.cat([_pyramid(half, broad, order), -_pyramid(tall - half, broad, order)])
    bump: Tensor = both / both.norm(p=order)
    return bump


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareL2:
    """Square attack in L2 (algorithms 1 and 3): bumps on a grid, then length moved from one window to another.

    queries: inputs shown a row. first: p, the share of pixels of the first window. discard: as in `Square`.

    >>> SquareL2(queries=1000).cost(10)
    Cost(queries=1000, backwards=0)
    """

    queries: int = 5000
    first: float = 0.8
    loss: Loss = margin
    discard: bool = False

    def __post_init__(self) -> None:
        _check(self.loss, discard=self.discard)

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.queries + self.discard, 0)

    def __call__(self, referee: Scores[Tensor], rows: Rows[Tensor, L2]) -> None:
        shape = _image(rows.x0.shape[1:])

        def proposed(best: Tensor, rows: Rows[Tensor, L2], i: int) -> Tensor:
            window = _odd_sides(_share(i, self.queries, self.first), *shape[1:])
            return _filled(_shifted(best, rows, shape, window, order=2), rows)

        start = _filled(_tiles(rows, shape, order=2), rows)
        _searched(referee, rows, start, proposed, self.loss, self.queries, discard=self.discard)


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareL1:
    """Square attack in L1 (Croce and Hein 2021, arXiv:2103.01208, section 4): SquareL2 with lengths measured in L1.

    The bumps are steeper (r⁻⁴ for r⁻²), and a change is projected onto ball and box where L2 stretches it. The
    schedule of windows is not squeezed into fewer queries, as in the authors' AutoAttack: small windows come too early
    then (at 1,000 queries 52 % of the rows of a robust network held out, and 47 % without).
    queries: inputs shown a row. first: p, the share of pixels of the first window.

    >>> SquareL1(queries=1000).cost(10)
    Cost(queries=1000, backwards=0)
    """

    queries: int = 5000
    first: float = 0.8
    loss: Loss = margin

    def cost(self, classes: int) -> Cost:  # noqa: ARG002
        return Cost(self.queries, 0)

    def __call__(self, referee: Scores[Tensor], rows: Rows[Tensor, L1]) -> None:
        shape = _image(rows.x0.shape[1:])
        low, high = rows.within.bounds

        def proposed(best: Tensor, rows: Rows[Tensor, L1], i: int) -> Tensor:
            window = _odd_sides(_share(i, _WHOLE, self.first), *shape[1:])
            change = _shifted(best, rows, shape, window, order=1)
            return rows.within.project(rows.x0 + change.reshape(rows.x0.shape), rows.x0)

        start = rows.x0 + (high - low) * _tiles(rows, shape, order=1).reshape(rows.x0.shape)
        _searched(referee, rows, rows.within.project(start, rows.x0), proposed, self.loss, self.queries)


def _odd_sides(share: float, height: int, width: int) -> tuple[int, int]:
    """A window with a middle, at least 3 wide where the image allows it."""
    tall, broad = _sides(share, height, width)
    return tuple(min(n if n % 2 else n - 1, max(3, s + 1 - s % 2)) for s, n in ((tall, height), (broad, width)))  # type: ignore[return-value]  # a generator of two


def _filled(delta: Tensor, rows: Rows[Tensor, L2]) -> Tensor:
    """x0 + delta stretched to the whole radius, cut by the box."""
    delta = delta.reshape(rows.x0.shape)
    radius = torch.as_tensor(rows.within.radius, dtype=delta.dtype, device=delta.device).expand(len(delta))
    return (rows.x0 + wide(radius, delta) * rows.within.steepest(delta)).clamp(*rows.within.bounds)


def _tiles(rows: Rows[Tensor, L1] | Rows[Tensor, L2], shape: tuple[int, int, int], order: int) -> Tensor:
    """A grid of bumps, five in each direction, each with a random sign and turn for each row and channel."""
    deep, height, width = shape
    tall, broad = max(1, height // 5), max(1, width // 5)
    down, across = height // tall, width // broad
    bump = _bump(tall, broad, order).to(rows.x0)
    turned = bump.t().contiguous() if tall == broad else bump
    signs, turns = (rows.draw.signs((deep, down, across), bump.dtype) for _ in range(2))
    bumps = torch.kron(signs * (turns > 0), bump) + torch.kron(signs * (turns <= 0), turned)
    delta = rows.x0.new_zeros(len(rows), deep, height, width)
    top, left = (height - down * tall) // 2, (width - across * broad) // 2
    delta[:, :, top : top + down * tall, left : left + across * broad] = bumps
    return delta


def _shifted(
    best: Tensor,
    rows: Rows[Tensor, L1] | Rows[Tensor, L2],
    shape: tuple[int, int, int],
    window: tuple[int, int],
    order: int,
) -> Tensor:
    """The change so far with one window emptied and its length spent on a new bump in another."""
    deep, (tall, broad) = shape[0], window
    delta = (best - rows.x0).reshape(len(rows), deep, -1)
    into, out_of = _placed(rows, shape, window), _placed(rows, shape, window)
    power = delta.abs() ** order
    touched = torch.zeros_like(delta).scatter_(2, into, 1).scatter_(2, out_of, 1)
    whole, both = power.sum((1, 2)), (power * touched).sum((1, 2))
    radius = torch.as_tensor(rows.within.radius, dtype=delta.dtype, device=delta.device)
    spare = (radius**order - whole).clamp_min(0)
    old = delta.gather(2, into)
    bump = _bump(tall, broad, order).to(delta)
    flip = rows.draw.signs((1, 1), delta.dtype) > 0
    turned = bump.t().flatten() if tall == broad else bump.flatten()
    new = torch.where(flip, bump.flatten(), turned) * rows.draw.signs((deep, 1), delta.dtype)
    new = new + old / _lengths(old, order)
    length = ((spare / deep + both) ** (1 / order))[:, None, None]
    new = new / _lengths(new, order) * length
    return delta.scatter(2, out_of, 0.0).scatter(2, into, new)


def _lengths(change: Tensor, order: int) -> Tensor:
    """The length in each channel (N, C, 1), in the norm of that order, never 0."""
    lengths: Tensor = change.norm(p=order, dim=2, keepdim=True).clamp_min(1e-12)
    return lengths
