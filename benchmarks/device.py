"""What a GPU has to do for a sample besides the model: operations and bytes of its route, counted on a CPU's tensors.

No GPU is needed and none is timed. Every operation is taken to read its arguments from memory and to write its result there, as
separate kernels do: bytes over a device's bandwidth are near its time, and what a compiler fuses comes off. A tenth of votes are
against. The work of a ResNet-50 is counted on tensors without contents (FakeTensor).

Run: python benchmarks/device.py [--rows N] [--bandwidth GB/S] [--tflops T]
"""

import argparse
from fractions import Fraction
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from certlut.sampling.bets import DEVICE_STRIP, Tally
from certlut.sampling.grid_bets import GridTally
from certlut.sampling.grid_noise import Grid, GridNoise
from certlut.sampling.noise import Gaussian, draw_blocks
from certlut.sampling.streams import FIRST, Stream
from certlut.threats.sets import L1, L2, LINF, projections
from networks import resnet

D, SIGMA, STEP = 3 * 224 * 224, 0.5, Fraction(1, 255)


class Traffic(TorchDispatchMode):
    """Counts operations, and the bytes of their tensors; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.bytes = 0, 0

    def __torch_dispatch__(self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if not function.is_view:
            tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
            self.operations += 1
            self.bytes += sum(x.numel() * x.element_size() for x in {id(x): x for x in tensors}.values())
        return result


def counted(rows: int) -> dict[str, Traffic]:
    """Stages of a batch of so many rows."""
    out: dict[str, Traffic] = {}
    x, levels = torch.rand(1, D, dtype=torch.float64), torch.randint(0, 256, (1, D), dtype=torch.int32)
    u, noisy = torch.empty((rows, D), dtype=torch.float64), torch.empty((rows, D))
    codes, votes = torch.empty((rows, D), dtype=torch.int16), torch.arange(rows) % 10 > 0
    gaussian, grid = Gaussian(1, x, SIGMA, torch.float32), GridNoise(1, levels, Grid.of(SIGMA, STEP))
    parts, stream, device = projections((L1, L2, LINF)), Stream(1, 0, FIRST), torch.device("cpu")
    w = torch.full((D,), D**-0.5, dtype=torch.float64)
    with Traffic() as out["Gaussian: draw"]:
        draw_blocks(stream, 0, u)
    with Traffic() as out["Gaussian: noisy inputs"]:
        torch.add(gaussian.centers[0], u, alpha=SIGMA, out=noisy)
    with Traffic() as out["grid: draw, noisy inputs"]:
        grid.draw_torch(codes, noisy, stream, 0, 0)
    plain = Tally(parts, D, 80 * rows, (1, 100), device, w)
    whole = GridTally(parts, D, 80 * rows, (1, 100), device, w, law=grid.grid.law)
    for name, tally, noise in (("Gaussian: sums and bets", plain, u), ("grid: sums and bets", whole, codes)):
        # What chooses the route.
        tally._cpu = False
        tally._strip = DEVICE_STRIP // D
        # Beginning a stage is rare.
        tally.add(noise[:1], votes[:1])
        with Traffic() as out[name]:
            tally.add(noise, votes)
    return out


def work(batch: int) -> int:
    """Floating-point operations of a ResNet-50 for one input of 3x224x224, a product and a sum being two."""
    with FakeTensorMode(), torch.inference_mode(), FlopCounterMode(display=False) as flops:
        resnet((3, 4, 6, 3), True, True, 1000)(torch.empty(batch, 3, 224, 224))
    return int(flops.get_total_flops() // batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--bandwidth", type=float, default=4800.0, help="of the device's memory, GB/s")
    parser.add_argument("--tflops", type=float, default=200.0, help="of the model's operations that the device gets done, 10^12/s")
    arguments = parser.parse_args()
    flops = work(2)
    table = Table("per sample", "operations a batch", "bytes", "over a read of it in float32", "microseconds at the bandwidth")
    for name, seen in counted(arguments.rows).items():
        moved = seen.bytes / arguments.rows
        row = (f"{moved:.2e}", f"{moved / (4 * D):.0f}", f"{moved / arguments.bandwidth / 1e3:.1f}")
        table.add_row(name, f"{seen.operations}", *row)
    console = Console(width=130)
    console.print(table)
    took = f"{flops / arguments.tflops / 1e6:.1f} microseconds at {arguments.tflops:g} TFLOP/s"
    console.print(f"ResNet-50: {flops / 1e9:.1f} GFLOP a sample, {took}")


if __name__ == "__main__":
    main()
