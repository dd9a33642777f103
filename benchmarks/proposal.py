"""How well the model's own gradient proposes the direction of the smoothed vote's, and what that costs.

Cosine: between w and y, which is known from the votes of two halves of --known samples, X and Y: w.(X + Y) / (2 sqrt(X.Y)), as
X.Y estimates |y|^2 without bias. Beside it the mean of --votes hard votes, which a run of twice as many could propose from.
Cost: seconds of one proposal over those of sampling n = 100,000, which is timed on fewer samples of an already warm sampler.

Run: python benchmarks/proposal.py [--mnist FOLDER] [--inputs N] [--known N] [--votes N] [--rounds R] [--no-cosine] [--no-cost]
FOLDER: IDX files as MNIST's or Fashion-MNIST's, gzipped or not.
"""

import argparse
import gzip
import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from certlut.inputs.data import Arrays
from certlut.report import bundled
from certlut.sampling.card import Sampling
from certlut.sampling.engine import Choice, Engine, Input
from certlut.sampling.memory import BatchSize
from certlut.sampling.proposal import Proposal, Source, batch_rows, propose
from networks import resnet, small

Array = npt.NDArray[np.float64]

CPU = torch.device("cpu")
COPIES = (100, 250, 1000, 4000)
N, WARM = 100_000, 2000


def idx(folder: Path, name: str) -> npt.NDArray[np.uint8]:
    """An IDX file's array; its header is a magic number whose last byte counts the axes, then their sizes."""
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise SystemExit(f"{folder}: no file {name} or {name}.gz")
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    axes = raw[3]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(np.frombuffer(raw, ">i4", axes, 4))


def mnist(folder: Path, sigma: float) -> tuple[nn.Module, Arrays]:
    """A small convolutional network trained with noise, and the test set."""
    sets = []
    for stem, most in (("train", 20_000), ("t10k", 200)):
        x, y = idx(folder, f"{stem}-images-idx3-ubyte")[:most], idx(folder, f"{stem}-labels-idx1-ubyte")[:most]
        sets.append(Arrays((x[:, None] / 255.0).astype(np.float32), y.astype(np.int64)))
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(32 * 49, 128), nn.ReLU(), nn.Linear(128, 10))
    return bundled.fit(model, sets[0], sigma, 6), sets[1]


def cases(folder: Path | None) -> Iterator[tuple[str, float, nn.Module, Arrays]]:
    for name, epochs in (("digits", 60), ("patches", 15)):
        data = bundled.load(name)
        for sigma in (0.25, 0.5):
            yield name, sigma, bundled.train(name, data.train, sigma, epochs), data.test
    if folder is not None:
        for sigma in (0.25, 0.5):
            yield folder.name, sigma, *mnist(folder, sigma)


