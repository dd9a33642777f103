"""Votes and moments of a model under noise, in torch, on the model's device: no host round-trip within a batch.

Sums are float64 throughout (bets.py). A sum of n terms in batches of B rounds by at most (B + n/B) 2^-53 sum |u| per coordinate,
for n = 1e6 and B = 1000 less than 4e-10 of its standard deviation sqrt(n)/2.
"""

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from ..bounds.early_stop import must_abstain, next_look
from ..statistics.summary import Moments
from ..threats.projections import Projection
from ..threats.sets import ALL
from .bets import Tally
from .card import Options
from .memory import BatchSize, out_of_memory
from .noise import FIRST, SECOND, SELECTION, Piece, Segment, batches, block_rows
from .scores import Model, check_company, scores_of

Input = tuple[int, torch.Tensor]

WHOLE = {ALL: Projection()}
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def check_input(x: Any, name: str = "input", **counts: int) -> torch.Tensor:
    """`x` as a tensor; ValueError, with its name, unless it is finite real numbers and every count is 1 or more."""
    for count, value in counts.items():
        if value < 1:
            raise ValueError(f"{count} = {value}: expected 1 or more")
    tensor: torch.Tensor = torch.as_tensor(x)
    if tensor.numel() == 0 or tensor.is_complex() or not torch.isfinite(tensor).all():
        raise ValueError(f"{name} of shape {tuple(tensor.shape)}: expected finite real numbers, without a batch axis")
    return tensor


