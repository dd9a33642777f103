"""How often the bounds miss the truth, of classifiers whose gradient is known, at a deliberately large alpha.

A row per classifier, dimension and estimator: for each kind of bound the rate at which it misses at level alpha (q known exactly),
the worst of all parts of that kind; then "together", the rate at which q or any of the bounds that share one alpha misses. An
honest estimator has no rate above alpha by more than the standard errors allow. "chernoff" is the adaptive estimator without bets.

d = 3072 takes two routes: four classifiers with every row drawn, and nine with the components across w.u drawn as what they sum to
(`Reduced`): the same law for the bets on the length and along directions, at the cost of d = 5.

Run: python benchmarks/misses.py [--runs R] [--alpha A] [--samples N] [--jobs J]
"""

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from certlut.sampling.bets import Tally
from certlut.statistics.summary import Statistics, summarise
from certlut.threats.declare import Direction
from certlut.threats.projections import Projection
from certlut.threats.sets import ALL, L2, LENGTH, Quantity, Threat, projections
from reference.naive_statistics import Known, stripes
from reference.simulate import CPU, N0, allowed, classifiers, missed, missed_together, quantities, sampled, threats_of

# Classifiers by their place in `classifiers(d, n)`, where not all are tried.
SOME = {64: (1, 2, 6, 8, 9, 11, 12), 3072: (1, 2, 6, 9)}
Row = dict[str, float]


class Reduced(Tally):
    """The tally of d dimensions where votes depend on the first column alone, from rows (t, 0 to 3 of the noise across).

    What the bets see of the noise across w is its part along the means of the stages before, which lie in the span of w and of one
    fresh direction a stage: column 1 + k is that of stage k. Rows drawn later are standard normal there; the stage's own sum, of
    K votes for and m - K against, has the length sqrt((1 - b)^2 K + b^2 (m - K)) times that of a normal vector in what is left of
    the d dimensions. Bets on coordinates mean nothing here.
    """

    def __init__(self, parts: dict[str, Projection], d: int, n: int, against: tuple[int, int], rng: np.random.Generator) -> None:
        super().__init__(parts, 5, n, against, CPU)
        self.whole, self.rng, self.seen = d, rng, (0, 0)

    def _begin(self) -> None:
        if 0 <= self._index < 3:
            count, drawn = int(self.count.sum()), sum(self.drawn)
            votes, rows = count - self.seen[0], drawn - self.seen[1]
            scale = ((1.0 - self.b) ** 2 * votes + self.b**2 * (rows - votes)) ** 0.5
            self.sums[0, :, 1 + self._index :] = 0.0
            self.sums[0, 0, 1 + self._index] = scale * self.rng.chisquare(self.whole - 1 - self._index) ** 0.5
            self.seen = count, drawn
        super()._begin()

    def _ranks(self) -> torch.Tensor:
        return torch.tensor([by.rank(self.whole) for by in self.parts.values()], dtype=torch.float64)


def reduced(known: Known, line: Known, threats: list[Threat], runs: int, n: int, seed: int) -> Statistics:
    """Statistics of `runs` samplings of `line`, the classifier as a function of the first of 5 columns."""
    rng, parts, moments = np.random.default_rng([8, seed]), projections(threats), []
    assert line.vote is not None
    for _ in range(runs):
        u = rng.standard_normal((n, 5))
        tally = Reduced(parts, known.d, n, (int(rng.binomial(N0, 1.0 - known.q)), N0), rng)
        tally.add(torch.from_numpy(u), torch.from_numpy(line.vote(u)))
        moments.append(tally.moments())
    return summarise(moments, threats, 1.0)


def rates(known: Known, threats: list[Threat], statistics: Statistics, alpha: float, wanted: list[Quantity], estimator: str) -> Row:
    """Kind of bound -> the rate of its worst part."""
    row: Row = defaultdict(float)
    for quantity in wanted:
        rate = float(missed(known, threats, statistics, quantity, alpha, estimator).mean())
        kind = f"{quantity.side} {quantity.norm}"
        row[kind] = max(row[kind], rate)
    return row


def full(d: int, place: int, runs: int, n: int, alpha: float) -> tuple[str, dict[str, Row]]:
    """Every row drawn."""
    torch.set_num_threads(1)
    known, threats = classifiers(d, n)[place], list(threats_of(d))
    wanted = quantities(threats)
    papers = [threat for threat in threats if threat.name not in ("l1.5", "l3", "sparse2")]
    statistics = sampled(known, threats, runs, n, place)
    out = {e: rates(known, threats, statistics, alpha, wanted, e) for e in ("adaptive", "chernoff")}
    out["adaptive"]["together"] = float(missed_together(known, threats, statistics, alpha).mean())
    out["paper"] = rates(known, threats, statistics, alpha, quantities(papers), "paper")
    out["paper"]["together"] = float(missed_together(known, papers, statistics, alpha, "paper").mean())
    return known.name, out


def narrow(d: int, place: int, runs: int, n: int, alpha: float) -> tuple[str, dict[str, Row]]:
    """The bets along directions, by `Reduced`."""
    torch.set_num_threads(1)
    known = classifiers(d, n)[place]
    cuts = known.cuts
    assert cuts is not None
    line = stripes(np.eye(5)[0], cuts, known.name)
    threats: list[Threat] = [L2, Direction(np.eye(5)[0], "along")]
    statistics = reduced(known, line, threats, runs, n, place)
    wanted = [LENGTH, Quantity(ALL, "l2", "upper"), Quantity("along", "dot", "lower")]
    row = rates(line, threats, statistics, alpha, wanted, "adaptive")
    return known.name, {"adaptive": row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--alpha", type=float, default=0.1)
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    runs, n, alpha, start = arguments.runs, arguments.samples, arguments.alpha, time.perf_counter()
    work = [(f"{d}", delayed(full)(d, place, runs, n, alpha)) for d in (1, 16) for place in range(len(classifiers(d, n)))]
    work += [(f"{d}", delayed(full)(d, place, runs, n, alpha)) for d, places in SOME.items() for place in places]
    work += [("3072, reduced", delayed(narrow)(3072, place, runs, n, alpha)) for place in (0, 1, 2, 3, 4, 6, 8, 9, 10)]
    results = Parallel(n_jobs=arguments.jobs, return_as="generator")(task for _, task in work)
    kinds = ("lower l2", "upper l2", "upper linf", "upper l1", "upper lp", "lower dot", "together")
    table = Table("d", "classifier", "estimator", *kinds, title=f"miss rates at alpha = {alpha}, n = {n}, {runs} runs a row")
    worst: dict[tuple[str, str], tuple[float, str]] = {}
    above = 0
    for (label, _), (name, estimators) in zip(work, results, strict=True):
        for estimator, row in estimators.items():
            table.add_row(label, name, estimator, *(f"{row[kind]:.4f}" if kind in row else "" for kind in kinds))
            above += sum(rate > allowed(alpha, runs) for rate in row.values())
            for kind, rate in row.items():
                worst[estimator, kind] = max(worst.get((estimator, kind), (-1.0, "")), (rate, f"d = {label}, {name}"))
    console = Console(width=170)
    console.print(table)
    for (estimator, kind), (rate, where) in sorted(worst.items()):
        console.print(f"worst {kind}, {estimator}: {rate:.4f} ({where})")
    console.print(f"rates above alpha by four standard errors: {above}; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
