"""Classifiers that vote against inside a box, or outside one: votes, gradients and tails in closed form along every axis."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Array = npt.NDArray[np.float64]


def density(x: Array) -> Array:
    return np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi)


@dataclass(frozen=True)
class Box:
    """Against where low < u < high in every coordinate; `outside`: against everywhere else."""

    low: Array
    high: Array
    outside: bool = False

    @property
    def d(self) -> int:
        return len(self.low)

    def against(self, delta: Array) -> Array:
        """P(vote against at x + delta), shape (N,) for deltas (N, d)."""
        # Mirrored where both ends are far right, so that small masses keep their digits.
        low, high = self.low - delta, self.high - delta
        flip = low > 0.0
        sides = np.where(flip, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))
        inside = sides.prod(axis=1)
        return 1.0 - inside if self.outside else inside

    def drawn(self, u: Array) -> npt.NDArray[np.bool_]:
        """Whether samples u, shape (N, d), vote against."""
        inside = ((u > self.low) & (u < self.high)).all(axis=1)
        return ~inside if self.outside else inside

    @property
    def gradient(self) -> Array:
        """y = E[u f]: that of the box, with the sign of votes for."""
        sides = ndtr(self.high) - ndtr(self.low)
        first = density(self.low) - density(self.high)
        others = np.array([np.delete(sides, j).prod() for j in range(self.d)]) if self.d < 50 else sides.prod() / sides
        return (1.0 if self.outside else -1.0) * first * others

    def tail(self, axis: int, sign: float, tau: float) -> float:
        """P(vote against, sign u_axis >= tau)."""
        low, high = self.low.copy(), self.high.copy()
        if sign > 0.0:
            low[axis] = max(low[axis], tau)
        else:
            high[axis] = min(high[axis], -tau)
        inside = 0.0 if low[axis] >= high[axis] else float(Box(low, high).against(np.zeros((1, self.d)))[0])
        return float(ndtr(-tau)) - inside if self.outside else inside

    def largest_tails(self, taus: Array, axes: npt.NDArray[np.int64]) -> Array:
        """The largest of both signs along the axes, for each threshold; equal axes once."""
        kinds = {(float(self.low[j]), float(self.high[j])): int(j) for j in axes}
        return np.array([max(self.tail(j, s, float(tau)) for j in kinds.values() for s in (1.0, -1.0)) for tau in taus])


def random_box(d: int, rng: np.random.Generator) -> Box:
    """One that hurts: a half-space along an axis, few of them (a corner, a union), a thin shell, a cube; eps from 1e-5 to .45."""
    while True:
        low, high = np.full(d, -40.0), np.full(d, 40.0)
        few = rng.permutation(d)[: int(rng.integers(1, min(d, 4) + 1))]
        kind = int(rng.integers(5))
        if kind == 0:
            low[few[0]] = rng.uniform(0.1, 3.5)
        elif kind == 1:
            low[few] = rng.uniform(-0.5, 2.5, len(few))
        elif kind == 2:
            low[few[0]] = rng.choice([rng.uniform(0.1, 2.0), rng.uniform(3.5, 4.5)])
            high[few[0]] = low[few[0]] + rng.uniform(0.1, 1.5)
        elif kind == 3:
            high[few] = rng.uniform(1.0, 4.0, len(few))
            low[few] = -rng.choice([40.0, 2.5], len(few))
        else:
            high[:] = rng.uniform(1.5, 4.5) + 0.3 * np.log(d)
            low[:] = -high
        box = Box(low, high, outside=kind >= 3)
        if 1e-5 < box.against(np.zeros((1, d)))[0] < 0.45:
            return box
