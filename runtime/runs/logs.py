"""Votes that other tools wrote down, in the forms that people have: a TSV, a log without n, every class's count without a header.

Fields stand between tabs, commas or blanks, whichever the first line has first in this order. Counts may be written 194186.0.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..kernels.arrays import Counts
from .results import ABSTAIN

COLUMNS = ("idx", "label", "predict", "count", "n")
# Among given names: a column for each class from 0, as many as are left.
ALL = "counts"
# The label of an input whose label is not said.
UNKNOWN = -1

Line = tuple[int, list[str]]


def read_counts(path: str | os.PathLike[str], n: int | None = None, columns: Sequence[str] | None = None) -> dict[str, Counts]:
    """The columns idx, label, predict (-1: abstained), count (votes for it) and n, shape (N,) each; others are ignored.

    Args:
        path: the file.
        n: samples of every input, where the file does not say them.
        columns: names of the columns of a file without a header. Without idx inputs are numbered, without label it is UNKNOWN. With
            "counts" the result has "votes", shape (N, classes), too; count and n follow from them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a missing column, a value that is not a whole number, votes that cannot be; with the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of counts")
    try:
        lines = list(_lines(path))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a TSV ({error})") from None
    if columns is None:
        names = [name.strip() for name in lines.pop(0)[1]] if lines else []
        wanted: tuple[str, ...] = COLUMNS
    else:
        names = [name.strip() for name in columns]
        wanted = ("predict", "count", "n")
    votes = _votes(path, names, lines) if columns is not None and ALL in names else None
    if twice := [name for name in COLUMNS if names.count(name) > 1]:
        raise ValueError(f"{path}: column {twice[0]} is there {names.count(twice[0])} times, has {names}")
    if n is not None and "n" in names:
        raise ValueError(f"{path}: has a column n; leave out n = {n}")
    missing = [name for name in wanted if name not in names and not (name == "n" and n is not None)]
    if missing and votes is None:
        raise ValueError(
            f"{path}: no column {', '.join(missing)}; expected a TSV with {', '.join(COLUMNS)}, has {names} "
            f"(--n N says n, --columns the names of a file without a header)"
        )
    found = {name: _column(path, lines, name, names.index(name)) for name in COLUMNS if name in names}
    found = {"idx": np.arange(len(lines)), "label": np.full(len(lines), UNKNOWN)} | found
    if votes is not None:
        found |= _of_all(path, lines, votes, found.get("predict"), n)
    elif n is not None:
        found["n"] = np.full(len(lines), n)
    _check(path, lines, found)
    return found


def _lines(path: Path) -> Iterator[Line]:
    """(number, fields) of every line that is not empty."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        file.seek(0)
        between = next((mark for mark in "\t," if mark in first), None)
        rows = csv.reader(file, delimiter=between) if between else (line.split() for line in file)
        yield from ((number, row) for number, row in enumerate(rows, start=1) if row)


def _column(path: Path, lines: list[Line], name: str, place: int) -> Counts:
    return np.array([_whole(path, number, name, row[place] if place < len(row) else None) for number, row in lines], np.int64)


def _whole(path: Path, line: int, name: str, text: str | None) -> int:
    try:
        value = float(text or "")
        # Beyond 2**53 not every whole number is a float64.
        if value.is_integer() and abs(value) < 2**53:
            return int(value)
    except ValueError:
        pass
    raise ValueError(f"{path}, line {line}: {name} is {text!r}, expected a whole number")


def _votes(path: Path, names: list[str], lines: list[Line]) -> Counts:
    """Every class's votes, shape (N, classes); `names` grows to the file's width."""
    place, classes = names.index(ALL), len(lines[0][1]) - len(names) + 1 if lines else 2
    if classes < 2 or names.count(ALL) > 1:
        raise ValueError(f"{path}: {len(lines[0][1])} fields in a line, expected {', '.join(names)} with 2 classes or more")
    names[place : place + 1] = [f"class {i}" for i in range(classes)]
    for number, row in lines:
        if len(row) != len(names):
            raise ValueError(f"{path}, line {number}: {len(row)} fields, expected {len(names)} as in the first line")
    columns = [_column(path, lines, name, place + i) for i, name in enumerate(names[place : place + classes])]
    return np.stack(columns, axis=1)


def _of_all(path: Path, lines: list[Line], votes: Counts, predict: Counts | None, n: int | None) -> dict[str, Counts]:
    """What the votes for all classes tell."""
    total = votes.sum(axis=1)
    bad = np.flatnonzero((votes < 0).any(axis=1) | (total != (total if n is None else n)))
    if bad.size:
        expected = "none below 0" if n is None else f"none below 0, {n} in all"
        raise ValueError(f"{path}, line {lines[bad[0]][0]}: counts {votes[bad[0]].tolist()}; expected {expected}")
    if predict is None:
        return {"votes": votes, "count": votes.max(axis=1), "n": total}
    if len(bad := np.flatnonzero(predict >= votes.shape[1])):
        raise ValueError(f"{path}, line {lines[bad[0]][0]}: predict {predict[bad[0]]}, expected one of {votes.shape[1]} classes")
    count = np.where(predict >= 0, np.take_along_axis(votes, np.maximum(predict, 0)[:, None], axis=1)[:, 0], 0)
    return {"votes": votes, "count": count, "n": total}


def _check(path: Path, lines: list[Line], found: dict[str, Counts]) -> None:
    count, n = found["count"], found["n"]
    predict = found.get("predict", np.zeros_like(count))
    bad = np.flatnonzero((n < 1) | (count < 0) | (count > n) | (predict < ABSTAIN))
    if bad.size:
        said = f"predict {predict[bad[0]]}, count {count[bad[0]]}, n {n[bad[0]]}"
        raise ValueError(
            f"{path}, line {lines[bad[0]][0]}: {said}; expected 0 <= count <= n, n >= 1 and a class from 0 (or -1: abstained)"
        )
