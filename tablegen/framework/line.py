"""Information about t alone and a shift along t: the worst set is a union of intervals, and the integrals are closed forms.

`F = Lam - kappa L` is sampled on a grid, and where its second differences let it touch zero between two points of one sign the cell
is divided, until what could be overlooked is part of `error`. Every edge is then a bracketed root, or a jump.
"""

import numpy as np
import numpy.typing as npt

from certlut.kernels.arrays import Array

from .dual import Hinge
from .information import Constraint, density, mass
from .quadrature import REACH, ROUNDING, Cumulative, breaks, gauss, pieces, ridders, total

# The grid: blocks of cells; a cell is divided at most DEPTH times, into as many cells again.
BLOCK, CELLS, DEPTH = 0.64, 16, 4
# How far beyond the grid |psi| phi is integrated to bound what lies there.
OUTSIDE = 8.0
# Into how many a cell of the linear program is divided.
PARTS = 8


def divided(grid: Array, points: Array) -> Array:
    """The grid with every finite cell that holds one of the points cut there, and into PARTS."""
    place = np.unique(np.clip(np.searchsorted(grid, points) - 1, 1, len(grid) - 3))
    cuts = [np.linspace(grid[i], grid[i + 1], PARTS + 1) for i in place]
    return np.unique(np.concatenate([grid, points, *cuts]))


class Line:
    """The hinge integrals for a shift by r along t where Lam is a function of t: s is left to its mean, 0."""

    rounds = 6

    def __init__(self, constraints: tuple[Constraint, ...], r: float) -> None:
        self.constraints, self.r = constraints, r
        low, high = -REACH + min(r, 0.0), REACH + max(r, 0.0)
        left, right = pieces(low, high, breaks(constraints), BLOCK)
        self.integrals = [c.integral or Cumulative(c.along, left, right) for c in constraints]
        # Ends just inside: psi is right-continuous, and a block must not see the value beyond its right end.
        self.t = np.linspace(left, np.nextafter(right, -np.inf), CELLS + 1, axis=1)
        self.psi = np.array([c.along(self.t) for c in constraints])
        self.grid = np.concatenate([[-np.inf], self.t[:, : -1 : CELLS // 4].ravel(), [high, np.inf]])
        totals = np.array([total(c, left, right) for c in constraints])
        self.mean = totals[:, 0]
        self.size = np.sqrt(np.maximum([gauss(c.along, left, right, 2).sum() for c in constraints], 1e-300))
        ends = np.array([low - OUTSIDE, high]), np.array([low, high + OUTSIDE])
        self._outside = np.sqrt([gauss(c.along, *ends, 2).sum() * gauss(np.ones_like, *ends).sum() for c in constraints])
        self._outside += totals[:, 1]
        self._beyond = float(gauss(self._likelihood, *ends).sum())

    def _likelihood(self, t: Array) -> Array:
        return np.asarray(np.exp(self.r * t - 0.5 * self.r * self.r))

    def cells(self) -> tuple[Array, Array]:
        """See `Hinges`."""
        x, y = self.grid[:-1], self.grid[1:]
        return np.array([i(x, y) for i in self.integrals]), mass(x - self.r, y - self.r)

    def divide(self, *points: Array) -> None:
        """See `Hinges`."""
        for a in points:
            self.grid = divided(self.grid, self.edges(a, 1.0)[0])

    def lam(self, a: Array, t: Array) -> Array:
        """Lam(t)."""
        return np.asarray(sum(x * c.along(t) for x, c in zip(a, self.constraints, strict=True)))

    def edges(self, a: Array, kappa: float) -> tuple[Array, npt.NDArray[np.bool_], bool, float]:
        """(edges of f_a in order, which are roots and not jumps, whether f_a = 1 left of all, bound of what was overlooked)."""

        def f(t: Array) -> Array:
            return self.lam(a, t) - kappa * self._likelihood(t)

        t = self.t
        y = np.tensordot(a, self.psi, axes=1) - kappa * self._likelihood(t)
        first = bool(y[0, 0] >= 0.0)
        jumps = t[1:, 0][(y[:-1, -1] >= 0.0) != (y[1:, 0] >= 0.0)]
        found, missed = [], 0.0
        for depth in range(DEPTH + 1):
            up = y >= 0.0
            flip = up[:, :-1] != up[:, 1:]
            found.append(np.stack([t[:, :-1][flip], t[:, 1:][flip], y[:, :-1][flip], y[:, 1:][flip]], axis=1))
            bend = np.abs(np.diff(y, n=2, axis=1))
            bend = np.concatenate([bend[:, :1], np.maximum(bend[:, :-1], bend[:, 1:]), bend[:, -1:]], axis=1)
            # A parabola with twice the second difference seen reaches this far beyond its ends.
            over = 0.25 * bend - np.minimum(np.abs(y[:, :-1]), np.abs(y[:, 1:]))
            suspect = (over > 0.0) & ~flip
            left, right = t[:, :-1][suspect], t[:, 1:][suspect]
            if depth == DEPTH:
                missed = float(over[suspect] @ mass(left, right))
            if depth == DEPTH or not len(left):
                break
            t = np.linspace(left, right, CELLS + 1, axis=1)
            y = f(t)
        roots = ridders(f, np.concatenate(found))
        edges = np.concatenate([roots, jumps])
        order = np.argsort(edges)
        return edges[order], order < len(roots), first, missed

    def __call__(self, a: Array, kappa: float = 1.0) -> Hinge:
        """See `Hinges`."""
        edges, smooth, first, missed = self.edges(a, kappa)
        ends = np.concatenate([[-np.inf], edges, [np.inf]])
        # f_a alternates; h is the other half.
        left, right = ends[:-1][int(first) :: 2], ends[1:][int(first) :: 2]
        parts = np.array([i(left, right) for i in self.integrals])
        moments = parts.sum(axis=1)
        likelihood = kappa * float(mass(left - self.r, right - self.r).sum())
        error = missed + float(np.abs(a) @ self._outside) + kappa * self._beyond
        error += ROUNDING * (likelihood + float(np.abs(a) @ (np.abs(parts).sum(axis=1) + np.abs(self.mean))))
        return Hinge(likelihood - float(a @ moments), moments, self._bent(a, kappa, edges[smooth]), error)

    def _bent(self, a: Array, kappa: float, roots: Array) -> Array:
        """The Hessian: phi psi psi' / |F'| at the roots; for s, whose square has the mean 1, what a multiplier of it would bend."""
        step = 1e-6
        slope = (self.lam(a, roots + step) - self.lam(a, roots - step)) / (2.0 * step)
        weight = density(roots) / np.maximum(np.abs(slope - kappa * self.r * self._likelihood(roots)), 1e-12)
        along = np.array([c.along(roots) for c in self.constraints])
        across = np.array([np.zeros_like(roots) if c.across is None else c.across(roots) for c in self.constraints])
        return np.asarray((along * weight) @ along.T + (across * weight) @ across.T)
