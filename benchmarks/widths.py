"""How wide the bounds of |y|_2 are: paper against adaptive on the same samples, and each idea of the adaptive estimator alone.

The classifier is a half-space seen through noise, f = 1{0.8 v.u + 0.6 e >= -z}: its gradient is 0.8 of the largest that q allows.
Every bound is at its level of a certificate of l1, l2 and linf at alpha = 0.001. Samples are drawn by reduced.py.

Run: python benchmarks/widths.py [--runs N] [--check] [--proposed]
"""

import argparse
import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from reduced import Constant, Reduced
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.special import ndtri

from certlut import load
from certlut.bounds.adaptive import ADAPTIVE, BET_EVENTS
from certlut.bounds.binomial import lower_probability
from certlut.bounds.budget import SHARES, Budget, split
from certlut.bounds.paper import PAPER
from certlut.evaluate import evaluate
from certlut.plan.forecast import forecast
from certlut.plan.model import gradient
from certlut.sampling.bets import Tally
from certlut.statistics.summary import Moments, Statistics, summarise
from certlut.threats.sets import ALL, L1, L2, LENGTH, LINF, Quantity, projections

Array = npt.NDArray[np.float64]

ALPHA, RHO, D, N0 = 0.001, 0.8, 3072, 100
THREATS = (L1, L2, LINF)
UPPER = Quantity(ALL, "l2", "upper")
TOP = Quantity(ALL, "linf", "upper")
# (d, q, n)
CASES = ((D, 0.9, 200_000), (D, 0.99, 200_000), (D, 0.999, 200_000), (D, 0.999, 1_000_000), (150_528, 0.99, 1_250_000))
PROPOSED = tuple((d, q, n) for d in (64, D, 150_528) for n in (20_000, 100_000, 1_000_000) for q in (0.9, 0.99, 0.999))
# Of w with y.
COSINES, TYPICAL = (1.0, 0.99, 0.97, 0.8, 0.0, -1.0), 0.97
SMALL = ((64, 0.9, 20_000), (64, 0.99, 20_000), (64, 0.99, 100_000), (784, 0.9, 100_000), (784, 0.99, 100_000))


def rim(q: float) -> float:
    """The largest |y|_2."""
    return math.exp(-0.5 * float(ndtri(q)) ** 2) / math.sqrt(2.0 * math.pi)


def against(q: float, rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.binomial(N0, 1.0 - q)), N0


@contextmanager
def shares(**parts: float) -> Iterator[None]:
    """The lower bound of |y|_2 with its level divided like this between bets on the length and the last half's."""
    before = BET_EVENTS["l2", "lower"]
    length = parts["length"]
    BET_EVENTS["l2", "lower"] = dict(zip(before, (length, 0.5 * (1.0 - length), 0.5 * (1.0 - length)), strict=True))
    yield
    BET_EVENTS["l2", "lower"] = before


def unbet(moments: Sequence[Moments], **changes: float) -> Statistics:
    """Statistics of the same samples without their bets."""
    return summarise([dataclasses.replace(m, bets={}, **changes) for m in moments], THREATS, 1.0)


def proposed(moments: Sequence[Moments]) -> Statistics:
    """Statistics of samples that a gradient was proposed for."""
    return dataclasses.replace(summarise(moments, THREATS, 1.0), proposal={"by": "gradient"})


def near(v: Array, across: Array, cosine: float) -> Array:
    """A proposal."""
    return cosine * v + math.sqrt(1.0 - cosine**2) * across


def interval(statistics: Statistics, budget: Budget) -> tuple[Array, Array]:
    """(lower, upper) of the adaptive estimator."""
    q = lower_probability(statistics.count.sum(axis=1), statistics.n.sum(axis=1), budget.q)
    lower, upper = (ADAPTIVE.bound(x, statistics, q, budget.norms[x]) for x in (LENGTH, UPPER))
    return lower, upper


def worst_case(moments: Sequence[Moments], budget: Budget) -> tuple[Array, Array]:
    """b = 1/2, any f."""
    plain, nothing = unbet(moments, b=0.5), np.zeros(len(moments))
    lower, upper = (ADAPTIVE.bound(x, plain, nothing, budget.norms[x]) for x in (LENGTH, UPPER))
    return lower, upper


def paper(statistics: Statistics, budget: Budget) -> tuple[Array, Array]:
    """(lower, upper) of the paper's estimator."""
    nothing = np.zeros(len(statistics))
    lower, upper = (PAPER.bound(x, statistics, nothing, budget.norms[x]) for x in (LENGTH, UPPER))
    return lower, upper