class Sampler:
    """Draws noisy votes of `model` around inputs.

    Args:
        model: maps a batch (B, *shape) to scores (B, num_classes); put in eval mode where it is a Module.
        sigma: noise level in the model's input units.
        num_classes: number of columns the scores must have.
        seed: the same seed gives the same noise for the same index.
        options: precision and memory format to run the model in, and whether to stop early.
    """

    def __init__(self, model: Model, sigma: float, num_classes: int, seed: int, options: Options | None = None) -> None:
        self.model, self.sigma, self.num_classes, self.seed = model, sigma, num_classes, seed
        self.options = options or Options()
        self._run = model
        if backend := self.options.compile:
            self._run = cast(Model, torch.compile(model, backend="inductor" if backend is True else backend))
        # What memory once refused is not tried again.
        self._limit: int | None = None

    def votes(self, x: torch.Tensor, n: int, index: int, batch_size: int) -> npt.NDArray[np.int64]:
        """Votes per class among n samples of the selection stage, shape (num_classes,)."""
        votes: npt.NDArray[np.int64] = self.group_votes([(index, x)], n, batch_size)[0]
        return votes

    def moments(self, x: torch.Tensor, label: int, n: int, index: int, batch_size: int) -> Moments:
        """Sums over two halves of n fresh samples, f being the vote for `label`."""
        return self.group_moments([(index, x)], [label], n, batch_size)[0]

    def check_company(self, x: torch.Tensor) -> None:
        """ValueError where the model scores a row of a batch by the others (scores.py)."""
        device, dtype = self._place([(0, x)])
        check_company(self.scores, x, self.sigma, torch.finfo(dtype).eps, device)

    @torch.inference_mode()
    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """The model's scores of a batch as it is, shape (B, num_classes), without options; ValueError as `scores_of`."""
        device, dtype = self._place([(0, x)])
        self._eval()
        return scores_of(self.model, x.to(device, dtype), self.num_classes)

    def group_votes(self, inputs: Sequence[Input], n: int, batch_size: int) -> npt.NDArray[np.int64]:
        """Votes per class of several (index, input) of one shape, shape (len(inputs), num_classes)."""
        counts = torch.zeros((len(inputs), self.num_classes), dtype=torch.int64, device=self._place(inputs)[0])
        segments = [Segment(slot, index, SELECTION, 0, n) for slot, (index, _) in enumerate(inputs)]
        for _, predicted, pieces in self._predictions(inputs, segments, batch_size):
            for segment, rows in pieces:
                # Not bincount: it would wait for the device.
                counts[segment.slot].index_add_(0, predicted[rows], torch.ones_like(predicted[rows]))
        votes: npt.NDArray[np.int64] = counts.cpu().numpy()
        return votes

    def group_moments(
        self,
        inputs: Sequence[Input],
        labels: Sequence[int],
        n: int,
        batch_size: int,
        allowed: int | None = None,
        parts: Mapping[str, Projection] = WHOLE,
        against: Sequence[tuple[int, int]] | None = None,
    ) -> list[Moments]:
        """`moments` of several (index, input) of one shape, f being the vote for the label of each.

        Args:
            inputs: (index, input), one shape.
            labels: the class of each.
            n: samples of each, in two halves, the first before the second.
            batch_size: rows of a batch; one may span inputs.
            allowed: votes against (`early_stop.tolerance`); an input is stopped where its abstention is certain. When to look
                depends on its votes alone, so what is drawn does not depend on the batch size.
            parts: of the gradient that is bet on.
            against: of each input, votes against its class among the selection samples, and how many these were.
        """
        d, device = inputs[0][1].numel(), self._place(inputs)[0]
        tallies = [Tally(parts, d, n, seen, device) for seen in against or [(0, 0)] * len(inputs)]
        halves, rows = (n // 2, n - n // 2), block_rows(d)
        # Not before both halves have a sample.
        start = n if allowed is None else max(halves[0] + 1, next_look(n, allowed, 0, 0))
        goals = dict.fromkeys(range(len(inputs)), start)
        drawn = np.zeros((len(inputs), 2), dtype=np.int64)
        while goals:
            segments = []
            for slot, goal in goals.items():
                for half, wanted in enumerate((min(goal, halves[0]), max(goal - halves[0], 0))):
                    # Up to the end of a noise block.
                    stop, before = min(halves[half], -(-wanted // rows) * rows), int(drawn[slot, half])
                    if stop > before:
                        segments.append(Segment(slot, inputs[slot][0], (FIRST, SECOND)[half], before, stop))
                        drawn[slot, half] = stop
            for u, predicted, pieces in self._predictions(inputs, segments, batch_size):
                for segment, where in pieces:
                    tallies[segment.slot].add(u[where], predicted[where] == labels[segment.slot])
            if allowed is None:
                break
            counts = [int(tally.count.sum()) for tally in tallies]
            goals = _goals(goals, n, allowed, counts, drawn.sum(axis=1).tolist())
        return [tally.moments() for tally in tallies]

    def _eval(self) -> None:
        if isinstance(self.model, torch.nn.Module):
            # A torch.export program has no modes and refuses to change them.
            with contextlib.suppress(NotImplementedError):
                self.model.eval()

    def _place(self, inputs: Sequence[Input]) -> tuple[torch.device, torch.dtype]:
        """Device and type of the model, or of the inputs where it is no Module or has no parameters."""
        x = inputs[0][1]
        if isinstance(self.model, torch.nn.Module):
            tensors = itertools.chain(self.model.parameters(), self.model.buffers())
            parameter = next((p for p in tensors if p.is_floating_point()), None)
            if parameter is not None:
                return parameter.device, parameter.dtype
        return x.device, x.dtype if x.is_floating_point() else torch.float32

    def _predictions(
        self, inputs: Sequence[Input], segments: Sequence[Segment], batch_size: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[Piece]]]:
        """Batches of (u, predicted class, pieces); u is float64 of shape (B, d). Out of memory: half the batch, from there on."""
        x, (device, dtype) = inputs[0][1], self._place(inputs)
        self._eval()
        rounded = dtype if torch.finfo(dtype).bits <= 32 else torch.float32
        centers = torch.stack([x.detach().to(device, torch.float64).reshape(-1) for _, x in inputs])
        missing = torch.zeros(len(inputs), dtype=torch.bool, device=device)
        size = BatchSize(min(batch_size, self._limit or batch_size))
        for batch in batches(self.seed, centers, self.sigma, segments, size, rounded):
            u, noisy, pieces = batch.u, batch.noisy, batch.pieces
            predicted = torch.empty(len(u), dtype=torch.int64, device=device)
            nan = torch.empty(len(u), dtype=torch.bool, device=device)
            start = 0
            while start < len(u):
                rows = slice(start, start + size.rows)
                if self._score(noisy[rows], dtype, x.shape, predicted[rows], nan[rows]):
                    start += size.rows
                elif size.halve(device):
                    batch.perturb()
                else:
                    raise ValueError(f"out of memory with a single input of shape {tuple(x.shape)} a batch")
            if size.rows < batch_size:
                self._limit = size.rows
            for segment, where in pieces:
                missing[segment.slot] |= nan[where].any()
            yield u, predicted, pieces
        if missing.any():
            index = inputs[int(missing.to(torch.uint8).argmax())][0]
            raise ValueError(f"the model returned NaN scores at input {index}")

    @torch.inference_mode()
    def _score(self, rows: torch.Tensor, dtype: torch.dtype, shape: torch.Size, predicted: torch.Tensor, nan: torch.Tensor) -> bool:
        """Write the class of every row, and whether a score is NaN; False, nothing written, where memory does not suffice."""
        precision = _AUTOCAST.get(self.options.autocast or "")
        try:
            x = rows.to(dtype).reshape(-1, *shape)
            if self.options.channels_last and x.ndim == 4:
                x = x.contiguous(memory_format=torch.channels_last)
            with torch.autocast(x.device.type, precision) if precision else contextlib.nullcontext():
                scores = scores_of(self._run, x, self.num_classes)
            classes, any_nan = scores.argmax(dim=1), scores.isnan().any(dim=1)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return False
        predicted.copy_(classes)
        nan.copy_(any_nan)
        return True


def _goals(goals: dict[int, int], n: int, allowed: int, count: list[int], drawn: list[int]) -> dict[int, int]:
    """The inputs to go on with, and how far."""
    return {
        slot: next_look(n, allowed, count[slot], drawn[slot])
        for slot in goals
        if drawn[slot] < n and not must_abstain(count[slot], drawn[slot], allowed)
    }
