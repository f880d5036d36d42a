"""Extractors of the registry: each is documented, builds for a scene, keeps to its money and repeats itself by seed."""

from __future__ import annotations

import inspect
import re
import sys

import pytest
import torch
from torch import nn

from redan.errors import SettingError
from redan.extraction.customer import Customer, Shows, Spending, View
from redan.extraction.pools import RowPool, UniformPool
from redan.extraction.scene import Scene
from redan.extraction.surrogates import Copy
from redan.extraction.trainers import ByAdam
from redan.protocols import Access, settings
from redan.registry.extractors import EXTRACTORS, WIDEST, ExtractorEntry, extractor
from redan.targets import Target, from_torch

every = pytest.mark.parametrize("each", EXTRACTORS, ids=[each.name for each in EXTRACTORS])
QUERIES, CLASSES, WIDTH = 60, 3, 4


def small(shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), classes))


def model(dtype: torch.dtype = torch.float64) -> Target[torch.Tensor]:
    """A network whose classes are all met in the box."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = nn.Sequential(nn.Flatten(), nn.Linear(WIDTH, 6), nn.ReLU(), nn.Linear(6, CLASSES)).to(dtype).eval()
    return from_torch(module, classes=CLASSES)


class Steps(nn.Module):
    """A tree of four leaves."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        leaf = 2 * (x[:, 0] > 0.5).long() + (x[:, 1] > 0.3).long()
        return torch.eye(4, CLASSES, dtype=torch.float64)[leaf] + leaf[:, None]


def asked(each: ExtractorEntry) -> Target[torch.Tensor]:
    """A model that the extractor is for."""
    return from_torch(Steps().eval(), classes=CLASSES) if each.name == "tree-path-finding" else model()


def scene(view: View | None = None, *, groups: bool = True) -> Scene:
    draw = torch.Generator().manual_seed(0)
    rows = torch.rand(200, WIDTH, generator=draw, dtype=torch.float64)
    pool = RowPool(name="rows", rows=rows, groups=torch.arange(200) % 5 if groups else None)
    return Scene(
        pool=pool, queries=QUERIES, classes=CLASSES, view=view or View(shows=Shows.RAW), trainer=ByAdam(network=small)
    )


def made(each: ExtractorEntry, customer: Customer, seed: int) -> Copy:
    extractor = each.make(scene(customer.view))
    if hasattr(extractor, "curve"):
        return extractor.curve(customer, points=(QUERIES,), seed=seed)[-1].copy
    return extractor(customer, seed=seed)


def test_names_are_unique() -> None:
    assert len({each.name for each in EXTRACTORS}) == len(EXTRACTORS)


@every
def test_an_entry_is_complete(each: ExtractorEntry) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", each.name)
    assert re.fullmatch(r"[\w\- ]+ \d{4}, arXiv:\d{4}\.\d{5}", each.paper)
    assert all(re.fullmatch(r"AML\.T\d{4}(\.\d{3})?", id) for id in each.techniques)
    assert each.techniques
    assert extractor(each.name) is each
    assert hasattr(each.make(scene()), "curve") == each.staged


@every
def test_an_entry_s_extractor_is_documented_and_can_be_told(each: ExtractorEntry) -> None:
    found = each.make(scene())
    assert inspect.getdoc(type(found))
    assert inspect.getdoc(sys.modules[type(found).__module__])
    assert "tensor(" not in settings(found)
    assert "0x" not in settings(found)


SEEN = [(each, shows) for each in EXTRACTORS for shows in (Shows.RAW, Shows.LABELS)]
FITTING = [(each, shows) for each, shows in SEEN if shows is Shows.RAW or each.access is Access.LABELS]


@pytest.mark.parametrize(
    ("each", "shows"),
    [
        pytest.param(
            each,
            shows,
            id=f"{each.name}-{shows.name}",
            marks=pytest.mark.slow if each.name in ("knockoff-adaptive", "jacobian-augmentation") else (),
        )
        for each, shows in FITTING
    ],
)
def test_an_entry_keeps_to_its_money_and_repeats_itself(each: ExtractorEntry, shows: Shows) -> None:
    x = torch.rand(50, WIDTH, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    answers = []
    for _ in range(2):
        customer = Customer(asked(each), Spending(queries=QUERIES), CLASSES, View(shows=shows))
        copy = made(each, customer, 5)
        assert 0 < customer.paid <= QUERIES
        with torch.no_grad():
            answers.append(copy.target(x.to(copy.target.dtype)))
    assert answers[0].shape == (50, CLASSES)
    assert torch.equal(*answers)


@pytest.mark.parametrize("each", [e for e in EXTRACTORS if e.name != "tree-path-finding"], ids=lambda e: str(e.name))
def test_a_poor_customer_gets_a_copy_all_the_same(each: ExtractorEntry) -> None:
    customer = Customer(model(), Spending(usd=0.003, usd_per_1000_queries=1.0), CLASSES, View(shows=Shows.RAW))
    copy = made(each, customer, 0)
    assert customer.paid <= 3
    assert copy.target(torch.rand(2, WIDTH).to(copy.target.dtype)).shape == (2, CLASSES)


def test_what_does_not_fit_a_scene_is_told() -> None:
    def noise(*shape: int) -> Scene:
        return Scene(pool=UniformPool(shape=shape), queries=10, classes=2, trainer=ByAdam())

    for name in ("equation-solving", "tree-path-finding", "functionally-equivalent"):
        with pytest.raises(SettingError, match=f"{WIDEST} values at most"):
            extractor(name).make(noise(WIDEST + 1))
    with pytest.raises(SettingError, match="one by one"):
        extractor("tree-path-finding").make(
            Scene(pool=UniformPool(shape=(1, 2, 2)), queries=10, classes=2, trainer=ByAdam())
        )
    with pytest.raises(SettingError, match="raw outputs in full"):
        extractor("functionally-equivalent").make(scene(View()))
    with pytest.raises(SettingError, match=r"give extraction\.pool"):
        extractor("knockoff-adaptive").make(
            Scene(pool=UniformPool(shape=(4,)), queries=10, classes=2, trainer=ByAdam())
        )


def test_where_no_leaf_is_found_path_finding_does_not_fit() -> None:
    customer = Customer(model(), Spending(queries=3), CLASSES, View(shows=Shows.RAW))
    with pytest.raises(SettingError, match="no leaf in 3 answers: the model is no tree"):
        made(extractor("tree-path-finding"), customer, 0)


def test_rows_without_groups_are_clustered() -> None:
    found = extractor("knockoff-adaptive").make(scene(groups=False))
    groups = found.pool.groups  # type: ignore[union-attr]
    assert groups is not None
    assert 2 < int(groups.max()) + 1 <= 20


def test_columns_of_few_values_are_categories() -> None:
    draw = torch.Generator().manual_seed(0)
    rows = torch.stack([torch.rand(80, generator=draw), torch.arange(80) % 3 / 2], 1).double()
    found = extractor("tree-path-finding").make(
        Scene(pool=RowPool(name="rows", rows=rows), queries=10, classes=2, trainer=ByAdam(), view=View(shows=Shows.RAW))
    )
    number, category = found.search.features  # type: ignore[union-attr]
    assert number.numbers == (0.0, 1.0)
    assert len(number.whole) == 1001
    assert category.values == (0.0, 0.5, 1.0)


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(SettingError, match="no extractor named 'burglar'; redan knows knockoff-nets"):
        extractor("burglar")
