"""The model input of a forecast: a half-space seen through noise, and how its gradient is spread over the coordinates."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from ..kernels.arrays import Array

# normal: components of a random direction; flat: all of one size; sparse: normal in a hundredth of the coordinates, else 0.
SHAPES = ("normal", "flat", "sparse")
# A gradient shorter than this has a direction all the same.
LEAST = 1e-30


@dataclass(frozen=True)
class Gradient:
    """Sizes |y_j| of a gradient part's coordinates, grouped: shape (G,), with how many coordinates have each."""

    size: Array
    times: Array

    @property
    def l2(self) -> float:
        """|y|_2; likewise the other norms."""
        return math.sqrt(float(self.times @ self.size**2))

    @property
    def l1(self) -> float:
        """Sum of the sizes."""
        return float(self.times @ self.size)

    @property
    def linf(self) -> float:
        """The largest size."""
        return float(self.size.max())


def gradient(d: int, length: float, shape: str = "normal") -> Gradient:
    """A gradient with |y|_2 = length and d coordinates of a shape in SHAPES. ValueError for another."""
    if shape not in SHAPES:
        raise ValueError(f"shape {shape!r}: expected one of {', '.join(SHAPES)}")
    if shape == "flat":
        size, times = np.ones(1), np.array([float(d)])
    else:
        touched = d if shape == "normal" else max(1, d // 100)
        # Groups of ranks, the largest sizes one by one.
        first = np.unique(np.floor(np.geomspace(1.0, touched + 1.0, 400)).astype(np.int64))
        times = np.diff(first).astype(np.float64)
        size = -ndtri(0.5 * (first[:-1] + 0.5 * times - 0.5) / touched) if touched > 1 else np.ones(1)
        if touched < d:
            size, times = np.append(size, 0.0), np.append(times, float(d - touched))
    return Gradient(size * (length / math.sqrt(float(times @ size**2))), times)


@dataclass(frozen=True)
class Vote:
    """The model classifier."""

    q: float
    rho: float

    @property
    def eps(self) -> float:
        """Probability of a vote against."""
        return 1.0 - self.q

    @property
    def z(self) -> float:
        """Phi^-1(q)."""
        return float(-ndtri(self.eps))

    @property
    def rim(self) -> float:
        """The largest |y|_2."""
        return math.exp(-0.5 * self.z**2) / math.sqrt(2.0 * math.pi)


def deviation(cosine: float, d: int) -> float:
    """Of a coordinate of what a unit vector with this cosine to y has across y, spread evenly."""
    return math.sqrt(max(1.0 - cosine**2, 1e-12) / d)


def largest(y: Gradient, deviation: float, excess: Array) -> float:
    """Median over noise e_j of the largest |y_j + e_j| + excess_j."""

    def surplus(m: float) -> float:
        inside = ndtr((m - y.size - excess) / deviation) - ndtr((-m - y.size + excess) / deviation)
        return float(y.times @ np.log(np.maximum(inside, 1e-300))) + math.log(2.0)

    top = float((y.size + excess).max())
    return float(brentq(surplus, top - 3.0 * deviation, top + 9.0 * deviation, rtol=1e-10))
