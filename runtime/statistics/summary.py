"""What sampling leaves of an input: votes, half means of the gradient y = E[u f], and settled bets; reduced to scalars per part.

Z = u (f - b) has mean y for every constant b. X and Y are its means over the two halves of n1 and n2 samples. b = 1/2 serves the
estimator "paper"; the other b was chosen from the selection samples and serves "adaptive" (chernoff.py), whose tightest bounds
are the bets of bets.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..threats.projections import Projection, norm
from ..threats.sets import Threat, projections

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

# Values of L = log(1/level) that the bets are tuned to; a bound may be taken at any level.
TARGETS = (6.0, 10.0, 17.0)
BETS = len(TARGETS)
# A bet's bound is value -+ slope L: shape (2, BETS) for (value, slope).
BET_NAMES = ("length", "half_low", "half_high", "top", "along")


@dataclass(frozen=True)
class Moments:
    """Sums over the two halves of one input's samples, and its bets: what the sampler keeps, whatever the estimator."""

    n: Counts
    """Samples, shape (2,)."""
    count: Counts
    """Votes for the class, shape (2,)."""
    sum_uf: Array
    """Sum of u f, shape (2, d), in sigma = 1 units."""
    sum_u: Array
    """Sum of u, shape (2, d)."""
    b: float = 0.5
    """Fixed before these samples."""
    bets: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    """Part -> name of a bet -> (value, slope), shape (2, BETS); empty where none were made."""


@dataclass(frozen=True)
class Part:
    """Scalars of one part of the gradient, each of shape (N,); bets of shape (N, 2, BETS), NaN where none was made."""

    d: int
    """Dimension of the part; 1 for a direction."""
    coordinates: int
    """Coordinates it touches."""
    dual: float
    """Exponent of `lp`."""
    key: str
    """Identifies the mask, basis or direction (`Projection.key`); empty for the whole gradient."""
    inner: Array
    """X.Y at b = 1/2; likewise all up to dot."""
    x_l2: Array
    y_l2: Array
    l1: Array
    """|Zbar|_1 of the pooled mean; likewise l2, linf and lp, the part's own exponent."""
    l2: Array
    linf: Array
    lp: Array
    dot: Array
    """v.Zbar along a direction; 0 for a subspace."""
    inner_b: Array
    """X.Y at the chosen b; likewise all up to dot_b."""
    x_l2_b: Array
    y_l2_b: Array
    l1_b: Array
    l2_b: Array
    linf_b: Array
    lp_b: Array
    dot_b: Array
    length: Array
    """|P y|_2 >= value - slope L. L = log(1/level)."""
    half_low: Array
    """v.y >= value - slope L, v = P X / |P X|."""
    half_high: Array
    """v.y <= value + slope L."""
    top: Array
    """|P y|_inf <= value + slope L."""
    along: Array
    """v.y >= value - slope L along a direction v."""


SUMS = ("inner", "x_l2", "y_l2", "l1", "l2", "linf", "lp", "dot")
# The fields of a Part that are arrays, in order.
SCALARS = (*SUMS, *(f"{name}_b" for name in SUMS), *BET_NAMES)


@dataclass(frozen=True)
class Statistics:
    """What sampling leaves of N inputs: votes and samples per half, shape (N, 2), and the declared parts of the gradient."""

    count: Counts
    n: Counts
    b: Array
    """Chosen constants, shape (N,)."""
    sigma: float
    """Noise level in input units."""
    d: int
    """Coordinates of an input."""
    parts: Mapping[str, Part]
    sums: Array
    """Per half sum u f and sum u, shape (N, 2, 2, d), for threats thought of later; (N, 0) where they were not kept."""

    def __len__(self) -> int:
        return len(self.count)

    def check(self, threats: Sequence[Threat]) -> None:
        """ValueError unless these numbers can be what sampling left, and hold what the threats need."""
        shape = self.count.shape
        if len(shape) != 2 or shape[1] != 2 or self.n.shape != shape:
            raise ValueError(f"statistics: count has shape {shape}, n {self.n.shape}; expected (N, 2) for both")
        if not (math.isfinite(self.sigma) and self.sigma > 0 and self.d >= 1):
            raise ValueError(f"statistics: sigma = {self.sigma}, d = {self.d}; expected positive numbers")
        if not ((self.n >= 1) & (self.count >= 0) & (self.count <= self.n)).all():
            raise ValueError("statistics: expected 0 <= count <= n and n >= 1 in every half")
        if self.b.shape != shape[:1] or not ((self.b >= 0.5) & (self.b <= 1.0)).all():
            raise ValueError(f"statistics: b has shape {self.b.shape}, expected (N,) numbers from 1/2 to 1")
        if self.sums.shape not in ((shape[0], 0), (*shape, 2, self.d)) or not np.isfinite(self.sums).all():
            raise ValueError(f"statistics: sums have shape {self.sums.shape}, expected {(*shape, 2, self.d)} finite numbers")
        for name, by in projections(threats).items():
            part = self.parts.get(name)
            if part is None:
                kept = ", ".join(self.parts)
                raise ValueError(
                    f"statistics: nothing was kept for {name!r}, only for {kept}; sample with that threat, or keep means"
                )
            found, own = (part.key, part.d, part.coordinates, part.dual), (by.key, by.rank(self.d), by.coordinates(self.d), by.dual)
            if found != own or by.size not in (None, self.d):
                raise ValueError(f"statistics: {name!r} was sampled with another mask, direction or input shape")
            _check_part(name, part, shape[0])


