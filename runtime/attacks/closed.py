"""Classifiers whose smoothed vote is known in closed form, at every shift: what attacks and exact moments are checked against.

Every one is a set of u in R^d (sigma = 1 units), g(delta) = P(u + delta in the set), u ~ N(0, I). `gradient(0)` is y = E[u f].
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr
from scipy.stats import ncx2

from ..kernels.arrays import Array
from ..kernels.normal import densities
from ..statistics.summary import Moments

# Rows drawn at a time by `Sheets.moments`.
CHUNK = 2**16


class Smoothed(ABC):
    """A smoothed vote g and its gradient, exact up to rounding."""

    d: int
    kind: str

    @abstractmethod
    def value(self, delta: Array) -> Array:
        """g at the shifts `delta`, shape (N, d); returns (N,)."""

    @abstractmethod
    def gradient(self, delta: Array) -> Array:
        """Gradient of g at `delta`, shape (N, d); returns (N, d)."""

    def moments_at_0(self) -> tuple[float, Array]:
        """(q, y): the vote and its gradient at the input itself."""
        zero = np.zeros((1, self.d))
        return float(self.value(zero)[0]), self.gradient(zero)[0]


@dataclass(frozen=True)
class Sheets(Smoothed):
    """All (`every`) or at least one of k slabs low_i < w_i.u < high_i hold, the rows w_i of `w` orthonormal; half-spaces too."""

    w: Array
    """Shape (k, d)."""
    low: Array
    high: Array
    every: bool = True
    kind: str = "half-spaces"

    @property
    def d(self) -> int:  # type: ignore[override]
        """Dimension."""
        return int(self.w.shape[1])

    def _probabilities(self, delta: Array) -> tuple[Array, Array]:
        """(P(slab i holds), its derivative along w_i), each (N, k)."""
        t = delta @ self.w.T
        # The smaller tail on both sides keeps its relative accuracy.
        inside = 1.0 - ndtr(self.low - t) - ndtr(t - self.high)
        return inside, densities(self.low - t) - densities(self.high - t)

    def value(self, delta: Array) -> Array:
        """The w_i are orthonormal, so the slabs are independent: a product of their probabilities, or of those they fail."""
        p, _ = self._probabilities(delta)
        return np.asarray(p.prod(axis=1) if self.every else 1.0 - (1.0 - p).prod(axis=1))

    def gradient(self, delta: Array) -> Array:
        """Product rule."""
        p, slope = self._probabilities(delta)
        factor = p if self.every else 1.0 - p
        columns = range(len(self.w))
        others = np.stack([np.delete(factor, i, axis=1).prod(axis=1) for i in columns], axis=1)
        return np.asarray((slope * others) @ self.w)

    def moments(self, n: int, rng: np.random.Generator) -> Moments:
        """What sampling n votes in two halves leaves, drawn exactly: across the w_i the noise does not know the vote."""
        halves = np.array([n // 2, n - n // 2], dtype=np.int64)
        count = np.zeros(2, dtype=np.int64)
        sum_uf, sum_u = np.zeros((2, self.d)), np.zeros((2, self.d))
        for half in range(2):
            along_f, along = np.zeros(len(self.w)), np.zeros(len(self.w))
            for start in range(0, int(halves[half]), CHUNK):
                s = rng.standard_normal((min(CHUNK, int(halves[half]) - start), len(self.w)))
                holds = (s > self.low) & (s < self.high)
                f = holds.all(axis=1) if self.every else holds.any(axis=1)
                count[half] += int(f.sum())
                along_f += s[f].sum(axis=0)
                along += s.sum(axis=0)
            yes, no = rng.standard_normal((2, self.d)) * np.sqrt([[count[half]], [halves[half] - count[half]]])
            sum_uf[half] = along_f @ self.w + self._across(yes)
            sum_u[half] = along @ self.w + self._across(yes + no)
        return Moments(halves, count, sum_uf, sum_u)

    def _across(self, x: Array) -> Array:
        return np.asarray(x - (x @ self.w.T) @ self.w)


@dataclass(frozen=True)
class Round(Smoothed):
    """The ball |u - centre| <= radius, or what is outside it: a noncentral chi-square probability."""

    centre: Array
    radius: float
    outside: bool = False

    @property
    def kind(self) -> str:  # type: ignore[override]
        """Its name in reports."""
        return "outside of a ball" if self.outside else "ball"

    @property
    def d(self) -> int:  # type: ignore[override]
        """Dimension."""
        return len(self.centre)

    def value(self, delta: Array) -> Array:
        """P(|u + delta - centre|^2 <= radius^2)."""
        square = ((delta - self.centre) ** 2).sum(axis=1)
        law = ncx2.sf if self.outside else ncx2.cdf
        return np.asarray(law(self.radius**2, self.d, square))

    def gradient(self, delta: Array) -> Array:
        """The distribution function's slope in the noncentrality is half its difference between d + 2 and d degrees of freedom."""
        square = ((delta - self.centre) ** 2).sum(axis=1)
        law = ncx2.sf if self.outside else ncx2.cdf
        slope = law(self.radius**2, self.d + 2, square) - law(self.radius**2, self.d, square)
        return np.asarray(slope[:, None] * (delta - self.centre))


