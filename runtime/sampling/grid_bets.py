"""The tally of bets.py for noise on a grid: u is known by its cell k, and its mean m(k) = E[u | k] takes its place.

E[m f] = E[u f] = y, and |w.m| <= E[|w.u| | k]: with m for u every inequality of bets.py holds, by Jensen with the same REACH and
TAIL (docs/noise.md). Two things differ.

- Bets on coordinates compare votes with h = 1, so E[m h] = 0 and x = -(w.m)(1 - f): samples for the class win and lose nothing. Of
  one against, log(1 + max(beta x, -xi)) is a function of one coordinate's k: what is added up stands in a table.
- Along directions h is a half-space's vote of t = v.k / R, for which E[m h] is known to within `mean_error` (prediction.py). That
  is added to TAIL.

Sums of m f are those of m less those of the samples against.
"""

from collections.abc import Mapping

import numpy as np
import torch

from ..statistics.summary import BETS
from ..threats.projections import Projection
from .bets import CHUNK, Tally, _Stage
from .cells import Law
from .prediction import mean_along, mean_error, most_rho
from .stakes import MORE, REACH, TAIL, best_stake
from .sums import add_tables, spread

# Numbers at a time as float64, twice: in a cache of a CPU; what fills a GPU.
STRIP, DEVICE_STRIP = 2**16, 2**24
# Of votes and of what they had along directions.
ROWS = 2**12 * CHUNK


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
        *,
        law: Law,
    ) -> None:
        super().__init__(parts, d, n, against, device, w)
        ratio = float(law.ratio)
        self.law, self._ratio, self._rows = law, ratio, ROWS
        self.rho_max, self.tail = most_rho(ratio), TAIL + mean_error(ratio, d)
        self._cells = torch.from_numpy(law.mean.copy()).to(device)
        self._tables = torch.stack((self._cells, self._cells * self._cells), dim=1)
        # Of the stage: E (f - h)^2 times its samples, sums of m, of the tables over samples against.
        self._square = torch.zeros((), dtype=torch.float64, device=device)
        self._whole = torch.zeros(d, dtype=torch.float64, device=device)
        self._against = torch.zeros((d, 2 + 2 * BETS), dtype=torch.float64, device=device)
        self._spread: torch.Tensor | None = None
        self._strip = max(1, (STRIP if device.type == "cpu" else DEVICE_STRIP) // d)
        self._room = torch.empty((2, self._strip, d), dtype=torch.float64, device=device)

    def _mean(self, z: torch.Tensor, rho: torch.Tensor, rim: torch.Tensor) -> torch.Tensor:
        return mean_along(self._ratio, z, rho, rim)

    def _begin(self) -> None:
        super()._begin()
        stage, eps = self._stage, self._rareness()
        assert stage is not None
        seen = MORE * eps if self._spread is None else torch.maximum(self._spread, eps)
        stage.beta = best_stake(torch, self._targets, sum(self.sizes), seen)
        staked = self._cells[:, None] * stage.beta
        sides = [torch.maximum(1.0 + side, 1.0 - stage.beta * REACH).log() for side in (staked, -staked)]
        self._tables = torch.cat((self._tables[:, :2], *sides), dim=1)

    def _settle_coordinates(self, stage: _Stage, staked: torch.Tensor) -> None:
        mean, square, logs = self._against[:, 0], self._against[:, 1], self._against[:, 2:]
        self.sums[int(self._index == 3)] += torch.stack((self._whole - mean, self._whole))
        self._spread = square.mean() / self._taken
        self.top_stake += staked
        self.top += logs.T.reshape(2, BETS, self.d) - (staked * TAIL)[:, None]
        self._against.zero_()
        self._whole.zero_()

    def _add(self, u: torch.Tensor, f: torch.Tensor) -> None:
        self._count(f)
        t, seen = self._products(u)
        s = f - self._prediction(seen)
        self._square += (s * s).sum()
        self._add_against(u, f)
        self._along(t, s)

    def _products(self, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of every row m.v for all directions, shape (B, P), and v.k / R for that of h, shape (B,)."""
        stage = self._stage
        assert stage is not None
        v = stage.directions
        t, seen = v.new_empty((len(codes), v.shape[1])), v.new_zeros(len(codes))
        first = v[:, 0] / self._ratio
        for start in range(0, len(codes), self._strip):
            rows = slice(start, min(start + self._strip, len(codes)))
            m, k = self._spread_out(codes[rows], stage.h is not None)
            torch.mm(m, v, out=t[rows])
            if stage.h is not None:
                torch.mv(k, first, out=seen[rows])
        return t, seen

    def _spread_out(self, codes: torch.Tensor, wanted: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """(m, k) of some rows as float64, k where it is wanted; overwritten by the next."""
        law, (m, k) = self.law, self._room[:, : len(codes)]
        if self.device.type == "cpu":
            room = k.numpy() if wanted else np.empty((0, self.d))
            spread(codes.numpy(), law.low, law.bits, law.mean, m.numpy(), room, self._whole.numpy())
        else:
            torch.index_select(self._cells, 0, codes.to(torch.int64).flatten() - law.low, out=m.view(-1))
            k.copy_(codes >> law.bits)
            self._whole += m.sum(dim=0)
        return m, k

    def _add_against(self, codes: torch.Tensor, f: torch.Tensor) -> None:
        """The tables of the samples against."""
        if self.device.type == "cpu":
            rows = np.flatnonzero(f.numpy() == 0.0)
            add_tables(codes.numpy(), rows, self.law.low, self._tables.numpy(), self._against.numpy())
            return
        height = max(1, self._strip // self._tables.shape[1])
        for part in codes[f == 0.0].split(height):
            self._against += self._tables[part.to(torch.int64) - self.law.low].sum(dim=0)
