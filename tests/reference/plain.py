"""What plain runs leave, pinned: six inputs of a small linear model, no target, by votes and by the model's gradient.

tests/data/plain_golden.json is written anew where it is meant that seeds give other noise, or samples other bounds:

    python tests/reference/plain.py
"""

import json
from pathlib import Path

import numpy as np
import torch

from certlut import Table, load
from certlut.evaluate import evaluate, find_tails
from certlut.sampling.card import Sampling
from certlut.sampling.sampler import Sampler
from certlut.statistics.records import join

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "plain_golden.json"
SIGMA, ALPHA = 0.5, 0.001
WEIGHTS = ((1.0, 0.5, -0.25, 0.125), (-0.5, 1.0, 0.5, -0.25), (-0.5, -1.5, -0.25, 0.125))
# From a sure one to votes that are divided.
INPUTS = (
    (2.0, 0.5, 0.0, 0.0),
    (1.0, 0.25, 0.0, 0.5),
    (-0.5, 1.0, 0.25, 0.0),
    (0.25, -1.0, 0.0, 0.0),
    (0.125, 0.125, 0.0, 0.0),
    (0.0, 0.0, 0.0, 0.0),
)


class Linear(torch.nn.Module):
    """Scores are sums of a few dyadic products, in float64: no machine rounds them otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Buffer(torch.tensor(WEIGHTS, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.to(torch.float64)[:, None, :] * self.weight).sum(dim=2)


def plain(proposal: str, table: Table) -> dict[str, list[float] | list[list[int]]]:
    """Counts, and bounds and radii in input units, of every input."""
    card = Sampling(n0=100, n=2000, alpha=ALPHA, seed=3, proposal=proposal)
    sampler = Sampler(Linear(), SIGMA, len(WEIGHTS))
    drawn = list(sampler.sample_group([(i, np.array(x)) for i, x in enumerate(INPUTS)], card))
    statistics = join([one.statistics for one in drawn])
    found = evaluate(statistics, sampler.threats, ALPHA, "adaptive", table, find_tails("tails"))
    return {
        "votes": [one.votes.tolist() for one in drawn],
        "count": statistics.count.tolist(),
        "classes": statistics.classes.tolist(),
        "class_count": statistics.class_count.tolist(),
        "q_lower": found.q_lower.tolist(),
        "length_lower": found.length[0].tolist(),
        "length_upper": found.length[1].tolist(),
        **{f"radius_{name}": radius.tolist() for name, radius in found.radius.items()},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {by: plain(by, load()) for by in ("votes", "gradient")}
    GOLDEN.write_text(json.dumps(found).replace('], "', '],\n"') + "\n", encoding="utf-8")