def half_space(w: Array, z: float) -> Sheets:
    """{w.u > -z} for an l2-unit w: q = Phi(z), and the gradient is the largest that q allows."""
    return Sheets(w[None], np.array([-z]), np.array([np.inf]), kind="half-space")


def slab(w: Array, low: float, high: float) -> Sheets:
    """{low < w.u < high}."""
    return Sheets(w[None], np.array([low]), np.array([high]), kind="slab")


def corner(w: Array, z: Array) -> Sheets:
    """{w_i.u > -z_i for every i}, the rows of w orthonormal."""
    return Sheets(w, -z, np.full(len(z), np.inf), kind="corner of half-spaces")


def union(w: Array, z: Array) -> Sheets:
    """{w_i.u > -z_i for at least one i}."""
    return Sheets(w, -z, np.full(len(z), np.inf), every=False, kind="union of half-spaces")


def frame(k: int, d: int, rng: np.random.Generator, sparse: bool = False) -> Array:
    """k random orthonormal rows in R^d: dense, or each of few coordinates."""
    if sparse:
        w = np.zeros((k, d))
        for i, chosen in enumerate(np.array_split(rng.permutation(d)[: max(k, min(d, 3 * k))], k)):
            w[i, chosen] = rng.standard_normal(len(chosen))
        return np.asarray(w / np.linalg.norm(w, axis=1, keepdims=True))
    q, _ = np.linalg.qr(rng.standard_normal((d, k)))
    return np.asarray(q.T)


def random_classifier(d: int, rng: np.random.Generator) -> Smoothed:
    """A random one of every kind, with 1/2 < q < 1 - 1e-9."""
    while True:
        k = int(rng.integers(2, min(d, 4) + 1)) if d > 1 else 1
        sparse = bool(rng.random() < 0.5)
        z = rng.uniform(0.1, 3.5, size=k)
        made: Smoothed
        match int(rng.integers(6)):
            case 0:
                made = half_space(frame(1, d, rng, sparse)[0], float(z[0]))
            case 1:
                made = slab(frame(1, d, rng, sparse)[0], -float(z[0]), float(rng.uniform(0.1, 4.0)))
            case 2:
                made = corner(frame(k, d, rng, sparse), z)
            case 3:
                made = union(frame(k, d, rng, sparse), z - 1.5)
            case 4:
                away = rng.standard_normal(d)
                made = Round(away / np.linalg.norm(away) * rng.uniform(0.0, 2.0), math.sqrt(d) * rng.uniform(0.8, 2.5))
            case _:
                away = rng.standard_normal(d)
                made = Round(
                    away / np.linalg.norm(away) * rng.uniform(0.5, 4.0), math.sqrt(d) * rng.uniform(0.3, 1.0), outside=True
                )
        if 0.505 < made.moments_at_0()[0] < 1.0 - 1e-9:
            return made
