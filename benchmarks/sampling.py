"""The sampler beside the loop of Cohen et al. (float32 noise, model, argmax): time, by stage, page faults; and peak memory.

Each loop has a process of its own, as it has in use: his with the allocator as it is, ours as `certlut sample` sets it (what is
freed is kept), and his once more with ours. Their rounds alternate. Votes are counted for the class that has most.

Run: python benchmarks/sampling.py [--samples N] [--rounds R] [--threads 1,2] [--networks digits,small,ResNet-18] [--no-memory]
"""

import argparse
import multiprocessing
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from certlut.report.bundled import network
from certlut.sampling.card import Sampling
from certlut.sampling.engine import Choice, Engine, Input
from certlut.sampling.memory import BatchSize, keep_freed
from certlut.sampling.pools import set_threads
from certlut.sampling.streams import FIRST, Segment
from certlut.threats.families import families
from certlut.threats.sets import L1, L2, LINF, projections
from networks import resnet, small

SIGMA, THREATS = 0.25, (L1, L2, LINF)
HIS, KEPT, GAUSSIAN, GRID = "Cohen et al.", "the same, freed memory kept", "Gaussian noise", "grid noise"


class Case(NamedTuple):
    """A network, an input of whole levels of 1/255, and the rows of a batch."""

    model: torch.nn.Module
    x: torch.Tensor
    batch_size: int
    samples: int
    """Over those of a ResNet-18."""


def case(name: str) -> Case:
    torch.manual_seed(0)
    image = torch.randint(0, 256, (3, 32, 32)) / 255
    if name == "digits":
        # Levels of 1/16 lie on no grid of 1/255.
        return Case(network("digits").eval(), torch.randint(0, 17, (8, 8)) / 16, 1000, 300)
    if name == "small":
        return Case(small().eval(), image, 1000, 40)
    return Case(resnet((2, 2, 2, 2), False, False, 10), image, 64, 1)


def field_loop(one: Case, n: int) -> None:
    """What the field's scripts do: float32 noise from torch, no moments."""
    with torch.inference_mode():
        for start in range(0, n, one.batch_size):
            batch = one.x.expand(min(one.batch_size, n - start), *one.x.shape)
            one.model(batch + torch.randn_like(batch) * SIGMA).argmax(dim=1)


def card(one: Case, n: int, kind: str) -> Sampling:
    """Without a proposal, whose copies are some thousandths of a usual n."""
    plain = Sampling(n=n, batch_size=one.batch_size, seed=1, proposal="votes")
    return replace(plain, noise="grid", grid_step="1/16" if one.x.ndim == 2 else "1/255") if kind == GRID else plain


class Loop:
    """A loop over n samples, and its stages."""

    def __init__(self, name: str, kind: str, n: int) -> None:
        self.one, self.n, self.kind = case(name), n, kind
        self.engine, self.card = Engine(self.one.model, SIGMA, 10), card(self.one, n, kind)
        votes = self.engine.votes([Input(0, self.one.x)], replace(self.card, n0=1000))
        self.choice = Choice.of(votes[0])

    def whole(self) -> None:
        if self.kind in (HIS, KEPT):
            field_loop(self.one, self.n)
        else:
            counted = families(THREATS, self.one.x.numel())
            self.engine.moments([Input(0, self.one.x)], [self.choice], self.card, projections(THREATS), counted)

    def model(self) -> None:
        with torch.inference_mode():
            batch = self.one.x.expand(self.one.batch_size, *self.one.x.shape).contiguous()
            for _ in range(0, self.n, self.one.batch_size):
                self.one.model(batch).argmax(dim=1)

    def noise(self) -> None:
        if self.kind in (HIS, KEPT):
            batch = self.one.x.expand(self.one.batch_size, *self.one.x.shape)
            for _ in range(0, self.n, self.one.batch_size):
                batch + torch.randn_like(batch) * SIGMA
            return
        segments = [Segment(0, 0, FIRST, 0, self.n)]
        for _ in self.engine.noise([Input(0, self.one.x)], segments, self.card, BatchSize(self.one.batch_size)):
            pass


