"""Data sets that people have on disk: .npz and .pt files, the folders of CIFAR and MNIST, a tree of class folders."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .cifar import cifar_folder, load_cifar
from .idx import idx_folder, load_idx
from .images import ImageFolder, split_folder
from .untrusted import load_tensors


class Arrays(Sequence[tuple[Any, int]]):
    """(input, label) pairs from two arrays of equal length; an input becomes float32, over `unit`, when asked for."""

    def __init__(self, x: Any, y: Any, unit: float = 1.0) -> None:
        self.x, self.y, self.unit = x, y, np.float32(unit)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Arrays(self.x[index], self.y[index], float(self.unit))
        x = np.asarray(self.x[index], dtype=np.float32)
        return x if self.unit == 1.0 else x / self.unit, int(self.y[index])


def load_data(path: str, skip: int = 1, limit: int | None = None, split: str | None = None) -> Arrays | ImageFolder:
    """Every `skip`-th input of a data set, at most `limit`: a sequence of (float32 input, label). No pickled code is run.

    Args:
        path: an .npz file with arrays x (N, *shape) and y (N,); a .pt file of torch.save with tensors x and y (a dictionary or a
            pair); a folder with the binary or Python batches of CIFAR-10 or CIFAR-100; one with MNIST's four IDX files, plain or
            .gz; a folder [split/]class/image. Images of folders are in [0, 1], channels first; values of files are taken as they
            are.
        skip: take every skip-th input.
        limit: take at most this many.
        split: train, test or val; for folders only. By default CIFAR's and MNIST's test, and a tree's val or test.

    Raises:
        FileNotFoundError: no such file, folder or split.
        ValueError: another format, missing arrays, lengths that disagree, a split of a single file.
        ImportError: images without Pillow, a .pt file without torch.
    """
    if skip < 1 or (limit is not None and limit < 0):
        raise ValueError(f"skip {skip}, max {limit}: expected skip >= 1 and max >= 0")
    where = Path(path)
    data: Arrays | ImageFolder
    if where.is_dir():
        data = _folder(where, split)
    elif not where.is_file():
        raise FileNotFoundError(f"{path}: no such data file")
    elif split is not None:
        raise ValueError(f"{path}: a file is one split; --split {split} is for folders")
    else:
        data = _tensors(path) if where.suffix in (".pt", ".pth") else _npz(path)
    part: Arrays | ImageFolder = data[::skip][:limit]
    return part


def _folder(path: Path, split: str | None) -> Arrays | ImageFolder:
    if (found := cifar_folder(path)) is not None:
        return Arrays(*load_cifar(*found, split or "test"), 255.0)
    if (folder := idx_folder(path)) is not None:
        return Arrays(*load_idx(folder, split or "test"), 255.0)
    return ImageFolder(split_folder(path, split))


def _npz(path: str) -> Arrays:
    try:
        # zipfile first: np.load takes what is not a zip file for an .npy or a pickle.
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
            x, y = file["x"], file["y"]
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: expected an .npz file with arrays x and y ({error})") from None
    return _checked(path, x, y)


def _tensors(path: str) -> Arrays:
    content = load_tensors(path, trust=None)
    pair = (content.get("x"), content.get("y")) if isinstance(content, dict) else content
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(type(t).__name__ == "Tensor" for t in pair):
        held = f"keys {', '.join(map(str, list(content)[:4]))}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise ValueError(f"{path}: holds {held}; expected tensors x and y, as a dictionary or a pair")
    try:
        # NumPy has no bfloat16; float32 holds each of its values.
        x, y = ((t.float() if t.is_floating_point() and t.itemsize < 4 else t).detach().numpy() for t in pair)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{path}: expected dense tensors x and y ({str(error).splitlines()[0]})") from None
    return _checked(path, x, y)


def _checked(path: str, x: Any, y: Any) -> Arrays:
    if y.ndim != 1 or x.shape[:1] != y.shape or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"{path}: x has shape {x.shape}, y {y.dtype} {y.shape}; expected (N, ...) and integer (N,)")
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{path}: x has dtype {x.dtype}, expected real numbers")
    return Arrays(x, y)
