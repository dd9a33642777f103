"""Results: the field's TSV, and beside it, where one call sampled and certified, the settings that it was made with."""

import array
import contextlib
import csv
import datetime
import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..jobs.atomic import replacing
from ..jobs.journal import check_same

ABSTAIN = -1
"""The prediction where nothing is certified.

Examples:
    >>> from certlut import ABSTAIN
    >>> ABSTAIN
    -1
"""
FIRST = ("idx", "label", "predict", "radius", "correct", "time", "count", "n", "q_lower")
LAST = ("runner_up", "count_runner_up", "gradient_lower", "gradient_upper")
WHOLE = ("idx", "label", "predict", "correct", "count", "n", "runner_up", "count_runner_up")
Row = dict[str, int | float | str]
# |y|_2 <= phi(0).
ANY_LENGTH = (0.0, 1.0 / math.sqrt(2.0 * math.pi))


def row(
    *,
    idx: int,
    label: int,
    predict: int,
    seconds: float,
    count: int,
    n: int,
    q_lower: float,
    radius: Mapping[str, float],
    cohen: Mapping[str, float] | None = None,
    runner_up: int = -1,
    count_runner_up: int = -1,
    gradient: tuple[float, float] = ANY_LENGTH,
) -> dict[str, str]:
    """One line of results.tsv; radii and lower bounds are rounded down to six decimals, q_lower to ten.

    Args:
        idx, label, predict, seconds, count, n, q_lower: as the columns.
        radius: threat -> radius, "l2" among them.
        cohen: threat -> radius of its largest ball inside Cohen's l2 ball, where that is not of the same radius.
        runner_up, count_runner_up: -1 where classes were not counted.
        gradient: lower and upper bound of |y|_2; by default what is always true.
    """
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
    values |= {f"radius_{name}": _down(value, 6) for name, value in radius.items()}
    values |= {f"cohen_{name}": _down(value, 6) for name, value in (cohen or {}).items()}
    values |= {"runner_up": str(runner_up), "count_runner_up": str(count_runner_up)}
    return values | {"gradient_lower": _down(gradient[0], 6), "gradient_upper": _up(gradient[1], 6)}


def _down(x: float, digits: int) -> str:
    text = f"{x:.{digits}f}"
    # Formatting rounds to nearest: step back where that went up.
    return text if float(text) <= x else f"{math.nextafter(float(text), 0.0) - 0.5 * 10.0**-digits:.{digits}f}"


def _up(x: float, digits: int) -> str:
    text = f"{x:.{digits}f}"
    return text if float(text) >= x else f"{float(text) + 10.0**-digits:.{digits}f}"


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


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """The lines of a results file: whole numbers as int, others as float, `time` as text."""
    kinds: dict[str, type[int] | type[str]] = dict.fromkeys(WHOLE, int) | {"time": str}
    with _lines(path) as lines:
        return [{name: kinds.get(name, float)(text) for name, text in line.items()} for line in lines]


def read_tsv(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Numeric columns of a results file, by name (`time` is left out).

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column that holds something else, with the line.

    Examples:
        >>> from certlut import read_tsv
        >>> columns = read_tsv("results.tsv")
        >>> average = (columns["correct"] * columns["radius_l1"]).mean()  # of l1, a wrong input counts as 0
        >>> bool(average >= (columns["correct"] * columns["radius_l2"]).mean())
        True
    """
    return read_columns(path, lambda name: name != "time")


def read_columns(path: str | os.PathLike[str], wanted: Callable[[str], bool]) -> dict[str, npt.NDArray[np.float64]]:
    """The columns of a TSV whose names are wanted, as numbers; raises as `read_tsv`. Memory: eight bytes a number."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such results file")
    with _lines(path) as lines:
        columns = {name: array.array("d") for name in lines.fieldnames or () if wanted(name)}
        for line in lines:
            for name, column in columns.items():
                try:
                    column.append(float(line[name]))
                except (TypeError, ValueError):
                    raise ValueError(f"{path}, line {lines.line_num}: {name} is {line[name]!r}, expected a number") from None
    return {name: np.array(column) for name, column in columns.items()}


@contextlib.contextmanager
def _lines(path: str | os.PathLike[str]) -> Iterator["csv.DictReader[str]"]:
    # An editor may have put a byte order mark in front.
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        yield csv.DictReader(file, delimiter="\t")


def write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write beside the results `path` the settings that they were made with, and by what they are known."""
    with replacing(_beside(path)) as file:
        file.write(json.dumps({"settings": settings, "sha256": _digest(path)}, indent=1).encode() + b"\n")


def check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """ValueError unless `write_settings` told these settings, and `path` has not been changed since."""
    beside = _beside(path)
    try:
        known = json.loads(beside.read_text(encoding="utf-8"))
        found, digest = dict(known["settings"]), known["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        found, digest = {}, ""
    if digest != _digest(path):
        raise ValueError(f"{path}: exists, and {beside.name} does not tell how it was made; delete it or write another file")
    check_same(path, "results", found, json.loads(json.dumps(settings)))


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
