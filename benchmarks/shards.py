"""`certlut sample` as one process and as several shards side by side on one machine: wall time for the same total.

Run: python benchmarks/shards.py [--processes 1,2,4] [--inputs N] [--samples N] [--noise grid|gaussian] [--unshared]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", default="1,2,4")
    parser.add_argument("--inputs", type=int, default=24)
    parser.add_argument("--samples", type=int, default=40_000)
    parser.add_argument("--noise", default="grid")
    parser.add_argument("--unshared", action="store_true", help="each process with all cores, as torch starts")
    arguments = parser.parse_args()
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    options = ["--sigma", "0.25", "--num-classes", "10", "--n", str(arguments.samples), "--noise", arguments.noise, "--no-check"]
    if arguments.unshared:
        options += ["--threads", str(os.cpu_count())]
    table = Table("processes", "seconds", "over one process", title=f"{arguments.inputs} inputs x {arguments.samples} samples")
    first = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x = (np.random.default_rng(0).integers(0, 256, (arguments.inputs, 3, 32, 32)) / 255).astype(np.float32)
        np.savez(folder / "d.npz", x=x, y=np.zeros(len(x), dtype=np.int64))
        for count in map(int, arguments.processes.split(",")):
            command = [sys.executable, "-m", "certlut", "sample", "--model", f"{HERE / 'networks.py'}:small"]
            command += ["--data", str(folder / "d.npz"), "--out", str(folder / f"{count}.h5"), *options]
            start = time.perf_counter()
            running = [
                subprocess.Popen([*command, "--shard", f"{k}/{count}"], env=environment, stdout=subprocess.DEVNULL)
                for k in range(count)
            ]
            if any(process.wait() for process in running):
                raise SystemExit("a process failed")
            seconds = time.perf_counter() - start
            first = first or seconds
            table.add_row(str(count), f"{seconds:.1f}", f"{seconds / first:.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
