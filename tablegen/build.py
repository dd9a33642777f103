"""Sweep the grid slab by slab, journal what is done, and write the table once at the end."""

import importlib.metadata
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np

from certlut.jobs.atomic import check_out
from certlut.jobs.journal import Journal
from certlut.jobs.progress import progress_bar
from certlut.kernels.arrays import Array
from certlut.lookup.format import DATASETS, TableData, read_table, write_table

from .grid import GridSpec, grid_spec
from .node import TOLERANCE, Status
from .parallel import run
from .sweep import solve_slab

_RECORD = struct.Struct("<II")  # index of the slab, nodes that needed the robust search
FIELDS = ("radius", "c", "a0", "a1", "a2", "status")


def _slab(index: int, z: float, rho: Array, theta: Array) -> bytes:
    """One solved slab as a journal record."""
    out = np.empty((rho.size, theta.size, len(FIELDS)))
    robust = solve_slab(z, rho, theta, out)
    return _RECORD.pack(index, robust) + out.astype("<f8").tobytes()


def _fill(nodes: Array, record: bytes, path: Path) -> int:
    """Put a record's slab in its place; returns its index. ValueError where it is none of the journal at `path`."""
    index: int = int.from_bytes(record[:4], "little")
    if len(record) != _RECORD.size + nodes[0].nbytes or index >= len(nodes):
        raise ValueError(f"{path}: holds what is no record of a build; delete it to start again")
    nodes[index] = np.frombuffer(record, "<f8", offset=_RECORD.size).reshape(nodes.shape[1:])
    return index


def build(
    path: str | os.PathLike[str],
    sigma: float | None = None,
    grid: str | GridSpec = "default",
    jobs: int = -1,
    scheduler: str | None = None,
) -> TableData:
    """Solve every node of `grid` and write the table to `path` (data_version 0: not proven).

    Solved slabs go to a journal beside `path`: stopped at any moment, the same call goes on behind them, and the finished file is
    the same to the byte whatever the interruptions and the number of jobs.

    Args:
        path: the HDF5 file; written under a temporary name and renamed. A finished table of the same grid and sigma is kept,
            of another one refused.
        sigma: noise level to bind the table to, in input units; None for a normalised table that serves every sampler.
        grid: a preset's name or a GridSpec.
        jobs: worker processes, -1 for all cores.
        scheduler: address of a Dask scheduler to run on instead.

    Raises:
        ValueError: an unknown grid, a sigma that is not positive, a journal of another build, another table at `path`.
        FileNotFoundError: no folder to write in.
        TableError: what is at `path` is no table.
        ArithmeticError: a node did not converge; no table is written.

    Examples:
        >>> from certlut.tablegen import Axis, GridSpec, build
        >>> grid = GridSpec(Axis(0.5, 2.0, 4, "sqrt"), Axis(0.0, 0.9, 3, "rim"), Axis(0.0, 90.0, 3, "fan"))
        >>> build("tiny.h5", grid=grid, jobs=1).data_version  # 0: not proven
        0
    """
    spec = grid_spec(grid)
    _check_sigma(sigma)
    path = check_out(path)
    if path.exists():
        finished = read_table(path)
        if finished.grid == spec.card() and finished.sigma == sigma:
            return finished
        raise ValueError(f"{path}: holds a table of another grid or sigma; delete it, or write to another file")
    generator = f"certlut {importlib.metadata.version('certlut')}"
    axes = {"z": spec.z.knots(), "rho": spec.rho.knots(), "theta": spec.theta.knots()}
    nodes = np.empty((*spec.shape, len(FIELDS)))
    settings = {"task": "build", "grid": spec.card(), "generator": generator, "tolerance": TOLERANCE}
    with Journal(path, settings, "slabs", spec.z.count, quiet=False) as journal:
        done = {_fill(nodes, record, journal.path) for record in journal.records}
        journal.records.clear()
        tasks = [(i, z, axes["rho"], axes["theta"]) for i, z in enumerate(axes["z"].tolist()) if i not in done]
        with progress_bar("solving") as progress:
            bar = progress.add_task("", total=spec.z.count, completed=len(done))
            for record in run(_slab, tasks, jobs, scheduler) if tasks else ():
                journal.append(record)
                _fill(nodes, record, journal.path)
                progress.advance(bar)
        _require_converged(nodes, axes)
        fields = dict(zip(FIELDS, np.moveaxis(nodes, -1, 0), strict=True))
        datasets = {name: (axes | fields)[name].astype(dtype) for name, (dtype, _, _) in DATASETS.items()}
        data = write_table(path, TableData(datasets, spec.card(), generator, TOLERANCE, sigma))
        journal.finish()
    return data


def stamp(path: str | os.PathLike[str], sigma: float | None, out: str | os.PathLike[str]) -> TableData:
    """Write the table at `path` to `out`, bound to `sigma` (None: normalised). Nothing is solved and a proof stays valid: the
    surface does not depend on sigma.

    Raises:
        FileNotFoundError, TableError: from reading the table.
        ValueError: a sigma that is not positive.

    Examples:
        >>> from certlut.tablegen import Axis, GridSpec, build, stamp
        >>> grid = GridSpec(Axis(0.5, 2.0, 4, "sqrt"), Axis(0.0, 0.9, 3, "rim"), Axis(0.0, 90.0, 3, "fan"))
        >>> _ = build("tiny.h5", grid=grid, jobs=1)
        >>> stamp("tiny.h5", 0.5, "bound.h5").sigma
        0.5
    """
    _check_sigma(sigma)
    return write_table(out, replace(read_table(path), sigma=sigma))


def _check_sigma(sigma: float | None) -> None:
    if sigma is not None and not (np.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma = {sigma}: expected a positive number")


def _require_converged(nodes: Array, axes: dict[str, Array]) -> None:
    failed = np.argwhere(nodes[..., FIELDS.index("status")] == Status.FAILED)
    if len(failed):
        point = ", ".join(f"{name} = {axes[name][i]:.6g}" for name, i in zip(axes, failed[0], strict=True))
        raise ArithmeticError(
            f"{len(failed)} of {nodes[..., 0].size} nodes did not converge, the first at {point}; no table written"
        )
