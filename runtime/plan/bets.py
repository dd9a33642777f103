"""Bets at expected values: each takes the expected logarithm of a sample's factor times the number of samples.

It needs the law of (v_k.u, w.u, f) only, v_k the direction that stage k goes by and w the bet's: two normals that both see the
half-space, integrated by the trapezoidal rule. The cosine between v_k and y is |y| over the length of the mean so far, and the
schedule of sampling/stakes.py sets the stakes.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from ..kernels.arrays import Array
from ..sampling.stakes import REACH, RHO_MAX, TAIL, best_stake, centre, first_constant, first_spread, stages, vote_square
from ..statistics.summary import BETS, TARGETS
from .model import Gradient, Vote, largest

STEP = 0.25
NODES = np.arange(-8.0, 8.0 + 0.5 * STEP, STEP)
WEIGHTS = STEP * np.exp(-0.5 * NODES**2) / math.sqrt(2.0 * math.pi)
_TARGETS = np.array(TARGETS)
# Correlations closer to 1 than this are taken for it.
_SMALL = 1e-6


@dataclass(frozen=True)
class Stage:
    """What one stage of the bets goes by."""

    n: int
    """Samples of all stages; `size` of this one, `before` of those before."""
    size: int
    before: int
    spread: float
    """E x^2 on a coordinate, by which stakes are chosen."""
    norm: float = math.inf
    """Length of the mean so far, inf where there is none."""
    seen: float = 0.0
    """Correlation of t, the noise along that mean, with what the half-space sees."""
    guessed: float | None = None
    """The rho of the prediction h(t); None for `constant`."""
    constant: float = 0.5
    mean_h: float = 0.0
    """Length of E[u h]."""


def growth(vote: Vote, stage: Stage, a: float, sees: float, beta: Array, mu: float = 0.0) -> tuple[float, Array]:
    """E (x - mu)^2 and E log(1 +- beta (x - mu)), shape (2, BETS), of a bet on x = w.u (f - h), by both signs.

    Args:
        vote: the model classifier.
        stage: fixes h and t = v_k.u.
        a: w.v_k.
        sees: correlation of w.u with what the half-space sees.
        beta: stakes, shape (BETS,).
        mu: the guess of E x.
    """
    seen, guessed = stage.seen, stage.guessed
    across = math.sqrt(max(1.0 - a * a, 0.0))
    t, s, weight = NODES[:, None], np.zeros((1, 1)), WEIGHTS[:, None]
    rest = 0.0
    if across > _SMALL:
        s, weight, rest = NODES[None, :], weight * WEIGHTS, (sees - a * seen) / across
    p = ndtr((vote.z + seen * t + rest * s) / math.sqrt(max(1.0 - seen**2 - rest**2, _SMALL)))
    h = np.full_like(t, stage.constant) if guessed is None else ndtr((vote.z + guessed * t) / math.sqrt(1.0 - guessed**2))
    w = a * t + across * s
    spread, logs = 0.0, np.zeros((2, BETS))
    for f, mass in ((1.0, weight * p), (0.0, weight * (1.0 - p))):
        x = w * (f - h) - mu
        spread += float(np.sum(mass * x * x))
        for bet, staked in enumerate(beta):
            low = 1.0 - staked * (REACH + abs(mu))
            for row, sign in enumerate((1.0, -1.0)):
                logs[row, bet] += np.sum(mass * np.log(np.maximum(1.0 + sign * staked * x, low)))
    return spread, logs


class Coordinates:
    """Bets on coordinates of a few sizes: what a bound exceeds a size by hangs on it smoothly."""

    def __init__(self, top: float) -> None:
        self.sizes = np.array([0.0, 0.5, 1.0]) * top
        self.value, self.staked, self.square = np.zeros((BETS, len(self.sizes))), np.zeros(BETS), np.zeros(BETS)

    def settle(self, vote: Vote, stage: Stage) -> float:
        """One stage; returns E x^2 on a coordinate of size 0."""
        beta, cell = best_stake(np, _TARGETS, stage.n, stage.spread), 0.0
        for place, component in enumerate(self.sizes):
            a, sees = component / stage.norm, vote.rim and component / vote.rim
            spread, logs = growth(vote, stage, a, sees, beta)
            self.value[:, place] += stage.size * beta * (stage.mean_h * a + TAIL) - stage.size * logs[1]
            cell = cell if place else spread
        self.staked += stage.size * beta
        self.square += (stage.size * beta) ** 2 * cell / stage.size
        return cell

    def bound(self, y: Gradient) -> Array:
        """(value, slope) of the largest coordinate."""
        found = []
        for value, staked, spread in zip(self.value, self.staked, self.square, strict=True):
            curve = np.polyfit(self.sizes, value / staked - self.sizes, 2) if self.sizes[-1] else [0.0, 0.0, value[0] / staked]
            found.append(largest(y, math.sqrt(spread) / staked, np.polyval(curve, y.size)))
        return np.stack((np.array(found), 1.0 / self.staked))


class Along:
    """Bets along the direction of one part's mean, which changes from stage to stage."""

    def __init__(self, length: float, rank: int) -> None:
        self.length, self.rank = length, rank
        self.value = np.zeros(BETS)
        self.stakes: list[tuple[int, Array]] = []
        """Of each stage with a direction: samples before it, and the stakes on all of its samples."""
        self.half: dict[str, Array] = {}
        self.seen: float | None = None
        """E (x - mu)^2 of the stage before."""

    def settle(self, vote: Vote, stage: Stage, noise: float) -> None:
        """One stage; `noise` is E (f - b)^2."""
        if stage.guessed is None:
            self.value -= stage.size * best_stake(np, _TARGETS, stage.n, stage.spread) * TAIL
            return
        norm = math.sqrt(self.length**2 + self.rank * noise / stage.before)
        along = self.length**2 / norm
        a, sees = norm / stage.norm, along / vote.rim
        spread = first_spread(vote.eps, vote.z, vote.rim, stage.guessed) if self.seen is None else self.seen
        beta = best_stake(np, _TARGETS, stage.n, max(spread, stage.spread))
        mu = float(centre(np, along - stage.mean_h * a))
        self.seen, logs = growth(vote, stage, a, sees, beta, mu)
        known, staked = stage.mean_h * a + mu, stage.size * beta
        self.value += stage.size * (beta * (known - TAIL) + logs[0])
        self.stakes.append((stage.before, staked))
        low, high = known - TAIL + logs[0] / beta, known + TAIL - logs[1] / beta
        self.half = {"half_low": np.stack((low, 1.0 / staked)), "half_high": np.stack((high, 1.0 / staked))}

    def bound(self, noise: float) -> Array:
        """(value, slope) of the length. |sum of beta n v|: the directions share y and the noise of the earlier one's samples."""
        noise, length = self.rank * noise, np.zeros(BETS)
        for m, one in self.stakes:
            for k, other in self.stakes:
                norms = math.sqrt((self.length**2 + noise / m) * (self.length**2 + noise / k))
                length += one * other * (self.length**2 + noise / max(m, k)) / norms
        total = np.sqrt(length)
        return np.stack((self.value / total, 1.0 / total))


