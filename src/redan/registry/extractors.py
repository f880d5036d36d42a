"""Attacks that copy a model: each with what it needs, its paper and its techniques."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from redan.errors import SettingError, TargetError
from redan.extraction.copycat import CopycatCNN
from redan.extraction.customer import Customer, Extractor, Shows
from redan.extraction.equation_solving import LogisticRegression
from redan.extraction.jacobian import JacobianAugmentation
from redan.extraction.knockoff import Adaptive, KnockoffNets
from redan.extraction.label_only import AdaptiveRetraining
from redan.extraction.pools import clustered
from redan.extraction.relu_networks import OneHiddenLayer
from redan.extraction.scene import Scene
from redan.extraction.stolen_tree import Categorical, Continuous, Feature
from redan.extraction.surrogates import Copy
from redan.extraction.transfer import Staged
from redan.extraction.tree_paths import BottomUp, ScoreTree
from redan.protocols import Access

__all__ = ["EXTRACTORS", "WIDEST", "ExtractorEntry", "extractor"]

_EXTRACT, _PROXY = "AML.T0024.002", "AML.T0005.001"  # MITRE ATLAS
WIDEST = 4096
"""Values of a row that extractors of models with few parameters take at most."""
_CLUSTERS = 20
_CATEGORIES = 10  # different values of a column up to which they are categories
_STEPS = 1000  # of a column's range: what a threshold is found to
_FIRST = 100  # rows that Jacobian augmentation starts from
_DOUBLINGS = 100  # of its rows: all that answers can be bought for


@dataclass(frozen=True, slots=True)
class ExtractorEntry:
    """One attack that copies a model as the planner and the report know it.

    make: builds it for a scene; raises SettingError where it does not fit. access: the least that answers must show.
    transfers: whether its copies are made to be attacked, so that it is for that goal alone. narrow: whether it takes
    rows of a few thousand values at most. staged: whether copies of smaller budgets come with those of larger ones.
    """

    name: str
    make: Callable[[Scene], Staged | Extractor[Copy]]
    access: Access
    paper: str
    techniques: tuple[str, ...]
    transfers: bool = False
    narrow: bool = False
    staged: bool = True


def _knockoff(scene: Scene) -> KnockoffNets:
    return KnockoffNets(pool=scene.pool, trainer=scene.trainer, queries=scene.queries, soft=scene.soft)


def _adaptive(scene: Scene) -> KnockoffNets:
    """Chooses among the pool's own groups, or else among clusters of its rows."""
    rows = scene.rows
    if rows is None:
        raise SettingError("it chooses among rows that the attacker has, and there are none; give extraction.pool")
    grouped = rows if rows.groups is not None else clustered(rows, min(_CLUSTERS, len(rows.rows)), seed=0)
    return KnockoffNets(
        pool=grouped, trainer=scene.trainer, queries=scene.queries, soft=scene.soft, adaptive=Adaptive()
    )


def _copycat(scene: Scene) -> CopycatCNN:
    return CopycatCNN(pool=scene.pool, trainer=scene.trainer, queries=scene.queries)


