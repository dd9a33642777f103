"""Cohen's radii from votes that another tool counted: a TSV of counts in, a results TSV out. No gradient, so nothing but his.

Cohen, Rosenfeld, Kolter: Certified adversarial robustness via randomized smoothing (2019), theorem 1 with 1 - p_lower for the
second class: R = sigma Phi^-1(p_lower) in l2. An l1 ball lies in the l2 ball of its size, an linf ball in that of sqrt(d) times
its size.
"""

import csv
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from ..bounds.binomial import lower_probability
from ..jobs.atomic import check_out
from .results import ABSTAIN, row, write_tsv

COLUMNS = ("idx", "label", "predict", "count", "n")


def read_counts(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[np.int64]]:
    """The columns idx, label, predict (-1: abstained), count (votes for it) and n of a TSV; others are ignored.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a missing column, a value that is not a whole number, votes that cannot be; with the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of counts")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter="\t")
            names = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            missing = [name for name in COLUMNS if name not in names]
            if missing:
                raise ValueError(f"{path}: no column {', '.join(missing)}; expected a TSV with {', '.join(COLUMNS)}, has {names}")
            rows = [(reader.line_num, [_whole(path, reader.line_num, name, line[name]) for name in COLUMNS]) for line in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a TSV ({error})") from None
    values = np.array([values for _, values in rows], dtype=np.int64).reshape(-1, len(COLUMNS))
    columns = dict(zip(COLUMNS, values.T, strict=True))
    predict, count, n = (columns[name] for name in ("predict", "count", "n"))
    bad = np.flatnonzero((n < 1) | (count < 0) | (count > n) | (predict < ABSTAIN))
    if bad.size:
        line, said = rows[bad[0]][0], f"predict {predict[bad[0]]}, count {count[bad[0]]}, n {n[bad[0]]}"
        raise ValueError(f"{path}, line {line}: {said}; expected 0 <= count <= n, n >= 1 and a class from 0 (or -1: abstained)")
    return columns


def _whole(path: Path, line: int, name: str, text: str | None) -> int:
    try:
        value = float(text or "")
        # Beyond 2**53 not every whole number is a float64.
        if value.is_integer() and abs(value) <= 2**53:
            return int(value)
    except ValueError:
        pass
    raise ValueError(f"{path}, line {line}: {name} is {text!r}, expected a whole number")


def certify_counts(
    path: str | os.PathLike[str], out: str | os.PathLike[str], sigma: float, alpha: float, d: int | None = None
) -> int:
    """Write Cohen's l2 and l1 radii (and linf, with d) of a file of counts; returns the number of rows.

    Each row's votes must come from samples that the class was not chosen from; each radius is wrong with probability at most alpha.

    Args:
        path: TSV as of `read_counts`.
        out: results TSV.
        sigma: noise level, in input units.
        alpha: probability that a row is wrong.
        d: numbers in an input; without it no linf radius is given.

    Raises:
        FileNotFoundError: no such file, or folder to write in.
        ValueError: as `read_counts`; sigma, alpha or d out of range.
    """
    if not (math.isfinite(sigma) and sigma > 0 and 0.0 < alpha < 1.0 and (d is None or d >= 1)):
        raise ValueError(f"sigma = {sigma}, alpha = {alpha}, d = {d}: expected sigma > 0, 0 < alpha < 1 and d >= 1")
    out = check_out(out, path)
    columns = read_counts(path)
    q = np.where(columns["predict"] > ABSTAIN, lower_probability(columns["count"], columns["n"], alpha), 0.0)
    sure = q > 0.5
    l2 = np.where(sure, -ndtri(1.0 - np.where(sure, q, 0.5)) * sigma, 0.0)
    radius = {"l1": l2, "l2": l2} | ({} if d is None else {"linf": l2 / math.sqrt(d)}) | {"cohen": l2}
    rows = []
    for i in range(len(q)):
        line: dict[str, Any] = {name: int(values[i]) for name, values in columns.items()}
        line |= {} if sure[i] else {"predict": ABSTAIN}
        found = {name: float(values[i]) for name, values in radius.items()}
        smaller = {"linf": found["linf"]} if d is not None and d > 1 else {}
        rows.append(row(**line, seconds=0.0, q_lower=float(q[i]), radius=found, cohen=smaller))
    write_tsv(out, rows)
    return len(rows)
