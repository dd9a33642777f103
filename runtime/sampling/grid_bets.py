"""The tally of bets.py for noise on a grid: u is known by its cell k, and its mean m(k) = E[u | k] takes its place.

E[m f] = E[u f] = y, and |w.m| <= E[|w.u| | k]: with m for u every inequality of bets.py holds, by Jensen with the same REACH and
TAIL (docs/noise.md). One thing differs: h is a half-space's vote of t = v.k / R, for which E[m h] is known to within `mean_error`
(prediction.py). That is added to TAIL.
"""

from collections.abc import Mapping

import torch

from ..threats.projections import Projection
from .bets import Tally
from .cells import Law
from .prediction import mean_along, mean_error, most_rho
from .stakes import TAIL
from .sums import look_up, numbers


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
        self.rho_max, self.tail = most_rho(self._ratio), TAIL + mean_error(self._ratio, d)
        self._cells = torch.from_numpy(law.mean.copy()).to(device)

    def _mean(self, z: torch.Tensor, rho: torch.Tensor, rim: torch.Tensor) -> torch.Tensor:
        return mean_along(self._ratio, z, rho, rim)

    def _means(self, u: torch.Tensor) -> torch.Tensor:
        m = self._room("means", len(u))
        if self._cpu:
            look_up(u.numpy(), self.law.low, self.law.mean, m.numpy())
        else:
            torch.index_select(self._cells, 0, u.to(torch.int64).flatten() - self.law.low, out=m.view(-1))
        return m

    def _seen(self, u: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert self._stage is not None
        k = self._room("squares", len(u))
        if self._cpu:
            numbers(u.numpy(), self.law.bits, k.numpy())
        else:
            k.copy_(u >> self.law.bits)
        return k @ (self._stage.directions[:, 0] / self._ratio)
