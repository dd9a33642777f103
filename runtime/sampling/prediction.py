"""What a half-space seen through noise predicts of a vote under grid noise, and the mean that this takes away, with its error.

A bet on x = (w.m)(f - h) needs E[(w.m) h], m(k) = E[u | k] (bets.py; docs/noise.md has proofs). Let R = sigma / step, |v|_2 = 1 and

    h = Phi((z + rho s) / sqrt(1 - rho^2)),   s = v.k / R:

s is linear in k, not v.m. For Gaussian u, s = v.u would give E[u h] = rho phi(z) v. Here the sum over k is a trapezoidal rule of an
entire function, hence right to about e^-c, c = 2 pi^2 R^2 (1 - rho^2), and its integral is that of u + U, U uniform on a cell:

    E[m h] = rho E phi(z + rho v.U) v = rho phi(z) (1 + rho^2 (z^2 - 1) / (24 R^2)) v  within  rho^5 / (960 R^4),

since E (v.U)^2 = 1 / (12 R^2), E (v.U)^4 <= 1 / (48 R^4) and |phi''''| < 1.2. Add the error to the allowance TAIL of every bet.
"""

import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Number = TypeVar("Number", float, "torch.Tensor")

# c is at least this: e^-30 = 1e-13.
EXPONENT = 30.0
RHO_MAX = 0.95


def most_rho(ratio: float) -> float:
    """The largest rho for which `mean_error` holds, ratio = sigma / step >= 1; 0, a constant h, where cells are too wide."""
    return min(RHO_MAX, math.sqrt(max(0.0, 1.0 - EXPONENT / (2.0 * (math.pi * ratio) ** 2))))


def mean_along(ratio: float, z: Number, rho: Number, rim: Number) -> Number:
    """E[(w.m) h] / (w.v), to within `mean_error`, for 0 <= rho <= most_rho(ratio); rim = phi(z)."""
    return rho * rim * (1.0 + rho * rho * (z * z - 1.0) / (24.0 * ratio * ratio))


def mean_error(ratio: float, d: int) -> float:
    """Bound of |E[(w.m) h] - mean_along (w.v)| for every unit w, over all z and rho <= most_rho(ratio)."""
    rho = most_rho(ratio)
    c = 2.0 * (math.pi * ratio) ** 2
    rounding = 2.02 * (1.0 + math.sqrt(1.0 + 2.0 * c)) * (math.exp(-c * (1.0 - rho * rho)) + d * math.exp(-c))
    return rho**5 / (960.0 * ratio**4) + (rounding if rho > 0.0 else 0.0)