def halves(model: nn.Module, x: torch.Tensor, sigma: float, label: int, n: int, seed: int) -> tuple[float, Array, Array]:
    """(share of votes, X, Y): the means of u (f - share) over two halves."""
    generator, rows = torch.Generator().manual_seed(seed), min(2000, 2**21 // x.numel())
    sums, count, drawn = np.zeros((2, 2, x.numel())), np.zeros(2), np.zeros(2)
    with torch.inference_mode():
        for batch in range(2 * (n // (2 * rows))):
            u = torch.randn((rows, *x.shape), generator=generator)
            f = (model(x + sigma * u).argmax(dim=1) == label).float()
            flat, half = u.reshape(rows, -1), batch % 2
            sums[half] += torch.stack((f @ flat, flat.sum(dim=0))).double().numpy()
            count[half], drawn[half] = count[half] + float(f.sum()), drawn[half] + rows
    q = count.sum() / drawn.sum()
    first, second = ((sums[half, 0] - q * sums[half, 1]) / drawn[half] for half in range(2))
    return q, first, second


def proposed(model: nn.Module, x: torch.Tensor, sigma: float, label: int, n: int, classes: int) -> Proposal:
    source = Source(model, classes, sigma, 1, CPU, torch.float32)
    return propose(source, x, label, 0, BatchSize(batch_rows(x.numel())), "gradient", n)


def cosine_table(folder: Path | None, inputs: int, known: int, votes: int) -> Table:
    columns = [f"N = {n}" for n in COPIES]
    out = Table("network", "sigma", "q", "|y| / largest", *columns, f"{votes:,} votes", title=f"cosine with y ({known:,} votes)")
    for name, sigma, model, data in cases(folder):
        done, index = 0, 0
        with torch.inference_mode():
            classes = model(torch.from_numpy(data.x[:1])).shape[1]
        for index in track(range(len(data)), f"{name} {sigma}", transient=True):
            x = torch.from_numpy(data.x[index])
            with torch.inference_mode():
                seen = torch.bincount(model(x + sigma * torch.randn((500, *x.shape))).argmax(dim=1), minlength=classes)
            label = int(seen.argmax())
            # A vote that is never against has no gradient to be found.
            if not 275 < int(seen[label]) < 500:
                continue
            q, first, second = halves(model, x, sigma, label, known, 2)
            size = math.sqrt(max(float(first @ second), 1e-300))
            cells = [
                float(proposed(model, x, sigma, label, n, classes).w.numpy() @ (first + second)) / (2.0 * size) for n in COPIES
            ]
            _, one, two = halves(model, x, sigma, label, votes, 3)
            cells.append(float((one + two) @ (first + second)) / (2.0 * size * np.linalg.norm(one + two)))
            rim = math.exp(-0.5 * statistics.NormalDist().inv_cdf(q) ** 2) / math.sqrt(2.0 * math.pi)
            out.add_row(name, f"{sigma:g}", f"{q:.4f}", f"{size / rim:.3f}", *(f"{cell:.3f}" for cell in cells))
            done += 1
            if done == inputs:
                break
        out.add_section()
    return out


def cost_table(rounds: int) -> Table:
    out = Table("network", "proposal, s", f"n = {N:,}, s", "share", title="cost of a proposal of 1,000 copies")
    networks = (
        ("digits (d = 64)", bundled.network("digits"), (8, 8), 20_000),
        ("patches (d = 3,072)", bundled.network("patches"), (3, 32, 32), 10_000),
        ("small (d = 3,072)", small(), (3, 32, 32), 10_000),
        ("ResNet-18 (d = 3,072)", resnet((2, 2, 2, 2), False, False, 10), (3, 32, 32), 1000),
    )
    for name, model, shape, n in networks:
        x = torch.full(shape, 0.4)
        classes = model.eval()(x[None]).shape[1]
        engine, inputs, choices = Engine(model, 0.5, classes), [Input(0, x)], [Choice(0, 10, 100)]
        proposed(model, x, 0.5, 0, 100, classes)
        engine.moments(inputs, choices, Sampling(n=min(WARM, n), seed=1))
        first, second = [], []
        for _ in range(rounds):
            start = time.perf_counter()
            proposed(model, x, 0.5, 0, 1000, classes)
            middle = time.perf_counter()
            engine.moments(inputs, choices, Sampling(n=n, seed=1))
            first.append(middle - start)
            second.append((time.perf_counter() - middle) * N / n)
        a, b = statistics.median(first), statistics.median(second)
        out.add_row(name, f"{a:.3f}", f"{b:.1f}", f"{100.0 * a / b:.1f} %")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help="folder of IDX files")
    parser.add_argument("--inputs", type=int, default=6, help="of each network")
    parser.add_argument("--known", type=int, default=400_000)
    parser.add_argument("--votes", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-cosine", action="store_true")
    parser.add_argument("--no-cost", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=140)
    if not arguments.no_cost:
        console.print(cost_table(arguments.rounds))
    if not arguments.no_cosine:
        console.print(cosine_table(arguments.mnist, arguments.inputs, arguments.known, arguments.votes))


if __name__ == "__main__":
    main()
