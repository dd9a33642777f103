"""Search for adversarial points inside certified balls of classifiers whose smoothed vote is known exactly (closed.py).

The bounds handed to the threats are the exact ones, so every ball is as large as the table, or the exact solver, allows; and for
classifiers whose moments can be drawn, the balls of n samples by every estimator, without bets, which need every sample. Points are
random, extreme (vertices), and found by Frank-Wolfe from random starts. Worst of all is the classifier of the dual itself,
f_a = {L_r(u1) <= a.(1, u)}, whose vote must fall to exactly 1/2 at the radius: from q and lower bounds of the gradient along and
across the shift, no larger radius follows.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import brentq, root
from scipy.special import ndtr, ndtri

from ..bounds.estimators import ESTIMATORS
from ..evaluate import evaluate
from ..jobs.progress import progress_bar
from ..kernels.arrays import Array
from ..kernels.normal import densities
from ..lookup.table import Table
from ..sampling.stakes import chosen_b
from ..statistics.summary import summarise
from ..threats.declare import Subspace
from ..threats.sets import ALL, L1, L2, LINF, Ball, Quantity, complement
from .closed import Sheets, Smoothed, random_classifier

# (q, m1, m2) -> (radius, (a0, a1, a2)), sigma = 1: the exact solver, handed in by the command line.
Solve = Callable[[float, float, float], tuple[float, tuple[float, float, float]]]

# What rounding can do to a closed-form value near 1/2.
LEVEL_OF_ROUNDING = 1e-12
DIMENSIONS = (2, 3, 8, 64, 3072)
# Quadrature for the dual's own sets is from -END to END: the tails beyond hold 1e-23.
END = 10.0
# The drawn samples: many, so that their balls are nearly as large as the exact ones, and an alpha that leaves nothing to chance.
N0, N, ALPHA, SIGMAS = 100, 1_000_000, 1e-6, (0.25, 0.5, 2.0)
_nodes, _weights = np.polynomial.legendre.leggauss(24)
NODES, WEIGHTS = 0.5 * (_nodes + 1.0), 0.5 * _weights


@dataclass
class Tally:
    """Counts of one attack."""

    balls: int = 0
    points: int = 0
    violations: int = 0
    lowest: float = 1.0
    """Least vote found inside a certified ball."""


@dataclass
class Outcome:
    """Counts by kind of classifier, and how far the dual's own worst votes are from 1/2 at the exact radius."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    tightness: list[float] = field(default_factory=list)

    def add(self, kind: str, values: Array) -> None:
        """Count one ball whose points had these votes."""
        tally = self.tallies.setdefault(kind, Tally())
        tally.balls += 1
        tally.points += len(values)
        tally.violations += int((~(values >= 0.5 - LEVEL_OF_ROUNDING)).sum())
        tally.lowest = min(tally.lowest, float(values.min()))

    @property
    def total(self) -> Tally:
        """All kinds together."""
        parts = list(self.tallies.values())
        lowest = min((t.lowest for t in parts), default=1.0)
        return Tally(sum(t.balls for t in parts), sum(t.points for t in parts), sum(t.violations for t in parts), lowest)


def exact_bounds(threat: Ball, q: float, y: Array) -> dict[Quantity, Array]:
    """The bounds a threat asks for, at their true values; |y|_2 a hair low, to stay inside the rim phi(Phi^-1(q))."""
    rim = float(densities(-ndtri(1.0 - q)))
    out: dict[Quantity, Array] = {}
    for quantity in threat.needs():
        part = y
        if threat.mask is not None and quantity.part != ALL:
            part = y[threat.mask.ravel() == (quantity.part != complement(threat.name))]
        norm = {"l1": np.abs(part).sum(), "l2": np.linalg.norm(part), "linf": np.abs(part).max(initial=0.0)}[quantity.norm]
        lower = quantity.side == "lower"
        out[quantity] = np.array([min(norm * (1.0 - 1e-9), rim * (1.0 - 1e-9)) if lower else norm])
    return out


def worst_vertex(threat: Ball, g: Array) -> Array:
    """The point of the unit ball of `threat` that lowers g.delta most, for gradients g of shape (N, d)."""
    if threat.mask is not None:
        g = np.where(threat.mask.ravel(), g, 0.0)
    if threat.p == 2.0:
        return np.asarray(-g / np.maximum(np.linalg.norm(g, axis=1, keepdims=True), 1e-300))
    if threat.p == math.inf:
        signs = np.where(g > 0.0, -1.0, 1.0)
        return signs if threat.mask is None else np.where(threat.mask.ravel(), signs, 0.0)
    out = np.zeros_like(g)
    rows = np.arange(len(g))
    # Inside the mask even where the gradient is 0 there.
    best = (np.abs(g) if threat.mask is None else np.where(threat.mask.ravel(), np.abs(g), -1.0)).argmax(axis=1)
    out[rows, best] = np.where(g[rows, best] > 0.0, -1.0, 1.0)
    return out


