"""Certified regions by kind of information, of votes whose errors are a ball of three-dimensional noise.

figure     the paper's Figure 1 with more orders: information.svg, .png and .tsv, as in docs/information.md
curvature  what the report's explorer draws with curvature, runtime/report/explorer/curvature.json
tails      and with tails, tails.json

Run: python benchmarks/regions.py figure|curvature|tails [--out DIR]
"""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Memory
from rich.console import Console
from scipy.interpolate import PchipInterpolator
from scipy.special import ndtri

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from certlut.kernels.arrays import Array
from certlut.report.regions import Region, Row, write
from certlut.report.slices import EXPLORER_THETA, STEPS
from certlut.tablegen.framework import region
from reference import known_balls as known

# The explorer's grid (report/slices.py), coarser, and up to q = .9955: beyond, votes far out are hard to solve, and the explorer
# draws the last. Regions are drawn up to LIMIT times Cohen's radius.
Z = np.linspace(np.sqrt(0.05), np.sqrt(3.3), 9)[:-1] ** 2
RHO = -np.expm1(-(np.linspace(0.0, np.sqrt(-np.log(0.01)), 8) ** 2))
THETA = np.linspace(0.0, 180.0, 10)
LIMIT = 4.0


def radii(q: float, share: float, kind: str, angles: Sequence[float]) -> Array:
    """Of one kind of information."""
    return region(known.orders(known.ball_against(q, share)[0])[kind], angles, LIMIT * float(ndtri(q)))


def row(q: float, share: float, angles: Sequence[float], memory: Memory) -> Row:
    """One classifier's panels."""
    f, centre, size = known.ball_against(q, share)
    regions = [Region(kind, np.array(angles), memory.cache(radii)(q, share, kind, angles)) for kind in known.orders(f)]
    turn = np.linspace(0.0, 2.0 * np.pi, 400)
    far = known.falls(centre, size)
    truth = [(centre + far * np.cos(turn), far * np.sin(turn))] if far else []
    return Row(f"q = {q:g}, gradient {100 * share:.0f} %", regions, 1.0, truth)


def figure(console: Console, out: Path) -> None:
    """Rows of 30, 70 and 98 % of the largest gradient; what an earlier run finished is kept."""
    angles = np.linspace(0.0, np.pi, 25).tolist()
    rows = [row(0.9, share, angles, Memory(out / "kept", verbose=0)) for share in (0.3, 0.7, 0.98)]
    for path in write(rows, out, "information"):
        console.print(path)
    for line in rows:
        reach = {part.name: (part.radius[-1], part.radius[len(part.radius) // 2]) for part in line.regions}
        told = "; ".join(f"{name} {against:.3f} / {across:.3f}" for name, (against, across) in reach.items())
        console.print(f"{line.title}: radius against the gradient / across it: {told}")


def ratios(z: float, rho: float, kind: str) -> list[int]:
    """STEPS z / r by direction, theta from the one against the gradient."""
    radii = region(known.explored(z, rho)[kind], np.pi - np.radians(THETA), LIMIT * z)
    return [int(x) for x in np.rint(STEPS * z / np.maximum(radii, z))]


def explorer(kind: str, out: Path) -> Path:
    """The file of one kind of information; what an earlier run finished is kept."""
    part = out / f"{kind}.part"
    cells = [json.loads(line) for line in part.read_text().splitlines()] if part.exists() else []
    for z, rho in itertools.islice(itertools.product(Z.tolist(), RHO.tolist()), len(cells), None):
        cells.append(ratios(z, rho, kind))
        part.write_text("".join(json.dumps(cell) + "\n" for cell in cells))
    # Smooth along theta, where a region turns into its mirror image at both ends.
    around = np.concatenate([-THETA[2:0:-1], THETA, 360.0 - THETA[-2:-4:-1]])
    values = np.pad(np.array(cells, dtype=np.float64), ((0, 0), (2, 2)), mode="reflect")
    smooth = np.rint(PchipInterpolator(around, values, axis=1)(EXPLORER_THETA)).astype(int)
    axes = {"z": Z, "rho": RHO, "theta": EXPLORER_THETA}
    content: dict[str, Any] = {name: [round(float(x), 6) for x in axis] for name, axis in axes.items()}
    content["ratio"] = smooth.ravel().tolist()
    path = out / f"{kind}.json"
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
    part.unlink()
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("figure", "curvature", "tails"))
    parser.add_argument("--out", type=Path, default=Path("information"))
    arguments = parser.parse_args()
    console = Console(width=200)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.what == "figure":
        figure(console, arguments.out)
    else:
        console.print(explorer(arguments.what, arguments.out))


if __name__ == "__main__":
    main()
