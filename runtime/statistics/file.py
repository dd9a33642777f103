"""The statistics file (HDF5): what was drawn, from which radii can be redone at any alpha."""

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..jobs.atomic import replacing
from ..threats.sets import Ball, Ray, Threat
from .summary import SCALARS, Part, Statistics

STATISTICS = "certlut-statistics"

STATISTICS_VERSION = 2


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
    threats: tuple[Threat, ...] = ()
    """What the parts of the gradient were kept for."""


_COLUMNS = ("idx", "label", "predict", "seconds")

ALL_ROWS = slice(None)


def write_statistics(path: str | os.PathLike[str], sampled: Sampled) -> None:
    """Write under a temporary name, then rename. Made in memory first: HDF5 does not survive a full disk."""
    s = sampled.statistics
    whole = io.BytesIO()
    with h5py.File(whole, "w") as hdf:
        attributes = {"filetype": STATISTICS, "format_version": STATISTICS_VERSION, "sigma": s.sigma, "d": s.d}
        for name, value in (attributes | {"settings": json.dumps(sampled.settings, sort_keys=True)}).items():
            hdf.attrs[name] = value
        for name in _COLUMNS:
            hdf.create_dataset(name, data=getattr(sampled, name), track_times=False)
        for name in ("count", "n", "b", "sums"):
            hdf.create_dataset(name, data=getattr(s, name), track_times=False)
        described = hdf.create_group("threats")
        for place, threat in enumerate(sampled.threats):
            _write_threat(described.create_group(threat.name), threat, place)
        for name, part in s.parts.items():
            group = hdf.create_group(f"parts/{name}")
            group.attrs["d"] = part.d
            group.attrs["coordinates"] = part.coordinates
            group.attrs["dual"] = part.dual
            group.attrs["key"] = part.key
            for field in SCALARS:
                group.create_dataset(field, data=getattr(part, field), track_times=False)
    with replacing(path) as file:
        file.write(whole.getbuffer())


def read_statistics(path: str | os.PathLike[str], rows: slice = ALL_ROWS) -> Sampled:
    """Read a statistics file, or some inputs of it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a statistics file, or damaged; the message names it.
    """
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
                columns: dict[str, Any] = {field: group[field][rows] for field in SCALARS}
                d, coordinates, dual = int(group.attrs["d"]), int(group.attrs["coordinates"]), float(group.attrs["dual"])
                parts[name] = Part(d, coordinates, dual, str(group.attrs["key"]), **columns)
            votes: dict[str, Any] = {name: file[name][rows] for name in ("count", "n", "b", "sums")}
            statistics = Statistics(**votes, sigma=float(file.attrs["sigma"]), d=int(file.attrs["d"]), parts=parts)
            inputs: dict[str, Any] = {name: file[name][rows] for name in _COLUMNS}
            threats = tuple(_read_threat(name, group) for name, group in sorted(file["threats"].items(), key=_place))
            return Sampled(statistics, settings=json.loads(file.attrs["settings"]), threats=threats, **inputs)
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path}: not a readable statistics file, truncated or damaged ({error})") from None


def count_inputs(path: str | os.PathLike[str]) -> int:
    """How many inputs a statistics file holds; raises as `read_statistics`."""
    read_statistics(path, slice(0, 0))
    with h5py.File(path, "r") as file:
        return len(file["idx"])


def _write_threat(group: h5py.Group, threat: Threat, place: int) -> None:
    """Name, place, p (absent for a ray) and its mask, basis or direction."""
    group.attrs["place"] = place
    if isinstance(threat, Ball):
        group.attrs["p"] = threat.p
    for name in ("mask", "basis", "v"):
        if (array := getattr(threat, name, None)) is not None:
            group.create_dataset(name, data=array, compression="gzip", track_times=False)


def _read_threat(name: str, group: h5py.Group) -> Threat:
    arrays = {kind: group[kind][()] for kind in ("mask", "basis", "v") if kind in group}
    return Ray(name, arrays["v"]) if "p" not in group.attrs else Ball(name, float(group.attrs["p"]), **arrays)


def _place(item: tuple[str, h5py.Group]) -> int:
    return int(item[1].attrs["place"])