def search(classifier: Smoothed, threat: Ball, radius: float, rng: np.random.Generator, starts: int = 24, steps: int = 12) -> Array:
    """Points of the ball where the vote may be least, shape (N, d): random boundary points, vertices, Frank-Wolfe's way from each.

    Every step keeps the better of the gradient's vertex and a point half-way to it; near a minimum the vertex itself is the answer.
    """
    d = classifier.d
    random = rng.standard_normal((starts, d))
    if threat.mask is not None:
        random = np.where(threat.mask.ravel(), random, 0.0)
    random /= np.linalg.norm(random, ord=threat.p, axis=1, keepdims=True)
    first = np.concatenate([worst_vertex(threat, classifier.gradient(np.zeros((1, d)))), random, worst_vertex(threat, -random)])
    points = [radius * first]
    for _ in range(steps):
        here = points[-1]
        vertex = radius * worst_vertex(threat, classifier.gradient(here))
        half = 0.5 * (here + vertex)
        better = classifier.value(half) < classifier.value(vertex)
        points.append(np.where(better[:, None], half, vertex))
    return np.concatenate(points)


def threats_for(d: int, rng: np.random.Generator) -> list[Ball]:
    """l1, l2, linf and a random subspace in each of the three norms."""
    mask = np.zeros(d, dtype=bool)
    mask[rng.permutation(d)[: int(rng.integers(1, d + 1))]] = True
    return [L1, L2, LINF, *(Subspace(mask, p, f"subspace{p}") for p in (1, 2, math.inf))]


def _attack_sampled(outcome: Outcome, classifier: Sheets, threats: Sequence[Ball], table: Table, rng: np.random.Generator) -> None:
    """The balls certified from one draw of N samples; chance may break those of an input with probability ALPHA."""
    against = int(rng.binomial(N0, 1.0 - classifier.moments_at_0()[0]))
    moments = replace(classifier.moments(N, rng), b=chosen_b((against + 0.5) / (N0 + 1.0)))
    statistics = summarise([moments], threats, float(rng.choice(SIGMAS)) if table.normalised else table.sigma)
    for estimator in ESTIMATORS:
        radii = evaluate(statistics, threats, ALPHA, estimator, table).radius
        for threat in threats:
            if (radius := float(radii[threat.name][0]) / statistics.sigma) > 0.0:
                points = search(classifier, threat, radius * (1.0 - 1e-9), rng, starts=8)
                outcome.add(f"sampled, {estimator} estimator", classifier.value(points))


def attack_closed_forms(table: Table, solve: Solve, classifiers: int, seed: int, dimensions: Sequence[int] = DIMENSIONS) -> Outcome:
    """Attack the table's and the exact solver's balls around `classifiers` random classifiers, and the dual's own worst ones."""
    rng = np.random.default_rng([seed, 7])
    outcome = Outcome()
    with progress_bar("attacking closed forms") as bar:
        for number in bar.track(range(classifiers), total=classifiers):
            classifier = random_classifier(dimensions[number % len(dimensions)], rng)
            q, y = classifier.moments_at_0()
            threats = threats_for(classifier.d, rng)
            for threat in threats:
                m1, m2 = (float(x[0]) for x in threat.cut(exact_bounds(threat, q, y), classifier.d))
                radii = [float(table.radius(q, m1, m2)) / table.sigma]
                # Nearer to the rim the solver may give up: a little less is asked of it.
                most = (1.0 - 1e-5) * float(densities(-ndtri(1.0 - q)))
                if abs(m1) < most:
                    radii.append(solve(q, m1, min(m2, math.sqrt(most**2 - m1**2)))[0])
                kappa = threat.kappa(classifier.d)
                for radius in radii:
                    # Balls are open: one part in 1e9 inside.
                    points = search(classifier, threat, radius / kappa * (1.0 - 1e-9), rng, starts=24 if classifier.d <= 256 else 8)
                    outcome.add(classifier.kind, classifier.value(points))
            if isinstance(classifier, Sheets):
                _attack_sampled(outcome, classifier, threats, table, rng)
            _attack_dual(outcome, table, solve, rng)
    return outcome