def spent(function: Callable[[], None]) -> tuple[float, float, float, int]:
    """Wall seconds, CPU seconds, those of them in the kernel, page faults."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    function()
    after = resource.getrusage(resource.RUSAGE_SELF)
    system = after.ru_stime - before.ru_stime
    return time.perf_counter() - start, system + after.ru_utime - before.ru_utime, system, after.ru_minflt - before.ru_minflt


def serve(pipe: Connection, name: str, kind: str, n: int, threads: int) -> None:
    """A process that runs stages when asked."""
    if kind != HIS:
        keep_freed()
    set_threads(threads)
    loop = Loop(name, kind, n)
    pipe.send(loop.choice.against / max(loop.choice.n0, 1))
    while stage := pipe.recv():
        pipe.send(spent(getattr(loop, stage)))


def compare(console: Console, name: str, n: int, rounds: int, threads: int) -> None:
    """Alternating rounds; medians, and medians of the ratios within a round."""
    context, pipes, processes = multiprocessing.get_context("spawn"), {}, []
    for kind in (HIS, KEPT, GAUSSIAN, GRID):
        pipes[kind], other = context.Pipe()
        processes.append(context.Process(target=serve, args=(other, name, kind, n, threads)))
        processes[-1].start()
    against = {kind: pipe.recv() for kind, pipe in pipes.items()}
    seen: dict[tuple[str, str], list[tuple[float, float, float, int]]] = {}
    stages = ["whole"] * rounds + ["noise", "model"]
    for stage in ["whole", "noise", "model", *stages]:
        for kind, pipe in pipes.items():
            pipe.send(stage)
            seen.setdefault((kind, stage), []).append(pipe.recv())
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send("")
        process.join()
    title = f"{name}: {n} samples a round, {threads} threads, {100 * against[GRID]:.0f} % of votes against"
    heads = ("time", "over his", "over his, memory kept", "CPU over his", "noise", "model", "rest", "in the kernel", "faults")
    table = Table("microseconds a sample", *heads, title=title, title_justify="left")
    for kind in pipes:
        # The first of each warms up.
        runs = {stage: seen[kind, stage][1:] for stage in ("whole", "noise", "model")}
        his, kept = (seen[base, "whole"][1:] for base in (HIS, KEPT))
        pairs = ((0, his), (0, kept), (1, his))
        ratios = [statistics.median(a[i] / b[i] for a, b in zip(runs["whole"], base, strict=True)) for i, base in pairs]
        each = {stage: [statistics.median(column) / n for column in zip(*times, strict=True)] for stage, times in runs.items()}
        wall, total, system, faults = each["whole"]
        parts = (each["noise"][1], each["model"][1], total - each["noise"][1] - each["model"][1], system)
        row = (f"{1e6 * wall:.1f}", *(f"{ratio:.2f}" for ratio in ratios), *(f"{1e6 * part:.1f}" for part in parts))
        table.add_row(kind, *row, f"{faults:.2f}")
    console.print(table)


def peak_memory(n: int, kind: str) -> float:
    """MiB at most held by a process of its own that draws n samples of a linear model."""
    command = [sys.executable, "-c", f"import sampling; sampling.hold({n}, {kind!r})"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent).stdout)


def hold(n: int, kind: str) -> None:
    """Draw n samples and print the peak memory of the process."""
    keep_freed()
    one = Case(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10)), torch.randint(0, 256, (3, 8, 8)) / 255, 1000, 1)
    counted = families(THREATS, 192)
    Engine(one.model, SIGMA, 10).moments([Input(0, one.x)], [Choice(0)], card(one, n, kind), projections(THREATS), counted)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=256, help="of a ResNet-18 a round; other networks draw more")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--networks", default="digits,small,ResNet-18")
    parser.add_argument("--no-memory", action="store_true")
    arguments = parser.parse_args()
    console = Console(width=170)
    # Memory first: a process may inherit the peak of the one that starts it.
    for kind in () if arguments.no_memory else (GAUSSIAN, GRID):
        held = {n: peak_memory(n, kind) for n in (10**4, 10**6)}
        text = ", ".join(f"{mib:.0f} MiB for n = {n:.0e}" for n, mib in held.items())
        console.print(f"{kind}: peak memory of a linear model at 3x8x8 in batches of 1000: {text}")
    for name in arguments.networks.split(","):
        for threads in map(int, arguments.threads.split(",")):
            compare(console, name, arguments.samples * case(name).samples, arguments.rounds, threads)


if __name__ == "__main__":
    main()
