"""Defenses of the registry: each is documented and cited, builds, keeps to the box and repeats itself by seed."""

from __future__ import annotations

import inspect
import re
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import TypeAdapter
from torch import Tensor, nn

from redan.assessment.recipes import Method, recipe
from redan.engine.run import attack
from redan.ensembles.combine import Combine
from redan.ensembles.members import Members
from redan.errors import NotCertifiableError, RedanError, SettingError, TargetError
from redan.evasion.pgd import PGD
from redan.formats.forest import Comparison, Forest, Precision, scores
from redan.hardening.objectives import Batch, is_armed
from redan.hardening.step import adversarial_step, streams
from redan.perturbations.norms import L2, Linf
from redan.preprocessing.catalog import TRANSFORMATIONS as NAMED
from redan.preprocessing.catalog import transformation_of
from redan.protocols import settings
from redan.registry.defense_makers import Claim, Fitted, Proves
from redan.registry.defenses import (
    CERTIFICATES,
    DEFENSES,
    ENSEMBLES,
    REFUSALS,
    TRAININGS,
    TRANSFORMATIONS,
    DefenseEntry,
    Kind,
    Retest,
    defense,
)
from redan.rejection.refusing import refusing
from redan.targets import Target, TorchTarget, from_function, from_torch
from redan.threat.detectors import Detector, detector_words
from redan.threat.model import Ensemble, Model
from redan.threat.papers import arxiv_id, bibtex

Each = DefenseEntry[Any]
SHAPE = (1, 8, 8)


def over(entries: tuple[DefenseEntry[Any], ...]) -> pytest.MarkDecorator:
    """A test of each entry; the codec of JPEG is an extra."""
    codec = [pytest.mark.extras if each.name == "jpeg" else () for each in entries]
    return pytest.mark.parametrize(
        "each", [pytest.param(each, id=each.name, marks=marks) for each, marks in zip(entries, codec, strict=True)]
    )


def network(classes: int = 4, seed: int = 0, *, members: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if members:
            return Members([network(classes, seed + each) for each in range(members)]).eval()
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, classes)).eval()


def target(classes: int = 4, seed: int = 0) -> TorchTarget:
    found = from_torch(network(classes, seed), bounds=(0, 1), classes=classes)
    assert isinstance(found, TorchTarget)
    return found


def rows(count: int, classes: int = 4, shape: tuple[int, ...] = SHAPE) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.rand(count, *shape, generator=draw), torch.arange(count) % classes


# -- what every entry says -----------------------------------------------------------------------------------


def test_names_are_unique() -> None:
    assert len({each.name for each in DEFENSES}) == len(DEFENSES)
    assert {each.kind for each in DEFENSES} == set(Kind)


@over(DEFENSES)
def test_an_entry_is_complete(each: Each) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", each.name)
    assert each.paper == "a baseline" or re.fullmatch(r"(de )?\w+ \d{4}(, arXiv:\d{4}\.\d{4,5})?", each.paper)
    assert each.retests
    assert each.techniques
    assert all(re.fullmatch(r"AML\.M\d{4}", id) for id in each.techniques)
    assert (each.verifier is None) == (each.kind is not Kind.CERTIFICATE)
    assert defense(each.name) is each


@over(tuple(each for each in DEFENSES if each.kind is not Kind.CERTIFICATE))
def test_what_hides_its_gradient_is_attacked_by_a_stand_in_and_what_is_random_over_draws(each: Each) -> None:
    assert (Retest.BPDA in each.retests) == (not each.differentiable)
    assert (Retest.EOT in each.retests) == each.stochastic
    assert (Retest.JOINT in each.retests) == (each.kind is Kind.DETECTOR)


@over(tuple(each for each in DEFENSES if arxiv_id(each.paper)))
def test_a_paper_is_in_the_bibliography(each: Each) -> None:
    entry = bibtex([each.paper])
    assert f"eprint = {{{arxiv_id(each.paper)}}}" in entry
    assert each.paper.split(", arXiv")[0].rpartition(" ")[0].rpartition(" ")[2] in entry
    assert re.findall(r"\d{4}", each.paper)[0] in entry


