"""Results: the field's TSV, and the statistics file (HDF5) that radii can be redone from."""

import csv
import datetime
import io
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..jobs.atomic import replacing

FIRST = ("idx", "label", "predict", "radius", "correct", "time", "count", "n", "q_lower")


def row(
    idx: int, label: int, predict: int, seconds: float, count: int, n: int, q_lower: float, radius: Mapping[str, float]
) -> dict[str, str]:
    """One line of results.tsv; every radius and bound is rounded down to six decimals, q_lower to ten."""
    values = {
        "idx": str(idx),
        "label": str(label),
        "predict": str(predict),
        "radius": _down(radius["l2"], 6),
        "correct": str(int(predict == label and predict >= 0)),
        "time": str(datetime.timedelta(seconds=seconds)),
        "count": str(count),
        "n": str(n),
        "q_lower": _down(q_lower, 10),
    }
    return values | {f"radius_{name}": _down(value, 6) for name, value in radius.items()}


def _down(x: float, digits: int) -> str:
    text = f"{x:.{digits}f}"
    # Formatting rounds to nearest: step back where that went up.
    return text if float(text) <= x else f"{math.nextafter(float(text), 0.0) - 0.5 * 10.0**-digits:.{digits}f}"


def write_tsv(path: str | os.PathLike[str], rows: Iterable[Mapping[str, str]]) -> None:
    """Write rows in order, as they come, under a temporary name, then rename."""
    with replacing(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
        writer: csv.DictWriter[str] | None = None
        for values in rows:
            if writer is None:
                writer = csv.DictWriter(text, list(values), delimiter="\t", lineterminator="\n")
                writer.writeheader()
            writer.writerow(values)
        if writer is None:
            text.write("\t".join(FIRST) + "\n")
        text.detach()


def read_tsv(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Numeric columns of a results file, by name (`time` is left out)."""
    with Path(path).open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    names = [name for name in (rows[0] if rows else FIRST) if name != "time"]
    return {name: np.array([float(r[name]) for r in rows]) for name in names}


ABSTAIN = -1
