"""Bets at expected values: each takes the expected logarithm of a sample's factor times the number of samples.

It needs the law of (v_k.u, w.u, f) only, v_k the direction that stage k goes by and w the bet's: two normals that both see the
half-space, integrated by the trapezoidal rule. The schedule of sampling/stakes.py sets the stakes.

v_k goes by an estimate e of y (bets.py): of y's part along a proposed w all, of its part across, which has noise, the share `kept`
that is no noise. So e.y = |e|^2, and e.x = |y|^2 with x the mean itself. Without a proposal all of y is across.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from ..kernels.arrays import Array
from ..sampling.stakes import (
    REACH,
    RHO_MAX,
    TAIL,
    best_stake,
    centre,
    first_constant,
    first_left,
    first_spread,
    stages,
    vote_square,
)
from ..statistics.summary import BETS, TARGETS
from .model import LEAST, Gradient, Vote, largest

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
    """|y|^2 over the length of the estimate of y, inf where there is none: |y| over the cosine between them."""
    kept: float = 0.0
    """Share of the mean across w that is taken for no noise."""
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


def bet_along(vote: Vote, stage: Stage, a: float, along: float, spread: float) -> tuple[float, Array, Array, float, Array]:
    """(E (x - mu)^2, stakes on all samples, logarithms, what is known of the mean, stakes) along v; v.y = `along`, v.v_k = a."""
    beta = best_stake(np, _TARGETS, stage.n, max(spread, stage.spread))
    mu = float(centre(np, along - stage.mean_h * a))
    seen, logs = growth(vote, stage, a, along / vote.rim, beta, mu)
    return seen, stage.size * beta, logs, stage.mean_h * a + mu, beta


class Along:
    """Bets along the estimate of one part, which changes from stage to stage.

    Args:
        length: of y's part.
        rank: dimension of it.
        cosine: of a proposed w with y, 0 where there is none.
        whole: |y|^2.
    """

    def __init__(self, length: float, rank: int, cosine: float, whole: float) -> None:
        self.square, self.rank, self.whole = max(length**2, LEAST), rank, whole
        self.along, self.across = (cosine * length) ** 2, max((1.0 - cosine**2) * length**2, LEAST)
        self.value = np.zeros(BETS)
        self.stakes: list[tuple[float, float, Array]] = []
        """Of each stage with a direction: noise in the mean before it, the share kept, and the stakes on all of its samples."""
        self.half: dict[str, Array] = {}
        self.seen: float | None = None
        """E (x - mu)^2 of the stage before."""

    def noise(self, noise: float, before: int) -> float:
        """Square of the mean's noise after so many samples; `noise` is E (f - b)^2."""
        return self.rank * noise / before if before else math.inf

    def kept(self, noise: float, before: int) -> float:
        """Share of the mean across w that is taken for no noise."""
        return self.across / (self.across + self.noise(noise, before))

    def settle(self, vote: Vote, stage: Stage, noise: float) -> None:
        """One stage."""
        if stage.guessed is None:
            self.value -= stage.size * best_stake(np, _TARGETS, stage.n, stage.spread) * TAIL
            return
        left, kept = self.noise(noise, stage.before), self.kept(noise, stage.before)
        along = math.sqrt(self.along + kept * self.across)
        # The estimate of the whole has |y|^2 / norm for its length.
        a = (self.along + stage.kept * self.across) / along * stage.norm / self.whole
        first = first_spread(vote.eps, vote.z, vote.rim, stage.guessed)
        spread = first if self.seen is None else self.seen
        self.seen, staked, logs, known, beta = bet_along(vote, stage, min(a, 1.0), along, spread)
        self.value += stage.size * (beta * (known - TAIL) + logs[0])
        self.stakes.append((left, kept, staked))
        if math.isfinite(left):
            self._settle_half(vote, stage, left, spread, a, along)

    def _settle_half(self, vote: Vote, stage: Stage, left: float, spread: float, a: float, along: float) -> None:
        """Along the mean itself."""
        norm = math.sqrt(self.square + left)
        if self.along:
            share = self.square / (along * norm)
            a, along, spread = a * share, self.square / norm, share**2 * spread + (1.0 - share**2) * stage.spread
        _, staked, logs, known, beta = bet_along(vote, stage, min(a, 1.0), along, spread)
        low, high = known - TAIL + logs[0] / beta, known + TAIL - logs[1] / beta
        self.half = {"half_low": np.stack((low, 1.0 / staked)), "half_high": np.stack((high, 1.0 / staked))}

    def bound(self) -> Array:
        """(value, slope) of the length. |sum of beta n v|: the directions share w, y and the noise of the earlier one's samples."""
        total = self._total()
        return np.stack((self.value / total, 1.0 / total))

    def cosine(self) -> Array:
        """Cosine between that sum and y."""
        towards = sum(staked * math.sqrt(self.along + kept * self.across) for _, kept, staked in self.stakes)
        return np.asarray(towards / (self._total() * math.sqrt(self.square)))

    def _total(self) -> Array:
        length = np.zeros(BETS)
        for left, kept, one in self.stakes:
            for other_left, other_kept, other in self.stakes:
                shared = min(left, other_left)
                common = kept * other_kept * (self.across + shared) if math.isfinite(shared) else 0.0
                norms = math.sqrt((self.along + kept * self.across) * (self.along + other_kept * self.across))
                length += one * other * (self.along + common) / norms
        return np.sqrt(length)