def _check_part(name: str, part: Part, size: int) -> None:
    sums = {scalar: getattr(part, scalar) for scalar in SCALARS if scalar not in BET_NAMES}
    if any(value.shape != (size,) or not np.isfinite(value).all() for value in sums.values()):
        raise ValueError(f"statistics: {name!r} has missing or non-finite values")
    norms = [sums[f"{scalar}{b}"] for scalar in SUMS if scalar not in ("inner", "dot") for b in ("", "_b")]
    products = [(sums[f"inner{b}"], sums[f"x_l2{b}"] * sums[f"y_l2{b}"]) for b in ("", "_b")]
    if any((norm < 0).any() for norm in norms) or any((np.abs(x) > y * (1 + 1e-9) + 1e-300).any() for x, y in products):
        raise ValueError(f"statistics: the norms and inner products of {name!r} contradict each other")
    for kind in BET_NAMES:
        bet = getattr(part, kind)
        if bet.shape != (size, 2, BETS) or (bet[:, 1] < 0).any():
            raise ValueError(
                f"statistics: bets {kind!r} of {name!r} have shape {bet.shape}, expected {(size, 2, BETS)}, slopes >= 0"
            )
        # A bet that was never placed bounds nothing: -inf from below, inf from above.
        if (bet[:, 0] == (-math.inf if kind in ("half_high", "top") else math.inf)).any():
            raise ValueError(f"statistics: a bet {kind!r} of {name!r} is infinite on the wrong side")


def summarise(moments: Sequence[Moments], threats: Sequence[Threat], sigma: float, keep_means: bool = False) -> Statistics:
    """Reduce the sums of N inputs of one shape to the scalars that the threats' bounds need; `keep_means`: keep the sums too."""
    d = moments[0].sum_u.shape[1]
    wanted = projections(threats)
    rows: dict[str, list[list[float]]] = {name: [] for name in wanted}
    none = np.full((2, BETS), np.nan)
    bets: dict[str, list[list[Array]]] = {name: [] for name in wanted}
    for m in moments:
        means = [_means(m, b) for b in (0.5, m.b)]
        for name, by in wanted.items():
            rows[name].append([value for x, y, pooled in means for value in _scalars(x, y, pooled, by)])
            bets[name].append([m.bets.get(name, {}).get(bet, none) for bet in BET_NAMES])
    parts = {}
    for name, by in wanted.items():
        columns: dict[str, Any] = dict(zip(SCALARS, np.array(rows[name]).T, strict=False))
        columns |= {bet: np.stack([row[i] for row in bets[name]]) for i, bet in enumerate(BET_NAMES)}
        parts[name] = Part(d=by.rank(d), coordinates=by.coordinates(d), dual=by.dual, key=by.key, **columns)
    count, n = (np.stack([getattr(m, name) for m in moments]) for name in ("count", "n"))
    sums = np.stack([np.stack((m.sum_uf, m.sum_u), axis=1) if keep_means else np.empty(0) for m in moments])
    return Statistics(count, n, np.array([m.b for m in moments]), sigma, d, parts, sums)


def extend(statistics: Statistics, threats: Sequence[Threat]) -> Statistics:
    """The same with the parts that `threats` need besides, where sums were kept; these have no bets. Else as it was."""
    s = statistics
    if not s.sums.size or not {*projections(threats)} - {*s.parts}:
        return s
    moments = [Moments(s.n[i], s.count[i], s.sums[i, :, 0], s.sums[i, :, 1], float(s.b[i])) for i in range(len(s))]
    return replace(s, parts={**summarise(moments, threats, s.sigma).parts, **s.parts})


def _means(m: Moments, b: float) -> tuple[Array, Array, Array]:
    """X, Y and the pooled mean of Z = u (f - b)."""
    x, y = (m.sum_uf - b * m.sum_u) / m.n[:, None]
    return x, y, (m.n[0] * x + m.n[1] * y) / m.n.sum()


def _scalars(x: Array, y: Array, pooled: Array, by: Projection) -> list[float]:
    """The fields SUMS for one input."""
    x, y, pooled = (by(a) for a in (x, y, pooled))
    size = np.abs(pooled)
    norms = (float(size.sum()), float(np.linalg.norm(size)), float(size.max(initial=0.0)), norm(size, by.dual))
    dot = 0.0 if by.vector is None else float(pooled[0])
    return [float(x @ y), float(np.linalg.norm(x)), float(np.linalg.norm(y)), *norms, dot]
