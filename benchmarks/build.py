"""Solver throughput: nodes per second by grid and jobs, and against the straightforward SciPy route on the same nodes.

Run: python benchmarks/build.py [--fast]
"""

import argparse
import math
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.integrate import quad
from scipy.optimize import fsolve
from scipy.special import ndtr

from certlut.kernels.normal import density, upper
from certlut.tablegen.build import _slab
from certlut.tablegen.grid import PRESETS
from certlut.tablegen.node import solve_node
from certlut.tablegen.parallel import run
from certlut.tablegen.solve import solve


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def sweep(grid: str, jobs: int) -> tuple[float, int]:
    """(nodes per second, nodes that needed the robust search) of a whole preset, workers started and compiled beforehand."""
    spec = PRESETS[grid]
    rho, theta = spec.rho.knots(), spec.theta.knots()
    tasks = [(i, z, rho, theta) for i, z in enumerate(spec.z.knots().tolist())]
    list(run(_slab, tasks[: 2 * jobs], jobs))
    records: list[bytes] = []
    took = seconds(lambda: records.extend(run(_slab, tasks, jobs)))
    robust = sum(int(np.frombuffer(record, "<u4", 1, 4)[0]) for record in records)
    return spec.size / took, robust


def scipy_radius(q: float, m1: float, m2: float, start: tuple[float, float, float, float]) -> float:
    """(4), (5a), (5b) and the half-value condition by fsolve over quad, from the exact answer changed by 2 %."""

    def equations(x: np.ndarray) -> list[float]:
        b0, b1, logk, r = x

        def c(t: float) -> float:
            return b0 + b1 * t - math.exp(min(logk + r * t, 700.0))

        def integral(f: Callable[[float], float]) -> float:
            return float(quad(lambda t: math.exp(-0.5 * t * t) / math.sqrt(2 * math.pi) * f(t), -12, 12, limit=200)[0])

        return [
            integral(lambda t: float(ndtr(c(t)))) - q,
            integral(lambda t: t * float(ndtr(c(t)))) - m1,
            integral(lambda t: math.exp(-0.5 * c(t) ** 2) / math.sqrt(2 * math.pi)) - m2,
            integral(lambda t: math.exp(r * t - 0.5 * r * r) * float(ndtr(c(t)))) - 0.5,
        ]

    return float(fsolve(equations, np.array(start), xtol=1e-10)[3])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="the small grid and 10 nodes only")
    fast = parser.parse_args().fast
    console = Console()
    table = Table("grid", "jobs", "nodes/s", "robust search", title="sweep by continuation")
    for grid in ("small",) if fast else ("small", "default"):
        for jobs in (1, 2):
            rate, robust = sweep(grid, jobs)
            table.add_row(grid, str(jobs), f"{rate:,.0f}", f"{robust} of {PRESETS[grid].size}")
    console.print(table)

    rng = np.random.default_rng(0)
    nodes = []
    while len(nodes) < (10 if fast else 50):
        z, rho, theta = rng.uniform(0.3, 3.0), rng.uniform(0.1, 0.9), math.radians(rng.uniform(20.0, 90.0))
        node = 1.0 - upper(z), -rho * density(z) * math.cos(theta), rho * density(z) * math.sin(theta)
        if solve(*node).multipliers[1] > 0.0:
            nodes.append((z, *node))
    a = np.empty(3)
    cold = seconds(lambda: [solve_node(1.0 - q, m1, m2, z, a) for z, q, m1, m2 in nodes])
    exact = [solve(q, m1, m2) for _, q, m1, m2 in nodes]
    theirs: list[float] = []

    def route() -> None:
        for (_, q, m1, m2), s in zip(nodes, exact, strict=True):
            a0, a1, a2 = s.multipliers
            start = (1.02 * a0 / a2, 0.98 * a1 / a2, -0.5 * s.radius**2 - math.log(a2), 1.02 * s.radius)
            theirs.append(scipy_radius(q, m1, m2, start))

    slow = seconds(route)
    agree = sum(abs(t / s.radius - 1.0) < 1e-6 for t, s in zip(theirs, exact, strict=True))
    table = Table("route", "ms/node", "ratio", title=f"one node from scratch, {len(nodes)} random nodes")
    table.add_row("ours, cold start", f"{1e3 * cold / len(nodes):.3f}", "1")
    table.add_row("SciPy fsolve + quad, started 2 % off", f"{1e3 * slow / len(nodes):.0f}", f"{slow / cold:.0f}")
    console.print(table)
    console.print(f"SciPy's route agrees to 1e-6 at {agree} of {len(nodes)} nodes")


if __name__ == "__main__":
    main()
