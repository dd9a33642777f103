"""The main job in small: train on handwritten digits with noise, sample held-out ones, certify them, compare with Cohen."""

import os
from pathlib import Path

import numpy as np
from rich.console import Console

from ..evaluate import evaluate, find_tails
from ..lookup.table import load
from ..runs.certify import result_rows
from ..runs.results import write_tsv
from ..runs.sample import sample_dataset
from ..sampling.card import Sampling
from ..sampling.sampler import Sampler
from ..threats.declare import Subspace, resolve
from . import bundled
from .averages import terminal
from .figures import plot_curves
from .gains import METHODS, counted

SIGMAS = (0.25, 0.5)
MAIN_SIGMA = 0.5
N0, N, ALPHA = 100, 100_000, 0.001
BATCH_SIZE = 4096
SEED = 0
COMPARED = ("first order", "tails")


def run_demo(out: str | os.PathLike[str], quick: bool = False) -> None:
    """Train, sample, certify; write results.tsv (sigma 0.5), results_0.25.tsv and curves.png to `out`, and print the averages.

    first_order.tsv and first_order_0.25.tsv hold the first-order radii from the same samples.

    `quick`: 20 digits and n = 10,000, for a first look. Stopped at any moment, the same call goes on. The statistics stay beside
    the results, and are not sampled again.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    table = load()
    tails = {method: find_tails(METHODS[method][1]) for method in COMPARED}
    digits = bundled.load("digits")
    shape = digits.test.x.shape[1:]
    left = np.zeros(shape, dtype=bool)
    left[:, : shape[1] // 2] = True
    threats = resolve(("l1", "l2", "linf", Subspace(left, p=2, name="left")))
    n, chosen = (10_000, digits.test[:20]) if quick else (N, digits.test)
    results = {}
    for sigma in SIGMAS:
        model = bundled.train("digits", digits.train, sigma, epochs=20 if quick else 60)
        sampler = Sampler(model, sigma, digits.num_classes, threats)
        kept = out / f"statistics_{sigma:g}{'_quick' if quick else ''}.h5"
        card = Sampling(n0=N0, n=n, alpha=ALPHA, batch_size=BATCH_SIZE, seed=SEED)
        sampled = sample_dataset(sampler, chosen, kept, card)
        made = {method: evaluate(sampled.statistics, threats, ALPHA, "adaptive", table, tails[method]) for method in COMPARED}
        name = "results.tsv" if sigma == MAIN_SIGMA else f"results_{sigma:g}.tsv"
        write_tsv(out / name, result_rows(sampled, made["tails"]))
        write_tsv(out / name.replace("results", "first_order"), result_rows(sampled, made["first order"]))
        right = sampled.predict == sampled.label
        results[sigma] = {method: counted(result.radius, right) for method, result in made.items()}
    d = int(np.prod(shape))
    plot_curves(out / "curves.png", results, threats, d)
    console = Console()
    console.print(terminal(results, threats, d))
    console.print(f"{len(chosen)} digits, n = {n:,}, alpha = {ALPHA}; Cohen's radii at the full alpha, ours all at once within it")
    files = f"results.tsv, results_{min(SIGMAS):g}.tsv (first_order.tsv: without tails) and curves.png"
    console.print(f"wrote {files} to {out}", highlight=False)
