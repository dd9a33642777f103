"""Stopping when it is known: samples and accuracy against a fixed n, the price of the last look, the schedule and an anytime bound.

Run: python benchmarks/looks.py levels
     python benchmarks/looks.py accuracy digits 0.25 [--inputs N] [--samples N] [--model FILE --data FILE]
     python benchmarks/looks.py coverage [--runs N]
"""

import argparse
import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.special import betaln, ndtri, xlogy
from scipy.stats import beta

from certlut.bounds.binomial import lower_probability
from certlut.bounds.looks import Goal, Looks, Verdict
from certlut.evaluate import find_tails, radii
from certlut.inputs.data import load_data
from certlut.inputs.models import load_model
from certlut.jobs.shards import groups
from certlut.kernels.arrays import Array
from certlut.lookup.table import load
from certlut.plan.stopping import Method, rules_of
from certlut.report.bundled import load as bundled
from certlut.report.bundled import train
from certlut.sampling.card import Sampling
from certlut.sampling.sampler import Sampler
from certlut.statistics.records import join
from certlut.statistics.summary import Statistics

ALPHA, N, SHARE = 0.001, 100_000, 0.85
console = Console(width=150)


# The schedule and an anytime bound


def mixture(count: Array, n: Array, alpha: float) -> Array:
    """The one-sided beta mixture's lower bound of q: where the bets on larger q, mixed by Jeffreys' prior above q, reach 1/alpha.

    For q the truth the mixture of likelihood ratios is a nonnegative martingale from 1: by Ville the bound holds for all n at once.
    """
    k, n = np.broadcast_arrays(np.asarray(count, dtype=np.float64), np.asarray(n, dtype=np.float64))
    low, high = np.full(k.shape, 1e-9), np.maximum(k / n, 1e-9) * (1.0 - 1e-12)
    for _ in range(60):
        q = 0.5 * (low + high)
        ratio = betaln(k + 0.5, n - k + 0.5) + beta.logsf(q, k + 0.5, n - k + 0.5) - betaln(0.5, 0.5) - beta.logsf(q, 0.5, 0.5)
        good = ratio - xlogy(k, q) - xlogy(n - k, 1.0 - q) >= -math.log(alpha)
        low, high = np.where(good, q, low), np.where(good, high, q)
    return low


def levels(repeats: int = 300) -> None:
    """Loss of the last look, and mean samples until z >= 1 is certified, by votes alone."""
    looks, target = Looks.geometric(N), 1.0
    sizes, rng = np.array(looks.sizes), np.random.default_rng(0)
    paid = [SHARE * looks.level(k, ALPHA) for k in range(1, len(looks) + 1)]
    table = Table(title=f"radius lost with all {N:,} votes, per cent; mean samples until a radius of sigma is certified")
    for heading in ("q", "last look", "mixture", "looks: samples", "mixture: samples"):
        table.add_column(heading, justify="right")
    for q in (0.85, 0.86, 0.88, 0.9, 0.93, 0.96, 0.99, 0.999, 1.0):
        count = np.array(round(q * N))
        plain, last, mixed = (
            float(-ndtri(1.0 - bound))
            for bound in (
                lower_probability(count, N, SHARE * ALPHA),
                lower_probability(count, N, paid[-1]),
                mixture(count, np.array(N), SHARE * ALPHA),
            )
        )
        votes = rng.binomial(np.diff(sizes, prepend=0), q, size=(repeats, len(sizes))).cumsum(axis=1)
        bounds = (
            np.stack([lower_probability(votes[:, k], sizes[k], level) for k, level in enumerate(paid)], axis=1),
            mixture(votes, sizes[None], SHARE * ALPHA),
        )
        spent = []
        for bound in bounds:
            there = -ndtri(1.0 - np.minimum(bound, 1.0 - 1e-16)) >= target
            spent.append(float(sizes[np.where(there.any(axis=1), there.argmax(axis=1), len(sizes) - 1)].mean()))
        table.add_row(f"{q}", *(f"{100.0 * (1.0 - r / plain):.2f}" for r in (last, mixed)), *(f"{n:,.0f}" for n in spent))
    console.print(table)


# Accuracy at one radius


def classifier(name: str, sigma: float, model: str | None, data: str | None) -> tuple[torch.nn.Module, Any, int]:
    if model is not None and data is not None:
        return load_model(model, "cpu"), load_data(data), 10
    whole = bundled(name)
    return train(name, whole.train, sigma, {"digits": 60, "patches": 12}[name]), whole.test, whole.num_classes


