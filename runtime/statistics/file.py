"""The statistics file (HDF5): what was drawn, from which radii can be redone at any alpha."""

import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..jobs.atomic import replacing
from ..threats.declare import KINDS
from ..threats.sets import ALL, Threat
from .summary import BETS, REACHES, SCALARS, Part, Statistics
from .votes import Tail, none_counted

STATISTICS = "certlut-statistics"
# Version 2 has no class counts, tails, looks, proposal and noise, and six sums that nothing reads.
STATISTICS_VERSION, OLDEST_VERSION = 3, 2


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
_VOTES = ("count", "n", "b", "sums", "classes", "class_count", "looks", "selection")
# Attributes of a part.
_ABOUT: Mapping[str, Callable[[Any], Any]] = {"d": int, "coordinates": int, "dual": float, "largest": int, "key": str}

# Scalars of a part that version 2 had not.
NEW = ("along_high", "thin", "reach")

ALL_ROWS = slice(None)


def write_statistics(path: str | os.PathLike[str], sampled: Sampled) -> None:
    """Write under a temporary name, then rename. Made in memory first: HDF5 does not survive a full disk."""
    s = sampled.statistics
    whole = io.BytesIO()
    with h5py.File(whole, "w") as hdf:
        attributes = {"filetype": STATISTICS, "format_version": STATISTICS_VERSION, "sigma": s.sigma, "d": s.d}
        about = {"settings": sampled.settings, "proposal": s.proposal, "noise": s.noise, "schedule": s.schedule}
        hdf.attrs.update(attributes | {name: json.dumps(value, sort_keys=True) for name, value in about.items()})
        for name in _COLUMNS:
            hdf.create_dataset(name, data=getattr(sampled, name), track_times=False)
        for name in _VOTES:
            hdf.create_dataset(name, data=getattr(s, name), track_times=False)
        described = hdf.create_group("threats")
        for place, threat in enumerate(sampled.threats):
            _write_threat(described.create_group(threat.name), threat, place)
        for name, part in s.parts.items():
            group = hdf.create_group(f"parts/{name}")
            group.attrs.update({field: getattr(part, field) for field in _ABOUT})
            for field in SCALARS:
                group.create_dataset(field, data=getattr(part, field), track_times=False)
        tails = hdf.create_group("tails")
        for name, tail in s.tails.items():
            group = tails.create_group(name)
            group.attrs.update({"key": tail.key, "slack": tail.slack})
            group.create_dataset("thresholds", data=tail.thresholds, track_times=False)
            group.create_dataset("largest", data=tail.largest, track_times=False)
    with replacing(path) as file:
        file.write(whole.getbuffer())


