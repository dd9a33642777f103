"""How the gain over Cohen's radii grows with n: a network's own votes, and a classifier whose moments can be drawn exactly.

The constructed one is a corner, f = {w1.u > -z and w2.u > -z} for two random orthonormal directions: its gradient is 0.8 of the
largest that q = 0.9 allows, and it is dense, as a network's is. Its moments at any n and d cost two normals a sample; its exact q
and y give the gain that sampling approaches. Bets and tails need every sample: there the adaptive
estimator goes without, and the certificates are first-order ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri

from ..attacks.closed import corner, frame
from ..attacks.closed_forms import exact_bounds
from ..gains import average, gain, pair
from ..lookup.table import Table
from ..sampling.stakes import chosen_b
from ..statistics.summary import Statistics, summarise
from ..threats.sets import L1, L2, LINF, Threat
from .gains import certified

DIMENSIONS = (64, 3072)
QS = (0.9, 0.99)
SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
DRAWS = 5
N0 = 100


@dataclass(frozen=True)
class Curve:
    """Gain in ACR over Cohen's, in percent, for each n: threat -> method -> values."""

    label: str
    n: tuple[int, ...]
    gain: Mapping[str, Mapping[str, tuple[float, ...]]]
    limit: Mapping[str, float]
    """threat -> the gain with exact moments, over Cohen's with the exact q; empty where these are not known."""


def network_curve(
    by_size: Mapping[int, Statistics], threats: Sequence[Threat], alpha: float, methods: Sequence[str], table: Table
) -> Curve:
    """Of the same inputs sampled at each n."""
    first = next(iter(by_size.values()))
    gains = _gains(list(by_size.values()), threats, alpha, methods, table)
    return Curve(f"network, d = {first.d}, first {len(first)} inputs", tuple(by_size), gains, {})


def constructed_curves(table: Table, alpha: float, methods: Sequence[str], seed: int, sizes: Sequence[int] = SIZES) -> list[Curve]:
    """The corner at every d and q of this module, DRAWS independent draws at each n."""
    rngs = {(d, q): np.random.default_rng([seed, d, round(1000 * q)]) for d in DIMENSIONS for q in QS}
    return [_corner_curve(table, alpha, methods, sizes, d, q, rng) for (d, q), rng in rngs.items()]


def _corner_curve(
    table: Table, alpha: float, methods: Sequence[str], sizes: Sequence[int], d: int, q: float, rng: np.random.Generator
) -> Curve:
    threats = (L1, L2, LINF)
    z = float(ndtri(np.sqrt(q)))
    classifier = corner(frame(2, d, rng), np.array([z, z]))
    true_q, y = classifier.moments_at_0()
    drawn = []
    for n in sizes:
        # b as the sampler fixes it, from n0 votes of their own.
        against = rng.binomial(N0, 1.0 - true_q, DRAWS)
        moments = [replace(classifier.moments(n, rng), b=chosen_b((k + 0.5) / (N0 + 1.0))) for k in against.tolist()]
        drawn.append(summarise(moments, threats, table.sigma))
    cohen = np.array(-ndtri(1.0 - true_q))
    limit = {}
    for threat in threats:
        m1, m2 = (float(x[0]) for x in threat.cut(exact_bounds(threat, true_q, y), d))
        radius = np.asarray(table.radius(true_q, m1, m2)) / table.sigma / threat.kappa(d)
        limit[threat.name] = float(gain(*pair({threat.name: radius, "cohen": cohen}, threat, d)))
    gains = _gains(drawn, threats, alpha, methods, table)
    return Curve(f"corner, q = {q:g}, d = {d}", tuple(sizes), gains, limit)


def _gains(
    by_size: Sequence[Statistics], threats: Sequence[Threat], alpha: float, methods: Sequence[str], table: Table
) -> dict[str, dict[str, tuple[float, ...]]]:
    """Threat -> method -> gain in percent for each n, from the statistics of each n."""
    out: dict[str, dict[str, tuple[float, ...]]] = {threat.name: {} for threat in threats}
    made = [dict(certified(statistics, threats, alpha, methods, table)) for statistics in by_size]
    for method in methods:
        radii = [by[method] for by in made]
        for threat in threats:
            if threat.name in radii[0]:
                pairs = (pair(radius, threat, statistics.d) for radius, statistics in zip(radii, by_size, strict=True))
                out[threat.name][method] = tuple(float(gain(*map(average, both))) for both in pairs)
    return out
