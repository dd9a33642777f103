"""The whole chain for a million inputs: a statistics file to predictions and radii (l1, l2, linf, three subspaces, Cohen's).

The file holds settled tallies of half-spaces seen through noise, repeated with every input's own votes and jitter.
Run: python benchmarks/chain.py [--inputs N] [--estimator adaptive|paper] [--certificate tails|first-order]
"""

import argparse
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.special import ndtr

import certlut
from certlut.evaluate import evaluate, find_tails
from certlut.lookup.tail_format import THRESHOLDS
from certlut.runs.certify import SLICE, certify_statistics
from certlut.sampling.bets import Tally
from certlut.sampling.tails import TailTally
from certlut.statistics.file import Sampled, count_inputs, read_statistics, write_statistics
from certlut.statistics.records import take
from certlut.statistics.summary import SCALARS, Statistics, summarise
from certlut.statistics.votes import Tail
from certlut.threats.declare import Subspace, resolve
from certlut.threats.families import families
from certlut.threats.sets import projections

D, N = 12, 100_000


def prototypes(count: int, threats: tuple[certlut.threats.sets.Threat, ...], rng: np.random.Generator) -> Statistics:
    """Statistics of `count` random classifiers, q from 0.6 to 0.9999."""
    moments, counted = [], families(threats, D)
    for _ in range(count):
        margin, rho = rng.uniform(0.3, 3.6), rng.uniform(0.5, 1.0)
        v = rng.standard_normal(D)
        v /= np.linalg.norm(v)
        tally = Tally(projections(threats), D, N, (round(100 * ndtr(-margin)), 100), torch.device("cpu"))
        u = rng.standard_normal((N, D))
        votes = rho * (u @ v) + np.sqrt(1.0 - rho**2) * rng.standard_normal(N) > -margin
        tally.add(torch.from_numpy(u), torch.from_numpy(votes))
        counts = TailTally(counted, D, np.array(THRESHOLDS), torch.device("cpu"))
        counts.add(torch.from_numpy(u[~votes]))
        tails = {name: Tail(counted[name].key, counts.thresholds, largest[None]) for name, largest in counts.largest().items()}
        moments.append(replace(tally.moments(), tails=tails))
    return summarise(moments, threats, 0.5)


def jittered(s: Statistics, rng: np.random.Generator) -> Statistics:
    """No two inputs alike: votes and norms moved by a few per mille."""
    factor = 1.0 + 2e-3 * rng.random(len(s))
    scaled = {*SCALARS} - {"inner", "inner_b"}
    parts = {
        name: replace(
            part, **{k: (getattr(part, k).T * factor).T for k in scaled}, inner=part.inner * factor, inner_b=part.inner_b * factor
        )
        for name, part in s.parts.items()
    }
    count = np.maximum(s.count - rng.integers(0, 20, s.count.shape), 0)
    return replace(s, count=count, parts=parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--estimator", default="adaptive")
    parser.add_argument("--certificate", default="tails")
    arguments = parser.parse_args()
    rng, console = np.random.default_rng(0), Console()
    third = np.arange(D) // (D // 3)
    threats = resolve(
        ("l1", "l2", "linf", *(Subspace(third == k, p=2, name=name) for k, name in enumerate(("red", "green", "blue"))))
    )
    base = prototypes(200, threats, rng)
    how = arguments.certificate
    table, tails = certlut.load(), find_tails(how)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for start in range(0, arguments.inputs, SLICE):
            size = min(SLICE, arguments.inputs - start)
            chunk = jittered(take(base, rng.integers(0, len(base), size)), rng)
            idx = np.arange(start, start + size)
            paths.append(Path(folder) / f"{start}.h5")
            write_statistics(paths[-1], Sampled(chunk, idx, idx % 10, idx % 10, np.zeros(size), {}, threats))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        def radii(path: Path) -> int:
            sampled = read_statistics(path)
            return len(evaluate(sampled.statistics, threats, 0.001, arguments.estimator, table, tails).q_lower)

        out = Table(
            "stage",
            "seconds",
            title=f"{arguments.inputs:,} inputs, {len(threats)} threats, {arguments.estimator}, {how}",
        )
        start_time = time.perf_counter()
        radii(paths[0])
        out.add_row(
            f"first {SLICE:,}: read, bounds, radii, one thread (deviations are tabulated here)",
            f"{time.perf_counter() - start_time:.1f}",
        )
        start_time = time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            total = sum(pool.map(radii, paths))
        seconds = time.perf_counter() - start_time
        assert total == arguments.inputs
        out.add_row("all of them: read, bounds, radii, two threads", f"{seconds:.1f}")
        start_time = time.perf_counter()
        results = Path(folder) / "r.tsv"
        certify_statistics(paths[0], results, 0.001, arguments.estimator, None, progress=False, certificate=how)
        out.add_row(f"{count_inputs(paths[0]):,} of them with results.tsv written", f"{time.perf_counter() - start_time:.1f}")
        console.print(out)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        console.print(f"peak memory {peak:,.0f} MB ({before:,.0f} MB before the chain began)")


if __name__ == "__main__":
    main()
