"""Cohen's radii from votes that another tool counted: a file of counts in, a results TSV out. No gradient, so nothing but his.

Cohen, Rosenfeld, Kolter: Certified adversarial robustness via randomized smoothing (2019), theorem 1 with 1 - p_lower for the
second class: R = sigma Phi^-1(p_lower) in l2. An l1 ball lies in the l2 ball of its size, an linf ball in that of sqrt(d) times
its size. Where the class was not chosen apart, it is the one with most of the C classes' votes, and p_lower at level alpha / C: the
bounds of all C classes then hold together, whichever has most.

Where every class was counted, a share of the level goes to a bound on every other class (bounds/classes.py): for all inputs, as
nothing tells before these samples whose vote is divided.
"""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import ndtri

from ..bounds.binomial import lower_probability
from ..bounds.budget import SHARES
from ..bounds.classes import class_bounds, runner_up
from ..jobs.atomic import check_out
from ..statistics.votes import kept_classes
from .logs import read_counts
from .results import ABSTAIN, row, write_tsv


def certify_counts(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    sigma: float,
    alpha: float,
    d: int | None = None,
    n: int | None = None,
    columns: Sequence[str] | None = None,
) -> int:
    """Write Cohen's l2 and l1 radii (and linf, with d) of a file of counts; returns the number of rows.

    Each row's votes must come from samples that its class (predict) was not chosen from, where that is said; each radius is wrong
    with probability at most alpha.

    Args:
        path: a file as of `read_counts`.
        out: results TSV.
        sigma: noise level, in input units.
        alpha: probability that a row is wrong.
        d: numbers in an input; without it no linf radius is given.
        n: samples of every input, where the file does not say them.
        columns: names of the columns of a file without a header.

    Raises:
        FileNotFoundError: no such file, or folder to write in.
        ValueError: as `read_counts`; sigma, alpha or d out of range.
    """
    if not (math.isfinite(sigma) and sigma > 0 and 0.0 < alpha < 1.0 and (d is None or d >= 1)):
        raise ValueError(f"sigma = {sigma}, alpha = {alpha}, d = {d}: expected sigma > 0, 0 < alpha < 1 and d >= 1")
    out = check_out(out, path)
    if n is not None and n < 1:
        raise ValueError(f"n = {n}: expected 1 or more")
    found = read_counts(path, n, columns)
    votes, level = found.pop("votes", None), alpha
    if votes is not None and "predict" not in found:
        found["predict"], level = votes.argmax(axis=1), alpha / votes.shape[1]
    known, share = found["predict"] > ABSTAIN, 0.0 if votes is None or votes.shape[1] < 3 else SHARES["classes"]
    q, full = (np.where(known, lower_probability(found["count"], found["n"], a), 0.0) for a in ((1.0 - share) * level, level))
    l2, cohen = (np.where(p > 0.5, -ndtri(1.0 - np.maximum(p, 0.5)) * sigma, 0.0) for p in (q, full))
    if votes is not None and len(votes):
        kept = [kept_classes(row, max(label, 0)) for row, label in zip(votes, found["predict"].tolist(), strict=True)]
        classes, class_count = (np.stack(column) for column in zip(*kept, strict=True))
        found["runner_up"], found["count_runner_up"] = runner_up(classes, class_count)
        if share:
            l2 = np.where(known, class_bounds(classes, class_count, sigma, (1.0 - share) * level, share * level).radius, 0.0)
    sure = l2 > 0.0
    radius = {"l1": l2, "l2": l2} | ({} if d is None else {"linf": l2 / math.sqrt(d)}) | {"cohen": cohen}
    rows = []
    for i in range(len(q)):
        line: dict[str, Any] = {name: int(values[i]) for name, values in found.items()}
        line |= {} if sure[i] else {"predict": ABSTAIN}
        radii = {name: float(values[i]) if sure[i] else 0.0 for name, values in radius.items()}
        smaller = {"linf": radii["cohen"] / math.sqrt(d)} if d is not None and d > 1 else {}
        rows.append(row(**line, seconds=0.0, q_lower=float(q[i]), radius=radii, cohen=smaller))
    write_tsv(out, rows)
    return len(rows)
