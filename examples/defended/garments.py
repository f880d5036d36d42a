"""The garments that ship with redan, in parts that do not meet: attacked, trusted, and what a detector is fit to."""

from __future__ import annotations

from typing import Any

from redan.samples import fashion_mnist_test


def attacked() -> dict[str, Any]:
    """Rows 0 to 255."""
    return _part(0, 256)


def trusted() -> dict[str, Any]:
    """Rows 256 to 511: a detector's threshold is taken from them."""
    return _part(256, 512)


def known() -> dict[str, Any]:
    """The other rows, which stand for training rows."""
    return _part(512, 1000)


def _part(first: int, end: int) -> dict[str, Any]:
    return {key: values[first:end] for key, values in fashion_mnist_test().items()}
