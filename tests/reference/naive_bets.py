"""Slow references for the bets of the adaptive estimator: the whole tally in loops, sample by sample."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri
from scipy.stats import norm

from certlut.threats.projections import Projection
from reference.naive_statistics import Array, phi

REACH = 4.4
TAIL = 2.26e-6
TARGETS = (6.0, 10.0, 17.0)


def tail(reach: float) -> float:
    """E[(|t| - reach)+] of a standard normal t."""
    return 2.0 * (phi(reach) - reach * float(norm.sf(reach)))


def factor(x: float, mu: float, beta: float, reach: float = REACH) -> float:
    """What a bet of beta that x exceeds mu multiplies its stake by."""
    return 1.0 + max(beta * (x - mu), -beta * (reach + abs(mu)))


@dataclass(frozen=True)
class Cells:
    """What is known besides E[u | k] of noise on a grid."""

    seen: Array
    """k / R, shape (n, d)."""
    ratio: float
    """R."""

    @property
    def rho_max(self) -> float:
        """The largest rho of a prediction."""
        return min(0.95, math.sqrt(max(0.0, 1.0 - 15.0 / (math.pi * self.ratio) ** 2)))

    @property
    def tail(self) -> float:
        """The allowance of a bet."""
        c, rho = 2.0 * (math.pi * self.ratio) ** 2, self.rho_max
        rounding = 2.02 * (1.0 + math.sqrt(1.0 + 2.0 * c)) * (math.exp(-c * (1.0 - rho**2)) + self.seen.shape[1] * math.exp(-c))
        return TAIL + (rho**5 / (960.0 * self.ratio**4) + rounding if rho else 0.0)

    def slope(self, z: float, rho: float) -> float:
        """Length of E[m h]."""
        return rho * phi(z) * (1.0 + rho**2 * (z * z - 1.0) / (24.0 * self.ratio**2))


def parabola(z: float, a: float) -> float:
    """Below log(1 + max(z, -a))."""
    return z - (0.5 + a / (3.0 * (1.0 - a))) * z * z


class Ledger:
    """One supermartingale: sum of beta E x' >= total - L, except with probability e^-L; x' is what x estimates."""

    def __init__(self, tail: float = TAIL) -> None:
        self.tail, self.total = tail, 0.0
        self.staked: Array | float = 0.0

    def settle(self, x: float, mu: float, beta: float, known: float, direction: Array | float = 1.0, bent: float = 0.0) -> None:
        """One sample, E x = x' - known; bent: where it is not 0, by a parabola that serves losses up to `bent`."""
        won = parabola(beta * x, beta * bent) if bent else math.log(factor(x, mu, beta))
        self.total += won - beta * self.tail + beta * (mu + known)
        self.staked = self.staked + beta * direction


