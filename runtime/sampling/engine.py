"""Votes and moments of a model under noise, in torch, on the model's device.

No host round-trip within a batch, except to pick the samples that bets take logarithms of, and those that tails are counted of.

Sums are float64 throughout (bets.py). A sum of n terms in batches of B rounds by at most (B + n/B) 2^-53 sum |u| per coordinate,
for n = 1e6 and B = 1000 less than 4e-10 of its standard deviation sqrt(n)/2.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from types import MappingProxyType
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch

from ..bounds.classes import undecided
from ..statistics.summary import Moments
from ..statistics.votes import Tail, kept_classes
from ..threats.families import Family
from ..threats.projections import Projection
from ..threats.sets import ALL
from .batches import Batch, batches
from .bets import Tally
from .card import Sampling
from .grid_bets import GridTally
from .grid_noise import Grid, GridNoise
from .levels import levels
from .memory import BatchSize, out_of_memory
from .noise import Gaussian
from .proposal import VOTES, Proposal, Source, batch_rows, obstacle, propose
from .scores import Model, line_of, placement, scores_of, set_to_eval
from .streams import FIRST, SECOND, SELECTION, Piece, Segment
from .tails import GridTails, TailTally

WHOLE = {ALL: Projection()}
NO_FAMILIES: Mapping[str, Family] = MappingProxyType({})
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Input(NamedTuple):
    """An input and its place in the data set, which its noise is keyed by."""

    idx: int
    x: torch.Tensor


def levels_of(x: torch.Tensor, step: Fraction, name: str) -> npt.NDArray[np.int32]:
    """The input as levels of the grid, int32, of its shape; ValueError where a value is on none."""
    return levels(x.detach().cpu().to(torch.float64).numpy(), step, name)


class Choice(NamedTuple):
    """What the selection samples chose."""

    label: int
    against: int = 0
    """Votes against it among them."""
    n0: int = 0
    """How many they were."""

    @property
    def divided(self) -> bool:
        """Whether it may be certified with fewer than half of the votes (bounds/classes.py)."""
        return bool(undecided(np.array([[self.n0 - self.against, self.n0]]))[0])

    @classmethod
    def of(cls, votes: npt.NDArray[np.int64]) -> "Choice":
        """The class with the most votes; of several the first."""
        label, n0 = int(votes.argmax()), int(votes.sum())
        return cls(label, n0 - int(votes[label]), n0)


class Engine:
    """Draws noisy votes of `model` around inputs.

    Args:
        model: maps a batch (B, *shape) to scores (B, num_classes); put in eval mode where it is a Module.
        sigma: noise level in the model's input units.
        num_classes: number of columns the scores must have.
    """

    def __init__(self, model: Model, sigma: float, num_classes: int) -> None:
        self.model, self.sigma, self.num_classes = model, sigma, num_classes
        self._compiled: dict[str, Model] = {}
        # What memory once refused is not tried again: rows of a batch, without gradients and with them.
        self._limit: int | None = None
        self._gradient_limit: int | None = None

    def votes(self, inputs: Sequence[Input], card: Sampling) -> npt.NDArray[np.int64]:
        """Votes per class of inputs of one shape among card.n0 samples of the selection stage, shape (len(inputs), num_classes)."""
        counts = torch.zeros((len(inputs), self.num_classes), dtype=torch.int64, device=placement(self.model, inputs[0].x).device)
        segments = [Segment(slot, idx, SELECTION, 0, card.n0) for slot, (idx, _) in enumerate(inputs)]
        for _, predicted, pieces in self.predictions(inputs, segments, card):
            for segment, rows in pieces:
                # Not bincount: it would wait for the device.
                counts[segment.slot].index_add_(0, predicted[rows], torch.ones_like(predicted[rows]))
        votes: npt.NDArray[np.int64] = counts.cpu().numpy()
        return votes

    def moments(
        self,
        inputs: Sequence[Input],
        choices: Sequence[Choice],
        card: Sampling,
        parts: Mapping[str, Projection] = WHOLE,
        families: Mapping[str, Family] = NO_FAMILIES,
    ) -> list[Moments]:
        """Sums, bets and counts of card.n fresh samples of inputs of one shape, f being the vote for the class chosen of each.

        Args:
            inputs: one shape.
            choices: the class of each, and its votes.
            card: n samples in two halves, the first before the second; a batch may span inputs.
            parts: of the gradient that is bet on.
            families: of directions along which votes against are counted.
        """
        tallies = [
            self.counted(one, choice, self.proposal(one, choice, card), card, parts, families)
            for one, choice in zip(inputs, choices, strict=True)
        ]
        segments = [segment for slot, one in enumerate(inputs) for segment in both_halves(slot, one.idx, 0, card.n)]
        for u, predicted, pieces in self.predictions(inputs, segments, card):
            for segment, where in pieces:
                tallies[segment.slot].add(u[where], predicted[where])
        return [one.moments() for one in tallies]

    def counted(
        self,
        one: Input,
        choice: Choice,
        proposal: Proposal,
        card: Sampling,
        parts: Mapping[str, Projection],
        families: Mapping[str, Family],
    ) -> "Counted":
        """Where card.n samples of an input are counted."""
        device, size = placement(self.model, one.x).device, one.x.numel()
        return Counted(choice, proposal, parts, families, size, card, self.num_classes, device, self.grid(card))

    def grid(self, card: Sampling) -> Grid | None:
        """The noise's grid, None for Gaussian noise; ValueError for a step that is still to come from data, or unfit for sigma."""
        if card.noise == "gaussian":
            return None
        if not isinstance(card.grid_step, Fraction):
            raise ValueError(f"grid_step = {card.grid_step}: expected a fraction such as 1/255 where no data set tells it")
        return Grid.of(self.sigma, card.grid_step, card.thresholds)

    def obstacle(self, x: torch.Tensor) -> str:
        """Why the model gives no gradient that could be proposed, in a line; empty where it does."""
        set_to_eval(self.model)
        return obstacle(self._source(x, 0), x)

    def proposal(self, one: Input, choice: Choice, card: Sampling) -> Proposal:
        """By `card.proposal`, from samples that serve nothing else."""
        if card.proposal == "votes":
            return VOTES
        set_to_eval(self.model)
        rows = min(card.batch_size, batch_rows(one.x.numel()), self._gradient_limit or card.batch_size)
        size = BatchSize(rows)
        proposal = propose(self._source(one.x, _seed(card)), one.x, choice.label, one.idx, size, card.proposal, card.copies)
        if size.rows < rows:
            self._gradient_limit = size.rows
        return proposal

    def _source(self, x: torch.Tensor, seed: int) -> Source:
        return Source(self.model, self.num_classes, self.sigma, seed, *placement(self.model, x))

    @torch.inference_mode()
    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """The model's scores of a batch as it is, shape (B, num_classes), without options; ValueError as `scores_of`."""
        set_to_eval(self.model)
        return scores_of(self.model, x.to(*placement(self.model, x)), self.num_classes)

    def predictions(
        self, inputs: Sequence[Input], segments: Sequence[Segment], card: Sampling
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[Piece]]]:
        """Batches of (u, predicted class, pieces); u is float64, or the codes of grid noise, of shape (B, d).

        Out of memory: half the batch, from there on.
        """
        x, (device, dtype) = inputs[0].x, placement(self.model, inputs[0].x)
        set_to_eval(self.model)
        missing = torch.zeros(len(inputs), dtype=torch.bool, device=device)
        size = BatchSize(min(card.batch_size, self._limit or card.batch_size))
        for batch in self.noise(inputs, segments, card, size):
            u, noisy, pieces = batch.u, batch.noisy, batch.pieces
            predicted = torch.empty(len(u), dtype=torch.int64, device=device)
            nan = torch.empty(len(u), dtype=torch.bool, device=device)
            start = 0
            while start < len(u):
                rows = slice(start, start + size.rows)
                if self._score(noisy[rows], x.shape, dtype, card, predicted[rows], nan[rows]):
                    start += size.rows
                elif size.halve(device):
                    batch.perturb()
                else:
                    raise ValueError(f"out of memory with a single input of shape {tuple(x.shape)} a batch")
            if size.rows < card.batch_size:
                self._limit = size.rows
            for segment, where in pieces:
                missing[segment.slot] |= nan[where].any()
            yield u, predicted, pieces
        if missing.any():
            idx = inputs[int(missing.to(torch.uint8).argmax())].idx
            raise ValueError(f"the model returned NaN scores at input {idx}")

    def noise(self, inputs: Sequence[Input], segments: Sequence[Segment], card: Sampling, size: BatchSize) -> Iterator[Batch]:
        """Noise and noisy inputs, of the kind that the card asks for; the model is not asked."""
        seed, (device, dtype) = _seed(card), placement(self.model, inputs[0].x)
        if (grid := self.grid(card)) is not None:
            whole = np.stack([levels_of(x, grid.step, f"input {idx}").reshape(-1) for idx, x in inputs])
            return batches(GridNoise(seed, torch.from_numpy(whole).to(device), grid), segments, size)
        centers = torch.stack([x.detach().to(device, torch.float64).reshape(-1) for _, x in inputs])
        rounded = dtype if torch.finfo(dtype).bits <= 32 else torch.float32
        return batches(Gaussian(seed, centers, self.sigma, rounded), segments, size)

    @torch.inference_mode()
    def _score(
        self,
        noisy: torch.Tensor,
        shape: torch.Size,
        dtype: torch.dtype,
        card: Sampling,
        predicted: torch.Tensor,
        nan: torch.Tensor,
    ) -> bool:
        """Write the class of every row, and whether a score is NaN; False, nothing written, where memory does not suffice."""
        precision = _AUTOCAST.get(card.autocast or "")
        try:
            x = noisy.to(dtype).reshape(-1, *shape)
            if card.channels_last and x.ndim == 4:
                x = x.contiguous(memory_format=torch.channels_last)
            with torch.autocast(x.device.type, precision) if precision else contextlib.nullcontext():
                scores = scores_of(self._model(card.compile), x, self.num_classes)
            classes, any_nan = scores.argmax(dim=1), scores.isnan().any(dim=1)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return False
        predicted.copy_(classes)
        nan.copy_(any_nan)
        return True

    def _model(self, compile: bool | str) -> Model:
        """The model, compiled once by the backend asked for."""
        if not compile:
            return self.model
        backend = "inductor" if compile is True else compile
        if backend not in self._compiled:
            try:
                self._compiled[backend] = cast(Model, torch.compile(self.model, backend=backend))
            except RuntimeError as error:
                # TorchScript, for one, or a backend that is not there.
                raise ValueError(f"compile = {compile}: {line_of(error)}") from error
        return self._compiled[backend]


