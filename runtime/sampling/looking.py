"""Sampling in looks: the inputs of a group go on together, look by look, until a rule stops each of them (bounds/looks.py).

At look k an input has the first n_k / 2 samples of either half, and what is made of them is what a run with n = n_k makes of them,
up to the order of sums: halves, stages and stakes are that run's. Bets of an earlier look were staked for other numbers of samples;
they are placed anew from the start: the classes that the model gave were kept, and as much of the noise as there is room for; the
rest is drawn again, being keyed.

The model's gradient costs some thousand passes: it is proposed from the first look on that has DEAR samples for each of its copies,
and at the last one. That depends on the schedule alone; before, bets go by votes, at the same levels.

All inputs that go on draw to their next look at once, in full batches. Which rows share a batch depends on the group alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from ..bounds.looks import Rule, Verdict
from ..statistics.summary import Moments, Statistics
from ..threats.families import Family
from ..threats.projections import Projection
from .card import Sampling
from .engine import Choice, Counted, Engine, Input, both_halves
from .memory import BatchSize
from .proposal import VOTES, Proposal
from .streams import FIRST, SECOND, Piece, Segment

DEAR = 10
# Numbers of noise that a group keeps; one input's are copied once more when they are counted.
ROOM = 2**24

Rows = tuple[torch.Tensor, torch.Tensor, list[Piece]]


class Looked(NamedTuple):
    """One input when it was stopped."""

    moments: Moments
    verdict: Verdict


@dataclass(frozen=True)
class Wanted:
    """What is kept of samples, as for `Engine.moments`, and how statistics are made of it."""

    parts: Mapping[str, Projection]
    families: Mapping[str, Family]
    summarise: Callable[[Sequence[Moments]], Statistics]


@dataclass
class _Seen:
    """The classes that the model gave an input's samples and their noise, both by half, and the votes for its own."""

    halves: dict[int, list[torch.Tensor]] = field(default_factory=lambda: {FIRST: [], SECOND: []})
    noise: dict[int, list[torch.Tensor]] = field(default_factory=lambda: {FIRST: [], SECOND: []})
    count: int | torch.Tensor = 0
    whole: bool = True
    """Whether all of the noise was kept."""

    def forget(self) -> int:
        """Let the noise go; how many numbers it was."""
        freed = sum(u.numel() for kept in self.noise.values() for u in kept)
        self.noise, self.whole = {FIRST: [], SECOND: []}, False
        return freed


