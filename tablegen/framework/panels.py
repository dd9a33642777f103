"""Integrals over t of what was integrated over s: Gauss-Lobatto panels, halved until two halves agree with their whole.

Two halves and their whole would also agree on what lies between all their points. So panels end where the worst set may start or
stop between two points of t, for all s nearly at once: F = Lam - kappa L is watched on a fine grid of t at a few s, an edge that
crosses a cell at every s is found, and where F comes near zero and turns a panel ends at the turn. The ends of a panel are points
of its rule, so nothing hides at an end.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from certlut.kernels.arrays import Array

from .dual import Hinge
from .information import Constraint, density
from .quadrature import REACH, ROUNDING, breaks, pieces, ridders


def lobatto(n: int) -> tuple[Array, Array]:
    """Nodes and weights on [-1, 1], both ends among them."""
    legendre = np.polynomial.legendre.Legendre.basis(n - 1)
    nodes = np.concatenate([[-1.0], np.sort(legendre.deriv().roots().real), [1.0]])
    return nodes, 2.0 / (n * (n - 1) * legendre(nodes) ** 2)


ORDER = 8
_NODES, _WEIGHTS = lobatto(ORDER)
_WHOLE = 0.5 * (_NODES + 1.0)
# A panel [0, 1]: its own points, then those of its two halves.
POINTS = np.concatenate([_WHOLE, 0.5 * _WHOLE, 0.5 + 0.5 * _WHOLE])
WHOLE, HALVES = slice(0, ORDER), slice(ORDER, 3 * ORDER)
WHOLE_WEIGHTS = 0.5 * _WEIGHTS
HALF_WEIGHTS = np.tile(0.25 * _WEIGHTS, 2)
PANEL = 1.2
ROUNDS = 45
# Panels made for earlier multipliers are kept up to so many times the first ones.
CROWD = 5
# What a panel's rounding may put between two sums, by the multipliers' size.
RELATIVE = 2e-16
# The fine grid of t, and the s at which F is watched there.
FINE = 0.04
WATCHED = np.linspace(-4.5, 4.5, 7)


# What is known of psi at the panels' points: arrays of shape (..., panels, points).
Known = tuple[Array, ...]


@dataclass(frozen=True)
class Pieces:
    """Panels of t with what is known of psi at their points."""

    left: Array
    right: Array
    known: Known

    @property
    def t(self) -> Array:
        """The points, shape (panels, points). psi is right-continuous: a panel does not see the value beyond its right end."""
        t = self.left[:, None] + (self.right - self.left)[:, None] * POINTS
        return np.asarray(np.minimum(t, np.nextafter(self.right, -np.inf)[:, None]))

    def take(self, chosen: npt.NDArray[np.bool_]) -> "Pieces":
        """Some of them."""
        return Pieces(self.left[chosen], self.right[chosen], tuple(x[..., chosen, :] for x in self.known))


def joined(parts: list[Pieces]) -> Pieces:
    """All of them."""
    known = tuple(np.concatenate(x, axis=-2) for x in zip(*(p.known for p in parts), strict=True))
    return Pieces(np.concatenate([p.left for p in parts]), np.concatenate([p.right for p in parts]), known)


class Panels(ABC):
    """The hinge integrals for a shift (a, b), b >= 0. A subclass knows the integrals over s at given t."""

    mean: Array
    size: Array
    uncertain: Array
    """Bounds the error of `mean`, shape (m,)."""
    # How far a panel and its halves may differ, in the hinge and in the moments; and the most panels there may be.
    hinge, moment, most = 1e-12, 1e-10, 2000
    rounds = 3

    def __init__(self, constraints: tuple[Constraint, ...], a: float, b: float) -> None:
        self.constraints, self.a, self.b = constraints, a, b
        stops = breaks(constraints)
        self.low, self.high = -REACH + min(a, 0.0), REACH + max(a, 0.0)
        self.first = self.pieces = self._made(*pieces(self.low, self.high, stops, PANEL))
        self.fine = pieces(self.low, self.high, stops, FINE)[0]
        watched = WATCHED[:, None] + b * (WATCHED[:, None] > 0.0)
        self._watched = np.array([c.psi(self.fine, watched) for c in constraints]), self.likelihood(self.fine, watched)
        self.grid = np.append(self.low, pieces(self.low, self.high, stops, 0.45)[1])
        self.across = 24

    @abstractmethod
    def functions(self, t: Array) -> Known:
        """What is kept at the points t, shape (panels, points): arrays of shape (..., panels, points)."""

    @abstractmethod
    def rows(self, a: Array, kappa: float, known: Known) -> Array:
        """E over s of the hinge, then of h psi, at the points known; shape (1 + m, panels, points)."""

    @abstractmethod
    def bent(self, a: Array, kappa: float, known: Known, weight: Array) -> Array:
        """The hinge's Hessian, with `weight`, shape (panels, points), for each point; after `rows` of the same arguments."""

    @abstractmethod
    def cells(self) -> tuple[Array, Array]:
        """See `Hinges`."""

    def likelihood(self, t: Array, s: Array) -> Array:
        """L(t, s)."""
        return np.asarray(np.exp(self.a * t + self.b * s - 0.5 * (self.a**2 + self.b**2)))

    def lam(self, a: Array, t: Array, s: Array) -> Array:
        """Lam(t, s)."""
        return np.asarray(sum(x * c.psi(t, s) for x, c in zip(a, self.constraints, strict=True)))

    def _made(self, left: Array, right: Array) -> Pieces:
        return Pieces(left, right, self.functions(Pieces(left, right, ()).t))

    def _narrow(self, a: Array, kappa: float) -> Array:
        """The t at which the worst set may start or stop at every s nearly at once, and some on both sides, closer the nearer."""
        psi, likelihood = self._watched
        y = np.tensordot(a, psi, axes=1) - kappa * likelihood
        up = y >= 0.0
        crossed = np.nonzero((up[:, :-1] != up[:, 1:]).all(axis=0))[0]
        middle = len(y) // 2
        left, right, y0, y1 = self.fine[crossed], self.fine[crossed + 1], y[middle, crossed], y[middle, crossed + 1]
        zero = np.zeros(1)
        roots = ridders(lambda t: self.lam(a, t, zero) - kappa * self.likelihood(t, zero), np.stack([left, right, y0, y1], axis=1))
        # How long the edge takes to cross all s.
        width = np.maximum(np.ptp(y[:, crossed], axis=0) / np.abs(y1 - y0), 1e-9) * (right - left)
        near = width * 4.0 ** np.arange(16)[:, None]
        graded = np.concatenate([(roots - near)[near < FINE], (roots + near)[near < FINE]])
        bend = y[:, :-2] - 2.0 * y[:, 1:-1] + y[:, 2:]
        size = np.abs(y)
        turns = (up[:, 1:-1] == up[:, :-2]) & (up[:, 1:-1] == up[:, 2:]) & (size[:, 1:-1] < 0.25 * np.abs(bend))
        turns &= (size[:, 1:-1] <= size[:, :-2]) & (size[:, 1:-1] <= size[:, 2:])
        row, place = np.nonzero(turns)
        step = 0.5 * (y[row, place] - y[row, place + 2]) / bend[row, place]
        return np.concatenate([roots, graded, self.fine[place + 1] + step * (self.fine[place + 2] - self.fine[place + 1])])

    def _settled(self, a: Array, kappa: float) -> Pieces:
        """Panels that end at the t of `_narrow`, made from those of the last call."""
        old = self.pieces if len(self.pieces.left) <= CROWD * len(self.first.left) else self.first
        edges = np.unique(np.append(old.left, self.high))
        found = np.clip(self._narrow(a, kappa), self.low, self.high)
        near = np.searchsorted(edges, found)
        far = np.minimum(found - edges[np.maximum(near - 1, 0)], edges[np.minimum(near, len(edges) - 1)] - found) > 1e-10
        if not far.any():
            return old
        edges = np.unique(np.append(edges, found[far]))
        left, right = edges[:-1], edges[1:]
        changed = ~np.isin(left, old.left) | ~np.isin(right, old.right)
        kept = np.isin(old.left, left[~changed])
        return joined([old.take(kept), self._made(left[changed], right[changed])])

    def divide(self, *points: Array) -> None:
        """See `Hinges`: where panels were halved three times or more; and the whole grid."""
        self(points[-1])
        narrow = self.pieces.right - self.pieces.left < PANEL / 6.0
        ends = np.sort(np.append(self.pieces.left[narrow], self.pieces.right[narrow]))
        self.grid = np.unique(np.concatenate([self.grid, ends[::4], 0.5 * (self.grid[1:] + self.grid[:-1])]))
        self.across += self.across // 2

    def __call__(self, a: Array, kappa: float = 1.0) -> Hinge:
        """See `Hinges`."""
        m = len(a)
        new, done = self._settled(a, kappa), []
        weighed, count = float(np.abs(a) @ self.size), 0
        totals, sizes, hessian, error = np.zeros(1 + m), np.zeros(1 + m), np.zeros((m, m)), 0.0
        for last in range(ROUNDS - 1, -1, -1):
            t, width = new.t, new.right - new.left
            phi = density(t)
            rows = self.rows(a, kappa, new.known) * phi
            halves = rows[..., HALVES] @ HALF_WEIGHTS * width
            apart = np.abs(rows[..., WHOLE] @ WHOLE_WEIGHTS * width - halves)
            rough = (apart[0] > self.hinge + RELATIVE * weighed) | (apart[1:] > self.moment * self.size[:, None]).any(axis=0)
            count += len(width)
            if not last or count > self.most:
                rough[:] = False
            weight = np.zeros_like(phi)
            weight[:, HALVES] = phi[:, HALVES] * (width * ~rough)[:, None] * HALF_WEIGHTS
            hessian += self.bent(a, kappa, new.known, weight)
            totals += halves[:, ~rough].sum(axis=1)
            sizes += np.abs(halves[:, ~rough]).sum(axis=1)
            error += float(apart[0, ~rough].sum())
            done.append(new.take(~rough))
            if not rough.any():
                break
            middle = 0.5 * (new.left + new.right)[rough]
            new = self._made(np.append(new.left[rough], middle), np.append(middle, new.right[rough]))
        self.pieces = joined(done)
        error += float(np.abs(a) @ self.uncertain)
        error += ROUNDING * float(1.0 + np.abs(a) @ (sizes[1:] + np.abs(self.mean)))
        return Hinge(float(totals[0]), totals[1:], hessian, error)
