"""The whole chain for one input or a data set: what the sampler draws, bounds, look-ups, radii."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from .bounds.budget import split
from .bounds.classes import runner_up
from .bounds.looks import COUNT, Goal, Verdict
from .evaluate import Evaluation, evaluate, find_tails
from .inputs.pairs import as_pairs
from .jobs.atomic import check_out
from .jobs.groups import Record, resuming
from .jobs.shards import groups
from .lookup.table import Table, load
from .plan.stopping import Method, rules_of
from .runs.certify import result_rows
from .runs.results import ABSTAIN, FIRST, LAST, Row, check_settings, read_rows, write_settings, write_tsv
from .sampling.card import Sampling
from .sampling.sampler import Drawn, Labelled, Rules, Sampler
from .sampling.scores import Model
from .statistics.file import Sampled
from .statistics.summary import Statistics
from .threats.sets import Quantity, Threat

NO_TARGET: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class Certificate:
    """What holds at one input with probability at least 1 - alpha: every radius but "cohen" at once.

    Examples:
        >>> import torch
        >>> from certlut import ABSTAIN, Certifier
        >>> certifier = Certifier(torch.nn.Linear(4, 3), sigma=0.5, num_classes=3, threats=("l1",), seed=0)
        >>> certificate = certifier.certify(torch.rand(4), n=2000)
        >>> sorted(certificate.radius), certificate.n, int(certificate.counts.sum())
        (['cohen', 'l1', 'l2'], 2000, 100)
        >>> certificate.prediction == ABSTAIN or certificate.radius["l1"] > 0.0
        True
    """

    prediction: int
    """The smoothed class; -1 where the certifier abstains, then every radius is 0.0."""
    radius: dict[str, float]
    """Threat -> radius in input units. "cohen": l2, from the vote alone at the full alpha, a baseline outside the guarantee."""
    bounds: dict[str, float]
    """The confidence bounds behind the radii: "q_lower" and each norm of the gradient, sigma = 1 units."""
    counts: npt.NDArray[np.int64]
    """Votes per class among the n0 selection samples."""
    count: int
    """Votes for the class among the n certification samples."""
    n: int
    """Samples drawn to certify it."""
    runner_up: int
    """Of the other classes the one with the most of them."""
    count_runner_up: int
    """Its votes."""
    proposal: str
    """What proposed the gradient's direction: "gradient" or "votes"."""
    looks: int
    """Looks taken before sampling stopped; 0 where n was fixed."""
    verdict: str
    """Why it stopped: "certified", "futile", "precise" or "n reached"."""


