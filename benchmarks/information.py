"""Which information buys what, and whether the tool that says so can be trusted.

orders    a dozen classifiers and a trained network: the radius by order, with tails, and the truth (docs/information.md)
exact     golden radii and tails, Cohen's
program   second order against a linear program on grids refined four times, extrapolated (50 cases)
sound     random votes in one and two dimensions: every subset of what is known, worst against true vote (1,000)
failures  random feasible information: how often the search does not converge, and the time of a call (10,000)

The last three also run in slices, of --count cases from --first on: they print what all cases in the folder --out say.

Run: python benchmarks/information.py [orders exact program sound failures] [--count N] [--first K] [--jobs J] [--out DIR]
"""

import argparse
import itertools
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from scipy.special import ndtri

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from certlut.tablegen.framework import (
    Constraint,
    Information,
    Status,
    curvature,
    curvature_across,
    hermite,
    mixed,
    scan,
    slope,
    slope_across,
    tail,
    value,
    worst_vote,
)
from reference import known_votes as known

ROOT = Path(__file__).resolve().parent.parent
ORDERS = (0, 1, 2, 3, 4, 6, 8, 12)
SIX, THIRTEEN = np.arange(1.0, 3.6, 0.5), np.linspace(0.5, 4.0, 13)
PARTS = ("orders", "exact", "program", "sound", "failures")
CASES = {"program": 50, "sound": 1000, "failures": 10_000}
WRONG = ("above the true vote", "lowered by more information")
SIGMA, INPUT, SAMPLES = 0.5, 4, 20_000


# What information buys


