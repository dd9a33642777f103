"""What sampling leaves of an input: votes, half means of the gradient y = E[u f], and settled bets; reduced to scalars per part.

Z = u (f - b) has mean y for every constant b. X and Y are its means over the two halves of n1 and n2 samples. b = 1/2 serves the
estimator "paper"; the other b was chosen from the selection samples and serves "adaptive" (chernoff.py), whose tightest bounds
are the bets of bets.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ..kernels.arrays import Array, Counts, Mask
from ..threats.projections import Identity, Projection, norm
from ..threats.sets import ALL, Threat, projections
from .votes import Tail, check_classes, none_counted

# Values of L = log(1/level) that the bets are tuned to; a bound may be taken at any level.
TARGETS = (6.0, 10.0, 17.0)
BETS = len(TARGETS)
# A bet's bound is value -+ slope L: shape (2, BETS) for (value, slope).
BET_NAMES = ("length", "half_low", "half_high", "top", "along", "along_high", "thin")
# The part that stands for a direction of the proposal's larger coordinates.
THIN = "larger coordinates of the proposal"
# The norms of a part that the dual-norm bound of direction.py knows.
REACHES = ("linf", "l1", "norm")
# The noise of statistics, where nothing else is said: floats that are taken for Gaussian ones.
GAUSSIAN: Mapping[str, Any] = {"kind": "gaussian"}
# Those that bound from above.
UPPER_BETS = ("half_high", "top", "along_high")


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
    lead: Array | None = None
    """Unit directions that the whole gradient's length was bet along, then THIN's (0: none), shape (BETS + 1, d)."""
    classes: Counts = field(default_factory=lambda: none_counted(1))
    """Classes and their counts (votes.kept_classes), shape (1, C); (1, 0) where they were not counted."""
    class_count: Counts = field(default_factory=lambda: none_counted(1))
    tails: Mapping[str, Tail] = field(default_factory=dict)
    """Family of directions -> its tails, `largest` of shape (1, K)."""
    looks: int = 0
    """Looks taken before sampling stopped; 0 where n was fixed."""
    selection: tuple[int, int] = (0, 0)
    """Votes for the class among the selection samples, and how many these were."""


@dataclass(frozen=True)
class Part:
    """Scalars of one part of the gradient, each of shape (N,); bets of shape (N, 2, BETS), NaN where none was made."""

    d: int
    """Dimension of the part; 1 for a direction."""
    coordinates: int
    """Coordinates it touches."""
    dual: float
    """Exponent of `norm_b`; 2 for none."""
    largest: int
    """Or `norm_b` is the l2 norm of so many coordinates, the largest ones; 0 for none."""
    key: str
    """Identifies the mask, basis or direction (`Projection.key`); empty for the whole gradient."""
    inner: Array
    """X.Y at b = 1/2; likewise all up to dot. X and Y stand for P X and P Y."""
    l1: Array
    """|Zbar|_1 of the pooled mean; likewise linf."""
    linf: Array
    dot: Array
    """v.Zbar along a direction; 0 for a subspace."""
    inner_b: Array
    """X.Y at the chosen b; likewise all up to dot_b."""
    x_l2_b: Array
    """|X|_2."""
    l1_b: Array
    linf_b: Array
    norm_b: Array
    """The norm of Zbar that `dual` or `largest` asks for."""
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
    along_high: Array
    """v.y <= value + slope L along it."""
    thin: Array
    """Of the whole gradient: w.y >= value - slope L along the larger coordinates w of a proposal."""
    reach: Array
    """Norms of P w, w the directions that `length` of the whole gradient is along and `thin`'s: (N, len(REACHES), BETS + 1)."""

    @property
    def identity(self) -> Identity:
        """What was projected on, for its norms."""
        return Identity(self.d, self.coordinates, self.dual, self.largest, self.key)


