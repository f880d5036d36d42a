"""A poisoned training set as a defender meets it: the rows, the model trained on them, and what is known of either."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from redan.assessment.workshop import Workshop
from redan.data.samples import Samples
from redan.poisoning.budget import Poisoned
from redan.poisoning.scene import PoisonGoal
from redan.registry.poisoners import poisoner as entry_of
from redan.targets import Target
from redan.threat.poisoners import PoisonCampaign

__all__ = ["Found", "Inspected", "Measured"]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a model does: how often it does the attacker's will, if there is such a thing, and its clean accuracy."""

    success: float | None
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inspected:
    """A poisoned training set with the victim that a defender trains on it.

    rows: the poisoned rows, then the trusted ones. poisoned, trusted: which of them are, (N,). model: trained on all of
    them. flagged: labels whose rows are looked at first, as their trigger is unusually small; none: all alike.
    """

    shop: Workshop
    campaign: PoisonCampaign
    made: Poisoned
    rows: Samples
    poisoned: NDArray[np.bool_]
    trusted: NDArray[np.bool_]
    model: nn.Module | Target[Tensor]
    seed: int
    flagged: tuple[int, ...] = ()

    @classmethod
    def of(cls, shop: Workshop, attacker: str, poisoner: str) -> Inspected:
        """The first victim of a poisoner at the attacker's whole share, trained with the trusted rows besides."""
        campaign, seed = shop.campaigns[attacker], shop.seed(0)
        made, _ = shop.poisoned(campaign, entry_of(poisoner), campaign.budget.share, 0)
        rows = _with(made.samples, shop.trusted)
        at = np.arange(len(rows))
        return cls(
            shop=shop,
            campaign=campaign,
            made=made,
            rows=rows,
            poisoned=np.isin(at, made.changed),
            trusted=at >= len(made.samples),
            model=shop.fit(rows, seed),
            seed=seed,
        )

    @property
    def target(self) -> Target[Tensor]:
        """The model as a target."""
        return self.shop.target(self.model)

    def measured(self, model: nn.Module | Target[Tensor]) -> Measured:
        """What a model trained or mended on these rows does."""
        shop = self.shop
        clean = shop.answers(model, shop.test.x)
        accuracy = float((clean == shop.test.y).mean())
        if self.campaign.goal is PoisonGoal.TARGETED_ROWS:
            at, label = shop.chosen(0)
            return Measured(float(clean[at] == label), accuracy)
        stamped = shop.stamped(self.campaign)
        if stamped is None:
            return Measured(None, accuracy)
        return Measured(float((shop.answers(model, stamped.x) == stamped.wanted).mean()), accuracy)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What the best detector says. numbers (N,): rows of all labels can be compared by them, larger is more suspicious.
    scene: whose rows they are."""

    scene: Inspected
    numbers: NDArray[np.float64]

    def most_suspicious(self, count: int) -> NDArray[np.int64]:
        """Positions of so many rows, the most suspicious of those that are not trusted: ascending. Where labels are
        flagged, of their rows, but not more than nine tenths of them: somebody must stay to learn the class from."""
        scene = self.scene
        ranks = np.argsort(-self.numbers, kind="stable")
        ranks = ranks[~scene.trusted[ranks]]
        if scene.flagged:
            ranks = ranks[np.isin(scene.rows.y[ranks], scene.flagged)]
            count = min(count, len(ranks) * 9 // 10)
        return np.sort(ranks[:count])


def _with(samples: Samples, trusted: Samples | None) -> Samples:
    if trusted is None:
        return samples
    source = samples.source and (*samples.source, *(trusted.source or ("trusted",) * len(trusted)))
    return Samples(
        np.concatenate([samples.x, trusted.x.astype(samples.x.dtype)]),
        np.concatenate([samples.y, trusted.y.astype(samples.y.dtype)]),
        None,
        source,
        samples.split,
    )