def read_statistics(path: str | os.PathLike[str], rows: slice = ALL_ROWS) -> Sampled:
    """Read a statistics file, or some inputs of it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a statistics file, or damaged; the message names it.

    Examples:
        >>> from certlut import read_statistics
        >>> sampled = read_statistics("stats.h5")
        >>> sampled.idx.tolist(), sampled.statistics.sigma
        ([0, 1, 2, 3, 4, 5], 0.5)
        >>> votes = sampled.statistics.count.sum(axis=1)  # for the class `sampled.predict`
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such statistics file")
    try:
        with h5py.File(path, "r", locking=False) as file:
            version = file.attrs.get("format_version")
            if file.attrs.get("filetype") != STATISTICS or version not in range(OLDEST_VERSION, STATISTICS_VERSION + 1):
                raise ValueError(
                    f"{path}: filetype {file.attrs.get('filetype')!r} version {version}, "
                    f"expected {STATISTICS!r} version {OLDEST_VERSION} or {STATISTICS_VERSION}"
                )
            statistics = _read_2(file, rows) if version == 2 else _read(file, rows)
            inputs: dict[str, Any] = {name: file[name][rows] for name in _COLUMNS}
            threats = tuple(_read_threat(name, group) for name, group in sorted(file["threats"].items(), key=_place))
            return Sampled(statistics, settings=json.loads(file.attrs["settings"]), threats=threats, **inputs)
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path}: not a readable statistics file, truncated or damaged ({error})") from None


def _read(file: h5py.File, rows: slice) -> Statistics:
    parts = {name: _read_part(group, rows) for name, group in file["parts"].items()}
    tails = {name: _read_tail(group, rows) for name, group in file["tails"].items()}
    about = {name: json.loads(file.attrs[name]) for name in ("proposal", "noise", "schedule")}
    votes: dict[str, Any] = {name: file[name][rows] for name in _VOTES}
    return Statistics(**votes, **about, sigma=float(file.attrs["sigma"]), d=int(file.attrs["d"]), parts=parts, tails=tails)


def _read_part(group: h5py.Group, rows: slice) -> Part:
    about = {name: kind(group.attrs[name]) for name, kind in _ABOUT.items()}
    return Part(**about, **{field: group[field][rows] for field in SCALARS})


def _read_tail(group: h5py.Group, rows: slice) -> Tail:
    return Tail(str(group.attrs["key"]), group["thresholds"][()], group["largest"][rows], float(group.attrs.get("slack", 0.0)))


def _read_2(file: h5py.File, rows: slice) -> Statistics:
    """Format 2: no bet from above along directions, one sum by another name, nothing of what version 3 adds."""
    parts = {}
    for name, group in file["parts"].items():
        about = {field: kind(group.attrs[field]) for field, kind in _ABOUT.items() if field != "largest"}
        columns: dict[str, Any] = {field: group[field][rows] for field in SCALARS if field not in ("norm_b", *NEW)}
        unmade = np.full_like(columns["along"], np.nan)
        columns |= {"along_high": unmade, "thin": unmade, "norm_b": group["lp_b"][rows]}
        columns["reach"] = np.full((len(unmade), len(REACHES), BETS + 1), np.nan)
        parts[name] = Part(**about, largest=0, **columns)
    votes: dict[str, Any] = {name: file[name][rows] for name in ("count", "n", "b", "sums")}
    none = none_counted(len(votes["count"]))
    votes |= {"classes": none, "class_count": none, "looks": np.zeros(len(none), dtype=np.int64)}
    votes["selection"] = np.zeros((len(none), 2), dtype=np.int64)
    return Statistics(**votes, sigma=float(file.attrs["sigma"]), d=int(file.attrs["d"]), parts=parts)


def count_inputs(path: str | os.PathLike[str]) -> int:
    """How many inputs a statistics file holds; raises as `read_statistics`."""
    read_statistics(path, slice(0, 0))
    with h5py.File(path, "r", locking=False) as file:
        return len(file["idx"])


def by_votes(path: str | os.PathLike[str]) -> str:
    """In a line, for how many inputs of a file votes proposed where gradients were asked for; empty where none."""
    count_inputs(path)
    with h5py.File(path, "r", locking=False) as file:
        if json.loads(file.attrs.get("proposal", "{}")).get("by") != "gradient":
            return ""
        bet = file[f"parts/{ALL}/thin"][:, 0, 0]
        why = "no gradient, or stopped before it was asked for" if json.loads(file.attrs["schedule"]) else "no gradient"
    count = int(np.isnan(bet).sum())
    return f"{count} of {len(bet)} inputs: votes proposed ({why})" if count else ""


def _write_threat(group: h5py.Group, threat: Threat, place: int) -> None:
    """Its place and kind, its numbers as attributes and its arrays as datasets."""
    group.attrs.update({"place": place, "kind": threat.kind})
    for name, value in threat.describe().items():
        if isinstance(value, np.ndarray):
            group.create_dataset(name, data=value, compression="gzip", track_times=False)
        else:
            group.attrs[name] = value


def _read_threat(name: str, group: h5py.Group) -> Threat:
    values = {key: value.item() for key, value in group.attrs.items() if key not in ("place", "kind")}
    # Version 2 knew two kinds, the balls with a p.
    kind = str(group.attrs.get("kind", "ball" if "p" in values else "ray"))
    return KINDS[kind](name=name, **values, **{key: dataset[()] for key, dataset in group.items()})


def _place(item: tuple[str, h5py.Group]) -> int:
    return int(item[1].attrs["place"])
