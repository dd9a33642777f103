"""Votes f(t, s) whose moments are known, random information about them, and the worst vote by a linear program on a grid.

`Rectangles` are random votes in the plane, moments in closed form; `dozen` are profiles E[f | t] of classifiers in up to 10
dimensions, moments by quadrature. Units sigma = 1. Only the constraints come from the package, never a result.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, linprog
from scipy.special import ndtr
from scipy.stats import chi2

from certlut.tablegen.framework import (
    Constraint,
    Information,
    bin,
    curvature,
    curvature_across,
    hermite,
    mixed,
    slope,
    slope_across,
    tail,
    value,
    vote_at,
)

Array = npt.NDArray[np.float64]
NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)


def density(x: Array) -> Array:
    return np.exp(-0.5 * np.square(x)) / math.sqrt(2.0 * math.pi)


def mass(x: Array, y: Array) -> Array:
    """P(x < t < y)."""
    return np.where(np.asarray(x) > 0.0, ndtr(-np.asarray(x)) - ndtr(-np.asarray(y)), ndtr(y) - ndtr(x))


def times(x: Array, k: int) -> Array:
    """x^k phi(x), 0 at infinity."""
    finite = np.where(np.isfinite(x), x, 0.0)
    return np.where(np.isfinite(x), finite**k * density(finite), 0.0)


# Random votes in the plane


class Rectangles:
    """f is a random number, most often 0 or 1, on each cell of a random grid of rectangles; of strips where dimensions = 1."""

    def __init__(self, rng: np.random.Generator, dimensions: int) -> None:
        across = int(rng.integers(1, 4)) if dimensions == 2 else 0
        self.t, self.s = (
            np.concatenate([[-np.inf], np.sort(rng.normal(size=k) * width), [np.inf]])
            for k, width in ((int(rng.integers(1, 6)), 1.5), (across, 1.2))
        )
        f = (rng.random((len(self.t) - 1, len(self.s) - 1)) < rng.uniform(0.3, 0.9)).astype(float)
        if rng.random() < 0.4:
            f = np.where(f > 0.0, rng.uniform(0.5, 1.0), rng.uniform(0.0, 0.5))
        self.f = f

    def vote(self, a: float, b: float = 0.0) -> float:
        """The smoothed vote at the shift (a, b)."""
        return float(mass(self.t[:-1] - a, self.t[1:] - a) @ self.f @ mass(self.s[:-1] - b, self.s[1:] - b))

    def level(self, c: Constraint) -> float:
        """E[f psi] for a ready-made constraint."""
        m0 = mass(self.s[:-1], self.s[1:])
        m1, m2 = -np.diff(times(self.s, 0)), -np.diff(times(self.s, 1))
        t0, t1 = mass(self.t[:-1], self.t[1:]), -np.diff(times(self.t, 0))
        if c.name in ("slope_across", "mixed", "curvature_across"):
            along, across = {"slope_across": (t0, m1), "mixed": (t1, m1), "curvature_across": (t0, m2)}[c.name]
            return float(along @ self.f @ across)
        assert c.integral is not None
        return float(c.integral(self.t[:-1], self.t[1:]) @ self.f @ m0)


def random_information(
    rng: np.random.Generator, dimensions: int, most: int = 6, plane: bool = False
) -> tuple[Rectangles, Information]:
    """(f, some of its moments, of random kinds, exact or as bounds): what f has, another may have too."""
    f = Rectangles(rng, dimensions)

    def sense() -> str:
        return str(rng.choice([">=", "="]))

    pool = [value(0, sense()), slope(0, sense()), curvature(0), hermite(3, 0), hermite(4, 0)]
    pool += [tail(rng.uniform(0.5, 2.0), 0, str(rng.choice(["<=", "="]))), tail(rng.uniform(1.5, 3.0), 0, side=-1)]
    pool += [bin(-rng.uniform(0.0, 2.0), rng.uniform(0.0, 2.0), 0), vote_at(rng.uniform(-1.5, 1.5), 0, sense())]
    if dimensions == 2:
        pool += [slope_across(0, sense()), mixed(0)]
    if plane:
        pool = [curvature_across(0), *pool]
    chosen = rng.permutation(np.arange(int(plane), len(pool)))[: rng.integers(1, most + 1)]
    constraints = [pool[0]] * plane + [pool[i] for i in chosen[: most - plane]]
    levels = []
    for c in constraints:
        level = f.level(c)
        if c.sense != "=" and rng.random() < 0.5:
            # A bound with room to spare.
            level += abs(level) * rng.uniform(0.0, 0.05) * (-1.0 if c.sense == ">=" else 1.0)
        levels.append(level)
    return f, Information(constraints).at(levels)


# Classifiers by their profile along the shift


class Profile:
    """A classifier by E[f | t], smooth between the breaks; the shift runs along t."""

    def __init__(self, name: str, f: Callable[[Array], Array], breaks: Sequence[float] = ()) -> None:
        self.name, self.f, self.breaks = name, f, tuple(breaks)

    def _integral(self, g: Callable[[Array], Array], more: Sequence[float] = ()) -> float:
        low, high = -12.0, 18.0
        ends = np.unique([low, high, *(x for x in (*self.breaks, *more) if low < x < high)])
        cut = [np.linspace(x, y, math.ceil((y - x) / 0.1) + 1) for x, y in itertools.pairwise(ends)]
        edges = np.unique(np.concatenate(cut))
        half = 0.5 * np.diff(edges)
        t = edges[:-1, None] + half[:, None] * (NODES + 1.0)
        return float(half @ ((self.f(t) * g(t)) @ WEIGHTS))

    def level(self, c: Constraint) -> float:
        """E[f psi] for a psi of t."""
        return self._integral(lambda t: c.along(t) * density(t), c.breaks)

    def vote(self, r: float) -> float:
        """The smoothed vote at the shift r."""
        return self._integral(lambda t: density(t - r))

    def truth(self, limit: float = 6.0) -> float:
        """The first r at which the vote falls to 1/2; inf where it has not by `limit`."""
        r = np.linspace(0.0, limit, 601)
        below = np.nonzero([self.vote(float(x)) < 0.5 for x in r])[0]
        if not len(below):
            return math.inf
        return float(brentq(lambda x: self.vote(x) - 0.5, r[below[0] - 1], r[below[0]], xtol=1e-11))


def half_spaces(degrees: Sequence[float], z: float) -> Profile:
    """Against: the union of the half-spaces w.u > z, w in the plane of (t, s) at these angles to t."""
    angles = np.radians(degrees)

    def f(t: Array) -> Array:
        low, high = np.full(t.shape, -np.inf), np.full(t.shape, np.inf)
        for x in angles:
            end = (z - t * math.cos(x)) / math.sin(x)
            low, high = (low, np.minimum(high, end)) if x > 0.0 else (np.maximum(low, end), high)
        return np.where(high > low, mass(np.minimum(low, high), high), 0.0)

    corners = [
        float(np.linalg.solve([[math.cos(x), math.sin(x)], [math.cos(y), math.sin(y)]], [z, z])[0])
        for x, y in itertools.combinations(angles, 2)
    ]
    return Profile(f"union of {len(degrees)} half-spaces", f, [*corners, *(z / np.cos(angles)).tolist()])


def shell(name: str, d: int, centre: float, inner: float, outer: float, inside: bool = True) -> Profile:
    """The vote, or the votes against, where inner < |u - centre| < outer; the centre on the t axis."""

    def f(t: Array) -> Array:
        rest = [chi2.cdf(np.maximum(x * x - (t - centre) ** 2, 0.0), d - 1) for x in (inner, outer)]
        return np.asarray(rest[1] - rest[0] if inside else 1.0 - rest[1] + rest[0])

    return Profile(name, f, [centre + x for x in (-outer, -inner, inner, outer)])


def quadratic(name: str, a: Array, b: Array, c: float) -> Profile:
    """The vote where u.A u + b.u < c, u = (t, s)."""
    p, q = float(a[1, 1]), a[0, 1]

    def f(t: Array) -> Array:
        linear, constant = 2.0 * q * t + b[1], a[0, 0] * t * t + b[0] * t - c
        spread = linear * linear - 4.0 * p * constant
        root = np.sqrt(np.maximum(spread, 0.0)) / (2.0 * abs(p))
        between = np.where(spread > 0.0, mass(-linear / (2.0 * p) - root, -linear / (2.0 * p) + root), 0.0)
        return np.asarray(between if p > 0.0 else 1.0 - between)

    turns = np.roots([4.0 * q * q - 4.0 * p * a[0, 0], 4.0 * (q * b[1] - p * b[0]), b[1] ** 2 + 4.0 * p * c])
    return Profile(name, f, [float(x.real) for x in turns if abs(x.imag) < 1e-12])


def random_quadratics(count: int, seed: int) -> list[Profile]:
    """Quadratic votes between .75 and .98 that fall to 1/2 before r = 3."""
    rng, out = np.random.default_rng(seed), []
    while len(out) < count:
        a = rng.normal(size=(2, 2))
        made = quadratic(
            f"random quadratic {len(out) + 1}", (a + a.T) / 2.0, rng.normal(size=2) * 1.5, float(rng.uniform(0.5, 3.0))
        )
        if 0.75 < made.vote(0.0) < 0.98 and made.truth(3.0) < 3.0:
            out.append(made)
    return out


def dozen() -> list[Profile]:
    """Twelve classifiers, each with a direction of shift."""
    slanted = math.sqrt(0.5)
    return [
        Profile("half-space", lambda t: (t < 1.5) * 1.0, [1.5]),
        Profile("half-space, 45 degrees off", lambda t: ndtr((1.2 - slanted * t) / slanted)),
        Profile("slab", lambda t: (np.abs(t) < 1.8) * 1.0, [-1.8, 1.8]),
        half_spaces([-40, 40], 1.6),
        half_spaces([-60, -20, 20, 60], 1.6),
        half_spaces([-70, -50, -30, -10, 10, 30, 50, 70], 1.6),
        shell("ball, d = 10", 10, -0.5, 0.0, 3.9),
        shell("shell, d = 10", 10, 0.0, 2.2, 4.2),
        shell("outside of a ball, d = 3", 3, 2.6, 0.0, 2.0, inside=False),
        *random_quadratics(2, 7),
        Profile("a gap and a half-space", lambda t: 1.0 - ((t > 1.2) & (t < 1.5)) - (t > 2.2), [1.2, 1.5, 2.2]),
    ]


# The worst vote by another route

POWERS = {
    "value": (0, 0),
    "slope": (1, 0),
    "slope_across": (0, 1),
    "curvature": (2, 0),
    "mixed": (1, 1),
    "curvature_across": (0, 2),
}
# Infinite cells end here where their corners are looked at.
END = 6.0


def _edges(cells: int, low: float, high: float) -> Array:
    return np.concatenate([[-np.inf], np.linspace(low, high, cells - 1), [np.inf]])


def _moments(low: Array, high: Array) -> list[Array]:
    """Of He_0, He_1, He_2 over the intervals."""
    return [mass(low, high), *(times(low, k) - times(high, k) for k in (0, 1))]


def _hermites(x: Array) -> list[Array]:
    return [np.ones_like(x), x, x * x - 1.0]


def grid_vote(names: Sequence[str], levels: Sequence[float], r: float, boxes: Array) -> tuple[float, Array]:
    """(least vote, multipliers) over votes constant on the boxes, rows t0, t1, s0, s1, that have exactly these moments."""
    t0, t1, s0, s1 = boxes
    along, across = _moments(t0, t1), _moments(s0, s1)
    rows = np.array([along[POWERS[name][0]] * across[POWERS[name][1]] for name in names])
    cost = mass(t0 - r, t1 - r) * across[0]
    unit = np.maximum(np.abs(rows).max(axis=0), cost) + 1e-300
    tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    bounds = np.stack([np.zeros_like(unit), unit], axis=1)
    found = linprog(cost / unit, A_eq=rows / unit, b_eq=levels, bounds=bounds, method="highs", options=tight)
    return float(found.fun), np.asarray(found.eqlin.marginals)


def _halved(low: Array, high: Array) -> list[tuple[Array, Array]]:
    """Both halves of finite intervals; an infinite one stays whole, with an empty one beside it."""
    finite = np.isfinite(low) & np.isfinite(high)
    middle = np.where(finite, 0.5 * (np.where(finite, low, 0.0) + np.where(finite, high, 0.0)), high)
    return [(low, middle), (middle, high)]


def refined(names: Sequence[str], multipliers: Array, r: float, boxes: Array) -> Array:
    """The boxes, halved each way where the edge of the worst set may run."""
    ends = np.clip(boxes, -END, END + r)
    t = np.stack([ends[0], 0.5 * (ends[0] + ends[1]), ends[1]])[:, None]
    s = np.stack([ends[2], 0.5 * (ends[2] + ends[3]), ends[3]])[None]
    along, across = _hermites(t), _hermites(s)
    surplus = sum(a * along[POWERS[name][0]] * across[POWERS[name][1]] for a, name in zip(multipliers, names, strict=True))
    surplus = np.reshape(surplus - np.exp(r * t - 0.5 * r * r), (9, -1))
    low, high = surplus.min(axis=0), surplus.max(axis=0)
    near = (low - (high - low) < 0.0) & (high + (high - low) > 0.0)
    parts = [np.stack([*x, *y]) for x in _halved(*boxes[:2, near]) for y in _halved(*boxes[2:, near])]
    every = np.concatenate([boxes[:, ~near], *parts], axis=1)
    return every[:, (every[0] < every[1]) & (every[2] < every[3])]


def extrapolated(names: Sequence[str], levels: Sequence[float], r: float, cells: tuple[int, int]) -> float:
    """The least vote on a grid that is refined along the edge of the worst set, extrapolated: the error falls with the square."""
    t, s = _edges(cells[0], -5.0, 5.0 + r), _edges(cells[1], -4.5, 4.5) if cells[1] > 1 else np.array([-np.inf, np.inf])
    low, high = (np.meshgrid(x, y, indexing="ij") for x, y in ((t[:-1], s[:-1]), (t[1:], s[1:])))
    boxes = np.stack([low[0].ravel(), high[0].ravel(), low[1].ravel(), high[1].ravel()])
    votes = []
    for _ in range(5):
        vote, multipliers = grid_vote(names, levels, r, boxes)
        votes.append(vote)
        boxes = refined(names, multipliers, r, boxes)
    return votes[-1] - (votes[-2] - votes[-1]) / 3.0
