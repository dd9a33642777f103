"""Bets on the size of the gradient, settled while the samples are drawn: what the "adaptive" estimator's tightest bounds rest on.

The samples come in four stages (an eighth, an eighth, a quarter and a half of them). For a vector w with |w|_2 <= 1 and a number
h in [0, 1] that depends on the sample's noise u in a way fixed before the sample, x = (w.u)(f - h) has mean w.y - w.E[u h]. For
beta > 0 and a guess mu of that mean, let z = beta (x - mu) and xi = beta (REACH + |mu|). Clipped from below at -xi, it has

    E max(z, -xi) <= E z + beta TAIL,    TAIL = E[(|t| - REACH)+], t standard normal,    because |x| <= |w.u|,

and 1 + s <= e^s: so the product over all samples of (1 + max(z, -xi)) exp(-E z - beta TAIL) is a nonnegative supermartingale
that starts at 1, and by Markov's inequality, except with probability e^-L,

    sum of beta (E x - mu)  >=  sum of log(1 + max(z, -xi))  -  beta TAIL each  -  L.                                      (1)

w, h, mu and beta may change from stage to stage with what was drawn before. No variance and no rareness need be known: the
logarithm pays for the variance that x turns out to have. (1) is used four ways, each for BETS values of beta, tuned to the levels
e^-L of TARGETS; dividing by the total stake makes every bound of the form value -+ slope L:

- top: w = +-e_j for every coordinate j of a part. The largest |y_j| is that of one fixed j and sign: no union over coordinates.
- length: w = v, the direction of what the part of y is estimated to be. With D = sum of beta n v, D.y <= |D| |P y| bounds |P y|.
- half: in the last stage alone, along the direction of X, the mean of the first half (adaptive.py). From below and from above.
- along: w = v of a threat's direction, from below and from above; and of a proposal's larger coordinates (THIN), from below, which
  bound |y|_1 by more than the proposal itself where |y|_2 is known well and the mean of the samples is mostly noise (direction.py).

The estimate of y is a proposed direction (proposal.py) until samples say more: then as much of it as they say, and of their mean
across it what is not noise. Where none was proposed it is their mean, and the first stage has no direction.

Bets on coordinates are many, x = u_j s with s = f - h, and most samples have s near 0. Where |s| < EXACT the loss may be clipped at
-a, a = beta REACH |s|, with the same TAIL, as |x| <= |s| |u_j|; and since (log(1 + z) - z) / z^2 increases with z,

    log(1 + max(beta x, -a)) >= beta x - kappa beta^2 x^2,    kappa = 1/2 + a / (3 (1 - a)) >= (-log(1 - a) - a) / a^2.       (2)

Sums of s u_j and of kappa s^2 u_j^2 serve all stakes of either sign, and with smaller logarithms (1) holds all the more.

h takes out what the direction of y predicts of the vote: f is compared with Phi((z + rho t)/sqrt(1 - rho^2)), t = v.u, the vote of
a half-space seen through noise; E[u h] = rho phi(z) v.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ..statistics.summary import BETS, TARGETS, THIN, Moments
from ..threats.projections import Projection
from .factors import multiply
from .stakes import (
    REACH,
    RHO_MAX,
    TAIL,
    best_stake,
    centre,
    chosen_b,
    first_constant,
    first_left,
    first_spread,
    likely_along,
    stages,
    thinned,
    vote_square,
)

# Factors to a logarithm: each lies between 1 - xi and some 3.
CHUNK = 16
EXACT = 0.25
# On a CPU: rows at a time of what is small; numbers at a time of noise, in a cache. Numbers at a time that fill a GPU.
ROWS, STRIP, DEVICE_STRIP = 2**14, 2**17, 2**24
TINY = 1e-300


def log_product(factors: torch.Tensor) -> torch.Tensor:
    """Sum of the logarithms along axis 0, most of them taken of products."""
    whole = len(factors) // CHUNK * CHUNK
    products = factors[:whole].reshape(CHUNK, -1, *factors.shape[1:]).prod(dim=0)
    return products.log().sum(dim=0) + factors[whole:].log().sum(dim=0)


@dataclass
class _Stage:
    """What is fixed while a stage is drawn; vectors are float64 on the device."""

    directions: torch.Tensor
    """Columns: the unit direction of every part (0 where there is none yet), shape (d, P); in the last stage with a proposal then
    that of every part of X."""
    h: torch.Tensor | None
    """(z, rho) of the prediction, or None for the constant `b`."""
    b: torch.Tensor
    mean_h: torch.Tensor
    """E[u h], shape (d,)."""
    beta: torch.Tensor
    """Stakes on coordinates, shape (BETS,)."""
    mu: torch.Tensor
    """Centres along the directions, shape (P,)."""
    beta_along: torch.Tensor
    """Stakes along the directions, shape (BETS, P)."""


class Tally:
    """Sums and bets of one input, fed with the rows of its samples in order.

    Args:
        parts: the parts of the gradient, by name; the first is the whole of it.
        d: numbers of an input.
        n: samples to come.
        against: votes against the class among the n0 selection samples, and n0.
        device: where u and the votes are.
        w: a unit vector that may lie along the gradient, shape (d,), fixed before these samples (proposal.py); None: none is known.
        trial: an estimate of w.y from other samples, and how many they were.
    """

    def __init__(
        self,
        parts: Mapping[str, Projection],
        d: int,
        n: int,
        against: tuple[int, int],
        device: torch.device,
        w: torch.Tensor | None = None,
        trial: tuple[float, int] = (0.0, 0),
    ) -> None:
        parts = parts if w is None else {**parts, THIN: Projection(vector=thinned(w.cpu().numpy()))}
        self.parts, self.d, self.sizes, self.device = parts, d, stages(n), device
        self.rho_max, self.tail = RHO_MAX, TAIL
        """The largest rho of the prediction, and the allowance of a bet."""
        self.against, self.n0 = against
        self.b = chosen_b((self.against + 0.5) / (self.n0 + 1.0))
        count = len(parts)

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.sums = zeros(2, 2, d)
        """Per half: sum u f, sum u."""
        self.count = torch.zeros(2, dtype=torch.int64, device=device)
        self.drawn = [0, 0]
        self.top = zeros(2, BETS, d)
        """For -w = e_j and +e_j: the right-hand side of (1), less L, as a bound of -+ sum of beta n y_j."""
        self.top_stake = zeros(BETS)
        self.length = zeros(BETS, count)
        self.stake = zeros(BETS, d, count)
        """Sum of beta n v."""
        self.along_stake = zeros(BETS, count)
        self.half = zeros(2, BETS, count)
        self.half_stake = zeros(BETS, count)
        lines = [column for column, part in enumerate(parts.values()) if part.vector is not None]
        self._lines = torch.tensor(lines, dtype=torch.int64, device=device)
        self.along_high = zeros(BETS, len(lines))
        """From above, along the vectors of directions alone."""
        self._square, self._square_along = zeros(d), zeros(count)
        self._targets = torch.tensor(TARGETS, dtype=torch.float64, device=device)
        self._fixed = torch.tensor([part.vector is not None for part in parts.values()], device=device)
        self._vectors = zeros(d, count)
        self._bases, self._masks = dict[int, torch.Tensor](), dict[int, torch.Tensor]()
        for column, part in enumerate(parts.values()):
            if part.vector is not None:
                self._vectors[:, column] = torch.as_tensor(part.vector, device=device)
            if part.basis is not None:
                self._bases[column] = torch.as_tensor(part.basis, device=device)
            if part.mask is not None:
                self._masks[column] = torch.as_tensor(part.mask, device=device)
        self.trial = trial
        self._blind, self._w = w is None, zeros(d) if w is None else w.to(device, torch.float64)
        self._index, self._left, self._taken = -1, 0, 0
        self._stage: _Stage | None = None
        self._cpu = device.type == "cpu"
        self._strip = max(1, (STRIP if self._cpu else DEVICE_STRIP) // d)
        self._kept: dict[str, torch.Tensor] = {}
        # Factors of bets on coordinates since the last logarithm, and of how many samples.
        self._pending_factors, self._pending = torch.ones_like(self.top), 0

    def add(self, u: torch.Tensor, votes: torch.Tensor) -> None:
        """Count rows of noise u (float64, shape (B, d)) and whether each voted for the class (bool, shape (B,))."""
        start = 0
        while start < len(u):
            while self._left == 0:
                self._begin()
            stop = min(len(u), start + self._left, start + (ROWS if self._cpu else self._strip))
            self._add(u[start:stop], votes[start:stop].to(torch.float64))
            self._left -= stop - start
            self._taken += stop - start
            start = stop

    def _begin(self) -> None:
        """Fix the next stage by what was drawn so far; nothing waits for the device."""
        self._settle()
        self._index += 1
        drawn, count = sum(self.drawn), len(self.parts)
        total = self.sums.sum(dim=0)
        eps = self._rareness()
        z = -torch.special.ndtri(eps)
        rim = torch.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
        mean = (total[0] - self.b * total[1]) / max(drawn, 1)
        noise = vote_square(self.b, eps) / max(drawn, 1)
        tried = self.trial[1] + drawn
        seen = (self.trial[1] * self.trial[0] + drawn * (self._w @ mean)) / max(tried, 1)
        directions, length = self._estimate(mean, noise, likely_along(seen, tried, eps, z, rim))
        length = torch.minimum(length, rim)
        if self._blind and self._index == 0:
            b, spread = first_constant(torch, eps)
            h: torch.Tensor | None = None
            mean_h, mu, along = torch.zeros_like(mean), torch.zeros_like(length), spread.expand(count)
        else:
            rho = torch.clamp(length[0] / rim, 0.0, self.rho_max)
            h, b, mean_h = torch.stack((z, rho)), torch.zeros_like(z), self._mean(z, rho, rim) * directions[:, 0]
            before, first = max(self._taken, 1), first_spread(eps, z, rim, rho)
            spread = torch.clamp(self._square.mean() / before if self._index else first_left(eps), min=TINY)
            along = self._square_along / before if self._index else first.expand(count)
            if self._index == 1 and self._stage is not None:
                # Nothing was seen along what these directions have across the first ones.
                share = (directions * self._stage.directions).sum(dim=0) ** 2
                along = share * along + (1.0 - share) * first
            along = torch.maximum(along, spread)
            if self._index == 3 and not self._blind:
                other, size = self._estimate(mean, noise, None)
                # Of X all but this share of its direction's variance is that of any coordinate.
                share = (other * directions).sum(dim=0) ** 2
                directions, length = torch.cat((directions, other), dim=1), torch.cat((length, torch.minimum(size, rim)))
                along = torch.cat((along, share * along + (1.0 - share) * spread))
            mu = centre(torch, length - mean_h @ directions)
        self._square_along = torch.zeros_like(mu)
        n = sum(self.sizes)
        self._stage = _Stage(
            directions=directions,
            h=h,
            b=b,
            mean_h=mean_h,
            beta=best_stake(torch, self._targets, n, spread),
            mu=mu,
            beta_along=best_stake(torch, self._targets[:, None], n, torch.clamp(along, min=TINY)),
        )
        self._left, self._taken = self.sizes[self._index], 0
        self._square.zero_()

    def _rareness(self) -> torch.Tensor:
        """The frequency of votes against so far, at most 1/2, shrunk a little, so that it is never 0."""
        drawn = sum(self.drawn)
        eps = (self.against + drawn - self.count.sum().to(torch.float64) + 0.5) / (self.n0 + drawn + 1.0)
        return torch.clamp(eps, max=0.5)

    def _mean(self, z: torch.Tensor, rho: torch.Tensor, rim: torch.Tensor) -> torch.Tensor:
        """Length of E[u h], which lies along the direction of h."""
        return rho * rim

    def _estimate(self, mean: torch.Tensor, noise: torch.Tensor, along: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit direction of every part, shape (d, P), and how long y is along it, shape (P,).

        `mean` is y with noise of this variance in every coordinate. `along` is w.y, which is taken as it is; across w, the mean is
        shrunk by the share of its square that is noise, as large as that of any vote of this frequency. None: no w.
        """
        aligned = torch.zeros_like(mean) if along is None else along * self._w
        rest = mean if along is None else mean - (self._w @ mean) * self._w
        columns = range(len(self.parts))
        across = torch.stack([self._part(c, rest) for c in columns], dim=1)
        square = torch.clamp((across * across).sum(dim=0), min=TINY)
        # Never 0: some direction is better than none.
        kept = torch.clamp(1.0 - noise * self._ranks() / square, min=1e-30)
        y = torch.stack([self._part(c, aligned) for c in columns], dim=1) + kept * across
        size = y.norm(dim=0)
        directions = torch.where(self._fixed, self._vectors, y / torch.clamp(size, min=TINY))
        return directions, torch.where(self._fixed, (mean if sum(self.drawn) else aligned) @ directions, size)

    def _settle(self) -> None:
        """Add to both sides of (1) what is the same for every sample of the stage: stakes, centres, E[u h] and tails."""
        stage, size = self._stage, self._taken
        if stage is None or size == 0:
            return
        count, staked = len(self.parts), size * stage.beta
        along, known = size * stage.beta_along, stage.mean_h @ stage.directions + stage.mu
        self.top_stake += staked
        self.top += staked[:, None] * torch.stack((-stage.mean_h, stage.mean_h))[:, None, :] - (staked * self.tail)[:, None]
        if self._index == 3:
            half, low = along[:, -count:], known[-count:]
            self.half_stake += half
            self.half += torch.stack((half * (low - self.tail), half * (-low - self.tail)))
        along, known = along[:, :count], known[:count]
        self.length += along * (known - self.tail)
        self.stake += along[:, None, :] * stage.directions[:, :count]
        self.along_stake += along
        self.along_high += (along * (-known - self.tail)).index_select(1, self._lines)

    def _add(self, u: torch.Tensor, f: torch.Tensor) -> None:
        stage = self._stage
        assert stage is not None
        half = self._count(f)
        t, s = f.new_empty((len(f), stage.directions.shape[1])), torch.empty_like(f)
        for start in range(0, len(f), self._strip):
            rows = slice(start, start + self._strip)
            m = self._means(u[rows])
            torch.mm(m, stage.directions, out=t[rows])
            torch.sub(f[rows], self._prediction(self._seen(u[rows], t[rows])), out=s[rows])
            exact = s[rows].abs() >= EXACT
            self._add_up(m, f[rows], s[rows], torch.where(exact, 0.0, s[rows]), half)
            self._multiply(m, s[rows], exact)
        self._along(t, s)

    def _room(self, name: str, rows: int) -> torch.Tensor:
        """A buffer of so many rows, the same for every strip."""
        if name not in self._kept or len(self._kept[name]) < rows:
            self._kept[name] = torch.empty((rows, self.d), dtype=torch.float64, device=self.device)
        return self._kept[name][:rows]

    def _means(self, u: torch.Tensor) -> torch.Tensor:
        """E[u | what is known of it], overwritten by the next."""
        return u

    def _seen(self, u: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """What h sees of rows that have t along the stage's directions."""
        return t[:, 0]

    def _add_up(self, m: torch.Tensor, f: torch.Tensor, s: torch.Tensor, near: torch.Tensor, half: int) -> None:
        """Sums over all rows, and (2) of those whose s is `near` 0; of the others that is 0."""
        assert self._stage is not None
        beta = self._stage.beta[:, None]
        a = beta * REACH * near.abs()
        lost = (0.5 + a / (3.0 * (1.0 - a))) * (beta * near) ** 2
        linear = torch.stack((f, torch.ones_like(f), near)) @ m
        square = torch.cat(((s * s)[None], lost)) @ torch.mul(m, m, out=self._room("squares", len(m)))
        self.sums[half] += linear[:2]
        self._square += square[0]
        won = beta * linear[2]
        self.top += torch.stack((-won, won)) - square[1:]

    def _multiply(self, m: torch.Tensor, s: torch.Tensor, exact: torch.Tensor) -> None:
        """The bets on coordinates of the other rows."""
        assert self._stage is not None
        if not self._cpu:
            # Waits for the device: logarithms of all rows would take ten times as long as those of the few.
            rows = exact.nonzero()[:, 0]
            self._on_coordinates(m[rows] * s[rows, None])
            return
        beta, votes = self._stage.beta.numpy(), np.flatnonzero(exact.numpy())
        while len(votes):
            some, votes = votes[: CHUNK - self._pending], votes[CHUNK - self._pending :]
            multiply(m.numpy(), some, s.numpy(), beta, 1.0 - beta * REACH, self._pending_factors.numpy())
            self._pending += len(some)
            if self._pending == CHUNK:
                self._take_logarithms()

    def _take_logarithms(self) -> None:
        self.top += self._pending_factors.log_()
        self._pending_factors.fill_(1.0)
        self._pending = 0

    def _count(self, f: torch.Tensor) -> int:
        """Count votes; which half they belong to."""
        half = int(self._index == 3)
        self.count[half] += f.sum().to(torch.int64)
        self.drawn[half] += len(f)
        return half

    def _prediction(self, t: torch.Tensor) -> torch.Tensor:
        """H of rows that have t along the stage's direction, or its constant."""
        stage = self._stage
        assert stage is not None
        if stage.h is None:
            return stage.b
        z, rho = stage.h
        h: torch.Tensor = torch.special.ndtr((z + rho * t) / (1.0 - rho * rho).sqrt())
        return h

    def _on_coordinates(self, x: torch.Tensor) -> None:
        """The bets on coordinates, of rows x = m s."""
        assert self._stage is not None
        for bet, beta in enumerate(self._stage.beta):
            scaled, least = x * beta, 1.0 - beta * REACH
            self.top[0, bet] += log_product((1.0 - scaled).clamp_(min=least))
            self.top[1, bet] += log_product((1.0 + scaled).clamp_(min=least))

    def _along(self, t: torch.Tensor, s: torch.Tensor) -> None:
        """The bets along directions, of rows with noise t along them and f - h = s."""
        stage = self._stage
        assert stage is not None
        x = t * s[:, None] - stage.mu
        self._square_along += (x * x).sum(dim=0)
        scaled = stage.beta_along * x[:, None, :]
        low = 1.0 - stage.beta_along * (REACH + stage.mu.abs())
        grown = log_product(torch.maximum(1.0 + scaled, low))
        count = len(self.parts)
        self.length += grown[:, :count]
        if len(self._lines):
            against, least = (a.index_select(-1, self._lines) for a in (scaled, low))
            self.along_high += log_product(torch.maximum(1.0 - against, least))
        if self._index == 3:
            self.half[0] += grown[:, -count:]
            self.half[1] += log_product(torch.maximum(1.0 - scaled[..., -count:], low[:, -count:]))

    def moments(self) -> Moments:
        """Sums and settled bets of the rows seen; the first time the device is waited for."""
        if self._pending:
            self._take_logarithms()
        self._settle()
        self._taken = 0
        sums, count = self.sums.cpu().numpy(), self.count.cpu().numpy()
        inverse = 1.0 / self.top_stake
        along, half, staked = 1.0 / self.along_stake, 1.0 / self.half_stake, self.stake.norm(dim=1)
        rows = {
            # Directions may cancel: nothing was bet then.
            "length": (torch.where(staked > 0.0, self.length / staked, -math.inf), 1.0 / staked),
            "along": (self.length * along, along),
            "half_low": (self.half[0] * half, half),
            "half_high": (-self.half[1] * half, half),
        }
        columns = {name: torch.stack(pair).cpu().numpy() for name, pair in rows.items()}
        high = along.index_select(1, self._lines)
        lines = iter(torch.stack((-self.along_high * high, high)).cpu().numpy().transpose(2, 0, 1))
        bets = {}
        for column, (name, part) in enumerate(self.parts.items()):
            bets[name] = {key: value[:, :, column] for key, value in columns.items()}
            if part.keeps_coordinates:
                top = self.top[:, :, self._masks[column]] if column in self._masks else self.top
                bets[name]["top"] = torch.stack((-top.amin(dim=(0, 2)) * inverse, inverse)).cpu().numpy()
            if part.vector is not None:
                bets[name]["along_high"] = next(lines)
        lead = (self.stake[:, :, 0] / torch.clamp(staked[:, :1], min=TINY)).cpu().numpy()
        thin = self.parts[THIN].vector if THIN in self.parts else None
        lead = np.concatenate((lead, np.zeros((1, self.d)) if thin is None else thin[None]))
        n = np.array(self.drawn, dtype=np.int64)
        return Moments(n=n, count=count, sum_uf=sums[:, 0], sum_u=sums[:, 1], b=self.b, bets=bets, lead=lead)

    def _part(self, column: int, y: torch.Tensor) -> torch.Tensor:
        """P y of the part in this column."""
        if column in self._masks:
            return torch.where(self._masks[column], y, 0.0)
        if column in self._bases:
            basis = self._bases[column]
            inside = basis @ (basis.T @ y)
            return y - inside if list(self.parts.values())[column].outside else inside
        return y

    def _ranks(self) -> torch.Tensor:
        return torch.tensor([part.rank(self.d) for part in self.parts.values()], dtype=torch.float64, device=self.device)