class Counted:
    """All that is kept of one input's samples."""

    def __init__(
        self,
        choice: Choice,
        proposal: Proposal,
        parts: Mapping[str, Projection],
        families: Mapping[str, Family],
        d: int,
        card: Sampling,
        num_classes: int,
        device: torch.device,
        grid: Grid | None = None,
    ) -> None:
        self.choice, self.label = choice, choice.label
        self.classes = torch.zeros(num_classes, dtype=torch.int64, device=device)
        self.tails: TailTally | None = None
        # The copies' votes are as good as the selection's.
        against = choice.against + proposal.against, choice.n0 + proposal.n
        trial = proposal.seen, proposal.n
        if grid is None:
            self.tally = Tally(parts, d, card.n, against, device, proposal.w, trial)
            self.tails = TailTally(families, d, np.array(card.thresholds), device) if families else None
        else:
            self.tally = GridTally(parts, d, card.n, against, device, proposal.w, trial, law=grid.law)
            self.tails = GridTails(families, d, grid.law, device) if families else None

    @property
    def drawn(self) -> int:
        """Samples seen."""
        return sum(self.tally.drawn)

    def add(self, u: torch.Tensor, predicted: torch.Tensor) -> None:
        """Count rows of noise (codes where it is on a grid) and the classes that the model gave them."""
        votes = predicted == self.label
        self.tally.add(u, votes)
        self.classes.index_add_(0, predicted, torch.ones_like(predicted))
        if self.tails is not None:
            self.tails.add(u[~votes])

    def moments(self) -> Moments:
        """The first time that the device is waited for, where no tails are counted."""
        ids, counts = kept_classes(self.classes.cpu().numpy(), self.label)
        tails = {}
        if self.tails is not None:
            for name, largest in self.tails.largest().items():
                family = self.tails.families[name]
                slack = 0.0 if family.vectors is None else self.tails.slack
                tails[name] = Tail(family.key, self.tails.thresholds, largest[None], slack)
        chosen = self.choice.n0 - self.choice.against, self.choice.n0
        return replace(self.tally.moments(), classes=ids[None], class_count=counts[None], tails=tails, selection=chosen)


def both_halves(slot: int, idx: int, before: int, n: int) -> list[Segment]:
    """What n samples of an input need besides the first `before`: the first half before the second."""
    ends = ((FIRST, before // 2, n // 2), (SECOND, before - before // 2, n - n // 2))
    return [Segment(slot, idx, stage, start, stop) for stage, start, stop in ends if stop > start]


def _seed(card: Sampling) -> int:
    if card.seed is None:
        raise ValueError("seed = None: expected a seed (Sampling.seeded)")
    return card.seed
