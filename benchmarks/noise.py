"""Noise alone, one thread: CPU time and page faults a number, side by side; and the law of grid draws on many of them.

Run: python benchmarks/noise.py [--rows N] [--rounds R] [--draws N]
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import chi2, norm

from certlut.sampling.batches import batches
from certlut.sampling.cells import TOTAL, Law, law
from certlut.sampling.grid import draw, draw_torch, form_torch, perturb
from certlut.sampling.grid_bets import GridTally
from certlut.sampling.memory import BatchSize
from certlut.sampling.noise import Gaussian
from certlut.sampling.normals import draw as draw_normals
from certlut.sampling.streams import FIRST, Segment, Stream
from certlut.sampling.sums import Ranks, look_up
from certlut.threats.sets import L1, L2, LINF, projections

D, SIGMA, STEP = 3 * 32 * 32, 0.25, Fraction(1, 255)
TAUS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0)


def usage() -> tuple[float, float, float]:
    """CPU seconds, those of them in the kernel, page faults of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.process_time(), used.ru_stime, float(used.ru_minflt)


def loops(rows: int) -> dict[str, Callable[[], None]]:
    """What makes `rows` rows of noise: the draws alone, then the noisy inputs of a batch, then what is kept of it."""
    fine, split = law(Fraction(SIGMA) / STEP), law(Fraction(SIGMA) / STEP, TAUS)
    image = torch.randint(0, 256, (D,))
    x, levels = image.to(torch.float32) / 255, image.to(torch.int32)
    one, two = torch.empty((rows, D)), torch.empty((rows, D), dtype=torch.float64)
    codes, noisy = np.empty((rows, D), dtype=np.int16), np.empty((rows, D), dtype=np.float32)
    marked = np.empty((rows, D), dtype=np.int16)
    draw(split, Stream(2, 0, 1), 0, marked)
    generator = np.random.Generator(np.random.Philox(1))
    ranks, means = Ranks(split, D), np.empty((rows, D))
    tally = GridTally(projections((L1, L2, LINF)), D, 2**40, (1, 100), torch.device("cpu"), law=split)
    votes = torch.arange(rows) % 10 > 0
    segments = [Segment(0, 0, FIRST, 0, rows)]

    def field() -> None:
        batch = x.expand(rows, D)
        batch + torch.randn_like(batch) * SIGMA

    def gaussian() -> None:
        for _ in batches(Gaussian(1, x[None].double(), SIGMA, torch.float32), segments, BatchSize(rows)):
            pass

    def on_torch() -> None:
        draw_torch(fine, Stream(1, 0, 1), 0, torch.from_numpy(codes))
        form_torch(fine, torch.from_numpy(codes), levels, STEP, one)

    return {
        "torch normal_, float32, in place": lambda: one.normal_(),
        "torch normal_, float64, in place": lambda: two.normal_(),
        "NumPy standard_normal, float64, in place": lambda: generator.standard_normal(out=two.numpy()),
        "draw of normals.py, float64": lambda: draw_normals(Stream(1, 0, 1), 0, two.numpy()),
        "grid draw": lambda: draw(fine, Stream(1, 0, 1), 0, codes),
        "noisy inputs: the field's loop, x + torch.randn_like(x) * sigma": field,
        "noisy inputs: noise.py, float64": gaussian,
        "noisy inputs: grid": lambda: perturb(fine, Stream(1, 0, 1), 0, codes, levels.numpy(), STEP, noisy),
        f"noisy inputs: grid, cells split at {len(TAUS)} thresholds": lambda: perturb(
            split, Stream(1, 0, 1), 0, codes, levels.numpy(), STEP, noisy
        ),
        "noisy inputs: grid, torch operations on the CPU": on_torch,
        "cell means, float64": lambda: look_up(codes, fine.low, fine.mean, means),
        "sums and bets, a tenth of votes against": lambda: tally.add(torch.from_numpy(marked), votes),
        f"of a sample against: tails beyond {len(TAUS)} thresholds": lambda: ranks.add(marked),
    }


