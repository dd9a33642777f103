"""MNIST and its relatives (Fashion-MNIST, KMNIST, ...) as they are distributed: four IDX files, plain or .gz.

An IDX file of bytes: 0, 0, 8 (unsigned bytes), the number of dimensions, each dimension as four bytes (largest first), the bytes.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PREFIXES = {"train": "train", "test": "t10k"}
# As torchvision unpacks them, too.
BELOW = (".", "raw", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw")


def idx_folder(path: Path) -> Path | None:
    """`path`, or the folder below it, that holds such files; else None."""
    folders = (path / below for below in BELOW)
    return next((folder for folder in folders if any(_find(folder, split, "images", 3) for split in PREFIXES)), None)


def load_idx(folder: Path, split: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images (N, 1, height, width), uint8, and labels (N,) of a split.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: a split that is not train or test; a file that is damaged or another thing, numbers that disagree.
    """
    if split not in PREFIXES:
        raise ValueError(f"{folder}: has no split {split!r}, expected train or test")
    found: list[Any] = []
    for what, dimensions in (("images", 3), ("labels", 1)):
        path = _find(folder, split, what, dimensions)
        if path is None:
            raise FileNotFoundError(f"{folder}: no {PREFIXES[split]}-{what}-idx{dimensions}-ubyte, plain or .gz")
        found.append(_read(path, dimensions))
    x, y = found
    if len(x) != len(y):
        raise ValueError(f"{folder}: {len(x)} images and {len(y)} labels in the {split} split")
    return x[:, None], y.astype(np.int64)


def _find(folder: Path, split: str, what: str, dimensions: int) -> Path | None:
    names = (f"{PREFIXES[split]}-{what}{dot}idx{dimensions}-ubyte{gz}" for dot in ("-", ".") for gz in ("", ".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be unpacked ({error})") from None
    head = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) < head:
        raise ValueError(f"{path}: begins with {content[:4].hex(' ')}, expected 00 00 08 0{dimensions}: no IDX file of bytes")
    shape = struct.unpack(f">{dimensions}I", content[4:head])
    if len(content) - head != math.prod(shape):
        raise ValueError(f"{path}: {len(content) - head} bytes of data, expected {math.prod(shape)} for shape {shape}")
    return np.frombuffer(content, dtype=np.uint8, offset=head).reshape(shape)
