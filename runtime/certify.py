"""The whole chain for one input or a data set: votes, moments, bounds, radii."""

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .bounds.budget import check_n, split
from .bounds.early_stop import tolerance
from .evaluate import evaluate
from .jobs.atomic import check_out
from .jobs.groups import Record, run_groups
from .jobs.shards import group_size, groups
from .lookup.table import Table, load
from .runs.results import ABSTAIN, row, write_tsv
from .sampling.card import Options
from .statistics.summary import Statistics, summarise
from .threats.declare import resolve
from .threats.sets import Quantity, Threat, check_shape, projections

if TYPE_CHECKING:
    from .sampling.engine import Sampler
    from .sampling.scores import Model


@dataclass(frozen=True)
class Certificate:
    """What holds at one input with probability at least 1 - alpha: every radius but "cohen" at once."""

    prediction: int
    """The smoothed class; -1 where the certifier abstains, then every radius is 0.0."""
    radius: dict[str, float]
    """Threat -> radius in input units. "cohen": the zeroth-order l2 radius at the full alpha, a baseline outside the guarantee."""
    bounds: dict[str, float]
    """The confidence bounds behind the radii: "q_lower" and each norm of the gradient, sigma = 1 units."""
    counts: npt.NDArray[np.int64]
    """Votes per class among the n0 selection samples."""
    count: int
    """Votes for the class among the n certification samples."""
    n: int


class Drawn(NamedTuple):
    """What sampling leaves of one input."""

    counts: npt.NDArray[np.int64]
    """Votes per class among the selection samples."""
    label: int
    """The class chosen from them."""
    statistics: Statistics
    """Of the fresh samples that certify it."""