def naive_tally(
    parts: Mapping[str, Projection],
    u: Array,
    f: npt.NDArray[np.bool_],
    against: int,
    n0: int,
    n: int,
    w: Array | None = None,
    trial: tuple[float, int] = (0.0, 0),
    cells: Cells | None = None,
) -> dict[str, dict[str, Array]]:
    """Bets of one input from its rows in order: part -> bet -> (value, slope), shape (2, number of targets).

    With `cells`, u is E[u | k] of noise on a grid.
    """
    allowance = TAIL if cells is None else cells.tail
    d, bets = u.shape[1], range(len(TARGETS))
    b = max(0.5, round(64.0 * (1.0 - 0.7 * _tail_square((against + 0.5) / (n0 + 1.0)))) / 64.0)
    stage_of = np.repeat(np.arange(4), [n // 8, n // 8, n // 2 - 2 * (n // 8), n - n // 2])[: len(u)]
    names = list(parts)
    top = [[[Ledger(allowance) for _ in range(2 * d)] for _ in bets]]
    length, high, half, minus = ({name: [Ledger(allowance) for _ in bets] for name in names} for _ in range(4))
    before: list[tuple[float, dict[str, float]]] = [(0.0, dict.fromkeys(names, 0.0))]
    earlier: dict[Any, Array] = {}
    for stage in range(4):
        rows = np.flatnonzero(stage_of == stage)
        if not len(rows):
            continue
        past = np.flatnonzero(stage_of < stage)
        eps = min((against + len(past) - f[past].sum() + 0.5) / (n0 + len(past) + 1.0), 0.5)
        z = -float(ndtri(eps))
        mean = np.zeros(d)
        for i in past:
            mean += u[i] * (f[i] - b) / len(past)
        spread, seen = before[-1]
        spread, rho = max(spread, 1e-300), 0.0
        directions: dict[Any, Array] = {}
        mu: dict[Any, float] = {}
        variance: dict[Any, float] = {}
        noise = ((1.0 - b) ** 2 + (2.0 * b - 1.0) * eps) / max(len(past), 1)
        votes = eps + z * phi(z)
        tried = trial[1] + len(past)
        doubt = votes / (votes + tried * (0.5 * phi(z)) ** 2)
        along_w = 0.0
        if w is not None:
            estimate = (trial[0] * trial[1] + float(w @ mean) * len(past)) / max(tried, 1)
            along_w = (1.0 - doubt) * estimate + doubt * 0.9 * phi(z)
        for name, by in parts.items():
            directions[name], guess = _direction(by, mean, noise, along_w, w, not len(past))
            mu[name] = min(guess, phi(z))
            if name == names[0]:
                rho = min(mu[name] / phi(z), 0.95 if cells is None else cells.rho_max)
        constant = 0.0
        if stage == 0 and w is None:
            constant = max(1.0 - 1.3 * eps, 0.5)
            spread = (1.0 - constant) ** 2 + (2.0 * constant - 1.0) * 1.3 * eps
            variance, mu = dict.fromkeys(names, spread), dict.fromkeys(names, 0.0)
            mean_h = np.zeros(d)
        else:
            mean_h = (rho * phi(z) if cells is None else cells.slope(z, rho)) * directions[names[0]]
            spread = 0.6 * eps if stage == 0 else spread
            first = 0.8 * votes * (1.0 - 0.8 * rho**4)
            for name, by in parts.items():
                share = 1.0 if stage > 1 else 0.0 if stage == 0 else float(earlier[name] @ directions[name]) ** 2
                variance[name] = max(share * seen[name] + (1.0 - share) * first, spread)
                if w is not None:
                    x_direction, x_length = _direction(by, mean, noise, 0.0, None, False)
                    share = float(x_direction @ directions[name]) ** 2
                    directions[name, "X"], mu[name, "X"] = x_direction, min(x_length, phi(z))
                    variance[name, "X"] = share * variance[name] + (1.0 - share) * spread
            for key in mu:
                mu[key] = min(max(mu[key] - float(mean_h @ directions[key]), -0.3), 0.3)
        earlier = directions
        stakes = [min(math.sqrt(2.0 * target / (n * spread)), 0.2) for target in TARGETS]
        along = {key: [min(math.sqrt(2.0 * target / (n * value)), 0.2) for target in TARGETS] for key, value in variance.items()}
        square, squares = 0.0, dict.fromkeys(names, 0.0)
        for i in rows:
            t = float((u if cells is None else cells.seen)[i] @ directions[names[0]])
            h = constant if stage == 0 and w is None else float(ndtr((z + rho * t) / math.sqrt(1.0 - rho * rho)))
            left = float(f[i]) - h
            for j in range(d):
                x = u[i, j] * left
                square += x * x / (d * len(rows))
                for k in bets:
                    for place, sign in enumerate((-1.0, 1.0)):
                        bent = REACH * abs(left) if abs(left) < 0.25 else 0.0
                        top[0][k][2 * j + place].settle(sign * x, 0.0, stakes[k], sign * mean_h[j], bent=bent)
            for name in names:
                v = directions[name]
                x, known = float(u[i] @ v) * left, float(v @ mean_h)
                squares[name] += (x - mu[name]) ** 2 / len(rows)
                for k in bets:
                    length[name][k].settle(x, mu[name], along[name][k], known, v)
                    high[name][k].settle(-x, -mu[name], along[name][k], -known, v)
                if stage == 3:
                    key = name if w is None else (name, "X")
                    x, known = float(u[i] @ directions[key]) * left, float(directions[key] @ mean_h)
                    for k in bets:
                        half[name][k].settle(x, mu[key], along[key][k], known)
                        minus[name][k].settle(-x, -mu[key], along[key][k], -known)
        before.append((square, squares))
    out: dict[str, dict[str, Array]] = {}
    for name, by in parts.items():
        own = {"half_low": half[name], "half_high": minus[name]}
        out[name] = {kind: np.array([_bound(ledger, ledger.staked) for ledger in ledgers]).T for kind, ledgers in own.items()}
        out[name]["half_high"][0] *= -1.0
        out[name]["length"] = np.array([_bound(a, float(np.linalg.norm(a.staked))) for a in length[name]]).T
        if by.vector is not None:
            out[name]["along"] = np.array([_bound(a, float(by.vector @ a.staked)) for a in length[name]]).T
            out[name]["along_high"] = np.array([_bound(a, float(by.vector @ a.staked)) for a in high[name]]).T * [[-1.0], [1.0]]
        elif by.basis is None:
            kept = np.flatnonzero(np.ones(d) if by.mask is None else by.mask)
            worst = [min((top[0][k][2 * j + place] for j in kept for place in range(2)), key=lambda a: a.total) for k in bets]
            out[name]["top"] = np.array([_bound(ledger, ledger.staked) for ledger in worst]).T * [[-1.0], [1.0]]
    return out


def _direction(by: Projection, mean: Array, noise: float, along: float, w: Array | None, first: bool) -> tuple[Array, float]:
    """(unit direction of a part, how long y is guessed to be along it): `along` w, and what of the mean across w is not noise."""
    aligned = np.zeros_like(mean) if w is None else along * w
    if by.vector is not None:
        return by.vector, float((aligned if first else mean) @ by.vector)
    across = by.embed(mean if w is None else mean - float(w @ mean) * w)
    square = float(across @ across)
    kept = max(1.0 - noise * by.rank(len(mean)) / square, 1e-30) if square > 0.0 else 0.0
    y = by.embed(aligned) + kept * across
    size = float(np.linalg.norm(y))
    return (y / size if size > 0.0 else y), size


def _bound(ledger: Ledger, stake: Array | float) -> tuple[float, float]:
    return (ledger.total / float(stake), 1.0 / float(stake)) if stake else (-math.inf, math.inf)


def _tail_square(eps: float) -> float:
    """E[t^2; |t| > z], P(|t| > z) = eps."""
    z = float(norm.isf(0.5 * eps))
    return 2.0 * (float(norm.sf(z)) + z * phi(z))
