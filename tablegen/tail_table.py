"""Build a tail table: E[(L - Lam)_+; segment] for every angle, length, segment and level, each a little above its value.

One task an angle, journalled; HDF5 is written once, at the end.
"""

import importlib.metadata
import json
import math
import os
import struct
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from certlut.jobs.journal import Journal
from certlut.jobs.progress import progress_bar
from certlut.kernels.arrays import Array
from certlut.kernels.jit import jit
from certlut.kernels.normal import upper
from certlut.lookup.tail_format import THRESHOLDS, TailData, read_tails, write_tails

from .parallel import run
from .tail_quadrature import stretch

Single = npt.NDArray[np.float32]

_INDEX = struct.Struct("<I")
# What an entry is raised by, more than quadrature and its rounding to float32 can lack.
RAISED, LEAST = 1.0 + 2e-7, 1e-12


@dataclass(frozen=True)
class TailGrid:
    """Where the nodes are. Levels are exp(r v + r^2/2) at the places v, and 0: L's logarithm has the mean r^2/2 after the shift."""

    tau: tuple[float, ...] = THRESHOLDS
    theta: tuple[float, ...] = (
        *(0.0, 1.75, 3.5, 5.25, 7.0, 8.75, 10.5, 12.25, 14.0, 15.75, 17.75, 19.75, 22.0, 24.25, 26.75, 29.5, 32.25),
        *(35.25, 38.5, 42.0, 45.5, 49.5, 54.0, 59.0, 64.0, 69.5, 75.0),
    )
    first: float = 0.05
    last: float = 8.0
    step: tuple[float, float] = (0.02, 0.04)
    """The next length is r + step[0] + step[1] r."""
    places: tuple[float, float, int] = (-4.0, 2.7, 32)
    """From, to, how many; dense around 0."""
    dense: float = 0.11
    """The step between places at 0."""

    def lengths(self) -> Array:
        """r, shape (J,)."""
        out = [self.first]
        while out[-1] < self.last:
            out.append(out[-1] + self.step[0] + self.step[1] * out[-1])
        return np.array(out)

    def levels(self) -> Array:
        """Lam, shape (J, G)."""
        low, high, count = self.places
        # v = s sinh(u), s such that `count` equal steps of u make steps of `dense` in the middle.
        scale = _solve(low, high, count, self.dense)
        v = scale * np.sinh(np.linspace(math.asinh(low / scale), math.asinh(high / scale), count))
        r = self.lengths()[:, None]
        return np.concatenate([np.zeros((r.size, 1)), np.exp(r * v + 0.5 * r * r)], axis=1)

    def card(self) -> str:
        """Canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True)


def _solve(low: float, high: float, count: int, dense: float) -> float:
    """The s with s (asinh(high/s) - asinh(low/s)) = (count - 1) dense, by bisection: the left side rises with s."""
    least, most = 1e-3, 1e3
    for _ in range(100):
        s = math.sqrt(least * most)
        if s * (math.asinh(high / s) - math.asinh(low / s)) < (count - 1) * dense:
            least = s
        else:
            most = s
    return least


@jit
def _excess(a: float, b: float, level: float, lo: float, hi: float) -> float:
    """E[(L - level)_+; lo <= t < hi]."""
    if level == 0.0:
        return upper(lo - a) - upper(hi - a)
    x = math.log(level)
    if b == 0.0:
        start = max(lo, x / a + 0.5 * a)
        if start >= hi:
            return 0.0
        return upper(start - a) - upper(hi - a) - level * (upper(start) - upper(hi))
    shifted, mass, _ = stretch(a, b, x, lo, hi)
    return shifted - level * mass


@jit
def _fill(a: float, b: float, levels: Array, tau: Array, out: Single) -> None:
    """out[k, g], raised."""
    for k in range(tau.size + 1):
        lo = tau[k - 1] if k > 0 else -math.inf
        hi = tau[k] if k < tau.size else math.inf
        for g in range(levels.size):
            out[k, g] = np.float32(max(_excess(a, b, levels[g], lo, hi), 0.0) * RAISED + LEAST)


def _angle(index: int, theta: float, r: Array, levels: Array, tau: Array) -> bytes:
    """The entries of one angle as a journal record."""
    out = np.empty((r.size, tau.size + 1, levels.shape[1]), np.float32)
    turn = math.radians(theta)
    for j, length in enumerate(r.tolist()):
        _fill(length * math.cos(turn), length * math.sin(turn) if theta > 0.0 else 0.0, levels[j], tau, out[j])
    return _INDEX.pack(index) + out.astype("<f4").tobytes()


def build_tails(
    path: str | os.PathLike[str], grid: TailGrid | None = None, jobs: int = -1, scheduler: str | None = None
) -> TailData:
    """Compute every entry of `grid` and write the table to `path` (data_version 0: not proven).

    Finished angles go to a journal beside `path`: stopped at any moment, the same call goes on behind them.

    Args:
        path: the HDF5 file; written under a temporary name and renamed. A finished table of the same grid is kept, another refused.
        grid: None for the shipped table's.
        jobs: worker processes, -1 for all cores.
        scheduler: address of a Dask scheduler to run on instead.

    Raises:
        ValueError: a journal of another build, another table at `path`.
        FileNotFoundError: no folder to write in.
        TableError: what is at `path` is no tail table.
    """
    grid = grid or TailGrid()
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder to write {path.name} in")
    axes = {
        "tau": np.array(grid.tau),
        "theta": np.array(grid.theta),
        "r": grid.lengths(),
        "level": grid.levels(),
    }
    if path.exists():
        finished = read_tails(path)
        if all(np.array_equal(finished.datasets[name], values) for name, values in axes.items()):
            return finished
        raise ValueError(f"{path}: holds a tail table of another grid; delete it, or write to another file")
    generator = f"certlut {importlib.metadata.version('certlut')}"
    excess = np.empty((len(grid.theta), axes["r"].size, len(grid.tau) + 1, axes["level"].shape[1]), np.float32)

    def fill(record: bytes) -> int:
        index: int = _INDEX.unpack_from(record)[0]
        excess[index] = np.frombuffer(record, "<f4", offset=_INDEX.size).reshape(excess.shape[1:])
        return index

    settings = {"task": "build tails", "grid": grid.card(), "generator": generator}
    with Journal(path, settings, "angles", len(grid.theta), quiet=False) as journal:
        done = {fill(record) for record in journal.records}
        journal.records.clear()
        rest = (axes["r"], axes["level"], axes["tau"])
        tasks = [(i, theta, *rest) for i, theta in enumerate(grid.theta) if i not in done]
        with progress_bar("integrating") as progress:
            bar = progress.add_task("", total=len(grid.theta), completed=len(done))
            for record in run(_angle, tasks, jobs, scheduler) if tasks else ():
                journal.append(record)
                fill(record)
                progress.advance(bar)
        data = write_tails(path, TailData(axes | {"excess": excess}, generator))
        journal.finish()
    return data