class Certifier:
    """Certifies inputs of a smoothed classifier against several threats from one set of samples.

    Args:
        model: maps a batch (B, *shape) to scores (B, num_classes); a torch Module or any callable on tensors.
        sigma: noise level, in the model's input units.
        num_classes: number of classes.
        table: radius surfaces; by default the shipped table.
        threats: "l1", "l2", "linf", Lp(...), Subspace(...), Direction(...); "l2" is always added.
        estimator: "adaptive" or "paper".
        seed: with a seed the noise depends on (seed, index) alone; without one it is fresh on every call.
        autocast: "bf16" or "fp16" runs the model under torch.autocast; this is another classifier than the plain model.
        channels_last: images in channels-last memory order.
        compile: True, or a backend's name: torch.compile.
        early_stop: stop an input as soon as its abstention is certain; `n` then says how many samples were drawn.
        keep_means: keep mean vectors in statistics files, 32 d bytes an input, so that threats thought of later can be certified.

    Raises:
        ValueError: an argument out of range, a threat that the estimator has no bound for, or a table bound to another sigma.
    """

    def __init__(
        self,
        model: "Model",
        sigma: float,
        num_classes: int,
        table: Table | None = None,
        threats: Sequence[str | Threat] = ("l1", "l2", "linf"),
        estimator: str = "adaptive",
        seed: int | None = None,
        *,
        autocast: str | None = None,
        channels_last: bool = False,
        compile: bool | str = False,
        early_stop: bool = False,
        keep_means: bool = False,
    ) -> None:
        if not (np.isfinite(sigma) and sigma > 0):
            raise ValueError(f"sigma = {sigma}: expected a positive number")
        if num_classes < 2:
            raise ValueError(f"num_classes = {num_classes}: expected 2 or more")
        if seed is not None and not 0 <= seed < 2**63:
            raise ValueError(f"seed = {seed}: expected 0 <= seed < 2**63")
        self.model, self.sigma, self.num_classes = model, float(sigma), int(num_classes)
        self.seed = None if seed is None else int(seed)
        self.options = Options(autocast, channels_last, compile, early_stop)
        self.threats, self.estimator, self.keep_means = resolve(threats), estimator, keep_means
        # Any alpha: refuses an unknown estimator, and threats that it has no bound for.
        split(0.5, self.threats, estimator)
        self.table = table or load()
        self.table.check_sigma(self.sigma)
        self._company_checked = False

    @cached_property
    def _sampler(self) -> "Sampler":
        from .sampling.engine import Sampler

        return Sampler(self.model, self.sigma, self.num_classes, self.seed or 0, self.options)

    def check_company(self, inputs: Sequence[Any], batch_size: int) -> None:
        """Once: ValueError where the model scores a row of a batch by the others, for batches of 2 or more."""
        if batch_size > 1 and not self._company_checked:
            for x in inputs:
                self._sampler.check_company(x)
                self._company_checked = True

    def sample(self, x: Any, n0: int, n: int, alpha: float, batch_size: int, index: int = 0) -> Drawn:
        """Selection votes and certification statistics of one input."""
        return next(self.sample_group([(index, x)], n0, n, alpha, batch_size))

    def sample_group(self, inputs: Sequence[tuple[int, Any]], n0: int, n: int, alpha: float, batch_size: int) -> Iterator[Drawn]:
        """`sample` of several (index, x); inputs of one shape share batches."""
        from .sampling.engine import check_input

        check_n(n, alpha, self.threats, self.estimator)
        checked = []
        for index, x in inputs:
            tensor = check_input(x, f"input {index}", n0=n0, batch_size=batch_size)
            check_shape(self.threats, tuple(tensor.shape))
            # Not of abs: that of the least integer is itself.
            largest = max(abs(float(tensor.detach().max())), abs(float(tensor.detach().min())))
            if self.sigma < 1e-9 * largest:
                raise ValueError(f"sigma = {self.sigma}: vanishes in the rounding of an input as large as {largest:g}")
            checked.append((index, tensor))
        sampler = self._sampler
        self.check_company([x for _, x in checked[:1]], batch_size)
        sampler.seed = secrets.randbits(63) if self.seed is None else self.seed
        allowed = tolerance(n, alpha) if self.options.early_stop else None
        alike = len({(x.shape, x.dtype, x.device) for _, x in checked}) == 1
        for group in [checked] if alike else [[item] for item in checked]:
            counts = sampler.group_votes(group, n0, batch_size)
            labels = [int(votes.argmax()) for votes in counts]
            against = [(n0 - int(votes.max()), n0) for votes in counts]
            drawn = sampler.group_moments(group, labels, n, batch_size, allowed, projections(self.threats), against)
            for votes, label, moments in zip(counts, labels, drawn, strict=True):
                yield Drawn(votes, label, summarise([moments], self.threats, self.sigma, self.keep_means))

    def certify(
        self, x: Any, n0: int = 100, n: int = 100_000, alpha: float = 0.001, batch_size: int = 1000, index: int = 0
    ) -> Certificate:
        """Certify one input.

        Args:
            x: tensor or array of any shape, without a batch axis.
            n0: samples to choose the class from; they are not used again.
            n: fresh samples to certify it with.
            alpha: probability that any radius is wrong, for all threats together.
            batch_size: samples per forward pass.
            index: position of the input in its data set; with a seed, inputs of different index get independent noise.

        Raises:
            ValueError: an input with NaN, a shape that disagrees with a threat's, an n that cannot reach alpha (said before
                sampling), a model that returns NaN or another number of classes.
        """
        return self._certificate(self.sample(x, n0, n, alpha, batch_size, index), alpha)

    def _certificate(self, drawn: Drawn, alpha: float) -> Certificate:
        counts, label, statistics = drawn
        result = evaluate(statistics, self.threats, alpha, self.estimator, self.table)
        sure = bool(result.q_lower[0] > 0.5)
        bounds: dict[Quantity | str, float] = {"q_lower": float(result.q_lower[0])}
        bounds |= {quantity: float(bound[0]) for quantity, bound in result.bounds.items()}
        return Certificate(
            label if sure else ABSTAIN,
            {name: float(radius[0]) if sure else 0.0 for name, radius in result.radius.items()},
            {str(name): bound for name, bound in bounds.items()},
            counts,
            int(statistics.count.sum()),
            int(statistics.n.sum()),
        )

    def certify_dataset(
        self,
        data: Sequence[tuple[Any, int]],
        out: str | os.PathLike[str],
        n0: int = 100,
        n: int = 100_000,
        alpha: float = 0.001,
        batch_size: int = 1000,
        progress: bool = True,
    ) -> list[dict[str, str]]:
        """Certify every (input, label) of `data` and write the results TSV `out`; returns its rows.

        Each finished input goes to a journal beside `out`: stopped at any moment, the same call goes on behind it. The journal
        is gone once `out` is complete; a complete `out` is replaced.

        Raises:
            ValueError: as `certify`; or a journal that was started with other settings, with the difference named.
        """
        out = check_out(out)
        settings = self.settings(data, n0, n, alpha, batch_size) | {
            "estimator": self.estimator,
            "table": self.table.digest,
            "alpha": float(alpha),
        }
        rows: list[dict[str, str]] = []

        def work(group: range) -> Iterator[Record]:
            for index, label, drawn, seconds in self.draw(data, group, n0, n, alpha, batch_size):
                start = time.perf_counter()
                c = self._certificate(drawn, alpha)
                seconds += time.perf_counter() - start
                yield {**row(index, label, c.prediction, seconds, c.count, c.n, c.bounds["q_lower"], c.radius)}

        def write(records: Iterator[Record]) -> None:
            rows.extend(records)
            write_tsv(out, rows)

        pieces = groups(len(data), group_size(n, batch_size))
        verb = f"certifying sigma={self.sigma:g}"
        run_groups(out, settings, pieces, work, write, verb, lambda record: record["correct"] == "1", progress)
        return rows

    def draw(
        self, data: Sequence[tuple[Any, int]], group: range, n0: int, n: int, alpha: float, batch_size: int, skip: int = 1
    ) -> Iterator[tuple[int, int, Drawn, float]]:
        """(index, label, drawn, seconds) of each input of a group; its noise is that of place index * skip in the whole set."""
        start = time.perf_counter()
        items = [data[index] for index in group]
        inputs = [(index * skip, x) for index, (x, _) in zip(group, items, strict=True)]
        all_drawn = list(self.sample_group(inputs, n0, n, alpha, batch_size))
        seconds = (time.perf_counter() - start) / len(group)
        for index, (_, label), drawn in zip(group, items, all_drawn, strict=True):
            yield index, int(label), drawn, seconds

    def settings(self, data: Sequence[tuple[Any, int]], n0: int, n: int, alpha: float, batch_size: int) -> dict[str, Any]:
        """All that the statistics of a data set depend on, by which a stopped job is known again. ValueError before sampling."""
        from .sampling.engine import check_input
        from .sampling.identity import data_digest, probe, state_digest

        check_n(n, alpha, self.threats, self.estimator)
        scores: list[float] = []
        if len(data):
            places = sorted({i * (len(data) - 1) // 15 for i in range(16)})
            inputs = [check_input(data[place][0], f"input {place}", n0=n0, batch_size=batch_size) for place in places]
            check_shape(self.threats, tuple(inputs[0].shape))
            scores = probe(self._sampler.scores, inputs, self.sigma)
            self.check_company(inputs[::8], batch_size)
        norms = {threat.name: said for threat in self.threats if (said := threat.settings()) is not None}
        return {
            "inputs": len(data),
            "shape": list(np.shape(data[0][0])) if len(data) else [],
            "data digest": data_digest(data),
            "model digest": state_digest(self.model),
            "model scores": scores,
            "sigma": self.sigma,
            "num_classes": self.num_classes,
            "threats": {name: by.key for name, by in projections(self.threats).items()},
            "norms": norms,
            "seed": self.seed,
            "n0": int(n0),
            "n": int(n),
            "inputs a batch": group_size(n, batch_size),
            "keep_means": self.keep_means,
            **self.options.settings(alpha),
        }
