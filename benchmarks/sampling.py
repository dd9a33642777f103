"""The sampler beside the bare loop of noise + model + argmax: time, and peak memory for n = 10^4 and 10^6.

Run: python benchmarks/sampling.py [--samples N] [--rounds R] [--threads T] [--no-memory] [--no-time]
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from certlut.sampling.card import Sampling
from certlut.sampling.engine import Choice, Engine, Input
from certlut.sampling.memory import BatchSize
from certlut.sampling.noise import FIRST, SECOND, Segment, batches
from networks import resnet, small

SIGMA = 0.5


def field_loop(model: torch.nn.Module, x: torch.Tensor, n: int, batch_size: int) -> None:
    """What the field's scripts do: float32 noise from torch, no moments."""
    with torch.inference_mode():
        for start in range(0, n, batch_size):
            batch = x.expand(min(batch_size, n - start), *x.shape)
            model(batch + torch.randn_like(batch) * SIGMA).argmax(dim=1)


def bare_loop(model: torch.nn.Module, x: torch.Tensor, n: int, batch_size: int) -> None:
    """The same with our noise: float64, in blocks."""
    segments = [Segment(0, 0, FIRST, 0, n // 2), Segment(0, 0, SECOND, 0, n - n // 2)]
    with torch.inference_mode():
        for batch in batches(1, x.reshape(1, -1).double(), SIGMA, segments, BatchSize(batch_size), torch.float32):
            model(batch.noisy.reshape(-1, *x.shape)).argmax(dim=1)


def ours(model: torch.nn.Module, x: torch.Tensor, card: Sampling) -> None:
    Engine(model, SIGMA, 10).moments([Input(0, x)], [Choice(0)], card)


def seconds(function: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def compare(table: Table, name: str, model: torch.nn.Module, x: torch.Tensor, n: int, batch_size: int, rounds: int) -> None:
    """Interleaved rounds, each loop once a round; medians of the times, and of the ratios within a round."""
    card = Sampling(n=n, batch_size=batch_size, seed=1)
    loops: dict[str, Callable[[], None]] = {
        "noise (torch.randn, float32) + model + argmax": lambda: field_loop(model, x, n, batch_size),
        "noise (ours) + model + argmax": lambda: bare_loop(model, x, n, batch_size),
        "Engine.moments": lambda: ours(model, x, card),
    }
    if x.device.type == "cuda":
        for precision in ("bf16", "fp16"):
            changed = replace(card, autocast=precision, channels_last=True)
            loops[f"Engine.moments, {precision}, channels last"] = lambda changed=changed: ours(model, x, changed)
    for loop in loops.values():
        loop()
    times: dict[str, list[float]] = {label: [] for label in loops}
    for _ in range(rounds):
        for label, loop in loops.items():
            times[label].append(seconds(loop, x.device))
    first, second = list(times.values())[:2]
    for label, values in times.items():
        ratios = [statistics.median(a / b for a, b in zip(values, base, strict=True)) for base in (first, second)]
        middle = statistics.median(values)
        table.add_row(name, label, f"{n / middle:.0f}", *(f"{ratio:.3f}" for ratio in ratios))


def peak_memory(n: int, device: str) -> float:
    """MiB at most held by a process of its own that draws n samples of a linear model."""
    code = f"import sampling; sampling.hold({n}, {device!r})"
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent).stdout)


def hold(n: int, device: str) -> None:
    """Draw n samples and print the peak memory: of the process, or of what torch holds on the GPU."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10)).to(device)
    ours(model, torch.rand(3, 8, 8, device=device), Sampling(n=n, seed=1))
    cpu = device == "cpu"
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 if cpu else torch.cuda.max_memory_allocated() / 2**20)


def times(console: Console, n: int, rounds: int) -> None:
    table = Table("network", "loop", "samples/s", "against the field's loop", "against the same noise")
    threads, image = torch.get_num_threads(), torch.rand(3, 32, 32)
    compare(table, f"ResNet-18, 3x32x32, CPU, {threads} threads", resnet((2, 2, 2, 2), False, False, 10), image, n, 64, rounds)
    compare(table, f"small, 3x32x32, CPU, {threads} threads", small().eval(), image, 40 * n, 1000, rounds)
    if torch.cuda.is_available():
        device, name = torch.device("cuda"), torch.cuda.get_device_name()
        net = resnet((2, 2, 2, 2), False, False, 10).to(device)
        compare(table, f"ResNet-18, 3x32x32, {name}", net, image.to(device), 100 * n, 2000, rounds)
        net = resnet((3, 4, 6, 3), True, True, 10).to(device)
        compare(table, f"ResNet-50, 3x224x224, {name}", net, torch.rand(3, 224, 224, device=device), 20 * n, 256, rounds)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--no-time", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    console = Console(width=160)
    # Memory first: a process may inherit the peak of the one that starts it.
    if not arguments.no_memory:
        for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
            held = {n: peak_memory(n, device) for n in (10**4, 10**6)}
            text = ", ".join(f"{mib:.0f} MiB for n = {n:.0e}" for n, mib in held.items())
            console.print(f"{device}: peak memory of a linear model at 3x8x8 in batches of 1000: {text}")
    if not arguments.no_time:
        times(console, arguments.samples, arguments.rounds)


if __name__ == "__main__":
    main()