class Certifier:
    """Certifies inputs of a smoothed classifier against several threats from one set of samples.

    Args:
        model: maps a batch (B, *shape) to scores (B, num_classes); a torch Module or any callable on tensors.
        sigma: noise level, in the model's input units.
        num_classes: number of classes.
        table: radius surfaces, or the path of their file; by default the shipped table.
        threats: "l1", "l2", "linf", Lp(...), Sparse(...), Subspace(...), Direction(...), Line(...); "l2" is always added.
        estimator: "adaptive" or "paper".
        seed: with a seed the noise depends on (seed, index) alone; without one it is fresh on every call.
        autocast: "bf16" or "fp16" runs the model under torch.autocast; this is another classifier than the plain model.
        channels_last: images in channels-last memory order.
        compile: True, or a backend's name: torch.compile.
        early_stop: stop an input as soon as its abstention is certain; `n` then says how many samples were drawn.
        certificate: "tails", or "first-order" for the paper's own.
        proposal: what proposes the direction of the vote's gradient before the n samples are drawn: "gradient", the model's own at
            noisy copies of the input, or "votes"; "auto": "votes" where the model gives none. It costs a per cent of the samples.
        noise: "gaussian", or "grid": the model behind rounding to a grid that the inputs lie on is certified, under noise whose law
            is known exactly (docs/noise.md).
        grid_step: of that grid, in input units: "1/255", or a float; by default, and as "auto", that of a data set's values.

    Raises:
        FileNotFoundError: no such table.
        ValueError: an argument out of range, a threat that the estimator has no bound for, or a table bound to another sigma.

    Examples:
        >>> import torch
        >>> from certlut import Certifier
        >>> def model(x):  # two classes, told apart by the sign of x's sum
        ...     return torch.stack([x.sum(dim=1), -x.sum(dim=1)], dim=1)
        >>> certifier = Certifier(model, sigma=0.5, num_classes=2, threats=("l1", "linf"), seed=0)
        >>> certificate = certifier.certify(torch.tensor([0.4, 0.4]), n=2000)
        >>> certificate.prediction
        0
        >>> certificate.radius["l1"] > certificate.radius["cohen"]
        True
    """

    def __init__(
        self,
        model: Model,
        sigma: float,
        num_classes: int,
        table: Table | str | os.PathLike[str] | None = None,
        threats: Sequence[str | Threat] = ("l1", "l2", "linf"),
        estimator: str = "adaptive",
        seed: int | None = None,
        *,
        autocast: str | None = None,
        channels_last: bool = False,
        compile: bool | str = False,
        early_stop: bool = False,
        certificate: str = "tails",
        proposal: str = "auto",
        noise: str = "gaussian",
        grid_step: Fraction | str | float | None = None,
    ) -> None:
        self.card = Sampling(
            seed=seed,
            autocast=autocast,
            channels_last=channels_last,
            compile=compile,
            early_stop=early_stop,
            proposal=proposal,
            noise=noise,
            grid_step=grid_step,
        )
        self.sampler = Sampler(model, sigma, num_classes, threats)
        # Any alpha: refuses an unknown estimator, and threats that it has no bound for.
        split(0.5, self.sampler.threats, estimator)
        self.estimator = estimator
        self.table = table if isinstance(table, Table) else load(table)
        self.table.check_sigma(self.sampler.sigma)
        self.tails = find_tails(certificate)
        self._known_rules: dict[str, Rules | None] = {}

    def certify(
        self,
        x: Any,
        n0: int = 100,
        n: int = 100_000,
        alpha: float = 0.001,
        batch_size: int = 1000,
        index: int = 0,
        *,
        target: Mapping[str, float] = NO_TARGET,
        precision: float | None = None,
        looks: int = COUNT,
    ) -> Certificate:
        """Certify one input.

        Args:
            x: tensor or array of any shape, without a batch axis.
            n0: samples to choose the class from; they are not used again.
            n: fresh samples to certify it with.
            alpha: probability that any radius is wrong, for all threats together.
            batch_size: samples per forward pass.
            index: position of the input in its data set; with a seed, inputs of different index get independent noise.
            target: threat -> radius in input units. Sampling stops, before n, once all are certified, or one cannot be or is not
                expected to be. All radii reported hold together, whatever stopped it.
            precision: stop where n samples are not expected to add this part of a radius.
            looks: with a target or a precision, how often to look, at 500 samples first; each look has its share of alpha.

        Raises:
            ValueError: an input with NaN, a shape that disagrees with a threat's, an n that cannot reach alpha (said before
                sampling), a model that returns NaN or another number of classes.
        """
        goal = Goal(target, precision)
        card = replace(self.card, n0=n0, n=n, alpha=alpha, batch_size=batch_size, goal=goal, looks=looks)
        return self._certificate(self.sampler.sample(x, card, index, self._rules(card)), card.alpha)

    def _rules(self, card: Sampling) -> Rules | None:
        """The same ones for the same settings: they remember what they have forecast."""
        key = str(card.settings())
        if key not in self._known_rules:
            self._known_rules[key] = rules_of(card, self._method(card), self.sampler.sigma)
        return self._known_rules[key]

    def _method(self, card: Sampling) -> Method:
        return Method(self.sampler.threats, card.alpha, self.estimator, self.table, self.tails)

    def _evaluate(self, statistics: Statistics, alpha: float) -> Evaluation:
        return evaluate(statistics, self.sampler.threats, alpha, self.estimator, self.table, self.tails)

    def _certificate(self, drawn: Drawn, alpha: float) -> Certificate:
        statistics = drawn.statistics
        result = self._evaluate(statistics, alpha)
        sure = bool(result.sure[0])
        other, others = runner_up(statistics.classes, statistics.class_count)
        bounds: dict[Quantity | str, float] = {"q_lower": float(result.q_lower[0])}
        bounds |= {quantity: float(bound[0]) for quantity, bound in result.bounds.items()}
        return Certificate(
            prediction=drawn.predict if sure else ABSTAIN,
            radius={name: float(radius[0]) if sure else 0.0 for name, radius in result.radius.items()},
            bounds={str(name): bound for name, bound in bounds.items()},
            counts=drawn.votes,
            count=int(statistics.count.sum()),
            n=int(statistics.n.sum()),
            runner_up=int(other[0]),
            count_runner_up=int(others[0]),
            proposal="votes" if statistics.by_votes[0] else "gradient",
            looks=int(statistics.looks[0]),
            verdict=drawn.verdict.value,
        )

    def certify_dataset(
        self,
        data: Any,
        out: str | os.PathLike[str],
        n0: int = 100,
        n: int = 100_000,
        alpha: float = 0.001,
        batch_size: int = 1000,
        progress: bool = True,
        *,
        target: Mapping[str, float] = NO_TARGET,
        precision: float | None = None,
        looks: int = COUNT,
    ) -> list[Row]:
        """Certify every input of a data set and write the results TSV `out`; returns its lines, numbers as numbers.

        Each finished input goes to a journal beside `out`: stopped at any moment, the same call goes on behind it. `out`.json tells
        the settings of a complete `out`: with the same ones it is left as it is and nothing is sampled.

        Args:
            data: (input, label) pairs, as a sequence, a torch Dataset or an iterator (`zip(inputs, labels)`); a pair of arrays
                (x, y); or a DataLoader of batches, not shuffled. Labels are whole numbers from 0.
            out: the results file.
            n0: samples an input to choose the class from.
            n: fresh samples to certify it with.
            alpha: probability that any radius of an input is wrong.
            batch_size: samples per forward pass.
            progress: show a bar.
            target: as `certify`.
            precision: as `certify`.
            looks: as `certify`.

        Raises:
            ValueError: as `certify`; data that is none of these; a journal or a complete `out` of other settings, with the
                difference named, or an `out` that nothing tells the settings of.
        """
        out, pairs = check_out(out), as_pairs(data, self.sampler.num_classes)
        goal = Goal(target, precision)
        card = replace(self.card, n0=n0, n=n, alpha=alpha, batch_size=batch_size, goal=goal, looks=looks)
        card = self.sampler.fit(pairs, card)
        method, rules = self._method(card), self._rules(card)
        settings = self.sampler.settings(pairs, card)
        settings |= {**method.settings(), "alpha": card.alpha}
        verb = f"certifying sigma={self.sampler.sigma:g}"
        records = {"format": f"results {' '.join((*FIRST, *LAST))}"}
        with resuming(out, settings | records, groups(len(pairs), card.inputs_a_batch), verb, progress) as job:
            if out.exists() and not job.started:
                check_settings(out, settings)
            else:
                for group in job.remaining():
                    for done in self.sampler.draw(pairs, group, card, rules=rules):
                        job.add(self._record(done, card))
                write_tsv(out, (record["row"] for record in job.records()))
                write_settings(out, settings)
        return read_rows(out)

    def _record(self, done: Labelled, card: Sampling) -> Record:
        start = time.perf_counter()
        result = self._evaluate(done.drawn.statistics, card.alpha)
        idx, label, predict = np.array([[done.idx], [done.label], [done.drawn.predict]])
        seconds = np.array([done.seconds + time.perf_counter() - start])
        (line,) = result_rows(Sampled(done.drawn.statistics, idx, label, predict, seconds, settings={}), result)
        certified = line["correct"] == "1" and (not card.goal.targets or done.drawn.verdict is Verdict.CERTIFIED)
        return {"idx": done.idx, "certified": certified, "saved": 1.0 - int(line["n"]) / card.n, "row": line}
