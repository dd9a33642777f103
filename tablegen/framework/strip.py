"""Information affine in s, any shift: given t the worst set is an interval of s, and the integrals over s are closed forms.

Given t, `F(s) = p + c s - exp(log_e + b s)` with p = sum a_i along_i(t), c = sum a_i across_i(t), log_e = a t - (a^2 + b^2) / 2 for
the shift (a, b), b >= 0: concave in s, so f_a = {F >= 0} is an interval {s1 <= s <= s2}.
"""

import numpy as np
from scipy.special import ndtr, wrightomega

from certlut.kernels.arrays import Array

from .dual import Hinge
from .information import Constraint, density, mass
from .line import Line
from .panels import Known, Panels
from .quadrature import gauss, total

# Where F hardly depends on s the edges run along s, which the Hessian sees only at a slight tilt.
TILT = 1e-3


def pair(x: Array) -> tuple[Array, Array]:
    """Both solutions v of v - log v = x > 1, the one below 1 and the one above: Newton from outside."""
    root = np.sqrt(2.0 * (x - 1.0))
    large = x + np.log(x + root)
    # For the small one the unknown is y = -log v: y + exp(-y) = x.
    y = np.where(x > 2.0, x, root)
    for _ in range(9):
        up = (large - np.log(large) - x) * large / np.maximum(large - 1.0, 1e-8)
        down = (y + np.exp(-y) - x) / np.maximum(-np.expm1(-y), 1e-8)
        large, y = np.maximum(large - up, 1.0), np.maximum(y - down, 0.0)
        if max(np.abs(up).max(initial=0.0), np.abs(down).max(initial=0.0)) < 1e-8:
            break
    return np.exp(-y), large


def section(p: Array, c: Array, log_e: Array, b: float) -> tuple[Array, Array]:
    """(s1, s2), the ends of {s: p + c s >= exp(log_e + b s)}, infinite where it has none; both +inf where it is empty."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if b == 0.0:
            e = np.exp(log_e)
            s = (e - p) / c
            low = np.where(c > 0.0, s, np.where((c < 0.0) | (p >= e), -np.inf, np.inf))
            return low, np.where(c < 0.0, s, np.inf)
        k = b / np.abs(c)
        log_k, kp = np.log(k), k * p
        # c < 0: one end. For w = k (p + c s) there: w + log w = log k + log_e + k p.
        w = wrightomega(np.where(c < 0.0, log_k + log_e + kp, 0.0))
        falling = np.where(w < 1.0, (kp - w) / b, (np.log(w) - log_k - log_e) / b)
        # c > 0: v = k (p + c s) solves v - log v = k p - log_e - log k, twice or never.
        x = kp - log_e - log_k
        twice = (c > 0.0) & (x > 1.0)
        small, large = np.full(p.shape, np.inf), np.ones(p.shape)
        small[twice], large[twice] = pair(x[twice])
        low = np.where(c > 0.0, (small - kp) / b, -np.inf)
        rising = (np.log(large) - log_k - log_e) / b
        high = np.where(c > 0.0, rising, np.where(c < 0.0, falling, (np.log(p) - log_e) / b))
    empty = np.where(c > 0.0, ~(x > 1.0), (c == 0.0) & ~(p > 0.0))
    return np.where(empty, np.inf, low), np.where(empty, np.inf, high)


def _across(c: Constraint, t: Array) -> Array:
    return np.zeros_like(t) if c.across is None else c.across(t)


class Strip(Panels):
    """The hinge integrals for constraints affine in s."""

    def __init__(self, constraints: tuple[Constraint, ...], a: float, b: float) -> None:
        super().__init__(constraints, a, b)
        left, right = self.first.left, self.first.right
        self.mean, self.uncertain = np.array([total(c, left, right) for c in constraints]).T
        squares = [sum(gauss(f, left, right, 2).sum() for f in (c.along, c.across) if f is not None) for c in constraints]
        self.size = np.sqrt(np.maximum(squares, 1e-300))
        self._tilting = np.array([c.across is not None for c in constraints])
        self._line = Line(constraints, a) if b == 0.0 else None

    def __call__(self, a: Array, kappa: float = 1.0) -> Hinge:
        """See `Hinges`. A shift along t with no weight on s has edges along s: those that `Line` finds exactly."""
        if self._line is not None and not a[self._tilting].any():
            return self._line(a, kappa)
        return super().__call__(a, kappa)

    def functions(self, t: Array) -> Known:
        """Along and across, both (m, panels, points), and t itself."""
        return np.array([c.along(t) for c in self.constraints]), np.array([_across(c, t) for c in self.constraints]), t

    def _terms(self, a: Array, kappa: float, known: Known) -> tuple[Array, Array, Array, float]:
        along, across, t = known
        p, c = np.tensordot(a, along, axes=1), np.tensordot(a, across, axes=1)
        if kappa == 0.0:
            return p, c, np.full_like(t, -np.inf), 0.0
        return p, c, self.a * t - 0.5 * (self.a**2 + self.b**2), self.b

    def rows(self, a: Array, kappa: float, known: Known) -> Array:
        """See `Panels`."""
        along, across, _ = known
        p, c, log_e, b = self._terms(a, kappa, known)
        s1, s2 = ends = section(p, c, log_e, b)
        self._last = p, c, log_e, b, ends
        m0, m1 = ndtr(s1) + ndtr(-s2), density(s2) - density(s1)
        likelihood = np.exp(log_e + 0.5 * b * b) * (ndtr(s1 - b) + ndtr(b - s2))
        return np.concatenate([(likelihood - p * m0 - c * m1)[None], along * m0 + across * m1])

    def bent(self, a: Array, kappa: float, known: Known, weight: Array) -> Array:
        """See `Panels`: phi(s) psi psi' / |F'(s)| at both ends."""
        along, across, _ = known
        p, c, log_e, b, ends = self._last
        flat = np.abs(c) + b * np.abs(p) < TILT * np.abs(p)
        if flat.any():
            c = np.where(flat, c - TILT * np.abs(p), c)
            ends = section(p, c, log_e, b)
        k0, k1, k2 = np.zeros((3, *p.shape))
        for s in ends:
            there = np.isfinite(s)
            x = np.where(there, s, 0.0)
            with np.errstate(over="ignore"):
                steep = np.abs(c - b * np.exp(np.where(there, log_e + b * x, -np.inf)))
            w = np.where(there, weight * density(x) / np.maximum(steep, 1e-12), 0.0)
            k0, k1, k2 = k0 + w, k1 + w * x, k2 + w * x * x
        sides = (1, 2), (1, 2)
        cross = np.tensordot(along * k1, across, sides)
        return np.asarray(np.tensordot(along * k0, along, sides) + np.tensordot(across * k2, across, sides) + cross + cross.T)

    def cells(self) -> tuple[Array, Array]:
        """See `Hinges`."""
        x, y = self.grid[:-1], self.grid[1:]
        s = np.concatenate([[-np.inf], np.linspace(-5.0, 5.0 + self.b, self.across - 1), [np.inf]])
        m0, m1 = mass(s[:-1], s[1:]), density(s[:-1]) - density(s[1:])
        along = np.array([gauss(c.along, x, y) for c in self.constraints])
        across = np.array([gauss(lambda t, c=c: _across(c, t), x, y) for c in self.constraints])  # type: ignore[misc]
        psi = along[:, :, None] * m0 + across[:, :, None] * m1
        likelihood = mass(x - self.a, y - self.a)[:, None] * mass(s[:-1] - self.b, s[1:] - self.b)
        return psi.reshape(len(psi), -1), likelihood.ravel()
