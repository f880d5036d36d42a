"""What is done for one victim: its poison, its training, its answers; and for one model of the certificate."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from redan.assessment.workshop import UnfitError, Whole, Workshop, poison_digest, reason
from redan.certification.poisoning import voted
from redan.poisoning.scene import PoisonGoal
from redan.registry.poisoners import poisoner as entry_of

__all__ = ["Done", "clean_victim", "victim", "votes"]


class Done(NamedTuple):
    """What came out, as it is sent to whoever asked: plain values, and arrays by name."""

    told: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


def clean_victim(shop: Workshop, number: int) -> Done:
    """A victim trained on the clean rows, asked the test rows and every backdoor's stamped ones."""
    begun, seed = time.monotonic(), shop.seed(number)
    try:
        model = shop.fit(shop.train, seed)
        right = shop.answers(model, shop.test.x)
        asked = {}
        for name, campaign in shop.campaigns.items():
            stamped = shop.stamped(campaign)
            if stamped is not None:
                reached = shop.answers(model, stamped.x) == stamped.wanted
                asked[name] = (int(reached.sum()), len(reached))
    except Exception as error:  # the user's training may raise anything; it is told, and counts
        return Done({"seed": seed, "error": reason(error), "seconds": _since(begun)}, {})
    told = {"seed": seed, "rows": len(right), "right": _right(shop, right), "asked": asked, "seconds": _since(begun)}
    return Done(told, {"clean": right})


def victim(shop: Workshop, attacker: str, poisoner: str, share: float, number: int) -> Done:
    """A victim of one poisoner at one share."""
    begun, seed = time.monotonic(), shop.seed(number)
    campaign = shop.campaigns[attacker]
    told: dict[str, Any] = {"seed": seed}
    try:
        made, told["settings"] = shop.poisoned(campaign, entry_of(poisoner), share, number)
        told |= {"changed": len(made.changed), "used": made.share, "poison": poison_digest(made)}
        model = shop.fit(made.samples, seed)
        clean = shop.answers(model, shop.test.x)
        arrays = {"clean": clean, "changed": made.changed}
        told |= {"rows": len(clean), "right": _right(shop, clean)}
        if campaign.goal is PoisonGoal.TARGETED_ROWS:
            at, label = shop.chosen(number)
            told["chosen"] = at
            arrays |= {"asked": clean[at : at + 1], "wanted": np.array([label]), "chosen": np.array([at])}
        elif (stamped := shop.stamped(campaign)) is not None:
            arrays |= {"asked": shop.answers(model, stamped.x), "wanted": stamped.wanted.astype(np.int64)}
    except UnfitError as error:
        return Done(told | {"error": str(error), "unfit": True, "seconds": _since(begun)}, {})
    except Exception as error:  # as above
        return Done(told | {"error": reason(error), "seconds": _since(begun)}, {})
    if "asked" in arrays:
        told["asked"] = {attacker: (int((arrays["asked"] == arrays["wanted"]).sum()), len(arrays["asked"]))}
    return Done(told | {"seconds": _since(begun)}, arrays)


def votes(shop: Workshop, model: int) -> Done:
    """One model of the certificate's ensemble, trained on its part of the clean rows.

    A part may be too small to train on (a class may be missing). Such a model votes for nobody, which is a vote that
    an attacker can win and not one that they can take away.
    """
    begun = time.monotonic()
    try:
        found: Whole = voted(
            shop.fit,
            shop.train,
            shop.test.x,
            shop.certificate_plan,
            model,
            classes=shop.classes,
            seed=shop.model.statistics.seed,
            pieces=shop.pieces,
        )
    except Exception as error:  # as above
        nobody = np.full(len(shop.test), -1, dtype=np.int64)
        return Done({"error": reason(error), "seconds": _since(begun)}, {"votes": nobody})
    return Done({"seconds": _since(begun)}, {"votes": found})


def _right(shop: Workshop, answers: Whole) -> int:
    return int((answers == shop.test.y).sum())


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 3)
