"""Randomized smoothing: linear models, whose smoothed class and radius are known in closed form; coverage; mutants."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import beta, binom, binomtest, norm
from torch import Tensor, nn

from redan.certification import smoothing, stopping
from redan.certification.smoothing import ABSTAINED, Smoothed, Smoothing, certify, predict
from redan.certification.stopping import largest_radius, robust_at
from redan.certification.verifier import SMOOTHING, Arithmetic, Certainty, Completeness, Insight
from redan.engine.intake import row_names
from redan.errors import DataError, NotCertifiableError, SettingError
from redan.evidence.statistics import interval, lower_bound
from redan.rows import Streams
from redan.samples import fashion_mnist
from redan.samples import model as sample
from redan.targets import Output, from_function

SIGMA = 0.5


class Certifier(Protocol):
    """A way to certify that is to hold at distance 0.3."""

    def __call__(self, model: nn.Module, x: Tensor, settings: Smoothing, *, workers: int = 1) -> Smoothed: ...


def at_radius(model: nn.Module, x: Tensor, settings: Smoothing, *, workers: int = 1) -> Smoothed:
    return robust_at(model, x, 0.3, settings, workers=workers)


def at_largest(model: nn.Module, x: Tensor, settings: Smoothing, *, workers: int = 1) -> Smoothed:
    return largest_radius(model, x, settings, tolerance=0.02, workers=workers)


CERTIFIERS: list[Certifier] = [certify, at_radius, at_largest]


def linear() -> nn.Module:
    """Class 0 to the right of the first coordinate's 1/2, at exactly that distance; class 2 never."""
    model = nn.Linear(2, 3)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]))
        model.bias.copy_(torch.tensor([-0.5, 0.5, -100.0]))
    return model.eval()


def rows(distance: float | Tensor, count: int) -> Tensor:
    """Rows of class 0 at this distance from the other class, told apart by what the model does not look at."""
    x = torch.empty(count, 2)
    x[:, 0], x[:, 1] = 0.5 + torch.as_tensor(distance), torch.linspace(0, 1, count)
    return x


# -- known answers ------------------------------------------------------------------------------------------------


def test_the_radius_approaches_the_distance_and_does_not_pass_it() -> None:
    distance = torch.linspace(0.05, 0.5, 10)
    found = certify(linear(), rows(distance, 10), Smoothing(sigma=SIGMA, draws=20_000))
    assert found.prediction.tolist() == [0] * 10
    assert (found.radius <= distance).all()
    assert (found.radius >= distance - 0.03).all()
    assert found.samples.tolist() == [20_100] * 10


def test_the_class_is_as_probable_as_in_closed_form() -> None:
    distance = torch.linspace(0.05, 0.5, 8)
    found = certify(linear(), rows(distance, 8), Smoothing(sigma=SIGMA, draws=5_000))
    for far, radius in zip(distance.tolist(), found.radius.tolist(), strict=True):
        share = norm.cdf(far / SIGMA)
        low, high = (_radius(int(binom.ppf(q, 5_000, share)), 5_000, 0.001) for q in (1e-5, 1 - 1e-5))
        assert low <= radius <= high


def _radius(k: NDArray[np.int64] | int, n: int, alpha: float) -> float:
    low = 0.0 if k == 0 else float(beta.ppf(alpha, k, n - k + 1))
    return max(0.0, SIGMA * float(norm.ppf(low)))


def _hits(x: Tensor, name: str, draws: int) -> NDArray[np.int64]:
    """How many draws fall on class 0, by the streams alone."""
    streams = Streams.start(0, row_names(x)).keyed(name)
    noise = torch.stack([streams.normal((2,)) for _ in range(draws)], 1)
    found: NDArray[np.int64] = ((x[:, None] + SIGMA * noise)[..., 0] > 0.5).sum(1).numpy()
    return found


def test_certify_is_the_published_algorithm() -> None:
    x = rows(torch.linspace(-0.3, 0.5, 9), 9)
    found = certify(linear(), x, Smoothing(sigma=SIGMA, selection=11, draws=400, alpha=0.01))
    chosen, hits = _hits(x, "selection", 11), _hits(x, "estimation", 400)
    for row in range(9):
        top = 0 if chosen[row] > 5 else 1
        k = int(hits[row] if top == 0 else 400 - hits[row])
        certain = beta.ppf(0.01, k, 401 - k) >= 0.5
        assert int(found.prediction[row]) == (top if certain else ABSTAINED)
        assert float(found.radius[row]) == pytest.approx(_radius(k, 400, 0.01) if certain else 0.0, abs=1e-12)


def test_predict_is_the_published_algorithm() -> None:
    x = rows(torch.linspace(-0.2, 0.2, 21), 21)
    found = predict(linear(), x, Smoothing(sigma=SIGMA, draws=200, alpha=0.01))
    for row, k in enumerate(_hits(x, "prediction", 200).tolist()):
        sure = binomtest(max(k, 200 - k), 200, 0.5).pvalue <= 0.01
        assert int(found[row]) == ((0 if k > 100 else 1) if sure else ABSTAINED)
    assert len(set(found.tolist())) == 3  # both classes, and rows that abstain


