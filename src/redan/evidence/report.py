"""`report.json`: what an assessment found, as one frozen value with a published JSON Schema.

Every key exists from version 1 on; what is not built is empty or null. Everything here can be written down:
plain numbers, text, lists. The verdict is computed from it alone (`redan.evidence.verdict`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from redan.evidence.base import Part
from redan.evidence.certified import CertifiedPart
from redan.evidence.defended import DefendedPart
from redan.evidence.detected import DetectorPart
from redan.evidence.extracted import ExtractionPart
from redan.evidence.poisoned import PoisoningPart
from redan.evidence.requirement import Direction, Metric
from redan.evidence.transfers import TransferPart


class Verdict(StrEnum):
    """Three-valued: what is not shown either way is inconclusive."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"

    @property
    def exit_code(self) -> int:
        return {"pass": 0, "fail": 1, "inconclusive": 3}[self.value]


class IntervalPart(Part):
    """A confidence interval for a rate."""

    low: float
    high: float
    confidence: float
    method: str
    """clopper-pearson; bootstrap for a stochastic model; confidence-sequence for a gate; student-t over models."""
    sides: int


class Certified(Part):
    """Rows proven right within the attacker's set, of all drawn; where certified accuracy is required of them."""

    k: int
    n: int


class RequirementPart(Part):
    """One requirement and what was shown of it."""

    metric: Metric
    against: str | None
    direction: Direction
    threshold: float
    value: float | None
    """Observed; errors and undecided rows count as broken."""
    unit: str
    k: int | None
    """Of the class where it is lowest, if it is about the worst class; so are n, errors and undecided."""
    n: int | None
    errors: int
    undecided: int
    """Cut off by our limits, or never reached."""
    interval: IntervalPart | None
    """Two-sided, at the file's confidence."""
    bound_used: float | None
    """The one-sided bound that was compared with the threshold, at the level that Holm leaves."""
    rows_to_decide: int | None
    """Rows to draw at which the bound in use would decide, if the rate seen stays as it is; null once it is decided,
    and where the rate lies within half a row of the threshold."""
    certified: Certified | None
    verdict: Verdict
    reasons: list[str]


class AttackPart(Part):
    """What one attack did and cost, over the rows it was shown."""

    name: str
    settings: str
    status: str
    """done, error (it raised), or cut (our limits ended the run)."""
    attempted: int
    broken: int
    errors: int
    queries: int
    forwards: int
    backwards: int
    seconds: float
    usd: float | None


class ClassPart(Part):
    """One class under one attacker, counted as `Counts` counts all rows."""

    name: str
    drawn: int
    right: int
    robust: int
    errors: int
    undecided: int
    """Right on the clean input and cut off by our limits, or never reached."""


class Counts(Part):
    """What became of the rows drawn. right + wrong + unanswered + missing is drawn."""

    drawn: int
    right: int
    """Answered right on the clean input."""
    unanswered: int
    """The model failed on the clean input."""
    robust: int
    """Right on the clean and on every saved input."""
    broken: int
    """Right on the clean input, wrong on a saved one."""
    errors: int
    """Right on the clean input, then not judged; or unanswered."""
    undecided: int
    """Right on the clean input, then cut off by our limits."""
    missing: int
    """Never reached, because the run was interrupted: nothing is known of them."""
    held: list[int] | None
    """For a stochastic model: judged rows by how often they held, in steps of 1/20 from 0 to 1."""


class CurvePart(Part):
    """Robust accuracy at one radius."""

    radius: float
    robust: int
    drawn: int


class Doubt(StrEnum):
    """What looking at an indicator came to."""

    OK = "ok"
    SUSPICIOUS = "suspicious"
    NOT_APPLICABLE = "not applicable"


class Diagnosis(Part):
    """Why a number may not be trusted, or what was looked at and gave no reason."""

    name: str
    status: Doubt
    detail: str
    blocks_pass: bool


class Tried(StrEnum):
    """What became of a retry."""

    DONE = "done"
    NOT_APPLICABLE = "not applicable"
    CUT = "cut"


class RetryPart(Part):
    """What was tried again after something looked suspicious, adapted to it."""

    name: str
    because: list[str]
    """The suspicious indicators that called for it."""
    detail: str
    """What it is; where it could not be tried, why."""
    status: Tried
    attempted: int
    """Rows that counted still when its turn came: that stood, or that a stochastic model answered rightly at times."""
    broken: int
    """Rows that count for it: that stood before, or that its inputs break more often than those found before."""


