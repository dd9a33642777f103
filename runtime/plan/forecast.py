"""What sampling would leave of an input, at expected values and without sampling: the statistics behind `certlut plan`.

A forecast, not a bound: it says what to expect of one model classifier, and a certificate never rests on it. The model is a
half-space seen through noise, f = 1{rho v.u + sqrt(1 - rho^2) e >= -z} with e standard normal, z = Phi^-1(q): E f = q and
y = E[u f] = rho phi(z) v. How |y|_1 and |y|_inf compare with |y|_2 is the gradient's shape (SHAPES).

Sums over samples take their expectations: a half mean of Z = u (f - b) is y plus normal noise of variance
s^2 = E (f - b)^2 over its number of samples in every coordinate, the largest coordinate is the median one. Bets (bets.py) take
the expected logarithm of a sample's factor times the number of samples. It needs the law of (v_k.u, w.u, f) only, v_k the
direction that stage k goes by and w the bet's: two normals that both see the half-space, integrated by the trapezoidal rule. The
cosine between v_k and y is |y| over the length of the mean so far, and the same bookkeeping as in bets.py sets the stakes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from ..kernels.arrays import Array
from ..sampling.bets import BETA_MAX, MU_MAX, REACH, RHO_MAX, TAIL, chosen_b, stages
from ..statistics.summary import BET_NAMES, BETS, SUMS, TARGETS, Part, Statistics
from ..statistics.votes import none_counted
from ..threats.sets import Threat, projections

# normal: components of a random direction; flat: all of one size; sparse: normal in a hundredth of the coordinates, else 0.
SHAPES = ("normal", "flat", "sparse")

STEP = 0.25
NODES = np.arange(-8.0, 8.0 + 0.5 * STEP, STEP)
WEIGHTS = STEP * np.exp(-0.5 * NODES**2) / math.sqrt(2.0 * math.pi)
_TARGETS = np.array(TARGETS)
_SMALL = 1e-6


@dataclass(frozen=True)
class Gradient:
    """Sizes |y_j| of a gradient part's coordinates, grouped: shape (G,), with how many coordinates have each."""

    size: Array
    times: Array

    @property
    def l2(self) -> float:
        """|y|_2; likewise the other norms."""
        return math.sqrt(float(self.times @ self.size**2))

    @property
    def l1(self) -> float:
        """Sum of the sizes."""
        return float(self.times @ self.size)

    @property
    def linf(self) -> float:
        """The largest size."""
        return float(self.size.max())


