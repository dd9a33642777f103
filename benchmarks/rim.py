"""Loss near the rim by axes that have not been built: only the nodes around each query are solved.

Where the rim's loss comes from with the default axes, and what other axes of at most 16 MB (some 24 bytes a node in the file) would
leave. rho^p is uniform in (-log(1 - rho))^p, of which the spacing "rim" is p = 1/2; "below 90: s, power k" has the share s of the
angles at 90 (1 - (1 - t)^k), t uniform, the rest as the spacing "fan".

Run: python benchmarks/rim.py [--queries N]
"""

import argparse
import itertools

import numpy as np
from axes import exact
from lookup import RIM, draw
from rich.console import Console
from rich.table import Table

from certlut.lookup.kernel import axis_maps, lookup_many
from certlut.tablegen.grid import PRESETS
from certlut.tablegen.sweep import solve_slab

REGIONS = (f"z 0.05-5, {RIM}, theta 0-90", "z 0.05-5, rho 0-0.9995, theta 0-90", "theta 90-180")
Knots = tuple[np.ndarray, np.ndarray, np.ndarray]


def default(z: int, rho: int, theta: int) -> Knots:
    axes = PRESETS["default"]
    return tuple(
        type(axis)(axis.low, axis.high, count, axis.spacing).knots()
        for axis, count in ((axes.z, z), (axes.rho, rho), (axes.theta, theta))
    )


def power(count: int, p: float, high: float = 0.9999) -> np.ndarray:
    """rho, uniform in (-log(1 - rho))^p."""
    knots = -np.expm1(-(np.linspace(0.0, (-np.log1p(-high)) ** p, count) ** (1.0 / p)))
    knots[-1] = high
    return knots


def angles(count: int, share: float, k: float) -> np.ndarray:
    """theta, the share of the steps below 90 degrees crowded towards it."""
    below = round(share * (count - 1))
    above = np.arange(1, count - below) / (count - 1 - below)
    left = 90.0 * (1.0 - (1.0 - np.linspace(0.0, 1.0, below + 1)) ** k)
    return np.concatenate((left, 180.0 - 90.0 * np.cos(above * np.pi / 2.0)))


def losses(queries: np.ndarray, truth: np.ndarray, knots: Knots) -> np.ndarray:
    """1 - table/exact at each query, from a table of its cell's eight nodes."""
    found, nodes = np.empty((1,)), np.empty((2, 2, 2, 6))
    out = np.empty(len(truth))
    for n, (q, m1, m2, *place) in enumerate(queries.T):
        first = [min(max(np.searchsorted(k, x, "right") - 1, 0), len(k) - 2) for k, x in zip(knots, place, strict=True)]
        z, rho, theta = (k[i : i + 2] for k, i in zip(knots, first, strict=True))
        for one, slab in zip(z.tolist(), nodes, strict=True):
            solve_slab(one, rho, theta, slab)
        columns = (np.array([x]) for x in (q, m1, m2))
        lookup_many(*columns, *axis_maps(z, rho, theta), np.ascontiguousarray(nodes[..., :5]), found)
        out[n] = 1.0 - found[0] / truth[n]
    return out


def where(queries: np.ndarray, loss: np.ndarray, console: Console) -> None:
    """How the worst two per cent of the queries lie, beside all of them."""
    worst = loss > np.quantile(loss, 0.98)
    for what, x, edges in (
        ("z", queries[3], (0.0, 0.5, 1.0, 2.0, 3.0, 5.0)),
        ("1 - rho", 1.0 - queries[4], (0.0, 0.002, 0.005, 0.02, 0.1, 1.0)),
        ("theta", queries[5], (0.0, 45.0, 60.0, 70.0, 80.0, 90.0)),
    ):
        all_, bad = np.histogram(x, edges)[0], np.histogram(x[worst], edges)[0]
        shares = ", ".join(
            f"{a:g}-{b:g}: {m / worst.sum():.0%} (of all {n / len(x):.0%})"
            for (a, b), n, m in zip(itertools.pairwise(edges), all_, bad, strict=True)
        )
        console.print(f"worst 2 % by {what}: {shares}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=2000)
    arguments = parser.parse_args()
    console, rng = Console(width=170), np.random.default_rng(5)
    families = {
        "default: z sqrt 240, rho rim 40, theta fan 45": default(240, 40, 45),
        "rho 60": default(240, 60, 45),
        "theta fan 68": default(240, 40, 68),
        "z 160, rho 60, theta fan 68": default(160, 60, 68),
        "theta 68, below 90: .85, power 2": (*default(240, 40, 45)[:2], angles(68, 0.85, 2.0)),
        "rho^.7 40, theta 68, below 90: .85, power 2": (default(240, 40, 45)[0], power(40, 0.7), angles(68, 0.85, 2.0)),
    }
    cells: dict[str, list[str]] = {label: [] for label in families}
    for name in REGIONS:
        queries = draw(rng, arguments.queries, name)
        truth = exact(queries)
        for label, knots in families.items():
            loss = losses(queries, truth, knots)
            cells[label].append(" / ".join(f"{x:.1e}" for x in np.percentile(loss, (50, 99, 100))))
            if RIM in name and label.startswith("default"):
                where(queries, loss, console)
    out = Table("axes", "nodes", *(f"{name}: median / 99 % / worst" for name in REGIONS), title="loss 1 - table/exact")
    for label, knots in families.items():
        out.add_row(label, f"{np.prod([len(k) for k in knots]):,}", *cells[label])
    console.print(out)


if __name__ == "__main__":
    main()
