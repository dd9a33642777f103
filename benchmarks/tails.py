"""The tail look-up: its loss against the exact tail radius on fresh profiles, its time on one core, its start-up.

Profiles are those of known classifiers: half-spaces along and across the directions, unions of half-spaces, corners, votes that do
not look at the direction; d = 10 to 3072, n = 1e4 to 1e6, q = .6 to .9999. Counts are drawn, their largest over the 2 d directions
too, and bounded by Clopper-Pearson, alpha = .001.

Run: python benchmarks/tails.py [--table FILE] [--profiles N] [--inputs N] [--seed N] [--jobs N]
"""

import argparse
import math
import subprocess
import sys
import time
from typing import NamedTuple

import joblib
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import special
from scipy.stats import binom, multivariate_normal

from certlut.bounds.binomial import upper_probability
from certlut.kernels.covering import Covering
from certlut.lookup.table import find
from certlut.lookup.tail_format import THRESHOLDS, read_tails
from certlut.lookup.tails import TailTable
from certlut.tablegen.tail_radius import tail_radius

TAU = np.array(THRESHOLDS)
ALPHA, SHARE = 1e-3, 0.05
KINDS = ("half-space", "dense", "union", "corner", "blind")


class Profile(NamedTuple):
    kind: str
    n: int
    d: int
    eps: float
    p: np.ndarray


def true_tails(rng: np.random.Generator, kind: str, eps: float, d: int) -> np.ndarray:
    """P(against, e.u >= tau) along the direction where it is largest."""
    beyond = special.ndtr(-TAU)
    if kind in ("half-space", "dense"):
        cosine = rng.uniform(0.3, 0.95) if kind == "half-space" else rng.uniform(0.05, 0.3)
        both = multivariate_normal(cov=[[1.0, cosine], [cosine, 1.0]])
        return np.array([both.cdf([special.ndtri(eps), -tau]) for tau in TAU])
    if kind == "union":
        parts = int(10.0 ** rng.uniform(0.0, math.log10(d)))
        one = -math.expm1(math.log1p(-eps) / parts)
        others = -math.expm1((parts - 1) * math.log1p(-one))
        return np.where(beyond <= one, beyond, one + (beyond - one) * others)
    if kind == "corner":
        sides = int(rng.integers(2, 4))
        one = eps ** (1.0 / sides)
        return np.minimum(beyond, one) * one ** (sides - 1)
    return eps * beyond


def draw(rng: np.random.Generator, kind: str) -> Profile:
    n, d = int(10.0 ** rng.uniform(4.0, 6.0)), int(10.0 ** rng.uniform(1.0, math.log10(3072.0)))
    eps = float(10.0 ** rng.uniform(-4.0, math.log10(0.4)))
    p = np.minimum.accumulate(np.minimum(true_tails(rng, kind, eps, d), special.ndtr(-TAU)))
    mass = np.maximum(-np.diff(np.append(p, 0.0)), 0.0)
    worst = rng.multinomial(n, np.append(mass, 1.0 - mass.sum()))[:-1][::-1].cumsum()[::-1]
    # The other directions see votes that do not look at them.
    others = binom.ppf(rng.random(TAU.size) ** (1.0 / (2 * d)), n, 0.9 * eps * special.ndtr(-TAU))
    bounds = upper_probability(np.maximum(worst, others), n, SHARE * ALPHA / TAU.size)
    return Profile(kind, n, d, float(upper_probability(rng.binomial(n, eps), n, 0.9 * ALPHA)), bounds)


def families(d: int) -> dict[str, Covering]:
    return {
        "l1": Covering.lp(1, d),
        "l1.5": Covering.lp(1.5, d),
        "sparse 1": Covering.sparse(1),
        "sparse 3": Covering.sparse(3),
        "linf, 5 coordinates": Covering.lp(math.inf, 5),
        "net, 5 degrees": Covering.net(math.radians(5.0)),
        "net, 10 degrees": Covering.net(math.radians(10.0)),
    }


def exact(profile: Profile, factor: float) -> dict[str, float]:
    """The exact radii, shifts up to `factor` times Phi^-1(1 - eps) being covered otherwise."""
    covered = -factor * float(special.ndtri(profile.eps))
    return {name: tail_radius(c.p, c.w, profile.eps, TAU, profile.p, covered) for name, c in families(profile.d).items()}


def losses(table: TailTable, profiles: list[Profile], jobs: int, factor: float, console: Console) -> None:
    found = joblib.Parallel(n_jobs=jobs)(joblib.delayed(exact)(profile, factor) for profile in profiles)
    out = Table(
        "threat", "median", "90 %", "99 %", "worst", "above exact", "gain over Cohen", title=f"loss, r1 = {factor} Phi^-1(q)"
    )
    for name in families(10):
        loss, gain = [], []
        for profile, radii in zip(profiles, found, strict=True):
            covering, zeroth = families(profile.d)[name], -float(special.ndtri(profile.eps))
            covered = [[[factor * zeroth]]]
            size = table.radii([profile.eps], TAU, profile.p[None], [covering], math.inf, covered)[0, 0]
            loss.append(1.0 - size / radii[name])
            gain.append(size * covering.kappa / zeroth)
        row = [f"{100.0 * np.percentile(loss, level):.2f} %" for level in (50, 90, 99, 100)]
        # The exact radius itself is found to 1e-5, from below.
        out.add_row(name, *row, "never" if min(loss) > -3e-5 else "YES", f"{np.mean(gain):.3f}")
    console.print(out)


def times(table: TailTable, profiles: list[Profile], inputs: int, console: Console) -> None:
    chosen = np.random.default_rng(0).integers(0, len(profiles), inputs)
    eps, p = (np.array([getattr(profiles[i], name) for i in chosen]) for name in ("eps", "p"))
    wide = families(784)
    sets = {name: [covering] for name, covering in wide.items()}
    sets["l1, l1.5, sparse 2, sparse 3 of one family"] = [wide["l1"], wide["l1.5"], Covering.sparse(2), wide["sparse 3"]]
    out = Table("threats", "us an input and threat, one core", title=f"look-up, {inputs} inputs")
    for name, coverings in sets.items():
        table.radii(eps[:2], TAU, p[:2], coverings)
        best = math.inf
        for _ in range(5):
            start = time.process_time()
            table.radii(eps, TAU, p, coverings)
            best = min(best, time.process_time() - start)
        out.add_row(name, f"{1e6 * best / inputs / len(coverings):.1f}")
    console.print(out)
    code = "import certlut.lookup.tails as t; t.load_tails().radii([.1], [1.0], [[.01]], [t.Covering.lp(1, 784)])"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    console.print(f"import, load, first call in a new process: {time.perf_counter() - start:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", default=None)
    parser.add_argument("--profiles", type=int, default=100)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=-1)
    arguments = parser.parse_args()
    table = TailTable(read_tails(find(arguments.table, "CERTLUT_TAILS", "tails.h5")))
    rng = np.random.default_rng(arguments.seed)
    profiles = [draw(rng, KINDS[i % len(KINDS)]) for i in range(arguments.profiles)]
    profiles = [profile for profile in profiles if profile.eps < 0.45]
    console = Console()
    times(table, profiles, arguments.inputs, console)
    for factor in (1.0, 1.15):
        losses(table, profiles, arguments.jobs, factor, console)


if __name__ == "__main__":
    main()
