"""Find the tail table, check it, open it: an immutable `TailTable` whose `radii` are the sound look-up of tail radii."""

import math
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..kernels.arrays import Array
from ..kernels.covering import Covering
from ..kernels.greedy import UP, ray_radii
from ..kernels.normal import upper
from .frontier import tail_radii
from .outline import Outline, outline, stacked
from .table import UnprovenTable, find
from .tail_format import TailData, read_tails
from .votes import Nodes, scratch

Indices = npt.NDArray[np.int64]

# How steeply log rho may fall with theta, at a few angles (degrees): steeper sectors are cut short, gentler ones lose a little.
STEEPEST = ((0.0, 4.0, 10.0, 25.0, 45.0, 75.0), (0.8, 1.2, 1.8, 1.6, 1.0, 0.3))


def insets(theta: Array) -> tuple[Array, Array]:
    """(chi, cap) of frontier.py for angles in degrees."""
    half = np.radians(np.diff(theta)) / 2.0
    slope = np.interp((theta[1:] + theta[:-1]) / 2.0, *STEEPEST)
    wanted = np.sin(half) * np.hypot(1.0, slope)
    chi = np.maximum.accumulate(np.maximum(np.append(wanted[0], wanted), np.append(wanted, 0.0)))
    # (s - 1)^2 + 4 s sin(half)^2 <= (chi_i + s chi_{i-1})^2 for 1 <= s <= cap; a little is kept for rounding.
    first, second = chi[:-1] * (1.0 - 1e-9), chi[1:] * (1.0 - 1e-9)
    middle = np.cos(2.0 * half) + first * second
    cap = (middle + np.sqrt(middle**2 - (1.0 - first**2) * (1.0 - second**2))) / (1.0 - first**2) * (1.0 - 1e-9)
    return chi, np.append(1.0, np.maximum(cap, 1.0))


