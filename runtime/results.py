"""Results: the field's TSV, and the statistics file (HDF5) that radii can be redone from."""

import csv
import datetime
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from .statistics import SCALARS, Part, Statistics

STATISTICS = "certlut-statistics"
STATISTICS_VERSION = 1
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


def write_tsv(path: str | os.PathLike[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Write rows in order under a temporary name, then rename."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else list(FIRST), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace(path, text.getvalue().encode())


def replace(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file under a temporary name, then rename: what was there stays until all of it is on the disk."""
    partial = Path(f"{os.fspath(path)}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), os.fspath(path)) from None
    finally:
        partial.unlink(missing_ok=True)


def read_tsv(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Numeric columns of a results file, by name (`time` is left out)."""
    with Path(path).open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    names = [name for name in (rows[0] if rows else FIRST) if name != "time"]
    return {name: np.array([float(r[name]) for r in rows]) for name in names}


@dataclass(frozen=True)
class Sampled:
    """A statistics file: what was drawn for N inputs, and with which settings."""

    statistics: Statistics
    idx: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    predict: npt.NDArray[np.int64]
    """The class chosen from the selection samples; whether it holds depends on alpha."""
    seconds: npt.NDArray[np.float64]
    settings: dict[str, Any]


_COLUMNS = ("idx", "label", "predict", "seconds")


def write_statistics(path: str | os.PathLike[str], sampled: Sampled) -> None:
    """Write under a temporary name, then rename. Made in memory first: HDF5 does not survive a full disk."""
    s = sampled.statistics
    whole = io.BytesIO()
    with h5py.File(whole, "w") as file:
        attributes = {"filetype": STATISTICS, "format_version": STATISTICS_VERSION, "sigma": s.sigma, "d": s.d}
        for name, value in (attributes | {"settings": json.dumps(sampled.settings, sort_keys=True)}).items():
            file.attrs[name] = value
        for name in _COLUMNS:
            file.create_dataset(name, data=getattr(sampled, name), track_times=False)
        file.create_dataset("count", data=s.count, track_times=False)
        file.create_dataset("n", data=s.n, track_times=False)
        for name, part in s.parts.items():
            group = file.create_group(f"parts/{name}")
            group.attrs["d"] = part.d
            group.attrs["key"] = part.key
            for field in SCALARS:
                group.create_dataset(field, data=getattr(part, field), track_times=False)
    replace(path, whole.getvalue())


def read_statistics(path: str | os.PathLike[str]) -> Sampled:
    """Read a statistics file. FileNotFoundError; ValueError that names the file for anything that is not one."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such statistics file")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("filetype") != STATISTICS or file.attrs.get("format_version") != STATISTICS_VERSION:
                raise ValueError(
                    f"{path}: filetype {file.attrs.get('filetype')!r} version {file.attrs.get('format_version')}, "
                    f"expected {STATISTICS!r} version {STATISTICS_VERSION}"
                )
            parts = {}
            for name, group in file["parts"].items():
                columns: dict[str, Any] = {field: np.asarray(group[field], dtype=np.float64) for field in SCALARS}
                parts[name] = Part(d=int(group.attrs["d"]), key=str(group.attrs["key"]), **columns)
            statistics = Statistics(
                np.asarray(file["count"]), np.asarray(file["n"]), float(file.attrs["sigma"]), int(file.attrs["d"]), parts
            )
            inputs: dict[str, Any] = {name: np.asarray(file[name]) for name in _COLUMNS}
            return Sampled(statistics, settings=json.loads(file.attrs["settings"]), **inputs)
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path}: not a readable statistics file, truncated or damaged ({error})") from None
