"""What a detector is worth: toys whose worth is known, mutants, and the shipped network."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.rejection.toys import EPSILON, ROWS, blind_to_both, clean_rows, sees_all, to_the_right

from redan.errors import SettingError
from redan.evasion.apgd import APGD
from redan.evasion.cascade import Sweep
from redan.evasion.orthogonal_pgd import BalancedPGD, OrthogonalPGD
from redan.evasion.pgd import PGD
from redan.evidence.gain import Gain
from redan.evidence.statistics import interval
from redan.goals import Deviate, Targeted
from redan.losses import margin
from redan.perturbations.norms import Linf
from redan.preprocessing.bit_depth import BitDepth
from redan.preprocessing.feature_squeezing import FeatureSqueezing
from redan.protocols import Attack
from redan.rejection.detector import Scored
from redan.rejection.features import Features
from redan.rejection.joint import Lagrangian
from redan.rejection.mahalanobis import mahalanobis
from redan.rejection.refusing import Refusing, refusing
from redan.rejection.worth import Worth, worth
from redan.samples import fashion_mnist, model
from redan.targets import from_torch
from redan.testing import DoesNothing, FlippedSign

NAIVE = PGD(steps=20, random_start=False)
JOINT: tuple[Attack[Any, Any], ...] = (OrthogonalPGD(steps=40), Lagrangian(attack=PGD(steps=20, loss=margin)))


def measured(
    served: Refusing, rows: int = ROWS, joint: tuple[Attack[Any, Any], ...] = JOINT, epsilon: float = EPSILON
) -> Worth:
    return worth(served, *clean_rows(rows), within=Linf(epsilon), naive=[NAIVE], joint=joint)


def test_a_gain_that_the_joint_attack_takes_away_is_no_gain() -> None:
    found = measured(blind_to_both())
    assert (found.clean_bare.k, found.clean.k, found.refused.k) == (ROWS, ROWS, 0)
    assert (found.bare.k, found.naive.k, found.joint.k) == (0, ROWS, 0)
    assert found.joint.interval == interval(0, ROWS)
    assert (found.verdict, found.undecided) == (Gain.NO_GAIN, 0)


def test_a_gain_that_stays_is_a_gain() -> None:
    found = measured(sees_all())
    assert (found.bare.k, found.naive.k, found.joint.k) == (0, ROWS, ROWS)
    assert found.verdict is Gain.GAIN
    assert (found.compared.won, found.compared.lost) == (ROWS, 0)


def test_few_rows_show_nothing() -> None:
    assert measured(blind_to_both(), rows=10).verdict is Gain.NOT_SHOWN
    assert measured(sees_all(), rows=3).verdict is Gain.NOT_SHOWN


def test_refusing_all_is_no_gain_and_its_price_is_seen() -> None:
    """The threshold on the wrong side, too: what should be accepted is refused."""
    turned = Scored(score=lambda x: -to_the_right(x))
    for served in (replace(sees_all(), threshold=-math.inf), replace(sees_all(), detector=turned, threshold=-0.45)):
        found = measured(served)
        assert (found.clean.k, found.refused.k, found.naive.k, found.joint.k) == (0, ROWS, 0, 0)
        assert found.verdict is Gain.NO_GAIN


def test_never_refusing_changes_nothing() -> None:
    found = measured(replace(sees_all(), threshold=math.inf), epsilon=0.1)
    assert found.bare == found.naive == found.joint
    assert 0 < found.bare.k < ROWS
    assert found.verdict is Gain.NO_GAIN


def test_a_joint_attack_that_does_not_work_would_show_a_gain() -> None:
    """Why more than one joint attack is run; and what the naive one finds counts besides."""
    for mutant in (DoesNothing(JOINT[0]), FlippedSign(JOINT[0]), Lagrangian(attack=NAIVE, weights=(-3.0,))):
        assert measured(blind_to_both(), joint=(mutant,)).verdict is Gain.GAIN
    # what the naive attack finds counts against the joint one's rows
    idle = measured(replace(blind_to_both(), threshold=math.inf), joint=(DoesNothing(JOINT[0]),))
    assert (idle.naive.k, idle.joint.k) == (0, 0)


def test_rows_that_fail_speak_against_the_verdict() -> None:
    """The detector has no answer on the first 60 rows once they are moved."""
    x, _ = clean_rows()
    line = float(x[60, 0])

    def half(rows: torch.Tensor) -> torch.Tensor:
        moved = (rows[:, 0] != rows[:, 1]) & (rows[:, 0] - EPSILON < line)
        return torch.where(moved, torch.nan, to_the_right(rows))

    found = measured(replace(sees_all(), detector=Scored(score=half)), rows=ROWS)
    assert found.undecided >= 60
    assert found.joint.k <= 40
    nothing = measured(replace(blind_to_both(), detector=Scored(score=half), threshold=9.0))
    assert nothing.undecided >= 60
    assert nothing.verdict is Gain.NOT_SHOWN


def test_what_is_wanted_may_be_one_class() -> None:
    found = worth(
        blind_to_both(), *clean_rows(), within=Linf(EPSILON), naive=[NAIVE], joint=JOINT, aim=Targeted(1), workers=1
    )
    assert (found.bare.k, found.naive.k, found.joint.k) == (0, ROWS, 0)


def test_what_cannot_be_is_refused() -> None:
    x, y = clean_rows(4)
    for naive, joint, aim in (([], JOINT, None), ([NAIVE], (), None), ([NAIVE], JOINT, Deviate(0.1))):
        with pytest.raises(SettingError, match="needs naive and joint attacks and a goal about classes"):
            worth(blind_to_both(), x, y, within=Linf(EPSILON), naive=naive, joint=joint, aim=aim)


@pytest.mark.slow
def test_the_shipped_network_gains_nothing() -> None:
    """Mahalanobis on penultimate features sees some of what the naive attack found, and none of the joint one's.

    Two rows hold until the attack tries each wrong class: the nearest one lies where inputs are refused.
    """
    (x, y), (seen, labels) = (tuple(map(torch.from_numpy, fashion_mnist(split))) for split in ("test", "train"))
    target = from_torch(model("natural"), classes=10)
    detector = mahalanobis(Features(target=target), seen[:1000], labels[:1000])
    served = refusing(target, detector, x[:200], false_positive_rate=0.1)
    joint = (APGD(steps=20, loss=margin), Sweep(BalancedPGD(steps=40)))
    found = worth(served, x[200:216], y[200:216], within=Linf(0.1), naive=[APGD(steps=40)], joint=joint)
    assert found.bare.k == 0
    assert found.naive.k > found.joint.k
    assert found.joint.k == 0
    assert found.verdict is not Gain.GAIN
    assert found.false_positive_rate == 0.1


class Shaky(torch.nn.Module):
    """A model whose scores are drawn anew each time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = 10 * (x[:, 0] - 0.5)
        return torch.stack([-half, half], 1) + 0.05 * torch.randn(len(x), 2)


