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
import certlut.sampling.engine
from certlut.bounds.binomial import lower_probability
from certlut.bounds.estimators import ESTIMATORS
from certlut.bounds.gradient import tighten
from certlut.certify import Certifier
from certlut.evaluate import evaluate
from certlut.kernels.normal import density, upper_quantile
from certlut.report.demo import SHAPE, digits, train
from certlut.sampling.engine import Sampler
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
    left = np.zeros(SHAPE, dtype=bool)
    left[:, : SHAPE[1] // 2] = True
    threats = resolve(("l1", "l2", "linf", Subspace(left, p=2, name="left")))
    table, (train_set, test_set) = certlut.load(), digits()
    out = Table("sigma", "threat", *ESTIMATORS, "oracle", *(f"share, {name}" for name in ESTIMATORS), title="radius over Cohen's")
    for sigma in (0.12, 0.25, 0.5, 1.0):
        model = train(train_set, sigma, 60)
        certifier = Certifier(model, sigma, 10, table, threats, seed=0)
        sampler = Sampler(model, sigma, 10, seed=2**40)
        drawn, oracle = [], []
        for index in track(range(arguments.inputs), f"sigma {sigma}"):
            x, label = test_set[index]
            one = certifier.sample(x, N0, arguments.samples, ALPHA, BATCH, index)
            votes, n = one.statistics.count.sum(), one.statistics.n.sum()
            q = lower_probability(np.array([votes]), np.array([n]), ALPHA)
            if one.label != label or q[0] <= 0.5:
                continue
            drawn.append(one.statistics)
            m = sampler.moments(certlut.sampling.engine.check_input(x), label, arguments.known, index, BATCH)
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
