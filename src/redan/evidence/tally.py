"""One attacker's rows, counted from the log: a few numbers a row, so that 10^5 rows fit in a few megabytes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redan.errors import EvidenceError
from redan.evidence.log import (
    AttackerHead,
    AttackHead,
    BlockLine,
    ExaminedLine,
    RetriedLine,
    RetryLine,
    RightAnswer,
    RowLine,
    dumped,
)
from redan.evidence.report import AttackPart, ClassPart, Counts, CurvePart, ErrorPart, RetryPart, Tried

_BINS = 20  # a stochastic model's rows are judged over so many answers
_POINTS = 20  # of the curve
_HOLDS = 0.1  # share of answers up to which a stochastic model's broken row is as broken as it can be shown to be
_NEVER, _ROBUST, _BROKEN, _ERROR, _UNDECIDED = range(5)
_STATUS = {"robust": _ROBUST, "broken": _BROKEN, "error": _ERROR, "undecided": _UNDECIDED}

Flags = NDArray[np.bool_]


class Tally:
    """What is known of each row; a row that is seen again counts as it was seen last."""

    def __init__(self, head: AttackerHead, labels: Sequence[RightAnswer], classes: Sequence[str]) -> None:
        rows, attacks = len(labels), len(head.attacks)
        self.head, self._classes = head, classes
        self._heads: list[AttackHead] = list(head.attacks)  # those of retries follow as they begin
        self.examined: ExaminedLine | None = None
        self._retries: dict[str, RetryLine] = {}
        self._retried: set[str] = set()
        self._labels = labels
        self._attack = {attack.name: i for i, attack in enumerate(head.attacks)}
        self._status = np.full(rows, _NEVER, dtype=np.int8)
        self._answered, self._right = np.zeros(rows, dtype=bool), np.zeros(rows, dtype=bool)
        self._share = np.zeros(rows, dtype=np.float32)
        self._near = np.full(rows, np.inf, dtype=np.float64)
        self._eight_bit = np.zeros(rows, dtype=bool)
        self._by, self._failed = np.full(rows, -1, dtype=np.int16), np.full(rows, -1, dtype=np.int16)
        self._shown = np.zeros((rows, attacks), dtype=bool)
        self._spent = np.zeros((rows, attacks, 3), dtype=np.int64)
        self._blind = np.zeros(rows, dtype=np.int64)
        self._digest = np.zeros((rows, 32), dtype=np.uint8)
        self._reason = np.full(rows, -1, dtype=np.int32)
        self._reasons: dict[str, int] = {}
        self._first: dict[int, tuple[int, str]] = {}  # reason -> the first row that had it, and its id
        self._later = hashlib.sha256()  # of what was examined and retried
        self._seconds: dict[str, float] = defaultdict(float)
        self._crashed: dict[str, str] = {}

    def block(self, line: BlockLine) -> None:
        """Count what a block took."""
        for name, seconds in line.seconds.items():
            self._seconds[name] += seconds
        self._crashed |= line.crashed

    def row(self, line: RowLine) -> None:
        """Count a row, instead of what was known of it. Raises EvidenceError for one that the run does not have."""
        at = line.row
        if (
            not 0 <= at < len(self._labels)
            or line.y != self._labels[at]
            or not self._attack.keys() >= line.spent.keys()
        ):
            raise EvidenceError(f"the log has a row {at} that does not belong to the run; the evidence was changed")
        if line.retry is not None:
            self._retried_row(line)
            return
        self._status[at], self._share[at] = _STATUS[line.status], line.share
        self._answered[at], self._right[at] = line.answered, line.right
        self._shown[at], self._spent[at] = False, 0
        self._blind[at] = line.blind
        self._digest[at] = 0
        self._ended(line)

    def _ended(self, line: RowLine) -> None:
        """Count what a line says of a row's fate and of what was spent on it."""
        at = line.row
        self._near[at] = np.inf if line.near is None else line.near
        self._eight_bit[at] = bool(line.eight_bit)
        self._by[at] = self._attack.get(line.by or "", -1)
        self._failed[at] = self._attack.get(line.failed or "", -1)
        self._spend(line)
        self._reason[at] = -1
        if line.status == "error":
            number = self._reasons.setdefault(line.reason or "", len(self._reasons))
            self._reason[at] = number
            if at <= self._first.get(number, (at, ""))[0]:
                self._first[number] = at, line.id

    def _spend(self, line: RowLine) -> None:
        for name, spent in line.spent.items():
            self._shown[line.row, self._attack[name]], self._spent[line.row, self._attack[name]] = True, spent
        # Where its input lies in which file is no part of what was found: it differs after a resume.
        told = dumped(line.model_copy(update={"saved": None}))
        whole = hashlib.sha256(told if line.retry is None else self._digest[line.row].tobytes() + told)
        self._digest[line.row] = np.frombuffer(whole.digest(), dtype=np.uint8)

    def _retried_row(self, line: RowLine) -> None:
        """A retry can only make things worse: a row that it breaks no more often is what it was, and cost more."""
        stood = self._status[line.row] == _ROBUST
        if line.share > self._share[line.row] or (stood and line.status != "robust"):
            self._status[line.row], self._share[line.row] = _STATUS[line.status], line.share
            self._ended(line)
        else:
            self._spend(line)

    def later(self, line: ExaminedLine | RetryLine | RetriedLine) -> None:
        """Count what was asked after the attacks. Raises EvidenceError where it does not follow from what was."""
        match line:
            case ExaminedLine():
                self.examined = line
                self._later.update(dumped(line.model_copy(update={"seconds": 0.0})))
            case RetryLine() if line.name not in self._retries:
                self._retries[line.name] = line
                self._later.update(dumped(line))
                if line.attack is not None:
                    self._attack[line.attack.name] = len(self._heads)
                    self._heads.append(line.attack)
                    self._shown = np.pad(self._shown, ((0, 0), (0, 1)))
                    self._spent = np.pad(self._spent, ((0, 0), (0, 1), (0, 0)))
            case RetriedLine():
                self._retried.add(line.name)

    def is_retried(self, name: str) -> bool:
        """Whether a retry was tried on every row, or did not apply."""
        begun = self._retries.get(name)
        return name in self._retried or (begun is not None and begun.attack is None)

    def standing(self, rows: int) -> list[int]:
        """Those of the first rows that were right and not broken."""
        return [int(row) for row in np.flatnonzero(self._is(_ROBUST, rows))]

    def open_to(self, retry: str, rows: int) -> list[int]:
        """Those of the first rows that still count, and have no line of the retry: rows that stand.

        With them those of a stochastic model that are broken in most answers and hold in others (`_HOLDS`).
        """
        holding = (1 - self._share[:rows].round(3)) > _HOLDS + 1e-3
        found = self._is(_ROBUST, rows) | (self._is(_BROKEN, rows) & holding)
        if retry in self._attack:
            found &= ~self._shown[:rows, self._attack[retry]]
        return [int(row) for row in np.flatnonzero(found)]

    def retries(self, rows: int) -> list[RetryPart]:
        """What was tried again, and what it changed among the first rows."""
        return [self._retry(line, rows) for line in self._retries.values()]

    def _retry(self, line: RetryLine, rows: int) -> RetryPart:
        at = None if line.attack is None else self._attack[line.attack.name]
        return RetryPart(
            name=line.name,
            because=line.because,
            detail=line.detail,
            status=Tried.NOT_APPLICABLE if at is None else Tried.DONE if line.name in self._retried else Tried.CUT,
            attempted=0 if at is None else int(self._shown[:rows, at].sum()),
            broken=0 if at is None else int((self._is(_BROKEN, rows) & (self._by[:rows] == at)).sum()),
        )

    @property
    def finished(self) -> Flags:
        """Rows of which all is known; one that our limits cut off is not: (rows,) bool."""
        found: Flags = (self._status != _NEVER) & (self._status != _UNDECIDED)
        return found

    @property
    def seen(self) -> Flags:
        """Rows that have a line: (rows,) bool."""
        found: Flags = self._status != _NEVER
        return found

    @property
    def passes(self) -> int:
        """Forward and backward passes so far."""
        return int(self._spent[:, :, 1:].sum())

    def digest(self, rows: int) -> bytes:
        """sha256 over the first rows, in their order, whatever order they were finished in."""
        return hashlib.sha256(self._digest[:rows].tobytes() + self._later.digest()).digest()

    def _is(self, status: int, rows: int) -> Flags:
        found: Flags = self._right[:rows] & (self._status[:rows] == status)
        return found

    def _failures(self, rows: int) -> Flags:
        """Rows that count as errors: not answered at all, or right and then not judged."""
        found: Flags = (self._status[:rows] == _ERROR) & (self._right[:rows] | ~self._answered[:rows])
        return found

    def right(self, rows: int) -> Iterator[tuple[int, bool]]:
        """Each of the first rows whose clean input was answered, and whether the answer was right."""
        for row in np.flatnonzero(self._answered[:rows]).tolist():
            yield row, bool(self._right[row])

    def held(self, rows: int) -> Iterator[tuple[int, bool]]:
        """Each of the first rows that was judged, and whether it is robust: right on every input."""
        status, wrong = self._status[:rows], self._answered[:rows] & ~self._right[:rows]
        judged = (status == _ROBUST) | (status == _BROKEN) | wrong
        for row in np.flatnonzero(judged).tolist():
            yield row, bool(self._right[row] and status[row] == _ROBUST)

    def broken(self, rows: int) -> Iterator[int]:
        """Each of the first rows that was right and is broken by an input other than its own."""
        found = self._is(_BROKEN, rows) & (self._by[:rows] >= 0)
        yield from np.flatnonzero(found).tolist()

    def counts(self, rows: int, stochastic: bool) -> Counts:
        """What became of the first rows."""
        seen = self.seen[:rows]
        return Counts(
            drawn=rows,
            right=int(self._right[:rows].sum()),
            unanswered=int((seen & ~self._answered[:rows]).sum()),
            robust=int(self._is(_ROBUST, rows).sum()),
            broken=int(self._is(_BROKEN, rows).sum()),
            errors=int(self._failures(rows).sum()),
            undecided=int(self._is(_UNDECIDED, rows).sum()),
            missing=int((~seen).sum()),
            held=self._held(rows) if stochastic else None,
        )

    def _held(self, rows: int) -> list[int]:
        """Judged rows by how often they held, in steps of 1/20."""
        status, answered, right = self._status[:rows], self._answered[:rows], self._right[:rows]
        judged = (status == _ROBUST) | (status == _BROKEN)
        often = np.where(right | (status == _BROKEN), (1 - self._share[:rows]) * _BINS, 0).round().astype(np.int64)
        bins = np.bincount(often[judged | (answered & ~right)].clip(0, _BINS), minlength=_BINS + 1)
        return [int(count) for count in bins]

    def by_class(self, rows: int) -> list[ClassPart]:
        """Each class's rows among the first; none where rows have no one class."""
        if not all(isinstance(label, int) for label in self._labels):
            return []
        labels = np.asarray(self._labels[:rows], dtype=np.int64)

        def count(which: Flags) -> NDArray[np.int64]:
            found: NDArray[np.int64] = np.bincount(labels[which], minlength=len(self._classes))
            return found

        everyone = np.ones(rows, dtype=bool)
        columns = (
            count(everyone),
            count(self._right[:rows]),
            count(self._is(_ROBUST, rows)),
            count(self._failures(rows)),
            count(self._is(_UNDECIDED, rows) | ~self.seen[:rows]),
        )
        return [
            ClassPart(name=name, **{key: int(column[c]) for key, column in zip(_COLUMNS, columns, strict=True)})
            for c, name in enumerate(self._classes)
        ]

    def attacks(self, rows: int, cut: bool) -> list[AttackPart]:
        """What each attack did and cost on the first rows."""
        price = self.head.usd_per_1000_queries
        return [
            AttackPart(
                name=attack.name,
                settings=attack.settings,
                status="error" if attack.name in self._crashed else "cut" if cut else "done",
                attempted=int(self._shown[:rows, a].sum()),
                broken=int((self._is(_BROKEN, rows) & (self._by[:rows] == a)).sum()),
                errors=int((self._failed[:rows] == a).sum()),
                queries=(queries := int(self._spent[:rows, a, 0].sum())),
                forwards=int(self._spent[:rows, a, 1].sum()),
                backwards=int(self._spent[:rows, a, 2].sum()),
                seconds=round(self._seconds[attack.name], 3),
                usd=None if price is None else queries * price / 1000,
            )
            for a, attack in enumerate(self._heads)
        ]

    def cost_of_success(self, rows: int) -> tuple[float | None, float | None]:
        """Median queries of a broken row among the first, and what all queries cost in US dollars for each."""
        broken = self._is(_BROKEN, rows)
        if not broken.any():
            return None, None
        queries, price = self._spent[:rows, :, 0].sum(1), self.head.usd_per_1000_queries
        usd = None if price is None else float(queries.sum() * price / 1000 / broken.sum())
        return float(np.median(queries[broken])), usd

    def curve(self, rows: int) -> list[CurvePart]:
        """How many of the first rows are robust at each radius, as far as the inputs that were found tell."""
        if self.head.radius is None:
            return []
        standing = self._is(_ROBUST, rows) | self._is(_BROKEN, rows)
        near = np.where(self._status[:rows] == _BROKEN, self._near[:rows], np.inf)
        radii = [self.head.radius * i / _POINTS for i in range(_POINTS + 1)]
        edge = 1 + 1e-5  # of a radius: rounding
        return [CurvePart(radius=r, robust=int((standing & (near > r * edge)).sum()), drawn=rows) for r in radii]

    def success_8bit(self, rows: int) -> int:
        """How many of the first rows stay broken when their inputs are rounded to 256 levels."""
        return int((self._is(_BROKEN, rows) & self._eight_bit[:rows]).sum())

    def blind_share(self, rows: int) -> float:
        """The share of gradients that were 0 or not finite."""
        asked = int(self._spent[:rows, :, 2].sum())
        return int(self._blind[:rows].sum()) / asked if asked else 0.0

    @property
    def crashed(self) -> dict[str, str]:
        """Attacks that raised, and what."""
        return self._crashed

    def errors(self, rows: int) -> list[ErrorPart]:
        """Rows that could not be judged, by reason."""
        found = []
        for reason, number in self._reasons.items():
            count = int((self._reason[:rows] == number).sum())
            if count:
                found.append(
                    ErrorPart(attacker=self.head.name, reason=reason, rows=count, first=self._first[number][1])
                )
        return found


_COLUMNS: tuple[Any, ...] = ("drawn", "right", "robust", "errors", "undecided")
