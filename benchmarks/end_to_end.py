"""A test set from nothing to a results file: 500 inputs x 20,000 samples of a small network at 3x32x32, time by stage.

The inputs are smooth random patterns of ten classes, made here; the network is trained on others of them. Each input goes through
what `certlut sample` and `certlut certify` do.

Run: python benchmarks/end_to_end.py [--inputs N] [--samples N] [--processes P] [--threads T] [--noise gaussian|grid]
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import certlut.runs.sample
import certlut.sampling.batches
import certlut.sampling.bets
import certlut.sampling.engine
import certlut.sampling.noise
import certlut.sampling.tails
from certlut.inputs.data import Arrays
from certlut.jobs.journal import Journal
from certlut.jobs.shards import Shard
from certlut.runs.certify import certify_statistics
from certlut.runs.merge import merge
from certlut.runs.results import read_tsv
from certlut.runs.sample import sample_dataset
from certlut.sampling.card import Sampling
from certlut.sampling.memory import keep_freed
from certlut.sampling.sampler import Sampler
from certlut.statistics.file import read_statistics
from networks import small

SIGMA, ALPHA, CLASSES = 0.5, 0.001, 10


def patterns(count: int, seed: int) -> Arrays:
    """`count` images of 8 bits a number, in [0, 1]: the low-frequency pattern of a class, and another random one on top."""
    low = np.random.default_rng(0).standard_normal((CLASSES, 3, 4, 4))
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count)
    mixed = torch.from_numpy(low[labels] + 4.0 * rng.standard_normal((count, 3, 4, 4)))
    images = torch.nn.functional.interpolate(mixed, size=(32, 32), mode="bilinear", align_corners=False)
    return Arrays((255.0 * (0.5 + 0.05 * images).clamp(0.0, 1.0)).round().div(255.0).float().numpy(), labels)


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


def sample_shard(arguments: argparse.Namespace, shard: Shard, folder: Path) -> dict[str, float]:
    """Sample a shard to its file; seconds by stage."""
    torch.set_num_threads(arguments.threads)
    clock, model = Clock(), small(CLASSES).eval()
    model.load_state_dict(torch.load(folder / "net.pt"))
    keep_freed()
    inside: list[tuple[str, Any, str]] = [
        ("  noise", certlut.sampling.batches, "_each"),
        ("  model", certlut.sampling.engine, "scores_of"),
        ("  proposals", certlut.sampling.engine.Engine, "proposal"),
        ("  sums and bets", certlut.sampling.bets.Tally, "add"),
        ("  tails", certlut.sampling.tails.TailTally, "add"),
        ("  tails", certlut.sampling.tails.GridTails, "add"),
        ("  write the statistics", certlut.runs.sample, "write_statistics"),
    ]
    for name, module, function in inside:
        setattr(module, function, clock.timed(getattr(module, function), name))
    Journal.append = clock.timed(Journal.append, "  journal")
    sampler = Sampler(model, SIGMA, CLASSES)
    card = Sampling(
        n=arguments.samples,
        alpha=ALPHA,
        batch_size=arguments.batch_size,
        seed=0,
        early_stop=arguments.early_stop,
        noise=arguments.noise,
        grid_step="1/255" if arguments.noise == "grid" else None,
    )
    with clock.stage("sample"):
        sample_dataset(sampler, patterns(arguments.inputs, 1), folder / "stats.h5", card, shard=shard, progress=shard.index == 0)
    return clock.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--batch-size", type=int, default=1000)
    parser.add_argument("--early-stop", action="store_true")
    parser.add_argument("--noise", default="gaussian")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    clock, count = Clock(), arguments.processes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stats, results = folder / "stats.h5", folder / "results.tsv"
        with clock.stage("train"):
            torch.save(train(patterns(4000, 2)).state_dict(), folder / "net.pt")
        shards = [Shard(k, count) for k in range(count)]
        with clock.stage("sample"), ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
            times = list(pool.map(sample_shard, [arguments] * count, shards, [folder] * count))
        if count > 1:
            with clock.stage("merge"):
                merge([shard.path(stats) for shard in shards], stats)
        with clock.stage("certify: load the table, bounds, look-ups, results.tsv"):
            certify_statistics(stats, results, ALPHA, "adaptive", None, progress=False)
        columns, sampled = read_tsv(results), read_statistics(stats)
    title = f"{arguments.inputs} inputs x {arguments.samples} samples; {count} processes of {arguments.threads} threads"
    out = Table("stage", "seconds", "share", title=title)
    total = sum(clock.seconds.values())
    for stage, seconds in clock.seconds.items():
        out.add_row(stage, f"{seconds:.1f}", f"{100 * seconds / total:.1f} %")
        if stage == "sample":
            parts = {part: sum(t[part] for t in times) / count for part in times[0] if part != "sample"}
            parts["  other"] = sum(t["sample"] for t in times) / count - sum(v for k, v in parts.items() if k.startswith("  "))
            parts["  start and wait for the processes"] = seconds - sum(parts.values())
            for part, value in parts.items():
                out.add_row(f"  {part.strip()}", f"{value:.1f}", f"{100 * value / total:.1f} %")
    out.add_row("all", f"{total:.1f}", "")
    console = Console(width=140)
    console.print(out)
    drawn, accuracy = int(sampled.statistics.n.sum()), columns["correct"].mean()
    radii = [name for name in columns if name.startswith("radius_")]
    means = ", ".join(f"{name[7:]} {np.mean(columns['correct'] * columns[name]):.4f}" for name in radii)
    console.print(f"{drawn / clock.seconds['sample']:.0f} samples/s; certified accuracy {accuracy:.3f}; average radii: {means}")


if __name__ == "__main__":
    main()
