"""Gaussian noise in fixed blocks, cut into batches that may span several streams. Memory is O(batch * d), whatever n is.

Noise is float64 and x + sigma u is formed in float64, then rounded once to float32 (or to the model's coarser type): the rounding
is part of the classifier. Noise on float32's own grid would let a model read x itself from the low bits of x + sigma u.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from .memory import BatchSize, most_rows, out_of_memory

T = TypeVar("T")

# Noise is made in blocks that depend on (seed, index, stage, block) alone: of at most this many rows and about this many numbers.
BLOCK_ROWS = 1024
BLOCK_SIZE = 2**18
SELECTION, FIRST, SECOND = 0, 1, 2
# Numbers that noise is added to at a time.
SCRATCH = 3 * 2**12


def block_rows(d: int) -> int:
    """Rows of one noise block for inputs of d numbers; part of what a seed means."""
    return max(1, min(BLOCK_ROWS, BLOCK_SIZE // d))


def fill_block(out: torch.Tensor, seed: int, index: int, stage: int, block: int) -> None:
    """Standard normals for one block, in place: `out` is float64 of shape (rows, d).

    On the CPU a counter-based generator (Philox, 128-bit key) whose counter starts at (block, stage, index): blocks cannot overlap,
    and fewer rows are the first rows of the block. torch's CPU generator keeps 32 bits of a seed and would repeat itself.
    On a GPU torch's own Philox, keyed by a 64-bit hash; there only whole blocks agree.
    """
    if out.device.type == "cpu":
        bits = np.random.Philox(key=np.array([seed, 0], dtype=np.uint64), counter=np.array([0, block, stage, index], np.uint64))
        np.random.Generator(bits).standard_normal(out=out.numpy())
    else:
        key = hashlib.blake2b(struct.pack("<4Q", seed, index, stage, block), digest_size=8).digest()
        generator = torch.Generator(out.device).manual_seed(int.from_bytes(key, "little") >> 1)
        out.normal_(generator=generator)


@dataclass(frozen=True)
class Segment:
    """Rows start to stop - 1 of the noise of (index, stage), for the input at place `slot` of a group."""

    slot: int
    index: int
    stage: int
    start: int
    stop: int


class Piece(NamedTuple):
    """The rows of one batch that belong to one segment."""

    segment: Segment
    rows: slice


class Batch(NamedTuple):
    """Noise u (float64) and noisy inputs x + sigma u, both of shape (B, d); overwritten by the next batch."""

    u: torch.Tensor
    noisy: torch.Tensor
    pieces: list[Piece]
    centers: torch.Tensor
    sigma: float

    def perturb(self) -> None:
        """Form the noisy inputs again: a model may have changed them in place."""
        for segment, where in self.pieces:
            _perturb(self.noisy[where], self.centers[segment.slot], self.u[where], self.sigma)


class _Task(NamedTuple):
    """Rows of a batch to be made noisy, after they are filled with a block of noise or, for None, as they are."""

    rows: slice
    segment: Segment
    block: int | None


def batches(
    seed: int, centers: torch.Tensor, sigma: float, segments: Sequence[Segment], size: BatchSize, dtype: torch.dtype
) -> Iterator[Batch]:
    """All rows of the segments in order, in batches of at most `size.rows` that may span several segments.

    Args:
        seed: key of the noise.
        centers: the inputs of the group, float64, shape (slots, d), on the device that the noise is made on.
        sigma: noise level in input units.
        segments: what to draw; the noise of a row does not depend on how rows are cut into batches.
        size: read anew for every batch.
        dtype: of the noisy inputs.
    """
    d, device = centers.shape[1], centers.device
    rows = block_rows(d)
    left = sum(segment.stop - segment.start for segment in segments)
    spare: torch.Tensor | None = None
    all_u, all_noisy = buffers(min(left, size.rows, most_rows(d, device, dtype)), d, device, (torch.float64, dtype), size)
    u, noisy = all_u, all_noisy
    tasks: list[_Task] = []
    pieces: list[Piece] = []
    filled = 0

    def prepare(task: _Task) -> None:
        if task.block is not None:
            fill_block(u[task.rows], seed, task.segment.index, task.segment.stage, task.block)
        _perturb(noisy[task.rows], centers[task.segment.slot], u[task.rows], sigma)

    for segment in segments:
        for block in range(segment.start // rows, -(-segment.stop // rows)):
            height, taken = min(rows, segment.stop - block * rows), max(segment.start - block * rows, 0)
            ready = False
            # A GPU's generator gives another noise to a part of a block.
            whole = height if device.type == "cpu" else rows
            while taken < height:
                room = len(u) - filled
                take = min(height - taken, room)
                in_place = take == height == whole
                tasks.append(_Task(slice(filled, filled + take), segment, block if in_place else None))
                if not in_place:
                    if not ready:
                        spare = spare if spare is not None else torch.empty((rows, d), dtype=torch.float64, device=device)
                        fill_block(spare[:whole], seed, segment.index, segment.stage, block)
                        ready = True
                    assert spare is not None
                    u[filled : filled + take] = spare[taken : taken + take]
                if pieces and pieces[-1].segment is segment:
                    pieces[-1] = Piece(segment, slice(pieces[-1].rows.start, filled + take))
                else:
                    pieces.append(Piece(segment, slice(filled, filled + take)))
                filled, taken = filled + take, taken + take
                if filled == len(u):
                    each(prepare, tasks, device, rows * d)
                    yield Batch(u, noisy, pieces, centers, sigma)
                    left -= filled
                    tasks, pieces, filled = [], [], 0
                    height_left = min(left, size.rows)
                    u, noisy = all_u[:height_left], all_noisy[:height_left]


def buffers(
    rows: int, d: int, device: torch.device, dtypes: tuple[torch.dtype, torch.dtype], size: BatchSize
) -> tuple[torch.Tensor, torch.Tensor]:
    """Room for the noise and the noisy inputs of `rows` rows, or of as many as memory allows."""
    while True:
        try:
            u = torch.empty((rows, d), dtype=dtypes[0], device=device)
            return u, torch.empty((rows, d), dtype=dtypes[1], device=device)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or not size.halve(device):
                raise
        rows = min(rows, size.rows)


def each(prepare: Callable[[T], None], tasks: Sequence[T], device: torch.device, numbers: int) -> None:
    """Do the tasks, of so many numbers each; on the CPU with as many threads as torch uses, where a task is worth it.

    NumPy and Numba let go of the interpreter's lock, and their threads do not wait for one another after every step as torch's do.
    """
    threads = min(len(tasks), torch.get_num_threads())
    if device.type != "cpu" or threads < 2 or numbers < BLOCK_SIZE // 4:
        for task in tasks:
            prepare(task)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(prepare, tasks):
            pass


def _perturb(out: torch.Tensor, center: torch.Tensor, u: torch.Tensor, sigma: float) -> None:
    """out = center + sigma u in float64, rounded once."""
    if out.device.type != "cpu" or out.dtype == torch.bfloat16:
        torch.add(center, u, alpha=sigma, out=out)
        return
    # Rows whose float64 sums fit into a cache, and into memory that no page has to be fetched for.
    step = max(1, SCRATCH // u.shape[1])
    for start in range(0, len(u), step):
        scaled = u[start : start + step].numpy() * sigma
        np.add(scaled, center.numpy(), out=scaled)
        out[start : start + step].numpy()[...] = scaled
