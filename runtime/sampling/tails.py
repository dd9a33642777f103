"""Counts of votes against far out along directions: what the tail certificates rest on. Only samples against are touched.

For every family of directions and every threshold tau_k: the number of samples with f = 0 and e.u >= tau_k, for the direction e of
the family for which it is largest. The thresholds are fixed before the samples are seen; a sample on a threshold counts.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from ..kernels.arrays import Array
from ..kernels.jit import jit
from ..threats.families import Family
from .cells import Law
from .sums import Ranks

Counts = npt.NDArray[np.int64]


# exp(-6 CLEARANCE^2) <= SLACK.
CLEARANCE, SLACK = 1.64, 1e-7
# Numbers of samples against at a time.
ALONG, ON_DEVICE = 2**17, 2**22

# Cells of length 1 / FINE on which `guide` says how many thresholds are surely below.
FINE = 8.0


def guide_of(thresholds: Array) -> Counts:
    """How many thresholds lie at or below the start of each cell, up to the cell of the last one."""
    starts = np.arange(int(thresholds[-1] * FINE) + 2) / FINE
    return np.searchsorted(thresholds, starts, side="right").astype(np.int64)


@jit
def count_beyond(u: Array, thresholds: Array, guide: Counts, bins: npt.NDArray[np.int32]) -> None:
    """Add rows u of noise, shape (B, d), to `bins` (2, K + 1, d): how many of sign + and - have k thresholds at or below."""
    last = guide.size - 1
    for row in range(u.shape[0]):
        for j in range(u.shape[1]):
            size = abs(u[row, j])
            k = guide[min(int(size * FINE), last)]
            while k < thresholds.size and size >= thresholds[k]:
                k += 1
            # Below the first threshold too: no branch to guess.
            bins[int(u[row, j] < 0.0), k, j] += 1


class TailTally:
    """Counts of one input.

    Args:
        families: by name; any number of families of axes share one pass.
        d: numbers of an input.
        thresholds: increasing, positive, shape (K,), sigma = 1 units.
        device: where u is.
    """

    slack = 0.0
    """How much of eps a direction of a net or a ray may have beyond a threshold besides what was counted."""

    def __init__(self, families: Mapping[str, Family], d: int, thresholds: Array, device: torch.device) -> None:
        self.families, self.thresholds, self.d, self.device = families, np.ascontiguousarray(thresholds), d, device
        size = len(self.thresholds)
        self._guide = guide_of(self.thresholds)
        self._edges = torch.as_tensor(self.thresholds, device=device)
        axes = any(family.vectors is None for family in families.values())
        # int32: a bin holds at most n < 2^31 counts.
        self._bins = torch.zeros((2, size + 1, d if axes else 0), dtype=torch.int32, device=device)
        self._vectors = {
            name: torch.as_tensor(family.vectors.T.copy(), device=device)
            for name, family in families.items()
            if family.vectors is not None
        }
        self._along = {
            name: torch.zeros((size, vectors.shape[1]), dtype=torch.int64, device=device) for name, vectors in self._vectors.items()
        }

    def add(self, against: torch.Tensor) -> None:
        """Count the noise of samples that voted against, float64, shape (B, d)."""
        if len(against) == 0:
            return
        if self._bins.numel():
            if self.device.type == "cpu":
                count_beyond(against.numpy(), self.thresholds, self._guide, self._bins.numpy())
            else:
                self._add_on_device(against)
        self._add_along(against)

    def _add_along(self, u: torch.Tensor) -> None:
        for name, vectors in self._vectors.items():
            self._along[name] += (u @ vectors >= self._edges[:, None, None]).sum(dim=1)

    def _add_on_device(self, against: torch.Tensor) -> None:
        """`count_beyond` in torch."""
        self._place(against < 0.0, torch.bucketize(against.abs(), self._edges, right=True))

    def _place(self, negative: torch.Tensor, bins: torch.Tensor) -> None:
        """Count by a flat index of (sign, bin, coordinate)."""
        place = (negative.long() * (len(self.thresholds) + 1) + bins) * self.d + torch.arange(self.d, device=self.device)
        place = place.flatten()
        self._bins.view(-1).index_add_(0, place, torch.ones_like(place, dtype=torch.int32))

    def _beyond(self) -> Counts:
        """Counts of u_j >= tau and of -u_j >= tau, shape (2, K, d)."""
        # Beyond threshold k lie bin k + 1 and all further ones.
        counts: Counts = self._bins[:, 1:].flip(1).cumsum(1).flip(1).cpu().numpy().astype(np.int64)
        return counts

    def largest(self) -> dict[str, Counts]:
        """Name of a family -> the largest count beyond each threshold, shape (K,)."""
        beyond = self._beyond()
        out = {}
        for name, family in self.families.items():
            if family.vectors is not None:
                out[name] = self._along[name].max(dim=1).values.cpu().numpy()
            else:
                out[name] = (beyond if family.mask is None else beyond[:, :, family.mask]).max(axis=(0, 2))
        return out


class GridTails(TailTally):
    """Counts of one input from codes of grid noise (int16), by the same rules.

    Along axes they are exact: cells are split at the thresholds. Along a unit v one knows v.m, m = E[u | k]; given k, v.u - v.m
    is a sum of independent terms with log-moments below v_i^2 s^2 / (24 R^2) (docs/noise.md), so that

        P(f = 0, v.u >= tau) <= P(f = 0, v.m >= tau - D) + eps exp(-6 D^2 R^2),

    and with D = CLEARANCE / R the last term is below SLACK eps.

    Args:
        law: of the noise; its thresholds are those counted.
    """

    slack = SLACK

    def __init__(self, families: Mapping[str, Family], d: int, law: Law, device: torch.device) -> None:
        super().__init__(families, d, np.array(law.taus), device)
        self.law, self._cells = law, torch.from_numpy(law.mean.copy()).to(device)
        self._edges = self._edges - CLEARANCE / float(law.ratio)
        self._ranks = Ranks(law, d)

    def add(self, against: torch.Tensor) -> None:
        """Count the codes of samples that voted against, shape (B, d)."""
        if len(against) == 0:
            return
        if self._bins.numel():
            if self.device.type == "cpu":
                self._ranks.add(against.numpy())
            else:
                self._add_on_device(against)
        height = max(1, ALONG // self.d)
        for part in against.split(height) if self._vectors else ():
            self._add_along(self._cells[part.to(torch.int64) - self.law.low])

    def _add_on_device(self, against: torch.Tensor) -> None:
        """Bins by sign and rank."""
        ranks = torch.from_numpy(self.law.rank.astype(np.int64)).to(self.device)
        for part in against.split(max(1, ON_DEVICE // self.d)):
            rank = ranks[part.to(torch.int64) - self.law.low]
            self._place(rank < 0, rank.abs())

    def _beyond(self) -> Counts:
        return self._ranks.beyond() if self.device.type == "cpu" else super()._beyond()
