"""What the integrals share: panels, Gauss-Legendre sums, integrals of psi phi, bracketed roots."""

import itertools
import math

import numpy as np

from certlut.kernels.arrays import Array

from .information import Along, Constraint, density

# Noise beyond this is left to bounds: P(|t| > 12) = 4e-33.
REACH = 12.0
# A sum of a few rounded terms, relative to their size.
ROUNDING = 1e-15
NODES, WEIGHTS = np.polynomial.legendre.leggauss(10)


def breaks(constraints: tuple[Constraint, ...]) -> Array:
    """The t at which some psi jumps or bends, in order."""
    return np.array(sorted({x for c in constraints for x in c.breaks}))


def pieces(low: float, high: float, stops: Array, length: float) -> tuple[Array, Array]:
    """(left, right) of intervals of at most `length` that cover [low, high] and end at every stop inside it."""
    ends = np.unique(np.concatenate([[low, high], stops[(stops > low) & (stops < high)]]))
    cut = [np.linspace(x, y, math.ceil((y - x) / length) + 1) for x, y in itertools.pairwise(ends)]
    edges = np.unique(np.concatenate(cut))
    return edges[:-1], edges[1:]


def gauss(psi: Along, left: Array, right: Array, power: int = 1) -> Array:
    """Integrals of psi^power phi over each [left, right], shape (n,)."""
    half = 0.5 * (right - left)
    t = (left + half)[:, None] + half[:, None] * NODES
    return np.asarray(half * ((psi(t) ** power * density(t)) @ WEIGHTS))


class Cumulative:
    """The integral of psi phi for a psi without a closed form: panel sums, and a part of a panel at each end."""

    def __init__(self, psi: Along, left: Array, right: Array) -> None:
        self.psi, self.edges = psi, np.append(left, right[-1])
        whole = gauss(psi, left, right)
        middle = 0.5 * (left + right)
        halves = gauss(psi, left, middle) + gauss(psi, middle, right)
        self.sums = np.append(0.0, np.cumsum(halves))
        self.error = float(np.abs(whole - halves).sum())
        """Bounds the sums' error, by estimate."""

    def _upto(self, x: Array) -> Array:
        x = np.clip(x, self.edges[0], self.edges[-1])
        place = np.clip(np.searchsorted(self.edges, x, side="right") - 1, 0, len(self.edges) - 2)
        return np.asarray(self.sums[place] + gauss(self.psi, self.edges[place], x))

    def __call__(self, x: Array, y: Array) -> Array:
        """Integral over x < t < y, 0 outside the panels."""
        return self._upto(y) - self._upto(x)


def total(c: Constraint, left: Array, right: Array) -> tuple[float, float]:
    """(E along(t), a bound of its error), the latter an estimate where there is no closed form."""
    if c.integral is not None:
        return float(c.integral(np.array([-np.inf]), np.array([np.inf]))[0]), 0.0
    sums = Cumulative(c.along, left, right)
    return float(sums.sums[-1]), sums.error


def ridders(f: Along, cells: Array) -> Array:
    """A root inside each cell, rows (left, right, f(left), f(right)) with a change of sign; to rounding."""
    x0, x1, y0, y1 = cells.T.copy()
    root = 0.5 * (x0 + x1)
    for _ in range(60):
        xm = 0.5 * (x0 + x1)
        ym = f(xm)
        length = np.sqrt(ym * ym - y0 * y1)
        side = np.where(y0 >= 0.0, 1.0, -1.0)
        new = xm + (xm - x0) * side * ym / np.where(length > 0.0, length, 1.0)
        done = np.abs(new - root) <= 1e-14 * (1.0 + np.abs(new))
        root = new
        if done.all():
            break
        for x, y in ((xm, ym), (root, f(root))):
            inside = (x > x0) & (x < x1)
            lower = inside & ((y >= 0.0) == (y0 >= 0.0))
            upper = inside & ~lower
            x0, y0 = np.where(lower, x, x0), np.where(lower, y, y0)
            x1, y1 = np.where(upper, x, x1), np.where(upper, y, y1)
    return np.asarray(root)
