"""How often the bounds behind tail certificates miss the truth, of classifiers whose tails are known, at a large alpha.

A row per classifier and dimension: the rate at which the tail event of all axes alone misses at level alpha (some p_k below the
largest P(against, +-u_j >= tau_k)), the same of one axis both ways, and "together": q or either event, sharing one alpha as a
certificate of l1 and a line does. No rate may be above alpha by more than the standard errors allow.

Run: python benchmarks/tail_misses.py [--runs R] [--alpha A] [--samples N]
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from certlut.bounds.binomial import upper_probability
from certlut.bounds.budget import SHARES
from certlut.bounds.tails import tail_bounds
from certlut.lookup.tail_format import THRESHOLDS
from reference.boxes import Box

TAUS = np.array(THRESHOLDS)


def boxes(d: int) -> dict[str, Box]:
    far, near = np.full(d, 40.0), np.full(d, -40.0)
    one, corner, shell, top = near.copy(), near.copy(), near.copy(), far.copy()
    one[0], corner[: min(d, 3)], shell[0], top[0] = 1.2, 0.3, 2.7, 3.4
    few = far.copy()
    few[: min(d, 4)] = 1.9
    out = {"half-space": Box(one, far), "corner": Box(corner, far), "shell": Box(shell, top), "union of 4": Box(near, few, True)}
    return {**out, "cube": Box(np.zeros(d), np.full(d, 2.5)), "union of all": Box(near, np.full(d, 2.0 + d**0.2), True)}


def rates(box: Box, runs: int, n: int, alpha: float, rng: np.random.Generator) -> tuple[float, float, float]:
    """Miss rates of all axes, of one axis, together."""
    eps, drawn = float(box.against(np.zeros((1, box.d)))[0]), np.full(runs, n)
    count, every, line = np.empty(runs, np.int64), *np.empty((2, runs, TAUS.size), np.int64)
    for run in range(runs):
        u = rng.standard_normal((n, box.d))
        against = u[box.drawn(u)]
        # Samples against beyond each threshold along each signed axis, shape (K, 2 d).
        counts = (np.concatenate([against, -against], axis=1)[None] >= TAUS[:, None, None]).sum(axis=1)
        count[run], every[run], line[run] = len(against), counts.max(axis=1), counts[:, [0, box.d]].max(axis=1)
    families = [(every, box.largest_tails(TAUS, np.arange(box.d))), (line, box.largest_tails(TAUS, np.arange(1)))]

    def missed(level: float) -> list[np.ndarray]:
        return [(tail_bounds(counts, drawn, np.full(runs, eps), TAUS, level) < truth).any(axis=1) for counts, truth in families]

    share = SHARES["tails"] * alpha
    above = upper_probability(count, drawn, (1.0 - SHARES["gradient"]) * alpha - share) < eps
    alone, both = missed(alpha), missed(share / 2.0)
    return float(alone[0].mean()), float(alone[1].mean()), float((above | both[0] | both[1]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--alpha", type=float, default=0.1)
    parser.add_argument("--samples", type=int, default=600)
    arguments = parser.parse_args()
    runs, n, alpha = arguments.runs, arguments.samples, arguments.alpha
    title = f"miss rates at alpha = {alpha}, n = {n}, {runs} runs a row"
    table = Table("d", "classifier", "eps", "all axes", "one axis", "together", title=title)
    for d in (1, 3, 16, 64):
        for place, (name, box) in enumerate(boxes(d).items()):
            eps = float(box.against(np.zeros((1, d)))[0])
            if not 1e-4 < eps < 0.5:
                continue
            row = rates(box, runs, n, alpha, np.random.default_rng([5, d, place]))
            table.add_row(f"{d}", name, f"{eps:.4f}", *(f"{rate:.4f}" for rate in row))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
