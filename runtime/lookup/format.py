"""The table file: HDF5 schema, version, digest, validation. tables/README.md describes every field; both sides share this."""

import errno
import hashlib
import io
import json
import math
import os
import reprlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..jobs.atomic import replacing
from ..kernels.arrays import Array

FILETYPE = "certlut-table"
FORMAT_VERSION = (1, 0)

ATTRIBUTES = {
    "filetype": str,
    "format_version": str,
    "data_version": int,
    "sigma": float,
    "normalised": bool,
    "grid": str,
    "grid_sha256": str,
    "generator": str,
    "tolerance": float,
    "proof": str,
    "digest": str,
}
# name -> (dtype, unit, description); node arrays have the shape (z, rho, theta).
DATASETS = {
    "z": ("<f8", "1", "axis 0: Phi^-1(q)"),
    "rho": ("<f8", "1", "axis 1: hypot(m1, m2) / phi(z)"),
    "theta": ("<f8", "degree", "axis 2: angle of (-m1, m2); 0 points against the gradient, 90 across it, 180 along it"),
    "radius": ("<f8", "sigma", "radius at which the node's cut is taken"),
    "a0": ("<f8", "1", "multiplier of E f"),
    "a1": ("<f4", "1", "multiplier of E u1 f"),
    "a2": ("<f4", "1", "multiplier of E u2 f"),
    "c": ("<f8", "1", "upper bound of E(L_r(u1) - a0 - a1 u1 - a2 u2)_+ for the stored radius and multipliers"),
    "status": ("|u1", "enum", "1 slab, 2 both constraints active, 3 m1 slack, 4 half-space; 0 (failed) is never stored"),
}
# Where an axis may run: beyond, its name would mean nothing (no |m| is above phi(z)) or the solver makes no claim.
LIMITS = {"z": (1e-4, 8.0), "rho": (0.0, 0.99999), "theta": (0.0, 180.0)}
AXES = tuple(LIMITS)
# The least step between knots: the look-up divides by it.
LEAST_STEP = 1e-9


class TableError(ValueError):
    """A file that is not a readable, intact table; the message names the file, what was seen and what was expected."""


@dataclass(frozen=True)
class TableData:
    """What a table file holds; `sigma` is None where the table is normalised (serves every sampler)."""

    datasets: dict[str, npt.NDArray[Any]]
    grid: str
    generator: str
    tolerance: float
    sigma: float | None = None
    data_version: int = 0
    proof: dict[str, Any] = field(default_factory=dict)
    digest: str = ""

    def attributes(self) -> dict[str, Any]:
        """The root attributes, without the digest."""
        return {
            "filetype": FILETYPE,
            "format_version": f"{FORMAT_VERSION[0]}.{FORMAT_VERSION[1]}",
            "data_version": self.data_version,
            "sigma": 1.0 if self.sigma is None else self.sigma,
            "normalised": self.sigma is None,
            "grid": self.grid,
            "grid_sha256": hashlib.sha256(self.grid.encode()).hexdigest(),
            "generator": self.generator,
            "tolerance": self.tolerance,
            "proof": json.dumps(self.proof, sort_keys=True),
        }


