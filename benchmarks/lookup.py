"""The look-up: its loss against the exact radius by region, and its throughput beside SciPy's (unsound) linear interpolation.

Run: python benchmarks/lookup.py [--table FILE] [--queries N]
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.interpolate import RegularGridInterpolator

from runtime.format import read_table
from runtime.normal import density, upper, upper_quantile
from runtime.table import Table as RadiusTable
from runtime.table import find
from tablegen.solve import TOLERANCE, solve_node

REGIONS = {
    "z 0.05-5, rho 0-0.9995, theta 0-90": ((0.05, 5.0), (0.0, 0.9995), (0.0, 90.0)),
    "the same, m2 = 0 (l2)": ((0.05, 5.0), (0.0, 0.9995), (0.0, 0.0)),
    "z 0.00025-0.05": ((0.00025, 0.05), (0.0, 0.9995), (0.0, 90.0)),
    "z 5-5.3": ((5.0, 5.3), (0.0, 0.9995), (0.0, 90.0)),
    "z 5.3-7 (beyond the grid)": ((5.3, 7.0), (0.0, 0.9995), (0.0, 90.0)),
    "rho 0.9-0.9995": ((0.05, 5.0), (0.9, 0.9995), (0.0, 90.0)),
    "theta 90-180": ((0.05, 5.0), (0.0, 0.9995), (90.0, 180.0)),
}


def draw(rng: np.random.Generator, n: int, region: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Uniform queries: rows q, m1, m2, z, rho, theta."""
    z, rho, theta = (rng.uniform(*limits, n) for limits in region)
    q = np.array([1.0 - upper(x) for x in z])
    z = np.array([upper_quantile(1.0 - x) for x in q])
    rim, turn = np.array([density(x) for x in z]), np.radians(theta)
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
    data = read_table(find(arguments.table))
    table = RadiusTable(data)
    rng = np.random.default_rng(0)
    console = Console()

    out = Table("region", "median", "99 %", "worst", "below exact", title=f"loss 1 - table/exact, {arguments.queries} queries each")
    a = np.empty(3)
    for name, region in REGIONS.items():
        queries = draw(rng, arguments.queries, region)
        solved = [solve_node(1.0 - q, m1, m2, z, a) for q, m1, m2, z in queries[:4].T]
        good = np.array([s[2] <= TOLERANCE for s in solved])
        loss = 1.0 - np.asarray(table.radius(*queries[:3]))[good] / np.array([s[0] for s in solved])[good]
        middle, high, worst = np.percentile(loss, (50, 99, 100))
        out.add_row(name, f"{middle:.1e}", f"{high:.1e}", f"{worst:.1e}", "always" if loss.min() > -2e-9 else "NO")
    console.print(out)

    queries = draw(rng, 200_000, REGIONS["z 0.05-5, rho 0-0.9995, theta 0-90"])
    axes = tuple(data.datasets[name] for name in ("z", "rho", "theta"))
    linear = RegularGridInterpolator(axes, data.datasets["radius"])
    points = np.ascontiguousarray(queries[3:].T)
    table.radius(*queries[:3, :10])
    ours = best_of(lambda: table.radius(*queries[:3])) / queries.shape[1]
    theirs = best_of(lambda: linear(points)) / queries.shape[1]
    q, m1, m2 = (float(x) for x in queries[:3, 0])
    scalar = best_of(lambda: [table.radius(q, m1, m2) for _ in range(10_000)]) / 10_000
    out = Table("look-up", "ns/query", "throughput", title="one core, 200,000 random queries")
    out.add_row("SciPy RegularGridInterpolator(linear): unsound, given its coordinates", f"{1e9 * theirs:.0f}", "1.0")
    out.add_row("Table.radius: sound, from (q, m1, m2)", f"{1e9 * ours:.0f}", f"{theirs / ours:.1f}")
    out.add_row("Table.radius, one scalar a call from Python", f"{1e9 * scalar:.0f}", f"{theirs / scalar:.2f}")
    console.print(out)


if __name__ == "__main__":
    main()