def measure(d: int, q: float, n: int, runs: int) -> dict[str, tuple[Array, Array]]:
    """Row -> bounds of all runs, as shares of the largest |y|_2."""
    rng = np.random.default_rng([d, round(1e6 * q), n])
    v = rng.standard_normal(d)
    v /= np.linalg.norm(v)
    across = rng.standard_normal(d)
    across -= (across @ v) * v
    w = near(v, across / np.linalg.norm(across), TYPICAL)
    drawn: dict[type[Reduced], list[Moments]] = {kind: [] for kind in (Reduced, Constant)}
    along: list[Moments] = []
    for _ in track(range(runs), description=f"d = {d}, q = {q:g}, n = {n:,}", transient=True):
        selected, seed = against(q, rng), int(rng.integers(2**63))
        for kind, moments in drawn.items():
            # The same seed: the same votes and noise along v.
            moments.append(kind(v, q, RHO, n, selected, np.random.default_rng(seed)).draw())
        along.append(Reduced(v, q, RHO, n, selected, np.random.default_rng(seed), w).draw())
    ours, constant = (summarise(moments, THREATS, 1.0) for moments in drawn.values())
    budget = split(ALPHA, THREATS)
    rows = {
        "paper": paper(ours, budget),
        "Chernoff, b = 1/2, worst f": worst_case(drawn[Reduced], budget),
        "Chernoff, rare votes, chosen b": interval(unbet(drawn[Reduced]), budget),
        "**adaptive**: bets": interval(ours, budget),
        f"**proposed**, cosine {TYPICAL:g}": interval(proposed(along), budget),
        "bets without the prediction h": interval(constant, budget),
    }
    rows["forecast of adaptive"] = interval(forecast([n], THREATS, d, q, RHO), budget)
    rows["forecast of proposed"] = interval(forecast([n], THREATS, d, q, RHO, cosine=TYPICAL), budget)
    for name, length in (("bets, lower from the last half only", 1e-9), ("bets, lower from all stages only", 1.0 - 1e-9)):
        with shares(length=length):
            rows[name] = interval(ours, budget)
    return {name: (low / rim(q), high / rim(q)) for name, (low, high) in rows.items()}


