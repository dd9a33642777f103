"""From a statistics file to results.tsv, a slice of inputs at a time: memory does not grow with their number."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..beyond import tail_users
from ..bounds.budget import Budget, check_looks
from ..bounds.classes import runner_up
from ..bounds.looks import Looks
from ..evaluate import Evaluation, budget_of, evaluate, find_tails
from ..jobs.atomic import check_out
from ..jobs.progress import progress_bar
from ..lookup.table import load
from ..statistics.file import Sampled, count_inputs, read_statistics
from ..statistics.summary import extend
from ..threats.declare import resolve
from ..threats.sets import Threat, check_shape
from .results import ABSTAIN, row, write_tsv

# Inputs certified at a time.
SLICE = 50_000


def certify_statistics(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    alpha: float,
    estimator: str,
    table: Path | None,
    threats: Sequence[str | Threat] = (),
    progress: bool = True,
    certificate: str = "tails",
) -> tuple[Budget, int]:
    """Radii of a statistics file as results TSV; returns (budget, number of rows).

    Inputs are read and written a slice at a time: memory does not grow with their number.

    Args:
        path: the statistics.
        out: the results.
        alpha: probability that any radius of an input is wrong.
        estimator: "adaptive" or "paper".
        table: table file; None for the shipped one.
        threats: names (l1, l2, linf, or any that the file was sampled for), or new ones where means were kept; by default all
            that the file was sampled for.
        progress: show a bar.
        certificate: "tails" or "first-order"; statistics without tail counts give first-order radii.

    Raises:
        FileNotFoundError: no such statistics or table, or no folder to write in.
        ValueError: damaged statistics; alpha, estimator or a threat that they cannot serve; a table bound to another sigma.
    """
    out, surface, total = check_out(out, path, table), load(table), count_inputs(path)
    tails = find_tails(certificate)
    header = read_statistics(path, slice(0, 1))
    stored = {threat.name: threat for threat in header.threats}
    chosen = resolve([stored.get(t, t) if isinstance(t, str) else t for t in threats] or header.threats)
    if added := [t for t in chosen if t not in header.threats and t.name not in ("l1", "l2", "linf")]:
        if (shape := header.settings.get("shape")) is None:
            raise ValueError(
                f"{path}: does not tell the shape of its inputs: only the threats that it was sampled for can be certified"
            )
        check_shape(added, tuple(shape))
    extended = extend(header.statistics, chosen)
    extended.check(chosen)
    users = {} if tails is None else tail_users(extended, chosen)
    if (looks := Looks.of(header.statistics.schedule)) is not None:
        check_looks(looks, alpha, chosen, estimator, users, header.statistics.charge)
    budget = budget_of(extended, chosen, alpha, estimator, users, {*extended.parts} - {*header.statistics.parts})

    def rows() -> Iterator[dict[str, str]]:
        with progress_bar("certifying", disable=not progress) as bar:
            task = bar.add_task("", total=total)
            for start in range(0, total, SLICE):
                sampled = read_statistics(path, slice(start, start + SLICE))
                yield from result_rows(
                    sampled, evaluate(extend(sampled.statistics, chosen), chosen, alpha, estimator, surface, tails)
                )
                bar.advance(task, len(sampled.idx))

    write_tsv(out, rows())
    return budget, total


def result_rows(sampled: Sampled, result: Evaluation) -> Iterator[dict[str, str]]:
    """Lines of results.tsv."""
    statistics, names = sampled.statistics, list(result.radius)
    sure = result.sure
    radii = np.where(sure[:, None], np.stack([result.radius[name] for name in names], axis=1), 0.0)
    predict = np.where(sure, sampled.predict, ABSTAIN)
    votes = (statistics.count.sum(axis=1), statistics.n.sum(axis=1), result.q_lower)
    second = runner_up(statistics.classes, statistics.class_count)
    columns = (sampled.idx, sampled.label, predict, sampled.seconds, *votes, *second, *result.length)
    smaller = {name: factor for name, factor in result.inside.items() if factor != 1.0}
    for *values, radius in zip(*(column.tolist() for column in columns), radii.tolist(), strict=True):
        idx, label, predicted, seconds, count, n, q, other, others, lower, upper = values
        found = dict(zip(names, radius, strict=True))
        yield row(
            idx=idx,
            label=label,
            predict=predicted,
            seconds=seconds,
            count=count,
            n=n,
            q_lower=q,
            radius=found,
            cohen={name: found["cohen"] / factor for name, factor in smaller.items()},
            runner_up=other,
            count_runner_up=others,
            gradient=(lower, upper),
        )