def test_a_row_on_the_border_abstains() -> None:
    x = rows(0.0, 20)
    quick = Smoothing(sigma=SIGMA, draws=1_000)
    assert certify(linear(), x, quick).abstained.all()
    assert robust_at(linear(), x, 0.0, quick).abstained.all()
    assert largest_radius(linear(), x, quick, tolerance=0.0).abstained.all()
    assert (certify(linear(), x, quick).radius == 0).all()


def test_the_radius_that_n_draws_can_give_is_the_published_one() -> None:
    sure = from_function(lambda x: np.zeros(len(x), dtype=np.int64), classes=2, output=Output.LABELS)
    for draws, most in ((100, 1.50), (1_000, 2.46)):
        found = certify(sure, rows(0.1, 1), Smoothing(sigma=1.0, draws=draws))
        assert float(found.radius[0]) == pytest.approx(most, abs=0.005)


# -- coverage, end to end -----------------------------------------------------------------------------------------


def false_certificates(certifier: Certifier) -> tuple[int, int]:
    """How many rows at distance 0.3 are certified for as much or more, and how many may be, up to a chance of 1e-3."""
    settings = Smoothing(sigma=SIGMA, selection=20, draws=400, alpha=0.05)
    found = certifier(linear(), rows(0.3, 800), settings)
    return int((found.radius >= 0.3).sum()), int(binom.isf(1e-3, 800, settings.alpha))


@pytest.mark.parametrize("certifier", CERTIFIERS)
def test_certificates_are_false_as_rarely_as_they_say(certifier: Certifier) -> None:
    false, allowed = false_certificates(certifier)
    assert false <= allowed


def test_coverage_tells_a_fixed_bound_that_is_peeked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def peeked(k: float, n: float, alpha: float, *, planned: int) -> float:
        return lower_bound(k, n, alpha)

    monkeypatch.setattr(stopping, "sequence_lower", peeked)
    monkeypatch.setattr(stopping, "_bounds", stopping._bounds.__wrapped__)
    false, allowed = false_certificates(at_largest)
    assert false > allowed


def test_coverage_tells_two_sides_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoothing, "lower_bound", lambda k, n, alpha: lower_bound(k, n, 2 * alpha))
    false, allowed = false_certificates(certify)
    assert false > allowed


# -- stopping early -------------------------------------------------------------------------------------------------


def test_stopping_early_certifies_the_same_rows_with_few_draws() -> None:
    x = rows(torch.linspace(0.0, 0.5, 40), 40)
    y = torch.zeros(40, dtype=torch.int64)
    wide = Smoothing(sigma=0.25, draws=10_000)
    fixed = certify(linear(), x, wide)
    for radius in (0.125, 0.25):
        early = robust_at(linear(), x, radius, wide)
        assert abs(early.accuracy(y, radius).k - fixed.accuracy(y, radius).k) <= 1
        assert early.samples.double().mean() < 2_500
        assert early.samples.max() <= 10_100
        assert set(early.radius.tolist()) == {0.0, radius}


def test_the_largest_radius_stops_where_little_is_left_to_gain() -> None:
    x = rows(torch.linspace(0.05, 0.45, 9), 9)
    wide = Smoothing(sigma=SIGMA, draws=10_000)
    fixed = certify(linear(), x, wide)
    loose, tight, all_of_it = (largest_radius(linear(), x, wide, tolerance=t) for t in (0.2, 0.1, 0.0))
    assert (loose.samples <= tight.samples).all()
    assert loose.samples.double().mean() < 2_000
    assert (loose.radius <= rows(0, 9)[:, 0].new_tensor(np.linspace(0.05, 0.45, 9))).all()
    assert (fixed.radius - all_of_it.radius < 0.01).all()
    assert all_of_it.samples.tolist() == [10_100] * 9
    assert (fixed.radius - loose.radius < 0.2).all()


def test_a_radius_out_of_reach_costs_the_selection_alone() -> None:
    found = robust_at(linear(), rows(0.4, 3), 10.0, Smoothing(sigma=SIGMA, draws=1_000))
    assert found.samples.tolist() == [100] * 3
    assert found.abstained.all()


# -- the same numbers whatever else is asked ------------------------------------------------------------------------


@pytest.mark.parametrize("certifier", CERTIFIERS)
def test_no_row_depends_on_others_nor_on_cores(certifier: Certifier) -> None:
    x = rows(torch.linspace(-0.3, 0.4, 40), 40)
    quick = Smoothing(sigma=SIGMA, draws=300)
    found = certifier(linear(), x, quick)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    turned = certifier(linear(), x[order], quick)
    alone = certifier(linear(), x[7:8], quick)
    pair = certifier(linear(), x, quick, workers=2)
    for part in ("prediction", "radius", "samples"):
        whole = getattr(found, part)
        assert torch.equal(whole[order], getattr(turned, part))
        assert torch.equal(whole[7:8], getattr(alone, part))
        assert torch.equal(whole, getattr(pair, part))


