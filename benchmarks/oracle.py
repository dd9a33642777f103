"""What the gradient is worth on real inputs, and how much of that is got: by estimator, and by what proposes its direction.

Average certified radius over Cohen's (his l2 ball at the full alpha), first order, by threat, of the inputs that he certifies.
"oracle" knows y (from --known other samples) and spends all of alpha on q. Share: (ours - 1) / (oracle - 1). "votes" and "gradient"
see the same noise and the same votes.

Run: python benchmarks/oracle.py [--data digits|patches|FILE.npz] [--model FILE] [--sigma S ...] [--inputs N] [--samples N]
    [--known N]
FILE.npz: x and y; FILE: a model of them, {sigma} in its name standing for the noise level.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import certlut
from certlut.bounds.binomial import lower_probability
from certlut.bounds.gradient import tighten
from certlut.evaluate import Evaluation, evaluate
from certlut.inputs.data import load_data
from certlut.inputs.models import load_model
from certlut.kernels.normal import density, upper_quantile
from certlut.report import bundled
from certlut.sampling.card import Sampling
from certlut.sampling.engine import Choice, Input
from certlut.sampling.sampler import Sampler, check_input
from certlut.statistics.records import join
from certlut.statistics.summary import Moments, Statistics
from certlut.threats.declare import Subspace, resolve
from certlut.threats.sets import L2, Quantity, Threat, containment, projections

ALPHA, N0, BATCH = 0.001, 100, 4096
NORMS = {"l1": 1.0, "l2": 2.0, "linf": np.inf}
PROPOSED = ("votes", "gradient")
# Of the bundled networks' training.
EPOCHS = {"digits": 60, "patches": 15}


class Row(NamedTuple):
    """One input's."""

    statistics: dict[str, Statistics]
    """By what proposed."""
    oracle: list[float]
    """Radii, by threat."""


def known(m: Moments, proposed: torch.Tensor | None) -> np.ndarray:
    """y: along a proposal as the samples have it, across it their mean, made as long as the product of the halves says."""
    b = float(m.count.sum() / m.n.sum())
    x, y = halves = (m.sum_uf - b * m.sum_u) / m.n[:, None]
    w = np.zeros(len(x)) if proposed is None else proposed.numpy()
    mean = halves.mean(axis=0)
    across = mean - (w @ mean) * w
    size = max(float(x @ y - (w @ x) * (w @ y)), 0.0)
    return mean - across + across * np.sqrt(size) / max(float(np.linalg.norm(across)), 1e-300)


def known_bounds(y: np.ndarray, threats: tuple[Threat, ...]) -> Mapping[Quantity, np.ndarray]:
    """Every quantity's true value."""
    parts = projections(threats)
    wanted = {quantity for threat in threats for quantity in threat.needs()}
    return {q: np.array([np.linalg.norm(parts[q.part](y), NORMS[q.norm])]) for q in wanted}


def setting(arguments: argparse.Namespace, sigma: float) -> tuple[torch.nn.Module, Any, int]:
    """(network, test inputs, classes)."""
    if arguments.data not in EPOCHS:
        data = load_data(arguments.data)
        return load_model(arguments.model.replace("{sigma}", f"{sigma:g}"), "cpu"), data, 10
    data = bundled.load(arguments.data)
    return bundled.train(arguments.data, data.train, sigma, EPOCHS[arguments.data]), data.test, data.num_classes


def rows(arguments: argparse.Namespace, sampler: Sampler, data: Any, table: certlut.Table) -> Iterator[Row]:
    """Of the inputs that Cohen certifies."""
    sigma, threats = sampler.sigma, sampler.threats
    cards = {by: Sampling(n0=N0, n=arguments.samples, alpha=ALPHA, batch_size=BATCH, seed=0, proposal=by) for by in PROPOSED}
    more = Sampling(n=arguments.known, batch_size=BATCH, seed=2**40, proposal="votes")
    for index in track(range(arguments.inputs), f"sigma {sigma}", transient=True):
        x, label = data[index]
        one = sampler.sample(x, cards["votes"], index)
        votes, n = one.statistics.count.sum(), one.statistics.n.sum()
        q = lower_probability(np.array([votes]), np.array([n]), ALPHA)
        if one.predict != label or q[0] <= 0.5:
            continue
        chosen, asked = Input(index, check_input(x)), Choice(one.predict)
        w = sampler.engine.proposal(chosen, asked, cards["gradient"]).w
        y = known(sampler.engine.moments([chosen], [asked], more)[0], w)
        rim = np.array([density(upper_quantile(1.0 - q[0]))])
        bounds = tighten(known_bounds(y, threats), one.statistics.parts, rim)
        d = one.statistics.d
        own = {t.name: sigma * np.asarray(table.radius(q, *t.cut(bounds, d)))[0] / t.kappa(d) for t in threats}
        oracle = [max(own[o.name] / containment(t, o, d) for o in threats) for t in threats]
        drawn = {"votes": one.statistics, "gradient": sampler.sample(x, cards["gradient"], index).statistics}
        # One class against the rest: divided votes are another matter.
        yield Row({by: replace(s, selection=np.zeros_like(s.selection)) for by, s in drawn.items()}, oracle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--model", default="")
    parser.add_argument("--sigma", type=float, nargs="+", default=[0.12, 0.25, 0.5, 1.0])
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--known", type=int, default=1_000_000, help="samples that y is known from")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table, console = certlut.load(), Console(width=120)
    title = (
        f"radius over Cohen's, {arguments.data}, first {arguments.inputs}, n = {arguments.samples:,}, y from {arguments.known:,}"
    )
    out = Table("sigma", "threat", "paper", *PROPOSED, "oracle", *(f"share, {by}" for by in PROPOSED), title=title)
    for sigma in arguments.sigma:
        model, data, classes = setting(arguments, sigma)
        half = np.zeros(np.shape(data[0][0]), dtype=bool)
        half[..., : half.shape[-1] // 2] = True
        threats = resolve(("l1", "l2", "linf", Subspace(half, p=2, name="left")))
        found = list(rows(arguments, Sampler(model, sigma, classes, threats), data, table))
        drawn = {by: join([row.statistics[by] for row in found]) for by in PROPOSED}
        made: dict[str, Evaluation] = {"paper": evaluate(drawn["votes"], threats, ALPHA, "paper", table)}
        made |= {by: evaluate(statistics, threats, ALPHA, "adaptive", table) for by, statistics in drawn.items()}
        for place, threat in enumerate(threats):
            cohen = made["paper"].radius["cohen"].mean() / containment(threat, L2, drawn["votes"].d)
            ratios = [one.radius[threat.name].mean() / cohen for one in made.values()]
            best = np.mean([row.oracle[place] for row in found]) / cohen
            shares = [f"{100.0 * (ratio - 1.0) / (best - 1.0):.0f} %" for ratio in ratios[1:]]
            out.add_row(f"{sigma:g}", threat.name, *(f"{ratio:.3f}" for ratio in [*ratios, best]), *shares)
        out.add_section()
        console.print(f"sigma {sigma:g}: {len(found)} inputs")
    console.print(out)


if __name__ == "__main__":
    main()
