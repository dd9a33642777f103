"""What certificates are made from: an input's selection votes, and the statistics of its fresh samples. No table, no estimator."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..bounds.budget import check_looks, check_n
from ..bounds.looks import GivingUp, Rule, Verdict
from ..kernels.arrays import real
from ..statistics.summary import GAUSSIAN, Moments, Statistics, summarise
from ..threats.declare import resolve
from ..threats.families import families, users
from ..threats.sets import Threat, check_shape, projections
from .card import AUTO, Sampling, whole
from .engine import Choice, Engine, Input, levels_of
from .grid_noise import Grid
from .identity import data_digest, places, probe, state_digest
from .levels import infer_step
from .looking import Looked, Looking, Wanted
from .scores import FEW, NUMBERS, Model, check_rows, line_of, placement

Data = Sequence[tuple[Any, int]]
# Numbers of an input -> the rule that stops such inputs.
Rules = Callable[[int], Rule]


class Drawn(NamedTuple):
    """What sampling leaves of one input."""

    votes: npt.NDArray[np.int64]
    """Per class, among the selection samples."""
    predict: int
    """The class chosen from them."""
    statistics: Statistics
    """Of the fresh samples that certify it."""
    verdict: Verdict = Verdict.GO_ON
    """Why there are no more of them."""


class Labelled(NamedTuple):
    """What sampling leaves of one input of a data set."""

    idx: int
    label: int
    drawn: Drawn
    seconds: float


def check_input(x: Any, name: str = "input") -> torch.Tensor:
    """`x` as a tensor; ValueError, with its name, unless it is finite real numbers."""
    if np.ma.is_masked(x):
        raise ValueError(f"{name} is a masked array: expected its gaps filled, x.filled(value)")
    if isinstance(x, np.ndarray) and not (x.dtype.isnative and x.flags.writeable and all(step >= 0 for step in x.strides)):
        # What torch does not take, or warns of: another byte order, a view backwards, a file that is mapped.
        x = np.array(x, dtype=x.dtype.newbyteorder("="), order="C")
    try:
        tensor: torch.Tensor = torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} is a {type(x).__name__}: expected a tensor or an array of numbers ({line_of(error)})") from None
    if tensor.layout != torch.strided or tensor.dtype not in NUMBERS:
        raise ValueError(
            f"{name} holds {tensor.dtype} ({tensor.layout}): expected real numbers in a dense array of a type that torch computes "
            f"with (bool, uint8, int8 to int64, float16 to float64)"
        )
    if tensor.numel() == 0 or not torch.isfinite(tensor).all():
        raise ValueError(f"{name} of shape {tuple(tensor.shape)}: expected finite real numbers, without a batch axis")
    return tensor


class Sampler:
    """Samples inputs of a smoothed classifier for several threats.

    Args:
        model: maps a batch (B, *shape) to scores (B, num_classes); a torch Module or any callable on tensors.
        sigma: noise level, in the model's input units.
        num_classes: number of classes.
        threats: "l1", "l2", "linf", Lp(...), Sparse(...), Subspace(...), Direction(...), Line(...); "l2" is always added.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self, model: Model, sigma: float, num_classes: int, threats: Sequence[str | Threat] = ("l1", "l2", "linf")
    ) -> None:
        sigma = real("sigma", sigma)
        if not (np.isfinite(sigma) and sigma > 0):
            raise ValueError(f"sigma = {sigma}: expected a positive number")
        if not callable(model):
            raise ValueError(
                f"model is a {type(model).__name__}: expected a function of a batch, as an nn.Module (load_model opens files)"
            )
        self.model, self.sigma, self.num_classes = model, sigma, whole("num_classes", num_classes, 2)
        self.threats = resolve(threats)
        self.engine = Engine(model, self.sigma, self.num_classes)
        # Shape -> rows of the largest batch that was seen to be scored row by row.
        self._seen: dict[torch.Size, int] = {}
        self._obstacles: dict[torch.Size, str] = {}

    def sample(self, x: Any, card: Sampling, index: int = 0, rules: Rules | None = None) -> Drawn:
        """Selection votes and certification statistics of one input; a card with a goal needs the rules that stop at it.

        Raises:
            ValueError: an input with NaN, a shape that disagrees with a threat's, an n that cannot reach alpha (said before
                sampling), a model that returns NaN or another number of classes, or scores a row of a batch by the others.
        """
        return next(self.sample_group([(whole("index", index, 0, 2**63 - 1), x)], card, rules))

    def sample_group(self, inputs: Sequence[tuple[int, Any]], card: Sampling, rules: Rules | None = None) -> Iterator[Drawn]:
        """`sample` of several (index, x); inputs of one shape share batches."""
        checked = [self._check(index, x) for index, x in inputs]
        grid = self._check_noise(card, [(f"input {index}", x) for index, x in checked])
        for _, x in checked:
            self.check_rows([x], card.rows(len(checked)))
        card = self.resolved(card.seeded(), checked[0].x)
        alike = len({(x.shape, x.dtype, x.device) for _, x in checked}) == 1
        for group in [checked] if alike else [[item] for item in checked]:
            votes = self.engine.votes(group, card)
            choices = [Choice.of(row) for row in votes]
            for row, choice, (sums, verdict) in zip(votes, choices, self._looked(group, choices, card, rules, grid), strict=True):
                yield Drawn(row, choice.label, self._summarise([sums], card, grid), verdict)

    def _looked(
        self, group: Sequence[Input], choices: Sequence[Choice], card: Sampling, rules: Rules | None, grid: Grid | None
    ) -> list[Looked]:
        """One shape; all n samples of each where the card has no looks."""
        d = group[0].x.numel()
        parts, counted = projections(self.threats), families(self.threats, d) if card.thresholds else {}
        if card.schedule is None:
            return [Looked(sums, Verdict.GO_ON) for sums in self.engine.moments(group, choices, card, parts, counted)]
        if rules is None and card.goal:
            raise ValueError("goal: expected rules that say when it is reached")
        rule = GivingUp(card.schedule, card.alpha) if rules is None else rules(d)
        wanted = Wanted(parts, counted, lambda moments: self._summarise(moments, card, grid))
        return Looking(self.engine, group, choices, card, wanted).until(rule)

    def _summarise(self, moments: Sequence[Moments], card: Sampling, grid: Grid | None) -> Statistics:
        described = {} if card.schedule is None else card.schedule.describe()
        noise = GAUSSIAN if grid is None else grid.settings(card.n, moments[0].sum_u.shape[1])
        statistics = summarise(moments, self.threats, self.sigma, card.keep_means, noise)
        return replace(statistics, proposal=card.proposed, schedule=described)

    def resolved(self, card: Sampling, x: torch.Tensor) -> Sampling:
        """The card with proposal "auto" made "votes" where the model gives no gradient: levels depend on that, never on samples."""
        if card.proposal == "votes":
            return card
        if x.shape not in self._obstacles:
            self._obstacles[x.shape] = self.engine.obstacle(x)
        why = self._obstacles[x.shape]
        if why and card.proposal == "gradient":
            raise ValueError(f"proposal = 'gradient': the model gives none ({why}); 'auto' or 'votes' does without")
        return replace(card, proposal="votes") if why else card

    @property
    def obstacle(self) -> str:
        """Why the model proposed no gradients so far, in a line; empty where it does or was not asked."""
        return next((why for why in self._obstacles.values() if why), "")

    def draw(self, data: Data, group: range, card: Sampling, skip: int = 1, rules: Rules | None = None) -> Iterator[Labelled]:
        """Each input of a group of places in `data`; its noise is that of place index * skip in the whole set."""
        start = time.perf_counter()
        items = [data[index] for index in group]
        inputs = [(index * skip, x) for index, (x, _) in zip(group, items, strict=True)]
        drawn = list(self.sample_group(inputs, card, rules))
        seconds = (time.perf_counter() - start) / len(group)
        for index, (_, label), one in zip(group, items, drawn, strict=True):
            yield Labelled(index, int(label), one, seconds)

    def fit(self, data: Data, card: Sampling) -> Sampling:
        """The card with the step of the data's grid where it is left to them. ValueError: they are on none (levels.py)."""
        if card.grid_step != AUTO or not len(data):
            return card
        arrays = (check_input(data[place][0], f"input {place}").detach().cpu().to(torch.float64).numpy() for place in places(data))
        return replace(card, grid_step=infer_step(arrays, "inputs"))

    def settings(self, data: Data, card: Sampling) -> dict[str, Any]:
        """All that the statistics of a data set depend on, by which a stopped job is known again. ValueError before sampling."""
        scores: list[float] = []
        if len(data):
            spread = sorted({i * (len(data) - 1) // 15 for i in range(16)})
            inputs = [check_input(data[place][0], f"input {place}") for place in spread]
            check_shape(self.threats, tuple(inputs[0].shape))
            self._check_noise(card, [(f"input {place}", x) for place, x in zip(spread, inputs, strict=True)])
            scores = probe(self.engine.scores, inputs, self.sigma)
            self.check_rows(inputs[::8], card.rows(len(data)))
            card = self.resolved(card, inputs[0])
        norms = {threat.name: said for threat in self.threats if (said := threat.settings()) is not None}
        return {
            "inputs": len(data),
            "shape": list(np.shape(data[0][0])) if len(data) else [],
            "data digest": data_digest(data),
            "model digest": state_digest(self.model),
            "model scores": scores,
            "sigma": self.sigma,
            "num_classes": self.num_classes,
            "threats": {name: part.key for name, part in projections(self.threats).items()},
            "norms": norms,
            **card.settings(),
        }

    def check_rows(self, inputs: Sequence[torch.Tensor], rows: int) -> None:
        """ValueError where the model scores a row of a batch by the others (scores.py); once for a shape and size of batch."""
        if rows > self._seen.get(inputs[0].shape, 1):
            device, dtype = placement(self.model, inputs[0])
            for x in inputs:
                # A dependence may begin above a number of rows: one batch of the run's own size, too.
                for size in sorted({FEW, max(FEW, rows)}):
                    check_rows(self.engine.scores, x, self.sigma, torch.finfo(dtype).eps, device, size)
            self._seen[inputs[0].shape] = rows

    def check_card(self, card: Sampling, d: int | None = None, noise: float = 0.0) -> None:
        """ValueError where n cannot reach alpha, or a look its part of it, or the goal names no threat.

        With d, the numbers of an input, at the level that is left to q where tails are counted; `noise` as in `split`.
        """
        card.goal.check([threat.name for threat in self.threats])
        counted = users(self.threats, d) if card.thresholds and d is not None else {}
        check_n(card.n, card.alpha, self.threats, families=counted, noise=noise)
        if card.schedule is not None:
            check_looks(card.schedule, card.alpha, self.threats, families=counted, noise=noise)

    def _check_noise(self, card: Sampling, inputs: Sequence[tuple[str, torch.Tensor]]) -> Grid | None:
        """The noise's grid, if any; ValueError where (name, input) are not on it, or n cannot reach the level left to q."""
        grid, d, charge = self.engine.grid(card), inputs[0][1].numel(), 0.0
        if grid is not None:
            charge = grid.charge(card.n, d)
            for name, x in inputs:
                levels_of(x, grid.step, name)
        self.check_card(card, d, charge)
        return grid

    def _check(self, index: int, x: Any) -> Input:
        tensor = check_input(x, f"input {index}")
        check_shape(self.threats, tuple(tensor.shape))
        # Not of abs: that of the least integer is itself.
        largest = max(abs(float(tensor.detach().max())), abs(float(tensor.detach().min())))
        if self.sigma < 1e-9 * largest:
            raise ValueError(f"sigma = {self.sigma}: vanishes in the rounding of an input as large as {largest:g}")
        return Input(index, tensor)