def test_another_seed_draws_other_noise() -> None:
    x, quick = rows(0.2, 20), Smoothing(sigma=SIGMA, draws=300)
    assert not torch.equal(certify(linear(), x, quick).radius, certify(linear(), x, quick, seed=1).radius)


def test_draws_come_in_the_same_order_however_many_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, quick = rows(torch.linspace(-0.3, 0.4, 10), 10), Smoothing(sigma=SIGMA, draws=300)
    found = certify(linear(), x, quick)
    monkeypatch.setattr("redan.certification.votes._TOGETHER", 1)
    assert torch.equal(certify(linear(), x, quick).radius, found.radius)


# -- what is said of it -----------------------------------------------------------------------------------------------


def test_certified_accuracy_has_an_exact_interval() -> None:
    found = Smoothed(
        prediction=torch.tensor([0, 1, ABSTAINED, 2]),
        radius=torch.tensor([0.5, 0.2, 0.0, 1.0], dtype=torch.float64),
        samples=torch.tensor([1, 1, 1, 1]),
        settings=Smoothing(sigma=SIGMA, alpha=0.01),
    )
    accuracy = found.accuracy([0, 1, 2, 0], 0.25)
    assert (accuracy.k, accuracy.n, accuracy.rate) == (1, 4, interval(1, 4))
    assert accuracy.robust == 0.0
    assert found.accuracy(torch.tensor([0, 1, 2, 2]), 0.2).k == 3
    assert found.accuracy([0, 1, 2, 2], 0.2).robust == pytest.approx((interval(3, 4).low - 0.01) / 0.99)
    with pytest.raises(DataError):
        found.accuracy([0, 1], 0.2)


def test_the_standard_s_words() -> None:
    found = certify(linear(), rows(0.1, 1), Smoothing(sigma=SIGMA, draws=10))
    assert found.verifier is SMOOTHING
    assert (SMOOTHING.completeness, SMOOTHING.certainty) == (Completeness.INCOMPLETE, Certainty.PROBABILISTIC)
    assert (SMOOTHING.insight, SMOOTHING.arithmetic) == (Insight.CLOSED_BOX, Arithmetic.REAL)


def test_draws_that_the_model_fails_on_count_against_a_row() -> None:
    def fails(x: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = np.stack([np.ones(len(x)), np.zeros(len(x))], 1)
        scores[x[:, 0] < 0.5] = np.nan
        return scores.astype(np.float32)

    quick = Smoothing(sigma=SIGMA, draws=500)
    found = certify(from_function(fails, classes=2, output=Output.LOGITS), rows(0.3, 5), quick)
    honest = certify(linear(), rows(0.3, 5), quick)
    assert found.radius.tolist() == honest.radius.tolist()


def test_no_rows_are_certified_at_once() -> None:
    found = robust_at(linear(), torch.zeros(0, 2), 0.1, Smoothing(sigma=SIGMA))
    assert (len(found.prediction), len(found.radius), len(found.samples)) == (0, 0, 0)
    assert len(predict(linear(), torch.zeros(0, 2), Smoothing(sigma=SIGMA))) == 0


def test_what_cannot_be_is_refused() -> None:
    value = from_function(lambda x: x.sum(1), output=Output.VALUE)
    with pytest.raises(NotCertifiableError):
        certify(value, rows(0.1, 2), Smoothing(sigma=SIGMA))
    for sigma, selection, draws, alpha in ((0.0, 1, 1, 0.1), (1.0, 0, 1, 0.1), (1.0, 1, 0, 0.1), (1.0, 1, 1, 0.0)):
        with pytest.raises(SettingError):
            Smoothing(sigma=sigma, selection=selection, draws=draws, alpha=alpha)
    with pytest.raises(SettingError):
        robust_at(linear(), rows(0.1, 2), -1.0, Smoothing(sigma=SIGMA))
    with pytest.raises(SettingError):
        largest_radius(linear(), rows(0.1, 2), Smoothing(sigma=SIGMA), tolerance=-1.0)


@pytest.mark.slow
def test_pictures_are_certified_alike_with_a_tenth_of_the_draws() -> None:
    images, labels = fashion_mnist("test")
    x, y, model = images[:60], labels[:60], sample("robust")
    wide = Smoothing(sigma=0.12, draws=5_000)
    fixed = certify(model, x, wide)
    assert fixed.accuracy(y, 0.06).k > 20
    for radius in (0.06, 0.12, 0.24):
        early = robust_at(model, x, radius, wide)
        assert abs(early.accuracy(y, radius).k - fixed.accuracy(y, radius).k) <= 1
        assert early.samples.double().mean() <= 0.15 * 5_000
