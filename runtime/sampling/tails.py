"""Counts of votes against far out along directions: what the tail certificates rest on. Only samples against are touched.

For every family of directions and every threshold tau_k: the number of samples with f = 0 and e.u >= tau_k, for the direction e of
the family for which it is largest. The thresholds are fixed before the samples are seen; a sample on a threshold counts.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from ..kernels.jit import jit
from ..threats.families import Family

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@jit
def count_beyond(u: Array, thresholds: Array, bins: npt.NDArray[np.int32]) -> None:
    """Add rows u of noise, shape (B, d), to `bins` (2, K, d): how many numbers of sign + and - lie from threshold k to the next."""
    for row in range(u.shape[0]):
        for j in range(u.shape[1]):
            size = abs(u[row, j])
            if size >= thresholds[0]:
                k = 1
                while k < thresholds.size and size >= thresholds[k]:
                    k += 1
                bins[0 if u[row, j] > 0.0 else 1, k - 1, j] += 1


class TailTally:
    """Counts of one input.

    Args:
        families: by name; any number of families of axes share one pass.
        d: numbers of an input.
        thresholds: increasing, positive, shape (K,), sigma = 1 units.
        device: where u is.
    """

    def __init__(self, families: Mapping[str, Family], d: int, thresholds: Array, device: torch.device) -> None:
        self.families, self.thresholds, self.d, self.device = families, np.ascontiguousarray(thresholds), d, device
        size = len(self.thresholds)
        self._edges = torch.as_tensor(self.thresholds, device=device)
        axes = any(family.vectors is None for family in families.values())
        # int32: a bin holds at most n < 2^31 counts.
        self._bins = torch.zeros((2, size, d) if axes else (2, size, 0), dtype=torch.int32, device=device)
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
                count_beyond(against.numpy(), self.thresholds, self._bins.numpy())
            else:
                self._add_on_device(against)
        for name, vectors in self._vectors.items():
            self._along[name] += (against @ vectors >= self._edges[:, None, None]).sum(dim=1)

    def _add_on_device(self, against: torch.Tensor) -> None:
        """`count_beyond` in torch: a flat index of (sign, bin, coordinate), numbers below the first threshold left out."""
        bins = torch.bucketize(against.abs(), self._edges, right=True)
        place = ((against <= 0.0).long() * len(self.thresholds) + bins - 1) * self.d + torch.arange(self.d, device=self.device)
        place = place[bins > 0]
        self._bins.view(-1).index_add_(0, place, torch.ones_like(place, dtype=torch.int32))

    def largest(self) -> dict[str, Counts]:
        """Name of a family -> the largest count beyond each threshold, shape (K,)."""
        # Beyond threshold k lie bin k and all further ones.
        beyond = self._bins.flip(1).cumsum(1).flip(1).cpu().numpy().astype(np.int64)
        out = {}
        for name, family in self.families.items():
            if family.vectors is not None:
                out[name] = self._along[name].max(dim=1).values.cpu().numpy()
            else:
                out[name] = (beyond if family.mask is None else beyond[:, :, family.mask]).max(axis=(0, 2))
        return out
