"""A test set from nothing to a results file: 500 inputs x 20,000 samples of a small network at 3x32x32, time by stage.

The inputs are smooth random patterns of ten classes, made here; the network is trained on others of them. Each input goes through
what `certlut sample` and `certlut certify` do.

Run: python benchmarks/end_to_end.py [--inputs N] [--samples N] [--threads T] [--early-stop]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import small
from rich.console import Console
from rich.table import Table

import runtime.noise
import runtime.run
import runtime.sample
from runtime import Certifier, load
from runtime.data import Arrays
from runtime.journal import Journal
from runtime.results import read_tsv
from runtime.run import certify_statistics, sample_dataset

SIGMA, ALPHA, CLASSES = 0.5, 0.001, 10


def patterns(count: int, seed: int) -> Arrays:
    """`count` images in [0, 1]: the low-frequency pattern of a class, and another random one on top."""
    low = np.random.default_rng(0).standard_normal((CLASSES, 3, 4, 4))
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count)
    mixed = torch.from_numpy(low[labels] + 4.0 * rng.standard_normal((count, 3, 4, 4)))
    images = torch.nn.functional.interpolate(mixed, size=(32, 32), mode="bilinear", align_corners=False)
    return Arrays((0.5 + 0.05 * images).clamp(0.0, 1.0).float().numpy(), labels)


def train(data: Arrays, epochs: int = 6) -> torch.nn.Module:
    model = small(CLASSES)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(128):
            loss = torch.nn.functional.cross_entropy(model(x[batch] + SIGMA * torch.randn(x[batch].shape)), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Any:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            with self.stage(name):
                return function(*arguments, **options)

        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch-size", type=int, default=1000)
    parser.add_argument("--early-stop", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    clock, console = Clock(), Console(width=160)
    with clock.stage("make data, train"):
        data = patterns(arguments.inputs, 1)
        model = train(patterns(4000, 2))
    with clock.stage("load the table"):
        table = load()
    inside = {
        "  noise": (runtime.noise, "_each"),
        "  sums": (runtime.sample, "add_moments"),
        "  write the statistics": (runtime.run, "write_statistics"),
    }
    for name, (module, function) in inside.items():
        setattr(module, function, clock.timed(getattr(module, function), name))
    Journal.append = clock.timed(Journal.append, "  journal")
    model.forward = clock.timed(model.forward, "  model")
    certifier = Certifier(model, SIGMA, CLASSES, table, seed=0, early_stop=arguments.early_stop)
    with tempfile.TemporaryDirectory() as folder:
        stats, results = Path(folder) / "stats.h5", Path(folder) / "results.tsv"
        with clock.stage("sample"):
            sampled = sample_dataset(certifier, data, stats, 100, arguments.samples, ALPHA, arguments.batch_size, {})
        with clock.stage("certify: bounds, look-ups, results.tsv"):
            certify_statistics(stats, results, ALPHA, "paper", None)
        columns = read_tsv(results)
    out = Table(
        "stage", "seconds", "share", title=f"{arguments.inputs} inputs x {arguments.samples} samples, {arguments.threads} threads"
    )
    stages = {name: seconds for name, seconds in clock.seconds.items() if not name.startswith("  ")}
    total = sum(stages.values())
    for name, seconds in stages.items():
        out.add_row(name, f"{seconds:.1f}", f"{100 * seconds / total:.1f} %")
        if name == "sample":
            parts = {part: value for part, value in clock.seconds.items() if part.startswith("  ")}
            parts["  other"] = seconds - sum(parts.values())
            for part, value in parts.items():
                out.add_row(part, f"{value:.1f}", f"{100 * value / total:.1f} %")
    out.add_row("all", f"{total:.1f}", "")
    console.print(out)
    drawn = int(sampled.statistics.n.sum())
    means = ", ".join(
        f"{name[7:]} {np.mean(columns['correct'] * columns[name]):.4f}" for name in columns if name.startswith("radius_")
    )
    console.print(
        f"{drawn / stages['sample']:.0f} samples/s; certified accuracy {columns['correct'].mean():.3f}; average radii: {means}"
    )


if __name__ == "__main__":
    main()
