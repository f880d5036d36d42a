"""How near an attack's distances are to the best known ones, and whether one attack beats another by more than chance.

Rows that an attack did not break have the distance inf. All functions take one entry a row, the same rows in the same
order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import binom

_RESAMPLES = 2000


def envelope(attacks: Sequence[Sequence[float]]) -> list[float]:
    """The least distance of each row over all attacks."""
    return [min(row) for row in zip(*attacks, strict=True)]


def optimality(distances: Sequence[float], best: Sequence[float]) -> float:
    """AttackBench's local optimality (Cina et al. 2024, arXiv:2404.19460, equation 4), in [0, 1]: 1 is the envelope.

    The area above the curve of robust accuracy over the radius, up to the radius at which the envelope's is 0, divided
    by the envelope's own. Here the areas are exact (the curve is a staircase), rows are those that the model has
    right, and rows that nobody broke are left out of both areas.
    """
    far = max((d for d in best if math.isfinite(d)), default=0.0)
    own = sum(far - min(d, far) for d, b in zip(distances, best, strict=True) if math.isfinite(b))
    most = sum(far - b for b in best if math.isfinite(b))
    return own / most if most else 1.0


def median(distances: Sequence[float]) -> float:
    """The median, failures infinite; the upper of two middle rows' mean is infinite if one of them is."""
    return float(np.median(np.asarray(distances)))


def chance(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """How likely as many rows that only they broke are, if each such row fell to either side alike (McNemar, exact)."""
    only_they = sum(b and not a for a, b in zip(ours, theirs, strict=True))
    only_we = sum(a and not b for a, b in zip(ours, theirs, strict=True))
    return float(binom.sf(only_they - 1, only_they + only_we, 0.5)) if only_they else 1.0


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Our median over theirs, with the ends of its 95 % interval by resampling rows (in pairs, from a fixed seed)."""
    pairs = np.stack([np.asarray(ours), np.asarray(theirs)])
    drawn = np.random.default_rng(0).integers(0, pairs.shape[1], (_RESAMPLES, pairs.shape[1]))
    with np.errstate(invalid="ignore"):
        medians = np.median(pairs[:, drawn], axis=2)
        ratios = np.nan_to_num(medians[0] / medians[1], nan=1.0, posinf=math.inf)
        whole = np.median(pairs, axis=1)
        ratio = np.nan_to_num(whole[0] / whole[1], nan=1.0, posinf=math.inf)
    low, high = np.quantile(ratios, (0.025, 0.975), method="nearest")
    return float(ratio), float(low), float(high)
