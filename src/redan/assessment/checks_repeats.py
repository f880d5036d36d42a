"""Checks of answers to the same rows again: by chance, from memory, and beside other rows.

The sample is asked again together (a) and in other company (b), in the order a a b b a a, so that nothing that
comes round every few calls can pass for company. What changes between two equal questions is chance or memory; what
changes with the company alone is a dependence on the batch.

Tolerance: a ten-thousandth of the largest score, or 32 units of rounding in a coarser type. Batches of another size
run other kernels, and a step inside a model (half precision, two decimals) may let that show: company has to change
one row in ten by ten times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from redan.assessment.checks_answers import finite
from redan.assessment.checks_look import Look
from redan.assessment.checks_scene import Finding, Level

_ORDER = "aabbaa"
_TOLERANCE = 1e-4  # of the largest score
_KERNELS, _ROWS = 10, 0.1  # times that, in so many of the rows
_MONOTONE = 0.5  # of the scores: four random answers are in order for 1 score in 12


class Repeats(NamedTuple):
    """Answers (r, s, K) to the same s rows: at first, together again, and in other company.

    scale: the largest score. tolerance: differences below it are rounding.
    """

    first: Tensor
    again: Tensor
    others: Tensor
    scale: float
    tolerance: float

    @property
    def noise(self) -> float:
        """The largest difference between any two answers to one row."""
        return _spread(torch.cat([self.first, self.again, self.others]))

    @property
    def _steady(self) -> bool:
        """Whether the very same question got the same answer each time."""
        return max(_spread(self.again), _spread(self.others)) <= self.tolerance

    @property
    def _moved(self) -> bool:
        """Whether any answers differ by more than other kernels bring."""
        return self._apart(_KERNELS, self.first, self.again, self.others)

    @property
    def company(self) -> bool:
        """Whether answers in other company differ from those together, in the same way each time."""
        return self._steady and self._moved and len(self.again) > 0 and self._apart(1, self.again, self.others)

    @property
    def varies(self) -> bool:
        """Whether the very same question got two answers, or the first answer came never again."""
        return not self._steady or (self._moved and not self.company)

    def _apart(self, times: int, *answers: Tensor) -> bool:
        """Whether these answers differ by more than `times` the tolerance, in more than a few rows."""
        z = torch.cat(answers)
        if not z.numel():
            return False
        rows = (z.amax(0) - z.amin(0)).amax(1) > times * self.tolerance
        return float(rows.float().mean()) > _ROWS

    @property
    def remembers(self) -> bool:
        """Whether the changes have an order: an answer that stays for a while, or scores that go one way."""
        pairs = combinations(self.again.unbind(), 2)
        if any(_spread(torch.stack(pair)) <= self.tolerance for pair in pairs):
            return True
        steps = self.again.diff(dim=0)
        one_way = (steps > 0).all(0) | (steps < 0).all(0)
        return bool(one_way.float().mean() > _MONOTONE)


def _spread(answers: Tensor) -> float:
    return float((answers.amax(0) - answers.amin(0)).max()) if answers.numel() else 0.0


def asked_again(look: Look) -> Repeats:
    """Ask the sample again, as often as the plan says; and as often as it takes where it does not agree."""
    size, device = len(look.sample), look.x.device
    together = [torch.arange(size, device=device)]
    stranger = torch.arange(size, min(size + 1, len(look.x)), device=device)
    mixed = torch.cat([together[0], stranger]).flip(0)
    apart = list(_poles(look.x, mixed)) if size >= 8 or not len(stranger) else [mixed]
    ways = {"a": together, "b": apart}

    def asked(kinds: str) -> list[tuple[str, Tensor, Tensor]]:
        return [(kind, *_regrouped(look, ways[kind], size)) for kind in kinds]

    first = [("", look.clean.output[:size], look.clean.answered[:size])]
    if look.plan.thorough:
        return _repeats(first + asked(_ORDER))
    hasty = first + asked("b")
    found = _repeats(hasty)
    return _repeats(hasty + asked(_ORDER)) if found.noise > found.tolerance else found


def _poles(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The rows in two halves, low means and high ones: two halves by chance can have nearly the same mean."""
    low, high = x[rows].flatten(1).double().mean(1).argsort().tensor_split(2)
    return rows[low.sort().values], rows[high.sort().values]


def _regrouped(look: Look, parts: Sequence[Tensor], size: int) -> tuple[Tensor, Tensor]:
    """Answers to the sample, asked part by part, and which of them are there."""
    answers = [look.ask(look.x[part]) for part in parts if len(part)]
    back = torch.cat(list(parts)).argsort()[:size]
    return torch.cat([a.output for a in answers])[back], torch.cat([a.answered for a in answers])[back]


def _repeats(asked: list[tuple[str, Tensor, Tensor]]) -> Repeats:
    usable = torch.stack([answered for _, _, answered in asked]).all(0)
    z = finite(torch.stack([output for _, output, _ in asked]))[:, usable]
    kinds = [kind for kind, _, _ in asked]
    first, again, others = (z[[at for at, each in enumerate(kinds) if each == kind]] for kind in ("", "a", "b"))
    scale = max(1e-12, float(z.abs().max())) if z.numel() else 1e-12
    return Repeats(first, again, others, scale, max(_TOLERANCE, 32 * torch.finfo(z.dtype).eps) * scale)


def _told(repeats: Repeats) -> str:
    times = 1 + len(repeats.again) + len(repeats.others)
    return f"{times} answers to the same {repeats.first.shape[1]} rows"


_FRESH = "rows are judged over 20 fresh answers each, on one core"


def determinism(repeats: Repeats) -> Finding:
    """A model that answers the same question differently must be judged over several answers."""
    detail = f"{_told(repeats)} differ by {repeats.noise:.3g} at the most, of {repeats.scale:.3g}"
    remedy = f"{_FRESH}; make the model deterministic for an exact count"
    return Finding("determinism", Level.SWITCH, repeats.varies, detail, remedy if repeats.varies else "")


def state(repeats: Repeats) -> Finding:
    """Answers that depend on what was asked before: drift, a memory, a limit, every few calls."""
    name = "state"
    if repeats.varies and repeats.remembers:
        detail = f"{_told(repeats)} change with the calls before them, and not by chance alone"
        remedy = f"{_FRESH}, in the state the model is then in; switch off its memory, limits and learning"
        return Finding(name, Level.SWITCH, True, detail, remedy)
    return Finding(name, Level.SWITCH, False, f"no order in {_told(repeats)}")


def batch_mates(repeats: Repeats) -> Finding:
    """Answers that depend on the rows beside them: no row has a result of its own."""
    name = "batch-mates"
    if repeats.company:
        detail = f"{_told(repeats)} differ by {repeats.noise:.3g} with the rows they are asked with"
        remedy = "take out what is computed over the batch (batch statistics, a mean, a quantization range), or fix it"
        return Finding(name, Level.REFUSE, True, detail, remedy)
    why = "; what varies by itself cannot be told from company" if repeats.varies else ""
    return Finding(name, Level.REFUSE, False, f"{_told(repeats)} differ by {repeats.noise:.3g} in any company{why}")