# The fields of a Part that are arrays, besides the bets.
SUMS = ("inner", "l1", "linf", "dot", "inner_b", "x_l2_b", "l1_b", "linf_b", "norm_b", "dot_b")
SCALARS = (*SUMS, *BET_NAMES, "reach")


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
    classes: Counts
    """Class of each column of `class_count`, shape (N, C), the certified one first (votes.kept_classes); (N, 0): not counted."""
    class_count: Counts
    """Votes of each among all samples, shape (N, C)."""
    looks: Counts
    """Looks taken before sampling stopped, shape (N,); 0 where n was fixed."""
    selection: Counts
    """Votes for the class among the selection samples, and how many these were, shape (N, 2); 0 where they were not kept."""
    tails: Mapping[str, Tail] = field(default_factory=dict)
    """Family of directions -> how far out votes against lie along them."""
    proposal: Mapping[str, Any] = field(default_factory=lambda: {"by": "votes"})
    """What proposed the direction that the gradient's length is bet along, the same for all inputs."""
    noise: Mapping[str, Any] = field(default_factory=lambda: GAUSSIAN)
    """The noise that was drawn, the same for all inputs."""
    schedule: Mapping[str, Any] = field(default_factory=dict)
    """The looks that might be taken (bounds/looks.py), the same for all inputs; empty where n was fixed."""

    def __len__(self) -> int:
        return len(self.count)

    @property
    def proposed(self) -> bool:
        """Whether the model's gradient proposed it."""
        return bool(self.proposal["by"] == "gradient")

    @property
    def by_votes(self) -> Mask:
        """Inputs that votes proposed for, shape (N,): all, or those without a gradient or stopped before it was asked for."""
        return np.asarray(np.isnan(self.parts[ALL].thin).any(axis=(1, 2)) | (not self.proposed))

    @property
    def charge(self) -> float:
        """What the noise that was drawn, not quite Gaussian noise, takes of alpha; 0 where it is taken for it."""
        return float(self.noise.get("charge", 0.0))

    def check(self, threats: Sequence[Threat]) -> None:
        """ValueError unless these numbers can be what sampling left, and hold what the threats need."""
        shape = self.count.shape
        if len(shape) != 2 or shape[1] != 2 or self.n.shape != shape:
            raise ValueError(f"statistics: count has shape {shape}, n {self.n.shape}; expected (N, 2) for both")
        if not (math.isfinite(self.sigma) and self.sigma > 0 and self.d >= 1):
            raise ValueError(f"statistics: sigma = {self.sigma}, d = {self.d}; expected positive numbers")
        if self.noise.get("kind") not in ("gaussian", "grid") or not 0.0 <= self.charge < 1.0:
            raise ValueError(f"statistics: noise {dict(self.noise)}: expected gaussian or grid, its charge below 1")
        if not ((self.n >= 1) & (self.count >= 0) & (self.count <= self.n)).all():
            raise ValueError("statistics: expected 0 <= count <= n and n >= 1 in every half")
        if self.b.shape != shape[:1] or not ((self.b >= 0.5) & (self.b <= 1.0)).all():
            raise ValueError(f"statistics: b has shape {self.b.shape}, expected (N,) numbers from 1/2 to 1")
        if self.sums.shape not in ((shape[0], 0), (*shape, 2, self.d)) or not np.isfinite(self.sums).all():
            raise ValueError(f"statistics: sums have shape {self.sums.shape}, expected {(*shape, 2, self.d)} finite numbers")
        if self.looks.shape != shape[:1] or (self.looks < 0).any():
            raise ValueError(f"statistics: looks have shape {self.looks.shape}, expected (N,) numbers from 0")
        chosen = self.selection
        if chosen.shape != shape or not ((chosen[:, 0] >= 0) & (chosen[:, 0] <= chosen[:, 1])).all():
            raise ValueError(f"statistics: selection has shape {chosen.shape}, expected {shape}: 0 <= votes <= samples")
        count, n = self.count.sum(axis=1), self.n.sum(axis=1)
        check_classes(self.classes, self.class_count, count, n)
        for name, tail in self.tails.items():
            tail.check(name, n - count)
        for name, projection in projections(threats).items():
            part = self.parts.get(name)
            if part is None:
                kept = ", ".join(self.parts)
                raise ValueError(
                    f"statistics: nothing was kept for {name!r}, only for {kept}; sample with that threat, or keep means"
                )
            if part.identity != projection.identity(self.d) or projection.size not in (None, self.d):
                raise ValueError(f"statistics: {name!r} was sampled with another mask, direction or input shape")
            _check_part(name, part, shape[0])


def _check_part(name: str, part: Part, size: int) -> None:
    sums = {scalar: getattr(part, scalar) for scalar in SUMS}
    if any(value.shape != (size,) or not np.isfinite(value).all() for value in sums.values()):
        raise ValueError(f"statistics: {name!r} has missing or non-finite values")
    norms = [value for scalar, value in sums.items() if scalar not in ("inner", "inner_b", "dot", "dot_b")]
    # Forecasts hold medians and means, found to 1e-10 and 2e-12.
    crossed = [low > high * (1 + 1e-6) + 1e-9 for low, high in ((part.linf, part.l1), (part.linf_b, part.l1_b))]
    if any((value < 0).any() for value in norms) or any(wrong.any() for wrong in crossed):
        raise ValueError(f"statistics: the norms of {name!r} contradict each other")
    shape = (size, len(REACHES), BETS + 1)
    if part.reach.shape != shape or (part.reach < 0).any():
        raise ValueError(f"statistics: reach of {name!r} has shape {part.reach.shape}, expected {shape}, >= 0")
    for kind in BET_NAMES:
        bet = getattr(part, kind)
        if bet.shape != (size, 2, BETS) or (bet[:, 1] < 0).any():
            raise ValueError(
                f"statistics: bets {kind!r} of {name!r} have shape {bet.shape}, expected {(size, 2, BETS)}, slopes >= 0"
            )
        # A bet that was never placed bounds nothing: -inf from below, inf from above.
        if (bet[:, 0] == (-math.inf if kind in UPPER_BETS else math.inf)).any():
            raise ValueError(f"statistics: a bet {kind!r} of {name!r} is infinite on the wrong side")


