"""Runs that look robust because their attacks failed: what raises a doubt, what is tried again, what is recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import redan
from redan.assessment.examinee import Examinee
from redan.assessment.indicators import INDICATORS, examine
from redan.assessment.indicators_attacks import Shown
from redan.assessment.indicators_gradients import shattered
from redan.assessment.retries import RETRIES
from redan.assessment.session import Stage
from redan.engine.block import Job
from redan.engine.intake import row_names
from redan.engine.outcomes import Status
from redan.engine.run import run
from redan.errors import BrokenOffError
from redan.evasion.pgd import PGD
from redan.evidence.folder import RunFolder
from redan.evidence.log import ExaminedLine, RetryLine, RowLine
from redan.evidence.report import AttackerPart, Doubt, Report, Tried, Verdict
from redan.evidence.summary import report_of
from redan.oracle import Limits, Purse
from redan.perturbations.norms import L2, Linf
from redan.protocols import Access, Attack
from redan.report.words import doubts, examined, retried
from redan.robustness import Mode, attacks_of
from redan.samples import fashion_mnist, model
from redan.targets import StraightThrough, from_torch
from redan.testing import VICTIMS, DoesNothing

Write = Callable[..., Path]
pytestmark = pytest.mark.examined
NAMES = (
    *("zero-gradients", "shattered-gradients", "stochastic-gradients", "eot-not-converged"),
    *("non-differentiable-stage", "one-step-beats-iteration", "loss-not-rising", "silent-success", "doubling-helps"),
    *("unbounded-does-not-break", "not-monotone", "black-box-beats-gradients", "random-beats-gradients"),
)


def first(report: Report) -> AttackerPart:
    return report.attackers[0]


def raised(report: Report) -> set[str]:
    return {doubt.name for doubt in doubts(first(report))}


def examinee(
    module: nn.Module, *, within: Any = None, rows: int = 48, stochastic: bool = False, eot: int = 1,
    attack: Attack[Any, Any] | None = None, limits: Limits | None = None,
) -> Examinee:  # fmt: skip
    """A module's rows as they look after an attack, the quick mode's if none is given."""
    x, y = (torch.from_numpy(found[:rows]) for found in fashion_mnist())
    within = within or Linf(0.1)
    job = Job(
        target=from_torch(module, stochastic=stochastic, classes=10),
        x=x,
        y=y,
        names=row_names(x, None),
        attacks=(("given", attack),) if attack else attacks_of(Mode.QUICK, within, Access.GRADIENTS, 10),
        within=within,
        eot=eot,
        contain=True,
    )
    found = run(job, workers=1)
    stood = (found.right & (found.status == Status.ROBUST)).nonzero().flatten()
    mixed = found.right.nonzero().flatten()
    return Examinee(job=job, mixed=mixed, standing=stood, worth=1 / rows, purse=Purse(limits or Limits()))


def suspicious(of: Examinee) -> set[str]:
    return {found.name for found in examine(of) if found.status is Doubt.SUSPICIOUS}


def masked(name: str) -> nn.Module:
    (victim,) = [each for each in VICTIMS if each.name == name]
    return victim.around(model("natural"))


def slowly(*values: object) -> Any:
    """One more case, for the tests of minutes."""
    return pytest.param(*values, marks=pytest.mark.slow)


# -- indicators -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["natural", *(slowly(name) for name in ("robust", "residual", "fast", "trades"))],
)
@pytest.mark.parametrize("within", [Linf(0.1), slowly(L2(1.5))], ids=["linf", "l2"])
def test_an_honest_model_raises_nothing(name: str, within: Any) -> None:
    of = examinee(model(name), within=within)
    found = examine(of)
    assert tuple(each.name for each in found) == NAMES
    assert [each for each in found if each.status is Doubt.SUSPICIOUS and each.name != "doubling-helps"] == []
    applicable = 10 if len(of.standing) else 7  # five ask rows that stand, one a model that draws
    assert len([each for each in found if each.status is Doubt.OK]) >= applicable


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        slowly("quantized", {"zero-gradients", "non-differentiable-stage", "unbounded-does-not-break"}),
        slowly("zeroed", {"zero-gradients", "non-differentiable-stage", "unbounded-does-not-break"}),
        slowly("jpeg", {"zero-gradients", "non-differentiable-stage"}),
        slowly("thermometer", {"zero-gradients", "non-differentiable-stage"}),
        ("rippled", {"shattered-gradients"}),
        slowly("louder", {"zero-gradients"}),
    ],
)
def test_a_planted_victim_raises_what_it_hides(name: str, expected: set[str]) -> None:
    assert expected <= suspicious(examinee(masked(name), rows=32))


def test_a_stand_in_is_not_held_to_the_slopes_of_answers_that_go_in_steps_but_must_not_turn() -> None:
    def steps(x: Tensor) -> Tensor:
        return (x * 7).round() / 7

    def turning(x: Tensor) -> Tensor:
        return torch.sin(3000 * x) / 3000

    for instead, doubt in ((None, Doubt.OK), (turning, Doubt.SUSPICIOUS)):
        net = nn.Sequential(StraightThrough(steps, instead), model("natural")).eval()
        found = shattered(examinee(net, rows=24, attack=PGD(steps=2)))
        assert found.status is doubt
        assert "a declared stand-in is not held to the slopes" in found.detail


@pytest.mark.slow
def test_a_model_that_draws_is_asked_for_means_that_agree() -> None:
    class Blurred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model("natural")
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.inner(x + 0.3 * torch.randn_like(x))
            return scores

    once = examinee(Blurred(), stochastic=True, rows=8)
    assert "stochastic-gradients" in suspicious(once)
    found = {each.name: each for each in examine(replace_eot(once, 12))}
    assert found["stochastic-gradients"].status is Doubt.OK
    assert "12 draws" in found["eot-not-converged"].detail


def replace_eot(of: Examinee, eot: int) -> Examinee:
    return Examinee(
        job=replace(of.job, eot=eot), mixed=of.mixed, standing=of.standing, worth=of.worth, purse=Purse(Limits())
    )


def test_an_attack_that_does_nothing_is_found_out() -> None:
    """The model is honest, the attack is not: rows break under every other one."""
    found = suspicious(examinee(model("natural"), attack=DoesNothing(redan.PGD())))
    assert {"doubling-helps", "black-box-beats-gradients", "random-beats-gradients", "not-monotone"} <= found
    assert "silent-success" in found
    assert not {"zero-gradients", "shattered-gradients"} & found


@pytest.mark.parametrize("workers", [1, 2])
def test_points_found_elsewhere_are_judged_for_their_own_rows(workers: int) -> None:
    of = examinee(model("natural"), rows=12)
    of.workers = workers
    x, y = of.job.x, of.job.y
    found = redan.attack(model("natural"), x, y, redan.PGD(steps=10), within=Linf(0.03), workers=1)
    right = model("natural")(x).argmax(1) == y
    rows = right.nonzero().flatten()
    assert 0 < int(found.success[rows].sum()) < len(rows)
    judged = of.broken(Shown(x[rows], found.adversarial[rows]), rows, name="judged")
    assert torch.equal(judged, found.success[rows])


def test_twice_the_effort_is_a_retry_where_it_helps() -> None:
    """What breaks the rows that made the indicator suspicious is tried on all that stand."""
    of = examinee(model("natural"), attack=DoesNothing(redan.PGD()), rows=24)
    (retry,) = [each for each in RETRIES if each.name == "more-effort"]
    assert retry.because(["doubling-helps", "zero-gradients"]) == ["doubling-helps"]
    adapted = retry.adapt(of.job, of.job.x, Mode.DEFAULT).job
    assert adapted is not None
    assert adapted.seed == of.job.seed + 1
    found = run(adapted, workers=1)
    assert int((found.status == Status.BROKEN).sum()) > 18


@pytest.mark.slow
def test_an_examination_is_the_same_each_time_and_pays() -> None:
    one, other = examinee(model("robust"), rows=6), examinee(model("robust"), rows=6)
    other.workers = 2
    assert examine(one) == examine(other)
    assert (one.forwards, one.backwards) == (other.forwards, other.backwards)
    assert one.forwards > one.backwards > 0
    with pytest.raises(BrokenOffError, match="limit"):
        examine(examinee(model("robust"), rows=6, limits=Limits(queries=250)))


def test_a_row_or_two_that_break_after_all_are_no_reason_for_doubt() -> None:
    of = examinee(model("natural"))
    of.worth = 1 / 1000
    assert not of.matters(1)
    assert not of.matters(10)
    assert of.matters(11)
    of.worth = 1 / 20
    assert not of.matters(1)
    assert of.matters(2)


# -- retries and the run --------------------------------------------------------------------------------


def test_every_indicator_calls_for_a_retry() -> None:
    called = {name for retry in RETRIES for name in retry.calls}
    assert set(NAMES) <= called
    assert len(INDICATORS) == len(NAMES)
    assert len({retry.name for retry in RETRIES}) == len(RETRIES)


ROUNDED = {"count": 16, "weak": 4, "requirements__0__at_least": 0.3}


@pytest.mark.slow
def test_a_masked_model_is_broken_by_the_retry_that_it_calls_for_and_that_is_told(shop: Write) -> None:
    report = redan.assess(shop("Rounded", **ROUNDED))
    part = first(report)
    assert report.verdict is not Verdict.PASS
    assert {"masked gradients", "zero-gradients", "non-differentiable-stage"} <= raised(report)
    (traced,) = [retry for retry in part.retries if retry.name == "retraced-gradients"]
    assert traced.status is Tried.DONE
    assert "zero-gradients" in traced.because
    assert part.strength == "heuristic"  # mode quick
    assert [a.name for a in part.attacks][1:] == [r.name for r in part.retries if r.status is not Tried.NOT_APPLICABLE]
    assert part.counts is not None
    assert part.counts.broken == sum(attack.broken for attack in part.attacks) >= 4
    assert report_of(RunFolder.open(report.run.folder)) == report
    assert redan_replay(report, shop("Rounded", **ROUNDED)) == ()
    said = "\n".join(retried(part))
    assert "retraced-gradients: broke " in said
    assert "rescaled-scores: not applicable" in said
    assert "BPDA" in said
    assert "give no reason to doubt" in (examined(part) or "")


def redan_replay(report: Report, path: Path) -> tuple[str, ...]:
    from redan.assessment.replay import replay

    return replay(report.run.folder, path).differences


def test_an_honest_run_says_what_was_looked_at_and_passes(shop: Write) -> None:
    report = redan.assess(shop(weak=0))
    part = first(report)
    assert report.verdict is Verdict.PASS
    assert [d.name for d in part.diagnosis] == list(NAMES)
    assert part.retries == []
    assert not any(d.blocks_pass for d in part.diagnosis)


def test_nothing_is_examined_where_all_is_failed_or_no_gradient_is_climbed(shop: Write) -> None:
    failed = redan.assess(shop(weak=32))
    scores = redan.assess(shop(attackers__0__knowledge="scores", attackers__0__capability={"queries_per_row": 30}))
    assert first(failed).diagnosis == first(scores).diagnosis == []
    assert failed.verdict is Verdict.FAIL


@pytest.mark.slow
def test_a_run_that_our_limits_end_before_it_is_examined_does_not_pass(shop: Write, tmp_path: Path) -> None:
    path = shop(weak=0)
    whole = redan.assess(path)
    attacks = sum(attack.queries for attack in first(whole).attacks)
    cut = redan.assess(path, limits=redan.oracle.Limits(queries=attacks + 50))
    assert cut.limits_hit == ["queries"]
    assert "not examined" in raised(cut)
    assert cut.verdict is Verdict.INCONCLUSIVE
    again = redan.assess(path, resume=cut.run.folder, limits=redan.oracle.Limits(queries=10**7))
    assert again.verdict is Verdict.PASS
    assert again.digests["evidence"] == whole.digests["evidence"]


@pytest.mark.slow
def test_a_run_broken_off_while_it_is_tried_again_goes_on_where_it_was(shop: Write, tmp_path: Path) -> None:
    path = shop("Rounded", **ROUNDED)
    whole = redan.assess(path, workers=1)

    for stop in ("examined", "retraced-gradients", "black-box"):
        out = tmp_path / stop

        def watch(stage: Stage, stop: str = stop) -> None:
            if stage.doing == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            redan.assess(path, workers=1, watch=watch, out=out)
        (run_folder,) = out.iterdir()
        again = redan.assess(path, resume=run_folder, workers=1)
        assert again.digests["evidence"] == whole.digests["evidence"], stop
        assert again.attackers == [
            part.model_copy(update={"attacks": again_attacks(part, again)}) for part in whole.attackers
        ]
        lines = list(RunFolder.open(str(run_folder)).lines())
        assert len([line for line in lines if isinstance(line, ExaminedLine)]) == 1
        rows = [(line.row, line.retry) for line in lines if isinstance(line, RowLine)]
        assert len(rows) == len(set(rows))
        assert any(isinstance(line, RetryLine) for line in lines)


def again_attacks(part: AttackerPart, again: Report) -> list[Any]:
    """The attacks as they were, with the seconds of another run."""
    seconds = {attack.name: attack.seconds for attack in first(again).attacks}
    return [attack.model_copy(update={"seconds": seconds[attack.name]}) for attack in part.attacks]