def test_a_stochastic_model_is_judged_on_fresh_draws() -> None:
    target = from_torch(Shaky().eval(), classes=2, stochastic=True)
    served = replace(blind_to_both(), target=target)
    x, y = clean_rows(24)
    joint = (OrthogonalPGD(steps=20), BalancedPGD(steps=20))
    found, again = (worth(served, x, y, within=Linf(0.2), naive=[NAIVE], joint=joint, eot=2) for _ in range(2))
    assert (found.clean.k, found.bare.k, found.joint.k) == (24, 0, 0)
    assert found == again
    held = worth(replace(sees_all(), target=target), x, y, within=Linf(0.2), naive=[NAIVE], joint=joint, eot=2)
    assert (held.bare.k, held.joint.k, held.verdict) == (0, 24, Gain.GAIN)
    with pytest.raises(SettingError, match="declared deterministic"):
        worth(sees_all(), x, y, within=Linf(0.2), naive=[NAIVE], joint=joint, eot=2)


def test_any_score_is_a_detector() -> None:
    """Feature squeezing's, with the stand-in for its rounding: seen by a naive attack, climbed by a joint one."""
    x, y = map(torch.from_numpy, fashion_mnist())
    target = from_torch(model("natural"), classes=10)
    squeezing = FeatureSqueezing(target=target, squeezers=(BitDepth(bits=3),))
    served = refusing(target, Scored(score=squeezing.scores, surrogate=True), x[:200], false_positive_rate=0.1)
    assert served.surrogate
    joint = (APGD(steps=40, loss=margin), BalancedPGD(steps=40))
    found = worth(served, x[200:216], y[200:216], within=Linf(0.1), naive=[APGD(steps=20)], joint=joint)
    assert found.naive.k >= 8
    assert found.joint.k <= 3
    assert found.verdict is not Gain.GAIN