def made(each: Each) -> Any:
    """What an entry makes, or what its certificates are made by."""
    clean, y = rows(12)
    match each.kind:
        case Kind.TRAINING:
            return each.make(Linf(0.1))
        case Kind.PREPROCESSING:
            return each.make()
        case Kind.DETECTOR:
            return each.make(Fitted(target=target(), x=clean, y=y))
        case Kind.ENSEMBLE:
            return each.make([target(), target(seed=1)])
        case Kind.CERTIFICATE:
            return each.make


@over(tuple(each for each in DEFENSES if each.paper != "a baseline"))
def test_an_entry_s_value_is_documented_and_cites_its_paper(each: Each) -> None:
    where = {
        "interval-bounds": "redan.certification.steps",
        "crown": "redan.certification.steps",
        "smallest-change": "redan.certification.trees",
        "smoothing": "redan.certification.smoothing",
        "patch-cleanser": "redan.certification.patch_cleanser",
        "feature-squeezing": "redan.preprocessing.feature_squeezing",
        "adp": "redan.ensembles.adp",
        "ibp": "redan.certification.certified_training",
        "crown-ibp": "redan.certification.certified_training",
        "fgsm-rs": "redan.hardening.inner",
        "n-fgsm": "redan.hardening.inner",
    }
    module = where.get(each.name) or type(made(each)).__module__
    text = inspect.getsource(sys.modules[module])
    assert inspect.getdoc(sys.modules[module])
    assert (arxiv_id(each.paper) or re.findall(r"\d{4}", each.paper)[0]) in text
    assert each.paper.split(",")[0].rpartition(" ")[0].rpartition(" ")[2] in text


def test_names_are_those_of_the_command_line_and_the_threat_model() -> None:
    trained = {each.name for each in TRAININGS if each.used.startswith("redan harden")}
    assert trained == {str(method) for method in Method}
    for method in Method:
        assert settings(recipe(method, Linf(0.1)).objective) == settings(defense(str(method)).make(Linf(0.1)))
    assert {each.name for each in TRANSFORMATIONS} == {each.name for each in NAMED}
    for named in NAMED:
        cited = re.search(r"arXiv:[\d.]+", named.paper)
        assert cited is None or cited.group() in defense(named.name).paper
        assert named.stochastic == defense(named.name).stochastic


@over((*TRANSFORMATIONS, *REFUSALS, *ENSEMBLES))
def test_what_is_chosen_in_a_threat_model_is_what_is_made(each: Each) -> None:
    key, _, said = each.used.partition(": ")
    written = yaml.safe_load(said.replace("…", "{torchscript: a.pt}, {torchscript: b.pt}"))
    match each.kind:
        case Kind.PREPROCESSING:
            assert key == "system.defenses"
            ((name, found),) = written[0].items()
            assert transformation_of(name, found) == each.make()
        case Kind.DETECTOR:
            assert key == "system.detector"
            read = TypeAdapter[Detector](Detector).validate_python(written)
            assert detector_words(read).startswith(each.name)
        case _:
            assert key == "system.model"
            model = TypeAdapter[Model](Model).validate_python(written)
            assert isinstance(model, Ensemble)
            assert each.make([target(), target()]).combine is Combine[model.ensemble.combine.name]


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(SettingError, match="no defense named 'moat'; redan knows fgsm-at"):
        defense("moat")


# -- training ------------------------------------------------------------------------------------------------


