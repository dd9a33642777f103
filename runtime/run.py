"""The two halves of a long job: draw a data set's statistics to a file; turn a statistics file into results."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .budget import Budget
from .certify import ABSTAIN, Certifier
from .evaluate import evaluate
from .progress import progress_bar
from .results import Sampled, read_statistics, row, write_statistics, write_tsv
from .statistics import SCALARS, Part, Statistics
from .table import load


def sample_dataset(
    certifier: Certifier,
    data: Sequence[tuple[Any, int]],
    out: str | os.PathLike[str],
    n0: int,
    n: int,
    alpha: float,
    batch_size: int,
    settings: Mapping[str, Any],
) -> Sampled:
    """Sample every (input, label) and write the statistics file `out`; ValueError as `Certifier.certify`."""
    out = Path(out)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent}: no such folder to write {out.name} in")
    drawn: list[Statistics] = []
    columns: list[tuple[int, int, int, float]] = []
    with progress_bar("sampling") as bar:
        for index in bar.track(range(len(data)), total=len(data)):
            x, label = data[index]
            start = time.perf_counter()
            _, predict, statistics = certifier.sample(x, n0, n, alpha, batch_size, index)
            drawn.append(statistics)
            columns.append((index, label, predict, time.perf_counter() - start))
    if not drawn:
        raise ValueError("the data set is empty: nothing to sample")
    idx, label, predict = np.array([c[:3] for c in columns], dtype=np.int64).T
    sampled = Sampled(
        join(drawn),
        idx,
        label,
        predict,
        np.array([c[3] for c in columns]),
        dict(settings) | {"n0": n0, "n": n, "seed": certifier.seed, "num_classes": certifier.num_classes},
    )
    write_statistics(out, sampled)
    return sampled


def join(drawn: Sequence[Statistics]) -> Statistics:
    """Concatenate the statistics of inputs of one shape, sampled with one sigma for the same parts."""
    first = drawn[0]
    parts = {}
    for name, part in first.parts.items():
        columns: dict[str, Any] = {field: np.concatenate([getattr(s.parts[name], field) for s in drawn]) for field in SCALARS}
        parts[name] = Part(d=part.d, key=part.key, **columns)
    count, n = (np.concatenate([getattr(s, name) for s in drawn]) for name in ("count", "n"))
    return Statistics(count, n, first.sigma, first.d, parts)


def certify_statistics(
    path: str | os.PathLike[str], out: str | os.PathLike[str], alpha: float, estimator: str, table: Path | None
) -> tuple[Budget, int]:
    """Radii (l1, l2, linf) of a statistics file, as results TSV; returns (budget, number of rows)."""
    out = Path(out)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent}: no such folder to write {out.name} in")
    sampled = read_statistics(path)
    statistics = sampled.statistics
    result = evaluate(statistics, ("l1", "l2", "linf"), alpha, estimator, load(table))
    rows = []
    for i in range(len(statistics)):
        sure = result.q_lower[i] > 0.5
        radius = {name: float(values[i]) if sure else 0.0 for name, values in result.radius.items()}
        predict = int(sampled.predict[i]) if sure else ABSTAIN
        seconds = float(sampled.seconds[i])
        count, n = int(statistics.count[i].sum()), int(statistics.n[i].sum())
        rows.append(row(int(sampled.idx[i]), int(sampled.label[i]), predict, seconds, count, n, float(result.q_lower[i]), radius))
    write_tsv(out, rows)
    return result.budget, len(rows)
