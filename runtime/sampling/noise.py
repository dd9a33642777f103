"""Gaussian noise: u in float64, and x + sigma u formed in float64, then rounded once to float32 (or to the model's coarser type).

The rounding is part of the classifier. Noise on float32's own grid would let a model read x itself from low bits of x + sigma u.
On the CPU any row is drawn alone (normals.py). On a GPU torch's own Philox fills blocks, keyed by a 64-bit hash of (seed, index,
stage, block): only whole blocks agree there, so a part of one is cut out of it.
"""

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
import torch

from .normals import draw
from .streams import Stream

# A GPU's noise is made in blocks of at most this many rows and about this many numbers; part of what a seed means there.
BLOCK_ROWS, BLOCK_SIZE = 1024, 2**18
# Numbers drawn, then numbers that a center is added to, at a time: in a cache from one to the other.
STRIP, SCRATCH = 2**15, 3 * 2**12


@dataclass(frozen=True)
class Gaussian:
    """Noise sigma u around inputs."""

    seed: int
    centers: torch.Tensor
    """float64, shape (slots, d)."""
    sigma: float
    """In input units."""
    dtype: torch.dtype
    """Of noisy inputs."""

    @property
    def dtypes(self) -> tuple[torch.dtype, torch.dtype]:
        """u is float64."""
        return torch.float64, self.dtype

    def draw(self, u: torch.Tensor, noisy: torch.Tensor, stream: Stream, start: int, slot: int) -> None:
        """As `batches.Noise`."""
        if u.device.type != "cpu":
            draw_blocks(stream, start, u)
            self.form(u, noisy, slot)
            return
        rows = max(1, STRIP // u.shape[1])
        for row in range(0, len(u), rows):
            some = slice(row, row + rows)
            draw(stream, start + row, u[some].numpy())
            self.form(u[some], noisy[some], slot)

    def form(self, u: torch.Tensor, noisy: torch.Tensor, slot: int) -> None:
        """center + sigma u in float64, rounded once."""
        center = self.centers[slot]
        if noisy.device.type != "cpu" or noisy.dtype == torch.bfloat16:
            torch.add(center, u, alpha=self.sigma, out=noisy)
            return
        step = max(1, SCRATCH // u.shape[1])
        for start in range(0, len(u), step):
            scaled = u[start : start + step].numpy() * self.sigma
            np.add(scaled, center.numpy(), out=scaled)
            noisy[start : start + step].numpy()[...] = scaled


def block_rows(d: int) -> int:
    """Rows of a GPU's block for inputs of d numbers."""
    return max(1, min(BLOCK_ROWS, BLOCK_SIZE // d))


def draw_blocks(stream: Stream, start: int, out: torch.Tensor) -> None:
    """Rows start, start + 1, ... of a stream, in place, by torch's generator: `out` is float64, shape (rows, d)."""
    d, stop = out.shape[1], start + len(out)
    rows = block_rows(d)
    for block in range(start // rows, -(-stop // rows)):
        low, high = max(start, block * rows), min(stop, (block + 1) * rows)
        target = out[low - start : high - start]
        whole = target if len(target) == rows else torch.empty((rows, d), dtype=torch.float64, device=out.device)
        key = hashlib.blake2b(struct.pack("<4Q", stream.seed, stream.index, stream.stage, block), digest_size=8).digest()
        whole.normal_(generator=torch.Generator(out.device).manual_seed(int.from_bytes(key, "little") >> 1))
        if whole is not target:
            target.copy_(whole[low - block * rows : high - block * rows])
