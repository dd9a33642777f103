"""The same network, inputs, n and alpha through Cohen et al.'s loop, the Adversarial Robustness Toolbox's certify, and ours.

Each runs in a process of its own: average certified radius by threat (wrong or abstaining: 0; theirs is the largest ball of the
threat inside their l2 ball), CPU seconds an input on one thread, peak memory, that of imports included. Needs the extra `bench`.

Run: python benchmarks/peers.py [--data digits|patches|mnist|...] [--folder F] [--sigma S] [--inputs N] [--n N]
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import beta, norm

from certlut import Certifier, Line, Sparse
from certlut.gains import average, gain
from certlut.report import bundled
from certlut.threats.declare import resolve
from certlut.threats.sets import L2, Threat, containment

N0, ALPHA, BATCH, EPOCHS = 100, 0.001, 1000, 30
Shape = tuple[int, ...]
Certified = tuple[int, dict[str, float]]
"""Predicted class or -1, radius by threat."""
Certify = Callable[[torch.Tensor, int], Certified]
"""(input, n)."""


def threats(shape: Shape) -> tuple[Threat, ...]:
    return resolve(("l1", "l2", "linf", Sparse(1), Line(np.ones(shape), name="brightness")))


def cohen(model: torch.nn.Module, classes: int, shape: Shape, sigma: float) -> Certify:
    """The paper's CERTIFY: counts, Clopper-Pearson, sigma Phi^-1."""

    def counts(x: torch.Tensor, n: int) -> np.ndarray:
        found = np.zeros(classes, dtype=int)
        with torch.inference_mode():
            for start in range(0, n, BATCH):
                batch = x.expand(min(BATCH, n - start), *x.shape)
                votes = model(batch + sigma * torch.randn_like(batch)).argmax(dim=1)
                found += torch.bincount(votes, minlength=classes).numpy()
        return found

    def certify(x: torch.Tensor, n: int) -> Certified:
        label = int(counts(x, N0).argmax())
        votes = int(counts(x, n)[label])
        lower = float(beta.ppf(ALPHA, votes, n - votes + 1)) if votes else 0.0
        return inside(label if lower > 0.5 else -1, sigma * float(norm.ppf(lower)), shape)

    return certify


def toolbox(model: torch.nn.Module, classes: int, shape: Shape, sigma: float) -> Certify:
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    made = PyTorchRandomizedSmoothing(
        model,
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=shape,
        nb_classes=classes,
        device_type="cpu",
        sample_size=N0,
        scale=sigma,
        alpha=ALPHA,
    )

    def certify(x: torch.Tensor, n: int) -> Certified:
        label, radius = made.certify(x[None].numpy(), n=n, batch_size=BATCH)
        return inside(int(label[0]), float(radius[0]), shape)

    return certify


def ours(certificate: str) -> Callable[..., Certify]:
    def make(model: torch.nn.Module, classes: int, shape: Shape, sigma: float) -> Certify:
        certifier = Certifier(model, sigma, classes, threats=threats(shape), seed=0, certificate=certificate)

        def certify(x: torch.Tensor, n: int) -> Certified:
            found = certifier.certify(x, n0=N0, n=n, alpha=ALPHA, batch_size=BATCH)
            return found.prediction, {threat.name: found.radius[threat.name] for threat in threats(shape)}

        return certify

    return make


def inside(label: int, radius: float, shape: Shape) -> Certified:
    """The largest ball of each threat in an l2 ball."""
    d = int(np.prod(shape))
    return label, {threat.name: max(radius, 0.0) / containment(threat, L2, d) for threat in threats(shape)}


METHODS: dict[str, Callable[..., Certify]] = {
    "Cohen et al.'s loop": cohen,
    "Adversarial Robustness Toolbox": toolbox,
    "certlut, first order": ours("first-order"),
    "certlut, with tails": ours("tails"),
}


def run(arguments: argparse.Namespace) -> None:
    """One method in this process; JSON to the file it is told."""
    data = bundled.load(arguments.data, arguments.folder)
    test = data.test[:: max(1, len(data.test) // arguments.inputs)][: arguments.inputs]
    shape = tuple(np.shape(test[0][0]))
    model = bundled.network(arguments.data)
    model.load_state_dict(torch.load(arguments.network))
    torch.manual_seed(0)
    # The toolbox draws from NumPy's global generator.
    np.random.seed(0)  # noqa: NPY002
    certify = METHODS[arguments.method](model.eval(), data.num_classes, shape, arguments.sigma)
    # What is compiled or loaded once is not timed.
    certify(torch.from_numpy(test[0][0]), 2000)
    radii: dict[str, list[float]] = {threat.name: [] for threat in threats(shape)}
    start = time.process_time()
    for x, label in track(test, arguments.method, transient=True):
        predicted, found = certify(torch.from_numpy(x), arguments.n)
        for name, column in radii.items():
            column.append(found[name] if predicted == label else 0.0)
    seconds = (time.process_time() - start) / len(test)
    # Of this program: getrusage's peak is handed down from the process that started it.
    status = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    arguments.out.write_text(json.dumps({"radii": radii, "seconds": seconds, "peak": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--folder", default="", help="of the files of mnist, fashion-mnist or cifar10")
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--inputs", type=int, default=10)
    parser.add_argument("--n", type=int, default=100_000)
    for hidden in ("--method", "--network"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.method:
        run(arguments)
        return
    data = bundled.load(arguments.data, arguments.folder)
    found: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        network, out = Path(folder) / "network.pt", Path(folder) / "out.json"
        epochs = EPOCHS if arguments.data == "digits" else EPOCHS // 6
        torch.save(bundled.train(arguments.data, data.train, arguments.sigma, epochs).state_dict(), network)
        for method in METHODS:
            command = [sys.executable, "-W", "ignore", *sys.argv, "--method", method, "--network", str(network), "--out", str(out)]
            subprocess.run(command, check=True)
            found[method] = json.loads(out.read_text())
    base = {name: average(np.array(column)) for name, column in next(iter(found.values()))["radii"].items()}
    title = f"{arguments.data}, sigma = {arguments.sigma:g}: {arguments.inputs} inputs, n = {arguments.n:,}, alpha = {ALPHA:g}"
    table = Table("method", *base, "CPU s", "peak MiB", title=title)
    for method, one in found.items():
        means = {name: average(np.array(column)) for name, column in one["radii"].items()}
        cells = [f"{mean:.4f}, {float(gain(mean, base[name])):+.1f} %" for name, mean in means.items()]
        table.add_row(method, *cells, f"{one['seconds']:.2f}", f"{one['peak']:.0f}")
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
