"""Feature squeezing: its numbers, its rate of false alarms, what it finds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from redan.engine.run import attack
from redan.errors import DataError, SettingError
from redan.evasion.pgd import PGD
from redan.perturbations.norms import Linf
from redan.preprocessing.bit_depth import BitDepth
from redan.preprocessing.feature_squeezing import FeatureSqueezing, color_squeezers, grey_squeezers
from redan.referee import Worst
from redan.samples import fashion_mnist, model
from redan.targets import from_torch

IMAGES, LABELS = (torch.from_numpy(rows) for rows in fashion_mnist())


def squeezing() -> FeatureSqueezing:
    return FeatureSqueezing(target=from_torch(model("natural")), squeezers=grey_squeezers())


def test_a_number_is_the_largest_distance_of_probabilities() -> None:
    net, x = model("natural"), IMAGES[:9]
    with torch.no_grad():
        before = net(x).softmax(1)
        apart = [(before - net(stage(x)).softmax(1)).abs().sum(1) for stage in grey_squeezers()]
        found = squeezing().scores(x)
        assert torch.equal(found, torch.maximum(*apart))
        assert bool(((found >= 0) & (found <= 2)).all())
    assert squeezing().scores(x[:0]).shape == (0,)


def test_a_number_can_be_climbed_down() -> None:
    detector = FeatureSqueezing(target=from_torch(model("natural")), squeezers=(BitDepth(bits=1),))
    x = IMAGES[:32].clone().requires_grad_()
    before = detector.scores(x)
    (slope,) = torch.autograd.grad(before.sum(), x)
    with torch.no_grad():
        after = detector.scores((x - 0.01 * slope.sign()).clamp(0, 1))
    # with 1 bit the squeezed answer hardly moves, and the plain one is led toward it
    assert float(after.mean()) < 0.9 * float(before.detach().mean())


@pytest.mark.parametrize(("rows", "rate", "at"), [(19, 0.05, 19), (39, 0.05, 38), (99, 0.1, 90), (9, 0.5, 5)])
def test_the_threshold_is_the_conformal_quantile(rows: int, rate: float, at: int) -> None:
    detector = squeezing()
    numbers = detector._numbers(IMAGES[:rows]).sort().values
    found = detector.calibrated(IMAGES[:rows], rate=rate)
    assert found.threshold == float(numbers[at - 1])
    assert found.rate == rate
    assert int(found.flagged(IMAGES[:rows]).sum()) == rows - at


def test_clean_rows_are_rarely_flagged() -> None:
    detector = squeezing().calibrated(IMAGES[:500], rate=0.1)
    assert 0.04 <= float(detector.flagged(IMAGES[500:]).float().mean()) <= 0.16
    assert not bool(squeezing().flagged(IMAGES[:50]).any())  # nothing is, before it is calibrated


def test_what_a_climb_found_is_flagged_where_bits_are_cut() -> None:
    target = from_torch(model("natural"))
    detector = FeatureSqueezing(target=target, squeezers=(BitDepth(bits=3),)).calibrated(IMAGES[:500], rate=0.05)
    found = attack(target, IMAGES[500:564], LABELS[500:564], PGD(steps=20), within=Linf(0.03), keep=Worst())
    with torch.no_grad():
        broken = target(found.adversarial).argmax(1) != LABELS[500:564]
    assert int(broken.sum()) > 20
    assert float(detector.flagged(found.adversarial[broken]).float().mean()) > 0.7
    assert float(detector.flagged(IMAGES[500:564]).float().mean()) < 0.15


def test_too_few_rows_and_strange_rates_are_refused() -> None:
    with pytest.raises(DataError, match=r"18 clean rows say nothing .* give 19 or more"):
        squeezing().calibrated(IMAGES[:18])
    for rate in (0, 1):
        with pytest.raises(SettingError, match="must be between 0 and 1"):
            squeezing().calibrated(IMAGES[:50], rate=rate)
    with pytest.raises(SettingError, match="there is no squeezer"):
        FeatureSqueezing(target=from_torch(nn.Flatten().eval()), squeezers=())


def test_the_papers_squeezers() -> None:
    assert [type(each).__name__ for each in grey_squeezers()] == ["BitDepth", "Median"]
    assert [type(each).__name__ for each in color_squeezers()] == ["BitDepth", "Median", "NonLocalMeans"]