@over(TRAININGS)
@pytest.mark.parametrize(("count", "classes"), [(6, 4), (1, 4), (6, 2)])
def test_a_training_s_loss_has_a_gradient_and_repeats_itself_by_seed(each: Each, count: int, classes: int) -> None:
    x, y = rows(count, classes)
    diverse = each.name == "adp"
    losses = []
    for seed in (3, 3, 4):
        model = network(classes, members=min(2, classes - 1) if diverse else 0)  # as many as classes to differ on
        weights = list(model.parameters())
        before = [p.detach().clone() for p in weights]
        loss = adversarial_step(model.train(), x, y, each.make(Linf(0.1)), step=0, seed=seed, done=0.7)
        assert all(bool(slope.isfinite().all()) for slope in torch.autograd.grad(loss, weights))
        assert all(torch.equal(p, was) for p, was in zip(weights, before, strict=True))
        losses.append(loss.item())
    assert losses[0] == losses[1]
    random = each.name in ("fgsm-rs", "n-fgsm", "pgd-at", "trades", "awp", "noise", "smoothadv")
    if count > 1:  # a single row may climb to the same corner from anywhere
        assert (losses[0] != losses[2]) == random


@over(TRAININGS)
@pytest.mark.parametrize("within", [Linf(0.1), L2(0.5)], ids=["linf", "l2"])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_training_s_attack_keeps_to_the_box_and_the_set(each: Each, within: Linf | L2, count: int) -> None:
    try:
        objective = each.make(within)
    except SettingError:
        assert each.name in ("ibp", "crown-ibp")
        assert isinstance(within, L2)
        return
    if not is_armed(objective):
        assert each.name in ("ibp", "crown-ibp", "noise", "adp")
        return
    x, y = rows(count)
    moved = objective.attacked(network(), Batch(x, y, streams(0, 0, x), done=1.0))
    assert moved.shape == x.shape
    assert bool(((moved >= 0) & (moved <= 1)).all())
    if each.name != "n-fgsm":  # up to three radii, as its authors have it
        assert bool(within.contains(moved, x).all())


def test_training_for_diversity_needs_members_and_classes_to_differ_on() -> None:
    x, y = rows(4, 2)
    with pytest.raises(TargetError, match=r"give redan\.ensembles\.Members"):
        adversarial_step(network(), x, y, defense("adp").make(Linf(0.1)), step=0)
    with pytest.raises(SettingError):
        adversarial_step(network(2, members=2), x, y, defense("adp").make(Linf(0.1)), step=0)


# -- what is served ------------------------------------------------------------------------------------------


@over(TRANSFORMATIONS)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_transformation_keeps_to_its_shape_and_repeats_itself_by_seed(each: Each, count: int) -> None:
    transformation = each.make()
    assert transformation.stochastic == each.stochastic
    assert transformation.differentiable == each.differentiable
    x, _ = rows(count, shape=(1, 12, 12))
    found = []
    for seed in (3, 3):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            found.append(transformation(x))
    assert torch.equal(*found)
    assert found[0].shape == (count, *transformation.shape((1, 12, 12)))
    assert bool(((found[0] >= 0) & (found[0] <= 1)).all())
    assert transformation == each.make()


def refuses(each: Each, classes: int = 4) -> Target[Tensor]:
    model = target(classes)
    x, _ = rows(60, classes)
    y = model(x).argmax(1)  # classes that features know
    detector = each.make(Fitted(target=model, x=x[:40], y=y[:40]))
    return refusing(model, detector, x[40:], false_positive_rate=0.1)


@over(REFUSALS)
@pytest.mark.parametrize("classes", [4, 2])
def test_a_detector_refuses_by_one_more_answer(each: Each, classes: int) -> None:
    served = refuses(each, classes)
    assert served.surrogate == (not each.differentiable)
    assert served.stochastic == each.stochastic
    x, _ = rows(5, classes)
    for count in (0, 1, 5):
        with torch.no_grad():
            assert served(x[:count]).shape == (count, classes + 1)
    with torch.no_grad():
        assert torch.equal(served(x), refuses(each, classes)(x))


def joins(each: Each, classes: int = 4) -> Target[Tensor]:
    found: Target[Tensor] = each.make([target(classes), target(classes, seed=1), target(classes, seed=2)])
    return found


