"""Cohen's radii from votes that another tool counted: a file of counts in, a results TSV out. No gradient, so nothing but his.

Cohen, Rosenfeld, Kolter: Certified adversarial robustness via randomized smoothing (2019), theorem 1 with 1 - p_lower for the
second class: R = sigma Phi^-1(p_lower) in l2. An l1 ball lies in the l2 ball of its size, an linf ball in that of sqrt(d) times
its size. Where the class was not chosen apart, it is the one with most of the C classes' votes, and p_lower at level alpha / C: the
bounds of all C classes then hold together, whichever has most.
"""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import ndtri

from ..bounds.binomial import lower_probability
from ..jobs.atomic import check_out
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
    q = np.where(found["predict"] > ABSTAIN, lower_probability(found["count"], found["n"], level), 0.0)
    sure = q > 0.5
    l2 = np.where(sure, -ndtri(1.0 - np.where(sure, q, 0.5)) * sigma, 0.0)
    radius = {"l1": l2, "l2": l2} | ({} if d is None else {"linf": l2 / math.sqrt(d)}) | {"cohen": l2}
    rows = []
    for i in range(len(q)):
        line: dict[str, Any] = {name: int(values[i]) for name, values in found.items()}
        line |= {} if sure[i] else {"predict": ABSTAIN}
        radii = {name: float(values[i]) for name, values in radius.items()}
        smaller = {"linf": radii["linf"]} if d is not None and d > 1 else {}
        rows.append(row(**line, seconds=0.0, q_lower=float(q[i]), radius=radii, cohen=smaller))
    write_tsv(out, rows)
    return len(rows)
