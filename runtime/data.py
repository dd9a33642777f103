"""Data sets that people have on disk: an .npz with inputs `x` and labels `y`."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Arrays(Sequence[tuple[Any, int]]):
    """(input, label) pairs from two arrays of equal length."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Arrays(self.x[index], self.y[index])
        return self.x[index], int(self.y[index])


def load_data(path: str, skip: int = 1, limit: int | None = None) -> Arrays:
    """Every `skip`-th input of an .npz file with arrays x (N, *shape) and y (N,), at most `limit`; never unpickles.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an .npz, missing arrays, lengths that disagree.
    """
    if skip < 1 or (limit is not None and limit < 0):
        raise ValueError(f"skip = {skip}, limit = {limit}: expected skip >= 1 and limit >= 0")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such data file")
    try:
        # zipfile first: np.load takes what is not a zip file for an .npy or a pickle.
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
            x, y = file["x"], file["y"]
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: expected an .npz file with arrays x and y ({error})") from None
    if y.ndim != 1 or x.shape[:1] != y.shape or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"{path}: x has shape {x.shape}, y {y.dtype} {y.shape}; expected (N, ...) and integer (N,)")
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{path}: x has dtype {x.dtype}, expected real numbers")
    x = x.astype(np.float32, copy=False)
    return Arrays(x[::skip][:limit], y[::skip][:limit])