def expected_bets(
    vote: Vote, n: int, gradients: dict[str, Gradient], ranks: dict[str, int], eps0: float, b: float
) -> dict[str, dict[str, Array]]:
    """Name of a part -> name of a bet -> (value, slope), shape (2, BETS); the first part is the whole gradient."""
    first, d = next(iter(gradients)), next(iter(ranks.values()))
    noise, whole = float(vote_square(b, vote.eps)), gradients[first].l2
    coordinates = Coordinates(max(y.linf for y in gradients.values()))
    along = {name: Along(y.l2, ranks[name]) for name, y in gradients.items()}
    spread, before = 0.0, 0
    for index, size in enumerate(stages(n)):
        if index == 0:
            constant, spread = (float(x) for x in first_constant(np, eps0))
            stage = Stage(n=n, size=size, before=before, spread=spread, constant=constant)
        else:
            norm = math.sqrt(whole**2 + d * noise / before)
            seen = vote.rho * whole / norm
            rho = min(seen, RHO_MAX)
            stage = Stage(n=n, size=size, before=before, spread=spread, norm=norm, seen=seen, guessed=rho, mean_h=rho * vote.rim)
        cell = coordinates.settle(vote, stage)
        for part in along.values():
            part.settle(vote, stage, noise)
        seen_along = along[first].seen
        spread = cell if seen_along is None else ((d - 1) * cell + seen_along) / d
        before += size
    unmade = dict.fromkeys(("along", "along_high"), np.full((2, BETS), np.nan))
    return {
        name: {"length": part.bound(noise), **part.half, "top": coordinates.bound(gradients[name]), **unmade}
        for name, part in along.items()
    }
