"""The main job in small: train on scikit-learn's handwritten digits with noise, certify held-out ones, compare with Cohen."""

import os
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from sklearn.datasets import load_digits

from ..certify import Certifier
from ..inputs.data import Arrays
from ..lookup.table import load
from ..runs.results import read_tsv
from ..threats.declare import Subspace, resolve
from .gains_old import gain_table, plot_curves

SIGMAS = (0.25, 0.5)
MAIN_SIGMA = 0.5
HELD_OUT = 100
N = 100_000
ALPHA = 0.001
SEED = 0
SHAPE = (8, 8)


def digits() -> tuple[Arrays, Arrays]:
    """(train, test) of the 1,797 scans, pixels in [0, 1]; HELD_OUT random ones for the test."""
    data = load_digits()
    x, y = (data.images / 16.0).astype(np.float32), data.target
    order = np.random.default_rng(SEED).permutation(len(x))
    test, train = order[:HELD_OUT], order[HELD_OUT:]
    return Arrays(x[train], y[train]), Arrays(x[test], y[test])


def network() -> torch.nn.Module:
    """Two hidden layers of 128."""
    linear, relu = torch.nn.Linear, torch.nn.ReLU
    return torch.nn.Sequential(torch.nn.Flatten(), linear(64, 128), relu(), linear(128, 128), relu(), linear(128, 10))


def train(data: Arrays, sigma: float, epochs: int) -> torch.nn.Module:
    """The network for digits, trained on the data plus noise; the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = network()
    return fit(model, data, sigma, epochs)


def fit(model: torch.nn.Module, data: Arrays, sigma: float, epochs: int) -> torch.nn.Module:
    """Train `model` in place on the data plus N(0, sigma^2) noise, fresh in every epoch; returns it in eval mode."""
    generator = torch.Generator().manual_seed(SEED)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(128):
            noisy = x[batch] + sigma * torch.randn(x[batch].shape, generator=generator)
            loss = torch.nn.functional.cross_entropy(model(noisy), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def run(out: str | os.PathLike[str], quick: bool = False) -> None:
    """Train, certify, write results.tsv (sigma 0.5), results_0.25.tsv and curves.png to `out`, and print the table of gains.

    `quick`: 20 digits and n = 10,000, for a first look. Stopped at any moment, the same call goes on.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    table = load()
    train_set, test_set = digits()
    left = np.zeros(SHAPE, dtype=bool)
    left[:, : SHAPE[1] // 2] = True
    threats = resolve(("l1", "l2", "linf", Subspace(left, p=2, name="left")))
    n, chosen = (10_000, test_set[:20]) if quick else (N, test_set)
    results = {}
    for sigma in SIGMAS:
        model = train(train_set, sigma, epochs=20 if quick else 60)
        certifier = Certifier(model, sigma, 10, table, threats, seed=SEED)
        path = out / ("results.tsv" if sigma == MAIN_SIGMA else f"results_{sigma:g}.tsv")
        certifier.certify_dataset(chosen, path, n=n, alpha=ALPHA, batch_size=4096)
        results[sigma] = read_tsv(path)
    plot_curves(out / "curves.png", results, threats, int(np.prod(SHAPE)))
    console = Console()
    console.print(gain_table(results, threats, int(np.prod(SHAPE))))
    console.print(f"{len(chosen)} digits, n = {n:,}, alpha = {ALPHA}; Cohen's radii at the full alpha, ours all at once within it")
    console.print(f"wrote results.tsv, results_{min(SIGMAS):g}.tsv and curves.png to {out}", highlight=False)
