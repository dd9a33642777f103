"""Which axes lose least: builds unproven tables in memory for several families of axes and measures their loss.

Run: python benchmarks/axes.py [--queries N] [--dense]
"""

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from lookup import RIM, draw
from rich.console import Console
from rich.table import Table

from certlut.lookup.kernel import axis_maps, lookup_many
from certlut.tablegen.grid import PRESETS, GridSpec
from certlut.tablegen.node import solve_node
from certlut.tablegen.sweep import solve_slab

Queries = tuple[np.ndarray, np.ndarray]


def families() -> dict[str, GridSpec]:
    """Variations of the default grid, one axis at a time, at equal or nearly equal size."""
    default = PRESETS["default"]
    z, rho, theta = default.z, default.rho, default.theta
    return {
        "default: z sqrt 240, rho rim.7 44, theta across 62": default,
        "before: rho rim 40, theta fan 45": replace(
            default, rho=replace(rho, count=40, spacing="rim"), theta=replace(theta, count=45, spacing="fan")
        ),
        "z linear": replace(default, z=replace(z, spacing="linear")),
        "rho linear": replace(default, rho=replace(rho, spacing="linear")),
        "theta linear": replace(default, theta=replace(theta, spacing="linear")),
        "z 120": replace(default, z=replace(z, count=120)),
        "z 160, rho 66": replace(default, z=replace(z, count=160), rho=replace(rho, count=66)),
        "z 160, theta 93": replace(default, z=replace(z, count=160), theta=replace(theta, count=93)),
        "z 360, rho 29": replace(default, z=replace(z, count=360), rho=replace(rho, count=29)),
        "rho to 0.99999": replace(default, rho=replace(rho, high=0.99999)),
    }


def arrays(spec: GridSpec) -> tuple[np.ndarray, ...]:
    """Maps of the axes, and nodes, as the look-up takes them."""
    z, rho, theta = spec.z.knots(), spec.rho.knots(), spec.theta.knots()
    nodes = np.empty((*spec.shape, 6))
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # the solver releases the GIL
        list(threads.map(lambda x, out: solve_slab(x, rho, theta, out), z.tolist(), nodes))
    return *axis_maps(z, rho, theta), np.ascontiguousarray(nodes[..., :5])


def exact(queries: np.ndarray) -> np.ndarray:
    a = np.empty(3)
    return np.array([solve_node(1.0 - q, m1, m2, z, a).r for q, m1, m2, z in queries[:4].T])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--dense", action="store_true", help="the dense preset only")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    names = ("z 0.05-5, rho 0-0.9995, theta 0-90", f"z 0.05-5, {RIM}, theta 0-90", "rho 0.9-0.9995", "theta 90-180")
    regions: dict[str, Queries] = {}
    for name in names:
        queries = draw(rng, arguments.queries, name)
        regions[name] = queries, exact(queries)
    table = Table("axes", "nodes", "s", *(f"{name}: median / 99 % / worst" for name in names), title="loss 1 - table/exact")
    for label, spec in {"dense": PRESETS["dense"]}.items() if arguments.dense else families().items():
        start = time.perf_counter()
        opened = arrays(spec)
        seconds = time.perf_counter() - start
        cells = []
        for queries, truth in regions.values():
            out = np.empty(queries.shape[1])
            lookup_many(*(np.ascontiguousarray(row) for row in queries[:3]), *opened, out)
            cells.append(" / ".join(f"{x:.1e}" for x in np.percentile(1.0 - out / truth, (50, 99, 100))))
        table.add_row(label, f"{spec.size:,}", f"{seconds:.0f}", *cells)
    Console(width=180).print(table)


if __name__ == "__main__":
    main()