def accuracy(arguments: argparse.Namespace) -> None:
    """Both ways over the same inputs: certified accuracy at sigma, samples, time; with a fixed n also what the last look costs."""
    sigma, n = arguments.sigma, arguments.samples
    net, test, num_classes = classifier(arguments.name, sigma, arguments.model, arguments.data)
    skip = max(1, len(test) // arguments.inputs)
    pairs = [(torch.as_tensor(test[i * skip][0]), int(test[i * skip][1])) for i in range(min(arguments.inputs, len(test)))]
    targets = {"l2": sigma, "l1": sigma}
    table = Table(title=f"{arguments.name}, sigma = {sigma}, n = {n:,}, {len(pairs)} inputs: certified at {sigma} in l2 and l1")
    for heading in ("", "l2, %", "l1, %", "both, %", "mean n", "median", "90 %", "most", "seconds"):
        table.add_column(heading, justify="right")
    for name, goal in (("decide", Goal(targets)), ("fixed", Goal())):
        if arguments.only not in (None, name):
            continue
        card = Sampling(n=n, alpha=ALPHA, seed=0, goal=goal)
        sampler = Sampler(net, sigma, num_classes)
        method = Method(sampler.threats, ALPHA, "adaptive", load(), find_tails("tails"))
        rules = rules_of(card, method, sigma)
        # Kernels are compiled, and the model is looked at, before the clock starts.
        list(sampler.draw(pairs[:1], range(1), replace(card, n=1000), 1, rules_of(replace(card, n=1000), method, sigma)))
        start = time.perf_counter()
        done = [one for group in groups(len(pairs), card.inputs_a_batch) for one in sampler.draw(pairs, group, card, 1, rules)]
        seconds = time.perf_counter() - start
        statistics = join([one.drawn.statistics for one in done])
        right = np.array([one.drawn.predict == one.label for one in done])
        found = method.radii(statistics)
        reached = {threat: right & (np.floor(found[threat] * 1e6) / 1e6 >= radius) for threat, radius in targets.items()}
        reached["both"] = reached["l2"] & reached["l1"]
        drawn = statistics.n.sum(axis=1)
        shares = [f"{100.0 * reached[what].mean():.1f}" for what in ("l2", "l1", "both")]
        table.add_row(
            name,
            *shares,
            *(f"{x:,.0f}" for x in (drawn.mean(), np.median(drawn), np.quantile(drawn, 0.9), drawn.max())),
            f"{seconds:.1f}",
        )
        if not goal:
            last_look(statistics, method)
    console.print(table)


def last_look(statistics: Statistics, method: Method) -> None:
    """Radii of inputs that were never stopped, against those of a fixed n: the same statistics at the last look's level."""
    looks = Looks.geometric(int(statistics.n[0].sum()))
    same = replace(statistics, looks=np.full(len(statistics), len(looks)), schedule=looks.describe())
    plain, found = method.radii(statistics), method.radii(same)
    for name in ("l1", "l2", "linf"):
        sure = plain[name] > 0.0
        lost = 100.0 * (1.0 - found[name][sure] / plain[name][sure])
        worst = plain[name][sure][lost > 1.0].max(initial=0.0)
        console.print(
            f"never stopped, {name}: {lost.mean():.2f} % less on average, {np.median(lost):.2f} % median; {np.sum(lost > 1.0)} of "
            f"{len(lost)} lose more than 1 %, none with a radius above {worst:.3f}"
        )


# Coverage


class Half(torch.nn.Module):
    """Class 1 on one side of a plane: its radii are known."""

    def __init__(self, v: Array) -> None:
        super().__init__()
        self.v = torch.nn.Buffer(torch.from_numpy(v))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = (x.reshape(len(x), -1).to(torch.float64) * self.v).sum(dim=1)
        return torch.stack((torch.zeros_like(score), score), dim=1)


class Spy:
    """Never stops, and keeps what it is shown."""

    def __init__(self, looks: Looks) -> None:
        self.looks, self.shown = looks, list[Statistics]()

    def by_votes(self, count: int, look: int, divided: bool) -> Verdict | None:
        return None

    def by_statistics(self, statistics: Statistics, look: int) -> list[Verdict]:
        self.shown.append(statistics)
        return [Verdict.GO_ON] * len(statistics)


def coverage(runs: int, alpha: float = 0.1, sigma: float = 0.5) -> None:
    """How often any radius is too large at the look where most are, at a tenth: as it is, and with all of alpha at every look."""
    v = np.array([0.9, 0.4, 0.2]) / math.sqrt(1.01)
    times = {"l2": 1.0, "l1": 1.0 / float(v.max()), "linf": 1.0 / float(v.sum())}
    table = Table(title=f"{runs} runs of a half-space, 6 looks to 2,000, alpha = {alpha}: some radius too large at some look")
    for heading in ("z", "with the schedule", "all of alpha at every look"):
        table.add_column(heading, justify="right")
    for z in (0.26, 1.0, 1.6):
        looks = Looks.geometric(2000, 6)
        spy, card = Spy(looks), Sampling(20, 2000, alpha, 4000, 9, goal=Goal({"l2": sigma}), looks=6, proposal="votes")
        list(Sampler(Half(v), sigma, 2).sample_group([(i, sigma * z * v) for i in range(runs)], card, lambda d, spy=spy: spy))
        rates = []
        for full in (False, True):
            wrong = np.zeros(runs, dtype=bool)
            for statistics in spy.shown:
                plain = replace(statistics, schedule={}, looks=np.zeros(runs, dtype=np.int64))
                found = radii(plain if full else replace(statistics, schedule=looks.describe()), ("l1", "l2", "linf"), alpha)
                for name, factor in times.items():
                    wrong |= found[name] > factor * sigma * z * (1.0 + 1e-9)
            rates.append(f"{wrong.mean():.4f}")
        table.add_row(f"{z}", *rates)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("levels", "accuracy", "coverage"))
    parser.add_argument("name", nargs="?", default="digits")
    parser.add_argument("sigma", nargs="?", type=float, default=0.25)
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--samples", type=int, default=N)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--only", choices=("decide", "fixed"))
    parser.add_argument("--model")
    parser.add_argument("--data")
    arguments = parser.parse_args()
    if arguments.what == "levels":
        levels()
    elif arguments.what == "coverage":
        coverage(arguments.runs)
    else:
        accuracy(arguments)


if __name__ == "__main__":
    main()
