"""The lines of a run's log. A row's line is written once all is known of it, so a row is finished or not begun.

The first line says everything that decides the run and does not come from asking the model; with the rows' lines
the whole report follows from it. A row that stands twice (its first attempt was cut off by our limits) counts as
its last line says.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from redan.evidence.base import LogPart
from redan.evidence.certified_lines import ProofsLine, ProvenLine, UnprovableLine
from redan.evidence.detected import DetectorHead
from redan.evidence.extraction_lines import CopyLine, DirectLine, ExtractionHead
from redan.evidence.poison_lines import CertifiedLine, InspectedLine, PoisoningHead, VictimLine, VotesLine
from redan.evidence.report import CallsPart, CheckPart, Doubt, PlanPart
from redan.evidence.requirement import Requirement
from redan.evidence.transfers import TransferLine

VERSION = 1

RightAnswer: TypeAlias = int | float | list[int]
"""A class number, a value (regression), or a 0 or 1 for each label."""


class AttackHead(LogPart):
    """One attack that a run tries."""

    name: str
    settings: str
    access: Literal["labels", "scores", "gradients"]
    """What it needs to see of the model."""


class AttackerHead(LogPart):
    """One attacker of the threat model."""

    name: str
    kind: str
    why: str
    goal: str
    impact: str | None
    techniques: list[str]
    change: str | None
    radius: float | None
    """Of the set that the change means."""
    knowledge: str | None
    usd_per_1000_queries: float | None
    status: Literal["assessed", "not built", "skipped"]
    reason: str | None
    attacks: list[AttackHead]
    poisoning: PoisoningHead | None = None
    extraction: ExtractionHead | None = None


class StandardHead(LogPart):
    """One item of a standard or a law that an assessment may be evidence for."""

    id: str
    name: str
    text: str
    version: str
    date: str
    source: str
    attackers: list[str]
    """Whom it is about."""
    itself: bool
    """Whether the test itself is evidence for it, whatever the attacks find."""
    shows: str
    shows_not: str


class RunLine(LogPart):
    """What was decided before the first attack."""

    event: Literal["run"] = "run"
    version: Literal[1] = 1
    id: str
    started: str
    system: str
    defenses: list[str] = Field(default_factory=list)
    """What is served with the model, in words, the outermost last; a log of before there were any has none."""
    beside: list[str] = Field(default_factory=list)
    """Models without what is served, which every attacker on inputs attacks too: "the model alone"."""
    detector: DetectorHead | None = None
    """What refuses inputs: the answer of a refused row is the number of classes."""
    classes: list[str]
    ids: list[str]
    """The name of each row, in the order in which rows are taken."""
    labels: list[RightAnswer]
    """The right answer of each row, in the order in which rows are taken."""
    requirements: list[Requirement]
    attackers: list[AttackerHead]
    preflight: list[CheckPart]
    plan: list[PlanPart]
    standards: list[StandardHead]
    skipped: list[str]
    mode: str
    seed: int
    confidence: float
    family: str
    gate: bool
    stochastic: bool
    eight_bit: bool
    """Whether success is told after rounding to 256 levels too: inputs are images."""
    environment: dict[str, str]
    digests: dict[str, str | None]
    """sha256 of model, data, rows, threat_model, redan."""


class BlockLine(LogPart):
    """Rows that were worked on together: where their inputs are, and what it took. Their lines follow."""

    event: Literal["block"] = "block"
    attacker: str
    inputs: str | None
    """File under inputs/; None where none are kept."""
    sha256: str
    seconds: dict[str, float]
    """CPU seconds of each attack."""
    crashed: dict[str, str]
    """Attacks that raised, and what."""
    beside: str | None = None
    """The model that was asked, where it is not the one that is served."""


class RowLine(LogPart):
    """One row under one attacker, attacked and measured again from what was saved."""

    event: Literal["row"] = "row"
    attacker: str
    row: int
    """Its place in the order in which rows are taken."""
    id: str
    index: int
    """Its place in the data."""
    y: RightAnswer
    answered: bool
    right: bool
    status: Literal["robust", "broken", "error", "undecided"]
    share: float
    """How often the saved input reached the goal when it was measured again."""
    by: str | None
    """The attack that broke it."""
    failed: str | None
    """The attack during which the model failed, or that itself raised."""
    reason: str | None
    distance: float | None
    near: float | None
    """Distance of the nearest input that still broke it, when the saved one was projected on smaller balls."""
    before: RightAnswer | None
    """The answer that the clean input got when it was measured again."""
    after: RightAnswer | None
    """The answer that the saved input got."""
    eight_bit: bool | None
    """Whether the saved input still breaks the model when it is rounded to 256 levels."""
    spent: dict[str, tuple[int, int, int]]
    """Queries, forward and backward passes of each attack that was shown the row; surrogates' passes are among them."""
    blind: int
    """Gradients that were 0 or not finite."""
    input: str
    """sha256 of the saved input's bytes."""
    saved: int | None
    """Its place in the block's file; None where the clean input is the saved one, or none is kept."""
    retry: str | None = None
    """The retry that it is about; what the line says counts where it makes things worse for the model."""
    beside: str | None = None
    """The model that was asked, where it is not the one that is served."""


class Indication(LogPart):
    """One indicator of a failing attack, looked at on some rows of a run."""

    name: str
    status: Doubt
    detail: str


class ExaminedLine(LogPart):
    """What an attacker's run looked like when it was asked whether its attacks can be trusted."""

    event: Literal["examined"] = "examined"
    attacker: str
    indications: list[Indication]
    forwards: int
    backwards: int
    seconds: float


class RetryLine(LogPart):
    """A retry begins; the lines of its rows follow."""

    event: Literal["retry"] = "retry"
    attacker: str
    name: str
    because: list[str]
    detail: str
    attack: AttackHead | None
    """None where it does not apply."""


class RetriedLine(LogPart):
    """A retry has been tried on every row that counted still."""

    event: Literal["retried"] = "retried"
    attacker: str
    name: str


class CallsLine(LogPart):
    """What an endpoint was sent so far."""

    event: Literal["calls"] = "calls"
    calls: CallsPart


class ResumedLine(LogPart):
    """A run that was broken off goes on from here."""

    event: Literal["resumed"] = "resumed"
    started: str


class EndedLine(LogPart):
    """Why and when a session ended."""

    event: Literal["ended"] = "ended"
    why: str
    """done, decided (by a gate), interrupted, or the name of an error."""
    rows: int
    """Rows taken."""
    limits_hit: list[str]
    seconds: float


Line: TypeAlias = (
    RunLine
    | BlockLine
    | RowLine
    | ExaminedLine
    | RetryLine
    | RetriedLine
    | ProofsLine
    | ProvenLine
    | UnprovableLine
    | VictimLine
    | InspectedLine
    | VotesLine
    | CertifiedLine
    | CopyLine
    | DirectLine
    | TransferLine
    | CallsLine
    | ResumedLine
    | EndedLine
)
_LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="event")])


def dumped(line: Line) -> bytes:
    """A line of the log."""
    return line.model_dump_json().encode() + b"\n"


def parsed(text: bytes) -> Line:
    """What a line of the log says. Raises ValueError for anything else."""
    return _LINE.validate_json(text)
