"""Any information in the plane: given t, the worst set's edges along s are bracketed on a grid, and panels in s give the integrals.

Between two neighbouring points of one sign a parabola through three points tells whether F = Lam - kappa L touches zero; where its
vertex crosses, both edges are taken. `finer` repeats the hinge on twice the panels: what that changes is the error, an estimate.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from certlut.kernels.arrays import Array

from .dual import Hinge
from .information import Constraint, density, mass
from .panels import HALF_WEIGHTS, HALVES, WHOLE, WHOLE_WEIGHTS, Known, Panels
from .quadrature import ridders

NODES, WEIGHTS = np.polynomial.legendre.leggauss(10)
# Half the noise's range in s, and the length of a panel there.
WIDE, LENGTH = 9.0, 1.5
# See `Strip`.
TILT = 1e-3


class Plane(Panels):
    """The hinge integrals for any constraints; `fineness` divides the panels in s."""

    hinge, moment, most = 1e-9, 1e-6, 200

    def __init__(self, constraints: tuple[Constraint, ...], a: float, b: float, fineness: int = 1) -> None:
        edges = np.linspace(-WIDE, WIDE + b, int(np.ceil((2.0 * WIDE + b) / LENGTH)) * fineness + 1)
        half = 0.5 * np.diff(edges)
        self.stops = edges[1:]
        self.s = (edges[:-1, None] + half[:, None] * (NODES + 1.0)).ravel()
        self.weight = (half[:, None] * WEIGHTS).ravel() * density(self.s)
        super().__init__(constraints, a, b)
        # E psi and E psi^2 from the panels' halves, the former also from the panels themselves.
        psi, width = self.first.known[0], self.first.right - self.first.left
        rows = np.tensordot(self.weight, np.stack([psi, psi * psi]), axes=(0, 2)) * density(self.first.t)
        self.mean, squares = (rows[..., HALVES] @ HALF_WEIGHTS) @ width
        self.uncertain = np.abs((rows[0][..., WHOLE] @ WHOLE_WEIGHTS) @ width - self.mean)
        self.size = np.sqrt(np.maximum(squares, 1e-300))

    def functions(self, t: Array) -> Known:
        """psi at every s and t, shape (m, s, panels, points), and t itself."""
        return np.array([c.psi(t, self.s[:, None, None]) for c in self.constraints]), t

    def _surplus(self, a: Array, kappa: float, t: Array, s: Array) -> Array:
        """F = Lam - kappa L."""
        return self.lam(a, t, s) - kappa * self.likelihood(t, s)

    def _touches(self, a: Array, kappa: float, y: Array, t: Array) -> tuple[npt.NDArray[np.intp], Array]:
        """(points, brackets (left, right, F(left), F(right))) where F comes back across zero between three points of one sign."""
        up, size = y >= 0.0, np.abs(y)
        least = (up[1:-1] == up[:-2]) & (up[1:-1] == up[2:]) & (size[1:-1] < size[:-2]) & (size[1:-1] < size[2:])
        place, point = np.nonzero(least)
        s0, s1, s2 = self.s[place], self.s[place + 1], self.s[place + 2]
        y0, y1, y2 = y[place, point], y[place + 1, point], y[place + 2, point]
        # Divided differences: y0 + d1 (s - s0) + d2 (s - s0)(s - s1).
        d1 = (y1 - y0) / (s1 - s0)
        d2 = ((y2 - y1) / (s2 - s1) - d1) / (s2 - s0)
        vertex = np.clip(0.5 * (s0 + s1 - d1 / d2), s0, s2)
        there = self._surplus(a, kappa, t[point], vertex)
        touch = (there >= 0.0) != (y1 >= 0.0)
        cells = np.concatenate([np.stack([s0, vertex, y0, there])[:, touch], np.stack([vertex, s2, there, y2])[:, touch]], axis=1)
        return np.tile(point[touch], 2), cells

    def _flips(self, a: Array, kappa: float, y: Array, t: Array) -> tuple[npt.NDArray[np.intp], Array, Array]:
        """(point, s, +1 or -1) of every edge along s, -1 where h ends; y is F, shape (s, points)."""
        up = y >= 0.0
        place, point = np.nonzero(up[:-1] != up[1:])
        cells = np.stack([self.s[place], self.s[place + 1], y[place, point], y[place + 1, point]])
        more, touched = self._touches(a, kappa, y, t)
        point, cells = np.append(point, more), np.concatenate([cells, touched], axis=1)
        return point, ridders(lambda x: self._surplus(a, kappa, t[point], x), cells.T), np.where(cells[3] >= 0.0, -1.0, 1.0)

    def rows(self, a: Array, kappa: float, known: Known) -> Array:
        """See `Panels`: from each edge on, the panel's rest and the panels beyond, with the sign that h gets there."""
        psi, t = known
        flat = t.ravel()
        psi = psi.reshape(len(a), len(self.s), -1)
        y = np.tensordot(a, psi, axes=1) - kappa * self.likelihood(flat, self.s[:, None])
        parts = np.concatenate([-y[None], psi]) * self.weight[:, None]
        panels = parts.reshape(1 + len(a), -1, len(NODES), len(flat)).sum(axis=2)
        beyond = np.concatenate([np.cumsum(panels[:, ::-1], axis=1)[:, ::-1], np.zeros((1 + len(a), 1, len(flat)))], axis=1)
        point, s, sign = self._flips(a, kappa, y, flat)
        place = np.searchsorted(self.stops[:-1], s)
        half = 0.5 * (self.stops[place] - s)
        nodes = s[:, None] + half[:, None] * (NODES + 1.0)
        at = flat[point][:, None]
        values = np.array([-self._surplus(a, kappa, at, nodes), *(c.psi(at, nodes) for c in self.constraints)])
        rest = half * ((values * density(nodes)) @ WEIGHTS)
        out = beyond[:, 0] * (y[0] < 0.0)
        for row, change in zip(out, sign * (rest + beyond[:, place + 1, point]), strict=True):
            row += np.bincount(point, change, minlength=len(flat))
        self._edges = point, s, y
        return np.asarray(out.reshape(1 + len(a), *t.shape))

    def bent(self, a: Array, kappa: float, known: Known, weight: Array) -> Array:
        """See `Panels`: phi(s) psi psi' / |F'(s)| at every edge; where F does not depend on s, at the edge of a slight tilt."""
        point, s, y = self._edges
        t = known[1].ravel()
        step = 1e-6
        lam = [self._surplus(a, kappa, t[point], x) for x in (s - step, s + step)]
        steep = np.abs(lam[1] - lam[0]) / (2.0 * step)
        tilt = TILT * self.likelihood(t, np.zeros(1))
        level = np.nonzero(np.ptp(y[np.abs(self.s) < 3.0], axis=0) < tilt)[0]
        point = np.append(point, level)
        s = np.append(s, -y[len(self.s) // 2, level] / tilt[level])
        w = weight.ravel()[point] * density(s) / np.maximum(np.append(steep, tilt[level]), 1e-12)
        psi = np.array([c.psi(t[point], s) for c in self.constraints])
        return np.asarray((psi * w) @ psi.T)

    def finer(self, a: Array, kappa: float) -> Hinge:
        """The hinge on twice the panels in s, its error at least what they change of it and of `mean`."""
        coarse, fine = self(a, kappa), Plane(self.constraints, self.a, self.b, 2)
        out = fine(a, kappa)
        change = abs(coarse.value - out.value) + float(np.abs(a) @ np.abs(fine.mean - self.mean))
        return replace(out, error=out.error + change)

    def cells(self) -> tuple[Array, Array]:
        """See `Hinges`; psi at three points each way."""
        x, y = self.grid[:-1], self.grid[1:]
        s = np.linspace(-6.0, 6.0 + self.b, self.across + 7)
        nodes, weights = np.polynomial.legendre.leggauss(3)
        t_half, s_half = 0.5 * (y - x), 0.5 * np.diff(s)
        ts, ss = x[:, None] + t_half[:, None] * (nodes + 1.0), s[:-1, None] + s_half[:, None] * (nodes + 1.0)
        t_weight, s_weight = (h[:, None] * weights * density(z) for h, z in ((t_half, ts), (s_half, ss)))
        values = np.array([c.psi(ts[:, :, None, None], ss) for c in self.constraints])
        psi = np.einsum("mijkl,ij,kl->mik", values, t_weight, s_weight)
        likelihood = mass(x - self.a, y - self.a)[:, None] * mass(s[:-1] - self.b, s[1:] - self.b)
        return psi.reshape(len(psi), -1), likelihood.ravel()
