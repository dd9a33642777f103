"""Data sets that people have: in memory whatever has pairs; on disk .npz and .pt files, CIFAR-10's folder, class folders."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .images import ImageFolder, cifar_folder, load_cifar, split_folder
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


class Pairs(Sequence[tuple[Any, int]]):
    """(input, label) pairs of any source, in its order; an item is checked when it is asked for."""

    def __init__(self, source: Any, num_classes: int) -> None:
        self.source, self.num_classes = source, num_classes

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> Any:
        """ValueError unless it is a pair whose label is a class."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        item = self.source[index]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise ValueError(f"data[{index}] is {_described(item)}: expected a pair (input, label)")
        try:
            label = float(item[1])
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"data[{index}] has {_described(item[1])} for a label: expected a whole number") from None
        if not (label.is_integer() and 0 <= label < self.num_classes):
            raise ValueError(
                f"data[{index}] has label {label:g}: expected a whole number from 0 to {self.num_classes - 1} "
                f"({self.num_classes} classes)"
            )
        return item[0], int(label)


def as_pairs(data: Any, num_classes: int) -> Pairs:
    """What users have in memory, as pairs: read when asked for where that is possible.

    Args:
        data: a sequence or torch Dataset of (input, label); an iterator of them, as zip(inputs, labels); a pair of arrays (x, y) of
            equal length; a DataLoader of batches (x, y), in a fixed order.
        num_classes: labels are 0 to num_classes - 1.

    Raises:
        ValueError: anything else, in one line; items are checked when they are asked for.
    """
    if isinstance(data, Pairs):
        return Pairs(data.source, num_classes)
    if type(data).__name__ == "DataLoader":
        data = _of_loader(data)
    elif isinstance(data, (tuple, list)) and len(data) == 2 and hasattr(data[0], "shape") and hasattr(data[1], "__len__"):
        x, y = data
        if len(x) != len(y):
            raise ValueError(f"data = {_described(x)} and {_described(y)}: expected as many labels as inputs")
        data = list(zip(x, y, strict=True))
    elif not hasattr(data, "__getitem__") and hasattr(data, "__iter__"):
        data = list(data)
    if (
        hasattr(data, "shape")
        or isinstance(data, (str, bytes, dict))
        or not (hasattr(data, "__getitem__") and hasattr(data, "__len__"))
    ):
        raise ValueError(
            f"data = {_described(data)}: expected (input, label) pairs (a sequence, a torch Dataset, zip(inputs, labels)), a pair "
            f"of arrays (x, y), or a DataLoader"
        )
    return Pairs(data, num_classes)


def _of_loader(loader: Any) -> Any:
    """The data set behind a DataLoader that changes nothing of it; else all its batches, taken apart."""
    from torch.utils.data import SequentialSampler, default_collate

    if "Random" in type(loader.sampler).__name__:
        raise ValueError("data = a DataLoader that shuffles: expected the same order each time; give its dataset, or shuffle=False")
    if isinstance(loader.sampler, SequentialSampler) and loader.collate_fn is default_collate and not loader.drop_last:
        return loader.dataset
    pairs: list[Any] = []
    for batch in loader:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise ValueError(f"data = a DataLoader whose batch is {_described(batch)}: expected a pair (x, y)")
        pairs.extend(zip(*batch, strict=True))
    return pairs


def _described(thing: Any) -> str:
    """Its type, and its shape or length."""
    if (shape := getattr(thing, "shape", None)) is not None:
        return f"{type(thing).__name__} of shape {tuple(shape)}"
    return f"{type(thing).__name__} of length {len(thing)}" if hasattr(thing, "__len__") else type(thing).__name__


def load_data(path: str, skip: int = 1, limit: int | None = None, split: str | None = None) -> Arrays | ImageFolder:
    """Every `skip`-th input of a data set, at most `limit`: a sequence of (float32 input, label). No pickled code is run.

    Args:
        path: an .npz file with arrays x (N, *shape) and y (N,); a .pt file of torch.save with tensors x and y (a dictionary or a
            pair); a folder with CIFAR-10's binary or Python batches; a folder [split/]class/image. Images of folders are in
            [0, 1], channels first; values of files are taken as they are.
        skip: take every skip-th input.
        limit: take at most this many.
        split: train, test or val; for folders only. By default CIFAR-10's test, and a tree's val or test.

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
    found = cifar_folder(path)
    if found is None:
        return ImageFolder(split_folder(path, split))
    x, y = load_cifar(*found, split or "test")
    return Arrays(x, y, 255.0)


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
