"""What the gradient is worth on real inputs, and how much of that each estimator gets: the digits of the demo, n = 100,000.

Average certified radius over Cohen's (his l2 ball at the full alpha), by threat, of the digits that he certifies. "oracle" knows y
(from a million other samples) and spends all of alpha on q. Share: (estimator - 1) / (oracle - 1).

Run: python benchmarks/oracle.py [--inputs N] [--samples N] [--known N]
"""

import argparse
from collections.abc import Mapping

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import certlut
from certlut.bounds.binomial import lower_probability
from certlut.bounds.estimators import ESTIMATORS
from certlut.bounds.gradient import tighten
from certlut.evaluate import evaluate
from certlut.kernels.normal import density, upper_quantile
from certlut.report import bundled
from certlut.sampling.card import Sampling
from certlut.sampling.engine import Choice, Input
from certlut.sampling.sampler import Sampler, check_input
from certlut.statistics.records import join
from certlut.threats.declare import Subspace, resolve
from certlut.threats.sets import L2, Quantity, Threat, containment, projections

ALPHA, N0, BATCH = 0.001, 100, 8192
NORMS = {"l1": 1.0, "l2": 2.0, "linf": np.inf}


def known_bounds(y: np.ndarray, threats: tuple[Threat, ...]) -> Mapping[Quantity, np.ndarray]:
    """Every quantity's true value."""
    parts = projections(threats)
    wanted = {quantity for threat in threats for quantity in threat.needs()}
    return {q: np.array([np.linalg.norm(parts[q.part](y), NORMS[q.norm])]) for q in wanted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--known", type=int, default=1_000_000, help="samples that y is known from")
    arguments = parser.parse_args()
    table, digits = certlut.load(), bundled.load("digits")
    shape = digits.test.x.shape[1:]
    left = np.zeros(shape, dtype=bool)
    left[:, : shape[1] // 2] = True
    threats = resolve(("l1", "l2", "linf", Subspace(left, p=2, name="left")))
    out = Table("sigma", "threat", *ESTIMATORS, "oracle", *(f"share, {name}" for name in ESTIMATORS), title="radius over Cohen's")
    for sigma in (0.12, 0.25, 0.5, 1.0):
        model = bundled.train("digits", digits.train, sigma, 60)
        sampler = Sampler(model, sigma, 10, threats)
        card = Sampling(n0=N0, n=arguments.samples, alpha=ALPHA, batch_size=BATCH, seed=0)
        more = Sampling(n=arguments.known, batch_size=BATCH, seed=2**40)
        drawn, oracle = [], []
        for index in track(range(arguments.inputs), f"sigma {sigma}"):
            x, label = digits.test[index]
            one = sampler.sample(x, card, index)
            votes, n = one.statistics.count.sum(), one.statistics.n.sum()
            q = lower_probability(np.array([votes]), np.array([n]), ALPHA)
            if one.predict != label or q[0] <= 0.5:
                continue
            drawn.append(one.statistics)
            m = sampler.engine.moments([Input(index, check_input(x))], [Choice(label)], more)[0]
            b = float(m.count.sum() / m.n.sum())
            y = (m.sum_uf - b * m.sum_u).sum(axis=0) / m.n.sum()
            rim = np.array([density(upper_quantile(1.0 - q[0]))])
            bounds = tighten(known_bounds(y, threats), one.statistics.parts, rim)
            d = one.statistics.d
            own = {t.name: sigma * np.asarray(table.radius(q, *t.cut(bounds, d)))[0] / t.kappa(d) for t in threats}
            oracle.append([max(own[o.name] / containment(t, o, d) for o in threats) for t in threats])
        statistics = join(drawn)
        results = {name: evaluate(statistics, threats, ALPHA, name, table) for name in ESTIMATORS}
        for place, threat in enumerate(threats):
            cohen = results["paper"].radius["cohen"].mean() / containment(threat, L2, statistics.d)
            ratios = [results[name].radius[threat.name].mean() / cohen for name in ESTIMATORS]
            best = np.mean([row[place] for row in oracle]) / cohen
            shares = [f"{100.0 * (ratio - 1.0) / (best - 1.0):.0f} %" for ratio in ratios]
            out.add_row(f"{sigma:g}", threat.name, *(f"{ratio:.3f}" for ratio in [*ratios, best]), *shares)
        out.add_section()
    Console(width=120).print(out)
    Console().print(
        f"{arguments.inputs} digits, n = {arguments.samples:,}, alpha = {ALPHA}; 0.9 alpha for q, the rest for six norms"
    )


if __name__ == "__main__":
    main()