class TailTable:
    """Segment expectations in memory; made by `load_tails`, never changed."""

    def __init__(self, data: TailData, path: Path | None = None) -> None:
        d = data.datasets
        self.path = path
        self.data_version = data.data_version
        self.digest = data.digest
        self.thresholds: tuple[float, ...] = tuple(d["tau"].tolist())
        levels = d["level"].astype(np.float64)
        # Radians.
        self.angles = np.radians(d["theta"].astype(np.float64))
        self._width = levels.shape[1]
        self._outlines: dict[Covering, Outline] = {}
        # What the kernels of votes.py and frontier.py take, read-only.
        self.nodes = Nodes(
            np.ascontiguousarray(d["r"], np.float64),
            *insets(d["theta"].astype(np.float64)),
            np.array([upper(tau) * UP for tau in self.thresholds]),
            levels.ravel(),
            np.diff(levels, axis=1, append=np.inf).astype(np.float32).ravel(),
            np.ascontiguousarray(d["excess"], np.float32).ravel(),
        )
        for array in self.nodes:
            array.flags.writeable = False

    def __repr__(self) -> str:
        shape = f"{self.angles.size}x{self.nodes.radii.size} nodes, {len(self.thresholds)} thresholds"
        return f"TailTable({str(self.path)!r}, {shape}, data_version={self.data_version})"

    def radii(
        self,
        eps: npt.ArrayLike,
        tau: npt.ArrayLike,
        p: npt.ArrayLike,
        coverings: Sequence[Covering],
        sizes: npt.ArrayLike = math.inf,
        covered: npt.ArrayLike = 0.0,
        threads: int = 1,
    ) -> Array:
        """Certified sizes of balls, sigma = 1, at most the exact tail radii; inputs that share a family of directions in one call.

        Args:
            eps: upper bound of the share of votes against, shape (N,); 1/2 or more gives 0.
            tau: the thresholds that were counted, increasing, shape (T,), units of sigma. Where the table has others, the bound of
                the largest one not above serves.
            p: upper bounds of P(vote against, e.u >= tau) for every direction e of the family, shape (N, T).
            coverings: the threats; C of them.
            sizes, covered: broadcast to (N, C, M): every shift no longer than covered[n, c, m] (l2) of a ball of size at most
                sizes[n, c, m] is certified in another way. Shifts up to Phi^-1(1 - eps) always are.
            threads: how many threads share the inputs; the kernel releases the GIL.

        Returns:
            Shape (N, C).

        Raises:
            ValueError: shapes that disagree, NaN or negative numbers, thresholds that do not increase; fewer than one thread.
        """
        values, bounds = self._profiles(eps, tau, p)
        if threads < 1:
            raise ValueError(f"threads = {threads}: expected 1 or more")
        shape = (values.size, len(coverings), np.broadcast(np.atleast_1d(sizes), np.atleast_1d(covered)).shape[-1])
        most, discs = (np.ascontiguousarray(np.broadcast_to(x, shape), np.float64) for x in (sizes, covered))
        if not ((most >= 0.0).all() and (discs >= 0.0).all() and np.isfinite(discs).all()):
            raise ValueError("sizes or covered with NaN, negative or endless numbers: expected lengths >= 0")
        out = np.zeros((values.size, len(coverings)))
        for c, covering in enumerate(coverings):
            if covering.w == 0.0:
                begin, end = (np.insert(x[:, c], 0, first, axis=1) for x, first in ((discs, 0.0), (most, math.inf)))
                along = ray_radii(values[:, None], np.array(self.thresholds), bounds[:, None], begin)
                out[:, c] = np.minimum(along, end).max(axis=1)
        wide = [c for c, covering in enumerate(coverings) if covering.w > 0.0]
        rows = np.flatnonzero(values < 0.5)
        if wide and rows.size:
            pieces, starts = stacked([self._outline(coverings[c]) for c in wide])
            grid = np.ix_(rows, np.array(wide))

            def fill(part: Indices) -> Array:
                found = np.empty((part.size, len(wide)))
                work = scratch(len(self.thresholds), self._width)
                size, disc = (np.ascontiguousarray(x[np.ix_(part, np.array(wide))]) for x in (most, discs))
                tail_radii(self.nodes, work, values[part], bounds[part], pieces, starts, size, disc, found)
                return found

            with ThreadPoolExecutor(threads) as pool:
                out[grid] = np.concatenate(list(pool.map(fill, np.array_split(rows, threads))))
        return out

    def _outline(self, covering: Covering) -> Outline:
        """Computed once for each threat."""
        if covering not in self._outlines:
            self._outlines[covering] = outline(covering, self.angles)
        return self._outlines[covering]

    def _profiles(self, eps: npt.ArrayLike, tau: npt.ArrayLike, p: npt.ArrayLike) -> tuple[Array, Array]:
        """(eps, p at the table's thresholds), checked; shapes (N,) and (N, K)."""
        values, counted, bounds = (np.array(x, dtype=np.float64) for x in (eps, tau, p))
        if values.ndim != 1 or counted.ndim != 1 or bounds.shape != (values.size, counted.size):
            raise ValueError(
                f"eps, tau and p have shapes {values.shape}, {counted.shape} and {bounds.shape}: expected (N,), (T,) and (N, T)"
            )
        if not (np.isfinite(counted).all() and (np.diff(counted) > 0.0).all()):
            raise ValueError(f"tau = {counted.tolist()}: expected finite thresholds in increasing order")
        for name, array in (("eps", values), ("p", bounds)):
            if not ((array >= 0.0) & (array <= 1.0)).all():
                raise ValueError(f"{name}: expected probabilities from 0 to 1, not NaN")
        place = np.searchsorted(counted, self.thresholds, side="right") - 1
        # Nothing counted below a threshold: all that is known is eps.
        chosen = np.where(place >= 0, np.concatenate([bounds, values[:, None]], axis=1)[:, place], values[:, None])
        return np.maximum(values, 1e-300), np.ascontiguousarray(chosen)


def load_tails(path: str | os.PathLike[str] | None = None) -> TailTable:
    """Open a tail table: `path`, else $CERTLUT_TAILS, else tables/tails.h5 beside the packages, else the installed copy.

    Warns `UnprovenTable` where data_version is 0.

    Raises:
        FileNotFoundError: no table there.
        TableError: a ValueError that names what is wrong with the file and what to do.
    """
    found = find(path, "CERTLUT_TAILS", "tails.h5")
    data = read_tails(found)
    if data.data_version < 1:
        warnings.warn(f"{found}: data_version 0, not proven; run `certlut prove {found}`", UnprovenTable, stacklevel=2)
    return TailTable(data, found)
