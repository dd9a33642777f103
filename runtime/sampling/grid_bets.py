"""The tally of bets.py for noise on a grid: u is known by its cell k, and its mean m(k) = E[u | k] takes its place.

E[m f] = E[u f] = y, and |w.m| <= E[|w.u| | k]: with m for u every inequality of bets.py holds, by Jensen with the same REACH and
TAIL (docs/noise.md). Two things differ.

- h is a half-space's vote of t = v.k / R, for which E[m h] is known to within `mean_error` (prediction.py). That is added to TAIL.
- Bets on coordinates, x = m_j s with s = f - h, take logarithms where |s| >= EXACT alone. The others' may be clipped at -a,
  a = beta REACH |s|, with the same TAIL, as |x| <= |s| |m_j|; and since (log(1 + z) - z) / z^2 increases with z,

    log(1 + max(beta x, -a)) >= beta x - kappa beta^2 x^2,    kappa = 1/2 + a / (3 (1 - a)) >= (-log(1 - a) - a) / a^2.

  Sums of s m_j and of kappa s^2 m_j^2 serve all stakes of either sign. With smaller logarithms (1) of bets.py holds all the more.
"""

from collections.abc import Mapping

import numpy as np
import torch

from ..statistics.summary import Moments
from ..threats.projections import Projection
from .bets import CHUNK, Tally
from .cells import Law
from .prediction import mean_along, mean_error, most_rho
from .stakes import REACH, TAIL
from .sums import look_up, multiply, numbers

# Numbers at a time as float64, twice: in a cache of a CPU; what fills a GPU.
STRIP, DEVICE_STRIP = 2**16, 2**24
EXACT = 0.25
# Of votes and of what they had along directions, on a CPU.
ROWS = 2**14


class GridTally(Tally):
    """A tally fed with codes of the noise (int16, shape (B, d)) in place of u. Arguments as there; `law` is of the noise."""

    def __init__(
        self,
        parts: Mapping[str, Projection],
        d: int,
        n: int,
        against: tuple[int, int],
        device: torch.device,
        w: torch.Tensor | None = None,
        trial: tuple[float, int] = (0.0, 0),
        *,
        law: Law,
    ) -> None:
        super().__init__(parts, d, n, against, device, w, trial)
        self.law, self._ratio = law, float(law.ratio)
        self._cpu = cpu = device.type == "cpu"
        self.rho_max, self.tail = most_rho(self._ratio), TAIL + mean_error(self._ratio, d)
        self._cells = torch.from_numpy(law.mean.copy()).to(device)
        self._strip = max(1, (STRIP if cpu else DEVICE_STRIP) // d)
        self._rows = ROWS if cpu else self._strip
        self._m, self._k = torch.empty((2, self._strip, d), dtype=torch.float64, device=device)
        # Factors of bets on coordinates since the last logarithm, and of how many samples.
        self._pending_factors, self._pending = torch.ones_like(self.top), 0

    def _mean(self, z: torch.Tensor, rho: torch.Tensor, rim: torch.Tensor) -> torch.Tensor:
        return mean_along(self._ratio, z, rho, rim)

    def _add(self, u: torch.Tensor, f: torch.Tensor) -> None:
        half = self._count(f)
        t, seen = self._products(u)
        s = f - self._prediction(seen)
        exact = s.abs() >= EXACT
        self._add_up(u, f, s, torch.where(exact, 0.0, s), half)
        self._multiply(u, s, exact)
        self._along(t, s)

    def _products(self, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of every row m.v for all directions, shape (B, P), and v.k / R for that of h, shape (B,)."""
        stage = self._stage
        assert stage is not None
        v = stage.directions
        first = v[:, 0] / self._ratio
        t, seen = v.new_empty((len(codes), v.shape[1])), v.new_empty(len(codes))
        for rows in self._strips(codes):
            part = codes[rows]
            m, k = self._means(part), self._k[: len(part)]
            if self._cpu:
                numbers(part.numpy(), self.law.bits, k.numpy())
            else:
                k.copy_(part >> self.law.bits)
            torch.mm(m, v, out=t[rows])
            torch.mv(k, first, out=seen[rows])
        return t, seen

    def _add_up(self, codes: torch.Tensor, f: torch.Tensor, s: torch.Tensor, near: torch.Tensor, half: int) -> None:
        """Sums over all rows, and the bets on coordinates of those whose f - h is `near` 0; of the others that is 0."""
        assert self._stage is not None
        beta = self._stage.beta[:, None]
        a = beta * REACH * near.abs()
        lost = (0.5 + a / (3.0 * (1.0 - a))) * (beta * near) ** 2
        weights, weights_square = torch.stack((f, torch.ones_like(f), near)), torch.cat(((s * s)[None], lost))
        linear, square = s.new_zeros((3, self.d)), s.new_zeros((len(weights_square), self.d))
        for rows in self._strips(codes):
            m = self._means(codes[rows])
            linear.addmm_(weights[:, rows], m)
            square.addmm_(weights_square[:, rows], torch.mul(m, m, out=self._k[: len(m)]))
        self.sums[half] += linear[:2]
        self._square += square[0]
        won = beta * linear[2]
        self.top += torch.stack((-won, won)) - square[1:]

    def _multiply(self, codes: torch.Tensor, s: torch.Tensor, exact: torch.Tensor) -> None:
        """The bets on coordinates of the other rows."""
        assert self._stage is not None
        if not self._cpu:
            self._on_coordinates(self._cells[codes[exact].to(torch.int64) - self.law.low] * s[exact, None])
            return
        law, beta, votes = self.law, self._stage.beta.numpy(), np.flatnonzero(exact.numpy())
        while len(votes):
            some, votes = votes[: CHUNK - self._pending], votes[CHUNK - self._pending :]
            multiply(codes.numpy(), some, s.numpy(), law.low, law.mean, beta, 1.0 - beta * REACH, self._pending_factors.numpy())
            self._pending += len(some)
            if self._pending == CHUNK:
                self._take_logarithms()

    def _take_logarithms(self) -> None:
        self.top += self._pending_factors.log_()
        self._pending_factors.fill_(1.0)
        self._pending = 0

    def moments(self) -> Moments:
        """As of any tally."""
        if self._pending:
            self._take_logarithms()
        return super().moments()

    def _strips(self, codes: torch.Tensor) -> list[slice]:
        return [slice(start, min(start + self._strip, len(codes))) for start in range(0, len(codes), self._strip)]

    def _means(self, codes: torch.Tensor) -> torch.Tensor:
        """E[u | k] of some rows, overwritten by the next."""
        m: torch.Tensor = self._m[: len(codes)]
        if self._cpu:
            look_up(codes.numpy(), self.law.low, self.law.mean, m.numpy())
        else:
            torch.index_select(self._cells, 0, codes.to(torch.int64).flatten() - self.law.low, out=m.view(-1))
        return m
