"""Threats as the command line names them."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .declare import Direction, Lp, Subspace
from .sets import Threat

KINDS = ("mask", "basis", "direction")


def parse_threats(texts: Sequence[str]) -> list[str | Threat]:
    """`l1`, `lp:3`, `red=mask:red.npy`, `span=basis:q.npy,p=inf`, `axis=direction:v.npy`; any other word stays a name.

    Raises:
        FileNotFoundError: no such .npy file.
        ValueError: another form, a file that is no array, or what `Subspace`, `Direction` and `Lp` refuse.
    """
    return [_parse(text) for text in texts]


def _parse(text: str) -> str | Threat:
    name, given, value = text.partition("=")
    if not given:
        head, colon, p = text.partition(":")
        return Lp(_number(text, p)) if colon and head == "lp" else text
    kind, colon, file = value.partition(":")
    file, comma, exponent = file.partition(",p=")
    if kind not in KINDS or not colon or (comma and kind == "direction"):
        raise ValueError(f"threat {text!r}: expected NAME=mask:FILE, NAME=basis:FILE (then ,p=P if not 2) or NAME=direction:FILE")
    array = _array(file)
    if kind == "direction":
        return Direction(array, name)
    power = _number(text, exponent) if comma else 2.0
    return Subspace(array, power, name) if kind == "mask" else Subspace(basis=array, p=power, name=name)


def _number(text: str, p: str) -> float:
    try:
        return float(p)
    except ValueError:
        raise ValueError(f"threat {text!r}: p = {p!r}, expected a number or inf") from None


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
