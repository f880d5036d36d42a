"""How far floating-point numbers may be from the real ones they stand for.

A sum of n products, evaluated in any order, with or without fused operations, is off by at most γ_n times the sum of
the products' sizes, γ_n = n·u / (1 - n·u), u half the distance from 1 to the next number (Higham 2002, Accuracy and
Stability of Numerical Algorithms, chapter 3). That covers the kernels of a CPU. It does not cover Winograd's or FFT
convolutions, nor products in fewer bits than the type has (TF32, bfloat16).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

OWN = torch.float64
"""The type that bounds are computed in, whatever the model's."""


def unit(dtype: torch.dtype) -> float:
    """u: the largest relative error of one operation."""
    return torch.finfo(dtype).eps / 2


def gamma(terms: int, u: float) -> float:
    """The largest relative error of a sum of so many products; infinite where nothing can be said.

    >>> gamma(3, 2.0**-53) < 4 * 2.0**-53
    True
    """
    return terms * u / (1 - terms * u) if terms * u < 0.5 else float("inf")


def full_precision() -> bool:
    """Whether torch is set to multiply in all bits of a type on a CPU. Newer versions have a setting a kernel."""
    parts = [getattr(torch.backends.mkldnn, name, None) for name in ("conv", "matmul")]
    set_to = {getattr(part, "fp32_precision", "none") for part in (*parts, torch.backends.mkldnn, torch.backends)}
    strict = os.environ.get("ONEDNN_DEFAULT_FPMATH_MODE", "STRICT").upper() == "STRICT"
    return strict and torch.get_float32_matmul_precision() == "highest" and not set_to - {"none", "ieee"}


@dataclass(frozen=True, slots=True)
class Rounding:
    """The errors of a model that computes in `dtype`, and of intervals around it that are computed in `OWN`."""

    dtype: torch.dtype

    def affine(self, terms: int) -> float:
        """Error of a layer's outputs, as a share of the sizes of the products that it sums, so many for each.

        The model errs once; ours errs in the middle of an interval, in its radius and in the sizes.
        """
        ours = gamma(terms + 16, unit(OWN))
        return (gamma(terms + 2, unit(self.dtype)) + 3 * ours) * (1 + 4 * ours)

    def floor(self, terms: int) -> float:
        """Error of a sum of so many products that underflow."""
        return terms * torch.finfo(self.dtype).tiny

    @property
    def ceiling(self) -> float:
        """Sums whose sizes stay below cannot overflow in the model."""
        return torch.finfo(self.dtype).max / 4
