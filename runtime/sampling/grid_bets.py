"""The tally of bets.py for noise on a grid: u is known by its cell k, and its mean m(k) = E[u | k] takes its place.

E[m f] = E[u f] = y, and |w.m| <= E[|w.u| | k]: with m for u every inequality of bets.py holds, by Jensen with the same REACH and
TAIL (docs/noise.md). Two things differ.

- h is a half-space's vote of t = v.k / R, for which E[m h] is known to within `mean_error` (prediction.py). That is added to TAIL.
- Bets on coordinates look at a sample against one by one, x = -m_j h; for the others, x = m_j g with g = 1 - h mostly near 0, they take

    log(1 + max(beta x, -xi)) >= beta x - kappa beta^2 x^2,    kappa = (-log(1 - xi) - xi) / xi^2

  ((log(1 + s) - s) / s^2 increases with s): two sums, of m_j g and of its square, for all stakes of either sign. A smaller logarithm
  is a smaller product, which bounds no less soundly.
"""

from collections.abc import Mapping

import torch

from ..threats.projections import Projection
from .bets import Tally
from .cells import Law
from .prediction import mean_along, mean_error, most_rho
from .stakes import REACH, TAIL
from .sums import spread

# Numbers at a time as float64, twice: in a cache of a CPU; what fills a GPU.
STRIP, DEVICE_STRIP = 2**18, 2**24


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
        self.law, self._ratio = law, float(law.ratio)
        self.rho_max, self.tail = most_rho(self._ratio), TAIL + mean_error(self._ratio, d)
        self._cells = torch.from_numpy(law.mean.copy()).to(device)
        self._rows = max(1, (STRIP if device.type == "cpu" else DEVICE_STRIP) // d)
        self._m, self._k = torch.empty((2, self._rows, d), dtype=torch.float64, device=device)

    def _mean(self, z: torch.Tensor, rho: torch.Tensor, rim: torch.Tensor) -> torch.Tensor:
        return mean_along(self._ratio, z, rho, rim)

    def _add(self, u: torch.Tensor, f: torch.Tensor) -> None:
        stage = self._stage
        assert stage is not None
        half = self._count(f)
        m, k = self._spread(u)
        t = m @ stage.directions
        s = f - self._prediction(k @ (stage.directions[:, 0] / self._ratio))
        g = f * s
        f_sum, sum_, linear = torch.stack((f, torch.ones_like(f), g)) @ m
        self.sums[half] += torch.stack((f_sum, sum_))
        square, quadratic = torch.stack((s * s, g * g)) @ torch.mul(m, m, out=k)
        self._square += square
        xi = stage.beta * REACH
        kappa = (-torch.log1p(-xi) - xi) / (xi * xi) * (1.0 + 1e-9)
        won, lost = stage.beta[:, None] * linear, (kappa * stage.beta * stage.beta)[:, None] * quadratic
        self.top += torch.stack((-won - lost, won - lost))
        against = f == 0.0
        self._on_coordinates(m[against] * s[against, None])
        self._along(t, s)

    def _spread(self, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(m, k) of some rows as float64, overwritten by the next."""
        m, k = self._m[: len(codes)], self._k[: len(codes)]
        if self.device.type == "cpu":
            spread(codes.numpy(), self.law.low, self.law.bits, self.law.mean, m.numpy(), k.numpy())
        else:
            torch.index_select(self._cells, 0, codes.to(torch.int64).flatten() - self.law.low, out=m.view(-1))
            k.copy_(codes >> self.law.bits)
        return m, k