class Fixed:
    """Bets along a unit vector v that does not change.

    Args:
        along_y, along_w: v.y and v.w, w what was proposed.
        proposed: w.y.
        square: |y|^2.
    """

    def __init__(self, along_y: float, along_w: float, proposed: float, square: float) -> None:
        self.y, self.along, self.square = along_y, along_w * proposed, square
        self.value, self.staked = np.zeros(BETS), np.zeros(BETS)
        self.seen: float | None = None

    def settle(self, vote: Vote, stage: Stage) -> None:
        """One stage with a direction."""
        assert stage.guessed is not None
        a = (self.along + stage.kept * (self.y - self.along)) * stage.norm / self.square
        spread = first_spread(vote.eps, vote.z, vote.rim, stage.guessed) if self.seen is None else self.seen
        self.seen, staked, logs, known, beta = bet_along(vote, stage, min(a, 1.0), self.y, spread)
        self.value += stage.size * (beta * (known - TAIL) + logs[0])
        self.staked += staked

    def bound(self) -> Array:
        """(value, slope) of v.y; NaN where nothing was bet."""
        if self.seen is None:
            return np.full((2, BETS), np.nan)
        return np.stack((self.value, np.ones(BETS))) / self.staked


class Expected(NamedTuple):
    """Bets by their names, (value, slope) each of shape (2, BETS), by part, and the cosines of what they are along with y."""

    bets: dict[str, dict[str, Array]]
    cosines: Array


def expected_bets(
    vote: Vote,
    n: int,
    gradients: dict[str, Gradient],
    ranks: dict[str, int],
    eps0: float,
    b: float,
    cosine: float | None = None,
    thin: tuple[float, float] = (0.0, 0.0),
) -> Expected:
    """At n samples; the first part is the whole gradient. `cosine`: of a proposed w with y; `thin`: v.y and v.w along its THIN."""
    first, d = next(iter(gradients)), next(iter(ranks.values()))
    noise, square = float(vote_square(b, vote.eps)), max(gradients[first].l2 ** 2, LEAST)
    coordinates = Coordinates(max(y.linf for y in gradients.values()))
    along = {name: Along(y.l2, ranks[name], cosine or 0.0, square) for name, y in gradients.items()}
    larger = Fixed(*thin, (cosine or 0.0) * math.sqrt(square), square)
    spread, before = 0.0, 0
    for index, size in enumerate(stages(n)):
        if index == 0 and cosine is None:
            constant, spread = (float(x) for x in first_constant(np, eps0))
            stage = Stage(n=n, size=size, before=before, spread=spread, constant=constant)
        else:
            spread = spread if index else float(first_left(eps0))
            kept = along[first].kept(noise, before)
            norm = square / math.sqrt(along[first].along + kept * along[first].across)
            seen = vote.rho * math.sqrt(square) / norm
            rho = min(seen, RHO_MAX)
            stage = Stage(
                n=n, size=size, before=before, spread=spread, norm=norm, kept=kept, seen=seen, guessed=rho, mean_h=rho * vote.rim
            )
        cell = coordinates.settle(vote, stage)
        for part in along.values():
            part.settle(vote, stage, noise)
        if cosine is not None:
            larger.settle(vote, stage)
        seen_along = along[first].seen
        spread = cell if seen_along is None else ((d - 1) * cell + seen_along) / d
        before += size
    unmade = dict.fromkeys(("along", "along_high"), np.full((2, BETS), np.nan)) | {"thin": larger.bound()}
    bets = {
        name: {"length": part.bound(), **part.half, "top": coordinates.bound(gradients[name]), **unmade}
        for name, part in along.items()
    }
    return Expected(bets, along[first].cosine())