class Looking:
    """A group of inputs of one shape.

    Args:
        engine: draws.
        inputs: one shape.
        choices: the class of each, and its votes.
        card: how samples are drawn.
        wanted: what is kept of them.
    """

    def __init__(self, engine: Engine, inputs: Sequence[Input], choices: Sequence[Choice], card: Sampling, wanted: Wanted) -> None:
        self.engine, self.inputs, self.choices, self.card, self.wanted = engine, inputs, choices, card, wanted
        self._kind = torch.int16 if engine.num_classes < 2**15 else torch.int32
        self._seen = [_Seen() for _ in inputs]
        self._proposals: dict[int, Proposal] = {}
        self._room = ROOM

    def until(self, rule: Rule) -> list[Looked]:
        """Draw until the rule has stopped every input."""
        looks, before, done = rule.looks, 0, dict[int, Looked]()
        going = list(range(len(self.inputs)))
        for look, n in enumerate(looks.sizes, 1):
            card = replace(self.card, n=n)
            fresh = self._draw(going, before, n)
            known: dict[int, Moments] = {}
            if look == 1:
                known = dict(self._tally(fresh, card))
            else:
                for _ in fresh:
                    pass
            verdicts = {slot: rule.by_votes(int(self._seen[slot].count), look, self.choices[slot].divided) for slot in going}
            needed = [slot for slot, verdict in verdicts.items() if verdict is not Verdict.GO_ON or n == looks.n]
            for slot in needed:
                if slot not in known:
                    known |= self._tally(self._again(slot, n), card)
            if asked := [slot for slot, verdict in verdicts.items() if verdict is None]:
                statistics = self.wanted.summarise([replace(known[slot], looks=look) for slot in asked])
                verdicts |= zip(asked, rule.by_statistics(statistics, look), strict=True)
            for slot, verdict in verdicts.items():
                if verdict is not None and (verdict is not Verdict.GO_ON or n == looks.n):
                    done[slot] = Looked(replace(known[slot], looks=look), verdict)
                    self._room += self._seen[slot].forget()
                    self._seen[slot] = _Seen()
            going, before = [slot for slot in going if slot not in done], n
            if not going:
                break
        return [done[slot] for slot in range(len(self.inputs))]

    def _draw(self, going: Sequence[int], before: int, n: int) -> Iterator[Rows]:
        """New samples, remembered on the way."""
        segments = [segment for slot in going for segment in both_halves(slot, self.inputs[slot].idx, before, n)]
        for u, predicted, pieces in self.engine.predictions(self.inputs, segments, self.card):
            for segment, where in pieces:
                seen = self._seen[segment.slot]
                seen.halves[segment.stage].append(predicted[where].to(self._kind))
                seen.count = seen.count + (predicted[where] == self.choices[segment.slot].label).sum()
                if seen.whole:
                    self._keep(seen, segment.stage, u[where])
            yield u, predicted, pieces

    def _keep(self, seen: _Seen, stage: int, u: torch.Tensor) -> None:
        """An input's noise, all of it or none."""
        if u.numel() > self._room:
            self._room += seen.forget()
            return
        self._room -= u.numel()
        seen.noise[stage].append(u.clone())

    def _again(self, slot: int, n: int) -> Iterator[Rows]:
        """All samples of an input once more, in batches of its own: its noise needs no room for the others."""
        one, seen, start = self.inputs[slot], self._seen[slot], 0
        classes = torch.cat([*seen.halves[FIRST], *seen.halves[SECOND]]).long()
        if seen.whole:
            u, segments = torch.cat([*seen.noise[FIRST], *seen.noise[SECOND]]), both_halves(slot, one.idx, 0, n)
            for rows in u.split(self.card.batch_size):
                yield rows, classes[start : start + len(rows)], list(_cut(segments, start, len(rows)))
                start += len(rows)
            return
        for batch in self.engine.noise([one], both_halves(0, one.idx, 0, n), self.card, BatchSize(self.card.batch_size)):
            pieces = [Piece(replace(segment, slot=slot), rows) for segment, rows in batch.pieces]
            yield batch.u, classes[start : start + len(batch.u)], pieces
            start += len(batch.u)

    def _tally(self, rows: Iterable[Rows], card: Sampling) -> Iterator[tuple[int, Moments]]:
        """Moments of every input in these rows, in which it has card.n."""
        open_: dict[int, Counted] = {}
        for u, predicted, pieces in rows:
            for segment, where in pieces:
                slot = segment.slot
                if slot not in open_:
                    open_[slot] = self._counted(slot, card)
                open_[slot].add(u[where], predicted[where])
                if open_[slot].drawn == card.n:
                    yield slot, open_.pop(slot).moments()

    def _counted(self, slot: int, card: Sampling) -> Counted:
        one, choice, proposal = self.inputs[slot], self.choices[slot], VOTES
        if card.n == self.card.n or card.n >= DEAR * self.card.copies:
            if slot not in self._proposals:
                self._proposals[slot] = self.engine.proposal(one, choice, self.card)
            proposal = self._proposals[slot]
        return self.engine.counted(one, choice, proposal, card, self.wanted.parts, self.wanted.families)


def _cut(segments: Sequence[Segment], start: int, size: int) -> Iterator[Piece]:
    """The pieces of rows start to start + size - 1 of the segments, one after another."""
    for segment in segments:
        length = segment.stop - segment.start
        first, last = max(start, 0), min(start + size, length)
        if first < last:
            yield Piece(segment, slice(first - start, last - start))
        start -= length
