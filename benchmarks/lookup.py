"""The look-up: its loss against the exact radius by region, its throughput beside (unsound) linear interpolators, its start-up.

interpn and interpolation take part where they are installed (the extra `bench`).

Run: python benchmarks/lookup.py [--table FILE] [--queries N]
"""

import argparse
import importlib.util
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.interpolate import RegularGridInterpolator

from certlut.kernels.normal import densities, upper, upper_quantile
from certlut.lookup.format import TableData, read_table
from certlut.lookup.table import Table as RadiusTable
from certlut.lookup.table import find
from certlut.tablegen.node import TOLERANCE, solve_node

# z, rho and theta are uniform between limits, or `RIM`: 1 - rho log-uniform, as the gradients of real votes come.
RIM = "1 - rho 0.0005-1, log-uniform"
REGIONS = {
    "z 0.05-5, rho 0-0.9995, theta 0-90": ((0.05, 5.0), (0.0, 0.9995), (0.0, 90.0)),
    "the same, m2 = 0 (l2)": ((0.05, 5.0), (0.0, 0.9995), (0.0, 0.0)),
    "z 0.00025-0.05": ((0.00025, 0.05), (0.0, 0.9995), (0.0, 90.0)),
    "z 5-5.3": ((5.0, 5.3), (0.0, 0.9995), (0.0, 90.0)),
    "z 5.3-7 (beyond the grid)": ((5.3, 7.0), (0.0, 0.9995), (0.0, 90.0)),
    "rho 0.9-0.9995": ((0.05, 5.0), (0.9, 0.9995), (0.0, 90.0)),
    f"z 0.05-5, {RIM}, theta 0-90": ((0.05, 5.0), (5e-4, 1.0), (0.0, 90.0)),
    "theta 90-180": ((0.05, 5.0), (0.0, 0.9995), (90.0, 180.0)),
}


def draw(rng: np.random.Generator, n: int, name: str) -> np.ndarray:
    """Queries of a region: rows q, m1, m2, z, rho, theta."""
    z_limits, rho_limits, theta_limits = REGIONS[name]
    z = rng.uniform(*z_limits, n)
    rho = 1.0 - np.exp(rng.uniform(*np.log(rho_limits), n)) if RIM in name else rng.uniform(*rho_limits, n)
    theta = rng.uniform(*theta_limits, n)
    q = np.array([1.0 - upper(x) for x in z])
    z = np.array([upper_quantile(1.0 - x) for x in q])
    rim, turn = densities(z), np.radians(theta)
    m2 = np.where(theta > 0.0, rho * rim * np.sin(turn), 0.0)
    return np.array([q, -rho * rim * np.cos(turn), m2, z, rho, theta])


def best_of(function: Callable[[], object], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", default=None)
    parser.add_argument("--queries", type=int, default=20_000)
    arguments = parser.parse_args()
    found = find(arguments.table)
    data = read_table(found)
    table = RadiusTable(data)
    rng = np.random.default_rng(0)
    console = Console()

    out = Table("region", "median", "99 %", "worst", "below exact", title=f"loss 1 - table/exact, {arguments.queries} queries each")
    a = np.empty(3)
    for name in REGIONS:
        queries = draw(rng, arguments.queries, name)
        solved = [solve_node(1.0 - q, m1, m2, z, a) for q, m1, m2, z in queries[:4].T]
        good = np.array([s.error <= TOLERANCE for s in solved])
        loss = 1.0 - np.asarray(table.radius(*queries[:3]))[good] / np.array([s.r for s in solved])[good]
        middle, high, worst = np.percentile(loss, (50, 99, 100))
        out.add_row(name, f"{middle:.1e}", f"{high:.1e}", f"{worst:.1e}", "always" if loss.min() > -2e-9 else "NO")
    console.print(out)

    throughput(table, data, draw(rng, 400_000, "z 0.05-5, rho 0-0.9995, theta 0-90"), console)
    start_up(found, console)


def throughput(table: RadiusTable, data: TableData, queries: np.ndarray, console: Console) -> None:
    """Everything in one run on the same queries; the interpolators get (z, rho, theta) ready-made and know nothing of soundness."""
    ours, points = np.ascontiguousarray(queries[:3]), np.ascontiguousarray(queries[3:].T)
    axes = tuple(data.datasets[name] for name in ("z", "rho", "theta"))
    values = np.ascontiguousarray(data.datasets["radius"])
    linear = RegularGridInterpolator(axes, values)
    rivals: dict[str, Callable[[], object]] = {"SciPy RegularGridInterpolator(linear)": lambda: linear(points)}
    if importlib.util.find_spec("interpn"):
        from interpn import MultilinearRectilinear

        rust, columns = MultilinearRectilinear.new(list(axes), values), list(np.ascontiguousarray(queries[3:]))
        rivals["interpn MultilinearRectilinear (Rust)"] = lambda: rust.eval(columns)
    if importlib.util.find_spec("interpolation"):
        from interpolation.splines import eval_linear

        rivals["interpolation eval_linear (Numba)"] = lambda: eval_linear(axes, values, points)
    q, m1, m2 = (float(x) for x in ours[:, 0])
    jobs = rivals | {
        "Table.radius, 1 thread": lambda: table.radius(*ours),
        "Table.radius, 2 threads": lambda: table.radius(*ours, threads=2),
    }
    times = dict.fromkeys(jobs, math.inf)
    for _ in range(9):  # in turn, so that all see the same machine
        for name, job in jobs.items():
            times[name] = min(times[name], best_of(job, 1) / queries.shape[1])
    times["Table.radius, one scalar a call from Python"] = (
        best_of(lambda: [table.radius(q, m1, m2) for _ in range(20_000)]) / 20_000
    )
    scipy = next(iter(times.values()))
    out = Table("look-up", "ns/query", "throughput", title=f"{queries.shape[1]:,} random queries, the same for all")
    for name, seconds in times.items():
        out.add_row(name, f"{1e9 * seconds:.0f}", f"{scipy / seconds:.2f}")
    console.print(out)
    one, two = times["Table.radius, 1 thread"], times["Table.radius, 2 threads"]
    console.print(f"two threads: {one / two:.2f} times one")


def start_up(path: Path, console: Console) -> None:
    """Import, load and first call in a new process, with an empty and with a warm cache of machine code."""
    code = f"import certlut; t = certlut.load({str(path)!r}); t.radius(0.9, -0.1, 0.05); t.radius([0.9], [-0.1], [0.05])"
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}

        def run() -> object:
            return subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=environment)

        cold, warm = best_of(run, 1), best_of(run, 3)
    console.print(f"import, load, first call in a new process: {warm:.2f} s; {cold:.1f} s where Numba has yet to compile")


if __name__ == "__main__":
    main()