def compute_digest(
    attributes: dict[str, Any], datasets: dict[str, npt.NDArray[Any]], layout: dict[str, tuple[str, str, str]] = DATASETS
) -> str:
    """sha256 over canonical JSON of the attributes (less digest and proof.date), then name, dtype, shape, bytes of each dataset."""
    plain = {name: value for name, value in attributes.items() if name != "digest"}
    plain["proof"] = {key: value for key, value in json.loads(plain["proof"]).items() if key != "date"}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())
    for name, (dtype, _, _) in layout.items():
        values = np.ascontiguousarray(datasets[name], dtype=dtype)
        digest.update(f"{name} {dtype} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def write_table(path: str | os.PathLike[str], data: TableData) -> TableData:
    """Write all of it or nothing: a reader never sees half a file. Returns `data` with its digest."""
    _validate(Path(path), data)
    data = replace(data, digest=compute_digest(data.attributes(), data.datasets))
    # In memory first: HDF5 does not survive a disk that fills up.
    whole = io.BytesIO()
    with h5py.File(whole, "w", libver=("v110", "v110")) as file:
        for name, value in (data.attributes() | {"digest": data.digest}).items():
            file.attrs[name] = value
        for name, (dtype, unit, description) in DATASETS.items():
            values = np.asarray(data.datasets[name], dtype=dtype)
            # One chunk per z: shuffled bytes of neighbouring nodes compress; timestamps would break byte identity.
            node = values.ndim == 3
            dataset = file.create_dataset(
                name,
                data=values,
                chunks=(1, *values.shape[1:]) if node else None,
                compression="gzip" if node else None,
                compression_opts=9 if node else None,
                shuffle=node,
                track_times=False,
            )
            dataset.attrs["units"] = unit
            dataset.attrs["description"] = description
    with replacing(path) as out:
        out.write(whole.getbuffer())
    return data


def read_table(path: str | os.PathLike[str]) -> TableData:
    """Read and check a table file.

    Raises:
        FileNotFoundError: no such file.
        OSError: it cannot be read.
        TableError: not HDF5, truncated, another filetype, a newer major version, missing parts, a wrong digest, bad values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such table file; build one with `certlut build --out {path}`")
    try:
        # No lock: network file systems may not have any, and a finished table is never written to.
        with h5py.File(path, "r", locking=False) as file:
            return _read(path, file)
    except (OSError, RuntimeError, KeyError) as error:
        # The machine's answer, not the file's; but a damaged address in it is an invalid argument.
        if (number := getattr(error, "errno", None)) and number not in (errno.EINVAL, errno.EOVERFLOW):
            raise OSError(number, os.strerror(number), os.fspath(path)) from None
        raise TableError(f"{path}: not a readable HDF5 file, truncated or damaged ({error}); fetch or build it again") from None


def _read(path: Path, file: h5py.File) -> TableData:
    attributes = {
        name: value.tolist() if isinstance(value, np.generic | np.ndarray) else value for name, value in file.attrs.items()
    }
    filetype, version = attributes.get("filetype"), str(attributes.get("format_version", "?"))
    if filetype != FILETYPE:
        raise TableError(f"{path}: filetype {reprlib.repr(filetype)}, expected {FILETYPE!r}; this is not a table")
    if version.split(".")[0] != str(FORMAT_VERSION[0]):
        raise TableError(
            f"{path}: format_version {version}, this reader knows {FORMAT_VERSION[0]}.x; "
            "install the certlut release that wrote it, or build the table again"
        )
    for name, kind in ATTRIBUTES.items():
        if type(attributes.get(name)) is not kind:
            raise TableError(
                f"{path}: attribute {name} = {reprlib.repr(attributes.get(name))}, expected one {kind.__name__}; "
                "fetch or build it again"
            )
    try:
        data = TableData(
            datasets={name: np.asarray(file[name]) for name in DATASETS},
            grid=attributes["grid"],
            generator=attributes["generator"],
            tolerance=attributes["tolerance"],
            sigma=None if attributes["normalised"] else attributes["sigma"],
            data_version=attributes["data_version"],
            proof=dict(json.loads(attributes["proof"])),
            digest=attributes["digest"],
        )
        digest = compute_digest(attributes, data.datasets)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise TableError(f"{path}: incomplete or malformed table ({error}); fetch or build it again") from None
    if digest != data.digest:
        raise TableError(
            f"{path}: digest {data.digest[:16]}..., but the contents give {digest[:16]}...; "
            "the file was edited or damaged: fetch or build it again"
        )
    if attributes["grid_sha256"] != data.attributes()["grid_sha256"] or (data.sigma is None and attributes["sigma"] != 1.0):
        raise TableError(f"{path}: attributes that contradict each other (grid and its hash, or sigma of a normalised table)")
    _validate(path, data)
    return data


def _validate(path: Path, data: TableData) -> None:
    """Shapes, dtypes, finite values, increasing axes, converged nodes, a usable sigma."""
    shape = tuple(data.datasets[name].size for name in AXES)
    for name, (dtype, _, _) in DATASETS.items():
        values = data.datasets[name]
        expected = (shape[AXES.index(name)],) if name in AXES else shape
        if values.shape != expected or values.dtype != np.dtype(dtype):
            raise TableError(f"{path}: dataset {name} is {values.dtype} {values.shape}, expected {np.dtype(dtype)} {expected}")
        if not np.isfinite(values).all():
            raise TableError(f"{path}: dataset {name} has non-finite values")
        if name in AXES:
            check_axis(f"{path}: axis {name}", values, LIMITS[name])
        elif not (values >= 0).all():
            raise TableError(f"{path}: dataset {name} has negative values")
    if not (data.datasets["radius"] > 0).all():
        raise TableError(f"{path}: dataset radius has values that are not positive")
    if not (data.datasets["status"] > 0).all():
        raise TableError(f"{path}: {int((data.datasets['status'] == 0).sum())} nodes did not converge")
    if data.data_version < 0 or (data.data_version > 0 and not data.proof):
        raise TableError(f"{path}: data_version {data.data_version}, proof {data.proof}; expected 1 or more with a proof, else 0")
    if not (math.isfinite(data.tolerance) and data.tolerance > 0):
        raise TableError(f"{path}: tolerance = {data.tolerance}, expected a positive number")
    if data.sigma is not None and not (math.isfinite(data.sigma) and data.sigma > 0):
        raise TableError(f"{path}: sigma = {data.sigma}, expected a positive number")


def check_axis(what: str, knots: Array, limits: tuple[float, float]) -> None:
    """TableError that begins with `what` unless there are at least two knots, increasing, within `limits`."""
    if len(knots) < 2 or not (np.diff(knots) >= LEAST_STEP).all():
        raise TableError(f"{what} is not increasing, expected 2 knots or more in steps of at least {LEAST_STEP:g}")
    if not limits[0] <= knots[0] < knots[-1] <= limits[1]:
        raise TableError(f"{what} runs from {knots[0]:g} to {knots[-1]:g}, expected within [{limits[0]:g}, {limits[1]:g}]")