def _attack_dual(outcome: Outcome, table: Table, solve: Solve, rng: np.random.Generator) -> None:
    """One random (q, m1, m2): the dual's worst classifier, at the exact radius and all over the set K it was made for."""
    z, rho, theta = rng.uniform(0.05, 3.5), rng.uniform(0.02, 0.98), rng.uniform(0.02, 0.98) * math.pi / 2
    q, size = float(ndtr(z)), rho * float(densities(z))
    m1, m2 = -size * math.cos(theta), size * math.sin(theta)
    radius, multipliers = solve(q, m1, m2)
    worst = match_moments(DualSet(radius, multipliers), q, m1, m2)
    outcome.tightness.append(abs(float(worst.value(np.array([[radius, 0.0]]))[0]) - 0.5))
    # Its own slope y1 exceeds m1 where the bound a1 >= 0 is active.
    true_q, y = worst.moments_at_0()
    K = radius * (1.0 - 1e-9)
    angles = rng.uniform(0.0, 2.0 * math.pi, 200)
    lengths = K * np.sqrt(rng.uniform(0.0, 1.0, 200))
    points = np.stack([lengths * np.cos(angles), lengths * np.sin(angles)], axis=1)
    # No longer than r, no further against the gradient than (r, 0): where it meets the circle the slopes are y1 >= m1 and y2 = m2,
    # turning towards the gradient only helps, and the certified region is convex.
    inside = points @ y >= K * y[0]
    if inside.any():
        outcome.add("worst of the dual, exact", worst.value(points[inside]))
    for threat in (L1, L2, LINF):
        b1, b2 = (float(x[0]) for x in threat.cut(exact_bounds(threat, true_q, y), 2))
        ball = float(table.radius(true_q, b1, b2)) / table.sigma / threat.kappa(2) * (1.0 - 1e-9)
        outcome.add("worst of the dual, table", worst.value(search(worst, threat, ball, rng, starts=4, steps=4)))


@dataclass(frozen=True)
class DualSet(Smoothed):
    """f_a = {L_r(u1) <= a0 + a1 u1 + a2 u2} in the plane, a2 > 0: given u1 = t it holds for u2 >= -c(t), c concave."""

    r: float
    a: tuple[float, float, float]
    kind: str = "worst of the dual"
    d: int = 2

    def _c(self, t: Array) -> Array:
        exponent = np.minimum(self.r * t - 0.5 * self.r**2, 700.0)
        return np.asarray((self.a[0] + self.a[1] * t - np.exp(exponent)) / self.a[2])

    def _edges(self, d1: float, d2: float) -> Array:
        """Where panels must end: where c(t + d1) + d2 is a few, so that the conditional vote is smooth on every panel."""
        a0, a1, a2 = self.a
        top = 0.5 * self.r + math.log(a1 / self.r) / self.r if a1 > 0.0 else -END - 10.0
        out = [-END, END, top - d1]

        def above(t: float, level: float) -> float:
            # As _c, for one number: NumPy's scalars are ten times slower.
            return (a0 + a1 * t - math.exp(min(self.r * t - 0.5 * self.r**2, 700.0))) / a2 + d2 - level

        for level in (-9.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 9.0):
            for end in (-END - 20.0, END + 20.0):
                if above(top, level) * above(end, level) < 0.0:
                    out.append(brentq(above, top, end, args=(level,), xtol=1e-14) - d1)
        return np.unique(np.clip(np.array(out), -END, END))

    def _nodes(self, d1: float, d2: float) -> tuple[Array, Array, Array]:
        """(t, weights with phi(t), c(t + d1) + d2) of a rule for one shift: Gauss-Legendre on panels of at most 1/2."""
        edges = self._edges(d1, d2)
        pieces = [np.linspace(x, y, 2 + int(2.0 * (y - x)))[:-1] for x, y in itertools.pairwise(edges)]
        left = np.concatenate([*pieces, edges[-1:]])
        width = np.diff(left)[:, None]
        t = (left[:-1, None] + width * NODES).ravel()
        return t, (width * WEIGHTS).ravel() * densities(t), self._c(t + d1) + d2

    def value(self, delta: Array) -> Array:
        """P(u + delta in the set)."""
        return np.array([float(w @ ndtr(c)) for _, w, c in (self._nodes(*map(float, shift)) for shift in delta)])

    def gradient(self, delta: Array) -> Array:
        """E[u f(u + delta)]."""
        rules = [self._nodes(*map(float, shift)) for shift in delta]
        return np.array([[float(w @ (t * ndtr(c))), float(w @ densities(c))] for t, w, c in rules])


def match_moments(start: DualSet, q: float, m1: float, m2: float) -> DualSet:
    """The set of this family, at the same r, whose vote and gradient are (q, m1, m2) by this module's quadrature.

    A solver's multipliers are right to the root of its tolerance only, its radius much better. Where a1 = 0 the bound on it is
    active: the set's slope along v may then exceed m1, and only q and m2 are matched.
    """
    a = np.array(start.a)
    free = a > 0.0

    def moved(x: Array) -> DualSet:
        factor = np.ones(3)
        factor[free] += x
        return DualSet(start.r, (float(a[0] * factor[0]), float(a[1] * factor[1]), float(a[2] * factor[2])))

    def miss(x: Array) -> Array:
        vote, y = moved(x).moments_at_0()
        return np.array([vote - q, y[0] - m1, y[1] - m2])[free]

    found = root(miss, np.zeros(int(free.sum())), tol=1e-12)
    # Root finding stops at rounding, which it reports as no progress: what counts is how near it came.
    return moved(found.x) if np.abs(miss(found.x)).max() < np.abs(miss(np.zeros(len(found.x)))).max() else start


def summary(outcome: Outcome) -> list[tuple[str, Tally]]:
    """Counts by kind in alphabetical order, and of all kinds."""
    return [*sorted(outcome.tallies.items()), ("all", outcome.total)]
