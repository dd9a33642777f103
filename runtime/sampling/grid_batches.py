"""Grid noise (grid.py) of several streams cut into batches, as noise.py does it for Gaussian noise."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import torch

from .cells import Law, law
from .grid import Stream, draw_torch, form, form_torch, perturb
from .memory import BatchSize, most_rows
from .noise import Piece, Segment, buffers, each

# Numbers of a thread's task.
TASK = 2**18


@dataclass(frozen=True)
class Grid:
    """Noise of a level on a grid of a step."""

    law: Law
    step: Fraction
    """In input units."""

    @classmethod
    def of(cls, sigma: float, step: Fraction, taus: tuple[float, ...] = ()) -> "Grid":
        """Of noise level sigma, in input units, with cells split at thresholds, sigma = 1 units. ValueError as `cells.law`."""
        return cls(law(Fraction(sigma) / step, taus), step)

    def charge(self, n: int, d: int) -> float:
        """What the law drawn may add to the probability of any event of n samples of d numbers, rounded up."""
        return n * d * self.law.variation * (1.0 + 1e-12)

    def settings(self, n: int, d: int) -> dict[str, str | float]:
        """As a statistics file tells it."""
        return {"kind": "grid", "step": str(self.step), "variation": self.law.variation, "charge": self.charge(n, d)}


class GridBatch(NamedTuple):
    """Codes of the noise (int16) and noisy inputs (float32), both of shape (B, d); overwritten by the next batch."""

    u: torch.Tensor
    noisy: torch.Tensor
    pieces: list[Piece]
    levels: torch.Tensor
    grid: Grid

    def perturb(self) -> None:
        """Form the noisy inputs again: a model may have changed them in place."""
        for segment, where in self.pieces:
            out, codes, levels = self.noisy[where], self.u[where], self.levels[segment.slot]
            if out.device.type == "cpu":
                form(self.grid.law, codes.numpy(), levels.numpy(), self.grid.step, out.numpy())
            else:
                form_torch(self.grid.law, codes, levels, self.grid.step, out)


class _Task(NamedTuple):
    """Rows of a batch: those from `start` on of a stream, for one input."""

    rows: slice
    stream: Stream
    start: int
    slot: int


def grid_batches(seed: int, levels: torch.Tensor, grid: Grid, segments: Sequence[Segment], size: BatchSize) -> Iterator[GridBatch]:
    """All rows of the segments in order, in batches of at most `size.rows` that may span several segments.

    Args:
        seed: key of the noise.
        levels: the inputs of the group over the step, int32, shape (slots, d), on the device that the noise is made on.
        grid: of the noise.
        segments: what to draw.
        size: read anew for every batch.
    """
    d, device = levels.shape[1], levels.device
    left = sum(segment.stop - segment.start for segment in segments)
    most = min(left, size.rows, most_rows(d, device, torch.float32))
    all_codes, all_noisy = buffers(most, d, device, (torch.int16, torch.float32), size)
    queue = [(segment, segment.start) for segment in reversed(segments) if segment.stop > segment.start]
    # Rows of a task: enough for a thread to be worth it.
    rows = max(1, TASK // d) if device.type == "cpu" else len(all_codes)
    while left:
        height = min(left, size.rows, len(all_codes))
        codes, noisy = all_codes[:height], all_noisy[:height]
        pieces: list[Piece] = []
        tasks: list[_Task] = []
        filled = 0
        while filled < height:
            segment, start = queue.pop()
            take = min(segment.stop - start, height - filled)
            pieces.append(Piece(segment, slice(filled, filled + take)))
            for done in range(0, take, rows):
                part = slice(filled + done, filled + min(done + rows, take))
                tasks.append(_Task(part, Stream(seed, segment.index, segment.stage), start + done, segment.slot))
            if start + take < segment.stop:
                queue.append((segment, start + take))
            filled += take
        each(partial(_prepare, grid, levels, codes, noisy), tasks, device, min(height, rows) * d)
        yield GridBatch(codes, noisy, pieces, levels, grid)
        left -= height


def _prepare(grid: Grid, levels: torch.Tensor, codes: torch.Tensor, noisy: torch.Tensor, task: _Task) -> None:
    k, out, x = codes[task.rows], noisy[task.rows], levels[task.slot]
    if codes.device.type == "cpu":
        perturb(grid.law, task.stream, task.start, k.numpy(), x.numpy(), grid.step, out.numpy())
    else:
        draw_torch(grid.law, task.stream, task.start, k)
        form_torch(grid.law, k, x, grid.step, out)
