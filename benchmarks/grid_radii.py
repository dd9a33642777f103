"""Average certified radii under grid noise beside those under Gaussian noise, of the same networks and inputs.

Run: python benchmarks/grid_radii.py [--data digits,patches] [--sigma S] [--inputs N] [--samples N]
"""

import argparse

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import certlut
from certlut.evaluate import evaluate, find_tails
from certlut.report import bundled
from certlut.sampling.card import Sampling
from certlut.sampling.sampler import Sampler

ALPHA, EPOCHS, STEPS = 0.001, {"digits": 60, "patches": 15}, {"digits": "1/16", "patches": "1/255"}


def averages(name: str, sigma: float, inputs: int, samples: int, noise: str, model: torch.nn.Module) -> dict[str, float]:
    """By threat, over the test inputs; 0 where the class is not the label or the input abstains."""
    data, table, tails = bundled.load(name), certlut.load(), find_tails("tails")
    sampler = Sampler(model, sigma, data.num_classes)
    card = Sampling(n=samples, alpha=ALPHA, seed=0, noise=noise, grid_step=STEPS[name] if noise == "grid" else None)
    total: dict[str, float] = {}
    for index in range(inputs):
        x, label = data.test[index]
        drawn = sampler.sample(x, card, index)
        found = evaluate(drawn.statistics, sampler.threats, ALPHA, "adaptive", table, tails).radius
        for threat, radius in found.items():
            total[threat] = total.get(threat, 0.0) + float(radius[0]) * (drawn.predict == label) / inputs
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits,patches")
    parser.add_argument("--sigma", type=float, default=0.25)
    parser.add_argument("--inputs", type=int, default=50)
    parser.add_argument("--samples", type=int, default=50_000)
    arguments = parser.parse_args()
    console = Console(width=140)
    for name in arguments.data.split(","):
        model = bundled.train(name, bundled.load(name).train, arguments.sigma, EPOCHS[name])
        options = (name, arguments.sigma, arguments.inputs, arguments.samples)
        found = {noise: averages(*options, noise, model) for noise in ("gaussian", "grid")}
        title = f"{name}, sigma {arguments.sigma}, step {STEPS[name]}: {arguments.inputs} inputs x {arguments.samples} samples"
        table = Table("average radius", *found["grid"], title=title, title_justify="left")
        for noise, radii in found.items():
            table.add_row(noise, *(f"{radius:.4f}" for radius in radii.values()))
        ratios = [np.divide(found["grid"][threat], radius) for threat, radius in found["gaussian"].items()]
        table.add_row("grid over gaussian", *(f"{ratio:.4f}" for ratio in ratios))
        console.print(table)


if __name__ == "__main__":
    main()
