"""The whole chain for one input or a data set: votes, moments, bounds, radii."""

import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .evaluate import check_n, evaluate
from .journal import Journal
from .progress import progress_bar
from .results import row, write_tsv
from .statistics import ESTIMATORS, Statistics, summarise
from .table import Table, load
from .threats import Ball, Quantity, Threat, check_shape, projection_key, projections, resolve

if TYPE_CHECKING:
    from .sample import Model

ABSTAIN = -1


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


class Certifier:
    """Certifies inputs of a smoothed classifier against several threats from one set of samples.

    Args:
        model: maps a batch (B, *shape) to scores (B, num_classes); a torch Module or any callable on tensors.
        sigma: noise level, in the model's input units.
        num_classes: number of classes.
        table: radius surfaces; by default the shipped table.
        threats: "l1", "l2", "linf", Subspace(...), Direction(...); "l2" is always added.
        estimator: "paper".
        seed: with a seed the noise depends on (seed, index) alone; without one it is fresh on every call.

    Raises:
        ValueError: an argument out of range, or a table bound to another sigma.
    """

    def __init__(
        self,
        model: "Model",
        sigma: float,
        num_classes: int,
        table: Table | None = None,
        threats: Sequence[str | Threat] = ("l1", "l2", "linf"),
        estimator: str = "paper",
        seed: int | None = None,
    ) -> None:
        if not (np.isfinite(sigma) and sigma > 0):
            raise ValueError(f"sigma = {sigma}: expected a positive number")
        if num_classes < 2:
            raise ValueError(f"num_classes = {num_classes}: expected 2 or more")
        if estimator not in ESTIMATORS:
            raise ValueError(f"estimator {estimator!r}: expected one of {', '.join(ESTIMATORS)}")
        if seed is not None and not 0 <= seed < 2**63:
            raise ValueError(f"seed = {seed}: expected 0 <= seed < 2**63")
        self.model, self.sigma, self.num_classes, self.seed = model, float(sigma), num_classes, seed
        self.threats, self.estimator = resolve(threats), estimator
        self.table = table or load()
        self.table.check_sigma(self.sigma)

    def sample(
        self, x: Any, n0: int, n: int, alpha: float, batch_size: int, index: int = 0
    ) -> tuple[npt.NDArray[np.int64], int, Statistics]:
        """(selection votes per class, the class chosen from them, statistics of n fresh samples) of one input."""
        from .sample import Sampler, check_input

        check_n(n, alpha, self.threats)
        x = check_input(x, n0=n0, batch_size=batch_size)
        check_shape(self.threats, tuple(x.shape))
        seed = secrets.randbits(63) if self.seed is None else self.seed
        sampler = Sampler(self.model, self.sigma, self.num_classes, seed)
        counts = sampler.votes(x, n0, index, batch_size)
        label = int(counts.argmax())
        moments = sampler.moments(x, label, n, index, batch_size)
        return counts, label, summarise([moments], self.threats, self.sigma)

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
        counts, label, statistics = self.sample(x, n0, n, alpha, batch_size, index)
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
            n,
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
        from .sample import check_input, digest, fingerprint

        check_n(n, alpha, self.threats)
        if len(data):
            check_input(data[0][0], n0=n0, batch_size=batch_size)
        out = Path(out)
        if not out.parent.is_dir():
            raise FileNotFoundError(f"{out.parent}: no such folder to write {out.name} in")
        settings = {
            "inputs": len(data),
            "sigma": self.sigma,
            "num_classes": self.num_classes,
            "threats": {name: projection_key(by) for name, by in projections(self.threats).items()},
            "norms": {threat.name: threat.p for threat in self.threats if isinstance(threat, Ball)},
            "model": fingerprint(self.model),
            "first input": digest(data[0][0]) if len(data) else "",
            "estimator": self.estimator,
            "table": self.table.digest,
            "seed": self.seed,
            "n0": n0,
            "n": n,
            "alpha": alpha,
        }
        with Journal(out, settings) as journal:
            rows: list[dict[str, str]] = [json.loads(record) for record in journal.records]
            with progress_bar(f"certifying sigma={self.sigma:g}", disable=not progress) as bar:
                task = bar.add_task("", total=len(data), completed=len(rows))
                for index in range(len(rows), len(data)):
                    x, label = data[index]
                    start = time.perf_counter()
                    c = self.certify(x, n0, n, alpha, batch_size, index)
                    seconds = time.perf_counter() - start
                    q = c.bounds["q_lower"]
                    rows.append(row(index, int(label), c.prediction, seconds, c.count, c.n, q, c.radius))
                    journal.append(json.dumps(rows[-1]).encode())
                    bar.advance(task)
            write_tsv(out, rows)
            journal.finish()
        return rows
