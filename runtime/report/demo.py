"""The main job in small: train on scikit-learn's handwritten digits with noise, certify held-out ones, compare with Cohen."""

import os
from pathlib import Path

import numpy as np
from rich.console import Console

from ..certify import Certifier
from ..lookup.table import load
from ..runs.results import read_tsv
from ..threats.declare import Subspace, resolve
from . import bundled
from .gains_old import gain_table, plot_curves

SIGMAS = (0.25, 0.5)
MAIN_SIGMA = 0.5
N = 100_000
ALPHA = 0.001
SEED = 0


def run_demo(out: str | os.PathLike[str], quick: bool = False) -> None:
    """Train, certify, write results.tsv (sigma 0.5), results_0.25.tsv and curves.png to `out`, and print the table of gains.

    `quick`: 20 digits and n = 10,000, for a first look. Stopped at any moment, the same call goes on.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    table = load()
    digits = bundled.load("digits")
    shape = digits.test.x.shape[1:]
    left = np.zeros(shape, dtype=bool)
    left[:, : shape[1] // 2] = True
    threats = resolve(("l1", "l2", "linf", Subspace(left, p=2, name="left")))
    n, chosen = (10_000, digits.test[:20]) if quick else (N, digits.test)
    results = {}
    for sigma in SIGMAS:
        model = bundled.train("digits", digits.train, sigma, epochs=20 if quick else 60)
        certifier = Certifier(model, sigma, 10, table, threats, seed=SEED)
        path = out / ("results.tsv" if sigma == MAIN_SIGMA else f"results_{sigma:g}.tsv")
        certifier.certify_dataset(chosen, path, n=n, alpha=ALPHA, batch_size=4096)
        results[sigma] = read_tsv(path)
    plot_curves(out / "curves.png", results, threats, int(np.prod(shape)))
    console = Console()
    console.print(gain_table(results, threats, int(np.prod(shape))))
    console.print(f"{len(chosen)} digits, n = {n:,}, alpha = {ALPHA}; Cohen's radii at the full alpha, ours all at once within it")
    console.print(f"wrote results.tsv, results_{min(SIGMAS):g}.tsv and curves.png to {out}", highlight=False)