def proposed_table(runs: int) -> Table:
    """Lower bounds of |y|_2 over the truth where w was proposed, by its cosine with y; 1: the true direction is handed over."""
    out = Table("d", "n", "q", "votes", *(f"cosine {c:g}" for c in COSINES), ".97 over 1", title="lower bound over |y|_2, means")
    budget = split(ALPHA, THREATS)
    for d, q, n in track(PROPOSED, "proposed", transient=True):
        rng = np.random.default_rng([d, round(1e6 * q), n])
        bounds: list[list[float]] = []
        for _ in range(max(2, runs * 3072 // max(d, 3072) * 20_000 // n)):
            v, across = np.linalg.qr(rng.standard_normal((d, 2)))[0].T
            selected, seed = against(q, rng), int(rng.integers(2**63))
            bounds.append([])
            for c in (None, *COSINES):
                w = None if c is None else near(v, across, c)
                moments = [Reduced(v, q, RHO, n, selected, np.random.default_rng(seed), w).draw()]
                low, _ = interval(summarise(moments, THREATS, 1.0) if w is None else proposed(moments), budget)
                bounds[-1].append(float(low[0]) / (RHO * rim(q)))
        means = np.mean(bounds, axis=0)
        share = f"{means[1 + COSINES.index(0.97)] / means[1]:.3f}" if means[1] > 0.1 else ""
        out.add_row(f"{d:,}", f"{n:,}", f"{q:g}", *(f"{mean:.3f}" for mean in means), share)
    return out


def width_table(cases: Sequence[tuple[int, float, int]], runs: int) -> Table:
    headings = [f"d = {d}, q = {q:g}, n = {n:,}" for d, q, n in cases]
    out = Table("", *headings, title=f"|y|_2 over its largest, truth {RHO}, medians of {runs}")
    columns = [measure(d, q, n, runs) for d, q, n in cases]
    for name in columns[0]:
        out.add_row(name, *(f"{np.median(c[name][0]):.3f} - {np.median(c[name][1]):.3f}" for c in columns))
    return out


def top_table(runs: int, d: int = 64) -> Table:
    """Upper bounds of |y|_inf over the truth, by the real Tally; the gradient's components are normal quantiles."""
    cases = ((0.9, 20_000), (0.9, 200_000), (0.99, 200_000))
    out = Table("", *(f"q = {q:g}, n = {n:,}" for q, n in cases), title=f"upper |y|_inf over the truth, d = {d}, medians of {runs}")
    rows: dict[str, list[float]] = {"paper": [], "Chernoff, rare votes, chosen b": [], "**adaptive**: bets": []}
    for q, n in cases:
        rng = np.random.default_rng([round(1e6 * q), n])
        y = gradient(d, RHO * rim(q))
        v = np.repeat(y.size, y.times.astype(int)) / y.l2
        moments = [real(v, q, n, rng) for _ in range(runs)]
        statistics, budget = summarise(moments, THREATS, 1.0), split(ALPHA, THREATS)
        low = lower_probability(statistics.count.sum(axis=1), statistics.n.sum(axis=1), budget.q)
        made = ((PAPER, statistics), (ADAPTIVE, unbet(moments)), (ADAPTIVE, statistics))
        bounds = [estimator.bound(TOP, s, low, budget.norms[TOP]) for estimator, s in made]
        for row, bound in zip(rows.values(), bounds, strict=True):
            row.append(float(np.median(bound)) / y.linf)
    for name, values in rows.items():
        out.add_row(name, *(f"{value:.2f}" for value in values))
    return out


def real(v: Array, q: float, n: int, rng: np.random.Generator) -> Moments:
    """Moments by Tally itself, every normal drawn."""
    d, z = len(v), float(ndtri(q))
    tally = Tally(projections(THREATS), d, n, against(q, rng), torch.device("cpu"))
    left, direction = n, torch.as_tensor(v)
    while left:
        rows = min(left, max(16, 2**22 // d))
        u = torch.as_tensor(rng.standard_normal((rows, d)))
        latent = RHO * (u @ direction) + math.sqrt(1.0 - RHO**2) * torch.as_tensor(rng.standard_normal(rows))
        tally.add(u, latent >= -z)
        left -= rows
    return tally.moments()


def check_table(runs: int, q: float = 0.9, n: int = 20_000) -> Table:
    """reduced.py against Tally itself at d = 3072."""
    out = Table(
        "",
        "lower",
        "upper",
        "means b = 1/2: paper's lower",
        "upper",
        title=f"d = {D}, q = {q}, n = {n:,}: mean and deviation of {runs}",
    )
    rng = np.random.default_rng(1)
    v = rng.standard_normal(D)
    v /= np.linalg.norm(v)
    budget = split(ALPHA, THREATS)
    for name in ("Tally", "reduced"):
        moments = []
        for _ in track(range(runs), description=name, transient=True):
            moments.append(real(v, q, n, rng) if name == "Tally" else Reduced(v, q, RHO, n, against(q, rng), rng).draw())
        statistics = summarise(moments, THREATS, 1.0)
        bounds = (*interval(statistics, budget), *paper(statistics, budget))
        out.add_row(name, *(f"{np.mean(x) / rim(q):.4f} ± {np.std(x) / rim(q):.4f}" for x in bounds))
    return out


def split_table() -> Table:
    """Forecast gains over Cohen's radius with other shares of alpha for q."""
    cases = ((0.9, 100_000), (0.99, 100_000), (0.99, 1_000_000), (0.999, 1_000_000), (0.9999, 100_000))
    out = Table("share of q", "threat", *(f"q = {q:g}, n = {n:,}" for q, n in cases), title=f"forecast gain over Cohen, d = {D}")
    surface, before = load(), SHARES["gradient"]
    for share in (0.95, 0.9, 0.8, 0.6):
        SHARES["gradient"] = 1.0 - share
        gains: dict[str, list[str]] = {threat.name: [] for threat in THREATS}
        for q, n in cases:
            radius = evaluate(forecast([n], THREATS, D, q, RHO), THREATS, ALPHA, "adaptive", surface).radius
            for name, cells in gains.items():
                scale = math.sqrt(D) if name == "linf" else 1.0
                cells.append(f"{100.0 * (radius[name][0] * scale / radius['cohen'][0] - 1.0):+.2f} %")
        for name, cells in gains.items():
            out.add_row(f"{share:g}", name, *cells)
    SHARES["gradient"] = before
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--check", action="store_true", help="only compare reduced.py with Tally itself (20 runs take minutes)")
    parser.add_argument("--proposed", action="store_true", help="only the bounds where a direction was proposed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=190)
    if arguments.check:
        console.print(check_table(min(arguments.runs, 20)))
        return
    if arguments.proposed:
        console.print(proposed_table(arguments.runs))
        return
    for cases in (CASES, SMALL):
        console.print(width_table(cases, arguments.runs))
    console.print(proposed_table(arguments.runs))
    console.print(top_table(min(arguments.runs, 20)))
    console.print(split_table())


if __name__ == "__main__":
    main()
