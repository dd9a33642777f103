"""Loss near the rim by axes that have not been built: only the nodes around each query are solved.

Where the rim's loss comes from with the default axes, and what other axes of at most 16 MB (24 bytes a node on disk) would leave.
rho^p is uniform in (-log(1 - rho))^p, of which the spacings "rim" and "rim.7" are p = 1/2 and 0.7. theta B + A has B steps below 90
degrees and A above: below "power k", 90 (1 - (1 - t)^k), or "sinh s", 90 - s sinh(asinh(90/s) (1 - t)), t uniform.

Run: python benchmarks/rim.py [--queries N]
"""

import argparse
import itertools
from dataclasses import replace

import numpy as np
from axes import exact
from lookup import RIM, draw
from rich.console import Console
from rich.table import Table

from certlut.lookup.kernel import axis_maps, lookup_many
from certlut.tablegen.grid import PRESETS, Axis
from certlut.tablegen.sweep import solve_slab

REGIONS = (f"z 0.05-5, {RIM}, theta 0-90", "z 0.05-5, rho 0-0.9995, theta 0-90", "theta 90-180")
Knots = tuple[np.ndarray, np.ndarray, np.ndarray]


def power(count: int, p: float, high: float = 0.9999) -> np.ndarray:
    """rho, uniform in (-log(1 - rho))^p."""
    knots = -np.expm1(-(np.linspace(0.0, (-np.log1p(-high)) ** p, count) ** (1.0 / p)))
    knots[-1] = high
    return knots


def angles(below: int, above: int, shape: str, by: float, fan: bool = False) -> np.ndarray:
    """theta: `below` steps under 90 degrees by power or sinh, `above` over it, equal or as the spacing "fan"."""
    left, up = np.linspace(1.0, 0.0, below + 1), np.arange(1, above + 1) / above
    low = 90.0 - (90.0 * left**by if shape == "power" else by * np.sinh(np.arcsinh(90.0 / by) * left))
    low[0] = 0.0
    return np.concatenate((low, 180.0 - 90.0 * np.cos(up * np.pi / 2.0) if fan else 90.0 + 90.0 * up))


def families() -> dict[str, Knots]:
    """The default, what it was before, and the steps between."""
    axes = PRESETS["default"]
    z, rho, theta = (axis.knots() for axis in (axes.z, axes.rho, axes.theta))
    fan = {count: Axis(0.0, 180.0, count, "fan").knots() for count in (45, 68)}
    return {
        "default": (z, rho, theta),
        "rho^.5 40, theta fan 45": (z, power(40, 0.5), fan[45]),
        "rho^.5 60, theta fan 45": (z, power(60, 0.5), fan[45]),
        "rho^.5 40, theta fan 68": (z, power(40, 0.5), fan[68]),
        "rho^.7 40, theta 57 + 10, power 2, fan above": (z, power(40, 0.7), angles(57, 10, "power", 2.0, fan=True)),
        "theta power 1.4": (z, rho, angles(50, 11, "power", 1.4)),
        "theta power 2.3": (z, rho, angles(50, 11, "power", 2.3)),
        "theta sinh 3": (z, rho, angles(50, 11, "sinh", 3.0)),
        "theta sinh 20": (z, rho, angles(50, 11, "sinh", 20.0)),
        "theta sinh 9, fan above": (z, rho, angles(50, 11, "sinh", 9.0, fan=True)),
        "rho^.6 44": (z, power(44, 0.6), theta),
        "rho^.8 44": (z, power(44, 0.8), theta),
        "z 220, rho^.7 44, theta 56 + 11": (replace(axes.z, count=220).knots(), rho, angles(56, 11, "sinh", 9.0)),
        "z 280, rho^.7 44, theta 41 + 11": (replace(axes.z, count=280).knots(), rho, angles(41, 11, "sinh", 9.0)),
    }


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
    tried = families()
    cells: dict[str, list[str]] = {label: [] for label in tried}
    for name in REGIONS:
        queries = draw(rng, arguments.queries, name)
        truth = exact(queries)
        for label, knots in tried.items():
            loss = losses(queries, truth, knots)
            cells[label].append(" / ".join(f"{x:.1e}" for x in np.percentile(loss, (50, 99, 100))))
            if RIM in name and label == "default":
                where(queries, loss, console)
    out = Table("axes", "nodes", *(f"{name}: median / 99 % / worst" for name in REGIONS), title="loss 1 - table/exact")
    for label, knots in tried.items():
        out.add_row(label, f"{np.prod([len(k) for k in knots]):,}", *cells[label])
    console.print(out)


if __name__ == "__main__":
    main()