def gradient(d: int, length: float, shape: str = "normal") -> Gradient:
    """A gradient with |y|_2 = length and d coordinates of a shape in SHAPES. ValueError for another."""
    if shape not in SHAPES:
        raise ValueError(f"shape {shape!r}: expected one of {', '.join(SHAPES)}")
    if shape == "flat":
        size, times = np.ones(1), np.array([float(d)])
    else:
        own = d if shape == "normal" else max(1, d // 100)
        # Groups of ranks, the largest sizes one by one.
        first = np.unique(np.floor(np.geomspace(1.0, own + 1.0, 400)).astype(np.int64))
        times = np.diff(first).astype(np.float64)
        size = -ndtri(0.5 * (first[:-1] + 0.5 * times - 0.5) / own) if own > 1 else np.ones(1)
        if own < d:
            size, times = np.append(size, 0.0), np.append(times, float(d - own))
    return Gradient(size * (length / math.sqrt(float(times @ size**2))), times)


@dataclass(frozen=True)
class _Vote:
    """The model classifier."""

    q: float
    rho: float

    @property
    def eps(self) -> float:
        return 1.0 - self.q

    @property
    def z(self) -> float:
        return float(-ndtri(self.eps))

    @property
    def rim(self) -> float:
        return math.exp(-0.5 * self.z**2) / math.sqrt(2.0 * math.pi)

    def square(self, b: float) -> float:
        """E (f - b)^2."""
        return (1.0 - b) ** 2 + (2.0 * b - 1.0) * self.eps

    def growth(
        self, seen: float, guessed: float | None, b: float, a: float, own: float, beta: Array, mu: float = 0.0
    ) -> tuple[float, Array]:
        """E (x - mu)^2 and E log(1 +- beta (x - mu)), shape (2, BETS), of a bet on x = w.u (f - h), by both signs.

        Args:
            seen: correlation of t = v_k.u with what the half-space sees.
            guessed: the rho of the prediction h(t); None for the constant b.
            a: w.v_k.
            own: correlation of w.u with what the half-space sees.
        """
        across = math.sqrt(max(1.0 - a * a, 0.0))
        t, s, weight = NODES[:, None], np.zeros((1, 1)), WEIGHTS[:, None]
        rest = 0.0
        if across > _SMALL:
            s, weight, rest = NODES[None, :], weight * WEIGHTS, (own - a * seen) / across
        p = ndtr((self.z + seen * t + rest * s) / math.sqrt(max(1.0 - seen**2 - rest**2, _SMALL)))
        h = np.full_like(t, b) if guessed is None else ndtr((self.z + guessed * t) / math.sqrt(1.0 - guessed**2))
        w = a * t + across * s
        square, logs = 0.0, np.zeros((2, BETS))
        for f, mass in ((1.0, weight * p), (0.0, weight * (1.0 - p))):
            x = w * (f - h) - mu
            square += float(np.sum(mass * x * x))
            for bet, stake in enumerate(beta):
                low = 1.0 - stake * (REACH + abs(mu))
                for row, sign in enumerate((1.0, -1.0)):
                    logs[row, bet] += np.sum(mass * np.log(np.maximum(1.0 + sign * stake * x, low)))
        return square, logs


def forecast(
    ns: Sequence[int],
    threats: Sequence[Threat],
    d: int,
    q: float,
    rho: float,
    n0: int = 100,
    shape: str = "normal",
    sigma: float = 1.0,
) -> Statistics:
    """Statistics of one model input at expected values, one row for each n.

    Args:
        ns: numbers of certification samples, at least 8.
        threats: balls without a basis, p = 1, 2 or inf: a mask is taken to hold its share of the gradient.
        d: numbers of an input.
        q: E f, above 1/2.
        rho: |y|_2 over its maximum phi(Phi^-1(q)), from 0 to 1.
        n0: selection samples, which b comes from.
        shape: of the gradient, in SHAPES.

    Raises:
        ValueError: an argument out of range.
    """
    _check(ns, d, q, rho, n0)
    vote = _Vote(q, rho)
    eps0 = min((round(n0 * vote.eps) + 0.5) / (n0 + 1.0), 0.5)
    b = chosen_b(eps0)
    wanted = projections(threats)
    if any(by.basis is not None or by.vector is not None or by.largest or by.dual != 2.0 for by in wanted.values()):
        raise ValueError("a plan knows l1, l2, linf and masks of coordinates only")
    ranks = {name: by.rank(d) for name, by in wanted.items()}
    whole = rho * vote.rim
    gradients = {name: gradient(k, whole * math.sqrt(k / d), shape) for name, k in ranks.items()}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in wanted}
    bets: dict[str, list[dict[str, Array]]] = {name: [] for name in wanted}
    halves = np.array([(n // 2, n - n // 2) for n in ns])
    for n in ns:
        first, second = (n // 2, n - n // 2)
        settled = _bets(vote, n, gradients, ranks, d, eps0, b)
        for name, y in gradients.items():
            rows[name].append(_sums(y, ranks[name], vote, b, first, second))
            bets[name].append(settled[name])
    parts = {}
    for name, by in wanted.items():
        columns: dict[str, Any] = {scalar: np.array([row[scalar] for row in rows[name]]) for scalar in SUMS}
        columns |= {kind: np.stack([row[kind] for row in bets[name]]) for kind in BET_NAMES}
        parts[name] = Part(**by.identity(d)._asdict(), **columns)
    none = none_counted(len(ns))
    return Statistics(
        count=np.rint(q * halves).astype(np.int64),
        n=halves.astype(np.int64),
        b=np.full(len(ns), b),
        sigma=sigma,
        d=d,
        parts=parts,
        sums=np.empty((len(ns), 0)),
        classes=none,
        class_count=none,
        looks=np.zeros(len(ns), dtype=np.int64),
    )


def _check(ns: Sequence[int], d: int, q: float, rho: float, n0: int) -> None:
    if d < 1 or n0 < 1:
        raise ValueError(f"d = {d}, n0 = {n0}: expected 1 or more")
    if not 0.5 < q < 1.0:
        raise ValueError(f"q = {q}: expected 1/2 < q < 1")
    if not 0.0 <= rho <= 1.0:
        raise ValueError(f"rho = {rho}: expected 0 <= rho <= 1")
    if min(ns) < 8:
        raise ValueError(f"n = {min(ns)}: expected 8 samples or more")


def _sums(y: Gradient, rank: int, vote: _Vote, b: float, n1: int, n2: int) -> dict[str, float]:
    """The fields SUMS of a Part."""
    out = dict.fromkeys(SUMS, 0.0) | {"inner": y.l2**2, "inner_b": y.l2**2}
    for suffix, square in (("", vote.square(0.5)), ("_b", vote.square(b))):
        deviation = math.sqrt(square / (n1 + n2))
        folded = y.size * (2.0 * ndtr(y.size / deviation) - 1.0)
        folded += deviation * math.sqrt(2.0 / math.pi) * np.exp(-0.5 * (y.size / deviation) ** 2)
        out[f"l1{suffix}"] = float(y.times @ folded)
        out[f"linf{suffix}"] = _largest(y, deviation, np.zeros_like(y.size))
    x_l2, pooled = (math.sqrt(y.l2**2 + rank * vote.square(b) / n) for n in (n1, n1 + n2))
    return out | {"x_l2_b": x_l2, "norm_b": pooled}


def _largest(y: Gradient, deviation: float, excess: Array) -> float:
    """Median over noise e_j of the largest |y_j + e_j| + excess_j."""

    def surplus(m: float) -> float:
        inside = ndtr((m - y.size - excess) / deviation) - ndtr((-m - y.size + excess) / deviation)
        return float(y.times @ np.log(np.maximum(inside, 1e-300))) + math.log(2.0)

    top = float((y.size + excess).max())
    return float(brentq(surplus, top - 3.0 * deviation, top + 9.0 * deviation, rtol=1e-10))


def _bets(
    vote: _Vote, n: int, gradients: dict[str, Gradient], ranks: dict[str, int], d: int, eps0: float, b: float
) -> dict[str, dict[str, Array]]:
    """Name of a part -> name of a bet -> (value, slope), shape (2, BETS)."""
    names = list(gradients)
    length = {name: y.l2 for name, y in gradients.items()}
    whole, noise = length[names[0]], vote.square(b)
    # The excess of a coordinate's bound hangs on its size smoothly: three sizes tell it.
    sizes = np.array([0.0, 0.5, 1.0]) * max(y.linf for y in gradients.values())
    top, top_stake, top_square = np.zeros((BETS, len(sizes))), np.zeros(BETS), np.zeros(BETS)
    value = {name: np.zeros(BETS) for name in names}
    stakes: dict[str, list[tuple[float, Array]]] = {name: [] for name in names}
    halves: dict[str, dict[str, Array]] = {name: {} for name in names}
    along_square: dict[str, float] = {}
    spread, before = 0.0, 0
    for index, size in enumerate(stages(n)):
        guessed: float | None = None
        if index == 0:
            constant = max(1.0 - 1.3 * eps0, 0.5)
            spread = (1.0 - constant) ** 2 + (2.0 * constant - 1.0) * 1.3 * eps0
            norm, seen, mean_h = math.inf, 0.0, 0.0
        else:
            constant = b
            norm = math.sqrt(whole**2 + d * noise / before)
            seen = vote.rho * whole / norm
            guessed = min(seen, RHO_MAX)
            mean_h = guessed * vote.rim
        beta = np.minimum(np.sqrt(2.0 * _TARGETS / (n * spread)), BETA_MAX)
        cell = 0.0
        for place, component in enumerate(sizes):
            a, own = component / norm, vote.rim and component / vote.rim
            square, logs = vote.growth(seen, guessed, constant, a, own, beta)
            top[:, place] += size * beta * (mean_h * a + TAIL) - size * logs[1]
            cell = cell if place else square
        top_stake += size * beta
        top_square += (size * beta) ** 2 * cell / size
        for name in names:
            if index == 0:
                value[name] -= size * beta * TAIL
                continue
            square = length[name] ** 2
            own_norm = math.sqrt(square + ranks[name] * noise / before)
            along = square / own_norm
            a, own = own_norm / norm, along / vote.rim
            guess = 0.8 * (vote.eps + vote.z * vote.rim) * (1.0 - 0.8 * guessed**4) if guessed is not None else 0.0
            staked = np.minimum(np.sqrt(2.0 * _TARGETS / (n * max(along_square.get(name, guess), spread))), BETA_MAX)
            mu = float(np.clip(along - mean_h * a, -MU_MAX, MU_MAX))
            along_square[name], logs = vote.growth(seen, guessed, constant, a, own, staked, mu)
            known = mean_h * a + mu
            value[name] += size * (staked * (known - TAIL) + logs[0])
            stakes[name].append((float(before), size * staked))
            low, high = known - TAIL + logs[0] / staked, known + TAIL - logs[1] / staked
            halves[name] = {
                "half_low": np.stack((low, 1.0 / (size * staked))),
                "half_high": np.stack((high, 1.0 / (size * staked))),
            }
        spread = cell if index == 0 else ((d - 1) * cell + along_square[names[0]]) / d
        before += size
    out = {}
    for name, y in gradients.items():
        total = _stake(length[name], ranks[name] * noise, stakes[name])
        curve = [
            np.polyfit(sizes, top[bet] / top_stake[bet] - sizes, 2) if whole else [0.0, 0.0, top[bet, 0] / top_stake[bet]]
            for bet in range(BETS)
        ]
        largest = [_largest(y, math.sqrt(top_square[bet]) / top_stake[bet], np.polyval(curve[bet], y.size)) for bet in range(BETS)]
        out[name] = {
            "length": np.stack((value[name] / total, 1.0 / total)),
            **halves[name],
            "top": np.stack((np.array(largest), 1.0 / top_stake)),
            **dict.fromkeys(("along", "along_high"), np.full((2, BETS), np.nan)),
        }
    return out


def _stake(length: float, noise: float, stakes: Sequence[tuple[float, Array]]) -> Array:
    """|sum of beta n v| of the directions after `before` samples each: they share y and the noise of the earlier one's samples."""
    square = np.zeros(BETS)
    for m, one in stakes:
        for k, other in stakes:
            norms = math.sqrt((length**2 + noise / m) * (length**2 + noise / k))
            square += one * other * (length**2 + noise / max(m, k)) / norms
    return np.sqrt(square)
