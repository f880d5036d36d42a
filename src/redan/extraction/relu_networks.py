"""Functionally equivalent extraction of ReLU networks with one hidden layer, from raw outputs in float64.

Jagielski, Carlini, Berthelot, Kurakin and Papernot 2020, High Accuracy and High Fidelity Extraction of Neural Networks,
arXiv:1909.01838; Carlini, Jagielski and Mironov 2020, Cryptanalytic Extraction of Neural Network Models,
arXiv:2003.04884. Such a network is linear up to where a unit turns on or off. On a line through the box those places
are found as kinks (`redan.extraction.kinks`), and the jump of the gradient over one is the unit's weights times its
output weights. A unit that is known is taken off all later answers, so that only unknown ones bend what is left.

Deviations from the papers. The gradient is taken once in each linear piece of a line and not on both sides of each
kink, which halves the answers needed. Where the gradient jumps, c·relu(u) and c·relu(-u) differ by a linear term, so
signs are not needed for an equivalent copy: they are read off the linear term in the end. All outputs are used, and
every unit is proven at points of its plane drawn at random. Where agreement is missed, all parameters are refined
together by least squares on more answers.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from redan.errors import SettingError
from redan.extraction.customer import Customer, Shows, View
from redan.extraction.kinks import kinks
from redan.extraction.relu_numbers import Net, ReLUNetwork, always_on, as_module, constant, fitted, refined, signed
from redan.targets import Target
from redan.targets.base import checked_bounds
from redan.targets.torch import from_torch

__all__ = ["OneHiddenLayer", "ReLUCopy", "ReLUNetwork"]

_STEP = 1e-3
"""Of a finite difference, where half the box's width is 1: few planes lie nearer, and it errs by 1000 roundings."""
_FRUITLESS = 30
"""Lines in a row that may bring no unit."""
_TRIES = 4
"""Times that a row is asked, if the model fails on it."""