class AttackerPart(Part):
    """One attacker of the threat model, and how far they got."""

    name: str
    kind: str
    why: str
    """Why the attacker is realistic here, in the threat model's words."""
    goal: str
    impact: str | None
    """Of a success on the owner: low, medium, high or critical; None where the threat model does not say."""
    techniques: list[str]
    change: str | None
    knowledge: str | None
    status: str
    """assessed, or not built."""
    reason: str | None
    strength: str
    """Of the evidence: certified, adaptive, standard, heuristic or not tested."""
    counts: Counts | None
    attacks: list[AttackPart]
    by_class: list[ClassPart]
    curve: list[CurvePart]
    success_8bit: int | None
    diagnosis: list[Diagnosis]
    retries: list[RetryPart]
    defended: list[DefendedPart]
    """What is served beside the model without it; empty where nothing is served with the model."""
    transfers: TransferPart | None
    """How far inputs carry over within an ensemble; null for other models, and for who sees no gradients."""
    poisoning: PoisoningPart | None
    """Of an attacker who changes training rows, and null for others."""
    extraction: ExtractionPart | None
    """Of an attacker who copies the model, and null for others."""
    certified: CertifiedPart | None
    """Of an attacker against whom certified accuracy is required, and null for others."""

    @property
    def assessed(self) -> bool:
        """Whether anything was measured of this attacker."""
        of_models = self.poisoning or self.extraction
        return self.counts is not None or (of_models is not None and of_models.measured)


class RiskPart(Part):
    """What one attacker's success costs them and the owner; the first rank is the worst."""

    rank: int
    attacker: str
    impact: str | None
    success_rate: float
    """Rows broken of those answered right; of a poisoner, what the strongest reaches over victims: triggered or chosen
    rows answered as wanted, or accuracy lost; of an extractor, the strongest's fidelity or transfer."""
    median_queries: float | None
    """That a broken row took, over all attacks; None where nothing was broken. Of an extractor: answers that a copy
    took."""
    usd_per_success: float | None
    """What all queries cost for each row broken; None without a price."""


class CheckPart(Part):
    """One preflight check."""

    check: str
    level: str
    """What it does when it fires: refuse, switch or warn."""
    status: str
    """pass, or the level."""
    detail: str
    remedy: str


class PlanPart(Part):
    """One technique: chosen by an attacker, or not, and why. Each has one status."""

    attacker: str | None
    """Who uses it; None unless it is chosen."""
    attack: str
    status: str
    """chosen, not needed, skipped, not testable or not realistic."""
    reason: str
    techniques: list[str]
    queries: int | None
    """The most it can ask for one row."""
    forwards: int | None
    backwards: int | None
    usd: float | None
    """The most it can cost the attacker for one row, in US dollars; None without a price."""


class StandardPart(Part):
    """One item of a standard or a law, and what this report is evidence for."""

    id: str
    name: str
    text: str
    version: str
    date: str
    source: str
    attackers: list[str]
    """Those of the threat model whom it is about; empty where it is about the test itself."""
    strength: str
    """Of the weakest evidence among them: certified, adaptive, standard, heuristic or not tested."""
    shows: str | None
    """None where nothing was tested."""
    shows_not: str


class ErrorPart(Part):
    """Rows that could not be judged, by reason."""

    attacker: str
    reason: str
    rows: int
    first: str
    """The first such row's id."""


class CallsPart(Part):
    """What an endpoint was sent, by all sittings of the run: sent = answered + refused + failed + unknown."""

    sent: int
    answered: int
    refused: int
    """Not now (429, 503); asked again later."""
    failed: dict[str, int]
    """By reason; those that never left are not in `sent`."""
    unknown: list[str]
    """Ids of requests without an outcome, of a sitting that was killed: the endpoint may have answered them."""
    rows: int
    """Inputs in the requests that were sent."""
    replayed: int
    """Requests that the last sitting took from the ledger of one that was killed."""
    usd: float | None
    """What they cost, at the price of the attackers' queries."""
    notes: list[str]
    """What was recognized of the answers."""


class RunPart(Part):
    """The run and all its settings that decide a number."""

    id: str
    folder: str
    started: str
    seconds: float
    mode: str
    seed: int
    rows: int
    """Rows that were taken: with a gate, no more than it took to decide."""
    planned: int
    """Rows that the threat model asks for."""
    gate: bool
    """Whether rows were taken one after another until the requirements were decided: bounds hold at any such time."""
    confidence: float
    family: str
    reproducible: bool
    model_stochastic: bool


class Report(Part):
    """An assessment."""

    schema_version: Literal[1]
    verdict: Verdict
    exit_code: int
    reasons: list[str]
    system: str
    defenses: list[str]
    """What inputs meet before the model answers them, the outermost last; attacked as served."""
    detector: DetectorPart | None
    """What refuses inputs, and how often it refuses clean ones; null where everything is answered."""
    classes: list[str]
    requirements: list[RequirementPart]
    attackers: list[AttackerPart]
    risks: list[RiskPart]
    preflight: list[CheckPart]
    plan: list[PlanPart]
    standards: list[StandardPart]
    skipped: list[str]
    errors: list[ErrorPart]
    limits_hit: list[str]
    calls: CallsPart | None
    """Requests to an endpoint; null for a model that is here."""
    shows_not: list[str]
    """What this report does not show."""
    run: RunPart
    environment: dict[str, str]
    digests: dict[str, str | None]
    """sha256 of model, data, rows, threat_model, redan, evidence."""


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of `report.json`."""
    found = Report.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "redan report", **found}
