"""Data sets that people have on disk: an .npz with inputs `x` and labels `y`."""

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
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such data file")
    try:
        with np.load(path, allow_pickle=False) as file:
            x, y = file["x"], file["y"]
    except (ValueError, OSError, KeyError, EOFError) as error:
        raise ValueError(f"{path}: expected an .npz file with arrays x and y ({error})") from None
    if y.ndim != 1 or len(x) != len(y) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"{path}: x has shape {x.shape}, y {y.dtype} {y.shape}; expected (N, ...) and integer (N,)")
    x = x.astype(np.float32, copy=False)
    return Arrays(x[::skip][:limit], y[::skip][:limit])
