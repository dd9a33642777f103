"""Noise of several streams cut into batches that may span them. Memory is O(batch * d), whatever n is.

Noise of a row depends on its stream and place alone, be it batch size, threads, shard or a resumed run.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import torch

from .memory import BatchSize, most_rows, out_of_memory
from .streams import Piece, Segment, Stream

T = TypeVar("T")

# Numbers of a thread's task on a CPU.
TASK = 2**18


class Noise(Protocol):
    """A kind of noise around the inputs of a group."""

    @property
    def seed(self) -> int:
        """Key of the noise."""

    @property
    def centers(self) -> torch.Tensor:
        """The inputs, shape (slots, d), on the device that noise is made on."""

    @property
    def dtypes(self) -> tuple[torch.dtype, torch.dtype]:
        """Of what is kept of the noise, and of noisy inputs."""

    def draw(self, u: torch.Tensor, noisy: torch.Tensor, stream: Stream, start: int, slot: int) -> None:
        """Rows start, start + 1, ... of a stream, and the noisy inputs that they make of one of the group, in place."""

    def form(self, u: torch.Tensor, noisy: torch.Tensor, slot: int) -> None:
        """The noisy inputs alone."""


class Batch(NamedTuple):
    """Noise u and noisy inputs, both of shape (B, d); overwritten by the next batch."""

    u: torch.Tensor
    noisy: torch.Tensor
    pieces: list[Piece]
    noise: Noise

    def perturb(self) -> None:
        """Form the noisy inputs again: a model may have changed them in place."""
        for segment, rows in self.pieces:
            self.noise.form(self.u[rows], self.noisy[rows], segment.slot)


class _Task(NamedTuple):
    """Rows of a batch: those from `start` on of a stream, for one input."""

    rows: slice
    stream: Stream
    start: int
    slot: int


def batches(noise: Noise, segments: Sequence[Segment], size: BatchSize) -> Iterator[Batch]:
    """All rows of the segments in order, in batches of at most `size.rows`, which is read anew for every batch."""
    d, device = noise.centers.shape[1], noise.centers.device
    left = sum(segment.stop - segment.start for segment in segments)
    all_u, all_noisy = _buffers(min(left, size.rows, most_rows(d, device, noise.dtypes[1])), d, device, noise.dtypes, size)
    queue = [(segment, segment.start) for segment in reversed(segments) if segment.stop > segment.start]
    # Rows of a task: enough for a thread to be worth it.
    rows = max(1, TASK // d) if device.type == "cpu" else len(all_u)
    while left:
        height = min(left, size.rows, len(all_u))
        u, noisy = all_u[:height], all_noisy[:height]
        pieces: list[Piece] = []
        tasks: list[_Task] = []
        filled = 0
        while filled < height:
            segment, start = queue.pop()
            take = min(segment.stop - start, height - filled)
            pieces.append(Piece(segment, slice(filled, filled + take)))
            for done in range(0, take, rows):
                part = slice(filled + done, filled + min(done + rows, take))
                tasks.append(_Task(part, Stream(noise.seed, segment.index, segment.stage), start + done, segment.slot))
            if start + take < segment.stop:
                queue.append((segment, start + take))
            filled += take
        _each(partial(_draw, noise, u, noisy), tasks, device, min(height, rows) * d)
        yield Batch(u, noisy, pieces, noise)
        left -= height


def _draw(noise: Noise, u: torch.Tensor, noisy: torch.Tensor, task: _Task) -> None:
    noise.draw(u[task.rows], noisy[task.rows], task.stream, task.start, task.slot)


def _buffers(
    rows: int, d: int, device: torch.device, dtypes: tuple[torch.dtype, torch.dtype], size: BatchSize
) -> tuple[torch.Tensor, torch.Tensor]:
    """Room for the noise and the noisy inputs of `rows` rows, or of as many as memory allows."""
    while True:
        try:
            # A caller's inference mode is not that of the threads that fill them.
            with torch.inference_mode(False):
                u = torch.empty((rows, d), dtype=dtypes[0], device=device)
                return u, torch.empty((rows, d), dtype=dtypes[1], device=device)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or not size.halve(device):
                raise
        rows = min(rows, size.rows)


def _each(prepare: Callable[[T], None], tasks: Sequence[T], device: torch.device, numbers: int) -> None:
    """Do the tasks, of so many numbers each; on the CPU with as many threads as torch uses, where a task is worth it.

    NumPy and Numba let go of the interpreter's lock, and their threads do not wait for one another after every step as torch's do.
    """
    threads = min(len(tasks), torch.get_num_threads())
    if device.type != "cpu" or threads < 2 or numbers < TASK // 4:
        for task in tasks:
            prepare(task)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(prepare, tasks):
            pass