def network() -> known.Profile:
    """A digit's vote by the noise along its worst direction, against the gradient: E[f | t] from SAMPLES votes each .1 of t."""
    import torch

    from certlut.report.bundled import load, train

    data = load("digits")
    model = train("digits", data.train, SIGMA, 20)
    x, label = torch.from_numpy(data.test.x[INPUT]).flatten(), int(data.test.y[INPUT])
    generator = torch.Generator().manual_seed(0)

    def votes(u: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return model((x + SIGMA * u).reshape(-1, 8, 8)).argmax(dim=1) == label

    u = torch.randn((400_000, 64), generator=generator)
    away = -(u * votes(u)[:, None]).mean(dim=0)
    away /= away.norm()
    t = np.arange(-6.0, 9.05, 0.1)
    across = torch.randn((SAMPLES, 64), generator=generator)
    across -= (across @ away)[:, None] * away
    profile = np.array([float(votes(across + s * away).float().mean()) for s in t.tolist()])
    return known.Profile("digits network, one input", lambda s: np.interp(s, t, profile), t.tolist())


def radii(f: known.Profile) -> tuple[list[float], int]:
    """(the radius by order, then with tails, how many of the scans did not converge)."""
    moments = [value(0.0, "="), *(hermite(k, 0.0) for k in range(1, max(ORDERS) + 1))]
    levels = [f.level(c) for c in moments]
    known_moments = [Information(moments[: k + 1]).at(levels[: k + 1]) for k in ORDERS]
    for thresholds in (SIX, THIRTEEN):
        tails = [value(0.0), *(tail(float(tau), 0.0) for tau in thresholds)]
        known_moments.append(Information(tails).at([f.level(c) for c in tails]))
    scans = [scan(information, limit=6.0) for information in known_moments]
    return [s.radius for s in scans], sum(s.status == Status.HARD for s in scans)


def orders(console: Console, jobs: int) -> None:
    """The table of radii, and that of their ratios to the truth."""
    radius = Table("radius", "q", *(f"order {k}" for k in ORDERS[:5]), "6 tails", "13 tails", "truth", box=MARKDOWN)
    ratio = Table("% of the truth", *(f"order {k}" for k in ORDERS), box=MARKDOWN)
    profiles = [*known.dozen(), network()]
    results = Parallel(jobs, prefer="threads")(delayed(radii)(f) for f in profiles)
    for f, (found, hard) in zip(profiles, results, strict=True):
        truth = f.truth()
        name = f.name + (f" ({hard} scans hard)" if hard else "")
        radius.add_row(name, f"{f.vote(0.0):.4f}", *(f"{r:.3f}" for r in (*found[:5], *found[-2:], truth)))
        ratio.add_row(name, *(f"{100.0 * r / truth:.2f}" for r in found[: len(ORDERS)]))
    console.print(radius)
    console.print(ratio)


# Whether it is right


def kept(path: Path, case: Callable[[int], dict[str, Any]], seeds: range, jobs: int) -> list[dict[str, Any]]:
    """All rows of the file, after those of `seeds` that it lacks are added: a long run may be stopped, and done in slices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    lacking = sorted(set(seeds) - {row["seed"] for row in rows})
    with path.open("a", encoding="utf-8") as file:
        for row in Parallel(jobs, return_as="generator")(delayed(case)(seed) for seed in lacking):
            print(json.dumps(row), file=file, flush=True)
            rows.append(row)
    return rows


def second_order(seed: int) -> dict[str, Any]:
    """How far the worst vote is from the program's: at moments half of random rectangles', half of a coin's."""
    rng = np.random.default_rng(seed)
    kind = ("line", "strip", "plane")[seed % 3]
    f, r = known.Rectangles(rng, 1 if kind == "line" else 2), float(rng.uniform(0.3, 2.0))
    more: dict[str, list[Constraint]] = {
        "line": [],
        "strip": [slope_across(0, "=")],
        "plane": [slope_across(0, "="), mixed(0), curvature_across(0)],
    }
    information = Information([value(0, "="), slope(0, "="), curvature(0), *more[kind]])
    coin = [0.5, *([0.0] * (len(information) - 1))]
    information = information.at([0.5 * f.level(c) + 0.5 * x for c, x in zip(information.constraints, coin, strict=True)])
    names, levels = zip(*((c.name, c.level) for c in information.constraints), strict=True)
    found = worst_vote(information, r)
    off = abs(found.value - known.extrapolated(names, levels, r, (300, 1) if kind == "line" else (80, 30)))
    return {"seed": seed, "kind": kind, "off": off, "solved": found.status == Status.SOLVED}


def exact(console: Console) -> None:
    """Golden values."""
    data = ROOT / "tests" / "data"
    golden = np.genfromtxt(data / "radius_golden.csv", delimiter=",", names=True)
    off = [scan(Information([value(x["q"]), slope(x["m1"]), slope_across(x["m2"])])).radius / x["r"] - 1.0 for x in golden]
    console.print(f"{len(off)} golden radii: relative difference {min(off):.1e} to {max(off):.1e}")
    golden = np.genfromtxt(data / "tails_golden.csv", delimiter=",", names=True)
    off = []
    for x in golden:
        tails = [tail(tau, x[f"p{k}"]) for k, tau in enumerate(SIX, start=1)]
        vote = worst_vote(Information([value(1.0 - x["eps"]), *tails]), math.hypot(x["a"], x["b"]), math.atan2(x["b"], x["a"]))
        off.append(1.0 - vote.value - x["B"])
    console.print(f"{len(off)} golden tails: difference {min(off):.1e} to {max(off):.1e} (they have 7 digits)")
    off = [scan(Information([value(q)])).radius - float(ndtri(q)) for q in (0.501, 0.6, 0.9, 0.99, 1.0 - 1e-6)]
    console.print(f"the vote alone, against Cohen's: difference {min(off):.1e} to {max(off):.1e}")


def program(console: Console, out: Path, seeds: range, jobs: int) -> None:
    """Second order."""
    rows = kept(out / "program.jsonl", second_order, seeds, jobs)
    for kind in ("line", "strip", "plane"):
        off = [row["off"] for row in rows if row["kind"] == kind]
        unsolved = sum(not row["solved"] for row in rows if row["kind"] == kind)
        if off:
            console.print(
                f"second order, {kind}: {len(off)} cases, difference from the program median {np.median(off):.1e}, largest "
                f"{max(off):.1e}; {sum(x > 1e-5 for x in off)} above 1e-5, {unsolved} not solved"
            )


def subsets(seed: int) -> dict[str, Any]:
    """One random vote: worst votes over every subset of up to five things known of it."""
    rng = np.random.default_rng([seed, 1])
    dimensions = 1 + seed % 2
    f, information = known.random_information(rng, dimensions, most=5)
    r, angle = float(rng.uniform(0.1, 3.0)), 0.0 if dimensions == 1 else float(rng.uniform(-math.pi, math.pi))
    true = f.vote(r * math.cos(angle), r * math.sin(angle))
    out: Counter[str] = Counter()
    votes = {}
    for k in range(1, len(information) + 1):
        for chosen in itertools.combinations(range(len(information)), k):
            found = votes[chosen] = worst_vote(Information(information.constraints[i] for i in chosen), r, angle)
            out["calls"] += 1
            out[found.status.name] += 1
            out[WRONG[0]] += not found.lower <= true + 1e-13
            for i in range(k if k > 1 else 0):
                less = votes[chosen[:i] + chosen[i + 1 :]]
                out[WRONG[1]] += less.lower > found.value + found.gap + 1e-8
    return {"seed": seed, **out}


def sound(console: Console, out: Path, seeds: range, jobs: int) -> None:
    """No worst vote above the true one."""
    rows = kept(out / "sound.jsonl", subsets, seeds, jobs)
    total: Counter[str] = sum(map(Counter, rows), Counter())
    said = ", ".join(f"{k} {total[k]}" for k in ("calls", *Status.__members__, *WRONG))
    console.print(f"{len(rows)} random votes, every subset of what is known: {said}")


def one_call(seed: int) -> dict[str, Any]:
    """One worst vote: its kind, status, CPU time, gap; how far it is above the true vote, and below that of another search."""
    rng = np.random.default_rng([seed, 2])
    # Of every fifty, information in the plane that is not affine in s is one.
    kind = "plane" if seed % 50 == 0 else ("line", "strip")[seed % 2]
    dimensions = 1 if kind == "line" else 2
    f, information = known.random_information(rng, dimensions, plane=kind == "plane")
    r = float(rng.uniform(0.1, 3.0))
    angle = 0.0 if dimensions == 1 or rng.random() < 0.5 else float(rng.uniform(-math.pi, math.pi))
    start = time.process_time()
    found = worst_vote(information, r, angle)
    ms = 1e3 * (time.process_time() - start)
    above = found.lower - f.vote(r * math.cos(angle), r * math.sin(angle))
    other = worst_vote(information, r, angle, start=[0.0] * len(information))
    below = other.lower - found.value - found.gap
    return {"seed": seed, "kind": kind, "status": found.status.name, "ms": ms, "gap": found.gap, "above": above, "below": below}


def failures(console: Console, out: Path, seeds: range, jobs: int) -> None:
    """Statuses and times."""
    rows = kept(out / "failures.jsonl", one_call, seeds, jobs)
    shares = {"median": 0.5, "95 %": 0.95, "99 %": 0.99, "most": 1.0}
    head = ("information", "calls", "solved", "hard", "largest gap", "infeasible", "silent", "unsound", "ms: mean", *shares)
    table = Table(*head, box=MARKDOWN)
    for kind in ("line", "strip", "plane"):
        calls = [row for row in rows if row["kind"] == kind]
        if not calls:
            continue
        status = Counter(row["status"] for row in calls)
        ms = [row["ms"] for row in calls]
        gap = max((row["gap"] for row in calls if row["status"] == "HARD"), default=0.0)
        wrong = sum(not row["above"] <= 1e-13 for row in calls)
        silent = sum(row["status"] == "SOLVED" and not row["below"] <= 1e-8 for row in calls)
        shown = (len(calls), status["SOLVED"], status["HARD"], f"{gap:.1e}", status["INFEASIBLE"], silent, wrong)
        times = (np.mean(ms), *np.quantile(ms, list(shares.values())))
        table.add_row(kind, *map(str, shown), *(f"{x:.0f}" for x in times))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="which of them; all by default")
    parser.add_argument("--count", type=int)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("information"))
    arguments = parser.parse_args()
    wanted = arguments.parts or PARTS
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"unknown parts {sorted(unknown)}: expected some of {', '.join(PARTS)}")
    console = Console(width=200)
    if "orders" in wanted:
        orders(console, arguments.jobs)
    if "exact" in wanted:
        exact(console)
    for run in (program, sound, failures):
        if run.__name__ in wanted:
            count = arguments.count or CASES[run.__name__]
            run(console, arguments.out, range(arguments.first, arguments.first + count), arguments.jobs)


if __name__ == "__main__":
    main()