@over(ENSEMBLES)
@pytest.mark.parametrize("classes", [4, 2])
def test_an_ensemble_answers_as_one_model(each: Each, classes: int) -> None:
    served = joins(each, classes)
    assert served.surrogate == (not each.differentiable)
    x, _ = rows(5, classes)
    for count in (0, 1, 5):
        with torch.no_grad():
            assert served(x[:count]).shape == (count, classes)
    with torch.no_grad():
        assert torch.equal(served(x), joins(each, classes)(x))


@over((*REFUSALS, *ENSEMBLES))
def test_what_is_served_is_attacked_within_the_box_and_again_alike(each: Each) -> None:
    served = refuses(each) if each.kind is Kind.DETECTOR else joins(each)
    x, _ = rows(4)
    with torch.no_grad():
        y = served(x).argmax(1).clamp(max=3)
    one, again = (attack(served, x, y, PGD(steps=3), within=Linf(0.05), seed=2, workers=1) for _ in range(2))
    assert torch.equal(one.adversarial, again.adversarial)
    assert bool(((one.adversarial >= 0) & (one.adversarial <= 1)).all())


# -- certificates --------------------------------------------------------------------------------------------


def stump() -> Forest:
    """Class 1 where the first of 64 numbers is below 0.5."""
    return Forest(
        feature=np.array([0, 0, 0]),
        threshold=np.array([0.5, 0, 0]),
        left=np.array([1, -1, -1]),
        right=np.array([2, -1, -1]),
        value=np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]),
        roots=np.array([0]),
        base=np.zeros(2),
        inputs=64,
        comparison=Comparison.LESS,
        precision=Precision.DOUBLE,
        sums=Precision.DOUBLE,
    )


def claimed(each: DefenseEntry[Proves], count: int, within: Linf | L2, classes: int = 4) -> tuple[Claim, Tensor]:
    """A claim about rows of which some are answered wrong, and which are right."""
    if each.name == "smallest-change":
        forest = stump()
        asked: Target[Tensor] = from_function(partial(scores, forest), classes=2, dtype=torch.float64)
        x, y = rows(count, 2, (64,))
        x = x.double()
    else:
        forest, asked = None, target(classes)
        x, y = rows(count, classes)
    with torch.no_grad():
        answers = asked(x).argmax(1) if count else y
    y = torch.where(torch.arange(count) % 3 == 2, (answers + 1) % (asked.classes or 2), answers)
    return Claim(target=asked, x=x, y=y, within=within, forest=forest), answers == y


SETS: dict[str, Linf | L2] = {"smoothing": L2(0.02), "patch-cleanser": Linf(1.0)}


@over(CERTIFICATES)
@pytest.mark.parametrize(("count", "classes"), [(9, 4), (1, 4), (0, 4), (6, 2)])
def test_a_certificate_is_of_right_rows_and_the_same_again(each: Each, count: int, classes: int) -> None:
    claim, right = claimed(each, count, SETS.get(each.name, Linf(0.002)), classes)
    found, again = each.make(claim), each.make(claim)
    assert found.shape == (count,)
    assert found.dtype == torch.bool
    assert torch.equal(found, again)
    assert not bool((found & ~right).any())
    assert bool(found.any()) == (count > 0)


@over(tuple(each for each in CERTIFICATES if each.name in ("interval-bounds", "crown")))
def test_no_attack_breaks_a_certified_row(each: Each) -> None:
    claim, _ = claimed(each, 20, Linf(0.01))
    found = each.make(claim)
    assert 0 < int(found.sum()) < 20
    broken = attack(claim.target, claim.x, claim.y, PGD(steps=20), within=claim.within, workers=1).success
    assert bool(broken.any())
    assert not bool((found & broken).any())


def test_what_a_certificate_does_not_know_is_told() -> None:
    claim, _ = claimed(defense("crown"), 2, Linf(0.1))
    with pytest.raises(NotCertifiableError, match="L2 balls"):
        defense("smoothing").make(claim)
    with pytest.raises(RedanError, match="that of trees"):
        defense("smallest-change").make(claim)
