"""One model, some rows, one threshold: pass, fail or inconclusive in a sentence. What `assert_robust` rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from numpy.typing import ArrayLike
from torch import Tensor, nn

from redan.assessment.preflight import Finding, Level, Requirement, Scene, preflight, refuse
from redan.engine.intake import checked_rows
from redan.engine.outcomes import Account, Outcomes, Status
from redan.evidence.bootstrap import bootstrap_bounds
from redan.evidence.report import Verdict
from redan.evidence.sample_size import rows_to_decide
from redan.evidence.statistics import check_share, check_threshold, lower_bound, p_at_least, p_at_most, upper_bound
from redan.oracle import Limits
from redan.protocols import Access, Ball, settings
from redan.robustness import Mode, RobustAccuracy, robust_accuracy
from redan.targets import Target, TorchTarget, as_target

_DRAWS = 20  # fresh answers that judge a stochastic model's saved input
_GRADIENTS = ("gradients", "gradient-slopes")  # preflight checks that a pass against gradients cannot ignore


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What the rows show, why, and the score it rests on. low, high: one-sided bounds at the asked confidence."""

    verdict: Verdict
    reason: str
    score: RobustAccuracy
    low: float
    high: float

    @property
    def figures(self) -> dict[str, object]:
        """The figures by name, for whoever records them."""
        score = self.score
        return {
            "verdict": str(self.verdict),
            "robust_accuracy": score.value,
            "low": self.low,
            "high": self.high,
            "k": score.k,
            "n": score.n,
            "clean": score.clean,
            "errors": score.errors,
            "undecided": score.undecided,
        }


def ruled(
    model: nn.Module | Target[Tensor],
    data: tuple[ArrayLike | Tensor, ArrayLike | Tensor],
    *,
    within: Ball,
    at_least: float,
    confidence: float,
    mode: Mode | str,
    seed: int,
    limits: Limits | None,
    bounds: tuple[float, float] | None,
    knowledge: Access | None,
    ids: Sequence[object] | None,
    workers: int,
) -> Ruling:
    """Look at the set-up, attack, and judge. The arguments are those of `assert_robust`.

    Raises PreflightError, or another RedanError, where no number would mean anything.
    """
    check_threshold(at_least)
    check_share("confidence", confidence)
    target = as_target(model, bounds)
    x, y = checked_rows(*data, target)
    sight = target.access if knowledge is None else min(knowledge, target.access)
    findings = preflight(Scene(target, x, y, required=Requirement(at_least=at_least, confidence=confidence)))
    refuse(findings)
    if isinstance(target, TorchTarget) and any(f.fired and f.level is Level.SWITCH for f in findings):
        target = replace(target, stochastic=True)
    score = robust_accuracy(
        target, x, y, within=within, mode=mode, seed=seed, knowledge=sight, limits=limits, ids=ids, workers=workers
    )
    low, high = _bounds(score, 1 - confidence, target.stochastic)
    passed, failed = score.n > 0 and low >= at_least, high < at_least
    doubts = _doubts(findings, sight)
    if failed:
        verdict, what = Verdict.FAIL, f"shown to be below {at_least:g}: upper bound {high:.4f}"
        more = _worst(score.outcomes, ids)
    elif passed and not doubts:
        verdict, what, more = Verdict.PASS, f"shown to be at least {at_least:g}: lower bound {low:.4f}", ""
    elif passed:
        verdict, what = Verdict.INCONCLUSIVE, f"at least {at_least:g} by the counts, which cannot be trusted"
        more = "; ".join(doubts)
    else:
        verdict, what = Verdict.INCONCLUSIVE, f"not shown on either side of {at_least:g}: {low:.4f} to {high:.4f}"
        more = _more(score, at_least, 1 - confidence, target.stochastic)
    seen = _seen(score, settings(within), mode, confidence)
    reason = "; ".join(part for part in (f"robust accuracy is {what}", seen, more) if part)
    return Ruling(verdict=verdict, reason=reason, score=score, low=low, high=high)


def _bounds(score: RobustAccuracy, alpha: float, stochastic: bool) -> tuple[float, float]:
    """Lower and upper bound, each missed with probability alpha at most.

    Rows of which too little is known are no successes below, and successes above.
    """
    unknown = score.errors + score.undecided
    if not stochastic:
        return lower_bound(score.k, score.n, alpha), upper_bound(score.k + unknown, score.n, alpha)
    found = score.outcomes
    judged = (found.status == Status.ROBUST) | (found.status == Status.BROKEN)
    held = (1 - found.share[judged]).clamp(0, 1) * _DRAWS
    first, *between, last = held.round().long().bincount(minlength=_DRAWS + 1).tolist()
    low, _ = bootstrap_bounds((first + unknown, *between, last), alpha)
    _, high = bootstrap_bounds((first, *between, last + unknown), alpha)
    return low, high


def _doubts(findings: Sequence[Finding], sight: Access) -> list[str]:
    """Why a pass cannot be believed: attacks that climb gradients were blind."""
    if sight is not Access.GRADIENTS:
        return []
    return [f"{f.detail} ({f.remedy})" for f in findings if f.check in _GRADIENTS and f.fired]


def _seen(score: RobustAccuracy, within: str, mode: Mode | str, confidence: float) -> str:
    """The counts in words."""
    said = f"{score.k} of {score.n} rows are robust within {within}, {score.clean} right without an attack"
    if score.errors or score.undecided:
        said += f", {score.errors} errored and {score.undecided} stayed undecided, which never help"
    return f"{said} (mode {Mode(mode)}, {confidence:g} confidence)"


def _worst(found: Outcomes, ids: Sequence[object] | None) -> str:
    """The attack that broke most rows, and its first; or the first row that is wrong without any."""
    accounts: list[tuple[int, Account]] = list(enumerate(found.accounts))
    number, most = max(accounts, key=lambda each: each[1].broken)
    if not most.broken:
        return f"no attack broke a row, they are wrong without one, the first is row {_name(~found.right, found, ids)}"
    first = _name(found.by == number, found, ids)
    return f"{most.name} broke most, {most.broken} of {most.attempted} rows, the first is row {first}"


def _name(which: Tensor, found: Outcomes, ids: Sequence[object] | None) -> object:
    """The first of some rows: its id, or its position in the data."""
    at = int(found.index[which].min())
    return at if ids is None else ids[at]


def _more(score: RobustAccuracy, at_least: float, alpha: float, stochastic: bool) -> str:
    """What would decide."""
    above = score.value >= at_least
    k = score.k if above else score.k + score.errors + score.undecided
    rows = None
    if score.n and not stochastic and abs(k - at_least * score.n) > 0.5:
        test = p_at_least if above else p_at_most
        rows = rows_to_decide(lambda k, n: test(k, n, at_least), k, score.n, alpha, above=above)
    return "more rows would decide" + (f": about {rows} at this rate" if rows else "")
