"""Radii beyond first order: shifts of a ball that the first-order region does not cover are covered by tails (docs/tails.md).

First order covers a shift of length r of the ball of size R if r <= radius(q, m1, m2), where

    m1 = -min(R N / r, U),    m2 = max( sqrt(l^2 - m1^2), lower(|y - P_S y|_2) ),

N an upper bound of the dual norm, U and l upper and lower bounds of |y|_2: its slope is at least m1, by both of Hoelder's
inequalities. The largest such r found, for a few sizes R, is handed to the tail table, which covers the rest.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import ndtri

from .bounds.tails import tail_bounds
from .kernels.arrays import Array
from .lookup.table import Table
from .lookup.tails import TailTable
from .statistics.summary import Statistics
from .threats.families import Tails
from .threats.sets import ALL, LENGTH, Quantity, Threat, across

# Sizes over the first-order radius at which the first-order region is measured; bisections for each.
FACTORS = (1.03, 1.08, 1.15, 1.25, 1.4, 1.6, 2.0, 2.6)
STEPS = 6
# More than the rounding of a slope.
UP = 1.0 + 1e-13


def tail_users(statistics: Statistics, threats: Sequence[Threat]) -> dict[str, tuple[str, ...]]:
    """Families of directions whose counts the statistics hold -> the threats that use them.

    Raises:
        ValueError: counts along other directions than the threat's.
    """
    users: dict[str, tuple[str, ...]] = {}
    for threat in threats:
        by = threat.tails(statistics.d)
        if by is not None and by.name in statistics.tails:
            if statistics.tails[by.name].key != by.family.key:
                raise ValueError(
                    f"statistics: tails {by.name!r} were counted along other directions than threat {threat.name!r} has"
                )
            users[by.name] = (*users.get(by.name, ()), threat.name)
    return users


def extended(
    statistics: Statistics,
    threats: Sequence[Threat],
    first: Mapping[str, Array],
    q: Array,
    rim: Array,
    bounds: Mapping[Quantity, Array],
    levels: Mapping[str, float],
    table: Table,
    tails: TailTable,
) -> dict[str, Array]:
    """Radii that tails certify, sigma = 1, of the threats that have tails: name -> shape (N,).

    Args:
        statistics: N inputs, with counts of the families in `levels`.
        threats: all that are certified.
        first: first-order radii by name, sigma = 1.
        q: lower bounds of the class's probability; where at most 1/2 the result does not count.
        rim: phi(Phi^-1(q)), the largest |y|_2 that q allows.
        bounds: of the gradient.
        levels: family -> level of its tails' event.
        table, tails: look-ups.
    """
    eps, n = np.minimum(1.0 - q, 0.5), statistics.n.sum(axis=1)
    groups: dict[str, list[tuple[Threat, Tails]]] = {}
    for threat in threats:
        if (by := threat.tails(statistics.d)) is not None and by.name in levels:
            groups.setdefault(by.name, []).append((threat, by))
    out: dict[str, Array] = {}
    for name, users in groups.items():
        tail = statistics.tails[name]
        p = tail_bounds(tail.largest, n, eps, tail.thresholds, levels[name], tail.slack)
        regions = [_covered(threat, by, first[threat.name], q, rim, bounds, statistics.d, table) for threat, by in users]
        sizes, covered = (np.stack(column, axis=1) for column in zip(*regions, strict=True))
        found = tails.radii(eps, tail.thresholds, p, [by.covering for _, by in users], sizes, covered)
        out |= {threat.name: radius for (threat, _), radius in zip(users, found.T, strict=True)}
    return out


def _covered(
    threat: Threat, by: Tails, first: Array, q: Array, rim: Array, bounds: Mapping[Quantity, Array], d: int, table: Table
) -> tuple[Array, Array]:
    """(sizes, lengths), shape (N, M): no ball of at most that size has an uncovered shift of at most that length."""
    if by.covering.w == 0.0:
        # Along one vector a shift's length is its size: the first-order ball covers it whatever ball it is thought to be in.
        return np.full((len(q), len(FACTORS)), np.inf), np.repeat(first[:, None], len(FACTORS), axis=1)
    along, *rest = threat.needs()
    longest = np.fmin(bounds.get(Quantity(ALL, "l2", "upper"), rim), rim)
    across_span = bounds[rest[1]] if len(rest) > 1 else np.zeros_like(q)
    # Cohen's radius is always covered.
    floor = -ndtri(np.minimum(1.0 - q, 0.5)) * (1.0 - 1e-12)
    sizes, lengths = [], []
    for factor in FACTORS:
        size = first * factor
        high = np.maximum(threat.kappa(d) * size, 1e-300)
        low = np.minimum(floor, high)
        for _ in range(STEPS):
            r = 0.5 * (low + high)
            m1 = -np.fmin(size * bounds[along] * UP / r, longest)
            m2 = np.maximum(across(bounds.get(LENGTH, np.zeros_like(q)), m1), across_span)
            good = r <= np.asarray(table.radius(q, m1, m2)) / table.sigma
            low, high = np.where(good, r, low), np.where(good, high, r)
        sizes.append(size)
        lengths.append(low)
    return np.stack(sizes, axis=1), np.stack(lengths, axis=1)