def speed(console: Console, rows: int, rounds: int) -> None:
    """Interleaved rounds; medians."""
    made = loops(rows)
    seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in made}
    for turn in range(rounds + 1):
        for name, loop in made.items():
            before = usage()
            loop()
            spent = [b - a for a, b in zip(before, usage(), strict=True)]
            if turn:
                seen[name].append((spent[0], spent[1], spent[2]))
    table = Table("", "ns a number", "in the kernel", "page faults a million numbers", title=f"{rows} x {D}, one thread")
    for name, spent in seen.items():
        busy, system, faults = (statistics.median(column) / (rows * D) for column in zip(*spent, strict=True))
        table.add_row(name, f"{1e9 * busy:.2f}", f"{1e9 * system:.2f}", f"{1e6 * faults:.0f}")
    console.print(table)


def pooled(counts: np.ndarray, expected: np.ndarray) -> tuple[float, int]:
    """Chi-square and its degrees of freedom, neighbours of fewer than 20 expected taken together."""
    group = (np.cumsum(expected) / 20.0).astype(np.int64)
    seen, due = np.bincount(group, counts), np.bincount(group, expected)
    kept = due > 0
    return float(((seen[kept] - due[kept]) ** 2 / due[kept]).sum()), int(kept.sum()) - 1


def exactness(console: Console, draws: int) -> None:
    """Chi-square over all cells, and over pairs: neighbours in a row, rows, streams."""
    table = Table("sigma / step", "cells", "all cells", "in a row", "rows", "streams")
    for ratio in (Fraction(4), Fraction(255, 4), Fraction(255)):
        grid: Law = law(ratio)
        p, size = grid.weights / TOTAL, len(grid.codes)
        groups = np.minimum((np.cumsum(p) * 64).astype(np.int64), 63)
        share = np.bincount(groups, p, minlength=64)
        counts, pairs = np.zeros(size, dtype=np.int64), np.zeros((3, 64 * 64), dtype=np.int64)
        last, rows, d = np.empty(0), 1000, 1000
        for index in range(max(2, draws // (rows * d))):
            codes = np.empty((rows, d), dtype=np.int16)
            draw(grid, Stream(2024, index, FIRST), 0, codes)
            places = codes.astype(np.int64) - grid.low
            counts += np.bincount(places.ravel(), minlength=size)
            g = groups[places]
            for k, (a, b) in enumerate(((g[:, :-1], g[:, 1:]), (g[:-1], g[1:]), (last, g))):
                if len(a):
                    pairs[k] += np.bincount((64 * a + b).ravel(), minlength=64 * 64)
            last = g
        found = [pooled(counts, counts.sum() * p), *(pooled(pair, pair.sum() * np.outer(share, share).ravel()) for pair in pairs)]
        values = [f"p = {chi2.sf(*one):.3f}" for one in found]
        table.add_row(f"{float(ratio):g}", str(size), *values)
    console.print(f"chi-square of {draws:.0e} draws each; pairs of 64 groups of cells")
    console.print(table)


def far(console: Console, draws: int) -> None:
    """Draws beyond cell edges far out, 6 among them, and how many were due."""
    grid, edges, rows, d = law(Fraction(17, 4)), (18, 22, 26), 1000, 10_000
    codes, seen = np.empty((rows, d), dtype=np.int16), np.zeros(len(edges), dtype=np.int64)
    for index in range(draws // (rows * d)):
        draw(grid, Stream(2025, index, FIRST), 0, codes)
        beyond = np.abs(codes[np.abs(codes) >= edges[0]])
        seen += [int((beyond >= k).sum()) for k in edges]
    for k, count in zip(edges, seen.tolist(), strict=True):
        edge = (k - 0.5) / float(grid.ratio)
        console.print(f"of {draws:.0e} draws beyond {edge:.3f}: {count}, due {draws * 2.0 * norm.sf(edge):.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--draws", type=int, default=0, help="numbers to test the law with; 100 times as many for far tails")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=160)
    speed(console, arguments.rows, arguments.rounds)
    if arguments.draws:
        exactness(console, arguments.draws)
        far(console, 100 * arguments.draws)


if __name__ == "__main__":
    main()
