"""The tail table's file: HDF5 schema, version, digest, validation; both sides share it. tables/README.md describes every field."""

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from .format import TableError, compute_digest

FILETYPE = "certlut-tails"
FORMAT_VERSION = (1, 0)

# The thresholds counted while sampling unless others are asked for, and those of the shipped table (units of sigma).
THRESHOLDS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0)

# name -> (dtype, unit, description).
DATASETS = {
    "tau": ("<f8", "sigma", "thresholds of e.u, increasing; segment k reaches from the k-th to the next, segment 0 from -inf"),
    "theta": ("<f8", "degree", "angles of a shift from e, from 0 up, below 90"),
    "r": ("<f8", "sigma", "lengths of a shift, increasing"),
    "level": ("<f8", "1", "levels Lam of the likelihood ratio, shape (r, level), 0 first and increasing in each row"),
    "excess": ("<f4", "1", "upper bounds of E[(L - Lam)_+; segment], shape (theta, r, segment, level)"),
}


@dataclass(frozen=True)
class TailData:
    """What a tail table's file holds."""

    datasets: dict[str, npt.NDArray[Any]]
    generator: str
    data_version: int = 0
    proof: dict[str, Any] = field(default_factory=dict)
    digest: str = ""

    def attributes(self) -> dict[str, Any]:
        """The root attributes, without the digest."""
        return {
            "filetype": FILETYPE,
            "format_version": f"{FORMAT_VERSION[0]}.{FORMAT_VERSION[1]}",
            "data_version": self.data_version,
            "generator": self.generator,
            "proof": json.dumps(self.proof, sort_keys=True),
        }


def is_tails(path: str | os.PathLike[str]) -> bool:
    """Whether a file says that it is a tail table; what it is else, or whether it is damaged, its own reader says."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return bool(file.attrs.get("filetype") == FILETYPE)
    except OSError:
        return False


def write_tails(path: str | os.PathLike[str], data: TailData) -> TailData:
    """Write under a temporary name, then rename: a reader never sees half a file. Returns `data` with its digest."""
    path = Path(path)
    _validate(path, data)
    data = replace(data, digest=compute_digest(data.attributes(), data.datasets, DATASETS))
    partial = path.with_name(path.name + ".partial")
    try:
        with h5py.File(partial, "w", libver=("v110", "v110")) as file:
            for name, value in (data.attributes() | {"digest": data.digest}).items():
                file.attrs[name] = value
            for name, (dtype, unit, description) in DATASETS.items():
                values = np.asarray(data.datasets[name], dtype=dtype)
                # One chunk per angle: shuffled bytes of neighbouring nodes compress; timestamps would break byte identity.
                layout = {"chunks": (1, *values.shape[1:]), "compression": "gzip", "compression_opts": 9, "shuffle": True}
                dataset = file.create_dataset(name, data=values, track_times=False, **(layout if values.ndim == 4 else {}))
                dataset.attrs["units"] = unit
                dataset.attrs["description"] = description
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return data


def read_tails(path: str | os.PathLike[str]) -> TailData:
    """Read and check a tail table's file.

    Raises:
        FileNotFoundError: no such file.
        TableError: not HDF5, truncated, another filetype, a newer major version, missing parts, a wrong digest, bad values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such tail table; fetch tails.h5 or build it again")
    try:
        with h5py.File(path, "r", locking=False) as file:
            return _read(path, file)
    except (OSError, RuntimeError, KeyError) as error:
        raise TableError(f"{path}: not a readable HDF5 file, truncated or damaged ({error}); fetch or build it again") from None


def _read(path: Path, file: h5py.File) -> TailData:
    attributes = {name: value.item() if isinstance(value, np.generic) else value for name, value in file.attrs.items()}
    if attributes.get("filetype") != FILETYPE:
        raise TableError(f"{path}: filetype {attributes.get('filetype')!r}, expected {FILETYPE!r}; this is not a tail table")
    version = str(attributes.get("format_version", "?"))
    if version.split(".")[0] != str(FORMAT_VERSION[0]):
        raise TableError(
            f"{path}: format_version {version}, this reader knows {FORMAT_VERSION[0]}.x; "
            "install the certlut release that wrote it, or build the table again"
        )
    try:
        data = TailData(
            datasets={name: np.asarray(file[name]) for name in DATASETS},
            generator=str(attributes["generator"]),
            data_version=int(attributes["data_version"]),
            proof=dict(json.loads(attributes["proof"])),
            digest=str(attributes["digest"]),
        )
        digest = compute_digest(attributes, data.datasets, DATASETS)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise TableError(f"{path}: incomplete or malformed tail table ({error}); fetch or build it again") from None
    if digest != data.digest:
        raise TableError(
            f"{path}: digest {data.digest[:16]}..., but the contents give {digest[:16]}...; "
            "the file was edited or damaged: fetch or build it again"
        )
    _validate(path, data)
    return data


def _validate(path: Path, data: TailData) -> None:
    """Shapes, dtypes, finite values in range, increasing axes and levels, a first angle of 0."""
    d = data.datasets
    axes = {name: len(d[name]) for name in ("tau", "theta", "r")}
    levels = d["level"].shape[-1]
    shapes: dict[str, tuple[int, ...]] = {name: (count,) for name, count in axes.items()}
    shapes |= {"level": (axes["r"], levels), "excess": (axes["theta"], axes["r"], axes["tau"] + 1, levels)}
    for name, (dtype, _, _) in DATASETS.items():
        values = d[name]
        if values.shape != shapes[name] or values.dtype != np.dtype(dtype):
            raise TableError(f"{path}: dataset {name} is {values.dtype} {values.shape}, expected {np.dtype(dtype)} {shapes[name]}")
        if not np.isfinite(values).all():
            raise TableError(f"{path}: dataset {name} has non-finite values")
        if name != "excess" and not (values.size and (np.diff(values) > 0).all()):
            raise TableError(f"{path}: dataset {name} is not increasing")
    if d["theta"][0] != 0.0 or len(d["theta"]) < 2 or not d["theta"][-1] < 90.0:
        raise TableError(f"{path}: dataset theta has {d['theta'].tolist()}, expected angles from 0 up, below 90 degrees")
    if not d["r"][0] > 0.0 or (d["level"][:, 0] != 0.0).any():
        raise TableError(f"{path}: lengths r that are not positive, or first levels other than 0")
    if not ((d["excess"] >= 0.0) & (d["excess"] <= 1.001)).all():
        raise TableError(f"{path}: dataset excess has values outside 0 to 1, where expectations of a part of L lie")