class ReLUCopy(NamedTuple):
    """What was made of a network's answers."""

    target: Target[Tensor]
    """The copy: raw outputs (N, K), in float64."""
    parameters: Mapping[str, Tensor]
    """`hidden.weight` (H, D), `hidden.bias`, `output.weight` (K, H), `output.bias`, and `skip.weight` (K, D) if the
    copy has a linear term. Rows of hidden weights have length 1; the output weights carry the scale."""
    module: ReLUNetwork
    units: int
    """Hidden units found: those whose kink was met in the box."""
    unreachable: int
    """Hidden units that are known to be there and have no kink that was met. With `hidden` given, all that were not
    found. Without it, those that are on all over the box, as far as the linear term of a complete copy shows them: the
    least number that explains it. Units that are off all over the box leave no trace."""
    signed: bool
    """Whether each unit's sign was told apart from its opposite; if not, the linear term makes up for it."""
    error: float
    """The largest difference from answers that were bought to check the copy, or to look for units where it never came
    to that; inf if there are none."""
    queries: int
    """Answers paid for."""
    complete: bool
    """Whether the search ended by itself and `error` is at most `agreement`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneHiddenLayer:
    """A copy of a network with one hidden layer of ReLU units that agrees all over the box.

    shape: of one input, D numbers. bounds: their box. hidden: units of the network; None to find how many. agreement:
    the largest difference of any output that is allowed, in its own units. probes: rows without a trace of another unit
    after which the search ends; they are drawn from the box, its corners, and corners that push known units far.

    About (H + 1)·(D + 6) answers for H units, a few dozen more for each, and the probes. A refinement, if agreement is
    missed, takes about 1.3·H·(D + K + 1) / K more.

    The search ends where money does, and where the model fails on a row four times.

    A unit whose kink only cuts off a corner of the box that no probe hits is missed; so is one that never changes an
    output by more than the copy's precision. Two units with the same plane are one.
    """

    shape: tuple[int, ...]
    bounds: tuple[float, float] = (0.0, 1.0)
    hidden: int | None = None
    agreement: float = 1e-6
    probes: int = 1000

    def __post_init__(self) -> None:
        checked_bounds(self.bounds)
        if (self.hidden is not None and self.hidden < 0) or self.probes < 1 or not self.agreement > 0:
            raise SettingError(
                f"hidden must be 0 or more, probes 1 or more and agreement above 0, got {self.hidden}, {self.probes} "
                f"and {self.agreement}"
            )

    def __call__(self, customer: Customer, *, seed: int) -> ReLUCopy:
        """Raises SettingError where the answers are not raw float64 numbers: kinks cannot be told from rounding."""
        _refuse(customer.view, customer.classes)
        search = _Search(self, _Api(customer, self.shape, self.bounds), torch.Generator().manual_seed(seed))
        before, ended = customer.paid, False
        with contextlib.suppress(_NoAnswer):
            ended = search.run()
        return search.result(ended, customer.paid - before)


def _refuse(view: View, outputs: int) -> None:
    if view.shows is not Shows.RAW:
        raise SettingError(
            f"this extraction needs raw outputs, and the API shows {view.shows.name.lower()}; use a view with "
            "Shows.RAW, or equation solving (MLP), retraining or a surrogate for what is shown"
        )
    if view.decimals is not None or view.noise or (view.top is not None and view.top < outputs):
        raise SettingError(
            "this extraction needs all digits of all outputs, and the API rounds, cuts or blurs them; use a view "
            "without decimals, top and noise, or retraining or a surrogate for what is shown"
        )


class _NoAnswer(Exception):
    """A row has no answer: the money is spent, or the model failed."""


@dataclass(slots=True, eq=False)
class _Api:
    """The network over a box from -1 to 1."""

    customer: Customer
    shape: tuple[int, ...]
    bounds: tuple[float, float]
    first: Tensor | None = None  # (K,): some answer

    @property
    def features(self) -> int:
        return math.prod(self.shape)

    def __call__(self, z: Tensor) -> Tensor:
        """Outputs (N, K) at rows z (N, D). A row that failed is asked again one float nearer to the middle, which
        changes it by less than its rounding."""
        low, high = self.bounds
        middle = z.new_tensor((low + high) / 2)
        x = (middle + (high - low) / 2 * z).clamp(low, high)
        for _ in range(_TRIES):
            shown, _labels, answered = self.customer.ask(x.view(-1, *self.shape))
            if self.first is None and bool(answered.any()):
                self.first = shown[answered][0]
            if bool(answered.all()):
                return shown
            if not self.customer.left:
                break
            x = torch.where(answered[:, None], x, torch.nextafter(x, middle))
        raise _NoAnswer


class _Unit(NamedTuple):
    normal: Tensor  # (D,)
    offset: Tensor  # ()
    out: Tensor  # (K,)
    error: float  # of an output that it makes
    step: float  # as of the pieces on either side


class _Piece(NamedTuple):
    """The gradient of what is left, around a point."""

    slope: Tensor  # (D, K)
    error: float  # of one of its numbers
    step: float  # nothing bends so near


@dataclass(slots=True, eq=False)
class _Search:
    """All that changes while a network is extracted."""

    settings: OneHiddenLayer
    api: _Api
    draw: torch.Generator
    net: Net | None = None
    noise: float = 0.0  # standard deviation of an output's rounding
    error: float = 0.0  # of the copy, as expected where no unit is missing
    smallest: float = 1e-5  # step of a gradient worth taking
    blur: float = 0.0  # second singular value of the jump of units that may be taken for one
    asked: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # rows and outputs; the search began at the first
    check: tuple[Tensor, Tensor] | None = None  # rows and outputs bought to check the copy

    def run(self) -> bool:
        """Whether the search ended by itself."""
        self._begin()
        ended = self._explore()
        self._finish()
        return ended

    def _uniform(self, *size: int) -> Tensor:
        return torch.rand(*size, generator=self.draw, dtype=torch.float64)

    def _rows(self, count: int) -> Tensor:
        """Rows (count, D) drawn from the box."""
        return 2 * self._uniform(count, self.api.features) - 1

    # The linear piece to begin with

    def _begin(self) -> None:
        outputs, features = self.api.customer.classes, self.api.features
        for _ in range(5):
            start = 0.9 * self._rows(1)[0]
            self.noise = self._measured_noise(start)
            nothing = constant(torch.zeros(outputs, dtype=torch.float64), features)
            piece = self._piece(nothing, start, _STEP)
            if piece is not None:
                value = self.api(start[None])
                self.asked.append((start[None], value))
                self.net = nothing._replace(slope=piece.slope, level=value[0] - start @ piece.slope)
                self.error = self._spread(piece.error)
                return
        raise _NoAnswer  # no place is linear

    def _spread(self, error: float) -> float:
        """What an error of a gradient's numbers makes of an output, over the box."""
        return 2 * error * math.sqrt(self.api.features)

    def _measured_noise(self, z: Tensor) -> float:
        """The rounding of outputs, from a line so short that it bends by chance only one time in a million."""
        steps = torch.arange(16, dtype=torch.float64)[:, None]
        y = self.api(z + 1e-10 * steps * (2 * self._uniform(len(z)) - 1))
        far = self.api(self._rows(4))
        if bool((y == y.float()).all() & (far == far.float()).all()) and bool((far != far[0]).any()):
            raise SettingError(
                "the model answers in float32, where kinks cannot be told from rounding; give it in float64 "
                "(module.double()), or use retraining or a surrogate"
            )
        line = torch.cat([torch.ones_like(steps), steps / 16], 1)
        off = y - line @ torch.linalg.lstsq(line, y).solution
        noise = float(off.square().mean(0).sqrt().max())
        scale = float(torch.cat([y, far]).abs().max())
        if noise > 1e-11 * scale:
            raise SettingError(
                f"the model's answers to nearly the same input scatter by {noise:.1g}, which hides its kinks; give a "
                "model in float64 that answers the same input alike, or use retraining or a surrogate"
            )
        return max(1.2 * noise, 2e-16 * scale, 1e-300)

    def _piece(self, net: Net, z: Tensor, step: float) -> _Piece | None:
        """The gradient of what `net` leaves around z, from one answer a feature; None where it bends too near.

        Steps are made shorter until four answers on either side of z, drawn at random, balance each other; they must
        agree with the gradient in the end, and so must one more.
        """
        noise = 1.5 * self.noise
        while step >= min(self.smallest, _STEP) / 8:
            room = (1 - z.abs()).clamp(0, step)
            moves = room * (2 * self._uniform(2, len(z)) - 1)
            # The middle's rounding is in all numbers of the gradient: sides at random keep it from adding up.
            sides = torch.where(self._uniform(len(z)) < 0.5, step, -step)
            sides = torch.where((z + sides).abs() <= 1, sides, -sides)
            around = torch.cat([z[None], z + moves, z - moves, (z + sides / 2 * self._uniform(len(z)))[None]])
            middle, *near = (self.api(around) - net(around)).tensor_split((1, 3, 5))
            limit = 8 * noise * (1.5 + (moves / step).norm(dim=1).max())
            if bool(((near[0] + near[1] - 2 * middle).abs() <= limit).all()):
                slope = self._slope(net, z, middle, sides)
                off = torch.cat(near) - middle - (around[1:] - z) @ slope
                if bool((off.abs() <= limit).all()):
                    return _Piece(slope, 1.5 * noise / step, step)
            step /= 4
        return None

    def _slope(self, net: Net, z: Tensor, middle: Tensor, sides: Tensor) -> Tensor:
        """The gradient (D, K) from a step to the given side along each feature."""
        slopes = []
        for part in torch.arange(len(z)).tensor_split(math.ceil(len(z) / 1024)):
            rows = z.repeat(len(part), 1)
            each = torch.arange(len(part))
            rows[each, part] += sides[part]
            slopes.append((self.api(rows) - net(rows) - middle) / (rows[each, part] - z[part])[:, None])
        return torch.cat(slopes)

    # The units

    def _explore(self) -> bool:
        """Find units until nothing is left of any answer. False where something is left that no line explains."""
        clean, fruitless = 0, 0
        while fruitless < _FRUITLESS:
            rows, left = self._left_over()
            if bool(left.any()):
                end = rows[left][int(torch.randint(int(left.sum()), (), generator=self.draw))]
                # All rows that are explained have unknown units off, so a line may begin at any of them.
                starts = rows[~left] if fruitless else rows[:1]
                nearest = int((starts - end).norm(dim=1).argmin())
                other = int(torch.randint(len(starts), (), generator=self.draw))
                found = self._along(starts[nearest if fruitless % 2 else other], end)
                fruitless = 0 if found else fruitless + 1
                if fruitless:
                    self.smallest = max(1e-8, self.smallest / 4)
                    self._bought(8)
                if fruitless > _FRUITLESS // 2:
                    self._settle()
                clean = 0
                continue
            known = self.settings.hidden is not None and len(self._copy.normals) >= self.settings.hidden
            if clean >= (min(64, self.settings.probes) if known else self.settings.probes):
                return True
            rows = self._probes(min(max(8, clean), 256, self.settings.probes))
            self.asked.append((rows, self.api(rows)))
            clean += len(rows)
        return False

    def _settle(self) -> None:
        """Take planes too near to each other for one, and what no line explains for imprecision, within agreement."""
        self.blur = 0.1 * self.settings.agreement / math.sqrt(self.api.features)
        rows, outputs = self._bought(0)
        worst = float((outputs - self._copy(rows)).abs().max())
        if worst <= 0.1 * self.settings.agreement:
            self.error = max(self.error, worst / 4)

    @property
    def _copy(self) -> Net:
        if self.net is None:
            raise _NoAnswer
        return self.net

    @property
    def _limit(self) -> float:
        """Differences up to here are the copy's own imprecision."""
        return max(100 * self.noise, 6 * self.error)

    def _left_over(self) -> tuple[Tensor, Tensor]:
        """The rows asked so far (N, D), and whether the copy fails to explain their outputs: (N,) bool."""
        rows, outputs = self._bought(0)
        return rows, (outputs - self._copy(rows)).abs().amax(1) > self._limit

    def _probes(self, count: int) -> Tensor:
        """Rows (count, D) of four kinds in turn: from the box, its corners, corners of long runs, and corners that push
        known units far."""
        rows = self._rows(count)
        signs = rows.sign()
        flips = self._uniform(count, 1) ** 3 / 2
        runs = signs[:, :1] * torch.where(self._uniform(*rows.shape) < flips, -1.0, 1.0).cumprod(1)
        normals = self._copy.normals
        weights = torch.randn(count, len(normals), generator=self.draw, dtype=torch.float64)
        pushed = (weights @ normals).sign() if len(normals) else signs
        kind = torch.arange(count)[:, None] % 4
        return torch.where(kind == 0, rows, torch.where(kind == 1, signs, torch.where(kind == 2, runs, pushed)))

    def _along(self, start: Tensor, end: Tensor) -> bool:
        """Find the units that turn on between `start`, where none is left, and `end`. Whether the copy is better for
        it."""
        net, line = self._copy, end - start

        def values(t: Tensor) -> Tensor:
            rows = start + t[:, None] * line
            return self.api(rows) - net(rows)

        bends, sure = kinks(values, noise=max(1.5 * self.noise, self.error / 16), draw=self.draw)
        if not len(bends):  # what is left is straight: the copy is less precise than was expected
            self.error = max(self.error, float(values(torch.ones(1, dtype=torch.float64)).abs().max()) / 3)
            return True
        edges = torch.cat([bends, bends.new_ones(1)])
        before: _Piece | None = _Piece(torch.zeros_like(net.slope), 0.0, _STEP)
        found: list[_Unit] = []
        for k, bend in enumerate(bends):
            after = self._between(net, start, line, float(edges[k]), float(edges[k + 1]))
            if before is not None and after is not None and bool(sure[k]):
                unit = self._unit(before, after, line, start + bend * line)
                if unit is not None and self._proven(net, unit, start, end):
                    found.append(unit)
            before = after
        if not found:
            return False
        self.net = net._replace(
            normals=torch.cat([net.normals, torch.stack([unit.normal for unit in found])]),
            offsets=torch.cat([net.offsets, torch.stack([unit.offset for unit in found])]),
            outs=torch.cat([net.outs, torch.stack([unit.out for unit in found])]),
        )
        self.error = math.hypot(self.error, *(unit.error for unit in found))
        return True

    def _between(self, net: Net, start: Tensor, line: Tensor, low: float, high: float) -> _Piece | None:
        """The gradient between two kinks of a line, with steps as long as the distance between them allows."""
        step = min(_STEP, (high - low) * float(line.norm()) / 8)
        if step < self.smallest:
            return None
        for _ in range(2):
            share = 0.35 + 0.3 * float(self._uniform(1))
            piece = self._piece(net, start + (low + share * (high - low)) * line, step)
            if piece is not None:
                return piece
        return None

    def _unit(self, before: _Piece, after: _Piece, line: Tensor, kink: Tensor) -> _Unit | None:
        """The unit that turns on at a kink; None where the gradient's jump is not that of one unit."""
        jump = after.slope - before.slope
        error = math.hypot(before.error, after.error)
        left, sizes, _ = torch.linalg.svd(jump, full_matrices=False)
        normal = left[:, 0] * torch.sign(left[:, 0] @ line)
        noise = 8 * error * (math.sqrt(jump.shape[0]) + math.sqrt(jump.shape[1]))
        second = float(sizes[1]) if len(sizes) > 1 else 0.0
        if float(sizes[0]) < 4 * noise or second > max(noise, self.blur):
            return None
        error = math.hypot(self._spread(error), self._spread(second) / 2 if second > noise else 0.0)
        return _Unit(normal, -(normal @ kink), jump.T @ normal, error, min(before.step, after.step))

    def _proven(self, net: Net, unit: _Unit, start: Tensor, end: Tensor) -> bool:
        """Whether what is left bends as the unit says at two of three points of its plane drawn at random."""
        rows = self._rows(64)
        mixed = self._uniform(64, 1)
        rows = torch.cat([rows, rows + mixed * (start - rows), rows + mixed * (end - rows)])
        height = rows @ unit.normal + unit.offset
        off, on = rows[height < 0], rows[height > 0]
        if not len(off) or not len(on):
            return False
        first, second = (part[torch.randint(len(part), (3,), generator=self.draw)] for part in (off, on))
        across = second - first
        share = -(first @ unit.normal + unit.offset) / (across @ unit.normal)
        step = torch.minimum(2 * unit.step / across.abs().amax(1), torch.minimum(share, 1 - share) / 2)
        points = [first + (share + side * step)[:, None] * across for side in (-1, 0, 1)]
        below, at, above = (self.api(torch.cat(points)) - net(torch.cat(points))).chunk(3)
        bend = (step * (across @ unit.normal))[:, None] * unit.out
        size = bend.abs().amax(1)
        agrees = (below + above - 2 * at - bend).abs().amax(1) <= 0.01 * size + 16 * self.noise
        return int((agrees & (size > 32 * self.noise)).sum()) >= 2

    # The end

    def _finish(self) -> None:
        """Fit what is linear in all answers, and refine everything where that is not enough."""
        net = self._copy
        rows, outputs = self._bought(max(0, 2 * (len(net.normals) + self.api.features + 1) - self._count()))
        check = torch.cat([self._rows(256), self._rows(64).sign()])
        self.check = check, self.api(check)
        self._improve(fitted(net, rows, outputs))
        target = 0.1 * self.settings.agreement
        if self._worst(self._copy, *self.check) > target and len(net.normals):
            unknown = net.normals.numel() + net.outs.numel() + net.slope.numel() + net.level.numel()
            rows, outputs = self._bought(math.ceil(1.3 * unknown / len(net.level)))
            for _ in range(5):
                before = self._worst(self._copy, *self.check)
                self._improve(refined(self._copy, rows, outputs))
                worst = self._worst(self._copy, *self.check)
                if worst <= target or worst > 0.5 * before:
                    break

    def _count(self) -> int:
        return sum(len(rows) for rows, _ in self.asked)

    def _bought(self, count: int) -> tuple[Tensor, Tensor]:
        """So many more rows drawn from the box, with those asked before, and their outputs."""
        for part in range(0, count, 1024):
            rows = self._rows(min(1024, count - part))
            self.asked.append((rows, self.api(rows)))
        rows, outputs = (torch.cat(parts) for parts in zip(*self.asked, strict=True))
        return rows, outputs

    def _worst(self, net: Net, rows: Tensor, outputs: Tensor) -> float:
        return float((outputs - net(rows)).abs().max())

    def _improve(self, net: Net) -> None:
        """Take this copy if it is better where it is checked."""
        if self.check is not None and self._worst(net, *self.check) < self._worst(self._copy, *self.check):
            self.net = net

    def result(self, ended: bool, queries: int) -> ReLUCopy:
        """The best copy so far, whatever was asked."""
        outputs, features = self.api.customer.classes, self.api.features
        net = self.net
        if net is None:
            level = torch.zeros(outputs, dtype=torch.float64) if self.api.first is None else self.api.first
            net = constant(level, features)
        net = net.scaled()
        tolerance = 0.1 * self.settings.agreement
        turned = signed(net, tolerance)
        net = net if turned is None else turned
        bought = self.check
        if bought is None and len(self.asked) > 1:
            rows, told = (torch.cat(parts) for parts in zip(*self.asked[1:], strict=True))
            bought = rows, told
        worst = math.inf if bought is None else self._worst(net, *bought)
        complete = ended and worst <= self.settings.agreement
        on = always_on(net, tolerance) if turned is None and complete else 0
        if self.settings.hidden is not None:
            on = max(0, self.settings.hidden - len(net.normals))
        module = as_module(net, self.settings.bounds, skip=turned is None)
        target = from_torch(module, bounds=self.settings.bounds, classes=outputs)
        return ReLUCopy(
            target=target,
            parameters=dict(module.state_dict()),
            module=module,
            units=len(net.normals),
            unreachable=on,
            signed=turned is not None,
            error=worst,
            queries=queries,
            complete=complete,
        )