def _reaches(m: Moments, projection: Projection) -> Array:
    """Part.reach of one input; a direction that does not exist reaches nothing, and its bet says nothing."""
    if m.lead is None:
        return np.full((len(REACHES), BETS + 1), np.nan)
    images = [projection(w) for w in m.lead]
    kinds = [norm(x, math.inf) for x in images], [norm(x, 1.0) for x in images], [projection.norm(w) for w in m.lead]
    return np.array(kinds)


def summarise(
    moments: Sequence[Moments],
    threats: Sequence[Threat],
    sigma: float,
    keep_means: bool = False,
    noise: Mapping[str, Any] = GAUSSIAN,
) -> Statistics:
    """Reduce the sums of N inputs of one shape to the scalars that the threats' bounds need; `keep_means`: keep the sums too."""
    d = moments[0].sum_u.shape[1]
    means = [(_means(m, 0.5), _means(m, m.b)) for m in moments]
    none = np.full((2, BETS), np.nan)
    parts = {}
    for name, projection in projections(threats).items():
        rows = [_sums(half, chosen, projection) for half, chosen in means]
        columns: dict[str, Any] = {scalar: np.array([row[scalar] for row in rows]) for scalar in SUMS}
        columns |= {bet: np.stack([m.bets.get(name, {}).get(bet, none) for m in moments]) for bet in BET_NAMES}
        columns["reach"] = np.stack([_reaches(m, projection) for m in moments])
        if name == ALL:
            columns["thin"] = np.stack([m.bets.get(THIN, {}).get("along", none) for m in moments])
        parts[name] = Part(**projection.identity(d)._asdict(), **columns)
    stacked: dict[str, Any] = {name: np.stack([getattr(m, name) for m in moments]) for name in ("count", "n")}
    stacked |= {name: np.concatenate([getattr(m, name) for m in moments]) for name in ("classes", "class_count")}
    return Statistics(
        **stacked,
        b=np.array([m.b for m in moments]),
        sigma=sigma,
        d=d,
        parts=parts,
        sums=np.stack([np.stack((m.sum_uf, m.sum_u), axis=1) if keep_means else np.empty(0) for m in moments]),
        looks=np.array([m.looks for m in moments], dtype=np.int64),
        selection=np.array([m.selection for m in moments], dtype=np.int64),
        tails={
            name: replace(tail, largest=np.concatenate([m.tails[name].largest for m in moments]))
            for name, tail in moments[0].tails.items()
        },
        noise=noise,
    )


def extend(statistics: Statistics, threats: Sequence[Threat]) -> Statistics:
    """The same with the parts that `threats` need besides, where sums were kept; these have no bets. Else as it was."""
    s = statistics
    if not s.sums.size or not {*projections(threats)} - {*s.parts}:
        return s
    moments = [Moments(s.n[i], s.count[i], s.sums[i, :, 0], s.sums[i, :, 1], float(s.b[i])) for i in range(len(s))]
    return replace(s, parts={**summarise(moments, threats, s.sigma).parts, **s.parts})


class _Means(NamedTuple):
    """Of Z = u (f - b)."""

    x: Array
    y: Array
    pooled: Array


def _means(m: Moments, b: float) -> _Means:
    x, y = (m.sum_uf - b * m.sum_u) / m.n[:, None]
    return _Means(x, y, (m.n[0] * x + m.n[1] * y) / m.n.sum())


def _sums(half: _Means, chosen: _Means, projection: Projection) -> dict[str, float]:
    """The fields SUMS for one input, from its means at b = 1/2 and at the chosen b."""
    out: dict[str, float] = {}
    for suffix, means in (("", half), ("_b", chosen)):
        x, y, pooled = (projection(mean) for mean in means)
        size = np.abs(pooled)
        out |= {
            f"inner{suffix}": float(x @ y),
            f"l1{suffix}": float(size.sum()),
            f"linf{suffix}": float(size.max(initial=0.0)),
            f"dot{suffix}": 0.0 if projection.vector is None else float(pooled[0]),
        }
    return out | {"x_l2_b": float(np.linalg.norm(projection(chosen.x))), "norm_b": projection.norm(chosen.pooled)}
