"""Threats as the command line names them."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .declare import Direction, Line, Lp, Sparse, Subspace
from .sets import Threat

KINDS = ("mask", "basis", "direction", "line")


def parse_threats(texts: Sequence[str]) -> list[str | Threat]:
    """`l1`, `lp:3`, `sparse:3`, `red=mask:red.npy`, `span=basis:q.npy,p=inf`, `axis=direction:v.npy` or `line:`; else a name.

    Raises:
        FileNotFoundError: no such .npy file.
        ValueError: another form, a file that is no array, or what the threat itself refuses.
    """
    return [_parse(text) for text in texts]


def parse_targets(texts: Sequence[str]) -> dict[str, float]:
    """`l2=0.5`: threat -> radius. ValueError for another form, or a threat given twice."""
    targets: dict[str, float] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            radius = float(value)
        except ValueError:
            radius = None
        if not name or radius is None or name in targets:
            raise ValueError(f"target {text!r}: expected THREAT=RADIUS, each threat once, as in l2=0.5")
        targets[name] = radius
    return targets


def _parse(text: str) -> str | Threat:
    name, given, value = text.partition("=")
    if not given:
        head, colon, p = text.partition(":")
        if colon and head == "sparse":
            return Sparse(_whole(text, p))
        return Lp(_number(text, p)) if colon and head == "lp" else text
    kind, colon, file = value.partition(":")
    file, comma, exponent = file.partition(",p=")
    along = kind in ("direction", "line")
    if kind not in KINDS or not colon or (comma and along):
        raise ValueError(
            f"threat {text!r}: expected NAME=mask:FILE, NAME=basis:FILE (then ,p=P if not 2), NAME=direction:FILE or NAME=line:FILE"
        )
    array = _array(file)
    if along:
        return Direction(array, name) if kind == "direction" else Line(array, name)
    power = _number(text, exponent) if comma else 2.0
    return Subspace(array, power, name) if kind == "mask" else Subspace(basis=array, p=power, name=name)


def _number(text: str, p: str) -> float:
    try:
        return float(p)
    except ValueError:
        raise ValueError(f"threat {text!r}: p = {p!r}, expected a number or inf") from None


def _whole(text: str, k: str) -> int:
    try:
        return int(k)
    except ValueError:
        raise ValueError(f"threat {text!r}: k = {k!r}, expected a whole number") from None


def _array(file: str) -> Any:
    if not Path(file).is_file():
        raise FileNotFoundError(f"{file}: no such .npy file")
    try:
        array = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file}: not a .npy array ({error})") from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{file}: an .npz archive, expected one array in a .npy file")
    return array