def _jacobian(scene: Scene) -> JacobianAugmentation:
    """Every row is doubled in each epoch, by a longer step than the paper's: fewer trainings, and better copies of
    garment pictures."""
    return JacobianAugmentation(
        seeds=scene.pool,
        first=max(1, min(_FIRST, scene.queries // 10)),
        trainer=scene.trainer,
        queries=scene.queries,
        soft=scene.soft,
        step=0.2,
        doublings=_DOUBLINGS,
    )


def _equations(scene: Scene) -> LogisticRegression:
    _narrow(scene)
    return LogisticRegression(shape=scene.pool.shape, bounds=scene.pool.bounds, queries=scene.queries)


def _retraining(scene: Scene) -> AdaptiveRetraining:
    return AdaptiveRetraining(
        shape=scene.pool.shape, bounds=scene.pool.bounds, queries=scene.queries, trainer=scene.trainer
    )


@dataclass(frozen=True, slots=True)
class _LeafByLeaf:
    """Path finding that says so where there are no leaves to be found."""

    search: BottomUp

    def __call__(self, customer: Customer, *, seed: int) -> Copy:
        copy = ScoreTree(search=self.search)(customer, seed=seed)
        try:
            copy.target(torch.zeros(1, len(self.search.features), dtype=copy.target.dtype))
        except TargetError as error:
            raise SettingError(
                f"it found no leaf in {customer.paid:,} answers: the model is no tree, or too large a one for them"
            ) from error
        return copy


def _tree(scene: Scene) -> _LeafByLeaf:
    """Finds no leaf where a row's scores are its own, as those of other models are."""
    _narrow(scene)
    if len(scene.pool.shape) != 1:
        raise SettingError(f"it varies columns one by one, and rows have the shape {scene.pool.shape}")
    return _LeafByLeaf(BottomUp(features=_features(scene)))


def _features(scene: Scene) -> tuple[Feature, ...]:
    """Each column as the pool's rows show it: numbers over the whole box, or one of a few values."""
    low, high = scene.pool.bounds
    block = next(scene.pool.blocks(torch.Generator().manual_seed(0)))
    found: list[Feature] = []
    for column in block.double().unbind(1):
        values = torch.unique(column)
        if 1 < len(values) <= _CATEGORIES:
            found.append(Categorical(values=tuple(values.tolist())))
        else:
            found.append(Continuous(low=low, high=high, precision=(high - low) / _STEPS))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _WholeReLU:
    """A search that ended without the whole network has its copy all the same: it is judged like any other."""

    search: OneHiddenLayer

    def __call__(self, customer: Customer, *, seed: int) -> Copy:
        found = self.search(customer, seed=seed)
        return Copy(found.target, found.parameters)


def _equivalent(scene: Scene) -> _WholeReLU:
    _narrow(scene)
    view = scene.view
    if view.shows is not Shows.RAW or view.decimals is not None or view.noise or view.top is not None:
        raise SettingError("it needs raw outputs in full, and the answers are worded otherwise")
    return _WholeReLU(OneHiddenLayer(shape=scene.pool.shape, bounds=scene.pool.bounds))


def _narrow(scene: Scene) -> None:
    width = math.prod(scene.pool.shape)
    if width > WIDEST:
        raise SettingError(f"it takes rows of {WIDEST} values at most, and these have {width}")


_BOTH = (_EXTRACT, _PROXY)
_TRAMER = "Tramèr 2016, arXiv:1609.02943"
_OREKONDY = "Orekondy 2019, arXiv:1812.02766"

EXTRACTORS: tuple[ExtractorEntry, ...] = (
    ExtractorEntry("knockoff-nets", _knockoff, Access.LABELS, _OREKONDY, _BOTH),
    ExtractorEntry("knockoff-adaptive", _adaptive, Access.SCORES, _OREKONDY, _BOTH),
    ExtractorEntry("copycat-cnn", _copycat, Access.LABELS, "Correia-Silva 2018, arXiv:1806.05476", _BOTH),
    ExtractorEntry(
        "jacobian-augmentation",
        _jacobian,
        Access.LABELS,
        "Papernot 2017, arXiv:1602.02697",
        _BOTH,
        transfers=True,
    ),
    ExtractorEntry("equation-solving", _equations, Access.LABELS, _TRAMER, (_EXTRACT,), narrow=True, staged=False),
    ExtractorEntry("adaptive-retraining", _retraining, Access.LABELS, _TRAMER, (_EXTRACT,), narrow=True, staged=False),
    ExtractorEntry("tree-path-finding", _tree, Access.SCORES, _TRAMER, (_EXTRACT,), narrow=True, staged=False),
    ExtractorEntry(
        "functionally-equivalent",
        _equivalent,
        Access.SCORES,
        "Jagielski 2020, arXiv:1909.01838",
        (_EXTRACT,),
        narrow=True,
        staged=False,
    ),
)


def extractor(name: str) -> ExtractorEntry:
    """The extractor of that name. Raises SettingError with the known names."""
    found = [each for each in EXTRACTORS if each.name == name]
    if not found:
        known = ", ".join(each.name for each in EXTRACTORS)
        raise SettingError(f"there is no extractor named '{name}'; redan knows {known}")
    return found[0]
