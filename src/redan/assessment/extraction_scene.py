"""What an extraction attacker has: rows to ask about, a form for copies; and the rows on which copies are judged."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from redan.assessment.build import Built
from redan.assessment.imports import called, named
from redan.assessment.rows import pool_rows, rows_of
from redan.errors import DataError, ThreatModelError
from redan.evidence.folder import digest, file_digest
from redan.extraction import customer, surrogates
from redan.extraction.pools import Pool, RowPool, TablePool, UniformPool
from redan.extraction.scene import Scene
from redan.extraction.surrogates import Trainer
from redan.extraction.trainers import ByAdam, ByEstimator
from redan.targets import Target
from redan.threat import attackers as who
from redan.threat.extractors import ExtractionCampaign
from redan.threat.file import Loaded
from redan.threat.inputs import TableInputs
from redan.threat.system import Split

__all__ = ["UNIFORM", "Ground", "JudgedRows", "ground_of"]

UNIFORM = "uniform"
"""The name of rows drawn from the box of inputs."""


@dataclass(frozen=True, slots=True, eq=False)
class JudgedRows:
    """Rows on which copies are compared with the model. x: (N, …); y: (N,) the right labels, where they are known."""

    x: Tensor
    y: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """All that decides an attacker's copies beside the model and the money.

    pool: where the rows come from that are asked, and in words. rows: the split on which copies are judged. judged:
    those rows and uniform ones, by name. notes: what there is to say of them. doubts: why copies may be worse than
    a real attacker's. digest: sha256 of pool and form.
    """

    pool: Pool
    pool_words: str
    trainer: Trainer
    rows: str
    judged: Mapping[str, JudgedRows]
    notes: tuple[str, ...]
    doubts: tuple[str, ...]
    digest: str

    def scene(self, campaign: ExtractionCampaign, classes: int) -> Scene:
        """What extractors are made of."""
        return Scene(
            pool=self.pool,
            queries=campaign.points[0],
            classes=classes,
            view=campaign.view,
            trainer=self.trainer,
        )


def ground_of(loaded: Loaded, built: Built, campaign: ExtractionCampaign) -> Ground:
    """What an attacker of a threat model has. Raises a RedanError for rows or functions that cannot be used."""
    split = _split(campaign.attacker)
    judged = _judged(loaded, built, split)
    pool, words, told, notes, doubts = _pool(loaded, built, split, judged)
    trainer, source = _trainer(loaded, built)
    count = loaded.model.extraction.uniform_rows
    draw = torch.Generator().manual_seed(loaded.model.statistics.seed)
    noise = surrogates.uniform(count, pool.shape, pool.bounds, draw)
    if not campaign.attacker.capability.queries_total and campaign.attacker.capability.usd is None:
        notes = (
            *notes,
            f"nothing limits what the attacker may ask, so a copy is made of {campaign.points[0]:,} answers",
        )
    return Ground(
        pool=pool,
        pool_words=words,
        trainer=trainer,
        rows=str(split),
        judged={str(split): judged, UNIFORM: JudgedRows(noise, None)},
        notes=notes,
        doubts=doubts,
        digest=digest("\n".join((told, source)).encode()),
    )


def _split(attacker: who.Extraction) -> Split:
    match attacker.goal:
        case who.FidelityGoal(fidelity=split):
            return split
    return Split.TEST


def _judged(loaded: Loaded, built: Built, split: Split) -> JudgedRows:
    if split is Split.TEST:
        return JudgedRows(built.x.cpu(), built.y.cpu())
    found = rows_of(loaded.model, loaded.folder, split)
    if found is None:
        raise ThreatModelError(
            f"copies are to be judged on system.data.{split}, which is not given; name the rows there"
        )
    samples = found.samples
    drawn = np.random.default_rng(loaded.model.statistics.seed).permutation(len(samples))
    order = drawn[: loaded.model.statistics.rows]
    x = samples.x[order] if built.ranges is None else built.ranges.unit(samples.x[order])
    return JudgedRows(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(samples.y[order]))


def _pool(
    loaded: Loaded, built: Built, split: Split, judged: JudgedRows
) -> tuple[Pool, str, str, tuple[str, ...], tuple[str, ...]]:
    """The pool, in words, the digest of its rows, what there is to say of it, and why it may be too weak."""
    said, bounds = loaded.model.extraction.pool, built.target.bounds
    if said is not None:
        x, told = pool_rows(loaded.model, loaded.folder, said)
        name = f"extraction.pool ({said if isinstance(said, str) else said.path})"
        return *_row_pool(name, x, built, judged), told, (), ()
    if loaded.model.system.data.train is not None and split is not Split.TRAIN:
        found = rows_of(loaded.model, loaded.folder, Split.TRAIN)
        if found is not None:
            note = (
                "no extraction.pool is given, so the attacker asks about the training rows: as good a pool as there is"
            )
            return *_row_pool("the training rows", found.samples.x, built, judged), found.digest, (note,), ()
    doubt = (
        "the attacker asks about drawn rows alone, as neither extraction.pool nor system.data.train is given: with "
        "rows like the model's own a copy may be far better"
    )
    if isinstance(loaded.model.system.inputs, TableInputs):
        return TablePool.of(built.x.cpu(), bounds=bounds), "columns drawn one by one", "", (), (doubt,)
    return (
        UniformPool(shape=tuple(built.x.shape[1:]), bounds=bounds),
        "noise drawn from the box of inputs",
        "",
        (),
        (doubt,),
    )


def _row_pool(name: str, x: np.ndarray, built: Built, judged: JudgedRows) -> tuple[RowPool, str]:
    """Rows, without those that copies are judged on: nobody may win by having asked the very questions."""
    rows = torch.from_numpy(np.ascontiguousarray(x if built.ranges is None else built.ranges.unit(x)))
    if rows.shape[1:] != built.x.shape[1:]:
        raise DataError(
            f"the pool's rows have the shape {tuple(rows.shape[1:])}, and the model's {tuple(built.x.shape[1:])}; they "
            "must be alike"
        )
    bounds = built.target.bounds
    known = set(customer.named(surrogates.in_box(judged.x, bounds)))
    kept = [at for at, name in enumerate(customer.named(surrogates.in_box(rows, bounds))) if name not in known]
    if not kept:
        raise DataError(f"every row of {name} is one on which copies are judged; give others as extraction.pool")
    left = len(rows) - len(kept)
    words = f"{name}, {len(kept):,} rows" + (f" ({left:,} more are judged on, and not asked)" if left else "")
    return RowPool(name=name, rows=rows[kept], bounds=bounds), words


def _trainer(loaded: Loaded, built: Built) -> tuple[Trainer, str]:
    """What makes copies, and the digest of the file that their form is in."""
    said, bounds = loaded.model.extraction.surrogate, built.target.bounds
    if said is None:
        return ByAdam(bounds=bounds), ""
    key = f"extraction.surrogate '{said}'"
    function = named(said, loaded.folder, key)
    made = called(function, key, loaded.folder, shape=tuple(built.x.shape[1:]), classes=loaded.model.system.class_count)
    file = inspect.getsourcefile(inspect.unwrap(function)) if inspect.isroutine(function) else None
    source = file_digest(Path(file)) if file is not None and Path(file).is_file() else ""
    if isinstance(made, nn.Module):
        return ByAdam(network=_Network(function), bounds=bounds), source
    if not callable(getattr(made, "fit", None)):
        raise ThreatModelError(
            f"{key} must return an nn.Module, or an estimator with fit and predict, got {type(made).__name__}"
        )
    estimators = ByEstimator(
        estimator=_Estimator(function, tuple(built.x.shape[1:]), loaded.model.system.class_count or 2), bounds=bounds
    )
    weighs = "sample_weight" in inspect.signature(made.fit).parameters
    return estimators if weighs else _ByLabels(estimators), source


@dataclass(frozen=True, slots=True)
class _Network:
    """The user's own architecture."""

    function: Callable[..., nn.Module]

    def __call__(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return self.function(shape=shape, classes=classes)


@dataclass(frozen=True, slots=True)
class _Estimator:
    """The user's own estimator, with the seed where it takes one."""

    function: Callable[..., Any]
    shape: tuple[int, ...]
    classes: int

    def __call__(self, seed: int) -> Any:
        made = self.function(shape=self.shape, classes=self.classes)
        taken: dict[str, Any] = getattr(made, "get_params", dict)()
        return made.set_params(random_state=seed) if "random_state" in taken else made


@dataclass(frozen=True, slots=True)
class _ByLabels:
    """A trainer that cannot weigh rows, and so learns from labels alone."""

    trainer: ByEstimator

    @property
    def bounds(self) -> tuple[float, float]:
        return self.trainer.bounds

    def __call__(self, x: Tensor, y: Tensor, classes: int, seed: int) -> Target[Tensor]:
        return self.trainer(x, y, classes, seed)
