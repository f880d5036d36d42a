"""What a customer of the garment sorter has: pictures of garments of their own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from redan import samples

__all__ = ["own"]


def own() -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
    """4,000 pictures that are not among the test pictures."""
    x, y = samples.fashion_mnist("train")
    return {"x": x, "y": y}
