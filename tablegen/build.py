"""Sweep the grid with joblib, slab by slab, and write the table."""

import importlib.metadata
import os
from pathlib import Path

import joblib
import numpy as np

from runtime.format import DATASETS, TableData, write_table
from runtime.jit import jit
from runtime.normal import density, upper
from runtime.progress import progress_bar

from .dual import Array
from .grid import GridSpec, grid_spec
from .seal import seal
from .solve import TOLERANCE, solve_node


@jit
def _solve_slab(z: float, rho: Array, theta: Array, out: Array) -> None:
    """One z: fill out[rho, theta] with radius, c, a0, a1, a2, status (0 where it did not converge)."""
    eps, rim = upper(z), density(z)
    a = np.empty(3)
    for i in range(rho.size):
        for j in range(theta.size):
            angle = np.pi * theta[j] / 180.0
            m1 = -rho[i] * rim * np.cos(angle)
            m2 = rho[i] * rim * np.sin(angle) if theta[j] < 180.0 else 0.0
            r, error, status, _ = solve_node(eps, m1, m2, z, a)
            if not error <= TOLERANCE:
                status = 0
                r = c = 0.0
                a[:] = 0.0
            else:
                # Without m2 the slab's cut: the a2 that the solver suggests belongs to a small m2.
                r, c = seal(eps, m1, m2, z, r, a)
            out[i, j, 0], out[i, j, 1] = r, c
            out[i, j, 2:5] = a
            out[i, j, 5] = status


def _slab(z: float, rho: Array, theta: Array) -> Array:
    out = np.empty((rho.size, theta.size, 6))
    _solve_slab(z, rho, theta, out)
    return out


def build(path: str | os.PathLike[str], sigma: float | None = None, grid: str | GridSpec = "default", jobs: int = -1) -> TableData:
    """Solve every node of `grid` and write the table to `path` (data_version 0: not proven).

    Args:
        path: the HDF5 file; written under a temporary name and renamed. A finished file for the same grid and sigma is kept.
        sigma: noise level to bind the table to, in input units; None for a normalised table that serves every sampler.
        grid: a preset's name or a GridSpec.
        jobs: worker processes, -1 for all cores.

    Raises:
        ValueError: an unknown grid, a sigma that is not positive.
        ArithmeticError: a node did not converge; nothing is written.
    """
    spec = grid_spec(grid)
    if sigma is not None and not (np.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma = {sigma}: expected a positive number")
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder to write {path.name} in")
    axes = {"z": spec.z.knots(), "rho": spec.rho.knots(), "theta": spec.theta.knots()}
    with progress_bar("solving") as progress:
        tasks = (joblib.delayed(_slab)(z, axes["rho"], axes["theta"]) for z in axes["z"])
        slabs = joblib.Parallel(n_jobs=jobs, return_as="generator")(tasks)
        nodes = np.stack(list(progress.track(slabs, total=spec.z.count)))
    failed = int((nodes[..., 5] == 0).sum())
    if failed:
        where = np.argwhere(nodes[..., 5] == 0)[0]
        point = ", ".join(f"{name} = {axes[name][i]:.6g}" for name, i in zip(axes, where, strict=True))
        raise ArithmeticError(f"{failed} of {spec.size} nodes did not converge, the first at {point}; nothing was written")
    fields = dict(zip(("radius", "c", "a0", "a1", "a2", "status"), np.moveaxis(nodes, -1, 0), strict=True))
    datasets = {name: (axes | fields)[name].astype(dtype) for name, (dtype, _, _) in DATASETS.items()}
    version = importlib.metadata.version("certlut")
    return write_table(path, TableData(datasets, spec.card(), f"certlut {version}", TOLERANCE, sigma))
